//! The journal: its state, and what can be asked of it. Writing is in `writer`, files in `space`, opening in `recover`.
//!
//! ```text
//!   segment 4        segment 5        segment 6 (active)
//!   +-------------+  +-------------+  +--------------------------+- - - - +
//!   | sealed, all |  | sealed, all |  | durable   | written      | old    |
//!   | durable     |  | durable     |  |           | not synced   | bytes  |
//!   +-------------+  +-------------+  +-----------^--------------^- - - - +
//!                                             durable          next
//! ```

use std::collections::VecDeque;

use crate::compact::Work;
use crate::config::Config;
use crate::disk::{Disk, DiskError};
use crate::map::{Map, Mark};
use crate::name::{SegmentId, SegmentName};
use crate::number::{Epoch, Lsn, Seq};
use crate::read::{ReadError, Record, read_record};
use crate::space::Stock;
use crate::survey::Tally;

/// Records on a disk. One owner, one writer.
#[derive(Debug)]
pub struct Journal<D> {
    pub(crate) disk: D,
    pub(crate) config: Config,
    pub(crate) map: Map,
    pub(crate) epoch: Epoch,
    /// Oldest first.
    pub(crate) sealed: VecDeque<Sealed>,
    pub(crate) active: Active,
    pub(crate) tip: Tip,
    pub(crate) stock: Stock,
    pub(crate) health: Health,
    /// Changes of the map since the last commit.
    pub(crate) marks: Vec<Mark>,
    pub(crate) work: Option<Work>,
    /// The encoded batch; kept for its memory.
    pub(crate) buf: Vec<u8>,
}

/// A record to append.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry<P> {
    /// What it is, for its owner: at most [`KIND_MAX`](crate::KIND_MAX).
    pub kind: u8,
    /// At most [`RECORD_MAX`](crate::RECORD_MAX) bytes.
    pub payload: P,
}

/// What a batch is for: decides what happens to it on a full disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// New work: refused while the disk is full.
    Intake,
    /// What brings work to its end (deliver, settle, cancel, compaction): goes to the reserve while the disk is full.
    Upkeep,
}

/// Why nothing was appended.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// The disk is full, and so is the reserve if the class may use it. Nothing is lost; try again when
    /// [`Journal::retry_full`] says so. After a crash some of the refused records may be found in the journal.
    #[error("the disk is full")]
    Full,
    /// A record is longer than [`RECORD_MAX`](crate::RECORD_MAX), or the batch longer than a file may be.
    #[error("a record or batch of {bytes} bytes is too long for the journal")]
    TooLong {
        /// Its length.
        bytes: usize,
    },
    /// The disk failed: the journal is poisoned. Stop the process.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// The disk failed before. Stop the process.
    #[error("the journal stopped at an earlier disk error")]
    Poisoned,
}

/// Why nothing was confirmed. Either way: stop the process, and never try the sync again, since after a failed one the
/// operating system may call lost pages clean.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CommitError {
    /// The disk failed: the journal is poisoned.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// The disk failed before.
    #[error("the journal stopped at an earlier disk error")]
    Poisoned,
}

/// Statistics of one segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentInfo {
    /// Which segment.
    pub id: SegmentId,
    /// Its first record, or the first one after it if there is none.
    pub base: Lsn,
    /// Records appended in it.
    pub records: u64,
    /// Records that compaction moved into it.
    pub moved: u64,
    /// Bytes of its frames.
    pub bytes: u64,
    /// No longer written.
    pub is_sealed: bool,
    /// Holds a quarantined record.
    pub is_damaged: bool,
}

/// A segment that is no longer written.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sealed {
    pub(crate) name: SegmentName,
    /// Seq after its last frame.
    pub(crate) end: Seq,
    /// Lsn after its last record.
    pub(crate) end_lsn: Lsn,
    pub(crate) tally: Tally,
}

/// The segment that is written.
#[derive(Debug)]
pub(crate) struct Active {
    pub(crate) name: SegmentName,
    pub(crate) file: String,
    pub(crate) seed: u32,
    /// Its frames so far; `tally.bytes` is where the next one goes.
    pub(crate) tally: Tally,
    /// Up to here its blocks were asked for.
    pub(crate) reserved: u64,
    /// A write failed here: whatever it left must never follow valid frames, so nothing more is written to this file.
    pub(crate) is_tainted: bool,
}

/// Where the journal ends. Invariant: `marked <= durable < next`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tip {
    pub(crate) next: Seq,
    pub(crate) next_lsn: Lsn,
    /// The last frame that a sync confirmed.
    pub(crate) durable: Seq,
    pub(crate) durable_lsn: Lsn,
    /// Up to here a frame on the disk says that all is durable.
    pub(crate) marked: Seq,
}

/// Whether the journal can be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Health {
    Good,
    /// Intake is refused.
    Full,
    /// Nothing is written any more.
    Poisoned,
}

impl<D: Disk> Journal<D> {
    /// The epoch that this open took.
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// The last record appended; zero if there is none.
    pub fn last(&self) -> Lsn {
        self.tip.next_lsn.prev()
    }

    /// The last record that is durable.
    pub fn durable(&self) -> Lsn {
        self.tip.durable_lsn
    }

    /// Where records are; unsynced ones too. Clone it to start a reader's own.
    pub fn map(&self) -> &Map {
        &self.map
    }

    /// The disk.
    pub fn disk(&self) -> &D {
        &self.disk
    }

    /// The disk, for the index files that lie on it too. Segments are the journal's alone.
    pub fn disk_mut(&mut self) -> &mut D {
        &mut self.disk
    }

    /// Gives the disk back. What was not committed stays unconfirmed.
    pub fn into_disk(self) -> D {
        self.disk
    }

    /// Reads one record, durable or not.
    pub fn read(&self, lsn: Lsn) -> Result<Record, ReadError> {
        read_record(&self.disk, &self.map, lsn)
    }

    /// True while intake is refused.
    pub fn is_full(&self) -> bool {
        self.health == Health::Full
    }

    /// True when the next batch of so many bytes needs no other file and no more blocks: all that it costs is its write.
    pub fn has_blocks_for(&self, bytes: u64) -> bool {
        let is_good = self.health == Health::Good && !self.active.is_tainted;
        is_good && self.active.tally.bytes + bytes <= self.active.reserved
    }

    /// Every segment, oldest first; the active one is the last.
    pub fn segments(&self) -> impl Iterator<Item = SegmentInfo> {
        let sealed = self.sealed.iter().map(|sealed| info(&sealed.name, &sealed.tally, true));
        sealed.chain([info(&self.active.name, &self.active.tally, false)])
    }

    /// Bytes of frames in all segments.
    pub fn bytes(&self) -> u64 {
        self.segments().map(|segment| segment.bytes).sum()
    }
}

fn info(name: &SegmentName, tally: &Tally, is_sealed: bool) -> SegmentInfo {
    let Tally { records, moved, bytes, is_damaged, place: _ } = *tally;
    SegmentInfo { id: name.id, base: name.base, records, moved, bytes, is_sealed, is_damaged }
}
