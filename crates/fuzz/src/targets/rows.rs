//! Files of rows: `format u8 | options u8 | content`. A scan must give the same rows whatever its batches and however
//! often it is begun again, numbers must rise, no body may be longer than one may be, and text is checked against a
//! reader of one expression.

use std::fs;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use sheaf_client::source::{self, Format, Source, SourceRow, SourceSpec};
use sheaf_task::BODY_BYTES_MAX;

use crate::target::{Shape, Spec, Target, scale};

pub(crate) const SPEC: Spec = Spec {
    name: "rows",
    share: 5,
    words: &[
        b"\n",
        b"\r\n",
        b"\"",
        b"\"\"",
        b",",
        b"\t",
        b"\xef\xbb\xbf",
        b"{\"a\":",
        b"\"id\":1",
        b"\\u0000",
        b"\\ud83d\\ude00",
        b"1e999",
        b"-0",
        b"9223372036854775808",
        b"null",
        b"[[[[[[[[",
        b"\xff",
        &[LONG],
    ],
    make: |dir: &Path| Box::new(Rows { path: dir.join("rows"), dir: dir.to_owned() }),
    examples,
};

/// In content: as many letters as a body may have, less a few; taken once in an input.
const LONG: u8 = 0xfe;
/// Options: name a column; name an id; let `LONG` grow.
const COLUMN: u8 = 1;
const ID: u8 = 2;
const GROWS: u8 = 0xa0;

struct Rows {
    path: PathBuf,
    dir: PathBuf,
}

impl Target for Rows {
    fn run(&mut self, input: &[u8]) -> Result<Shape, String> {
        let Some(([format, options], content)) = input.split_first_chunk() else { return Ok(Shape::default()) };
        let content = grown(*options, content);
        fs::write(&self.path, &content).map_err(|error| format!("cannot write: {error}"))?;
        let format = [Format::Text, Format::Jsonl, Format::Csv, Format::Tsv][usize::from(format % 4)];
        let mut spec = SourceSpec::new(&self.path);
        spec.format = Some(format);
        if format != Format::Text {
            spec.column = (options & COLUMN != 0).then(|| "a".to_owned());
            spec.id = (options & ID != 0).then(|| "id".to_owned());
        }
        let mut source = match source::open(&spec, &self.dir) {
            Ok(source) => source,
            Err(error) => return Ok(Shape::of((format.name(), std::mem::discriminant(&error)))),
        };
        let rows = scan(&mut *source, 1_000, usize::MAX)?;
        for (rows_max, bytes_max) in [(1, 1), (3, 10)] {
            source.rewind().map_err(|error| format!("cannot be begun again: {error}"))?;
            if scan(&mut *source, rows_max, bytes_max)? != rows {
                return Err(format!("other rows: in batches of {rows_max} rows and {bytes_max} bytes"));
            }
        }
        check(format, &content, &rows)?;
        Ok(shape(format, &rows))
    }
}

fn grown(options: u8, content: &[u8]) -> Vec<u8> {
    let long = content.iter().position(|byte| *byte == LONG).filter(|_| options & 0xf0 == GROWS);
    let Some(at) = long else { return content.to_vec() };
    let less = usize::from(options & 0x0c);
    [&content[..at], &vec![b'x'; BODY_BYTES_MAX - less], &content[at + 1..]].concat()
}

fn scan(source: &mut dyn Source, rows_max: usize, bytes_max: usize) -> Result<Vec<SourceRow>, String> {
    let mut rows: Vec<SourceRow> = Vec::new();
    loop {
        let before = rows.len();
        source.next_batch(rows_max, bytes_max, &mut rows).map_err(|error| format!("cannot be read: {error}"))?;
        if rows.len() == before {
            return Ok(rows);
        }
        if rows.len() - before > rows_max {
            return Err(format!("too many rows: {} of {rows_max}", rows.len() - before));
        }
    }
}

