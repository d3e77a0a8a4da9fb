//! The project's own chores, each a command: `cargo xtask ci | tidy | sim | torture | fuzz | hot | crab | bench`.
//!
//! It knows how to judge and start things; it does not know what Sheaf does.

mod bench;
mod ci;
mod crab;
mod fuzz;
mod hot;
mod sim;
mod tidy;
mod torture;
mod workspace;

use std::process::ExitCode;

use anyhow::bail;

const HELP: &str = "\
cargo xtask ci                 format, clippy, tidy, tests, simulated seeds, docs; stops at the first failure
cargo xtask tidy               the rules that clippy does not know
cargo xtask sim [--seeds N | --seed S] [--mutate NAME|list] [--trace]
                               simulate N clusters, or that of seed S, perhaps with a rule removed, perhaps showing all
cargo xtask sim --scenario NAME|PATH
                               one cluster as its file has it: its story, and where that is another than the file's
cargo xtask sim --seed S --as-scenario
                               a seed as a scenario; one that fails is made as small as it can be
cargo xtask torture [--family F] [--seed S] [--minutes M | --cycles N | --rounds N]
                               hurt real processes: every family for a short time, or one, or longer
cargo xtask fuzz [--target T] [--inputs N | --minutes M] [--seed S] [--input FILE]
                               arbitrary bytes for everything that reads bytes: the corpus, then inputs made from it
cargo xtask hot [--record]     count instructions and allocations that the hottest functions cost a task, against those on record
cargo xtask crab               the small HTTPS server, a workspace of its own: clippy, tests, and its size
cargo xtask bench peers [--tasks N] [--runs N] [--only NAME,..] [--measure NAME,..] [--dir DIR] [--install]
                               Sheaf and other queues, the same work, one table; a peer that is missing is said to be";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match command(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn command(args: &[String]) -> anyhow::Result<()> {
    match args.split_first() {
        Some((name, [])) if name == "ci" => ci::run(),
        Some((name, [])) if name == "tidy" => tidy::run(),
        Some((name, rest)) if name == "sim" => sim::run(rest),
        Some((name, rest)) if name == "torture" => torture::run(rest),
        Some((name, rest)) if name == "fuzz" => fuzz::run(rest),
        Some((name, rest)) if name == "hot" => hot::run(rest),
        Some((name, [])) if name == "crab" => crab::run(),
        Some((name, rest)) if name == "bench" => bench::run(rest),
        Some((name, _)) if name == "help" || name == "--help" => {
            println!("{HELP}");
            Ok(())
        }
        _ => bail!("say one of these:\n{HELP}"),
    }
}
