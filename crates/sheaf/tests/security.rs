//! Who is let in, and what is there for whom: real processes, real sockets, TLS with a private authority.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test: its panic is its message")]

mod common;

use std::fs;
use std::process::Output;

use common::{Process, Sandbox, text, wait_until};

/// A router at an address that is not loopback alone, with a token of each kind.
struct World {
    sandbox: Sandbox,
    router: Process,
    join: String,
}

impl World {
    fn new() -> Self {
        let sandbox = Sandbox::new();
        for (file, role) in [
            ("a", &["client", "--app", "a"][..]),
            ("b", &["client", "--app", "b"]),
            ("w", &["worker"]),
            ("o", &["admin"]),
        ] {
            token(&sandbox, file, role);
        }
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let router = sandbox.router_at(&format!("0.0.0.0:{port}"), &[]);
        Self { sandbox, router, join: format!("sheaf://localhost:{port}") }
    }

    /// The words before a command's own that join the router with the token in a file.
    fn joined<'a>(&'a self, token: &'a str, command: &[&'a str]) -> Vec<&'a str> {
        let join = ["--join", &self.join, "--ca", "router/tls/ca.pem", "--token-file", token];
        let (verbs, rest) = command.split_at(command.iter().take_while(|word| !word.starts_with('-')).count());
        [verbs, &join, rest].concat()
    }

    fn sheaf(&self, code: i32, token: &str, command: &[&str]) -> Output {
        self.sandbox.sheaf_exits(code, &self.joined(token, command))
    }

    fn worker(&self, token: &str, data: &str) -> Process {
        let command = ["worker", "--data", data, "--service", "echo", "--", "builtin:echo"];
        let mut command = self.sandbox.command(&self.joined(token, &command));
        // The most that can be said.
        command.env("SHEAF_LOG", "trace");
        self.sandbox.start_command("worker", command)
    }

    fn run(&self, code: i32, token: &str, out: &str) -> Output {
        self.sandbox.rows("rows.txt", 20);
        self.sheaf(code, token, &["run", "--in", "rows.txt", "--out", out, "--service", "echo"])
    }
}

/// Makes a token and keeps it in a file, as a user does.
fn token(sandbox: &Sandbox, file: &str, role: &[&str]) {
    let made = sandbox.sheaf_exits(0, &[&["token", "create", "--data", "router", "--role"], role].concat());
    assert!(made.stdout.len() > 40, "{}", text(&made));
    sandbox.write(file, &made.stdout);
}

fn token_id(sandbox: &Sandbox, what: &str) -> String {
    let list = sandbox.sheaf_exits(0, &["token", "ls", "--data", "router"]);
    let list = String::from_utf8(list.stdout).unwrap();
    let line = list.lines().find(|line| line.contains(what)).unwrap_or_else(|| panic!("no {what} in {list}"));
    line.split(' ').next().unwrap().to_owned()
}

/// Every token that was made, by its secret part, and what the processes have said.
fn assert_no_secret_in(sandbox: &Sandbox, said: &str) {
    for file in ["a", "b", "w", "o"] {
        let token = sandbox.read(file);
        let secret = token.trim().trim_start_matches("sheaf_");
        assert!(secret.len() == 64 && !said.contains(secret), "the token in {file} stands in:\n{said}");
    }
}

#[test]
fn tenants_share_workers_and_see_nothing_of_each_other() {
    let world = World::new();
    let _worker = world.worker("w", "worker-data");
    world.run(0, "a", "a.jsonl");
    world.run(0, "b", "b.jsonl");
    let rows = world.sandbox.output("b.jsonl");
    assert_eq!(rows.len(), 20);
    let own = world.sandbox.output("a.jsonl");
    for (row, line) in &rows {
        // Equal rows of another tenant have other keys, and none of their answers.
        assert_ne!(line["key"], own[row]["key"], "{line}");
        assert_eq!(line["attempts"], 1, "{line}");
    }
    let jobs = |token: &str| text(&world.sheaf(0, token, &["job", "ls"]));
    assert!(jobs("a").contains("a.jsonl") && !jobs("a").contains("b.jsonl") && !jobs("a").contains("worker "));
    assert!(jobs("b").contains("b.jsonl") && !jobs("b").contains("a.jsonl"));
    assert!(["a.jsonl", "b.jsonl", "worker "].iter().all(|seen| jobs("o").contains(seen)));
    let key = own[&1]["key"].as_str().unwrap();
    world.sheaf(0, "a", &["task", "explain", key]);
    world.sheaf(0, "o", &["task", "explain", key]);
    world.sheaf(2, "b", &["task", "explain", key]);
    for command in [
        &["job", "info", "a.jsonl"][..],
        &["job", "cancel", "a.jsonl"],
        &["failures", "a.jsonl"],
        &["retry", "a.jsonl"],
    ] {
        world.sheaf(2, "b", command);
    }
    // The id of the job stands beside its output: whoever takes that up needs its tenant's token.
    world.run(2, "b", "a.jsonl");
    world.run(0, "a", "a.jsonl");
    // Whoever reads the data directory sees all, and needs no token.
    let all = world.sandbox.sheaf_exits(0, &["job", "ls", "--data", "router"]);
    assert!(text(&all).contains("a.jsonl") && text(&all).contains("b.jsonl"));
}

