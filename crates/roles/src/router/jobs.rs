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
    /// A `Submit` on its way may rest on this cursor: of rows with results after it, it asks again. Zero until the first
    /// one tells: what the client goes on with may be older than what the job is opened with.
    pub(super) cursor: u64,
    /// Pieces of answers are passed on to it.
    pub(super) watches: bool,
}

impl Job {
    /// Nothing of it is open, and the sink has every result.
    pub(super) fn is_settled(&self) -> bool {
        self.counts.open == 0 && self.counts.settled == self.counts.last_number
    }

    /// Nothing is open or unsettled, and its rows are all known or it is cancelled.
    fn is_over(&self) -> bool {
        self.is_settled() && self.state() != JobState::Open
    }

    /// Results after this number are in use: the sink lacks them, or a `Submit` of their rows may be on its way, sent before
    /// they came. Were they forgotten, such a row would run again.
    pub(super) fn used_after(&self) -> u64 {
        self.client.map_or(self.counts.settled, |client| client.cursor.min(self.counts.settled))
    }

    pub(super) fn state(&self) -> JobState {
        let done = self.is_settled();
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
    /// Those on record, by number: of a job that left, and of one whose record is broken, nothing is here. Found several
    /// times in every task's life, and hardly ever changed.
    all: Vec<(JobNo, Box<Job>)>,
    by_id: BTreeMap<JobId, JobNo>,
    /// Results that no sink has committed, of all jobs.
    pub(super) unsettled: u64,
    /// The last number given.
    last: JobNo,
    /// The last `JobLeft` record.
    pub(super) left: Lsn,
    /// Failed rows of jobs that left, until their bodies are no longer counted: slice by slice.
    leaving: VecDeque<BTreeMap<u64, FailedRow>>,
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
        let at = self.place(no).ok()?;
        Some(&self.all[at].1)
    }

    /// Where a job is, or would be.
    fn place(&self, no: JobNo) -> Result<usize, usize> {
        self.all.binary_search_by_key(&no, |(no, _)| *no)
    }

    /// The job that a record names: it may have left.
    pub(super) fn get_mut(&mut self, no: JobNo) -> Option<&mut Job> {
        let at = self.place(no).ok()?;
        Some(&mut self.all[at].1)
    }

    /// The job of an open task or of a client: it is on record.
    #[expect(
        clippy::expect_used,
        reason = "a job with open tasks, a client, a place in a queue or a walk does not leave"
    )]
    pub(super) fn job(&self, no: JobNo) -> &Job {
        self.get(no).expect("a job that is named is on record")
    }

    #[expect(
        clippy::expect_used,
        reason = "a job with open tasks, a client, a place in a queue or a walk does not leave"
    )]
    pub(super) fn job_mut(&mut self, no: JobNo) -> &mut Job {
        self.get_mut(no).expect("a job that is named is on record")
    }

    /// The last number given to any job.
    pub(super) fn last_no(&self) -> JobNo {
        self.last
    }

    /// A record names this job, though its `Opened` may be lost: were its number given again, the next job would take its
    /// results for its own.
    pub(super) fn note_given(&mut self, no: JobNo) {
        self.last = self.last.max(no);
    }

    pub(super) fn next_no(&self) -> JobNo {
        JobNo(self.last.0 + 1)
    }

    /// Jobs on record.
    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    /// In order of opening.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Job> {
        self.all.iter().map(|(_, job)| job.as_ref())
    }

    /// Takes up an `Opened` record: a new job, or new options of a known one.
    pub(super) fn open(&mut self, lsn: Lsn, spec: &Opened, service: ServiceNo) {
        if let Some(job) = self.get_mut(spec.no) {
            job.records.opened = lsn;
            job.spec = spec.clone();
            return;
        }
        self.by_id.insert(spec.job, spec.no);
        self.last = self.last.max(spec.no);
        let job = Job {
            spec: spec.clone(),
            service,
            records: JobRecords { first: lsn, opened: lsn, ..JobRecords::default() },
            counts: JobCounts::default(),
            numbers: Numbers::default(),
            failed: BTreeMap::new(),
            ready: Ready::default(),
            client: None,
        };
        let at = self.place(spec.no).unwrap_or_else(|at| at);
        self.all.insert(at, (spec.no, Box::new(job)));
    }

    /// Takes up a `JobLeft` record. What failed of the job is forgotten bit by bit: it may be much.
    pub(super) fn leave(&mut self, lsn: Lsn, no: JobNo, last: JobNo) -> Option<Box<Job>> {
        (self.left, self.last) = (lsn, self.last.max(last));
        self.dirty.remove(&no);
        self.cached.remove(&no);
        let (_, mut job) = self.all.remove(self.place(no).ok()?);
        if self.find(job.spec.job) == Some(no) {
            self.by_id.remove(&job.spec.job);
        }
        self.unsettled -= job.numbers.len();
        let failed = std::mem::take(&mut job.failed);
        if !failed.is_empty() {
            self.leaving.push_back(failed);
        }
        Some(job)
    }

    /// Forgets so many failed rows of jobs that left.
    pub(super) fn forget_failed(&mut self, mut budget: u32) {
        while budget > 0
            && let Some(failed) = self.leaving.front_mut()
        {
            match failed.pop_first() {
                Some((_, failed)) => self.forget_body(failed.body),
                None => drop(self.leaving.pop_front()),
            }
            budget -= 1;
        }
    }

    /// Nothing refers to a job but what ended: it may leave. The oldest such jobs, so many at most.
    pub(super) fn idle(&self, count: usize) -> Vec<JobNo> {
        let walked = self.walks.iter().map(|walk| walk.job).collect::<BTreeSet<_>>();
        let is_idle = |job: &&Job| job.client.is_none() && job.is_over() && !walked.contains(&job.spec.no);
        self.iter().filter(is_idle).map(|job| job.spec.no).take(count).collect()
    }

    /// Changes the unsettled results of a job, if it is on record.
    pub(super) fn change_numbers(&mut self, no: JobNo, change: impl FnOnce(&mut Numbers)) {
        let Some(job) = self.get_mut(no) else { return };
        let before = job.numbers.len();
        change(&mut job.numbers);
        let after = job.numbers.len();
        self.unsettled = self.unsettled - before + after;
    }

    /// Lists a failed row; the oldest of the job leaves the list when it is full.
    pub(super) fn add_failed(&mut self, no: JobNo, number: u64, failed: FailedRow, max: u32) {
        let Some(job) = self.get_mut(no) else { return };
        job.failed.insert(number, failed);
        let oldest = job.failed.keys().next().copied().filter(|_| job.failed.len() > max as usize);
        *self.failed_bodies.entry(failed.body).or_default() += 1;
        if let Some(oldest) = oldest {
            self.remove_failed(no, oldest);
        }
    }

    pub(super) fn remove_failed(&mut self, no: JobNo, number: u64) {
        if let Some(failed) = self.get_mut(no).and_then(|job| job.failed.remove(&number)) {
            self.forget_body(failed.body);
        }
    }

    fn forget_body(&mut self, body: Lsn) {
        if let Some(count) = self.failed_bodies.get_mut(&body) {
            *count -= 1;
            if *count == 0 {
                self.failed_bodies.remove(&body);
            }
        }
    }
}
