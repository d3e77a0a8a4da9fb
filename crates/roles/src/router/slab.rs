//! Open tasks in memory: one compact [`Row`] each, in chunks that never move, found by key.
//!
//! It deliberately knows no job, worker or record: rows, lists through rows, and keys.
//!
//! Invariants: a row is in at most one [`List`]; a row index is reused only after [`Tasks::remove`]; growing
//! copies no row, and of the key table one part.

use std::collections::BTreeMap;

use sheaf_session::Micros;
use sheaf_task::{Key, RowId};

use super::event::Lsn;
use super::keys::KeyTable;
use super::record::JobNo;
use super::workers::WorkerNo;

/// Index of a row in the slab.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Ix(pub(super) u32);

impl Ix {
    /// No row: the end of a list.
    pub(super) const NONE: Ix = Ix(u32::MAX);
}

/// Where an open task is.
///
/// ```text
/// Idle ─► Ready ─► Assigned ─► (finished: the row is gone)
///  │        ▲ ▲       │
///  │        │ └───────┤ recalled, lost
///  ▼        │         ├─► Backoff ─► Ready      failed, to be tried again
/// Withheld ─┘         └─► Suspect ─► Assigned   alone: it may have killed its worker
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Spot {
    /// Nowhere: only within one step, and in replay.
    Idle,
    /// Open since before the restart; some worker may be running it.
    Withheld,
    /// In its job's ready queue.
    Ready,
    /// In its service's queue of suspects.
    Suspect,
    /// In the heap of pauses; due at `since`.
    Backoff,
    /// Held by `worker` since `since`.
    Assigned,
}

/// A time of the router's clock in half of the memory: to the millisecond, modulo 49 days.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Moment(u32);

impl Moment {
    pub(super) fn of(time: Micros) -> Self {
        Self(time.as_ms() as u32)
    }

    /// How long ago it was. After 49 days that begins anew.
    pub(super) fn age(self, now: Micros) -> Micros {
        Micros::from_ms(u64::from(Self::of(now).0.wrapping_sub(self.0)))
    }

    /// How far ahead it is, by up to 24 days; zero if it is over.
    pub(super) fn ahead(self, now: Micros) -> Micros {
        Micros::from_ms(u64::try_from(self.0.wrapping_sub(Self::of(now).0) as i32).unwrap_or(0))
    }
}

/// One open task. 72 bytes, and about 13 more in the key table.
#[derive(Clone, Debug)]
pub(super) struct Row {
    pub(super) key: Key,
    /// The first row that asked for it; more are in [`Tasks::more`].
    pub(super) row: RowId,
    /// The record that holds the body.
    pub(super) body: Lsn,
    /// When it came to be where it is.
    pub(super) since: Moment,
    /// The job of `row`.
    pub(super) job: JobNo,
    /// Bytes of the body.
    pub(super) len: u32,
    next: Ix,
    prev: Ix,
    /// While `Assigned`.
    pub(super) worker: WorkerNo,
    /// Its last attempt of this epoch; 0: none yet; [`ENDED`]: the last one is over, whatever its worker may still say.
    pub(super) attempt: u32,
    pub(super) spot: Spot,
    /// The ready list of its job that it is in, while `Ready`.
    pub(super) bucket: u8,
    /// More rows wait for it.
    pub(super) shared: bool,
    /// There is a [`Cold`] entry.
    pub(super) cold: bool,
}

/// One more row that waits for an open task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Asker {
    pub(super) job: JobNo,
    pub(super) row: RowId,
    /// The `Joined` or `Retried` record.
    pub(super) lsn: Lsn,
}

/// What only troubled tasks have.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Cold {
    /// Attempts that ended without finishing it.
    pub(super) ended: u32,
    /// Of those, such as count against the job's retries.
    pub(super) failed: u32,
    /// Deaths that it is suspected of.
    pub(super) deaths: u8,
    /// Highest record about it after its body.
    pub(super) gate: Lsn,
    /// The last attempt whose end is on record: (epoch, attempt).
    pub(super) over: (u64, u32),
    /// The attempt that it is held under was made by an earlier epoch.
    pub(super) adopted: Option<(u64, u32)>,
}

/// A list through the rows.
#[derive(Clone, Copy, Debug)]
pub(super) struct List {
    pub(super) head: Ix,
    pub(super) tail: Ix,
    pub(super) len: u32,
}

impl Default for List {
    fn default() -> Self {
        List { head: Ix::NONE, tail: Ix::NONE, len: 0 }
    }
}

/// No attempt has this number.
pub(super) const ENDED: u32 = u32::MAX;

/// Rows of one chunk.
const CHUNK: usize = 4_096;

