//! A cluster of real processes in one directory: a router, workers, and the client of one job at a time; or the one
//! process of `sheaf run` that is all three.
//!
//! It starts, stops and kills what it is told to. It does not look at results: `crates/torture/src/job.rs` does.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, ensure};
use rustix::process::Signal;

use crate::process::{Process, wait_until};
use crate::seed::Rng;
use crate::sink;

/// How a cluster is made. Every path is made absolute by the caller or lies in the cluster's directory.
#[derive(Clone, Debug)]
pub(crate) struct Setup {
    /// The `sheaf` binary.
    pub sheaf: PathBuf,
    /// This very binary, which is the program of the workers too.
    pub torture: PathBuf,
    /// Where ledger, logs, rows and sinks go: healthy ground.
    pub dir: PathBuf,
    /// The data directory of the router (of all three, with [`Role::Alone`]); perhaps on sick ground.
    pub data: PathBuf,
    /// The directory of sinks.
    pub out: PathBuf,
    /// Where each worker has its data directory.
    pub spools: PathBuf,
    /// Words before `sheaf up`: a program that starts it and becomes its parent in nothing.
    pub wrap: Vec<String>,
    /// Workers.
    pub workers: usize,
    /// Executions at once in each.
    pub batch: u32,
    /// Tasks waiting behind them.
    pub depth: u32,
    /// How long a program takes, milliseconds.
    pub pause_ms: u64,
    /// Silence of a worker that re-runs nothing.
    pub grace: Duration,
    /// `--chaos` of every link.
    pub chaos: Option<String>,
    /// Each peer dials an address of its own, which a packet filter hands to the router: see `family/net`.
    pub doors: bool,
    /// More words for `sheaf up`.
    pub up: Vec<String>,
    /// More words for `sheaf run`.
    pub run: Vec<String>,
}

/// Who may be killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    Router,
    Worker(usize),
    Client,
    /// `sheaf run` without `--join`: router, worker and client in one process.
    Alone,
}

/// A job that a client runs: its rows are in `NAME.txt`.
#[derive(Clone, Debug)]
pub(crate) struct JobFiles {
    pub name: String,
    pub sink: sink::Kind,
}

/// The processes.
pub(crate) struct Cluster {
    setup: Setup,
    addr: String,
    job: Option<JobFiles>,
    router: Option<Process>,
    workers: Vec<Option<Process>>,
    client: Option<Process>,
}

/// How long anything may take that should take moments, on a machine that does other things too.
pub(crate) const PATIENCE: Duration = Duration::from_secs(90);

/// What workers offer.
const SERVICE: &str = "ledger";

impl Cluster {
    /// A cluster with nothing running.
    pub(crate) fn new(setup: Setup, rng: &mut Rng) -> anyhow::Result<Self> {
        let workers = (0..setup.workers).map(|_| None).collect();
        let addr = format!("127.0.0.1:{}", free_port(rng)?);
        Ok(Self { setup, addr, job: None, router: None, workers, client: None })
    }

    pub(crate) fn setup(&self) -> &Setup {
        &self.setup
    }

    /// From the next start on, the router is started by these words.
    pub(crate) fn wrap_router(&mut self, wrap: Vec<String>) {
        self.setup.wrap = wrap;
    }

    /// Where the router listens, with its port.
    pub(crate) fn addr(&self) -> &str {
        &self.addr
    }

    /// Router and workers, or nothing where one process is all.
    pub(crate) fn start_all(&mut self) -> anyhow::Result<()> {
        self.start(Role::Router)?;
        (0..self.setup.workers).try_for_each(|worker| self.start(Role::Worker(worker)))
    }

    /// The job that the client is started for from now on.
    pub(crate) fn set_job(&mut self, job: JobFiles) {
        self.job = Some(job);
    }

    /// Starts a process that does not run; the end of an earlier one is forgotten.
    pub(crate) fn start(&mut self, role: Role) -> anyhow::Result<()> {
        let command = self.command(role)?;
        let name = name_of(role);
        let process = Process::start(&self.setup.dir, &name, command)?;
        *self.slot(role) = Some(process);
        Ok(())
    }

    /// `kill -9`. Nothing to kill is no error: it may have ended by itself.
    pub(crate) fn kill9(&mut self, role: Role) -> anyhow::Result<()> {
        self.slot(role).take().map_or(Ok(()), |mut process| process.kill9())
    }

    /// Sends a signal to a process that should be running.
    pub(crate) fn signal(&mut self, role: Role, signal: Signal) -> anyhow::Result<()> {
        self.process(role)?.signal(signal)
    }

    /// The process of a role.
    pub(crate) fn process(&mut self, role: Role) -> anyhow::Result<&mut Process> {
        self.slot(role).as_mut().with_context(|| format!("{role:?} was not started"))
    }

    /// Whether it runs.
    pub(crate) fn is_up(&mut self, role: Role) -> anyhow::Result<bool> {
        match self.slot(role) {
            Some(process) => Ok(process.ended()?.is_none()),
            None => Ok(false),
        }
    }

    /// Insists that a process runs, or is a client that has come to its proper end: nobody else ends by himself.
    pub(crate) fn insist_alive(&mut self, role: Role) -> anyhow::Result<()> {
        let process = self.process(role)?;
        let Some(status) = process.ended()? else { return Ok(()) };
        let may_end = matches!(role, Role::Client | Role::Alone) && matches!(status.code(), Some(0 | 3));
        ensure!(may_end, "{role:?} ended by itself, {status}; its log ends:\n{}", process.tail());
        Ok(())
    }

