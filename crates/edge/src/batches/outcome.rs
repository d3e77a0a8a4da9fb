//! From a line of a job's results to a line of a batch's output or error file. It knows no file.

use serde::{Deserialize, Serialize};
use serde_json::json;
use serde_json::value::RawValue;
use sheaf_task::Upstream;

use super::record::{Ending, Usage};
use crate::body::is_object;
use crate::outcome::{own_error, rejected_status};
use crate::vectors::{Encoding, converted};

/// A line as a job's sink writes it, as far as it matters here.
#[derive(Deserialize)]
struct SinkLine {
    row: u64,
    id: String,
    output: Option<String>,
    output_base64: Option<String>,
    error: Option<SinkFailure>,
    key: Option<String>,
}

#[derive(Deserialize)]
struct SinkFailure {
    class: String,
    message: String,
    evidence: SinkEvidence,
}

#[derive(Deserialize)]
struct SinkEvidence {
    upstream: Option<SinkUpstream>,
}

#[derive(Deserialize)]
struct SinkUpstream {
    status: u16,
    message: String,
    #[serde(rename = "type")]
    kind: String,
    param: String,
    code: String,
}

/// A line as clients of OpenAI's API expect it.
#[derive(Serialize)]
struct OutLine {
    id: String,
    custom_id: String,
    response: Option<Response>,
    error: Option<LineError>,
}

#[derive(Serialize)]
struct Response {
    status_code: u16,
    request_id: String,
    body: Box<RawValue>,
}

#[derive(Serialize)]
struct LineError {
    code: String,
    message: String,
}

/// What became of a line of the input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Outcome {
    /// The line's number in its source.
    pub(super) row: u64,
    /// It belongs into the output file; else into the error file.
    pub(super) is_ok: bool,
    /// The line that is written, with its ending.
    pub(super) line: Vec<u8>,
    /// What the answer tells of tokens.
    pub(super) usage: Option<Usage>,
}

/// What became of a line that a job's sink has an outcome of, its vectors as they were asked for.
///
/// # Errors
/// It is no line of a sink.
pub(super) fn outcome(sink_line: &[u8], encoding: Option<Encoding>, ending: Ending) -> serde_json::Result<Outcome> {
    let SinkLine { row, id, output, output_base64, error, key } = serde_json::from_slice(sink_line)?;
    let usage = output.as_deref().and_then(usage_of);
    let request_id = key.unwrap_or_else(|| format!("row-{row}"));
    let (response, error) = match (error, output) {
        (None, Some(output)) => (Some((200, body_of(encoded(output, encoding))?)), None),
        (None, None) => (Some((200, raw(&json!({"output_base64": output_base64}))?)), None),
        (Some(failure), _) if failure.class == "rejected" => (Some(rejection(failure)?), None),
        (Some(failure), _) => (None, Some(line_error(failure, ending))),
    };
    let is_ok = response.as_ref().is_some_and(|(status, _)| *status == 200);
    let response = response.map(|(status_code, body)| Response { status_code, request_id: request_id.clone(), body });
    let line = written(&OutLine { id: line_id(&request_id), custom_id: id, response, error })?;
    Ok(Outcome { row, is_ok, line, usage })
}

/// What is written of a line that has no outcome, and will have none.
pub(super) fn without_outcome(row: u64, part: usize, custom_id: String, ending: Ending) -> serde_json::Result<Vec<u8>> {
    let id = line_id(&format!("{part}-{row}"));
    written(&OutLine { id, custom_id, response: None, error: Some(stopped(ending)) })
}

fn line_id(request_id: &str) -> String {
    format!("batch_req_{request_id}")
}

fn written(line: &OutLine) -> serde_json::Result<Vec<u8>> {
    let mut text = serde_json::to_vec(line)?;
    text.push(b'\n');
    Ok(text)
}

/// What an answer tells of tokens, in the words of the older or the newer endpoints.
#[derive(Deserialize)]
struct Answer {
    usage: Option<Told>,
}

/// Some backends say it in the words of both: then the older ones count.
#[derive(Deserialize)]
struct Told {
    prompt_tokens: Option<u64>,
    input_tokens: Option<u64>,
    completion_tokens: Option<u64>,
    output_tokens: Option<u64>,
    total_tokens: Option<u64>,
    prompt_tokens_details: Option<Details>,
    input_tokens_details: Option<Details>,
    completion_tokens_details: Option<Details>,
    output_tokens_details: Option<Details>,
}

#[derive(Default, Deserialize)]
struct Details {
    cached_tokens: Option<u64>,
    reasoning_tokens: Option<u64>,
}

