//! The router's k-th sync fails: it stops within a second, says why, tries no sync again, and what it acknowledged holds.
//!
//! That an acknowledgement left after the failure would show: the disk is cut as soon as the router is dead, so what was
//! not synced is gone, the client is killed, its rows are deleted, and what the router last said that it has must be
//! executed by its workers all the same.

use std::path::Path;
use std::process::{Child, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, ensure};

use super::{Family, Round};
use crate::check::Allowed;
use crate::cluster::{Cluster, PATIENCE, Role, Setup};
use crate::job::Job;
use crate::loopfs::{self, LoopFs};
use crate::rows::Rows;
use crate::sink::Kind;
use crate::strace;

pub(super) const FAMILY: Family = Family {
    name: "fsync",
    about: "EIO at the router's k-th sync, k = 1..200: it stops, and tries none again",
    lacks,
    short: Duration::from_secs(20),
    round,
};

/// The last k.
const K_MAX: u64 = 200;
/// Rows of a job, and more of them for each sync that must be reached. Workers take few at a time, so that not many
/// results share a sync.
const ROWS: u64 = 60;
const ROWS_PER_SYNC: u64 = 5;
/// Size of the disk.
const DISK_MIB: u64 = 64;
/// From the error to the end of the process.
const STOP_MAX: Duration = Duration::from_secs(1);
/// Between two looks at it.
const LOOK: Duration = Duration::from_millis(5);
/// Another thread may have been about to sync another file when the first one failed.
const RACE: Duration = Duration::from_millis(50);

fn lacks() -> Option<String> {
    let strace = (!loopfs::has_tool("strace")).then(|| "not installed: strace".to_owned());
    strace.or_else(loopfs::lacks)
}

/// Every k once, in an order of its own.
fn round(round: &mut Round) -> anyhow::Result<()> {
    let mut points: Vec<u64> = (1..=K_MAX).collect();
    for last in (1..points.len()).rev() {
        points.swap(last, usize::try_from(round.rng.between(0, last as u64 + 1))?);
    }
    for point in points {
        if !round.wants_more() {
            break;
        }
        fail_at(round, point).with_context(|| format!("at sync {point}"))?;
    }
    Ok(())
}

/// A fresh cluster for each point: only the first life of a router is traced.
fn fail_at(round: &mut Round, point: u64) -> anyhow::Result<()> {
    let ground = round.dir.join(format!("k{point}"));
    std::fs::create_dir_all(&ground)?;
    let mut disk = LoopFs::make(&round.dir, &format!("disk{point}"), DISK_MIB)?;
    let log = ground.join("strace.txt");
    let wrap = strace::failing_sync(point, &log);
    let data = disk.path().join("router");
    let dir_setup = Setup { dir: ground.clone(), out: ground.clone(), spools: ground.clone(), ..round.setup() };
    let setup = Setup { data, wrap, pause_ms: 1, batch: 1, depth: 1, grace: Duration::from_secs(60), ..dir_setup };
    let mut cluster = Cluster::new(setup, &mut round.rng)?;
    let rows = Rows::make(&mut round.rng, "fsync", ROWS + ROWS_PER_SYNC * point, 40);
    let mut job = Job::begin(&mut cluster, "fsync", rows, Kind::Jsonl)?;
    cluster.start_all()?;
    cluster.start(Role::Client)?;

    let claimed = watch_it_die(&mut cluster, &log)?;
    cluster.kill9(Role::Client)?;
    disk.cut()?;
    disk.power_on()?;
    round.tally.faults += 1;
    if claimed > 0 {
        job.delete_rows(&cluster)?;
    }
    cluster.wrap_router(Vec::new());
    cluster.start(Role::Router)?;
    job.wait_executed(&cluster, claimed, PATIENCE)?;
    job.judge_claim(&cluster, claimed)?;
    job.restore_rows(&cluster)?;
    cluster.start(Role::Client)?;
    job.finish(&mut cluster, Role::Client, PATIENCE)?;
    job.judge(&cluster, Allowed::default(), &mut round.tally)?;
    drop(cluster);
    disk.remove()?;
    std::fs::remove_dir_all(&ground).context("a point's directory")
}

