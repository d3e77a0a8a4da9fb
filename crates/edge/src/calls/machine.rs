//! The machine of calls: those who wait, and the rows of the router's jobs that they wait for.
//!
//! It deliberately knows no HTTP, no session and no clock. Invariants: every waiter is told once that its call is
//! accepted, where it wants that, and else how the call ended, or why not; a call is submitted again until it has ended;
//! what is under way is bounded in number and bytes.
//!
//! ```text
//! call:  Queued ─► Submitted ─► (on disk) ─► Done
//!                     │ the session was lost
//!          Queued ◄───┘
//! without a waiter it lingers; then the router is told to withdraw it
//! ```

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;
use sheaf_roles::client::{Event, Tag};
use sheaf_session::Micros;
use sheaf_task::{
    BATCH_BYTES_AIM, BATCH_ROWS_MAX, DeliveredRow, JobId, Key, KeySecret, Piece, Question, Refusal, RowId, SubmitRow,
    ToRouter,
};

use super::jobs::{Jobs, Tenant};
use super::limits::{CallLimits, FLIGHT_MAX, RENAMED_MAX, WAITERS_MAX};
use super::recent::Recent;
use super::types::{Digest, Done, Identity, Input, NewCall, Output, Refused, Told, Waiter};

/// One call under way.
struct Call {
    job: JobId,
    key: Key,
    sample: u32,
    body: Bytes,
    digest: Digest,
    waiters: Vec<Waiting>,
    keep: bool,
    /// It is on the router's disk.
    is_accepted: bool,
    /// Times that it may still be named anew: an answer that the journal had already is not that of a call of its own.
    own_names: u32,
    lingers_until: Option<Micros>,
}

/// One who waits for it.
#[derive(Clone, Copy)]
struct Waiting {
    waiter: Waiter,
    /// Until it is on disk, and no longer.
    is_async: bool,
    /// Its client has hung up. It is told all the same when the call ends: until then it costs what a call costs.
    is_gone: bool,
}

/// All calls of a tenant.
pub(crate) struct Calls {
    limits: CallLimits,
    jobs: Jobs,
    calls: BTreeMap<RowId, Call>,
    bytes: usize,
    waiters: BTreeMap<Waiter, RowId>,
    /// The last call under way of each body.
    by_digest: BTreeMap<Digest, RowId>,
    recent: Recent,
    /// Calls without a waiter, by when their time is over.
    lingering: BTreeSet<(Micros, RowId)>,
    /// Submissions that are not on the router's disk.
    flight: VecDeque<(Tag, Vec<RowId>)>,
    tag: Tag,
    /// The job that submitted last.
    turn: Option<JobId>,
    outputs: VecDeque<Output>,
}

impl Calls {
    /// Without any call. `secret` is the router's, so that a call's task has the name that the router gives it.
    pub(crate) fn new(limits: CallLimits, app: String, secret: KeySecret) -> Self {
        Self {
            limits,
            jobs: Jobs::new(Tenant { app, secret, retries: limits.retries }),
            calls: BTreeMap::new(),
            bytes: 0,
            waiters: BTreeMap::new(),
            by_digest: BTreeMap::new(),
            recent: Recent::default(),
            lingering: BTreeSet::new(),
            flight: VecDeque::new(),
            tag: Tag::default(),
            turn: None,
            outputs: VecDeque::new(),
        }
    }

    /// Takes one input.
    pub(crate) fn handle(&mut self, now: Micros, input: Input) {
        match input {
            Input::Call { waiter, call } => {
                if let Err(refused) = self.on_call(now, waiter, call) {
                    self.tell(waiter, Err(refused));
                }
            }
            Input::Gone(waiter) => self.on_gone(now, waiter),
            Input::Router { job, event } => self.on_router(now, job, event),
            Input::Piece { row, piece } => self.on_piece(row, &piece),
            Input::Tick => self.on_tick(now),
        }
    }

    /// The next effect.
    pub(crate) fn poll(&mut self) -> Option<Output> {
        if self.outputs.is_empty() {
            self.submit();
        }
        self.outputs.pop_front()
    }

    /// Takes up a job that an earlier life of the door left, so that its results are taken.
    pub(crate) fn take_up(&mut self, now: Micros, id: JobId, name: &str, service: &str) {
        if let Some(id) = self.jobs.take_up(now, id, name, service) {
            self.open(id);
        }
    }
}

