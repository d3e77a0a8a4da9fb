//! Disks that are full: the router's, a worker's, the sink's. Ballast takes the last block at a random moment.
//!
//! While the router's disk is full it takes no new rows, and everything else goes on: questions are answered, results
//! reach the sink, a job can be cancelled, it ends when asked to. Within ten seconds after the ballast is gone it takes rows
//! again.

use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::ensure;
use rustix::process::Signal;

use super::{Family, Round};
use crate::check::Allowed;
use crate::cluster::{Cluster, PATIENCE, Role, Setup};
use crate::job::Job;
use crate::loopfs::{self, LoopFs};
use crate::process::wait_until;
use crate::rows::Rows;
use crate::sink::Kind;

pub(super) const FAMILY: Family = Family {
    name: "full",
    about: "full disks: the router's, a worker's, the sink's, at random moments",
    lacks: loopfs::lacks,
    short: Duration::from_secs(25),
    round,
};

/// Rows of the job that is watched.
const ROWS: u64 = 2_000;
/// Rows of a job that fills the disk by itself: more than there is room for.
const FLOW_ROWS: u64 = 8_000;
/// The most room that it is left.
const FLOW_ROOM_MAX: u64 = 64 << 20;
/// Bytes of each. Together they are more than the router's reserve of 8 MiB, which takes what is on its way when the disk
/// fills: a router that lets too much of it be on its way answers and delivers nothing until there is room.
const ROW_BYTES: usize = 10_000;
/// Size of the disk.
const DISK_MIB: u64 = 160;
/// Room returns: rows are taken again within so long.
const RESUME_MAX: Duration = Duration::from_secs(10);
/// What was taken in on a full disk is worked off within so long.
const SERVED_MAX: Duration = Duration::from_secs(60);
/// A router that is asked to end does, full disk or not.
const STOP_MAX: Duration = Duration::from_secs(15);
/// Times that one job's disk is filled.
const FILLS: u64 = 4;

fn round(round: &mut Round) -> anyhow::Result<()> {
    let disk = LoopFs::make(&round.dir, "disk", DISK_MIB)?;
    match round.rng.between(0, 14) {
        0..5 => router(round, &disk),
        5 => cancel(round, &disk),
        6 => stop(round, &disk),
        7..10 => flow(round, &disk),
        10..12 => beside(round, &disk, Role::Client),
        _ => beside(round, &disk, Role::Worker(0)),
    }
}

/// What the outside sees of a job.
#[derive(Clone, Copy, Debug)]
struct Seen {
    submitted: u64,
    landed: u64,
}

fn see(cluster: &Cluster, job: &mut Job) -> anyhow::Result<Seen> {
    let info = cluster.ask(&["job", "info", "last"])?;
    Ok(Seen { submitted: info["submitted"].as_u64().unwrap_or(0), landed: job.look(cluster)? })
}

/// A router on a disk that can be filled, and workers elsewhere.
fn cluster_on(round: &mut Round, disk: &LoopFs) -> anyhow::Result<Cluster> {
    let setup = Setup { data: disk.path().join("router"), grace: Duration::from_secs(60), ..round.setup() };
    let mut cluster = Cluster::new(setup, &mut round.rng)?;
    cluster.start_all()?;
    cluster.wait_listening(PATIENCE)?;
    Ok(cluster)
}

/// What is seen once nothing more is taken in that was on its way when the disk filled.
fn settled(cluster: &Cluster, job: &mut Job) -> anyhow::Result<Seen> {
    let mut seen = see(cluster, job)?;
    let is_settled = wait_until(RESUME_MAX, || {
        sleep(Duration::from_millis(200));
        let before = std::mem::replace(&mut seen, see(cluster, job)?);
        Ok(before.submitted == seen.submitted)
    })?;
    ensure!(is_settled, "rows are taken on a full disk: {seen:?}");
    Ok(seen)
}

/// A job of long rows there, its client running.
fn begin(round: &mut Round, disk: &LoopFs) -> anyhow::Result<(Cluster, Job)> {
    let mut cluster = cluster_on(round, disk)?;
    let rows = Rows::make(&mut round.rng, "full", ROWS, ROW_BYTES);
    let job = Job::begin(&mut cluster, "full", rows, Kind::Jsonl)?;
    cluster.start(Role::Client)?;
    Ok((cluster, job))
}

