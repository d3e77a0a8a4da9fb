//! Reads records by number, through a [`Map`]. Every record is checked: what comes back is what was appended, or an error.
//!
//! A reader whose map is behind the journal may look into a segment that was dropped since: on [`ReadError::Missing`] or
//! [`ReadError::Corrupt`] it applies the marks that wait and tries once more before it believes the error.

use bytes::Bytes;

use crate::disk::{Disk, DiskError, DiskErrorKind};
use crate::frame::{self, HEADER, Head, Kind, Original};
use crate::group::BYTES_MAX;
use crate::map::{Map, Place, STRIDE};
use crate::name::SegmentId;
use crate::number::{Epoch, Lsn};

/// A record as it was appended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Its number.
    pub lsn: Lsn,
    /// The epoch that appended it first.
    pub epoch: Epoch,
    /// What its owner said it is.
    pub kind: u8,
    /// What its owner wrote.
    pub payload: Bytes,
}

/// Why a record cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// Not in the journal: never appended, or trimmed.
    #[error("record {lsn} is not in the journal")]
    Missing {
        /// Which record.
        lsn: Lsn,
    },
    /// It should be there and does not check.
    #[error("record {lsn} is damaged in journal file {file}, at or after byte {offset}")]
    Corrupt {
        /// Which record.
        lsn: Lsn,
        /// The segment's file.
        file: String,
        /// Where its frame should begin, or up to 4 KiB before that.
        offset: u64,
    },
    /// The disk failed.
    #[error(transparent)]
    Disk(#[from] DiskError),
}

/// Reads one record.
pub fn read_record<D: Disk>(disk: &D, map: &Map, lsn: Lsn) -> Result<Record, ReadError> {
    let place = map.place(lsn).ok_or(ReadError::Missing { lsn })?;
    Window::default().read(disk, &place, lsn, SMALL)
}

/// Reads many records, in one pass over the disk whatever their order; `found` is told the outcome of each, in ascending
/// order of place. Neighbours share reads of up to 256 KiB.
pub fn read_many<D: Disk>(disk: &D, map: &Map, lsns: &[Lsn], found: &mut dyn FnMut(Lsn, Result<Record, ReadError>)) {
    let mut places = Vec::with_capacity(lsns.len());
    for lsn in lsns {
        match map.place(*lsn) {
            Some(place) => places.push((place, *lsn)),
            None => found(*lsn, Err(ReadError::Missing { lsn: *lsn })),
        }
    }
    places.sort_unstable_by_key(|(place, lsn)| (place.name.id, place.offset, *lsn));
    let mut window = Window::default();
    for (i, (place, lsn)) in places.iter().enumerate() {
        let near = |(other, _): &&(Place, Lsn)| {
            other.name.id == place.name.id && other.offset as usize - (place.offset as usize) < LARGE - SMALL
        };
        // Only where a read is due: what the last one brought is not asked for again.
        let is_held = window.holds(place);
        if !is_held {
            window = Window::default();
        }
        let due = if is_held { &[] } else { &places[i..] };
        let ahead = due.iter().take(AHEAD_MAX).take_while(near).last();
        let span = ahead.map_or(0, |(last, _)| (last.offset - place.offset) as usize);
        found(*lsn, window.read(disk, place, *lsn, span + SMALL));
    }
}

/// A piece of a segment file in memory.
#[derive(Debug, Default)]
pub(crate) struct Window {
    segment: SegmentId,
    start: u64,
    bytes: Bytes,
    /// Nothing is behind it.
    is_end: bool,
    /// The frame in it that was checked last: neighbours often share one.
    checked: Option<(u64, Head)>,
}

/// Where a frame begins, and its header; `None`: it is not there.
type Found = Result<Option<(u64, Head)>, ReadError>;

/// Read at once for one record.
const SMALL: usize = 2 * STRIDE as usize;
/// Read at once for neighbours.
pub(crate) const LARGE: usize = 256 << 10;
/// How many neighbours are looked at to size a read.
const AHEAD_MAX: usize = 1024;

impl Window {
    /// Finds the record at its place, reading `ahead` bytes at once where it is not in memory yet.
    pub(crate) fn read<D: Disk>(
        &mut self,
        disk: &D,
        place: &Place,
        lsn: Lsn,
        ahead: usize,
    ) -> Result<Record, ReadError> {
        let known = self.checked.filter(|(_, head)| self.segment == place.name.id && is_wanted(head, place, lsn));
        let found = match known {
            Some(_) => known,
            None => self.find(disk, place, lsn, ahead)?,
        };
        self.checked = found;
        let Some((at, head)) = found else {
            return Err(ReadError::Corrupt { lsn, file: place.name.file(), offset: u64::from(place.offset) });
        };
        let from = (at - self.start) as usize + HEADER;
        let mut originals = frame::originals(frame::seed(place.name.id.0), &head, &self.bytes[from..from + head.len]);
        match originals.find(|original| original.lsn == lsn) {
            Some(Original { lsn, epoch, kind, payload }) => {
                Ok(Record { lsn, epoch, kind, payload: self.bytes.slice_ref(payload) })
            }
            None => Err(ReadError::Corrupt { lsn, file: place.name.file(), offset: at }),
        }
    }

