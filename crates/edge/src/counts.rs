//! What the door counts of itself, for whoever shows it: plain numbers that only grow, and no names in them.

use std::sync::atomic::{AtomicU64, Ordering};

/// The counters of a door.
#[derive(Debug, Default)]
pub struct Counts {
    /// Connections taken.
    connections: AtomicU64,
    /// Requests answered, whatever with.
    requests: AtomicU64,
    /// Calls let in.
    admitted: AtomicU64,
    /// Calls refused because there was no room for them (`sheaf_edge_refused_total`).
    refused: AtomicU64,
    /// Handlers that panicked.
    panics: AtomicU64,
}

/// They, at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counted {
    /// Connections taken.
    pub connections: u64,
    /// Requests answered, whatever with.
    pub requests: u64,
    /// Calls let in.
    pub admitted: u64,
    /// Calls refused because there was no room for them.
    pub refused: u64,
    /// Handlers that panicked.
    pub panics: u64,
}

impl Counts {
    /// They, now.
    pub fn read(&self) -> Counted {
        let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
        Counted {
            connections: of(&self.connections),
            requests: of(&self.requests),
            admitted: of(&self.admitted),
            refused: of(&self.refused),
            panics: of(&self.panics),
        }
    }

    pub(crate) fn connection(&self) {
        self.connections.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn request(&self) {
        self.requests.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn admitted(&self) {
        self.admitted.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn refused(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn panicked(&self) {
        self.panics.fetch_add(1, Ordering::Relaxed);
    }
}
