//! The one function that changes durable state, live and in replay.
//!
//! It deliberately writes and sends nothing. Invariants: the same records in the same order give the same state; what
//! compaction left out (settled results, bodies of finished tasks) changes nothing that can still be seen, because the
//! last `Settled` of each job carries the counts.

use sheaf_task::{JobCounts, Outcome};

use super::Router;
use super::event::Lsn;
use super::jobs::{FailedRow, JobRecords};
use super::record::{Cached, Delivery, Ended, Finished, JobNo, Joined, Record, Retried, Submitted, Withdrawn};
use super::slab::{Asker, Ix};

impl Router {
    pub(super) fn apply(&mut self, lsn: Lsn, record: &Record) {
        match record {
            Record::Opened(opened) => {
                let service = self.workers.name_service(&opened.service);
                self.jobs.open(lsn, opened, service);
            }
            Record::Submitted(submitted) => self.apply_submitted(lsn, submitted),
            Record::Joined(joined) => self.apply_joined(lsn, joined),
            Record::Cached(cached) => self.apply_cached(lsn, cached),
            Record::Ended(ended) => self.apply_ended(lsn, ended),
            Record::Finished(finished) => self.apply_finished(lsn, finished),
            Record::Withdrawn(withdrawn) => self.apply_withdrawn(lsn, withdrawn),
            Record::Retried(retried) => self.apply_retried(lsn, retried),
            Record::Registered(registered) => {
                self.workers.register(lsn, registered);
            }
            Record::Left { worker } => {
                if let Some(no) = self.workers.find(*worker) {
                    self.workers.leave(no);
                }
            }
            Record::Settled { job, counts } => self.apply_settled(lsn, *job, counts),
            Record::Scanned { job } => self.set_records(*job, |records| records.scanned = Some(lsn)),
            Record::Cancelled { job } => self.set_records(*job, |records| records.cancelled = Some(lsn)),
            Record::Unlisted { job, number } => self.jobs.remove_failed(*job, *number),
            Record::Resumed { job } => self.set_records(*job, |records| records.cancelled = None),
            Record::JobLeft { job, last } => self.apply_job_left(lsn, *job, *last),
            Record::Heard { session, receipt } => {
                self.sessions.insert((*session, receipt.place.lane), (lsn, *receipt));
            }
            Record::Forgotten { session } => self.sessions.retain(|(known, _), _| known != session),
        }
    }

    fn set_records(&mut self, job: JobNo, set: impl FnOnce(&mut JobRecords)) {
        if let Some(job) = self.jobs.get_mut(job) {
            set(&mut job.records);
        }
    }

    /// Changes the counts of a job by the record at `lsn`. Wrapping: replay without what compaction left out may pass
    /// through nonsense before `Settled` sets them right. A job that left counts nothing any more.
    fn count(&mut self, lsn: Lsn, job: JobNo, change: impl FnOnce(&mut JobCounts)) {
        if let Some(job) = self.jobs.get_mut(job) {
            job.records.counted = lsn;
            change(&mut job.counts);
        }
    }

    fn apply_job_left(&mut self, lsn: Lsn, no: JobNo, last: JobNo) {
        let Some(job) = self.jobs.leave(lsn, no, last) else { return };
        if job.ready.is_queued() {
            self.workers.service_mut(job.service).forget(no);
            self.jobs.rated.retain(|(_, rated)| *rated != no);
        }
    }

    fn apply_submitted(&mut self, lsn: Lsn, submitted: &Submitted) {
        let Submitted { key, job, row, body } = submitted;
        let len = body.len() as u32;
        if let Some(old) = self.tasks.find(*key) {
            self.close(old);
        }
        self.tasks.insert(*key, *job, *row, lsn, len);
        if let Some(job) = self.jobs.get_mut(*job) {
            job.ready.note_length(len);
        }
        self.count_new(lsn, *job);
    }

    fn count_new(&mut self, lsn: Lsn, job: JobNo) {
        self.count(lsn, job, |counts| {
            counts.submitted = counts.submitted.wrapping_add(1);
            counts.open = counts.open.wrapping_add(1);
        });
        self.set_records(job, |records| records.scanned = None);
    }

    fn apply_joined(&mut self, lsn: Lsn, joined: &Joined) {
        self.count_new(lsn, joined.job);
        if let Some(ix) = self.tasks.find(joined.key) {
            self.add_asker(ix, Asker { job: joined.job, row: joined.row, lsn });
        }
    }