    /// The frame that the record is in, checked.
    fn find<D: Disk>(&mut self, disk: &D, place: &Place, lsn: Lsn, ahead: usize) -> Found {
        let seed = frame::seed(place.name.id.0);
        if let Some((at, head)) = self.walk(disk, place, lsn, ahead)?
            && let Some(head) = self.checked(disk, place, at, &head, seed)?
        {
            return Ok(Some((at, head)));
        }
        self.search(disk, place, lsn)
    }

    /// True if whatever begins at or near the place is in memory, to its end; a long record's is not.
    fn holds(&self, place: &Place) -> bool {
        let (at, end) = (u64::from(place.offset), self.start + self.bytes.len() as u64);
        let is_within = at + SMALL as u64 <= end || (self.is_end && at < end);
        self.segment == place.name.id && at >= self.start && is_within
    }

    /// Steps from frame to frame by their lengths. Cheap, and possibly misled by a damaged one.
    fn walk<D: Disk>(&mut self, disk: &D, place: &Place, lsn: Lsn, ahead: usize) -> Found {
        let mut at = u64::from(place.offset);
        while at < place.until {
            let Some(head) = self.head(disk, place, at, ahead, lsn)? else { return Ok(None) };
            if is_wanted(&head, place, lsn) {
                return Ok(Some((at, head)));
            }
            at += head.size() as u64;
        }
        Ok(None)
    }

    /// Tries every place where the frame can begin.
    fn search<D: Disk>(&mut self, disk: &D, place: &Place, lsn: Lsn) -> Found {
        let seed = frame::seed(place.name.id.0);
        for at in (u64::from(place.offset)..place.until).step_by(8) {
            let Some(head) = self.head(disk, place, at, SMALL, lsn)? else { continue };
            if is_wanted(&head, place, lsn)
                && let Some(head) = self.checked(disk, place, at, &head, seed)?
            {
                return Ok(Some((at, head)));
            }
        }
        self.search_mended(disk, place, lsn)
    }

    /// Tries them again, for a group in whose header a bit is wrong.
    fn search_mended<D: Disk>(&mut self, disk: &D, place: &Place, lsn: Lsn) -> Found {
        let seed = frame::seed(place.name.id.0);
        let start = u64::from(place.offset);
        let most = (place.until - start) as usize + BYTES_MAX;
        self.load(disk, place, start, most, 0).map_err(|error| gone(error, lsn))?;
        let found = (start..place.until).step_by(8).find_map(|at| {
            let bytes = self.bytes.get((at - self.start) as usize..)?;
            if !frame::may_begin_group(bytes, lsn) {
                return None;
            }
            Some((at, frame::mended(seed, bytes, |head| is_wanted(head, place, lsn))?))
        });
        Ok(found)
    }

    fn head<D: Disk>(
        &mut self,
        disk: &D,
        place: &Place,
        at: u64,
        ahead: usize,
        lsn: Lsn,
    ) -> Result<Option<Head>, ReadError> {
        let there = self.load(disk, place, at, HEADER, ahead).map_err(|error| gone(error, lsn))?;
        Ok(if there { Head::parse(&self.bytes[(at - self.start) as usize..]) } else { None })
    }

    /// The header with what its frame's checksums say; `None` if it is not what was written.
    fn checked<D: Disk>(
        &mut self,
        disk: &D,
        place: &Place,
        at: u64,
        head: &Head,
        seed: u32,
    ) -> Result<Option<Head>, ReadError> {
        if !self.load(disk, place, at, head.size(), 0).map_err(|error| gone(error, head.lsn))? {
            return Ok(None);
        }
        let from = (at - self.start) as usize;
        Ok(frame::checked(seed, head, &self.bytes[from..from + head.size()]))
    }

    /// Makes `[at, at + need)` be in memory; false if the file ends before.
    fn load<D: Disk>(
        &mut self,
        disk: &D,
        place: &Place,
        at: u64,
        need: usize,
        ahead: usize,
    ) -> Result<bool, DiskError> {
        let end = self.start + self.bytes.len() as u64;
        if self.segment == place.name.id && at >= self.start && at + need as u64 <= end {
            return Ok(true);
        }
        let mut bytes = vec![0; need.max(ahead)];
        let read = disk.read(&place.name.file(), at, &mut bytes)?;
        let is_end = read < bytes.len();
        bytes.truncate(read);
        *self = Self { segment: place.name.id, start: at, bytes: Bytes::from(bytes), is_end, checked: None };
        Ok(read >= need)
    }
}

fn is_wanted(head: &Head, place: &Place, lsn: Lsn) -> bool {
    match head.kind {
        Kind::Record(_) | Kind::Group(_) => !place.is_moved && head.holds(lsn),
        Kind::Moved(_) => place.is_moved && head.lsn == lsn,
        Kind::Mark => false,
    }
}

fn gone(error: DiskError, lsn: Lsn) -> ReadError {
    match error.kind {
        DiskErrorKind::NotFound => ReadError::Missing { lsn },
        DiskErrorKind::Full | DiskErrorKind::Io => ReadError::Disk(error),
    }
}
