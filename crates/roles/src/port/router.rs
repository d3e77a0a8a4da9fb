//! The router's end of one session, whoever is at the other.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;
use sheaf_session::{
    Body, Delivery, Endpoint, Event as SessionEvent, Fatal, HelloInfo, How, Input, Lane, Micros, MsgId, Place,
    Record as SessionRecord, Session, SessionId, Status, Step, Ticket,
};
use sheaf_task::{
    Capacity, Fence, JobCounts, JobId, JobSpec, Key, KeyHasher, KeySecret, Refusal, SubmitRow, ToClient, ToRouter,
    ToWorker, topic,
};

use super::lookup::look_up;
use super::principal::turned_down;
use super::pump::{Glue, Pump, Waiting};
use super::serve::{Next, Serving};
use super::{Over, Principal};
use crate::router::{Event, Generation, Inbound, JobNo, KeyedRow, Lsn, Outbound, PeerId, Record, Tag};

/// What the router's shell asks of a port.
#[derive(Clone, Debug)]
pub enum RouterCommand {
    /// [`crate::router::Output::Commit`].
    Commit(Place),
    /// [`crate::router::Output::Send`].
    Send {
        /// On which lane.
        lane: Lane,
        /// The machine's number for it.
        tag: Tag,
        /// What.
        message: Outbound,
    },
    /// [`crate::router::Output::Signal`].
    Signal(JobCounts),
    /// The answer to [`RouterReport::Fetch`].
    Fetched {
        /// Of which message.
        msg: MsgId,
        /// One per LSN asked for, in that order; `None`: there is none, or it is damaged.
        records: Vec<Option<Fetched>>,
    },
    /// End the session.
    Close(How),
}

/// A record of the journal, as stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fetched {
    /// Its type.
    pub kind: u8,
    /// Its payload.
    pub payload: Bytes,
}

/// What a port tells the router's shell.
#[derive(Clone, Debug)]
pub enum RouterReport {
    /// For the machine. A `Submit` is passed through [`RouterPort::look_up`] first.
    Event(Event),
    /// Read these records and answer with [`RouterCommand::Fetched`]. At most [`sheaf_task::BATCH_ROWS_MAX`].
    Fetch {
        /// For which message.
        msg: MsgId,
        /// Which.
        lsns: Vec<Lsn>,
    },
    /// The session is over for good. [`Event::PeerGone`] has been reported.
    Over(Over),
}

/// The port.
pub struct RouterPort {
    pump: Pump<RouterReport>,
    peer: PeerId,
    session: SessionId,
    secret: KeySecret,
    principal: Principal,
    jobs: BTreeMap<JobId, Job>,
    /// The peer has said in this life of the port who it is.
    introduced: bool,
    /// Bulk messages that came before what they rest on, in order: the urgent lane may be overtaken.
    early: VecDeque<(Delivery, ToRouter)>,
    waiting: Waiting<Memo>,
    /// Tagged bulk messages that are not acknowledged, in order.
    tags: VecDeque<(MsgId, Tag)>,
    /// Messages with references that are not acknowledged.
    serving: BTreeMap<MsgId, Serving>,
    heard: Option<Micros>,
    gone: bool,
}

/// A job that the peer has opened.
struct Job {
    hasher: KeyHasher,
    /// The machine has answered; until then its rows wait.
    answered: bool,
    /// As records name it.
    no: Option<JobNo>,
}

/// What is remembered of a message until it is sent.
struct Memo {
    tag: Tag,
    serving: Option<Serving>,
}

/// The machine hears of a peer this often at most.
const HEARD_EVERY: Micros = Micros::from_secs(1);
/// How long acknowledgements of results wait for an assignment that goes to the same worker.
const RESULTS_PATIENCE: Micros = Micros::from_ms(200);
/// Jobs that a session may have open; the lowest id gives way, and is opened again when its client is told so.
const JOBS_MAX: usize = 1_024;

impl RouterPort {
    /// On a session of `peer`, new or recovered ([`super::fit_config`]); `id` is the session's. It speaks for `principal`.
    pub fn new(session: Session, id: SessionId, peer: PeerId, secret: KeySecret, principal: Principal) -> Self {
        Self {
            pump: Pump::new(session),
            peer,
            session: id,
            secret,
            principal,
            jobs: BTreeMap::new(),
            introduced: false,
            early: VecDeque::new(),
            waiting: Waiting::new(),
            tags: VecDeque::new(),
            serving: BTreeMap::new(),
            heard: None,
            gone: false,
        }
    }

    /// The session as it stands.
    pub fn status(&self) -> Status {
        self.pump.session.status()
    }

