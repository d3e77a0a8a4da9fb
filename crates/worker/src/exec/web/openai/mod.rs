//! What Sheaf understands of the OpenAI-compatible API: requests that are read before they are sent, answers that are
//! checked before they count. It sends nothing.
//!
//! A task's body is the JSON of a request, and its result the JSON of the answer; which of the three it is shows in its
//! fields: `messages` (chat), `prompt` (completions), `input` (embeddings).
//!
//! | answer, beside those of `judge` | outcome |
//! |---|---|
//! | 401, 403, 404, 405, 407 | error, and the worker pauses: its key or its address is wrong, not the row |
//! | 200 with an error inside | as the status that it names, else error |
//! | no JSON, or none of this API | garbage |
//! | another number of choices or vectors than asked for | garbage |
//! | an empty vector, one of another length, NaN or infinite numbers | garbage |
//! | text that the schema of the request does not allow | garbage |
//! | a stream that ends before it says so | error |

mod ask;
mod reply;
mod schema;
mod stream;
mod vectors;

use std::collections::BTreeMap;
use std::sync::Mutex;

use bytes::Bytes;
use hyper::StatusCode;
use serde::Deserialize;
use serde_json::Value;
use sheaf_task::{Class, Outcome, Tokens};

use super::client::{Answer, Reply};
use super::judge::{self, Judged, Rows, Verdict};
use super::pace::Mood;
use crate::backend::Backend;

pub(super) use ask::{Ask, Kind, join};
pub(super) use schema::Schemas;
pub use schema::check_schema;

/// Models whose vectors' length is remembered.
const MODELS_MAX: usize = 64;

/// Lengths of vectors seen first, by model: later ones must agree.
#[derive(Default)]
pub(super) struct Lengths {
    // Requests are judged side by side; each looks once.
    of_model: Mutex<BTreeMap<String, usize>>,
}

impl Lengths {
    /// The length that vectors of `model` have, which is `seen` where none was seen before.
    fn settle(&self, model: &str, seen: usize) -> usize {
        let mut of_model = self.of_model.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if of_model.len() >= MODELS_MAX && !of_model.contains_key(model) {
            return seen;
        }
        *of_model.entry(model.to_owned()).or_insert(seen)
    }
}

/// What is wrong with an answer that came whole and with status 200.
enum Wrong {
    /// It is none.
    Garbage(String),
    /// It breaks off.
    Short(String),
    /// It says itself that it is none, with this status.
    Inside(StatusCode),
}

/// What an answer means for the rows that asked together, in the order of `asks`.
pub(super) fn judge(backend: &Backend, lengths: &Lengths, rows: &Rows, asks: &[Ask], answer: Answer) -> Judged {
    let reply = match judge::sound(backend, rows, answer) {
        Ok(reply) => reply,
        Err(judged) => return judged,
    };
    if !reply.status.is_success() {
        return apart(judge::by_status(backend, rows, &reply, true));
    }
    let url = backend.url.shown();
    match read(lengths, asks, &reply) {
        Ok(outcomes) => {
            let verdicts = rows.iter().zip(outcomes).map(|((fence, _), outcome)| {
                let verdict = outcome.map_or_else(
                    |why| judge::ended(Class::Garbage, &format!("{url} answered with {why}"), &reply.body),
                    |body| Verdict::Ended(Outcome::Ok(body)),
                );
                (*fence, verdict)
            });
            Judged { verdicts: verdicts.collect(), mood: Mood::Good, says: String::new() }
        }
        Err(Wrong::Garbage(why)) => {
            let message = format!("{url} answered with {why}");
            judge::all(rows, Mood::Failed, message.clone(), || judge::ended(Class::Garbage, &message, &reply.body))
        }
        Err(Wrong::Short(why)) => {
            let message = format!("{url} answered with {why}");
            judge::all(rows, Mood::Failed, message.clone(), || judge::ended(Class::Error, &message, &reply.body))
        }
        Err(Wrong::Inside(status)) => apart(judge::by_status(backend, rows, &Reply { status, ..reply }, true)),
    }
}

