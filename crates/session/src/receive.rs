//! What arrives: bytes become packets, packets change the lanes. Within a packet acknowledgements come first.
//!
//! Invariant: any bytes are taken without panic. What breaks the protocol is `Fatal`: the connection is dropped, the
//! session stays as it was after the last good frame.

use bytes::{Bytes, BytesMut};

use crate::lane_rx::{Accept, Came};
use crate::lane_tx::Acked;
use crate::link::LinkState;
use crate::record::Step;
use crate::session::{Phase, Session};
use crate::wire::{self, AckW, FLAG_NOW, KIND_ANSWER, MsgW, Packet};
use crate::{Body, CloseReason, Depth, Event, Fatal, Input, Lane, Micros, MsgId, Output, Place, Refusal, Side, Ticket};

impl Session {
    /// Takes one input; then call [`Session::take`] until it says `Wait`.
    ///
    /// # Errors
    /// `Fatal`: the peer broke the protocol. Drop the connection; the session already counts it as gone.
    pub fn feed(&mut self, now: Micros, input: Input) -> Result<(), Fatal> {
        self.advance_clock(now);
        let fed = match input {
            Input::Connected { conn } => {
                self.on_connected(conn);
                Ok(())
            }
            Input::Disconnected => {
                self.drop_connection();
                Ok(())
            }
            Input::Persisted(ticket) => {
                self.on_persisted(ticket);
                Ok(())
            }
            Input::Bytes(chunk) => self.on_bytes(chunk),
            Input::Tick => Ok(()),
        };
        let fed = fed.and_then(|()| self.release_delayed());
        match fed {
            Ok(()) => self.on_time(),
            Err(_) => self.drop_connection(),
        }
        fed
    }

    /// Bytes that the packet under way lacks, as far as can be told; zero: none is under way.
    pub fn missing_bytes(&self) -> usize {
        self.link.framer.missing_bytes()
    }

    fn on_bytes(&mut self, mut chunk: BytesMut) -> Result<(), Fatal> {
        // A part of a long packet, on a slow carrier, is no silence.
        if !self.link.lossy {
            self.link.last_rx = self.now;
        }
        while !self.link.is_down() {
            let Some(packet) = self.link.framer.next(&mut chunk, self.config.packet_max)? else { break };
            match &mut self.link.faults_in {
                None => self.on_packet(packet)?,
                Some(pipe) => {
                    let mut passed = std::collections::VecDeque::new();
                    pipe.offer(self.now, packet, &mut passed);
                    passed.into_iter().try_for_each(|packet| self.on_packet(packet))?;
                }
            }
        }
        Ok(())
    }

    fn release_delayed(&mut self) -> Result<(), Fatal> {
        let Some(pipe) = &mut self.link.faults_in else { return Ok(()) };
        let mut passed = std::collections::VecDeque::new();
        pipe.release(self.now, &mut passed);
        passed.into_iter().try_for_each(|packet| self.on_packet(packet))
    }

    fn on_packet(&mut self, bytes: Bytes) -> Result<(), Fatal> {
        let packet = wire::decode(bytes)?;
        match (self.link.state, self.side) {
            (LinkState::Down, _) => return Ok(()),
            (LinkState::Greeting { .. }, Side::Listener) => {
                if packet.hello.is_none() {
                    return Err(Fatal::NoHello);
                }
                self.link.conn = packet.conn;
            }
            (LinkState::Greeting { .. }, Side::Dialer) | (LinkState::Up, _) => {
                if packet.conn != self.link.conn {
                    return Ok(());
                }
            }
        }
        self.link.last_rx = self.now;
        self.link.last_heard = Some(self.now);
        if let Some(why) = packet.refuse {
            return self.on_refuse(why);
        }
        self.on_greetings(&packet)?;
        if self.link.is_up() { self.on_frames(packet) } else { Ok(()) }
    }

    fn on_greetings(&mut self, packet: &Packet) -> Result<(), Fatal> {
        match (self.side, &packet.hello, &packet.welcome) {
            (Side::Listener, Some(hello), _) => self.on_hello(hello),
            (Side::Dialer, _, Some(welcome)) if !self.link.is_up() => self.on_greeting(welcome),
            (Side::Dialer | Side::Listener, _, _) => Ok(()),
        }
    }

