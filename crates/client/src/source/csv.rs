//! CSV and TSV with a header. The body is an object of all fields, or one field.
//!
//! Records are cut out of the file here, each within the longest row, and parsed by the csv crate, which by itself would
//! read on for as long as a quote stays open. A record that is too long is one malformed row, over however many lines; a
//! quote that nothing closes costs only the line that opened it: reading goes on with the next line.

use std::path::Path;

use bytes::Bytes;
use csv::{ByteRecord, ReaderBuilder, Terminator};
use sheaf_task::BODY_BYTES_MAX;

use super::line::{BOM, Line, Lines};
use super::{HeaderFault, Malformed, Source, SourceError, SourceId, SourceRow, SourceSpec, push_json_string};

/// A CSV file.
pub(super) struct Csv {
    lines: Lines,
    delimiter: u8,
    header: Vec<String>,
    column: Option<usize>,
    id: Option<usize>,
    /// Records given out so far.
    number: u64,
    line: Vec<u8>,
}

/// One record as it stands in the file.
enum Cut {
    /// Its bytes are in the buffer; it began on this line.
    Record {
        line: u64,
    },
    /// It cannot be a record.
    Bad(Malformed),
    End,
}

impl Csv {
    pub(super) fn open(path: &Path, delimiter: u8, spec: &SourceSpec) -> Result<Self, SourceError> {
        let lines = Lines::open(path)?;
        let mut csv =
            Self { lines, delimiter, header: Vec::new(), column: None, id: None, number: 0, line: Vec::new() };
        csv.header = csv.read_header()?;
        csv.column = csv.place_of(spec.column.as_deref())?;
        csv.id = csv.place_of(spec.id.as_deref())?;
        Ok(csv)
    }

    fn read_header(&mut self) -> Result<Vec<String>, SourceError> {
        let path = self.lines.path().to_owned();
        let fault = |reason| SourceError::Header { path: path.clone(), reason };
        let mut record = Vec::new();
        let fields = match cut(&mut self.lines, self.delimiter, &mut self.line, &mut record)? {
            Cut::End => return Ok(Vec::new()),
            Cut::Bad(_) => return Err(fault(HeaderFault::Unreadable)),
            Cut::Record { .. } => parse(&record, self.delimiter),
        };
        let fields = fields.first().ok_or_else(|| fault(HeaderFault::Unreadable))?;
        let mut names: Vec<String> = Vec::new();
        for field in fields {
            let name = std::str::from_utf8(field).map_err(|_| fault(HeaderFault::NotUtf8))?;
            if names.iter().any(|known| known == name) {
                return Err(fault(HeaderFault::Twice(name.to_owned())));
            }
            names.push(name.to_owned());
        }
        Ok(names)
    }

    fn place_of(&self, name: Option<&str>) -> Result<Option<usize>, SourceError> {
        let Some(name) = name else { return Ok(None) };
        match self.header.iter().position(|known| known == name) {
            Some(place) => Ok(Some(place)),
            None => Err(SourceError::UnknownColumn {
                path: self.lines.path().to_owned(),
                name: name.to_owned(),
                existing: self.header.clone(),
            }),
        }
    }

    fn row(&self, fields: &ByteRecord, line: u64) -> Result<(Option<SourceId>, Bytes), String> {
        if fields.len() != self.header.len() {
            let (found, expected) = (fields.len(), self.header.len());
            return Err(format!("line {line} has {found} fields; the header has {expected}"));
        }
        let id = match self.id {
            None => None,
            Some(place) => {
                let text = std::str::from_utf8(&fields[place]).map_err(|_| self.not_utf8(line, place))?;
                (!text.is_empty()).then(|| SourceId::Text(text.to_owned()))
            }
        };
        let body = match self.column {
            Some(place) => Bytes::copy_from_slice(&fields[place]),
            None => self.object(fields, line)?,
        };
        if body.len() > BODY_BYTES_MAX {
            return Err(format!("line {line}: the row is {} bytes long; it may have {BODY_BYTES_MAX}", body.len()));
        }
        Ok((id, body))
    }

