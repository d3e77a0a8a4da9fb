//! The worker's end of the keeper: asks for programs, hears how they ended.

use std::collections::HashMap;
use std::ffi::OsString;
use std::io::{self, IoSlice, PipeReader, PipeWriter, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::net::unix::pipe;
use tokio::sync::{mpsc, oneshot};

use super::KeeperCommand;
use super::process::{end_orphans_of, end_orphans_of_the_dead};
use super::wire::{self, End, Header, PIPES_MAX, REPLY};

/// Requests waiting to be written to the keeper's socket; an attempt waits for room.
const REQUESTS_MAX: usize = 256;

/// A running keeper. Dropping the last clone ends it and every program that it keeps, within a second.
#[derive(Clone)]
pub(crate) struct Keeper {
    shared: Arc<Shared>,
    requests: mpsc::Sender<Request>,
    /// Held by the clones of this handle only; its drop joins the threads.
    _threads: Arc<Threads>,
}

/// State that the reply thread shares with whoever waits for an end: the socket's reader is a thread of its own.
struct Shared {
    waiting: Mutex<HashMap<u64, oneshot::Sender<End>>>,
    dead: AtomicBool,
    next: AtomicU64,
}

/// What is asked of the keeper.
enum Request {
    Spawn { id: u64, payload: Vec<u8>, stdin: Option<PipeReader>, stdout: PipeWriter, stderr: PipeWriter },
    Kill { id: u64 },
}

/// A program that was asked for: our ends of its pipes, and its end.
pub(crate) struct Program {
    pub(crate) id: u64,
    pub(crate) stdin: Option<pipe::Sender>,
    pub(crate) stdout: pipe::Receiver,
    pub(crate) stderr: pipe::Receiver,
    /// Closed without a word when the keeper itself dies.
    pub(crate) end: oneshot::Receiver<End>,
}

impl Keeper {
    /// Starts the keeper process.
    pub(crate) fn start(command: &KeeperCommand) -> io::Result<Self> {
        let (ours, theirs) = UnixStream::pair()?;
        let child = Command::new(&command.program)
            .args(&command.args)
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::null())
            .process_group(0) // Ctrl-C is the worker's to answer.
            .env_remove("SHEAF_TOKEN") // What it shows to its router is none of its programs' business.
            .spawn()?;
        let shared = Arc::new(Shared {
            waiting: Mutex::new(HashMap::new()),
            dead: AtomicBool::new(false),
            next: AtomicU64::new(1),
        });
        let (requests, inbox) = mpsc::channel(REQUESTS_MAX);
        let (writer, reader) = (ours.try_clone()?, ours);
        let for_reader = shared.clone();
        let threads = vec![
            thread::Builder::new().name("keeper-out".into()).spawn(move || write_requests(writer, inbox))?,
            thread::Builder::new().name("keeper-in".into()).spawn(move || read_replies(reader, child, &for_reader))?,
        ];
        Ok(Self { shared, requests, _threads: Arc::new(Threads(threads)) })
    }

    /// True when the keeper process has ended; programs can no longer be started through it.
    pub(crate) fn is_dead(&self) -> bool {
        self.shared.dead.load(Ordering::Acquire)
    }

    /// Asks for a program with pipes; `memory` in bytes, 0 for no limit. Errors are ours (no file descriptors left);
    /// the program's own arrive as [`End::Failed`].
    pub(crate) async fn spawn(&self, argv: &[OsString], memory: u64, stdin: bool) -> io::Result<Program> {
        let id = self.shared.next.fetch_add(1, Ordering::Relaxed);
        let (in_theirs, in_ours) = if stdin { io::pipe().map(|(r, w)| (Some(r), Some(w)))? } else { (None, None) };
        let (out_ours, out_theirs) = io::pipe()?;
        let (err_ours, err_theirs) = io::pipe()?;
        let (tell, end) = oneshot::channel();
        let program = Program {
            id,
            stdin: in_ours.map(|end| pipe::Sender::from_owned_fd(end.into())).transpose()?,
            stdout: pipe::Receiver::from_owned_fd(out_ours.into())?,
            stderr: pipe::Receiver::from_owned_fd(err_ours.into())?,
            end,
        };
        self.shared.lock().insert(id, tell);
        let payload = wire::encode_spawn(memory, argv);
        let request = Request::Spawn { id, payload, stdin: in_theirs, stdout: out_theirs, stderr: err_theirs };
        if self.is_dead() || self.requests.send(request).await.is_err() {
            self.shared.lock().remove(&id);
        }
        Ok(program)
    }

    /// Kills the program and its process group. It is reported as ended all the same.
    pub(crate) async fn kill(&self, id: u64) {
        if self.requests.send(Request::Kill { id }).await.is_err() {
            tracing::debug!(id, "the keeper is gone, and its programs with it");
        }
    }
}

