//! All index files of a journal: which there are, which are missing, which to merge.
//!
//! Looking up shares it, everything slow is done beside it: build and merge files on another thread, then [`Tiers::add`].
//! It owns the index files alone.

use super::file::{Damaged, Index, LookupError, Span};
use super::merge::KEYS_MAX;
use crate::disk::{Disk, DiskError, DiskErrorKind};
use crate::name::SegmentId;
use crate::number::Lsn;

/// The open index files, oldest first; no two of the same segment.
#[derive(Clone, Debug, Default)]
pub struct Tiers {
    files: Vec<Index>,
}

/// What a lookup found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Candidates {
    /// Records that may hold a key, which is named by its place among those that were asked for: by key, newest first. To
    /// be checked.
    pub found: Vec<(usize, Lsn)>,
    /// Files that could not answer: [`Tiers::close`] and rebuild them.
    pub damaged: Vec<Damaged>,
    /// Why the disk did not tell all.
    pub failed: Option<DiskError>,
}

/// So many neighbours of one tier become one of the next.
const FAN: usize = 4;
/// The lowest tier's files have up to this many keys; each further tier's four times as many.
const TIER_KEYS: u64 = 1 << 16;

impl Tiers {
    /// Opens what there is for the sealed segments (ascending) of a journal, and removes files of segments that are gone,
    /// that a merged file covers, or that are in an earlier format. Returns also the segments without a file: build theirs.
    pub fn open<D: Disk>(disk: &mut D, sealed: &[SegmentId]) -> Result<(Self, Vec<SegmentId>), DiskError> {
        let files = disk.list()?;
        files.iter().filter(|file| Span::is_outdated(&file.name)).try_for_each(|file| disk.remove(&file.name))?;
        let mut spans: Vec<Span> = files.iter().filter_map(|file| Span::parse(&file.name)).collect();
        // The widest first where several begin alike, so that what a merge left behind is seen to be covered.
        spans.sort_unstable_by_key(|span| (span.first, std::cmp::Reverse(span.last)));
        let mut tiers = Self::default();
        for span in spans {
            let is_covered = tiers.files.iter().any(|file| file.span().covers(span));
            let is_gone = !sealed.iter().any(|id| (span.first..=span.last).contains(id));
            if is_covered || is_gone {
                remove(disk, span)?;
                continue;
            }
            match Index::open(disk, span) {
                Ok(index) => tiers.files.push(index),
                Err(LookupError::Damaged(_)) => remove(disk, span)?,
                Err(LookupError::Disk(error)) => return Err(error),
            }
        }
        let missing = tiers.missing(sealed);
        Ok((tiers, missing))
    }

    /// The segments, of these, that no file is of.
    pub fn missing(&self, sealed: &[SegmentId]) -> Vec<SegmentId> {
        let has_file = |id: &SegmentId| self.files.iter().any(|file| file.span().covers(Span::of(*id)));
        sealed.iter().filter(|id| !has_file(id)).copied().collect()
    }

    /// Adds a file that was built or merged; those whose segments it covers are closed and removed.
    pub fn add<D: Disk>(&mut self, disk: &mut D, index: Index) -> Result<(), DiskError> {
        let span = index.span();
        let covered: Vec<Span> = self.files.iter().map(Index::span).filter(|other| span.covers(*other)).collect();
        self.files.retain(|file| !span.covers(file.span()));
        let at = self.files.partition_point(|file| file.span() < span);
        self.files.insert(at, index);
        covered.into_iter().filter(|other| *other != span).try_for_each(|other| remove(disk, other))
    }

    /// Closes a file that cannot answer. Its segments are [`missing`](Self::missing) from now on.
    pub fn close(&mut self, damaged: Damaged) {
        self.files.retain(|file| file.span() != damaged.span);
    }

    /// The records that may hold each of the keys.
    pub fn lookup<D: Disk>(&self, disk: &D, keys: &[[u8; 16]]) -> Candidates {
        let mut candidates = Candidates::default();
        for file in &self.files {
            match file.lookup(disk, keys, &mut candidates.found) {
                Ok(()) => {}
                Err(LookupError::Damaged(damaged)) => candidates.damaged.push(damaged),
                Err(LookupError::Disk(error)) => candidates.failed = Some(error),
            }
        }
        candidates.found.sort_unstable_by_key(|(at, lsn)| (*at, std::cmp::Reverse(*lsn)));
        candidates.found.dedup();
        candidates
    }

    /// Files to [`merge`](fn@super::merge) into one now, if there are such; ask again after adding the result.
    pub fn plan_merge(&self) -> Option<Vec<Span>> {
        let group = self.files.windows(FAN).find(|group| is_mergeable(group))?;
        Some(group.iter().map(Index::span).collect())
    }

    /// Closes and removes the files of which every segment is older than `oldest`, the first that the journal still has.
    pub fn drop_before<D: Disk>(&mut self, disk: &mut D, oldest: SegmentId) -> Result<(), DiskError> {
        while let Some(file) = self.files.first()
            && file.span().last < oldest
        {
            remove(disk, file.span())?;
            self.files.remove(0);
        }
        Ok(())
    }

    /// The open files, oldest first.
    pub fn files(&self) -> &[Index] {
        &self.files
    }
}

fn is_mergeable(group: &[Index]) -> bool {
    let tier = |index: &Index| (index.keys() / TIER_KEYS).checked_ilog(FAN as u64).map_or(0, |log| log + 1);
    let total: u64 = group.iter().map(Index::keys).sum();
    total <= KEYS_MAX && group.iter().all(|index| tier(index) == tier(&group[0]))
}

fn remove<D: Disk>(disk: &mut D, span: Span) -> Result<(), DiskError> {
    match disk.remove(&span.file()) {
        Ok(()) => Ok(()),
        Err(error) if error.kind == DiskErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}
