//! From the results of a batch's jobs to its output and error file. Everything here blocks; memory grows by some bytes
//! a line.
//!
//! Invariant: each line of the input is in exactly one of the two files, once. Doing it again writes the same files under
//! the same names.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;
use sheaf_client::sink::committed;

use super::lines::{Line, Lines};
use super::machine::Event;
use super::outcome::{Outcome, outcome, without_outcome};
use super::place::Place;
use super::record::{Batch, Counts, Ending, Part, Usage};
use crate::files::{Draft, FileMeta, Store};

const READ_BYTES: usize = 256 << 10;
const WRITE_BYTES: usize = 256 << 10;

/// What the files that a batch writes are for.
const PURPOSE: &str = "batch_output";

/// Writes the files of a batch whose jobs have ended.
pub(super) fn finalize(place: &Place, batch: &Batch, store: &Store, now: Duration) -> io::Result<Event> {
    let mut output = OutFile::new(store, &batch.app, &batch.names.output);
    let mut errors = OutFile::new(store, &batch.app, &batch.names.error);
    let written = write_parts(place, batch, &mut output, &mut errors);
    let (completed, failed) = (output.lines, errors.lines);
    let name = |what: &str| format!("{}_{what}.jsonl", batch.id);
    let ended = written.and_then(|usage| {
        output.finish(name("output"), batch.asked.output_expires_after, now)?;
        errors.finish(name("error"), batch.asked.output_expires_after, now)?;
        Ok(usage)
    });
    let usage = match ended {
        Ok(usage) => usage,
        Err(error) => {
            // On a full disk every byte counts.
            output.discard()?;
            errors.discard()?;
            return Err(error);
        }
    };
    let counts = Counts { total: completed + failed, completed, failed };
    Ok(Event::Written { counts, has_output: completed > 0, has_errors: failed > 0, usage })
}

/// What the answers tell of tokens, if they do.
fn write_parts<'a>(
    place: &Place,
    batch: &Batch,
    output: &mut OutFile<'a>,
    errors: &mut OutFile<'a>,
) -> io::Result<Option<Usage>> {
    let mut sum: Option<Usage> = None;
    for (part, Part { encoding, .. }) in batch.parts.iter().enumerate() {
        let results = Results::open(place, part, batch.ending)?;
        let (mut last, mut lost) = (results.last_lines()?, HashSet::new());
        results.each(|at, line| {
            let Some(read) = results.read(at, outcome(line, *encoding, batch.ending))? else {
                lost.insert(at);
                return Ok(());
            };
            let Outcome { row, is_ok, line, usage } = read;
            // Of a row with two results, as after an operator's retry, the later one counts.
            if last.get(&row) != Some(&at) {
                return Ok(());
            }
            sum = usage.map_or(sum, |usage| Some(sum.unwrap_or_default().plus(usage)));
            let file = if is_ok { &mut *output } else { &mut *errors };
            file.push(&line)
        })?;
        last.retain(|_, at| !lost.contains(at));
        let (mut lines, mut line) = (Lines::open(&place.source(batch, part))?, Vec::new());
        while lines.next(&mut line)? != Line::End {
            if !last.contains_key(&lines.number) {
                let CustomId { custom_id } = serde_json::from_slice(&line)?;
                errors.push(&without_outcome(lines.number, part, custom_id, batch.ending)?)?;
            }
        }
    }
    Ok(sum)
}

#[derive(Deserialize)]
struct CustomId {
    custom_id: String,
}

#[derive(Deserialize)]
struct RowOf {
    row: u64,
}

/// The row of a sink's line, which begins with it: the answer behind it is not looked at.
fn row_of(line: &[u8]) -> io::Result<u64> {
    let digits = line.strip_prefix(b"{\"row\": ").and_then(|rest| rest.split(|byte| *byte == b',').next());
    match digits.and_then(|digits| std::str::from_utf8(digits).ok()?.parse().ok()) {
        Some(row) => Ok(row),
        None => Ok(serde_json::from_slice::<RowOf>(line)?.row),
    }
}

/// The committed results of a part.
///
/// Of a batch that was stopped no job will mend them: where they are damaged, what can be read of them counts. One that is
/// complete waits instead, for what it has was promised.
struct Results {
    file: Option<File>,
    end: u64,
    path: PathBuf,
    is_stopped: bool,
}

