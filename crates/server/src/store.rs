//! What is on disk, for everyone who only reads: records by LSN, from memory or from the journal.
//!
//! The core and the writer keep it up to date; links read it. A reader behind the writer finds less, never wrong bytes.

use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use sheaf_journal::{Committed, Map, ReadError, Record, read_many};
use sheaf_roles::port::Fetched;
use sheaf_roles::router::Lsn;

use crate::disk::FileDisk;
use crate::recent::{Batch, Recent};

/// The readers' view of the journal.
#[derive(Debug)]
pub(crate) struct Store {
    disk: FileDisk,
    // Locks, because links on several threads read what the writer and the core bring forward.
    map: RwLock<Map>,
    recent: RwLock<Recent>,
}

impl Store {
    /// A view of the journal on `disk` whose records are where `map` says.
    pub(crate) fn new(disk: FileDisk, map: Map, recent_bytes: usize) -> Self {
        Self { disk, map: RwLock::new(map), recent: RwLock::new(Recent::new(recent_bytes)) }
    }

    /// Takes over what a commit confirmed.
    pub(crate) fn committed(&self, committed: &Committed) {
        write(&self.map).apply(committed);
    }

    /// Keeps new records at hand, before anything that refers to them goes out.
    pub(crate) fn remember(&self, batch: Batch) {
        write(&self.recent).push(batch);
    }

    /// The records at `lsns`, in that order; `None` for one that is damaged, which is logged, and for one that is not
    /// there: whether it should be, the machine knows.
    pub(crate) fn fetch(&self, lsns: &[Lsn]) -> Vec<Option<Fetched>> {
        let mut fetched = self.recent(lsns);
        let mut missing: Vec<(sheaf_journal::Lsn, usize)> = Vec::new();
        for (at, lsn) in lsns.iter().enumerate().filter(|(at, _)| fetched[*at].is_none()) {
            missing.push((sheaf_journal::Lsn(lsn.0), at));
        }
        if !missing.is_empty() {
            self.read_into(missing, &mut fetched);
        }
        fetched
    }

    fn recent(&self, lsns: &[Lsn]) -> Vec<Option<Fetched>> {
        let recent = read(&self.recent);
        let fetched = |(kind, payload)| Fetched { kind, payload };
        lsns.iter().map(|lsn| recent.record(lsn.0).map(fetched)).collect()
    }

    fn read_into(&self, mut missing: Vec<(sheaf_journal::Lsn, usize)>, fetched: &mut [Option<Fetched>]) {
        missing.sort_unstable();
        let mut lsns: Vec<_> = missing.iter().map(|(lsn, _)| *lsn).collect();
        lsns.dedup();
        let mut put = |lsn: sheaf_journal::Lsn, Record { kind, payload, .. }: Record| {
            let first = missing.partition_point(|(other, _)| *other < lsn);
            for (_, at) in missing[first..].iter().take_while(|(other, _)| *other == lsn) {
                fetched[*at] = Some(Fetched { kind, payload: payload.clone() });
            }
        };
        let mut again = Vec::new();
        self.read(&lsns, &mut |lsn, outcome| match outcome {
            Ok(record) => put(lsn, record),
            Err(_) => again.push(lsn),
        });
        // The segment may have been dropped, and its record moved, between the look at the map and at the disk.
        self.read(&again, &mut |lsn, outcome| match outcome {
            Ok(record) => put(lsn, record),
            Err(ReadError::Missing { .. }) => {}
            Err(error @ (ReadError::Corrupt { .. } | ReadError::Disk(_))) => {
                tracing::error!(%error, "a record cannot be read");
            }
        });
    }

    fn read(&self, lsns: &[sheaf_journal::Lsn], found: &mut dyn FnMut(sheaf_journal::Lsn, Result<Record, ReadError>)) {
        if !lsns.is_empty() {
            read_many(&self.disk, &read(&self.map), lsns, found);
        }
    }
}

// A panic elsewhere leaves these views true: each change is one push or one map update.
fn read<T>(lock: &RwLock<T>) -> RwLockReadGuard<'_, T> {
    lock.read().unwrap_or_else(PoisonError::into_inner)
}

fn write<T>(lock: &RwLock<T>) -> RwLockWriteGuard<'_, T> {
    lock.write().unwrap_or_else(PoisonError::into_inner)
}
