//! What an answer over HTTP means: outcomes of rows, and the mood of the backend.
//!
//! | answer | outcome | the backend |
//! |---|---|---|
//! | 2xx | ok, the body as it came | good |
//! | 408, 425, 429, 503, with `Retry-After` or without | held; `error` when that takes too long | pressed |
//! | other 4xx | rejected | good |
//! | 5xx | error | failed |
//! | 3xx | error | away: another address is meant |
//! | no connection | held; `error` when that takes too long | away |
//! | a connection or reply that breaks off | error | failed |
//! | nothing in time | timeout | failed |
//! | a reply over the limit | rejected | good |

use std::time::Duration;

use bytes::Bytes;
use hyper::StatusCode;
use serde_json::Value;
use sheaf_task::{BODY_BYTES_MAX, Class, Evidence, Failure, Fence, Outcome, STDERR_TAIL_MAX, Upstream};

use super::client::{Answer, Reply};
use super::pace::Mood;
use crate::backend::Backend;
use crate::exec::verdict;

/// What an answer means for one row.
#[derive(Debug)]
pub(super) enum Verdict {
    /// The attempt is over.
    Ended(Outcome),
    /// It was refused in company: alone, it is judged by itself.
    Alone,
    /// The backend did not take it. It is sent again, and ends like this where that takes too long.
    Held(Failure),
}

/// What an answer means.
pub(super) struct Judged {
    pub(super) verdicts: Vec<(Fence, Verdict)>,
    pub(super) mood: Mood,
    /// For the log, where the mood is a bad one.
    pub(super) says: String,
}

/// Attempts that share a request: which, and the time-limit of each as its job gave it.
pub(super) type Rows = [(Fence, u64)];

/// The answer of a backend that may be anything.
pub(super) fn plain(backend: &Backend, rows: &Rows, answer: Answer) -> Judged {
    let reply = match sound(backend, rows, answer) {
        Ok(reply) => reply,
        Err(judged) => return judged,
    };
    if reply.status.is_success() {
        return all(rows, Mood::Good, String::new(), || Verdict::Ended(Outcome::Ok(reply.body.clone())));
    }
    by_status(backend, rows, &reply, false)
}

/// Nothing came in time.
pub(super) fn overdue(backend: &Backend, rows: &Rows) -> Judged {
    let verdict = |(fence, ms): &(Fence, u64)| (*fence, Verdict::Ended(late(backend, *ms)));
    Judged {
        verdicts: rows.iter().map(verdict).collect(),
        mood: Mood::Failed,
        says: format!("{} does not answer in time", backend.url.shown()),
    }
}

/// The outcome of a row whose time is over.
pub(super) fn late(backend: &Backend, timeout_ms: u64) -> Outcome {
    let limit = if timeout_ms == 0 { backend.reply } else { Duration::from_millis(timeout_ms) };
    let message = format!("{} did not answer within {limit:?}", backend.url.shown());
    verdict::failed(Class::Timeout, message, Evidence::default())
}

/// A whole reply, or what it means that there is none.
pub(super) fn sound(backend: &Backend, rows: &Rows, answer: Answer) -> Result<Reply, Judged> {
    let url = backend.url.shown();
    match answer {
        Answer::Reply(reply) => Ok(reply),
        Answer::TooLong => {
            let message =
                format!("{url} answered with more than {BODY_BYTES_MAX} bytes, the most that a result may hold");
            Err(all(rows, Mood::Good, String::new(), || ended(Class::Rejected, &message, &[])))
        }
        Answer::Unreachable(why) => {
            let message = format!("{url} cannot be reached: {why}");
            Err(all(rows, Mood::Away, message.clone(), || Verdict::Held(failure(Class::Error, &message, &[]))))
        }
        Answer::Broken(why) => {
            let message = format!("{url} broke off before its answer was whole: {why}");
            Err(all(rows, Mood::Failed, message.clone(), || ended(Class::Error, &message, &[])))
        }
    }
}

/// A reply that is no success. `is_ours`: who may call, and where to, is this worker's affair and not the row's.
pub(super) fn by_status(backend: &Backend, rows: &Rows, reply: &Reply, is_ours: bool) -> Judged {
    let (url, status, body) = (backend.url.shown(), reply.status, &reply.body);
    let upstream = read(status, body);
    let failure = |class, message: &str| {
        let mut failure = failure(class, message, body);
        failure.evidence.upstream = Some(Box::new(upstream.clone()));
        failure
    };
    let over = |class, message: &str| Verdict::Ended(Outcome::Failed(failure(class, message)));
    let message = format!("{url} answers {status}{}", excerpt(body, &upstream));
    if is_pressed(status) {
        let held = || Verdict::Held(failure(Class::Error, &message));
        return all(rows, Mood::Pressed(reply.retry_after), message.clone(), held);
    }
    if status.is_redirection() {
        let place = reply.location.as_deref().unwrap_or("another address");
        let message = format!("{url} answers {status}: it wants to be called at {place}; give that URL");
        return all(rows, Mood::Away, message.clone(), || over(Class::Error, &message));
    }
    let is_refusal = is_ours && [401, 403, 404, 405, 407].contains(&status.as_u16());
    if is_refusal {
        return all(rows, Mood::Away, message.clone(), || over(Class::Error, &message));
    }
    if status.is_client_error() {
        return all(rows, Mood::Good, String::new(), || over(Class::Rejected, &message));
    }
    all(rows, Mood::Failed, message.clone(), || over(Class::Error, &message))
}

