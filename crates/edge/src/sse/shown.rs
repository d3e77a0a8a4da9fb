//! What a client has been shown of an answer while it came, and what it has still to be shown when it is whole.
//!
//! The pieces are the backend's own events; they go on as they are. Pieces may be lost, and an attempt may be followed
//! by another: then nothing more is shown until the answer is there, and only what goes on from what was shown. It
//! knows no socket and no time.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde_json::{Map, Value, json};
use sheaf_task::{BODY_BYTES_MAX, Fence, Piece};

use super::{as_delta, event};
use crate::online::Endpoint;

/// Bytes of one event, and of all the text that is remembered. More: the rest comes with the answer.
const BYTES_MAX: usize = BODY_BYTES_MAX;

/// An answer on its way.
#[derive(Debug, Default)]
pub(super) struct Shown {
    /// The attempt that is shown.
    fence: Option<Fence>,
    /// Bytes of it that came.
    at: u64,
    /// An event that is not whole yet.
    rest: Vec<u8>,
    choices: BTreeMap<u64, Choice>,
    bytes: usize,
    has_cost: bool,
    /// Something is missing: what follows it is not shown.
    is_broken: bool,
}

/// What was shown of one choice.
#[derive(Debug, Default)]
struct Choice {
    text: String,
    /// More than text: calls of tools, refusals and the like.
    has_more: bool,
    has_finish: bool,
}

impl Shown {
    /// The events to send of a piece.
    pub(super) fn piece(&mut self, piece: &Piece) -> Vec<Bytes> {
        if self.choices.is_empty() && piece.at == 0 && self.fence != Some(piece.fence) {
            *self = Self { fence: Some(piece.fence), ..Self::default() };
        }
        if self.is_broken || self.fence != Some(piece.fence) {
            return Vec::new();
        }
        if piece.at != self.at || self.rest.len() + piece.bytes.len() > BYTES_MAX {
            self.is_broken = true;
            return Vec::new();
        }
        self.at += piece.bytes.len() as u64;
        self.rest.extend_from_slice(&piece.bytes);
        let mut events = Vec::new();
        while let Some((block, len)) = first_event(&self.rest) {
            let data = data_of(block);
            self.rest.drain(..len);
            if self.is_broken {
                break;
            }
            events.extend(data.and_then(|data| self.note(&data)));
        }
        events
    }

    /// Remembers an event, and gives it back as it is sent; the end of the stream is said when the answer is there.
    fn note(&mut self, data: &str) -> Option<Bytes> {
        if data == "[DONE]" {
            return None;
        }
        let Ok(Value::Object(piece)) = serde_json::from_str(data) else {
            self.is_broken = true;
            return None;
        };
        let is_error = piece.get("error").is_some_and(|error| !error.is_null());
        self.bytes += data.len();
        if is_error || self.bytes > BYTES_MAX {
            self.is_broken = true;
            return None;
        }
        self.has_cost |= piece.get("usage").is_some_and(|usage| !usage.is_null());
        for choice in piece.get("choices").and_then(Value::as_array).into_iter().flatten() {
            self.note_choice(choice);
        }
        Some(format!("data: {data}\n\n").into())
    }

    fn note_choice(&mut self, choice: &Value) {
        let index = choice.get("index").and_then(Value::as_u64).unwrap_or(0);
        let known = self.choices.entry(index).or_default();
        known.has_finish |= choice.get("finish_reason").is_some_and(|reason| !reason.is_null());
        if let Some(text) = choice.get("text").and_then(Value::as_str) {
            known.text.push_str(text);
        }
        for (name, value) in choice.get("delta").and_then(Value::as_object).into_iter().flatten() {
            match (name.as_str(), value) {
                ("role", _) | (_, Value::Null) => {}
                ("content", Value::String(text)) => known.text.push_str(text),
                _ => known.has_more = true,
            }
        }
    }

    /// Nothing of the answer was shown.
    pub(super) fn is_nothing(&self) -> bool {
        self.choices.is_empty()
    }

    /// What is still to be sent of the whole answer; `None` where it does not go on from what was shown.
    pub(super) fn remainder(&self, endpoint: Endpoint, usage: bool, answer: Map<String, Value>) -> Option<Vec<Bytes>> {
        let mut answer = answer;
        let cost = answer.remove("usage");
        let choices = answer.remove("choices").unwrap_or_default();
        let choices = choices.as_array()?.iter().map(|choice| self.rest_of(endpoint, choice));
        let rest: Vec<Value> = choices.collect::<Option<Vec<_>>>()?.into_iter().flatten().collect();
        if endpoint == Endpoint::Chat {
            answer.insert("object".to_owned(), "chat.completion.chunk".into());
        }
        let mut events = Vec::new();
        if !rest.is_empty() {
            answer.insert("choices".to_owned(), rest.into());
            events.push(event(&Value::Object(answer.clone())));
        }
        if let Some(cost) = cost.filter(|_| usage && !self.has_cost) {
            answer.insert("choices".to_owned(), json!([]));
            answer.insert("usage".to_owned(), cost);
            events.push(event(&Value::Object(answer)));
        }
        Some(events)
    }

