//! Intake: jobs are opened, rows become tasks, joins or answers from the journal.
//!
//! It deliberately hashes nothing and reads no journal: keys and look-ups come with the rows. Invariants: a message is
//! committed when everything that it wrote or found is durable; a row of a job gets one outcome, however often it is
//! submitted; what a limit refuses is told to the client, row by row, before its message is committed. A job that was
//! cancelled takes no rows, not even known ones; it is opened as any other, for its client still has to get what is left.

use std::collections::BTreeMap;

use sheaf_session::{Place, Receipt, SessionId};
use sheaf_task::{BODY_BYTES_MAX, JobCounts, JobId, JobSpec, NAME_BYTES_MAX, Refusal, RowId, ToClient};

use super::event::{Disk, Generation, Inbound, KeyedRow, Lsn, Outbound, Output, PeerId};
use super::explain::Found;
use super::jobs::Client;
use super::queue::End;
use super::record::{Cached, Delivery, JobNo, Joined, Opened, Record, Submitted};
use super::slab::Ix;
use super::{Micros, Mode, Router};

/// What became of one row.
enum Taken {
    /// It is a task of its own, by this record.
    New(Lsn),
    /// It is none, for what it asks is known: the acknowledgement waits for this record.
    Rests(Lsn),
    /// Not accepted.
    Refused(Refusal),
}

impl Router {
    pub(super) fn on_message(
        &mut self,
        peer: PeerId,
        place: Place,
        receipt: Option<(SessionId, Receipt)>,
        inbound: Inbound,
    ) {
        if !self.peers.contains_key(&peer) {
            return;
        }
        self.hear(peer);
        if self.must_relook(&inbound) {
            if let Some(peer) = self.peers.get_mut(&peer) {
                peer.relooked.insert(place);
            }
            self.out.put(Lsn::NONE, Output::Relook { peer, place, receipt, inbound: Box::new(inbound) });
            return;
        }
        if let Some(peer) = self.peers.get_mut(&peer) {
            peer.relooked.remove(&place);
        }
        let mut gate = match inbound {
            Inbound::OpenJob { spec, app } => self.on_open_job(peer, spec, app),
            Inbound::Submit { job, cursor, rows, generation: _ } => self.on_submit(peer, job, cursor, rows),
            Inbound::Scanned { job } => self.on_scanned(peer, job),
            Inbound::Ask { id, question, prior, owners, view } => {
                self.on_ask(peer, id, question, Found { prior, owners }, &view)
            }
            Inbound::Register(registration) => self.on_register(peer, registration),
            Inbound::Results(items) => self.on_results(peer, items),
            Inbound::Recalled(fences) => {
                self.on_recalled(peer, &fences);
                Lsn::NONE
            }
            Inbound::Leave => self.on_leave(peer),
            Inbound::Watch { job } => {
                self.on_watch(peer, job);
                Lsn::NONE
            }
            Inbound::Piece(piece) => {
                self.on_piece(peer, piece);
                Lsn::NONE
            }
        };
        if let Some((session, receipt)) = receipt {
            if let Some(peer) = self.peers.get_mut(&peer) {
                peer.session = Some(session);
            }
            gate = self.write(Record::Heard { session, receipt });
        }
        #[cfg(feature = "mutations")]
        if self.config.mutation == Some(super::Mutation::AckBeforeDurable) {
            gate = Lsn::NONE;
        }
        self.out.put(gate, Output::Commit { peer, place });
    }

    /// A row was looked up in an older index, and is not waiting: what it found may be gone, what it missed may be there
    /// by now. That something recent is known of its key does not help: the row's own number may be what was missed.
    fn must_relook(&self, inbound: &Inbound) -> bool {
        let Inbound::Submit { job, cursor: _, rows, generation } = inbound else { return false };
        let Some(no) = self.jobs.find(*job).filter(|_| self.is_stale(*generation)) else { return false };
        let waits = |row: &KeyedRow| self.tasks.find(row.key).is_some_and(|ix| self.waits(ix, no, row.row).is_some());
        !rows.iter().all(waits)
    }

