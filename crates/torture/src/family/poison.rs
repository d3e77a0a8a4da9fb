//! Programs that abort, hang, escape, write garbage, write without end, and kill what runs them.
//!
//! Every other row is answered, each poisonous one fails with evidence (or is answered, where its program only leaves
//! something behind), after at most three deaths; and nothing of an attempt is alive a second after its end.

use std::collections::BTreeMap;
use std::fs;
use std::time::{Duration, Instant};

use anyhow::ensure;

use super::{Family, Round, lacks_nothing};
use crate::check::{Allowed, Violation};
use crate::cluster::{Cluster, PATIENCE, Role, Setup};
use crate::job::{self, Job};
use crate::ledger::{Executions, Ledger};
use crate::process::wait_until;
use crate::program::bad::ESCAPED;
use crate::rows::Rows;
use crate::seed::Rng;
use crate::sink::{Kind, Landed};

pub(super) const FAMILY: Family = Family {
    name: "poison",
    about: "programs that abort, hang, escape, write garbage or without end, and kill their keeper and their worker",
    lacks: lacks_nothing,
    short: Duration::from_secs(1),
    round,
};

/// One way to misbehave, and how it must end.
struct Poison {
    word: &'static str,
    end: End,
    /// Executions at most, where nobody else kills what it runs in.
    executions: usize,
}

enum End {
    /// Answered in good form.
    Answered,
    /// Answered with these bytes, in base64.
    Bytes(&'static str),
    Failed {
        class: &'static str,
        deaths: Option<u64>,
    },
}

const RETRIES: usize = 2;

/// Deaths after which a task is given up.
const DEATHS: u64 = 3;

const POISONS: &[Poison] = &[
    Poison { word: "abort", end: End::Failed { class: "crashed", deaths: Some(DEATHS) }, executions: 3 },
    Poison { word: "hang", end: End::Failed { class: "timeout", deaths: None }, executions: 1 + RETRIES },
    Poison { word: "endless", end: End::Failed { class: "rejected", deaths: None }, executions: 1 },
    Poison { word: "errors", end: End::Failed { class: "timeout", deaths: None }, executions: 1 + RETRIES },
    Poison { word: "garbage", end: End::Bytes("//4A"), executions: 1 },
    Poison { word: "escape", end: End::Answered, executions: 1 },
    Poison { word: "hidden", end: End::Answered, executions: 1 },
    Poison { word: "escape-hang", end: End::Failed { class: "timeout", deaths: None }, executions: 1 + RETRIES },
    Poison { word: "kill-parent", end: End::Failed { class: "crashed", deaths: Some(DEATHS) }, executions: 3 },
    Poison { word: "kill-worker", end: End::Failed { class: "crashed", deaths: Some(DEATHS) }, executions: 3 },
];

/// Deaths that a task sees because of another: once beside a killer of keepers and once beside one of workers. From then
/// on it is a suspect, and alone.
const BESIDE: usize = 2;

/// Good rows for each poisonous one.
const GOOD: u64 = 30;

fn round(round: &mut Round) -> anyhow::Result<()> {
    let run = ["--timeout", "2s", "--retries", &RETRIES.to_string()].map(str::to_owned).to_vec();
    let setup = Setup { grace: Duration::from_secs(60), run, ..round.setup() };
    let mut cluster = Cluster::new(setup, &mut round.rng)?;
    cluster.start_all()?;
    let (rows, poisoned) = poisoned_rows(&mut round.rng);
    let mut job = Job::begin(&mut cluster, "poison", rows, Kind::Jsonl)?;
    cluster.start(Role::Client)?;
    let deaths = supervise(&mut cluster)?;
    job.finish(&mut cluster, Role::Client, PATIENCE)?;
    nothing_escaped(&cluster)?;
    round.tally.faults += poisoned.len() as u64;
    // Each death, of a worker or of a keeper, takes with it what else ran there.
    let killers = poisoned.values().filter(|poison| poison.word.starts_with("kill-")).count() as u64;
    let again = (poisoned.len() * RETRIES.max(2)) as u64 + killers * DEATHS * u64::from(cluster.setup().batch);
    let violations = job.violations(&cluster, Allowed { again, deaths: 0 }, &mut round.tally)?;
    let unexpected = |violation: &Violation| !row_of(violation).is_some_and(|row| poisoned.contains_key(&row));
    job::tell(violations.into_iter().filter(unexpected).collect())?;
    judge_poison(&cluster, &job, &poisoned)?;
    ensure!(deaths <= killers * DEATHS, "{deaths} workers died of {killers} tasks");
    Ok(())
}

/// Good rows with the poisonous ones scattered among them.
fn poisoned_rows(rng: &mut Rng) -> (Rows, BTreeMap<u64, &'static Poison>) {
    let count = POISONS.len() as u64 * GOOD;
    let mut places = BTreeMap::new();
    for poison in POISONS {
        // What hides its environment is known to its keeper alone: it comes well before those that kill keepers.
        let (first, last) = match poison.word {
            "hidden" => (1, count / 6),
            word if word.starts_with("kill-") => (count / 2, count),
            _ => (1, count),
        };
        let mut place = rng.between(first, last + 1);
        while places.contains_key(&place) {
            place = rng.between(first, last + 1);
        }
        places.insert(place, poison);
    }
    let mut rows = Rows::default();
    for number in 1..=count {
        let unique = rng.next();
        rows.push(match places.get(&number) {
            Some(poison) => format!("poison:{} {unique:016x}", poison.word),
            None => format!("good-{number}-{unique:016x}"),
        });
    }
    (rows, places)
}

/// Starts workers again that were killed, until the client has ended. Returns how many there were.
fn supervise(cluster: &mut Cluster) -> anyhow::Result<u64> {
    let mut deaths = 0;
    let workers = cluster.setup().workers;
    let ended = wait_until(PATIENCE, || {
        for worker in (0..workers).map(Role::Worker) {
            if !cluster.is_up(worker)? {
                cluster.start(worker)?;
                deaths += 1;
            }
        }
        Ok(!cluster.is_up(Role::Client)?)
    })?;
    ensure!(ended, "the job did not end within {} s", PATIENCE.as_secs());
    Ok(deaths)
}

/// A second after the last attempt's end nothing that escaped is alive.
fn nothing_escaped(cluster: &Cluster) -> anyhow::Result<()> {
    let text = fs::read_to_string(cluster.setup().dir.join(ESCAPED))?;
    let pids: Vec<&str> = text.lines().collect();
    ensure!(!pids.is_empty(), "nothing tried to escape");
    let alive = |pid: &&&str| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        line.starts_with(b"sleep") || line.starts_with(b"sh")
    };
    let started = Instant::now();
    let gone = wait_until(Duration::from_secs(1), || Ok(!pids.iter().any(|pid| alive(&pid))))?;
    let left: Vec<&&str> = pids.iter().filter(alive).collect();
    ensure!(gone, "alive {} ms after the last attempt: {left:?}", started.elapsed().as_millis());
    Ok(())
}

