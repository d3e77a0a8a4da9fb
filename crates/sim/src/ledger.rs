//! What must hold, whatever breaks: an independent record of what was acknowledged, executed and committed.
//!
//! It believes no counter of the machines. What it is told: records that a sync confirmed or a restart found, messages
//! as they are acknowledged to their senders, executions as they begin, rows as a sink commits them.

use std::collections::{BTreeMap, BTreeSet};

use sheaf_roles::client::WriteRow;
use sheaf_roles::router::record::Ended;
use sheaf_roles::router::{JobNo, Lsn, Record};
use sheaf_session::Fatal;
use sheaf_task::{Class, Fence, JobId, Key, Outcome, RowId, ToRouter};

use crate::orders::Orders;

/// Something that must never happen, in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation(pub String);

/// The books.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    violations: Vec<Violation>,
    /// Rows and finished keys that are on the router's disk: confirmed since its start, or found at it.
    durable_rows: BTreeSet<RowId>,
    finished: BTreeMap<Key, bool>,
    /// Of those: what a peer was told. None of it may be missing after a restart.
    acked_rows: BTreeSet<RowId>,
    acked_results: BTreeSet<Key>,
    /// Rows that the router refused at least once: a client may be told that their message is taken before it is told that.
    refused: BTreeSet<RowId>,
    /// Keys with an answer on disk that is kept for later askers: nothing may be given out for them any more.
    answered: BTreeMap<Key, Lsn>,
    /// What is older is not kept for later askers.
    floor: Lsn,
    /// Rows that each answer was for.
    answers_for: BTreeMap<Key, BTreeSet<RowId>>,
    /// Rows in sinks: what the router had of them may go.
    sunk: BTreeSet<RowId>,
    /// Attempts given out for them nevertheless: none may begin.
    late: BTreeSet<Fence>,
    /// How many workers died while they executed a task.
    deaths: BTreeMap<Key, u32>,
    /// Which life of which worker executed an attempt.
    started: BTreeMap<Fence, (usize, u64)>,
    /// Attempts whose end a worker has reported.
    ended: BTreeSet<(Key, u64, u32)>,
    /// Outcomes as workers reported them: whether any attempt at the key was ok.
    reported_ok: BTreeSet<Key>,
    /// Attempts of which the router has read an end.
    heard: BTreeSet<Fence>,
    /// Workers whose directory exists twice: neither knows what the other has begun.
    doubled: BTreeSet<usize>,
    /// The router's disk was put back to an old copy.
    went_back: bool,
    /// What had been acknowledged when somebody copied the router's disk.
    backup: (BTreeSet<RowId>, BTreeSet<Key>),
    /// Since then: results by job and number, until they are settled.
    given: BTreeMap<(JobNo, u64), (RowId, Key)>,
    /// What operators ordered.
    pub orders: Orders,
    pub executed: u64,
}

impl Ledger {
    pub(crate) fn violate(&mut self, what: String) {
        // The first few tell the story.
        if self.violations.len() < 10 {
            self.violations.push(Violation(what));
        }
    }

    pub(crate) fn violations(&self) -> &[Violation] {
        &self.violations
    }

    pub(crate) fn on_fatal(&mut self, fatal: Fatal) {
        self.violate(format!("one of our own broke the protocol: {fatal}"));
    }

    /// The router starts: what is durable is what its journal shows now.
    pub(crate) fn on_restart(&mut self) {
        self.durable_rows.clear();
        self.finished.clear();
    }

    /// A record that a sync confirmed, or that a restart found.
    pub(crate) fn on_durable_record(&mut self, lsn: Lsn, record: &Record) {
        self.durable_rows.extend(row_of(record));
        if let Some(what) = self.orders.on_record(lsn, record) {
            self.violate(what);
        }
        if let Record::Ended(Ended { key, class: Some(_), attempt: (epoch, attempt), .. }) = record
            && !self.ended.contains(&(*key, *epoch, *attempt))
        {
            self.violate(format!("attempt {attempt} at {key:?} is on record as ended, and nobody said so"));
        }
        if let Record::Retried(retried) = record {
            // Whoever orders that a row runs again means it.
            self.answered.remove(&retried.key);
        }
        if self.went_back {
            self.note_given(record);
        }
        if let Record::Finished(finished) = record {
            let ok = finished.outcome.is_ok();
            let rows = finished.deliveries.iter().map(|delivery| delivery.row);
            self.durable_rows.extend(rows.clone());
            self.answers_for.entry(finished.key).or_default().extend(rows);
            *self.finished.entry(finished.key).or_default() |= ok;
            if ok && lsn >= self.floor {
                self.answered.insert(finished.key, lsn);
            }
            if ok && !self.reported_ok.contains(&finished.key) {
                self.violate(format!("{:?} is finished with an answer that no worker gave", finished.key));
            }
        }
    }

