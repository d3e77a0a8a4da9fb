//! Power cuts: the file system under the router, or under router, spools and sink, forgets whatever was not synced.
//!
//! Three kinds of round: *router*, whose disk alone is cut while workers and client live on; *all*, where everything that
//! any process keeps is on the disk that is cut; *claim*, where what the router says it has acknowledged must be executed
//! although its disk was cut right after it said so, and the rows are gone.

use std::thread::sleep;
use std::time::Duration;

use super::kill::{DEATHS, SMALL, first_claim, pause};
use super::{Family, Round};
use crate::check::Allowed;
use crate::cluster::{Cluster, PATIENCE, Role, Setup};
use crate::job::Job;
use crate::loopfs::{self, LoopFs};
use crate::rows::Rows;
use crate::sink::Kind;

pub(super) const FAMILY: Family = Family {
    name: "power",
    about: "power cuts of a loop-mounted ext4 under the router, and under everything",
    lacks: loopfs::lacks,
    short: Duration::from_secs(20),
    round,
};

/// Cuts of a round, before it is left to finish.
const CUTS: u64 = 20;
/// Rows of a job.
const ROWS: u64 = 600;
/// Size of the disk.
const DISK_MIB: u64 = 128;

fn round(round: &mut Round) -> anyhow::Result<()> {
    let mut disk = LoopFs::make(&round.dir, "disk", DISK_MIB)?;
    match round.rng.between(0, 10) {
        0..4 => router(round, &mut disk),
        4..7 => all(round, &mut disk),
        _ => claim(round, &mut disk),
    }
}

fn setup(round: &mut Round, disk: &LoopFs) -> Setup {
    let up = if round.rng.chance(50) { SMALL } else { &[] };
    let pause_ms = *round.rng.pick(&[0, 5, 40]);
    let up = up.iter().map(|word| (*word).to_owned()).collect();
    Setup { data: disk.path().join("router"), grace: Duration::from_secs(60), pause_ms, up, ..round.setup() }
}

/// Kills, then cuts. Not the other way round where anybody outside lives on: a sync that is under way while the ioctl
/// comes may be told success and be lost (a program of ten lines without Sheaf sees that in 20 of 150 cuts), which no
/// power cut does, since nobody hears of it then.
fn cut(round: &mut Round, cluster: &mut Cluster, disk: &mut LoopFs, roles: &[Role]) -> anyhow::Result<()> {
    roles.iter().try_for_each(|role| cluster.kill9(*role))?;
    disk.cut()?;
    disk.power_on()?;
    round.tally.faults += 1;
    Ok(())
}

/// Cuts, then kills: everything that is kept is on this disk, so what was falsely said to be durable is heard by nobody
/// who remembers it. Writes and syncs are cut in their middle, and the processes see that for a moment.
fn cut_alive(round: &mut Round, cluster: &mut Cluster, disk: &mut LoopFs) -> anyhow::Result<()> {
    disk.cut()?;
    sleep(Duration::from_millis(round.rng.between(0, 30)));
    EVERYBODY.iter().try_for_each(|role| cluster.kill9(*role))?;
    disk.power_on()?;
    round.tally.faults += 1;
    Ok(())
}

fn router(round: &mut Round, disk: &mut LoopFs) -> anyhow::Result<()> {
    let mut cluster = Cluster::new(setup(round, disk), &mut round.rng)?;
    cluster.start_all()?;
    let rows = Rows::make(&mut round.rng, "router", ROWS, 40);
    let sink = *round.rng.pick(&[Kind::Jsonl, Kind::Csv, Kind::Sqlite]);
    let mut job = Job::begin(&mut cluster, "router", rows, sink)?;
    cluster.start(Role::Client)?;
    for _ in 0..CUTS {
        if !round.wants_more() || !cluster.is_up(Role::Client)? {
            break;
        }
        sleep(pause(&mut round.rng));
        cluster.insist_alive(Role::Router)?;
        cut(round, &mut cluster, disk, &[Role::Router])?;
        cluster.start(Role::Router)?;
        job.look(&cluster)?;
    }
    job.finish(&mut cluster, Role::Client, PATIENCE)?;
    job.judge(&cluster, Allowed::default(), &mut round.tally)
}

const EVERYBODY: &[Role] = &[Role::Client, Role::Worker(0), Role::Worker(1), Role::Router];

/// A spool is synced a second after a result came into it, and lives are shorter here: a cut excuses once more whatever
/// began in the life that it ended.
fn all(round: &mut Round, disk: &mut LoopFs) -> anyhow::Result<()> {
    let ground = disk.path().to_owned();
    let setup = Setup { spools: ground.clone(), out: ground, ..setup(round, disk) };
    let mut cluster = Cluster::new(setup, &mut round.rng)?;
    cluster.start_all()?;
    let rows = Rows::make(&mut round.rng, "all", ROWS, 40);
    let sink = *round.rng.pick(&[Kind::Jsonl, Kind::Csv, Kind::Sqlite]);
    let mut job = Job::begin(&mut cluster, "all", rows, sink)?;
    cluster.start(Role::Client)?;
    let (mut cuts, mut excused, mut begun_before) = (0, 0, 0);
    while cuts < CUTS && round.wants_more() && cluster.is_up(Role::Client)? {
        sleep(pause(&mut round.rng));
        if round.rng.chance(50) {
            cut_alive(round, &mut cluster, disk)?;
        } else {
            cut(round, &mut cluster, disk, EVERYBODY)?;
        }
        cuts += 1;
        let begun = job.ledger(&cluster)?.values().map(|of| of.begun.len() as u64).sum();
        excused += begun - begun_before;
        begun_before = begun;
        EVERYBODY.iter().try_for_each(|role| cluster.start(*role))?;
        job.look(&cluster)?;
    }
    job.finish(&mut cluster, Role::Client, PATIENCE)?;
    let deaths = if cuts > 0 { DEATHS } else { 0 };
    job.judge(&cluster, Allowed { again: excused, deaths }, &mut round.tally)
}

fn claim(round: &mut Round, disk: &mut LoopFs) -> anyhow::Result<()> {
    let mut cluster = Cluster::new(setup(round, disk), &mut round.rng)?;
    let rows = Rows::make(&mut round.rng, "claim", ROWS, 4_000);
    let mut job = Job::begin(&mut cluster, "claim", rows, Kind::Jsonl)?;
    cluster.start(Role::Router)?;
    cluster.wait_listening(PATIENCE)?;
    cluster.start(Role::Client)?;
    let claimed = first_claim(&cluster)?;
    cut(round, &mut cluster, disk, &[Role::Client, Role::Router])?;
    job.delete_rows(&cluster)?;
    cluster.start_all()?;
    for _ in 0..round.rng.between(2, 10) {
        sleep(pause(&mut round.rng));
        cut(round, &mut cluster, disk, &[Role::Router])?;
        cluster.start(Role::Router)?;
    }
    job.wait_executed(&cluster, claimed, PATIENCE)?;
    job.judge_claim(&cluster, claimed)?;
    job.restore_rows(&cluster)?;
    cluster.start(Role::Client)?;
    job.finish(&mut cluster, Role::Client, PATIENCE)?;
    job.judge(&cluster, Allowed::default(), &mut round.tally)
}