/// It has too much to do: 408, 425 too early, 429, 503.
fn is_pressed(status: StatusCode) -> bool {
    [408, 425, 429, 503].contains(&status.as_u16())
}

pub(super) fn all(rows: &Rows, mood: Mood, says: String, verdict: impl Fn() -> Verdict) -> Judged {
    Judged { verdicts: rows.iter().map(|(fence, _)| (*fence, verdict())).collect(), mood, says }
}

pub(super) fn ended(class: Class, message: &str, body: &[u8]) -> Verdict {
    Verdict::Ended(Outcome::Failed(failure(class, message, body)))
}

/// With the beginning of what was answered as the evidence: there an error says what it is.
fn failure(class: Class, message: &str, body: &[u8]) -> Failure {
    let stderr = Bytes::copy_from_slice(&body[..body.len().min(STDERR_TAIL_MAX)]);
    Failure { class, message: message.to_owned(), evidence: Box::new(Evidence { stderr, ..Evidence::default() }) }
}

/// What an answer says of an error, `: no such model`: its message, where it has one, or its first line.
fn excerpt(body: &[u8], upstream: &Upstream) -> String {
    let said = if upstream.message.is_empty() {
        let text = String::from_utf8_lossy(&body[..body.len().min(STDERR_TAIL_MAX)]);
        text.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or_default().to_owned()
    } else {
        upstream.message.replace(['\n', '\r'], " ")
    };
    let said: String = said.chars().take(EXCERPT_CHARS_MAX).collect();
    if said.is_empty() { said } else { format!(": {said}") }
}

/// What a reply says of an error, in each of the places where APIs have it.
fn read(status: StatusCode, body: &[u8]) -> Upstream {
    let none = Upstream { status: status.as_u16(), ..Upstream::default() };
    let Ok(value) = serde_json::from_slice::<Value>(body) else { return none };
    let text = |place: &str| match value.pointer(place) {
        Some(Value::String(text)) => Some(text.clone()),
        Some(Value::Number(number)) => Some(number.to_string()),
        _ => None,
    };
    let inside = if value.get("error").is_some_and(Value::is_object) { "/error" } else { "" };
    let field = |name: &str| text(&format!("{inside}/{name}"));
    let message = field("message").or_else(|| text("/error")).or_else(|| text("/detail"));
    let word = |name: &str| field(name).unwrap_or_default();
    let (kind, param, code) = (word("type"), word("param"), word("code"));
    Upstream { message: message.unwrap_or_default(), kind, param, code, ..none }.cut()
}

/// Of an answer, as much as a message of one line bears.
const EXCERPT_CHARS_MAX: usize = 300;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_read_wherever_it_stands() {
        let read = |body: &str| {
            let Upstream { status, message, kind, param, code } = read(StatusCode::BAD_REQUEST, body.as_bytes());
            assert_eq!(status, 400);
            [message, kind, param, code].join("|")
        };
        let cases = [
            (r#"{"error":{"message":"m","type":"t","param":"p","code":"c"}}"#, "m|t|p|c"),
            (r#"{"error":{"message":"m","type":null,"code":400}}"#, "m|||400"),
            (r#"{"object":"error","message":"m","type":"t","param":null,"code":40303}"#, "m|t||40303"),
            (r#"{"error":"m"}"#, "m|||"),
            (r#"{"detail":"m"}"#, "m|||"),
            (r#"{"detail":[{"loc":1}]}"#, "|||"),
            ("[1]", "|||"),
            ("no JSON", "|||"),
        ];
        cases.into_iter().for_each(|(body, expected)| assert_eq!(read(body), expected, "{body}"));
    }

    #[test]
    fn what_is_long_is_cut_between_characters() {
        let long = serde_json::json!({"error": {"message": "é".repeat(5_000), "code": "c"}}).to_string();
        let Upstream { message, code, .. } = read(StatusCode::BAD_REQUEST, long.as_bytes());
        assert_eq!((message.len(), code.as_str()), (sheaf_task::UPSTREAM_TEXT_MAX, "c"));
    }
}
