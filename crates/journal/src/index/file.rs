//! Bytes of an index file, and looking keys up in one: each block that may hold some of them is read once, for most keys one.
//!
//! ```text
//!  0        64                        64 + 1024 n
//!  +--------+---------+-----+---------+---------------------+----------------+--------+
//!  | header | block 0 | ... | block n-1 | fences: n × u64     | filter         | crc u32|
//!  +--------+---------+-----+---------+---------------------+----------------+--------+
//!                                                            crc of fences and filter ─┘
//!  header:  "SHEAFIX2" | first segment u64 | last segment u64 | keys u64 | blocks u32 | filter bytes u32 |
//!           zeros | crc u32 (of the first 60 bytes)
//!  block:   crc u32 (of the rest, and its number) | count u16 | zero u16 | count × (key 16, lsn u64) | zeros
//!  fence:   first eight bytes of the block's first key, big-endian order; kept in memory with the filter
//! ```
//!
//! Entries ascend by key, then lsn. All numbers little-endian, keys as they are. Version rule: another format has another
//! magic, and is rebuilt.

use std::ops::RangeInclusive;

use super::Posting;
use super::filter::{Filter, prefix};
use crate::disk::{Disk, DiskError, DiskErrorKind};
use crate::name::SegmentId;
use crate::number::Lsn;

pub(super) const MAGIC: &[u8; 8] = b"SHEAFIX2";
pub(super) const HEADER: usize = 64;
/// Small, for a look-up copies and checks a whole one; the fence of each takes 8 bytes of memory.
pub(super) const BLOCK: usize = 1024;
pub(super) const BLOCK_HEAD: usize = 8;
pub(super) const ENTRY: usize = 24;
/// Entries of a full block.
pub(super) const BLOCK_ENTRIES: usize = (BLOCK - BLOCK_HEAD) / ENTRY;
/// Blocks read at once by whoever reads them all.
pub(super) const RUN: usize = 64;
const SUFFIX: &str = ".idx2";
/// Of files in earlier formats.
const SUFFIXES_BEFORE: [&str; 1] = [".idx1"];

/// The segments that an index file is of: first and last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span {
    /// The oldest.
    pub first: SegmentId,
    /// The newest; the same for one segment.
    pub last: SegmentId,
}

/// An index file that is open: its fences and filter are in memory, about 10.6 bits a key.
#[derive(Clone, Debug)]
pub struct Index {
    span: Span,
    /// Its name.
    file: String,
    keys: u64,
    fences: Vec<u64>,
    filter: Filter,
}

/// An index file that must be rebuilt from its segments.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("index file {} is damaged or missing", span.file())]
pub struct Damaged {
    /// Which.
    pub span: Span,
}

