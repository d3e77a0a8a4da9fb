//! Whether the input of a batch is one, and which models it asks for. Everything here blocks; memory grows by some
//! bytes a line.
//!
//! Lines of several models, or that want their vectors in several forms, are copied into a file for each: a job asks for
//! one service, and its answers are written in one way. Where all lines are alike they are read where they are.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::value::RawValue;
use sheaf_task::NAME_BYTES_MAX;

use super::lines::{LINE_MAX, Line, Lines};
use super::machine::Event;
use super::record::{InputError, Part};
use crate::disk::sync_dir;
use crate::vectors::Encoding;

/// The endpoint whose lines name a service and may have any body.
pub(crate) const TASKS: &str = "/v1/tasks";

/// The endpoint whose lines say how they want their vectors.
const EMBEDDINGS: &str = "/v1/embeddings";

/// The endpoints that a batch may be for.
pub(crate) const ENDPOINTS: [&str; 4] = ["/v1/chat/completions", "/v1/completions", EMBEDDINGS, TASKS];

/// Models in one batch.
const MODELS_MAX: usize = 16;

/// Errors that are told of one input: after so many the rest of it is not looked at.
const ERRORS_MAX: usize = 50;

/// How often it is looked whether anybody still wants to know, lines.
const LOOK_EVERY: u64 = 1_024;

/// What is read, and against what.
#[derive(Clone, Debug)]
pub(super) struct Validation {
    pub(super) input: PathBuf,
    /// Where a file for each part goes, where there are several.
    pub(super) parts: PathBuf,
    pub(super) endpoint: String,
    pub(super) lines_max: u64,
}

/// The file of a part.
pub(super) fn part_file(parts: &Path, part: usize) -> PathBuf {
    parts.join(format!("{part}.jsonl"))
}

/// A line of the input, each field as it is written.
#[derive(Deserialize)]
struct InputLine<'a> {
    #[serde(borrow)]
    custom_id: Option<&'a RawValue>,
    #[serde(borrow)]
    method: Option<&'a RawValue>,
    #[serde(borrow)]
    url: Option<&'a RawValue>,
    #[serde(borrow)]
    body: Option<&'a RawValue>,
    #[serde(borrow)]
    service: Option<&'a RawValue>,
}

/// What decides where a body goes.
#[derive(Deserialize)]
struct InputBody<'a> {
    #[serde(borrow)]
    model: Option<&'a RawValue>,
    #[serde(borrow)]
    encoding_format: Option<&'a RawValue>,
}

impl Validation {
    /// Reads the input once, and once more where it has several parts. `None`: nobody wants to know any more.
    pub(super) fn run(&self, is_unwanted: impl Fn() -> bool) -> io::Result<Option<Event>> {
        let mut found = Found::default();
        let (mut lines, mut line) = (Lines::open(&self.input)?, Vec::new());
        while found.errors.len() < ERRORS_MAX {
            let judged = match lines.next(&mut line)? {
                Line::End => break,
                Line::TooLong => Err(fault("line_too_long", format!("it is longer than {LINE_MAX} bytes"), None)),
                Line::Whole => self.judge(&line, &mut found),
            };
            found.lines += 1;
            if found.lines > self.lines_max {
                found.errors = vec![whole("too_many_tasks", format!("a batch may have {} lines", self.lines_max))];
                break;
            }
            match judged {
                Ok(part) => found.places.push(part),
                Err(error) => found.errors.push(InputError { line: Some(lines.number), ..error }),
            }
            if found.models() > MODELS_MAX {
                found.errors = vec![whole("too_many_models", format!("a batch may have {MODELS_MAX} models"))];
                break;
            }
            if found.lines.is_multiple_of(LOOK_EVERY) && is_unwanted() {
                return Ok(None);
            }
        }
        if found.lines == 0 {
            found.errors.push(whole("empty_file", "the input file has no lines".to_owned()));
        }
        if !found.errors.is_empty() {
            return Ok(Some(Event::Invalid(found.errors)));
        }
        if found.parts.len() > 1 {
            self.split(&found)?;
        }
        Ok(Some(Event::Valid { parts: found.parts, lines: found.lines }))
    }

