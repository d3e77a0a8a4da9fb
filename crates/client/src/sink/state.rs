//! What a file sink remembers of its data file: which rows stand where in it, and the cursor that they came with.
//!
//! ```text
//!     header    "SHEAFST1" | job 16 | generation u64le | crc32c u32le of the 32 bytes before
//!     record*   length u32le | crc32c u32le of kind and payload | kind u8 | payload
//!     commit    offset u64le after these rows | cursor given u8 | router 16 | number u64le | count u32le | row*
//!     row       row id 16 | number u64le | length u32le | ok u8
//!     closed, reopened   offset u64le
//! ```
//!
//! Format version: the digit in the magic. A record counts once it is whole; what follows the last whole record is the
//! torn tail of a crash and is cut off. Rows are named before the next commit begins, so `offset` is where the data file
//! must end, and anything beyond it was never committed.
//!
//! Generation: a rewritten data file lies in `aside.G` until the state of generation G is in place, and is then renamed.
//! So `aside.G` of the state's own generation is the data file, and any other `aside` is rubbish.

use std::fs::File;
use std::io::{BufReader, ErrorKind, Read};
use std::path::{Path, PathBuf};

use sheaf_task::{JobId, RouterId, RowId};

use super::files::{Files, io_error};
use super::{Committed, Cursor, Finished, SinkError};

const MAGIC: &[u8; 8] = b"SHEAFST1";
const HEADER_LEN: usize = 36;
const ROW_LEN: usize = 29;

/// Longest record that is believed: a commit of about two million rows.
const RECORD_MAX: usize = 64 << 20;

/// Rows in one record when the state is written anew.
const REWRITE_ROWS: usize = 4_096;

/// The kinds of record. `closed` and `reopened` say whether the data file may have grown past its offset by a crash
/// (it may while open) or by a user's hand (closed).
mod kind {
    pub(super) const COMMIT: u8 = 1;
    pub(super) const CLOSED: u8 = 2;
    pub(super) const REOPENED: u8 = 3;
}

/// The state file, open.
#[derive(Debug)]
pub(super) struct State {
    files: Files,
    file: File,
    path: PathBuf,
    job: JobId,
    /// Which rewrite of the data file this describes.
    pub(super) generation: u64,
    /// Where the data file ends.
    pub(super) offset: u64,
    /// What the rows up to there came with.
    pub(super) cursor: Option<Cursor>,
    /// The job had finished, and nothing was written since.
    pub(super) closed: bool,
}

impl State {
    /// Takes up the state at `path`; `None` where there is none of this job. Cuts a torn tail.
    pub(super) fn open(files: &Files, path: &Path, job: JobId) -> Result<Option<Self>, SinkError> {
        let mut found = Self::blank(files, path, job, files.open(path)?);
        let mut reader = BufReader::new(File::open(path).map_err(io_error("read", path))?);
        let Some((owner, generation)) = read_header(&mut reader, path)? else { return Ok(None) };
        if owner != job {
            return Ok(None);
        }
        found.generation = generation;
        let mut end = HEADER_LEN as u64;
        while let Some((kind, payload)) = read_record(&mut reader, path)? {
            let Some(()) = found.apply(kind, &payload) else { break };
            end += 9 + payload.len() as u64;
        }
        if found.file.metadata().map_err(io_error("read", path))?.len() > end {
            files.truncate(&found.file, path, end)?;
        }
        Ok(Some(found))
    }

