//! One job of a round, seen from outside: its rows, what its sink showed so far, and the judgement at its end.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, bail, ensure};

use crate::check::{self, Allowed, Violation};
use crate::cluster::{Cluster, JobFiles, Role, ledger_path, sink_path};
use crate::ledger::{self, Ledger};
use crate::process::wait_until;
use crate::report::Tally;
use crate::rows::Rows;
use crate::sink::{self, Kind, Landed, SinkRow};

/// A job, its rows written to `NAME.txt`.
pub(crate) struct Job {
    pub files: JobFiles,
    pub rows: Rows,
    /// Whatever stood in the sink when it was looked at. A line may be taken back by a client that returns, as long as
    /// the same result comes again: the sink had not been committed.
    seen: BTreeMap<u64, Landed>,
}

/// Violations that are told one by one. More: their number.
const TOLD_MAX: usize = 12;

impl Job {
    /// Writes the rows and makes this the client's job.
    pub(crate) fn begin(cluster: &mut Cluster, name: &str, rows: Rows, sink: Kind) -> anyhow::Result<Self> {
        let files = JobFiles { name: name.to_owned(), sink };
        rows.write(&cluster.setup().dir.join(format!("{name}.txt")))?;
        cluster.set_job(files.clone());
        Ok(Self { files, rows, seen: BTreeMap::new() })
    }

    /// Deletes the rows: from now on they are where they were acknowledged, or nowhere.
    pub(crate) fn delete_rows(&self, cluster: &Cluster) -> anyhow::Result<()> {
        std::fs::remove_file(cluster.setup().dir.join(format!("{}.txt", self.files.name))).context("rows")
    }

    /// Writes them again.
    pub(crate) fn restore_rows(&self, cluster: &Cluster) -> anyhow::Result<()> {
        self.rows.write(&cluster.setup().dir.join(format!("{}.txt", self.files.name)))
    }

    /// Everything that was executed in this cluster.
    pub(crate) fn ledger(&self, cluster: &Cluster) -> anyhow::Result<Ledger> {
        ledger::read(&ledger_path(&cluster.setup().dir))
    }

    /// Rows executed so far.
    pub(crate) fn executed(&self, cluster: &Cluster) -> anyhow::Result<u64> {
        Ok(check::executed(&self.rows, &self.ledger(cluster)?))
    }

    /// Waits until so many rows were executed. Says whether they were.
    pub(crate) fn wait_executed(&self, cluster: &Cluster, rows: u64, patience: Duration) -> anyhow::Result<bool> {
        wait_until(patience, || Ok(self.executed(cluster)? >= rows))
    }

    /// Looks at the sink, perhaps while somebody writes: no result may be another than it was. Returns its rows.
    ///
    /// # Errors
    /// When a result was replaced.
    pub(crate) fn look(&mut self, cluster: &Cluster) -> anyhow::Result<u64> {
        let now = self.sink_now(cluster)?;
        tell(check::replaced(&self.seen, &now))?;
        let count = now.len() as u64;
        self.seen.extend(now.into_iter().map(|found| (found.row, found.result)));
        Ok(count)
    }

    /// What stands in the sink.
    pub(crate) fn sink_now(&self, cluster: &Cluster) -> anyhow::Result<Vec<SinkRow>> {
        sink::read(self.files.sink, &sink_path(&cluster.setup().out, &self.files))
    }

    /// Waits for the client's end: all rows are answered, failed ones among them where `allowed` says so.
    pub(crate) fn finish(&mut self, cluster: &mut Cluster, role: Role, patience: Duration) -> anyhow::Result<()> {
        let process = cluster.process(role)?;
        let status = process.wait(patience)?;
        let code = status.code();
        ensure!(matches!(code, Some(0 | 3)), "the client ended with {status}; its log ends:\n{}", process.tail());
        Ok(())
    }

    /// Judges the sink, which should be complete now, and counts.
    ///
    /// # Errors
    /// When anything was lost, doubled, replaced, wrong, or done again without an excuse.
    pub(crate) fn judge(&mut self, cluster: &Cluster, allowed: Allowed, tally: &mut Tally) -> anyhow::Result<()> {
        tell(self.violations(cluster, allowed, tally)?)
    }

    /// What [`Job::judge`] would say, for a family that expects some of it.
    pub(crate) fn violations(
        &mut self,
        cluster: &Cluster,
        allowed: Allowed,
        tally: &mut Tally,
    ) -> anyhow::Result<Vec<Violation>> {
        self.look(cluster)?;
        cluster.insist_no_panic()?;
        let (ledger, sink) = (self.ledger(cluster)?, self.sink_now(cluster)?);
        tally.rows += self.rows.count();
        tally.again += check::extra_executions(&self.rows, &ledger);
        tally.failed += sink.iter().filter(|found| matches!(found.result, Landed::Failed { .. })).count() as u64;
        Ok(check::complete(&self.rows, &ledger, &sink, allowed))
    }

    /// Judges a claim of the router that so many rows are acknowledged.
    ///
    /// # Errors
    /// When fewer were executed.
    pub(crate) fn judge_claim(&self, cluster: &Cluster, acknowledged: u64) -> anyhow::Result<()> {
        tell(check::kept(acknowledged, &self.rows, &self.ledger(cluster)?).into_iter().collect())
    }
}

/// Makes an error of violations.
pub(crate) fn tell(violations: Vec<Violation>) -> anyhow::Result<()> {
    if violations.is_empty() {
        return Ok(());
    }
    let told: Vec<String> = violations.iter().take(TOLD_MAX).map(Violation::to_string).collect();
    bail!("{} violations:\n{}", violations.len(), told.join("\n"))
}
