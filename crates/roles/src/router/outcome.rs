//! How attempts end: the first `ok` wins, whoever brings it.
//!
//! Invariants: a stale attempt contributes only an `ok`, and only to an open task; a result of a finished task is
//! dropped and counted; a task finishes once, with a delivery number for every row that asked for it.

use bytestring::ByteString;
use sheaf_task::{Class, Failure, Fence, Outcome, ResultItem, ToWorker, Tokens};
use smallvec::SmallVec;

use super::Router;
use super::event::{Lsn, Outbound, Output, PeerId, Wanted};
use super::record::{Delivery, Finished, Record};
use super::slab::{Ix, Spot};
use super::workers::{Recall, WorkerNo};

impl Router {
    /// Attempts that ended, as a worker tells. Returns what their acknowledgement waits for.
    pub(super) fn on_results(&mut self, peer: PeerId, items: Vec<ResultItem>) -> Lsn {
        let worker = self.peers.get(&peer).and_then(|peer| peer.worker).unwrap_or(WorkerNo::NONE);
        self.tasks.touch(items.iter().map(|item| item.fence.key));
        for item in items {
            self.on_outcome(worker, item);
        }
        if worker != WorkerNo::NONE && self.workers.worker(worker).recall == Recall::Futile {
            self.workers.worker_mut(worker).recall = Recall::Idle;
            self.room_changed(worker);
        }
        // Dropped results rest on the record that finished their task.
        self.out.written()
    }

    fn on_outcome(&mut self, no: WorkerNo, item: ResultItem) {
        let Some(ix) = self.tasks.find(item.fence.key) else {
            self.totals.dropped += 1;
            return;
        };
        let present = self.present(&item.fence, no).is_some();
        #[cfg(feature = "mutations")]
        let present = present || self.config.mutation == Some(super::Mutation::NoFence);
        match item.outcome {
            Outcome::Ok(body) => {
                self.praise(no, ix, item.ms, item.tokens);
                self.finish(ix, no, item.fence, item.ms, Outcome::Ok(body));
            }
            Outcome::Failed(failure) if present => self.on_failed(no, ix, item.fence, item.ms, failure),
            Outcome::Failed(_) => self.totals.dropped += 1,
        }
    }

    fn praise(&mut self, no: WorkerNo, ix: Ix, ms: u64, tokens: Tokens) {
        if no != WorkerNo::NONE {
            self.workers.worker_mut(no).garbage = 0;
        }
        let (job, len) = (self.tasks.row(ix).job, self.tasks.row(ix).len);
        let service = self.jobs.job(job).service;
        let service = self.workers.service_mut(service);
        service.learn(len, ms);
        service.tokens.add(tokens);
    }

    fn on_failed(&mut self, no: WorkerNo, ix: Ix, fence: Fence, ms: u64, failure: Failure) {
        if failure.class == Class::Garbage {
            self.blame(no);
        }
        match failure.class {
            Class::Rejected | Class::Expired => self.finish(ix, no, fence, ms, Outcome::Failed(failure)),
            Class::Crashed => self.on_crashed(no, ix, fence, ms, failure),
            Class::Error | Class::Timeout | Class::Garbage | Class::Cancelled => {
                self.retry_or_finish(no, ix, fence, ms, failure);
            }
        }
    }

    /// A record is not in the journal. What nobody is owed any more may have left it.
    pub(super) fn on_unreadable(&mut self, lsn: Lsn, wanted: Wanted) {
        let is_lost = match wanted {
            Wanted::Body => self.fail_bodiless(lsn),
            Wanted::Result { job, number } => self.jobs.get(job).is_some_and(|job| number > job.counts.settled),
            Wanted::Failure { body } => self.jobs.failed_bodies.contains_key(&body),
        };
        if is_lost {
            self.out.put(Lsn::NONE, Output::Lost(lsn));
        }
    }

    /// Whoever was to get this body never will. False: nobody was. Looks through what workers hold; rare.
    fn fail_bodiless(&mut self, body: Lsn) -> bool {
        let held = (0..self.workers.count()).map(WorkerNo).flat_map(|no| self.held_by(no));
        let of_it = held.filter(|ix| self.tasks.row(*ix).body == body).collect::<Vec<_>>();
        let is_wanted = !of_it.is_empty();
        for ix in of_it {
            let message =
                "the record of this row's body is damaged in the router's journal: submit it again in another job";
            let failure = Failure::new(Class::Error, message);
            self.finish(ix, WorkerNo::NONE, self.fence(ix), 0, Outcome::Failed(failure));
        }
        is_wanted
    }

    /// What a worker holds, in order of assignment.
    pub(super) fn held_by(&self, no: WorkerNo) -> impl Iterator<Item = Ix> + '_ {
        let end = |ix: &Ix| *ix != Ix::NONE;
        let first = Some(self.workers.worker(no).held.head).filter(end);
        std::iter::successors(first, move |ix| Some(self.tasks.next(*ix)).filter(end))
    }

    /// A task has its outcome.
    pub(super) fn finish(&mut self, ix: Ix, no: WorkerNo, fence: Fence, ms: u64, outcome: Outcome) {
        let row = self.tasks.row(ix);
        if row.spot == Spot::Assigned && self.fence(ix) != fence {
            self.cancel_attempt(ix);
        }
        let row = self.tasks.row(ix);
        let (key, submitted, body_len) = (row.key, row.body, row.len);
        let attempts = self.tasks.cold(ix).ended + 1;
        let mut deliveries = SmallVec::<[Delivery; 1]>::new();
        for asker in self.tasks.askers(ix) {
            let given = deliveries.iter().filter(|delivery| delivery.job == asker.job).count() as u64;
            let number = self.jobs.job(asker.job).counts.last_number + 1 + given;
            deliveries.push(Delivery { job: asker.job, row: asker.row, number });
        }
        self.note(no, ms, &outcome);
        let worker = if no == WorkerNo::NONE { ByteString::new() } else { self.workers.worker(no).name.clone() };
        let finished = Finished { key, submitted, body_len, attempts, worker, ms, outcome, deliveries };
        self.write(Record::Finished(finished));
    }

    /// Counts an outcome, and how long it took where a worker says so.
    fn note(&mut self, no: WorkerNo, ms: u64, outcome: &Outcome) {
        let class = if let Outcome::Failed(failure) = outcome { Some(failure.class) } else { None };
        self.totals.note_outcome(class);
        if no != WorkerNo::NONE {
            self.totals.note_length(ms);
            self.resulted = Some(self.time.now);
        }
    }

    /// Ends the attempt that a task is held under: nobody wants it any more.
    pub(super) fn cancel_attempt(&mut self, ix: Ix) {
        let (fence, no) = (self.fence(ix), self.tasks.row(ix).worker);
        if let Some(peer) = self.workers.worker(no).link.peer {
            self.send(peer, Lsn::NONE, Outbound::Worker(ToWorker::Cancel(vec![fence])), None);
        }
    }
}
