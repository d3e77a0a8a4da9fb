//! One run of the program: a disposable process in a process group of its own, with a time limit.
//!
//! Invariant: when `run` returns, the group is killed and its leader reaped, however the run ended. The group is killed before
//! the leader is reaped, while the leader's id cannot name anything else.

use std::ffi::{OsStr, OsString};
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::ioctl_fionbio;
use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open};

use crate::answer::Answer;
use crate::args::Config;
use crate::conn::Conn;

/// Where programs are looked for without a `PATH`, and the bits of a file of which one must be set.
const PATH: &str = "/bin:/usr/bin";
const ANY_MAY_EXECUTE: u32 = 0o111;
/// Where the input goes.
const INPUT: &[u8] = b"{}";
/// Largest input as an argument: the kernel takes 128 KiB, with what stands around it.
pub(crate) const ARGUMENT_MAX: usize = 120 << 10;
/// How much of the end of standard error is kept, and how much of its last line is told.
const ERRORS_MAX: usize = 8 << 10;
const LAST_LINE_MAX: usize = 500;
/// In so many rounds a full pipe of 64 KiB is read.
const PIPE_ROUNDS: usize = 8;
/// How long a killed program may take to die.
const DEATH: Timespec = Timespec { tv_sec: 1, tv_nsec: 0 };

/// Exit codes of `sysexits.h` that say more than that it failed.
const EXIT_BAD_DATA: i32 = 65;
const EXIT_TRY_AGAIN: i32 = 75;

/// How a run ended.
pub(crate) enum Outcome {
    Exited(ExitStatus, Vec<u8>, Vec<u8>),
    NotStarted(io::Error),
    TimedOut,
    TooMuchOutput,
    /// Nobody waits for it any more.
    ClientLeft,
}

/// Looks for the program where the system will look for it.
///
/// # Errors
/// When there is nothing there that could be executed.
pub(crate) fn check(program: &[OsString]) -> Result<(), String> {
    let name = program.first().map_or(OsStr::new(""), OsString::as_os_str);
    let can_be_executed = |path: &Path| {
        path.metadata().is_ok_and(|found| found.is_file() && found.permissions().mode() & ANY_MAY_EXECUTE != 0)
    };
    let paths = std::env::var_os("PATH").unwrap_or_else(|| PATH.into());
    let is_there = if name.as_bytes().contains(&b'/') {
        can_be_executed(Path::new(name))
    } else {
        !name.is_empty() && std::env::split_paths(&paths).any(|directory| can_be_executed(&directory.join(name)))
    };
    if is_there {
        Ok(())
    } else {
        Err(format!("{}: there is no such program, or it cannot be executed", name.display()))
    }
}

/// Whether the input becomes an argument.
pub(crate) fn takes_argument(program: &[OsString]) -> bool {
    program.iter().skip(1).any(|word| find_input(word.as_bytes()).is_some())
}

/// Runs the program on `input`, for as long as `client` is there.
pub(crate) fn run(config: &Config, input: &[u8], client: &Conn) -> Outcome {
    let deadline = Instant::now() + config.timeout;
    match Run::start(&config.program, input, config.output_max) {
        Ok(mut run) => run.until(deadline, client),
        Err(error) => Outcome::NotStarted(error),
    }
}

impl Outcome {
    /// What the client is told, if it is still there.
    pub(crate) fn answer(self) -> Option<Answer> {
        Some(match self {
            Outcome::Exited(status, output, errors) => match (status.code(), status.signal()) {
                (Some(0), _) => Answer::output(output),
                (Some(EXIT_BAD_DATA), _) => Answer::text(400, &last_line(&errors)),
                (Some(EXIT_TRY_AGAIN), _) => Answer::text(503, &last_line(&errors)),
                (Some(code), _) => {
                    Answer::text(500, &[format!("exit {code}: ").as_bytes(), &last_line(&errors)].concat())
                }
                (None, signal) => {
                    Answer::text(500, format!("ended by signal {}", signal.unwrap_or_default()).as_bytes())
                }
            },
            Outcome::NotStarted(error) => Answer::text(503, format!("the program does not start: {error}").as_bytes()),
            Outcome::TimedOut => Answer::text(504, b"not done in time"),
            Outcome::TooMuchOutput => Answer::text(502, b"the output is larger than it may be here"),
            Outcome::ClientLeft => return None,
        })
    }
}

/// The last line that says something.
fn last_line(errors: &[u8]) -> Vec<u8> {
    let mut lines = errors.split(|byte| *byte == b'\n');
    let line = lines.rfind(|line| !line.trim_ascii().is_empty()).unwrap_or(b"no message");
    line.iter().copied().filter(|byte| !byte.is_ascii_control()).take(LAST_LINE_MAX).collect()
}

/// A running program and its pipes. Dropped, it is dead.
struct Run<'a> {
    child: Child,
    pid: Pid,
    /// Becomes readable when the leader has ended.
    end: OwnedFd,
    input: &'a [u8],
    output: Vec<u8>,
    errors: Vec<u8>,
    output_max: usize,
    reaped: bool,
}

impl<'a> Run<'a> {
    fn start(program: &[OsString], input: &'a [u8], output_max: usize) -> io::Result<Self> {
        let (name, arguments) = program.split_first().ok_or(ErrorKind::InvalidInput)?;
        let takes_argument = takes_argument(program);
        let mut command = Command::new(name);
        command.args(arguments.iter().map(|word| fill(word, input))).process_group(0);
        command.stdin(if takes_argument { Stdio::null() } else { Stdio::piped() });
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        let pid = Pid::from_child(&child);
        let end = pidfd_open(pid, PidfdFlags::empty()).and_then(|end| make_nonblocking(&child).map(|()| end));
        let end = match end {
            Ok(end) => end,
            Err(error) => {
                child.kill()?;
                child.wait()?;
                return Err(error.into());
            }
        };
        let input = if takes_argument { &[] } else { input };
        Ok(Self { child, pid, end, input, output: Vec::new(), errors: Vec::new(), output_max, reaped: false })
    }

