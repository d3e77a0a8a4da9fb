//! What a worker is asked to be. Checked before any work: whatever is wrong here is an error at start.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::backend::{Backend, BackendError};
use crate::keeper::KeeperCommand;

/// The word in argv that stands for the row.
pub const PLACEHOLDER: &str = "{}";
/// Exit codes that mean "try again" by default: `EX_TEMPFAIL`.
pub const RETRY_EXIT_DEFAULT: &[i32] = &[75];

/// What executes the tasks.
#[derive(Clone, Debug)]
pub enum Work {
    /// The answer is the body; no process. For measuring.
    Echo,
    /// Embeddings by feature hashing; no process and no model. For trying everything around one.
    HashEmbed,
    /// A program.
    Program(ProgramConfig),
    /// A server that is called over HTTP.
    Web(Backend),
}

/// A program and how it is run.
#[derive(Clone, Debug)]
pub struct ProgramConfig {
    /// The program and its arguments.
    pub argv: Vec<OsString>,
    /// How it gets its row.
    pub mode: Mode,
    /// Exit codes that mean "try again" ([`RETRY_EXIT_DEFAULT`]).
    pub retry_exit: Vec<i32>,
    /// Address space that each of its processes may have, bytes. Linux only.
    pub memory: Option<u64>,
    /// How the process that keeps the programs is started.
    pub keeper: KeeperCommand,
}

/// How a program gets its row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// In place of every [`PLACEHOLDER`] in its arguments: one process a row.
    Argument,
    /// On its standard input: one process a row.
    Stdin,
    /// As JSON lines to long-lived processes, this many.
    Serve {
        /// At least 1.
        processes: usize,
    },
}

/// Why a worker cannot start.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// Nothing after `--`.
    #[error("no program given; write it after --, as in: -- ./annotate {{}}")]
    NoProgram,
    /// Nothing tells the program its row.
    #[error("{{}} stands nowhere in the arguments of {}: put {{}} where the row goes, or choose --stdin or --serve", program.display())]
    NoPlaceholder {
        /// The program.
        program: PathBuf,
    },
    /// Not found along `PATH`, or not at the path given.
    #[error("program {} is not found; give its path, or install it where PATH finds it", program.display())]
    Missing {
        /// As given.
        program: PathBuf,
    },
    /// It is there, and is no program.
    #[error("{} cannot be executed: it is a directory, or lacks the permission (chmod +x)", program.display())]
    NotExecutable {
        /// Where it was found.
        program: PathBuf,
    },
    /// No memory limit on this system.
    #[error("--memory needs Linux: leave it out here")]
    NoMemoryLimit,
    /// The server cannot be called, whatever it would answer.
    #[error(transparent)]
    Backend(#[from] BackendError),
    /// The keeper of programs does not start.
    #[error("cannot start the process that keeps the programs ({}): {error}", program.display())]
    Keeper {
        /// Its executable.
        program: PathBuf,
        /// What the system said.
        error: io::Error,
    },
}

impl Work {
    /// Reads argv: `builtin:echo`, or a program. Without `mode` a program takes its row in place of `{}`.
    pub fn parse(
        argv: Vec<OsString>,
        mode: Mode,
        retry_exit: Vec<i32>,
        memory: Option<u64>,
        keeper: KeeperCommand,
    ) -> Result<Self, ConfigError> {
        if argv.first().is_some_and(|word| word == "builtin:echo") {
            return Ok(Work::Echo);
        }
        let config = ProgramConfig { argv, mode, retry_exit, memory, keeper };
        config.check()?;
        Ok(Work::Program(config))
    }

    /// Finds what is wrong with it before any work.
    pub fn check(&self) -> Result<(), ConfigError> {
        match self {
            Work::Echo | Work::HashEmbed => Ok(()),
            Work::Program(config) => config.check(),
            Work::Web(backend) => Ok(crate::exec::check_backend(backend)?),
        }
    }
}

impl ProgramConfig {
    /// Finds what is wrong with it before any work.
    pub fn check(&self) -> Result<(), ConfigError> {
        let program = self.argv.first().ok_or(ConfigError::NoProgram)?;
        let has_place = self.argv[1..].iter().any(|arg| find(arg.as_bytes(), PLACEHOLDER.as_bytes()).is_some());
        if self.mode == Mode::Argument && !has_place {
            return Err(ConfigError::NoPlaceholder { program: program.into() });
        }
        if self.memory.is_some() && !cfg!(target_os = "linux") {
            return Err(ConfigError::NoMemoryLimit);
        }
        find_program(program).map(|_| ())
    }

