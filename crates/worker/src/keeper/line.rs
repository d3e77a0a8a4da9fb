//! The worker's ends of the socket and of the pipe to its keeper: requests leave through the one, as bytes and pipes; ends
//! come through the other, by their numbers.
//!
//! A request is written by whoever makes it, at once: no thread and no task stands between an attempt and its program.
//! Only while the socket is full do requests queue, in order, for the task that also reads the replies. That task waits to
//! be able to write only then, or each request that the keeper takes in would wake it, just as a program is to be started.
//!
//! Invariants: a request that was begun is written to its last byte, whatever becomes of who asked for it; whoever waits
//! for an end learns it, or that the keeper is gone, by then with all its programs.

use std::collections::HashMap;
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::Child;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, Shutdown, sendmsg, shutdown};
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;
use tokio::sync::{mpsc, oneshot};

use super::process::end_orphans_of;
use super::wire::{self, End, PIPES_MAX, REPLY};

/// Requests that wait for the socket; an attempt waits for room.
pub(super) const REQUESTS_MAX: usize = 256;

/// Replies that are read at once.
const REPLIES: usize = 64;

/// A request on its way.
pub(super) struct Request {
    bytes: Vec<u8>,
    sent: usize,
    /// They ride on the first byte.
    pipes: Vec<OwnedFd>,
}

impl Request {
    pub(super) fn new(bytes: Vec<u8>, pipes: Vec<OwnedFd>) -> Self {
        assert!(pipes.len() <= PIPES_MAX, "the buffer is made for three pipes");
        Self { bytes, sent: 0, pipes }
    }
}

/// What attempts, in parallel, share with the task that serves the socket.
pub(super) struct Line {
    socket: UnixStream,
    /// The socket was full: what is asked now queues behind what waits.
    behind: Mutex<bool>,
    waiting: Mutex<HashMap<u64, oneshot::Sender<End>>>,
    dead: AtomicBool,
}

impl Line {
    /// The line, and the same socket for its task to wait with: no descriptor is wanted later, when there may be none.
    pub(super) fn new(socket: UnixStream) -> io::Result<(Arc<Self>, UnixStream)> {
        socket.set_nonblocking(true)?;
        let same = socket.try_clone()?;
        let (behind, waiting) = (Mutex::new(false), Mutex::new(HashMap::new()));
        Ok((Arc::new(Self { socket, behind, waiting, dead: AtomicBool::new(false) }), same))
    }

    /// The keeper has ended, or is told to: nothing can be asked of it.
    pub(super) fn is_dead(&self) -> bool {
        self.dead.load(Ordering::Acquire)
    }

    /// Where the end of this program will be told; closed without a word when the keeper itself dies.
    pub(super) fn expect(&self, id: u64) -> oneshot::Receiver<End> {
        let (tell, end) = oneshot::channel();
        self.waiting().insert(id, tell);
        end
    }

    /// It was not asked for after all.
    pub(super) fn forget(&self, id: u64) {
        self.waiting().remove(&id);
    }

    /// Writes a request, or what the socket takes of it: the rest goes where `queue` has kept room.
    pub(super) fn write(&self, mut request: Request, queue: mpsc::Permit<'_, Request>) {
        let mut behind = self.behind();
        if !*behind && self.write_some(&mut request) {
            return;
        }
        *behind = true;
        queue.send(request);
    }

