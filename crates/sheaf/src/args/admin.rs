//! The commands of operators: `job`, `task`, `failures`, `retry`, `doctor`.

use clap::{Args, Subcommand};

use super::{EXAMPLES_FIRST, Target};

/// `sheaf job …`
#[derive(Debug, Subcommand)]
pub(crate) enum JobCommand {
    /// Every job of the router.
    Ls(Target),
    /// One job in numbers.
    Info(JobArgs),
    /// Wait until a job is done; exits like `sheaf run`.
    Wait(JobArgs),
    /// Stop a job: what is open ends as cancelled.
    Cancel(JobArgs),
}

/// A job of a router.
#[derive(Debug, Args)]
pub(crate) struct JobArgs {
    /// Its id, the beginning of it, its name, or `last`.
    #[arg(default_value = "last")]
    pub job: String,
    #[command(flatten)]
    pub target: Target,
}

/// `sheaf task …`
#[derive(Debug, Subcommand)]
pub(crate) enum TaskCommand {
    /// What is known of a task.
    Info(TaskArgs),
    /// Why a task waits.
    Explain(TaskArgs),
}

/// A task of a router.
#[derive(Debug, Args)]
pub(crate) struct TaskArgs {
    /// Its key: the `key` of an output line.
    pub key: String,
    #[command(flatten)]
    pub target: Target,
}

/// `sheaf failures`
#[derive(Debug, Args)]
#[command(help_template = EXAMPLES_FIRST, before_help = "Example:\n  sheaf failures last --max 20")]
pub(crate) struct FailuresArgs {
    #[command(flatten)]
    pub job: JobArgs,
    /// At most so many.
    #[arg(long, value_name = "ROWS", default_value_t = 1_000)]
    pub max: u32,
}

/// `sheaf retry`
#[derive(Debug, Args)]
#[command(
    help_template = EXAMPLES_FIRST, before_help = "Examples:\n  sheaf retry last\n  sheaf retry last --key 4d5e…\nThen repeat the job's `sheaf run`: it awaits the new answers."
)]
pub(crate) struct RetryArgs {
    #[command(flatten)]
    pub job: JobArgs,
    /// Only these tasks; all that failed by default.
    #[arg(long = "key", value_name = "KEY")]
    pub keys: Vec<String>,
}

/// `sheaf doctor`
#[derive(Debug, Args)]
#[command(help_template = EXAMPLES_FIRST, before_help = "Examples:\n  sheaf doctor --data .sheaf\n  sheaf doctor --limits")]
pub(crate) struct DoctorArgs {
    /// Print every limit: its value, and what happens when it is reached.
    #[arg(long)]
    pub limits: bool,
    /// The data directory to check.
    #[arg(long, value_name = "DIR", env = "SHEAF_DATA", default_value = super::DATA_DEFAULT)]
    pub data: std::path::PathBuf,
}
