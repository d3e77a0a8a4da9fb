//! `SIGSTOP` and `SIGCONT` of router, worker, client and of all at once, for less and for more than the grace.
//!
//! Less: nothing runs twice. More: only what a stopped worker held may, and its stale results, which come when it wakes,
//! replace nothing. A router or a client that slept excuses nothing, however long; nor does a machine that slept whole.

use std::time::Duration;

use anyhow::ensure;
use rustix::process::Signal;

use super::{Family, Round, lacks_nothing};
use crate::check::Allowed;
use crate::cluster::{Cluster, PATIENCE, Role, Setup};
use crate::job::Job;
use crate::report::Tally;
use crate::rows::Rows;
use crate::seed::Rng;
use crate::sink::Kind;

pub(super) const FAMILY: Family = Family {
    name: "stop",
    about: "SIGSTOP and SIGCONT of each process around the grace of 3 s",
    lacks: lacks_nothing,
    short: Duration::from_secs(14),
    round,
};

/// Executions at once in a worker: so many results may be stale after one long sleep.
const BATCH: u32 = 8;

/// What a worker holds beside those, and may begin when it wakes, before it hears that others have it.
const DEPTH: u32 = 4;

const GRACE: Duration = Duration::from_secs(3);

/// Sleeps of a round.
const SLEEPS: u64 = 4;

fn round(round: &mut Round) -> anyhow::Result<()> {
    let setup = Setup { grace: GRACE, batch: BATCH, depth: DEPTH, pause_ms: 250, ..round.setup() };
    let mut cluster = Cluster::new(setup, &mut round.rng)?;
    cluster.start_all()?;
    let rows = Rows::make(&mut round.rng, "stop", 500, 40);
    let sink = *round.rng.pick(&[Kind::Jsonl, Kind::Sqlite]);
    let mut job = Job::begin(&mut cluster, "stop", rows, sink)?;
    cluster.start(Role::Client)?;
    ensure!(job.wait_executed(&cluster, 1, PATIENCE)?, "nothing was executed at first");
    let mut excused = 0;
    for _ in 0..SLEEPS {
        if !round.wants_more() || !cluster.is_up(Role::Client)? {
            break;
        }
        excused += sleep(&mut round.rng, &mut cluster)?;
        round.tally.faults += 1;
        job.look(&cluster)?;
    }
    let stale = last_sleep(round, &mut cluster, &mut job, excused)?;
    round.tally.faults += 1;
    // The woken worker has brought what it had, or was told to drop it: the next job needs it.
    another_job(&mut cluster, round)?;
    let again = excused + stale;
    job.judge(&cluster, Allowed { again, deaths: 0 }, &mut Tally::default())
}

/// Stops somebody for a while. Returns the executions that this excuses.
fn sleep(rng: &mut Rng, cluster: &mut Cluster) -> anyhow::Result<u64> {
    let who: &[Role] = match rng.between(0, 6) {
        0 => &[Role::Router],
        1 => &[Role::Client],
        2 | 3 => &[Role::Worker(0)],
        4 => &[Role::Worker(1)],
        _ => &[Role::Router, Role::Client, Role::Worker(0), Role::Worker(1)],
    };
    let long = rng.chance(40);
    // The margin below the grace is for the last word before the sleep, which may be a second old, and for a busy machine.
    let ms = if long { rng.between(3_200, 6_000) } else { rng.between(100, 1_500) };
    each(cluster, who, Signal::STOP)?;
    std::thread::sleep(Duration::from_millis(ms));
    each(cluster, who, Signal::CONT)?;
    let is_worker = matches!(who, [Role::Worker(_)]);
    Ok(if long && is_worker { held() } else { 0 })
}

fn each(cluster: &mut Cluster, who: &[Role], signal: Signal) -> anyhow::Result<()> {
    who.iter().try_for_each(|role| match cluster.is_up(*role)? {
        true => cluster.signal(*role, signal),
        false => Ok(()),
    })
}

fn held() -> u64 {
    u64::from(BATCH + DEPTH)
}

/// A worker sleeps until the others have done everything; then it wakes and tells what nobody needs any more.
fn last_sleep(round: &mut Round, cluster: &mut Cluster, job: &mut Job, excused: u64) -> anyhow::Result<u64> {
    let sleeper = Role::Worker(usize::from(round.rng.chance(50)));
    cluster.signal(sleeper, Signal::STOP)?;
    job.finish(cluster, Role::Client, PATIENCE)?;
    let again = excused + held();
    job.judge(cluster, Allowed { again, deaths: 0 }, &mut round.tally)?;
    cluster.signal(sleeper, Signal::CONT)?;
    Ok(held())
}

fn another_job(cluster: &mut Cluster, round: &mut Round) -> anyhow::Result<()> {
    let rows = Rows::make(&mut round.rng, "after", 60, 40);
    let mut job = Job::begin(cluster, "after", rows, Kind::Jsonl)?;
    cluster.start(Role::Client)?;
    job.finish(cluster, Role::Client, PATIENCE)?;
    job.judge(cluster, Allowed::default(), &mut round.tally)
}
