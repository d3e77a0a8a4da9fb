//! The hash chain over a lane's content, and when an acknowledgement leaves.
//!
//! The chain guards against accident (a restored backup, a copied directory), not against an attacker, who could
//! recompute it anyway.

use crate::{Micros, Place};

/// The hash over a lane up to and including this message.
pub(crate) fn chain_next(before: u64, kind: u32, app: u32, of: Option<Place>, body: &[u8]) -> u64 {
    let head = u64::from(kind) << 32 | u64::from(app);
    let mut hash = mix(before ^ START, head);
    if let Some(place) = of {
        hash = mix(mix(mix(hash, place.lane.index() as u64 + 1), place.epoch), place.seq);
    }
    let mut words = body.chunks_exact(8);
    for word in &mut words {
        let mut eight = [0; 8];
        eight.copy_from_slice(word);
        hash = mix(hash, u64::from_le_bytes(eight));
    }
    let mut tail = [0; 8];
    tail[..words.remainder().len()].copy_from_slice(words.remainder());
    mix(mix(hash, u64::from_le_bytes(tail)), body.len() as u64)
}

fn mix(hash: u64, word: u64) -> u64 {
    let product = u128::from(hash ^ word) * u128::from(FACTOR);
    // Folding alone would let a zero operand absorb everything: the rotated hash stays in.
    (product as u64) ^ ((product >> 64) as u64) ^ hash.rotate_left(23)
}

/// So that the chain of an empty lane is not a fixed point.
const START: u64 = 0x243f_6a88_85a3_08d3;
const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;

/// When the next acknowledgement of a lane leaves at the latest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum AckDue {
    /// Nothing has changed.
    #[default]
    Never,
    /// It may wait for company until then.
    At(Micros),
    /// At once.
    Now,
}

impl AckDue {
    pub(crate) fn soon(&mut self, at: Micros) {
        *self = match *self {
            AckDue::Never => AckDue::At(at),
            AckDue::At(earlier) => AckDue::At(earlier.min(at)),
            AckDue::Now => AckDue::Now,
        };
    }

    pub(crate) fn is_due(self, now: Micros) -> bool {
        match self {
            AckDue::Never => false,
            AckDue::At(at) => at <= now,
            AckDue::Now => true,
        }
    }

    pub(crate) fn is_dirty(self) -> bool {
        self != AckDue::Never
    }

    pub(crate) fn deadline(self) -> Option<Micros> {
        match self {
            AckDue::Never => None,
            AckDue::At(at) => Some(at),
            AckDue::Now => Some(Micros::ZERO),
        }
    }
}
