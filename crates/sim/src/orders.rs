//! What must hold of cancelled jobs and of failures that run again: part of the ledger, from durable records alone.
//!
//! It deliberately knows no number that the router gives out. Invariants: a record counts once, however often a restart
//! shows it; after the router's disk went back in time nothing is claimed.

use std::collections::{BTreeMap, BTreeSet};

use sheaf_roles::router::record::Delivery;
use sheaf_roles::router::{JobNo, Lsn, Record};
use sheaf_task::{JobId, Key, Outcome, RowId};

/// The books of orders.
#[derive(Debug, Default)]
pub(crate) struct Orders {
    /// Records up to here have been counted.
    upto: Lsn,
    jobs: BTreeMap<JobNo, JobId>,
    /// Rows that wait for the outcome of a task.
    wanted: BTreeMap<Key, BTreeSet<(JobNo, RowId)>>,
    /// Keys that no row wants since one was withdrawn.
    withdrawn: BTreeSet<Key>,
    /// Jobs whose failures somebody wants to run again, and has had no answer.
    asking: BTreeSet<JobId>,
    /// How each row ended last: its sink must have it, however often its job was cancelled.
    given: BTreeMap<(JobNo, RowId), Given>,
    /// Failures that run again, and have no newer outcome yet.
    retried: BTreeSet<(JobNo, RowId)>,
    /// Those that have it.
    settled: BTreeSet<(JobNo, RowId)>,
    /// Jobs that are cancelled, and that no retry has taken up again.
    stopped: BTreeSet<JobId>,
    /// Of those: somebody was told.
    cancelled: BTreeSet<JobId>,
    /// Jobs that were ever to be cancelled.
    doomed: BTreeSet<JobId>,
    went_back: bool,
}

/// How a row ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Given {
    Ok,
    Failed,
    Withdrawn,
}

impl Orders {
    /// A record is durable. What is wrong with it, in words.
    pub(crate) fn on_record(&mut self, lsn: Lsn, record: &Record) -> Option<String> {
        if lsn <= self.upto || self.went_back {
            return None;
        }
        self.upto = lsn;
        match record {
            Record::Opened(opened) => {
                self.jobs.insert(opened.no, opened.job);
                None
            }
            Record::Submitted(row) => self.on_wanted(row.key, row.job, row.row),
            Record::Joined(row) => self.on_wanted(row.key, row.job, row.row),
            Record::Retried(again) => {
                let Delivery { job, row, number: _ } = again.delivery;
                self.settled.remove(&(job, row));
                self.given.remove(&(job, row));
                // An order that was answered may be heard once more by a router that starts again. Nobody waits for that.
                if self.jobs.get(&job).is_some_and(|job| self.asking.contains(job)) {
                    self.retried.insert((job, row));
                }
                self.on_wanted(again.key, job, row)
            }
            Record::Withdrawn(withdrawn) => {
                let Delivery { job, row, number: _ } = withdrawn.delivery;
                let rows = self.wanted.entry(withdrawn.key).or_default();
                rows.remove(&(job, row));
                if rows.is_empty() {
                    self.wanted.remove(&withdrawn.key);
                    self.withdrawn.insert(withdrawn.key);
                }
                if !self.jobs.get(&job).is_some_and(|job| self.doomed.contains(job)) {
                    return Some(format!("{row:?} is withdrawn, and nobody cancelled its job"));
                }
                self.on_outcome(&withdrawn.delivery, Given::Withdrawn)
            }
            Record::Finished(finished) => {
                self.wanted.remove(&finished.key);
                let given = if finished.outcome.is_ok() { Given::Ok } else { Given::Failed };
                finished.deliveries.iter().find_map(|delivery| self.on_outcome(delivery, given))
            }
            Record::Cached(cached) => {
                self.on_outcome(&cached.delivery, if cached.ok { Given::Ok } else { Given::Failed })
            }
            Record::Resumed { job } => {
                self.on_taken_up(*job);
                None
            }
            // A job that left is unknown: whoever opens it again begins anew.
            Record::JobLeft { job: no, last: _ } => {
                self.on_taken_up(*no);
                self.given.retain(|(job, _), _| job != no);
                None
            }
            Record::Cancelled { job } => {
                self.stopped.extend(self.jobs.get(job));
                None
            }
            Record::Scanned { .. }
            | Record::Settled { .. }
            | Record::Ended(_)
            | Record::Unlisted { .. }
            | Record::Registered(_)
            | Record::Left { .. }
            | Record::Heard { .. }
            | Record::Forgotten { .. } => None,
        }
    }

