//! OpenAI's own clients, unmodified, against the real binary: what they send is understood, what comes back is what they
//! expect, errors are the exceptions that their users catch. What they do stands in `clients/client.py` and `client.mjs`.

#![allow(clippy::expect_used, reason = "a test fails by panicking")]

mod common;

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use common::{Process, Sandbox, registry, text, wait_until};

const PYTHON: &str = "openai==3.54.0";
const NODE: &str = "openai@6.49.0";

/// A front door, a worker for each of three models, and a model that obeys. Of `narrow` the door lets four calls in at once:
/// the least that it lets in of anything.
struct World {
    sandbox: Sandbox,
    http: String,
    _processes: [Process; 4],
    model: Child,
}

impl World {
    fn new() -> Self {
        let sandbox = Sandbox::new();
        let mut model =
            Command::new("python3").arg(script("stub_backend.py")).stdout(Stdio::piped()).spawn().expect("python3");
        let mut url = String::new();
        BufReader::new(model.stdout.take().expect("a pipe")).read_line(&mut url).expect("its address");
        let free = std::net::TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a free port");
        let http = free.to_string();
        let (router, join) = sandbox.router(&[&format!("--http={http}")]);
        let work = |name: &str, backend: &str, model: &str, batch: &str| {
            let args =
                ["worker", "--join", &join, "--data", name, "--backend", backend, "--model", model, "--batch", batch];
            sandbox.start(name, &args)
        };
        let workers = [
            work("chat", url.trim(), "echo/chat", "8"),
            work("embed", "builtin:hash-embed", "hash-embed", "8"),
            work("narrow", url.trim(), "narrow", "1"),
        ];
        wait_until("all workers have joined", || {
            text(&sandbox.sheaf(&["job", "ls", "--join", &join])).matches("worker ").count() == 3
        });
        let [chat, embed, narrow] = workers;
        Self { sandbox, http, _processes: [router, chat, embed, narrow], model }
    }

    /// Runs a script to its end; all of its steps must pass.
    fn passes(&self, command: &mut Command) {
        let command = command.arg(format!("http://{}/v1", self.http)).stdin(Stdio::null());
        for name in ["OPENAI_API_KEY", "OPENAI_BASE_URL"] {
            command.env_remove(name);
        }
        let output = command.output().expect("it starts");
        let said = text(&output);
        assert!(
            output.status.success() && said.contains("passed "),
            "{said}\nrouter:\n{}",
            self.sandbox.read("router.log")
        );
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.model.kill().expect("own child");
        self.model.wait().expect("own child");
    }
}

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients").join(name)
}

#[test]
fn the_python_client_finds_what_it_expects() {
    let Some(packages) = registry::python(&[PYTHON]) else { return };
    World::new().passes(Command::new("python3").arg("-B").arg(script("client.py")).env("PYTHONPATH", packages));
}

#[test]
fn the_node_client_finds_what_it_expects() {
    let Some(packages) = registry::has("python3").and_then(|()| registry::node(&[NODE])) else { return };
    // Modules are looked for beside the script, not where it is started.
    let world = World::new();
    let local = world.sandbox.path("client.mjs");
    std::fs::copy(script("client.mjs"), &local).expect("writable sandbox");
    std::os::unix::fs::symlink(packages.join("node_modules"), world.sandbox.path("node_modules")).expect("a link");
    world.passes(Command::new("node").arg(local));
}
