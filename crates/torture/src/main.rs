//! An external driver that hurts real `sheaf` processes and judges from its own ledger and the sink alone.
//!
//! `cargo xtask torture` builds and starts it. What it deliberately does not believe: anything that Sheaf says of itself,
//! except where a claim ("so many rows are acknowledged") is what is put to the test.

mod args;
mod check;
mod cluster;
mod family;
mod job;
mod ledger;
mod loopfs;
mod process;
mod program;
mod report;
mod rows;
mod seed;
mod sink;
mod specimen;
mod strace;

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

use args::{Args, Length};
use family::{FAMILIES, Family, Round};
use report::Tally;
use seed::Rng;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match command(&words) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("torture: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn command(words: &[String]) -> anyhow::Result<()> {
    match words.split_first() {
        Some((word, rest)) if word == "program" => program::main(rest),
        Some((word, rest)) if word == "inside" => family::net::inside(rest),
        Some((word, [])) if word == "list" => {
            FAMILIES.iter().for_each(|family| println!("{:<8} {}", family.name, family.about));
            Ok(())
        }
        Some((word, _)) if word == "help" || word == "--help" => {
            println!("{}", args::HELP);
            Ok(())
        }
        _ => torture(&Args::parse(words)?),
    }
}

fn torture(args: &Args) -> anyhow::Result<()> {
    let wanted = |family: &&Family| args.family.as_deref().is_none_or(|name| name == family.name);
    let families: Vec<&Family> = FAMILIES.iter().filter(wanted).collect();
    if families.is_empty() {
        bail!("there is no such family; `torture list` names them");
    }
    for family in families {
        if let Some(why) = (family.lacks)() {
            println!("torture {}: SKIPPED, NOTHING WAS CHECKED: {why}", family.name);
            continue;
        }
        println!("torture {}: {}", family.name, family.about);
        let started = Instant::now();
        let tally = run(args, family)?;
        println!("{}", report::line(family.name, &tally, args.seed, started.elapsed()));
    }
    Ok(())
}

/// Rounds of one family until its length is reached.
fn run(args: &Args, family: &Family) -> anyhow::Result<Tally> {
    let until = Instant::now() + time_of(args, family);
    let mut total = Tally::default();
    loop {
        let seed = seed::of_round(args.seed, total.rounds);
        total += one_round(args, family, seed, until, faults_of(args).saturating_sub(total.faults))?;
        let done = match args.length {
            Length::Short | Length::Time(_) => Instant::now() >= until,
            Length::Cycles(faults) => total.faults >= faults,
            Length::Rounds(rounds) => total.rounds >= rounds,
        };
        if done {
            return Ok(total);
        }
        if total.rounds.is_multiple_of(10) {
            println!("torture {}: so far {total}", family.name);
        }
    }
}

fn time_of(args: &Args, family: &Family) -> Duration {
    match args.length {
        Length::Short => family.short,
        Length::Time(time) => time,
        Length::Cycles(_) | Length::Rounds(_) => FOREVER,
    }
}

fn faults_of(args: &Args) -> u64 {
    if let Length::Cycles(faults) = args.length { faults } else { u64::MAX }
}

/// Longer than anybody waits.
const FOREVER: Duration = Duration::from_secs(7 * 24 * 3_600);

fn one_round(args: &Args, family: &Family, seed: u64, until: Instant, faults_left: u64) -> anyhow::Result<Tally> {
    let dir = fresh_dir(args, family, seed)?;
    let mut round = Round {
        rng: Rng::new(seed),
        dir: dir.clone(),
        sheaf: args.sheaf.clone(),
        torture: std::env::current_exe().context("cannot find this program's own file")?,
        until,
        faults_left,
        tally: Tally::default(),
    };
    if let Err(error) = (family.round)(&mut round) {
        let name = family.name;
        eprintln!("\ntorture {name}: FAILED with seed {seed} after {} faults of this round", round.tally.faults);
        eprintln!("    everything is kept in {}", dir.display());
        eprintln!("    repeat it with: cargo xtask torture --family {name} --seed {seed} --rounds 1");
        return Err(error.context(format!("family {name}, seed {seed}")));
    }
    fs::remove_dir_all(&dir)?;
    round.tally.rounds = 1;
    Ok(round.tally)
}

fn fresh_dir(args: &Args, family: &Family, seed: u64) -> anyhow::Result<PathBuf> {
    let dir = args.dir.join(format!("{}-{seed}-{}", family.name, std::process::id()));
    fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
    Ok(dir)
}
