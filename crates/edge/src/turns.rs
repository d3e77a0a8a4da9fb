//! Whose words a connection writes. hyper answers what it cannot read as a request by itself, with a bare status: those
//! bytes are kept here instead of sent, and the door says the same with a body and a name, as in all its answers.
//!
//! How they are told apart: hyper flushes only when all that it had to write is written. What it writes after a flush at
//! which no reply was open, and without a request in between, is of no handler. Nothing that a client sends or a reply
//! holds is looked at for this, so none can be taken for it. (hyper's `pipeline_flush` would break it, and is off.)

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};

use hyper::body::{Body, Frame, SizeHint};
use hyper::{Response, StatusCode};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::wire::Wire;

/// The replies of one connection: one begins with each request, and is over when its body is given away or gone.
#[derive(Debug, Default)]
pub(crate) struct Turns {
    // Written and read on the connection's own task; atomic, since tasks move between threads.
    begun: AtomicU64,
    over: AtomicU64,
}

impl Turns {
    /// A request has come.
    pub(crate) fn begin(self: &Arc<Self>) -> Turn {
        self.begun.fetch_add(1, Ordering::Relaxed);
        Turn(Arc::clone(self))
    }

    /// How many there have been, if none is open.
    fn idle(&self) -> Option<u64> {
        let begun = self.begun.load(Ordering::Relaxed);
        (begun == self.over.load(Ordering::Relaxed)).then_some(begun)
    }
}

/// A reply that is not over.
#[derive(Debug)]
pub(crate) struct Turn(Arc<Turns>);

impl Turn {
    /// Goes on until the reply's body is gone.
    pub(crate) fn open<B>(self, reply: Response<B>) -> Response<Open<B>> {
        reply.map(|body| Open { body, _turn: self })
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.0.over.fetch_add(1, Ordering::Relaxed);
    }
}

/// A reply's body, and that it is not over.
pub(crate) struct Open<B> {
    body: B,
    _turn: Turn,
}

impl<B: Body + Unpin> Body for Open<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A connection's bytes, without hyper's own words.
pub(crate) struct Words {
    wire: Wire,
    turns: Arc<Turns>,
    /// At the last flush no reply was open, and so many had been.
    idle: Option<u64>,
    /// The first byte that came, but for empty lines.
    first: Option<u8>,
    /// What hyper said by itself: the last that it says.
    kept: Vec<u8>,
}

/// Bytes of hyper's words that are kept: more than it has.
const KEPT_MAX: usize = 1 << 10;

impl Words {
    pub(crate) fn new(wire: Wire, turns: Arc<Turns>) -> Self {
        Self { wire, turns, idle: Some(0), first: None, kept: Vec::new() }
    }

    pub(crate) fn into_wire(self) -> Wire {
        self.wire
    }

    /// What is to be said in place of hyper's words, under this name: nothing where it said none, or where what came was
    /// no attempt at HTTP.
    pub(crate) fn refusal(&self, id: &str) -> Option<Vec<u8>> {
        self.first.filter(u8::is_ascii_alphabetic)?;
        refusal(std::str::from_utf8(&self.kept).ok()?, id)
    }

    fn is_own(&self) -> bool {
        self.idle.is_some_and(|idle| idle == self.turns.begun.load(Ordering::Relaxed))
    }

    fn keep(&mut self, bytes: &[u8]) -> usize {
        let room = KEPT_MAX - self.kept.len();
        self.kept.extend_from_slice(&bytes[..bytes.len().min(room)]);
        bytes.len()
    }
}

/// The same refusal as in these words of hyper's, which hold nothing that a client sent: its status and date.
fn refusal(words: &str, id: &str) -> Option<Vec<u8>> {
    let (first, fields) = words.split_once("\r\n")?;
    let status = StatusCode::from_bytes(first.split(' ').nth(1)?.as_bytes()).ok()?;
    let (code, message) = match status {
        StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE | StatusCode::URI_TOO_LONG => {
            ("\"head_too_large\"", "the head of the request is longer than this server reads")
        }
        _ => ("null", "this is no HTTP/1.1 request: its first line, a field of its head, or its length is malformed"),
    };
    let body =
        format!(r#"{{"error":{{"message":"{message}","type":"invalid_request_error","param":null,"code":{code}}}}}"#);
    let date = fields.split("\r\n").find(|field| field.starts_with("date: ")).map(|date| format!("{date}\r\n"));
    let (date, len) = (date.unwrap_or_default(), body.len());
    let head = format!(
        "HTTP/1.1 {status}\r\ncontent-type: application/json\r\nx-request-id: {id}\r\nconnection: close\r\n\
         content-length: {len}\r\n{date}\r\n"
    );
    Some([head, body].concat().into_bytes())
}

impl AsyncRead for Words {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = Pin::new(&mut self.wire).poll_read(cx, buf);
        if self.first.is_none() {
            self.first = buf.filled()[before..].iter().copied().find(|byte| !matches!(byte, b'\r' | b'\n'));
        }
        read
    }
}

impl AsyncWrite for Words {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if self.is_own() {
            return Poll::Ready(Ok(self.keep(buf)));
        }
        Pin::new(&mut self.wire).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.is_own() {
            return Poll::Ready(Ok(bufs.iter().map(|buf| self.keep(buf)).sum()));
        }
        Pin::new(&mut self.wire).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.wire.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.wire).poll_flush(cx))?;
        self.idle = self.turns.idle();
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.wire).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_says_what_hyper_says_with_a_body_and_a_name() {
        let words = "HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-length: 0\r\ndate: now\r\n\r\n";
        let said = String::from_utf8(refusal(words, "req_1").unwrap()).unwrap();
        let (head, body) = said.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 431 Request Header Fields Too Large\r\n"), "{head}");
        assert!(head.contains("\r\nx-request-id: req_1\r\n") && head.ends_with("\r\ndate: now"), "{head}");
        assert!(head.contains(&format!("\r\ncontent-length: {}\r\n", body.len())), "{head}");
        let body: serde_json::Value = serde_json::from_str(body).unwrap();
        assert_eq!(body["error"]["code"], "head_too_large");
        assert_eq!((refusal("", "r"), refusal("HTTP/1.1 what\r\n\r\n", "r")), (None, None));
    }

    #[test]
    fn a_turn_is_over_when_its_body_is_gone() {
        let turns = Arc::<Turns>::default();
        assert_eq!(turns.idle(), Some(0));
        let turn = turns.begin();
        assert_eq!(turns.idle(), None);
        drop(turn);
        assert_eq!(turns.idle(), Some(1));
    }
}