/// Every open task.
#[derive(Debug)]
pub(super) struct Tasks {
    chunks: Vec<Vec<Row>>,
    free: List,
    len: u32,
    keys: KeyTable,
    pub(super) more: BTreeMap<Ix, Vec<Asker>>,
    pub(super) cold: BTreeMap<Ix, Cold>,
    pub(super) withheld: List,
}

impl Tasks {
    pub(super) fn new() -> Self {
        Self {
            chunks: Vec::new(),
            free: List::default(),
            len: 0,
            keys: KeyTable::new(),
            more: BTreeMap::new(),
            cold: BTreeMap::new(),
            withheld: List::default(),
        }
    }

    /// Open tasks.
    pub(super) fn len(&self) -> u32 {
        self.len
    }

    /// One more than the highest index in use: the end of a walk.
    pub(super) fn end(&self) -> u32 {
        self.chunks.iter().map(|chunk| chunk.len() as u32).sum()
    }

    /// The row at `ix`, unless it is free or was never used: for walks.
    pub(super) fn used(&self, ix: Ix) -> bool {
        let row = self.chunks.get(ix.0 as usize / CHUNK).and_then(|chunk| chunk.get(ix.0 as usize % CHUNK));
        row.is_some_and(|row| row.body != Lsn::NONE)
    }

    pub(super) fn row(&self, ix: Ix) -> &Row {
        &self.chunks[ix.0 as usize / CHUNK][ix.0 as usize % CHUNK]
    }

    pub(super) fn row_mut(&mut self, ix: Ix) -> &mut Row {
        &mut self.chunks[ix.0 as usize / CHUNK][ix.0 as usize % CHUNK]
    }

    /// Makes the key table ready for so many tasks, before there is one.
    pub(super) fn expect(&mut self, tasks: usize) {
        self.keys.expect(tasks);
    }

    pub(super) fn find(&self, key: Key) -> Option<Ix> {
        self.keys.find(key, |ix| self.row(Ix(ix)).key == key).map(Ix)
    }

    /// Looks many keys up and forgets what it found. The processor fetches for several at once what each of them needs,
    /// where look-ups with other work between them would wait for each: on millions of tasks none of it is in a cache.
    pub(super) fn touch(&self, keys: impl Iterator<Item = Key>) {
        std::hint::black_box(keys.filter(|key| self.find(*key).is_some()).count());
    }

    /// Adds an open task, in no list. The key must not be open.
    pub(super) fn insert(&mut self, key: Key, job: JobNo, row: RowId, body: Lsn, len: u32) -> Ix {
        let new = Row {
            key,
            row,
            body,
            since: Moment::default(),
            job,
            len,
            next: Ix::NONE,
            prev: Ix::NONE,
            worker: WorkerNo::NONE,
            attempt: 0,
            spot: Spot::Idle,
            bucket: 0,
            shared: false,
            cold: false,
        };
        let ix = self.allot(new);
        let chunks = &self.chunks;
        self.keys.insert(key, ix.0, |ix| chunks[ix as usize / CHUNK][ix as usize % CHUNK].key);
        self.len += 1;
        ix
    }

    fn allot(&mut self, new: Row) -> Ix {
        let ix = self.free.head;
        if ix != Ix::NONE {
            let mut free = self.free;
            self.unlink(&mut free, ix);
            self.free = free;
            *self.row_mut(ix) = new;
            return ix;
        }
        if self.chunks.last().is_none_or(|chunk| chunk.len() == CHUNK) {
            self.chunks.push(Vec::with_capacity(CHUNK));
        }
        let at = self.chunks.len() - 1;
        self.chunks[at].push(new);
        Ix((at * CHUNK + self.chunks[at].len() - 1) as u32)
    }

    /// Forgets a task that is in no list.
    pub(super) fn remove(&mut self, ix: Ix) {
        let key = self.row(ix).key;
        assert!(self.keys.remove(key, ix.0), "an open task is found by its key");
        let (shared, cold) = (self.row(ix).shared, self.row(ix).cold);
        if shared {
            self.more.remove(&ix);
        }
        if cold {
            self.cold.remove(&ix);
        }
        self.row_mut(ix).body = Lsn::NONE;
        self.row_mut(ix).spot = Spot::Idle;
        self.len -= 1;
        let mut free = self.free;
        self.push_front(&mut free, ix);
        self.free = free;
    }

    pub(super) fn push_back(&mut self, list: &mut List, ix: Ix) {
        let tail = list.tail;
        let row = self.row_mut(ix);
        (row.prev, row.next) = (tail, Ix::NONE);
        if tail == Ix::NONE {
            list.head = ix;
        } else {
            self.row_mut(tail).next = ix;
        }
        list.tail = ix;
        list.len += 1;
    }

