//! The server that does the work in a program's place.

use std::path::PathBuf;

use clap::Args;

/// A server that is called over HTTP.
#[derive(Debug, Args)]
pub(crate) struct BackendArgs {
    /// POST each row to this URL instead of running a program: the body of the reply is the answer.
    #[arg(long, value_name = "URL", conflicts_with_all = ["argv", "stdin", "serve", "memory"])]
    pub http: Option<String>,
    /// Certificate authorities to trust instead of the system's: a file of certificates in PEM.
    #[arg(long, value_name = "FILE", requires = "http")]
    pub ca: Option<PathBuf>,
}
