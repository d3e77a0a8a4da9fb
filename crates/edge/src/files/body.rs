//! A file as the body of a reply, read as fast as the client takes it.

use std::fs::File;
use std::io::{self, Read};
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use tokio::task::JoinHandle;

/// Bytes that are read at once.
const READ_BYTES: u64 = 256 << 10;

/// The next bytes of a file.
type Part = (File, io::Result<Vec<u8>>);

/// A file that is being sent. It has as many bytes as it had when it was opened.
pub(super) struct FileBody {
    left: u64,
    state: State,
}

enum State {
    Idle(File),
    Reading(JoinHandle<Part>),
    Over,
}

impl FileBody {
    pub(super) fn new(file: File, bytes: u64) -> Self {
        Self { left: bytes, state: State::Idle(file) }
    }

    fn take(&mut self, part: Part) -> Option<io::Result<Frame<Bytes>>> {
        let (file, read) = part;
        match read {
            Ok(bytes) if bytes.is_empty() => Some(Err(io::ErrorKind::UnexpectedEof.into())),
            Ok(bytes) => {
                self.left = self.left.saturating_sub(bytes.len() as u64);
                self.state = State::Idle(file);
                Some(Ok(Frame::data(Bytes::from(bytes))))
            }
            Err(error) => Some(Err(error)),
        }
    }
}

impl Body for FileBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let body = self.get_mut();
        loop {
            match std::mem::replace(&mut body.state, State::Over) {
                State::Over => return Poll::Ready(None),
                State::Idle(_) if body.left == 0 => return Poll::Ready(None),
                State::Idle(file) => {
                    let len = body.left.min(READ_BYTES);
                    body.state = State::Reading(tokio::task::spawn_blocking(move || read(file, len)));
                }
                State::Reading(mut reading) => match Pin::new(&mut reading).poll(cx) {
                    Poll::Pending => {
                        body.state = State::Reading(reading);
                        return Poll::Pending;
                    }
                    Poll::Ready(Ok(part)) => return Poll::Ready(body.take(part)),
                    Poll::Ready(Err(error)) => return Poll::Ready(Some(Err(io::Error::other(error)))),
                },
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

fn read(file: File, len: u64) -> Part {
    let mut bytes = Vec::with_capacity(usize::try_from(len).unwrap_or_default());
    let read = (&file).take(len).read_to_end(&mut bytes);
    (file, read.map(|_| bytes))
}
