//! A cluster whose router's directory is taken away, damaged, and given back.
//!
//! It does not know what the damage is, nor what it excuses but executions again.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::Round;
use crate::check::Allowed;
use crate::cluster::{Cluster, PATIENCE, Role, Setup};
use crate::job::Job;
use crate::process::wait_until;
use crate::rows::Rows;
use crate::sink::Kind;
use crate::specimen::{Files, lay};

/// A cluster that has done a job, and can be made to do it again on a damaged copy of its router's directory.
pub(super) struct Patient {
    cluster: Cluster,
    rows: Rows,
    data: PathBuf,
    jobs: u64,
}

/// Rows of the job.
const ROWS: u64 = 400;

impl Patient {
    pub(super) fn make(round: &mut Round, row_bytes: usize, up: &[&str]) -> anyhow::Result<Self> {
        let up = up.iter().map(|word| (*word).to_owned()).collect();
        let setup = Setup { up, pause_ms: 0, grace: Duration::from_secs(60), ..round.setup() };
        let data = setup.data.clone();
        let rows = Rows::make(&mut round.rng, "patient", ROWS, row_bytes);
        let mut patient = Self { cluster: Cluster::new(setup, &mut round.rng)?, rows, data, jobs: 0 };
        patient.cluster.start_all()?;
        patient.do_job(round, 0)?;
        patient.cluster.kill_all()?;
        Ok(patient)
    }

    /// The router's directory.
    pub(super) fn data(&self) -> &Path {
        &self.data
    }

    /// Lays the files out as the router's directory, and has the same rows asked for by a job with a fresh sink: what the
    /// journal still answers must be right, and what it lost is run again.
    pub(super) fn go_on(&mut self, round: &mut Round, files: &Files) -> anyhow::Result<()> {
        lay(&self.data, files)?;
        self.cluster.start_all()?;
        self.do_job(round, ROWS * (self.jobs + 1))?;
        self.cluster.kill_all()
    }

    /// The router alone, on these files: whether it refuses them.
    pub(super) fn is_refused(&mut self, files: &Files) -> anyhow::Result<bool> {
        lay(&self.data, files)?;
        self.cluster.start(Role::Router)?;
        let router = self.cluster.process(Role::Router)?;
        let mut code = None;
        wait_until(Duration::from_secs(1), || {
            code = router.ended()?.and_then(|status| status.code());
            Ok(code.is_some())
        })?;
        self.cluster.kill_all()?;
        Ok(code.is_some_and(|code| code != 0))
    }

    fn do_job(&mut self, round: &mut Round, again: u64) -> anyhow::Result<()> {
        self.jobs += 1;
        let name = format!("job{}", self.jobs);
        let mut job = Job::begin(&mut self.cluster, &name, self.rows.clone(), Kind::Jsonl)?;
        self.cluster.start(Role::Client)?;
        job.finish(&mut self.cluster, Role::Client, PATIENCE)?;
        job.judge(&self.cluster, Allowed { again, deaths: 0 }, &mut round.tally)
    }
}
