//! The client's end of its session with the router; also an operator's, who only asks.

use std::collections::VecDeque;

use sheaf_session::{
    Delivery, Endpoint, Event, Fatal, How, Input, Lane, Micros, MsgId, Place, Record, Session, Status, Step, Ticket,
};
use sheaf_task::{Answer, JobCounts, JobId, Piece, RowId, ToClient, ToRouter, topic};

use super::Over;
use super::pump::{Glue, Pump, Waiting, inline};
use crate::client;

/// What the client's shell asks of its port.
#[derive(Clone, Debug)]
pub enum ClientCommand {
    /// [`client::Output::Send`]. An operator sends [`ToRouter::Ask`] without a tag.
    Send {
        /// The machine's number for it.
        tag: Option<client::Tag>,
        /// What.
        message: ToRouter,
    },
    /// [`client::Output::Commit`].
    Commit(client::Ticket),
    /// End the session: `Drain` after [`client::Output::Done`].
    Close(How),
}

/// What the port tells the client's shell.
#[derive(Clone, Debug)]
pub enum ClientReport {
    /// For the machine.
    Event {
        /// The job that it is about; `None`: the session.
        job: Option<JobId>,
        /// What.
        event: client::Event,
    },
    /// A piece of a row's answer.
    Piece {
        /// The row.
        row: RowId,
        /// The piece.
        piece: Piece,
    },
    /// To a question.
    Answer {
        /// The asker's number.
        id: u64,
        /// The answer.
        answer: Answer,
    },
    /// The session is over for good.
    Over(Over),
}

/// The port.
pub struct ClientPort {
    pump: Pump<ClientReport>,
    waiting: Waiting<Option<client::Tag>>,
    /// Bulk messages that are not acknowledged, in order.
    tags: VecDeque<(MsgId, client::Tag)>,
    ticket: client::Ticket,
    /// Deliveries that are not committed, in order.
    places: VecDeque<(client::Ticket, Place)>,
}

impl ClientPort {
    /// On a new session ([`super::fit_dialer_config`]).
    pub fn new(session: Session) -> Self {
        Self {
            pump: Pump::new(session),
            waiting: Waiting::new(),
            tags: VecDeque::new(),
            ticket: client::Ticket::default(),
            places: VecDeque::new(),
        }
    }

    /// The session as it stands.
    pub fn status(&self) -> Status {
        self.pump.session.status()
    }

    fn send(&mut self, now: Micros, tag: Option<client::Tag>, message: &ToRouter) {
        let lane = match message {
            ToRouter::Submit { .. } | ToRouter::Results(_) => Lane::Bulk,
            ToRouter::OpenJob(_)
            | ToRouter::Scanned { .. }
            | ToRouter::Ask { .. }
            | ToRouter::Register(_)
            | ToRouter::Recalled(_)
            | ToRouter::Leave
            | ToRouter::Watch { .. }
            | ToRouter::Piece(_) => Lane::Urgent,
        };
        // Bounded by the machine: what it submits unacknowledged, and a few words.
        if !self.waiting.push(lane, inline(message.encode()), tag) {
            self.pump.give_up(now, Over::Overrun);
        }
        self.flush(now);
    }

    fn flush(&mut self, now: Micros) {
        let tags = &mut self.tags;
        self.waiting.flush(now, &mut self.pump.session, |id, tag| match (id.lane, tag) {
            (Lane::Bulk, Some(tag)) => tags.push_back((id, tag)),
            (Lane::Bulk, None) | (Lane::Urgent, _) => {}
        });
    }

    fn report(&mut self, event: client::Event) {
        self.pump.reports.push_back(ClientReport::Event { job: None, event });
    }

    fn on_acked(&mut self, upto: MsgId) {
        let mut last = None;
        while self.tags.front().is_some_and(|(id, _)| id.n <= upto.n) {
            last = self.tags.pop_front().map(|(_, tag)| tag);
        }
        if let Some(tag) = last {
            self.report(client::Event::Acknowledged(tag));
        }
    }

