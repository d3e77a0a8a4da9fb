//! What the stages measure of themselves, for whoever shows it. It deliberately knows no format and no listener.
//!
//! Atomics, because each is written by one stage and read by others. Each is true by itself; two of them read one after
//! the other may be of different moments.

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::Duration;

use sheaf_journal::Lsn;

/// Sizes that a [`Histogram`] tells apart: number n counts what is at most 2ⁿ, the last one whatever is larger.
pub const SIZES: usize = 25;

/// Counts by powers of two.
#[derive(Debug, Default)]
pub struct Histogram {
    counts: [AtomicU64; SIZES],
    sum: AtomicU64,
}

impl Histogram {
    fn note(&self, value: u64) {
        let size = (u64::BITS - value.saturating_sub(1).leading_zeros()) as usize;
        self.counts[size.min(SIZES - 1)].fetch_add(1, Ordering::Relaxed);
        self.sum.fetch_add(value, Ordering::Relaxed);
    }

    /// How many there were of each size.
    pub fn counts(&self) -> [u64; SIZES] {
        std::array::from_fn(|size| self.counts[size].load(Ordering::Relaxed))
    }

    /// All of them together.
    pub fn sum(&self) -> u64 {
        self.sum.load(Ordering::Relaxed)
    }
}

/// How the journal stands.
///
/// ```text
/// Writable ─► Full ─► Stuck        any ─► Failed: the process stops
///     ▲────────┴───────┘
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// It takes everything.
    Writable,
    /// Its disk is full: it takes what settles and finishes, and no new rows.
    Full,
    /// The reserve is full too: it takes nothing.
    Stuck,
    /// Its disk has failed.
    Failed,
}

impl Health {
    const ALL: [Health; 4] = [Health::Writable, Health::Full, Health::Stuck, Health::Failed];
}

/// Figures of one router process.
#[derive(Debug, Default)]
pub struct Gauges {
    /// How long commits took, microseconds.
    pub commits_us: Histogram,
    /// Records in a commit.
    pub commit_records: Histogram,
    /// Bytes of the journal's files.
    journal_bytes: AtomicU64,
    /// Bytes of records given to the journal.
    appended_bytes: AtomicU64,
    /// Place in [`Health::ALL`].
    health: AtomicU8,
    /// The last record that the machine has made, and the last one on disk.
    made: AtomicU64,
    durable: AtomicU64,
    sessions: AtomicU64,
    links: AtomicU64,
}

impl Gauges {
    /// How the journal stands.
    pub fn health(&self) -> Health {
        let place = usize::from(self.health.load(Ordering::Relaxed));
        Health::ALL.get(place).copied().unwrap_or(Health::Failed)
    }

    /// Bytes of the journal's files.
    pub fn journal_bytes(&self) -> u64 {
        self.journal_bytes.load(Ordering::Relaxed)
    }

    /// Bytes of records given to the journal since the start.
    pub fn appended_bytes(&self) -> u64 {
        self.appended_bytes.load(Ordering::Relaxed)
    }

    /// Records that are made and not on disk yet.
    pub fn lag(&self) -> u64 {
        let durable = self.durable.load(Ordering::Relaxed);
        self.made.load(Ordering::Relaxed).saturating_sub(durable)
    }

    /// Sessions, connected or not.
    pub fn sessions(&self) -> u64 {
        self.sessions.load(Ordering::Relaxed)
    }

    /// Sessions that have a connection.
    pub fn links(&self) -> u64 {
        self.links.load(Ordering::Relaxed)
    }

    pub(crate) fn note_commit(&self, took: Duration, records: usize, bytes: usize) {
        self.commits_us.note(u64::try_from(took.as_micros()).unwrap_or(u64::MAX));
        self.commit_records.note(records as u64);
        self.appended_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(crate) fn set_health(&self, health: Health) {
        self.health.store(health as u8, Ordering::Relaxed);
    }

    pub(crate) fn set_journal_bytes(&self, bytes: u64) {
        self.journal_bytes.store(bytes, Ordering::Relaxed);
    }

    pub(crate) fn set_made(&self, last: u64) {
        self.made.store(last, Ordering::Relaxed);
    }

    pub(crate) fn set_durable(&self, last: Lsn) {
        self.durable.store(last.0, Ordering::Relaxed);
    }

    pub(crate) fn set_sessions(&self, sessions: usize) {
        self.sessions.store(sessions as u64, Ordering::Relaxed);
    }

    pub(crate) fn link_up(&self) {
        self.links.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn link_down(&self) {
        self.links.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_counts_with_the_smallest_size_that_holds_it() {
        let size = |value| {
            let histogram = Histogram::default();
            histogram.note(value);
            histogram.counts().iter().position(|count| *count == 1)
        };
        assert_eq!([0, 1, 2, 3, 4, 5, 1 << 23, (1 << 23) + 1].map(size), [0, 0, 1, 2, 2, 3, 23, 24].map(Some));
        assert_eq!(size(u64::MAX), Some(24));
    }

    #[test]
    fn lag_is_what_is_made_and_not_on_disk() {
        let gauges = Gauges::default();
        gauges.set_made(12);
        assert_eq!(gauges.lag(), 12);
        gauges.set_durable(Lsn(10));
        assert_eq!(gauges.lag(), 2);
        // Read between two stores.
        gauges.set_durable(Lsn(13));
        assert_eq!(gauges.lag(), 0);
    }

    #[test]
    fn every_health_comes_back_as_it_went() {
        let gauges = Gauges::default();
        for health in Health::ALL {
            gauges.set_health(health);
            assert_eq!(gauges.health(), health);
        }
    }
}
