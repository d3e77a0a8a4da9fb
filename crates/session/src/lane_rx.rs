//! A receiving lane: what came, what of it the application has committed, and what the peer may send.
//!
//! ```text
//!      floor            got
//!   -----|----- tail -----|--gap--|-ahead-|--gap--|-ahead-|
//!   committed  delivered    asked   kept    asked
//! ```
//!
//! It knows no timers but its own gap, and nothing of the other lane.
//!
//! Invariants: floor, got and limit never go back within an epoch and connection. Bodies above the floor take at most
//! `bytes_max`, messages above the floor number at most limit − floor. A number is delivered once per durable floor.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;

use crate::ack::{AckDue, chain_next};
use crate::lane_tx::Rules;
use crate::wire::{AckW, FactsW, KIND_ANSWER, KIND_CANCEL, KIND_DATA, KIND_REPLY, KIND_VOID, MsgW, OpenW, WhereW};
use crate::{Delivery, Depth, Fatal, Kind, Lane, Micros, Place, Receipt};

/// A message between floor and got.
#[derive(Debug)]
struct Tail {
    chain: u64,
    len: usize,
    state: TailState,
}

/// ```text
///   Open ── commit ──► Committed      the application's
///   Own ── persist ──► Writing(t)     the session's, on lanes of depth DISK once it is the first above the floor
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum TailState {
    Open,
    Committed,
    Own,
    Writing { ticket: u64 },
}

/// What a message meant, for the session.
#[derive(Debug)]
pub(crate) enum Came {
    Deliver(Delivery),
    /// The peer wants this message of its not to be delivered.
    Cancel(Place),
    /// The peer's answer to my cancel of my message.
    Answer {
        of: Place,
        cancelled: bool,
    },
    /// A message was skipped as the peer had asked.
    Skipped(Place),
}

/// What the last acknowledgement told.
#[derive(Debug, Default)]
struct Said {
    limit: u64,
    floor: u64,
    /// Bytes of bodies that were committed since.
    bytes_since: usize,
}

/// What a message is judged by.
pub(crate) struct Accept<'a> {
    pub now: Micros,
    pub body_max: usize,
    /// By lane.
    pub ack_delay: [Micros; 2],
    pub rules: Rules,
    pub came: &'a mut VecDeque<Came>,
}

#[derive(Debug)]
pub(crate) struct RxLane {
    pub lane: Lane,
    /// The peer's word.
    pub depth: Depth,
    /// 0: nothing is known of the lane.
    epoch: u64,
    life: u64,
    floor: u64,
    floor_chain: u64,
    got: u64,
    chain: u64,
    tail: VecDeque<Tail>,
    ahead: BTreeMap<u64, MsgW>,
    bytes: usize,
    bytes_max: usize,
    /// Numbers to skip when they come.
    cancels: BTreeSet<u64>,
    window: u64,
    window_max: u64,
    limit: u64,
    said: Said,
    /// The peer said its numbering on this connection.
    open: bool,
    due: AckDue,
    /// When gaps were asked for, and up to which number that round went: later ones had their own question since.
    asked: Option<(Micros, u64)>,
    /// Gaps to ask for in the next packet.
    asking: Vec<u64>,
}

impl RxLane {
    pub(crate) fn new(lane: Lane, window: u64, window_max: u64, bytes_max: usize) -> RxLane {
        RxLane {
            lane,
            depth: Depth::Memory,
            epoch: 0,
            life: 0,
            floor: 0,
            floor_chain: 0,
            got: 0,
            chain: 0,
            tail: VecDeque::new(),
            ahead: BTreeMap::new(),
            bytes: 0,
            bytes_max,
            cancels: BTreeSet::new(),
            window,
            window_max,
            limit: window,
            said: Said { limit: window, ..Said::default() },
            open: false,
            due: AckDue::Never,
            asked: None,
            asking: Vec::new(),
        }
    }

    /// Starts from what the application stored with the effects.
    pub(crate) fn recover(&mut self, receipt: Receipt) {
        self.depth = Depth::Disk;
        self.begin(receipt.place.epoch, receipt.life);
        (self.floor, self.got) = (receipt.place.seq, receipt.place.seq);
        (self.floor_chain, self.chain) = (receipt.chain, receipt.chain);
        self.limit = self.floor.saturating_add(self.window);
        self.said.limit = self.limit;
    }

