//! Two actors, one stream of bytes in each direction, one clock. Each output is checked as it happens; what breaks an
//! invariant is collected in `violations`, so that a planted mutation can be seen to be caught.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;

use super::actor::{Actor, Item, Payload};
use crate::wire::{ENVELOPE, KIND_ANSWER, KIND_CANCEL, KIND_VOID, Packet, decode};
use crate::{Config, Delivery, Depth, Event, Fatal, Input, Kind, Lane, Micros, Output, Rng, Side};

pub(super) struct World {
    pub now: Micros,
    pub rng: Rng,
    /// Dialer, listener.
    pub actors: [Actor; 2],
    /// `pipes[i]`: bytes from actor i, due at the other side.
    pub pipes: [VecDeque<(Micros, Bytes)>; 2],
    pub connected: bool,
    pub conn: u64,
    pub latency_max: Micros,
    pub violations: Vec<String>,
    /// Deliveries may repeat and be missing: a disk went back in time.
    pub rewound: bool,
    pub trace: u64,
    pub packets: [u64; 2],
    wire: WireChecks,
    /// Places delivered in this life of each actor.
    delivered: [BTreeSet<crate::Place>; 2],
}

/// What the wire has shown.
#[derive(Default)]
struct WireChecks {
    /// I6: (side, lane, epoch, seq) → content.
    contents: BTreeMap<(usize, u32, u64, u64), u64>,
    /// I7, I9: (side of the receiver, lane, epoch) → floor and limit said on this connection.
    said: BTreeMap<(usize, u32, u64), (u64, u64)>,
    /// I11: (side, lane, first missing) → when asked.
    asked: BTreeMap<(usize, u32, u64, u64), Micros>,
    window: [u64; 2],
}

impl World {
    pub(super) fn new(seed: u64, dialer: Config, listener: Config) -> World {
        World {
            now: Micros::ZERO,
            rng: Rng::new(seed),
            actors: [Actor::new(Side::Dialer, dialer), Actor::new(Side::Listener, listener)],
            pipes: [VecDeque::new(), VecDeque::new()],
            connected: false,
            conn: 0,
            latency_max: Micros::from_ms(5),
            violations: Vec::new(),
            rewound: false,
            trace: 0,
            packets: [0; 2],
            wire: WireChecks::default(),
            delivered: [BTreeSet::new(), BTreeSet::new()],
        }
    }

    pub(super) fn violate(&mut self, what: String) {
        self.violations.push(format!("at {} us: {what}", self.now.0));
    }

    fn note(&mut self, what: u64) {
        self.trace = (self.trace ^ what).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(17);
    }

    pub(super) fn connect(&mut self) {
        if self.connected || self.actors.iter().any(|actor| actor.session.is_none()) {
            return;
        }
        self.conn += 1;
        self.connected = true;
        self.wire.said.clear();
        self.wire.asked.clear();
        for side in 0..2 {
            self.feed(side, Input::Connected { conn: self.conn * 77 });
        }
        self.drain();
    }

    pub(super) fn disconnect(&mut self) {
        if !self.connected {
            return;
        }
        self.connected = false;
        for side in 0..2 {
            // A part of what was on its way still arrives.
            let kept = self.rng.below(self.pipes[side].len() as u64 + 1) as usize;
            for (_, chunk) in self.pipes[side].drain(..).take(kept).collect::<Vec<_>>() {
                self.feed(1 - side, Input::Bytes(chunk.into()));
            }
            self.drain_effects(1 - side);
            self.feed(1 - side, Input::Disconnected);
        }
        self.pipes = [VecDeque::new(), VecDeque::new()];
        self.drain();
    }

    /// A side drops the connection once what it transmitted is out.
    fn close(&mut self, side: usize) {
        for (_, chunk) in std::mem::take(&mut self.pipes[side]) {
            self.feed(1 - side, Input::Bytes(chunk.into()));
            self.drain_effects(1 - side);
        }
        self.disconnect();
    }

    pub(super) fn crash(&mut self, side: usize) {
        self.disconnect();
        let World { actors, rng, .. } = self;
        actors[side].crash(rng);
        self.delivered[side].clear();
    }

