//! Runs seeds: `sim --first 0 --seeds 2000`, `sim --seed 17 --trace`, `sim --mutate NAME --seeds 10000`; and scenarios:
//! `sim --scenario NAME`, `sim --seed 17 --as-scenario` (a seed that fails is made as small as it can be).
//!
//! Exit code 0: nothing that must not happen did (with `--mutate`: something did, as it must). 1: the other way round.

#![allow(clippy::disallowed_types, reason = "a binary is a shell: it may look at the clock")]

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use sheaf_sim::{Outcome, Plan, Planted, Scenario, Show, World, shrink};

struct Args {
    first: u64,
    seeds: u64,
    mutate: Option<(String, Planted)>,
    trace: bool,
    what: What,
}

/// What is to be done.
enum What {
    Seeds,
    /// Run this file.
    Scenario(String),
    /// Print the first seed as a scenario.
    AsScenario,
}

const USAGE: &str = "usage: sim [[--first S] --seeds N | --seed S [--as-scenario] | --scenario NAME|PATH] [--trace] [--mutate NAME|list]";

fn main() -> ExitCode {
    match parse(std::env::args().skip(1)) {
        Ok(Some(args)) => match &args.what {
            What::Seeds => run(&args),
            What::Scenario(name) => scenario(&args, name),
            What::AsScenario => as_scenario(&args),
        },
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
    let mut args = Args { first: 0, seeds: 1_000, mutate: None, trace: false, what: What::Seeds };
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
            "--scenario" => args.what = What::Scenario(value()?),
            "--as-scenario" => args.what = What::AsScenario,
            "--mutate" => {
                let name = value()?;
                if name == "list" {
                    return Ok(None);
                }
                args.mutate = Some((name.clone(), planted(&name)?));
            }
            _ => return Err(format!("`{word}` is unknown")),
        }
    }
    if single {
        args.seeds = 1;
    }
    Ok(Some(args))
}

fn planted(name: &str) -> Result<Planted, String> {
    if !cfg!(feature = "mutations") {
        return Err("build with --features mutations to plant one".to_owned());
    }
    Planted::parse(name).ok_or_else(|| format!("`{name}` is no mutation: see --mutate list"))
}

fn run(args: &Args) -> ExitCode {
    let planted = args.mutate.as_ref().map(|(_, planted)| *planted);
    let show = if args.trace { Show::All } else { Show::Nothing };
    let began = Instant::now();
    let (mut hash, mut steps, mut executed) = (0_u64, 0, 0);
    for seed in args.first..args.first + args.seeds {
        let outcome = World::new(&Plan::from_seed(seed), planted, show).run();
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
            println!(
                "repeat with: cargo xtask sim --seed {seed} --trace, or make it small: --seed {seed} --as-scenario"
            );
            ExitCode::FAILURE
        }
        Some((name, _)) => {
            println!("caught: {name} at seed {seed}, after {:.1} s", began.elapsed().as_secs_f64());
            ExitCode::SUCCESS
        }
    }
}

/// Runs one scenario, shows its story, and says where it is another than the file has.
fn scenario(args: &Args, name: &str) -> ExitCode {
    let path = scenario_path(name);
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) => return misused(&format!("{}: {error}", path.display())),
    };
    let scenario = match Scenario::parse(&text) {
        Ok(scenario) => scenario,
        Err(error) => return misused(&format!("{}: {error}", path.display())),
    };
    let (story, outcome) = scenario.play(args.mutate.as_ref().map(|(_, planted)| *planted));
    print!("{}", scenario.with_story(&story));
    let differs = story.lines().zip(scenario.expected.lines()).position(|(is, was)| is != was);
    if story != scenario.expected {
        let at = differs.unwrap_or_else(|| story.lines().count().min(scenario.expected.lines().count()));
        println!("the file has another story from its line {} on", at + 1);
    }
    if story == scenario.expected && outcome.violations.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// A path, or the name of one of ours.
fn scenario_path(name: &str) -> PathBuf {
    if Path::new(name).exists() {
        return PathBuf::from(name);
    }
    Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/scenarios").join(format!("{name}.txt"))
}

/// Prints the plan of a seed, or the least that is left of it with the seed's failure.
fn as_scenario(args: &Args) -> ExitCode {
    let planted = args.mutate.as_ref().map(|(_, planted)| *planted);
    let fails = |plan: &Plan| !World::new(plan, planted, Show::Nothing).run().violations.is_empty();
    let plan = Plan::from_seed(args.first);
    let plan = if fails(&plan) { shrink(plan, fails) } else { plan };
    let scenario = Scenario::of(plan);
    let (story, _) = scenario.play(planted);
    print!("{}", scenario.with_story(&story));
    ExitCode::SUCCESS
}

fn misused(message: &str) -> ExitCode {
    eprintln!("sim: {message}");
    ExitCode::from(2)
}