    fn begin(&mut self, epoch: u64, life: u64) {
        let fresh = RxLane::new(self.lane, self.window, self.window_max, self.bytes_max);
        let due = self.due;
        *self = RxLane { epoch, life, depth: self.depth, due, ..fresh };
    }

    /// For the greeting; `None` if nothing is known.
    pub(crate) fn facts(&self) -> Option<FactsW> {
        (self.epoch > 0).then(|| FactsW {
            lane: self.lane.index() as u32,
            epoch: self.epoch,
            life: self.life,
            floor: self.floor,
            got: self.got,
            chain: self.floor_chain,
            limit: self.limit,
        })
    }

    pub(crate) fn uncommitted(&self) -> usize {
        self.tail.len()
    }

    /// A new connection: what was asked and said on the old one is void.
    pub(crate) fn on_connection(&mut self) {
        self.open = false;
        self.due = AckDue::Never;
        self.asked = None;
        self.asking.clear();
        // What was held above a gap was held for this connection's sake only: it comes again.
        self.bytes -= self.ahead.values().map(|msg| msg.body.len()).sum::<usize>();
        self.ahead.clear();
        self.note_said();
    }

    /// The peer says its numbering. `Ok(true)`: what was known of another one is void now.
    pub(crate) fn on_open(&mut self, open: &OpenW) -> Result<bool, Fatal> {
        let known = self.epoch > 0;
        let same = (open.epoch, open.life) == (self.epoch, self.life);
        if open.epoch == 0 || (known && !same && open.epoch <= self.epoch) {
            return Err(Fatal::Malformed);
        }
        if !same {
            self.begin(open.epoch, open.life);
        }
        self.open = true;
        self.due = AckDue::Now;
        Ok(known && !same)
    }

    pub(crate) fn on_msg(&mut self, msg: MsgW, accept: &mut Accept<'_>) -> Result<(), Fatal> {
        if !self.open || msg.epoch != self.epoch {
            return Ok(());
        }
        self.due.soon(accept.now + accept.ack_delay[self.lane.index()]);
        if msg.seq <= self.got || self.ahead.contains_key(&msg.seq) {
            return if msg.seq == 0 { Err(Fatal::Malformed) } else { Ok(()) };
        }
        let len = msg.body.len();
        if len > accept.body_max {
            return Err(Fatal::BodyTooLong { len, max: accept.body_max });
        }
        if msg.seq > self.limit || self.bytes + len > self.bytes_max {
            return Err(Fatal::OverCredit);
        }
        self.bytes += len;
        if msg.seq > self.got + 1 {
            self.put_ahead(msg, accept.now);
            return Ok(());
        }
        self.take_in(msg, accept)?;
        while let Some(next) = self.ahead.first_entry().filter(|next| *next.key() == self.got + 1) {
            let msg = next.remove();
            self.take_in(msg, accept)?;
        }
        if self.ahead.is_empty() {
            self.asked = None;
        }
        Ok(())
    }

    /// Keeps a message above a gap; a new gap is asked for at once.
    fn put_ahead(&mut self, msg: MsgW, now: Micros) {
        let highest = self.ahead.last_key_value().map_or(self.got, |(seq, _)| *seq);
        if msg.seq > highest + 1 && self.asking.len() < ASK_RANGES_MAX * 2 {
            self.asking.extend([highest + 1, msg.seq - 1]);
            self.asked = Some(self.asked.unwrap_or((now, msg.seq)));
        }
        self.due = AckDue::Now;
        self.ahead.insert(msg.seq, msg);
    }

