//! The session as its embedder sees it: construction, commands, a look inside. What arrives is handled in `receive`,
//! what leaves is built in `transmit`, greetings are judged in `greet`.
//!
//! Invariant: every call order is legal. A command never waits for the peer.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;

use crate::lane_rx::{Came, RxLane};
use crate::lane_tx::{Entry, Held, Opening, Rules, TxLane};
use crate::link::Link;
use crate::record::Step;
use crate::timers::RoundTrip;
use crate::wire::{HelloInfo, KIND_CANCEL, KIND_DATA, KIND_REPLY, Packet};
use crate::{
    Body, CloseReason, Config, Depth, Event, Full, How, Kind, Lane, Micros, MsgId, Outgoing, Output, Place, Record,
    Refusal, Rng, SessionId, Side, State, Status, Ticket,
};

/// One side of a conversation. See the crate's documentation.
#[derive(Debug)]
pub struct Session {
    pub(crate) config: Config,
    pub(crate) side: Side,
    pub(crate) id: SessionId,
    pub(crate) now: Micros,
    pub(crate) rng: Rng,
    pub(crate) out: VecDeque<Output>,
    pub(crate) tx: [TxLane; 2],
    pub(crate) rx: [RxLane; 2],
    pub(crate) link: Link,
    pub(crate) tickets: Tickets,
    pub(crate) wishes: Wishes,
    pub(crate) phase: Phase,
    pub(crate) peer: Option<Peer>,
    pub(crate) rtt: RoundTrip,
    pub(crate) scratch: Scratch,
}

/// ```text
///   Talking ── close(Drain) or the peer's Bye ──► Draining ── all acknowledged ──► Said ── the peer's Bye ──► Ended
///      └──────────────────────────── close(Now), or the peer's ─────────────────────────────────────────────────▲
/// ```
/// A peer that comes back in another life takes its Bye back: then only who was asked to close goes on closing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    Talking,
    Draining,
    Said,
    Ended,
}

/// What is known of the peer's process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Peer {
    pub incarnation: u64,
    pub boot: u64,
}

/// Records issued and records durable.
#[derive(Debug, Default)]
pub(crate) struct Tickets {
    pub issued: u64,
    pub persisted: u64,
}

/// What the embedder asked for besides messages.
#[derive(Debug, Default)]
pub(crate) struct Wishes {
    /// The newest value per topic, not yet sent.
    pub signals: BTreeMap<u16, Bytes>,
    /// Sent messages whose cancel is under way. True: the peer skipped it; reported once its floor says so durably.
    pub cancels: BTreeMap<MsgId, bool>,
    /// Unsent messages that are cancelled once this ticket is durable.
    pub voiding: VecDeque<(u64, MsgId)>,
    /// To end after draining.
    pub close: bool,
    /// The peer's Bye came, in the life that it is in.
    pub peer_bye: bool,
    /// Copies of my Bye still to send.
    pub byes: u32,
    /// Send pending acknowledgements and ask for the peer's.
    pub flush: bool,
    /// By lane: how long acknowledgements may wait, beside their delay.
    pub patience: [Micros; 2],
}

/// Storage that is reused from packet to packet.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    pub packet: Packet,
    pub came: VecDeque<Came>,
}

impl Session {
    /// A session that nothing is known of. `seed`: everything random in it.
    pub fn new(config: Config, side: Side, id: SessionId, seed: u64) -> Session {
        Session::recover(config, side, seed, State::new(id))
    }

    /// A session whose durable state was replayed.
    pub fn recover(config: Config, side: Side, seed: u64, mut state: State) -> Session {
        let mut rng = Rng::new(seed ^ config.boot.rotate_left(32) ^ config.incarnation.rotate_left(48));
        // Epochs grow from life to life, with room for those that one life begins.
        let epoch = config.incarnation.max(1).saturating_mul(1 << 16);
        let bytes_max = (config.buffer_max / 2).max(config.body_max);
        let tx = Lane::ALL.map(|lane| {
            let state = std::mem::take(&mut state.tx[lane.index()]);
            match config.depth_tx[lane.index()] {
                Depth::Disk if state.epoch > 0 => TxLane::recover(lane, state),
                depth @ (Depth::Disk | Depth::Memory) => TxLane::new(lane, depth, epoch, rng.next_u64() | 1),
            }
        });
        let rx = Lane::ALL.map(|lane| {
            let mut rx = RxLane::new(lane, config.window.max(1), config.window_max, bytes_max);
            if let Some(receipt) = state.receipt(lane) {
                rx.recover(receipt);
            }
            rx
        });
        let link = Link::new(&config, side);
        let mut session = Session {
            config,
            side,
            id: state.id,
            now: Micros::ZERO,
            rng,
            out: VecDeque::new(),
            tx,
            rx,
            link,
            tickets: Tickets::default(),
            wishes: Wishes::default(),
            phase: Phase::Talking,
            peer: None,
            rtt: RoundTrip::new(),
            scratch: Scratch::default(),
        };
        for lane in Lane::ALL {
            if session.tx[lane.index()].is_unwritten() {
                session.persist_epoch(lane);
            }
        }
        session
    }