/// Why a file gave no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LookupError {
    /// It must be rebuilt.
    #[error(transparent)]
    Damaged(#[from] Damaged),
    /// The disk failed.
    #[error(transparent)]
    Disk(#[from] DiskError),
}

impl Span {
    /// Of one segment.
    pub fn of(segment: SegmentId) -> Self {
        Self { first: segment, last: segment }
    }

    /// The file's name.
    pub fn file(&self) -> String {
        format!("{:016x}-{:016x}{SUFFIX}", self.first.0, self.last.0)
    }

    /// The span of an index file of that name.
    pub fn parse(file: &str) -> Option<Self> {
        let (first, last) = file.strip_suffix(SUFFIX)?.split_once('-')?;
        let id = |digits| u64::from_str_radix(digits, 16).ok().map(SegmentId);
        Some(Self { first: id(first)?, last: id(last)? })
    }

    /// True for the name of a file in an earlier format: its span is built again, and it is of no use.
    pub(super) fn is_outdated(file: &str) -> bool {
        SUFFIXES_BEFORE.iter().any(|suffix| {
            file.strip_suffix(suffix).is_some_and(|stem| Self::parse(&format!("{stem}{SUFFIX}")).is_some())
        })
    }

    /// True if all segments of `other` are in this.
    pub fn covers(&self, other: Self) -> bool {
        self.first <= other.first && other.last <= self.last
    }
}

impl Index {
    /// Opens a file: reads and checks all but its blocks.
    pub fn open<D: Disk>(disk: &D, span: Span) -> Result<Self, LookupError> {
        let damaged = Damaged { span };
        let file = span.file();
        let mut header = [0; HEADER];
        read_exact(disk, &file, 0, &mut header, damaged)?;
        let number = |at: usize| header[at..at + 8].first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes));
        let crc = header[60..].first_chunk().map_or(0, |bytes| u32::from_le_bytes(*bytes));
        let is_sound = header.starts_with(MAGIC)
            && crc == crc32c::crc32c(&header[..60])
            && (number(8), number(16)) == (span.first.0, span.last.0);
        if !is_sound {
            return Err(damaged.into());
        }
        let (blocks, filter) = ((number(32) & 0xffff_ffff) as usize, (number(32) >> 32) as usize);
        let tail_at = (HEADER + blocks * BLOCK) as u64;
        let tail_len = blocks * 8 + filter + 4;
        // No memory for what a header only claims.
        read_exact(disk, &file, tail_at + tail_len as u64 - 1, &mut [0], damaged)?;
        let mut tail = vec![0; tail_len];
        read_exact(disk, &file, tail_at, &mut tail, damaged)?;
        let crc = tail.split_off(blocks * 8 + filter);
        if crc != crc32c::crc32c(&tail).to_le_bytes() {
            return Err(damaged.into());
        }
        let filter = Filter::from_bytes(tail.split_off(blocks * 8)).ok_or(damaged)?;
        let fences = tail.as_chunks().0.iter().map(|fence| u64::from_le_bytes(*fence)).collect();
        Ok(Self { span, file, keys: number(24), fences, filter })
    }

    /// Which segments it is of.
    pub fn span(&self) -> Span {
        self.span
    }

    /// How many keys it holds.
    pub fn keys(&self) -> u64 {
        self.keys
    }

    /// Bytes of memory.
    pub fn bytes(&self) -> usize {
        self.fences.len() * 8 + self.filter.bytes().len()
    }

    /// Appends to `found` the records that may hold each of the keys, which are named by their places. What one block cannot
    /// say, for whatever reason, is missing then, and only that.
    pub fn lookup<D: Disk>(
        &self,
        disk: &D,
        keys: &[[u8; 16]],
        found: &mut Vec<(usize, Lsn)>,
    ) -> Result<(), LookupError> {
        let mut wanted: Vec<(usize, usize)> = Vec::new();
        for (at, key) in keys.iter().enumerate().filter(|(_, key)| self.keys > 0 && self.filter.may_hold(key)) {
            wanted.extend(self.blocks_of(key).map(|block| (block, at)));
        }
        wanted.sort_unstable();
        let (mut bytes, mut outcome) = ([0; BLOCK], Ok(()));
        for wanted in wanted.chunk_by(|(a, _), (b, _)| a == b) {
            if let Err(error) = self.read(disk, wanted[0].0, &mut bytes) {
                outcome = outcome.and(Err(error));
                continue;
            }
            let entries = entries(&bytes);
            for (_, at) in wanted {
                let key = &keys[*at];
                let from = entries.partition_point(|entry| entry[..16] < key[..]);
                let own = entries[from..].iter().take_while(|entry| entry[..16] == key[..]);
                found.extend(own.filter_map(posting).map(|(_, lsn)| (*at, lsn)));
            }
        }
        outcome
    }

    /// Reads and checks every block: what a look-up would find damaged only later.
    pub fn verify<D: Disk>(&self, disk: &D) -> Result<(), LookupError> {
        (0..self.blocks()).step_by(RUN).try_for_each(|first| self.run(disk, first).map(drop))
    }

    /// Blocks that may hold the key: usually one.
    fn blocks_of(&self, key: &[u8; 16]) -> RangeInclusive<usize> {
        let prefix = prefix(key);
        // A block that begins with the same eight bytes may hold it, and so may the one before.
        let first = self.fences.partition_point(|fence| *fence < prefix).saturating_sub(1);
        let last = self.fences.partition_point(|fence| *fence <= prefix).saturating_sub(1);
        first..=last.max(first)
    }

    /// What the blocks from `first` on hold, up to [`RUN`] of them.
    pub(super) fn run<D: Disk>(&self, disk: &D, first: usize) -> Result<Vec<Posting>, LookupError> {
        let mut bytes = vec![0; RUN.min(self.blocks() - first) * BLOCK];
        self.read(disk, first, &mut bytes)?;
        Ok(bytes.chunks_exact(BLOCK).flat_map(entries).filter_map(posting).collect())
    }

    /// Reads and checks whole blocks.
    fn read<D: Disk>(&self, disk: &D, first: usize, bytes: &mut [u8]) -> Result<(), LookupError> {
        let damaged = Damaged { span: self.span };
        read_exact(disk, &self.file, (HEADER + first * BLOCK) as u64, bytes, damaged)?;
        let is_sound = |(block, bytes): (usize, &[u8])| {
            bytes[..4] == block_crc(block, bytes).to_le_bytes() && count_of(bytes) <= BLOCK_ENTRIES
        };
        if (first..).zip(bytes.chunks_exact(BLOCK)).all(is_sound) { Ok(()) } else { Err(damaged.into()) }
    }

    pub(super) fn blocks(&self) -> usize {
        self.fences.len()
    }
}

/// The checksum of a block: of its number and all behind the checksum itself.
pub(super) fn block_crc(number: usize, block: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&(number as u64).to_le_bytes()), &block[4..])
}

fn count_of(block: &[u8]) -> usize {
    usize::from(u16::from_le_bytes([block[4], block[5]]))
}

/// The entries of a block that was checked.
fn entries(block: &[u8]) -> &[[u8; ENTRY]] {
    &block[BLOCK_HEAD..].as_chunks().0[..count_of(block)]
}

fn posting(entry: &[u8; ENTRY]) -> Option<Posting> {
    let (key, lsn) = entry.split_first_chunk::<16>()?;
    Some((*key, Lsn(u64::from_le_bytes(*lsn.first_chunk()?))))
}

fn read_exact<D: Disk>(
    disk: &D,
    file: &str,
    offset: u64,
    bytes: &mut [u8],
    damaged: Damaged,
) -> Result<(), LookupError> {
    match disk.read(file, offset, bytes) {
        Ok(read) if read == bytes.len() => Ok(()),
        Ok(_) => Err(damaged.into()),
        Err(error) if error.kind == DiskErrorKind::NotFound => Err(damaged.into()),
        Err(error) => Err(error.into()),
    }
}