    /// The next number is here.
    fn take_in(&mut self, msg: MsgW, accept: &mut Accept<'_>) -> Result<(), Fatal> {
        let of = match &msg.of {
            Some(place) => Some(place.place().ok_or(Fatal::Malformed)?),
            None => None,
        };
        self.got += 1;
        if self.depth == Depth::Disk {
            self.chain = chain_next(self.chain, msg.kind, msg.app, of, &msg.body);
        }
        let place = Place { lane: self.lane, epoch: self.epoch, seq: self.got };
        let skip = self.cancels.remove(&self.got);
        let (state, came) = match (msg.kind, of) {
            (KIND_DATA | KIND_REPLY, _) if skip => (TailState::Own, Some(Came::Skipped(place))),
            (KIND_DATA, _) => (TailState::Open, Some(self.deliver(place, Kind::Data, of, &msg))),
            (KIND_REPLY, _) => (TailState::Open, Some(self.deliver(place, Kind::Reply, of, &msg))),
            (KIND_CANCEL, Some(of)) => (TailState::Own, Some(Came::Cancel(of))),
            (KIND_ANSWER, Some(of)) => (TailState::Own, Some(Came::Answer { of, cancelled: msg.app == 1 })),
            (KIND_VOID, _) => (TailState::Own, None),
            _ => return Err(Fatal::Malformed),
        };
        let early = state == TailState::Open && !accept.rules.commit_first;
        let state = if early { TailState::Committed } else { state };
        self.tail.push_back(Tail { chain: self.chain, len: msg.body.len(), state });
        accept.came.extend(came);
        Ok(())
    }

    fn deliver(&self, place: Place, kind: Kind, of: Option<Place>, msg: &MsgW) -> Came {
        let receipt = (self.depth == Depth::Disk).then_some(Receipt { place, life: self.life, chain: self.chain });
        Came::Deliver(Delivery { place, kind, app: msg.app, of, body: msg.body.clone(), receipt })
    }

    /// The peer's message shall be skipped. False: it was delivered, or too many wait to be skipped.
    pub(crate) fn skip(&mut self, place: Place) -> bool {
        let waits = place.epoch == self.epoch && place.seq > self.got && place.seq <= self.limit;
        waits && self.cancels.len() < CANCELS_MAX && self.cancels.insert(place.seq)
    }

    /// The application's effects of this message are durable. Places of other epochs are void.
    pub(crate) fn commit(&mut self, place: Place) {
        if place.epoch != self.epoch {
            return;
        }
        let index = place.seq.checked_sub(self.floor + 1);
        if let Some(tail) = index.and_then(|index| self.tail.get_mut(index as usize))
            && tail.state == TailState::Open
        {
            tail.state = TailState::Committed;
        }
    }

    /// Moves the floor over what is committed; `persist` logs a receipt and gives its ticket.
    pub(crate) fn advance(&mut self, now: Micros, delay: Micros, persisted: u64, persist: impl FnOnce(Receipt) -> u64) {
        let before = self.floor;
        while let Some(front) = self.tail.front_mut() {
            match front.state {
                TailState::Open => break,
                TailState::Writing { ticket } if ticket > persisted => break,
                TailState::Own if self.depth == Depth::Disk => {
                    let place = Place { lane: self.lane, epoch: self.epoch, seq: self.floor + 1 };
                    let ticket = persist(Receipt { place, life: self.life, chain: front.chain });
                    front.state = TailState::Writing { ticket };
                    break;
                }
                TailState::Own | TailState::Committed | TailState::Writing { .. } => {}
            }
            self.floor += 1;
            self.floor_chain = front.chain;
            self.bytes -= front.len;
            self.said.bytes_since += front.len;
            self.tail.pop_front();
        }
        if self.floor > before {
            self.on_floor(now, delay);
        }
    }

    fn on_floor(&mut self, now: Micros, delay: Micros) {
        self.limit = self.limit.max(self.floor.saturating_add(self.window));
        self.due.soon(now + delay);
        let many = self.limit - self.said.limit >= self.quarter() || self.floor - self.said.floor >= self.quarter();
        if many || self.said.bytes_since >= UNSAID_BYTES_MAX {
            self.due = AckDue::Now;
        }
    }

    fn quarter(&self) -> u64 {
        (self.window / 4).max(1)
    }

    /// The sender stands at `limit` and has more: the window doubles, if that limit is still the newest.
    pub(crate) fn on_blocked(&mut self, limit: u64) {
        if self.open && limit == self.limit {
            self.window = self.window.saturating_mul(2).min(self.window_max);
            self.limit = self.limit.max(self.floor.saturating_add(self.window));
        }
        self.now();
    }

    /// Whether an acknowledgement must leave, though nothing else does.
    pub(crate) fn ack_is_due(&self, now: Micros) -> bool {
        self.open && self.due.is_due(now)
    }

    /// Whether there is something to acknowledge in company.
    pub(crate) fn ack_is_dirty(&self) -> bool {
        self.epoch > 0 && self.due.is_dirty()
    }