    /// Puts a new state in place of whatever is at `path`, durably, holding `rows` (which lie in the data file one after
    /// the other from `start`).
    pub(super) fn replace(
        files: &Files,
        path: &Path,
        (job, generation): (JobId, u64),
        (start, rows, cursor): (u64, &[Finished], Option<Cursor>),
    ) -> Result<Self, SinkError> {
        let aside = path.with_extension("new");
        let mut state = Self::blank(files, &aside, job, files.create(&aside)?);
        (state.generation, state.offset) = (generation, start);
        let mut header = [MAGIC.as_slice(), &job.0, &generation.to_le_bytes()].concat();
        header.extend_from_slice(&crc32c::crc32c(&header).to_le_bytes());
        files.append(&mut state.file, &aside, &header)?;
        for part in rows.chunks(REWRITE_ROWS) {
            state.write_commit(part, cursor)?;
        }
        if rows.is_empty() && (start > 0 || cursor.is_some()) {
            state.write_commit(&[], cursor)?;
        }
        files.sync(&state.file, &aside)?;
        files.rename(&aside, path)?;
        state.path = path.to_owned();
        Ok(state)
    }

    fn blank(files: &Files, path: &Path, job: JobId, file: File) -> Self {
        let (files, path) = (files.clone(), path.to_owned());
        Self { files, file, path, job, generation: 0, offset: 0, cursor: None, closed: false }
    }

    /// Records rows that are durable in the data file, durably.
    pub(super) fn commit(&mut self, rows: &[Finished], cursor: Option<Cursor>) -> Result<(), SinkError> {
        self.write_commit(rows, cursor)?;
        self.files.sync(&self.file, &self.path)
    }

    /// Says that nothing more will be written, or that something may again; durably.
    pub(super) fn set_closed(&mut self, closed: bool) -> Result<(), SinkError> {
        if self.closed == closed {
            return Ok(());
        }
        let kind = if closed { kind::CLOSED } else { kind::REOPENED };
        self.write(kind, &self.offset.to_le_bytes())?;
        self.files.sync(&self.file, &self.path)?;
        self.closed = closed;
        Ok(())
    }

    /// Puts a rewritten data file of these rows in the place of the present one: the caller has written and synced it at
    /// `aside(generation + 1)`, and renames it when this has returned.
    pub(super) fn swap(&mut self, start: u64, rows: &[Finished]) -> Result<(), SinkError> {
        let place = (self.job, self.generation + 1);
        *self = Self::replace(&self.files, &self.path, place, (start, rows, self.cursor))?;
        Ok(())
    }

    /// Every row that the data file holds, in its order; of a row with two lines both.
    pub(super) fn rows(&self) -> Result<Vec<Finished>, SinkError> {
        let path = &self.path;
        let mut reader = BufReader::new(File::open(path).map_err(io_error("read", path))?);
        let mut rows = Vec::new();
        if read_header(&mut reader, path)?.is_none() {
            return Ok(rows);
        }
        while let Some((kind, payload)) = read_record(&mut reader, path)? {
            if kind == kind::COMMIT {
                read_rows(&payload, &mut rows);
            }
        }
        Ok(rows)
    }

    fn write_commit(&mut self, rows: &[Finished], cursor: Option<Cursor>) -> Result<(), SinkError> {
        let end = rows.last().map_or(self.offset, Finished::end);
        let cursor = cursor.or(self.cursor);
        let mut payload = Vec::with_capacity(37 + rows.len() * ROW_LEN);
        payload.extend_from_slice(&end.to_le_bytes());
        payload.push(u8::from(cursor.is_some()));
        let filled = cursor.unwrap_or(Cursor { router: RouterId::default(), number: 0 });
        payload.extend_from_slice(&filled.router.0);
        payload.extend_from_slice(&filled.number.to_le_bytes());
        payload.extend_from_slice(&u32::try_from(rows.len()).unwrap_or(u32::MAX).to_le_bytes());
        for row in rows {
            payload.extend_from_slice(&row.row.0);
            payload.extend_from_slice(&row.number.to_le_bytes());
            payload.extend_from_slice(&row.len.to_le_bytes());
            payload.push(u8::from(row.ok));
        }
        self.write(kind::COMMIT, &payload)?;
        (self.offset, self.cursor) = (end, cursor);
        Ok(())
    }