fn check(format: Format, content: &[u8], rows: &[SourceRow]) -> Result<(), String> {
    if !rows.is_sorted_by(|one, next| one.number < next.number) {
        return Err("numbers do not rise".to_owned());
    }
    if let Some(row) = rows.iter().find(|row| row.body.as_ref().is_ok_and(|body| body.len() > BODY_BYTES_MAX)) {
        return Err(format!("a body is too long: row {}", row.number));
    }
    if format == Format::Text {
        let bodies: Vec<Option<&[u8]>> = rows.iter().map(|row| row.body.as_deref().ok()).collect();
        if bodies != lines(content) {
            return Err("other lines: than the text has".to_owned());
        }
    }
    Ok(())
}

/// The lines of a text: without byte order mark, endings and blank lines at its end; `None` for one that is too long.
fn lines(content: &[u8]) -> Vec<Option<&[u8]>> {
    let content = content.strip_prefix(b"\xef\xbb\xbf").unwrap_or(content);
    let mut pieces: Vec<&[u8]> = content.split(|byte| *byte == b'\n').collect();
    let last = pieces.pop().unwrap_or_default();
    let mut lines: Vec<&[u8]> = pieces.into_iter().map(|line| line.strip_suffix(b"\r").unwrap_or(line)).collect();
    lines.push(last);
    while lines.last().is_some_and(|line| line.is_empty()) {
        lines.pop();
    }
    lines.into_iter().map(|line| (line.len() <= BODY_BYTES_MAX).then_some(line)).collect()
}

fn shape(format: Format, rows: &[SourceRow]) -> Shape {
    let row = |row: &SourceRow| {
        let body = row.body.as_ref().map_or_else(
            |malformed| malformed.message.trim_start_matches(|c: char| !c.is_ascii_digit()).len() / 8,
            |body: &Bytes| scale(body.len()) as usize + 100,
        );
        (row.id.as_ref().map(std::mem::discriminant), body)
    };
    Shape::of((format.name(), scale(rows.len()), rows.iter().take(4).map(row).collect::<Vec<_>>()))
}

fn examples() -> Vec<(String, Vec<u8>)> {
    let files: [(u8, u8, &[u8]); 12] = [
        (0, 0, b"one\ntwo\r\n\n\nthree"),
        (0, 0, b"\xef\xbb\xbfone\n\xff\xfe\n\n"),
        (0, GROWS, b"first\n\xfe\nlast"),
        (1, 0, b"{\"id\": 7, \"a\": \"x\\ny\"}\n\n  [1, 2] \n"),
        (1, COLUMN | ID, b"{\"id\": 7, \"a\": \"x\"}\n{oops\n{\"id\": \"k\", \"a\": {\"b\": [1.5e3, null]}}\n"),
        (1, COLUMN, b"{\"a\": \"\\ud83d\\ude00\", \"b\": true}\n{\"a\": null}\n{\"a\": 3} x\n"),
        (1, GROWS | COLUMN, b"{\"a\": \"\xfe\"}\n{\"a\": 1}\n"),
        (2, 0, b"id,a\r\n1,plain\r\n2,\"two\r\nlines, \"\"quoted\"\"\"\r\n\r\n3,x\"y\r\n"),
        (2, COLUMN | ID, b"id,a\n1,2\n3\n4,5,6\n7,\xff\n8,9\n"),
        (2, 0, b"a,b\n1,\"open\n2,x\n3,y\n"),
        (2, GROWS, b"a,b\n1,\"\xfe\n2,x\n"),
        (3, COLUMN | ID, b"id\ta\n1\t2\nx\t\"y\tz\"\n"),
    ];
    let all = files.iter().enumerate();
    all.map(|(at, (format, options, content))| (format!("file-{at:02}"), [&[*format, *options], *content].concat()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reference_reads_lines() {
        let bodies = |text: &'static [u8]| lines(text).into_iter().flatten().collect::<Vec<_>>();
        assert_eq!(bodies(b"\xef\xbb\xbfone\r\n\ntwo\n\n"), [&b"one"[..], b"", b"two"]);
        assert_eq!(bodies(b""), [&b""[..]; 0]);
    }
}