    pub(crate) fn ack_deadline(&self) -> Option<Micros> {
        if self.open { self.due.deadline() } else { None }
    }

    /// Acknowledge at once.
    pub(crate) fn now(&mut self) {
        if self.open {
            self.due = AckDue::Now;
        }
    }

    /// The acknowledgement, if anything is known of the lane. What it says counts as said.
    pub(crate) fn poll_ack(&mut self) -> Option<AckW> {
        if self.epoch == 0 {
            return None;
        }
        self.due = AckDue::Never;
        self.note_said();
        Some(AckW {
            lane: self.lane.index() as u32,
            epoch: self.epoch,
            floor: self.floor,
            got: self.got,
            held: self.held_bits(),
            limit: self.limit,
            chain: (self.depth == Depth::Disk).then_some(self.floor_chain),
            early: !self.open,
        })
    }

    fn note_said(&mut self) {
        self.said = Said { limit: self.limit, floor: self.floor, bytes_since: 0 };
    }

    fn held_bits(&self) -> Bytes {
        let mut bits = Vec::new();
        for seq in self.ahead.keys() {
            let Some(bit) = seq.checked_sub(self.got + 2).map(|bit| bit as usize).filter(|bit| *bit < HELD_BITS_MAX)
            else {
                continue;
            };
            if bits.len() <= bit / 8 {
                bits.resize(bit / 8 + 1, 0);
            }
            bits[bit / 8] |= 1u8 << (bit % 8);
        }
        Bytes::from(bits)
    }

    /// The question for gaps, if there is a new one or an old one was not filled within `round_trip`.
    pub(crate) fn poll_where(&mut self, now: Micros, round_trip: Micros) -> Option<WhereW> {
        if let Some((_, upto)) = self.asked.filter(|(at, _)| *at + round_trip <= now) {
            self.asking = self.gaps(upto);
            self.asked = Some((now, self.ahead.last_key_value().map_or(upto, |(seq, _)| *seq)));
        }
        if self.asking.is_empty() {
            return None;
        }
        let ranges = std::mem::take(&mut self.asking);
        Some(WhereW { lane: self.lane.index() as u32, epoch: self.epoch, ranges })
    }

    /// When gaps are asked for again.
    pub(crate) fn where_deadline(&self, round_trip: Micros) -> Option<Micros> {
        if self.asking.is_empty() { self.asked.map(|(at, _)| at + round_trip) } else { Some(Micros::ZERO) }
    }

    fn gaps(&self, upto: u64) -> Vec<u64> {
        let mut gaps = Vec::new();
        let mut expected = self.got + 1;
        for seq in self.ahead.range(..=upto).map(|(seq, _)| seq) {
            if *seq > expected {
                gaps.extend([expected, seq - 1]);
            }
            expected = seq + 1;
            if gaps.len() >= ASK_RANGES_MAX * 2 {
                break;
            }
        }
        gaps
    }

    pub(crate) fn epoch(&self) -> u64 {
        self.epoch
    }

    #[cfg(test)]
    pub(crate) fn floor(&self) -> u64 {
        self.floor
    }

    /// I7, I9, I13: what the lane holds is within what it granted.
    #[cfg(test)]
    pub(crate) fn check(&self) {
        assert!(self.floor <= self.got && self.got <= self.limit);
        assert_eq!(self.floor + self.tail.len() as u64, self.got);
        let bytes = self.tail.iter().map(|tail| tail.len).chain(self.ahead.values().map(|msg| msg.body.len()));
        assert_eq!(bytes.sum::<usize>(), self.bytes);
        assert!(self.bytes <= self.bytes_max);
        assert!(self.ahead.last_key_value().is_none_or(|(seq, _)| *seq <= self.limit));
        assert!(self.ahead.is_empty() || self.asked.is_some(), "I11: a gap that nobody asked for");
    }
}

/// Bytes of committed bodies that no acknowledgement has told of: the peer keeps them, and gets the next one at once.
const UNSAID_BYTES_MAX: usize = 1 << 20;
/// Ranges in one question; the others are asked for a round trip later.
const ASK_RANGES_MAX: usize = 32;
/// Bits of `held` in one acknowledgement; what lies above may be resent needlessly.
const HELD_BITS_MAX: usize = 8 << 10;
/// Messages marked to be skipped; above it a cancel is too late.
const CANCELS_MAX: usize = 1 << 10;
