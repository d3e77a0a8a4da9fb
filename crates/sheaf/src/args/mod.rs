//! The command line: what may be said, with help that leads with examples. Nothing is done here.

mod admin;
mod backend;
mod bench;
mod login;
mod prompt;
mod run;
mod serve;
mod token;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use sheaf_session::Faults;

pub(crate) use admin::{DoctorArgs, FailuresArgs, JobArgs, JobCommand, RetryArgs, TaskCommand};
pub(crate) use backend::BackendArgs;
pub(crate) use bench::{BenchArgs, BenchCommand, WorkersArgs};
pub(crate) use login::{AccessArgs, LoginArgs};
pub(crate) use prompt::PromptArgs;
pub(crate) use run::{OrderArg, RunArgs};
pub(crate) use serve::{ProgramArgs, UpArgs, WorkerArgs};
pub(crate) use token::{CreateArgs, RevokeArgs, RoleArg, TokenCommand, TokenDir};

/// Where `sheaf up` listens, and where everything else looks for it.
pub(crate) const LISTEN_DEFAULT: &str = "127.0.0.1:4477";

/// Where a router keeps its journal unless told otherwise.
pub(crate) const DATA_DEFAULT: &str = ".sheaf";

/// Routes slow, expensive work to whoever can do it: it never loses any of it, and never pays twice for what finished.
#[derive(Debug, Parser)]
#[command(name = "sheaf", version, max_term_width = 110, help_template = EXAMPLES_FIRST, before_help = EXAMPLES)]
pub(crate) struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
    /// Print results and progress as JSON lines, for machines.
    #[arg(long, global = true)]
    pub json: bool,
}

/// What it is for, then examples, then everything else.
const EXAMPLES_FIRST: &str = "{about-with-newline}\n{before-help}{usage-heading} {usage}\n\n{all-args}{after-help}";

const EXAMPLES: &str = "\
Examples:
  sheaf run --in rows.txt --out out.jsonl -- rustc --explain {}     one process does it all
  sheaf up                                                          a router that others join
  sheaf worker --join 127.0.0.1:4477 --batch 8 -- ./annotate {}     a worker for it
  sheaf run --join 127.0.0.1:4477 --in rows.jsonl --out out.jsonl --service annotate
  sheaf run --in reviews.jsonl --out labels.jsonl --prompt 'Classify: {{ text }}' --model M --backend URL
Repeat a command after any crash: it resumes, and nothing that finished is done again.
Exit codes: 0 all rows ok, 2 usage or refusal, 3 finished with failed rows, 130 interrupted and resumable.";

/// The commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Send rows through a program, and write each row's answer once.
    Run(Box<RunArgs>),
    /// Start a router that workers and clients join.
    Up(UpArgs),
    /// Start a worker that offers a program to a router.
    Worker(WorkerArgs),
    /// Look at jobs, wait for one, cancel one.
    #[command(subcommand)]
    Job(JobCommand),
    /// Look at one task, or ask why it waits.
    #[command(subcommand)]
    Task(TaskCommand),
    /// List the failed rows of a job, with their payload and the reason.
    Failures(FailuresArgs),
    /// Run failed rows of a job again.
    Retry(RetryArgs),
    /// Stop a router gracefully.
    Shutdown(Target),
    /// Make, list and revoke the tokens of a router.
    #[command(subcommand)]
    Token(TokenCommand),
    /// Check a data directory and its journal, or print every limit.
    Doctor(DoctorArgs),
    /// Measure this build on this machine.
    Bench(BenchArgs),
    /// Print a completion script for a shell.
    Completions {
        /// Which shell.
        shell: clap_complete::Shell,
    },
}

/// Which router is meant.
#[derive(Clone, Debug, Args)]
pub(crate) struct Target {
    /// Address of a running router; sheaf://HOST:PORT where it has TLS.
    #[arg(long, value_name = "ADDR", env = "SHEAF_JOIN")]
    pub join: Option<String>,
    /// Data directory of a router: the running one is asked, a stopped one is read.
    #[arg(long, value_name = "DIR", env = "SHEAF_DATA", default_value = DATA_DEFAULT)]
    pub data: PathBuf,
    #[command(flatten)]
    pub login: LoginArgs,
}

/// Faults to run with.
#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct Chaos {
    /// Break every link on purpose, as in drop=0.1,dup=0.05,reorder=0.1: the results are the same.
    #[arg(long, value_name = "FAULTS", value_parser = crate::units::chaos)]
    pub chaos: Option<Faults>,
}
