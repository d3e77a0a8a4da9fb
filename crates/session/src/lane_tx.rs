//! A sending lane: the log of what the peer has not committed yet, and how far it was sent.
//!
//! ```text
//!            n:   first                                            next
//!          seq:   base          got         sent        high       base + log.len()
//!                 |-- committed? --|-- on its way --|-- sent on an --|-- never sent --|
//!                                                      older connection
//! ```
//!
//! It knows no packets' fate beyond what the peer says, no timers and no other lane.
//!
//! Invariants: base − 1 = floor ≤ got ≤ sent ≤ high < next. `inflight_bytes` is the length of all bodies in
//! base..=sent. Nothing above the granted limit is sent; nothing whose ticket is not persisted is sent.

use std::collections::VecDeque;

use bytes::Bytes;

use crate::ack::chain_next;
use crate::state::EPOCHS_MAX;
use crate::wire::{AckW, KIND_VOID, MsgW};
use crate::{Body, Depth, Fatal, Full, Lane, Micros, MsgId, Output, Place, TxState};

/// A message in the log.
#[derive(Debug)]
pub(crate) struct Entry {
    pub kind: u32,
    pub app: u32,
    pub of: Option<Place>,
    pub body: Held,
    /// The record that must be durable before the message leaves; 0 on lanes of depth MEMORY.
    pub ticket: u64,
    /// Hash over the lane up to here; set when first sent.
    chain: u64,
    sent_at: Micros,
    /// The peer has it, above a gap.
    held: bool,
}

/// Where the bytes of a body are.
#[derive(Debug)]
pub(crate) enum Held {
    Here(Bytes),
    /// With the embedder; not asked for.
    Away {
        len: usize,
    },
    /// With the embedder; asked for.
    Asked {
        len: usize,
    },
    /// Given by the embedder, and dropped once sent.
    Lent(Bytes),
}

impl Held {
    fn len(&self) -> usize {
        match self {
            Held::Here(bytes) | Held::Lent(bytes) => bytes.len(),
            Held::Away { len } | Held::Asked { len } => *len,
        }
    }

    fn bytes(&self) -> Option<&Bytes> {
        match self {
            Held::Here(bytes) | Held::Lent(bytes) => Some(bytes),
            Held::Away { .. } | Held::Asked { .. } => None,
        }
    }

    /// What the session itself stores for good.
    fn inline_len(&self) -> usize {
        match self {
            Held::Here(bytes) => bytes.len(),
            Held::Away { .. } | Held::Asked { .. } | Held::Lent(_) => 0,
        }
    }

    /// What counts against the bytes asked for ahead.
    fn ahead_len(&self) -> usize {
        match self {
            Held::Here(_) | Held::Away { .. } => 0,
            Held::Asked { len } => *len,
            Held::Lent(bytes) => bytes.len(),
        }
    }
}

/// How far the lane's numbering is agreed on this connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Opening {
    /// No greeting yet.
    Shut,
    /// Judged; `epoch_ticket` must be durable first.
    Waiting,
    /// Judged; to be said until the peer acknowledges in this epoch. `told`: it was said at least once.
    Said { told: bool },
    /// The peer knows.
    Confirmed,
}

#[derive(Debug)]
pub(crate) struct TxLane {
    pub lane: Lane,
    pub depth: Depth,
    pub epoch: u64,
    pub life: u64,
    pub opening: Opening,
    /// The record of the epoch; 0 on lanes of depth MEMORY.
    pub epoch_ticket: u64,
    base: u64,
    first: u64,
    /// Hash over the lane up to base − 1.
    chain_base: u64,
    log: VecDeque<Entry>,
    epochs: VecDeque<(u64, u64)>,
    sent: u64,
    high: u64,
    got: u64,
    limit: u64,
    limit_bytes: usize,
    inflight_bytes: usize,
    inline_bytes: usize,
    ahead_bytes: usize,
    resend: VecDeque<(u64, u64)>,
    /// The limit at which the peer was told that this lane is blocked.
    blocked_at: Option<u64>,
    /// `send` said `Full` and `Room` was not said since.
    pub full: bool,
    /// Messages whose `Stored` was reported: all with n below.
    stored_n: u64,
    /// Messages that left on any connection of any epoch, or may have: all with n below.
    left_n: u64,
    /// Messages that left for a peer whose memory of them is gone: all with n below. They may have taken effect.
    doubt_n: u64,
}