#[test]
fn a_token_is_good_for_its_role_and_no_other() {
    let mut world = World::new();
    for token in ["w", "o"] {
        world.run(2, token, "out.jsonl");
    }
    for token in ["a", "o"] {
        world.worker(token, token_dir(token)).exits(2);
    }
    world.sheaf(2, "w", &["job", "ls"]);
    for token in ["a", "w"] {
        world.sheaf(2, token, &["shutdown"]);
    }
    assert_no_secret_in(&world.sandbox, &format!("{}{}", world.router.log(), world.sandbox.read("worker.log")));
    world.sheaf(0, "o", &["shutdown"]);
    world.router.exits(0);
}

fn token_dir(token: &str) -> &'static str {
    if token == "a" { "worker-a" } else { "worker-o" }
}

#[test]
fn who_is_not_known_or_not_known_any_more_is_refused_for_good() {
    let world = World::new();
    let mut worker = world.worker("w", "worker-data");
    world.run(0, "a", "a.jsonl");
    world.sandbox.write("wrong", format!("sheaf_{}", "0".repeat(64)));
    world.run(2, "wrong", "wrong.jsonl");
    world.worker("wrong", "worker-wrong").exits(2);
    // Nothing is shown at all.
    let ca = ["--ca", "router/tls/ca.pem"];
    world.sandbox.sheaf_exits(2, &[&["job", "ls", "--join", &world.join][..], &ca].concat());
    world.sandbox.sheaf_exits(2, &["token", "revoke", "nobody", "--data", "router"]);
    // Its session ends where it stands, and its worker with it.
    world.sandbox.sheaf_exits(0, &["token", "revoke", &token_id(&world.sandbox, "worker"), "--data", "router"]);
    worker.exits(2);
    world.sandbox.sheaf_exits(0, &["token", "revoke", &token_id(&world.sandbox, "app a"), "--data", "router"]);
    world.run(2, "a", "a2.jsonl");
    // One that is made meanwhile is good at once.
    token(&world.sandbox, "w", &["worker"]);
    let _again = world.worker("w", "worker-data");
    world.run(0, "b", "b.jsonl");
    assert_no_secret_in(&world.sandbox, &format!("{}{}", world.router.log(), world.sandbox.read("worker.log")));
}

#[test]
fn a_router_that_anybody_could_reach_and_nobody_might_enter_does_not_start() {
    let sandbox = Sandbox::new();
    let refused = sandbox.sheaf_exits(2, &["up", "--listen", "0.0.0.0:0", "--data", "router"]);
    assert!(text(&refused).contains("sheaf token create"), "it is said what to do: {}", text(&refused));
    sandbox.sheaf_exits(2, &["up", "--listen", "127.0.0.1:0", "--require-token", "--data", "router"]);
    for wrong in [
        &["--tls-cert", "missing.pem"][..],
        &["--tls-cert", "missing.pem", "--tls-key", "missing.key"],
        &["--tls-name", "x"],
    ] {
        sandbox.sheaf_exits(2, &[&["up", "--listen", "127.0.0.1:0", "--data", "other"], wrong].concat());
    }
    sandbox.sheaf_exits(2, &["token", "create", "--role", "worker", "--app", "a"]);
    sandbox.sheaf_exits(2, &["token", "create", "--role", "client"]);
    sandbox.sheaf_exits(2, &["token", "create", "--role", "client", "--app", "a/b"]);
    assert!(!sandbox.path(".sheaf/tokens").exists());
}