    /// A sink's cursor may be of the time line that the disk went back from: then it settles what the sink does not have, and
    /// what is settled may leave the journal.
    fn note_given(&mut self, record: &Record) {
        if let Record::Finished(finished) = record {
            let given = finished.deliveries.iter().map(|one| ((one.job, one.number), (one.row, finished.key)));
            self.given.extend(given);
        }
        if let Record::Settled { job, counts } = record {
            for (_, (row, key)) in self.given.range((*job, 0)..=(*job, counts.settled)) {
                if !self.sunk.contains(row) {
                    self.acked_rows.remove(row);
                    self.acked_results.remove(key);
                }
            }
        }
    }

    /// The journal has been shown whole: nothing that was acknowledged may be missing.
    pub(crate) fn on_replayed(&mut self) {
        let is_gone = |row: &&RowId| !self.durable_rows.contains(row) && !self.sunk.contains(row);
        if let Some(row) = self.acked_rows.iter().find(is_gone) {
            let row = *row;
            self.violate(format!("acknowledged {row:?} is not on disk after a restart"));
        }
        let is_there = |key: &Key| self.finished.get(key) == Some(&true);
        if let Some(key) = self.answered.keys().find(|key| !is_there(key)) {
            let key = *key;
            self.violate(format!("the answer to {key:?} was on disk, is not past its retention, and is gone"));
        }
        let is_there = |key: &Key| self.finished.get(key) == Some(&true);
        let is_sunk = |key: &Key| self.answers_for.get(key).is_some_and(|rows| rows.is_subset(&self.sunk));
        if let Some(key) = self.acked_results.iter().find(|key| !is_there(key) && !is_sunk(key)) {
            let key = *key;
            self.violate(format!("the acknowledged answer to {key:?} is not on disk after a restart"));
        }
    }

    /// Outcomes in records before this one answer nobody any more.
    pub(crate) fn on_floor(&mut self, floor: Lsn) {
        self.floor = self.floor.max(floor);
        self.answered.retain(|_, lsn| *lsn >= floor);
    }

    /// The router gives out an attempt.
    pub(crate) fn on_assigned(&mut self, fence: Fence) {
        if self.answered.contains_key(&fence.key) || self.orders.is_withdrawn(fence.key) {
            self.late.insert(fence);
        }
    }

    /// A worker begins to execute.
    pub(crate) fn on_started(&mut self, fence: Fence, worker: usize, life: u64) {
        self.executed += 1;
        if self.late.contains(&fence) {
            self.violate(format!(
                "{fence:?} was given out and executes although its answer was on disk, or nobody wanted it"
            ));
        }
        if let Some((other, earlier)) = self.started.insert(fence, (worker, life))
            && !self.doubled.contains(&worker)
        {
            self.violate(format!(
                "attempt {fence:?} executes twice: worker {other} life {earlier}, worker {worker} life {life}"
            ));
        }
    }

    /// A worker died while it executed this.
    pub(crate) fn on_died_with(&mut self, fence: Fence) {
        *self.deaths.entry(fence.key).or_default() += 1;
    }

    /// A worker's machine lost power: it may not know what it had begun, so it may begin it again.
    pub(crate) fn on_power_cut(&mut self, worker: usize) {
        self.started.retain(|_, (other, _)| *other != worker);
    }

    /// These two workers have one directory each, and both are the same.
    pub(crate) fn on_doubled(&mut self, workers: [usize; 2]) {
        self.doubled.extend(workers);
    }

    /// Somebody copies the router's disk.
    pub(crate) fn on_journal_copied(&mut self) {
        self.backup = (self.acked_rows.clone(), self.acked_results.clone());
    }

    /// The router's disk is as it was copied: what was acknowledged since is not expected to be there.
    pub(crate) fn on_journal_restored(&mut self) {
        (self.acked_rows, self.acked_results) = self.backup.clone();
        self.went_back = true;
        self.orders.on_went_back();
        self.answered.clear();
        self.floor = Lsn::NONE;
        self.late.clear();
        // Its next epoch may be one that was used before.
        self.started.clear();
    }

