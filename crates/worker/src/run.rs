//! The worker process's loop: link, machine, executor and spool, from start to leave.

use std::io;
use std::path::PathBuf;

use sheaf_net::{Link, Source, Target};
use sheaf_roles::port::{self, Over, WorkerPort, WorkerReport};
use sheaf_roles::worker;
use sheaf_session::{Depth, Faults, Session, SessionId, Side, State};
use sheaf_task::{Capacity, Refusal, WorkerId};
use tokio::sync::{mpsc, watch};

use crate::config::{ConfigError, Work};
use crate::disk::Disk;
use crate::exec::{Ended, Executor};
use crate::shell::Shell;
use crate::spool::{Recovered, Spool, SpoolError, random};

/// Batches of commands on their way to the link, which always takes them.
const COMMANDS_MAX: usize = 16;
/// Batches of reports; the link reads nothing more from its carrier while this is full.
const REPORTS_MAX: usize = 16;

/// A worker as its user describes it.
#[derive(Clone, Debug)]
pub struct Config {
    /// For people.
    pub name: String,
    /// What it offers.
    pub services: Vec<String>,
    /// How much of it.
    pub capacity: Capacity,
    /// What does it.
    pub work: Work,
    /// Where the router is.
    pub target: Target,
    /// Where it keeps who it is and its unacknowledged results; `None` for a worker that lives and dies with its router.
    pub data: Option<PathBuf>,
    /// `--chaos`.
    pub faults: Option<Faults>,
}

/// What is wanted of a running worker.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stop {
    /// Work.
    #[default]
    No,
    /// Accept nothing more, finish what executes, leave.
    Drain,
    /// End at once; what executes is killed, and done elsewhere.
    Force,
}

/// A worker's life in figures.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Attempts that ended here.
    pub attempts: u64,
    /// Results that the router has not acknowledged; a worker with a data directory sends them when it comes back.
    pub unacknowledged: usize,
}

/// Why a worker ends.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    /// What it is asked to run cannot be run.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Its data directory cannot be used.
    #[error(transparent)]
    Spool(#[from] SpoolError),
    /// The disk does not keep what it was given.
    #[error("cannot sync the spool: {0}; the worker stops, for what the disk says now cannot be trusted")]
    Sync(io::Error),
    /// No random numbers.
    #[error("cannot read random numbers from the system: {0}")]
    Random(io::Error),
    /// The router will not have it, now or later.
    #[error("the router refuses this worker: {}", say_refused(.0))]
    Refused(Refusal),
    /// Its session is over.
    #[error("the session with the router is over: {}", say(.0))]
    Over(Over),
}

/// Runs a worker until it is stopped or cannot go on. Errors that are there at the start come before any work.
pub async fn run(config: Config, mut stop: watch::Receiver<Stop>) -> Result<Summary, WorkerError> {
    config.work.check()?;
    let (spool, recovered) = recover(&config)?;
    let seeds = [seed()?, seed()?, seed()?];
    let executor = Executor::start_up(&config.work, config.capacity)?;
    let (port, mut shell) = assemble(&config, executor, spool.map(Disk::new), recovered, seeds);
    let (commands, for_link) = mpsc::channel(COMMANDS_MAX);
    let (from_link, mut reports) = mpsc::channel(REPORTS_MAX);
    let source = Source::Dial { target: config.target, seed: seeds[2] };
    let link = tokio::spawn(Link::new(port, shell.clock, source, for_link, from_link).run());
    let result = turn(&mut shell, &mut reports, &commands, &mut stop).await;
    // The link ends when nobody can command it any more.
    drop((commands, reports));
    if let Err(error) = link.await {
        tracing::error!(%error, "the link panicked");
    }
    let Shell { executor, disk, .. } = shell;
    executor.close().await;
    if let Some(disk) = disk {
        disk.close().await.map_err(WorkerError::Sync)?;
    }
    result
}

/// What woke the loop.
enum Woken {
    Reports(Option<Vec<WorkerReport>>),
    Ended(Vec<Ended>),
    Stop(Stop),
    Synced(io::Result<()>),
    Time,
}

async fn turn(
    shell: &mut Shell,
    reports: &mut mpsc::Receiver<Vec<WorkerReport>>,
    commands: &mpsc::Sender<Vec<port::WorkerCommand>>,
    stop: &mut watch::Receiver<Stop>,
) -> Result<Summary, WorkerError> {
    let mut stopping = Stop::No;
    loop {
        shell.drain()?;
        // The link takes commands whatever else it does. One that has gone has reported why.
        let said = shell.take_commands();
        if !said.is_empty() && commands.send(said).await.is_err() {
            tracing::debug!("the link has ended");
        }
        match wait(shell, reports, stop).await {
            Woken::Reports(None) => return Ok(summary(shell)),
            Woken::Reports(Some(batch)) => {
                for report in batch {
                    if shell.on_report(report)? {
                        shell.drain()?;
                        return Ok(summary(shell));
                    }
                }
            }
            Woken::Ended(ended) => shell.on_ended(ended),
            Woken::Stop(Stop::Force) => {
                shell.on_forced()?;
                // Results that waited for company leave alone, if the link still takes them.
                if let Err(error) = commands.try_send(shell.last_commands()) {
                    tracing::debug!(%error, "the link takes nothing more");
                }
                return Ok(summary(shell));
            }
            Woken::Stop(wanted) if wanted > stopping => {
                stopping = wanted;
                shell.on_stop();
            }
            Woken::Stop(_) => {}
            Woken::Synced(synced) => synced.map_err(WorkerError::Sync)?,
            Woken::Time => {
                shell.on_time()?;
                if shell.is_overdue() {
                    return Ok(summary(shell));
                }
            }
        }
    }
}