    pub(super) fn push_front(&mut self, list: &mut List, ix: Ix) {
        let head = list.head;
        let row = self.row_mut(ix);
        (row.prev, row.next) = (Ix::NONE, head);
        if head == Ix::NONE {
            list.tail = ix;
        } else {
            self.row_mut(head).prev = ix;
        }
        list.head = ix;
        list.len += 1;
    }

    pub(super) fn unlink(&mut self, list: &mut List, ix: Ix) {
        let (prev, next) = (self.row(ix).prev, self.row(ix).next);
        if prev == Ix::NONE {
            list.head = next;
        } else {
            self.row_mut(prev).next = next;
        }
        if next == Ix::NONE {
            list.tail = prev;
        } else {
            self.row_mut(next).prev = prev;
        }
        list.len -= 1;
    }

    pub(super) fn next(&self, ix: Ix) -> Ix {
        self.row(ix).next
    }

    pub(super) fn prev(&self, ix: Ix) -> Ix {
        self.row(ix).prev
    }

    pub(super) fn cold(&self, ix: Ix) -> Cold {
        if self.row(ix).cold { self.cold.get(&ix).copied().unwrap_or_default() } else { Cold::default() }
    }

    pub(super) fn cold_mut(&mut self, ix: Ix) -> &mut Cold {
        self.row_mut(ix).cold = true;
        self.cold.entry(ix).or_default()
    }

    /// Every row that waits for it, the first one first.
    pub(super) fn askers(&self, ix: Ix) -> impl Iterator<Item = Asker> + '_ {
        let row = self.row(ix);
        let first = Asker { job: row.job, row: row.row, lsn: self.gate(ix) };
        let more = if row.shared { self.more.get(&ix) } else { None };
        std::iter::once(first).chain(more.into_iter().flatten().copied())
    }

    /// The highest record that an attempt at it rests on.
    pub(super) fn gate(&self, ix: Ix) -> Lsn {
        self.row(ix).body.max(self.cold(ix).gate)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(n: u32) -> Key {
        let mut key = [0; 16];
        key[0] = n as u8;
        key[8..12].copy_from_slice(&n.wrapping_mul(0x9e37_79b9).to_le_bytes());
        key[12..].copy_from_slice(&n.to_le_bytes());
        Key(key)
    }

    #[test]
    fn an_open_task_costs_at_most_88_bytes() {
        let mut tasks = Tasks::new();
        let count = 300_000;
        for n in 0..count {
            tasks.insert(key(n), JobNo(1), RowId([0; 16]), Lsn(u64::from(n) + 1), 200);
        }
        let rows = tasks.chunks.iter().map(|chunk| chunk.capacity() * size_of::<Row>()).sum::<usize>();
        let keys = tasks.keys.allocation_size();
        let each = (rows + keys) as f64 / f64::from(count);
        assert!(size_of::<Row>() == 72 && each <= 88.0, "{} bytes a row, {each} bytes a task", size_of::<Row>());
    }

    #[test]
    fn spans_are_told_across_the_end_of_the_numbers() {
        let ms = Micros::from_ms;
        let (end, month) = (u64::from(u32::MAX), 30 * 24 * 3_600 * 1_000);
        for (from, to) in [(0, 5), (7, 7), (end - 2, end + 3), (3 * end, 3 * end + month), (1, 1 + month)] {
            assert_eq!(Moment::of(ms(from)).age(ms(to)), ms(to - from), "from {from} to {to}");
        }
        for (now, due) in [(0, 5), (7, 7), (end - 2, end + 3), (3 * end, 3 * end + month / 2)] {
            assert_eq!(Moment::of(ms(due)).ahead(ms(now)), ms(due - now), "from {now} to {due}");
        }
        assert_eq!(Moment::of(ms(8)).ahead(ms(9)), Micros::ZERO, "it is over");
        assert_eq!(Moment::of(Micros(1_999)), Moment::of(ms(1)));
    }

    #[test]
    fn keys_and_lists_survive_removal_and_reuse() {
        let mut tasks = Tasks::new();
        let mut list = List::default();
        for n in 0..10_000 {
            let ix = tasks.insert(key(n), JobNo(1), RowId([0; 16]), Lsn(1), 0);
            tasks.push_back(&mut list, ix);
        }
        for n in (0..10_000).step_by(2) {
            let ix = tasks.find(key(n)).unwrap();
            tasks.unlink(&mut list, ix);
            tasks.remove(ix);
            assert!(tasks.find(key(n)).is_none() && !tasks.used(ix));
        }
        let mut at = list.head;
        for n in (1..10_000).step_by(2) {
            assert_eq!(tasks.row(at).key, key(n));
            at = tasks.next(at);
        }
        assert_eq!((at, list.len, tasks.len()), (Ix::NONE, 5_000, 5_000));
        tasks.insert(key(0), JobNo(1), RowId([0; 16]), Lsn(1), 0);
        assert_eq!(tasks.end(), 10_000);
    }
}