    /// The session's name.
    pub fn id(&self) -> SessionId {
        self.id
    }

    /// Puts a message on its lane; never waits for the peer.
    ///
    /// # Errors
    /// `Full`: the lane's bound is reached (`Event::Room` follows), the message can never be sent, or the session closes.
    pub fn send(&mut self, now: Micros, message: Outgoing) -> Result<MsgId, Full> {
        self.advance_clock(now);
        let Outgoing { lane, kind, app, of, body } = message;
        if self.phase != Phase::Talking {
            return Err(Full::Closing);
        }
        let (len, max) = (body.len(), self.config.body_max);
        if len > max {
            return Err(Full::BodyTooLong { len, max });
        }
        let tx = &mut self.tx[lane.index()];
        if let Err(full) = tx.room(&body, self.config.outbox_messages_max, self.config.outbox_bytes_max) {
            tx.full |= matches!(full, Full::Messages { .. } | Full::Bytes { .. });
            return Err(full);
        }
        let kind = match kind {
            Kind::Data => KIND_DATA,
            Kind::Reply => KIND_REPLY,
        };
        Ok(self.append(lane, kind, app, of, body))
    }

    /// The bytes of a message that `Need` asked for. Ids that nothing was asked for are ignored, and so are bodies over
    /// the limit.
    pub fn provide(&mut self, id: MsgId, body: Bytes) {
        if body.len() <= self.config.body_max {
            self.tx[id.lane.index()].provide(id.n, body);
        }
    }

    /// The effects of the delivery at `place` are durable. Places of a void epoch are ignored.
    pub fn commit(&mut self, now: Micros, place: Place) {
        self.advance_clock(now);
        self.rx[place.lane.index()].commit(place);
        self.advance_floor(place.lane);
    }

    /// Asks that a message be not delivered; `Event::Cancelled` or `Event::TooLate` answers. At most 1,024 cancels of
    /// sent messages wait for their answer; above that it is too late at once.
    pub fn cancel(&mut self, now: Micros, id: MsgId) {
        self.advance_clock(now);
        let tx = &self.tx[id.lane.index()];
        if id.n == 0 || id.n >= tx.first() + tx.len() as u64 {
            return;
        }
        if !tx.was_sent(id.n) {
            self.void(id);
        } else if self.wishes.cancels.contains_key(&id) {
            // Its answer is under way.
        } else if tx.seq_of(id.n).is_none() || self.wishes.cancels.len() >= CANCELS_MAX {
            self.out.push_back(Output::Event(Event::TooLate(id)));
        } else {
            self.wishes.cancels.insert(id, false);
            self.ask_cancel(id);
        }
    }

    fn void(&mut self, id: MsgId) {
        let ticket = match self.tx[id.lane.index()].depth {
            Depth::Memory => 0,
            Depth::Disk => self.tickets.issued + 1,
        };
        if !self.tx[id.lane.index()].void(id.n, ticket) {
            return;
        }
        if ticket == 0 {
            self.out.push_back(Output::Event(Event::Cancelled(id)));
        } else {
            self.persist(Step::Void { lane: id.lane, n: id.n });
            self.wishes.voiding.push_back((ticket, id));
        }
    }

    pub(crate) fn ask_cancel(&mut self, id: MsgId) {
        let place = self.tx[id.lane.index()].place_of(id.n);
        self.append(Lane::Urgent, KIND_CANCEL, 0, place, Body::Inline(Bytes::new()));
    }

