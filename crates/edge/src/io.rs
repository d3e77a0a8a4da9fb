//! A connection's bytes: a client that takes none of them is cut off, and one that is refused is heard out.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Sleep, sleep, timeout};

/// A stream whose writer does not wait for ever.
pub(crate) struct Patient {
    stream: TcpStream,
    stall: Duration,
    /// Runs while a write waits.
    stalled: Option<Pin<Box<Sleep>>>,
}

impl Patient {
    pub(crate) fn new(stream: TcpStream, stall: Duration) -> Self {
        Self { stream, stall, stalled: None }
    }

    pub(crate) fn into_inner(self) -> TcpStream {
        self.stream
    }

    fn judge<T>(&mut self, cx: &mut Context<'_>, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.stalled = None;
            return written;
        }
        let stall = self.stall;
        match self.stalled.get_or_insert_with(|| Box::pin(sleep(stall))).as_mut().poll(cx) {
            Poll::Ready(()) => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl AsyncRead for Patient {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Patient {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.judge(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let len: usize = bufs.iter().map(|buf| buf.len()).sum();
        if bufs.len() > 1 && len <= SMALL {
            // A head and a short body: to copy them costs less than to write two pieces.
            let (mut small, mut at) = ([0; SMALL], 0);
            for buf in bufs {
                small[at..at + buf.len()].copy_from_slice(buf);
                at += buf.len();
            }
            return self.poll_write(cx, &small[..len]);
        }
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.judge(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// Bytes that are written in one piece.
const SMALL: usize = 1 << 10;

/// Bytes of a refused request that are still taken,
const LINGER_BYTES_MAX: usize = 64 << 10;
/// and for how long.
const LINGER: Duration = Duration::from_millis(100);

/// Ends a connection. Were it closed with bytes unread, the last answer would be lost to the reset that follows: what is
/// still coming is read and forgotten, within bounds.
pub(crate) async fn end(mut stream: TcpStream) {
    if stream.shutdown().await.is_err() {
        return;
    }
    let mut buffer = [0; 4 << 10];
    let mut taken = 0;
    let rest = async {
        while taken < LINGER_BYTES_MAX {
            match stream.read(&mut buffer).await {
                Ok(0) | Err(_) => break,
                Ok(count) => taken += count,
            }
        }
    };
    if timeout(LINGER, rest).await.is_err() {
        tracing::trace!("a client goes on sending, and is cut off");
    }
}
