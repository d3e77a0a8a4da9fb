//! `cargo xtask hot`: counts the instructions and the allocations that the hottest functions cost a task, and compares
//! them with those on record. A count does not depend on the machine's load, so it may fail a build; a time never does.

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

/// A task may have so many allocations more than on record: buffers that grow.
const ALLOCATIONS_TOLERANCE: f64 = 0.05;

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

/// What a task costs.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Cost {
    instructions: f64,
    allocations: f64,
}

fn count(binary: &std::path::Path, name: &str) -> anyhow::Result<Cost> {
    let profile = workspace::target_dir()?.join(format!("hot-{name}.callgrind"));
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--dump-instr=yes", "--compress-strings=no", "--compress-pos=no"])
        .arg("--collect-atstart=no")
        .arg(format!("--callgrind-out-file={}", profile.display()))
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
    let allocations =
        allocations(&std::fs::read_to_string(&profile).with_context(|| format!("{}", profile.display()))?)?;
    Ok(Cost { instructions: instructions / tasks, allocations: allocations as f64 / tasks })
}

/// Calls of the allocator in a profile of callgrind by instructions: how often the first instruction of each of its functions
/// was executed. (The profile's own counts of calls go on where nothing is collected.)
fn allocations(profile: &str) -> anyhow::Result<u64> {
    const ALLOCATORS: [&str; 4] = ["malloc", "calloc", "realloc", "posix_memalign"];
    let mut executed: BTreeMap<&str, BTreeMap<u64, u64>> = BTreeMap::new();
    let (mut function, mut lines) = (None, profile.lines());
    while let Some(line) = lines.next() {
        if let Some(name) = line.strip_prefix("fn=") {
            function = ALLOCATORS.contains(&name).then_some(name);
        } else if line.starts_with("calls=") {
            lines.next(); // What the callee cost.
        } else if let (Some(name), Some(rest)) = (function, line.strip_prefix("0x")) {
            let mut words = rest.split(' ');
            let address = words.next().map(|word| u64::from_str_radix(word, 16)).context("an address")??;
            let count: u64 = words.nth(1).context("a count")?.parse()?;
            *executed.entry(name).or_default().entry(address).or_default() += count;
        }
    }
    Ok(executed.values().filter_map(|by_address| by_address.values().next()).sum())
}

/// The counts on record.
#[derive(Debug, PartialEq)]
struct Recorded {
    compiler: String,
    costs: BTreeMap<String, Cost>,
}

impl Recorded {
    fn parse(text: &str) -> anyhow::Result<Self> {
        let mut lines = text.lines().filter(|line| !line.starts_with('#'));
        let compiler = lines.next().context("no line names the compiler")?.to_owned();
        let cost = |line: &str| {
            let mut words = line.split(' ');
            let mut next = || words.next().with_context(|| format!("a name and two counts are wanted: {line}"));
            let (name, instructions, allocations) = (next()?, next()?, next()?);
            let cost = Cost { instructions: instructions.parse()?, allocations: allocations.parse()? };
            anyhow::Ok((name.to_owned(), cost))
        };
        Ok(Self { compiler, costs: lines.map(cost).collect::<anyhow::Result<_>>()? })
    }
}

fn written(compiler: &str, costs: &[(&str, Cost)]) -> String {
    let head = "# Instructions and allocations for one task, by `cargo xtask hot --record`; before them, the compiler.";
    let line = |(name, cost): &(&str, Cost)| format!("{name} {:.0} {:.2}\n", cost.instructions, cost.allocations);
    format!("{head}\n{compiler}\n{}", costs.iter().map(line).collect::<String>())
}

fn judge(recorded: &Recorded, compiler: &str, costs: &[(&str, Cost)]) -> anyhow::Result<()> {
    let mut above = Vec::new();
    for (name, cost) in costs {
        let before = *recorded.costs.get(*name).with_context(|| format!("{RECORD} has no count of {name}"))?;
        let percent = (cost.instructions / before.instructions - 1.0) * 100.0;
        println!(
            "{name:<8} {:>8.0} instructions a task, on record {:>8.0} ({percent:+.1} %), {:.2} allocations, on record {:.2}",
            cost.instructions, before.instructions, cost.allocations, before.allocations
        );
        if percent > TOLERANCE_PERCENT || cost.allocations > before.allocations + ALLOCATIONS_TOLERANCE {
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

    fn cost(instructions: f64, allocations: f64) -> Cost {
        Cost { instructions, allocations }
    }

    fn recorded() -> Recorded {
        let costs = [("feed", cost(1_000.0, 1.0)), ("route", cost(2_000.0, 0.1))];
        Recorded::parse(&written("rustc 1", &costs)).unwrap()
    }

    #[test]
    fn what_is_recorded_is_read_again() {
        let recorded = recorded();
        assert_eq!((recorded.compiler.as_str(), recorded.costs["route"]), ("rustc 1", cost(2_000.0, 0.1)));
        assert!(Recorded::parse("rustc 1\nfeed 1").is_err());
    }

    #[test]
    fn more_than_the_tolerance_fails_unless_the_compiler_is_another() {
        let recorded = recorded();
        let judged = |compiler, name, now| judge(&recorded, compiler, &[(name, now)]);
        assert!(judged("rustc 1", "feed", cost(1_049.0, 1.0)).is_ok());
        assert!(judged("rustc 1", "feed", cost(1_051.0, 1.0)).is_err());
        assert!(judged("rustc 1", "route", cost(1_000.0, 1.1)).is_err(), "one allocation more in every task");
        assert!(judged("rustc 1", "route", cost(1_000.0, 0.11)).is_ok());
        assert!(judged("rustc 2", "feed", cost(1_051.0, 2.0)).is_ok());
        assert!(judged("rustc 1", "other", cost(1.0, 0.0)).is_err());
    }

    #[test]
    fn allocations_are_counted_where_they_are_made() {
        let profile = "fn=one\n0x10 0 5\ncfn=malloc\ncalls=900 0x40 0\n0x14 0 9000\nfn=malloc\n0x44 0 7\n0x40 0 3\n\
                       cfn=other\ncalls=1 0x80 0\n0x48 0 70\nfn=realloc\n0x60 0 2\nfn=malloc\n0x40 0 1\n";
        assert_eq!(allocations(profile).unwrap(), 6);
        assert_eq!(allocations("fn=one\n0x10 0 5\n").unwrap(), 0);
        assert!(allocations("fn=malloc\n0x40 0\n").is_err());
    }
}