    fn is_stale(&self, generation: Generation) -> bool {
        self.recent.is_stale(generation)
    }

    fn on_open_job(&mut self, peer: PeerId, spec: JobSpec, app: String) -> Lsn {
        match self.open_job(peer, &spec, app) {
            Ok(no) => {
                let job = self.jobs.job(no);
                // That it is scanned, too: a client that ends with this answer must have left a job that can end.
                let scanned = job.records.scanned.unwrap_or(Lsn::NONE);
                let gate = job.records.opened.max(job.records.counted).max(scanned);
                let message = ToClient::JobOpened {
                    job: spec.job,
                    router: self.config.router,
                    cursor: job.counts.settled,
                    counts: self.counts_of(no),
                };
                self.send(peer, gate, Outbound::Opened { job_no: no, message: Box::new(message) }, None);
                gate
            }
            Err(refusal) => {
                let message = ToClient::JobRefused { job: spec.job, refusal };
                self.send(peer, Lsn::NONE, Outbound::client(message), None);
                Lsn::NONE
            }
        }
    }

    fn open_job(&mut self, peer: PeerId, spec: &JobSpec, app: String) -> Result<JobNo, Refusal> {
        if self.mode.0 != Mode::Running {
            return Err(Refusal::Stopping);
        }
        let longest = [spec.name.len(), spec.service.len(), spec.revision.len(), spec.nonce.len(), app.len()];
        let longest = longest.into_iter().max().unwrap_or(0);
        if longest > NAME_BYTES_MAX {
            return Err(Refusal::TooLong { len: longest as u64, max: NAME_BYTES_MAX as u64 });
        }
        let here = spec.cursor_router == Some(self.config.router);
        let cursor = if here { spec.cursor } else { 0 };
        let no = self.known_or_new(spec, app, cursor)?;
        let counts = self.jobs.job(no).counts;
        if counts.last_number == 0 && cursor > 0 && self.jobs.left != Lsn::NONE {
            // The job was here and left: its sink has all that it was told, and numbers go on from there.
            self.write(Record::Settled {
                job: no,
                counts: JobCounts { settled: cursor, last_number: cursor, ..counts },
            });
        } else if cursor > counts.last_number {
            return Err(Refusal::CursorAhead { last: counts.last_number });
        }
        self.settle(no, cursor);
        self.take_client(no, peer);
        Ok(no)
    }

    fn known_or_new(&mut self, spec: &JobSpec, app: String, cursor: u64) -> Result<JobNo, Refusal> {
        let known = self.jobs.find(spec.job);
        if let Some(job) = known.map(|no| self.jobs.job(no)) {
            let same = job.spec.service == spec.service && job.spec.revision == spec.revision;
            if !same || job.spec.nonce != spec.nonce || job.spec.app != app {
                return Err(Refusal::OtherJob);
            }
            if job.spec.options == spec.options && job.spec.name == spec.name {
                return Ok(job.spec.no);
            }
        } else if cursor > 0 && self.jobs.left == Lsn::NONE {
            // No job ever left: this journal lacks what the sink has seen.
            return Err(Refusal::CursorAhead { last: 0 });
        } else if self.is_full(spec) {
            return Err(Refusal::Busy { retry_ms: self.config.limits.busy_retry_ms });
        }
        let no = known.unwrap_or_else(|| self.jobs.next_no());
        let JobSpec { job, name, service, revision, nonce, cursor: _, cursor_router: _, options } = spec.clone();
        let opened = Opened { no, job, name, service, revision, nonce, options, app };
        self.write(Record::Opened(Box::new(opened)));
        Ok(no)
    }

    /// Lets jobs go that are over, until one more has room or none is left to go. Looks at each job once.
    fn make_room(&mut self) {
        let max = self.config.limits.jobs_max as usize;
        let over = (self.jobs.len() + 1).saturating_sub(max);
        if over > 0 {
            let last = self.jobs.last_no();
            for job in self.jobs.idle(over) {
                self.write(Record::JobLeft { job, last });
            }
        }
    }

