//! `stream: true`: the answer as a stream of events.
//!
//! A backend's own events are passed on as they come, where its worker is called as an API; of other workers the answer
//! comes in one piece, with signs of life before it. Either way what counts is the answer that is on disk at the end: what
//! of it was not shown by then follows (`shown`). An error that comes soon has its own status; one that comes later is an
//! event.

mod shown;

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
use sheaf_task::{Outcome, Piece};
use tokio::sync::mpsc;
use tokio::time::{Instant, Interval, interval_at, sleep};

use crate::calls::{Answered, Done, Refused, Told};
use crate::online::Endpoint;
use crate::outcome::{failed, failed_reply, named, refused_reply};
use crate::reply::Reply;
use crate::serve::Door;
use shown::Shown;

/// A sign of life so often.
const BEAT: Duration = Duration::from_secs(10);

/// The reply: an error as such if it comes before anything else, else the stream.
pub(crate) async fn reply(
    door: &Door,
    endpoint: Endpoint,
    usage: bool,
    mut told: Answered,
    mut pieces: mpsc::Receiver<Piece>,
) -> Reply {
    let mut shown = Shown::default();
    let mut waiting = VecDeque::new();
    let first = tokio::select! {
        biased;
        first = &mut told => first.unwrap_or(Err(Refused::Closing)),
        Some(piece) = pieces.recv() => {
            waiting.extend(shown.piece(&piece));
            return stream(Events::begin(told, pieces, shown, waiting, endpoint, usage));
        }
        () = sleep(BEAT) => return stream(Events::begin(told, pieces, shown, waiting, endpoint, usage)),
    };
    match first {
        Ok(Told::Done(Done { key, outcome: Outcome::Ok(body), .. })) => {
            let waiting = events(endpoint, usage, &body).into();
            named(stream(Events { told: None, shown, waiting, endpoint, usage }), key)
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
    told: Option<Waited>,
    shown: Shown,
    /// To be sent.
    waiting: VecDeque<Bytes>,
    endpoint: Endpoint,
    usage: bool,
}

/// What is waited for.
struct Waited {
    told: Answered,
    pieces: mpsc::Receiver<Piece>,
    beats: Interval,
}

impl Events {
    fn begin(
        told: Answered,
        pieces: mpsc::Receiver<Piece>,
        shown: Shown,
        waiting: VecDeque<Bytes>,
        endpoint: Endpoint,
        usage: bool,
    ) -> Self {
        let told = Waited { told, pieces, beats: interval_at(Instant::now(), BEAT) };
        Self { told: Some(told), shown, waiting, endpoint, usage }
    }

    /// Looks for the answer, else for pieces of it; else a sign of life may be due.
    fn poll_news(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(Waited { told, pieces, beats }) = &mut self.told else { return Poll::Ready(()) };
        if let Poll::Ready(told) = Pin::new(told).poll(cx) {
            let told = told.unwrap_or(Err(Refused::Closing));
            self.told = None;
            self.waiting.extend(late(self.endpoint, self.usage, &self.shown, told));
            return Poll::Ready(());
        }
        while let Poll::Ready(Some(piece)) = pieces.poll_recv(cx) {
            self.waiting.extend(self.shown.piece(&piece));
            if !self.waiting.is_empty() {
                beats.reset();
                return Poll::Ready(());
            }
        }
        ready!(beats.poll_tick(cx));
        self.waiting.push_back(Bytes::from_static(b": waiting\n\n"));
        Poll::Ready(())
    }
}

impl Body for Events {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        if self.waiting.is_empty() {
            ready!(self.poll_news(cx));
        }
        Poll::Ready(self.waiting.pop_front().map(|event| Ok(Frame::data(event))))
    }
}

/// What is sent of an answer that came after the reply had begun.
fn late(endpoint: Endpoint, usage: bool, shown: &Shown, told: Result<Told, Refused>) -> Vec<Bytes> {
    let error = |message: &str, kind: &str, code: &str| {
        let error = json!({"error": {"message": message, "type": kind, "param": null, "code": code}});
        vec![event(&error)]
    };
    match told {
        Ok(Told::Done(Done { outcome: Outcome::Ok(body), .. })) if shown.is_nothing() => events(endpoint, usage, &body),
        Ok(Told::Done(Done { outcome: Outcome::Ok(body), .. })) => {
            let answer = serde_json::from_slice(&body).ok();
            match answer.and_then(|answer| shown.remainder(endpoint, usage, answer)) {
                Some(mut rest) => {
                    rest.push(DONE);
                    rest
                }
                None => error(
                    "the answer had to be made anew, and is another than what was shown; ask again for the whole",
                    "server_error",
                    "answer_changed",
                ),
            }
        }
        Ok(Told::Done(Done { outcome: Outcome::Failed(failure), .. })) => {
            let (said, _) = failed(&failure);
            error(&said.message, said.kind, failure.class.name())
        }
        Ok(Told::Accepted(_)) | Err(_) => {
            error("the call was not taken; try again later", "server_error", "unavailable")
        }
    }
}

/// The end of a stream.
const DONE: Bytes = Bytes::from_static(b"data: [DONE]\n\n");

fn event(value: &Value) -> Bytes {
    format!("data: {value}\n\n").into()
}

/// A whole answer as events: one with all of it, one with what it cost where that is wanted, and the end.
fn events(endpoint: Endpoint, usage: bool, body: &[u8]) -> Vec<Bytes> {
    let Ok(Value::Object(mut answer)) = serde_json::from_slice(body) else {
        // A worker that is no model's answers as it likes.
        let text = String::from_utf8_lossy(body);
        return vec![
            event(&json!({"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": "stop"}]})),
            DONE,
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
    events.push(DONE);
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

    #[tokio::test]
    async fn who_waits_long_sees_signs_of_life_and_then_the_answer() {
        let (tell, told) = tokio::sync::oneshot::channel();
        let (_show, pieces) = mpsc::channel(1);
        let mut events = Events::begin(told, pieces, Shown::default(), VecDeque::new(), Endpoint::Chat, false);
        let first = events.frame().await.unwrap().unwrap().into_data().unwrap();
        assert_eq!(first, ": waiting\n\n");
        let outcome = Outcome::Ok(Bytes::from_static(b"{\"choices\":[]}"));
        let done = Done { key: Default::default(), outcome, attempts: 1, worker: "w".into(), ms: 1 };
        tell.send(Ok(Told::Done(done))).unwrap();
        let rest = events.collect().await.unwrap().to_bytes();
        assert!(rest.starts_with(b"data: {") && rest.ends_with(b"data: [DONE]\n\n"), "{rest:?}");
    }

    #[test]
    fn what_fails_late_is_an_event() {
        let failure = sheaf_task::Failure::new(sheaf_task::Class::Timeout, "slow");
        let done =
            Done { key: Default::default(), outcome: Outcome::Failed(failure), attempts: 1, worker: "w".into(), ms: 1 };
        let sent = late(Endpoint::Chat, false, &Shown::default(), Ok(Told::Done(done)));
        let expected = json!({"error": {"message": "slow", "type": "server_error", "param": null, "code": "timeout"}});
        assert_eq!(data(&sent), [expected]);
    }
}