/// What a lane may use while it fills a packet.
pub(crate) struct Fill<'a> {
    pub now: Micros,
    pub persisted: u64,
    /// A number is resent at most once in this span.
    pub round_trip: Micros,
    /// Bytes that the packet still takes.
    pub room: usize,
    pub msgs: &'a mut Vec<MsgW>,
    pub out: &'a mut VecDeque<Output>,
    pub rules: Rules,
}

/// Rules that a mutation may take away.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rules {
    pub credit: bool,
    pub chain: bool,
    pub persist_first: bool,
    pub commit_first: bool,
}

/// What an acknowledgement did.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Acked {
    /// The floor moved to this message; its chain is for the record of what is forgotten.
    pub upto: Option<(MsgId, u64)>,
    /// The peer has more than before.
    pub progress: bool,
    /// Same numbers, other content.
    pub forked: bool,
}

impl TxLane {
    pub(crate) fn new(lane: Lane, depth: Depth, epoch: u64, life: u64) -> TxLane {
        TxLane {
            lane,
            depth,
            epoch,
            life,
            opening: Opening::Shut,
            epoch_ticket: 0,
            base: 1,
            first: 1,
            chain_base: 0,
            log: VecDeque::new(),
            epochs: VecDeque::from([(epoch, 1)]),
            sent: 0,
            high: 0,
            got: 0,
            limit: 0,
            limit_bytes: 0,
            inflight_bytes: 0,
            inline_bytes: 0,
            ahead_bytes: 0,
            resend: VecDeque::new(),
            blocked_at: None,
            full: false,
            stored_n: 1,
            left_n: 1,
            doubt_n: 1,
        }
    }

    /// A lane of depth DISK from its durable state. All of it may have been sent before.
    pub(crate) fn recover(lane: Lane, state: TxState) -> TxLane {
        let mut tx = TxLane::new(lane, Depth::Disk, state.epoch, state.life);
        (tx.base, tx.first, tx.chain_base, tx.epochs) = (state.base, state.first, state.chain, state.epochs);
        for msg in state.log {
            tx.inline_bytes += msg.body.len();
            tx.log.push_back(Entry::new(msg.kind, msg.app, msg.of, Held::Here(msg.body), 0));
        }
        (tx.sent, tx.got) = (tx.floor(), tx.floor());
        tx.high = tx.next() - 1;
        tx.stored_n = tx.first + tx.log.len() as u64;
        tx.left_n = tx.stored_n;
        tx.hash_again();
        tx
    }

    pub(crate) fn floor(&self) -> u64 {
        self.base - 1
    }

    /// The number that the next message gets.
    fn next(&self) -> u64 {
        self.base + self.log.len() as u64
    }

    pub(crate) fn len(&self) -> usize {
        self.log.len()
    }

    pub(crate) fn inline_bytes(&self) -> usize {
        self.inline_bytes
    }

    pub(crate) fn unacked(&self) -> impl Iterator<Item = (u64, &Entry)> {
        (self.first..).zip(&self.log)
    }

    /// Sent and not committed, as far as is known here.
    fn outstanding(&self) -> bool {
        self.sent > self.floor()
    }

    /// Sent and not even received, as far as is known here.
    pub(crate) fn unreceived(&self) -> bool {
        self.sent > self.got
    }

    pub(crate) fn sent(&self) -> u64 {
        self.sent
    }

    fn index(&self, seq: u64) -> Option<usize> {
        seq.checked_sub(self.base).map(|index| index as usize).filter(|index| *index < self.log.len())
    }

    fn id(&self, seq: u64) -> MsgId {
        MsgId { lane: self.lane, n: self.first + (seq - self.base) }
    }

