//! What a worker offers, a program or a server that is called over HTTP, from its words on the command line.

use std::ffi::OsString;
use std::path::Path;

use anyhow::{Context, Result, bail};
use sheaf_task::Capacity;
use sheaf_worker::keeper::KeeperCommand;
use sheaf_worker::{Mode, Work};

use crate::args::ProgramArgs;
use crate::backend;

/// The word that makes this binary a keeper of programs instead: see `sheaf_worker::keeper`.
pub(crate) const KEEPER_WORD: &str = "__keeper";

/// What words that name no program begin with.
const BUILTIN: &str = "builtin:";

/// What is to be executed. Every mistake in it is found here, before any work.
pub(crate) fn work_of(args: &ProgramArgs) -> Result<Work> {
    if let Some(work) = backend::work_of(&args.backend)? {
        return Ok(work);
    }
    let program = std::env::current_exe().context("cannot find this program's own file")?;
    let keeper = KeeperCommand { program, args: vec![KEEPER_WORD.into()] };
    let mode = match (args.stdin, args.serve) {
        (_, true) => Mode::Serve { processes: 1 },
        (true, false) => Mode::Stdin,
        (false, false) => Mode::Argument,
    };
    Ok(Work::parse(args.argv.clone(), mode, args.retry_exit.clone(), args.memory, keeper)?)
}

/// How much of it at once: as many as there are processors, and as many again waiting, unless said otherwise. Another
/// machine's processors cannot be counted.
pub(crate) fn capacity_of(args: &ProgramArgs) -> Capacity {
    let default = match (args.argv.first(), is_called(args)) {
        (Some(word), _) if word == "builtin:echo" => ECHO_BATCH,
        (_, true) => CALLS_BATCH,
        (_, false) => std::thread::available_parallelism().map_or(1, |n| n.get() as u32),
    };
    let batch = args.batch.unwrap_or(default).max(1);
    Capacity { batch, depth: args.depth.unwrap_or(batch), bytes: 0 }
}

/// Each row is a process of its own.
pub(crate) fn is_started_per_row(args: &ProgramArgs) -> bool {
    !args.serve && args.argv.first().is_some_and(|word| !word.to_string_lossy().starts_with(BUILTIN))
}

/// A server does the work, and no program.
fn is_called(args: &ProgramArgs) -> bool {
    args.backend.http.is_some() || args.backend.backend.is_some()
}

/// Echo costs nothing: enough at once to keep every stage busy.
const ECHO_BATCH: u32 = 2_048;

/// Rows that a server is sent at once.
const CALLS_BATCH: u32 = 8;

/// The service that is offered unless it is named: the program's name without its directory, or the last part of the URL.
pub(crate) fn service_of(named: Option<&String>, args: &ProgramArgs) -> Result<String> {
    if let Some(named) = named {
        return Ok(named.clone());
    }
    if args.argv.is_empty()
        && let Some(service) = backend::service_of(&args.backend)?
    {
        return Ok(service);
    }
    let Some(program) = args.argv.first() else {
        bail!("no program given; write it after --, as in: -- ./annotate {{}}");
    };
    Ok(Path::new(program).file_name().unwrap_or_default().to_string_lossy().into_owned())
}

/// The words that decide what the answers are, for a revision: of a model, that is all in the request.
pub(crate) fn words_of(args: &ProgramArgs) -> Vec<OsString> {
    args.backend.http.as_ref().map_or_else(|| args.argv.clone(), |url| vec![url.into()])
}

/// The word for how a program gets its rows, for its revision.
pub(crate) fn mode_name(args: &ProgramArgs) -> &'static str {
    if args.backend.http.is_some() {
        return "http";
    }
    match (args.stdin, args.serve) {
        (_, true) => "serve",
        (true, false) => "stdin",
        (false, false) => "argument",
    }
}
