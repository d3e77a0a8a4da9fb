//! Copies of what can be read only once: standard input, and rows of a query that cannot be paged.
//!
//! A copy of rows is a file of records: `len u32le | row`, see [`push_row`]. It is derived and never
//! outlives a change of its source: each start of a job makes it anew.

use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, IsTerminal, Read, Seek, Write};
use std::path::{Path, PathBuf};

use bytes::Bytes;

use super::{Malformed, Source, SourceError, SourceId, SourceRow, io_error};

/// Copies standard input to `state_dir/stdin` and names the copy. An empty or interactive standard input takes up the
/// copy of the run before, so that a job that was started by a pipe can be resumed without it.
pub(super) fn stdin(state_dir: &Path) -> Result<PathBuf, SourceError> {
    let path = state_dir.join(COPY);
    if path.exists() && io::stdin().is_terminal() {
        return Ok(path);
    }
    copy(&mut io::stdin().lock(), &path)?;
    Ok(path)
}

/// The copy of standard input, and what says that there was one and the job is done with it.
const COPY: &str = "stdin";
const COPY_DONE: &str = "stdin.done";

/// Gives up the copy: every row of it has its answer in the sink.
pub(super) fn discard(state_dir: &Path) -> Result<(), SourceError> {
    let (copy, done) = (state_dir.join(COPY), state_dir.join(COPY_DONE));
    if !copy.exists() {
        return Ok(());
    }
    // Before the copy goes: without either, an empty input would be taken at its word, and the results dropped.
    File::create(&done).map_err(io_error("write", &done))?;
    fs::remove_file(&copy).map_err(io_error("remove", &copy))
}

/// Copies `from` to `path`: aside, then renamed.
pub(super) fn copy(from: &mut dyn Read, path: &Path) -> Result<(), SourceError> {
    let aside = path.with_extension("new");
    let mut file = File::create(&aside).map_err(io_error("write", &aside))?;
    let copied = io::copy(from, &mut file).map_err(io_error("copy standard input to", &aside))?;
    if copied > 0 || !(path.exists() || path.with_file_name(COPY_DONE).exists()) {
        return fs::rename(&aside, path).map_err(io_error("rename", &aside));
    }
    fs::remove_file(&aside).map_err(io_error("remove", &aside))?;
    if path.exists() { Ok(()) } else { Err(SourceError::StdinTaken) }
}

/// Writes a copy of rows.
pub(super) struct RowsWriter {
    file: BufWriter<File>,
    path: PathBuf,
    record: Vec<u8>,
}

impl RowsWriter {
    pub(super) fn create(path: &Path) -> Result<Self, SourceError> {
        let file = File::create(path).map_err(io_error("write", path))?;
        Ok(Self { file: BufWriter::with_capacity(256 << 10, file), path: path.to_owned(), record: Vec::new() })
    }

    pub(super) fn push(&mut self, row: &SourceRow) -> Result<(), SourceError> {
        self.record.clear();
        push_row(&mut self.record, row);
        let len = u32::try_from(self.record.len()).unwrap_or(u32::MAX).to_le_bytes();
        let write = self.file.write_all(&len).and_then(|()| self.file.write_all(&self.record));
        write.map_err(io_error("write", &self.path))
    }

    /// Makes the copy readable from its start.
    pub(super) fn finish(mut self) -> Result<Rows, SourceError> {
        self.file.flush().map_err(io_error("write", &self.path))?;
        let file = File::open(&self.path).map_err(io_error("read", &self.path))?;
        // It lives as long as it is open: the next start makes its own.
        fs::remove_file(&self.path).map_err(io_error("remove", &self.path))?;
        Ok(Rows { reader: BufReader::with_capacity(256 << 10, file), path: self.path, next: 1 })
    }
}

/// A copy of rows, read as a source.
pub(super) struct Rows {
    reader: BufReader<File>,
    path: PathBuf,
    next: u64,
}

impl Rows {
    fn next(&mut self) -> Result<Option<SourceRow>, SourceError> {
        let mut len = [0; 4];
        if self.reader.fill_buf_is_empty().map_err(io_error("read", &self.path))? {
            return Ok(None);
        }
        self.reader.read_exact(&mut len).map_err(io_error("read", &self.path))?;
        let mut record = vec![0; u32::from_le_bytes(len) as usize];
        self.reader.read_exact(&mut record).map_err(io_error("read", &self.path))?;
        let number = self.next;
        self.next += 1;
        let Some((id, body)) = read_row(Bytes::from(record)) else {
            let error = io::Error::from(io::ErrorKind::InvalidData);
            return Err(SourceError::Io { act: "read", path: self.path.clone(), error });
        };
        Ok(Some(SourceRow { number, id, body }))
    }
}

trait FillBuf {
    fn fill_buf_is_empty(&mut self) -> io::Result<bool>;
}

impl FillBuf for BufReader<File> {
    fn fill_buf_is_empty(&mut self) -> io::Result<bool> {
        use std::io::BufRead;
        Ok(self.fill_buf()?.is_empty())
    }
}

impl Source for Rows {
    fn next_batch(&mut self, rows_max: usize, bytes_max: usize, out: &mut Vec<SourceRow>) -> Result<(), SourceError> {
        super::line_batch(rows_max, bytes_max, out, || self.next())
    }

    fn rewind(&mut self) -> Result<(), SourceError> {
        self.next = 1;
        self.reader.rewind().map_err(io_error("read", &self.path))
    }
}

/// One record: `id kind u8 (0 none, 1 int, 2 text) | id len u32le | id | body kind u8 (0 body, 1 malformed) | rest`.
fn push_row(out: &mut Vec<u8>, row: &SourceRow) {
    let (kind, id) = match &row.id {
        None => (0, Vec::new()),
        Some(SourceId::Int(number)) => (1, number.to_le_bytes().to_vec()),
        Some(SourceId::Text(text)) => (2, text.as_bytes().to_vec()),
    };
    out.push(kind);
    out.extend_from_slice(&u32::try_from(id.len()).unwrap_or(u32::MAX).to_le_bytes());
    out.extend_from_slice(&id);
    match &row.body {
        Ok(body) => {
            out.push(0);
            out.extend_from_slice(body);
        }
        Err(malformed) => {
            out.push(1);
            out.extend_from_slice(&malformed.digest);
            out.extend_from_slice(malformed.message.as_bytes());
        }
    }
}

type RowParts = (Option<SourceId>, Result<Bytes, Malformed>);

fn read_row(record: Bytes) -> Option<RowParts> {
    let kind = *record.first()?;
    let len = u32::from_le_bytes(record.get(1..5)?.try_into().ok()?) as usize;
    let id = record.get(5..5 + len)?;
    let id = match kind {
        0 => None,
        1 => Some(SourceId::Int(i64::from_le_bytes(id.try_into().ok()?))),
        2 => Some(SourceId::Text(std::str::from_utf8(id).ok()?.to_owned())),
        _ => return None,
    };
    let rest = record.slice(5 + len..);
    if *rest.first()? == 0 {
        return Some((id, Ok(rest.slice(1..))));
    }
    let digest = rest.get(1..33)?.try_into().ok()?;
    let message = std::str::from_utf8(rest.get(33..)?).ok()?.to_owned();
    Some((id, Err(Malformed { message, digest })))
}