    pub(super) fn restart(&mut self, side: usize) {
        if self.actors[side].session.is_none() {
            let now = self.now;
            self.actors[side].start(now);
            self.drain();
        }
    }

    pub(super) fn sync(&mut self, side: usize) {
        let now = self.now;
        let World { actors, rng, .. } = self;
        actors[side].sync(now, rng);
        // I10 is about replies to what is acknowledged: an application may of course answer before it commits.
        let actor = &mut self.actors[side];
        let Some(session) = &actor.session else { return };
        let floors = session.rx.each_ref().map(|rx| rx.floor());
        let ready: Vec<_> = actor.to_reply.extract_if(.., |of| of.seq <= floors[of.lane.index()]).collect();
        for of in ready {
            actor.reply(now, of);
        }
        self.drain();
    }

    fn feed(&mut self, side: usize, input: Input) {
        let now = self.now;
        let Some(session) = &mut self.actors[side].session else { return };
        if let Err(fatal) = session.feed(now, input) {
            self.on_fatal(side, fatal);
        }
    }

    fn on_fatal(&mut self, side: usize, fatal: Fatal) {
        self.violate(format!("side {side}: {fatal}"));
        self.disconnect();
    }

    /// Time goes to the next thing that happens, at most `span` ahead.
    pub(super) fn step(&mut self, span: Micros) {
        let arrivals = self.pipes.iter().filter_map(|pipe| pipe.front().map(|(due, _)| *due));
        let waits = self.actors.iter().filter_map(|actor| actor.wait);
        let next = arrivals.chain(waits).min().unwrap_or(self.now + span).min(self.now + span);
        self.now = self.now.max(next);
        for side in 0..2 {
            self.arrive(side);
        }
        for side in 0..2 {
            if self.actors[side].wait.is_some_and(|at| at <= self.now) {
                self.feed(side, Input::Tick);
            }
        }
        self.drain();
    }

    fn arrive(&mut self, side: usize) {
        while self.pipes[side].front().is_some_and(|(due, _)| *due <= self.now) {
            let (due, mut chunk) = self.pipes[side].pop_front().unwrap();
            if self.rng.chance(0.3) {
                let cut = self.rng.below(chunk.len() as u64 + 1) as usize;
                self.pipes[side].push_front((due, chunk.split_off(cut)));
            }
            self.feed(1 - side, Input::Bytes(chunk.into()));
            self.drain_effects(1 - side);
        }
    }

    pub(super) fn run(&mut self, span: Micros) {
        let end = self.now + span;
        while self.now < end && self.violations.is_empty() {
            self.step(Micros::from_ms(20));
        }
    }

    pub(super) fn drain(&mut self) {
        for side in 0..2 {
            self.drain_effects(side);
        }
    }

    fn drain_effects(&mut self, side: usize) {
        loop {
            let now = self.now;
            let Some(session) = &mut self.actors[side].session else { return };
            match session.take(now) {
                Output::Wait(at) => {
                    self.actors[side].wait = at;
                    break;
                }
                Output::Persist(ticket, record) => self.actors[side].log.push(Item::Record(ticket, record)),
                Output::Need(id) => self.actors[side].needs.push(id),
                Output::Transmit(bytes) => self.on_transmit(side, bytes),
                Output::Deliver(delivery) => self.on_deliver(side, delivery),
                Output::Event(event) => self.on_event(side, event),
                Output::Close(_) => self.close(side),
            }
        }
        if let Some(session) = &self.actors[side].session {
            session.tx.iter().for_each(|tx| tx.check());
            session.rx.iter().for_each(|rx| rx.check());
        }
    }

    fn on_transmit(&mut self, side: usize, bytes: Bytes) {
        if !self.connected {
            return;
        }
        self.packets[side] += 1;
        self.note(u64::from(crc32c::crc32c(&bytes)));
        let packet = decode(bytes.slice(ENVELOPE..)).unwrap();
        self.check_packet(side, &packet);
        let last = self.pipes[side].back().map_or(Micros::ZERO, |(due, _)| *due);
        let due = (self.now + Micros(self.rng.below(self.latency_max.0 + 1))).max(last);
        self.pipes[side].push_back((due, bytes));
    }

