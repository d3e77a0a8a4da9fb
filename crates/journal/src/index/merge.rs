//! Merges index files of neighbouring segments into one: fewer files to ask, without ever holding their entries in memory.

use super::Posting;
use super::build::{BuildError, Writer};
use super::file::{Index, LookupError, RUN, Span};
use crate::disk::Disk;
use crate::number::Lsn;

/// A merged file holds at most so many keys: making its filter takes about forty bytes of memory for each.
pub const KEYS_MAX: u64 = 2_000_000;

/// Merges the files of neighbouring spans, in ascending order, into one; the sources stay until the result is
/// [added](super::Tiers::add). `is_gone` says that a record is no longer in the journal, so that its entry need not be kept.
///
/// # Panics
/// If `spans` is empty.
pub fn merge<D: Disk>(disk: &mut D, spans: &[Span], is_gone: &dyn Fn(Lsn) -> bool) -> Result<Index, BuildError> {
    let (Some(first), Some(last)) = (spans.first(), spans.last()) else { panic!("nothing to merge") };
    let mut writer = Writer::new(Span { first: first.first, last: last.last });
    let mut cursors = Vec::with_capacity(spans.len());
    for span in spans {
        cursors.push(Cursor::new(Index::open(disk, *span)?, disk)?);
    }
    let mut last = None;
    while let Some((at, posting)) =
        cursors.iter().enumerate().filter_map(|(at, cursor)| Some((at, cursor.head()?))).min_by_key(|(_, head)| *head)
    {
        cursors[at].advance(disk)?;
        if last != Some(posting) && !is_gone(posting.1) {
            writer.push(disk, posting)?;
        }
        last = Some(posting);
    }
    writer.finish(disk)
}

/// A place in one source.
struct Cursor {
    index: Index,
    /// The first block behind `entries`.
    next: usize,
    entries: Vec<Posting>,
    at: usize,
}

impl Cursor {
    fn new<D: Disk>(index: Index, disk: &D) -> Result<Self, LookupError> {
        let mut cursor = Self { index, next: 0, entries: Vec::new(), at: 0 };
        cursor.load(disk)?;
        Ok(cursor)
    }

    fn head(&self) -> Option<Posting> {
        self.entries.get(self.at).copied()
    }

    fn advance<D: Disk>(&mut self, disk: &D) -> Result<(), LookupError> {
        self.at += 1;
        if self.at == self.entries.len() { self.load(disk) } else { Ok(()) }
    }

    fn load<D: Disk>(&mut self, disk: &D) -> Result<(), LookupError> {
        if self.next < self.index.blocks() {
            self.entries = self.index.run(disk, self.next)?;
            (self.next, self.at) = (self.next + RUN, 0);
        }
        Ok(())
    }
}
