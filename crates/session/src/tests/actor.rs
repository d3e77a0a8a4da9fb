//! One actor of the world: a session, its application, and a disk that keeps at a crash any prefix of its unsynced
//! effects and any subset of its unsynced records.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use crate::{
    Body, Config, Delivery, Depth, Event, Input, Kind, Lane, Micros, MsgId, Outgoing, Place, Receipt, Record, Rng,
    Session, SessionId, Side, State, Ticket,
};

/// What the application sends: named for life, whatever the session calls it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Payload {
    pub lane: Lane,
    pub n: u64,
}

impl Payload {
    pub(super) fn body(self) -> Bytes {
        let len = match self.n % 50 {
            0 => 6_000,
            short => short as usize * 3,
        };
        let mut body = self.n.to_le_bytes().to_vec();
        body.resize(8 + len, self.n as u8);
        Bytes::from(body)
    }

    pub(super) fn of(lane: Lane, body: &Bytes) -> Payload {
        let payload = Payload { lane, n: u64::from_le_bytes(body[..8].try_into().unwrap()) };
        assert_eq!(payload.body(), body, "a body came changed");
        payload
    }
}

#[derive(Clone, Debug)]
pub(super) enum Item {
    Record(Ticket, Record),
    /// The effect of a delivery, with the receipt in the same commit.
    Effect(Payload, Place, Option<Receipt>),
}

pub(super) struct Actor {
    pub side: Side,
    pub config: Config,
    pub session: Option<Session>,
    pub log: Vec<Item>,
    pub synced: usize,
    /// The application's own durable knowledge.
    pub sent: BTreeMap<Payload, MsgId>,
    pub by_id: BTreeMap<MsgId, Payload>,
    pub next_payload: u64,
    pub stored: BTreeSet<Payload>,
    pub acked: BTreeSet<Payload>,
    pub cancelled: BTreeSet<Payload>,
    /// Asked to be cancelled, or never guaranteed: delivery is optional.
    pub optional: BTreeSet<Payload>,
    pub needs: Vec<MsgId>,
    pub to_reply: Vec<Place>,
    pub events: Vec<Event>,
    pub delivered: Vec<Delivery>,
    pub wait: Option<Micros>,
    pub lives: u64,
}

impl Actor {
    pub(super) fn new(side: Side, config: Config) -> Actor {
        let mut one = Actor {
            side,
            config,
            session: None,
            log: Vec::new(),
            synced: 0,
            sent: BTreeMap::new(),
            by_id: BTreeMap::new(),
            next_payload: 1,
            stored: BTreeSet::new(),
            acked: BTreeSet::new(),
            cancelled: BTreeSet::new(),
            optional: BTreeSet::new(),
            needs: Vec::new(),
            to_reply: Vec::new(),
            events: Vec::new(),
            delivered: Vec::new(),
            wait: None,
            lives: 0,
        };
        one.start(Micros::ZERO);
        one
    }

    /// A new life of the process, from what is on the disk.
    pub(super) fn start(&mut self, now: Micros) {
        self.lives += 1;
        let mut state = State::new(SessionId([7; 16]));
        for item in &self.log {
            match item {
                // As a file would give it back.
                Item::Record(_, record) => state.apply(Record::from_bytes(record.to_bytes()).unwrap()),
                Item::Effect(_, _, receipt) => receipt.iter().for_each(|receipt| state.received(*receipt)),
            }
        }
        let mut again = State::new(state.id);
        state.snapshot().into_iter().for_each(|record| again.apply(record));
        assert_eq!(again, state, "a rewritten log says the same");
        self.config.incarnation = state.incarnation + 1;
        self.config.boot = self.config.boot.wrapping_add(0x1234_5678_9abc);
        self.log.push(Item::Record(Ticket(0), Record::start(self.config.incarnation)));
        self.synced = self.log.len();
        let session = Session::recover(self.config.clone(), self.side, 5, state);
        self.by_id.clear();
        for lane in Lane::ALL {
            for (id, _, body) in session.outbox(lane) {
                let payload = Payload::of(lane, body.unwrap());
                self.by_id.insert(id, payload);
                self.sent.insert(payload, id);
            }
        }
        self.session = Some(session);
        self.resend(now);
    }

