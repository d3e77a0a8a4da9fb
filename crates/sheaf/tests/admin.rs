//! The operators' listener of the real binary: what it says is what happened, in a form that Prometheus takes, and it never
//! shows what rows are made of where numbers belong.

#![allow(clippy::expect_used, reason = "a test fails by panicking")]

mod common;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::time::Duration;

use common::{Process, Sandbox, registry, text, wait_until};
use serde_json::Value;

/// In every row, and in the names of job and output: never on a page of metrics.
const CANARY: &str = "CANARY-7f3a";

/// How long the listener may be silent before a test fails.
const SILENCE: Duration = Duration::from_secs(120);

/// A router that answers operators.
struct World {
    sandbox: Sandbox,
    router: Process,
    join: String,
    admin: String,
}

impl World {
    fn new() -> Self {
        let sandbox = Sandbox::new();
        let (router, join) = sandbox.router(&["--admin=127.0.0.1:0", "--http=127.0.0.1:0", "--grace", "30s"]);
        let admin = admin_of(&router);
        let world = Self { sandbox, router, join, admin };
        wait_until("the router is ready", || world.get("/readyz").0 == 200);
        world
    }

    /// Two workers of one name; a row that names 13 is refused.
    fn work(&self) -> [Process; 2] {
        self.sandbox.script("prog", "#!/bin/sh\ncase \"$1\" in *-13*) echo no >&2; exit 1;; esac\necho \"$1\"\n");
        let work = |data| {
            let args = ["worker", "--join", &self.join, "--service", "prog", "--name", "twin \"w\"", "--data", data];
            self.sandbox.start(data, &[&args[..], &["--batch", "2", "--", "./prog", "{}"]].concat())
        };
        [work("one"), work("two")]
    }

    fn run(&self, code: i32, rows: usize) {
        let rows = (1..=rows).map(|n| format!("{CANARY}-{n:02}\n")).collect::<String>();
        self.sandbox.write(&format!("{CANARY}.txt"), rows);
        let (input, output) = (format!("{CANARY}.txt"), format!("{CANARY}.jsonl"));
        let args = ["run", "--in", &input, "--out", &output, "--join", &self.join, "--service", "prog"];
        self.sandbox.sheaf_exits(code, &args);
    }

    fn open(&self, head: &str) -> TcpStream {
        let mut stream = TcpStream::connect(&self.admin).expect("it listens");
        stream.set_read_timeout(Some(SILENCE)).expect("a socket");
        stream.write_all(head.as_bytes()).expect("it reads");
        stream
    }

    fn ask(&self, method: &str, path: &str, host: &str) -> (u16, String) {
        let mut stream = self.open(&format!("{method} {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n"));
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer in UTF-8");
        let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
        (head[9..12].parse().expect("a status"), body.to_owned())
    }

    fn get(&self, path: &str) -> (u16, String) {
        self.ask("GET", path, &self.admin)
    }

    fn json(&self, path: &str) -> Value {
        let (status, body) = self.get(path);
        assert_eq!(status, 200, "{path}: {body}");
        serde_json::from_str(&body).expect("JSON")
    }

    fn metrics(&self) -> (String, BTreeMap<String, f64>) {
        let (status, page) = self.get("/metrics");
        assert_eq!(status, 200, "{page}");
        let samples = samples(&page);
        (page, samples)
    }
}

/// Where a router says that it answers operators.
fn admin_of(router: &Process) -> String {
    let mut found = None;
    wait_until("it says where operators look", || {
        let log = router.log();
        let (_, rest) = log.split_once("operators look at ").unwrap_or_default();
        let (url, _) = rest.split_once("/metrics").unwrap_or_default();
        found = url.split_once("://").map(|(_, addr)| addr.to_owned());
        found.is_some()
    });
    found.expect("it has said so")
}