/// The worker's keeper, started again when it has died.
#[derive(Clone)]
pub(crate) struct KeeperSlot {
    command: Arc<KeeperCommand>,
    // Shared by attempts that run in parallel; held for a look, or for the start of a process.
    current: Arc<Mutex<Option<Keeper>>>,
}

impl KeeperSlot {
    /// Starts the first keeper.
    pub(crate) fn start(command: KeeperCommand) -> io::Result<Self> {
        end_orphans_of_the_dead();
        let keeper = Keeper::start(&command)?;
        raise_descriptor_limit();
        Ok(Self { command: Arc::new(command), current: Arc::new(Mutex::new(Some(keeper))) })
    }

    /// A keeper that lives, or did a moment ago.
    pub(crate) fn live(&self) -> io::Result<Keeper> {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        match &*current {
            Some(keeper) if !keeper.is_dead() => Ok(keeper.clone()),
            _ => {
                let keeper = Keeper::start(&self.command)?;
                *current = Some(keeper.clone());
                Ok(keeper)
            }
        }
    }

    /// Ends the keeper and what it keeps, and waits for it.
    pub(crate) async fn close(&self) {
        let keeper = self.current.lock().unwrap_or_else(PoisonError::into_inner).take();
        // Dropping it joins its threads.
        if let Err(error) = tokio::task::spawn_blocking(move || drop(keeper)).await {
            tracing::error!(%error, "the keeper's handle panicked");
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, HashMap<u64, oneshot::Sender<End>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
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

fn write_requests(socket: UnixStream, mut inbox: mpsc::Receiver<Request>) {
    while let Some(request) = inbox.blocking_recv() {
        if let Err(error) = write_request(&socket, request) {
            tracing::warn!(%error, "the keeper of programs does not listen any more");
            break;
        }
    }
    // The keeper sees the end of its input and ends everything.
    if let Err(error) = socket.shutdown(std::net::Shutdown::Write) {
        tracing::debug!(%error, "the keeper was gone already");
    }
}

fn write_request(mut socket: &UnixStream, request: Request) -> io::Result<()> {
    match request {
        Request::Kill { id } => socket.write_all(&Header::Kill { id }.encode()),
        Request::Spawn { id, payload, stdin, stdout, stderr } => {
            let header = Header::Spawn { id, stdin: stdin.is_some(), len: payload.len() }.encode();
            let pipes: Vec<BorrowedFd<'_>> =
                stdin.iter().map(AsFd::as_fd).chain([stdout.as_fd(), stderr.as_fd()]).collect();
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(PIPES_MAX))];
            let mut control = SendAncillaryBuffer::new(&mut space);
            assert!(control.push(SendAncillaryMessage::ScmRights(&pipes)), "the buffer is made for three pipes");
            let mut sent = loop {
                let parts = [IoSlice::new(&header), IoSlice::new(&payload)];
                match sendmsg(socket, &parts, &mut control, SendFlags::empty()) {
                    Err(rustix::io::Errno::INTR) => {}
                    sent => break sent?,
                }
            };
            if sent < header.len() {
                socket.write_all(&header[sent..])?;
                sent = header.len();
            }
            socket.write_all(&payload[sent - header.len()..])
        }
    }
}

/// Replies until the keeper is gone; then whoever still waits learns it by the closed channel.
fn read_replies(mut socket: UnixStream, mut child: Child, shared: &Shared) {
    let mut reply = [0; REPLY];
    while socket.read_exact(&mut reply).is_ok() {
        match wire::decode_reply(&reply) {
            Ok((id, end)) => {
                // Nobody waits for an attempt whose task was dropped with the runtime.
                if let Some(tell) = shared.lock().remove(&id)
                    && tell.send(end).is_err()
                {
                    tracing::debug!(id, "nobody waits for this program");
                }
            }
            Err(error) => {
                tracing::error!(%error, "the keeper of programs answers nonsense");
                break;
            }
        }
    }
    shared.dead.store(true, Ordering::Release);
    match child.wait() {
        Ok(status) if status.success() => {}
        ended => {
            tracing::error!(
                ?ended,
                "the keeper of programs has died; its programs are ended, and its tasks tried again"
            );
            end_orphans_of(child.id());
        }
    }
    shared.lock().clear();
}

struct Threads(Vec<JoinHandle<()>>);

impl Drop for Threads {
    fn drop(&mut self) {
        for thread in self.0.drain(..) {
            if thread.join().is_err() {
                tracing::error!("a thread of the keeper's handle panicked");
            }
        }
    }
}