fn router(round: &mut Round, disk: &LoopFs) -> anyhow::Result<()> {
    let (mut cluster, mut job) = begin(round, disk)?;
    for _ in 0..FILLS {
        if !round.wants_more() || !cluster.is_up(Role::Client)? {
            break;
        }
        sleep(Duration::from_millis(round.rng.between(0, 250)));
        one_fill(round, &mut cluster, disk, &mut job)?;
    }
    job.finish(&mut cluster, Role::Client, PATIENCE)?;
    job.judge(&cluster, Allowed::default(), &mut round.tally)
}

/// The disk fills by the rows themselves, in full flow: the router has more of them on their way than at any other moment.
fn flow(round: &mut Round, disk: &LoopFs) -> anyhow::Result<()> {
    let mut cluster = cluster_on(round, disk)?;
    let rows = Rows::make(&mut round.rng, "full", FLOW_ROWS, ROW_BYTES);
    disk.fill_but(round.rng.between(10 << 20, FLOW_ROOM_MAX))?;
    round.tally.faults += 1;
    let mut job = Job::begin(&mut cluster, "full", rows, Kind::Jsonl)?;
    cluster.start(Role::Client)?;
    sleep(Duration::from_millis(round.rng.between(500, 1_500)));
    still_serves(&mut cluster, &mut job)?;
    disk.empty()?;
    job.finish(&mut cluster, Role::Client, PATIENCE)?;
    job.judge(&cluster, Allowed::default(), &mut round.tally)
}

/// Whatever was taken in is worked off, and questions are answered.
fn still_serves(cluster: &mut Cluster, job: &mut Job) -> anyhow::Result<()> {
    let mut before = Seen { submitted: 0, landed: 0 };
    let served = wait_until(SERVED_MAX, || {
        sleep(Duration::from_millis(300));
        let Ok(now) = see(cluster, job) else { return Ok(false) };
        let is_still = now.submitted == before.submitted;
        before = now;
        Ok(is_still && now.submitted > 0 && now.submitted == now.landed)
    })?;
    cluster.insist_alive(Role::Router)?;
    ensure!(served, "not all that was taken in has its result on a full disk: {before:?}");
    ensure!(before.submitted < FLOW_ROWS, "the disk did not fill: {before:?}");
    Ok(())
}

/// A job is cancelled while the disk is full; when there is room again, another is done to its end.
fn cancel(round: &mut Round, disk: &LoopFs) -> anyhow::Result<()> {
    let (mut cluster, mut job) = begin(round, disk)?;
    wait_until(PATIENCE, || Ok(cluster.ask(&["job", "info", "last"]).is_ok()))?;
    disk.fill()?;
    round.tally.faults += 1;
    sleep(Duration::from_millis(round.rng.between(0, 300)));
    cluster.question(&["job", "cancel", "last"]).status()?;
    // The command may have been early or late; that it was done shows in that nothing begins any more.
    let status = cluster.process(Role::Client)?.wait(PATIENCE)?;
    sleep(Duration::from_millis(300));
    let ran = job.executed(&cluster)?;
    sleep(Duration::from_millis(300));
    ensure!(job.executed(&cluster)? == ran, "tasks run on after a cancel on a full disk");
    ensure!(ran < ROWS, "the job was over before it was cancelled");
    ensure!(status.code() != Some(0), "the client of a cancelled job ended as if it were complete");
    job.look(&cluster)?;
    disk.empty()?;
    let rows = Rows::make(&mut round.rng, "after", ROWS / 10, 200);
    let mut after = Job::begin(&mut cluster, "after", rows, Kind::Jsonl)?;
    cluster.start(Role::Client)?;
    after.finish(&mut cluster, Role::Client, PATIENCE)?;
    after.judge(&cluster, Allowed::default(), &mut round.tally)
}