    /// [`look_up`] for a message of this session.
    pub fn look_up(
        &self,
        inbound: &mut Inbound,
        generation: Generation,
        find: impl FnMut(&[Key]) -> Vec<Vec<(Lsn, Record)>>,
    ) {
        look_up(inbound, self.job_no(inbound), generation, find);
    }

    /// The number of the job that a message is of, if the machine has told it.
    pub fn job_no(&self, inbound: &Inbound) -> Option<JobNo> {
        if let Inbound::Submit { job, .. } = inbound { self.jobs.get(job)?.no } else { None }
    }

    fn report(&mut self, event: Event) {
        self.pump.reports.push_back(RouterReport::Event(event));
    }
}

/// From the peer.
impl RouterPort {
    fn on_message(&mut self, now: Micros, delivery: Delivery) {
        let Ok(message) = ToRouter::decode(delivery.body.clone()) else {
            self.pump.give_up(now, Over::Malformed);
            return;
        };
        if !self.principal.may_say(&message) {
            return self.turn_down(now, delivery.place, &message);
        }
        let introduces = matches!(message, ToRouter::OpenJob(_) | ToRouter::Register(_));
        if delivery.place.lane == Lane::Bulk && !(self.early.is_empty() && self.is_ready(&message)) {
            // Uncommitted, so bounded by the credit that the session gave.
            self.early.push_back((delivery, message));
            return;
        }
        self.pass_on(now, delivery, message);
        if introduces {
            self.introduced = true;
            self.pass_early(now);
        }
    }

    /// What rests on a message that is refused is never taken, so that its sender still has it.
    fn turn_down(&mut self, now: Micros, place: Place, message: &ToRouter) {
        if let Some(answer) = turned_down(message) {
            self.send(now, Lane::Urgent, Tag::NONE, answer);
            self.pump.session.commit(now, place);
        }
    }

    fn pass_on(&mut self, now: Micros, delivery: Delivery, message: ToRouter) {
        if let Some(inbound) = self.inbound(now, delivery.place, message) {
            let receipt = delivery.receipt.map(|receipt| (self.session, receipt));
            self.report(Event::Message { peer: self.peer, place: delivery.place, receipt, inbound });
        }
    }

    fn pass_early(&mut self, now: Micros) {
        while self.early.front().is_some_and(|(_, message)| self.is_ready(message))
            && let Some((delivery, message)) = self.early.pop_front()
        {
            self.pass_on(now, delivery, message);
        }
    }

    /// What the message rests on has been said.
    fn is_ready(&self, message: &ToRouter) -> bool {
        match message {
            ToRouter::Submit { job, .. } => self.jobs.get(job).map_or(self.introduced, |job| job.answered),
            ToRouter::OpenJob(_)
            | ToRouter::Scanned { .. }
            | ToRouter::Ask { .. }
            | ToRouter::Register(_)
            | ToRouter::Results(_)
            | ToRouter::Recalled(_)
            | ToRouter::Leave
            | ToRouter::Watch { .. }
            | ToRouter::Piece(_) => self.introduced,
        }
    }

    /// The message for the machine; `None` if it was answered here.
    fn inbound(&mut self, now: Micros, place: Place, message: ToRouter) -> Option<Inbound> {
        Some(match message {
            ToRouter::OpenJob(spec) => {
                self.on_open_job(&spec);
                Inbound::OpenJob { spec, app: self.principal.app().to_owned() }
            }
            ToRouter::Submit { job, cursor, rows } => {
                let Some(known) = self.jobs.get(&job) else {
                    let rows = rows.into_iter().map(|row| row.row).collect();
                    let refused = ToClient::Refused { job, rows, refusal: Refusal::UnknownJob };
                    self.send(now, Lane::Urgent, Tag::NONE, Outbound::client(refused));
                    self.pump.session.commit(now, place);
                    return None;
                };
                let rows = keyed(&known.hasher, rows);
                Inbound::Submit { job, cursor, rows, generation: Generation::default() }
            }
            ToRouter::Scanned { job } => Inbound::Scanned { job },
            ToRouter::Ask { id, question } => {
                let view = self.principal.view()?;
                Inbound::Ask { id, question, prior: None, owners: Vec::new(), view }
            }
            ToRouter::Register(registration) => {
                self.set_patience(now, registration.capacity);
                // A later life of the worker may no longer know what an earlier one died with.
                self.leave_out(registration.died_with.iter().copied().collect());
                Inbound::Register(registration)
            }
            ToRouter::Results(items) => {
                self.leave_out(items.iter().map(|item| item.fence).collect());
                Inbound::Results(items)
            }
            ToRouter::Recalled(fences) => {
                self.leave_out(fences.iter().copied().collect());
                Inbound::Recalled(fences)
            }
            ToRouter::Leave => Inbound::Leave,
            ToRouter::Watch { job } => Inbound::Watch { job },
            ToRouter::Piece(piece) => Inbound::Piece(piece),
        })
    }