    /// Of one choice: `Some(None)` if all of it was shown.
    fn rest_of(&self, endpoint: Endpoint, choice: &Value) -> Option<Option<Value>> {
        let mut rest = choice.clone();
        if endpoint == Endpoint::Chat {
            as_delta(&mut rest);
        }
        let index = choice.get("index").and_then(Value::as_u64).unwrap_or(0);
        let Some(known) = self.choices.get(&index) else { return Some(Some(rest)) };
        if known.has_finish && !self.is_broken {
            return Some(None);
        }
        if known.has_more {
            // Which part of a call is missing cannot be said in pieces.
            return None;
        }
        let field =
            if endpoint == Endpoint::Chat { rest.get_mut("delta")?.get_mut("content") } else { rest.get_mut("text") };
        match field {
            Some(Value::String(text)) => *text = text.strip_prefix(known.text.as_str())?.to_owned(),
            _ if known.text.is_empty() => {}
            _ => return None,
        }
        Some(Some(rest))
    }
}

/// The first whole event, without the blank line behind it, and its length with that.
fn first_event(bytes: &[u8]) -> Option<(&[u8], usize)> {
    let ends = (0..bytes.len()).find_map(|at| {
        let rest = &bytes[at..];
        [&b"\n\n"[..], b"\r\n\r\n"].iter().find(|end| rest.starts_with(end)).map(|end| (at, end.len()))
    });
    ends.map(|(at, end)| (&bytes[..at], at + end))
}

/// What an event's `data` lines say.
fn data_of(block: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(block).ok()?;
    let data = text.lines().filter_map(|line| line.strip_prefix("data:"));
    let data: Vec<&str> = data.map(|data| data.strip_prefix(' ').unwrap_or(data)).collect();
    (!data.is_empty()).then(|| data.join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fence(attempt: u32) -> Fence {
        Fence { epoch: 1, attempt, key: Default::default() }
    }

    fn delta(content: &str, finish: Option<&str>) -> String {
        let choice = json!({"index": 0, "delta": {"content": content}, "finish_reason": finish});
        format!("data: {}\n\n", json!({"id": "c", "choices": [choice]}))
    }

    fn answer(content: &str) -> Map<String, Value> {
        let message = json!({"role": "assistant", "content": content});
        let answer = json!({"id": "c", "object": "chat.completion", "usage": {"total_tokens": 2},
            "choices": [{"index": 0, "finish_reason": "stop", "message": message}]});
        answer.as_object().unwrap().clone()
    }

    /// Shows a stream in pieces of so many bytes, without those that begin in `lost`; what was sent, and what is left.
    fn show(stream: &str, size: usize, lost: std::ops::Range<usize>, whole: &str) -> (String, Option<Vec<Bytes>>) {
        let (mut shown, mut sent) = (Shown::default(), String::new());
        for (n, bytes) in stream.as_bytes().chunks(size).enumerate() {
            let at = n * size;
            if !lost.contains(&at) {
                let piece = Piece { fence: fence(1), at: at as u64, bytes: Bytes::copy_from_slice(bytes) };
                shown.piece(&piece).iter().for_each(|event| sent.push_str(std::str::from_utf8(event).unwrap()));
            }
        }
        (sent, shown.remainder(Endpoint::Chat, false, answer(whole)))
    }

    #[test]
    fn events_go_on_as_they_are_however_they_are_cut() {
        let stream = [delta("Hä", None), delta("", Some("stop"))].concat();
        for size in [1, 2, 7, 1_000] {
            let whole = format!("{stream}data: [DONE]\n\n");
            assert_eq!(show(&whole, size, 0..0, "Hä"), (stream.clone(), Some(Vec::new())), "{size}");
            let crlf = whole.replace('\n', "\r\n");
            assert_eq!(show(&crlf, size, 0..0, "Hä"), (stream.clone(), Some(Vec::new())), "{size}");
        }
    }

    #[test]
    fn what_is_lost_comes_with_the_answer() {
        let first = delta("one ", None);
        let stream = [first.clone(), delta("two ", None), delta("three", Some("stop"))].concat();
        let (sent, rest) = show(&stream, first.len(), first.len()..first.len() + 1, "one two three");
        assert_eq!(sent, first);
        let [rest] = rest.unwrap().try_into().unwrap();
        let rest: Value = serde_json::from_slice(&rest[6..]).unwrap();
        let expected = json!({"role": "assistant", "content": "two three"});
        assert_eq!((&rest["choices"][0]["delta"], &rest["choices"][0]["finish_reason"]), (&expected, &json!("stop")));
    }

    #[test]
    fn an_answer_that_does_not_go_on_from_what_was_shown_is_none() {
        let stream = delta("one ", None);
        assert_eq!(show(&stream, 10, 0..0, "another").1, None);
        let call = json!({"index": 0, "delta": {"tool_calls": [{"index": 0, "function": {"arguments": "{"}}]}});
        let stream = format!("data: {}\n\n", json!({"choices": [call]}));
        assert_eq!(show(&stream, 1_000, 0..0, "").1, None);
    }

    #[test]
    fn one_attempt_is_shown_and_the_next_one_only_if_nothing_was() {
        let piece = |attempt, at, text: &str| Piece { fence: fence(attempt), at, bytes: text.to_owned().into() };
        let mut shown = Shown::default();
        assert!(shown.piece(&piece(1, 9, "x")).is_empty(), "its beginning was not seen");
        assert!(shown.piece(&piece(1, 0, "data: {\"cho")).is_empty());
        assert_eq!(shown.piece(&piece(2, 0, &delta("a", None))).len(), 1);
        assert!(shown.piece(&piece(3, 0, &delta("b", None))).is_empty());
        assert!(shown.piece(&piece(2, delta("a", None).len() as u64, "data: nonsense\n\n")).is_empty());
        assert!(shown.piece(&piece(2, 500, &delta("c", None))).is_empty());
        assert_eq!(shown.remainder(Endpoint::Chat, true, answer("ab")).map(|rest| rest.len()), Some(2));
    }
}