    /// Which of the parts a line is of, or what is wrong with it.
    fn judge(&self, line: &[u8], found: &mut Found) -> Result<u8, InputError> {
        let no_json =
            |error: serde_json::Error| fault("invalid_json_line", format!("it is no line of a batch: {error}"), None);
        let text =
            std::str::from_utf8(line).map_err(|_| fault("invalid_json_line", "it is not UTF-8".to_owned(), None))?;
        let fields = object(text).map_err(no_json)?;
        let InputLine { custom_id, method, url, body, service } = fields;
        let custom_id = string(custom_id, "custom_id")?;
        if string(method, "method")? != "POST" {
            return Err(fault("invalid_method", "method must be POST".to_owned(), Some("method")));
        }
        let url = string(url, "url")?;
        if url != self.endpoint {
            let what = format!("url is {url:?}, and the batch is for {}", self.endpoint);
            return Err(fault("url_mismatch", what, Some("url")));
        }
        let body = body.ok_or_else(|| missing("body"))?;
        let (service, encoding, param) = if self.endpoint == TASKS {
            (string(service, "service")?, None, "service")
        } else {
            let InputBody { model, encoding_format } = object(body.get())
                .map_err(|error| fault("invalid_json_line", format!("body is no request: {error}"), Some("body")))?;
            let encoding = (self.endpoint == EMBEDDINGS).then(|| encoding_of(encoding_format)).flatten();
            (string(model, "body.model")?, encoding, "body.model")
        };
        if service.is_empty() || service.len() > NAME_BYTES_MAX {
            let what = format!("the name of a model has 1 to {NAME_BYTES_MAX} bytes");
            return Err(fault("model_not_found", what, Some(param)));
        }
        if !found.ids.insert(digest(&custom_id)) {
            let what = format!("custom_id {custom_id:?} was there before");
            return Err(fault("duplicate_custom_id", what, Some("custom_id")));
        }
        Ok(found.place_of(Part { service, encoding }))
    }

    /// Copies each line to the file of its part. Durable on return.
    fn split(&self, found: &Found) -> io::Result<()> {
        crate::disk::remove_dir(&self.parts)?;
        fs::create_dir(&self.parts)?;
        let file = |part| Ok(BufWriter::with_capacity(64 << 10, File::create(part_file(&self.parts, part))?));
        let mut files: Vec<BufWriter<File>> = (0..found.parts.len()).map(file).collect::<io::Result<_>>()?;
        let (mut lines, mut line) = (Lines::open(&self.input)?, Vec::new());
        for place in &found.places {
            if lines.next(&mut line)? != Line::Whole {
                return Err(io::Error::other("the input was changed while it was read"));
            }
            let file = &mut files[usize::from(*place)];
            file.write_all(line.trim_ascii())?;
            file.write_all(b"\n")?;
        }
        for file in files {
            file.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()?;
        }
        sync_dir(&self.parts)
    }
}

/// What an input has, as far as it was read.
#[derive(Default)]
struct Found {
    lines: u64,
    parts: Vec<Part>,
    /// Of each sound line, the place of its part among them.
    places: Vec<u8>,
    /// Digests of the `custom_id`s.
    ids: HashSet<[u8; 16]>,
    errors: Vec<InputError>,
}

impl Found {
    /// The place of a part: some for each of [`MODELS_MAX`] models at most, since reading ends there.
    fn place_of(&mut self, part: Part) -> u8 {
        let place = self.parts.iter().position(|known| *known == part).unwrap_or_else(|| {
            self.parts.push(part);
            self.parts.len() - 1
        });
        u8::try_from(place).unwrap_or(u8::MAX)
    }

    fn models(&self) -> usize {
        let is_first =
            |(at, part): &(usize, &Part)| self.parts[..*at].iter().all(|known| known.service != part.service);
        self.parts.iter().enumerate().filter(is_first).count()
    }
}

/// How a line wants its vectors. What it says that is none is its worker's affair.
fn encoding_of(asked: Option<&RawValue>) -> Option<Encoding> {
    let name: Option<String> = asked.map_or(Ok(None), |asked| serde_json::from_str(asked.get())).ok()?;
    Encoding::named(name.as_deref())
}

/// An object's fields; an array is none, whatever it holds.
fn object<'a, T: Deserialize<'a>>(text: &'a str) -> Result<T, serde_json::Error> {
    if text.trim_ascii_start().starts_with('{') {
        return serde_json::from_str(text);
    }
    Err(serde::de::Error::custom("it is another value"))
}

fn digest(id: &str) -> [u8; 16] {
    let mut digest = [0; 16];
    digest.copy_from_slice(&blake3::hash(id.as_bytes()).as_bytes()[..16]);
    digest
}

fn string(value: Option<&RawValue>, param: &'static str) -> Result<String, InputError> {
    let value = value.ok_or_else(|| missing(param))?;
    serde_json::from_str(value.get())
        .map_err(|_| fault("invalid_json_line", format!("{param} must be a string"), Some(param)))
}

fn missing(param: &'static str) -> InputError {
    fault("missing_required_parameter", format!("{param} is missing"), Some(param))
}

/// What is wrong with a line whose number the caller knows.
fn fault(code: &str, message: String, param: Option<&str>) -> InputError {
    InputError { code: code.to_owned(), line: None, message, param: param.map(str::to_owned) }
}

/// What is wrong with all of it.
fn whole(code: &str, message: String) -> InputError {
    fault(code, message, None)
}

#[cfg(test)]
mod tests;