/// From clients.
impl Calls {
    fn on_call(&mut self, now: Micros, waiter: Waiter, call: NewCall) -> Result<(), Refused> {
        if self.join(waiter, &call)? {
            return Ok(());
        }
        let NewCall { job, body, identity, row, sample, digest, keep, is_async } = call;
        if self.calls.len() >= self.limits.calls_max || self.bytes + body.len() > self.limits.bytes_max {
            return Err(Refused::Full);
        }
        if let Some(job) = self.jobs.make_room(&job) {
            self.send(None, ToRouter::Scanned { job });
        }
        let (job, is_new) = self.jobs.find_or_add(now, &job).ok_or(Refused::Full)?;
        if is_new {
            self.open(job);
        }
        let key = self.key_of(job, &body, sample);
        let own_names = if identity == Identity::Own { RENAMED_MAX } else { 0 };
        self.bytes += body.len();
        self.by_digest.insert(digest, row);
        self.waiters.insert(waiter, row);
        let waiters = vec![Waiting { waiter, is_async, is_gone: false }];
        let (is_accepted, lingers_until) = (false, None);
        let call = Call { job, key, sample, body, digest, waiters, keep, is_accepted, own_names, lingers_until };
        self.calls.insert(row, call);
        self.jobs.begin(job);
        self.jobs.queue(job, row);
        Ok(())
    }

    /// Whether the call is work that is under way, or was done a moment ago.
    fn join(&mut self, waiter: Waiter, call: &NewCall) -> Result<bool, Refused> {
        let same = match call.identity {
            Identity::Own => return Ok(false),
            Identity::Named => None,
            Identity::Retry => self.by_digest.get(&call.digest).copied(),
        };
        let row = same.unwrap_or(call.row);
        if let Some(known) = self.calls.get_mut(&row) {
            if known.waiters.len() >= WAITERS_MAX {
                return Err(Refused::Full);
            }
            known.keep |= call.keep;
            if let Some(until) = known.lingers_until.take() {
                self.lingering.remove(&(until, row));
            }
            if call.is_async && known.is_accepted {
                let key = known.key;
                self.tell(waiter, Ok(Told::Accepted(key)));
                return Ok(true);
            }
            known.waiters.push(Waiting { waiter, is_async: call.is_async, is_gone: false });
            self.waiters.insert(waiter, row);
            return Ok(true);
        }
        let done = match call.identity {
            Identity::Own => None,
            Identity::Named => self.recent.of_row(row),
            // A failure is worth another try.
            Identity::Retry => self.recent.of_body(call.digest).filter(|done| done.outcome.is_ok()),
        };
        let Some(done) = done.cloned() else { return Ok(false) };
        self.tell(waiter, Ok(Told::Done(done)));
        Ok(true)
    }

    fn on_gone(&mut self, now: Micros, waiter: Waiter) {
        let Some(row) = self.waiters.get(&waiter).copied() else { return };
        let linger = Micros(u64::try_from(self.limits.linger.as_micros()).unwrap_or(u64::MAX));
        let Some(call) = self.calls.get_mut(&row) else { return };
        call.waiters.iter_mut().filter(|known| known.waiter == waiter).for_each(|known| known.is_gone = true);
        if call.waiters.iter().all(|known| known.is_gone) && !call.keep && call.lingers_until.is_none() {
            let until = now + linger;
            call.lingers_until = Some(until);
            self.lingering.insert((until, row));
        }
    }

    fn on_tick(&mut self, now: Micros) {
        while let Some((at, row)) = self.lingering.first().copied()
            && at <= now
        {
            self.lingering.pop_first();
            let Some(call) = self.end(now, row) else { continue };
            let question = Question::Withdraw { job: call.job, rows: vec![(call.key, row)] };
            self.send(None, ToRouter::Ask { id: 0, question });
            self.tell_all(call.waiters, &Err(Refused::GivenUp));
        }
        self.recent.trim(now);
        for job in self.jobs.take_idle(now) {
            self.send(None, ToRouter::Scanned { job });
        }
    }
}