    /// Insists that no process ever panicked.
    pub(crate) fn insist_no_panic(&self) -> anyhow::Result<()> {
        for entry in std::fs::read_dir(&self.setup.dir)? {
            let path = entry?.path();
            if path.extension().is_some_and(|ending| ending == "log") {
                let log = std::fs::read(&path)?;
                let text = String::from_utf8_lossy(&log);
                let line = text.lines().find(|line| line.contains("panicked at"));
                ensure!(line.is_none(), "{}: {}", path.display(), line.unwrap_or_default());
            }
        }
        Ok(())
    }

    /// Waits until the router takes connections. Says whether it did.
    pub(crate) fn wait_listening(&self, patience: Duration) -> anyhow::Result<bool> {
        wait_until(patience, || Ok(std::net::TcpStream::connect(&self.addr).is_ok()))
    }

    /// What `sheaf … --json` prints, asked of this router: Sheaf's own word, so a *claim*, and never a proof.
    pub(crate) fn ask(&self, words: &[&str]) -> anyhow::Result<serde_json::Value> {
        let output = self.question(words).output().context("sheaf does not start")?;
        ensure!(output.status.success(), "sheaf {words:?}: {}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).with_context(|| format!("sheaf {words:?}"))
    }

    /// The command that asks it.
    pub(crate) fn question(&self, words: &[&str]) -> Command {
        let mut command = Command::new(&self.setup.sheaf);
        command.args(words).args(["--json", "--join", &self.addr]).current_dir(&self.setup.dir);
        command
    }

    /// Kills everything.
    pub(crate) fn kill_all(&mut self) -> anyhow::Result<()> {
        self.kill9(Role::Client)?;
        (0..self.setup.workers).try_for_each(|worker| self.kill9(Role::Worker(worker)))?;
        self.kill9(Role::Router)
    }

    fn slot(&mut self, role: Role) -> &mut Option<Process> {
        match role {
            Role::Router => &mut self.router,
            Role::Worker(worker) => &mut self.workers[worker],
            Role::Client | Role::Alone => &mut self.client,
        }
    }

    fn command(&self, role: Role) -> anyhow::Result<Command> {
        let setup = &self.setup;
        let mut command = Command::new(&setup.sheaf);
        match role {
            Role::Router => {
                if let Some((wrapper, words)) = setup.wrap.split_first() {
                    command = Command::new(wrapper);
                    command.args(words).arg(&setup.sheaf);
                }
                command.args(["up", "--listen", &self.addr, "--grace", &seconds(setup.grace), "--data"]);
                command.arg(&setup.data).args(&setup.up);
            }
            Role::Worker(worker) => {
                command.args(["worker", "--join", &self.addr_for(role), "--service", SERVICE]);
                command.args(["--name", &format!("w{worker}"), "--data"]);
                command.arg(setup.spools.join(format!("worker-{worker}")));
                self.add_program(&mut command);
            }
            Role::Client => {
                self.add_job(&mut command)?;
                command.args(["--join", &self.addr_for(role)]);
            }
            Role::Alone => {
                self.add_job(&mut command)?;
                command.args(["--grace", &seconds(setup.grace), "--data"]).arg(&setup.data);
                self.add_program(&mut command);
            }
        }
        Ok(command)
    }

    fn addr_for(&self, role: Role) -> String {
        if self.setup.doors { self.addr.replace("127.0.0.1", door(role)) } else { self.addr.clone() }
    }

    fn add_job(&self, command: &mut Command) -> anyhow::Result<()> {
        let job = self.job.as_ref().context("no job was set")?;
        command.args(["--json", "run", "--in", &format!("{}.txt", job.name), "--out"]);
        command.arg(sink_path(&self.setup.out, job)).args(job.sink.options());
        command.args(["--service", SERVICE, "--revision", "1"]).args(&self.setup.run);
        self.add_chaos(command);
        Ok(())
    }

    /// The program comes last on a command line.
    fn add_program(&self, command: &mut Command) {
        let setup = &self.setup;
        command.args(["--stdin", "--batch", &setup.batch.to_string(), "--depth", &setup.depth.to_string()]);
        self.add_chaos(command);
        command.arg("--").arg(&setup.torture).arg("program");
        command.arg(ledger_path(&setup.dir)).arg(setup.pause_ms.to_string());
    }

    fn add_chaos(&self, command: &mut Command) {
        if let Some(chaos) = &self.setup.chaos {
            command.args(["--chaos", chaos]);
        }
    }
}

/// The address that a peer dials where each has its own.
pub(crate) fn door(role: Role) -> &'static str {
    match role {
        Role::Router | Role::Alone => "127.0.0.1",
        Role::Client => "127.0.0.9",
        Role::Worker(worker) => ["127.0.0.10", "127.0.0.11", "127.0.0.12"][worker % 3],
    }
}

/// The ledger of a cluster in this directory.
pub(crate) fn ledger_path(dir: &Path) -> PathBuf {
    dir.join("ledger")
}

/// The sink of a job.
pub(crate) fn sink_path(out: &Path, job: &JobFiles) -> PathBuf {
    out.join(job.sink.file(&job.name))
}

fn name_of(role: Role) -> String {
    match role {
        Role::Router => "router".to_owned(),
        Role::Worker(worker) => format!("w{worker}"),
        Role::Client => "client".to_owned(),
        Role::Alone => "alone".to_owned(),
    }
}

fn seconds(time: Duration) -> String {
    format!("{}s", time.as_secs())
}

/// A port below those that the system hands out by itself, so that no connection takes it while the router is dead.
fn free_port(rng: &mut Rng) -> anyhow::Result<u16> {
    for _ in 0..100 {
        let port = u16::try_from(rng.between(10_000, 32_000))?;
        if std::net::TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return Ok(port);
        }
    }
    anyhow::bail!("no free port found")
}