/// Every sample of a page. Stricter than Prometheus: families stand together under help and type, a sample is there once,
/// buckets grow up to the count.
fn samples(page: &str) -> BTreeMap<String, f64> {
    let (mut found, mut families) = (BTreeMap::new(), BTreeMap::new());
    let (mut helped, mut family, mut kind, mut below) = ("", "", "", 0.0);
    for line in page.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            helped = rest.split_once(' ').expect("words of help").0;
            continue;
        }
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            (family, kind) = rest.split_once(' ').expect("a type");
            assert_eq!(family, helped, "help stands before the type");
            assert!(families.insert(family, kind).is_none(), "{family} stands there twice");
            assert!(family.starts_with("sheaf_"), "{family}");
            assert_eq!(kind == "counter", family.ends_with("_total"), "{family} is a {kind}");
            below = 0.0;
            continue;
        }
        let (sample, value) = line.rsplit_once(' ').expect("a value");
        let value: f64 = value.parse().expect("a number");
        let name = sample.split('{').next().expect("a name");
        let rest = name.strip_prefix(family).unwrap_or_else(|| panic!("{name} stands under {family}"));
        match (kind, rest) {
            ("histogram", "_bucket" | "_count") => {
                assert!(value >= below, "{line} is less than the bucket before it");
                below = value;
            }
            ("histogram", "_sum") | ("counter" | "gauge", "") => {}
            _ => panic!("{line} is no sample of a {kind}"),
        }
        assert!(found.insert(sample.to_owned(), value).is_none(), "{sample} stands there twice");
    }
    found
}

#[test]
fn the_page_counts_what_happened_and_shows_nobody_s_rows() {
    let world = World::new();
    let workers = world.work();
    world.run(3, 40);
    let (page, samples) = world.metrics();
    let expected = [
        ("sheaf_tasks_total{outcome=\"ok\"}", 39.0),
        ("sheaf_tasks_total{outcome=\"rejected\"}", 1.0),
        ("sheaf_tasks_total{outcome=\"timeout\"}", 0.0),
        ("sheaf_tasks{state=\"ready\"}", 0.0),
        ("sheaf_tasks{state=\"running\"}", 0.0),
        ("sheaf_task_duration_seconds_count", 40.0),
        ("sheaf_redelivered_total", 0.0),
        ("sheaf_duplicates_suppressed_total", 0.0),
        ("sheaf_worker_capacity{worker=\"twin \\\"w\\\"\"}", 4.0),
        ("sheaf_worker_inflight{worker=\"twin \\\"w\\\"\"}", 0.0),
        ("sheaf_workers", 2.0),
        ("sheaf_jobs", 1.0),
        ("sheaf_journal_writable", 1.0),
        ("sheaf_router_answers", 1.0),
        ("sheaf_edge_refused_total", 0.0),
    ];
    for (name, value) in expected {
        assert_eq!(samples.get(name), Some(&value), "{name} in\n{page}");
    }
    assert!(samples["sheaf_attempts_total"] >= 40.0);
    assert!(samples["sheaf_journal_fsync_duration_seconds_count"] >= 1.0);
    assert!(samples["sheaf_journal_bytes"] > 0.0);
    let now = std::time::UNIX_EPOCH.elapsed().expect("a clock").as_secs_f64();
    let last = samples["sheaf_last_result_timestamp_seconds"];
    assert!(last <= now + 1.0 && last > now - 3_600.0, "{last} is not about now, {now}");
    assert!(!page.contains(CANARY) && !page.contains("prog"), "{page}");

    // The same rows for another output are answered by what is known.
    world.sandbox.write("again.txt", world.sandbox.read(&format!("{CANARY}.txt")));
    world.sandbox.sheaf(&["run", "--in", "again.txt", "--out", "b.jsonl", "--join", &world.join, "--service", "prog"]);
    let (_, after) = world.metrics();
    assert!(after["sheaf_duplicates_suppressed_total"] >= 39.0, "what was answered before was not executed again");
    drop(workers);
}

