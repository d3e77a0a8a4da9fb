//! Workers introduce themselves, and say what they still hold.
//!
//! Invariants: an attempt stays with the worker that runs it, across restarts of the router, unless another attempt has
//! started; what a worker neither holds nor will still receive goes back to the queue.

use std::collections::BTreeSet;

use sheaf_task::{Fence, NAME_BYTES_MAX, Refusal, Registration, SERVICES_MAX, ToWorker};

use super::Router;
use super::event::{Lsn, Outbound, PeerId};
use super::queue::End;
use super::record::{Ended, Record, Registered};
use super::slab::{Ix, Spot};
use super::workers::{Recall, Sent, WorkerNo};

impl Router {
    pub(super) fn on_register(&mut self, peer: PeerId, registration: Registration) -> Lsn {
        let no = match self.admit_worker(&registration) {
            Ok(no) => no,
            Err(refusal) => {
                self.send(peer, Lsn::NONE, Outbound::Worker(ToWorker::Refused(refusal)), None);
                return Lsn::NONE;
            }
        };
        let coming = self.coming(peer, no);
        self.bind(peer, no);
        self.workers.worker_mut(no).capacity = self.clamp(registration.capacity);
        // A death that was reported before, or to a router that has died since, must not end what was begun after it.
        let later = |held: &Fence, dead: &Fence| {
            held.key == dead.key && (held.epoch, held.attempt) > (dead.epoch, dead.attempt)
        };
        for dead in &registration.died_with {
            if !registration.holding.iter().any(|held| later(held, dead)) {
                self.on_died_with(no, dead);
            }
        }
        let (keep, drop) = self.judge_held(no, registration.holding);
        let kept = keep.iter().filter_map(|fence| self.tasks.find(fence.key)).collect::<BTreeSet<_>>();
        self.reclaim(no, |ix| !kept.contains(&ix) && !coming.contains(&ix));
        self.room_changed(no);
        let gate = self.out.written();
        let incarnation = registration.incarnation;
        let message = ToWorker::Registered { incarnation, router: self.config.router, keep, drop };
        self.send(peer, gate, Outbound::Worker(message), None);
        gate
    }

    /// The worker on record, as it describes itself. An earlier life of it is told so: it may be a late word, which the
    /// later life passes over, or an old copy of the directory, which would wait for work for ever.
    #[expect(clippy::expect_used, reason = "a registration that was applied is found")]
    fn admit_worker(&mut self, registration: &Registration) -> Result<WorkerNo, Refusal> {
        let Registration { worker, incarnation, name, services, .. } = registration;
        let longest = services.iter().map(String::len).chain([name.len()]).max().unwrap_or(0);
        if longest > NAME_BYTES_MAX {
            return Err(Refusal::TooLong { len: longest as u64, max: NAME_BYTES_MAX as u64 });
        }
        if services.len() > SERVICES_MAX {
            return Err(Refusal::TooLong { len: services.len() as u64, max: SERVICES_MAX as u64 });
        }
        let services = services.iter().cloned().collect::<BTreeSet<_>>().into_iter().collect::<Vec<_>>();
        let known = self.workers.find(*worker);
        if let Some(no) = known {
            let on_record = self.workers.worker(no);
            if on_record.incarnation > *incarnation {
                return Err(Refusal::Superseded { incarnation: on_record.incarnation });
            }
            let mut before = on_record.services.iter().map(|no| &self.workers.service(*no).name).collect::<Vec<_>>();
            before.sort();
            let same = on_record.incarnation == *incarnation && on_record.name == *name;
            if same && on_record.registered.is_some() && before.into_iter().eq(&services) {
                return Ok(no);
            }
        }
        let fresh = services.iter().filter(|name| self.workers.service_of(name).is_none()).count() as u32;
        let limits = &self.config.limits;
        let new = known.is_none_or(|no| self.workers.worker(no).registered.is_none());
        if (new && self.workers.registered >= limits.workers_max)
            || self.workers.service_count() + fresh > limits.services_max
        {
            return Err(Refusal::Busy { retry_ms: limits.busy_retry_ms });
        }
        let (worker, incarnation, name) = (*worker, *incarnation, name.clone());
        self.write(Record::Registered(Registered { worker, incarnation, name, services }));
        Ok(self.workers.find(worker).expect("it is on record now"))
    }