    fn on_frames(&mut self, packet: Packet) -> Result<(), Fatal> {
        for ack in &packet.acks {
            self.on_ack(ack)?;
            if !self.link.is_up() {
                return Ok(());
            }
        }
        for open in &packet.opens {
            let rx = &mut self.rx[lane(open.lane)?.index()];
            if rx.on_open(open)? {
                self.out.push_back(Output::Event(Event::Renumbered { lane: rx.lane, epoch: open.epoch }));
            }
        }
        if !packet.msgs.is_empty() {
            self.on_msgs(packet.msgs)?;
        }
        for question in &packet.wheres {
            let tx = &mut self.tx[lane(question.lane)?.index()];
            if question.epoch == tx.epoch {
                tx.on_where(&question.ranges);
            }
        }
        for signal in packet.signals {
            let topic = u16::try_from(signal.topic).map_err(|_| Fatal::Malformed)?;
            self.out.push_back(Output::Event(Event::Signal { topic, body: signal.body }));
        }
        for blocked in &packet.blocked {
            self.rx[lane(blocked.lane)?.index()].on_blocked(blocked.limit);
        }
        if packet.flags & FLAG_NOW != 0 {
            self.rx.iter_mut().for_each(|rx| rx.now());
        }
        if let Some(bye) = packet.bye {
            self.on_bye(bye.now);
        }
        self.advance_phase();
        Ok(())
    }

    fn on_ack(&mut self, ack: &AckW) -> Result<(), Fatal> {
        let lane = lane(ack.lane)?;
        let rules = self.rules();
        let acked = self.tx[lane.index()].on_ack(ack, rules)?;
        if acked.progress {
            self.rtt.on_got(lane, ack.got, self.now);
            // A carrier so slow that it needs the longer time for each message keeps it.
            if self.now.since(self.link.progress_at) < self.config.timers.stall {
                self.link.stalls = 0;
            }
            self.link.progress_at = self.now;
            (self.link.probe_at, self.link.probes) = (None, 0);
        }
        if acked.forked {
            // The next greeting carries the same chain: the verdict there is FORK, and the event comes with it.
            self.shut(CloseReason::Diverged);
        }
        self.on_acked(lane, acked);
        Ok(())
    }

    /// Reports a floor that moved.
    pub(crate) fn on_acked(&mut self, lane: Lane, acked: Acked) {
        let Some((upto, chain)) = acked.upto else { return };
        self.out.push_back(Output::Event(Event::Acked { lane, upto }));
        if !self.wishes.cancels.is_empty() {
            self.report_skipped(upto);
        }
        if self.tx[lane.index()].depth == Depth::Disk {
            self.persist(Step::Forget { lane, n: upto.n, chain });
        }
        let tx = &mut self.tx[lane.index()];
        let half_empty =
            tx.len() <= self.config.outbox_messages_max / 2 && tx.inline_bytes() <= self.config.outbox_bytes_max / 2;
        if tx.full && half_empty {
            tx.full = false;
            self.out.push_back(Output::Event(Event::Room { lane }));
        }
    }

    fn on_msgs(&mut self, msgs: Vec<MsgW>) -> Result<(), Fatal> {
        let mut came = std::mem::take(&mut self.scratch.came);
        let result = self.accept_all(msgs, &mut came);
        for came in came.drain(..) {
            self.on_came(came);
        }
        self.scratch.came = came;
        // Messages that the session handles itself need no commit by the embedder.
        Lane::ALL.into_iter().for_each(|lane| self.advance_floor(lane));
        result
    }

    fn accept_all(&mut self, msgs: Vec<MsgW>, came: &mut std::collections::VecDeque<Came>) -> Result<(), Fatal> {
        let (ack_delay, rules) = (Lane::ALL.map(|lane| self.ack_delay(lane)), self.rules());
        let mut accept = Accept { now: self.now, body_max: self.config.body_max, ack_delay, rules, came };
        for msg in msgs {
            if self.link.faults_in.as_mut().is_some_and(|pipe| pipe.loses_delivery()) {
                continue;
            }
            self.rx[lane(msg.lane)?.index()].on_msg(msg, &mut accept)?;
        }
        Ok(())
    }

