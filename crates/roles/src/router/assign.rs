//! Attempts: a ready task becomes a worker's, and what is a worker's ends to be so.
//!
//! It deliberately chooses neither worker (`balance`) nor task (`queue`). Invariants: a task is in exactly one place;
//! a worker never holds more than its batch + depth; the key, the epoch and the attempt name an attempt for ever.

use sheaf_session::Micros;
use sheaf_task::{BATCH_BYTES_AIM, BATCH_ROWS_MAX, Fence};

use super::event::{AssignItem, Lsn, Outbound};
use super::record::JobNo;
use super::slab::{ENDED, Ix, Moment, Spot};
use super::workers::{Sent, ServiceNo, WorkerNo};
use super::{Mode, Router};

impl Router {
    /// Hands out what is ready to whoever has room, a slice at a time.
    pub(super) fn dispatch(&mut self) {
        if self.mode.0 != Mode::Running {
            return;
        }
        let mut budget = self.config.limits.slice_max;
        let mut from = None;
        while let Some(service) = self.next_active(from) {
            if !self.workers.service(service).has_ready() {
                self.workers_active.remove(&service);
            }
            while budget > 0 && self.assign_once(service, &mut budget) {}
            from = Some(service);
        }
    }

    fn next_active(&self, after: Option<ServiceNo>) -> Option<ServiceNo> {
        let from = after.map_or(ServiceNo(0), |service| ServiceNo(service.0 + 1));
        self.workers_active.range(from..).next().copied()
    }

    /// One worker gets one message. False when nothing more can be handed out.
    fn assign_once(&mut self, service: ServiceNo, budget: &mut u32) -> bool {
        if !self.workers.service(service).has_ready() {
            return false;
        }
        let Some((no, room)) = self.choose_worker(service) else { return false };
        if self.workers.service(service).suspects.len > 0 && !self.workers.worker(no).suspect {
            let ix = self.workers.service(service).suspects.head;
            self.detach(ix);
            self.workers.worker_mut(no).suspect = true;
            self.assign(service, no, &[ix], true);
            *budget = budget.saturating_sub(1);
            return true;
        }
        let share = self.share(service, no, room).min(*budget);
        let worker = self.workers.worker(no);
        let mut bytes = BATCH_BYTES_AIM as u64;
        if worker.capacity.bytes > 0 {
            bytes = bytes.min(worker.capacity.bytes.saturating_sub(worker.held_bytes));
        }
        let taken = self.take_ready(service, share.min(BATCH_ROWS_MAX as u32), bytes);
        if taken.is_empty() {
            return false;
        }
        *budget = budget.saturating_sub(taken.len() as u32);
        self.assign(service, no, &taken, false);
        true
    }

    /// Tasks that are nowhere become attempts of a worker.
    fn assign(&mut self, service: ServiceNo, no: WorkerNo, taken: &[Ix], alone: bool) {
        let mut gate = self.workers.worker(no).registered.unwrap_or(Lsn::NONE);
        let mut items = Vec::with_capacity(taken.len());
        let mut sent = Vec::with_capacity(taken.len());
        for ix in taken.iter().copied() {
            gate = gate.max(self.tasks.gate(ix));
            let attempt = self.next_attempt();
            let before = std::mem::replace(&mut self.tasks.row_mut(ix).attempt, attempt);
            self.totals.redelivered += u64::from(before != 0 && before != ENDED);
            if self.tasks.row(ix).cold {
                self.tasks.cold_mut(ix).adopted = None;
            }
            self.hold(ix, no);
            let row = self.tasks.row(ix);
            let fence = Fence { key: row.key, epoch: self.config.epoch, attempt };
            let timeout_ms = self.jobs.job(row.job).spec.options.timeout_ms;
            items.push(AssignItem { fence, timeout_ms, alone, body: row.body, len: row.len });
            sent.push((ix, attempt));
        }
        self.totals.assigned += taken.len() as u64;
        let Some(peer) = self.workers.worker(no).link.peer else { return };
        let message = Outbound::Assign { service: self.workers.service(service).name.clone(), items };
        self.send(peer, gate, message, Some(Sent::Assign(sent)));
    }

