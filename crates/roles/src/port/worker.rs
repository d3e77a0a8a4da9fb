//! The worker's end of its session with the router.

use std::collections::VecDeque;

use bytes::Bytes;
use sheaf_session::{
    Body, Config, Delivery, Endpoint, Event, Fatal, How, Input, Lane, Micros, MsgId, Place, Record, Session, Side,
    State, Status, Step, Ticket,
};
use sheaf_task::{Capacity, Fence, ToRouter, ToWorker, topic};

use super::Over;
use super::pump::{Glue, Pump, Waiting};
use crate::worker;

/// What the worker's shell asks of its port.
#[derive(Clone, Debug)]
pub enum WorkerCommand {
    /// [`worker::Output::Send`].
    Send(ToRouter),
    /// [`worker::Output::Announce`].
    Announce(Capacity),
    /// Everything spooled up to this ticket is written.
    Spooled(Ticket),
    /// End the session: `Drain` after [`worker::Output::Done`].
    Close(How),
}

/// What the port tells the worker's shell.
#[derive(Clone, Debug)]
pub enum WorkerReport {
    /// For the machine.
    Event(worker::Event),
    /// Append this record ([`Record::to_bytes`]) to the spool, then say [`WorkerCommand::Spooled`].
    Spool(Ticket, Record),
    /// The session is over for good.
    Over(Over),
}

/// The port.
pub struct WorkerPort {
    pump: Pump<WorkerReport>,
    /// Fences of results that are not acknowledged, in order.
    results: VecDeque<(MsgId, Vec<Fence>)>,
    waiting: Waiting<Memo>,
    registering: Registering,
    /// The machine has said its last word, and nothing is held: no registration of this connection will come.
    leaves: bool,
    /// As the machine wrote it last. Whatever registration leaves has this content: one that an earlier connection did
    /// not bring over would be stale on this one, and attempts that it does not know would be taken for lost.
    registration: Bytes,
    /// Registrations that the session wants to send and that wait for the machine's word on this connection.
    wanted: Vec<MsgId>,
    /// Assignments to commit when the router has taken the registration.
    places: Vec<Place>,
}

/// What is remembered of a message until it is sent.
enum Memo {
    Results(Vec<Fence>),
    Registration,
    Word,
}

/// Where the registration of this connection is. It tells what the worker held when it was written; an assignment that
/// came later and was acknowledged before the router read it would be taken for lost. So none is acknowledged until then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Registering {
    Expected,
    Sent(MsgId),
    Taken,
}

impl WorkerPort {
    /// On a new session ([`super::fit_dialer_config`]).
    pub fn new(session: Session) -> Self {
        Self::resume(session, VecDeque::new())
    }

    /// On a session recovered from the spool, with the results that it still holds for sending.
    pub fn recover(config: Config, seed: u64, state: State) -> Self {
        let session = Session::recover(config, Side::Dialer, seed, state);
        let messages = session.outbox(Lane::Bulk).filter_map(|(id, _, body)| body.map(|body| (id, body.clone())));
        let results = messages.map(|(id, body)| (id, fences_in(body))).collect();
        Self::resume(session, results)
    }

    fn resume(session: Session, results: VecDeque<(MsgId, Vec<Fence>)>) -> Self {
        Self {
            pump: Pump::new(session),
            results,
            waiting: Waiting::new(),
            registering: Registering::Expected,
            leaves: false,
            registration: Bytes::new(),
            wanted: Vec::new(),
            places: Vec::new(),
        }
    }

    /// The attempts whose results are in the session, unacknowledged: [`worker::Config::spooled`].
    pub fn unacknowledged(&self) -> Vec<Fence> {
        self.results.iter().flat_map(|(_, fences)| fences.iter().copied()).collect()
    }

    /// The session as it stands.
    pub fn status(&self) -> Status {
        self.pump.session.status()
    }

    fn send(&mut self, now: Micros, message: &ToRouter) {
        // Left out where the router does not keep up: what it says is in the result.
        if matches!(message, ToRouter::Piece(_)) && !self.waiting.has_ease(Lane::Urgent) {
            return;
        }
        let bytes = message.encode();
        let (lane, memo) = match message {
            ToRouter::Results(items) => (Lane::Bulk, Memo::Results(items.iter().map(|item| item.fence).collect())),
            ToRouter::Register(_) => (Lane::Urgent, Memo::Registration),
            ToRouter::OpenJob(_)
            | ToRouter::Submit { .. }
            | ToRouter::Scanned { .. }
            | ToRouter::Ask { .. }
            | ToRouter::Recalled(_)
            | ToRouter::Leave
            | ToRouter::Watch { .. }
            | ToRouter::Piece(_) => (Lane::Urgent, Memo::Word),
        };
        // Bounded by what the router lets this worker hold: its results, and a few words about them.
        let body = match memo {
            Memo::Registration => {
                self.registration = bytes;
                Body::Ref { len: self.registration.len() as u32 }
            }
            Memo::Results(_) | Memo::Word => Body::Inline(bytes),
        };
        if !self.waiting.push(lane, body, memo) {
            self.pump.give_up(now, Over::Overrun);
        }
        self.flush(now);
        if !self.awaits_registration() {
            self.wanted.drain(..).for_each(|id| self.pump.session.provide(id, self.registration.clone()));
        }
    }

    fn flush(&mut self, now: Micros) {
        let (results, registering) = (&mut self.results, &mut self.registering);
        self.waiting.flush(now, &mut self.pump.session, |id, memo| match memo {
            Memo::Results(fences) => results.push_back((id, fences)),
            Memo::Registration => *registering = Registering::Sent(id),
            Memo::Word => {}
        });
    }

