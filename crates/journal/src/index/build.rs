//! Writes an index file: aside, synced, then named, so a file of that name was whole once.

use super::Posting;
use super::file::{BLOCK, BLOCK_ENTRIES, BLOCK_HEAD, HEADER, Index, LookupError, MAGIC, Span, block_crc};
use super::filter::{Filter, prefix};
use crate::disk::{Disk, DiskError};
use crate::name::TMP;

/// Blocks written at once.
const CHUNK_BLOCKS: usize = 256;

/// Why an index was not built. What was there is still there.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BuildError {
    /// The disk failed, or is full.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// An index that is merged into this one must be rebuilt first.
    #[error(transparent)]
    Source(#[from] LookupError),
}

/// Builds the index of a span from postings in any order; sorts them in place.
pub fn build<D: Disk>(disk: &mut D, span: Span, postings: &mut Vec<Posting>) -> Result<Index, BuildError> {
    postings.sort_unstable();
    postings.dedup();
    let mut writer = Writer::new(span);
    for posting in postings.iter() {
        writer.push(disk, *posting)?;
    }
    writer.finish(disk)
}

/// A file in the making; postings come in ascending order.
pub(super) struct Writer {
    span: Span,
    aside: String,
    prefixes: Vec<u64>,
    fences: Vec<u64>,
    keys: u64,
    /// Whole blocks, and the one that grows.
    buf: Vec<u8>,
    in_block: usize,
    written: u64,
}

impl Writer {
    pub(super) fn new(span: Span) -> Self {
        Self {
            span,
            aside: format!("{}{TMP}", span.file()),
            prefixes: Vec::new(),
            fences: Vec::new(),
            keys: 0,
            buf: Vec::new(),
            in_block: 0,
            written: HEADER as u64,
        }
    }

    pub(super) fn push<D: Disk>(&mut self, disk: &mut D, (key, lsn): Posting) -> Result<(), DiskError> {
        if self.in_block == BLOCK_ENTRIES {
            self.end_block();
            if self.buf.len() >= CHUNK_BLOCKS * BLOCK {
                self.flush(disk)?;
            }
        }
        let prefix = prefix(&key);
        if self.in_block == 0 {
            self.fences.push(prefix);
            self.buf.extend_from_slice(&[0; BLOCK_HEAD]);
        }
        self.prefixes.push(prefix);
        self.buf.extend_from_slice(&key);
        self.buf.extend_from_slice(&lsn.0.to_le_bytes());
        self.in_block += 1;
        self.keys += 1;
        Ok(())
    }

    pub(super) fn finish<D: Disk>(mut self, disk: &mut D) -> Result<Index, BuildError> {
        self.end_block();
        self.flush(disk)?;
        let filter = Filter::build(std::mem::take(&mut self.prefixes));
        let mut tail: Vec<u8> = self.fences.iter().flat_map(|fence| fence.to_le_bytes()).collect();
        tail.extend_from_slice(filter.bytes());
        tail.extend_from_slice(&crc32c::crc32c(&tail).to_le_bytes());
        disk.write(&self.aside, self.written, &tail)?;
        disk.write(&self.aside, 0, &self.header(filter.bytes().len()))?;
        disk.sync(&self.aside)?;
        disk.rename(&self.aside, &self.span.file())?;
        Ok(Index::open(disk, self.span)?)
    }

    fn end_block(&mut self) {
        if self.in_block == 0 {
            return;
        }
        self.buf.resize(self.buf.len().next_multiple_of(BLOCK), 0);
        let start = self.buf.len() - BLOCK;
        let block = &mut self.buf[start..];
        block[4..6].copy_from_slice(&(self.in_block as u16).to_le_bytes());
        let crc = block_crc(self.fences.len() - 1, block);
        block[..4].copy_from_slice(&crc.to_le_bytes());
        self.in_block = 0;
    }

    fn flush<D: Disk>(&mut self, disk: &mut D) -> Result<(), DiskError> {
        if !self.buf.is_empty() {
            disk.write(&self.aside, self.written, &self.buf)?;
            self.written += self.buf.len() as u64;
            self.buf.clear();
        }
        Ok(())
    }

    fn header(&self, filter: usize) -> [u8; HEADER] {
        let mut header = [0; HEADER];
        header[..8].copy_from_slice(MAGIC);
        header[8..16].copy_from_slice(&self.span.first.0.to_le_bytes());
        header[16..24].copy_from_slice(&self.span.last.0.to_le_bytes());
        header[24..32].copy_from_slice(&self.keys.to_le_bytes());
        header[32..36].copy_from_slice(&(self.fences.len() as u32).to_le_bytes());
        header[36..40].copy_from_slice(&(filter as u32).to_le_bytes());
        let crc = crc32c::crc32c(&header[..60]);
        header[60..].copy_from_slice(&crc.to_le_bytes());
        header
    }
}
