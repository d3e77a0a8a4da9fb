//! How a sending lane fills a packet: first what the peer lacks, then what is new, as far as credit, durability and the
//! packet's room go. Bodies that are away are asked for, ahead of need.
//!
//! Invariants: nothing above the granted limit leaves, nothing whose ticket is not persisted, no number twice within a
//! round trip.

use std::collections::VecDeque;

use super::{Held, Opening, Rules, TxLane};
use crate::wire::MsgW;
use crate::{Depth, Micros, Output};

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

impl TxLane {
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

/// Bytes of a message on the wire besides its body, about.
const MSG_OVERHEAD: usize = 40;
/// Bytes of bodies asked for and not sent yet, per lane; above it asking pauses.
const AHEAD_BYTES_MAX: usize = 1 << 20;