    /// The number of a message, while it is in the log.
    pub(crate) fn seq_of(&self, n: u64) -> Option<u64> {
        let index = n.checked_sub(self.first)?;
        (index < self.log.len() as u64).then(|| self.base + index)
    }

    pub(crate) fn place_of(&self, n: u64) -> Option<Place> {
        self.seq_of(n).map(|seq| Place { lane: self.lane, epoch: self.epoch, seq })
    }

    /// The handle of a number of this epoch, also of one that is forgotten.
    pub(crate) fn n_of(&self, place: Place) -> Option<u64> {
        let start = self.first.checked_sub(self.base - 1)?;
        (place.epoch == self.epoch && place.seq > 0 && place.seq < self.next()).then(|| start + place.seq - 1)
    }

    /// Whether the message left on any connection, or may have.
    pub(crate) fn was_sent(&self, n: u64) -> bool {
        n < self.left_n
    }

    /// The peer's memory of this lane is gone.
    pub(crate) fn doubt(&mut self) {
        self.doubt_n = self.left_n;
    }

    /// Whether a skip by the peer proves that the message never took effect.
    pub(crate) fn skip_is_proof(&self, n: u64) -> bool {
        n >= self.doubt_n
    }

    pub(crate) fn room(&self, body: &Body, messages_max: usize, bytes_max: usize) -> Result<(), Full> {
        if self.log.len() >= messages_max {
            return Err(Full::Messages { max: messages_max });
        }
        match body {
            Body::Inline(bytes) if self.inline_bytes + bytes.len() > bytes_max => Err(Full::Bytes { max: bytes_max }),
            Body::Inline(_) => Ok(()),
            Body::Ref { .. } if self.depth == Depth::Disk => Err(Full::RefOnDisk),
            Body::Ref { .. } => Ok(()),
        }
    }

    /// Appends a message; gives its handle.
    pub(crate) fn push(&mut self, entry: Entry) -> u64 {
        let n = self.first + self.log.len() as u64;
        self.inline_bytes += entry.body.inline_len();
        self.log.push_back(entry);
        n
    }

    /// Takes the content out of a message that was never sent. False if it was, or is gone.
    pub(crate) fn void(&mut self, n: u64, ticket: u64) -> bool {
        if self.was_sent(n) {
            return false;
        }
        let Some(index) = self.seq_of(n).and_then(|seq| self.index(seq)) else { return false };
        let entry = &mut self.log[index];
        if entry.kind == KIND_VOID {
            return false;
        }
        self.inline_bytes -= entry.body.inline_len();
        self.ahead_bytes = self.ahead_bytes.saturating_sub(entry.body.ahead_len());
        *entry = Entry::new(KIND_VOID, 0, None, Held::Here(Bytes::new()), ticket);
        true
    }

    /// The bytes of a message whose `Need` is open; others are ignored.
    pub(crate) fn provide(&mut self, n: u64, bytes: Bytes) {
        let Some(index) = self.seq_of(n).and_then(|seq| self.index(seq)) else { return };
        let was_inflight = self.base + index as u64 <= self.sent;
        let entry = &mut self.log[index];
        let Held::Asked { len } = entry.body else { return };
        self.ahead_bytes = self.ahead_bytes.saturating_sub(len) + bytes.len();
        if was_inflight {
            self.inflight_bytes = self.inflight_bytes.saturating_sub(len) + bytes.len();
        }
        entry.body = Held::Lent(bytes);
    }

    /// Reports what became durable, in order.
    pub(crate) fn on_persisted(&mut self, persisted: u64, mut stored: impl FnMut(MsgId)) {
        self.stored_n = self.stored_n.max(self.first);
        while let Some(index) = self.seq_of(self.stored_n).and_then(|seq| self.index(seq)) {
            let entry = &self.log[index];
            if entry.ticket > persisted {
                break;
            }
            if entry.kind != KIND_VOID {
                stored(MsgId { lane: self.lane, n: self.stored_n });
            }
            self.stored_n += 1;
        }
    }

