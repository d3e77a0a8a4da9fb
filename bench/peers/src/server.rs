//! A server as a process of its own, below a directory of its own, and what the system tells of it.
//!
//! Invariant: a server is stopped by its own process id, on every way out, and dies with this program.

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

/// How long a server may take until it answers, and until it has ended.
const PATIENCE: Duration = Duration::from_secs(60);
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Ticks of `/proc/PID/stat` in a second: fixed by Linux towards programs.
const TICKS: f64 = 100.0;

/// The directory of one run, removed with it.
pub(crate) struct Ground {
    dir: tempfile::TempDir,
    tools: PathBuf,
}

impl Ground {
    /// Below `dir`. A server that drops its rights must be able to get there.
    pub(crate) fn new(dir: &Path, tools: &Path) -> Result<Self> {
        use std::os::unix::fs::PermissionsExt;
        // Servers are started there, so that no path may depend on where we are.
        let made = fs::create_dir_all(dir).and_then(|()| dir.canonicalize()).and_then(tempfile::tempdir_in);
        let made = made.with_context(|| format!("cannot make a directory in {}", dir.display()))?;
        fs::set_permissions(made.path(), fs::Permissions::from_mode(0o755))?;
        Ok(Self { dir: made, tools: tools.to_owned() })
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A subdirectory, made.
    pub(crate) fn subdirectory(&self, name: &str) -> Result<PathBuf> {
        let path = self.path(name);
        fs::create_dir_all(&path).with_context(|| format!("cannot make {}", path.display()))?;
        Ok(path)
    }

    /// Where this program is.
    pub(crate) fn program(&self, name: &str) -> Result<PathBuf> {
        crate::peer::program(name, &self.tools).with_context(|| format!("{name} is not installed"))
    }

    /// The user to run as where we are root and the server refuses to be.
    pub(crate) fn user(&self, name: &'static str) -> Option<&'static str> {
        rustix::process::geteuid().is_root().then_some(name)
    }

    /// A command that is killed when this program ends, however it ends; as another user where one is named.
    pub(crate) fn command(&self, name: &str, user: Option<&str>) -> Result<Command> {
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL"]);
        if let Some(user) = user {
            command.args(["--reuid", user, "--regid", user, "--clear-groups"]);
        }
        command.arg("--").arg(self.program(name)?).current_dir(self.dir.path());
        Ok(command)
    }
}

/// A process that is stopped when dropped.
pub(crate) struct Process {
    child: Child,
    stop: Signal,
}

impl Process {
    pub(crate) fn start(mut command: Command, stop: Signal, log: &Path) -> Result<Self> {
        let out = fs::File::create(log).with_context(|| format!("cannot write {}", log.display()))?;
        command.stdin(Stdio::null()).stdout(out.try_clone()?).stderr(out);
        let child = command.spawn().with_context(|| format!("cannot start {command:?}"))?;
        Ok(Self { child, stop })
    }

    fn end(&mut self) -> Result<()> {
        kill_process(Pid::from_child(&self.child), self.stop)?;
        let since = Instant::now();
        while since.elapsed() < PATIENCE {
            if self.child.try_wait()?.is_some() {
                return Ok(());
            }
            std::thread::sleep(LOOK_EVERY);
        }
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Err(error) = self.end() {
            eprintln!("peers: process {} had ended, or cannot be stopped: {error}", self.child.id());
        }
    }
}

/// A server that answers.
pub(crate) struct Server {
    pub(crate) port: u16,
    /// Other processes that it needs come after it, so that it is stopped first.
    processes: Vec<Process>,
    data: PathBuf,
    bytes_before: f64,
    _ground: Ground,
}

impl Server {
    /// Waits until `ready` succeeds; that may make queues, too.
    pub(crate) fn ready(
        processes: Vec<Process>,
        (ground, data): (Ground, PathBuf),
        port: u16,
        mut ready: impl FnMut(&Server) -> Result<()>,
    ) -> Result<Self> {
        let mut server = Self { port, processes, data, bytes_before: 0.0, _ground: ground };
        let since = Instant::now();
        loop {
            match ready(&server) {
                Ok(()) => break,
                Err(error) if since.elapsed() > PATIENCE => return Err(error.context("it does not get ready")),
                Err(error) => server.check(&error)?,
            }
            std::thread::sleep(LOOK_EVERY);
        }
        server.bytes_before = size(&server.data)?;
        Ok(server)
    }

    fn check(&mut self, error: &anyhow::Error) -> Result<()> {
        for process in &mut self.processes {
            if let Some(status) = process.child.try_wait()? {
                bail!("it ended with {status}; the last that was heard: {error:#}");
            }
        }
        Ok(())
    }

    /// Seconds of processor time so far, of all its processes, those included that have ended.
    pub(crate) fn cpu_seconds(&self) -> f64 {
        self.tree().into_iter().filter_map(cpu_seconds).sum()
    }

    /// Memory, shared parts counted once: bytes.
    pub(crate) fn memory(&self) -> f64 {
        self.tree().into_iter().filter_map(|pid| field(pid, "smaps_rollup", "Pss:")).sum::<f64>() * 1_024.0
    }

    /// Bytes that its living processes had written to disk.
    pub(crate) fn written(&self) -> f64 {
        self.tree().into_iter().filter_map(|pid| field(pid, "io", "write_bytes:")).sum()
    }

    /// Bytes of its files, without those that were there when it was empty.
    pub(crate) fn disk_bytes(&self) -> Result<f64> {
        Ok(size(&self.data)? - self.bytes_before)
    }

    /// Its processes and all that descend from them.
    fn tree(&self) -> Vec<u32> {
        let mut found: Vec<u32> = self.processes.iter().map(|process| process.child.id()).collect();
        let mut next = 0;
        while next < found.len() {
            found.extend(children(found[next]));
            next += 1;
        }
        found
    }
}

fn children(pid: u32) -> Vec<u32> {
    let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else { return Vec::new() };
    let of = |thread: fs::DirEntry| fs::read_to_string(thread.path().join("children")).unwrap_or_default();
    let text: String = threads.flatten().map(of).collect::<Vec<_>>().join(" ");
    text.split_whitespace().filter_map(|word| word.parse().ok()).collect()
}

fn cpu_seconds(pid: u32) -> Option<f64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The fields after the name, which may hold anything and ends with the last parenthesis.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks: f64 = fields.get(11..15)?.iter().filter_map(|field| field.parse::<f64>().ok()).sum();
    Some(ticks / TICKS)
}

/// The first number after `name` in a file of `/proc/PID`.
fn field(pid: u32, file: &str, name: &str) -> Option<f64> {
    let text = fs::read_to_string(format!("/proc/{pid}/{file}")).ok()?;
    let rest = text.lines().find_map(|line| line.strip_prefix(name))?;
    rest.split_whitespace().next()?.parse().ok()
}

/// Bytes of all files below. One that goes away meanwhile has none.
fn size(dir: &Path) -> Result<f64> {
    let (mut bytes, mut open) = (0, vec![dir.to_owned()]);
    while let Some(dir) = open.pop() {
        for entry in fs::read_dir(&dir).with_context(|| format!("cannot read {}", dir.display()))? {
            let entry = entry?;
            match entry.metadata() {
                Ok(meta) if meta.is_dir() => open.push(entry.path()),
                Ok(meta) => bytes += meta.len(),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
    Ok(bytes as f64)
}

/// A port of loopback that nobody uses now.
pub(crate) fn free_port() -> Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).context("no free port")?.port())
}