    /// A worker only forgets its results on hearing that they are on disk: that can ride on its next assignment. One that
    /// takes nothing more is about to leave, and waits for just that.
    fn set_patience(&mut self, now: Micros, capacity: Capacity) {
        let patience = if capacity.batch == 0 { Micros::ZERO } else { RESULTS_PATIENCE };
        self.pump.session.set_patience(now, Lane::Bulk, patience);
    }

    /// Assignments wait for their acknowledgement only briefly, so there are few to look through.
    fn leave_out(&mut self, ended: BTreeSet<Fence>) {
        self.serving.values_mut().for_each(|serving| serving.leave_out(&ended));
    }

    fn on_open_job(&mut self, spec: &JobSpec) {
        let hasher = KeyHasher::new(&self.secret, self.principal.app(), &spec.service, &spec.revision, &spec.nonce);
        let known = self.jobs.remove(&spec.job);
        let (answered, no) = known.map_or((false, None), |known| (known.answered, known.no));
        while self.jobs.len() >= JOBS_MAX && self.jobs.pop_first().is_some() {}
        self.jobs.insert(spec.job, Job { hasher, answered, no });
    }

    fn on_acked(&mut self, upto: MsgId) {
        let of_lane = MsgId { lane: upto.lane, n: 0 }..=upto;
        let served: Vec<MsgId> = self.serving.range(of_lane).map(|(id, _)| *id).collect();
        served.into_iter().for_each(|id| drop(self.serving.remove(&id)));
        let mut last = None;
        while upto.lane == Lane::Bulk && self.tags.front().is_some_and(|(id, _)| id.n <= upto.n) {
            last = self.tags.pop_front().map(|(_, tag)| tag);
        }
        if let Some(upto) = last {
            self.report(Event::Acked { peer: self.peer, upto });
        }
    }

    fn on_signal(&mut self, now: Micros, topic: u16, body: Bytes) {
        if topic != topic::ANNOUNCE {
            return;
        }
        match Capacity::decode(body) {
            Ok(capacity) => {
                self.set_patience(now, capacity);
                self.report(Event::Announce { peer: self.peer, capacity });
            }
            Err(_) => self.pump.give_up(now, Over::Malformed),
        }
    }

    fn note_heard(&mut self, now: Micros) {
        if self.heard.is_none_or(|last| now.since(last) >= HEARD_EVERY) {
            self.heard = Some(now);
            self.report(Event::Heard { peer: self.peer, at: now });
        }
    }
}

/// To the peer.
impl RouterPort {
    fn send(&mut self, now: Micros, lane: Lane, tag: Tag, message: Outbound) {
        let (body, serving) = match message {
            Outbound::Client(piece) if matches!(*piece, ToClient::Piece { .. }) && !self.waiting.has_ease(lane) => {
                return;
            }
            Outbound::Client(message) => {
                self.on_answered(now, &message, None);
                (Body::Inline(message.encode()), None)
            }
            Outbound::Opened { job_no, message } => {
                self.on_answered(now, &message, Some(job_no));
                (Body::Inline(message.encode()), None)
            }
            Outbound::Worker(message) => {
                if let ToWorker::Cancel(fences) = &message {
                    // An assignment that has not left yet need not.
                    self.leave_out(fences.iter().copied().collect());
                }
                (Body::Inline(message.encode()), None)
            }
            message @ (Outbound::Assign { .. }
            | Outbound::Deliver { .. }
            | Outbound::Failures { .. }
            | Outbound::Task { .. }) => (Body::Ref { len: Serving::len(&message) }, Some(Serving::new(message))),
        };
        if !self.waiting.push(lane, body, Memo { tag, serving }) {
            self.pump.give_up(now, Over::Overrun);
        }
        self.flush(now);
    }

    /// The machine says whether a job is open: its rows need wait no longer.
    fn on_answered(&mut self, now: Micros, message: &ToClient, no: Option<JobNo>) {
        match message {
            ToClient::JobOpened { job, .. } | ToClient::JobRefused { job, .. } => {
                if let Some(known) = self.jobs.get_mut(job) {
                    known.answered = true;
                    known.no = no.or(known.no);
                }
            }
            ToClient::Deliver { .. } | ToClient::Refused { .. } | ToClient::Answer { .. } | ToClient::Piece { .. } => {
                return;
            }
        }
        self.pass_early(now);
    }

    fn flush(&mut self, now: Micros) {
        let (tags, serving) = (&mut self.tags, &mut self.serving);
        self.waiting.flush(now, &mut self.pump.session, |id, memo| {
            if memo.tag != Tag::NONE {
                tags.push_back((id, memo.tag));
            }
            if let Some(message) = memo.serving {
                serving.insert(id, message);
            }
        });
    }