    /// The hash over the lane up to `seq`, where it is still known.
    pub(crate) fn chain_at(&self, seq: u64) -> Option<u64> {
        if seq == self.floor() { Some(self.chain_base) } else { self.index(seq).map(|index| self.log[index].chain) }
    }

    pub(crate) fn facts(&self) -> crate::resume::LogFacts {
        crate::resume::LogFacts {
            epoch: self.epoch,
            life: self.life,
            base: self.base,
            high: self.high,
            forgot: self.first > 1,
        }
    }

    /// What the peer committed in `epoch` up to `floor`, as a handle; `None` if that epoch is not remembered.
    pub(crate) fn committed_n(&self, epoch: u64, floor: u64) -> Option<u64> {
        let (_, start) = self.epochs.iter().find(|(known, _)| *known == epoch)?;
        Some((start - 1).saturating_add(floor))
    }

    /// The handle of the oldest message in the log.
    pub(crate) fn first(&self) -> u64 {
        self.first
    }

    /// Starts sending on a new connection, in the same epoch.
    pub(crate) fn resume(&mut self, limit: u64, limit_bytes: usize) {
        (self.sent, self.got, self.inflight_bytes) = (self.floor(), self.floor(), 0);
        (self.limit, self.limit_bytes) = (limit, limit_bytes);
        self.resend.clear();
        self.blocked_at = None;
        for entry in &mut self.log {
            entry.held = false;
            // What was lent to another connection is asked for again: the embedder may know better by now.
            if let Held::Lent(bytes) = &entry.body {
                self.ahead_bytes = self.ahead_bytes.saturating_sub(bytes.len());
                entry.body = Held::Away { len: bytes.len() };
            }
        }
    }

    /// Numbers the log anew from 1.
    pub(crate) fn renumber(&mut self, epoch: u64, life: u64) {
        (self.epoch, self.life, self.base, self.chain_base) = (epoch, life, 1, 0);
        (self.sent, self.high, self.got, self.inflight_bytes) = (0, 0, 0, 0);
        self.epochs.push_back((epoch, self.first));
        if self.epochs.len() > EPOCHS_MAX {
            self.epochs.pop_front();
        }
    }

    fn hash_again(&mut self) {
        let mut chain = self.chain_base;
        for entry in &mut self.log {
            chain = entry.hash(chain);
            entry.chain = chain;
        }
    }

    /// Takes the peer's word. Errors: it claims what was never sent.
    pub(crate) fn on_ack(&mut self, ack: &AckW, rules: Rules) -> Result<Acked, Fatal> {
        if ack.epoch != self.epoch {
            return Ok(Acked::default());
        }
        if ack.floor > ack.got || ack.got > self.high {
            return Err(Fatal::AckUnsent);
        }
        if matches!(self.opening, Opening::Said { .. }) && !ack.early {
            self.opening = Opening::Confirmed;
        }
        self.limit = self.limit.max(ack.limit);
        let known = ack.chain.zip(self.chain_at(ack.floor));
        if rules.chain && known.is_some_and(|(theirs, ours)| theirs != ours) {
            return Ok(Acked { forked: true, ..Acked::default() });
        }
        let mut acked = Acked { progress: self.mark_got(ack.got.max(ack.floor)), ..Acked::default() };
        self.mark_held(ack);
        if ack.floor >= self.base {
            acked.upto = Some((self.id(ack.floor), self.chain_at(ack.floor).unwrap_or_default()));
            acked.progress = true;
            self.forget(ack.floor);
        }
        Ok(acked)
    }

    fn mark_got(&mut self, got: u64) -> bool {
        while self.sent < got {
            self.sent += 1;
            let index = (self.sent - self.base) as usize;
            self.inflight_bytes += self.log[index].body.len();
        }
        let progress = got > self.got;
        self.got = self.got.max(got);
        progress
    }