    /// Attempts that the session will still bring to the worker: it did not acknowledge their messages.
    fn coming(&self, id: PeerId, no: WorkerNo) -> BTreeSet<Ix> {
        let Some(peer) = self.peers.get(&id).filter(|peer| peer.worker == Some(no)) else { return BTreeSet::new() };
        let mut coming = BTreeSet::new();
        for (_, sent) in &peer.unacked {
            let Sent::Assign(attempts) = sent else { continue };
            let present = |(ix, attempt): &&(Ix, u32)| {
                self.tasks.used(*ix) && self.tasks.row(*ix).attempt == *attempt && self.tasks.row(*ix).worker == no
            };
            coming.extend(attempts.iter().filter(present).map(|(ix, _)| *ix));
        }
        coming
    }

    /// The worker speaks through this session from now on.
    fn bind(&mut self, peer: PeerId, no: WorkerNo) {
        let before = self.workers.worker(no).link.peer.filter(|before| *before != peer);
        if let Some(before) = before.and_then(|before| self.peers.get_mut(&before)) {
            before.worker = None;
        }
        if let Some(other) = self.peers.get(&peer).and_then(|peer| peer.worker).filter(|other| *other != no) {
            self.workers.worker_mut(other).link.peer = None;
            self.workers.room_changed(other);
        }
        let mut up = false;
        if let Some(peer) = self.peers.get_mut(&peer) {
            peer.worker = Some(no);
            up = peer.up;
        }
        let heard = self.time.lease();
        let worker = self.workers.worker_mut(no);
        worker.recall = Recall::Idle;
        worker.link.peer = Some(peer);
        (worker.link.up, worker.link.resumed, worker.link.lost, worker.link.heard) = (up, true, false, heard);
        worker.link.lost_with = Vec::new();
        self.restart.resumed(no);
    }

    /// Of what a worker holds: what is still wanted of it, and what is not.
    pub(super) fn judge_held(&mut self, no: WorkerNo, holding: Vec<Fence>) -> (Vec<Fence>, Vec<Fence>) {
        holding.into_iter().partition(|fence| self.keep(no, fence))
    }

    fn keep(&mut self, no: WorkerNo, fence: &Fence) -> bool {
        let Some(ix) = self.tasks.find(fence.key) else { return false };
        match self.tasks.row(ix).spot {
            Spot::Assigned => self.present(fence, no).is_some(),
            Spot::Withheld | Spot::Ready | Spot::Suspect if self.is_latest(ix, fence) => {
                self.adopt(ix, no, fence);
                true
            }
            Spot::Withheld | Spot::Ready | Spot::Suspect | Spot::Backoff | Spot::Idle => false,
        }
    }

    /// An attempt that the router had given up, or forgot in a restart, is its worker's again.
    fn adopt(&mut self, ix: Ix, no: WorkerNo, fence: &Fence) {
        self.detach(ix);
        self.hold(ix, no);
        if fence.epoch != self.config.epoch {
            self.tasks.cold_mut(ix).adopted = Some((fence.epoch, fence.attempt));
        }
        if self.tasks.cold(ix).deaths > 0 {
            self.workers.worker_mut(no).suspect = true;
        }
    }

    /// Takes back what a worker holds, where `is_gone` says so.
    pub(super) fn reclaim(&mut self, no: WorkerNo, is_gone: impl Fn(Ix) -> bool) {
        let gone = self.held_by(no).filter(|ix| is_gone(*ix)).collect::<Vec<_>>();
        // From the last to the first: each goes before all others.
        for ix in gone.into_iter().rev() {
            self.detach(ix);
            let (key, job) = (self.tasks.row(ix).key, self.tasks.row(ix).job);
            self.write(Record::Ended(Ended { key, job, class: None, attempt: (0, 0), suspect: false, counts: false }));
            self.enqueue(ix, End::Front);
        }
    }

    /// The worker has nothing left to do here.
    pub(super) fn on_leave(&mut self, peer: PeerId) -> Lsn {
        let Some(no) = self.peers.get(&peer).and_then(|peer| peer.worker) else { return Lsn::NONE };
        self.reclaim(no, |_| true);
        self.forget_worker(no)
    }

    /// The worker is not expected back.
    pub(super) fn forget_worker(&mut self, no: WorkerNo) -> Lsn {
        if let Some(peer) = self.workers.worker_mut(no).link.peer.take()
            && let Some(peer) = self.peers.get_mut(&peer)
        {
            peer.worker = None;
        }
        self.workers.room_changed(no);
        self.restart.resumed(no);
        let worker = self.workers.worker(no).id;
        self.write(Record::Left { worker })
    }
}
