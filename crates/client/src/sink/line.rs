//! How one result looks as a line of JSONL or a record of CSV.
//!
//! JSONL: `{"row": 17, "id": …, "status": "ok|failed", "output": …, "error": {class, message, evidence}, "key": …,
//! "attempts": 1, "worker": …, "ms": 12}`, and `"tokens": {prompt, completion}` where they are known. `output` is a string; an answer that is not UTF-8 is in `output_base64`
//! instead. CSV has the same in columns.

use std::io::Write;
use std::path::Path;

use sheaf_task::{Failure, Outcome, Upstream};

use super::SinkRow;
use crate::prompt::Tokens;
use crate::source::{SourceId, push_json_string};

/// The kinds of file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    Jsonl,
    Csv,
}

const COLUMNS: [&str; 14] = [
    "row",
    "id",
    "status",
    "output",
    "output_base64",
    "error_class",
    "error_message",
    "exit_code",
    "signal",
    "stderr",
    "key",
    "attempts",
    "worker",
    "ms",
];

impl Format {
    /// By the name's ending: CSV, else JSONL.
    pub(super) fn of(path: &Path) -> Self {
        match path.extension() {
            Some(ending) if ending.eq_ignore_ascii_case("csv") => Format::Csv,
            Some(_) | None => Format::Jsonl,
        }
    }

    /// What the file begins with.
    pub(super) fn header(self) -> Vec<u8> {
        match self {
            Format::Jsonl => Vec::new(),
            Format::Csv => [COLUMNS.join(",").as_bytes(), b"\n"].concat(),
        }
    }

    /// Appends one row.
    pub(super) fn push(self, out: &mut Vec<u8>, row: &SinkRow) {
        match self {
            Format::Jsonl => push_jsonl(out, row),
            Format::Csv => push_csv(out, row),
        }
    }

    fn opening(self) -> &'static [u8] {
        match self {
            Format::Jsonl => b"{\"row\": ",
            Format::Csv => b"",
        }
    }

    /// Appends a line that was written with `number` as if it had been written with `now`; false if it is no such line.
    pub(super) fn push_renumbered(self, out: &mut Vec<u8>, line: &[u8], number: u64, now: u64) -> bool {
        let opening = self.opening();
        let digits = number.to_string();
        let rest = line.strip_prefix(opening).and_then(|rest| rest.strip_prefix(digits.as_bytes()));
        let Some(rest) = rest.filter(|rest| rest.starts_with(b",") && rest.ends_with(b"\n")) else { return false };
        out.extend_from_slice(opening);
        push_number(out, now);
        out.extend_from_slice(rest);
        true
    }
}

fn push_jsonl(out: &mut Vec<u8>, row: &SinkRow) {
    out.extend_from_slice(Format::Jsonl.opening());
    push_number(out, row.number);
    out.extend_from_slice(b", \"id\": ");
    match &row.id {
        None => out.extend_from_slice(b"null"),
        Some(SourceId::Int(number)) => push_number(out, number),
        Some(SourceId::Text(text)) => push_json_string(out, text),
    }
    match &row.outcome {
        Outcome::Ok(body) => {
            out.extend_from_slice(b", \"status\": \"ok\", \"output\": ");
            match std::str::from_utf8(body) {
                Ok(text) => push_json_string(out, text),
                Err(_) => {
                    out.extend_from_slice(b"null, \"output_base64\": \"");
                    push_base64(out, body);
                    out.push(b'"');
                }
            }
            out.extend_from_slice(b", \"error\": null");
        }
        Outcome::Failed(failure) => {
            out.extend_from_slice(b", \"status\": \"failed\", \"output\": null, \"error\": ");
            push_failure(out, failure);
        }
    }
    out.extend_from_slice(b", \"key\": ");
    match row.key {
        None => out.extend_from_slice(b"null"),
        Some(key) => push_quoted(out, key),
    }
    out.extend_from_slice(b", \"attempts\": ");
    push_number(out, row.attempts);
    out.extend_from_slice(b", \"worker\": ");
    push_json_string(out, &row.worker);
    out.extend_from_slice(b", \"ms\": ");
    push_number(out, row.ms);
    if let Some(Tokens { prompt, completion }) = row.tokens {
        out.extend_from_slice(b", \"tokens\": {\"prompt\": ");
        push_number(out, prompt);
        out.extend_from_slice(b", \"completion\": ");
        push_number(out, completion);
        out.push(b'}');
    }
    out.extend_from_slice(b"}\n");
}