    fn mark_held(&mut self, ack: &AckW) {
        for (octet, bits) in ack.held.iter().enumerate().filter(|(_, bits)| **bits != 0) {
            for bit in (0..8).filter(|bit| bits >> bit & 1 == 1) {
                let seq = ack.got.saturating_add(2 + 8 * octet as u64 + bit);
                if let Some(index) = self.index(seq) {
                    self.log[index].held = true;
                }
            }
        }
    }

    fn forget(&mut self, floor: u64) {
        while self.base <= floor {
            let Some(entry) = self.log.pop_front() else { break };
            self.inflight_bytes = self.inflight_bytes.saturating_sub(entry.body.len());
            self.inline_bytes -= entry.body.inline_len();
            self.ahead_bytes = self.ahead_bytes.saturating_sub(entry.body.ahead_len());
            self.chain_base = entry.chain;
            self.base += 1;
            self.first += 1;
        }
    }

    /// The peer lacks these numbers.
    pub(crate) fn on_where(&mut self, ranges: &[u64]) {
        for pair in ranges.chunks_exact(2) {
            if self.resend.len() >= RESEND_RANGES_MAX {
                return;
            }
            let (from, to) = (pair[0].max(self.got + 1), pair[1].min(self.sent));
            if from <= to {
                self.resend.push_back((from, to));
            }
        }
    }

    /// Resends both ends of what is on its way: the oldest, and the newest, which shows the peer all gaps.
    pub(crate) fn probe(&mut self) {
        if self.unreceived() {
            let (oldest, newest) = (self.got + 1, self.sent);
            self.on_where(&[oldest, oldest, newest, newest]);
        }
    }

    /// The limit at which the lane is stuck, once per limit.
    pub(crate) fn poll_blocked(&mut self, again: bool) -> Option<u64> {
        let stuck = self.opening != Opening::Shut && self.sent + 1 < self.next() && self.sent >= self.limit;
        if !stuck || (self.blocked_at == Some(self.limit) && !again) {
            return None;
        }
        self.blocked_at = Some(self.limit);
        self.blocked_at
    }

    /// I8 and the lane's own bookkeeping.
    #[cfg(test)]
    pub(crate) fn check(&self) {
        assert!(self.floor() <= self.got && self.got <= self.sent && self.sent <= self.high && self.high < self.next());
        let inflight = (self.sent + 1 - self.base) as usize;
        assert_eq!(self.log.iter().take(inflight).map(|entry| entry.body.len()).sum::<usize>(), self.inflight_bytes);
        assert_eq!(self.log.iter().map(|entry| entry.body.inline_len()).sum::<usize>(), self.inline_bytes);
        assert_eq!(self.log.iter().map(|entry| entry.body.ahead_len()).sum::<usize>(), self.ahead_bytes);
    }

    /// On a lossy carrier: something was said that the peer must still answer.
    pub(crate) fn wants_probe(&self) -> bool {
        let blocked = self.blocked_at == Some(self.limit);
        matches!(self.opening, Opening::Said { .. }) || self.outstanding() || blocked
    }

    /// Puts into the packet what may leave: first what the peer lacks, then what is new.
    pub(crate) fn fill(&mut self, fill: &mut Fill<'_>) {
        if !matches!(self.opening, Opening::Said { .. } | Opening::Confirmed) {
            return;
        }
        if self.fill_resends(fill) {
            self.fill_new(fill);
        }
    }

    /// False if the lane must wait.
    fn fill_resends(&mut self, fill: &mut Fill<'_>) -> bool {
        while let Some((from, to)) = self.resend.pop_front() {
            for seq in from.max(self.got + 1)..=to {
                let Some(index) = self.index(seq) else { break };
                let entry = &self.log[index];
                if entry.held || (fill.now.since(entry.sent_at) < fill.round_trip && entry.sent_at != Micros::ZERO) {
                    continue;
                }
                if !self.put(index, fill) {
                    self.resend.push_front((seq, to));
                    return false;
                }
            }
        }
        true
    }

