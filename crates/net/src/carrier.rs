//! What moves a session's bytes: a TCP connection, with TLS or without, or a pair of channels within the process.

use std::fmt;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::mpsc;
use tokio_rustls::TlsStream;

use crate::intake::{self, Intake};
use crate::limits::IN_PROCESS_CHUNKS;
use crate::outbound::Outbound;

/// Chunks in one system call.
const SLICES_MAX: usize = 64;

/// One connection, with its two directions.
#[derive(Debug)]
pub struct Carrier {
    pub(crate) reader: Reader,
    pub(crate) writer: Writer,
    pub(crate) peer: Peer,
}

/// Who is at the other end, for messages about it.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Peer {
    Tcp(SocketAddr),
    InProcess,
}

#[derive(Debug)]
pub(crate) enum Reader {
    Tcp { half: OwnedReadHalf, intake: Intake },
    Tls { half: ReadHalf<TlsStream<TcpStream>>, intake: Intake },
    InProcess(mpsc::Receiver<Bytes>),
}

#[derive(Debug)]
pub(crate) enum Writer {
    Tcp(OwnedWriteHalf),
    /// Dirty: it has taken bytes that it may not have passed on.
    Tls {
        half: WriteHalf<TlsStream<TcpStream>>,
        is_dirty: bool,
    },
    InProcess(mpsc::Sender<Bytes>),
}

impl Carrier {
    /// Over TCP. Small packets leave at once: the session has batched what there was.
    pub fn tcp(stream: TcpStream) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        let peer = Peer::Tcp(stream.peer_addr()?);
        let (read, write) = stream.into_split();
        let reader = Reader::Tcp { half: read, intake: Intake::default() };
        Ok(Self { reader, writer: Writer::Tcp(write), peer })
    }

    /// Over TLS, after its handshake.
    pub(crate) fn tls(stream: TlsStream<TcpStream>, peer: SocketAddr) -> Self {
        let (read, write) = tokio::io::split(stream);
        let reader = Reader::Tls { half: read, intake: Intake::default() };
        Self { reader, writer: Writer::Tls { half: write, is_dirty: false }, peer: Peer::Tcp(peer) }
    }

    /// Both ends of a connection within the process.
    pub fn pair() -> (Self, Self) {
        let (to_b, from_a) = mpsc::channel(IN_PROCESS_CHUNKS);
        let (to_a, from_b) = mpsc::channel(IN_PROCESS_CHUNKS);
        let end = |rx, tx| Self { reader: Reader::InProcess(rx), writer: Writer::InProcess(tx), peer: Peer::InProcess };
        (end(from_b, to_b), end(from_a, to_a))
    }
}

impl Reader {
    /// The next bytes, as many as there are up to a bound; `None` at the end. `missing`: those that the packet under way still
    /// needs. May be dropped at any await and called again: nothing is lost.
    pub(crate) async fn read(&mut self, missing: usize) -> io::Result<Option<BytesMut>> {
        match self {
            Reader::Tcp { half, intake } => intake.read(half, missing).await,
            Reader::Tls { half, intake } => intake.read(half, missing).await,
            Reader::InProcess(chunks) => Ok(chunks.recv().await.map(BytesMut::from)),
        }
    }

    /// The same with at most `most` bytes from a socket, and no more memory than that: for strangers.
    pub(crate) async fn read_little(&mut self, most: usize) -> io::Result<Option<BytesMut>> {
        match self {
            Reader::Tcp { half, .. } => intake::read_little(half, most).await,
            Reader::Tls { half, .. } => intake::read_little(half, most).await,
            Reader::InProcess(chunks) => Ok(chunks.recv().await.map(BytesMut::from)),
        }
    }
}

impl Writer {
    /// It has taken all that it was given, and has passed it on.
    pub(crate) fn is_flushed(&self) -> bool {
        match self {
            Writer::Tls { is_dirty, .. } => !is_dirty,
            Writer::Tcp(_) | Writer::InProcess(_) => true,
        }
    }

    /// Writes what the system takes at once, where that can be known.
    pub(crate) fn try_write(&self, outbound: &mut Outbound) -> io::Result<()> {
        let Writer::Tcp(half) = self else { return Ok(()) };
        while outbound.has_remaining() {
            let mut slices = [IoSlice::new(&[]); SLICES_MAX];
            let count = outbound.chunks_vectored(&mut slices);
            match half.try_write_vectored(&slices[..count]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => outbound.advance(written),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Writes some of what waits. May be dropped at any await and called again: nothing is lost or written twice.
    pub(crate) async fn write(&mut self, outbound: &mut Outbound) -> io::Result<()> {
        match self {
            Writer::Tcp(half) => {
                if half.write_buf(outbound).await? == 0 && outbound.has_remaining() {
                    return Err(io::ErrorKind::WriteZero.into());
                }
            }
            Writer::Tls { half, is_dirty } => {
                // It takes more only when what it has is out, so that what waits for the peer is all in `outbound`.
                if *is_dirty {
                    half.flush().await?;
                    *is_dirty = false;
                }
                if outbound.has_remaining() {
                    if half.write_buf(outbound).await? == 0 {
                        return Err(io::ErrorKind::WriteZero.into());
                    }
                    *is_dirty = true;
                    half.flush().await?;
                    *is_dirty = false;
                }
            }
            Writer::InProcess(chunks) => {
                let room = chunks.reserve().await.map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))?;
                if let Some(chunk) = outbound.pop() {
                    room.send(chunk);
                }
            }
        }
        Ok(())
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Peer::Tcp(addr) => addr.fmt(f),
            Peer::InProcess => f.write_str("this process"),
        }
    }
}

/// From where a connection came to its listener. Not what the dialer says of itself: that is in its greeting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// From a socket: anybody.
    Socket,
    /// Through the door of this process, as whom its holder was given it ([`InProcess::for_app`]).
    Process(Option<Arc<str>>),
}

/// The door of a listener for dialers of the same process.
#[derive(Clone, Debug)]
pub struct InProcess {
    door: mpsc::Sender<(Carrier, Origin)>,
    app: Option<Arc<str>>,
}

impl InProcess {
    /// A door, and what comes through it.
    pub(crate) fn door() -> (Self, mpsc::Receiver<(Carrier, Origin)>) {
        let (door, arrivals) = mpsc::channel(1);
        (Self { door, app: None }, arrivals)
    }

    /// The same door for whoever speaks on behalf of `app` and of nobody else.
    pub fn for_app(&self, app: &str) -> Self {
        Self { door: self.door.clone(), app: Some(app.into()) }
    }

    /// A new connection; an error when the listener is gone.
    pub(crate) async fn connect(&self) -> io::Result<Carrier> {
        let (ours, theirs) = Carrier::pair();
        let origin = Origin::Process(self.app.clone());
        self.door.send((theirs, origin)).await.map_err(|_| io::Error::from(io::ErrorKind::ConnectionRefused))?;
        Ok(ours)
    }
}

#[cfg(test)]
mod tests;