    fn check_packet(&mut self, side: usize, packet: &Packet) {
        // Injected faults repeat and swap packets after they were built.
        let tidy = self.actors[side].config.faults.is_none();
        for greeting in packet.hello.iter().chain(&packet.welcome) {
            self.wire.window[side] = greeting.window;
            for facts in &greeting.rx {
                let said = self.wire.said.entry((side, facts.lane, facts.epoch)).or_default();
                *said = (said.0.max(facts.floor), said.1.max(facts.limit));
            }
        }
        for ack in &packet.acks {
            let said = self.wire.said.entry((side, ack.lane, ack.epoch)).or_default();
            let before = std::mem::replace(said, (said.0.max(ack.floor), said.1.max(ack.limit)));
            if tidy && (before.0 > ack.floor || before.1 > ack.limit) {
                self.violate(format!("I7: {before:?} then {ack:?}"));
            }
        }
        for msg in &packet.msgs {
            let content = crate::ack::chain_next(0, msg.kind, msg.app, None, &msg.body);
            let before = self.wire.contents.insert((side, msg.lane, msg.epoch, msg.seq), content);
            if before.is_some_and(|before| before != content) && !self.rewound {
                self.violate(format!("I6: another content for {} {} {}", msg.lane, msg.epoch, msg.seq));
            }
            let said = self.wire.said.get(&(1 - side, msg.lane, msg.epoch));
            if msg.seq > said.map_or(0, |said| said.1).max(self.wire.window[1 - side]) {
                self.violate(format!("I9: {} of lane {} above the limit", msg.seq, msg.lane));
            }
            self.check_persisted(side, msg);
        }
        for question in &packet.wheres {
            for pair in question.ranges.chunks_exact(2) {
                let key = (side, question.lane, question.epoch, pair[0]);
                let before = self.wire.asked.insert(key, self.now);
                if tidy && before.is_some_and(|before| self.now.since(before) < Micros::from_ms(5)) {
                    self.violate(format!("I11: {pair:?} asked for twice in a round trip"));
                }
            }
        }
    }

    /// I2.
    fn check_persisted(&mut self, side: usize, msg: &crate::wire::MsgW) {
        let lane = Lane::ALL[msg.lane as usize];
        let own = matches!(msg.kind, KIND_VOID | KIND_CANCEL | KIND_ANSWER);
        if self.actors[side].depth(lane) == Depth::Memory || own {
            return;
        }
        let actor = &self.actors[side];
        let payload = Payload::of(lane, &msg.body);
        // `Stored` follows `Persisted`: what was never reported stored must not be on the wire.
        if !actor.stored.contains(&payload) && !actor.log[..actor.synced].iter().any(|item| names(item, &msg.body)) {
            self.violate(format!("I2: {payload:?} left before it was persisted"));
        }
    }

    fn on_deliver(&mut self, side: usize, delivery: Delivery) {
        self.note(delivery.place.seq);
        if !self.delivered[side].insert(delivery.place) {
            self.violate(format!("I4: {:?} delivered twice", delivery.place));
        }
        let later = crate::Place { seq: delivery.place.seq + 1, ..delivery.place };
        let end = crate::Place { seq: u64::MAX, ..delivery.place };
        if self.delivered[side].range(later..=end).next().is_some() {
            self.violate(format!("I5: {:?} delivered after a later one", delivery.place));
        }
        if let (Kind::Reply, Some(of)) = (delivery.kind, delivery.of) {
            let tx = &self.actors[side].session.as_ref().unwrap().tx[of.lane.index()];
            // A replier that keeps no receipts forgets at its death that it took the request.
            let forgot = self.actors[1 - side].lives > 1 && tx.depth == Depth::Memory;
            if tx.epoch == of.epoch && tx.floor() < of.seq && !forgot {
                self.violate(format!("I10: a reply to {of:?} before its acknowledgement"));
            }
        }
        let payload = Payload::of(delivery.place.lane, &delivery.body);
        let sender = &self.actors[1 - side];
        let rebuilt = sender.lives > 1 && sender.depth(payload.lane) == Depth::Memory;
        if !rebuilt && sender.cancelled.contains(&payload) {
            self.violate(format!("{payload:?} delivered after it was cancelled"));
        }
        self.actors[side].on_deliver(delivery);
    }

