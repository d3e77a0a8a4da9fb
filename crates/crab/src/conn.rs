//! A connection with a deadline that slow peers cannot stretch, with TLS or without.
//!
//! Invariant: no read and no write waits past the deadline. Every byte that moves puts it off by `1/RATE` seconds, but never
//! further than `GRACE` from now: who is slower than `RATE` is cut soon, who stops is cut after `GRACE`.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use crate::tls;

/// For a whole head, TLS handshake included; and how long a body or an answer may stand still.
pub(crate) const GRACE: Duration = Duration::from_secs(5);
/// Slowest body and slowest answer, in bytes a second.
const RATE: u64 = 4096;
/// After an answer: how much of what the peer still sends is discarded, in reads of 4 KiB, and for how long, before the socket
/// is closed. Closed with bytes unread, it would be reset, and the answer lost.
const DISCARD_READS: usize = 16;
const DISCARD_TIME: Duration = Duration::from_millis(500);

/// A socket with a deadline.
pub(crate) struct Timed {
    /// The handler may shut it down, and libssl reads and writes it.
    stream: Arc<TcpStream>,
    deadline: Instant,
    earns: bool,
}

/// A connection of a client.
pub(crate) struct Conn {
    wire: Wire,
}

enum Wire {
    Plain(Timed),
    Tls(tls::Stream),
}

impl Timed {
    /// With the time for a head.
    ///
    /// # Errors
    /// When the socket is no socket any more.
    pub(crate) fn new(stream: TcpStream) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        Ok(Self { stream: Arc::new(stream), deadline: Instant::now() + GRACE, earns: false })
    }

    /// The socket. It does not block.
    #[cfg(feature = "openssl")]
    pub(crate) fn socket(&self) -> Arc<TcpStream> {
        Arc::clone(&self.stream)
    }

    /// The first byte, which stays to be read.
    ///
    /// # Errors
    /// When there is none in time.
    pub(crate) fn first_byte(&self) -> io::Result<u8> {
        let mut byte = [0];
        match self.in_time(PollFlags::IN, || self.stream.peek(&mut byte))? {
            0 => Err(ErrorKind::UnexpectedEof.into()),
            _ => Ok(u8::from_be_bytes(byte)),
        }
    }

    /// Waits until the socket is ready.
    ///
    /// # Errors
    /// When the deadline comes first.
    pub(crate) fn wait(&self, what: PollFlags) -> io::Result<()> {
        let left = Timespec::try_from(self.left()?).map_err(|_| ErrorKind::InvalidInput)?;
        match poll(&mut [PollFd::new(&self.stream, what)], Some(&left)) {
            Ok(0) => Err(ErrorKind::TimedOut.into()),
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Time until the deadline.
    ///
    /// # Errors
    /// When it is over.
    pub(crate) fn left(&self) -> io::Result<Duration> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        if left.is_zero() { Err(ErrorKind::TimedOut.into()) } else { Ok(left) }
    }

    /// So many bytes of a body or an answer went through, which may earn time.
    pub(crate) fn moved(&mut self, bytes: usize) -> usize {
        if self.earns {
            let earned = Duration::from_micros(bytes as u64 * 1_000_000 / RATE);
            self.deadline = (self.deadline + earned).min(Instant::now() + GRACE);
        }
        bytes
    }

    fn in_time(&self, what: PollFlags, mut work: impl FnMut() -> io::Result<usize>) -> io::Result<usize> {
        loop {
            self.left()?;
            match work() {
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.wait(what)?,
                result => return result,
            }
        }
    }

    fn discard(&mut self) {
        let mut bytes = [0; 4096];
        for _ in 0..DISCARD_READS {
            if !matches!(self.read(&mut bytes), Ok(1..)) {
                return;
            }
        }
    }
}

impl Read for Timed {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let count = self.in_time(PollFlags::IN, || (&*self.stream).read(bytes))?;
        Ok(self.moved(count))
    }
}

impl Write for Timed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.in_time(PollFlags::OUT, || (&*self.stream).write(bytes))?;
        Ok(self.moved(count))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Conn {
    pub(crate) fn plain(timed: Timed) -> Self {
        Self { wire: Wire::Plain(timed) }
    }

    pub(crate) fn tls(stream: tls::Stream) -> Self {
        Self { wire: Wire::Tls(stream) }
    }

    /// From now on time is earned by bytes.
    pub(crate) fn begin_transfer(&mut self) {
        let timed = self.timed_mut();
        timed.earns = true;
        timed.deadline = Instant::now() + GRACE;
    }

    /// Whether the client has closed its side. It costs a system call, and reads nothing.
    pub(crate) fn has_left(&self) -> bool {
        let mut fds = [PollFd::from_borrowed_fd(self.as_fd(), PollFlags::RDHUP)];
        // A poll that fails says nothing about the client.
        poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).is_ok_and(|ready| ready > 0)
    }

    /// The socket, for somebody who may have to cut it.
    pub(crate) fn socket(&self) -> Weak<TcpStream> {
        Arc::downgrade(&self.timed().stream)
    }

    /// Says goodbye in order, so that what was written last arrives.
    pub(crate) fn close(mut self) {
        if let Wire::Tls(stream) = &mut self.wire {
            stream.say_goodbye();
        }
        let timed = self.timed_mut();
        timed.earns = false;
        timed.deadline = Instant::now() + DISCARD_TIME;
        if timed.stream.shutdown(Shutdown::Write).is_ok() {
            timed.discard();
        }
    }

    fn timed(&self) -> &Timed {
        match &self.wire {
            Wire::Plain(timed) => timed,
            Wire::Tls(stream) => stream.timed(),
        }
    }

    fn timed_mut(&mut self) -> &mut Timed {
        match &mut self.wire {
            Wire::Plain(timed) => timed,
            Wire::Tls(stream) => stream.timed_mut(),
        }
    }
}

impl AsFd for Conn {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.timed().stream.as_fd()
    }
}

impl Read for Conn {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        match &mut self.wire {
            Wire::Plain(timed) => timed.read(bytes),
            Wire::Tls(stream) => stream.read(bytes),
        }
    }
}

impl Write for Conn {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.wire {
            Wire::Plain(timed) => timed.write(bytes),
            Wire::Tls(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match &mut self.wire {
            Wire::Plain(timed) => timed.flush(),
            Wire::Tls(stream) => stream.flush(),
        }
    }
}
