//! `sheaf token`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};

use super::{DATA_DEFAULT, EXAMPLES_FIRST};
use crate::units;

/// `sheaf token …`
#[derive(Debug, Subcommand)]
pub(crate) enum TokenCommand {
    /// Make a token and print it, this once.
    Create(CreateArgs),
    /// Every token, without its secret.
    Ls(TokenDir),
    /// Take a token back: its sessions end within a second or two.
    Revoke(RevokeArgs),
}

/// `sheaf token create`
#[derive(Debug, Args)]
#[command(help_template = EXAMPLES_FIRST, before_help = "Examples:\n  sheaf token create --role client --app reviews > reviews.token\n  \
    sheaf token create --role worker > worker.token\n  sheaf token create --role admin --expires 30d > admin.token")]
pub(crate) struct CreateArgs {
    /// What it is good for.
    #[arg(long, value_enum)]
    pub role: RoleArg,
    /// The tenant whose jobs a client runs: letters, digits, `.`, `_` and `-`. Workers and admins serve all.
    #[arg(long, value_name = "APP")]
    pub app: Option<String>,
    /// How long it is good for, as in 30d; without this until it is revoked.
    #[arg(long, value_name = "TIME", value_parser = units::lifetime)]
    pub expires: Option<Duration>,
    #[command(flatten)]
    pub dir: TokenDir,
}

/// `sheaf token revoke`
#[derive(Debug, Args)]
pub(crate) struct RevokeArgs {
    /// Its id, as `sheaf token ls` has it.
    pub id: String,
    #[command(flatten)]
    pub dir: TokenDir,
}

/// Whose tokens.
#[derive(Debug, Args)]
pub(crate) struct TokenDir {
    /// Data directory of the router, which may run meanwhile.
    #[arg(long, value_name = "DIR", env = "SHEAF_DATA", default_value = DATA_DEFAULT)]
    pub data: PathBuf,
}

/// What a token is good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum RoleArg {
    /// Runs jobs of its app, and asks about them.
    Client,
    /// Does the work of every app.
    Worker,
    /// Asks about every app, gives orders about its jobs, and stops the router.
    Admin,
}
