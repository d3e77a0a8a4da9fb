//! `sheaf bench`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::EXAMPLES_FIRST;

/// Measures this build on this machine: real processes on loopback, a real disk, everything durable.
#[derive(Debug, Args)]
#[command(help_template = EXAMPLES_FIRST, before_help = EXAMPLES)]
pub(crate) struct BenchArgs {
    /// What to measure.
    #[command(subcommand)]
    pub what: BenchCommand,
    /// Where the journals of the runs go; on the disk that is to be measured. Emptied afterwards.
    #[arg(long, value_name = "DIR", default_value = ".sheaf-bench", global = true)]
    pub dir: PathBuf,
    /// Measure so often, and tell the median.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=99), global = true)]
    pub runs: u32,
}

/// What can be measured.
#[derive(Clone, Debug, Subcommand)]
pub(crate) enum BenchCommand {
    /// Tasks through client, router, worker and back: rate, router CPU and memory, bytes written.
    Roundtrip {
        /// Tasks.
        #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(1..))]
        tasks: u64,
        /// Bytes of a body, and of its answer.
        #[arg(long, value_name = "BYTES", default_value_t = 200, value_parser = body_bytes())]
        body: u32,
        #[command(flatten)]
        workers: WorkersArgs,
    },
    /// One task at a time: p50, p99, p99.9.
    Latency {
        /// Tasks.
        #[arg(long, default_value_t = 5_000, value_parser = clap::value_parser!(u64).range(1..))]
        tasks: u64,
        /// Bytes of a body, and of its answer.
        #[arg(long, value_name = "BYTES", default_value_t = 200, value_parser = body_bytes())]
        body: u32,
    },
    /// Tasks submitted while nobody works: rate by tenth of the backlog, memory, disk; then kill -9 and restart.
    Backlog {
        /// Tasks.
        #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(10..))]
        tasks: u64,
        /// Bytes of a body.
        #[arg(long, value_name = "BYTES", default_value_t = 200, value_parser = body_bytes())]
        body: u32,
    },
    /// Many workers on one router: the rate with 1, 10, 100, 1,000 connections.
    Fan {
        /// Tasks for each.
        #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(1..))]
        tasks: u64,
        /// How many connections.
        #[arg(long, value_delimiter = ',', default_value = "1,10,100,1000",
              value_parser = clap::value_parser!(u32).range(1..=10_000))]
        connections: Vec<u32>,
        /// Executions at once in each worker, and as many rows behind them; if not given, the workers share 4,096, and each
        /// has 8 at least.
        #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
        batch: Option<u32>,
    },
    /// Many small jobs, some at a time.
    Jobs {
        /// Jobs.
        #[arg(long, default_value_t = 2_000, value_parser = clap::value_parser!(u64).range(1..))]
        jobs: u64,
        /// Tasks of each.
        #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..))]
        tasks: u64,
        /// Jobs at a time.
        #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=1_000))]
        at_once: u32,
    },
    /// Two peers and nothing else: messages a second and round trip of the session layer, by carrier.
    Session {
        /// Messages.
        #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1..))]
        messages: u64,
        /// Bytes of a message.
        #[arg(long, value_name = "BYTES", default_value_t = 200, value_parser = body_bytes())]
        body: u32,
    },
    /// A job whose every row an earlier job has answered.
    Cached {
        /// Tasks.
        #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1..))]
        tasks: u64,
        /// Bytes of a body, and of its answer.
        #[arg(long, value_name = "BYTES", default_value_t = 200, value_parser = body_bytes())]
        body: u32,
    },
    /// What this machine can do at best: disk, loopback, processes.
    Floor,
}

/// The workers of a run.
#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct WorkersArgs {
    /// Worker processes.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=64))]
    pub workers: u32,
    /// Executions at once in each.
    #[arg(long, value_name = "N", default_value_t = 4_096, value_parser = clap::value_parser!(u32).range(1..))]
    pub batch: u32,
    /// Tasks waiting behind them.
    #[arg(long, value_name = "N", default_value_t = 4_096)]
    pub depth: u32,
}

/// A row's seed and number must fit into it, and it into a message.
fn body_bytes() -> impl clap::builder::TypedValueParser<Value = u32> {
    clap::value_parser!(u32).range(16..=sheaf_task::BODY_BYTES_MAX as i64)
}

const EXAMPLES: &str = "\
Examples:
  sheaf bench roundtrip --runs 5
  sheaf bench latency
  sheaf bench backlog --tasks 10000000 --dir /mnt/fast/bench
  sheaf --json bench floor
Each figure stands beside its floor: what the same work costs without Sheaf, measured in the same run.";
