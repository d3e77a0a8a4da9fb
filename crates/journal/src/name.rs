//! Names of the journal's files. All that recovery must know of a segment without trusting its content is in its name:
//!
//! ```text
//! <id>-<epoch>-<seq>-<lsn>.seg2     a segment: hexadecimal, 16 8 16 16 digits; the epoch that made it, its first frame's
//!                                   seq, the lsn of its first record. The digit of the suffix is the format's version
//! <…>.seg1                          one that was written before records shared frames: the same, but for that
//! <id>.free                         a dropped segment that waits to be written again
//! <id>-….seg2.damaged               a dropped segment with a quarantined record: kept as evidence, never read again
//! reserve                           blocks for upkeep on a full disk
//! <anything>.tmp                    never finished: removed at open
//! ```
//!
//! Renaming is atomic and durable, so a segment's name is a proof: it exists only once everything before it is durable.

use crate::number::{Epoch, Lsn, Seq};

/// Names a segment for life. Later ones are higher; never used twice, except for files that were removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SegmentId(pub u64);

/// What the file name of a segment says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentName {
    /// Which segment.
    pub id: SegmentId,
    /// The epoch that made it.
    pub epoch: Epoch,
    /// Number of the first record in it, or of the first one after it if there is none.
    pub base: Lsn,
    pub(crate) base_seq: Seq,
    pub(crate) format: Format,
}

/// The versions of the format that are read. Only the last one is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    /// Every record has a frame of its own.
    One,
    /// Small records share frames.
    Two,
}

/// The reserved file.
pub(crate) const RESERVE: &str = "reserve";
/// Ending of files that are not finished.
pub(crate) const TMP: &str = ".tmp";
const SEGMENT_ANY: &str = ".seg";
const FREE: &str = ".free";
const DAMAGED: &str = ".damaged";

/// What kind of file a name is of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum FileKind {
    Segment(SegmentName),
    /// A segment of another version of the format.
    Foreign,
    Free(SegmentId),
    Damaged(SegmentId),
    Reserve,
    Tmp,
    /// Not the journal's.
    Other,
}

impl SegmentName {
    /// The file's name.
    pub fn file(&self) -> String {
        let Self { id, epoch, base, base_seq, format } = self;
        let version = format.version();
        format!("{:016x}-{:08x}-{:016x}-{:016x}{SEGMENT_ANY}{version}", id.0, epoch.0, base_seq.0, base.0)
    }

    /// The file's name once it is dropped but kept as evidence.
    pub(crate) fn damaged_file(&self) -> String {
        format!("{}{DAMAGED}", self.file())
    }

    fn parse(stem: &str, format: Format) -> Option<Self> {
        let mut parts = stem.split('-').map(|part| u64::from_str_radix(part, 16));
        let mut next = || parts.next()?.ok();
        let (id, epoch, base_seq, base) = (next()?, next()?, next()?, next()?);
        let name = Self {
            id: SegmentId(id),
            epoch: Epoch(u32::try_from(epoch).ok()?),
            base: Lsn(base),
            base_seq: Seq(base_seq),
            format,
        };
        Some(name)
    }
}

impl Format {
    fn version(self) -> &'static str {
        match self {
            Self::One => "1",
            Self::Two => "2",
        }
    }

    fn of(version: &str) -> Option<Self> {
        [Self::One, Self::Two].into_iter().find(|format| format.version() == version)
    }
}

/// The name of a dropped segment that waits to be written again.
pub(crate) fn free_file(id: SegmentId) -> String {
    format!("{:016x}{FREE}", id.0)
}

/// What a file of the directory is.
pub(crate) fn kind_of(file: &str) -> FileKind {
    if file == RESERVE {
        return FileKind::Reserve;
    }
    if file.ends_with(TMP) {
        return FileKind::Tmp;
    }
    if let Some(stem) = file.strip_suffix(FREE) {
        return u64::from_str_radix(stem, 16).map_or(FileKind::Other, |id| FileKind::Free(SegmentId(id)));
    }
    if let Some(segment) = file.strip_suffix(DAMAGED) {
        let FileKind::Segment(name) = kind_of(segment) else { return FileKind::Other };
        return FileKind::Damaged(name.id);
    }
    let Some((stem, version)) = file.rsplit_once(SEGMENT_ANY) else { return FileKind::Other };
    match Format::of(version) {
        Some(format) => SegmentName::parse(stem, format).map_or(FileKind::Other, FileKind::Segment),
        None if version.bytes().all(|b| b.is_ascii_digit()) => FileKind::Foreign,
        None => FileKind::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_come_back() {
        for format in [Format::One, Format::Two] {
            let name = SegmentName { id: SegmentId(7), epoch: Epoch(2), base: Lsn(900), base_seq: Seq(1000), format };
            assert_eq!(kind_of(&name.file()), FileKind::Segment(name));
            assert_eq!(kind_of(&name.damaged_file()), FileKind::Damaged(SegmentId(7)));
            let version = format!("seg{}", format.version());
            assert_eq!(kind_of(&name.file().replace(&version, "seg3")), FileKind::Foreign);
        }
        assert_eq!(kind_of(&free_file(SegmentId(7))), FileKind::Free(SegmentId(7)));
        assert_eq!(kind_of("something.tmp"), FileKind::Tmp);
        assert_eq!(kind_of("notes.txt"), FileKind::Other);
        assert_eq!(kind_of("notes.segments"), FileKind::Other);
    }
}