#[test]
fn prometheus_takes_the_page() {
    let world = World::new();
    let workers = world.work();
    world.run(3, 20);
    let (page, samples) = world.metrics();
    let promtool = std::env::var("PROMTOOL").unwrap_or_else(|_| "promtool".to_owned());
    let mut tool = Command::new(&promtool);
    match feed(tool.args(["check", "metrics"]), &page) {
        Some(said) => assert_eq!(said, (true, String::new()), "promtool finds nothing to say"),
        None => eprintln!("SKIPPED: promtool is not installed (Debian: apt-get install prometheus, or set PROMTOOL)"),
    }
    let Some(packages) = registry::python(&["prometheus-client==0.26.0"]) else { return };
    let script = "import sys\nfrom prometheus_client.parser import text_string_to_metric_families as parse\n\
        print(sum(len(family.samples) for family in parse(sys.stdin.read())))";
    let mut python = Command::new("python3");
    let said = feed(python.args(["-c", script]).env("PYTHONPATH", packages), &page);
    assert_eq!(said, Some((true, format!("{}\n", samples.len()))));
    drop(workers);
}

#[test]
fn tokens_are_counted_by_model_once_for_each_task() {
    let world = World::new();
    let args = ["worker", "--join", &world.join, "--data", "one", "--backend", "builtin:hash-embed"];
    let worker = world.sandbox.start("one", &args);
    let rows = [r#"{"input": "one two three"}"#, r#"{"input": ["four five", "six"]}"#, r#"{"input": "one two three"}"#];
    world.sandbox.write("rows.txt", rows.join("\n"));
    for out in ["a.jsonl", "b.jsonl"] {
        let args = ["run", "--in", "rows.txt", "--out", out, "--join", &world.join, "--service", "hash-embed"];
        world.sandbox.sheaf_exits(0, &args);
    }
    let (page, samples) = world.metrics();
    let of = |kind: &str| samples.get(&format!("sheaf_tokens_total{{model=\"hash-embed\",type=\"{kind}\"}}")).copied();
    let executed = samples["sheaf_tasks_total{outcome=\"ok\"}"];
    assert_eq!(executed, 3.0, "equal rows of one file are two samples, and another output executes nothing\n{page}");
    assert_eq!((of("prompt"), of("completion")), (Some(9.0), Some(0.0)), "{page}");
    drop(worker);
}

/// Whether a program that reads the page is content, and what it says; `None` where there is no such program.
fn feed(command: &mut Command, page: &str) -> Option<(bool, String)> {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().ok()?;
    child.stdin.take().expect("a pipe").write_all(page.as_bytes()).expect("it reads");
    let output = child.wait_with_output().expect("own child");
    Some((output.status.success(), text(&output)))
}

#[test]
fn operators_see_jobs_workers_and_failures_by_class() {
    let world = World::new();
    let workers = world.work();
    world.run(3, 20);
    let snapshot = world.json("/api/v1/snapshot");
    assert_eq!(snapshot["tasks"]["outcomes"]["ok"], 19);
    assert_eq!(snapshot["jobs"][0]["failed"], 1);
    assert_eq!(snapshot["journal"]["health"], "writable");
    assert_eq!(world.json("/api/v1/workers")["data"].as_array().map(Vec::len), Some(2));
    let id = world.json("/api/v1/jobs")["data"][0]["job"].as_str().expect("an id").to_owned();
    for name in [&id, &id[..8], &format!("{CANARY}.jsonl")] {
        let job = world.json(&format!("/api/v1/jobs/{name}"));
        let class = &job["failures"]["classes"][0];
        assert_eq!((&class["class"], &class["count"]), (&"rejected".into(), &1.into()), "{job}");
        let sample = &class["messages"][0]["sample"];
        assert_eq!(sample["body"], format!("{CANARY}-13"), "{job}");
        assert_eq!(sample["stderr"], "no\n", "{job}");
    }
    assert_eq!(world.get("/api/v1/jobs/nobody").0, 404);
    drop(workers);
}

#[test]
fn the_snapshot_is_told_once_a_second_and_only_to_so_many() {
    let world = World::new();
    let listen = || {
        let stream = world.open("GET /api/v1/events HTTP/1.1\r\nhost: localhost\r\n\r\n");
        let mut lines = BufReader::new(stream).lines().map(|line| line.expect("it goes on"));
        (lines.next().expect("a status line"), lines)
    };
    let mut listeners: Vec<_> = (0..32).map(|_| listen()).collect();
    assert!(listeners.iter().all(|(status, _)| status.contains("200")));
    for (_, lines) in &mut listeners {
        let mut told = lines.filter_map(|line| line.strip_prefix("data: ").map(str::to_owned));
        let at = [told.next(), told.next()].map(|event| {
            let snapshot: Value = serde_json::from_str(&event.expect("an event")).expect("a snapshot");
            snapshot["at"].as_f64().expect("a time")
        });
        assert!(at[1] > at[0], "{at:?}");
    }
    assert!(listen().0.contains("503"), "one too many");
    drop(listeners);
    wait_until("those that hung up have made room", || listen().0.contains("200"));
}

#[test]
fn it_ends_with_the_router_however_many_listen() {
    let mut world = World::new();
    let listener = world.open("GET /api/v1/events HTTP/1.1\r\nhost: localhost\r\n\r\n");
    world.sandbox.sheaf_exits(0, &["shutdown", "--join", &world.join]);
    world.router.exits(0);
    drop(listener);
    let mut world = World::new();
    let listener = world.open("GET /api/v1/events HTTP/1.1\r\nhost: localhost\r\n\r\n");
    world.router.signal("-TERM");
    world.router.exits(0);
    drop(listener);
}

#[test]
fn it_changes_nothing_and_answers_to_no_other_name() {
    let world = World::new();
    assert_eq!(world.get("/healthz"), (200, "alive\n".to_owned()));
    assert_eq!(world.ask("POST", "/metrics", "localhost").0, 405);
    assert_eq!(world.ask("GET", "/metrics", "rebound.example").0, 403);
    assert_eq!(world.get("/v1/models").0, 404);
    assert_eq!(world.ask("GET", "/healthz", "router.example").0, 200, "probes have whatever name");
}

#[test]
fn an_address_in_use_ends_it_before_anything_is_said_or_begun() {
    let sandbox = Sandbox::new();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let addr = taken.local_addr().expect("a socket").to_string();
    for (option, word) in [("--http", format!("--http={addr}")), ("--admin", format!("--admin={addr}"))] {
        let refused = sandbox.sheaf_exits(2, &["up", "--data", "router", "--listen", "127.0.0.1:0", &word]);
        let said = text(&refused);
        assert!(said.contains(option) && said.contains(&addr), "{said}");
        assert_eq!(said.lines().count(), 1, "nothing listens: {said}");
    }
    let refused = sandbox.sheaf_exits(2, &["up", "--data", "router", "--listen", &addr, "--http=127.0.0.1:0"]);
    assert!(text(&refused).contains("--listen"), "{}", text(&refused));
    assert_eq!(text(&refused).lines().count(), 1, "{}", text(&refused));
    assert!(!sandbox.path("router").exists(), "nothing was begun");
}

/// Puts a pipe in the place of a file: whoever reads it waits until its old bytes are written there.
fn stall(path: &std::path::Path) -> Vec<u8> {
    let bytes = std::fs::read(path).expect("it is there");
    std::fs::remove_file(path).expect("own file");
    assert!(Command::new("mkfifo").arg(path).status().expect("mkfifo is installed").success());
    bytes
}

#[test]
fn it_is_not_ready_before_its_door_and_is_told_to_stop_while_it_reads() {
    let mut world = World::new();
    let log = world.router.log();
    let (_, door) = log.split_once("API at ").expect("there is a door");
    let url = format!("{}/files", door.trim());
    let file = format!("file=@{}", world.sandbox.write("rows.jsonl", "{}\n").display());
    let sent = Command::new("curl").args(["-sf", "-F", "purpose=batch", "-F", &file, &url]).output().expect("curl");
    let sent: Value = serde_json::from_slice(&sent.stdout).expect("a file");
    let record = format!("router/edge/files/@/{}/meta.json", sent["id"].as_str().expect("an id"));
    let record = world.sandbox.path(&record);
    world.router.kill9();
    let up = |world: &mut World, name: &str| {
        let args = ["up", "--data", "router", "--listen", "127.0.0.1:0", "--admin=127.0.0.1:0", "--http=127.0.0.1:0"];
        world.router = world.sandbox.start(name, &args);
        world.admin = admin_of(&world.router);
    };
    let bytes = stall(&record);
    up(&mut world, "told");
    wait_until("the router runs", || world.get("/api/v1/snapshot").0 == 200);
    assert_eq!(world.get("/readyz").0, 503, "its door is not open");
    world.router.signal("-TERM");
    world.router.exits(0);

    up(&mut world, "fed");
    wait_until("the router runs", || world.get("/api/v1/snapshot").0 == 200);
    std::fs::write(&record, bytes).expect("it reads");
    wait_until("its door is open", || world.get("/readyz").0 == 200);
    world.router.kill9();

    stall(&world.sandbox.path("router/identity"));
    up(&mut world, "early");
    world.router.signal("-TERM");
    world.router.exits(0);
}

#[test]
fn beyond_loopback_it_has_tls_and_answers_admins_only() {
    let sandbox = Sandbox::new();
    let admin = "--admin=0.0.0.0:0";
    for (file, role) in [("client", &["client", "--app", "a"][..]), ("admin", &["admin"])] {
        // Before the first token, and with a client's alone, nobody could use it.
        sandbox.sheaf_exits(2, &["up", "--data", "router", "--listen", "127.0.0.1:0", admin]);
        let made = sandbox.sheaf_exits(0, &[&["token", "create", "--data", "router", "--role"], role].concat());
        sandbox.write(file, format!("header = \"authorization: Bearer {}\"\n", text_of(&made)));
    }
    let (router, _) = sandbox.router(&[admin, "--tls-name", "router.example"]);
    let at = admin_of(&router);
    let (_, port) = at.rsplit_once(':').expect("a port");
    let status = |path: &str, token: Option<&str>| {
        let mut curl = Command::new("curl");
        curl.args(["-s", "-o", "/dev/null", "-w", "%{http_code}", "--cacert"]).arg(sandbox.path("router/tls/ca.pem"));
        token.map(|token| curl.arg("--config").arg(sandbox.path(token)));
        let output = curl.arg(format!("https://localhost:{port}{path}")).output().expect("curl is installed");
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    wait_until("it is ready", || status("/readyz", None) == "200");
    for path in ["/metrics", "/api/v1/snapshot", "/api/v1/events", "/nothing"] {
        assert_eq!([status(path, None), status(path, Some("client"))], ["401", "403"], "{path}");
    }
    assert_eq!([status("/metrics", Some("admin")), status("/healthz", None)], ["200", "200"]);
    let mut plain = TcpStream::connect(format!("127.0.0.1:{port}")).expect("it listens");
    plain.write_all(b"GET /metrics HTTP/1.1\r\nhost: localhost\r\n\r\n").expect("a socket");
    let mut answer = Vec::new();
    // It hangs up, with an alert of TLS or a reset.
    let read = plain.read_to_end(&mut answer);
    assert!(!answer.starts_with(b"HTTP"), "{read:?}: {}", String::from_utf8_lossy(&answer));
    drop(router);
}

/// What a program wrote, without the line's end.
fn text_of(output: &std::process::Output) -> String {
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}
