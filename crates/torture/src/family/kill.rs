//! `kill -9` of router, workers, client and of all at once, at random moments and in the first moments of their lives.
//!
//! Three kinds of round: *cluster*, four processes and one job after another; *alone*, the one process of `sheaf run`;
//! *claim*, where what the router says it has acknowledged must be executed although its client never returns and the
//! rows are deleted. The grace is long, so only a killed worker excuses that a row is executed again.

use std::time::Duration;

use super::{Family, Round, lacks_nothing};
use crate::check::Allowed;
use crate::cluster::{Cluster, PATIENCE, Role, Setup};
use crate::job::Job;
use crate::rows::Rows;
use crate::seed::Rng;
use crate::sink::Kind;

pub(super) const FAMILY: Family = Family {
    name: "kill",
    about: "kill -9 of router, workers, client and of all at once, at random and during start-up, rotation, compaction and recovery",
    lacks: lacks_nothing,
    short: Duration::from_secs(30),
    round,
};

/// Kills of a round, before it is left to finish.
const KILLS: u64 = 60;

/// Rows of a job: about as many as are done between forty kills.
const ROWS: u64 = 1_200;

/// A task that saw so many deaths of its worker fails, with them as evidence.
pub(super) const DEATHS: u64 = 3;

/// A journal that is always being sealed and compacted: kills meet rotation, compaction, and recovery from many files.
pub(super) const SMALL: &[&str] = &["--segment-size", "64KiB", "--retention", "1s"];

fn round(round: &mut Round) -> anyhow::Result<()> {
    match round.rng.between(0, 10) {
        0..7 => cluster(round),
        7 => alone(round),
        _ => claim(round),
    }
}

fn setup(round: &mut Round) -> Setup {
    let pause_ms = *round.rng.pick(&[0, 2, 20, 60]);
    let up = if round.rng.chance(50) { SMALL } else { &[] };
    let up = up.iter().map(|word| (*word).to_owned()).collect();
    Setup { grace: Duration::from_secs(60), pause_ms, up, ..round.setup() }
}

/// Four processes are killed in turn and together while one job after another goes through.
fn cluster(round: &mut Round) -> anyhow::Result<()> {
    let setup = setup(round);
    let mut cluster = Cluster::new(setup, &mut round.rng)?;
    cluster.start_all()?;
    let mut job = begin_job(round, &mut cluster, 1)?;
    let mut reaper = Reaper::default();
    let (mut jobs, mut kills) = (1, 0);
    while kills < KILLS && round.wants_more() {
        if !cluster.is_up(Role::Client)? {
            end_job(round, &mut cluster, &mut job, &mut reaper)?;
            jobs += 1;
            job = begin_job(round, &mut cluster, jobs)?;
        }
        std::thread::sleep(pause(&mut round.rng));
        let victims = victims(&mut round.rng);
        reaper.kill_and_restart(&mut cluster, &victims)?;
        kills += 1;
        round.tally.faults += 1;
        if kills % 5 == 0 {
            job.look(&cluster)?;
        }
    }
    end_job(round, &mut cluster, &mut job, &mut reaper)
}

fn begin_job(round: &mut Round, cluster: &mut Cluster, number: u64) -> anyhow::Result<Job> {
    let name = format!("job{number}");
    let rows = Rows::make(&mut round.rng, &name, ROWS, 40);
    let sink = *round.rng.pick(&[Kind::Jsonl, Kind::Jsonl, Kind::Csv, Kind::Sqlite]);
    let job = Job::begin(cluster, &name, rows, sink)?;
    cluster.start(Role::Client)?;
    Ok(job)
}

fn end_job(round: &mut Round, cluster: &mut Cluster, job: &mut Job, reaper: &mut Reaper) -> anyhow::Result<()> {
    job.finish(cluster, Role::Client, PATIENCE)?;
    job.judge(cluster, reaper.allowed(cluster), &mut round.tally)?;
    // What a worker of the next job owes to earlier deaths is excused there: suspects of this one are all settled.
    reaper.worker_kills = 0;
    Ok(())
}

/// Half of the moments lie within the first moments of a life: start-up, recovery, reconnecting.
pub(super) fn pause(rng: &mut Rng) -> Duration {
    let ms = if rng.chance(40) { rng.between(0, 40) } else { rng.between(50, 300) };
    Duration::from_millis(ms)
}

