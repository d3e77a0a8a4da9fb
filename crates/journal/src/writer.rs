//! Appending and committing: one buffer and one write per batch, but for long payloads, and one sync per commit.
//!
//! A batch is not atomic. After a crash any prefix of what was not committed may be there, so the order inside a batch
//! matters: what proves another record goes behind it.

use crate::disk::{Disk, DiskError, DiskErrorKind};
use crate::frame::{self, Head, KIND_MAX, Kind, MOVED_PREFIX, RECORD_MAX};
use crate::group;
use crate::journal::{AppendError, Class, CommitError, Entry, Health, Journal, Tip};
use crate::map::{Committed, Mark};
use crate::name::SegmentId;
use crate::number::{Epoch, Lsn};
use crate::survey::Tally;

/// The longest a segment can be: offsets are 32 bits.
const SEGMENT_MAX: usize = 1 << 31;

impl<D: Disk> Journal<D> {
    /// Appends records, unsynced: they get the numbers after [`Journal::last`], and the last of those is returned. All or
    /// none of them are in. They are read back and replayed from now on, and durable after the next commit.
    pub fn append<P: AsRef<[u8]>>(&mut self, class: Class, entries: &[Entry<P>]) -> Result<Lsn, AppendError> {
        let mut bytes = 0;
        for entry in entries {
            assert!(entry.kind <= KIND_MAX, "kinds above {KIND_MAX:#x} are the journal's own");
            let len = entry.payload.as_ref().len();
            if len > RECORD_MAX {
                return Err(AppendError::TooLong { bytes: len });
            }
            bytes += frame::size(len);
        }
        if !entries.is_empty() {
            self.put(class, bytes, |batch| batch.records(entries))?;
        }
        Ok(self.last())
    }

    /// Makes everything appended durable. An error poisons the journal for good.
    pub fn commit(&mut self) -> Result<Committed, CommitError> {
        if self.health == Health::Poisoned {
            return Err(CommitError::Poisoned);
        }
        self.sync_active().inspect_err(|_| self.health = Health::Poisoned)?;
        Ok(Committed { durable: self.tip.durable_lsn, marks: std::mem::take(&mut self.marks) })
    }

    /// To be called when nothing else is to be written for now: commits, and leaves a mark behind that says so. Damage to
    /// anything before the mark is then known as damage, not taken for a torn tail. Does nothing if nothing is new.
    pub fn mark_idle(&mut self) -> Result<Committed, CommitError> {
        let committed = self.commit()?;
        // The mark is a help, not a promise: a full disk goes without.
        if self.tip.marked == self.tip.durable || self.is_full() {
            return Ok(committed);
        }
        match self.put(Class::Upkeep, frame::size(0), |batch| batch.mark()) {
            Ok(()) => {}
            Err(AppendError::Full | AppendError::TooLong { .. }) => return Ok(committed),
            Err(AppendError::Disk(error)) => return Err(CommitError::Disk(error)),
            Err(AppendError::Poisoned) => return Err(CommitError::Poisoned),
        }
        let after = self.commit()?;
        // The mark itself confirms what is before it; that it is durable too needs no other mark.
        self.tip.marked = self.tip.durable;
        Ok(Committed { durable: after.durable, marks: [committed.marks, after.marks].concat() })
    }

    /// Writes a batch of at most `bytes` that `fill` encodes; `fill` may run more than once.
    pub(crate) fn put<'a>(
        &mut self,
        class: Class,
        bytes: usize,
        fill: impl Fn(&mut Batch<'a>),
    ) -> Result<(), AppendError> {
        match (self.health, class) {
            (Health::Poisoned, Class::Intake | Class::Upkeep) => return Err(AppendError::Poisoned),
            (Health::Full, Class::Intake) => return Err(AppendError::Full),
            (Health::Good, Class::Intake | Class::Upkeep) | (Health::Full, Class::Upkeep) => {}
        }
        if bytes > SEGMENT_MAX / 2 {
            return Err(AppendError::TooLong { bytes });
        }
        self.make_room(bytes as u64)?;
        loop {
            self.reserve_ahead(bytes as u64)?;
            let mut batch = self.batch();
            fill(&mut batch);
            match self.write(&batch) {
                Ok(()) => {
                    self.take_in(batch);
                    return Ok(());
                }
                Err(error) if error.kind == DiskErrorKind::Full => {
                    self.buf = batch.bytes;
                    self.on_full(class)?;
                }
                Err(error) => {
                    self.health = Health::Poisoned;
                    return Err(AppendError::Disk(error));
                }
            }
        }
    }

    fn write(&mut self, batch: &Batch<'_>) -> Result<(), DiskError> {
        let (mut at, mut from) = (batch.start, 0);
        let mut write = |bytes: &[u8]| {
            let written = self.disk.write(&self.active.file, at, bytes);
            at += bytes.len() as u64;
            written
        };
        for (to, payload) in &batch.long {
            write(&batch.bytes[from..*to])?;
            write(payload)?;
            from = *to;
        }
        // A long payload may end without padding.
        if from == batch.bytes.len() { Ok(()) } else { write(&batch.bytes[from..]) }
    }

