//! Injected faults on packets: a pipe that loses, repeats, swaps and delays. It knows nothing of what it carries.
//!
//! Invariant: at most `HELD_MAX` packets are held back; above it packets pass unharmed.

use std::collections::VecDeque;

use bytes::Bytes;

use crate::{Faults, Micros, Rng};

#[derive(Debug)]
pub(crate) struct FaultPipe {
    faults: Faults,
    rng: Rng,
    held: VecDeque<(Micros, Bytes)>,
}

impl FaultPipe {
    /// `salt` keeps the directions and sides of one seed apart.
    pub(crate) fn new(faults: Faults, salt: u64) -> FaultPipe {
        FaultPipe { faults, rng: Rng::new(faults.seed ^ salt), held: VecDeque::new() }
    }

    /// Sends a packet through; what passes at once goes to `out`.
    pub(crate) fn offer(&mut self, now: Micros, packet: Bytes, out: &mut VecDeque<Bytes>) {
        if self.rng.chance(self.faults.drop) {
            return;
        }
        if self.rng.chance(self.faults.dup) {
            self.pass(now, packet.clone(), out);
        }
        self.pass(now, packet, out);
    }

    fn pass(&mut self, now: Micros, packet: Bytes, out: &mut VecDeque<Bytes>) {
        let span_max = if self.rng.chance(self.faults.reorder) {
            REORDER_MAX
        } else if self.rng.chance(self.faults.delay) {
            DELAY_MAX
        } else {
            Micros::ZERO
        };
        if span_max == Micros::ZERO || self.held.len() >= HELD_MAX {
            out.push_back(packet);
        } else {
            self.held.push_back((now + Micros(1 + self.rng.below(span_max.0)), packet));
        }
    }

    /// Whether a message vanishes on its way to the application.
    pub(crate) fn loses_delivery(&mut self) -> bool {
        self.rng.chance(self.faults.drop)
    }

    /// Lets go of what was held long enough.
    pub(crate) fn release(&mut self, now: Micros, out: &mut VecDeque<Bytes>) {
        let mut index = 0;
        while let Some((due, _)) = self.held.get(index) {
            if *due <= now {
                out.extend(self.held.remove(index).map(|(_, packet)| packet));
            } else {
                index += 1;
            }
        }
    }

    pub(crate) fn deadline(&self) -> Option<Micros> {
        self.held.iter().map(|(due, _)| *due).min()
    }

    pub(crate) fn clear(&mut self) {
        self.held.clear();
    }
}

/// A packet that lets others pass waits at most this long.
const REORDER_MAX: Micros = Micros::from_ms(10);
/// A delayed packet waits at most this long.
const DELAY_MAX: Micros = Micros::from_ms(50);
/// Packets held back at once.
const HELD_MAX: usize = 64;
