//! Results in a file, a line each, committed exactly once.
//!
//! The data file is `OUT` itself; with `--ordered` it is `OUT.sheaf/spool`, from which `OUT` is written when all is there.
//! A commit appends lines, syncs them, then records in the state where the data file ends now. After a crash the file is
//! cut to the recorded end: lines beyond it were never committed, and their deliveries will come again.

use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::io::{BufReader, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use sheaf_task::{JobId, RowId};

use super::files::{Files, io_error};
use super::line::Format;
use super::state::State;
use super::{Cursor, Finished, Judged, Sink, SinkError, SinkRow};

/// Bytes of lines that are put together before they are written to a file that is being rewritten.
const REWRITE_BYTES: usize = 1 << 20;

/// Where the parts of a file sink are.
#[derive(Clone, Debug)]
pub(super) struct Places {
    /// What the user asked for.
    pub(super) out: PathBuf,
    /// The state directory.
    pub(super) dir: PathBuf,
    pub(super) ordered: bool,
}

impl Places {
    fn data(&self) -> PathBuf {
        if self.ordered { self.dir.join("spool") } else { self.out.clone() }
    }

    fn aside(&self, generation: u64) -> PathBuf {
        self.dir.join(format!("aside.{generation}"))
    }
}

/// A file that takes results.
pub(super) struct LineSink {
    files: Files,
    places: Places,
    format: Format,
    data: File,
    state: State,
    /// Rows without an answer: a later result of one of them makes its line stale.
    failed: HashSet<RowId>,
    /// Some row has two lines.
    superseded: bool,
    /// `--ordered`: `OUT` is not what it should be.
    unwritten: bool,
    /// A commit failed half-way.
    stopped: bool,
}

impl LineSink {
    /// Opens the sink of `job`, finishing or undoing whatever a crash left. A file of an earlier job is emptied.
    pub(super) fn open(files: Files, places: Places, job: JobId) -> Result<Self, SinkError> {
        let path = places.dir.join("state");
        let mut state = match State::open(&files, &path, job)? {
            Some(state) => state,
            None => State::replace(&files, &path, (job, 0), (0, &[], None))?,
        };
        settle_rewrite(&files, &places, &state)?;
        let format = Format::of(&places.out);
        let data = open_data(&files, &places, &mut state, format)?;
        let unwritten = places.ordered && !state.closed;
        let failed = HashSet::new();
        Ok(Self { files, places, format, data, state, failed, superseded: false, unwritten, stopped: false })
    }

    fn append(&mut self, rows: &[SinkRow], cursor: Option<Cursor>) -> Result<(), SinkError> {
        self.state.set_closed(false)?;
        let mut lines = Vec::with_capacity(rows.len() * 256);
        let mut written = Vec::with_capacity(rows.len());
        for row in rows {
            let from = lines.len();
            self.format.push(&mut lines, row);
            let (place, len) = (self.state.offset + from as u64, length(lines.len() - from));
            written.push(Finished { row: row.row, number: row.number, place, len, ok: row.outcome.is_ok() });
        }
        if !rows.is_empty() {
            let path = self.places.data();
            self.files.append(&mut self.data, &path, &lines)?;
            self.files.sync(&self.data, &path)?;
            self.unwritten = self.places.ordered;
        }
        self.state.commit(&written, cursor)?;
        self.note(&written);
        Ok(())
    }

    /// Keeps count of rows without an answer, and of lines that a later one has made stale.
    fn note(&mut self, rows: &[Finished]) {
        for row in rows {
            let known = if row.ok { self.failed.remove(&row.row) } else { !self.failed.insert(row.row) };
            self.superseded |= known;
        }
    }

    /// Writes the data file anew with the rows that are still there, under their numbers now.
    fn rewrite(&mut self, judged: &[Judged]) -> Result<(), SinkError> {
        let path = self.places.data();
        let aside = self.places.aside(self.state.generation + 1);
        let mut file = self.files.create(&aside)?;
        let mut source = Reader::open(&path)?;
        let mut lines = self.format.header();
        let start = lines.len() as u64;
        let (mut kept, mut end, mut line) = (Vec::new(), start, Vec::new());
        for Judged { finished, now } in judged {
            let Some(now) = *now else { continue };
            source.read(finished, &mut line)?;
            let from = lines.len();
            if !self.format.push_renumbered(&mut lines, &line, finished.number, now) {
                return Err(self.edited(self.state.offset));
            }
            let len = length(lines.len() - from);
            kept.push(Finished { number: now, place: end, len, ..*finished });
            end += u64::from(len);
            if lines.len() >= REWRITE_BYTES {
                self.files.append(&mut file, &aside, &lines)?;
                lines.clear();
            }
        }
        self.files.append(&mut file, &aside, &lines)?;
        self.files.sync(&file, &aside)?;
        self.files.sync_dir_of(&aside)?;
        self.state.swap(start, &kept)?;
        self.files.rename(&aside, &path)?;
        self.data = self.files.open(&path)?;
        (self.superseded, self.unwritten) = (false, self.places.ordered);
        Ok(())
    }

    /// Writes `OUT` in the order of the rows.
    fn write_ordered(&mut self) -> Result<(), SinkError> {
        let mut rows = self.finished()?;
        rows.sort_by_key(|row| row.number);
        let aside = self.places.dir.join("ordered");
        let mut file = self.files.create(&aside)?;
        let mut lines = self.format.header();
        for row in rows {
            let from = lines.len();
            lines.resize(from + row.len as usize, 0);
            let read = self.data.read_exact_at(&mut lines[from..], row.place);
            read.map_err(io_error("read", &self.places.data()))?;
            if lines.len() >= REWRITE_BYTES {
                self.files.append(&mut file, &aside, &lines)?;
                lines.clear();
            }
        }
        self.files.append(&mut file, &aside, &lines)?;
        self.files.sync(&file, &aside)?;
        self.files.rename(&aside, &self.places.out)?;
        self.unwritten = false;
        Ok(())
    }

    fn edited(&self, found: u64) -> SinkError {
        edited(&self.places, self.state.offset, found)
    }

    /// Runs an act that leaves nothing certain if it fails.
    fn once(&mut self, act: impl FnOnce(&mut Self) -> Result<(), SinkError>) -> Result<(), SinkError> {
        if self.stopped {
            return Err(SinkError::Stopped { path: self.places.out.clone() });
        }
        self.stopped = true;
        act(self)?;
        self.stopped = false;
        Ok(())
    }
}

impl Sink for LineSink {
    fn cursor(&self) -> Option<Cursor> {
        self.state.cursor
    }

    fn finished(&mut self) -> Result<Vec<Finished>, SinkError> {
        let mut rows = self.state.rows()?;
        let mut latest = HashMap::with_capacity(rows.len());
        for (place, row) in rows.iter().enumerate() {
            latest.insert(row.row, place);
        }
        if latest.len() < rows.len() {
            self.superseded = true;
            let mut place = 0;
            rows.retain(|row| {
                place += 1;
                latest.get(&row.row) == Some(&(place - 1))
            });
        }
        self.failed = rows.iter().filter(|row| !row.ok).map(|row| row.row).collect();
        Ok(rows)
    }

    fn reconcile(&mut self, judged: &[Judged]) -> Result<(), SinkError> {
        let agrees = judged.iter().all(|row| row.now == Some(row.finished.number));
        if agrees && !self.superseded {
            return Ok(());
        }
        self.once(|sink| sink.rewrite(judged))
    }

    fn commit(&mut self, rows: &[SinkRow], cursor: Option<Cursor>) -> Result<(), SinkError> {
        self.once(|sink| sink.append(rows, cursor))
    }

    fn finish(&mut self) -> Result<(), SinkError> {
        if self.superseded {
            let rows = self.finished()?;
            let judged: Vec<_> = rows.into_iter().map(|row| Judged { finished: row, now: Some(row.number) }).collect();
            self.once(|sink| sink.rewrite(&judged))?;
        }
        if self.places.ordered && (self.unwritten || !self.places.out.exists()) {
            self.once(Self::write_ordered)?;
        }
        self.once(|sink| sink.state.set_closed(true))
    }
}

/// Ends a rewrite that a crash interrupted after its state was in place, and clears away one that it interrupted before.
fn settle_rewrite(files: &Files, places: &Places, state: &State) -> Result<(), SinkError> {
    let due = places.aside(state.generation);
    if due.exists() {
        files.rename(&due, &places.data())?;
    }
    let entries = fs::read_dir(&places.dir).map_err(io_error("read", &places.dir))?;
    for entry in entries {
        let entry = entry.map_err(io_error("read", &places.dir))?;
        if entry.file_name().to_string_lossy().starts_with("aside.") {
            files.remove(&entry.path())?;
        }
    }
    Ok(())
}

/// Opens the data file and makes it end where the state says.
fn open_data(files: &Files, places: &Places, state: &mut State, format: Format) -> Result<File, SinkError> {
    let path = places.data();
    let header = format.header();
    if state.offset > header.len() as u64 && !path.exists() {
        return Err(SinkError::Gone { path });
    }
    let mut data = files.open(&path)?;
    files.sync_dir_of(&path)?;
    let found = data.metadata().map_err(io_error("read", &path))?.len();
    if found < state.offset && state.offset <= header.len() as u64 {
        state.offset = 0;
    }
    if found < state.offset || (state.closed && found > state.offset) {
        return Err(edited(places, state.offset, found));
    }
    if found > state.offset {
        files.truncate(&data, &path, state.offset)?;
    }
    if state.offset == 0 && !header.is_empty() {
        files.append(&mut data, &path, &header)?;
        files.sync(&data, &path)?;
        state.offset = header.len() as u64;
        state.commit(&[], None)?;
    }
    Ok(data)
}

fn edited(places: &Places, recorded: u64, found: u64) -> SinkError {
    SinkError::Edited { path: places.data(), recorded, found, state: places.dir.clone() }
}

fn length(len: usize) -> u32 {
    u32::try_from(len).unwrap_or(u32::MAX)
}

/// Reads lines of a file from front to back.
struct Reader {
    file: BufReader<File>,
    path: PathBuf,
    at: u64,
}

impl Reader {
    fn open(path: &Path) -> Result<Self, SinkError> {
        let file = File::open(path).map_err(io_error("read", path))?;
        Ok(Self { file: BufReader::with_capacity(256 << 10, file), path: path.to_owned(), at: 0 })
    }

    fn read(&mut self, row: &Finished, line: &mut Vec<u8>) -> Result<(), SinkError> {
        let skip = i64::try_from(row.place - self.at).unwrap_or(i64::MAX);
        self.file.seek_relative(skip).map_err(io_error("read", &self.path))?;
        line.resize(row.len as usize, 0);
        self.file.read_exact(line).map_err(io_error("read", &self.path))?;
        self.at = row.end();
        Ok(())
    }
}
