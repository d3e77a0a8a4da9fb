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

mod entry;
mod fill;

use std::collections::VecDeque;

use bytes::Bytes;

pub(crate) use entry::{Entry, Held};
pub(crate) use fill::Fill;

use crate::state::EPOCHS_MAX;
use crate::wire::{AckW, KIND_VOID};
use crate::{Body, Depth, Fatal, Full, Lane, MsgId, Place, TxState};

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
            // Ranges ascend: so however many come, a number is looked at once.
            let done = self.resend.back().map_or(self.got, |(_, to)| *to);
            let (from, to) = (pair[0].max(done + 1), pair[1].min(self.sent));
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
}

/// Ranges waiting to be resent; above it they are dropped, and asked for again a round trip later.
const RESEND_RANGES_MAX: usize = 64;