/// None where it tells nothing, or nothing that can be counted.
fn usage_of(answer: &str) -> Option<Usage> {
    // A struct would be read of an array too, field by field.
    if !is_object(answer.as_bytes()) {
        return None;
    }
    let told = match serde_json::from_str(answer) {
        Ok(Answer { usage }) => usage?,
        Err(error) => {
            tracing::debug!(%error, "what an answer tells of tokens cannot be counted");
            return None;
        }
    };
    let (input, output) = (told.prompt_tokens.or(told.input_tokens), told.completion_tokens.or(told.output_tokens));
    input.or(output).or(told.total_tokens)?;
    let (input, output) = (input.unwrap_or(0), output.unwrap_or(0));
    let total = told.total_tokens.unwrap_or_else(|| input.saturating_add(output));
    let details = |older: Option<Details>, newer: Option<Details>| older.or(newer).unwrap_or_default();
    let cached = details(told.prompt_tokens_details, told.input_tokens_details).cached_tokens.unwrap_or(0);
    let reasoning = details(told.completion_tokens_details, told.output_tokens_details).reasoning_tokens.unwrap_or(0);
    Some(Usage { input, cached, output, reasoning, total })
}

/// An answer with its vectors as they were asked for.
fn encoded(output: String, encoding: Option<Encoding>) -> String {
    let changed = encoding.and_then(|encoding| converted(output.as_bytes(), encoding));
    changed.and_then(|changed| String::from_utf8(changed).ok()).unwrap_or(output)
}

/// JSON as it came, on one line; of a program that answers something else, a string.
fn body_of(output: String) -> serde_json::Result<Box<RawValue>> {
    // Between the tokens of JSON, and only there, a line break is white space.
    let line = if output.contains(['\n', '\r']) { output.replace(['\n', '\r'], " ") } else { output.clone() };
    RawValue::from_string(line).or_else(|_| raw(&output.into()))
}

fn raw(value: &serde_json::Value) -> serde_json::Result<Box<RawValue>> {
    serde_json::value::to_raw_value(value)
}

/// The answer of who refused the line, where it is known, in the form that clients expect.
fn rejection(failure: SinkFailure) -> serde_json::Result<(u16, Box<RawValue>)> {
    let SinkFailure { message, evidence, .. } = failure;
    let upstream = evidence.upstream.map(|said| {
        let SinkUpstream { status, message, kind, param, code } = said;
        Upstream { status, message, kind, param, code }
    });
    let status = rejected_status(upstream.as_ref().map(|upstream| upstream.status)).as_u16();
    if let Some(said) = upstream.as_ref().and_then(own_error) {
        return Ok((status, raw(&said)?));
    }
    let error = json!({"message": message, "type": "invalid_request_error", "param": null, "code": null});
    Ok((status, raw(&json!({"error": error}))?))
}

fn line_error(failure: SinkFailure, ending: Ending) -> LineError {
    let code = match failure.class.as_str() {
        "cancelled" | "expired" => return stopped(ending),
        "error" => "upstream_error",
        "timeout" => "request_timeout",
        "crashed" => "worker_crashed",
        "garbage" => "invalid_upstream_answer",
        _ => "server_error",
    };
    LineError { code: code.to_owned(), message: failure.message }
}

