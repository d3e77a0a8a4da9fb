//! Results to clients, in order of their numbers, as fast as the sinks commit them.
//!
//! It deliberately knows no bodies: a result is a number and the record that gave it. Invariants: at most
//! `deliver_messages_max` messages of a job are uncommitted; a job's cursor moves only by what its sink committed.

use sheaf_session::Micros;
use sheaf_task::{BATCH_BYTES_AIM, BATCH_ROWS_MAX, JobCounts, JobId, Piece, ToClient};

use super::Router;
use super::event::{DeliverItem, Lsn, Outbound, Output, PeerId, Tag};
use super::limits::PROGRESS_MS;
use super::record::{JobNo, Record};
use super::workers::Sent;

impl Router {
    /// Sends what the clients' credit allows.
    pub(super) fn deliver(&mut self) {
        let mut budget = self.config.limits.slice_max;
        while budget > 0
            && let Some(no) = self.jobs.dirty.first().copied()
        {
            if !self.deliver_once(no, &mut budget) {
                self.jobs.dirty.remove(&no);
            }
        }
    }

    /// One message of a job. False when there is nothing to send, or nobody to send it to.
    fn deliver_once(&mut self, no: JobNo, budget: &mut u32) -> bool {
        let max = self.config.limits.deliver_messages_max;
        let job = self.jobs.job(no);
        let Some(client) = job.client.filter(|client| client.unacked < max) else { return false };
        let items = self.next_items(no, client.sent);
        let Some(last) = items.last().copied() else { return false };
        let (gate, job_id) = (last.record.max(job.records.opened), job.spec.job);
        *budget = budget.saturating_sub(items.len() as u32);
        if let Some(client) = &mut self.jobs.job_mut(no).client {
            client.sent = last.number;
            client.unacked += 1;
        }
        let message = Outbound::Deliver { job: job_id, job_no: no, items };
        self.send(client.peer, gate, message, Some(Sent::Deliver(no, last.number)));
        true
    }

    /// The client of a job watches its answers come, for as long as it has the job open.
    pub(super) fn on_watch(&mut self, peer: PeerId, job: JobId) {
        if let Some(no) = self.job_of(peer, job)
            && let Some(client) = &mut self.jobs.job_mut(no).client
        {
            client.watches = true;
        }
    }

    /// A piece of an answer goes on to whoever asked first, if that one watches. It rests on nothing, and nothing on it.
    pub(super) fn on_piece(&mut self, peer: PeerId, piece: Piece) {
        let Some(no) = self.peers.get(&peer).and_then(|peer| peer.worker) else { return };
        let Some(ix) = self.present(&piece.fence, no) else { return };
        let (row, job) = (self.tasks.row(ix).row, self.jobs.job(self.tasks.row(ix).job));
        let Some(client) = job.client.filter(|client| client.watches) else { return };
        let message = ToClient::Piece { job: job.spec.job, row, piece };
        self.send(client.peer, Lsn::NONE, Outbound::client(message), None);
    }

    fn next_items(&self, no: JobNo, sent: u64) -> Vec<DeliverItem> {
        let numbers = &self.jobs.job(no).numbers;
        let (mut items, mut bytes) = (Vec::new(), 0);
        while items.len() < BATCH_ROWS_MAX
            && let Some(item) = numbers.get(sent + 1 + items.len() as u64)
        {
            bytes += item.len as usize;
            if bytes > BATCH_BYTES_AIM && !items.is_empty() {
                break;
            }
            items.push(item);
        }
        items
    }

    /// A peer has committed bulk messages: a sink has results, or a worker knows its attempts.
    pub(super) fn on_acked(&mut self, id: PeerId, upto: Tag) {
        let mut settled = std::collections::BTreeMap::<JobNo, (u64, u32)>::new();
        let Some(peer) = self.peers.get_mut(&id) else { return };
        while let Some((tag, _)) = peer.unacked.front() {
            if *tag > upto {
                break;
            }
            match peer.unacked.pop_front() {
                Some((_, Sent::Deliver(job, number))) => {
                    let entry = settled.entry(job).or_default();
                    *entry = (number, entry.1 + 1);
                }
                Some((_, Sent::Assign(_))) | None => {}
            }
        }
        // A job that another session has settled since may have left.
        settled.retain(|no, _| self.jobs.get(*no).is_some());
        for (no, (number, messages)) in settled {
            if let Some(client) = self.jobs.job_mut(no).client.as_mut().filter(|client| client.peer == id) {
                // Opened again meanwhile, the job counts anew while acknowledgements of before still come.
                client.unacked = client.unacked.saturating_sub(messages);
            }
            self.settle(no, number);
            self.jobs.dirty.insert(no);
        }
    }

    /// The sink has everything up to `number`.
    pub(super) fn settle(&mut self, no: JobNo, number: u64) {
        let counts = self.jobs.job(no).counts;
        if number > counts.settled {
            self.write(Record::Settled { job: no, counts: JobCounts { settled: number, ..counts } });
        }
    }

    /// Where a job stands now.
    pub(super) fn counts_of(&self, no: JobNo) -> JobCounts {
        let job = self.jobs.job(no);
        let is_unserved = self.workers.service(job.service).workers == 0;
        let unserved = if is_unserved { job.counts.open } else { 0 };
        JobCounts { running: job.ready.running, unserved, ..job.counts }
    }

    /// Tells clients how their jobs stand, where that changed.
    pub(super) fn signal_progress(&mut self) {
        let due = self.time.now.since(Micros::from_ms(PROGRESS_MS));
        let mut signals = Vec::new();
        for (id, peer) in &self.peers {
            let Some(no) = peer.jobs.last().copied().filter(|_| peer.up) else { continue };
            let counts = self.counts_of(no);
            let told = self.jobs.job(no).client.map(|client| client.signalled);
            if told.is_some_and(|(when, what)| when <= due && what != counts) {
                signals.push((*id, no, counts, self.jobs.job(no).records.counted));
            }
        }
        for (peer, no, counts, gate) in signals {
            if let Some(client) = &mut self.jobs.job_mut(no).client {
                client.signalled = (self.time.now, counts);
            }
            self.out.put(gate, Output::Signal { peer, counts });
        }
    }
}