async fn wait(
    shell: &mut Shell,
    reports: &mut mpsc::Receiver<Vec<WorkerReport>>,
    stop: &mut watch::Receiver<Stop>,
) -> Woken {
    let (wake, clock) = (shell.wake(), shell.clock);
    let Shell { executor, disk, alarm, .. } = shell;
    let mut ended = Vec::new();
    tokio::select! {
        wanted = changed(stop) => Woken::Stop(wanted),
        reports = reports.recv() => Woken::Reports(reports),
        () = executor.ended(&mut ended) => Woken::Ended(ended),
        synced = synced(disk) => Woken::Synced(synced),
        () = alarm.wait(clock, wake) => Woken::Time,
    }
}

/// A worker whose owner has gone is stopped at once.
async fn changed(stop: &mut watch::Receiver<Stop>) -> Stop {
    match stop.changed().await {
        Ok(()) => *stop.borrow_and_update(),
        Err(_) => Stop::Force,
    }
}

async fn synced(disk: &mut Option<Disk>) -> io::Result<()> {
    match disk {
        Some(disk) => disk.synced().await,
        None => std::future::pending().await,
    }
}

fn summary(shell: &Shell) -> Summary {
    Summary { attempts: shell.attempts, unacknowledged: shell.machine.unacknowledged() }
}

/// Takes up where the last life ended. The seeds: what tells this process from a clone, and the session's own.
fn assemble(
    config: &Config,
    executor: Executor,
    disk: Option<Disk>,
    recovered: Recovered,
    seeds: [u64; 3],
) -> (WorkerPort, Shell) {
    let depth = if disk.is_some() { Depth::Disk } else { Depth::Memory };
    let session = sheaf_session::Config {
        incarnation: recovered.incarnation,
        boot: seeds[0],
        auth: config.target.auth(),
        faults: config.faults,
        ..sheaf_session::Config::default()
    };
    let session = port::fit_dialer_config(session, depth);
    let id = recovered.state.id;
    let port = match disk {
        Some(_) => WorkerPort::recover(session, seeds[1], recovered.state),
        None => WorkerPort::new(Session::new(session, Side::Dialer, id, seeds[1])),
    };
    let machine = worker::Worker::new(worker::Config {
        worker: recovered.worker,
        incarnation: recovered.incarnation,
        name: config.name.clone(),
        services: config.services.clone(),
        capacity: config.capacity,
        died_with: recovered.died_with.clone(),
        spooled: port.unacknowledged(),
    });
    let mut shell = Shell::new(machine, executor, disk, config.capacity);
    shell.died_with = recovered.died_with;
    (port, shell)
}

fn recover(config: &Config) -> Result<(Option<Spool>, Recovered), WorkerError> {
    if let Some(data) = &config.data {
        let (spool, recovered) = Spool::open(data)?;
        return Ok((Some(spool), recovered));
    }
    let (mut worker, mut session) = ([0; 16], [0; 16]);
    random(&mut worker).and_then(|()| random(&mut session)).map_err(WorkerError::Random)?;
    let state = State::new(SessionId(session));
    Ok((None, Recovered { worker: WorkerId(worker), incarnation: 1, state, died_with: Vec::new() }))
}

fn seed() -> Result<u64, WorkerError> {
    let mut bytes = [0; 8];
    random(&mut bytes).map_err(WorkerError::Random)?;
    Ok(u64::from_le_bytes(bytes))
}

fn say_refused(refusal: &Refusal) -> String {
    match refusal {
        Refusal::Forbidden => {
            "its token does not grant that: a worker takes one of `sheaf token create --role worker`".to_owned()
        }
        other => format!("{other:?}"),
    }
}

fn say(over: &Over) -> &'static str {
    match over {
        Over::Ended => "both sides agreed to end it",
        Over::Refused(sheaf_session::Refusal::Clone) => {
            "another process uses a copy of this worker's data directory; start this one with its own --data"
        }
        Over::Refused(sheaf_session::Refusal::Version) => {
            "the router speaks another version; install the same sheaf on both"
        }
        Over::Refused(sheaf_session::Refusal::Busy) => "the router has as many sessions as it takes; try again later",
        Over::Refused(sheaf_session::Refusal::Auth) => {
            "the router has no such token, had it revoked, or knows this worker by another one (--token-file FILE, SHEAF_TOKEN)"
        }
        Over::Refused(sheaf_session::Refusal::Untrusted) => {
            "the router is not to be trusted, as was said: name whom to trust with --ca FILE, and write its address as \
             sheaf://HOST:PORT if, and only if, it speaks TLS"
        }
        Over::Refused(sheaf_session::Refusal::Fenced) | Over::Fenced => {
            "a later process of this worker has taken it over"
        }
        Over::Malformed => "the router sent what is no message for a worker; install the same sheaf on both",
        Over::Overrun => "the router was away so long that too much waits for it",
    }
}
