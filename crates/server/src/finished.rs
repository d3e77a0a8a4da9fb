//! Which keys are finished, for the links: the index files beside sealed segments. What was finished since the last seal
//! is in the machine's memory.
//!
//! The index is never trusted: whatever it finds is read from the journal and checked for its key. It deliberately does
//! no work of its own: the indexer builds files, the writer says what it moved.
//!
//! Invariant: whoever reads the generation first and looks up then sees at least what that generation stands for.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use sheaf_journal::index::{Damaged, Posting, Span, Tiers};
use sheaf_journal::{Disk, DiskError, DiskErrorKind, SegmentId};
use sheaf_roles::port::Fetched;
use sheaf_roles::router::{Generation, Lsn, Record};
use sheaf_task::Key;

use crate::blocking::blocking;
use crate::disk::FileDisk;
use crate::store::Store;

/// How long look-ups wait for a damaged file, in all. Longer: what it would answer runs again.
const MEND_MAX: Duration = Duration::from_secs(10);

/// Keys looked up while the index stands still for them: whoever moves a record waits for no more than these.
const KEYS_AT_ONCE: usize = 64;

/// The index files that are open.
#[derive(Debug)]
pub(crate) struct Finished {
    disk: FileDisk,
    // Locks, because links on several threads look up what the indexer's and the writer's threads bring forward.
    tiers: RwLock<Tiers>,
    /// Records that compaction moved into segments that have no index yet.
    moved: RwLock<BTreeMap<Posting, SegmentId>>,
    /// Files that could not answer, until the indexer has built them again: look-ups wait for that.
    damaged: Mutex<BTreeSet<Span>>,
    mended: Condvar,
    /// There are some; so that a look-up need not take the lock.
    is_damaged: AtomicBool,
    generation: AtomicU64,
    /// What is older answers no further rows: it may leave the journal.
    floor: AtomicU64,
}

impl Finished {
    /// With these files open; records before `floor` are past their retention.
    pub(crate) fn new(disk: FileDisk, tiers: Tiers, floor: Lsn) -> Self {
        Self {
            disk,
            tiers: RwLock::new(tiers),
            moved: RwLock::default(),
            damaged: Mutex::default(),
            mended: Condvar::new(),
            is_damaged: AtomicBool::new(false),
            generation: AtomicU64::new(0),
            floor: AtomicU64::new(floor.0),
        }
    }

    /// Which state of the index look-ups see now, at least.
    pub(crate) fn generation(&self) -> Generation {
        Generation(self.generation.load(Ordering::SeqCst))
    }

    /// Look-ups from now on see something new.
    pub(crate) fn next_generation(&self) -> Generation {
        Generation(self.generation.fetch_add(1, Ordering::SeqCst) + 1)
    }

    /// An outcome in a record before this one answers no row any more.
    pub(crate) fn floor(&self) -> Lsn {
        Lsn(self.floor.load(Ordering::SeqCst))
    }

    /// Raises the floor. Nothing below it may leave the journal before the machine knows the generation.
    pub(crate) fn raise_floor(&self, floor: Lsn) -> Generation {
        self.floor.fetch_max(floor.0, Ordering::SeqCst);
        self.next_generation()
    }

    /// The records that the index names for each key, in LSN order. Whoever uses them checks that they are of that key.
    pub(crate) fn records(&self, store: &Store, keys: &[Key]) -> Vec<Vec<(Lsn, Record)>> {
        let found = self.candidates(keys);
        let lsns: Vec<Lsn> = found.iter().map(|(_, lsn)| *lsn).collect();
        let mut records = vec![Vec::new(); keys.len()];
        // At once, for all: what was answered together lies together.
        for ((at, lsn), fetched) in found.iter().zip(store.fetch(&lsns)) {
            records[*at].extend(decoded(*lsn, fetched));
        }
        records
    }

    /// By key, in LSN order.
    fn candidates(&self, keys: &[Key]) -> Vec<(usize, Lsn)> {
        let keys: Vec<[u8; 16]> = keys.iter().map(|key| key.0).collect();
        self.wait_mended();
        let (mut found, damaged) = self.look(&keys);
        if !damaged.is_empty() {
            self.note_damaged(&damaged);
            self.wait_mended();
            let again = self.look(&keys);
            found = again.0;
            self.note_damaged(&again.1);
        }
        found.sort_unstable();
        found.dedup();
        found.into_iter().map(|(at, lsn)| (at, Lsn(lsn.0))).collect()
    }