impl Results {
    fn open(place: &Place, part: usize, ending: Ending) -> io::Result<Self> {
        let is_stopped = match ending {
            Ending::Complete => false,
            Ending::Expired | Ending::Cancelled => true,
        };
        let path = place.sink(part).path;
        let recorded = committed(&path).map_err(io::Error::other)?.map(|committed| committed.offset);
        // Where it is not known any more what was committed, every whole line counts.
        let end = recorded.unwrap_or(if is_stopped { u64::MAX } else { 0 });
        let file = match File::open(&path) {
            _ if end == 0 => None,
            Ok(file) => Some(file),
            Err(error) if is_stopped && error.kind() == io::ErrorKind::NotFound => {
                if recorded.is_some() {
                    tracing::warn!(path = %path.display(), "the results of a batch that was stopped are gone");
                }
                None
            }
            Err(error) => return Err(error),
        };
        Ok(Self { file, end, path, is_stopped })
    }

    /// What a line says; none where it is damaged, and may be.
    fn read<T>(&self, at: u64, read: Result<T, impl Into<io::Error>>) -> io::Result<Option<T>> {
        match read.map_err(Into::into) {
            Ok(read) => Ok(Some(read)),
            Err(error) if self.is_stopped => {
                tracing::warn!(path = %self.path.display(), at, %error, "a line of the results cannot be read: it is left out");
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Where the last line of each row begins.
    fn last_lines(&self) -> io::Result<HashMap<u64, u64>> {
        let mut last = HashMap::new();
        self.each(|at, line| {
            if let Some(row) = self.read(at, row_of(line))? {
                last.insert(row, at);
            }
            Ok(())
        })?;
        Ok(last)
    }

    fn each(&self, mut take: impl FnMut(u64, &[u8]) -> io::Result<()>) -> io::Result<()> {
        let Some(file) = &self.file else { return Ok(()) };
        let mut reader = BufReader::with_capacity(READ_BYTES, FromStart { file, at: 0 }).take(self.end);
        let (mut at, mut line) = (0, Vec::new());
        while reader.read_until(b'\n', &mut line)? > 0 {
            take(at, &line)?;
            at += line.len() as u64;
            line.clear();
        }
        Ok(())
    }
}

/// Reads a file from its start, wherever else it is read.
struct FromStart<'a> {
    file: &'a File,
    at: u64,
}

impl Read for FromStart<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = std::os::unix::fs::FileExt::read_at(self.file, buffer, self.at)?;
        self.at += read as u64;
        Ok(read)
    }
}

/// A file that a batch writes; there is none without lines.
struct OutFile<'a> {
    store: &'a Store,
    app: &'a str,
    name: &'a str,
    draft: Option<Draft>,
    gathered: Vec<u8>,
    lines: u64,
}

impl<'a> OutFile<'a> {
    fn new(store: &'a Store, app: &'a str, name: &'a str) -> Self {
        Self { store, app, name, draft: None, gathered: Vec::new(), lines: 0 }
    }

    fn push(&mut self, line: &[u8]) -> io::Result<()> {
        self.lines += 1;
        self.gathered.extend_from_slice(line);
        if self.gathered.len() >= WRITE_BYTES { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> io::Result<()> {
        let draft = match &mut self.draft {
            Some(draft) => draft,
            none => none.insert(self.store.begin_as(self.app, self.name.to_owned())?),
        };
        draft.write(&self.gathered)?;
        self.gathered.clear();
        Ok(())
    }

    fn finish(&mut self, filename: String, expires_after: Option<u64>, now: Duration) -> io::Result<()> {
        if self.lines == 0 {
            return Ok(());
        }
        self.flush()?;
        let Some(draft) = self.draft.take() else { return Ok(()) };
        let (id, bytes, created_at) = (draft.id.clone(), draft.bytes(), now.as_secs());
        let expires_at = expires_after.map(|seconds| created_at + seconds);
        let meta = FileMeta { id, bytes, created_at, filename, purpose: PURPOSE.to_owned(), expires_at };
        self.store.finish(draft, &meta)
    }

    fn discard(self) -> io::Result<()> {
        self.draft.map_or(Ok(()), Draft::discard)
    }
}

#[cfg(test)]
mod tests;
