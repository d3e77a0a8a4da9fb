//! JSONL: one JSON value a line. The body is the line as it stands, or one field of it.

use std::path::Path;

use bytes::Bytes;
use serde_json::Value;

use super::json::{Pick, Picked, id_of, text_of};
use super::line::{Line, Lines};
use super::{Malformed, Source, SourceError, SourceId, SourceRow, SourceSpec};

/// A JSONL file.
pub(super) struct Jsonl {
    lines: Lines,
    buffer: Vec<u8>,
    column: Option<String>,
    id: Option<String>,
}

impl Jsonl {
    /// Opens it, and checks the named fields against its first object: rows may differ, but a name that the first
    /// does not have is more likely a slip than a file full of failures.
    pub(super) fn open(path: &Path, spec: &SourceSpec) -> Result<Self, SourceError> {
        let lines = Lines::open(path)?;
        let mut source = Self { lines, buffer: Vec::new(), column: spec.column.clone(), id: spec.id.clone() };
        source.check_names()?;
        source.rewind()?;
        Ok(source)
    }

    fn check_names(&mut self) -> Result<(), SourceError> {
        let names = [self.column.clone(), self.id.clone()];
        if names.iter().all(Option::is_none) {
            return Ok(());
        }
        loop {
            match self.lines.next(&mut self.buffer)? {
                Line::End => return Ok(()),
                Line::TooLong(_) => {}
                Line::Whole => {
                    if let Ok(Value::Object(fields)) = serde_json::from_slice(&self.buffer) {
                        let missing = names.into_iter().flatten().find(|name| !fields.contains_key(name));
                        let Some(name) = missing else { return Ok(()) };
                        let existing = fields.keys().cloned().collect();
                        return Err(SourceError::UnknownColumn { path: self.lines.path().to_owned(), name, existing });
                    }
                }
            }
        }
    }

    fn next(&mut self) -> Result<Option<SourceRow>, SourceError> {
        loop {
            let (id, body) = match self.lines.next(&mut self.buffer)? {
                Line::End => return Ok(None),
                Line::TooLong(malformed) => (None, Err(malformed)),
                Line::Whole if self.buffer.trim_ascii().is_empty() => continue,
                Line::Whole => match self.row() {
                    Ok((id, body)) => (id, Ok(body)),
                    Err((id, reason)) => {
                        let message = format!("line {}: {reason}", self.lines.number);
                        (id, Err(Malformed::new(message, &self.buffer)))
                    }
                },
            };
            return Ok(Some(SourceRow { number: self.lines.number, id, body }));
        }
    }

    /// The row in the buffer, or what is wrong with it.
    fn row(&self) -> Result<(Option<SourceId>, Bytes), (Option<SourceId>, String)> {
        let line = self.buffer.trim_ascii();
        if let Err(error) = std::str::from_utf8(line) {
            return Err((None, format!("invalid UTF-8 at byte {}", error.valid_up_to() + 1)));
        }
        let pick = Pick { body: self.column.as_deref(), id: self.id.as_deref() };
        let Picked { body, id, object } = pick.read(line).map_err(|error| (None, json_fault(&error)))?;
        let id = id.and_then(id_of);
        if let (Some(name), None) = (&self.id, &id) {
            return Err((None, missing(name, "id", object)));
        }
        let Some(name) = &self.column else { return Ok((id, Bytes::copy_from_slice(line))) };
        match body.as_deref().map_or(Ok(None), text_of) {
            Ok(Some(body)) => Ok((id, body)),
            Ok(None) => Err((id, missing(name, "column", object))),
            Err(error) => Err((id, json_fault(&error))),
        }
    }
}

fn missing(name: &str, option: &str, object: bool) -> String {
    if object {
        format!("it has no value in field {name:?}, which --{option} names")
    } else {
        format!("it is no JSON object, so it has no field {name:?}")
    }
}

fn json_fault(error: &serde_json::Error) -> String {
    let text = error.to_string();
    // The parser counts lines within what it was given, which is always one.
    let what = text.split(" at line ").next().unwrap_or(&text);
    format!("invalid JSON at column {}: {what}", error.column())
}

impl Source for Jsonl {
    fn next_batch(&mut self, rows_max: usize, bytes_max: usize, out: &mut Vec<SourceRow>) -> Result<(), SourceError> {
        super::line_batch(rows_max, bytes_max, out, || self.next())
    }

    fn rewind(&mut self) -> Result<(), SourceError> {
        self.lines.rewind()
    }
}