    /// What the files and the moved records name for the keys, and files that could not say.
    fn look(&self, keys: &[[u8; 16]]) -> (Vec<(usize, sheaf_journal::Lsn)>, Vec<Damaged>) {
        let (mut found, mut damaged) = (Vec::new(), Vec::new());
        for (part, keys) in keys.chunks(KEYS_AT_ONCE).enumerate() {
            let place = |at: usize| part * KEYS_AT_ONCE + at;
            // Held throughout: a record that went from here into a file, or from a file to here, between the two looks would
            // be in neither.
            let moved = read(&self.moved);
            let candidates = self.tiers().lookup(&self.disk, keys);
            if let Some(error) = candidates.failed {
                tracing::error!(%error, "the index cannot be read: rows that it would answer run again");
            }
            found.extend(candidates.found.into_iter().map(|(at, lsn)| (place(at), lsn)));
            damaged.extend(candidates.damaged);
            for (at, key) in keys.iter().enumerate().filter(|_| !moved.is_empty()) {
                let own = (*key, sheaf_journal::Lsn(0))..=(*key, sheaf_journal::Lsn(u64::MAX));
                found.extend(moved.range(own).map(|((_, lsn), _)| (place(at), *lsn)));
            }
        }
        (found, damaged)
    }

    /// Until no file is known to be damaged: what one cannot say would run again, and cost more than a wait.
    fn wait_mended(&self) {
        if !self.is_damaged.load(Ordering::SeqCst) {
            return;
        }
        let is_damaged = |spans: &mut BTreeSet<Span>| !spans.is_empty();
        let waited = blocking(|| self.mended.wait_timeout_while(self.damaged(), MEND_MAX, is_damaged));
        let (mut spans, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
        if timeout.timed_out() {
            tracing::error!("an index file is still not built again: rows that it would answer run again");
            spans.clear();
            self.is_damaged.store(false, Ordering::SeqCst);
        }
    }
}

/// For the indexer and the writer.
impl Finished {
    /// The open files.
    pub(crate) fn tiers(&self) -> RwLockReadGuard<'_, Tiers> {
        read(&self.tiers)
    }

    /// Changes the open files.
    pub(crate) fn change(&self, change: impl FnOnce(&mut Tiers) -> Result<(), DiskError>) -> Result<(), DiskError> {
        change(&mut write(&self.tiers))
    }

    /// Look-ups that need these files wait until [`Finished::mended`].
    pub(crate) fn note_damaged(&self, damaged: &[Damaged]) {
        for file in damaged {
            let mut spans = self.damaged();
            self.is_damaged.store(true, Ordering::SeqCst);
            if spans.insert(file.span) {
                tracing::error!(file = file.span.file(), "an index file is damaged: it is built again");
            }
        }
    }

    /// Closes the files that look-ups found damaged.
    pub(crate) fn close_damaged(&self) -> Result<Vec<Damaged>, DiskError> {
        let damaged: Vec<Damaged> = self.damaged().iter().map(|span| Damaged { span: *span }).collect();
        self.close(&damaged)?;
        Ok(damaged)
    }

    /// These are built again, or cannot be for now: nobody waits for them any longer.
    pub(crate) fn mended(&self, files: &[Damaged]) {
        let mut spans = self.damaged();
        spans.retain(|span| files.iter().all(|file| file.span != *span));
        self.is_damaged.store(!spans.is_empty(), Ordering::SeqCst);
        self.mended.notify_all();
    }

    /// Closes and removes these files; the indexer builds them again.
    pub(crate) fn close(&self, damaged: &[Damaged]) -> Result<(), DiskError> {
        for file in damaged {
            write(&self.tiers).close(*file);
            remove(&self.disk, file.span)?;
        }
        Ok(())
    }

    /// These records are in `segment` now, which has no index yet.
    pub(crate) fn enter_moved(&self, segment: SegmentId, postings: impl IntoIterator<Item = Posting>) {
        write(&self.moved).extend(postings.into_iter().map(|posting| (posting, segment)));
    }

    /// What was moved into segments up to this one is in index files now.
    pub(crate) fn forget_moved(&self, upto: SegmentId) {
        write(&self.moved).retain(|_, segment| *segment > upto);
    }

    fn damaged(&self) -> MutexGuard<'_, BTreeSet<Span>> {
        self.damaged.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A record that the index named, unless it is damaged or gone.
fn decoded(lsn: Lsn, fetched: Option<Fetched>) -> Option<(Lsn, Record)> {
    let fetched = fetched?;
    match Record::decode(fetched.kind, fetched.payload) {
        Ok(record) => Some((lsn, record)),
        Err(error) => {
            tracing::error!(%error, lsn = lsn.0, "a record that the index names does not decode");
            None
        }
    }
}

/// Removes an index file, if it is there.
pub(crate) fn remove(disk: &FileDisk, span: Span) -> Result<(), DiskError> {
    match disk.clone().remove(&span.file()) {
        Err(error) if error.kind != DiskErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

// A panic elsewhere leaves these true: each change is one whole file or entry.
fn read<T>(lock: &RwLock<T>) -> RwLockReadGuard<'_, T> {
    lock.read().unwrap_or_else(PoisonError::into_inner)
}

fn write<T>(lock: &RwLock<T>) -> RwLockWriteGuard<'_, T> {
    lock.write().unwrap_or_else(PoisonError::into_inner)
}
