//! A program a task, two at once: `sheaf run` beside `xargs` and GNU parallel, which write nothing down.

use std::fs::File;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, ensure};

use crate::Args;
use crate::server::Ground;
use crate::table;

/// Programs at once.
const AT_ONCE: &str = "2";

/// Does nothing, so that starting it is all there is.
const PROGRAM: &str = "/bin/true";

/// Runs all three as often as was asked, and tells the medians.
pub(crate) fn measure(args: &Args) -> Result<String> {
    let mut rates = vec![(SHEAF, Vec::new()), (XARGS, Vec::new()), (PARALLEL, Vec::new())];
    for run in 1..=args.runs {
        for (name, seen) in &mut rates {
            eprintln!("peers: {name}, run {run} of {}", args.runs);
            let ground = Ground::new(&args.dir, &args.tools)?;
            match command(name, &args.sheaf, &ground) {
                Ok(command) => seen.push(rate(command, &ground, args.programs)?),
                Err(error) => eprintln!("peers: {name} NOT MEASURED: {error:#}"),
            }
        }
    }
    let medians: Vec<_> = rates.into_iter().filter_map(|(name, seen)| Some((name, table::median(seen)?))).collect();
    Ok(table::programs(&medians))
}

const SHEAF: &str = "sheaf run --batch 2 -- /bin/true {}";
const XARGS: &str = "xargs -P2 -n1 /bin/true";
const PARALLEL: &str = "parallel -j2 /bin/true";

fn command(name: &str, sheaf: &Path, ground: &Ground) -> Result<Command> {
    let mut command;
    if name == SHEAF {
        command = Command::new(sheaf);
        command.args(["run", "--batch", AT_ONCE, "--in", "rows.txt", "--out", "out.jsonl", "--", PROGRAM, "{}"]);
    } else if name == XARGS {
        command = Command::new(ground.program("xargs")?);
        command.args(["-P", AT_ONCE, "-n1", PROGRAM]);
    } else {
        command = Command::new(ground.program("parallel")?);
        command.args(["-j", AT_ONCE, PROGRAM]).env("HOME", ground.subdirectory("home")?);
    }
    Ok(command)
}

/// A row for each program, a number, on standard input and in a file.
fn rate(mut command: Command, ground: &Ground, programs: u64) -> Result<f64> {
    let rows = ground.path("rows.txt");
    let text: String = (0..programs).map(|number| format!("{number}\n")).collect();
    std::fs::write(&rows, text).with_context(|| format!("cannot write {}", rows.display()))?;
    command.current_dir(rows.parent().context("no directory")?).stdin(File::open(&rows)?);
    command.stdout(Stdio::null()).stderr(File::create(ground.path("log"))?);
    let since = Instant::now();
    let status = command.status().with_context(|| format!("cannot start {command:?}"))?;
    ensure!(status.success(), "{command:?}: {status}");
    Ok(programs as f64 / since.elapsed().as_secs_f64())
}
