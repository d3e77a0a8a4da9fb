//! From a line of a job's results to a line of a batch's output or error file. It knows no file.

use serde::{Deserialize, Serialize};
use serde_json::json;
use serde_json::value::RawValue;
use sheaf_task::Upstream;

use super::record::Ending;
use crate::outcome::{own_error, rejected_status};

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
}

/// What became of a line that a job's sink has an outcome of.
///
/// # Errors
/// It is no line of a sink.
pub(super) fn outcome(sink_line: &[u8], ending: Ending) -> serde_json::Result<Outcome> {
    let SinkLine { row, id, output, output_base64, error, key } = serde_json::from_slice(sink_line)?;
    let request_id = key.unwrap_or_else(|| format!("row-{row}"));
    let (response, error) = match (error, output) {
        (None, Some(output)) => (Some((200, body_of(output)?)), None),
        (None, None) => (Some((200, raw(&json!({"output_base64": output_base64}))?)), None),
        (Some(failure), _) if failure.class == "rejected" => (Some(rejection(failure)?), None),
        (Some(failure), _) => (None, Some(line_error(failure, ending))),
    };
    let is_ok = response.as_ref().is_some_and(|(status, _)| *status == 200);
    let response = response.map(|(status_code, body)| Response { status_code, request_id: request_id.clone(), body });
    let line = written(&OutLine { id: line_id(&request_id), custom_id: id, response, error })?;
    Ok(Outcome { row, is_ok, line })
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
        let Outcome { row, is_ok, line } = outcome(sink_line(fields).as_bytes(), ending).unwrap();
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
    fn what_is_no_line_of_a_sink_is_an_error() {
        assert!(outcome(b"{\"row\": 1", Ending::Complete).is_err());
    }
}