    /// True when nothing of it is left to write. A socket that fails is shut: the keeper ends, and with it the line's task.
    fn write_some(&self, request: &mut Request) -> bool {
        while request.sent < request.bytes.len() {
            match send(self.socket.as_fd(), request) {
                Ok(sent) => {
                    request.sent += sent;
                    request.pipes.clear();
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return false,
                Err(error) => {
                    tracing::warn!(%error, "the keeper of programs cannot be asked any more: it is ended, and another started");
                    // What was written in part is no request: the keeper must read nothing more, and whoever waits hears of it.
                    self.hang_up(Shutdown::Both);
                    return true;
                }
            }
        }
        true
    }

    /// Writes what queues, until nobody can ask for anything any more.
    async fn write_queued(&self, mut same: UnixStream, inbox: &mut mpsc::Receiver<Request>) -> io::Result<()> {
        while let Some(mut request) = inbox.recv().await {
            while !self.write_some(&mut request) {
                let waiting = tokio::net::UnixStream::from_std(same)?;
                waiting.writable().await?;
                same = waiting.into_std()?;
            }
            let mut behind = self.behind();
            *behind = !inbox.is_empty();
        }
        Ok(())
    }

    /// Tells ends until the keeper says nothing more.
    async fn read_replies(&self, replies: &mut Option<pipe::Receiver>) -> io::Result<()> {
        let Some(replies) = replies else { return Ok(()) };
        let (mut buffer, mut have) = ([0; REPLIES * REPLY], 0);
        loop {
            match replies.read(&mut buffer[have..]).await? {
                0 => return Ok(()),
                more => have += more,
            }
            let (whole, part) = buffer[..have].as_chunks::<REPLY>();
            let (read, left) = (whole.len() * REPLY, part.len());
            for reply in whole {
                self.tell(reply)?;
            }
            buffer.copy_within(read..have, 0);
            have = left;
        }
    }

    fn tell(&self, reply: &[u8; REPLY]) -> io::Result<()> {
        let (id, end) = wire::decode_reply(reply)?;
        // Nobody waits for an attempt whose task was dropped with the runtime.
        if let Some(tell) = self.waiting().remove(&id)
            && tell.send(end).is_err()
        {
            tracing::debug!(id, "nobody waits for this program");
        }
        Ok(())
    }

    /// The keeper sees the end of its input, and ends everything. Nothing more is asked of it.
    fn hang_up(&self, how: Shutdown) {
        self.dead.store(true, Ordering::Release);
        if let Err(error) = shutdown(&self.socket, how) {
            tracing::debug!(%error, "the keeper was gone already");
        }
    }

    fn behind(&self) -> MutexGuard<'_, bool> {
        self.behind.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn waiting(&self) -> MutexGuard<'_, HashMap<u64, oneshot::Sender<End>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The line's task: until the keeper is gone, which it will be once nobody holds the other end of `inbox`.
pub(super) async fn serve(
    line: Arc<Line>,
    same: UnixStream,
    replies: pipe::Receiver,
    mut inbox: mpsc::Receiver<Request>,
    keeper: Child,
) {
    let mut ward = Ward { line: line.clone(), keeper, replies: Some(replies) };
    let read = {
        let mut read = std::pin::pin!(line.read_replies(&mut ward.replies));
        tokio::select! {
            read = &mut read => read,
            written = line.write_queued(same, &mut inbox) => {
                if let Err(error) = written {
                    tracing::warn!(%error, "the keeper of programs does not listen any more");
                }
                line.hang_up(Shutdown::Write);
                read.await
            }
        }
    };
    if let Err(error) = read {
        tracing::error!(%error, "the keeper of programs answers nonsense, or cannot be heard");
    }
    if let Err(error) = tokio::task::spawn_blocking(move || drop(ward)).await {
        tracing::error!(%error, "waiting for the keeper of programs failed");
    }
}

/// The keeper process. Its drop ends it, also where the task is dropped with its runtime, and waits: a second at most.
struct Ward {
    line: Arc<Line>,
    keeper: Child,
    replies: Option<pipe::Receiver>,
}

impl Drop for Ward {
    fn drop(&mut self) {
        // A keeper that waits for somebody to read must not be waited for.
        drop(self.replies.take());
        self.line.hang_up(Shutdown::Both);
        match self.keeper.wait() {
            Ok(status) if status.success() => {}
            ended => {
                tracing::error!(
                    ?ended,
                    "the keeper of programs has died; its programs are ended, and its tasks tried again"
                );
                end_orphans_of(self.keeper.id());
            }
        }
        self.line.waiting().clear();
    }
}

/// Sends what the socket takes of a request.
fn send(socket: BorrowedFd<'_>, request: &Request) -> io::Result<usize> {
    let pipes: Vec<BorrowedFd<'_>> = request.pipes.iter().map(AsFd::as_fd).collect();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(PIPES_MAX))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !pipes.is_empty() {
        assert!(control.push(SendAncillaryMessage::ScmRights(&pipes)), "the buffer is made for three pipes");
    }
    let parts = [IoSlice::new(&request.bytes[request.sent..])];
    Ok(sendmsg(socket, &parts, &mut control, SendFlags::empty())?)
}
