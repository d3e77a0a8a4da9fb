//! The filter of an index file: says "not here" for all but one in 256 of the keys that are not, in nine bits a key.
//!
//! It wants distinct 64-bit numbers, so it holds the first eight bytes of each key: keys are hashes, those are as good as
//! any. Built with a fixed seed: same keys, same bytes.

use xorf::{BinaryFuse8, BinaryFuse8Ref, DmaSerializable, Filter as _, FilterRef};

/// A filter in memory, as in the file: descriptor, then fingerprints. Empty: no filter, everything may be here.
#[derive(Clone, Debug)]
pub(super) struct Filter {
    bytes: Vec<u8>,
}

const DESCRIPTOR: usize = <BinaryFuse8 as DmaSerializable>::DESCRIPTOR_LEN;

impl Filter {
    /// Of keys in any order, repeated ones allowed. They come sorted, unless a file that is merged lies in all its
    /// checksums: then the crate that builds the filter must not see two of a kind either.
    pub(super) fn build(mut prefixes: Vec<u64>) -> Self {
        prefixes.sort_unstable();
        prefixes.dedup();
        // It can fail, with a chance that nobody has met; an index without filter is slower, not wrong.
        let Ok(filter) = BinaryFuse8::try_from(&prefixes) else { return Self { bytes: Vec::new() } };
        let fingerprints = filter.dma_fingerprints();
        let mut bytes = vec![0; DESCRIPTOR + fingerprints.len()];
        filter.dma_copy_descriptor_to(&mut bytes[..DESCRIPTOR]);
        bytes[DESCRIPTOR..].copy_from_slice(fingerprints);
        Self { bytes }
    }

    /// From a file's bytes, whose checksum is right. `None` if they cannot be a filter all the same.
    pub(super) fn from_bytes(bytes: Vec<u8>) -> Option<Self> {
        let filter = Self { bytes };
        if filter.bytes.is_empty() {
            return Some(filter);
        }
        let word =
            |at: usize| filter.bytes.get(at..at + 4)?.first_chunk().map(|word| u32::from_le_bytes(*word) as usize);
        let (length, mask, total) = (word(8)?, word(12)?, word(16)?);
        // What a lookup indexes: three places, each in another stretch of `length`.
        let is_sound = length.is_power_of_two()
            && mask == length - 1
            && total > 0
            && total.checked_add(2 * length)? <= filter.bytes.len() - DESCRIPTOR;
        is_sound.then_some(filter)
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub(super) fn may_hold(&self, key: &[u8; 16]) -> bool {
        self.bytes.is_empty()
            || BinaryFuse8Ref::from_dma(&self.bytes[..DESCRIPTOR], &self.bytes[DESCRIPTOR..]).contains(&prefix(key))
    }
}

/// The first eight bytes of a key, as a number in the order of keys.
pub(super) fn prefix(key: &[u8; 16]) -> u64 {
    u64::from_be_bytes([key[0], key[1], key[2], key[3], key[4], key[5], key[6], key[7]])
}
