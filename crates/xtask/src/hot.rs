//! `cargo xtask hot`: counts the instructions that the hottest functions cost a task, and compares them with those on
//! record. A count does not depend on the machine's load, so it may fail a build; a time never does.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, bail, ensure};

use crate::workspace;

const PACKAGE: &str = "sheaf-hot";
const BINARY: &str = "hot";
const NAMES: [&str; 4] = ["feed", "route", "append", "decode"];

/// Where the counts on record are, below the workspace's root.
const RECORD: &str = "crates/hot/counts.txt";

/// A count may be above the one on record by so much, in percent: another libc or processor moves it a little.
const TOLERANCE_PERCENT: f64 = 5.0;

/// Whether the counter is there.
pub(crate) fn has_counter() -> bool {
    let mut probe = Command::new("valgrind");
    probe.arg("--version").stdout(Stdio::null()).stderr(Stdio::null());
    probe.status().is_ok_and(|status| status.success())
}

/// Counts, and compares or records.
///
/// # Errors
/// Without a counter, or when a function costs more than on record and the tolerance allow.
pub(crate) fn run(args: &[String]) -> anyhow::Result<()> {
    let records = match args {
        [] => false,
        [one] if one == "--record" => true,
        _ => bail!("say nothing more, or --record to keep today's counts"),
    };
    ensure!(has_counter(), "valgrind is not installed: it counts the instructions");
    let binary = build()?;
    let compiler = compiler()?;
    let counts = NAMES.iter().map(|name| Ok((*name, count(&binary, name)?))).collect::<anyhow::Result<Vec<_>>>()?;
    let path = workspace::root().join(RECORD);
    if records {
        return std::fs::write(&path, written(&compiler, &counts)).with_context(|| format!("{}", path.display()));
    }
    let text = std::fs::read_to_string(&path).with_context(|| format!("{}", path.display()))?;
    judge(&Recorded::parse(&text)?, &compiler, &counts)
}

fn build() -> anyhow::Result<PathBuf> {
    let argv = ["build", "--quiet", "--release", "--package", PACKAGE, "--bin", BINARY];
    let status = workspace::cargo().args(argv).status().context("cargo build")?;
    ensure!(status.success(), "cargo {}: {status}", argv.join(" "));
    Ok(workspace::target_dir()?.join("release").join(BINARY))
}

fn compiler() -> anyhow::Result<String> {
    let output = Command::new("rustc").arg("--version").output().context("rustc")?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// Instructions for one task.
fn count(binary: &std::path::Path, name: &str) -> anyhow::Result<f64> {
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null", "--collect-atstart=no"])
        .arg(format!("--toggle-collect={BINARY}::{name}::measured"))
        .arg(binary)
        .arg(name)
        .output()
        .context("valgrind")?;
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.success(), "hot {name} failed: {told}");
    let tasks: f64 = String::from_utf8_lossy(&output.stdout).trim().parse().context("how many tasks")?;
    let collected = told.lines().find_map(|line| line.split_once("Collected : ")).context("no count")?.1;
    let instructions: f64 = collected.trim().parse().context("a count")?;
    ensure!(instructions > 0.0, "nothing was counted: `measured` of {name} was inlined or renamed");
    Ok(instructions / tasks)
}

/// The counts on record.
#[derive(Debug, PartialEq)]
struct Recorded {
    compiler: String,
    counts: BTreeMap<String, f64>,
}

impl Recorded {
    fn parse(text: &str) -> anyhow::Result<Self> {
        let mut lines = text.lines().filter(|line| !line.starts_with('#'));
        let compiler = lines.next().context("no line names the compiler")?.to_owned();
        let count = |line: &str| {
            let (name, count) = line.split_once(' ').with_context(|| format!("no count: {line}"))?;
            Ok((name.to_owned(), count.trim().parse()?))
        };
        Ok(Self { compiler, counts: lines.map(count).collect::<anyhow::Result<_>>()? })
    }
}

fn written(compiler: &str, counts: &[(&str, f64)]) -> String {
    let head = "# Instructions for one task, by `cargo xtask hot --record`; before them, the compiler.";
    let lines: String = counts.iter().map(|(name, count)| format!("{name} {count:.0}\n")).collect();
    format!("{head}\n{compiler}\n{lines}")
}

fn judge(recorded: &Recorded, compiler: &str, counts: &[(&str, f64)]) -> anyhow::Result<()> {
    let mut above = Vec::new();
    for (name, count) in counts {
        let before = *recorded.counts.get(*name).with_context(|| format!("{RECORD} has no count of {name}"))?;
        let percent = (count / before - 1.0) * 100.0;
        println!("{name:<8} {count:>8.0} instructions a task, on record {before:>8.0} ({percent:+.1} %)");
        if percent > TOLERANCE_PERCENT {
            above.push(*name);
        }
    }
    if recorded.compiler != compiler {
        println!("NOT JUDGED: on record are counts by {}, this is {compiler}", recorded.compiler);
        return Ok(());
    }
    ensure!(
        above.is_empty(),
        "{} cost more than on record: mend it, or say why in a commit with `cargo xtask hot --record`",
        above.join(", ")
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const COUNTS: [(&str, f64); 2] = [("feed", 1_000.0), ("route", 2_000.0)];

    #[test]
    fn what_is_recorded_is_read_again() {
        let recorded = Recorded::parse(&written("rustc 1", &COUNTS)).unwrap();
        assert_eq!((recorded.compiler.as_str(), recorded.counts["route"]), ("rustc 1", 2_000.0));
    }

    #[test]
    fn more_than_the_tolerance_fails_unless_the_compiler_is_another() {
        let recorded = Recorded::parse(&written("rustc 1", &COUNTS)).unwrap();
        assert!(judge(&recorded, "rustc 1", &[("feed", 1_049.0), ("route", 1_000.0)]).is_ok());
        assert!(judge(&recorded, "rustc 1", &[("feed", 1_051.0)]).is_err());
        assert!(judge(&recorded, "rustc 2", &[("feed", 1_051.0)]).is_ok());
        assert!(judge(&recorded, "rustc 1", &[("other", 1.0)]).is_err());
    }
}