#[test]
fn on_loopback_a_token_may_be_asked_for_without_tls() {
    let sandbox = Sandbox::new();
    token(&sandbox, "a", &["client", "--app", "a"]);
    let (_router, addr) = sandbox.router(&["--require-token"]);
    sandbox.sheaf_exits(2, &["job", "ls", "--join", &addr]);
    sandbox.sheaf_exits(0, &["job", "ls", "--join", &addr, "--token-file", "a"]);
    let with_variable = sandbox.command(&["job", "ls", "--join", &addr]).env("SHEAF_TOKEN", sandbox.read("a")).status();
    assert!(with_variable.unwrap().success());
    sandbox.write("empty", "");
    sandbox.write("words", "two words");
    for file in ["empty", "words", "missing"] {
        sandbox.sheaf_exits(2, &["job", "ls", "--join", &addr, "--token-file", file]);
    }
}

#[test]
fn no_word_about_tokens_and_certificates_is_taken_for_nothing() {
    let sandbox = Sandbox::new();
    sandbox.rows("rows.txt", 1);
    sandbox.write("ca.pem", "");
    let run = ["run", "--in", "rows.txt", "--out", "out.jsonl"];
    for word in ["--ca", "--token-file", "--backend-ca"] {
        sandbox.sheaf_exits(2, &[&run[..], &[word, "ca.pem", "--", "builtin:echo"]].concat());
    }
    let (_router, addr) = sandbox.router(&[]);
    sandbox.sheaf_exits(2, &["job", "ls", "--join", &addr, "--ca", "ca.pem"]);
    sandbox.sheaf_exits(2, &[&run[..], &["--join", &addr, "--ca", "ca.pem", "--service", "echo"]].concat());
    assert!(!sandbox.path("out.jsonl").exists());
}

#[test]
fn what_a_worker_shows_to_its_router_its_programs_do_not_see() {
    let world = World::new();
    world.sandbox.script("prog", "#!/bin/sh\nprintf '%s!' \"${SHEAF_TOKEN-$1}\"\n");
    let mut command = world.sandbox.command(&[
        "worker",
        "--join",
        &world.join,
        "--ca",
        "router/tls/ca.pem",
        "--service",
        "echo",
        "--",
        "./prog",
        "{}",
    ]);
    command.env("SHEAF_TOKEN", world.sandbox.read("w").trim());
    let _worker = world.sandbox.start_command("worker", command);
    world.run(0, "a", "out.jsonl");
    world.sandbox.assert_answers("out.jsonl", 20);
}

#[test]
fn a_router_that_starts_again_is_trusted_and_knows_its_tenants() {
    let mut world = World::new();
    let _worker = world.worker("w", "worker-data");
    world.run(0, "a", "a.jsonl");
    let ca = fs::read(world.sandbox.path("router/tls/ca.pem")).unwrap();
    world.router.kill9();
    let addr = world.join.replace("sheaf://localhost", "0.0.0.0");
    world.router = world.sandbox.router_at(&addr, &[]);
    assert_eq!(fs::read(world.sandbox.path("router/tls/ca.pem")).unwrap(), ca);
    world.run(0, "b", "b.jsonl");
    wait_until("the worker has come back", || text(&world.sheaf(0, "o", &["job", "ls"])).contains("worker "));
    world.sheaf(0, "a", &["job", "info", "a.jsonl"]);
    world.sheaf(2, "b", &["job", "info", "a.jsonl"]);
}

#[test]
fn a_token_that_has_expired_is_refused_and_its_sessions_end() {
    let world = World::new();
    token(&world.sandbox, "brief", &["worker", "--expires", "30d"]);
    let id = token_id(&world.sandbox, "expires in 30 days");
    let mut worker = world.worker("brief", "worker-data");
    world.run(0, "a", "a.jsonl");
    // Its last day comes now: the file says when, in seconds, at the end of its line.
    let file = world.sandbox.read("router/tokens");
    let line = file.lines().find(|line| line.starts_with(&id)).unwrap();
    let past = format!("{} 1", line.rsplit_once(' ').unwrap().0);
    world.sandbox.write("router/tokens.aside", file.replace(line, &past));
    fs::rename(world.sandbox.path("router/tokens.aside"), world.sandbox.path("router/tokens")).unwrap();
    worker.exits(2);
    world.worker("brief", "worker-again").exits(2);
    assert_eq!(token_id(&world.sandbox, "expired"), id);
    assert!(world.router.log().contains(&id), "{}", world.router.log());
    let secret = world.sandbox.read("brief");
    assert!(!world.router.log().contains(secret.trim().trim_start_matches("sheaf_")));
    world.sandbox.sheaf_exits(2, &["token", "create", "--data", "router", "--role", "worker", "--expires", "0s"]);
}
