//! Reading and writing a program's pipes in bounded memory.

use std::collections::VecDeque;
use std::io::{self, PipeReader, PipeWriter, Read, Write};

use bytes::Bytes;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{Errno, ioctl_fionread};
use sheaf_task::STDERR_TAIL_MAX;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::pipe;

/// Bytes asked of a pipe at once: what a pipe holds.
const CHUNK: usize = 64 << 10;

/// What any empty pipe takes at once, also where a user has so many that the system makes them small.
const PIPE_MIN: usize = 4 << 10;

/// Looks at the pipes of a program that has ended, before they are waited for. One is enough where a pipe has its usual length.
const SETTLE_LOOKS: u32 = 4;

/// What a program wrote.
#[derive(Default)]
pub(crate) struct Written {
    pub(crate) out: Vec<u8>,
    pub(crate) errors: Tail,
}

/// Writes a short body into an empty pipe and closes it; gives the pipe back where it might not take the body at once.
pub(crate) fn feed_short(mut stdin: PipeWriter, body: &[u8]) -> Option<PipeWriter> {
    if body.len() > PIPE_MIN {
        return Some(stdin);
    }
    note_unfed(stdin.write_all(body));
    None
}

/// Reads what a program that has ended left in its pipes, and waits for nothing. False while a pipe may still have more:
/// something that the program left behind holds it.
pub(crate) fn settle(stdout: &mut PipeReader, stderr: &mut PipeReader, into: &mut Written) -> io::Result<bool> {
    let mut errors = Vec::new();
    for _ in 0..SETTLE_LOOKS {
        let mut pipes = [PollFd::new(stdout, PollFlags::IN), PollFd::new(stderr, PollFlags::IN)];
        match poll(&mut pipes, Some(&Timespec::default())) {
            Err(Errno::INTR) => continue,
            polled => polled?,
        };
        let [of_out, of_errors] = pipes.map(|pipe| pipe.revents());
        let out_ended = take(stdout, of_out, &mut into.out)?;
        let errors_ended = take(stderr, of_errors, &mut errors)?;
        into.errors.push(&errors);
        errors.clear();
        if out_ended && errors_ended {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Takes what is there; true when it was all that will ever be: nobody held the pipe before it was measured.
fn take(pipe: &mut PipeReader, seen: PollFlags, into: &mut Vec<u8>) -> io::Result<bool> {
    let there = if seen.contains(PollFlags::IN) { ioctl_fionread(&*pipe)? } else { 0 };
    let (from, taken) = (into.len(), there.min(CHUNK as u64));
    into.resize(from + taken as usize, 0);
    pipe.read_exact(&mut into[from..])?;
    Ok(seen.contains(PollFlags::HUP) && taken == there)
}

/// Writes the body and closes the pipe. A program need not read it all: a closed pipe is no error.
pub(crate) async fn feed(stdin: Option<pipe::Sender>, body: &[u8]) {
    let Some(mut stdin) = stdin else { return };
    note_unfed(stdin.write_all(body).await);
}

fn note_unfed(fed: io::Result<()>) {
    if let Err(error) = fed
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
