//! A program's memory limit, in force before its first instruction. It knows no table and no socket.
//!
//! The keeper cannot set the limit on itself and pass it on: it is larger than many a limit. It cannot set it on the
//! started program either, which may have forked by then. So it starts itself once more, as a *stage* that limits itself
//! and then becomes the program, with the same pid, group and pipes.
//!
//! ```text
//!     /proc/self/exe  the keeper's own words  --limited  BYTES  PROGRAM ARGS…
//! ```
//!
//! Invariant: what the stage cannot start, it never reports as the program's own exit: it aborts, and says why on
//! standard error.

use std::ffi::OsString;
use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::config::{ConfigError, find_program};

/// The word that sets a stage's own words apart. The keeper's never hold it.
const LIMITED: &str = "--limited";

/// This very program, even when its file has been replaced. Without `/proc` (not Linux) the worker refuses a limit.
const ITSELF: &str = "/proc/self/exe";

/// The command line to start: `argv` itself, or a stage that becomes it within so many bytes (0: no limit). A program
/// that is not there is found missing here, as the system would have.
pub(super) fn staged(memory: u64, argv: Vec<OsString>) -> io::Result<Vec<OsString>> {
    if memory == 0 {
        return Ok(argv);
    }
    let program = argv.first().ok_or(io::ErrorKind::InvalidData)?;
    find_program(program).map_err(|error| match error {
        ConfigError::NotExecutable { .. } => io::Error::from(rustix::io::Errno::ACCESS),
        _ => io::Error::from(rustix::io::Errno::NOENT),
    })?;
    let own = std::env::args_os().skip(1);
    let words = [LIMITED.into(), memory.to_string().into()];
    Ok([ITSELF.into()].into_iter().chain(own).chain(words).chain(argv).collect())
}

/// What follows the word, in a process that is a stage.
pub(super) fn words_of_a_stage() -> Option<Vec<OsString>> {
    let mut words = std::env::args_os().skip(1).skip_while(|word| word != LIMITED);
    words.next().map(|_| words.collect())
}

/// Limits this process and makes it the program; returns only if it cannot.
pub(super) fn become_program(words: Vec<OsString>) -> ExitCode {
    let started = match words.as_slice() {
        [bytes, program, args @ ..] => match bytes.to_str().and_then(|bytes| bytes.parse().ok()) {
            Some(bytes) => limit(bytes).and_then(|()| Err(Command::new(program).args(args).exec())),
            None => Err(io::ErrorKind::InvalidInput.into()),
        },
        _ => Err(io::ErrorKind::InvalidInput.into()),
    };
    match started {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("sheaf: the program cannot be started within its memory limit: {error}");
            std::process::abort()
        }
    }
}

/// A tighter limit that the user has set stays.
fn limit(bytes: u64) -> io::Result<()> {
    let bytes = getrlimit(Resource::As).maximum.map_or(bytes, |tighter| tighter.min(bytes));
    Ok(setrlimit(Resource::As, Rlimit { current: Some(bytes), maximum: Some(bytes) })?)
}