    pub(crate) fn on_worker_says(&mut self, message: &ToRouter) {
        if let ToRouter::Results(items) = message {
            let ok = items.iter().filter(|item| item.outcome.is_ok());
            self.reported_ok.extend(ok.map(|item| item.fence.key));
            self.ended.extend(items.iter().map(|item| (item.fence.key, item.fence.epoch, item.fence.attempt)));
        }
        if let ToRouter::Register(registration) = message {
            let died_with = registration.died_with.iter();
            self.ended.extend(died_with.map(|fence| (fence.key, fence.epoch, fence.attempt)));
        }
    }

    /// The router reads how an attempt ended.
    pub(crate) fn on_heard(&mut self, fence: Fence) {
        self.heard.insert(fence);
    }

    /// A worker is told that the router has its result.
    pub(crate) fn on_result_acknowledged(&mut self, fence: Fence) {
        if !self.heard.contains(&fence) {
            self.violate(format!("the end of {fence:?} is acknowledged, and the router never heard of it"));
        }
        if !self.reported_ok.contains(&fence.key) {
            return;
        }
        // The key's answer, from this attempt or another, must be on disk, or the task must have ended otherwise.
        match self.finished.get(&fence.key) {
            Some(true) => {
                self.acked_results.insert(fence.key);
            }
            Some(false) => {}
            None => {}
        }
    }

    /// The router acknowledges rows that it has not refused.
    pub(crate) fn on_rows_acknowledged(&mut self, rows: &[RowId]) {
        if let Some(row) = rows.iter().find(|row| !self.durable_rows.contains(row)) {
            self.violate(format!("{row:?} is acknowledged and not on disk"));
        }
    }

    /// The router refuses rows.
    pub(crate) fn on_rows_refused(&mut self, rows: &[RowId]) {
        self.refused.extend(rows);
    }

    /// A client is told that the router has its rows: from now on they must be there after every restart.
    pub(crate) fn on_rows_told(&mut self, rows: &[RowId]) {
        if self.went_back || rows.iter().any(|row| self.refused.contains(row)) {
            // It may have been said before the router's disk was put back, or of a message with refused rows.
            let there = rows.iter().filter(|row| self.durable_rows.contains(row));
            return self.acked_rows.extend(there);
        }
        self.on_rows_acknowledged(rows);
        self.acked_rows.extend(rows);
    }

    /// A sink commits a row.
    pub(crate) fn on_committed(&mut self, client: usize, row: &WriteRow, body: &[u8], is_there: bool) {
        let WriteRow { row, key, outcome, .. } = row;
        let deaths = key.and_then(|key| self.deaths.get(&key)).copied().unwrap_or(0);
        let job = JobId([client as u8 + 1; 16]);
        self.sunk.insert(*row);
        if is_there {
            self.violate(format!(
                "client {client}: a row is committed to the sink twice: {}",
                String::from_utf8_lossy(body)
            ));
        }
        let must_fail = body.starts_with(b"bad") || body.starts_with(b"die");
        let is_right = match outcome {
            Outcome::Ok(answer) => *answer == crate::worker_host::answer(body) && !must_fail,
            // Whoever is there at three deaths is given up, guilty or not.
            Outcome::Failed(failure) if failure.class == Class::Crashed && deaths >= DEATHS => true,
            Outcome::Failed(failure) if failure.class == Class::Cancelled => self.orders.is_doomed(job),
            Outcome::Failed(_) => must_fail || body.starts_with(b"flaky"),
        };
        if !is_right {
            self.violate(format!("client {client}: {} has the outcome {outcome:?}", String::from_utf8_lossy(body)));
        }
    }
}

/// So many deaths end a task.
const DEATHS: u32 = 3;

/// The row that a record puts on disk, if it does.
fn row_of(record: &Record) -> Option<RowId> {
    if let Record::Submitted(submitted) = record {
        return Some(submitted.row);
    }
    if let Record::Joined(joined) = record {
        return Some(joined.row);
    }
    if let Record::Cached(cached) = record {
        return Some(cached.delivery.row);
    }
    if let Record::Withdrawn(withdrawn) = record {
        return Some(withdrawn.delivery.row);
    }
    if let Record::Retried(retried) = record {
        return Some(retried.delivery.row);
    }
    None
}
