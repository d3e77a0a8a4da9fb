//! The lines that a `--serve` program reads and writes.
//!
//! ```text
//! to it     {"id":7,"body":"the row"}
//! from it   {"id":7,"output":"the answer"}           any other JSON value is an answer too, kept as written; null is none
//!           {"id":7,"error":"why not"}               final, as a program's exit 1
//!           {"id":7,"error":"busy","retry":true}     passing, as a program's exit 75
//! ```
//!
//! A line that does not begin with `{` is no answer and no fault either, in small numbers: libraries print greetings.

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;
use sheaf_task::{BODY_BYTES_MAX, Class, Failure, Outcome};

/// Longest line read: a body of the largest size, every byte of it escaped.
pub(super) const LINE_BYTES_MAX: usize = 6 * BODY_BYTES_MAX + 1024;

/// What a line is.
#[derive(Debug, PartialEq)]
pub(super) enum Line {
    /// The end of task `id`, if there is one.
    Answer { id: u64, outcome: Outcome },
    /// It should have been an answer; the task that it was for, where that can be told.
    Garbage { id: Option<u64> },
    /// Not meant as an answer.
    Stray,
}

#[derive(Deserialize)]
struct Answer<'a> {
    id: u64,
    #[serde(borrow)]
    output: Option<&'a RawValue>,
    error: Option<&'a RawValue>,
    #[serde(default)]
    retry: bool,
}

/// The line of one task.
pub(super) fn write(id: u64, body: &str) -> Vec<u8> {
    let mut line = format!("{{\"id\":{id},\"body\":").into_bytes();
    #[expect(clippy::expect_used, reason = "a string is JSON, and a Vec takes every byte")]
    serde_json::to_writer(&mut line, body).expect("a string into memory");
    line.extend_from_slice(b"}\n");
    line
}

/// Reads one line, without its end.
pub(super) fn read(line: &[u8]) -> Line {
    let line = line.trim_ascii();
    if !line.starts_with(b"{") {
        return Line::Stray;
    }
    let Ok(answer) = serde_json::from_slice::<Answer<'_>>(line) else {
        return Line::Garbage { id: id_in(line) };
    };
    let id = answer.id;
    match (answer.output, answer.error) {
        (Some(output), None) => match text_of(output) {
            Some(body) if body.len() > BODY_BYTES_MAX => Line::Answer { id, outcome: too_long() },
            Some(body) => Line::Answer { id, outcome: Outcome::Ok(body) },
            None => Line::Garbage { id: Some(id) },
        },
        (None, Some(error)) => {
            let class = if answer.retry { Class::Error } else { Class::Rejected };
            let message = text_of(error).unwrap_or_else(|| Bytes::copy_from_slice(error.get().as_bytes()));
            let message = String::from_utf8_lossy(&message).chars().take(MESSAGE_CHARS_MAX).collect::<String>();
            Line::Answer { id, outcome: Outcome::Failed(Failure::new(class, message)) }
        }
        (Some(_), Some(_)) | (None, None) => Line::Garbage { id: Some(id) },
    }
}

/// The answer to a result that is too long to travel.
pub(super) fn too_long() -> Outcome {
    let message = format!("the answer is longer than {BODY_BYTES_MAX} bytes, the most that a result may hold");
    Outcome::Failed(Failure::new(Class::Rejected, message))
}

/// A string's text, any other value as written; `None` for a string that is no text (a lone surrogate).
fn text_of(value: &RawValue) -> Option<Bytes> {
    let raw = value.get();
    if raw.starts_with('"') {
        return serde_json::from_str::<String>(raw).ok().map(Bytes::from);
    }
    Some(Bytes::copy_from_slice(raw.as_bytes()))
}

/// The number after the first `"id":` near the start of a line that is no JSON, or not all of one.
pub(super) fn id_in(line: &[u8]) -> Option<u64> {
    let head = &line[..line.len().min(ID_WITHIN)];
    let at = head.windows(4).position(|window| window == b"\"id\"")?;
    let rest = head[at + 4..].trim_ascii_start().strip_prefix(b":")?.trim_ascii_start();
    let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
    std::str::from_utf8(&rest[..digits]).ok()?.parse().ok()
}

/// How far into a broken line its id is looked for.
const ID_WITHIN: usize = 256;
/// Of a program's own words about a row, as many go into the failure.
const MESSAGE_CHARS_MAX: usize = 1_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(line: &str, want: Line) {
        assert_eq!(read(line.as_bytes()), want, "{line}");
    }

    fn ok(id: u64, body: &'static str) -> Line {
        Line::Answer { id, outcome: Outcome::Ok(Bytes::from_static(body.as_bytes())) }
    }

    #[test]
    fn answers() {
        check(r#"{"id":7,"output":"a\nb é"}"#, ok(7, "a\nb é"));
        check(r#" {"output":{"x": [1, 2.50]},"id":7,"extra":1} "#, ok(7, r#"{"x": [1, 2.50]}"#));
        check(r#"{"id":7,"output":""}"#, ok(7, ""));
        let failure = |class| Line::Answer { id: 7, outcome: Outcome::Failed(Failure::new(class, "no")) };
        check(r#"{"id":7,"error":"no"}"#, failure(Class::Rejected));
        check(r#"{"id":7,"error":"no","retry":true}"#, failure(Class::Error));
    }

    #[test]
    fn garbage_names_its_task_where_it_can() {
        check(r#"{"id":7}"#, Line::Garbage { id: Some(7) });
        check(r#"{"id":7,"output":null}"#, Line::Garbage { id: Some(7) });
        check(r#"{"id":7,"output":NaN}"#, Line::Garbage { id: Some(7) });
        check(r#"{"id":7,"output":"\ud800"}"#, Line::Garbage { id: Some(7) });
        check(r#"{"id":7,"output":"cut he"#, Line::Garbage { id: Some(7) });
        check(r#"{"output":1}"#, Line::Garbage { id: None });
        check(r#"{"id":"7","output":1}"#, Line::Garbage { id: None });
        check("{", Line::Garbage { id: None });
        check("<html>", Line::Stray);
        check("", Line::Stray);
    }

    #[test]
    fn a_body_is_one_line() {
        assert_eq!(write(3, "a\n\"b\"\u{2028}"), "{\"id\":3,\"body\":\"a\\n\\\"b\\\"\u{2028}\"}\n".as_bytes());
    }
}
