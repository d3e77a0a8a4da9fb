//! A child for each target, a few at a time, and what becomes of them. It runs no input itself.

use std::fs;
use std::process::{Child, Command, ExitStatus};
use std::sync::Mutex;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::args::{Args, Span};
use crate::child::{self, HUNG};
use crate::corpus;
use crate::target::Spec;

/// Runs all targets that are meant; returns how many failed.
pub(crate) fn run(args: &Args) -> Result<usize> {
    let specs = args.targets();
    let slots = std::thread::available_parallelism().map_or(1, |n| n.get()).min(specs.len());
    let queue = Mutex::new(specs.iter().rev().copied().collect::<Vec<_>>());
    let work = || -> Result<usize> {
        let mut failed = 0;
        loop {
            let next = queue.lock().ok().and_then(|mut queue| queue.pop());
            let Some(spec) = next else { return Ok(failed) };
            failed += usize::from(!one(args, spec, specs.len(), slots)?);
        }
    };
    std::thread::scope(|scope| {
        let running: Vec<_> = (0..slots).map(|_| scope.spawn(work)).collect();
        let mut failed = 0;
        for each in running {
            failed += each.join().map_err(|_| anyhow::anyhow!("a thread of the parent panicked"))??;
        }
        Ok(failed)
    })
}

/// Runs one target to its end; false if it failed.
fn one(args: &Args, spec: &'static Spec, targets: usize, slots: usize) -> Result<bool> {
    let status = start(args, spec, targets, slots)?.wait()?;
    match status.code() {
        Some(0) => Ok(true),
        Some(1) => Ok(false),
        Some(_) | None => {
            let last = fs::read(corpus::failures()?.join(format!("{}.last", spec.name)))?;
            corpus::keep(spec, child::last_of(&last).unwrap_or_default(), &died(status))?;
            Ok(false)
        }
    }
}

fn died(status: ExitStatus) -> String {
    if status.code() == Some(HUNG) { "hangs".to_owned() } else { format!("the process died: {status}") }
}

fn start(args: &Args, spec: &Spec, targets: usize, slots: usize) -> Result<Child> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["--child", "--target", spec.name, "--seed", &args.seed.to_string()]);
    match (&args.input, args.span) {
        (Some(path), _) => command.arg("--input").arg(path),
        (None, Span::Inputs(inputs)) => {
            let inputs = if targets == 1 { inputs } else { (inputs * spec.share).div_ceil(100) };
            command.args(["--inputs", &inputs.to_string()])
        }
        (None, Span::Time(time)) => {
            // Each gets an equal part of the whole time, rounded up to minutes.
            let part = time.as_secs() * slots as u64 / targets as u64;
            command.args(["--minutes", &Duration::from_secs(part.max(60)).as_secs().div_ceil(60).to_string()])
        }
    };
    command.spawn().context("the fuzzer's child does not start")
}
