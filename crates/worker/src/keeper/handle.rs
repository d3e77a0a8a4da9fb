//! The worker's end of the keeper: asks for programs, hears how they ended.

use std::ffi::OsString;
use std::io::{self, PipeReader, PipeWriter};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::net::unix::pipe;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;

use super::KeeperCommand;
use super::line::{self, Line, REQUESTS_MAX, Request};
use super::process::end_orphans_of_the_dead;
use super::wire::{self, End, Header};

/// A running keeper. Dropping the last clone ends it and every program that it keeps, within a second.
#[derive(Clone)]
pub(crate) struct Keeper {
    line: Arc<Line>,
    next: Arc<AtomicU64>,
    /// For the line's task, while the socket is full.
    requests: mpsc::Sender<Request>,
}

/// A program that was asked for: our ends of its pipes, and its end. Nobody waits for the pipes yet: one that ends soon
/// needs nobody to.
pub(crate) struct Program {
    pub(crate) id: u64,
    pub(crate) stdin: Option<PipeWriter>,
    pub(crate) stdout: PipeReader,
    pub(crate) stderr: PipeReader,
    /// Closed without a word when the keeper itself dies.
    pub(crate) end: oneshot::Receiver<End>,
}

/// The same, with pipes that a task can wait for.
pub(crate) struct Attended {
    pub(crate) id: u64,
    pub(crate) stdin: Option<pipe::Sender>,
    pub(crate) stdout: pipe::Receiver,
    pub(crate) stderr: pipe::Receiver,
    pub(crate) end: oneshot::Receiver<End>,
}

impl Keeper {
    /// Starts the keeper process; `tasks` takes the task that serves its line.
    fn start(command: &KeeperCommand, tasks: &mut JoinSet<()>) -> io::Result<Self> {
        let (ours, theirs) = UnixStream::pair()?;
        let (line, same) = Line::new(ours)?;
        let (replies, says) = io::pipe()?;
        let replies = pipe::Receiver::from_owned_fd(replies.into())?;
        let child = Command::new(&command.program)
            .args(&command.args)
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(says)
            .process_group(0) // Ctrl-C is the worker's to answer.
            .env_remove("SHEAF_TOKEN") // What it shows to its router is none of its programs' business.
            .spawn()?;
        let (requests, inbox) = mpsc::channel(REQUESTS_MAX);
        tasks.spawn(line::serve(line.clone(), same, replies, inbox, child));
        Ok(Self { line, next: Arc::new(AtomicU64::new(1)), requests })
    }

    /// True when the keeper process has ended, or is told to; programs can no longer be started through it.
    pub(crate) fn is_dead(&self) -> bool {
        self.line.is_dead()
    }

    /// Asks for a program with pipes; `memory` in bytes, 0 for no limit. Errors are ours (no file descriptors left);
    /// the program's own arrive as [`End::Failed`].
    pub(crate) async fn spawn(&self, argv: &[OsString], memory: u64, stdin: bool) -> io::Result<Program> {
        let (in_theirs, in_ours) = if stdin { io::pipe().map(|(r, w)| (Some(r), Some(w)))? } else { (None, None) };
        let (stdout, out_theirs) = io::pipe()?;
        let (stderr, err_theirs) = io::pipe()?;
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let end = self.line.expect(id);
        let bytes = wire::encode_spawn(id, stdin, memory, argv);
        let pipes = in_theirs.into_iter().map(OwnedFd::from).chain([out_theirs.into(), err_theirs.into()]).collect();
        if self.is_dead() || !self.ask(Request::new(bytes, pipes)).await {
            self.line.forget(id);
        }
        Ok(Program { id, stdin: in_ours, stdout, stderr, end })
    }

    /// From now on the pipes of a program can be waited for. One of which they cannot is killed.
    pub(crate) async fn attend(&self, program: Program) -> io::Result<Attended> {
        let id = program.id;
        let attended = program.attend();
        if attended.is_err() {
            self.kill(id).await;
        }
        attended
    }

    /// Kills the program and its process group. It is reported as ended all the same.
    pub(crate) async fn kill(&self, id: u64) {
        if !self.ask(Request::new(Header::Kill { id }.encode().to_vec(), Vec::new())).await {
            tracing::debug!(id, "the keeper is gone, and its programs with it");
        }
    }

    /// False when the keeper is gone. Dropped while it waits for room, it has asked for nothing.
    async fn ask(&self, request: Request) -> bool {
        match self.requests.reserve().await {
            Ok(room) => {
                self.line.write(request, room);
                true
            }
            Err(_gone) => false,
        }
    }
}

impl Program {
    fn attend(self) -> io::Result<Attended> {
        Ok(Attended {
            id: self.id,
            stdin: self.stdin.map(|end| pipe::Sender::from_owned_fd(end.into())).transpose()?,
            stdout: pipe::Receiver::from_owned_fd(self.stdout.into())?,
            stderr: pipe::Receiver::from_owned_fd(self.stderr.into())?,
            end: self.end,
        })
    }
}

/// The worker's keeper, started again when it has died.
#[derive(Clone)]
pub(crate) struct KeeperSlot {
    command: Arc<KeeperCommand>,
    // Shared by attempts that run in parallel; held for a look, or for the start of a process.
    slot: Arc<Mutex<Slot>>,
}

#[derive(Default)]
struct Slot {
    keeper: Option<Keeper>,
    /// Of this keeper, and of those that died before it.
    lines: JoinSet<()>,
}

impl KeeperSlot {
    /// Starts the first keeper. Within a tokio runtime.
    pub(crate) fn start(command: KeeperCommand) -> io::Result<Self> {
        end_orphans_of_the_dead();
        let keepers = Self { command: Arc::new(command), slot: Arc::default() };
        keepers.live()?;
        raise_descriptor_limit();
        Ok(keepers)
    }

    /// A keeper that lives, or did a moment ago.
    pub(crate) fn live(&self) -> io::Result<Keeper> {
        let mut slot = self.lock();
        match &slot.keeper {
            Some(keeper) if !keeper.is_dead() => Ok(keeper.clone()),
            Some(_) | None => {
                while let Some(joined) = slot.lines.try_join_next() {
                    check(joined);
                }
                let keeper = Keeper::start(&self.command, &mut slot.lines)?;
                slot.keeper = Some(keeper.clone());
                Ok(keeper)
            }
        }
    }

    /// Ends the keeper and what it keeps, and waits for it.
    pub(crate) async fn close(&self) {
        let Slot { keeper, mut lines } = std::mem::take(&mut *self.lock());
        drop(keeper);
        while let Some(joined) = lines.join_next().await {
            check(joined);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Slot> {
        self.slot.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn check(joined: Result<(), tokio::task::JoinError>) {
    if let Err(error) = joined {
        tracing::error!(%error, "the task that speaks with the keeper panicked");
    }
}

/// Each attempt takes two or three descriptors here. Raised once the keeper has started, so that programs inherit what
/// the user chose.
fn raise_descriptor_limit() {
    let limit = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum }) {
        tracing::warn!(%error, "cannot raise the limit of open files; very large batches will fail");
    }
}