fn stopped(ending: Ending) -> LineError {
    let (code, message) = match ending {
        Ending::Complete => ("server_error", "what became of this line is not known: send it again"),
        Ending::Expired => ("batch_expired", "the completion window was over before this line was done"),
        Ending::Cancelled => ("batch_cancelled", "the batch was cancelled before this line was done"),
    };
    LineError { code: code.to_owned(), message: message.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    fn sink_line(fields: &str) -> String {
        format!(r#"{{"row": 7, "id": "a\n", {fields}, "key": "abc", "attempts": 1, "worker": "w", "ms": 3}}"#)
    }

    fn of(fields: &str, ending: Ending) -> (bool, String, Value) {
        let Outcome { row, is_ok, line, .. } = outcome(sink_line(fields).as_bytes(), None, ending).unwrap();
        let text = String::from_utf8(line).unwrap();
        assert!(row == 7 && text.ends_with('\n') && text.matches('\n').count() == 1, "{text}");
        let value: Value = serde_json::from_str(&text).unwrap();
        assert_eq!((&value["custom_id"], &value["id"]), (&"a\n".into(), &"batch_req_abc".into()));
        (is_ok, text, value)
    }

    fn failed(class: &str, message: &str, upstream: &Value) -> String {
        let evidence = json!({"exit_code": 1, "stderr": "x", "upstream": upstream});
        let error = json!({"class": class, "message": message, "evidence": evidence});
        format!(r#""status": "failed", "output": null, "error": {error}"#)
    }

    #[test]
    fn an_answer_keeps_its_bytes() {
        let (is_ok, text, value) = of(r#""output": "{\"z\": 1e3,\n \"a\":0.10}", "error": null"#, Ending::Complete);
        assert!(is_ok && text.contains(r#""body":{"z": 1e3,  "a":0.10}"#), "{text}");
        assert_eq!((&value["error"], &value["response"]["status_code"]), (&Value::Null, &200.into()));
        assert_eq!(value["response"]["request_id"], "abc");
    }

    #[test]
    fn what_is_no_json_is_a_string_with_its_line_breaks() {
        let (is_ok, _, value) = of(r#""output": "two\nlines", "error": null"#, Ending::Complete);
        assert!(is_ok);
        assert_eq!(value["response"]["body"], "two\nlines");
        let (is_ok, _, value) = of(r#""output": null, "output_base64": "/w==", "error": null"#, Ending::Complete);
        assert!(is_ok);
        assert_eq!(value["response"]["body"]["output_base64"], "/w==");
    }

    #[test]
    fn a_rejection_is_a_response_with_the_answer_of_who_rejected() {
        let said = json!({"status": 422, "message": "too long", "type": "x", "param": "", "code": "y"});
        let (is_ok, _, value) = of(&failed("rejected", "http://h/v1 answers: x", &said), Ending::Complete);
        assert!(!is_ok);
        assert_eq!((&value["error"], &value["response"]["status_code"]), (&Value::Null, &422.into()));
        let expected = json!({"error": {"message": "too long", "type": "x", "param": null, "code": "y"}});
        assert_eq!(value["response"]["body"], expected);
        let (_, _, value) = of(&failed("rejected", "exit code 1", &Value::Null), Ending::Complete);
        assert_eq!(value["response"]["status_code"], 400);
        assert_eq!(value["response"]["body"]["error"]["message"], "exit code 1");
    }

    #[test]
    fn other_failures_are_errors_and_a_stopped_line_says_by_what() {
        let code = |class: &str, ending| {
            let (is_ok, _, value) = of(&failed(class, "m", &Value::Null), ending);
            assert!(!is_ok && value["response"].is_null());
            value["error"]["code"].as_str().unwrap().to_owned()
        };
        assert_eq!(code("timeout", Ending::Complete), "request_timeout");
        assert_eq!(code("crashed", Ending::Cancelled), "worker_crashed");
        assert_eq!(code("cancelled", Ending::Cancelled), "batch_cancelled");
        assert_eq!(code("cancelled", Ending::Expired), "batch_expired");
        let line = without_outcome(3, 0, "c".into(), Ending::Expired).unwrap();
        let value: Value = serde_json::from_slice(&line).unwrap();
        assert_eq!((&value["custom_id"], &value["error"]["code"]), (&"c".into(), &"batch_expired".into()));
    }

    #[test]
    fn tokens_are_those_that_the_answer_tells_of() {
        let usage = |input, cached, output, reasoning, total| Some(Usage { input, cached, output, reasoning, total });
        assert_eq!(usage_of(r#"{"usage": {"prompt_tokens": 2, "total_tokens": 9}}"#), usage(2, 0, 0, 0, 9));
        let newer =
            r#"{"usage": {"input_tokens": 2, "output_tokens": 3, "input_tokens_details": {"cached_tokens": 1}}}"#;
        assert_eq!(usage_of(newer), usage(2, 1, 3, 0, 5));
        let both = r#"{"usage": {"prompt_tokens": 2, "input_tokens": 2, "completion_tokens": 3, "output_tokens": 3,
            "total_tokens": 5, "prompt_tokens_details": null, "input_tokens_details": {"cached_tokens": 1},
            "completion_tokens_details": {"reasoning_tokens": 2}, "output_tokens_details": {"reasoning_tokens": 2}}}"#;
        assert_eq!(usage_of(both), usage(2, 1, 3, 2, 5));
        for none in ["", "text", "{}", r#"{"usage": {}}"#, r#"{"usage": "7"}"#, r#"[{"prompt_tokens": 2}]"#] {
            assert_eq!(usage_of(none), None, "{none}");
        }
        assert_eq!(usage_of(r#"{"usage": {"prompt_tokens": -1}}"#), None);
    }

    #[test]
    fn what_is_no_line_of_a_sink_is_an_error() {
        assert!(outcome(b"{\"row\": 1", None, Ending::Complete).is_err());
    }
}
