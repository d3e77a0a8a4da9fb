//! The processes of a run, and what the system tells of them. They are killed when the run ends, however it ends.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// How long a process may take until it says where it listens.
const PATIENCE: Duration = Duration::from_secs(120);

/// How often its log is looked at meanwhile.
const LOOK_EVERY: Duration = Duration::from_millis(1);

/// Ticks of `/proc/PID/stat` in a second: fixed by Linux towards programs.
const TICKS: f64 = 100.0;

/// A router or a worker; killed when dropped.
pub(super) struct Process {
    child: Child,
}

impl Process {
    fn start(args: &[&str], log: &Path) -> Result<Self> {
        let program = std::env::current_exe().context("cannot find this program's own file")?;
        let log = fs::File::create(log).with_context(|| format!("cannot write {}", log.display()))?;
        let mut command = Command::new(program);
        command.args(args).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        for name in ["SHEAF_TOKEN", "SHEAF_JOIN", "SHEAF_DATA", "SHEAF_WORKER_DATA"] {
            command.env_remove(name);
        }
        Ok(Self { child: command.spawn().context("cannot start a process")? })
    }

    /// `kill -9`, and until it is gone.
    pub(super) fn kill(mut self) {
        self.end();
    }

    fn end(&mut self) {
        // One that has ended by itself is as gone as it can be.
        if self.child.kill().is_err() || self.child.wait().is_err() {
            tracing::debug!("a process had ended before it was killed");
        }
    }

    /// Seconds of processor time so far.
    pub(super) fn cpu_seconds(&self) -> Option<f64> {
        cpu_seconds(&self.child.id().to_string())
    }

    /// The most memory that it had resident, bytes.
    pub(super) fn rss_max(&self) -> Option<f64> {
        let status = self.proc("status")?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
        Some(line.trim().strip_suffix("kB")?.trim().parse::<f64>().ok()? * 1_024.0)
    }

    /// Bytes that it had written to disk.
    pub(super) fn written(&self) -> Option<f64> {
        let io = self.proc("io")?;
        io.lines().find_map(|line| line.strip_prefix("write_bytes:"))?.trim().parse().ok()
    }

    fn proc(&self, name: &str) -> Option<String> {
        fs::read_to_string(format!("/proc/{}/{name}", self.child.id())).ok()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.end();
    }
}

/// A directory of one run, removed with it.
pub(super) struct Ground {
    dir: tempfile::TempDir,
}

impl Ground {
    /// Below `dir`, which is made where it is missing.
    pub(super) fn new(dir: &Path) -> Result<Self> {
        let make = || fs::create_dir_all(dir).and_then(|()| tempfile::tempdir_in(dir));
        Ok(Self { dir: make().with_context(|| format!("cannot make a directory in {}", dir.display()))? })
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Starts a router on the journal that is here, and waits until it is ready. Returns its address and how long it took.
    pub(super) fn router(&self) -> Result<(Process, String, Duration)> {
        let (log, since) = (self.path("router.log"), Instant::now());
        let data = self.path("router");
        let mut process = Process::start(&["up", "--listen", "127.0.0.1:0", "--data", &text(&data)], &log)?;
        let address = said(&mut process, &log, "listens on ")?;
        Ok((process, address, since.elapsed()))
    }

    /// Starts a worker that answers with what it is asked.
    pub(super) fn worker(&self, n: u32, join: &str, batch: u32, depth: u32) -> Result<Process> {
        let (log, data) = (self.path(&format!("worker-{n}.log")), self.path(&format!("worker-{n}")));
        let (batch, depth) = (batch.to_string(), depth.to_string());
        let args = ["worker", "--join", join, "--service", super::SERVICE, "--batch", &batch, "--depth", &depth];
        Process::start(&[&args[..], &["--data", &text(&data), "--", "builtin:echo"]].concat(), &log)
    }

    /// Bytes that the router's files take on disk.
    pub(super) fn router_bytes(&self) -> Result<f64> {
        let mut bytes = 0;
        let mut open = vec![self.path("router")];
        while let Some(dir) = open.pop() {
            for entry in fs::read_dir(&dir).with_context(|| format!("cannot read {}", dir.display()))? {
                let (entry, meta) = entry.and_then(|entry| entry.metadata().map(|meta| (entry, meta)))?;
                if meta.is_dir() { open.push(entry.path()) } else { bytes += meta.len() }
            }
        }
        Ok(bytes as f64)
    }
}

/// Waits until the log says this, and returns the word that follows.
fn said(process: &mut Process, log: &Path, what: &str) -> Result<String> {
    let since = Instant::now();
    while since.elapsed() < PATIENCE {
        let text = fs::read_to_string(log).unwrap_or_else(|_| String::new());
        if let Some((_, rest)) = text.split_once(what)
            && let Some((word, _)) = rest.split_once([',', '\n'])
        {
            return Ok(word.to_owned());
        }
        if let Some(status) = process.child.try_wait()? {
            bail!("the router ended with {status}: {}", text.trim_end());
        }
        std::thread::sleep(LOOK_EVERY);
    }
    bail!("the router did not say in {} s where it listens", PATIENCE.as_secs())
}

/// Seconds of processor time of this process so far.
pub(super) fn own_cpu_seconds() -> Option<f64> {
    cpu_seconds("self")
}

fn cpu_seconds(process: &str) -> Option<f64> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    // The fields after the name, which may hold anything and ends with the last parenthesis.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks = |at: usize| fields.get(at)?.parse::<f64>().ok();
    Some((ticks(11)? + ticks(12)?) / TICKS)
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}
