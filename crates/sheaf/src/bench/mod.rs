//! `sheaf bench`: what this build does on this machine. Each run has processes, a journal and a session of its own.

mod floor;
mod load;
mod process;
mod report;
mod runs;
mod talk;

use anyhow::{Context, Result};

use crate::args::{BenchArgs, BenchCommand};
use crate::out;
use report::{Figure, as_json, medians, table};

/// What the workers of a run offer.
const SERVICE: &str = "bench";

/// Measures, and tells the medians.
pub(crate) async fn bench(args: BenchArgs, json: bool) -> Result<u8> {
    let name = name_of(&args.what);
    let mut runs = Vec::new();
    for run in 1..=args.runs {
        if !json && args.runs > 1 {
            eprintln!("sheaf: {name}, run {run} of {}", args.runs);
        }
        runs.push(measure(&args).await.with_context(|| format!("bench {name}"))?);
    }
    remove_if_empty(&args.dir);
    let figures = medians(&runs);
    out::line(if json { as_json(name, args.runs, &figures).to_string() } else { table(&figures) })?;
    Ok(0)
}

async fn measure(args: &BenchArgs) -> Result<Vec<Figure>> {
    let dir = &args.dir;
    match &args.what {
        BenchCommand::Roundtrip { tasks, body, workers } => {
            runs::roundtrip(dir, *tasks, *body as usize, *workers).await
        }
        BenchCommand::Latency { tasks, body } => runs::latency(dir, *tasks, *body as usize).await,
        BenchCommand::Backlog { tasks, body } => runs::backlog(dir, *tasks, *body as usize).await,
        BenchCommand::Fan { tasks, connections, batch } => runs::fan(dir, *tasks, connections, *batch).await,
        BenchCommand::Jobs { jobs, tasks, at_once } => runs::jobs(dir, *jobs, *tasks, *at_once).await,
        BenchCommand::Session { messages, body } => talk::session(*messages, *body as usize).await,
        BenchCommand::Cached { tasks, body } => runs::cached(dir, *tasks, *body as usize).await,
        BenchCommand::Floor => {
            let same = dir.clone();
            let measured = tokio::task::spawn_blocking(move || floor::measure(&same)).await;
            measured.context("a thread panicked")?.with_context(|| floor::failed_in(dir))
        }
    }
}

fn name_of(what: &BenchCommand) -> &'static str {
    match what {
        BenchCommand::Roundtrip { .. } => "roundtrip",
        BenchCommand::Latency { .. } => "latency",
        BenchCommand::Backlog { .. } => "backlog",
        BenchCommand::Fan { .. } => "fan",
        BenchCommand::Jobs { .. } => "jobs",
        BenchCommand::Session { .. } => "session",
        BenchCommand::Cached { .. } => "cached",
        BenchCommand::Floor => "floor",
    }
}

/// A directory that was there before, with something in it, stays.
fn remove_if_empty(dir: &std::path::Path) {
    if let Err(error) = std::fs::remove_dir(dir) {
        tracing::debug!(%error, "the directory of the runs stays");
    }
}
