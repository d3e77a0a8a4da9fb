//! `sheaf up` and `sheaf worker`, and the program that a worker offers.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::{AccessArgs, BackendArgs, Chaos, EXAMPLES_FIRST, LISTEN_DEFAULT, LoginArgs};
use crate::units;

/// Where the front door listens.
const HTTP_DEFAULT: &str = "127.0.0.1:4478";

/// Where operators are answered.
const ADMIN_DEFAULT: &str = "127.0.0.1:4479";

/// Starts a router.
#[derive(Debug, Args)]
#[command(help_template = EXAMPLES_FIRST, before_help = "Examples:\n  sheaf up --listen 127.0.0.1:4477 --data /var/lib/sheaf\n  sheaf up --http\n  sheaf up --listen 0.0.0.0:4477 --tls-name router.example.org")]
pub(crate) struct UpArgs {
    /// Where to listen: on loopback, or anywhere else with TLS and tokens.
    #[arg(long, value_name = "ADDR", default_value = LISTEN_DEFAULT)]
    pub listen: String,
    /// Where the journal lives.
    #[arg(long, value_name = "DIR", env = "SHEAF_DATA", default_value = super::DATA_DEFAULT)]
    pub data: PathBuf,
    /// Speak OpenAI's API too, over HTTP; without an address on 127.0.0.1:4478.
    #[arg(long, value_name = "ADDR", num_args = 0..=1, require_equals = true, default_missing_value = HTTP_DEFAULT)]
    pub http: Option<String>,
    /// Answer operators over HTTP: /healthz, /readyz, /metrics, /api/v1; without an address on 127.0.0.1:4479. Beyond
    /// loopback with TLS, and all but the first two with an admin's token.
    #[arg(long, value_name = "ADDR", num_args = 0..=1, require_equals = true, default_missing_value = ADMIN_DEFAULT)]
    pub admin: Option<String>,
    /// Connections that --http takes at once; the next ones wait until one of these ends.
    #[arg(long, value_name = "N", default_value = "4096", value_parser = units::connections)]
    pub http_connections: usize,
    /// How long a call may wait for a worker at --http, beyond one execution, before more calls are refused with 429.
    #[arg(long, value_name = "TIME", default_value = "10ms", value_parser = units::wait)]
    pub http_wait: Duration,
    /// Silence of a worker that never re-runs anything.
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = units::grace)]
    pub grace: Duration,
    /// How long what is settled stays, to answer later jobs.
    #[arg(long, value_name = "TIME", default_value = "30d", value_parser = units::duration)]
    pub retention: Duration,
    /// Bytes of journal past which what is settled leaves before its time.
    #[arg(long, value_name = "SIZE", default_value = "32GiB", value_parser = units::size)]
    pub journal_max: u64,
    /// Bytes of one file of the journal; what leaves it leaves by files.
    #[arg(long, value_name = "SIZE", default_value = "64MiB", value_parser = units::segment)]
    pub segment_size: u32,
    /// Bytes of files that an app may have at --http, with inputs that batches under way read; beyond it no more are taken.
    #[arg(long, value_name = "SIZE", default_value = "100GiB", value_parser = units::size)]
    pub files_max: u64,
    #[command(flatten)]
    pub access: AccessArgs,
    #[command(flatten)]
    pub chaos: Chaos,
}

/// Starts a worker.
#[derive(Debug, Args)]
#[command(help_template = EXAMPLES_FIRST, before_help = "Examples:\n  sheaf worker --join 127.0.0.1:4477 --batch 8 --depth 8 -- ./annotate {}\n  \
    sheaf worker --join 127.0.0.1:4477 --service embed --serve --batch 32 -- python3 embed.py\n  \
    sheaf worker --join sheaf://router.example.org:4477 --ca ca.pem --token-file worker.token -- ./annotate {}\n  \
    sheaf worker --join 127.0.0.1:4477 --batch 4 --http https://gpu-box:8443/annotate\n  \
    sheaf worker --join 127.0.0.1:4477 --batch 16 --backend http://127.0.0.1:8000/v1 --model M")]
pub(crate) struct WorkerArgs {
    /// Address of the router; sheaf://HOST:PORT where it has TLS.
    #[arg(long, value_name = "ADDR", env = "SHEAF_JOIN", default_value = LISTEN_DEFAULT)]
    pub join: String,
    /// What this worker offers; by default the program's base name, the model, or the last part of the URL.
    #[arg(long)]
    pub service: Option<String>,
    /// Its name, for people.
    #[arg(long)]
    pub name: Option<String>,
    /// Where it keeps its identity and the results that the router has not acknowledged.
    #[arg(long, value_name = "DIR", env = "SHEAF_WORKER_DATA", default_value = ".sheaf-worker")]
    pub data: PathBuf,
    #[command(flatten)]
    pub login: LoginArgs,
    #[command(flatten)]
    pub chaos: Chaos,
    #[command(flatten)]
    pub program: ProgramArgs,
}

/// The program and how it is run.
#[derive(Debug, Args)]
pub(crate) struct ProgramArgs {
    /// Executions at once; the number of processors by default.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub batch: Option<u32>,
    /// Tasks waiting behind them; as many as the batch by default, of a `run` 16 at least.
    #[arg(long, value_name = "N")]
    pub depth: Option<u32>,
    /// Give the program its row on standard input.
    #[arg(long, conflicts_with = "serve")]
    pub stdin: bool,
    /// The program lives long: it reads lines {"id","body"} and writes lines {"id","output"} or {"id","error"}.
    #[arg(long)]
    pub serve: bool,
    /// Memory that one program may have, as in 2GiB.
    #[arg(long, value_name = "SIZE", value_parser = units::size)]
    pub memory: Option<u64>,
    /// Exit codes that mean "try again".
    #[arg(long, value_name = "CODES", value_delimiter = ',', default_value = "75",
        value_parser = clap::value_parser!(i32).range(1..=255))]
    pub retry_exit: Vec<i32>,
    #[command(flatten)]
    pub backend: BackendArgs,
    /// The program and its arguments, {} for the row; or builtin:echo.
    #[arg(last = true, value_name = "PROGRAM")]
    pub argv: Vec<std::ffi::OsString>,
}
