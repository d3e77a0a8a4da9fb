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
use sheaf_task::{BODY_BYTES_MAX, Class, Evidence, Failure, Fence, Outcome, STDERR_TAIL_MAX};

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
            Err(all(rows, Mood::Away, message.clone(), || held(&message, &[])))
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
    let message = format!("{url} answers {status}{}", excerpt(body));
    if is_pressed(status) {
        return all(rows, Mood::Pressed(reply.retry_after), message.clone(), || held(&message, body));
    }
    if status.is_redirection() {
        let place = reply.location.as_deref().unwrap_or("another address");
        let message = format!("{url} answers {status}: it wants to be called at {place}; give that URL");
        return all(rows, Mood::Away, message.clone(), || ended(Class::Error, &message, body));
    }
    let is_refusal = is_ours && [401, 403, 404, 405, 407].contains(&status.as_u16());
    if is_refusal {
        return all(rows, Mood::Away, message.clone(), || ended(Class::Error, &message, body));
    }
    if status.is_client_error() {
        return all(rows, Mood::Good, String::new(), || ended(Class::Rejected, &message, body));
    }
    all(rows, Mood::Failed, message.clone(), || ended(Class::Error, &message, body))
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

fn held(message: &str, body: &[u8]) -> Verdict {
    Verdict::Held(failure(Class::Error, message, body))
}

/// With the beginning of what was answered as the evidence: there an error says what it is.
fn failure(class: Class, message: &str, body: &[u8]) -> Failure {
    let stderr = Bytes::copy_from_slice(&body[..body.len().min(STDERR_TAIL_MAX)]);
    Failure { class, message: message.to_owned(), evidence: Evidence { stderr, ..Evidence::default() } }
}

/// What an answer says of an error, `: no such model`: its message, where it is JSON with one, or its first line.
pub(super) fn excerpt(body: &[u8]) -> String {
    let said = message_in(body).unwrap_or_else(|| {
        let text = String::from_utf8_lossy(&body[..body.len().min(STDERR_TAIL_MAX)]);
        text.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or_default().to_owned()
    });
    let said: String = said.chars().take(EXCERPT_CHARS_MAX).collect();
    if said.is_empty() { said } else { format!(": {said}") }
}

/// In each of the places where APIs have it.
fn message_in(body: &[u8]) -> Option<String> {
    let value: Value = serde_json::from_slice(body).ok()?;
    let places = ["/error/message", "/error", "/message", "/detail"];
    places.into_iter().find_map(|place| Some(value.pointer(place)?.as_str()?.replace(['\n', '\r'], " ")))
}

/// Of an answer, as much as a message of one line bears.
const EXCERPT_CHARS_MAX: usize = 300;
