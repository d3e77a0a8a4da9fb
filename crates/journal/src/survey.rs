//! What recovery finds in a segment: its records for the map, its statistics, and every record that is damaged, by name.
//! A segment is read by itself; what depends on the others is found when it is entered, in their order.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;

use crate::disk::{Disk, DiskError};
use crate::frame::{Head, KINDS, Kind, Originals};
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
    /// Readable records by kind, each copy of one counted: about what a replay will show.
    pub kinds: BTreeMap<u8, u64>,
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
    /// Frames lost there; none where only records of a frame are, or where a wrong bit was mended.
    pub frames: u64,
    /// The records lost there. Empty if only the journal's own frames are hit, or nothing is lost.
    pub lsns: Range<u64>,
    /// What the damaged frame says it is a copy of, if it says so: a moved record. Not to be relied on.
    pub claimed: Option<Lsn>,
}

impl Quarantined {
    /// A bit was wrong, which one is known, and nothing is lost.
    pub fn is_mended(&self) -> bool {
        self.frames == 0 && self.lsns.is_empty()
    }
}

impl fmt::Display for Quarantined {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, offset, frames, lsns, .. } = self;
        match (self.is_mended(), frames) {
            (true, _) => write!(f, "{file} at byte {offset}: a wrong bit, nothing is lost"),
            (false, 0) => write!(f, "{file} at byte {offset}: records {lsns:?} of a frame"),
            (false, _) => write!(f, "{file} at byte {offset}: {frames} frames, records {lsns:?}"),
        }
    }
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

/// What is in a segment, before it is known what else there is.
pub(crate) struct Surveyed {
    pub(crate) tally: Tally,
    kinds: [u64; KINDS],
    /// Records after the base, and the offset of that one's frame: for the map.
    places: Vec<(u32, u32)>,
    /// Copies that compaction wrote here, and their offsets.
    moved: Vec<(Lsn, u32)>,
    lost: Vec<Quarantined>,
    /// Of `lost`, those too many to be listed.
    lost_more: u64,
}

/// Reads a whole segment. `end`: seq and lsn after its last frame. Segments may be read in any order, or at once.
pub(crate) fn survey<D: Disk>(
    disk: &D,
    name: &SegmentName,
    end: (Seq, Lsn),
    trusts_length: bool,
) -> Result<Surveyed, DiskError> {
    let mut scanner = Scanner::new(disk, name, Some(end.0), trusts_length);
    let found = Surveyed {
        tally: Tally::default(),
        kinds: [0; KINDS],
        places: Vec::new(),
        moved: Vec::new(),
        lost: Vec::new(),
        lost_more: 0,
    };
    let mut survey = Survey { name, next: name.base, damage: None, found };
    loop {
        match scanner.step()? {
            Step::Frame { offset, head } => {
                survey.found.tally.bytes = offset + head.size() as u64;
                survey.on_frame(offset as u32, &head, scanner.originals());
            }
            Step::Damage(damage) => survey.on_damage(damage),
            Step::End { offset } => {
                survey.found.tally.bytes = offset;
                survey.name_lost(end.1);
                return Ok(survey.found);
            }
        }
    }
}

impl Surveyed {
    /// Enters it into the map, behind all segments before it. `end`: the number after its last record.
    pub(crate) fn enter(self, name: &SegmentName, end: Lsn, map: &mut Map, report: &mut Report) -> Tally {
        // Names of files may say anything, and what they say need not agree.
        report.records += self.tally.records.saturating_sub(map.moved_within(name.base, end));
        map.enter(*name, self.places, end);
        for (lsn, offset) in self.moved {
            // The original counts already if its segment is still here.
            report.records += u64::from(map.moved(lsn).is_none() && lsn < map.base());
            map.mark(&Mark::Moved { lsn, segment: name.id, offset });
        }
        for (kind, count) in (0..=u8::MAX).zip(self.kinds).filter(|(_, count)| *count > 0) {
            *report.kinds.entry(kind).or_default() += count;
        }
        self.lost.into_iter().for_each(|lost| report.quarantine(lost));
        report.damaged += self.lost_more;
        self.tally
    }
}

struct Survey<'a> {
    name: &'a SegmentName,
    /// The number of the next record.
    next: Lsn,
    /// Seen, but not yet known which records are lost.
    damage: Option<Damage>,
    found: Surveyed,
}

impl Survey<'_> {
    fn on_frame(&mut self, offset: u32, head: &Head, originals: Originals<'_>) {
        let (lsn, mut readable) = (head.lsn, 0);
        for original in originals {
            self.found.kinds[usize::from(original.kind)] += 1;
            readable += 1;
        }
        match head.kind {
            Kind::Record(_) | Kind::Group(_) => {
                self.name_lost(lsn);
                self.name_damaged(offset, head);
                self.next = head.next_lsn(lsn);
                self.found.tally.records += readable;
                if self.found.tally.wants_place(offset) {
                    self.found.tally.place = Some(offset);
                    // A segment is smaller than 4 GiB, and so has fewer records.
                    self.found.places.extend(
                        u32::try_from(lsn.0.saturating_sub(self.name.base.0)).ok().map(|ahead| (ahead, offset)),
                    );
                }
            }
            Kind::Moved(_) => {
                self.found.tally.moved += 1;
                self.found.moved.push((lsn, offset));
            }
            Kind::Mark => self.name_lost(lsn),
        }
    }

    /// Names the damaged records of a group, and a bit in it that was mended.
    fn name_damaged(&mut self, offset: u32, head: &Head) {
        if head.is_whole() {
            return;
        }
        self.found.tally.is_damaged = true;
        let damaged = (0..head.appended()).filter(|ahead| head.damaged >> ahead & 1 == 1).collect::<Vec<_>>();
        let runs = damaged.chunk_by(|one, next| one + 1 == *next);
        let lost = runs.map(|run| head.lsn.ahead(run[0]).0..head.lsn.ahead(run[run.len() - 1] + 1).0);
        let nothing = (damaged.is_empty()).then_some(head.lsn.0..head.lsn.0);
        for lsns in lost.chain(nothing) {
            self.quarantine(offset.into(), 0, lsns, None);
        }
    }

    fn quarantine(&mut self, offset: u64, frames: u64, lsns: Range<u64>, claimed: Option<Lsn>) {
        if self.found.lost.len() < Report::QUARANTINED_MAX {
            self.found.lost.push(Quarantined { file: self.name.file(), offset, frames, lsns, claimed });
        } else {
            self.found.lost_more += 1;
        }
    }

    fn on_damage(&mut self, damage: Damage) {
        self.name_lost(self.next);
        self.found.tally.is_damaged = true;
        self.damage = Some(damage);
    }

    /// Names the records lost in the damage seen last, now that the number of the record behind it is known.
    fn name_lost(&mut self, next: Lsn) {
        let Some(damage) = self.damage.take() else { return };
        let claimed = damage.claimed.filter(|head| head.seq == damage.first && matches!(head.kind, Kind::Moved(_)));
        let (frames, lsns) = (damage.next.0 - damage.first.0, self.next.0..next.0.max(self.next.0));
        self.quarantine(damage.offset, frames, lsns, claimed.map(|head| head.lsn));
        self.next = self.next.max(next);
    }
}
