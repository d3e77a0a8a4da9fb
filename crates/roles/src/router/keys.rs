//! Where something is, by key, in a table that grows a little at a time.
//!
//! It deliberately keeps no key: who asks tells what stands where. Linear hashing: the table is cut into parts, and one
//! part is split in two for each [`PART_AIM`] keys that come, so that no step pays for growing the whole.
//!
//! ```text
//! 6 parts:  0  1  2  3  4  5         keys of parts 0 and 1 are told apart by 3 bits, those of 2 and 3 by 2 bits
//!           └──┼──────►│  │          0 was split into 0 and 4, 1 into 1 and 5;
//!              └─────────►│          2 is next, into 2 and 6
//! ```
//!
//! Invariants: a step moves at most the keys of one part; parts are never merged, so memory stays what the largest
//! number of keys took.

use hashbrown::HashTable;
use sheaf_task::Key;

/// Positions of keys. See the module.
#[derive(Debug)]
pub(super) struct KeyTable {
    parts: Vec<HashTable<u32>>,
    len: usize,
}

/// Keys of a part on the average just after all were split; just before, it has twice as many.
const PART_AIM: usize = 800;

/// What a part has room for: 2,048 buckets, filled to seven eighths, so that parts hardly ever grow by themselves.
const PART_ROOM: usize = 1_792;

impl KeyTable {
    pub(super) fn new() -> Self {
        Self { parts: vec![HashTable::new()], len: 0 }
    }

    /// Makes the parts that so many keys will have, before there is any: those need not be split then.
    pub(super) fn expect(&mut self, keys: usize) {
        let parts = keys / PART_AIM;
        if self.len == 0 && parts > self.parts.len() {
            self.parts.clear();
            self.parts.resize_with(parts, || HashTable::with_capacity(PART_ROOM));
        }
    }

    /// Where `key` is; `is` tells whether it stands at a position.
    pub(super) fn find(&self, key: Key, is: impl Fn(u32) -> bool) -> Option<u32> {
        self.parts[self.part_of(key)].find(hash(key), |at| is(*at)).copied()
    }

    /// Adds a key that is not here; `key_at` tells which stands at a position, of those that are here.
    pub(super) fn insert(&mut self, key: Key, at: u32, key_at: impl Fn(u32) -> Key) {
        if self.len >= self.parts.len() * PART_AIM {
            self.split(&key_at);
        }
        let part = self.part_of(key);
        self.parts[part].insert_unique(hash(key), at, |at| hash(key_at(*at)));
        self.len += 1;
    }

    /// `key` is at `to` from now on. Returns where it was; `None`: it is not here.
    pub(super) fn replace(&mut self, key: Key, to: u32, is: impl Fn(u32) -> bool) -> Option<u32> {
        let part = self.part_of(key);
        let found = self.parts[part].find_mut(hash(key), |at| is(*at))?;
        Some(std::mem::replace(found, to))
    }

    /// Forgets `key` if it is at this position. False: it is not.
    pub(super) fn remove(&mut self, key: Key, at: u32) -> bool {
        let part = self.part_of(key);
        let Ok(found) = self.parts[part].find_entry(hash(key), |known| *known == at) else { return false };
        found.remove();
        self.len -= 1;
        true
    }

    #[cfg(test)]
    pub(super) fn allocation_size(&self) -> usize {
        let parts = self.parts.capacity() * size_of::<HashTable<u32>>();
        parts + self.parts.iter().map(HashTable::allocation_size).sum::<usize>()
    }

    /// The next part in turn gives half of its keys to a new one.
    fn split(&mut self, key_at: &impl Fn(u32) -> Key) {
        let to = self.parts.len();
        let from = to - half(to);
        self.parts.push(HashTable::with_capacity(PART_ROOM));
        let (before, after) = self.parts.split_at_mut(to);
        let moves = |at: &mut u32| slot(key_at(*at), to + 1) == to;
        for at in before[from].extract_if(moves) {
            after[0].insert_unique(hash(key_at(at)), at, |at| hash(key_at(*at)));
        }
    }

    fn part_of(&self, key: Key) -> usize {
        slot(key, self.parts.len())
    }
}

/// Which of so many parts a key belongs to.
fn slot(key: Key, parts: usize) -> usize {
    let [a, b, c, d, ..] = key.0;
    let bits = u32::from_le_bytes([a, b, c, d]) as usize;
    let half = half(parts);
    let wide = bits & (2 * half - 1);
    if wide < parts { wide } else { bits & (half - 1) }
}

/// The largest power of two that is not above `parts`.
fn half(parts: usize) -> usize {
    1 << parts.ilog2()
}

/// Of other bytes than the part: within a part those are alike.
fn hash(key: Key) -> u64 {
    let mut bytes = [0; 8];
    bytes.copy_from_slice(&key.0[8..]);
    u64::from_le_bytes(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(n: u32) -> Key {
        let mut key = [0; 16];
        key[..4].copy_from_slice(&n.wrapping_mul(0x9e37_79b9).to_le_bytes());
        key[8..12].copy_from_slice(&n.wrapping_mul(0x85eb_ca6b).to_le_bytes());
        key[12..].copy_from_slice(&n.to_le_bytes());
        Key(key)
    }

    #[test]
    fn keys_are_found_while_parts_split_and_after_removal() {
        let mut table = KeyTable::new();
        let find = |table: &KeyTable, n: u32| table.find(key(n), |at| at == n);
        for n in 0..20_000 {
            table.insert(key(n), n, key);
            assert_eq!(find(&table, n / 2), Some(n / 2), "after {n}");
        }
        assert_eq!(table.parts.len(), 20_000_usize.div_ceil(PART_AIM), "a part for each {PART_AIM} keys");
        for n in (0..20_000).step_by(2) {
            assert!(table.remove(key(n), n) && !table.remove(key(n), n));
        }
        for n in 0..20_000 {
            assert_eq!(find(&table, n), (n % 2 == 1).then_some(n));
        }
        assert_eq!(table.replace(key(1), 7, |at| at == 1), Some(1));
        assert_eq!(find(&table, 1), None);
    }

    #[test]
    fn what_is_expected_moves_no_key() {
        let mut table = KeyTable::new();
        table.expect(20_000);
        for n in 0..20_000 {
            let key_at = |at: u32| -> Key { panic!("{at} is moved") };
            // The last part is not a whole one.
            table.insert(key(n), n, if n < 19_900 { key_at } else { key });
        }
        assert!((0..20_000).all(|n| table.find(key(n), |at| at == n) == Some(n)));
        table.expect(1_000_000);
        assert_eq!(table.parts.len(), 20_000_usize.div_ceil(PART_AIM), "too late");
    }

    #[test]
    fn no_step_moves_more_than_one_part() {
        let mut table = KeyTable::new();
        let moved = std::cell::Cell::new(0);
        let most = (0..300_000).map(|n| {
            moved.set(0);
            let key_at = |at| {
                moved.set(moved.get() + 1);
                key(at)
            };
            table.insert(key(n), n, key_at);
            moved.get()
        });
        // Each key of the part is looked at once, and hashed once more if it moves.
        assert!(most.max() <= Some(2 * PART_ROOM));
    }
}
