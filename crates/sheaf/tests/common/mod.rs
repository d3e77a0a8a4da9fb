//! A sandbox for tests that run the real binary: a directory, processes that do not outlive the test, a program that
//! keeps a ledger of what it executed, and a reader of JSONL outputs. Nothing here believes what Sheaf says of itself.

#![allow(dead_code, reason = "each test binary uses its own part")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

pub(crate) mod registry;

/// How long anything may take before the test fails: generous, for slow machines.
const PATIENCE: Duration = Duration::from_secs(120);

/// A temporary directory in which `sheaf` runs.
pub(crate) struct Sandbox {
    dir: tempfile::TempDir,
}

impl Sandbox {
    pub(crate) fn new() -> Self {
        Self { dir: tempfile::tempdir().expect("a temporary directory") }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, text: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, text).expect("writable sandbox");
        path
    }

    pub(crate) fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap_or_default()
    }

    /// Rows `row-1 … row-n`, a line each.
    pub(crate) fn rows(&self, name: &str, n: usize) {
        self.write(name, (1..=n).map(|i| format!("row-{i}\n")).collect::<String>());
    }

    /// A program that appends its argument to `ledger`, waits `pause` seconds, and answers `<arg>!`.
    pub(crate) fn ledger_program(&self, pause: &str) {
        let ledger = self.path("ledger");
        let script = format!(
            "#!/bin/sh\necho \"$1\" >> '{}'\n[ '{pause}' = 0 ] || sleep {pause}\nprintf '%s!' \"$1\"\n",
            ledger.display()
        );
        self.script("prog", &script);
    }

    pub(crate) fn script(&self, name: &str, text: &str) {
        use std::os::unix::fs::PermissionsExt;
        let path = self.write(name, text);
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("own file");
    }

    /// How often each argument was executed.
    pub(crate) fn executions(&self) -> BTreeMap<String, usize> {
        let mut counts = BTreeMap::new();
        for line in self.read("ledger").lines() {
            *counts.entry(line.to_owned()).or_default() += 1;
        }
        counts
    }

    pub(crate) fn executed(&self) -> usize {
        self.read("ledger").lines().count()
    }

    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sheaf"));
        command.args(args).current_dir(self.dir.path()).stdin(Stdio::null());
        for name in ["SHEAF_TOKEN", "SHEAF_JOIN", "SHEAF_DATA", "SHEAF_WORKER_DATA", "NO_COLOR"] {
            command.env_remove(name);
        }
        command
    }

    /// Runs to the end.
    pub(crate) fn sheaf(&self, args: &[&str]) -> Output {
        self.command(args).output().expect("sheaf starts")
    }

    /// Runs to the end and insists on the exit code.
    pub(crate) fn sheaf_exits(&self, code: i32, args: &[&str]) -> Output {
        let output = self.sheaf(args);
        assert_eq!(output.status.code(), Some(code), "sheaf {args:?}\n{}", text(&output));
        output
    }

    /// Starts, to be watched, stopped or killed. Its standard error goes to the file `NAME.log`.
    pub(crate) fn start(&self, name: &str, args: &[&str]) -> Process {
        self.start_command(name, self.command(args))
    }

    pub(crate) fn start_command(&self, name: &str, mut command: Command) -> Process {
        let log = self.path(&format!("{name}.log"));
        let file = fs::OpenOptions::new().create(true).append(true).open(&log).expect("writable sandbox");
        let child =
            command.stdout(file.try_clone().expect("a second handle")).stderr(file).spawn().expect("sheaf starts");
        Process { child, name: name.to_owned(), log }
    }

    /// A router on a free port. Returns its process and its address.
    pub(crate) fn router(&self, extra: &[&str]) -> (Process, String) {
        let port = std::net::TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a free port").port();
        let addr = format!("127.0.0.1:{port}");
        (self.router_at(&addr, extra), addr)
    }

    pub(crate) fn router_at(&self, addr: &str, extra: &[&str]) -> Process {
        let mut args = vec!["up", "--listen", addr, "--data", "router"];
        args.extend(extra);
        let mut process = self.start("router", &args);
        wait_until("the router listens", || {
            assert!(process.child.try_wait().expect("own child").is_none(), "router died:\n{}", process.log());
            std::net::TcpStream::connect(addr).is_ok()
        });
        process
    }

    /// The output lines by row number; a row that stands there twice fails the test.
    pub(crate) fn output(&self, name: &str) -> BTreeMap<u64, Value> {
        let mut rows = BTreeMap::new();
        for line in self.read(name).lines() {
            let value: Value = serde_json::from_str(line).unwrap_or_else(|e| panic!("{name}: {e}: {line}"));
            let row = value["row"].as_u64().unwrap_or_else(|| panic!("no row number: {line}"));
            assert!(rows.insert(row, value).is_none(), "row {row} stands in {name} twice");
        }
        rows
    }

    /// Lines of an output that may end in a half-written one.
    pub(crate) fn output_lines(&self, name: &str) -> usize {
        self.read(name).lines().count()
    }

    /// Insists that `name` holds exactly rows 1 … n, each answered by the ledger program.
    pub(crate) fn assert_answers(&self, name: &str, n: usize) {
        let rows = self.output(name);
        assert_eq!(rows.len(), n, "rows in {name}");
        for (row, value) in rows {
            assert_eq!(value["output"], format!("row-{row}!"), "row {row}: {value}");
        }
    }
}

/// A running `sheaf`. Killed when the test ends.
pub(crate) struct Process {
    pub(crate) child: Child,
    name: String,
    log: PathBuf,
}

impl Process {
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    pub(crate) fn kill9(&mut self) {
        self.child.kill().expect("own child");
        self.child.wait().expect("own child");
    }

    pub(crate) fn signal(&self, signal: &str) {
        let status = Command::new("kill").args([signal, &self.child.id().to_string()]).status().expect("kill exists");
        assert!(status.success(), "kill {signal} {}", self.name);
    }

    /// Waits for the end and insists on the exit code.
    pub(crate) fn exits(&mut self, code: i32) {
        let mut status = None;
        wait_until(&format!("{} ends", self.name), || {
            status = self.child.try_wait().expect("own child");
            status.is_some()
        });
        assert_eq!(status.and_then(|s| s.code()), Some(code), "{}:\n{}", self.name, self.log());
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.child.try_wait().is_ok_and(|status| status.is_none()) {
            self.child.kill().expect("own child");
            self.child.wait().expect("own child");
        }
    }
}

/// Polls until `what` holds.
pub(crate) fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < PATIENCE, "waited too long until {what}");
        std::thread::park_timeout(Duration::from_millis(5));
    }
}

pub(crate) fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

pub(crate) fn exists(path: &Path) -> bool {
    path.exists()
}