    /// All fields as a JSON object, in the order of the header.
    fn object(&self, fields: &ByteRecord, line: u64) -> Result<Bytes, String> {
        let mut out = Vec::with_capacity(fields.as_slice().len() * 2);
        for (place, (name, field)) in self.header.iter().zip(fields).enumerate() {
            out.push(if place == 0 { b'{' } else { b',' });
            push_json_string(&mut out, name);
            out.push(b':');
            push_json_string(&mut out, std::str::from_utf8(field).map_err(|_| self.not_utf8(line, place))?);
        }
        out.push(b'}');
        Ok(Bytes::from(out))
    }

    fn not_utf8(&self, line: u64, place: usize) -> String {
        format!("line {line}: invalid UTF-8 in column {:?}", self.header[place])
    }

    /// Parses the records cut so far and appends their rows.
    fn flush(&mut self, pending: &mut Pending, out: &mut Vec<SourceRow>) {
        let records = pending.parse(self.delimiter);
        for (fields, (start, line)) in records.iter().zip(&pending.starts) {
            self.number += 1;
            let (id, body) = match self.row(fields, *line) {
                Ok((id, body)) => (id, Ok(body)),
                Err(message) => (None, Err(Malformed::new(message, pending.record(*start)))),
            };
            out.push(SourceRow { number: self.number, id, body });
        }
        *pending = Pending::default();
    }
}

/// Records cut and not yet parsed.
#[derive(Default)]
struct Pending {
    bytes: Vec<u8>,
    /// Of each: where it starts in `bytes`, and its line.
    starts: Vec<(usize, u64)>,
}

impl Pending {
    /// The bytes of the record that starts there.
    fn record(&self, start: usize) -> &[u8] {
        let after = self.starts.partition_point(|(known, _)| *known <= start);
        let end = self.starts.get(after).map_or(self.bytes.len(), |(next, _)| *next);
        &self.bytes[start..end]
    }

    /// One record for each start: what the parser does not take for exactly one record has no fields.
    fn parse(&self, delimiter: u8) -> Vec<ByteRecord> {
        let records = parse(&self.bytes, delimiter);
        if records.len() == self.starts.len() {
            return records;
        }
        let one = |(start, _): &(usize, u64)| match parse(self.record(*start), delimiter).as_slice() {
            [only] => only.clone(),
            _ => ByteRecord::new(),
        };
        self.starts.iter().map(one).collect()
    }
}

impl Source for Csv {
    fn next_batch(&mut self, rows_max: usize, bytes_max: usize, out: &mut Vec<SourceRow>) -> Result<(), SourceError> {
        let mut pending = Pending::default();
        let mut record = Vec::new();
        for _ in 0..rows_max {
            match cut(&mut self.lines, self.delimiter, &mut self.line, &mut record)? {
                Cut::End => break,
                Cut::Bad(malformed) => {
                    self.flush(&mut pending, out);
                    self.number += 1;
                    out.push(SourceRow { number: self.number, id: None, body: Err(malformed) });
                }
                Cut::Record { line } => {
                    pending.starts.push((pending.bytes.len(), line));
                    pending.bytes.extend_from_slice(&record);
                    pending.bytes.push(b'\n');
                }
            }
            if pending.bytes.len() >= bytes_max {
                break;
            }
        }
        self.flush(&mut pending, out);
        Ok(())
    }

    fn rewind(&mut self) -> Result<(), SourceError> {
        self.lines.rewind()?;
        self.number = 0;
        self.read_header().map(|_| ())
    }
}

/// Cuts the next record into `record`, without its line ending. Blank lines are passed over.
fn cut(lines: &mut Lines, delimiter: u8, line: &mut Vec<u8>, record: &mut Vec<u8>) -> Result<Cut, SourceError> {
    record.clear();
    let mut quotes = Quotes::FieldStart;
    let mut start = lines.mark();
    let mut number = 0;
    loop {
        let between = lines.ending;
        match lines.next(line)? {
            Line::End if record.is_empty() => return Ok(Cut::End),
            Line::Whole if record.is_empty() && line.is_empty() => {
                start = lines.mark();
                continue;
            }
            Line::Whole if record.is_empty() || record.len() + line.len() < BODY_BYTES_MAX => {}
            Line::Whole | Line::End | Line::TooLong(_) => {
                lines.back(start)?;
                return overlong(lines, delimiter, line).map(Cut::Bad);
            }
        }
        if record.is_empty() {
            number = lines.number;
        } else {
            record.extend_from_slice(between);
        }
        record.extend_from_slice(line);
        quotes = line.iter().fold(quotes, |quotes, byte| quotes.after(*byte, delimiter));
        if quotes != Quotes::Inside {
            return Ok(Cut::Record { line: number });
        }
    }
}