fn judge_poison(cluster: &Cluster, job: &Job, poisoned: &BTreeMap<u64, &'static Poison>) -> anyhow::Result<()> {
    let (ledger, digests) = (job.ledger(cluster)?, job.rows.digests());
    for found in job.sink_now(cluster)? {
        let Some(poison) = poisoned.get(&found.row) else { continue };
        let (word, digest) = (poison.word, digests[&found.row]);
        ensure!(ends_well(&poison.end, &found.result, digest), "poison {word}, row {}: {:?}", found.row, found.result);
        let begun = begun(&ledger, digest);
        ensure!(begun <= poison.executions + BESIDE, "poison {word}, row {}: executed {begun} times", found.row);
    }
    Ok(())
}

fn begun(ledger: &Ledger, digest: &str) -> usize {
    ledger.get(digest).map_or(0, |Executions { begun, .. }| begun.len())
}

fn ends_well(end: &End, result: &Landed, digest: &str) -> bool {
    match (end, result) {
        (End::Answered, Landed::Ok(output)) => output.starts_with(digest),
        (End::Bytes(expected), Landed::Bytes(base64)) => base64 == expected,
        (End::Failed { class: expected, deaths: wanted }, Landed::Failed { class, deaths }) => {
            class == expected && wanted.is_none_or(|wanted| *deaths == Some(wanted))
        }
        (End::Answered | End::Bytes(_) | End::Failed { .. }, _) => false,
    }
}

/// The row of a violation that concerns how one row ended. What is lost, doubled or replaced has no excuse.
fn row_of(violation: &Violation) -> Option<u64> {
    match violation {
        Violation::Wrong { row, .. } | Violation::Unproved { row, .. } | Violation::Failed { row, .. } => Some(*row),
        Violation::Lost { .. }
        | Violation::Duplicate { .. }
        | Violation::Stranger { .. }
        | Violation::Replaced { .. }
        | Violation::Again { .. }
        | Violation::Unkept { .. } => None,
    }
}
