//! Outcomes given since the last seal of the index: what the index cannot find yet.
//!
//! It deliberately knows no bodies and no bound of its own: the shell seals a segment, says so, and what the index then
//! has leaves here, a slice at a time. About 80 bytes an entry, for the entries of about one segment.

use std::collections::VecDeque;

use sheaf_task::Key;

use super::event::{Generation, Lsn, Prior, PriorFinished};
use super::keys::KeyTable;
use super::record::{Delivery, JobNo};
use sheaf_task::RowId;

/// One outcome given to one row.
#[derive(Clone, Debug)]
struct Entry {
    key: Key,
    /// The record that gave it.
    record: Lsn,
    /// The `Finished` record with the outcome; [`Lsn::NONE`]: it was withdrawn.
    finished: Lsn,
    delivery: Delivery,
    len: u32,
    /// The entry of the same key before this one, counted as `head` counts; itself: none.
    older: u32,
    ok: bool,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Recent {
    entries: VecDeque<Entry>,
    /// The count of the front entry, wrapping.
    head: u32,
    /// The latest entry of each key.
    latest: KeyTable,
    sealed: Lsn,
    generation: Generation,
}

impl Recent {
    /// Nothing up to `sealed` needs to be kept: the index of `generation` has it.
    pub(super) fn new(sealed: Lsn, generation: Generation) -> Self {
        Self { entries: VecDeque::new(), head: 0, latest: KeyTable::new(), sealed, generation }
    }

    /// Look-ups in an older index may miss what is no longer here.
    pub(super) fn is_stale(&self, generation: Generation) -> bool {
        generation < self.generation
    }

    pub(super) fn seal(&mut self, upto: Lsn, generation: Generation) {
        self.sealed = self.sealed.max(upto);
        self.generation = self.generation.max(generation);
    }

    /// Drops at most `count` entries that the index has. True when there are more.
    pub(super) fn drop_sealed(&mut self, count: u32) -> bool {
        for _ in 0..count {
            match self.entries.front() {
                Some(entry) if entry.record <= self.sealed => self.drop_front(),
                Some(_) | None => return false,
            }
        }
        true
    }

    fn drop_front(&mut self) {
        let Some(entry) = self.entries.pop_front() else { return };
        let head = self.head;
        self.head = head.wrapping_add(1);
        // Not found: a later entry of the key took its place.
        self.latest.remove(entry.key, head);
    }

    pub(super) fn add(&mut self, key: Key, record: Lsn, finished: Lsn, ok: bool, len: u32, delivery: Delivery) {
        if record <= self.sealed {
            return;
        }
        let count = self.head.wrapping_add(self.entries.len() as u32);
        let (entries, head) = (&self.entries, self.head);
        let is = |at| entry_at(entries, head, at).is_some_and(|entry| entry.key == key);
        let before = self.latest.replace(key, count, is);
        if before.is_none() {
            let key_at = |at| entry_at(entries, head, at).map_or(key, |entry| entry.key);
            self.latest.insert(key, count, key_at);
        }
        let older = before.unwrap_or(count);
        self.entries.push_back(Entry { key, record, finished, delivery, len, older, ok });
    }

    /// True if an entry here would answer a row with the `Finished` record `lsn` of `key`.
    pub(super) fn refers(&self, key: Key, lsn: Lsn) -> bool {
        let Some(mut at) = self.latest_of(key) else { return false };
        while let Some(entry) = entry_at(&self.entries, self.head, at) {
            if entry.finished == lsn {
                return true;
            }
            if entry.older == at {
                break;
            }
            at = entry.older;
        }
        false
    }

    /// What is here of `key`, as `prior_of` would say it, joined with what the index said.
    pub(super) fn prior(&self, key: Key, job: JobNo, row: RowId, hint: Option<Prior>) -> Option<Prior> {
        let Some(mut at) = self.latest_of(key) else { return hint };
        let mut here = Prior::default();
        while let Some(entry) = entry_at(&self.entries, self.head, at) {
            here.add_recent(entry, job, row);
            if entry.older == at {
                break;
            }
            at = entry.older;
        }
        let hint = hint.unwrap_or_default();
        Some(Prior {
            finished: [here.finished, hint.finished]
                .into_iter()
                .flatten()
                .reduce(|a, b| if a.ok || !b.ok { a } else { b }),
            number: here.number.or(hint.number),
            failed_here: here.failed_here || hint.failed_here,
        })
    }

    /// Jobs that were given an outcome of `key`.
    pub(super) fn each_owner(&self, key: Key, mut tell: impl FnMut(JobNo)) {
        let mut at = self.latest_of(key);
        while let Some((count, entry)) = at.and_then(|at| Some((at, entry_at(&self.entries, self.head, at)?))) {
            tell(entry.delivery.job);
            at = (entry.older != count).then_some(entry.older);
        }
    }

    fn latest_of(&self, key: Key) -> Option<u32> {
        self.latest.find(key, |at| entry_at(&self.entries, self.head, at).is_some_and(|entry| entry.key == key))
    }

    /// Entries held.
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }
}

impl Prior {
    /// Entries come newest first: the first ok wins, else the first failure; the first number of the row counts.
    fn add_recent(&mut self, entry: &Entry, job: JobNo, row: RowId) {
        let here = entry.delivery.job == job;
        if entry.finished != Lsn::NONE {
            self.failed_here |= here && !entry.ok;
            if self.finished.is_none_or(|known| entry.ok && !known.ok) {
                self.finished = Some(PriorFinished { lsn: entry.finished, ok: entry.ok, len: entry.len });
            }
        }
        if here && entry.delivery.row == row {
            self.number = self.number.or(Some(entry.delivery.number));
        }
    }
}

fn entry_at(entries: &VecDeque<Entry>, head: u32, count: u32) -> Option<&Entry> {
    entries.get(count.wrapping_sub(head) as usize)
}
