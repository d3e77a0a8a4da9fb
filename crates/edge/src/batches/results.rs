//! The results of a batch while it runs, a page at a time: the committed lines of its jobs' sinks, in the form of its
//! output and error files. Once it is over, the lines of those files.
//!
//! A cursor is opaque to clients: how much was read of each file, and which rewrite of them that was. One that means
//! nothing any more (the batch is over since, or its results were rewritten) begins again at the first line: every line
//! is read at least once, and `custom_id` tells those that come twice.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::PathBuf;

use serde_json::value::RawValue;

use super::outcome::outcome;
use super::place::Place;
use super::record::{Batch, Part};
use crate::files::Store;

/// Bytes of a page, but for its last line.
const PAGE_BYTES: usize = 4 << 20;

/// Where the next page begins: `EPOCH.OFFSET-OFFSET…`, an offset for each file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Cursor {
    /// Which files.
    epoch: String,
    offsets: Vec<u64>,
}

impl Cursor {
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (epoch, offsets) = text.split_once('.')?;
        let offsets = offsets.split('-').filter(|offset| !offset.is_empty()).map(|offset| offset.parse().ok());
        Some(Self { epoch: epoch.to_owned(), offsets: offsets.collect::<Option<_>>()? })
    }

    pub(super) fn text(&self) -> String {
        let offsets: Vec<_> = self.offsets.iter().map(u64::to_string).collect();
        format!("{}.{}", self.epoch, offsets.join("-"))
    }
}

/// A page.
#[derive(Debug)]
pub(super) struct Results {
    pub(super) lines: Vec<Box<RawValue>>,
    pub(super) next: Cursor,
    /// There are more now.
    pub(super) has_more: bool,
}

/// A file that lines are read from, up to `end`.
struct Lines {
    path: PathBuf,
    end: u64,
    /// It is a sink of this part: its lines are put into their form as they are read.
    sink_of: Option<Part>,
}

/// The files of a batch, and their epoch.
struct Files {
    epoch: String,
    files: Vec<Lines>,
}

/// Reads a page of at most `limit` lines. Blocks.
pub(super) fn page(
    place: &Place,
    batch: &Batch,
    store: &Store,
    after: Option<Cursor>,
    limit: usize,
) -> io::Result<Results> {
    let Files { epoch, files } = if batch.status.is_final() { written(batch, store)? } else { running(place, batch)? };
    let offsets = after.filter(|after| after.epoch == epoch && after.offsets.len() == files.len());
    let mut next = Cursor { epoch, offsets: offsets.map_or_else(|| vec![0; files.len()], |after| after.offsets) };
    let (mut lines, mut bytes) = (Vec::new(), 0);
    for (file, offset) in files.iter().zip(&mut next.offsets) {
        if *offset >= file.end {
            continue;
        }
        let mut reader = BufReader::new(File::open(&file.path)?);
        begin_at(&mut reader, offset)?;
        let mut reader = reader.take(file.end - *offset);
        let mut line = Vec::new();
        while lines.len() < limit && bytes < PAGE_BYTES && reader.read_until(b'\n', &mut line)? > 0 {
            *offset += line.len() as u64;
            bytes += line.len();
            let shown = match &file.sink_of {
                Some(part) => outcome(&line, part.encoding, batch.ending)?.line,
                None => std::mem::take(&mut line),
            };
            lines.push(serde_json::from_slice(&shown)?);
            line.clear();
        }
    }
    let has_more = files.iter().zip(&next.offsets).any(|(file, offset)| *offset < file.end);
    Ok(Results { lines, next, has_more })
}

/// Goes to where a line begins; an offset within one, which no page ever gave out, means the first line.
fn begin_at(reader: &mut BufReader<File>, offset: &mut u64) -> io::Result<()> {
    let Some(before) = offset.checked_sub(1) else { return Ok(()) };
    reader.seek(SeekFrom::Start(before))?;
    let mut ending = [0];
    reader.read_exact(&mut ending)?;
    if ending != *b"\n" {
        *offset = 0;
        reader.rewind()?;
    }
    Ok(())
}

/// The sinks of a batch that runs.
fn running(place: &Place, batch: &Batch) -> io::Result<Files> {
    let (mut epoch, mut files) = ("r".to_owned(), Vec::new());
    for (part, asked) in batch.parts.iter().enumerate() {
        let committed = place.committed(part)?;
        epoch.push_str(&format!("_{}", committed.generation));
        files.push(Lines { path: place.sink(part).path, end: committed.offset, sink_of: Some(asked.clone()) });
    }
    Ok(Files { epoch, files })
}

/// The files of a batch that is over, as far as nobody deleted them.
fn written(batch: &Batch, store: &Store) -> io::Result<Files> {
    let names = [(batch.has_output, &batch.names.output), (batch.has_errors, &batch.names.error)];
    let mut files = Vec::new();
    for (_, name) in names.into_iter().filter(|(exists, _)| *exists) {
        if let (Some(path), Some(meta)) = (store.content(&batch.app, name), store.get(&batch.app, name)?) {
            files.push(Lines { path, end: meta.bytes, sink_of: None });
        }
    }
    Ok(Files { epoch: "f".to_owned(), files })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_survives_its_text_and_nonsense_is_none() {
        for offsets in [vec![], vec![0], vec![12, 0, 7]] {
            let cursor = Cursor { epoch: "r_0_1".into(), offsets };
            assert_eq!(Cursor::parse(&cursor.text()), Some(cursor));
        }
        for wrong in ["", "r", "r.x", "r.-x", "file-1"] {
            assert_eq!(Cursor::parse(wrong), None, "{wrong}");
        }
    }
}
