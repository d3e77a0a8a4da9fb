//! Runs seeds: `sim --seeds 2000`, `sim --seed 17 --trace`, `sim --mutate NAME --seeds 10000`.
//!
//! Exit code 0: nothing that must not happen did (with `--mutate`: something did, as it must). 1: the other way round.

#![allow(clippy::disallowed_types, reason = "a binary is a shell: it may look at the clock")]

use std::process::ExitCode;
use std::time::Instant;

use sheaf_sim::{Outcome, Plan, Planted, World};

struct Args {
    first: u64,
    seeds: u64,
    mutate: Option<(String, Planted)>,
    trace: bool,
}

const USAGE: &str = "usage: sim [--seeds N] [--seed S] [--trace] [--mutate NAME | --mutate list]";

fn main() -> ExitCode {
    match parse(std::env::args().skip(1)) {
        Ok(Some(args)) => run(&args),
        Ok(None) => {
            Planted::ALL.iter().for_each(|(name, _)| println!("{name}"));
            ExitCode::SUCCESS
        }
        Err(message) => {
            eprintln!("sim: {message}\n{USAGE}");
            ExitCode::from(2)
        }
    }
}

/// `None`: only the names of mutations are wanted.
fn parse(mut words: impl Iterator<Item = String>) -> Result<Option<Args>, String> {
    let mut args = Args { first: 0, seeds: 1_000, mutate: None, trace: false };
    let mut single = false;
    while let Some(word) = words.next() {
        let mut value = || words.next().ok_or_else(|| format!("{word} lacks its value"));
        let number = |text: String| text.parse::<u64>().map_err(|_| format!("`{text}` is no number"));
        match word.as_str() {
            "--seeds" => args.seeds = number(value()?)?,
            "--first" => args.first = number(value()?)?,
            "--seed" => {
                args.first = number(value()?)?;
                single = true;
            }
            "--trace" => args.trace = true,
            "--mutate" => {
                let name = value()?;
                if name == "list" {
                    return Ok(None);
                }
                if !cfg!(feature = "mutations") {
                    return Err("build with --features mutations to plant one".to_owned());
                }
                let planted =
                    Planted::parse(&name).ok_or_else(|| format!("`{name}` is no mutation: see --mutate list"))?;
                args.mutate = Some((name, planted));
            }
            _ => return Err(format!("`{word}` is unknown")),
        }
    }
    if single {
        args.seeds = 1;
    }
    Ok(Some(args))
}

fn run(args: &Args) -> ExitCode {
    let planted = args.mutate.as_ref().map(|(_, planted)| *planted);
    let began = Instant::now();
    let (mut hash, mut steps, mut executed) = (0_u64, 0, 0);
    for seed in args.first..args.first + args.seeds {
        let outcome = World::new(&Plan::from_seed(seed), planted, args.trace).run();
        if args.trace {
            outcome.lines.iter().for_each(|line| println!("{line}"));
        }
        hash = hash.rotate_left(1) ^ outcome.hash;
        (steps, executed) = (steps + outcome.steps, executed + outcome.executed);
        if !outcome.violations.is_empty() {
            return found(args, seed, &outcome, began);
        }
    }
    let seconds = began.elapsed().as_secs_f64();
    println!(
        "{} seeds, {steps} steps, {executed} executions, {:.0} seeds/s, hash {hash:016x}",
        args.seeds,
        args.seeds as f64 / seconds
    );
    match &args.mutate {
        None => {
            println!("0 violations");
            ExitCode::SUCCESS
        }
        Some((name, _)) => {
            println!("NOT CAUGHT: {name}");
            ExitCode::FAILURE
        }
    }
}

fn found(args: &Args, seed: u64, outcome: &Outcome, began: Instant) -> ExitCode {
    for violation in &outcome.violations {
        println!("seed {seed}: {}", violation.0);
    }
    match &args.mutate {
        None => {
            println!("repeat with: cargo xtask sim --seed {seed} --trace");
            ExitCode::FAILURE
        }
        Some((name, _)) => {
            println!("caught: {name} at seed {seed}, after {:.1} s", began.elapsed().as_secs_f64());
            ExitCode::SUCCESS
        }
    }
}
