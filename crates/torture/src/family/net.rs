//! Networks that drop, double and reorder, that are cut one way or both, and connections of which only one end is left.
//!
//! Two kinds of round. *Chaos*: every link breaks what it carries by `--chaos`. *Cut*: real TCP on the loopback of a
//! network namespace of its own, where nft drops packets between the router and chosen peers
//! (`crates/torture/src/family/net/cut.rs`). Who is cut for less than the grace runs nothing twice.

mod cut;

use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};

use super::{Family, Round};
use crate::check::Allowed;
use crate::cluster::{Cluster, PATIENCE, Role, Setup};
use crate::job::Job;
use crate::report::Tally;
use crate::rows::Rows;
use crate::sink::Kind;

pub(crate) use cut::inside;

pub(super) const FAMILY: Family = Family {
    name: "net",
    about: "drop, duplicate, reorder; cuts one way and both, lossy and half-open TCP in a network namespace",
    lacks,
    short: Duration::from_secs(1),
    round,
};

/// A namespace with nft in it is needed, hence root.
fn lacks() -> Option<String> {
    let probe = "ip link set lo up && nft add table ip doors && nft 'add chain ip doors out { type nat hook output priority -100; }'";
    match Command::new("unshare").args(["--net", "--", "sh", "-c", probe]).output() {
        Ok(output) if output.status.success() => None,
        Ok(output) => {
            Some(format!("no network namespace with nft: {}", String::from_utf8_lossy(&output.stderr).trim()))
        }
        Err(error) => Some(format!("unshare does not start: {error}")),
    }
}

fn round(round: &mut Round) -> anyhow::Result<()> {
    // Both kinds in every round: a short run has one round only.
    chaos(round)?;
    cut_outside(round)
}

/// Each end of a link loses so much, so a packet is lost nearly twice as often: 10 %, 30 %, and with all else.
const CHAOS: &[&str] = &["drop=0.05", "drop=0.16", "drop=0.05,dup=0.1,reorder=0.25", "drop=0.16,dup=0.2,reorder=0.2"];

/// Messages are lost, doubled and put out of order on every link.
fn chaos(round: &mut Round) -> anyhow::Result<()> {
    let faults = *round.rng.pick(CHAOS);
    let chaos = Some(format!("{faults},seed={}", round.rng.between(1, 1_000_000)));
    let setup = Setup { chaos, grace: Duration::from_secs(60), ..round.setup() };
    let mut cluster = Cluster::new(setup, &mut round.rng)?;
    cluster.start_all()?;
    let rows = Rows::make(&mut round.rng, "chaos", 600, 40);
    let mut job = Job::begin(&mut cluster, "chaos", rows, Kind::Jsonl)?;
    cluster.start(Role::Client)?;
    let started = Instant::now();
    job.finish(&mut cluster, Role::Client, PATIENCE)?;
    println!("  chaos {faults}: {} rows in {:.1} s", job.rows.count(), started.elapsed().as_secs_f64());
    round.tally.faults += 1;
    job.judge(&cluster, Allowed::default(), &mut round.tally).with_context(|| format!("with {faults}"))
}

/// Runs this program again, in a namespace of its own, and takes over its sums.
fn cut_outside(round: &mut Round) -> anyhow::Result<()> {
    let enter = "ip link set lo up && exec \"$0\" inside \"$@\"";
    let mut command = Command::new("unshare");
    command.args(["--net", "--", "sh", "-c", enter]).arg(&round.torture).arg(&round.sheaf);
    command.arg(round.dir.join("cut")).arg(round.rng.next().to_string());
    let output = command.output().context("unshare does not start")?;
    let said = String::from_utf8_lossy(&output.stdout);
    if !output.status.success() {
        bail!("in the namespace: {}{}", said, String::from_utf8_lossy(&output.stderr));
    }
    let sums = said.lines().rev().find_map(|line| line.strip_prefix("sums ")).context("no sums")?;
    let sums: Vec<u64> = sums.split_whitespace().map(str::parse).collect::<Result<_, _>>()?;
    let [faults, rows, again, failed] = sums[..] else { bail!("sums are {sums:?}") };
    round.tally += Tally { rounds: 0, faults, rows, again, failed };
    said.lines().filter(|line| line.starts_with("  ")).for_each(|line| println!("{line}"));
    ensure!(faults > 0, "nothing was cut");
    Ok(())
}
