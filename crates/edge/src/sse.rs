//! `stream: true`: the answer as a stream of events.
//!
//! The worker puts a backend's stream together, so the answer comes in one piece; what this gives a client is the form
//! that it asked for, and signs of life while it waits. An error that comes soon has its own status; one that comes later
//! is an event.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::{Body, Frame};
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use serde_json::{Value, json};
use sheaf_task::Outcome;
use tokio::time::{Instant, Interval, interval_at, timeout};

use crate::calls::{Answered, Done, Refused, Told};
use crate::online::Endpoint;
use crate::outcome::{failed, failed_reply, named, refused_reply};
use crate::reply::Reply;
use crate::serve::Door;

/// A sign of life so often.
const BEAT: Duration = Duration::from_secs(10);

/// The reply: an error as such if it comes before the first sign of life is due, else the stream.
pub(crate) async fn reply(door: &Door, endpoint: Endpoint, usage: bool, mut told: Answered) -> Reply {
    let Ok(first) = timeout(BEAT, &mut told).await else {
        let beats = interval_at(Instant::now(), BEAT);
        return stream(Events { told: Some((told, beats)), waiting: VecDeque::new(), endpoint, usage });
    };
    match first.unwrap_or(Err(Refused::Closing)) {
        Ok(Told::Done(Done { key, outcome: Outcome::Ok(body), .. })) => {
            let waiting = events(endpoint, usage, &body).into();
            named(stream(Events { told: None, waiting, endpoint, usage }), key)
        }
        Ok(Told::Done(Done { key, outcome: Outcome::Failed(failure), .. })) => named(failed_reply(&failure), key),
        Ok(Told::Accepted(_)) => refused_reply(&Refused::Closing, door.names.number()),
        Err(refused) => refused_reply(&refused, door.names.number()),
    }
}

fn stream(events: Events) -> Reply {
    let mut reply = Reply::new(events.boxed());
    let headers = reply.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream; charset=utf-8"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    reply
}

/// The body of such a reply.
struct Events {
    /// While the answer is waited for.
    told: Option<(Answered, Interval)>,
    /// To be sent.
    waiting: VecDeque<Bytes>,
    endpoint: Endpoint,
    usage: bool,
}

impl Body for Events {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        let this = &mut *self;
        if let Some((told, beats)) = &mut this.told {
            match Pin::new(told).poll(cx) {
                Poll::Ready(told) => {
                    this.told = None;
                    this.waiting = late(this.endpoint, this.usage, told.unwrap_or(Err(Refused::Closing))).into();
                }
                Poll::Pending => {
                    ready!(beats.poll_tick(cx));
                    return Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(b": waiting\n\n")))));
                }
            }
        }
        Poll::Ready(this.waiting.pop_front().map(|event| Ok(Frame::data(event))))
    }
}

/// What is sent of an answer that came after the reply had begun.
fn late(endpoint: Endpoint, usage: bool, told: Result<Told, Refused>) -> Vec<Bytes> {
    let error = |message: &str, kind: &str, code: &str| {
        let error = json!({"error": {"message": message, "type": kind, "param": null, "code": code}});
        vec![event(&error)]
    };
    match told {
        Ok(Told::Done(Done { outcome: Outcome::Ok(body), .. })) => events(endpoint, usage, &body),
        Ok(Told::Done(Done { outcome: Outcome::Failed(failure), .. })) => {
            let (said, _) = failed(&failure);
            error(&said.message, said.kind, failure.class.name())
        }
        Ok(Told::Accepted(_)) | Err(_) => {
            error("the call was not taken; try again later", "server_error", "unavailable")
        }
    }
}

fn event(value: &Value) -> Bytes {
    format!("data: {value}\n\n").into()
}

/// A whole answer as events: one with all of it, one with what it cost where that is wanted, and the end.
fn events(endpoint: Endpoint, usage: bool, body: &[u8]) -> Vec<Bytes> {
    let done = Bytes::from_static(b"data: [DONE]\n\n");
    let Ok(Value::Object(mut answer)) = serde_json::from_slice(body) else {
        // A worker that is no model's answers as it likes.
        let text = String::from_utf8_lossy(body);
        return vec![
            event(&json!({"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": "stop"}]})),
            done,
        ];
    };
    let cost = answer.remove("usage");
    if endpoint == Endpoint::Chat {
        answer.insert("object".to_owned(), "chat.completion.chunk".into());
        let choices = answer.get_mut("choices").and_then(Value::as_array_mut);
        choices.into_iter().flatten().for_each(as_delta);
    }
    let mut events = vec![event(&Value::Object(answer.clone()))];
    if let Some(cost) = cost.filter(|_| usage) {
        answer.insert("choices".to_owned(), json!([]));
        answer.insert("usage".to_owned(), cost);
        events.push(event(&Value::Object(answer)));
    }
    events.push(done);
    events
}

/// A piece of a chat calls its message `delta`, and numbers its tool calls.
fn as_delta(choice: &mut Value) {
    let Some(fields) = choice.as_object_mut() else { return };
    let Some(mut message) = fields.remove("message") else { return };
    if let Some(calls) = message.get_mut("tool_calls").and_then(Value::as_array_mut) {
        for (index, call) in calls.iter_mut().enumerate() {
            if let Some(call) = call.as_object_mut() {
                call.insert("index".to_owned(), index.into());
            }
        }
    }
    fields.insert("delta".to_owned(), message);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn data(events: &[Bytes]) -> Vec<Value> {
        let data = events.iter().map(|event| std::str::from_utf8(event).unwrap());
        let data = data.map(|event| event.strip_prefix("data: ").unwrap().strip_suffix("\n\n").unwrap());
        data.filter(|data| *data != "[DONE]").map(|data| serde_json::from_str(data).unwrap()).collect()
    }

    #[test]
    fn a_chat_is_one_chunk_its_cost_and_the_end() {
        let body = json!({
            "id": "c", "object": "chat.completion", "model": "m", "usage": {"total_tokens": 3},
            "choices": [{"index": 0, "finish_reason": "tool_calls", "message": {"role": "assistant", "content": "a\nb",
                "tool_calls": [{"id": "t", "type": "function", "function": {"name": "f", "arguments": "{}"}}]}}]
        });
        let sent = events(Endpoint::Chat, true, body.to_string().as_bytes());
        assert_eq!(sent.last().unwrap(), "data: [DONE]\n\n");
        let chunk = json!({
            "id": "c", "object": "chat.completion.chunk", "model": "m",
            "choices": [{"index": 0, "finish_reason": "tool_calls", "delta": {"role": "assistant", "content": "a\nb",
                "tool_calls": [{"index": 0, "id": "t", "type": "function", "function": {"name": "f", "arguments": "{}"}}]}}]
        });
        let cost = json!({
            "id": "c", "object": "chat.completion.chunk", "model": "m", "choices": [], "usage": {"total_tokens": 3}
        });
        assert_eq!(data(&sent), [chunk.clone(), cost]);
        assert_eq!(data(&events(Endpoint::Chat, false, body.to_string().as_bytes())), [chunk]);
    }

    #[test]
    fn what_fails_late_is_an_event() {
        let failure = sheaf_task::Failure::new(sheaf_task::Class::Timeout, "slow");
        let done =
            Done { key: Default::default(), outcome: Outcome::Failed(failure), attempts: 1, worker: "w".into(), ms: 1 };
        let sent = late(Endpoint::Chat, false, Ok(Told::Done(done)));
        let expected = json!({"error": {"message": "slow", "type": "server_error", "param": null, "code": "timeout"}});
        assert_eq!(data(&sent), [expected]);
    }
}
