//! Jobs: what is durable of each, where its results stand, and its ready queue.
//!
//! Invariant: `submitted = ok + failed + open`, and `settled ≤ last_number`.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use sheaf_session::Micros;
use sheaf_task::{JobCounts, JobId, JobState, Key, RowId};

use super::event::{Lsn, PeerId};
use super::numbers::Numbers;
use super::queue::Ready;
use super::record::{JobNo, Opened};
use super::workers::ServiceNo;

/// A failed row that `failures` lists and `retry` runs again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FailedRow {
    pub(super) key: Key,
    pub(super) row: RowId,
    pub(super) finished: Lsn,
    pub(super) body: Lsn,
    pub(super) len: u32,
}

/// One job.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) spec: Opened,
    pub(super) service: ServiceNo,
    pub(super) records: JobRecords,
    pub(super) counts: JobCounts,
    pub(super) numbers: Numbers,
    pub(super) failed: BTreeMap<u64, FailedRow>,
    pub(super) ready: Ready,
    pub(super) client: Option<Client>,
}

/// Where the durable facts of a job are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct JobRecords {
    /// The first `Opened`: it comes before all that name the job.
    pub(super) first: Lsn,
    /// The last one.
    pub(super) opened: Lsn,
    pub(super) scanned: Option<Lsn>,
    pub(super) cancelled: Option<Lsn>,
    /// The last `Settled`: it has the counts as they were then.
    pub(super) settled: Lsn,
    /// The last record that changed the counts.
    pub(super) counted: Lsn,
}

/// The client that has a job open.
#[derive(Clone, Copy, Debug)]
pub(super) struct Client {
    pub(super) peer: PeerId,
    /// Delivered up to this number on this session.
    pub(super) sent: u64,
    /// Deliver messages that it has not committed.
    pub(super) unacked: u32,
    /// When progress was last signalled, and what.
    pub(super) signalled: (Micros, JobCounts),
}

impl Job {
    pub(super) fn state(&self) -> JobState {
        let done = self.counts.open == 0 && self.counts.settled == self.counts.last_number;
        match (self.records.cancelled, self.records.scanned) {
            (Some(_), _) => JobState::Cancelled,
            (None, Some(_)) if done => JobState::Done,
            (None, _) => JobState::Open,
        }
    }
}

/// Every job.
#[derive(Debug, Default)]
pub(super) struct Jobs {
    /// By number, from 1. `None`: its record is broken.
    all: Vec<Option<Job>>,
    by_id: BTreeMap<JobId, JobNo>,
    /// Jobs whose client may get something.
    pub(super) dirty: BTreeSet<JobNo>,
    /// Jobs that wait for their rate, by when it allows the next task.
    pub(super) rated: BTreeSet<(Micros, JobNo)>,
    /// Bodies that failed rows refer to.
    pub(super) failed_bodies: BTreeMap<Lsn, u32>,
    /// Per job with unsettled `Cached` rows: the oldest `Finished` that they may refer to, and the last of their numbers.
    pub(super) cached: BTreeMap<JobNo, (Lsn, u64)>,
    /// Walks over whole jobs that are under way.
    pub(super) walks: VecDeque<super::cancel::Walk>,
}

impl Jobs {
    pub(super) fn find(&self, id: JobId) -> Option<JobNo> {
        self.by_id.get(&id).copied()
    }

    pub(super) fn get(&self, no: JobNo) -> Option<&Job> {
        self.all.get((no.0 as usize).checked_sub(1)?)?.as_ref()
    }

    /// The job that a row or an applied record names: it was opened.
    #[expect(clippy::expect_used, reason = "records of unknown jobs are not applied")]
    pub(super) fn job(&self, no: JobNo) -> &Job {
        self.all[no.0 as usize - 1].as_ref().expect("a job that is named was opened")
    }

    #[expect(clippy::expect_used, reason = "records of unknown jobs are not applied")]
    pub(super) fn job_mut(&mut self, no: JobNo) -> &mut Job {
        self.all[no.0 as usize - 1].as_mut().expect("a job that is named was opened")
    }

    pub(super) fn next_no(&self) -> JobNo {
        JobNo(self.all.len() as u32 + 1)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Job> {
        self.all.iter().flatten()
    }

    /// Takes up an `Opened` record: a new job, or new options of a known one.
    pub(super) fn open(&mut self, lsn: Lsn, spec: &Opened, service: ServiceNo) {
        if let Some(no) = self.find(spec.job) {
            let job = self.job_mut(no);
            job.records.opened = lsn;
            job.spec = spec.clone();
            return;
        }
        self.by_id.insert(spec.job, spec.no);
        while self.all.len() < spec.no.0 as usize {
            self.all.push(None);
        }
        self.all[spec.no.0 as usize - 1] = Some(Job {
            spec: spec.clone(),
            service,
            records: JobRecords { first: lsn, opened: lsn, ..JobRecords::default() },
            counts: JobCounts::default(),
            numbers: Numbers::default(),
            failed: BTreeMap::new(),
            ready: Ready::default(),
            client: None,
        });
    }

    /// Lists a failed row; the oldest of the job leaves the list when it is full.
    pub(super) fn add_failed(&mut self, no: JobNo, number: u64, failed: FailedRow, max: u32) {
        *self.failed_bodies.entry(failed.body).or_default() += 1;
        self.job_mut(no).failed.insert(number, failed);
        if self.job(no).failed.len() > max as usize
            && let Some(oldest) = self.job(no).failed.keys().next().copied()
        {
            self.remove_failed(no, oldest);
        }
    }

    pub(super) fn remove_failed(&mut self, no: JobNo, number: u64) {
        let Some(failed) = self.job_mut(no).failed.remove(&number) else { return };
        if let Some(count) = self.failed_bodies.get_mut(&failed.body) {
            *count -= 1;
            if *count == 0 {
                self.failed_bodies.remove(&failed.body);
            }
        }
    }
}
