//! Which worker: two chosen at random among those with room, the less loaded one wins; and nothing waits behind a slow
//! worker while a fast one is free.
//!
//! It deliberately trusts no announcement beyond `Limits::capacity_max`, and counts what is outstanding itself.

use sheaf_task::{Capacity, FENCES_MAX, Fence, ToWorker};

use super::event::{Lsn, Outbound, PeerId};
use super::queue::End;
use super::slab::{ENDED, Ix};
use super::workers::{Recall, ServiceNo, Worker, WorkerNo};
use super::{Mode, Router};

impl Router {
    /// A worker of the service that has room.
    pub(super) fn choose_worker(&mut self, service: ServiceNo) -> Option<WorkerNo> {
        let count = self.workers.service(service).room.len() as u64;
        if count <= 1 {
            return self.workers.service(service).room.first().copied();
        }
        let first = self.rng.below(count);
        let second = (first + 1 + self.rng.below(count - 1)) % count;
        let room = &self.workers.service(service).room;
        let (a, b) = (room[first as usize], room[second as usize]);
        Some(if is_less_loaded(self.workers.worker(b), self.workers.worker(a)) { b } else { a })
    }

    /// How much of what is ready one message should take: a batch (or a good part of what may wait, where that is more),
    /// but not more than leaves as much for every other worker with room.
    pub(super) fn share(&self, service: ServiceNo, no: WorkerNo) -> u32 {
        let room = self.workers.service(service).room.len().max(1) as u32;
        let ready = self.workers.service(service).ready;
        let worker = self.workers.worker(no);
        let batch = worker.capacity.batch.max(worker.allowed().div_ceil(4));
        batch.min(ready.div_ceil(room)).max(1)
    }

    pub(super) fn on_announce(&mut self, peer: PeerId, capacity: Capacity) {
        self.hear(peer);
        let Some(no) = self.peers.get(&peer).and_then(|peer| peer.worker) else { return };
        self.workers.worker_mut(no).capacity = self.clamp(capacity);
        self.room_changed(no);
    }

    /// What is believed of an announcement.
    pub(super) fn clamp(&self, capacity: Capacity) -> Capacity {
        let max = self.config.limits.capacity_max;
        Capacity { batch: capacity.batch.min(max), depth: capacity.depth.min(max), bytes: capacity.bytes }
    }

    /// A worker's room changed from outside: its services may have something for it.
    pub(super) fn room_changed(&mut self, no: WorkerNo) {
        self.workers.room_changed(no);
        self.workers_active.extend(self.workers.worker(no).services.iter().copied());
    }

    /// Where nothing is ready and a worker is free, asks for what waits behind another one.
    pub(super) fn recall(&mut self) {
        if self.mode.0 != Mode::Running {
            return;
        }
        for service in 0..self.workers.service_count() {
            let service = ServiceNo(service);
            if !self.workers.service(service).behind.is_empty() && !self.workers.service(service).has_ready() {
                self.recall_for(service);
            }
        }
    }

    fn recall_for(&mut self, service: ServiceNo) {
        let (room, behind) = (&self.workers.service(service).room, &self.workers.service(service).behind);
        let free = |no: &WorkerNo| {
            let worker = self.workers.worker(*no);
            worker.capacity.batch.saturating_sub(worker.outstanding())
        };
        let idle = room.iter().take(LOOKED_AT).map(free).max().unwrap_or(0);
        let busiest = behind.iter().take(LOOKED_AT).copied().max_by_key(|no| self.workers.worker(*no).waiting());
        let Some(from) = busiest.filter(|_| idle > 0) else { return };
        let worker = self.workers.worker(from);
        let count = worker.waiting().min(idle).min(self.config.limits.slice_max).min(FENCES_MAX as u32);
        let mut fences = Vec::new();
        let mut at = worker.held.tail;
        while at != Ix::NONE && (fences.len() as u32) < count {
            if self.jobs.job(self.tasks.row(at).job).service == service {
                fences.push(self.fence(at));
            }
            at = self.tasks.prev(at);
        }
        let Some(peer) = worker.link.peer.filter(|_| !fences.is_empty()) else { return };
        self.workers.worker_mut(from).recall = Recall::Asked;
        self.workers.room_changed(from);
        self.totals.recalled += fences.len() as u64;
        self.send(peer, Lsn::NONE, Outbound::Worker(ToWorker::Recall(fences)), None);
    }

    /// Attempts that a worker gives back unstarted: they never were.
    pub(super) fn on_recalled(&mut self, peer: PeerId, fences: &[Fence]) {
        let Some(no) = self.peers.get(&peer).and_then(|peer| peer.worker) else { return };
        self.workers.worker_mut(no).recall = if fences.is_empty() { Recall::Futile } else { Recall::Idle };
        for fence in fences {
            if let Some(ix) = self.present(fence, no) {
                self.detach(ix);
                self.tasks.row_mut(ix).attempt = ENDED;
                self.enqueue(ix, End::Front);
            }
        }
        self.room_changed(no);
    }
}

/// Fewer tasks for its batch, with the one that comes.
fn is_less_loaded(a: &Worker, b: &Worker) -> bool {
    let load = |worker: &Worker| u64::from(worker.outstanding() + 1);
    load(a) * u64::from(b.capacity.batch.max(1)) < load(b) * u64::from(a.capacity.batch.max(1))
}

/// Workers that one recall looks at, of the free and of the loaded.
const LOOKED_AT: usize = 16;