fn push_failure(out: &mut Vec<u8>, failure: &Failure) {
    out.extend_from_slice(b"{\"class\": ");
    push_quoted(out, failure.class.name());
    out.extend_from_slice(b", \"message\": ");
    push_json_string(out, &failure.message);
    out.extend_from_slice(b", \"evidence\": {\"exit_code\": ");
    push_optional(out, failure.evidence.exit_code);
    out.extend_from_slice(b", \"signal\": ");
    push_optional(out, failure.evidence.signal);
    out.extend_from_slice(b", \"stderr\": ");
    push_json_string(out, &String::from_utf8_lossy(&failure.evidence.stderr));
    out.extend_from_slice(b", \"worker\": ");
    push_json_string(out, &failure.evidence.worker);
    out.extend_from_slice(b", \"deaths\": ");
    push_number(out, failure.evidence.deaths);
    if let Some(upstream) = &failure.evidence.upstream {
        push_upstream(out, upstream);
    }
    out.extend_from_slice(b"}}");
}

fn push_upstream(out: &mut Vec<u8>, upstream: &Upstream) {
    let Upstream { status, message, kind, param, code } = upstream;
    out.extend_from_slice(b", \"upstream\": {\"status\": ");
    push_number(out, status);
    for (name, text) in [("message", message), ("type", kind), ("param", param), ("code", code)] {
        out.extend_from_slice(b", ");
        push_quoted(out, name);
        out.extend_from_slice(b": ");
        push_json_string(out, text);
    }
    out.push(b'}');
}

fn push_csv(out: &mut Vec<u8>, row: &SinkRow) {
    push_number(out, row.number);
    let id = match &row.id {
        None => String::new(),
        Some(SourceId::Int(number)) => number.to_string(),
        Some(SourceId::Text(text)) => text.clone(),
    };
    push_field(out, &id);
    let optional = |value: Option<i32>| value.map_or(String::new(), |value| value.to_string());
    match &row.outcome {
        Outcome::Ok(body) => {
            push_field(out, "ok");
            match std::str::from_utf8(body) {
                Ok(text) => {
                    push_field(out, text);
                    push_field(out, "");
                }
                Err(_) => {
                    out.extend_from_slice(b",,");
                    push_base64(out, body);
                }
            }
            out.extend_from_slice(b",,,,,");
        }
        Outcome::Failed(failure) => {
            out.extend_from_slice(b",failed,,");
            push_field(out, failure.class.name());
            push_field(out, &failure.message);
            push_field(out, &optional(failure.evidence.exit_code));
            push_field(out, &optional(failure.evidence.signal));
            push_field(out, &String::from_utf8_lossy(&failure.evidence.stderr));
        }
    }
    push_field(out, &row.key.map_or(String::new(), |key| key.to_string()));
    push_field(out, &row.attempts.to_string());
    push_field(out, &row.worker);
    push_field(out, &row.ms.to_string());
    out.push(b'\n');
}

/// Appends a comma and a field, quoted where it must be.
fn push_field(out: &mut Vec<u8>, text: &str) {
    out.push(b',');
    if !text.bytes().any(|byte| matches!(byte, b'"' | b',' | b'\r' | b'\n')) {
        out.extend_from_slice(text.as_bytes());
        return;
    }
    out.push(b'"');
    for (place, part) in text.split('"').enumerate() {
        if place > 0 {
            out.extend_from_slice(b"\"\"");
        }
        out.extend_from_slice(part.as_bytes());
    }
    out.push(b'"');
}

#[expect(clippy::expect_used, reason = "writing into memory cannot fail")]
fn push_number(out: &mut Vec<u8>, number: impl std::fmt::Display) {
    write!(out, "{number}").expect("memory takes it");
}

#[expect(clippy::expect_used, reason = "writing into memory cannot fail")]
fn push_quoted(out: &mut Vec<u8>, plain: impl std::fmt::Display) {
    write!(out, "\"{plain}\"").expect("memory takes it");
}

fn push_optional(out: &mut Vec<u8>, value: Option<i32>) {
    match value {
        None => out.extend_from_slice(b"null"),
        Some(value) => push_number(out, value),
    }
}

/// Standard base64 with padding.
fn push_base64(out: &mut Vec<u8>, bytes: &[u8]) {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for chunk in bytes.chunks(3) {
        let word = chunk.iter().fold(0u32, |word, byte| word << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
        for place in 0..4 {
            let digit = DIGITS[(word >> (18 - 6 * place)) as usize & 63];
            out.push(if place <= chunk.len() { digit } else { b'=' });
        }
    }
}