    /// Sets the value of a topic: newest wins, may be lost. A value waits for the next connection if there is none. Of
    /// more than 1,024 topics with unsent values the lowest is dropped, as are values over the body limit.
    pub fn signal(&mut self, now: Micros, topic: u16, body: Bytes) {
        self.advance_clock(now);
        if body.len() > self.config.body_max || self.phase == Phase::Ended {
            return;
        }
        self.wishes.signals.insert(topic, body);
        if self.wishes.signals.len() > TOPICS_MAX {
            self.wishes.signals.pop_first();
        }
    }

    /// From now on acknowledgements of this lane wait so long for company, if that is longer than what they wait anyway: for
    /// a peer that does nothing but forget on hearing them. One that the peer may wait for, for its window or for what it
    /// has to keep, never waits.
    pub fn set_patience(&mut self, now: Micros, lane: Lane, patience: Micros) {
        self.advance_clock(now);
        if patience < self.wishes.patience[lane.index()] && self.rx[lane.index()].ack_is_dirty() {
            self.rx[lane.index()].now();
        }
        self.wishes.patience[lane.index()] = patience;
    }

    /// Sends pending acknowledgements at once and asks the peer for its own.
    pub fn flush(&mut self, now: Micros) {
        self.advance_clock(now);
        self.wishes.flush = true;
    }

    /// Ends the session: after draining both directions, or now.
    pub fn close(&mut self, now: Micros, how: How) {
        self.advance_clock(now);
        self.wishes.close = true;
        match (how, self.phase) {
            (_, Phase::Ended) | (How::Drain, Phase::Draining | Phase::Said) => {}
            (How::Drain, Phase::Talking) => {
                self.phase = Phase::Draining;
                self.advance_phase();
            }
            (How::Now, Phase::Talking | Phase::Draining | Phase::Said) => {
                self.say_bye_now();
                self.end();
            }
        }
    }

    /// A look at the session.
    pub fn status(&self) -> Status {
        Status {
            up: self.link.is_up(),
            last_heard: self.link.last_heard,
            unacked: [self.tx[0].len(), self.tx[1].len()],
            unacked_bytes: [self.tx[0].inline_bytes(), self.tx[1].inline_bytes()],
            uncommitted: [self.rx[0].uncommitted(), self.rx[1].uncommitted()],
            ended: self.phase == Phase::Ended,
        }
    }

    /// The messages of a lane that wait for their acknowledgement, oldest first, with their inline bodies: after
    /// `recover` the embedder learns from it what is still on its way.
    pub fn outbox(&self, lane: Lane) -> impl Iterator<Item = (MsgId, u32, Option<&Bytes>)> {
        self.tx[lane.index()].unacked().filter(|(_, entry)| matches!(entry.kind, KIND_DATA | KIND_REPLY)).map(
            move |(n, entry)| match &entry.body {
                Held::Here(bytes) => (MsgId { lane, n }, entry.app, Some(bytes)),
                Held::Away { .. } | Held::Asked { .. } | Held::Lent(_) => (MsgId { lane, n }, entry.app, None),
            },
        )
    }

    /// Whether a dialer may take this session's connection over, by its incarnation and process.
    ///
    /// # Errors
    /// `Refusal::Fenced` for a lower incarnation, `Refusal::Clone` for an equal one of another process.
    pub fn admit(&self, hello: &HelloInfo) -> Result<(), Refusal> {
        self.admit_peer(Peer { incarnation: hello.incarnation, boot: hello.boot })
    }

    pub(crate) fn admit_peer(&self, comer: Peer) -> Result<(), Refusal> {
        match self.peer {
            Some(known) if comer.incarnation < known.incarnation => Err(Refusal::Fenced),
            Some(known) if comer.incarnation == known.incarnation && comer.boot != known.boot => Err(Refusal::Clone),
            Some(_) | None => Ok(()),
        }
    }

    /// Appends to a lane, whatever its bounds, and persists where the lane is deep.
    pub(crate) fn append(&mut self, lane: Lane, kind: u32, app: u32, of: Option<Place>, body: Body) -> MsgId {
        let inline = match (&body, self.tx[lane.index()].depth) {
            (Body::Inline(bytes), Depth::Disk) => Some(bytes.clone()),
            (Body::Inline(_) | Body::Ref { .. }, Depth::Memory) | (Body::Ref { .. }, Depth::Disk) => None,
        };
        let ticket = if inline.is_some() { self.tickets.issued + 1 } else { 0 };
        let n = self.tx[lane.index()].push(Entry::new(kind, app, of, body.into(), ticket));
        if let Some(body) = inline {
            self.persist(Step::Append { lane, n, kind, app, of, body });
        }
        MsgId { lane, n }
    }

