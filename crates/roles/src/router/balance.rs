//! Which worker: two chosen at random among those with room, the less loaded one wins; and nothing waits behind a slow
//! worker while a fast one is free.
//!
//! It deliberately trusts no announcement beyond `Limits::capacity_max`, and counts what is outstanding itself.

use sheaf_task::{Capacity, FENCES_MAX, Fence, ToWorker};

use super::event::{Lsn, Outbound, PeerId};
use super::jobs::Job;
use super::queue::{End, Service};
use super::slab::{ENDED, Ix};
use super::workers::{Recall, Room, ServiceNo, Worker, WorkerNo};
use super::{Mode, Router};

impl Router {
    /// A worker of the service that has room, and what for: nobody waits behind another while a worker could start it.
    pub(super) fn choose_worker(&mut self, service: ServiceNo) -> Option<(WorkerNo, Room)> {
        let has_any = |room: &Room| !self.workers.service(service).room[*room as usize].is_empty();
        let room = Room::ALL.into_iter().find(has_any)?;
        let count = self.workers.service(service).room[room as usize].len() as u64;
        let (mut first, mut second) = (0, 0);
        if count > 1 {
            first = self.rng.below(count);
            second = (first + 1 + self.rng.below(count - 1)) % count;
        }
        let list = &self.workers.service(service).room[room as usize];
        let (a, b) = (list[first as usize], list[second as usize]);
        let no = if is_less_loaded(self.workers.worker(b), self.workers.worker(a)) { b } else { a };
        Some((no, room))
    }

    /// How much of what is ready one message should take: all that the worker has room for, but no more than leaves as
    /// much for every other one that would do the same with it. A deep queue so goes out in few messages, a shallow one to
    /// many workers.
    pub(super) fn share(&self, service: ServiceNo, no: WorkerNo, room: Room) -> u32 {
        let others = self.workers.service(service).room[room as usize].len().max(1) as u32;
        let each = self.workers.service(service).ready / others;
        each.clamp(1, self.workers.worker(no).free(room).max(1))
    }

    /// For checkers: a service with a task that waits, and a worker that could start it. Of what lists and queues say it
    /// believes nothing. What waits for its rate, or is to run alone, may wait.
    pub fn neglected(&self) -> Option<String> {
        if self.mode.0 != Mode::Running {
            return None;
        }
        let could_start = |worker: &Worker| worker.can_work() && worker.free(Room::Start) > 0 && worker.has_bytes();
        let waits =
            |job: &Job| job.ready.len > 0 && job.records.cancelled.is_none() && job.spec.options.rate_millihertz == 0;
        let mut idle = self.workers.iter().filter(|(_, worker)| could_start(worker));
        let is_wanted = |service: &ServiceNo| self.jobs.iter().any(|job| job.service == *service && waits(job));
        let service = idle.find_map(|(_, worker)| worker.services.iter().copied().find(is_wanted))?;
        Some(self.workers.service(service).name.clone())
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
        let Service { room, behind, .. } = self.workers.service(service);
        let free = |no: &WorkerNo| self.workers.worker(*no).free(Room::Start);
        let idle = room[Room::Start as usize].iter().take(LOOKED_AT).map(free).max().unwrap_or(0);
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