    fn fill_new(&mut self, fill: &mut Fill<'_>) {
        while let Some(index) = self.index(self.sent + 1) {
            let entry = &self.log[index];
            let len = entry.body.len();
            let unpersisted = fill.rules.persist_first && entry.ticket > fill.persisted;
            if unpersisted || (fill.rules.credit && !self.credit_for(self.sent + 1, len)) {
                return;
            }
            if !self.put(index, fill) {
                return;
            }
            self.sent += 1;
            self.left_n = self.left_n.max(self.id(self.sent).n + 1);
            // A lent body may differ from its announced length: count what was sent.
            self.inflight_bytes += self.log[index].body.len();
            if self.sent > self.high {
                self.high = self.sent;
                let before = self.chain_at(self.sent - 1).unwrap_or_default();
                self.log[index].chain = if self.depth == Depth::Disk { self.log[index].hash(before) } else { 0 };
            }
        }
    }

    fn credit_for(&self, seq: u64, len: usize) -> bool {
        seq <= self.limit && self.inflight_bytes + len <= self.limit_bytes
    }

    /// Puts one message into the packet. False if its bytes are away or the packet is full.
    fn put(&mut self, index: usize, fill: &mut Fill<'_>) -> bool {
        let Some(bytes) = self.log[index].body.bytes() else {
            self.ask_from(index, fill);
            return false;
        };
        let cost = bytes.len() + MSG_OVERHEAD;
        if cost > fill.room && !fill.msgs.is_empty() {
            return false;
        }
        fill.room = fill.room.saturating_sub(cost);
        let body = bytes.clone();
        let seq = self.base + index as u64;
        let entry = &mut self.log[index];
        entry.sent_at = fill.now;
        let (lane, kind, app, of) = (self.lane.index() as u32, entry.kind, entry.app, entry.of.map(Into::into));
        fill.msgs.push(MsgW { lane, epoch: self.epoch, seq, kind, app, of, body });
        if let Held::Lent(bytes) = &entry.body {
            self.ahead_bytes = self.ahead_bytes.saturating_sub(bytes.len());
            entry.body = Held::Away { len: bytes.len() };
        }
        true
    }

    /// Asks for this body and, as far as credit and memory allow, for those after it.
    fn ask_from(&mut self, index: usize, fill: &mut Fill<'_>) {
        let (mut seq, mut bytes) = (self.base + index as u64, self.inflight_bytes);
        let mut must = true;
        while let Some(index) = self.index(seq) {
            let entry = &mut self.log[index];
            bytes += entry.body.len();
            let allowed = self.ahead_bytes < AHEAD_BYTES_MAX && seq <= self.limit && bytes <= self.limit_bytes;
            if !allowed && !must {
                return;
            }
            match entry.body {
                Held::Away { len } => {
                    entry.body = Held::Asked { len };
                    self.ahead_bytes += len;
                    let id = self.id(seq);
                    fill.out.push_back(Output::Need(id));
                }
                // What is behind an open request was asked for with it.
                Held::Asked { .. } if must => return,
                Held::Asked { .. } | Held::Here(_) | Held::Lent(_) => {}
            }
            must = false;
            seq += 1;
        }
    }
}

impl Entry {
    pub(crate) fn new(kind: u32, app: u32, of: Option<Place>, body: Held, ticket: u64) -> Entry {
        Entry { kind, app, of, body, ticket, chain: 0, sent_at: Micros::ZERO, held: false }
    }

    fn hash(&self, before: u64) -> u64 {
        let body = self.body.bytes().map_or(&[][..], |bytes| bytes);
        chain_next(before, self.kind, self.app, self.of, body)
    }
}

impl From<Body> for Held {
    fn from(body: Body) -> Held {
        match body {
            Body::Inline(bytes) => Held::Here(bytes),
            Body::Ref { len } => Held::Away { len: len as usize },
        }
    }
}

/// Bytes of a message on the wire besides its body, about.
const MSG_OVERHEAD: usize = 40;
/// Ranges waiting to be resent; above it they are dropped, and asked for again a round trip later.
const RESEND_RANGES_MAX: usize = 64;
/// Bytes of bodies asked for and not sent yet, per lane; above it asking pauses.
const AHEAD_BYTES_MAX: usize = 1 << 20;