    fn write(&mut self, kind: u8, payload: &[u8]) -> Result<(), SinkError> {
        let mut record = Vec::with_capacity(9 + payload.len());
        record.extend_from_slice(&u32::try_from(payload.len()).unwrap_or(u32::MAX).to_le_bytes());
        record.extend_from_slice(&crc(kind, payload).to_le_bytes());
        record.push(kind);
        record.extend_from_slice(payload);
        self.files.append(&mut self.file, &self.path, &record)
    }

    fn apply(&mut self, kind: u8, payload: &[u8]) -> Option<()> {
        match kind {
            kind::COMMIT => {
                (self.offset, self.cursor) = read_commit(payload)?;
                self.closed = false;
            }
            kind::CLOSED => self.closed = true,
            kind::REOPENED => self.closed = false,
            _ => return None,
        }
        Some(())
    }
}

/// How far a data file is committed, by the state at `path`, whoever writes to it. Reads only.
pub(super) fn committed(path: &Path) -> Result<Option<Committed>, SinkError> {
    let file = match File::open(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        opened => opened.map_err(io_error("read", path))?,
    };
    let mut reader = BufReader::new(file);
    let Some((_, generation)) = read_header(&mut reader, path)? else { return Ok(None) };
    let mut offset = 0;
    while let Some((kind, payload)) = read_record(&mut reader, path)? {
        if kind == kind::COMMIT {
            let Some((end, _)) = read_commit(&payload) else { break };
            offset = end;
        }
    }
    Ok(Some(Committed { generation, offset }))
}

fn crc(kind: u8, payload: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&[kind]), payload)
}

/// Fills `buffer`, or says that the file ends before.
fn fill(reader: &mut impl Read, buffer: &mut [u8], path: &Path) -> Result<bool, SinkError> {
    match reader.read_exact(buffer) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(io_error("read", path)(error)),
    }
}

fn read_header(reader: &mut impl Read, path: &Path) -> Result<Option<(JobId, u64)>, SinkError> {
    let mut header = [0; HEADER_LEN];
    if !fill(reader, &mut header, path)? || header[..8] != *MAGIC {
        return Ok(None);
    }
    if crc32c::crc32c(&header[..32]).to_le_bytes() != header[32..] {
        return Ok(None);
    }
    Ok(JobId::from_slice(&header[8..24]).zip(u64_at(&header, 24)))
}

/// The next whole record, or `None` at the end or at a torn tail.
fn read_record(reader: &mut impl Read, path: &Path) -> Result<Option<(u8, Vec<u8>)>, SinkError> {
    let mut head = [0; 9];
    if !fill(reader, &mut head, path)? {
        return Ok(None);
    }
    let (Some(len), Some(sum)) = (u32_at(&head, 0), u32_at(&head, 4)) else { return Ok(None) };
    if len as usize > RECORD_MAX {
        return Ok(None);
    }
    let mut payload = vec![0; len as usize];
    if !fill(reader, &mut payload, path)? || crc(head[8], &payload) != sum {
        return Ok(None);
    }
    Ok(Some((head[8], payload)))
}

fn read_commit(payload: &[u8]) -> Option<(u64, Option<Cursor>)> {
    let offset = u64_at(payload, 0)?;
    let router = RouterId::from_slice(payload.get(9..25)?)?;
    let number = u64_at(payload, 25)?;
    Some((offset, (*payload.get(8)? == 1).then_some(Cursor { router, number })))
}

/// Appends the rows of a commit. They end at its offset, so the first begins at the offset less their lengths.
fn read_rows(payload: &[u8], out: &mut Vec<Finished>) {
    let Some(end) = u64_at(payload, 0) else { return };
    let from = out.len();
    let mut total = 0;
    for row in payload.get(37..).unwrap_or_default().chunks_exact(ROW_LEN) {
        let (Some(id), Some(number), Some(len)) = (RowId::from_slice(&row[..16]), u64_at(row, 16), u32_at(row, 24))
        else {
            continue;
        };
        out.push(Finished { row: id, number, place: total, len, ok: row[28] == 1 });
        total += u64::from(len);
    }
    for row in &mut out[from..] {
        row.place += end.saturating_sub(total);
    }
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}
