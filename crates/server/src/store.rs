//! What is on disk, for everyone who only reads: record payloads by LSN, from memory or from the journal.
//!
//! The core and the writer keep it up to date; links read it. A reader behind the writer finds less, never wrong bytes.

use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use bytes::Bytes;
use sheaf_journal::{Committed, Map, ReadError, read_many};
use sheaf_roles::router::{Lsn, Record, RecordError};

use crate::disk::FileDisk;
use crate::recent::{Batch, Recent};

/// Why a record cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The journal has not got it whole.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// Its bytes are no record of this version.
    #[error(transparent)]
    Record(#[from] RecordError),
}

/// The readers' view of the journal.
#[derive(Debug)]
pub struct Store {
    disk: FileDisk,
    // Locks, because links on several threads read what the writer's and the core's threads bring forward.
    map: RwLock<Map>,
    recent: RwLock<Recent>,
}

impl Store {
    /// A view of the journal on `disk` whose records are where `map` says.
    pub fn new(disk: FileDisk, map: Map, recent_bytes: usize) -> Self {
        Self { disk, map: RwLock::new(map), recent: RwLock::new(Recent::new(recent_bytes)) }
    }

    /// Takes over what a commit confirmed.
    pub fn committed(&self, committed: &Committed) {
        write(&self.map).apply(committed);
    }

    /// Keeps the payloads of new records at hand, before anything that refers to them goes out.
    pub fn remember(&self, batch: Batch) {
        write(&self.recent).push(batch);
    }

    /// The records at `lsns`, each told to `found` with its place in `lsns`.
    pub fn records(&self, lsns: &[Lsn], found: &mut dyn FnMut(usize, Result<Record, StoreError>)) {
        let mut missing = Vec::new();
        for (at, (lsn, payload)) in lsns.iter().zip(self.from_memory(lsns)).enumerate() {
            match payload {
                Some((kind, payload)) => found(at, Record::decode(kind, payload).map_err(StoreError::from)),
                None => missing.push((sheaf_journal::Lsn(lsn.0), at)),
            }
        }
        if !missing.is_empty() {
            self.from_disk(missing, found);
        }
    }

    fn from_memory(&self, lsns: &[Lsn]) -> Vec<Option<(u8, Bytes)>> {
        let recent = read(&self.recent);
        lsns.iter().map(|lsn| recent.record(lsn.0)).collect()
    }

    fn from_disk(
        &self,
        mut missing: Vec<(sheaf_journal::Lsn, usize)>,
        found: &mut dyn FnMut(usize, Result<Record, StoreError>),
    ) {
        missing.sort_unstable();
        let mut lsns: Vec<_> = missing.iter().map(|(lsn, _)| *lsn).collect();
        lsns.dedup();
        let map = read(&self.map);
        read_many(&self.disk, &map, &lsns, &mut |lsn, outcome| {
            let first = missing.partition_point(|(other, _)| *other < lsn);
            for (_, at) in missing[first..].iter().take_while(|(other, _)| *other == lsn) {
                let record = outcome.clone().map_err(StoreError::from);
                found(*at, record.and_then(|record| Ok(Record::decode(record.kind, record.payload)?)));
            }
        });
    }
}

// A panic elsewhere leaves these views true: each change is one push or one map update.
fn read<T>(lock: &RwLock<T>) -> RwLockReadGuard<'_, T> {
    lock.read().unwrap_or_else(PoisonError::into_inner)
}

fn write<T>(lock: &RwLock<T>) -> RwLockWriteGuard<'_, T> {
    lock.write().unwrap_or_else(PoisonError::into_inner)
}
