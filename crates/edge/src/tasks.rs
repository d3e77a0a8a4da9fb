//! `POST /v1/tasks` and `GET /v1/tasks/{key}`: any service, any body.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use hyper::body::Incoming;
use hyper::header::HeaderMap;
use hyper::{Request, StatusCode};
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};
use sheaf_task::{Answer, Failure, Key, NAME_BYTES_MAX, Outcome, Question, TaskInfo, TaskState, Upstream, Waiting};

use crate::body::{self, is_object};
use crate::calls::{Done, JobKey};
use crate::online::{Wish, begin, wait};
use crate::outcome::{failed, named, refused_reply};
use crate::reply::{ApiError, Reply, json_reply};
use crate::serve::Door;
use crate::tenants::Tenant;

/// A task as it is asked for.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked<'a> {
    service: String,
    /// A text is the body itself, anything else is it as JSON.
    #[serde(borrow)]
    body: &'a RawValue,
    #[serde(default)]
    revision: String,
    #[serde(default)]
    timeout_ms: u64,
    /// Answered when it is done, rather than when it is on disk.
    wait: Option<bool>,
}

/// Answers `POST /v1/tasks`.
pub(crate) async fn post(door: &Door, tenant: &Tenant, request: Request<Incoming>) -> Reply {
    let (parts, incoming) = request.into_parts();
    let read = match body::read(door, incoming).await {
        Ok(read) => read,
        Err(reply) => return reply,
    };
    let (job, body, is_async) = match read_asked(&parts.headers, &read) {
        Ok(asked) => asked,
        Err(error) => return error.reply(),
    };
    drop(read);
    let told = match begin(door, tenant, &parts.headers, job, body, if is_async { Wish::Accepted } else { Wish::Done })
        .await
    {
        Ok(told) => told,
        Err(reply) => return reply,
    };
    match wait(door, told).await {
        Ok(Done { key, outcome, attempts, worker, ms }) => {
            let status = match &outcome {
                Outcome::Ok(_) => StatusCode::OK,
                Outcome::Failed(failure) => failed(failure).0.status,
            };
            let mut fields = outcome_fields(key, &outcome);
            fields.insert("attempts".to_owned(), attempts.into());
            fields.insert("worker".to_owned(), (&*worker).into());
            fields.insert("ms".to_owned(), ms.into());
            named(json_reply(status, &Value::Object(fields)), key)
        }
        Err(reply) => reply,
    }
}

/// Answers `GET /v1/tasks/{key}`.
pub(crate) async fn get(door: &Door, tenant: &Tenant, key: &str) -> Reply {
    let unknown = || ApiError::not_found(format!("there is no task {key}"), Some("task_not_found")).reply();
    let Some(key) = Key::parse(key) else { return unknown() };
    match tenant.caller.ask(Question::Task(key)).await {
        Ok(Answer::Task(Some(info))) => json_reply(StatusCode::OK, &info_fields(info).into()),
        Ok(_) => unknown(),
        Err(refused) => refused_reply(&refused, door.names.number()),
    }
}

fn read_asked(headers: &HeaderMap, read: &[u8]) -> Result<(JobKey, Bytes, bool), ApiError> {
    let wrong = |why: &str| {
        let message = format!("a task is {{\"service\", \"body\"}}, and may have revision, timeout_ms and wait: {why}");
        ApiError::invalid(message, None)
    };
    if !is_object(read) {
        return Err(wrong("this is no JSON object"));
    }
    let asked: Asked<'_> = serde_json::from_slice(read).map_err(|error| wrong(&error.to_string()))?;
    let Asked { service, body, revision, timeout_ms, wait } = asked;
    if service.is_empty() || service.len() > NAME_BYTES_MAX {
        return Err(ApiError::invalid(format!("a service's name has 1 to {NAME_BYTES_MAX} bytes"), Some("service")));
    }
    if revision.len() > REVISION_BYTES_MAX {
        return Err(ApiError::invalid(format!("a revision has {REVISION_BYTES_MAX} bytes at most"), Some("revision")));
    }
    let body = match serde_json::from_str::<String>(body.get()) {
        Ok(text) => Bytes::from(text),
        Err(_) => Bytes::copy_from_slice(body.get().as_bytes()),
    };
    let prefers_async = headers.get_all("prefer").iter().any(|prefer| {
        prefer.to_str().is_ok_and(|prefer| prefer.split([',', ';']).any(|word| word.trim() == "respond-async"))
    });
    let is_async = !wait.unwrap_or(!prefers_async);
    Ok((JobKey { service, revision, timeout_ms }, body, is_async))
}

/// How a task ended. A JSON object or array is shown as such, other output as text.
fn outcome_fields(key: Key, outcome: &Outcome) -> Map<String, Value> {
    let mut fields = Map::new();
    fields.insert("key".to_owned(), key.to_string().into());
    match outcome {
        Outcome::Ok(output) => {
            fields.insert("status".to_owned(), "ok".into());
            let (name, value) = output_field(output);
            fields.insert(name.to_owned(), value);
        }
        Outcome::Failed(failure) => {
            fields.insert("status".to_owned(), "failed".into());
            fields.insert("error".to_owned(), error_field(failure));
        }
    }
    fields
}

