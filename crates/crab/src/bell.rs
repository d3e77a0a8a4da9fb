//! A bell: threads ring it with a number, and one waits for it. A pipe, so it can be waited for together with a socket, and
//! ringing neither blocks nor takes a lock.
//!
//! Invariant: whoever waits knows how many may ring, and that is far less than the pipe holds.

use std::io::{self, ErrorKind, PipeReader, PipeWriter, Read, Write};
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

/// Where it is heard.
pub(crate) struct Bell(PipeReader);

/// What one pulls to ring it.
#[derive(Clone)]
pub(crate) struct Rope(Arc<PipeWriter>);

/// Rings when it is dropped: at the end of a thread, a panic included.
pub(crate) struct AtEnd(pub(crate) Rope, pub(crate) u32);

/// What one hears who waits for a bell and for something else.
pub(crate) enum Heard {
    Ring(u32),
    Other,
    Nothing,
}

/// A bell and its rope.
///
/// # Errors
/// When there is no descriptor for it.
pub(crate) fn new() -> io::Result<(Bell, Rope)> {
    let (bell, rope) = io::pipe()?;
    Ok((Bell(bell), Rope(Arc::new(rope))))
}

impl Rope {
    /// Rings.
    pub(crate) fn ring(&self, number: u32) {
        // Nobody listens only when everything is ending.
        let _ = (&*self.0).write_all(&number.to_ne_bytes());
    }
}

impl Drop for AtEnd {
    fn drop(&mut self) {
        self.0.ring(self.1);
    }
}

impl Bell {
    /// The number of the next ring, however long it takes.
    ///
    /// # Errors
    /// When the pipe is broken, which only a fault of ours can bring about.
    pub(crate) fn wait(&mut self) -> io::Result<u32> {
        let mut number = [0; 4];
        self.0.read_exact(&mut number)?;
        Ok(u32::from_ne_bytes(number))
    }

    /// As `wait`, but for at most so long.
    ///
    /// # Errors
    /// As for `wait`.
    pub(crate) fn wait_for(&mut self, time: Duration) -> io::Result<Option<u32>> {
        let time = Timespec::try_from(time).map_err(|_| ErrorKind::InvalidInput)?;
        let mut fds = [PollFd::new(&self.0, PollFlags::IN)];
        match poll(&mut fds, Some(&time)) {
            Ok(0) | Err(Errno::INTR) => Ok(None),
            Ok(_) => self.wait().map(Some),
            Err(error) => Err(error.into()),
        }
    }

    /// As `wait`, but also for `other` to become readable, and for at most so long.
    ///
    /// # Errors
    /// As for `wait`.
    pub(crate) fn wait_beside(&mut self, other: BorrowedFd<'_>, time: Duration) -> io::Result<Heard> {
        let time = Timespec::try_from(time).map_err(|_| ErrorKind::InvalidInput)?;
        let mut fds = [PollFd::new(&self.0, PollFlags::IN), PollFd::from_borrowed_fd(other, PollFlags::IN)];
        match poll(&mut fds, Some(&time)) {
            Ok(0) => Ok(Heard::Nothing),
            Ok(_) if fds.first().is_some_and(|bell| !bell.revents().is_empty()) => self.wait().map(Heard::Ring),
            Ok(_) | Err(Errno::INTR) => Ok(Heard::Other),
            Err(error) => Err(error.into()),
        }
    }
}
