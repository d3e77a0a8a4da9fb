//! One way to run attempts with real programs: assignments in, outcomes out.

#![allow(dead_code, missing_docs, unreachable_pub, reason = "each test file uses a part of it")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test: its panic is its message")]

pub mod router;

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use bytes::Bytes;
use sheaf_task::{Assignment, Capacity, Class, Failure, Fence, Key, Outcome};
use sheaf_worker::keeper::KeeperCommand;
use sheaf_worker::{Ended, Executor, Mode, ProgramConfig, Work};

/// Longest wait for anything in these tests; nothing waits this long unless it is broken.
pub const PATIENCE: Duration = Duration::from_secs(30);

pub fn keeper() -> KeeperCommand {
    KeeperCommand { program: PathBuf::from(env!("CARGO_BIN_EXE_sheaf-keeper")), args: Vec::new() }
}

pub fn config(mode: Mode, argv: &[&str]) -> ProgramConfig {
    let argv = argv.iter().map(OsString::from).collect();
    ProgramConfig { argv, mode, retry_exit: vec![75], memory: None, keeper: keeper() }
}

pub fn assignment(n: u32, body: impl Into<Bytes>) -> Assignment {
    Assignment { fence: fence(n), service: "test".into(), timeout_ms: 0, alone: false, body: body.into() }
}

pub fn fence(n: u32) -> Fence {
    Fence { key: Key([1; 16]), epoch: 1, attempt: n }
}

/// An executor in a runtime of its own.
pub struct Bench {
    pub runtime: tokio::runtime::Runtime,
    pub executor: Option<Executor>,
}

impl Bench {
    pub fn new(config: ProgramConfig) -> Self {
        Self::of(Work::Program(config), 1)
    }

    pub fn of(work: Work, batch: u32) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let executor = {
            let _entered = runtime.enter();
            Executor::start_up(&work, Capacity { batch, depth: 0, bytes: 0 }).unwrap()
        };
        Self { runtime, executor: Some(executor) }
    }

    /// A shell script that gets its row as `{}`, or on its standard input.
    pub fn sh(mode: Mode, script: &str) -> Self {
        Self::new(config(mode, &["sh", "-c", script]))
    }

    pub fn start(&mut self, assignment: Assignment) {
        let _entered = self.runtime.enter();
        self.executor.as_mut().unwrap().start(assignment);
    }

    pub fn kill(&mut self, n: u32) {
        let _entered = self.runtime.enter();
        self.executor.as_mut().unwrap().kill(fence(n));
    }

    /// The next `n` ends, in the order of their attempts.
    pub fn ends(&mut self, n: usize) -> Vec<Ended> {
        let executor = self.executor.as_mut().unwrap();
        let mut out = Vec::new();
        self.runtime.block_on(async {
            while out.len() < n {
                tokio::time::timeout(PATIENCE, executor.ended(&mut out)).await.expect("an attempt never ends");
            }
        });
        out.sort_by_key(|ended| ended.fence);
        out
    }

    /// The outcome of one attempt.
    pub fn run(&mut self, assignment: Assignment) -> Outcome {
        self.start(assignment);
        self.ends(1).remove(0).outcome
    }

    pub fn close(mut self) {
        let executor = self.executor.take().unwrap();
        self.runtime.block_on(executor.close());
    }
}

#[track_caller]
pub fn ok(outcome: Outcome) -> Bytes {
    match outcome {
        Outcome::Ok(body) => body,
        Outcome::Failed(failure) => panic!("{failure:?}"),
    }
}

#[track_caller]
pub fn failed(outcome: Outcome, class: Class) -> Failure {
    match outcome {
        Outcome::Failed(failure) if failure.class == class => failure,
        other => panic!("{other:?} is not {class:?}"),
    }
}

/// Waits until `holds`, by looking again and again.
#[track_caller]
pub fn eventually(what: &str, mut holds: impl FnMut() -> bool) -> Duration {
    let since = Instant::now();
    while !holds() {
        assert!(since.elapsed() < PATIENCE, "never: {what}");
        std::thread::yield_now();
    }
    since.elapsed()
}

/// Processes, zombies excluded, whose command line holds `mark`.
pub fn alive(mark: &str) -> Vec<u32> {
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.filter(|pid| {
        let read = |name: &str| std::fs::read(format!("/proc/{pid}/{name}")).unwrap_or_default();
        let line = read("cmdline");
        let is_zombie = String::from_utf8_lossy(&read("stat")).contains(") Z ");
        !is_zombie && line.windows(mark.len()).any(|window| window == mark.as_bytes())
    })
    .collect()
}

/// A word that no other test's processes have in their command line.
pub fn mark(name: &str) -> String {
    format!("sheaf-test-{name}-{}", std::process::id())
}