    fn add_asker(&mut self, ix: Ix, asker: Asker) {
        self.tasks.row_mut(ix).shared = true;
        self.tasks.more.entry(ix).or_default().push(asker);
    }

    fn apply_cached(&mut self, lsn: Lsn, cached: &Cached) {
        let Cached { key, ok, len, finished, delivery } = *cached;
        self.count_new(lsn, delivery.job);
        self.give_number(lsn, &delivery, ok, len);
        self.count(lsn, delivery.job, |counts| counts.cached = counts.cached.wrapping_add(u64::from(ok)));
        self.recent.add(key, lsn, finished, ok, len, delivery);
        if self.jobs.get(delivery.job).is_none() {
            return;
        }
        let refers = self.jobs.cached.entry(delivery.job).or_insert((finished, delivery.number));
        *refers = (refers.0.min(finished), delivery.number);
    }

    /// A row of a job has its outcome, under its number.
    fn give_number(&mut self, lsn: Lsn, delivery: &Delivery, ok: bool, len: u32) {
        let Some(job) = self.jobs.get_mut(delivery.job) else { return };
        job.records.counted = lsn;
        let counts = &mut job.counts;
        counts.open = counts.open.wrapping_sub(1);
        counts.ok = counts.ok.wrapping_add(u64::from(ok));
        counts.failed = counts.failed.wrapping_add(u64::from(!ok));
        counts.last_number = counts.last_number.max(delivery.number);
        self.jobs.change_numbers(delivery.job, |numbers| numbers.push(delivery.number, lsn, len));
        self.jobs.dirty.insert(delivery.job);
    }

    fn apply_ended(&mut self, lsn: Lsn, ended: &Ended) {
        self.count(lsn, ended.job, |counts| counts.retried = counts.retried.wrapping_add(1));
        let Some(ix) = self.tasks.find(ended.key) else { return };
        let cold = self.tasks.cold_mut(ix);
        cold.ended += 1;
        cold.over = cold.over.max(ended.attempt);
        cold.failed += u32::from(ended.counts);
        cold.deaths = cold.deaths.saturating_add(u8::from(ended.suspect));
        cold.gate = lsn;
    }

    fn apply_finished(&mut self, lsn: Lsn, finished: &Finished) {
        let Finished { key, submitted, body_len, outcome, deliveries, .. } = finished;
        if let Some(ix) = self.tasks.find(*key).filter(|ix| self.tasks.row(*ix).body == *submitted) {
            self.close(ix);
        }
        let (ok, len) = (outcome.is_ok(), outcome_len(outcome));
        for delivery in deliveries {
            self.give_number(lsn, delivery, ok, len);
            self.recent.add(*key, lsn, lsn, ok, len, *delivery);
            if !ok {
                let failed =
                    FailedRow { key: *key, row: delivery.row, finished: lsn, body: *submitted, len: *body_len };
                self.jobs.add_failed(delivery.job, delivery.number, failed, self.config.limits.failures_max);
            }
        }
    }

    fn apply_withdrawn(&mut self, lsn: Lsn, withdrawn: &Withdrawn) {
        let Withdrawn { key, submitted, body_len, delivery } = *withdrawn;
        if let Some(ix) = self.tasks.find(key).filter(|ix| self.tasks.row(*ix).body == submitted) {
            self.drop_asker(ix, delivery.job, delivery.row);
        }
        self.give_number(lsn, &delivery, false, 0);
        self.recent.add(key, lsn, Lsn::NONE, false, 0, delivery);
        let failed = FailedRow { key, row: delivery.row, finished: lsn, body: submitted, len: body_len };
        self.jobs.add_failed(delivery.job, delivery.number, failed, self.config.limits.failures_max);
    }

    /// A row no longer waits for a task; the task closes with the last one. A task whose first row leaves goes on for
    /// the next, in the queue of its job.
    fn drop_asker(&mut self, ix: Ix, job: JobNo, row: sheaf_task::RowId) {
        let is = |asker: &Asker| asker.job == job && asker.row == row;
        let mut askers = self.tasks.more.remove(&ix).unwrap_or_default();
        let first = self.tasks.row(ix);
        if first.job == job && first.row == row {
            if askers.is_empty() {
                self.close(ix);
                return;
            }
            let heir = askers.remove(0);
            self.bequeath(ix, heir.job);
            self.tasks.row_mut(ix).row = heir.row;
            let cold = self.tasks.cold_mut(ix);
            cold.gate = cold.gate.max(heir.lsn);
        } else if let Some(at) = askers.iter().position(is) {
            askers.remove(at);
        }
        self.tasks.row_mut(ix).shared = !askers.is_empty();
        if !askers.is_empty() {
            self.tasks.more.insert(ix, askers);
        }
    }

