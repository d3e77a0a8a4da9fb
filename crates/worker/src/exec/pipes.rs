//! Reading and writing a program's pipes in bounded memory.

use std::collections::VecDeque;
use std::io;

use bytes::Bytes;
use sheaf_task::STDERR_TAIL_MAX;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::pipe;

/// Bytes asked of a pipe at once: what a pipe holds.
const CHUNK: usize = 64 << 10;

/// Writes the body and closes the pipe. A program need not read it all: a closed pipe is no error.
pub(crate) async fn feed(stdin: Option<pipe::Sender>, body: &[u8]) {
    let Some(mut stdin) = stdin else { return };
    if let Err(error) = stdin.write_all(body).await
        && error.kind() != io::ErrorKind::BrokenPipe
    {
        tracing::warn!(%error, "cannot write to a program's standard input");
    }
}

/// Reads to the end, or until there is more than `max` (by a chunk at most): true then.
pub(crate) async fn gather(stdout: &mut pipe::Receiver, into: &mut Vec<u8>, max: usize) -> bool {
    loop {
        // Spare room stays small until the program shows that it writes much.
        into.reserve(into.len().clamp(4 << 10, CHUNK));
        match stdout.read_buf(into).await {
            Ok(0) => return false,
            Ok(_) if into.len() > max => return true,
            Ok(_) => {}
            Err(error) => {
                tracing::warn!(%error, "cannot read a program's standard output");
                return false;
            }
        }
    }
}

/// Reads to the end and keeps the tail.
pub(crate) async fn follow(stderr: &mut pipe::Receiver, tail: &mut Tail) {
    let mut chunk = vec![0; 4 << 10];
    loop {
        match stderr.read(&mut chunk).await {
            Ok(0) => return,
            Ok(n) => tail.push(&chunk[..n]),
            Err(error) => {
                tracing::warn!(%error, "cannot read a program's standard error");
                return;
            }
        }
    }
}

/// The last [`STDERR_TAIL_MAX`] bytes of what was pushed.
#[derive(Default)]
pub(crate) struct Tail(VecDeque<u8>);

impl Tail {
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        let bytes = &bytes[bytes.len().saturating_sub(STDERR_TAIL_MAX)..];
        let over = (self.0.len() + bytes.len()).saturating_sub(STDERR_TAIL_MAX);
        self.0.drain(..over);
        self.0.extend(bytes);
    }

    pub(crate) fn bytes(&self) -> Bytes {
        self.0.iter().copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tail_is_the_end_of_it_all() {
        let mut tail = Tail::default();
        tail.push(&[1; STDERR_TAIL_MAX * 3]);
        tail.push(&[2; 10]);
        let bytes = tail.bytes();
        assert_eq!(bytes.len(), STDERR_TAIL_MAX);
        assert_eq!(bytes[STDERR_TAIL_MAX - 11..], [1, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2]);
    }
}
