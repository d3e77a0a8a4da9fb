//! Trying again: by class of failure, with exponential backoff and full jitter, up to the job's limit.

use std::cmp::Reverse;

use sheaf_session::Micros;
use sheaf_task::{Class, Failure, Fence, Outcome};

use super::Router;
use super::limits::{BACKOFF_FIRST_MS, BACKOFF_MAX_MS, GARBAGE_MAX, QUARANTINE_FIRST_MS, QUARANTINE_MAX_MS};
use super::queue::End;
use super::record::{Ended, Record};
use super::slab::{ENDED, Ix, Moment, Spot};
use super::workers::WorkerNo;

impl Router {
    /// A failure that may pass: the task waits for its next attempt, or has had its last.
    pub(super) fn retry_or_finish(&mut self, no: WorkerNo, ix: Ix, fence: Fence, ms: u64, failure: Failure) {
        if self.is_last(ix) {
            self.finish(ix, no, fence, ms, Outcome::Failed(failure));
        } else {
            self.retry(ix, failure.class, false);
        }
    }

    /// The job grants no attempt after this one.
    pub(super) fn is_last(&self, ix: Ix) -> bool {
        let job = self.jobs.job(self.tasks.row(ix).job);
        self.tasks.cold(ix).failed >= job.spec.options.retries
    }

    /// Ends the present attempt on record; the task pauses.
    pub(super) fn retry(&mut self, ix: Ix, class: Class, suspect: bool) {
        let (key, job, fence) = (self.tasks.row(ix).key, self.tasks.row(ix).job, self.fence(ix));
        self.detach(ix);
        let attempt = (fence.epoch, fence.attempt);
        self.write(Record::Ended(Ended { key, job, class: Some(class), attempt, suspect, counts: true }));
        let failed = self.tasks.cold(ix).failed;
        let most = BACKOFF_MAX_MS.min(BACKOFF_FIRST_MS.saturating_mul(1 << failed.saturating_sub(1).min(20)));
        let pause = Micros(self.rng.below(Micros::from_ms(most).0 + 1));
        let due = self.time.now + pause;
        let row = self.tasks.row_mut(ix);
        (row.spot, row.since, row.attempt) = (Spot::Backoff, Moment::of(due), ENDED);
        self.backoff.push(Reverse((due, ix)));
    }

    /// Tasks whose pause is over are ready again.
    pub(super) fn end_pauses(&mut self) {
        for _ in 0..self.config.limits.slice_max {
            let Some(Reverse((due, ix))) = self.backoff.peek().copied().filter(|top| top.0.0 <= self.time.now) else {
                return;
            };
            self.backoff.pop();
            if self.tasks.used(ix)
                && self.tasks.row(ix).spot == Spot::Backoff
                && self.tasks.row(ix).since == Moment::of(due)
            {
                self.tasks.row_mut(ix).spot = Spot::Idle;
                self.enqueue(ix, End::Back);
            }
        }
    }

    /// A worker answered garbage; after repeats it is given nothing for a while, and longer each time that it goes on
    /// where it stopped: one that is only unlucky is soon back, one that is broken costs ever less.
    pub(super) fn blame(&mut self, no: WorkerNo) {
        // What it had in hand when it was shut out is no news.
        if no == WorkerNo::NONE || self.workers.worker(no).quarantine.is_some() {
            return;
        }
        let worker = self.workers.worker_mut(no);
        worker.garbage = worker.garbage.saturating_add(1);
        let Some(again) = worker.garbage.checked_sub(GARBAGE_MAX) else { return };
        let ms = QUARANTINE_MAX_MS.min(QUARANTINE_FIRST_MS << again.min(16));
        worker.quarantine = Some(self.time.now + Micros::from_ms(ms));
        self.workers.room_changed(no);
    }
}