fn victims(rng: &mut Rng) -> Vec<Role> {
    let worker = Role::Worker(usize::from(rng.chance(50)));
    match rng.between(0, 20) {
        0..6 => vec![Role::Router],
        6..10 => vec![worker],
        10..14 => vec![Role::Client],
        14 => vec![Role::Router, Role::Client],
        15 => vec![Role::Router, worker],
        16 => vec![Role::Worker(0), Role::Worker(1)],
        _ => vec![Role::Router, Role::Client, Role::Worker(0), Role::Worker(1)],
    }
}

/// Kills, and remembers what that excuses.
#[derive(Default)]
struct Reaper {
    worker_kills: u64,
}

impl Reaper {
    /// Kills all of them, then starts all of them at once.
    fn kill_and_restart(&mut self, cluster: &mut Cluster, victims: &[Role]) -> anyhow::Result<()> {
        for victim in victims {
            cluster.insist_alive(*victim)?;
            cluster.kill9(*victim)?;
        }
        self.worker_kills += victims.iter().filter(|role| matches!(role, Role::Worker(_) | Role::Alone)).count() as u64;
        victims.iter().try_for_each(|victim| cluster.start(*victim))
    }

    fn allowed(&self, cluster: &Cluster) -> Allowed {
        let deaths = if self.worker_kills > 0 { DEATHS } else { 0 };
        Allowed { again: self.worker_kills * u64::from(cluster.setup().batch), deaths }
    }
}

/// One process that is router, worker and client.
fn alone(round: &mut Round) -> anyhow::Result<()> {
    let setup = setup(round);
    let mut cluster = Cluster::new(setup, &mut round.rng)?;
    let rows = Rows::make(&mut round.rng, "alone", ROWS, 40);
    let sink = *round.rng.pick(&[Kind::Jsonl, Kind::Csv, Kind::Sqlite]);
    let mut job = Job::begin(&mut cluster, "alone", rows, sink)?;
    let mut reaper = Reaper::default();
    cluster.start(Role::Alone)?;
    let mut kills = 0;
    while kills < KILLS && round.wants_more() && cluster.is_up(Role::Alone)? {
        std::thread::sleep(pause(&mut round.rng));
        reaper.kill_and_restart(&mut cluster, &[Role::Alone])?;
        kills += 1;
        round.tally.faults += 1;
    }
    job.finish(&mut cluster, Role::Alone, PATIENCE)?;
    job.judge(&cluster, reaper.allowed(&cluster), &mut round.tally)
}

/// The rows that the router says it has are executed, though everything is killed, and rows and client are gone.
fn claim(round: &mut Round) -> anyhow::Result<()> {
    let setup = setup(round);
    let mut cluster = Cluster::new(setup, &mut round.rng)?;
    let rows = Rows::make(&mut round.rng, "claim", ROWS, 8_000);
    let mut job = Job::begin(&mut cluster, "claim", rows, Kind::Jsonl)?;
    cluster.start(Role::Router)?;
    cluster.wait_listening(PATIENCE)?;
    cluster.start(Role::Client)?;
    let claimed = first_claim(&cluster)?;
    cluster.kill_all()?;
    job.delete_rows(&cluster)?;
    cluster.start_all()?;
    let mut reaper = Reaper::default();
    for _ in 0..round.rng.between(2, 6) {
        std::thread::sleep(pause(&mut round.rng));
        let victims: Vec<Role> = victims(&mut round.rng).into_iter().filter(|role| *role != Role::Client).collect();
        reaper.kill_and_restart(&mut cluster, &victims)?;
        round.tally.faults += 1;
    }
    job.wait_executed(&cluster, claimed, PATIENCE)?;
    job.judge_claim(&cluster, claimed)?;
    job.restore_rows(&cluster)?;
    cluster.start(Role::Client)?;
    job.finish(&mut cluster, Role::Client, PATIENCE)?;
    job.judge(&cluster, reaper.allowed(&cluster), &mut round.tally)
}

/// Rows that the router says are acknowledged, as soon as it says so of any.
pub(super) fn first_claim(cluster: &Cluster) -> anyhow::Result<u64> {
    let mut claimed = 0;
    crate::process::wait_until(PATIENCE, || {
        if let Ok(info) = cluster.ask(&["job", "info", "last"]) {
            claimed = info["submitted"].as_u64().unwrap_or(0);
        }
        Ok(claimed > 0)
    })?;
    anyhow::ensure!(claimed > 0, "the router never said that it has a row");
    Ok(claimed)
}