/// What stands here is no row: passes over a record that is too long, or over the line with a quote that nothing closes.
fn overlong(lines: &mut Lines, delimiter: u8, line: &mut Vec<u8>) -> Result<Malformed, SourceError> {
    let start = lines.mark();
    if let Some(malformed) = pass(lines, delimiter, line)? {
        return Ok(malformed);
    }
    lines.back(start)?;
    match lines.next(line)? {
        Line::TooLong(malformed) => Ok(malformed),
        Line::Whole | Line::End => {
            let message = format!("line {} opens a quote that nothing closes", lines.number);
            Ok(Malformed::new(message, line))
        }
    }
}

/// Longest record that is passed over as one. A stray quote must not swallow a file up to the next one.
const PASS_MAX: u64 = 64 << 20;

/// Passes over a record of any length up to [`PASS_MAX`]; `None` if it has no end, or a quote that is no field's.
fn pass(lines: &mut Lines, delimiter: u8, step: &mut Vec<u8>) -> Result<Option<Malformed>, SourceError> {
    let first = lines.number + 1;
    let mut hasher = blake3::Hasher::new();
    let (mut len, mut quotes) = (0, Quotes::FieldStart);
    let ended = loop {
        lines.step(step)?;
        let whole = step.is_empty() || step.ends_with(b"\n");
        for byte in step.iter() {
            if quotes == Quotes::Closing && ![delimiter, b'"', b'\r', b'\n'].contains(byte) {
                return Ok(None);
            }
            // A line ending after a field's last quote leaves it closed.
            if quotes != Quotes::Closing || !matches!(byte, b'\r' | b'\n') {
                quotes = quotes.after(*byte, delimiter);
            }
        }
        hasher.update(step);
        len += step.len() as u64;
        if (whole && quotes != Quotes::Inside) || step.is_empty() || len > PASS_MAX {
            break whole && quotes != Quotes::Inside;
        }
    };
    let lines =
        if lines.number > first { format!("lines {first} to {}", lines.number) } else { format!("line {first}") };
    let message = format!("the record on {lines} is {len} bytes long; a row may have {BODY_BYTES_MAX}");
    Ok(ended.then(|| Malformed { message, digest: *hasher.finalize().as_bytes() }))
}

/// Where a reader stands among the quotes of a record.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Quotes {
    /// Before a field: a quote here opens one.
    FieldStart,
    /// In a field that began without a quote: quotes mean nothing.
    Bare,
    /// In a quoted field.
    Inside,
    /// After a quote in a quoted field: its end, or the first of a doubled one.
    Closing,
}

impl Quotes {
    fn after(self, byte: u8, delimiter: u8) -> Quotes {
        match (self, byte) {
            (Quotes::Inside, b'"') => Quotes::Closing,
            (Quotes::Inside, _) => Quotes::Inside,
            (Quotes::FieldStart | Quotes::Closing, b'"') => Quotes::Inside,
            (_, byte) if byte == delimiter => Quotes::FieldStart,
            (_, _) => Quotes::Bare,
        }
    }
}

/// Parses records as they stand. The parser takes a byte order mark off the front of whatever it is given, so it is given
/// one more to take: a row that begins with one keeps it, wherever a batch begins.
fn parse(bytes: &[u8], delimiter: u8) -> Vec<ByteRecord> {
    let marked = if bytes.starts_with(BOM) { [BOM, bytes].concat() } else { Vec::new() };
    let mut reader = ReaderBuilder::new()
        .has_headers(false)
        .flexible(true)
        .terminator(Terminator::Any(b'\n'))
        .delimiter(delimiter)
        .from_reader(if marked.is_empty() { bytes } else { &marked });
    reader.byte_records().map_while(Result::ok).collect()
}