    /// The program's name without its directory: the service that it offers by default.
    pub fn base_name(&self) -> String {
        self.argv.first().and_then(|arg| Path::new(arg).file_name()).unwrap_or_default().to_string_lossy().into_owned()
    }

    /// The arguments of one attempt: `body` in place of every placeholder.
    pub(crate) fn argv_for(&self, body: &[u8]) -> Vec<OsString> {
        if self.mode != Mode::Argument {
            return self.argv.clone();
        }
        let (program, args) = self.argv.split_at(1.min(self.argv.len()));
        program.iter().cloned().chain(args.iter().map(|arg| fill(arg, body))).collect()
    }
}

/// Where `program` is: as the system would find it.
pub fn find_program(program: &OsStr) -> Result<PathBuf, ConfigError> {
    if program.is_empty() {
        return Err(ConfigError::NoProgram);
    }
    if program.as_bytes().contains(&b'/') {
        let path = PathBuf::from(program);
        return if is_program(&path) {
            Ok(path)
        } else if path.exists() {
            Err(ConfigError::NotExecutable { program: path })
        } else {
            Err(ConfigError::Missing { program: path })
        };
    }
    let dirs = std::env::var_os("PATH").unwrap_or_else(|| "/usr/local/bin:/bin:/usr/bin".into());
    let mut refused = None;
    for candidate in std::env::split_paths(&dirs).map(|dir| dir.join(program)) {
        if is_program(&candidate) {
            return Ok(candidate);
        }
        if candidate.is_file() {
            refused = Some(candidate);
        }
    }
    Err(refused
        .map_or(ConfigError::Missing { program: program.into() }, |program| ConfigError::NotExecutable { program }))
}

fn is_program(path: &Path) -> bool {
    path.is_file() && rustix::fs::access(path, rustix::fs::Access::EXEC_OK).is_ok()
}

fn fill(arg: &OsStr, body: &[u8]) -> OsString {
    let mut rest = arg.as_bytes();
    let mut out = Vec::with_capacity(rest.len() + body.len());
    while let Some(at) = find(rest, PLACEHOLDER.as_bytes()) {
        out.extend_from_slice(&rest[..at]);
        out.extend_from_slice(body);
        rest = &rest[at + PLACEHOLDER.len()..];
    }
    out.extend_from_slice(rest);
    OsStr::from_bytes(&out).to_owned()
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(argv: &[&str], mode: Mode) -> ProgramConfig {
        let keeper = KeeperCommand { program: PathBuf::from("unused"), args: Vec::new() };
        let argv = argv.iter().map(OsString::from).collect();
        ProgramConfig { argv, mode, retry_exit: vec![75], memory: None, keeper }
    }

    #[test]
    fn the_row_goes_wherever_the_braces_are() {
        let argv = config(&["{}sh", "-c", "a{}b{}", "{}"], Mode::Argument).argv_for(b"{}\xff");
        let want: Vec<OsString> =
            [&b"{}sh"[..], b"-c", b"a{}\xffb{}\xff", b"{}\xff"].map(|arg| OsStr::from_bytes(arg).to_owned()).into();
        assert_eq!(argv, want);
        assert_eq!(config(&["cat", "{}"], Mode::Stdin).argv_for(b"x")[1], "{}");
    }

    #[test]
    fn what_cannot_work_is_said_before_any_work() {
        assert!(matches!(config(&[], Mode::Stdin).check(), Err(ConfigError::NoProgram)));
        assert!(matches!(config(&["sh", "x"], Mode::Argument).check(), Err(ConfigError::NoPlaceholder { .. })));
        assert!(matches!(config(&["no-such-program-here"], Mode::Stdin).check(), Err(ConfigError::Missing { .. })));
        assert!(matches!(config(&["/no/such/program"], Mode::Stdin).check(), Err(ConfigError::Missing { .. })));
        assert!(matches!(config(&["/tmp"], Mode::Stdin).check(), Err(ConfigError::NotExecutable { .. })));
        assert!(config(&["sh", "-c", "echo {}"], Mode::Argument).check().is_ok());
        assert_eq!(config(&["/bin/sh"], Mode::Stdin).base_name(), "sh");
    }
}