    /// What the session wants to send of a registration waits for the machine's word on this connection.
    fn awaits_registration(&self) -> bool {
        self.registering == Registering::Expected && !self.leaves
    }

    /// Lets go of everything that waited for a registration: an older one will do, for `Leave` comes after it.
    fn leave(&mut self, now: Micros) {
        self.leaves = true;
        self.wanted.drain(..).for_each(|id| self.pump.session.provide(id, self.registration.clone()));
        self.places.drain(..).for_each(|place| self.pump.session.commit(now, place));
    }

    fn report(&mut self, event: worker::Event) {
        self.pump.reports.push_back(WorkerReport::Event(event));
    }

    fn on_urgent_acked(&mut self, now: Micros, upto: MsgId) {
        if matches!(self.registering, Registering::Sent(id) if id.n <= upto.n) {
            self.registering = Registering::Taken;
            self.places.drain(..).for_each(|place| self.pump.session.commit(now, place));
        }
    }

    fn on_acked(&mut self, upto: MsgId) {
        let mut fences = Vec::new();
        while self.results.front().is_some_and(|(id, _)| id.n <= upto.n) {
            fences.extend(self.results.pop_front().into_iter().flat_map(|(_, fences)| fences));
        }
        if !fences.is_empty() {
            self.report(worker::Event::Acknowledged(fences));
        }
    }
}

/// What was spooled was encoded here; what is no result holds no fence.
fn fences_in(body: Bytes) -> Vec<Fence> {
    match ToRouter::decode(body) {
        Ok(ToRouter::Results(items)) => items.into_iter().map(|item| item.fence).collect(),
        Ok(_) | Err(_) => Vec::new(),
    }
}

impl Endpoint for WorkerPort {
    type Command = WorkerCommand;
    type Report = WorkerReport;

    fn input(&mut self, now: Micros, input: Input) -> Result<(), Fatal> {
        self.pump.session.feed(now, input)
    }

    fn missing_bytes(&self) -> usize {
        self.pump.session.missing_bytes()
    }

    fn command(&mut self, now: Micros, command: WorkerCommand) {
        match command {
            WorkerCommand::Send(message) => self.send(now, &message),
            WorkerCommand::Announce(capacity) => self.pump.session.signal(now, topic::ANNOUNCE, capacity.encode()),
            WorkerCommand::Spooled(ticket) => {
                // Only bytes from the peer can be fatal.
                if self.pump.session.feed(now, Input::Persisted(ticket)).is_err() {
                    self.pump.give_up(now, Over::Malformed);
                }
            }
            WorkerCommand::Close(how) => {
                self.leave(now);
                self.pump.session.close(now, how);
            }
        }
    }

    fn poll(&mut self, now: Micros) -> Step<WorkerReport> {
        self.step(now)
    }
}

impl Glue for WorkerPort {
    type Report = WorkerReport;

    fn pump(&mut self) -> &mut Pump<WorkerReport> {
        &mut self.pump
    }

    /// Committed on receipt, or with the registration: what this process holds, it names when it comes back.
    fn on_delivery(&mut self, now: Micros, delivery: Delivery) {
        let Ok(message) = ToWorker::decode(delivery.body) else {
            self.pump.give_up(now, Over::Malformed);
            return;
        };
        let is_assignment = matches!(message, ToWorker::Assign(_));
        if is_assignment && self.registering != Registering::Taken && !self.leaves {
            self.places.push(delivery.place);
        } else {
            self.pump.session.commit(now, delivery.place);
        }
        self.report(match message {
            ToWorker::Registered { incarnation, router, keep, drop } => {
                worker::Event::Registered { incarnation, router, keep, drop }
            }
            ToWorker::Assign(assignments) => worker::Event::Assigned(assignments),
            ToWorker::Recall(fences) => worker::Event::Recall(fences),
            ToWorker::Cancel(fences) => worker::Event::Cancel(fences),
            ToWorker::Refused(refusal) => worker::Event::Refused(refusal),
        });
    }

    fn on_event(&mut self, now: Micros, event: Event) {
        match event {
            Event::Up { resumed: _ } => {
                self.registering = Registering::Expected;
                self.report(worker::Event::Up);
            }
            Event::Down => {
                self.registering = Registering::Expected;
                self.report(worker::Event::Down);
            }
            Event::Acked { lane: Lane::Bulk, upto } => self.on_acked(upto),
            Event::Acked { lane: Lane::Urgent, upto } => self.on_urgent_acked(now, upto),
            Event::Room { lane: _ } => self.flush(now),
            // A router that lost results makes those attempts again; results it lost twice over are stale to it.
            Event::Diverged { .. }
            | Event::Renumbered { .. }
            | Event::Stored(_)
            | Event::Cancelled(_)
            | Event::TooLate(_)
            | Event::PeerBye
            | Event::Signal { .. }
            | Event::Fenced
            | Event::Refused(_)
            | Event::Ended => {}
        }
    }

    fn on_need(&mut self, _now: Micros, id: MsgId) {
        if self.awaits_registration() {
            self.wanted.push(id);
        } else {
            self.pump.session.provide(id, self.registration.clone());
        }
    }

    fn on_persist(&mut self, ticket: Ticket, record: Record) {
        self.pump.reports.push_back(WorkerReport::Spool(ticket, record));
    }

    fn over(over: Over) -> WorkerReport {
        WorkerReport::Over(over)
    }
}
