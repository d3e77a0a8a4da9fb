//! The program that a worker offers, from its words on the command line.

use std::ffi::OsString;
use std::path::Path;

use anyhow::{Context, Result};
use sheaf_task::Capacity;
use sheaf_worker::keeper::KeeperCommand;
use sheaf_worker::{Mode, Work};

use crate::args::ProgramArgs;

/// The word that makes this binary a keeper of programs instead: see `sheaf_worker::keeper`.
pub(crate) const KEEPER_WORD: &str = "__keeper";

/// What is to be executed. Every mistake in it is found here, before any work.
pub(crate) fn work_of(args: &ProgramArgs) -> Result<Work> {
    let program = std::env::current_exe().context("cannot find this program's own file")?;
    let keeper = KeeperCommand { program, args: vec![KEEPER_WORD.into()] };
    let mode = match (args.stdin, args.serve) {
        (_, true) => Mode::Serve { processes: 1 },
        (true, false) => Mode::Stdin,
        (false, false) => Mode::Argument,
    };
    Ok(Work::parse(args.argv.clone(), mode, args.retry_exit.clone(), args.memory, keeper)?)
}

/// How much of it at once: as many as there are processors, and as many again waiting, unless said otherwise.
pub(crate) fn capacity_of(args: &ProgramArgs) -> Capacity {
    let processors = std::thread::available_parallelism().map_or(1, |n| n.get() as u32);
    let is_echo = args.argv.first().is_some_and(|word| word == "builtin:echo");
    let batch = args.batch.unwrap_or(if is_echo { ECHO_BATCH } else { processors }).max(1);
    Capacity { batch, depth: args.depth.unwrap_or(batch), bytes: 0 }
}

/// Echo costs nothing: enough at once to keep every stage busy.
const ECHO_BATCH: u32 = 2_048;

/// The program's name without its directory: the service that it offers unless told otherwise.
pub(crate) fn base_name(argv: &[OsString]) -> String {
    let program = argv.first().map(Path::new).and_then(Path::file_name).unwrap_or_default();
    program.to_string_lossy().into_owned()
}

/// The word for how a program gets its rows, for its revision.
pub(crate) fn mode_name(args: &ProgramArgs) -> &'static str {
    match (args.stdin, args.serve) {
        (_, true) => "serve",
        (true, false) => "stdin",
        (false, false) => "argument",
    }
}