    fn on_wanted(&mut self, key: Key, no: JobNo, row: RowId) -> Option<String> {
        self.wanted.entry(key).or_default().insert((no, row));
        self.withdrawn.remove(&key);
        let is_cancelled = self.jobs.get(&no).is_some_and(|job| self.cancelled.contains(job));
        is_cancelled.then(|| format!("{row:?} is taken for a job that is cancelled"))
    }

    /// The job's cancel holds no more.
    fn on_taken_up(&mut self, no: JobNo) {
        if let Some(job) = self.jobs.get(&no) {
            self.stopped.remove(job);
            self.cancelled.remove(job);
        }
    }

    fn on_outcome(&mut self, delivery: &Delivery, given: Given) -> Option<String> {
        let row = (delivery.job, delivery.row);
        let before = self.given.insert(row, given);
        if given == Given::Withdrawn && before == Some(Given::Ok) {
            return Some(format!("{:?} was finished, and is withdrawn afterwards", delivery.row));
        }
        if self.retried.remove(&row) {
            self.settled.insert(row);
            return None;
        }
        self.settled.contains(&row).then(|| format!("{:?} was run again once and has two newer outcomes", delivery.row))
    }

    /// Somebody asks for the failures of a job to run again.
    pub(crate) fn on_retry(&mut self, job: JobId) {
        self.asking.insert(job);
    }

    /// And is answered.
    pub(crate) fn on_retry_told(&mut self, job: JobId) {
        self.asking.remove(&job);
    }

    /// Somebody asks for a job to be cancelled.
    pub(crate) fn on_cancel(&mut self, job: JobId) {
        self.doomed.insert(job);
    }

    /// Whether its rows may fail as cancelled.
    pub(crate) fn is_doomed(&self, job: JobId) -> bool {
        self.doomed.contains(&job)
    }

    /// Somebody is told that a job is cancelled: nothing of it is open.
    pub(crate) fn on_cancel_told(&mut self, job: JobId) -> Option<String> {
        // Somebody else may have run it again before the answer came.
        if self.went_back || !self.stopped.contains(&job) {
            return None;
        }
        self.cancelled.insert(job);
        let is_of = |(no, _): &&(JobNo, RowId)| self.jobs.get(no) == Some(&job);
        let open = self.wanted.values().flatten().find(is_of);
        open.map(|(_, row)| format!("{row:?} is open, and its job is said to be cancelled"))
    }

    /// Whether nobody wants this task any more because it was withdrawn.
    pub(crate) fn is_withdrawn(&self, key: Key) -> bool {
        self.withdrawn.contains(&key)
    }

    /// A job's client rests: what came of its rows, as far as it is on record, must be in its sink, and nothing else.
    pub(crate) fn on_rest(&self, job: JobId, sink: &BTreeMap<RowId, Outcome>) -> Option<String> {
        let is_its = |(no, _): &(JobNo, RowId)| self.jobs.get(no) == Some(&job) && !self.went_back;
        let is_there =
            |row: &RowId, given: Given| sink.get(row).is_some_and(|there| there.is_ok() == (given == Given::Ok));
        let lost = self.given.iter().find(|(at, given)| is_its(at) && !is_there(&at.1, **given));
        lost.map(|((_, row), given)| format!("{row:?} is {given:?} on record, and the sink has {:?}", sink.get(row)))
    }

    /// Everything is over: each failure that was to run again has a newer outcome.
    pub(crate) fn on_end(&self) -> Option<String> {
        let open = self.retried.first().filter(|_| !self.went_back);
        open.map(|(_, row)| format!("{row:?} was to run again and has no newer outcome"))
    }

    /// The router's disk is as it once was.
    pub(crate) fn on_went_back(&mut self) {
        *self = Self { went_back: true, doomed: std::mem::take(&mut self.doomed), ..Self::default() };
    }
}