/// From the router.
impl Calls {
    fn on_router(&mut self, now: Micros, job: Option<JobId>, event: Event) {
        match (job, event) {
            (Some(job), Event::Opened { router, cursor, counts: _ }) => {
                self.jobs.on_opened(job, router, cursor);
                self.send(None, ToRouter::Watch { job });
            }
            (Some(job), Event::JobRefused(refusal)) => self.on_job_refused(now, job, refusal),
            (Some(job), Event::RowsRefused { rows, refusal }) => self.on_rows_refused(now, job, rows, refusal),
            (Some(job), Event::Delivered { ticket, rows }) => {
                rows.into_iter().for_each(|row| self.on_delivered(now, job, row));
                self.outputs.push_back(Output::Commit(ticket));
            }
            (_, Event::Acknowledged(upto)) => self.on_acknowledged(now, upto),
            (_, Event::Lost) => self.on_lost(),
            // Of the session's connection; of a single job's progress; and what only a sink's machine is told.
            (
                _,
                Event::Up
                | Event::Down
                | Event::Progress(_)
                | Event::Opened { .. }
                | Event::JobRefused(_)
                | Event::RowsRefused { .. }
                | Event::Delivered { .. }
                | Event::Scanned { .. }
                | Event::SourceEnd
                | Event::Written(_)
                | Event::Interrupt
                | Event::Tick,
            ) => {}
        }
    }

    fn on_piece(&mut self, row: RowId, piece: &Piece) {
        let Some(call) = self.calls.get(&row).filter(|call| call.key == piece.fence.key) else { return };
        let watching = call.waiters.iter().filter(|waiting| !waiting.is_async && !waiting.is_gone);
        self.outputs.extend(watching.map(|waiting| Output::Show { waiter: waiting.waiter, piece: piece.clone() }));
    }

    fn on_delivered(&mut self, now: Micros, job: JobId, delivered: DeliveredRow) {
        let DeliveredRow { number, row, key, outcome, attempts, worker, ms, cached } = delivered;
        if let Some(job) = self.jobs.get_mut(job) {
            job.cursor = job.cursor.max(number);
        }
        // Of an earlier life, of a call that was given up, or of an earlier name of this one.
        let Some(call) = self.calls.get_mut(&row).filter(|call| call.key == key) else { return };
        if cached && call.own_names > 0 && call.waiters.iter().any(|waiting| !waiting.is_async) {
            call.own_names -= 1;
            call.sample = call.sample.wrapping_add(0x9E37_79B9);
            let (job, body, sample) = (call.job, call.body.clone(), call.sample);
            let key = self.key_of(job, &body, sample);
            if let Some(call) = self.calls.get_mut(&row) {
                call.key = key;
            }
            self.jobs.queue(job, row);
            return;
        }
        let Some(call) = self.end(now, row) else { return };
        let done = Done { key, outcome, attempts, worker, ms };
        self.tell_all(call.waiters, &Ok(Told::Done(done.clone())));
        self.recent.add(now, row, call.digest, done);
    }

    fn on_acknowledged(&mut self, now: Micros, upto: Tag) {
        while self.flight.front().is_some_and(|(tag, _)| *tag <= upto)
            && let Some((_, rows)) = self.flight.pop_front()
        {
            for row in rows {
                let Some(call) = self.calls.get_mut(&row) else { continue };
                call.is_accepted = true;
                let key = call.key;
                let (served, waiting): (Vec<Waiting>, _) =
                    std::mem::take(&mut call.waiters).into_iter().partition(|one| one.is_async);
                call.waiters = waiting;
                // On disk it needs nobody: its result is asked for by its key.
                if call.waiters.is_empty() && call.keep {
                    self.end(now, row);
                }
                self.tell_all(served, &Ok(Told::Accepted(key)));
            }
        }
    }

    fn on_lost(&mut self) {
        self.flight.clear();
        for job in self.jobs.on_lost() {
            self.open(job);
        }
        for (row, call) in &self.calls {
            self.jobs.queue(call.job, *row);
        }
    }

    fn on_job_refused(&mut self, now: Micros, job: JobId, refusal: Refusal) {
        match refusal {
            // What it was opened for before is over for good: see `generation`.
            Refusal::OtherJob | Refusal::Cancelled | Refusal::CursorAhead { .. } => self.follow(now, job),
            Refusal::Busy { .. }
            | Refusal::TooLong { .. }
            | Refusal::UnknownJob
            | Refusal::Stopping
            | Refusal::Forbidden
            | Refusal::Superseded { .. } => {
                self.refuse(now, self.rows_of(job), &refusal);
                self.jobs.forget(job);
            }
        }
    }

