//! Text: one row a line, of any bytes.

use std::path::Path;

use bytes::Bytes;

use super::line::{Line, Lines};
use super::{Source, SourceError, SourceRow};

/// A text file.
pub(super) struct Text {
    lines: Lines,
    buffer: Vec<u8>,
    /// Blank lines read and not yet given out: rows only if a line that is not blank follows.
    blanks: u64,
    /// The row that follows those blank lines.
    held: Option<SourceRow>,
}

impl Text {
    pub(super) fn open(path: &Path) -> Result<Self, SourceError> {
        Ok(Self { lines: Lines::open(path)?, buffer: Vec::new(), blanks: 0, held: None })
    }

    fn next(&mut self) -> Result<Option<SourceRow>, SourceError> {
        while self.held.is_none() {
            let body = match self.lines.next(&mut self.buffer)? {
                Line::End => return Ok(None),
                Line::Whole if self.buffer.is_empty() => {
                    self.blanks += 1;
                    continue;
                }
                Line::Whole => Ok(Bytes::copy_from_slice(&self.buffer)),
                Line::TooLong(malformed) => Err(malformed),
            };
            self.held = Some(SourceRow { number: self.lines.number, id: None, body });
        }
        if self.blanks > 0 {
            let number = self.lines.number - self.blanks;
            self.blanks -= 1;
            return Ok(Some(SourceRow { number, id: None, body: Ok(Bytes::new()) }));
        }
        Ok(self.held.take())
    }
}

impl Source for Text {
    fn next_batch(&mut self, rows_max: usize, bytes_max: usize, out: &mut Vec<SourceRow>) -> Result<(), SourceError> {
        super::line_batch(rows_max, bytes_max, out, || self.next())
    }

    fn rewind(&mut self) -> Result<(), SourceError> {
        self.blanks = 0;
        self.held = None;
        self.lines.rewind()
    }
}
