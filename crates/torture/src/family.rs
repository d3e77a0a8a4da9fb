//! The families of faults, and what each round of one is given.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::cluster::Setup;
use crate::report::Tally;
use crate::seed::Rng;

mod all;
mod fsync;
mod full;
mod kill;
pub(crate) mod net;
mod patient;
mod poison;
mod power;
mod rot;
mod stop;
mod tail;

/// One family of faults.
pub(crate) struct Family {
    /// Its name on the command line.
    pub name: &'static str,
    /// What it does, in a line.
    pub about: &'static str,
    /// What this machine lacks for it: then it is skipped, loudly.
    pub lacks: fn() -> Option<String>,
    /// How long a short run goes on.
    pub short: Duration,
    /// One round: a fresh cluster, faults, judgement. Counts into the round's tally.
    pub round: fn(&mut Round) -> anyhow::Result<()>,
}

/// Every family, in the order in which they run.
pub(crate) const FAMILIES: &[Family] = &[
    kill::FAMILY,
    stop::FAMILY,
    poison::FAMILY,
    net::FAMILY,
    all::FAMILY,
    power::FAMILY,
    fsync::FAMILY,
    full::FAMILY,
    tail::FAMILY,
    rot::FAMILY,
];

/// For families that need nothing.
pub(crate) fn lacks_nothing() -> Option<String> {
    None
}

/// What a round is given.
pub(crate) struct Round {
    /// The round's own generator, begun from its seed: the plan of a round depends on nothing else.
    pub rng: Rng,
    /// An empty directory, kept if the round fails.
    pub dir: PathBuf,
    /// The `sheaf` binary.
    pub sheaf: PathBuf,
    /// This binary.
    pub torture: PathBuf,
    /// When the family's time is over; a round that has begun may take somewhat longer.
    pub until: Instant,
    /// Faults that are still wanted.
    pub faults_left: u64,
    /// What is counted.
    pub tally: Tally,
}

impl Round {
    /// A cluster for quick tasks: two workers with four executions each. Families change what they need.
    pub(crate) fn setup(&self) -> Setup {
        Setup {
            sheaf: self.sheaf.clone(),
            torture: self.torture.clone(),
            dir: self.dir.clone(),
            data: self.dir.join("router"),
            out: self.dir.clone(),
            spools: self.dir.clone(),
            wrap: Vec::new(),
            workers: 2,
            batch: 4,
            depth: 4,
            pause_ms: 5,
            grace: Duration::from_secs(3),
            chaos: None,
            doors: false,
            up: Vec::new(),
            run: Vec::new(),
        }
    }

    /// Whether more faults are wanted now.
    pub(crate) fn wants_more(&self) -> bool {
        self.tally.faults < self.faults_left && Instant::now() < self.until
    }
}
