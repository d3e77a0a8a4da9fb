//! The same work through other queues, beside Sheaf, in one run and one table: `cargo xtask bench peers`.
//!
//! Each server is a process of its own on loopback, with its data on the disk that `--dir` names; producer, workers and
//! reader of results are threads of this one. Runs follow one another, never two at a time.

mod disk;
mod drive;
mod install;
mod peer;
mod peers;
mod programs;
mod server;
mod sheaf;
mod table;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, ensure};
use clap::Parser;

use drive::Load;
use peer::Peer;
use server::Ground;
use table::{Row, Run};

/// Sheaf and other queues, the same work, one table.
#[derive(Parser)]
struct Args {
    /// The release build of `sheaf` that is measured.
    #[arg(long)]
    sheaf: PathBuf,
    /// Where servers keep their data while they run: the disk that is measured.
    #[arg(long)]
    dir: PathBuf,
    /// Where programs are kept that no package of the system has.
    #[arg(long)]
    tools: PathBuf,
    /// Tasks of `roundtrip` and `backlog`.
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(1_000..))]
    tasks: u64,
    /// Tasks of `latency`, one at a time.
    #[arg(long, default_value_t = 2_000, value_parser = clap::value_parser!(u64).range(100..))]
    latency_tasks: u64,
    /// Programs that are run, one a task.
    #[arg(long, default_value_t = 3_000, value_parser = clap::value_parser!(u64).range(100..))]
    programs: u64,
    /// Bytes of a body, and of its result.
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u64).range(drive::NUMBER as u64..))]
    body: u64,
    /// How often everything is measured; the table has the medians.
    #[arg(long, default_value_t = 1)]
    runs: u32,
    /// Only peers whose name has one of these in it, and Sheaf if one is `sheaf`.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Only these measures.
    #[arg(long, value_delimiter = ',', value_enum)]
    measure: Vec<Measure>,
    /// Install the servers that are missing; as root.
    #[arg(long)]
    install: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, clap::ValueEnum)]
enum Measure {
    Roundtrip,
    Latency,
    Backlog,
    Programs,
}

/// Those that every peer goes through.
const QUEUES: [Measure; 3] = [Measure::Roundtrip, Measure::Latency, Measure::Backlog];

impl Args {
    fn wants(&self, name: &str) -> bool {
        let name = name.to_lowercase();
        self.only.is_empty() || self.only.iter().any(|only| name.contains(&only.to_lowercase()))
    }

    fn measures(&self, measure: Measure) -> bool {
        self.measure.is_empty() || self.measure.contains(&measure)
    }

    fn load(&self, measure: Measure) -> Load {
        let tasks = match measure {
            Measure::Roundtrip | Measure::Backlog => self.tasks,
            Measure::Latency => self.latency_tasks,
            Measure::Programs => self.programs,
        };
        Load { tasks, body: self.body as usize }
    }
}

fn main() -> ExitCode {
    match measure(&Args::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("peers: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Measures all, shows the table, and says whether nothing failed. A peer that is not installed is no failure.
fn measure(args: &Args) -> Result<bool> {
    ensure!(args.sheaf.is_absolute() && args.tools.is_absolute(), "--sheaf and --tools are absolute paths");
    let mut peers = peers::all();
    peers.retain(|peer| args.wants(peer.profile().name));
    let mut rows = vec![Row { name: SHEAF.to_owned(), synced: true, runs: Vec::new(), missing: None }];
    for peer in &peers {
        let profile = peer.profile();
        let missing = install::missing(&profile, &args.tools, args.install)?;
        rows.push(Row { name: profile.name.to_owned(), synced: profile.synced, runs: Vec::new(), missing });
    }
    let mut failures = 0;
    for run in 1..=args.runs {
        for (at, row) in rows.iter_mut().enumerate() {
            let peer = at.checked_sub(1).map(|at| peers[at].as_ref());
            if row.missing.is_some() || (peer.is_none() && !args.wants(SHEAF)) {
                continue;
            }
            let (measured, failed) = run_one(args, &row.name, peer, run);
            row.runs.push(measured);
            failures += failed;
        }
    }
    rows.retain(|row| row.missing.is_some() || !row.runs.is_empty());
    if QUEUES.into_iter().any(|queue| args.measures(queue)) {
        ensure!(!rows.is_empty(), "--only leaves nothing");
        println!("{}", table::markdown(&rows));
    }
    if args.measures(Measure::Programs) {
        println!("\n{}", programs::measure(args)?);
    }
    Ok(failures == 0)
}

const SHEAF: &str = "Sheaf";

/// One run of each measure, and how many failed. A failure is told at once and leaves a gap.
fn run_one(args: &Args, name: &str, peer: Option<&dyn Peer>, run: u32) -> (Run, u32) {
    let (mut measured, mut failed) = (Run::default(), 0);
    for measure in QUEUES.into_iter().filter(|queue| args.measures(*queue)) {
        eprintln!("peers: {name}, {measure:?}, run {run} of {}", args.runs);
        let load = args.load(measure);
        measured.sync_us.extend(disk::sync_us(&args.dir).inspect_err(|error| eprintln!("peers: {error:#}")));
        let result = match peer {
            Some(peer) => of_peer(args, peer, measure, load, &mut measured),
            None => of_sheaf(&args.sheaf, &args.dir, measure, load, &mut measured),
        };
        if let Err(error) = result {
            eprintln!("peers: {name}, {measure:?} FAILED: {error:#}");
            failed += 1;
        }
    }
    (measured, failed)
}

fn of_peer(args: &Args, peer: &dyn Peer, measure: Measure, load: Load, run: &mut Run) -> Result<()> {
    let server = peer.start(Ground::new(&args.dir, &args.tools)?).context("the server does not start")?;
    match measure {
        Measure::Roundtrip => run.roundtrip = Some(drive::roundtrip(peer, &server, load)?),
        Measure::Latency => run.latency = Some(drive::latency(peer, &server, load)?),
        Measure::Backlog => run.backlog = Some(drive::backlog(peer, &server, load)?),
        Measure::Programs => {}
    }
    Ok(())
}

fn of_sheaf(sheaf: &Path, dir: &Path, measure: Measure, load: Load, run: &mut Run) -> Result<()> {
    match measure {
        Measure::Roundtrip => run.roundtrip = Some(sheaf::roundtrip(sheaf, dir, load)?),
        Measure::Latency => run.latency = Some(sheaf::latency(sheaf, dir, load)?),
        Measure::Backlog => run.backlog = Some(sheaf::backlog(sheaf, dir, load)?),
        Measure::Programs => {}
    }
    Ok(())
}