    fn batch<'a>(&mut self) -> Batch<'a> {
        let mut bytes = std::mem::take(&mut self.buf);
        bytes.clear();
        Batch {
            bytes,
            long: Vec::new(),
            seed: self.active.seed,
            segment: self.active.name.id,
            epoch: self.epoch,
            tip: self.tip,
            start: self.active.tally.bytes,
            tally: self.active.tally,
            marks: Vec::new(),
        }
    }

    fn take_in(&mut self, batch: Batch<'_>) {
        let Batch { bytes, tip, tally, marks, .. } = batch;
        // The frames themselves say what was durable before them.
        self.tip = Tip { marked: tip.durable, ..tip };
        self.active.tally = tally;
        for mark in &marks {
            self.map.mark(mark);
        }
        self.map.set_end(tip.next_lsn);
        self.marks.extend_from_slice(&marks);
        self.buf = bytes;
        self.buf.truncate(0);
        self.buf.shrink_to(BUFFER_KEPT);
    }
}

/// How much memory the buffer keeps between batches.
const BUFFER_KEPT: usize = 4 << 20;

/// A payload that is as long is written from where it lies: two more calls of the system cost less than its copy.
pub(crate) const LONG: usize = 64 << 10;

/// Frames on their way to the disk.
pub(crate) struct Batch<'a> {
    /// All of them but the long payloads of callers.
    bytes: Vec<u8>,
    /// Those, each with its place in `bytes`.
    long: Vec<(usize, &'a [u8])>,
    seed: u32,
    segment: SegmentId,
    epoch: Epoch,
    tip: Tip,
    /// Where in the file the batch begins.
    start: u64,
    tally: Tally,
    marks: Vec<Mark>,
}

impl<'a> Batch<'a> {
    /// A caller's records, with the next numbers; small ones share frames.
    pub(crate) fn records<P: AsRef<[u8]>>(&mut self, mut entries: &'a [Entry<P>]) {
        while !entries.is_empty() {
            let (count, len) = group::fit(entries.iter().map(|entry| entry.payload.as_ref()));
            let (these, rest) = entries.split_at(count);
            self.records_in_one(these, len);
            entries = rest;
        }
    }

    /// Records for one frame, of `len` bytes if they share it.
    fn records_in_one<P: AsRef<[u8]>>(&mut self, entries: &'a [Entry<P>], len: usize) {
        let (lsn, offset) = (self.tip.next_lsn, self.offset());
        if self.tally.wants_place(offset) {
            self.tally.place = Some(offset);
            self.marks.push(Mark::At { lsn, offset });
        }
        if let [Entry { kind, payload }] = entries {
            let payload = payload.as_ref();
            if payload.len() < LONG {
                self.frame(Kind::Record(*kind), lsn, payload.len(), |out| out.extend_from_slice(payload));
            } else {
                self.long_frame(Kind::Record(*kind), lsn, payload);
            }
        } else {
            let seed = self.seed;
            self.frame(Kind::Group(entries.len() as u8), lsn, len, |out| {
                for (lsn, entry) in (lsn.0..).map(Lsn).zip(entries) {
                    group::push(out, seed, lsn, entry.kind, entry.payload.as_ref());
                }
            });
        }
        self.tip.next_lsn = Lsn(lsn.0 + entries.len() as u64);
        self.tally.records += entries.len() as u64;
    }

    /// A record that is here already, once more.
    pub(crate) fn moved(&mut self, lsn: Lsn, epoch: Epoch, kind: u8, payload: &[u8]) {
        let offset = self.offset();
        self.marks.push(Mark::Moved { lsn, segment: self.segment, offset });
        let len = MOVED_PREFIX + payload.len();
        self.frame(Kind::Moved(kind), lsn, len, |out| frame::push_moved(out, epoch, payload));
        self.tally.moved += 1;
    }

    /// Nothing but the statement of what is durable.
    pub(crate) fn mark(&mut self) {
        self.frame(Kind::Mark, self.tip.next_lsn, 0, |_| {});
    }

    fn offset(&self) -> u32 {
        self.tally.bytes as u32
    }

    fn frame(&mut self, kind: Kind, lsn: Lsn, len: usize, fill: impl FnOnce(&mut Vec<u8>)) {
        let head = self.next_head(kind, lsn, len);
        frame::encode(&mut self.bytes, self.seed, &head, fill);
    }

    fn long_frame(&mut self, kind: Kind, lsn: Lsn, payload: &'a [u8]) {
        let head = self.next_head(kind, lsn, payload.len());
        let place = frame::encode_around(&mut self.bytes, self.seed, &head, payload);
        self.long.push((place, payload));
    }

    /// The header of the next frame, which the tip and the tally count from now on.
    fn next_head(&mut self, kind: Kind, lsn: Lsn, len: usize) -> Head {
        let Tip { next, durable, .. } = self.tip;
        let head = Head { len, durable, ..Head::new(kind, next, lsn, self.epoch) };
        self.tip.next = next.next();
        self.tally.bytes += head.size() as u64;
        head
    }
}
