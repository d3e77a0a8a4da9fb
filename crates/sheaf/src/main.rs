//! The `sheaf` binary: arguments in, exit code out. It joins the shells of the other crates and shows what they say.

mod admin;
mod args;
mod ask;
mod backend;
mod bench;
mod doctor;
mod login;
mod out;
mod program;
mod progress;
mod run;
mod serve;
mod show;
mod signals;
mod token;
mod units;

use std::io::IsTerminal;
use std::process::ExitCode;

use anyhow::Result;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{CommandFactory, Parser};

use args::{Cli, Command};

/// Exit code for what was refused before or instead of running: usage, bad input, something in use.
const REFUSED: u8 = 2;

fn main() -> ExitCode {
    if std::env::args_os().nth(1).is_some_and(|word| word == program::KEEPER_WORD) {
        return sheaf_worker::keeper::main();
    }
    let cli = Cli::try_parse().unwrap_or_else(|error| leave(&error));
    start_log();
    match dispatch(cli) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("sheaf: {error:#}");
            ExitCode::from(REFUSED)
        }
    }
}

/// Shows help, the version, or what is wrong with the command line, and exits as clap would.
fn leave(error: &clap::Error) -> ! {
    let shown = error.print();
    if let Some(ContextValue::String(word)) = error.get(ContextKind::InvalidArg)
        && error.kind() == ErrorKind::UnknownArgument
        && !word.starts_with('-')
    {
        eprintln!("The program and its arguments come last, after --, as in: -- {word} {{}}");
    }
    // A reader that went away has seen as much as it wanted.
    let code = if shown.is_ok() { error.exit_code() } else { i32::from(REFUSED) };
    std::process::exit(code)
}

fn dispatch(cli: Cli) -> Result<u8> {
    let json = cli.json;
    if let Command::Completions { shell } = cli.command {
        clap_complete::generate(shell, &mut Cli::command(), "sheaf", &mut std::io::stdout());
        return Ok(0);
    }
    let runtime = runtime_for(&cli.command)?;
    // A task like the others: between tasks of one thread a wake is no system call.
    let command = runtime.spawn(async move {
        match cli.command {
            Command::Run(args) => run::run(*args, json).await,
            Command::Up(args) => serve::up(args).await,
            Command::Worker(args) => serve::work(args).await,
            Command::Job(command) => admin::job(command, json).await,
            Command::Task(command) => admin::task(command, json).await,
            Command::Failures(args) => admin::failures(args, json).await,
            Command::Retry(args) => admin::retry(args, json).await,
            Command::Shutdown(target) => admin::shutdown(target).await,
            Command::Token(command) => token::token(&command, json),
            Command::Doctor(args) => doctor::doctor(&args),
            Command::Bench(args) => bench::bench(args, json).await,
            Command::Completions { .. } => Ok(0),
        }
    });
    runtime.block_on(command).unwrap_or_else(|error| match error.try_into_panic() {
        Ok(panic) => std::panic::resume_unwind(panic),
        Err(error) => Err(error.into()),
    })
}

/// A router serves many connections, each on any processor. Where there is one, its link and its loop take turns: waking
/// another thread costs more than what either does. So do all three roles where each row starts a program, which costs
/// more than all that they do for it and has the other processors.
fn runtime_for(command: &Command) -> std::io::Result<tokio::runtime::Runtime> {
    let mut builder = match command {
        Command::Worker(_) | Command::Bench(_) => tokio::runtime::Builder::new_current_thread(),
        Command::Run(args) if args.join.is_some() => tokio::runtime::Builder::new_current_thread(),
        Command::Run(args) if program::is_started_per_row(&args.program) => {
            let mut builder = tokio::runtime::Builder::new_multi_thread();
            builder.worker_threads(1);
            builder
        }
        _ => tokio::runtime::Builder::new_multi_thread(),
    };
    builder.enable_all().build()
}

/// Messages go to standard error; `SHEAF_LOG` chooses which (`warn` unless told otherwise).
fn start_log() {
    let filter = tracing_subscriber::EnvFilter::try_from_env("SHEAF_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("warn"));
    let colours = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    log.with_ansi(colours).with_target(false).without_time().init();
}