    /// Counted over all tasks, so that a task which is finished, forgotten and submitted again never repeats a fence.
    fn next_attempt(&mut self) -> u32 {
        self.attempt = if self.attempt + 1 == ENDED { 1 } else { self.attempt + 1 };
        self.attempt
    }

    /// A task that is nowhere is held by a worker from now on.
    pub(super) fn hold(&mut self, ix: Ix, no: WorkerNo) {
        let now = self.time.now;
        let row = self.tasks.row_mut(ix);
        assert!(row.spot == Spot::Idle, "a task is in one place at a time");
        (row.spot, row.worker, row.since) = (Spot::Assigned, no, Moment::of(now));
        let (len, job) = (u64::from(row.len), row.job);
        let worker = self.workers.worker_mut(no);
        self.tasks.push_back(&mut worker.held, ix);
        worker.held_bytes += len;
        self.jobs.job_mut(job).ready.running += 1;
        self.workers.room_changed(no);
    }

    fn let_go(&mut self, ix: Ix) {
        let row = self.tasks.row(ix);
        let (no, len, job) = (row.worker, u64::from(row.len), row.job);
        let suspect = self.tasks.cold(ix).deaths > 0;
        let worker = self.workers.worker_mut(no);
        self.tasks.unlink(&mut worker.held, ix);
        worker.held_bytes -= len;
        worker.suspect &= !suspect;
        self.tasks.row_mut(ix).worker = WorkerNo::NONE;
        self.jobs.job_mut(job).ready.running -= 1;
        self.workers.room_changed(no);
    }

    /// Takes a task out of wherever it is.
    pub(super) fn detach(&mut self, ix: Ix) {
        match self.tasks.row(ix).spot {
            Spot::Idle | Spot::Backoff => {}
            Spot::Withheld => {
                let mut withheld = self.tasks.withheld;
                self.tasks.unlink(&mut withheld, ix);
                self.tasks.withheld = withheld;
            }
            Spot::Ready => self.unqueue(ix),
            Spot::Suspect => {
                let service = self.jobs.job(self.tasks.row(ix).job).service;
                self.tasks.unlink(&mut self.workers.service_mut(service).suspects, ix);
            }
            Spot::Assigned => self.let_go(ix),
        }
        self.tasks.row_mut(ix).spot = Spot::Idle;
    }

    /// The task's first row is another job's from now on. What was in the first job's queue is nowhere afterwards.
    pub(super) fn bequeath(&mut self, ix: Ix, heir: JobNo) {
        match self.tasks.row(ix).spot {
            Spot::Ready => self.unqueue(ix),
            Spot::Assigned => {
                self.jobs.job_mut(self.tasks.row(ix).job).ready.running -= 1;
                self.jobs.job_mut(heir).ready.running += 1;
            }
            Spot::Idle | Spot::Withheld | Spot::Suspect | Spot::Backoff => {}
        }
        self.tasks.row_mut(ix).job = heir;
    }

    /// The attempt that a held task is held under.
    pub(super) fn fence(&self, ix: Ix) -> Fence {
        let row = self.tasks.row(ix);
        let (epoch, attempt) = self.tasks.cold(ix).adopted.unwrap_or((self.config.epoch, row.attempt));
        Fence { key: row.key, epoch, attempt }
    }

    /// The open task that a fence names, if this is its present attempt with this worker.
    pub(super) fn present(&self, fence: &Fence, no: WorkerNo) -> Option<Ix> {
        let ix = self.tasks.find(fence.key)?;
        let row = self.tasks.row(ix);
        let held = row.spot == Spot::Assigned && row.worker == no;
        (held && self.fence(ix) == *fence).then_some(ix)
    }

    /// How long a held task has been held.
    pub(super) fn held_for(&self, ix: Ix) -> Micros {
        self.tasks.row(ix).since.age(self.time.now)
    }
}