    fn until(&mut self, deadline: Instant, client: &Conn) -> Outcome {
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Outcome::TimedOut;
            }
            let (ended, client_left) = match self.wait(left, client) {
                Ok(seen) => seen,
                Err(error) => return Outcome::NotStarted(error),
            };
            if client_left {
                return Outcome::ClientLeft;
            }
            self.feed();
            if !self.drain() {
                return Outcome::TooMuchOutput;
            }
            if ended {
                return self.finish();
            }
        }
    }

    /// Waits until something happens to the program or the client: whether it ended, whether the client left.
    fn wait(&self, left: Duration, client: &Conn) -> io::Result<(bool, bool)> {
        let child = &self.child;
        let mut fds =
            vec![PollFd::new(&self.end, PollFlags::IN), PollFd::from_borrowed_fd(client.as_fd(), PollFlags::RDHUP)];
        fds.extend(child.stdin.as_ref().map(|pipe| PollFd::new(pipe, PollFlags::OUT)));
        fds.extend(child.stdout.as_ref().map(|pipe| PollFd::new(pipe, PollFlags::IN)));
        fds.extend(child.stderr.as_ref().map(|pipe| PollFd::new(pipe, PollFlags::IN)));
        match poll(&mut fds, Some(&Timespec::try_from(left).map_err(|_| ErrorKind::InvalidInput)?)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let is_ready = |index: usize| fds.get(index).is_some_and(|fd| !fd.revents().is_empty());
        Ok((is_ready(0), is_ready(1)))
    }

    /// Writes what the pipe takes. The end of the input, or of the program's interest in it, closes the pipe.
    fn feed(&mut self) {
        let Some(pipe) = &mut self.child.stdin else { return };
        match pipe.write(self.input) {
            Ok(count) => self.input = self.input.split_at_checked(count).map_or(&[], |(_, rest)| rest),
            Err(error) if is_later(&error) => return,
            Err(_) => self.input = &[],
        }
        if self.input.is_empty() {
            self.child.stdin = None;
        }
    }

    /// Reads what is there. False: it is more than may be.
    fn drain(&mut self) -> bool {
        if take(&mut self.child.stdout, &mut self.output, self.output_max) {
            return false;
        }
        // Of its errors only the end is wanted: a pipe full of them at a time, or they could keep us here.
        for _ in 0..PIPE_ROUNDS {
            if !take(&mut self.child.stderr, &mut self.errors, 2 * ERRORS_MAX) {
                break;
            }
            self.errors.drain(..self.errors.len().saturating_sub(ERRORS_MAX));
        }
        true
    }

    /// The leader has ended: what it started is ended too, and what is left in the pipes belongs to the answer.
    fn finish(&mut self) -> Outcome {
        let status = self.end_group();
        if !self.drain() {
            return Outcome::TooMuchOutput;
        }
        match status {
            Some(status) => Outcome::Exited(status, std::mem::take(&mut self.output), std::mem::take(&mut self.errors)),
            None => Outcome::TimedOut,
        }
    }

    /// Kills the group, then reaps its leader. `None`: not even that ended it in time, and it is reaped later as an orphan.
    fn end_group(&mut self) -> Option<ExitStatus> {
        // A group that is empty but for its ended leader cannot be signalled, and need not be.
        let _ = kill_process_group(self.pid, Signal::KILL);
        let mut fds = [PollFd::new(&self.end, PollFlags::IN)];
        // Whatever this says, the next line knows whether it has ended.
        let _ = poll(&mut fds, Some(&DEATH));
        let status = self.child.try_wait().ok().flatten();
        self.reaped = status.is_some();
        status
    }
}

impl Drop for Run<'_> {
    fn drop(&mut self) {
        if !self.reaped {
            self.end_group();
        }
    }
}

fn make_nonblocking(child: &Child) -> rustix::io::Result<()> {
    child.stdin.as_ref().map_or(Ok(()), |pipe| ioctl_fionbio(pipe, true))?;
    child.stdout.as_ref().map_or(Ok(()), |pipe| ioctl_fionbio(pipe, true))?;
    child.stderr.as_ref().map_or(Ok(()), |pipe| ioctl_fionbio(pipe, true))
}

/// Reads what is there into `bytes`; at its end the pipe is closed. True: there are more than `max` bytes.
fn take<P: Read>(pipe: &mut Option<P>, bytes: &mut Vec<u8>, max: usize) -> bool {
    let mut chunk = [0; 16 << 10];
    while let Some(open) = pipe {
        match open.read(&mut chunk) {
            Ok(0) => *pipe = None,
            Ok(count) => bytes.extend_from_slice(chunk.get(..count).unwrap_or_default()),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return false,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(_) => *pipe = None,
        }
        if bytes.len() > max {
            return true;
        }
    }
    false
}

fn is_later(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}

fn find_input(word: &[u8]) -> Option<usize> {
    word.windows(INPUT.len()).position(|part| part == INPUT)
}

/// An argument with the input in the place of each `{}`.
fn fill(word: &OsStr, input: &[u8]) -> OsString {
    let mut rest = word.as_bytes();
    let mut filled = Vec::new();
    while let Some(at) = find_input(rest) {
        let (before, after) = rest.split_at(at);
        filled.extend_from_slice(before);
        filled.extend_from_slice(input);
        rest = after.get(INPUT.len()..).unwrap_or_default();
    }
    filled.extend_from_slice(rest);
    OsString::from_vec(filled)
}
