//! Lines of a file, each at most as long as a body may be. It knows no format.
//!
//! Invariant: memory is bounded by [`LINE_MAX`] whatever the file holds; an overlong line is skipped to its end while
//! its digest is taken.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use sheaf_task::BODY_BYTES_MAX;

use super::{Malformed, SourceError, io_error, open_file};

/// Longest line that is read whole, its ending included.
const LINE_MAX: usize = BODY_BYTES_MAX + 2;

/// Bytes of an overlong line looked at in one step.
const SKIP_STEP: usize = 64 << 10;

/// A byte order mark, which some programs put at the start of UTF-8.
pub(super) const BOM: &[u8] = b"\xef\xbb\xbf";

/// What [`Lines::next`] found; the line itself is in the buffer, without its ending.
pub(super) enum Line {
    /// A whole line.
    Whole,
    /// A line longer than a body may be.
    TooLong(Malformed),
    /// Nothing more.
    End,
}

/// A place between two lines.
#[derive(Clone, Copy)]
pub(super) struct Mark {
    offset: u64,
    number: u64,
}

/// Reads a file line by line.
pub(super) struct Lines {
    reader: BufReader<File>,
    path: PathBuf,
    /// Bytes before what is read next.
    offset: u64,
    /// Number of the line last read, from 1.
    pub(super) number: u64,
    /// How it ended.
    pub(super) ending: &'static [u8],
}

impl Lines {
    pub(super) fn open(path: &Path) -> Result<Self, SourceError> {
        let reader = BufReader::with_capacity(256 << 10, open_file(path)?);
        let mut lines = Self { reader, path: path.to_owned(), offset: 0, number: 0, ending: b"" };
        lines.rewind()?;
        Ok(lines)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Begins again after the byte order mark, if there is one.
    pub(super) fn rewind(&mut self) -> Result<(), SourceError> {
        self.number = 0;
        let mut begin = || -> io::Result<u64> {
            self.reader.seek(SeekFrom::Start(0))?;
            let mut start = Vec::new();
            self.reader.by_ref().take(3).read_to_end(&mut start)?;
            if start == BOM { Ok(3) } else { self.reader.seek(SeekFrom::Start(0)) }
        };
        self.offset = begin().map_err(io_error("read", &self.path))?;
        Ok(())
    }

    /// Reads the next line into `line`.
    pub(super) fn next(&mut self, line: &mut Vec<u8>) -> Result<Line, SourceError> {
        line.clear();
        if self.read_up_to(LINE_MAX, line)? == 0 {
            return Ok(Line::End);
        }
        self.number += 1;
        self.ending = trim_ending(line);
        let ended = !self.ending.is_empty();
        if line.len() <= BODY_BYTES_MAX && (ended || line.len() < LINE_MAX) {
            return Ok(Line::Whole);
        }
        self.skip_rest(line, ended).map(Line::TooLong)
    }

    /// Remembers the place after the line last read.
    pub(super) fn mark(&self) -> Mark {
        Mark { offset: self.offset, number: self.number }
    }

    /// Goes back to a place.
    pub(super) fn back(&mut self, mark: Mark) -> Result<(), SourceError> {
        (self.number, self.offset) = (mark.number, mark.offset);
        self.reader.seek(SeekFrom::Start(mark.offset)).map(|_| ()).map_err(io_error("read", &self.path))
    }

    /// Reads on, within the line, into `step`, its ending included; nothing at the end of the file.
    pub(super) fn step(&mut self, step: &mut Vec<u8>) -> Result<(), SourceError> {
        step.clear();
        self.read_up_to(SKIP_STEP, step)?;
        self.number += u64::from(step.ends_with(b"\n"));
        Ok(())
    }

    fn read_up_to(&mut self, bytes: usize, out: &mut Vec<u8>) -> Result<usize, SourceError> {
        let read = self.reader.by_ref().take(bytes as u64).read_until(b'\n', out);
        let read = read.map_err(io_error("read", &self.path))?;
        self.offset += read as u64;
        Ok(read)
    }

    fn skip_rest(&mut self, start: &[u8], mut ended: bool) -> Result<Malformed, SourceError> {
        let mut hasher = blake3::Hasher::new();
        hasher.update(start);
        let mut len = start.len() as u64;
        let mut step = Vec::with_capacity(SKIP_STEP);
        while !ended {
            step.clear();
            if self.read_up_to(SKIP_STEP, &mut step)? == 0 {
                break;
            }
            ended = !trim_ending(&mut step).is_empty();
            hasher.update(&step);
            len += step.len() as u64;
        }
        let message = format!("line {} is {len} bytes long; a row may have {BODY_BYTES_MAX}", self.number);
        Ok(Malformed { message, digest: *hasher.finalize().as_bytes() })
    }
}

/// Takes a line ending off, and says which; none at the end of the file.
fn trim_ending(line: &mut Vec<u8>) -> &'static [u8] {
    for ending in [b"\r\n".as_slice(), b"\n"] {
        if line.ends_with(ending) {
            line.truncate(line.len() - ending.len());
            return ending;
        }
    }
    b""
}
