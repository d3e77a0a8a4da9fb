//! Limits of a journal.

use crate::number::Epoch;

/// How a journal uses its disk. Every size in bytes.
#[derive(Clone, Debug)]
pub struct Config {
    /// A segment is sealed when the next batch might make it longer than this. One batch larger than it makes a segment
    /// of its own. 64 MiB.
    pub segment_bytes: u32,
    /// How many dropped segments wait to be written again: rewriting blocks that exist halves the time of a commit.
    /// Further ones are deleted. 2.
    pub free_segments_max: usize,
    /// Size of the reserved file that [`Class::Upkeep`](crate::Class::Upkeep) records go to on a full disk; zero means none. 8 MiB.
    pub reserve_bytes: u32,
    /// The least epoch that an open takes: what the disk says is too little where it was restored from an old copy. Seconds
    /// of a wall clock will do. 0.
    pub epoch_min: Epoch,
    /// A rule that is switched off.
    #[cfg(any(test, feature = "mutations"))]
    pub mutation: Option<Mutation>,
}

/// Rules that can be switched off, to prove that a checker notices.
#[cfg(any(test, feature = "mutations"))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutation {
    /// A commit returns without having synced.
    AckBeforeSync,
    /// Recovery trusts an unconfirmed tail where it lies, instead of copying it into a fresh, synced file.
    NoTailCopy,
    /// The reader believes the length of a damaged frame instead of scanning for the next valid one.
    TrustLength,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            segment_bytes: 64 << 20,
            free_segments_max: 2,
            reserve_bytes: 8 << 20,
            epoch_min: Epoch(0),
            #[cfg(any(test, feature = "mutations"))]
            mutation: None,
        }
    }
}

impl Config {
    pub(crate) fn syncs_before_ack(&self) -> bool {
        #[cfg(any(test, feature = "mutations"))]
        return self.mutation != Some(Mutation::AckBeforeSync);
        #[cfg(not(any(test, feature = "mutations")))]
        true
    }

    pub(crate) fn copies_tail(&self) -> bool {
        #[cfg(any(test, feature = "mutations"))]
        return self.mutation != Some(Mutation::NoTailCopy);
        #[cfg(not(any(test, feature = "mutations")))]
        true
    }

    pub(crate) fn trusts_length(&self) -> bool {
        #[cfg(any(test, feature = "mutations"))]
        return self.mutation == Some(Mutation::TrustLength);
        #[cfg(not(any(test, feature = "mutations")))]
        false
    }
}
