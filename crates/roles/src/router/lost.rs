//! Peers come and go; a worker that is silent past the grace is lost, and what it held is ready again.
//!
//! It deliberately judges only on `Tick`, which shells send after pending input, and on the clock of leases, which stands
//! still while the router slept. Invariant: a silence shorter than the grace re-runs nothing.

use std::collections::BTreeSet;

use sheaf_session::Micros;
use sheaf_task::ToWorker;

use super::Router;
use super::event::{Lsn, Outbound, PeerId};
use super::limits::FORGET_WORKER_MS;
use super::queue::End;
use super::record::Record;
use super::slab::{Ix, Spot, Tasks};
use super::workers::{Recall, WorkerNo};

/// After a restart: open tasks are withheld until every registered worker has spoken, or the grace has passed.
#[derive(Debug, Default)]
pub(super) struct Restart {
    waiting: BTreeSet<WorkerNo>,
    /// On the clock of leases.
    until: Micros,
}

impl Restart {
    /// This worker has spoken, or will not.
    pub(super) fn resumed(&mut self, no: WorkerNo) {
        self.waiting.remove(&no);
    }

    /// Nobody is waited for, and tasks are still to be released.
    pub(super) fn is_releasing(&self, tasks: &Tasks) -> bool {
        self.waiting.is_empty() && tasks.withheld.len > 0
    }

    /// How long tasks may still be withheld.
    pub(super) fn left(&self, lease: Micros) -> Micros {
        self.until.since(lease)
    }
}

impl Router {
    /// Everything that was open at the restart is withheld.
    pub(super) fn withhold(&mut self) {
        for ix in (0..self.tasks.end()).map(Ix) {
            if self.tasks.used(ix) {
                self.tasks.row_mut(ix).spot = Spot::Withheld;
                let mut withheld = self.tasks.withheld;
                self.tasks.push_back(&mut withheld, ix);
                self.tasks.withheld = withheld;
            }
        }
        let lease = self.time.lease();
        self.restart.until = lease + self.config.grace;
        self.restart.waiting =
            self.workers.iter().filter(|(_, worker)| worker.registered.is_some()).map(|(no, _)| no).collect();
        #[cfg(feature = "mutations")]
        if self.config.mutation == Some(super::Mutation::NoWithhold) {
            self.restart.waiting.clear();
        }
        for no in (0..self.workers.count()).map(WorkerNo) {
            self.workers.worker_mut(no).link.heard = lease;
        }
    }

    /// Releases a slice of what is withheld, once nobody is waited for.
    pub(super) fn release_withheld(&mut self) {
        if self.time.lease() >= self.restart.until {
            self.restart.waiting.clear();
        }
        let mut budget = self.config.limits.slice_max;
        while budget > 0 && self.restart.is_releasing(&self.tasks) {
            let ix = self.tasks.withheld.head;
            self.detach(ix);
            self.enqueue(ix, End::Back);
            budget -= 1;
        }
    }

    pub(super) fn on_peer_up(&mut self, id: PeerId) {
        self.peers.entry(id).or_default().up = true;
        self.hear(id);
        self.set_link(id, true);
        if let Some(jobs) = self.peers.get(&id).map(|peer| peer.jobs.clone()) {
            self.jobs.dirty.extend(jobs);
        }
    }

    pub(super) fn on_peer_down(&mut self, id: PeerId) {
        if let Some(peer) = self.peers.get_mut(&id) {
            peer.up = false;
        }
        self.set_link(id, false);
    }

    fn set_link(&mut self, id: PeerId, up: bool) {
        if let Some(no) = self.peers.get(&id).and_then(|peer| peer.worker) {
            self.workers.worker_mut(no).link.up = up;
            self.room_changed(no);
        }
    }

    pub(super) fn on_peer_gone(&mut self, id: PeerId) {
        self.set_link(id, false);
        let Some(peer) = self.peers.remove(&id) else { return };
        for no in peer.jobs {
            let client = &mut self.jobs.job_mut(no).client;
            if client.is_some_and(|client| client.peer == id) {
                *client = None;
            }
        }
        if let Some(no) = peer.worker {
            self.workers.worker_mut(no).link.peer = None;
            self.room_changed(no);
        }
        if let Some(session) = peer.session {
            self.write(Record::Forgotten { session });
        }
    }

    /// The peer was heard now.
    pub(super) fn hear(&mut self, peer: PeerId) {
        self.on_heard(peer, self.time.now);
    }

    pub(super) fn on_heard(&mut self, peer: PeerId, at: Micros) {
        let Some(no) = self.peers.get(&peer).and_then(|peer| peer.worker) else { return };
        let lease = at.min(self.time.now).since(self.time.slept);
        let is_fresh = self.time.lease().since(lease) <= self.grace();
        let link = &mut self.workers.worker_mut(no).link;
        link.heard = link.heard.max(lease);
        if link.lost && is_fresh {
            self.on_found(no, peer);
        }
    }

    /// A lost worker is back, with what it held: it keeps what nobody else was given.
    fn on_found(&mut self, no: WorkerNo, peer: PeerId) {
        let link = &mut self.workers.worker_mut(no).link;
        link.lost = false;
        let held = std::mem::take(&mut link.lost_with);
        let (_, drop) = self.judge_held(no, held);
        if !drop.is_empty() {
            self.send(peer, Lsn::NONE, Outbound::Worker(ToWorker::Cancel(drop)), None);
        }
        self.room_changed(no);
    }

    fn grace(&self) -> Micros {
        #[cfg(feature = "mutations")]
        if self.config.mutation == Some(super::Mutation::NoGrace) {
            return Micros::from_secs(1);
        }
        self.config.grace
    }

    /// Declares lost who was silent too long, forgets who was lost too long, and ends quarantines. When many fall silent at
    /// once, a slice of what they hold is made ready at each tick: the others are lost a tick later.
    pub(super) fn judge_silence(&mut self) {
        let (lease, grace) = (self.time.lease(), self.grace());
        let forget = grace + Micros::from_ms(FORGET_WORKER_MS);
        let mut budget = self.config.limits.slice_max;
        for no in (0..self.workers.count()).map(WorkerNo) {
            let worker = self.workers.worker(no);
            if worker.registered.is_none() {
                continue;
            }
            let silent = lease.since(worker.link.heard);
            if worker.quarantine.is_some_and(|until| until <= self.time.now) {
                self.workers.worker_mut(no).quarantine = None;
                self.room_changed(no);
            }
            if silent > grace && !self.workers.worker(no).link.lost {
                if budget > 0 {
                    budget = budget.saturating_sub(self.workers.worker(no).outstanding().max(1));
                    self.on_lost(no);
                }
            } else if silent > forget && self.workers.worker(no).link.peer.is_none() {
                self.forget_worker(no);
            }
        }
    }

    /// The worker was silent past the grace: what it held is ready again. Should it come back, it may yet keep it.
    fn on_lost(&mut self, no: WorkerNo) {
        let fences = self.held_by(no).map(|ix| self.fence(ix)).collect();
        self.totals.lost += 1;
        let link = &mut self.workers.worker_mut(no).link;
        (link.lost, link.lost_with) = (true, fences);
        self.workers.worker_mut(no).recall = Recall::Idle;
        self.workers.room_changed(no);
        self.reclaim(no, |_| true);
        self.restart.resumed(no);
    }
}