    fn on_rows_refused(&mut self, now: Micros, job: JobId, rows: Vec<RowId>, refusal: Refusal) {
        match refusal {
            Refusal::Cancelled => self.follow(now, job),
            Refusal::UnknownJob => {
                if self.jobs.reopen(job) {
                    self.open(job);
                }
                let known = rows.into_iter().filter(|row| self.calls.contains_key(row)).collect::<Vec<_>>();
                known.into_iter().for_each(|row| self.jobs.queue(job, row));
            }
            Refusal::Busy { .. }
            | Refusal::TooLong { .. }
            | Refusal::OtherJob
            | Refusal::CursorAhead { .. }
            | Refusal::Stopping
            | Refusal::Forbidden
            | Refusal::Superseded { .. } => self.refuse(now, rows, &refusal),
        }
    }

    /// The calls of a job that is at its end go on in another.
    fn follow(&mut self, now: Micros, job: JobId) {
        let rows = self.rows_of(job);
        let Some(next) = self.jobs.follow(now, job) else { return };
        self.open(next);
        for row in rows {
            if let Some(call) = self.calls.get_mut(&row) {
                call.job = next;
            }
            self.jobs.begin(next);
            self.jobs.queue(next, row);
        }
    }

    fn rows_of(&self, job: JobId) -> Vec<RowId> {
        self.calls.iter().filter(|(_, call)| call.job == job).map(|(row, _)| *row).collect()
    }

    fn refuse(&mut self, now: Micros, rows: Vec<RowId>, refusal: &Refusal) {
        for row in rows {
            let Some(call) = self.end(now, row) else { continue };
            self.tell_all(call.waiters, &Err(Refused::Router(refusal.clone())));
        }
    }
}

/// To the router and to clients.
impl Calls {
    fn open(&mut self, job: JobId) {
        if let Some(message) = self.jobs.open_message(job) {
            self.send(None, message);
        }
    }

    /// Puts calls into messages, job by job, as far as the router keeps up.
    fn submit(&mut self) {
        while self.flight.len() < FLIGHT_MAX
            && let Some(id) = self.jobs.next_ready(self.turn)
        {
            self.turn = Some(id);
            let Some(job) = self.jobs.get_mut(id) else { return };
            let (mut rows, mut bytes) = (Vec::new(), 0);
            while rows.len() < BATCH_ROWS_MAX
                && let Some(row) = job.queue.front().copied()
            {
                // Given up while it waited: there is nothing to say of it.
                let Some(call) = self.calls.get(&row) else {
                    job.queue.pop_front();
                    continue;
                };
                if bytes + call.body.len() > BATCH_BYTES_AIM && !rows.is_empty() {
                    break;
                }
                bytes += call.body.len();
                job.queue.pop_front();
                rows.push(SubmitRow { row, sample: call.sample, body: call.body.clone() });
            }
            let cursor = job.cursor;
            self.jobs.submitted(id);
            if !rows.is_empty() {
                self.tag = Tag(self.tag.0 + 1);
                self.flight.push_back((self.tag, rows.iter().map(|row| row.row).collect()));
                self.send(Some(self.tag), ToRouter::Submit { job: id, cursor, rows });
            }
        }
    }

    fn key_of(&self, job: JobId, body: &[u8], sample: u32) -> Key {
        self.jobs.get(job).map_or(Key::default(), |job| job.hasher.key(body, sample))
    }

    /// The call is no longer under way.
    fn end(&mut self, now: Micros, row: RowId) -> Option<Call> {
        let call = self.calls.remove(&row)?;
        self.bytes -= call.body.len();
        if self.by_digest.get(&call.digest) == Some(&row) {
            self.by_digest.remove(&call.digest);
        }
        if let Some(until) = call.lingers_until {
            self.lingering.remove(&(until, row));
        }
        self.jobs.end(now, call.job);
        Some(call)
    }

    fn send(&mut self, tag: Option<Tag>, message: ToRouter) {
        self.outputs.push_back(Output::Send { tag, message });
    }

    fn tell_all(&mut self, waiters: Vec<Waiting>, told: &Result<Told, Refused>) {
        for Waiting { waiter, .. } in waiters {
            self.waiters.remove(&waiter);
            self.tell(waiter, told.clone());
        }
    }

    fn tell(&mut self, waiter: Waiter, told: Result<Told, Refused>) {
        self.outputs.push_back(Output::Tell { waiter, told });
    }
}