    fn is_full(&mut self, spec: &JobSpec) -> bool {
        let limits = self.config.limits;
        let services = self.workers.service_of(&spec.service).is_none();
        if self.mode.1 == Disk::Full || (services && self.workers.service_count() >= limits.services_max) {
            return true;
        }
        self.make_room();
        self.jobs.len() >= limits.jobs_max as usize
    }

    /// The newest session that opens a job gets its results. One that opens it again goes on where it is.
    fn take_client(&mut self, no: JobNo, id: PeerId) {
        let counts = self.jobs.job(no).counts;
        if let Some(client) = self.jobs.job_mut(no).client.as_mut().filter(|client| client.peer == id) {
            client.cursor = 0;
            return;
        }
        if let Some(before) = self.jobs.job(no).client.map(|client| client.peer)
            && let Some(peer) = self.peers.get_mut(&before)
        {
            peer.jobs.retain(|job| *job != no);
        }
        if let Some(peer) = self.peers.get_mut(&id) {
            peer.jobs.push(no);
        }
        self.jobs.job_mut(no).client = Some(Client {
            peer: id,
            sent: counts.settled,
            unacked: 0,
            signalled: (Micros::ZERO, counts),
            cursor: 0,
            watches: false,
        });
        self.jobs.dirty.insert(no);
    }

    /// Every `Submit` that is still to come from this client rests on this cursor or a later one; messages come in order,
    /// but for those that are being looked up again.
    fn set_cursor(&mut self, peer: PeerId, no: JobNo, cursor: u64) {
        let in_order = self.peers.get(&peer).is_some_and(|peer| peer.relooked.is_empty());
        if let Some(client) = self.jobs.job_mut(no).client.as_mut().filter(|_| in_order) {
            client.cursor = cursor;
        }
    }

    fn on_scanned(&mut self, peer: PeerId, job: JobId) -> Lsn {
        let Some(no) = self.job_of(peer, job) else { return Lsn::NONE };
        self.set_cursor(peer, no, u64::MAX);
        match self.jobs.job(no).records.scanned {
            Some(lsn) => lsn,
            None => self.write(Record::Scanned { job: no }),
        }
    }

    /// The job of this id, if this session has it open.
    pub(super) fn job_of(&self, peer: PeerId, job: JobId) -> Option<JobNo> {
        let no = self.jobs.find(job)?;
        let client = self.jobs.job(no).client?;
        (client.peer == peer).then_some(no)
    }

    /// Each row joins what is open, is answered by what is finished, or becomes a task. What is refused goes back to
    /// the client by reason.
    pub(super) fn on_submit(&mut self, peer: PeerId, job: JobId, cursor: u64, rows: Vec<KeyedRow>) -> Lsn {
        let mut gate = Lsn::NONE;
        let mut refused = BTreeMap::<String, (Refusal, Vec<RowId>)>::new();
        let no = match self.job_of(peer, job) {
            Some(no) if self.mode.0 != Mode::Running => Err((no, Refusal::Stopping)),
            Some(no) if self.jobs.job(no).records.cancelled.is_some() => Err((no, Refusal::Cancelled)),
            Some(no) => Ok(no),
            None => Err((JobNo(0), Refusal::UnknownJob)),
        };
        if let Ok(no) = no {
            self.set_cursor(peer, no, cursor);
        }
        self.tasks.touch(rows.iter().map(|row| row.key));
        for row in rows {
            let id = row.row;
            let taken = match &no {
                Ok(no) => self.take_row(*no, cursor, row),
                Err((_, refusal)) => Taken::Refused(refusal.clone()),
            };
            match taken {
                Taken::New(lsn) => gate = gate.max(lsn),
                Taken::Rests(lsn) => {
                    self.totals.suppressed += 1;
                    gate = gate.max(lsn);
                }
                Taken::Refused(refusal) => {
                    refused.entry(format!("{refusal:?}")).or_insert_with(|| (refusal, Vec::new())).1.push(id);
                }
            }
        }
        for (refusal, rows) in refused.into_values() {
            self.totals.refused += rows.len() as u64;
            self.send(peer, Lsn::NONE, Outbound::client(ToClient::Refused { job, rows, refusal }), None);
            gate = gate.max(self.peers.get(&peer).map_or(Lsn::NONE, |peer| peer.gate));
        }
        gate
    }

