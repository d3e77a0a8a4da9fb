//! A segment as a reader without the journal sees it: for whoever builds an index of it on another thread.
//!
//! It deliberately knows no map: a record that was moved on meanwhile is still shown from here.

use crate::disk::{Disk, DiskError};
use crate::frame::Original;
use crate::journal::{Journal, Sealed};
use crate::name::{SegmentId, SegmentName};
use crate::number::{Lsn, Seq};
use crate::replay::Visit;
use crate::scan::{Scanner, Step};

/// The records that were in a segment when the journal was asked for this.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentView {
    name: SegmentName,
    end: Seq,
    end_lsn: Lsn,
    trusts_length: bool,
}

impl SegmentView {
    /// Which segment.
    pub fn id(&self) -> SegmentId {
        self.name.id
    }

    /// Its first record, or the first one after it if there is none. Moved ones in it are older.
    pub fn base(&self) -> Lsn {
        self.name.base
    }

    /// The number after its last record.
    pub fn end(&self) -> Lsn {
        self.end_lsn
    }

    /// Its file.
    pub fn file(&self) -> String {
        self.name.file()
    }

    /// Shows its records as they lie there, moved ones by their own numbers; damaged ones are left out. Not found: it was
    /// dropped.
    pub fn scan<D: Disk>(&self, disk: &D, visit: &mut Visit<'_>) -> Result<(), DiskError> {
        let mut scanner = Scanner::new(disk, &self.name, Some(self.end), self.trusts_length);
        loop {
            match scanner.step()? {
                Step::Frame { .. } => {
                    for Original { lsn, epoch, kind, payload } in scanner.originals() {
                        visit(lsn, epoch, kind, payload);
                    }
                }
                Step::Damage(_) => {}
                Step::End { .. } => return Ok(()),
            }
        }
    }
}

impl<D: Disk> Journal<D> {
    /// The sealed segments, oldest first.
    pub fn sealed_views(&self) -> Vec<SegmentView> {
        self.sealed.iter().map(|sealed| self.view_of(sealed)).collect()
    }

    /// The oldest sealed segment: the one that compaction takes away.
    pub fn oldest_sealed(&self) -> Option<SegmentView> {
        self.sealed.front().map(|sealed| self.view_of(sealed))
    }

    /// The segment that is written, as far as it is now.
    pub fn active_view(&self) -> SegmentView {
        self.view(self.active.name, self.tip.next, self.tip.next_lsn)
    }

    fn view_of(&self, sealed: &Sealed) -> SegmentView {
        self.view(sealed.name, sealed.end, sealed.end_lsn)
    }

    fn view(&self, name: SegmentName, end: Seq, end_lsn: Lsn) -> SegmentView {
        SegmentView { name, end, end_lsn, trusts_length: self.config.trusts_length() }
    }
}