/// What an answer cost, as it says itself, in the words of the older or the newer endpoints. Of both the older count.
pub(super) fn tokens(answer: &[u8]) -> Tokens {
    #[derive(Deserialize)]
    struct Cost {
        usage: Option<Usage>,
    }
    #[derive(Deserialize)]
    struct Usage {
        prompt_tokens: Option<u64>,
        input_tokens: Option<u64>,
        completion_tokens: Option<u64>,
        output_tokens: Option<u64>,
    }
    let usage = match serde_json::from_slice(answer) {
        Ok(Cost { usage }) => usage,
        Err(error) => {
            tracing::debug!(%error, "what an answer tells of tokens cannot be counted");
            None
        }
    };
    usage.map_or(Tokens::default(), |told| Tokens {
        prompt: told.prompt_tokens.or(told.input_tokens).unwrap_or(0),
        completion: told.completion_tokens.or(told.output_tokens).unwrap_or(0),
    })
}

/// Rows that were refused together are sent again each alone: one of them may be the cause, and the others are not.
fn apart(mut judged: Judged) -> Judged {
    if judged.verdicts.len() > 1 {
        for (_, verdict) in &mut judged.verdicts {
            if let Verdict::Ended(Outcome::Failed(failure)) = verdict
                && failure.class == Class::Rejected
            {
                *verdict = Verdict::Alone;
            }
        }
    }
    judged
}

/// The body of each row's result, or what is wrong with that one.
fn read(lengths: &Lengths, asks: &[Ask], reply: &Reply) -> Result<Vec<Result<Bytes, String>>, Wrong> {
    let assembled;
    let body = if reply.is_stream {
        assembled = stream::assemble(&reply.body)?;
        &assembled
    } else {
        &reply.body
    };
    let Ok(value) = serde_json::from_slice::<Value>(body) else {
        return Err(Wrong::Garbage("something that is no JSON".to_owned()));
    };
    if let Some(status) = error_inside(&value) {
        return Err(Wrong::Inside(status));
    }
    match asks {
        [ask] if ask.kind != Kind::Embeddings => {
            reply::check(ask, &value).map_err(Wrong::Garbage)?;
            Ok(vec![Ok(body.clone())])
        }
        [] => Ok(Vec::new()),
        [first, ..] => {
            let settle = |seen| match first.dimensions {
                Some(dimensions) => dimensions,
                None => lengths.settle(&first.model, seen),
            };
            vectors::split(asks, body, settle).map_err(Wrong::Garbage)
        }
    }
}

/// The status that an error inside an answer stands for, where there is one.
fn error_inside(value: &Value) -> Option<StatusCode> {
    let error = match value.get("error") {
        None | Some(Value::Null) if value.get("object").is_some_and(|object| object == "error") => value,
        None | Some(Value::Null) => return None,
        Some(error) => error,
    };
    let codes = [error.get("code"), error.get("status")].into_iter().flatten();
    let number = |code: &Value| code.as_u64().or_else(|| code.as_str()?.parse().ok());
    let status = codes.filter_map(number).find_map(|code| StatusCode::from_u16(u16::try_from(code).ok()?).ok());
    let words = [error.get("type"), error.get("code")].into_iter().flatten().filter_map(Value::as_str);
    let is_pressed =
        |word: &str| ["rate_limit", "overloaded", "capacity", "unavailable"].iter().any(|w| word.contains(w));
    Some(match status.filter(|status| status.as_u16() >= 400) {
        Some(status) => status,
        None if words.into_iter().any(is_pressed) => StatusCode::TOO_MANY_REQUESTS,
        None => StatusCode::INTERNAL_SERVER_ERROR,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_says_what_it_cost_or_costs_nothing() {
        let of = |answer: &str| {
            let Tokens { prompt, completion } = tokens(answer.as_bytes());
            (prompt, completion)
        };
        assert_eq!(
            of(r#"{"choices":[],"usage":{"prompt_tokens":12,"completion_tokens":3,"total_tokens":15}}"#),
            (12, 3)
        );
        assert_eq!(of(r#"{"data":[{"embedding":[1.5]}],"usage":{"prompt_tokens":2,"total_tokens":2}}"#), (2, 0));
        assert_eq!(of(r#"{"usage":{"input_tokens":4,"output_tokens":5}}"#), (4, 5));
        let both = r#"{"usage":{"prompt_tokens":4,"input_tokens":4,"completion_tokens":5,"output_tokens":5}}"#;
        assert_eq!(of(both), (4, 5));
        for none in [r#"{"choices":[]}"#, r#"{"usage":null}"#, r#"{"usage":{"prompt_tokens":-1}}"#, "no JSON"] {
            assert_eq!(of(none), (0, 0), "{none}");
        }
    }
}
