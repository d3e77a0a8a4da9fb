//! The keeper: a small process beside the worker that starts every program, waits for it, and ends it.
//!
//! Why a process of its own: what holds for every program (no new privileges, no core dumps) is set once on the keeper and
//! inherited, which needs no `unsafe` between fork and exec; it stays small, so `posix_spawn` stays fast whatever the
//! worker holds in memory; it adopts what programs leave behind; and it sees the worker's death, by `kill -9` too, as
//! the end of its socket, and ends everything. A parent-death signal would reach the first process only, not its children.
//!
//! Invariants: a program's process group is killed when its first process has ended, on order, and when the worker is
//! gone. What a program can still do: a descendant that left its group lives until the next sweep (≤ 100 ms) after the
//! attempt; one that also hides its environment is killed as soon as its parent is gone, even in mid-attempt; one that
//! forks faster than a sweep kills can outrun it until a limit of the system stops it.
//!
//! ```text
//! request   len u32 | kind u8 | flags u8 | 0 u16 | id u64 | payload[len]      little-endian; pipes ride on the header
//!           through the socket that is the keeper's standard input
//! reply     id u64 | value i32 | kind u8 | 0 ×3
//!           through the pipe that is its standard output: nobody else holds that end, for its close tells the worker of a
//!           keeper's death
//! ```

mod handle;
mod limit;
mod line;
mod process;
mod wire;

pub(crate) use handle::{Attended, Keeper, KeeperSlot, Program};
pub use process::main;
pub(crate) use wire::End;

use std::ffi::OsString;
use std::path::PathBuf;

/// How the keeper is started: this very program, as a rule, with a word that makes it call [`main`].
#[derive(Clone, Debug)]
pub struct KeeperCommand {
    /// The executable.
    pub program: PathBuf,
    /// Its arguments.
    pub args: Vec<OsString>,
}

/// The environment variable by which a program's descendants are known again: the keeper's pid and the attempt's number.
const COOKIE: &str = "SHEAF_ATTEMPT";
