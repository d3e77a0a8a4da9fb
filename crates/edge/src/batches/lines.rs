//! Lines of a batch's input, numbered as the job's source numbers them: every line counts, blank ones are passed over.
//!
//! Invariant: memory is bounded by [`LINE_MAX`] whatever the file holds.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::Path;

use sheaf_task::BODY_BYTES_MAX;

/// Longest line, without its ending: a source takes no longer one.
pub(super) const LINE_MAX: usize = BODY_BYTES_MAX;

const READ_BYTES: usize = 256 << 10;
const BOM: &[u8] = b"\xef\xbb\xbf";

/// Reads a file line by line.
pub(super) struct Lines {
    reader: BufReader<File>,
    /// Number of the line last read, from 1.
    pub(super) number: u64,
}

/// One line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Line {
    /// It is in the buffer, without its ending and the white space around it.
    Whole,
    /// It is longer than a line may be, and was passed over.
    TooLong,
    /// There is no more.
    End,
}

impl Lines {
    /// Begins after the byte order mark, if there is one.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let mut file = File::open(path)?;
        let mut start = Vec::new();
        (&file).take(BOM.len() as u64).read_to_end(&mut start)?;
        if start != BOM {
            file.seek(SeekFrom::Start(0))?;
        }
        Ok(Self { reader: BufReader::with_capacity(READ_BYTES, file), number: 0 })
    }

    /// Reads the next line that is not blank. The last one needs no ending.
    pub(super) fn next(&mut self, line: &mut Vec<u8>) -> io::Result<Line> {
        loop {
            line.clear();
            let most = LINE_MAX as u64 + 2;
            if self.reader.by_ref().take(most).read_until(b'\n', line)? == 0 {
                return Ok(Line::End);
            }
            self.number += 1;
            let is_cut = line.len() as u64 == most && !line.ends_with(b"\n");
            if is_cut {
                self.skip_rest()?;
            }
            let ending = [b"\r\n".as_slice(), b"\n"].into_iter().find(|ending| line.ends_with(ending));
            line.truncate(line.len() - ending.map_or(0, <[u8]>::len));
            if is_cut || line.len() > LINE_MAX {
                return Ok(Line::TooLong);
            }
            if !line.trim_ascii().is_empty() {
                return Ok(Line::Whole);
            }
        }
    }

    fn skip_rest(&mut self) -> io::Result<()> {
        loop {
            let read = self.reader.fill_buf()?;
            let (len, is_over) = match read.iter().position(|byte| *byte == b'\n') {
                Some(place) => (place + 1, true),
                None => (read.len(), read.is_empty()),
            };
            self.reader.consume(len);
            if is_over {
                return Ok(());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(content: &[u8]) -> Vec<(u64, String)> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("in");
        std::fs::write(&path, content).unwrap();
        let (mut lines, mut line, mut found) = (Lines::open(&path).unwrap(), Vec::new(), Vec::new());
        loop {
            match lines.next(&mut line).unwrap() {
                Line::End => return found,
                Line::Whole => found.push((lines.number, String::from_utf8_lossy(&line).into_owned())),
                Line::TooLong => found.push((lines.number, "too long".into())),
            }
        }
    }

    #[test]
    fn marks_endings_and_blanks_are_no_part_of_a_line() {
        let lines = |content: &[u8]| read(content).iter().map(|(at, text)| format!("{at} {text}")).collect::<Vec<_>>();
        assert_eq!(lines(b"\xef\xbb\xbfa\r\n\r\n \nb\n\n"), ["1 a", "4 b"]);
        assert_eq!(lines(b"a\nb"), ["1 a", "2 b"]);
        assert!(lines(b"").is_empty() && lines(b"\xef\xbb\xbf").is_empty() && lines(b"\n\r\n").is_empty());
    }

    #[test]
    fn a_line_that_is_too_long_costs_only_itself() {
        let longest = "x".repeat(LINE_MAX);
        let content = format!("{longest}\r\n{longest}y\n{longest}{longest}\nb\n{longest}{longest}");
        let found = read(content.as_bytes());
        let kinds: Vec<_> = found.iter().map(|(at, text)| (*at, text.as_str() == longest, text.len())).collect();
        assert_eq!(kinds, [(1, true, LINE_MAX), (2, false, 8), (3, false, 8), (4, false, 1), (5, false, 8)]);
    }
}