    fn commit(&mut self, now: Micros, upto: client::Ticket) {
        while self.places.front().is_some_and(|(ticket, _)| *ticket <= upto)
            && let Some((_, place)) = self.places.pop_front()
        {
            self.pump.session.commit(now, place);
        }
    }

    fn on_signal(&mut self, now: Micros, topic: u16, body: bytes::Bytes) {
        if topic != topic::PROGRESS {
            return;
        }
        match JobCounts::decode(body) {
            Ok(counts) => self.report(client::Event::Progress(counts)),
            Err(_) => self.pump.give_up(now, Over::Malformed),
        }
    }
}

impl Endpoint for ClientPort {
    type Command = ClientCommand;
    type Report = ClientReport;

    fn input(&mut self, now: Micros, input: Input) -> Result<(), Fatal> {
        self.pump.session.feed(now, input)
    }

    fn missing_bytes(&self) -> usize {
        self.pump.session.missing_bytes()
    }

    fn command(&mut self, now: Micros, command: ClientCommand) {
        match command {
            ClientCommand::Send { tag, message } => self.send(now, tag, &message),
            ClientCommand::Commit(upto) => self.commit(now, upto),
            ClientCommand::Close(how) => self.pump.session.close(now, how),
        }
    }

    fn poll(&mut self, now: Micros) -> Step<ClientReport> {
        self.step(now)
    }
}

impl Glue for ClientPort {
    type Report = ClientReport;

    fn pump(&mut self) -> &mut Pump<ClientReport> {
        &mut self.pump
    }

    fn on_delivery(&mut self, now: Micros, delivery: Delivery) {
        let Ok(message) = ToClient::decode(delivery.body) else {
            self.pump.give_up(now, Over::Malformed);
            return;
        };
        let of = |job, event| ClientReport::Event { job: Some(job), event };
        let report = match message {
            ToClient::Deliver { job, rows } => {
                self.ticket = client::Ticket(self.ticket.0 + 1);
                self.places.push_back((self.ticket, delivery.place));
                self.pump.reports.push_back(of(job, client::Event::Delivered { ticket: self.ticket, rows }));
                return;
            }
            ToClient::JobOpened { job, router, cursor, counts } => {
                of(job, client::Event::Opened { router, cursor, counts })
            }
            ToClient::JobRefused { job, refusal } => of(job, client::Event::JobRefused(refusal)),
            ToClient::Refused { job, rows, refusal } => of(job, client::Event::RowsRefused { rows, refusal }),
            ToClient::Piece { job: _, row, piece } => ClientReport::Piece { row, piece },
            ToClient::Answer { id, answer } => ClientReport::Answer { id, answer },
        };
        self.pump.session.commit(now, delivery.place);
        self.pump.reports.push_back(report);
    }

    fn on_event(&mut self, now: Micros, event: Event) {
        match event {
            Event::Up { resumed: _ } => self.report(client::Event::Up),
            Event::Down => self.report(client::Event::Down),
            Event::Acked { lane: Lane::Bulk, upto } => self.on_acked(upto),
            Event::Diverged { lane: Lane::Bulk, expected: false, .. } => self.report(client::Event::Lost),
            Event::Room { lane: _ } => self.flush(now),
            Event::Signal { topic, body } => self.on_signal(now, topic, body),
            // Deliveries of an older epoch that are not committed come again; the machine knows them by their numbers.
            Event::Renumbered { .. }
            | Event::Acked { lane: Lane::Urgent, .. }
            | Event::Diverged { .. }
            | Event::Stored(_)
            | Event::Cancelled(_)
            | Event::TooLate(_)
            | Event::PeerBye
            | Event::Fenced
            | Event::Refused(_)
            | Event::Ended => {}
        }
    }

    fn on_need(&mut self, _now: Micros, id: MsgId) {
        unreachable!("a client's messages carry their bodies: {id:?}");
    }

    fn on_persist(&mut self, ticket: Ticket, _record: Record) {
        unreachable!("a client's lanes have depth MEMORY: {ticket:?}");
    }

    fn over(over: Over) -> ClientReport {
        ClientReport::Over(over)
    }
}
