//! `kill -9` of router, workers, client and of all at once, at random moments and in the first moments of their lives.

use std::time::Duration;

use super::{Family, Round, lacks_nothing};
use crate::check::Allowed;
use crate::cluster::{Cluster, PATIENCE, Role};
use crate::job::Job;
use crate::rows::Rows;
use crate::sink::Kind;

pub(super) const FAMILY: Family = Family {
    name: "kill",
    about: "kill -9 of router, workers, client and of all at once, at random and during start-up",
    lacks: lacks_nothing,
    short: Duration::from_secs(30),
    round,
};

fn round(round: &mut Round) -> anyhow::Result<()> {
    let setup = round.setup();
    let mut cluster = Cluster::new(setup, &mut round.rng)?;
    cluster.start_all()?;
    let rows = Rows::make(&mut round.rng, "job", 1_000, 40);
    let mut job = Job::begin(&mut cluster, "job", rows, Kind::Jsonl)?;
    cluster.start(Role::Client)?;
    job.finish(&mut cluster, Role::Client, PATIENCE)?;
    job.judge(&cluster, Allowed::default(), &mut round.tally)
}