fn output_field(output: &[u8]) -> (&'static str, Value) {
    if matches!(output.first(), Some(b'{' | b'['))
        && let Ok(value) = serde_json::from_slice(output)
    {
        return ("output", value);
    }
    match std::str::from_utf8(output) {
        Ok(text) => ("output", text.into()),
        Err(_) => ("output_base64", STANDARD.encode(output).into()),
    }
}

/// The four fields that every error has, and what the worker saw.
fn error_field(failure: &Failure) -> Value {
    let (error, _) = failed(failure);
    let stderr = String::from_utf8_lossy(&failure.evidence.stderr);
    let upstream = failure.evidence.upstream.as_deref().map(|upstream| {
        let Upstream { status, message, kind, param, code } = upstream;
        json!({"status": status, "message": message, "type": kind, "param": param, "code": code})
    });
    json!({
        "message": error.message, "type": error.kind, "param": null, "code": failure.class.name(),
        "evidence": {
            "stderr": stderr, "exit_code": failure.evidence.exit_code, "signal": failure.evidence.signal,
            "upstream": upstream,
        },
    })
}

fn info_fields(info: TaskInfo) -> Map<String, Value> {
    let TaskInfo { key, service, body_len: _, attempts, state, output } = info;
    let mut fields = match state {
        TaskState::Ok => outcome_fields(key, &Outcome::Ok(output.unwrap_or_default())),
        TaskState::Failed(failure) => outcome_fields(key, &Outcome::Failed(failure)),
        TaskState::Running { worker, ms } => {
            let running = json!({"key": key.to_string(), "status": "running", "worker": worker, "ms": ms});
            running.as_object().cloned().unwrap_or_default()
        }
        TaskState::Waiting(why) => {
            let waiting = json!({"key": key.to_string(), "status": "waiting", "why": why_word(&why)});
            waiting.as_object().cloned().unwrap_or_default()
        }
    };
    fields.insert("attempts".to_owned(), attempts.into());
    // Of a task that has ended the router keeps its outcome only.
    if !service.is_empty() {
        fields.insert("service".to_owned(), service.into());
    }
    fields
}

fn why_word(why: &Waiting) -> &'static str {
    match why {
        Waiting::NoWorker { .. } => "no_worker",
        Waiting::AllFull { .. } => "all_full",
        Waiting::Backoff { .. } => "backoff",
        Waiting::Withheld { .. } => "withheld",
        Waiting::Suspect => "suspect",
        Waiting::Rate => "rate",
        Waiting::Ready => "ready",
    }
}

/// The name of a job holds its revision and a few words more.
const REVISION_BYTES_MAX: usize = NAME_BYTES_MAX - 64;

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(headers: &HeaderMap, body: &str) -> Result<(String, bool), Option<&'static str>> {
        match read_asked(headers, body.as_bytes()) {
            Ok((_, body, is_async)) => Ok((String::from_utf8(body.to_vec()).unwrap(), is_async)),
            Err(error) => Err(error.param),
        }
    }

    #[test]
    fn a_text_is_the_body_itself_and_anything_else_is_json() {
        let none = HeaderMap::new();
        let body = |json: &str| asked(&none, &format!(r#"{{"service":"s","body":{json}}}"#)).unwrap().0;
        assert_eq!(body(r#""a\nb""#), "a\nb");
        assert_eq!(body(r#"{"b": 1.50,  "a":[]}"#), r#"{"b": 1.50,  "a":[]}"#);
        assert_eq!(body("null"), "null");
    }

    #[test]
    fn the_body_or_the_header_says_whether_to_wait() {
        let mut prefer = HeaderMap::new();
        prefer.insert("prefer", "handling=strict, respond-async".parse().unwrap());
        let task = |more: &str| format!(r#"{{"service":"s","body":""{more}}}"#);
        for (headers, more, is_async) in [
            (HeaderMap::new(), "", false),
            (HeaderMap::new(), r#","wait":false"#, true),
            (prefer.clone(), "", true),
            (prefer, r#","wait":true"#, false),
        ] {
            assert_eq!(asked(&headers, &task(more)).unwrap().1, is_async);
        }
    }

    #[test]
    fn a_task_without_a_service_or_a_body_or_with_words_unknown_is_none() {
        let none = HeaderMap::new();
        for bad in [
            "",
            "{}",
            r#"["s",1,"",0,null]"#,
            r#""s""#,
            r#"{"service":"s"}"#,
            r#"{"body":1}"#,
            r#"{"service":"s","body":1,"revison":"r"}"#,
        ] {
            assert_eq!(asked(&none, bad), Err(None), "{bad}");
        }
        assert_eq!(asked(&none, r#"{"service":"","body":1}"#), Err(Some("service")));
        let long = format!(r#"{{"service":"s","body":1,"revision":"{}"}}"#, "r".repeat(REVISION_BYTES_MAX + 1));
        assert_eq!(asked(&none, &long), Err(Some("revision")));
    }

    #[test]
    fn output_is_shown_as_what_it_is() {
        assert_eq!(output_field(b"{\"a\":1}"), ("output", json!({"a": 1})));
        assert_eq!(output_field(b"{torn"), ("output", json!("{torn")));
        assert_eq!(output_field(b"42"), ("output", json!("42")));
        assert_eq!(output_field(b"\xff\x00"), ("output_base64", json!("/wA=")));
    }
}