    fn on_came(&mut self, came: Came) {
        match came {
            Came::Deliver(delivery) => self.out.push_back(Output::Deliver(delivery)),
            Came::Cancel(of) => {
                if !self.rx[of.lane.index()].skip(of) {
                    self.answer_cancel(of, false);
                }
            }
            Came::Skipped(of) => self.answer_cancel(of, true),
            Came::Answer { of, cancelled } => self.on_cancel_answer(of, cancelled),
        }
    }

    /// A peer that floods with cancels and never acknowledges the answers gets none above the bound.
    fn answer_cancel(&mut self, of: Place, cancelled: bool) {
        if self.tx[Lane::Urgent.index()].len() < self.config.outbox_messages_max + ANSWERS_MAX {
            self.append(Lane::Urgent, KIND_ANSWER, u32::from(cancelled), Some(of), Body::Inline(Bytes::new()));
        }
    }

    fn on_cancel_answer(&mut self, of: Place, cancelled: bool) {
        let Some(n) = self.tx[of.lane.index()].n_of(of) else { return };
        let id = MsgId { lane: of.lane, n };
        let acked = self.tx[of.lane.index()].seq_of(n).is_none();
        let Some(skipped) = self.wishes.cancels.get_mut(&id) else { return };
        if cancelled && !acked {
            *skipped = true;
        } else {
            self.end_cancel(id, cancelled);
        }
    }

    /// A skip counts once it is below the peer's floor: before, a restarted peer might still deliver the message.
    fn report_skipped(&mut self, upto: MsgId) {
        let first = MsgId { n: 0, ..upto };
        let skipped = self.wishes.cancels.range(first..=upto).filter(|(_, skipped)| **skipped);
        for id in skipped.map(|(id, _)| *id).collect::<Vec<_>>() {
            self.end_cancel(id, true);
        }
    }

    fn end_cancel(&mut self, id: MsgId, skipped: bool) {
        self.wishes.cancels.remove(&id);
        let proven = skipped && self.tx[id.lane.index()].skip_is_proof(id.n);
        self.out.push_back(Output::Event(if proven { Event::Cancelled(id) } else { Event::TooLate(id) }));
    }

    fn on_bye(&mut self, now: bool) {
        if !self.wishes.peer_bye {
            self.wishes.peer_bye = true;
            self.out.push_back(Output::Event(Event::PeerBye));
        }
        if now {
            self.end();
        } else if self.phase == Phase::Talking {
            self.phase = Phase::Draining;
        }
    }

    fn on_refuse(&mut self, why: u32) -> Result<(), Fatal> {
        let why = wire::refusal(why).ok_or(Fatal::Malformed)?;
        let event = if why == Refusal::Fenced { Event::Fenced } else { Event::Refused(why) };
        self.out.push_back(Output::Event(event));
        self.shut(CloseReason::Refused(why));
        Ok(())
    }

    fn on_persisted(&mut self, ticket: Ticket) {
        let persisted = ticket.0.min(self.tickets.issued);
        if persisted <= self.tickets.persisted {
            return;
        }
        self.tickets.persisted = persisted;
        let Session { tx, out, .. } = self;
        for tx in tx {
            if tx.depth == Depth::Disk {
                tx.on_persisted(persisted, |id| out.push_back(Output::Event(Event::Stored(id))));
            }
        }
        while let Some((_, id)) = self.wishes.voiding.pop_front_if(|(ticket, _)| *ticket <= persisted) {
            self.out.push_back(Output::Event(Event::Cancelled(id)));
        }
        Lane::ALL.into_iter().for_each(|lane| self.advance_floor(lane));
    }
}

fn lane(index: u32) -> Result<Lane, Fatal> {
    Lane::ALL.get(index as usize).copied().ok_or(Fatal::Malformed)
}

/// Answers to cancels beyond the bound of the urgent lane.
const ANSWERS_MAX: usize = 1 << 10;
