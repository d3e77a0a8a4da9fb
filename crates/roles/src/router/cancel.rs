//! Orders about whole jobs: cancel one, run its failed rows again (which takes a cancel back). Cut into slices, so that no
//! step lasts long. And about single rows, of which one message holds few.
//!
//! Invariants: walks go one after another; an order is answered when its last record is durable; a cancel that a crash
//! cut short is taken up again.

use std::collections::BTreeSet;

use sheaf_task::{Answer, Class, JobId, Key, RowId};

use super::Router;
use super::event::{Lsn, Outbound, PeerId};
use super::queue::End;
use super::record::{Delivery, JobNo, Record, Retried, Withdrawn};
use super::slab::{Ix, Spot};

/// An order that is under way.
#[derive(Debug)]
pub(super) struct Walk {
    pub(super) job: JobNo,
    what: What,
    /// Rows that it concerned so far.
    count: u64,
    /// Who gets the answer.
    asker: Option<(PeerId, u64)>,
}

#[derive(Debug)]
enum What {
    /// Withdraw the job's rows from every task from this index on.
    Cancel { next: u32 },
    /// Run the job's failed rows with numbers in this range again; with keys, only those.
    Retry { after: u64, upto: u64, keys: BTreeSet<Key> },
}

impl Router {
    pub(super) fn on_cancel_job(&mut self, peer: PeerId, id: u64, job: Option<JobNo>) -> Lsn {
        let Some(no) = job else { return self.answer_not_found(peer, id) };
        if self.jobs.job(no).records.cancelled.is_none() {
            self.write(Record::Cancelled { job: no });
        }
        self.begin(Walk { job: no, what: What::Cancel { next: 0 }, count: 0, asker: Some((peer, id)) })
    }

    pub(super) fn on_retry_job(&mut self, peer: PeerId, id: u64, job: Option<JobNo>, keys: Vec<Key>) -> Lsn {
        let Some(no) = job else { return self.answer_not_found(peer, id) };
        let upto = self.jobs.job(no).counts.last_number;
        let what = What::Retry { after: 0, upto, keys: keys.into_iter().collect() };
        self.begin(Walk { job: no, what, count: 0, asker: Some((peer, id)) })
    }

    /// Rows that are wanted no more, of a job that this session has open. What has its outcome keeps it.
    pub(super) fn on_withdraw(&mut self, peer: PeerId, id: u64, job: JobId, rows: &[(Key, RowId)]) -> Lsn {
        let Some(no) = self.job_of(peer, job) else { return self.answer_not_found(peer, id) };
        let mut count = 0;
        for (key, row) in rows {
            if let Some(ix) = self.tasks.find(*key) {
                count += self.withdraw(ix, no, Some(*row));
            }
        }
        let gate = self.out.written();
        self.send(peer, gate, Outbound::answer(id, Answer::Done(count)), None);
        gate
    }

    fn answer_not_found(&mut self, peer: PeerId, id: u64) -> Lsn {
        self.send(peer, Lsn::NONE, Outbound::answer(id, Answer::NotFound), None);
        Lsn::NONE
    }

    fn begin(&mut self, walk: Walk) -> Lsn {
        self.jobs.walks.push_back(walk);
        self.out.written()
    }

    /// After a restart: jobs whose cancel was cut short.
    pub(super) fn take_up_walks(&mut self) {
        let cut = |job: &&super::jobs::Job| job.records.cancelled.is_some() && job.counts.open > 0;
        let cut = self.jobs.iter().filter(cut).map(|job| job.spec.no).collect::<Vec<_>>();
        for job in cut {
            self.jobs.walks.push_back(Walk { job, what: What::Cancel { next: 0 }, count: 0, asker: None });
        }
    }

    /// One slice of the first walk.
    pub(super) fn walk(&mut self) {
        let Some(mut walk) = self.jobs.walks.pop_front() else { return };
        let is_done = match &mut walk.what {
            What::Cancel { next } => self.walk_cancel(walk.job, next, &mut walk.count),
            What::Retry { after, upto, keys } => self.walk_retry(walk.job, after, *upto, keys, &mut walk.count),
        };
        if !is_done {
            self.jobs.walks.push_front(walk);
        } else if let Some((peer, id)) = walk.asker {
            let gate = self.out.written();
            self.send(peer, gate, Outbound::answer(id, Answer::Done(walk.count)), None);
        }
    }

    fn walk_cancel(&mut self, job: JobNo, next: &mut u32, count: &mut u64) -> bool {
        let slice = self.config.limits.slice_max;
        let end = self.tasks.end().min(next.saturating_add(slice));
        for ix in (*next..end).map(Ix) {
            if self.tasks.used(ix) {
                *count += self.withdraw(ix, job, None);
            }
        }
        *next = end;
        end == self.tasks.end()
    }

    /// Takes every row of a job from an open task, or this one.
    fn withdraw(&mut self, ix: Ix, job: JobNo, only: Option<RowId>) -> u64 {
        let row = self.tasks.row(ix);
        if row.job != job && !row.shared {
            return 0;
        }
        let askers = self.tasks.askers(ix).collect::<Vec<_>>();
        let is_meant = |row: RowId| only.is_none_or(|only| only == row);
        let rows = askers.iter().filter(|asker| asker.job == job && is_meant(asker.row));
        let rows = rows.map(|asker| asker.row).collect::<Vec<_>>();
        if rows.len() == askers.len() && self.tasks.row(ix).spot == Spot::Assigned {
            self.cancel_attempt(ix);
        }
        let (key, submitted, body_len) = (self.tasks.row(ix).key, self.tasks.row(ix).body, self.tasks.row(ix).len);
        for row in rows.iter().copied() {
            let number = self.jobs.job(job).counts.last_number + 1;
            let delivery = Delivery { job, row, number };
            self.write(Record::Withdrawn(Withdrawn { key, submitted, body_len, delivery }));
            self.totals.note_outcome(Some(Class::Cancelled));
        }
        if self.tasks.used(ix) && self.tasks.row(ix).key == key && self.tasks.row(ix).spot == Spot::Idle {
            self.enqueue(ix, End::Back);
        }
        rows.len() as u64
    }

    fn walk_retry(&mut self, no: JobNo, after: &mut u64, upto: u64, keys: &BTreeSet<Key>, count: &mut u64) -> bool {
        if self.jobs.job(no).records.cancelled.is_some() {
            self.write(Record::Resumed { job: no });
        }
        let slice = self.config.limits.slice_max as usize;
        let failed = self.jobs.job(no).failed.range(*after + 1..=upto.max(*after + 1));
        let failed = failed.take(slice).map(|(number, failed)| (*number, *failed)).collect::<Vec<_>>();
        for (number, failed) in failed.iter().filter(|(_, failed)| keys.is_empty() || keys.contains(&failed.key)) {
            // Another job has the same task under way, with a body of its own: this row stays on the list, for then.
            if self.tasks.find(failed.key).is_some_and(|ix| self.tasks.row(ix).body != failed.body) {
                continue;
            }
            let delivery = Delivery { job: no, row: failed.row, number: *number };
            let (key, submitted, body_len) = (failed.key, failed.body, failed.len);
            self.write(Record::Retried(Retried { key, submitted, body_len, delivery }));
            self.write(Record::Unlisted { job: no, number: *number });
            if let Some(ix) = self.tasks.find(key)
                && self.tasks.row(ix).spot == Spot::Idle
            {
                self.enqueue(ix, End::Back);
            }
            *count += 1;
        }
        *after = failed.last().map_or(upto, |(number, _)| *number);
        failed.len() < slice
    }
}
