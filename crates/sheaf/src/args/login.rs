//! What is shown to a router, and how it is told from others; and, on the router's own side, whom it lets in.

use std::path::PathBuf;

use clap::Args;

/// Of whoever joins a router.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct LoginArgs {
    /// File that holds the token to show to the router; otherwise SHEAF_TOKEN.
    #[arg(long, value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    /// Certificate authorities to trust behind sheaf://, instead of the system's: a file of certificates in PEM, as the
    /// router's own tls/ca.pem.
    #[arg(long, value_name = "FILE")]
    pub ca: Option<PathBuf>,
}

/// Of the router.
#[derive(Clone, Debug, Args)]
pub(crate) struct AccessArgs {
    /// TLS on loopback too; elsewhere there is nothing else.
    #[arg(long)]
    pub tls: bool,
    /// Certificate to show (PEM, with those that lead to its authority); otherwise one of the router's own authority, which
    /// is made in the data directory: tls/ca.pem.
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    pub tls_cert: Option<PathBuf>,
    /// Its key.
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    pub tls_key: Option<PathBuf>,
    /// A further name or address by which the router is reached, for its own certificate.
    #[arg(long = "tls-name", value_name = "NAME", conflicts_with = "tls_cert")]
    pub tls_names: Vec<String>,
    /// Let nobody in without a token, on loopback too.
    #[arg(long)]
    pub require_token: bool,
}