    fn take_row(&mut self, no: JobNo, cursor: u64, row: KeyedRow) -> Taken {
        let open = self.tasks.find(row.key);
        if let Some(rests) = open.and_then(|ix| self.waits(ix, no, row.row)) {
            return Taken::Rests(self.known(rests));
        }
        let prior = self.recent.prior(row.key, no, row.row, row.prior).unwrap_or_default();
        // Not what is settled now: this message may have been on its way while the row's result was on its way back.
        if prior.number.is_some_and(|number| number > cursor) {
            return Taken::Rests(self.known(self.out.written()));
        }
        if self.is_unsettled_full(no) {
            return Taken::Refused(self.busy());
        }
        if open.is_some() {
            return self.join(no, &row);
        }
        let finished = prior.finished.filter(|finished| finished.ok || prior.failed_here);
        match finished {
            Some(finished) => {
                let number = self.jobs.job(no).counts.last_number + 1;
                let delivery = Delivery { job: no, row: row.row, number };
                let (ok, len) = (finished.ok, finished.len);
                Taken::Rests(self.write(Record::Cached(Cached {
                    key: row.key,
                    ok,
                    len,
                    finished: finished.lsn,
                    delivery,
                })))
            }
            None => self.admit(no, row),
        }
    }

    /// Too many results wait for sinks, this job's among them.
    fn is_unsettled_full(&self, no: JobNo) -> bool {
        self.jobs.unsettled >= self.config.limits.unsettled_max && self.jobs.job(no).numbers.len() > 0
    }

    /// Where this very row of this job waits for the task already: what that rests on.
    fn waits(&self, ix: Ix, no: JobNo, row: RowId) -> Option<Lsn> {
        #[cfg(feature = "mutations")]
        if self.config.mutation == Some(super::Mutation::NoDedupOnResubmit) {
            return None;
        }
        let asker = self.tasks.askers(ix).find(|asker| asker.job == no && asker.row == row)?;
        Some(asker.lsn.max(self.tasks.gate(ix)))
    }

    /// One more row for an open task.
    fn join(&mut self, no: JobNo, row: &KeyedRow) -> Taken {
        if self.mode.1 == Disk::Full {
            return Taken::Refused(self.busy());
        }
        let joined = Record::Joined(Joined { key: row.key, job: no, row: row.row });
        #[cfg(feature = "mutations")]
        if self.config.mutation == Some(super::Mutation::WriteAheadSkipped) {
            let lsn = self.out.written();
            self.apply(lsn, &joined);
            return Taken::Rests(lsn);
        }
        let lsn = self.write(joined);
        Taken::Rests(self.known(lsn))
    }

    /// What an acknowledgement of something known, or of one more asker for it, waits for.
    fn known(&self, lsn: Lsn) -> Lsn {
        #[cfg(feature = "mutations")]
        if self.config.mutation == Some(super::Mutation::JoinNotGated) {
            return Lsn::NONE;
        }
        lsn
    }

    fn busy(&self) -> Refusal {
        Refusal::Busy { retry_ms: self.config.limits.busy_retry_ms }
    }

    fn admit(&mut self, no: JobNo, row: KeyedRow) -> Taken {
        if row.body.len() > BODY_BYTES_MAX {
            return Taken::Refused(Refusal::TooLong { len: row.body.len() as u64, max: BODY_BYTES_MAX as u64 });
        }
        if self.tasks.len() >= self.config.limits.tasks_open_max || self.mode.1 == Disk::Full {
            return Taken::Refused(self.busy());
        }
        let KeyedRow { row, key, sample: _, body, prior: _ } = row;
        let lsn = self.write(Record::Submitted(Submitted { key, job: no, row, body }));
        if let Some(ix) = self.tasks.find(key) {
            self.enqueue(ix, End::Back);
        }
        Taken::New(lsn)
    }
}
