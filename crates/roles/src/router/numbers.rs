//! The unsettled results of one job: delivery number → the record that gave it, eight bytes each.
//!
//! It deliberately knows no bodies. Sixteen bits hold the outcome's length in units of 64 bytes, 48 the LSN.
//! A client that sleeps costs these eight bytes a result, and nothing else.

use std::collections::VecDeque;

use super::event::{DeliverItem, Lsn};

/// See the module.
#[derive(Clone, Debug, Default)]
pub(super) struct Numbers {
    /// The number of the first entry.
    first: u64,
    len: u64,
    /// Entries dropped from the front of the first chunk.
    skip: usize,
    chunks: VecDeque<Vec<u64>>,
}

const CHUNK: usize = 1_024;
const UNIT: u32 = 64;
const LSN_BITS: u32 = 48;

impl Numbers {
    /// Adds the next number. After a gap, which only compaction of settled results leaves, it starts anew.
    pub(super) fn push(&mut self, number: u64, record: Lsn, len: u32) {
        if number != self.first + self.len {
            *self = Numbers { first: number, ..Numbers::default() };
        }
        assert!(record.0 >> LSN_BITS == 0, "a journal has fewer than 2^48 records");
        let units = u64::from(len.div_ceil(UNIT).min(u32::from(u16::MAX)));
        if self.chunks.back().is_none_or(|chunk| chunk.len() == CHUNK) {
            self.chunks.push_back(Vec::with_capacity(if self.chunks.is_empty() { 16 } else { CHUNK }));
        }
        if let Some(chunk) = self.chunks.back_mut() {
            chunk.push((units << LSN_BITS) | record.0);
        }
        self.len += 1;
    }

    /// The entry of a number.
    pub(super) fn get(&self, number: u64) -> Option<DeliverItem> {
        let at = number.checked_sub(self.first).filter(|at| *at < self.len)? as usize + self.skip;
        let packed = self.chunks[at / CHUNK][at % CHUNK];
        let len = (packed >> LSN_BITS) as u32 * UNIT;
        Some(DeliverItem { number, record: Lsn(packed & ((1 << LSN_BITS) - 1)), len })
    }

    /// Forgets every number up to this one.
    pub(super) fn settle(&mut self, upto: u64) {
        let count = (upto + 1).saturating_sub(self.first).min(self.len);
        self.first += count;
        self.len -= count;
        self.skip += count as usize;
        while self.skip >= CHUNK {
            self.chunks.pop_front();
            self.skip -= CHUNK;
        }
        if self.len == 0 {
            (self.skip, self.chunks) = (0, VecDeque::new());
        }
    }

    /// Unsettled results.
    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// The first unsettled number's record: older ones are of no use to this job.
    pub(super) fn iter(&self) -> impl Iterator<Item = DeliverItem> + '_ {
        (self.first..self.first + self.len).filter_map(|number| self.get(number))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_found_until_settled() {
        let mut numbers = Numbers::default();
        for n in 1..=5_000u64 {
            numbers.push(n, Lsn(n * 3), 100);
        }
        numbers.settle(2_500);
        numbers.settle(2_000);
        assert_eq!(numbers.get(2_500), None);
        assert_eq!(numbers.get(2_501), Some(DeliverItem { number: 2_501, record: Lsn(7_503), len: 128 }));
        assert_eq!(numbers.get(5_001), None);
        numbers.settle(9_000);
        assert_eq!(numbers.len(), 0);
        numbers.push(5_001, Lsn(1), 0);
        assert_eq!(numbers.get(5_001).map(|item| item.record), Some(Lsn(1)));
        numbers.push(6_000, Lsn(2), 0);
        assert_eq!((numbers.get(5_001), numbers.len()), (None, 1));
    }
}
