//! Takes the oldest segments away: what is still needed of one is appended again as moved records, and once those are
//! durable the segment is dropped. Always the oldest first, so an older copy never outlives a newer one.
//!
//! ```text
//!   compact: slice, slice, … ──▶ all of it judged ──▶ commit ──▶ compact: dropped
//! ```
//!
//! A crash before the drop leaves both copies; the newer one counts, and the next compaction of that segment has nothing
//! left to move.

use crate::disk::{Disk, DiskError};
use crate::frame::{self, Original};
use crate::journal::{AppendError, Class, Health, Journal};
use crate::name::SegmentId;
use crate::number::{Epoch, Lsn, Seq};
use crate::scan::{Scanner, Step};

/// What is to become of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// It is needed: it stays readable under its number.
    Keep,
    /// It may go with its segment.
    Drop,
}

/// How far compaction of the oldest segment is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// There is no sealed segment.
    Nothing,
    /// A slice was judged, and `moved` records of it appended again; go on.
    Slice {
        /// Records appended again.
        moved: u64,
    },
    /// All is judged; the segment goes at the first call after the next commit.
    AwaitsCommit,
    /// The segment is gone.
    Dropped(SegmentId),
}

/// Why a slice was not compacted. The journal is as before.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CompactError {
    /// What is needed could not be appended again.
    #[error(transparent)]
    Append(#[from] AppendError),
    /// The old segment could not be read.
    #[error(transparent)]
    Read(#[from] DiskError),
}

/// A compaction under way.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Work {
    segment: SegmentId,
    /// Where in its file the next slice begins, and with which frame.
    at: (u64, Option<Seq>),
    /// All is judged; this frame must be durable before the segment goes.
    judged: Option<Seq>,
}

/// Kept records of a slice, their payloads one behind the other.
#[derive(Debug, Default)]
struct Kept {
    records: Vec<(Lsn, Epoch, u8, usize)>,
    payloads: Vec<u8>,
    framed: usize,
}

impl<D: Disk> Journal<D> {
    /// Compacts a slice of about `slice` bytes of the oldest sealed segment. `keep` is asked once for each record that is
    /// read from there now, with the number that it has for life; what it lets go may be shown again after a crash.
    ///
    /// An index of the old segment goes with it: whoever keeps one enters the kept keys again, for the segment that is
    /// active now (once sealed, [`Journal::scan_segment`] shows them there).
    pub fn compact(
        &mut self,
        slice: usize,
        keep: &mut dyn FnMut(Lsn, u8, &[u8]) -> Keep,
    ) -> Result<Progress, CompactError> {
        if self.health == Health::Poisoned {
            return Err(AppendError::Poisoned.into());
        }
        let Some(oldest) = self.sealed.front().map(|sealed| sealed.name.id) else { return Ok(Progress::Nothing) };
        let work = self.work.filter(|work| work.segment == oldest);
        let work = work.unwrap_or(Work { segment: oldest, at: (0, None), judged: None });
        match work.judged {
            Some(upto) if upto <= self.tip.durable => {
                self.work = None;
                self.drop_oldest()?;
                Ok(Progress::Dropped(oldest))
            }
            Some(_) => Ok(Progress::AwaitsCommit),
            None => self.compact_slice(work, slice, keep),
        }
    }

    /// Shows the records that the next [`Journal::compact`] of the same `slice` asks about, in that order, for an owner who
    /// must ask somebody else first. False: that call will ask nothing.
    pub fn compact_next(&mut self, slice: usize, visit: &mut dyn FnMut(Lsn, u8, &[u8])) -> Result<bool, DiskError> {
        let Some(oldest) = self.sealed.front().map(|sealed| sealed.name.id) else { return Ok(false) };
        let work = self.work.filter(|work| work.segment == oldest);
        let mut work = work.unwrap_or(Work { segment: oldest, at: (0, None), judged: None });
        if work.judged.is_some() {
            return Ok(false);
        }
        let mut show = |lsn, kind, payload: &[u8]| {
            visit(lsn, kind, payload);
            Keep::Drop
        };
        self.judge(&mut work, slice, &mut show)?;
        Ok(true)
    }

    /// Drops sealed segments all of whose records are at or before `upto`, with the moved records in them. Returns which.
    pub fn trim(&mut self, upto: Lsn) -> Result<Vec<SegmentId>, AppendError> {
        let mut dropped = Vec::new();
        if self.health == Health::Poisoned {
            return Err(AppendError::Poisoned);
        }
        while let Some(oldest) = self.sealed.front()
            && oldest.end_lsn.prev() <= upto
        {
            dropped.push(oldest.name.id);
            self.drop_oldest()?;
        }
        Ok(dropped)
    }

    fn drop_oldest(&mut self) -> Result<(), AppendError> {
        if let Some(sealed) = self.sealed.pop_front() {
            self.drop_segment(&sealed).map_err(|error| self.poison(error))?;
        }
        Ok(())
    }

    fn compact_slice(
        &mut self,
        mut work: Work,
        slice: usize,
        keep: &mut dyn FnMut(Lsn, u8, &[u8]) -> Keep,
    ) -> Result<Progress, CompactError> {
        let (kept, is_done) = self.judge(&mut work, slice, keep)?;
        if !kept.records.is_empty() {
            self.put(Class::Upkeep, kept.framed, |batch| {
                let mut from = 0;
                for (lsn, epoch, kind, len) in &kept.records {
                    batch.moved(*lsn, *epoch, *kind, &kept.payloads[from..from + len]);
                    from += len;
                }
            })?;
        }
        if is_done {
            work.judged = Some(self.tip.next.prev());
        }
        self.work = Some(work);
        Ok(Progress::Slice { moved: kept.records.len() as u64 })
    }

    fn judge(
        &mut self,
        work: &mut Work,
        slice: usize,
        keep: &mut dyn FnMut(Lsn, u8, &[u8]) -> Keep,
    ) -> Result<(Kept, bool), DiskError> {
        let mut kept = Kept::default();
        let Some(oldest) = self.sealed.front().copied() else { return Ok((kept, true)) };
        let scanner = Scanner::new(&self.disk, &oldest.name, Some(oldest.end), self.config.trusts_length());
        let mut scanner = scanner.resuming(work.at.0, work.at.1);
        let until = work.at.0 + slice as u64;
        let mut is_damaged = false;
        let is_done = loop {
            match scanner.step()? {
                Step::Frame { offset, head } => {
                    work.at = (offset + head.size() as u64, Some(head.seq.next()));
                    is_damaged |= !head.is_whole();
                    for original in scanner.originals() {
                        if self.is_newest(oldest.name.id, offset, &head, original.lsn)
                            && keep(original.lsn, original.kind, original.payload) == Keep::Keep
                        {
                            kept.push(&original);
                        }
                    }
                    if work.at.0 >= until {
                        break false;
                    }
                }
                Step::Damage(_) => is_damaged = true,
                Step::End { .. } => break true,
            }
        };
        if let Some(sealed) = self.sealed.front_mut() {
            sealed.tally.is_damaged |= is_damaged;
        }
        Ok((kept, is_done))
    }
}

impl Kept {
    fn push(&mut self, &Original { lsn, epoch, kind, payload }: &Original<'_>) {
        self.records.push((lsn, epoch, kind, payload.len()));
        self.payloads.extend_from_slice(payload);
        self.framed += frame::size(frame::MOVED_PREFIX + payload.len());
    }
}
