//! What all ports have in common: draining the session into a port's reactions.

use std::collections::VecDeque;

use bytes::Bytes;
use sheaf_session::{
    Body, Delivery, Event, Full, How, Kind, Lane, Micros, MsgId, Outgoing, Output, Record, Refusal, Session, Step,
    Ticket,
};

use super::Over;

/// Messages that found the outbox full and wait for room, on each lane; at it the session is given up.
///
/// Rare: what a machine sends is bounded by capacity and credit, far below an outbox. Only a peer that is away while
/// the rest goes on for long gathers so many orders.
const WAITING_MAX: usize = 4_096;

/// A session, what waits to be reported of it, and what waits for room in it.
pub(super) struct Pump<R> {
    pub(super) session: Session,
    pub(super) reports: VecDeque<R>,
    over: Option<Over>,
    said_over: bool,
}

/// A port's reactions.
pub(super) trait Glue {
    type Report;

    fn pump(&mut self) -> &mut Pump<Self::Report>;
    fn on_delivery(&mut self, now: Micros, delivery: Delivery);
    fn on_event(&mut self, now: Micros, event: Event);
    fn on_need(&mut self, now: Micros, id: MsgId);
    fn on_persist(&mut self, ticket: Ticket, record: Record);
    fn over(over: Over) -> Self::Report;

    /// The next thing to do outside.
    fn step(&mut self, now: Micros) -> Step<Self::Report> {
        loop {
            if let Some(report) = self.pump().reports.pop_front() {
                return Step::Report(report);
            }
            match self.pump().session.take(now) {
                Output::Persist(ticket, record) => self.on_persist(ticket, record),
                Output::Need(id) => self.on_need(now, id),
                Output::Transmit(bytes) => return Step::Transmit(bytes),
                Output::Deliver(delivery) if self.pump().over.is_some() => drop(delivery),
                Output::Deliver(delivery) => self.on_delivery(now, delivery),
                Output::Event(event) => self.handle_event(now, event),
                Output::Close(reason) => return Step::Close(reason),
                Output::Wait(at) => match self.pump().take_over() {
                    Verdict::Goes => return Step::Wait(at),
                    Verdict::Say(over) => return Step::Report(Self::over(over)),
                    Verdict::Done => return Step::Done,
                },
            }
        }
    }

    fn handle_event(&mut self, now: Micros, event: Event) {
        match event {
            Event::Ended => self.pump().end(Over::Ended),
            Event::Fenced => self.pump().end(Over::Fenced),
            // It is dialled again, ever more slowly.
            Event::Refused(Refusal::Busy) => {}
            Event::Refused(refusal) => self.pump().end(Over::Refused(refusal)),
            event @ (Event::Up { .. }
            | Event::Down
            | Event::Stored(_)
            | Event::Acked { .. }
            | Event::Cancelled(_)
            | Event::TooLate(_)
            | Event::Diverged { .. }
            | Event::Renumbered { .. }
            | Event::PeerBye
            | Event::Signal { .. }
            | Event::Room { .. }) => self.on_event(now, event),
        }
    }
}

enum Verdict {
    Goes,
    Say(Over),
    Done,
}

impl<R> Pump<R> {
    pub(super) fn new(session: Session) -> Self {
        Self { session, reports: VecDeque::new(), over: None, said_over: false }
    }

    /// The first reason counts.
    pub(super) fn end(&mut self, over: Over) {
        self.over.get_or_insert(over);
    }

    /// The peer is not what it should be.
    pub(super) fn give_up(&mut self, now: Micros, over: Over) {
        self.end(over);
        self.session.close(now, How::Now);
    }

    fn take_over(&mut self) -> Verdict {
        match &self.over {
            None => Verdict::Goes,
            Some(over) if !self.said_over => {
                self.said_over = true;
                Verdict::Say(over.clone())
            }
            Some(_) => Verdict::Done,
        }
    }
}

/// Messages in order, kept back while the outbox is full. `M` is what the port remembers of a message until it is sent.
pub(super) struct Waiting<M> {
    lanes: [VecDeque<(Body, M)>; 2],
}

impl<M> Waiting<M> {
    pub(super) fn new() -> Self {
        Self { lanes: [VecDeque::new(), VecDeque::new()] }
    }

    /// Takes a message; false if there are too many. [`Waiting::flush`] sends it.
    pub(super) fn push(&mut self, lane: Lane, body: Body, memo: M) -> bool {
        self.lanes[lane.index()].push_back((body, memo));
        self.lanes[lane.index()].len() <= WAITING_MAX
    }

    /// Whether a message that may be left out need not be.
    pub(super) fn has_ease(&self, lane: Lane) -> bool {
        self.lanes[lane.index()].is_empty()
    }

    /// Sends what the outbox takes, and says under which id.
    pub(super) fn flush(&mut self, now: Micros, session: &mut Session, mut sent: impl FnMut(MsgId, M)) {
        for lane in Lane::ALL {
            while let Some((body, memo)) = self.lanes[lane.index()].pop_front() {
                let outgoing = Outgoing { lane, kind: Kind::Data, app: 0, of: None, body: body.clone() };
                match session.send(now, outgoing) {
                    Ok(id) => sent(id, memo),
                    Err(Full::Messages { .. } | Full::Bytes { .. }) => {
                        self.lanes[lane.index()].push_front((body, memo));
                        break;
                    }
                    // Nobody is there to take it.
                    Err(Full::Closing) => {}
                    Err(full @ (Full::BodyTooLong { .. } | Full::RefOnDisk)) => {
                        unreachable!("messages are made to fit the session: {full}")
                    }
                }
            }
        }
    }
}

/// An encoded message.
pub(super) fn inline(bytes: Bytes) -> Body {
    Body::Inline(bytes)
}