/// The router is stopped while the disk is full, by a signal or by an operator, and started again: at once, or when there
/// is room.
fn stop(round: &mut Round, disk: &LoopFs) -> anyhow::Result<()> {
    let (mut cluster, mut job) = begin(round, disk)?;
    wait_until(PATIENCE, || Ok(cluster.ask(&["job", "info", "last"]).is_ok()))?;
    sleep(Duration::from_millis(round.rng.between(0, 300)));
    disk.fill()?;
    round.tally.faults += 1;
    sleep(Duration::from_millis(round.rng.between(0, 300)));
    if round.rng.chance(50) {
        cluster.signal(Role::Router, Signal::TERM)?;
    } else {
        cluster.question(&["shutdown"]).status()?;
    }
    let status = cluster.process(Role::Router)?.wait(STOP_MAX)?;
    ensure!(status.success(), "the reserve had room, and yet the router did not end as it should: {status}");
    let is_empty_before = round.rng.chance(50);
    if is_empty_before {
        disk.empty()?;
    }
    cluster.start(Role::Router)?;
    if !is_empty_before {
        sleep(Duration::from_millis(round.rng.between(0, 1_000)));
        disk.empty()?;
        // With its reserve used up it cannot write that it begins anew, says so and ends.
        sleep(Duration::from_millis(500));
        if !cluster.is_up(Role::Router)? {
            cluster.start(Role::Router)?;
        }
    }
    cluster.wait_listening(PATIENCE)?;
    job.finish(&mut cluster, Role::Client, PATIENCE)?;
    job.judge(&cluster, Allowed::default(), &mut round.tally)
}

fn one_fill(round: &mut Round, cluster: &mut Cluster, disk: &LoopFs, job: &mut Job) -> anyhow::Result<()> {
    disk.fill()?;
    round.tally.faults += 1;
    sleep(Duration::from_millis(300));
    cluster.insist_alive(Role::Router)?;
    // The client may not have come to its first row yet: then there is no job to ask for.
    if let Ok(early) = settled(cluster, job) {
        sleep(Duration::from_millis(round.rng.between(200, 800)));
        let late = see(cluster, job)?;
        cluster.insist_alive(Role::Router)?;
        let is_open = late.landed < early.submitted;
        ensure!(!is_open || late.landed > early.landed, "no result came while the disk was full: {early:?}, {late:?}");
        ensure!(late.submitted == early.submitted, "rows were taken on a full disk: {early:?}, {late:?}");
        disk.empty()?;
        let emptied = Instant::now();
        if late.submitted < ROWS {
            let goes_on = || Ok(see(cluster, job)?.submitted > late.submitted);
            let resumed = wait_until(RESUME_MAX, goes_on)?;
            ensure!(resumed, "no row was taken within {} s after room came back: {late:?}", RESUME_MAX.as_secs());
            println!("torture full: rows are taken {} ms after room came back", emptied.elapsed().as_millis());
        }
        return Ok(());
    }
    disk.empty()
}

/// The sink's or a spool's disk: whoever it belongs to may end and be started again when there is room.
fn beside(round: &mut Round, disk: &LoopFs, owner: Role) -> anyhow::Result<()> {
    let ground = disk.path().to_owned();
    let base = Setup { grace: Duration::from_secs(60), ..round.setup() };
    let setup = if owner == Role::Client { Setup { out: ground, ..base } } else { Setup { spools: ground, ..base } };
    let mut cluster = Cluster::new(setup, &mut round.rng)?;
    let rows = Rows::make(&mut round.rng, "beside", ROWS / 2, 200);
    let sink = *round.rng.pick(&[Kind::Jsonl, Kind::Csv, Kind::Sqlite]);
    cluster.start_all()?;
    let mut job = Job::begin(&mut cluster, "beside", rows, sink)?;
    cluster.start(Role::Client)?;
    let mut again = 0;
    for _ in 0..FILLS {
        if !round.wants_more() || !cluster.is_up(Role::Client)? {
            break;
        }
        sleep(Duration::from_millis(round.rng.between(0, 250)));
        disk.fill()?;
        round.tally.faults += 1;
        sleep(Duration::from_millis(round.rng.between(100, 1_500)));
        disk.empty()?;
        if !cluster.is_up(owner)? {
            // A worker that could not begin its spool has nothing; any other gives up at most what it runs.
            again += u64::from(cluster.setup().batch + cluster.setup().depth);
            cluster.start(owner)?;
        }
    }
    job.finish(&mut cluster, Role::Client, PATIENCE)?;
    job.judge(&cluster, Allowed { again, deaths: 0 }, &mut round.tally)
}
