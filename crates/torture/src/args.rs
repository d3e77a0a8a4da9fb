//! The command line of `torture`.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail};

pub(crate) const HELP: &str = "\
torture --sheaf PATH [--family F] [--seed S] [--minutes M | --cycles N | --rounds N] [--dir DIR]
    every family for its short time, or one; longer where minutes, faults (cycles) or rounds are given
torture list                    the families
torture program LEDGER PAUSE_MS a worker's program: see crates/torture/src/program.rs
A round is repeated by its seed: the same faults at the same moments of its plan. Real processes on a real clock
are not the simulator: what they were doing at such a moment differs from run to run.";

/// What was asked for.
#[derive(Clone, Debug)]
pub(crate) struct Args {
    pub sheaf: PathBuf,
    pub family: Option<String>,
    pub seed: u64,
    pub length: Length,
    pub dir: PathBuf,
}

/// How long each family goes on. A round that has begun comes to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Length {
    /// The short time of the family.
    Short,
    Time(Duration),
    /// Until so many faults were injected.
    Cycles(u64),
    Rounds(u64),
}

impl Args {
    /// Reads the words.
    pub(crate) fn parse(words: &[String]) -> anyhow::Result<Self> {
        let mut args = Self {
            sheaf: PathBuf::new(),
            family: None,
            seed: 1,
            length: Length::Short,
            dir: std::env::temp_dir().join("sheaf-torture"),
        };
        let mut left = words.iter();
        while let Some(option) = left.next() {
            let value = left.next().with_context(|| format!("{option} lacks a value\n{HELP}"))?;
            match option.as_str() {
                "--sheaf" => args.sheaf = std::path::absolute(value)?,
                "--family" => args.family = Some(value.clone()),
                "--seed" => args.seed = value.parse().context("--seed")?,
                "--minutes" => {
                    let minutes: f64 = value.parse().context("--minutes")?;
                    args.length = Length::Time(Duration::try_from_secs_f64(minutes * 60.0).context("--minutes")?);
                }
                "--cycles" => args.length = Length::Cycles(value.parse().context("--cycles")?),
                "--rounds" => args.length = Length::Rounds(value.parse().context("--rounds")?),
                "--dir" => args.dir = std::path::absolute(value)?,
                _ => bail!("there is no option {option}\n{HELP}"),
            }
        }
        if !args.sheaf.is_file() {
            bail!("--sheaf names no file; build it with: cargo build --release -p sheaf");
        }
        Ok(args)
    }
}
