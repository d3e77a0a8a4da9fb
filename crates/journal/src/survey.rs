//! What recovery finds in a segment: its records for the map, its statistics, and every record that is damaged, by name.

use std::ops::Range;

use crate::disk::{Disk, DiskError};
use crate::frame::Kind;
use crate::map::{Map, Mark, STRIDE};
use crate::name::SegmentName;
use crate::number::{Epoch, Lsn, Seq};
use crate::scan::{Damage, Scanner, Step};

/// What an open found and did. Anything in `quarantined` was durable once and is lost: say it loudly.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// The epoch that this open took.
    pub epoch: Epoch,
    /// The number after the last record.
    pub next: Lsn,
    /// Readable records, each counted once however often compaction moved it.
    pub records: u64,
    /// Bytes of segments.
    pub bytes: u64,
    /// Segments, the new one included.
    pub segments: usize,
    /// Frames of the unconfirmed tail that were copied into a fresh file and synced.
    pub copied: u64,
    /// The unconfirmed end of the last segment was not whole: nothing of it was ever acknowledged. Normal after a crash.
    pub torn: Option<Torn>,
    /// Damaged records, at most [`QUARANTINED_MAX`](Self::QUARANTINED_MAX) of them.
    pub quarantined: Vec<Quarantined>,
    /// Damaged places in all.
    pub damaged: u64,
    /// The reserved file could not be made: the disk is full.
    pub no_reserve: bool,
}

/// Where a torn tail was cut.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Torn {
    /// The segment's file.
    pub file: String,
    /// Byte offset of the first frame that is not whole.
    pub offset: u64,
}

/// A place where durable frames are damaged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quarantined {
    /// The segment's file.
    pub file: String,
    /// Byte offset of the first damaged byte's frame.
    pub offset: u64,
    /// Frames lost there.
    pub frames: u64,
    /// The records lost there. Empty if only the journal's own frames are hit.
    pub lsns: Range<u64>,
    /// What the damaged frame says it is a copy of, if it says so: a moved record. Not to be relied on.
    pub claimed: Option<Lsn>,
}

/// Statistics of a segment's frames.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) records: u64,
    pub(crate) moved: u64,
    pub(crate) bytes: u64,
    pub(crate) is_damaged: bool,
    /// Offset of the last place in the map.
    pub(crate) place: Option<u32>,
}

impl Report {
    /// How many damaged places are listed; further ones are only counted.
    pub const QUARANTINED_MAX: usize = 1000;

    fn quarantine(&mut self, found: Quarantined) {
        self.damaged += 1;
        if self.quarantined.len() < Self::QUARANTINED_MAX {
            self.quarantined.push(found);
        }
    }
}

impl Tally {
    /// True if a record at `offset` must be remembered in the map.
    pub(crate) fn wants_place(&self, offset: u32) -> bool {
        self.place.is_none_or(|last| offset - last >= STRIDE)
    }
}

/// Reads a whole segment into the map. `end`: seq and lsn after its last frame. Returns also the highest epoch seen.
pub(crate) fn survey<D: Disk>(
    disk: &D,
    name: &SegmentName,
    end: (Seq, Lsn),
    trusts_length: bool,
    map: &mut Map,
    report: &mut Report,
) -> Result<(Tally, Epoch), DiskError> {
    let mut scanner = Scanner::new(disk, name, Some(end.0), trusts_length);
    let mut survey =
        Survey { name, next: name.base, damage: None, tally: Tally::default(), epoch: name.epoch, map, report };
    survey.map.mark(&Mark::Segment(*name));
    loop {
        match scanner.step()? {
            Step::Frame { offset, head } => {
                survey.tally.bytes = offset + head.size() as u64;
                survey.epoch = survey.epoch.max(head.epoch);
                survey.on_frame(offset as u32, head.kind, head.lsn);
            }
            Step::Damage(damage) => survey.on_damage(damage),
            Step::End { offset } => {
                survey.tally.bytes = offset;
                survey.name_lost(end.1);
                survey.map.set_end(end.1);
                return Ok((survey.tally, survey.epoch));
            }
        }
    }
}

struct Survey<'a> {
    name: &'a SegmentName,
    /// The number of the next record.
    next: Lsn,
    /// Seen, but not yet known which records are lost.
    damage: Option<Damage>,
    tally: Tally,
    epoch: Epoch,
    map: &'a mut Map,
    report: &'a mut Report,
}

impl Survey<'_> {
    fn on_frame(&mut self, offset: u32, kind: Kind, lsn: Lsn) {
        match kind {
            Kind::Record(_) => {
                self.name_lost(lsn);
                self.next = lsn.next();
                self.tally.records += 1;
                self.report.records += u64::from(self.map.moved(lsn).is_none());
                if self.tally.wants_place(offset) {
                    self.tally.place = Some(offset);
                    self.map.mark(&Mark::At { lsn, offset });
                }
            }
            Kind::Moved(_) => {
                self.tally.moved += 1;
                // The original counts already if its segment is still here.
                self.report.records += u64::from(self.map.moved(lsn).is_none() && lsn < self.map.base());
                self.map.mark(&Mark::Moved { lsn, segment: self.name.id, offset });
            }
            Kind::Mark => self.name_lost(lsn),
        }
    }

    fn on_damage(&mut self, damage: Damage) {
        self.name_lost(self.next);
        self.tally.is_damaged = true;
        self.damage = Some(damage);
    }

    /// Names the records lost in the damage seen last, now that the number of the record behind it is known.
    fn name_lost(&mut self, next: Lsn) {
        let Some(damage) = self.damage.take() else { return };
        let claimed = damage.claimed.filter(|head| head.seq == damage.first && matches!(head.kind, Kind::Moved(_)));
        self.report.quarantine(Quarantined {
            file: self.name.file(),
            offset: damage.offset,
            frames: damage.next.0 - damage.first.0,
            lsns: self.next.0..next.0.max(self.next.0),
            claimed: claimed.map(|head| head.lsn),
        });
        self.next = self.next.max(next);
    }
}
