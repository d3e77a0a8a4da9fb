//! Where records are: a sparse index from number to place, in memory, about eight bytes per 4 KiB of journal, plus one
//! entry for each record that compaction moved.
//!
//! It is derived from the journal at open and kept by [`Mark`]s. The writer exports them with each commit, so that a
//! reader on another thread can have its own map. A map that is behind finds fewer records, never wrong ones.

use std::collections::{BTreeMap, VecDeque};

use crate::name::{SegmentId, SegmentName};
use crate::number::Lsn;

/// Bytes between two remembered places of a segment.
pub(crate) const STRIDE: u32 = 4096;

/// One change of a map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mark {
    /// A new segment: all records from its base on are in it or in later ones.
    Segment(SegmentName),
    /// In the last segment, this record is the first of a frame, which begins there.
    At {
        /// Which record.
        lsn: Lsn,
        /// Byte offset of its frame.
        offset: u32,
    },
    /// Compaction wrote this record again.
    Moved {
        /// Its number, for life.
        lsn: Lsn,
        /// Where the newest copy is.
        segment: SegmentId,
        /// Byte offset of its frame there.
        offset: u32,
    },
    /// The segment is gone, and every record in it that was not moved.
    Dropped(SegmentId),
}

/// What a commit confirmed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Committed {
    /// Every record up to this one is durable.
    pub durable: Lsn,
    /// What changed since the last commit, in order: for [`Map::apply`].
    pub marks: Vec<Mark>,
}

/// Where every record is.
#[derive(Clone, Debug, Default)]
pub struct Map {
    segments: VecDeque<Segment>,
    moved: BTreeMap<Lsn, Spot>,
    /// The number after the last record known.
    end: Lsn,
}

/// The places known in a segment.
#[derive(Clone, Debug)]
struct Segment {
    name: SegmentName,
    /// Records after the base, and the byte offset of that one's frame: ascending, at least a stride apart.
    places: Vec<(u32, u32)>,
}

/// Where a copy is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Spot {
    pub(crate) segment: SegmentId,
    pub(crate) offset: u32,
}

/// Where to look for a record.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    pub(crate) name: SegmentName,
    /// The record's frame begins here or after.
    pub(crate) offset: u32,
    /// It begins before this.
    pub(crate) until: u64,
    pub(crate) is_moved: bool,
}

impl Map {
    /// Takes over what a commit confirmed.
    pub fn apply(&mut self, committed: &Committed) {
        for mark in &committed.marks {
            self.mark(mark);
        }
        self.end = self.end.max(committed.durable.next());
    }

    /// The number after the last record known.
    pub fn end(&self) -> Lsn {
        self.end
    }

    /// The first record that may still be where it was appended; earlier ones are readable only if they were moved.
    pub fn base(&self) -> Lsn {
        self.segments.front().map_or(self.end, |segment| segment.name.base)
    }

    /// Approximate memory of this map in bytes.
    pub fn bytes(&self) -> usize {
        let places: usize =
            self.segments.iter().map(|segment| segment.places.capacity() * size_of::<(u32, u32)>()).sum();
        places + self.segments.len() * size_of::<Segment>() + self.moved.len() * 2 * size_of::<(Lsn, Spot)>()
    }

    pub(crate) fn mark(&mut self, mark: &Mark) {
        match *mark {
            Mark::Segment(name) => self.segments.push_back(Segment { name, places: Vec::new() }),
            Mark::At { lsn, offset } => self.place_at(lsn, offset),
            Mark::Moved { lsn, segment, offset } => {
                self.moved.insert(lsn, Spot { segment, offset });
            }
            Mark::Dropped(id) => {
                self.segments.retain(|segment| segment.name.id != id);
                self.moved.retain(|_, spot| spot.segment != id);
            }
        }
    }

    pub(crate) fn set_end(&mut self, end: Lsn) {
        self.end = end;
    }

    /// A whole segment behind all others: records after its base with their places, and the number after its last.
    pub(crate) fn enter(&mut self, name: SegmentName, places: Vec<(u32, u32)>, end: Lsn) {
        self.segments.push_back(Segment { name, places });
        self.end = end;
    }

    /// How many of the records from `first` to before `end` compaction has moved.
    pub(crate) fn moved_within(&self, first: Lsn, end: Lsn) -> u64 {
        self.moved.range(first..end.max(first)).count() as u64
    }

    /// Where to look for a record; `None` if it is unknown, or gone with its segment.
    pub(crate) fn place(&self, lsn: Lsn) -> Option<Place> {
        if let Some(spot) = self.moved.get(&lsn) {
            let at = self.segments.binary_search_by_key(&spot.segment, |segment| segment.name.id).ok()?;
            let until = u64::from(spot.offset) + 1;
            return Some(Place { name: self.segments[at].name, offset: spot.offset, until, is_moved: true });
        }
        if lsn >= self.end {
            return None;
        }
        let at = self.segments.partition_point(|segment| segment.name.base <= lsn).checked_sub(1)?;
        let segment = &self.segments[at];
        let ahead = u32::try_from(lsn.0 - segment.name.base.0).ok()?;
        let after = segment.places.partition_point(|(record, _)| *record <= ahead);
        let offset = after.checked_sub(1).map_or(0, |before| segment.places[before].1);
        // A frame that begins a stride or more behind the last remembered one is remembered itself.
        let until = u64::from(offset) + u64::from(STRIDE);
        let until = segment.places.get(after).map_or(until, |(_, next)| until.min(u64::from(*next)));
        Some(Place { name: segment.name, offset, until, is_moved: false })
    }

    /// Where a moved record is now.
    pub(crate) fn moved(&self, lsn: Lsn) -> Option<Spot> {
        self.moved.get(&lsn).copied()
    }

    /// The first moved record at or after `from`.
    pub(crate) fn moved_from(&self, from: Lsn) -> Option<Lsn> {
        self.moved.range(from..).next().map(|(lsn, _)| *lsn)
    }

    fn place_at(&mut self, lsn: Lsn, offset: u32) {
        let Some(segment) = self.segments.back_mut() else { return };
        if let Ok(ahead) = u32::try_from(lsn.0.saturating_sub(segment.name.base.0)) {
            segment.places.push((ahead, offset));
        }
    }
}
