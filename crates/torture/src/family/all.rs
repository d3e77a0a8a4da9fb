//! Everything at once: killed, stopped and started again, on links that lose, double and reorder.
//!
//! Executions again are excused by kills and by sleeps longer than the grace; nothing excuses a loss or a duplicate.

use std::time::Duration;

use rustix::process::Signal;

use super::{Family, Round, lacks_nothing};
use crate::check::Allowed;
use crate::cluster::{Cluster, PATIENCE, Role, Setup};
use crate::job::Job;
use crate::rows::Rows;
use crate::sink::Kind;

pub(super) const FAMILY: Family = Family {
    name: "all",
    about: "kill -9, SIGSTOP and lossy links together",
    lacks: lacks_nothing,
    short: Duration::from_secs(15),
    round,
};

/// Faults of a round.
const FAULTS: u64 = 30;

const DEATHS: u64 = 3;

fn round(round: &mut Round) -> anyhow::Result<()> {
    let chaos = Some(format!("drop=0.05,dup=0.1,reorder=0.2,seed={}", round.rng.between(1, 1_000_000)));
    let setup = Setup { chaos, pause_ms: 30, ..round.setup() };
    let mut cluster = Cluster::new(setup, &mut round.rng)?;
    cluster.start_all()?;
    let rows = Rows::make(&mut round.rng, "all", 600, 200);
    let sink = *round.rng.pick(&[Kind::Jsonl, Kind::Csv, Kind::Sqlite]);
    let mut job = Job::begin(&mut cluster, "all", rows, sink)?;
    cluster.start(Role::Client)?;
    let mut faults = 0;
    while faults < FAULTS && round.wants_more() && cluster.is_up(Role::Client)? {
        std::thread::sleep(Duration::from_millis(round.rng.between(50, 400)));
        hurt(round, &mut cluster)?;
        faults += 1;
        round.tally.faults += 1;
        job.look(&cluster)?;
    }
    job.finish(&mut cluster, Role::Client, PATIENCE)?;
    // A short grace, lost heartbeats and a busy machine: any fault may cost what the workers held.
    let held = u64::from(cluster.setup().batch + cluster.setup().depth) * cluster.setup().workers as u64;
    job.judge(&cluster, Allowed { again: faults * held, deaths: DEATHS }, &mut round.tally)
}

/// One of them is killed and started again, or sleeps for less or more than the grace.
fn hurt(round: &mut Round, cluster: &mut Cluster) -> anyhow::Result<()> {
    let role = *round.rng.pick(&[Role::Router, Role::Client, Role::Worker(0), Role::Worker(1)]);
    cluster.insist_alive(role)?;
    if round.rng.chance(75) {
        cluster.kill9(role)?;
        return cluster.start(role);
    }
    let ms = if round.rng.chance(20) { round.rng.between(3_000, 4_500) } else { round.rng.between(50, 900) };
    let sleeps = cluster.is_up(role)?;
    if sleeps {
        cluster.signal(role, Signal::STOP)?;
    }
    std::thread::sleep(Duration::from_millis(ms));
    if sleeps {
        cluster.signal(role, Signal::CONT)?;
    }
    Ok(())
}