    fn on_event(&mut self, side: usize, event: Event) {
        match &event {
            Event::Acked { lane, upto } => self.on_acked(side, *lane, upto.n),
            Event::Stored(id) => {
                let payload = self.actors[side].by_id.get(id).copied();
                self.actors[side].stored.extend(payload);
            }
            Event::Cancelled(id) => {
                let payload = self.actors[side].by_id[id];
                self.actors[side].cancelled.insert(payload);
                // A rebuilt outbox sends under a new id what an earlier life may have delivered.
                let rebuilt = self.actors[side].lives > 1 && self.actors[side].depth(id.lane) == Depth::Memory;
                if !rebuilt && self.actors[1 - side].effects(false).any(|effect| effect == payload) {
                    self.violate(format!("{payload:?} cancelled after it was delivered"));
                }
            }
            Event::Diverged { expected: false, .. } if !self.rewound => self.violate(format!("I16 {side}: {event:?}")),
            _ => {}
        }
        self.actors[side].events.push(event);
    }

    /// I1.
    fn on_acked(&mut self, side: usize, lane: Lane, upto: u64) {
        let actor = &self.actors[side];
        let acked: Vec<Payload> = (actor.by_id.iter())
            .filter(|(id, payload)| id.lane == lane && id.n <= upto && !actor.acked.contains(*payload))
            .map(|(_, payload)| *payload)
            .collect();
        let durable: BTreeSet<Payload> = self.actors[1 - side].effects(true).collect();
        for payload in acked {
            let optional = self.actors[side].optional.contains(&payload);
            if !durable.contains(&payload) && !optional && !self.rewound {
                self.violate(format!("I1: {payload:?} acknowledged, effects not durable"));
            }
            self.actors[side].acked.insert(payload);
        }
    }

    /// Everything heals; the session must drain. Then I3, I4 and I18 can be judged.
    pub(super) fn settle(&mut self) {
        for side in 0..2 {
            self.restart(side);
        }
        let end = self.now + Micros::from_secs(120);
        while self.now < end && self.violations.is_empty() {
            self.connect();
            for side in 0..2 {
                self.actors[side].provide();
                self.sync(side);
            }
            self.step(Micros::from_ms(20));
            let open = |actor: &Actor| actor.session.as_ref().is_none_or(|it| it.status().unacked != [0, 0]);
            if !self.actors.iter().any(open) && self.connected {
                self.judge_end();
                return;
            }
        }
        if self.violations.is_empty() {
            let state = self.actors.each_ref().map(|actor| actor.session.as_ref().map(|session| session.status()));
            self.violate(format!("I18: does not drain: {state:?}"));
        }
    }

    fn judge_end(&mut self) {
        for side in 0..2 {
            let mut counts: BTreeMap<Payload, usize> = BTreeMap::new();
            self.actors[1 - side].effects(false).for_each(|payload| *counts.entry(payload).or_default() += 1);
            let actor = &self.actors[side];
            let mut wrong = Vec::new();
            for payload in actor.sent.keys() {
                let count = counts.get(payload).copied().unwrap_or(0);
                let optional = actor.optional.contains(payload) || actor.cancelled.contains(payload);
                let deep = actor.depth(payload.lane) == Depth::Disk;
                let lived_through = self.actors.iter().all(|actor| actor.lives == 1);
                // What the rewound side (0) had committed went with its disk.
                if count == 0 && !optional && !(self.rewound && side == 1) {
                    wrong.push(format!("I3: {payload:?} of side {side} never delivered"));
                }
                if count > 1 && (deep || lived_through) && !self.rewound {
                    wrong.push(format!("I4: {payload:?} of side {side} took effect {count} times"));
                }
            }
            self.violations.extend(wrong);
        }
    }
}

fn names(item: &Item, body: &Bytes) -> bool {
    match item {
        Item::Record(_, record) => record.body() == Some(body),
        Item::Effect(..) => false,
    }
}
