//! `sheaf run`.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::{Chaos, EXAMPLES_FIRST, LoginArgs, ProgramArgs, PromptArgs};
use crate::units;

/// Sends rows through a program, and writes each row's answer once.
#[derive(Debug, Args)]
#[command(help_template = EXAMPLES_FIRST, before_help = EXAMPLES)]
pub(crate) struct RunArgs {
    /// Rows: .jsonl (.ndjson), .csv, .tsv, a SQLite database with --query; a file of any other name is text, a row a line,
    /// and so is standard input (-).
    #[arg(long = "in", value_name = "ROWS")]
    pub input: PathBuf,
    /// Results: .csv, or a SQLite database with --table; a file of any other name has lines of JSON, .tsv and .txt too.
    #[arg(long, value_name = "RESULTS")]
    pub out: PathBuf,
    /// The rows of a SQLite database, as in 'select id, text from reviews'.
    #[arg(long, value_name = "SQL")]
    pub query: Option<String>,
    /// The table that results go to, in a SQLite database.
    #[arg(long, value_name = "TABLE")]
    pub table: Option<String>,
    /// The field or column that is the body; otherwise the row's only text, or the whole row as JSON.
    #[arg(long, value_name = "NAME")]
    pub column: Option<String>,
    /// The field or column that names a row for good; `id` where a query has one.
    #[arg(long, value_name = "NAME")]
    pub id: Option<String>,
    /// The job's name; the output's file name by default.
    #[arg(long)]
    pub name: Option<String>,
    /// What the tasks ask for; by default the program's base name, the model, or the last
    /// part of the URL.
    #[arg(long)]
    pub service: Option<String>,
    /// What changes when the answers change; by default a digest of the command line and the files it names.
    #[arg(long)]
    pub revision: Option<String>,
    /// Execute every row, whatever earlier jobs have answered.
    #[arg(long)]
    pub fresh: bool,
    /// Let equal rows share one execution.
    #[arg(long)]
    pub share: bool,
    /// Write the results in the order of the rows, when all are there.
    #[arg(long)]
    pub ordered: bool,
    /// Only the first rows.
    #[arg(long, value_name = "ROWS")]
    pub limit: Option<u64>,
    /// Stop when more rows than this have failed; the same command resumes.
    #[arg(long, value_name = "ROWS")]
    pub max_failures: Option<u64>,
    /// Start at most so many rows, as in 40/s.
    #[arg(long, value_name = "RATE", value_parser = units::rate)]
    pub rate: Option<u64>,
    /// Longest time for one attempt, as in 500ms, 90s, 15m or 2h; a bare number is seconds.
    #[arg(long, value_name = "TIME", value_parser = units::duration)]
    pub timeout: Option<Duration>,
    /// Attempts after the first, where the failure may pass.
    #[arg(long, value_name = "N", default_value_t = 3)]
    pub retries: u32,
    /// Order in which rows are handed out.
    #[arg(long, value_enum, default_value_t = OrderArg::Auto)]
    pub order: OrderArg,
    /// This job's share against others of the same service, from 1.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    pub weight: u32,
    /// Use the router at this address (sheaf://HOST:PORT where it has TLS), and its workers, instead of our own. How they run is theirs to say: a PROGRAM given
    /// here too (with --stdin or --serve) only tells the service and the revision.
    #[arg(long, value_name = "ADDR", env = "SHEAF_JOIN",
        conflicts_with_all = ["batch", "depth", "memory", "retry_exit", "grace", "http", "backend"])]
    pub join: Option<String>,
    #[command(flatten)]
    pub login: LoginArgs,
    /// Where our own router keeps its journal; unused with --join.
    #[arg(long, value_name = "DIR", env = "SHEAF_DATA", default_value = super::DATA_DEFAULT)]
    pub data: PathBuf,
    /// Silence of a worker that never re-runs anything.
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = units::grace)]
    pub grace: Duration,
    #[command(flatten)]
    pub chaos: Chaos,
    #[command(flatten)]
    pub prompt: PromptArgs,
    #[command(flatten)]
    pub program: ProgramArgs,
}

/// Order in which rows are handed out.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub(crate) enum OrderArg {
    /// As they came.
    Fifo,
    /// Shortest expected first.
    Shortest,
    /// As they came, until lengths differ much.
    Auto,
}

const EXAMPLES: &str = "\
Examples:
  sheaf run --in rows.txt --out out.jsonl -- rustc --explain {}
  sheaf run --in rows.jsonl --column text --out labels.csv --stdin -- ./classify
  sheaf run --in db.sqlite --query 'select id, text from reviews' --out db.sqlite --table labels -- ./label {}
  sheaf run --in rows.txt --out out.jsonl --serve --batch 16 -- python3 model.py
  sheaf run --in rows.txt --out out.jsonl --batch 4 --http http://127.0.0.1:8080/annotate
  sheaf run --in reviews.jsonl --out labels.jsonl --prompt 'Classify: {{ text }}' --model M --backend http://127.0.0.1:8000/v1
  sheaf run --in rows.txt --out vectors.jsonl --embed '{{ text }}' --backend builtin:hash-embed
  sheaf run --join 127.0.0.1:4477 --in rows.txt --out out.jsonl --service annotate
The same command again resumes. State is kept in OUT.sheaf/ (files), in
table _sheaf and DB.sheaf/TABLE/ (SQLite), the journal in .sheaf/.";