    pub(crate) fn persist(&mut self, step: Step) -> u64 {
        self.tickets.issued += 1;
        self.out.push_back(Output::Persist(Ticket(self.tickets.issued), Record(step)));
        self.tickets.issued
    }

    pub(crate) fn persist_epoch(&mut self, lane: Lane) {
        let tx = &self.tx[lane.index()];
        let (epoch, life, first) = (tx.epoch, tx.life, tx.first());
        self.tx[lane.index()].epoch_ticket = self.persist(Step::Epoch { lane, epoch, life, first });
    }

    /// Moves a lane's floor over what is committed.
    pub(crate) fn advance_floor(&mut self, lane: Lane) {
        let (now, delay, persisted) = (self.now, self.ack_delay(lane), self.tickets.persisted);
        let Session { rx, out, tickets, .. } = self;
        rx[lane.index()].advance(now, delay, persisted, |receipt| {
            tickets.issued += 1;
            out.push_back(Output::Persist(Ticket(tickets.issued), Record(Step::Received { receipt })));
            tickets.issued
        });
    }

    pub(crate) fn ack_delay(&self, lane: Lane) -> Micros {
        // Where packets are lost, silence calls for a probe.
        let patience = if self.link.lossy { Micros::ZERO } else { self.wishes.patience[lane.index()] };
        self.config.timers.ack_delay.max(patience).min(crate::Timers::ACK_DELAY_MAX)
    }

    /// The clock never goes back, whatever the caller says.
    pub(crate) fn advance_clock(&mut self, now: Micros) {
        self.now = self.now.max(now);
    }

    /// Says Bye when everything is acknowledged, and ends when both have.
    pub(crate) fn advance_phase(&mut self) {
        let drained = self.tx.iter().all(|tx| tx.len() == 0);
        if self.phase == Phase::Draining && drained && self.link.is_up() {
            self.phase = Phase::Said;
            // The last Bye is answered by nothing: on a lossy carrier copies make up for that.
            self.wishes.byes = if self.link.lossy { BYE_COPIES } else { 1 };
        }
        if self.phase == Phase::Said && self.wishes.peer_bye && self.wishes.byes == 0 {
            self.end();
        }
    }

    /// Forgets everything.
    pub(crate) fn end(&mut self) {
        if self.phase == Phase::Ended {
            return;
        }
        self.phase = Phase::Ended;
        for lane in Lane::ALL {
            let tx = &self.tx[lane.index()];
            self.tx[lane.index()] = TxLane::new(lane, tx.depth, tx.epoch, tx.life);
        }
        self.wishes = Wishes::default();
        let connected = !self.link.is_down();
        self.out.push_back(Output::Event(Event::Ended));
        if connected {
            self.shut(CloseReason::Ended);
        }
    }

    pub(crate) fn rules(&self) -> Rules {
        let rules = Rules { credit: true, chain: true, persist_first: true, commit_first: true };
        #[cfg(feature = "mutations")]
        let rules = match self.config.mutation {
            None => rules,
            Some(crate::Mutation::NoCreditCheck) => Rules { credit: false, ..rules },
            Some(crate::Mutation::NoChainCheck) => Rules { chain: false, ..rules },
            Some(crate::Mutation::AckBeforeCommit) => Rules { commit_first: false, ..rules },
            Some(crate::Mutation::SendBeforePersist) => Rules { persist_first: false, ..rules },
        };
        rules
    }
}

impl TxLane {
    /// A deep lane whose epoch no record names yet.
    fn is_unwritten(&self) -> bool {
        self.depth == Depth::Disk && self.opening == Opening::Shut && self.first() == 1 && self.len() == 0
    }
}

/// Cancels that wait for their answer.
const CANCELS_MAX: usize = 1 << 10;
/// Topics with an unsent value.
const TOPICS_MAX: usize = 1 << 10;
/// Copies of the last Bye on a lossy carrier.
const BYE_COPIES: u32 = 3;