    /// Rebuilds what the lanes of depth MEMORY lost, and what a deep lane never guaranteed.
    fn resend(&mut self, now: Micros) {
        let known: BTreeSet<Payload> = self.by_id.values().copied().collect();
        let open: Vec<Payload> = (self.sent.keys())
            .filter(|payload| !known.contains(*payload) && !self.acked.contains(*payload))
            .filter(|payload| !self.optional.contains(*payload) && !self.cancelled.contains(*payload))
            .copied()
            .collect();
        for payload in open {
            if self.depth(payload.lane) == Depth::Memory {
                self.send_payload(now, payload, Kind::Data, None);
            } else if !self.stored.contains(&payload) {
                self.optional.insert(payload);
            }
        }
    }

    pub(super) fn depth(&self, lane: Lane) -> Depth {
        self.config.depth_tx[lane.index()]
    }

    pub(super) fn send(&mut self, now: Micros, lane: Lane) -> Option<MsgId> {
        let payload = Payload { lane, n: self.next_payload };
        self.next_payload += 1;
        self.send_payload(now, payload, Kind::Data, None)
    }

    pub(super) fn reply(&mut self, now: Micros, of: Place) {
        let payload = Payload { lane: Lane::Urgent, n: self.next_payload };
        self.next_payload += 1;
        self.send_payload(now, payload, Kind::Reply, Some(of));
    }

    fn send_payload(&mut self, now: Micros, payload: Payload, kind: Kind, of: Option<Place>) -> Option<MsgId> {
        let body = payload.body();
        let by_ref = self.depth(payload.lane) == Depth::Memory && payload.n.is_multiple_of(3);
        let body = if by_ref { Body::Ref { len: body.len() as u32 } } else { Body::Inline(body) };
        let message = Outgoing { lane: payload.lane, kind, app: 0, of, body };
        let id = self.session.as_mut()?.send(now, message).ok()?;
        self.sent.insert(payload, id);
        self.by_id.insert(id, payload);
        Some(id)
    }

    pub(super) fn provide(&mut self) {
        let Some(session) = &mut self.session else { return };
        for id in self.needs.drain(..) {
            session.provide(id, self.by_id[&id].body());
        }
    }

    /// The disk syncs: what was logged is durable, the session hears of it.
    pub(super) fn sync(&mut self, now: Micros, rng: &mut Rng) {
        let mut fresh: Vec<Item> = self.log[self.synced..].to_vec();
        self.synced = self.log.len();
        let Some(session) = &mut self.session else { return };
        let persisted = fresh.iter().rev().find_map(|item| match item {
            Item::Record(ticket, _) => Some(*ticket),
            Item::Effect(..) => None,
        });
        if let Some(ticket) = persisted {
            session.feed(now, Input::Persisted(ticket)).unwrap();
        }
        // Commits come in any order.
        while !fresh.is_empty() {
            if let Item::Effect(_, place, _) = fresh.swap_remove(rng.below(fresh.len() as u64) as usize) {
                session.commit(now, place);
            }
        }
    }

    /// The process is gone, and of the unsynced tail some survives.
    pub(super) fn crash(&mut self, rng: &mut Rng) {
        self.session = None;
        let tail = self.log.split_off(self.synced);
        let effects = rng.below(tail.len() as u64 + 1) as usize;
        for (index, item) in tail.into_iter().enumerate() {
            let kept = match item {
                Item::Effect(..) => index < effects,
                Item::Record(..) => rng.chance(0.7),
            };
            if kept {
                self.log.push(item);
            }
        }
        self.synced = self.log.len();
        self.needs.clear();
        self.to_reply.clear();
        self.wait = None;
    }

    pub(super) fn effects(&self, durable_only: bool) -> impl Iterator<Item = Payload> {
        let upto = if durable_only { self.synced } else { self.log.len() };
        self.log[..upto].iter().filter_map(|item| match item {
            Item::Effect(payload, _, _) => Some(*payload),
            Item::Record(..) => None,
        })
    }

    pub(super) fn on_deliver(&mut self, delivery: Delivery) {
        let payload = Payload::of(delivery.place.lane, &delivery.body);
        self.log.push(Item::Effect(payload, delivery.place, delivery.receipt));
        if delivery.kind == Kind::Data && payload.n.is_multiple_of(7) {
            self.to_reply.push(delivery.place);
        }
        self.delivered.push(delivery);
    }
}