/// Waits for the failure and judges how the router took it. Returns the last claim of what is acknowledged.
fn watch_it_die(cluster: &mut Cluster, log: &Path) -> anyhow::Result<u64> {
    let mut claims = Claims::default();
    let until = Instant::now() + PATIENCE;
    let status = loop {
        let status = cluster.process(Role::Router)?.ended()?;
        let failed_at = strace::read(log)?.iter().find(|sync| sync.failed).map(|sync| sync.at);
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?;
        let is_late = failed_at.is_some_and(|at| now > at + STOP_MAX);
        ensure!(!is_late, "the router did not stop within {} ms after its sync had failed", STOP_MAX.as_millis());
        if let Some(status) = status {
            break status;
        }
        let is_over = failed_at.is_none() && !cluster.is_up(Role::Client)?;
        ensure!(!is_over && Instant::now() < until, "the router never came to this sync");
        claims.look(cluster)?;
        sleep(LOOK);
    };
    claims.stop()?;
    let said = cluster.process(Role::Router)?.tail();
    ensure!(matches!(status.code(), Some(code) if code != 0), "the router ended with {status}:\n{said}");
    ensure!(said.contains("os error"), "the router does not say what the system told it:\n{said}");
    judge_syncs(&strace::read(log)?)?;
    Ok(claims.best)
}

/// What the router says that it has acknowledged, asked again and again without waiting for the answer: a question to a
/// router that dies is answered late.
#[derive(Default)]
struct Claims {
    asked: Option<Child>,
    best: u64,
}

impl Claims {
    fn look(&mut self, cluster: &Cluster) -> anyhow::Result<()> {
        let Some(mut asked) = self.asked.take() else {
            let mut question = cluster.question(&["job", "info", "last"]);
            self.asked = Some(question.stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?);
            return Ok(());
        };
        match asked.try_wait()? {
            None => self.asked = Some(asked),
            // Until there is a job, and when there is no router, the answer is an error.
            Some(status) if !status.success() => {}
            Some(_) => {
                let info: serde_json::Value = serde_json::from_slice(&asked.wait_with_output()?.stdout)?;
                self.best = self.best.max(info["submitted"].as_u64().unwrap_or(0));
            }
        }
        Ok(())
    }

    fn stop(&mut self) -> anyhow::Result<()> {
        if let Some(mut asked) = self.asked.take() {
            asked.kill()?;
            asked.wait()?;
        }
        Ok(())
    }
}

impl Drop for Claims {
    fn drop(&mut self) {
        if let Err(error) = self.stop() {
            eprintln!("torture: a question may still run: {error}");
        }
    }
}

fn judge_syncs(syncs: &[strace::Sync]) -> anyhow::Result<()> {
    let first = syncs.iter().position(|sync| sync.failed).context("no sync failed, and the router ended")?;
    let failed = &syncs[first];
    for later in &syncs[first + 1..] {
        ensure!(later.path != failed.path, "{} was synced again after its sync had failed", failed.path);
        ensure!(later.at <= failed.at + RACE, "{} was synced after the sync of {} failed", later.path, failed.path);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sync(ms: u64, path: &str, failed: bool) -> strace::Sync {
        strace::Sync { at: Duration::from_millis(ms), path: path.to_owned(), failed }
    }

    #[test]
    fn a_sync_that_is_tried_again_is_a_violation() {
        assert!(judge_syncs(&[sync(1, "a", false), sync(2, "a", true)]).is_ok());
        assert!(judge_syncs(&[sync(2, "a", true), sync(3, "b", false)]).is_ok());
        assert!(judge_syncs(&[sync(2, "a", true), sync(3, "a", false)]).is_err());
        assert!(judge_syncs(&[sync(2, "a", true), sync(900, "b", false)]).is_err());
        assert!(judge_syncs(&[sync(2, "a", false)]).is_err());
    }
}