    fn apply_retried(&mut self, lsn: Lsn, retried: &Retried) {
        let Retried { key, submitted, body_len, delivery } = *retried;
        self.count(lsn, delivery.job, |counts| {
            counts.failed = counts.failed.wrapping_sub(1);
            counts.open = counts.open.wrapping_add(1);
        });
        let known = self.tasks.find(key);
        let ix = known.unwrap_or_else(|| self.tasks.insert(key, delivery.job, delivery.row, submitted, body_len));
        let asked = self.tasks.askers(ix).any(|asker| asker.job == delivery.job && asker.row == delivery.row);
        if !asked {
            self.add_asker(ix, Asker { job: delivery.job, row: delivery.row, lsn });
            return;
        }
        let cold = self.tasks.cold_mut(ix);
        (cold.ended, cold.failed, cold.deaths, cold.gate) = (0, 0, 0, lsn);
    }

    fn apply_settled(&mut self, lsn: Lsn, no: JobNo, counts: &JobCounts) {
        let Some(job) = self.jobs.get_mut(no) else { return };
        job.counts = *counts;
        (job.records.settled, job.records.counted) = (lsn, lsn);
        self.jobs.change_numbers(no, |numbers| numbers.settle(counts.settled));
        if self.jobs.cached.get(&no).is_some_and(|(_, last)| *last <= counts.settled) {
            self.jobs.cached.remove(&no);
        }
    }

    /// A task is open no more.
    fn close(&mut self, ix: Ix) {
        self.detach(ix);
        self.tasks.remove(ix);
    }

    /// After the replay: rows of jobs that are not on record wait for nothing. Their bodies may still be kept for others.
    pub(super) fn disown(&mut self) {
        for ix in (0..self.tasks.end()).map(Ix).filter(|ix| self.tasks.used(*ix)).collect::<Vec<_>>() {
            let is_lost = |asker: &Asker| self.jobs.get(asker.job).is_none();
            let lost = self.tasks.askers(ix).filter(is_lost).collect::<Vec<_>>();
            for asker in lost {
                self.drop_asker(ix, asker.job, asker.row);
            }
        }
    }

    /// A number over the durable state: equal for a router and one replayed from its records.
    pub fn digest(&self) -> u64 {
        // FNV-1a: enough to compare two states.
        let mut digest = 0xcbf2_9ce4_8422_2325_u64;
        self.facts(&mut |fact| {
            digest =
                fact.bytes().fold(digest, |digest, byte| (digest ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
        });
        digest
    }

    /// The durable state in words, one fact at a time.
    pub(super) fn facts(&self, tell: &mut dyn FnMut(String)) {
        let mut rows = (0..self.tasks.end()).map(Ix).filter(|ix| self.tasks.used(*ix)).collect::<Vec<_>>();
        rows.sort_by_key(|ix| self.tasks.row(*ix).key);
        for ix in rows {
            let (row, cold) = (self.tasks.row(ix), self.tasks.cold(ix));
            let askers = self.tasks.askers(ix).map(|asker| (asker.job, asker.row)).collect::<Vec<_>>();
            tell(format!("{} {:?} {} {askers:?}", row.key, row.body, row.len));
            tell(format!("ended {} failed {} deaths {}", cold.ended, cold.failed, cold.deaths));
        }
        for job in self.jobs.iter() {
            tell(format!("{:?} {:?} {:?} {:?}", job.spec, job.records, job.counts, job.failed));
            job.numbers.iter().for_each(|item| tell(format!("{item:?}")));
        }
        tell(format!("{:?} {:?}", self.jobs.last_no(), self.jobs.left));
        for (id, worker) in self.workers.by_id() {
            if let Some(registered) = worker.registered {
                tell(format!("{id} {} {registered:?}", worker.incarnation));
            }
        }
        tell(format!("{:?}", self.sessions));
    }
}

/// Bytes of an outcome, as entries keep it.
pub(super) fn outcome_len(outcome: &Outcome) -> u32 {
    u32::try_from(outcome.len()).unwrap_or(u32::MAX)
}