    fn on_fetched(&mut self, now: Micros, msg: MsgId, records: Vec<Option<Fetched>>) {
        // Acknowledged on another connection meanwhile, perhaps.
        let Some(serving) = self.serving.get_mut(&msg) else { return };
        let mut unreadable = Vec::new();
        match serving.on_fetched(records, &mut unreadable) {
            Next::Provide(bytes) => self.pump.session.provide(msg, bytes),
            Next::Fetch(lsns) => self.pump.reports.push_back(RouterReport::Fetch { msg, lsns }),
        }
        self.flush(now);
        unreadable.into_iter().for_each(|(lsn, wanted)| self.report(Event::Unreadable { lsn, wanted }));
    }
}

fn keyed(hasher: &KeyHasher, rows: Vec<SubmitRow>) -> Vec<KeyedRow> {
    let keyed = |SubmitRow { row, sample, body }| {
        let key = hasher.key(&body, sample);
        KeyedRow { row, key, sample, body, prior: None }
    };
    rows.into_iter().map(keyed).collect()
}

impl Endpoint for RouterPort {
    type Command = RouterCommand;
    type Report = RouterReport;

    fn admit(&self, hello: &HelloInfo) -> Result<(), sheaf_session::Refusal> {
        self.pump.session.admit(hello)
    }

    fn input(&mut self, now: Micros, input: Input) -> Result<(), Fatal> {
        self.pump.session.feed(now, input)?;
        if self.pump.session.status().last_heard == Some(now) {
            self.note_heard(now);
        }
        Ok(())
    }

    fn missing_bytes(&self) -> usize {
        self.pump.session.missing_bytes()
    }

    fn command(&mut self, now: Micros, command: RouterCommand) {
        match command {
            RouterCommand::Commit(place) => self.pump.session.commit(now, place),
            RouterCommand::Send { lane, tag, message } => self.send(now, lane, tag, message),
            RouterCommand::Signal(counts) => self.pump.session.signal(now, topic::PROGRESS, counts.encode()),
            RouterCommand::Fetched { msg, records } => self.on_fetched(now, msg, records),
            RouterCommand::Close(how) => self.pump.session.close(now, how),
        }
    }

    fn poll(&mut self, now: Micros) -> Step<RouterReport> {
        match self.step(now) {
            Step::Report(RouterReport::Over(over)) if !self.gone => {
                self.gone = true;
                self.pump.reports.push_front(RouterReport::Over(over));
                Step::Report(RouterReport::Event(Event::PeerGone { peer: self.peer }))
            }
            step => step,
        }
    }
}

impl Glue for RouterPort {
    type Report = RouterReport;

    fn pump(&mut self) -> &mut Pump<RouterReport> {
        &mut self.pump
    }

    fn on_delivery(&mut self, now: Micros, delivery: Delivery) {
        self.on_message(now, delivery);
    }

    fn on_event(&mut self, now: Micros, event: SessionEvent) {
        match event {
            SessionEvent::Up { resumed: _ } => self.report(Event::PeerUp { peer: self.peer }),
            SessionEvent::Down => self.report(Event::PeerDown { peer: self.peer }),
            SessionEvent::Acked { lane: _, upto } => self.on_acked(upto),
            SessionEvent::Room { lane: _ } => self.flush(now),
            SessionEvent::Signal { topic, body } => self.on_signal(now, topic, body),
            // Early messages of an older epoch come again.
            SessionEvent::Renumbered { lane: Lane::Bulk, epoch } => {
                self.early.retain(|(early, _)| early.place.epoch >= epoch);
            }
            // What a peer lost of this lane it asks for in its own words: a client opens its job, a worker registers.
            SessionEvent::Renumbered { .. }
            | SessionEvent::Diverged { .. }
            | SessionEvent::Stored(_)
            | SessionEvent::Cancelled(_)
            | SessionEvent::TooLate(_)
            | SessionEvent::PeerBye
            | SessionEvent::Fenced
            | SessionEvent::Refused(_)
            | SessionEvent::Ended => {}
        }
    }

    fn on_need(&mut self, now: Micros, id: MsgId) {
        let Some(serving) = self.serving.get_mut(&id) else { return };
        match serving.begin() {
            None => {}
            Some(lsns) if lsns.is_empty() => self.on_fetched(now, id, Vec::new()),
            Some(lsns) => self.pump.reports.push_back(RouterReport::Fetch { msg: id, lsns }),
        }
    }

    fn on_persist(&mut self, ticket: Ticket, _record: SessionRecord) {
        unreachable!("the router's lanes have depth MEMORY: {ticket:?}");
    }

    fn over(over: Over) -> RouterReport {
        RouterReport::Over(over)
    }
}
