//! From how a task ended, or why it was not taken, to what HTTP says of it.

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::StatusCode;
use hyper::header::{CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER};
use serde_json::json;
use sheaf_task::{Class, Failure, Key, Refusal, Upstream};

use crate::calls::Refused;
use crate::reply::{ApiError, Reply, SHOULD_RETRY};

const TASK: HeaderName = HeaderName::from_static("x-sheaf-task");

/// A body that is JSON already.
pub(crate) fn json_bytes(status: StatusCode, body: Bytes) -> Reply {
    let mut reply = Reply::new(Full::new(body).map_err(|never| match never {}).boxed());
    *reply.status_mut() = status;
    reply.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    reply
}

/// Names the task in the reply.
pub(crate) fn named(mut reply: Reply, key: Key) -> Reply {
    if let Ok(value) = HeaderValue::from_str(&key.to_string()) {
        reply.headers_mut().insert(TASK, value);
    }
    reply
}

/// What a failed task says over HTTP.
///
/// | class | status | worth another try |
/// |---|---|---|
/// | rejected | as the backend's, else 400; and its own words where it answered with an error of the API | no |
/// | error, garbage | 502 | as the client likes |
/// | timeout, expired | 504 | as the client likes |
/// | crashed | 500 | no: it killed its program again and again |
/// | cancelled | 500 | no |
pub(crate) fn failed(failure: &Failure) -> (ApiError, bool) {
    let upstream = failure.evidence.upstream.as_deref();
    let (status, kind, retry) = match failure.class {
        Class::Rejected => (rejected_status(upstream.map(|upstream| upstream.status)), "invalid_request_error", false),
        Class::Error | Class::Garbage => (StatusCode::BAD_GATEWAY, "server_error", true),
        Class::Timeout | Class::Expired => (StatusCode::GATEWAY_TIMEOUT, "server_error", true),
        Class::Crashed | Class::Cancelled => (StatusCode::INTERNAL_SERVER_ERROR, "server_error", false),
    };
    let code = Some(failure.class.name());
    let error = ApiError { status, kind, code, ..ApiError::invalid(failure.message.clone(), None) };
    (error, retry)
}

/// The status of who refused a request: its own where a server was asked and says that the request is wrong.
pub(crate) fn rejected_status(upstream: Option<u16>) -> StatusCode {
    let status = upstream.filter(|status| (400..500).contains(status));
    status.and_then(|status| StatusCode::from_u16(status).ok()).unwrap_or(StatusCode::BAD_REQUEST)
}

/// The reply to a call whose task failed.
pub(crate) fn failed_reply(failure: &Failure) -> Reply {
    let (error, retry) = failed(failure);
    let upstream = failure.evidence.upstream.as_deref().filter(|_| failure.class == Class::Rejected);
    let mut reply = match upstream.and_then(own_error) {
        Some(body) => json_bytes(error.status, body.to_string().into()),
        None => error.reply(),
    };
    if !retry {
        reply.headers_mut().insert(SHOULD_RETRY, HeaderValue::from_static("false"));
    }
    reply
}

/// A refusal in the words of the server that was asked, with all four fields of an error; nothing where it has no words.
pub(crate) fn own_error(upstream: &Upstream) -> Option<serde_json::Value> {
    let Upstream { status: _, message, kind, param, code } = upstream;
    let word = |word: &String| Some(word.clone()).filter(|word| !word.is_empty());
    let (message, kind) = (word(message)?, word(kind).unwrap_or_else(|| "invalid_request_error".to_owned()));
    Some(json!({"error": {"message": message, "type": kind, "param": word(param), "code": word(code)}}))
}

/// The reply to a call that was not taken. `jitter` is any number.
pub(crate) fn refused_reply(refused: &Refused, jitter: u64) -> Reply {
    let busy = |message: &str| {
        let (status, kind, code) = (StatusCode::TOO_MANY_REQUESTS, "rate_limit_error", Some("busy"));
        ApiError { status, kind, code, ..ApiError::invalid(message, None) }
    };
    let away = |message: &str| {
        let (status, kind, code) = (StatusCode::SERVICE_UNAVAILABLE, "server_error", Some("unavailable"));
        ApiError { status, kind, code, ..ApiError::invalid(message, None) }
    };
    let (error, is_worth) = match refused {
        Refused::Full => (busy("too many calls are under way; try again later"), true),
        Refused::Router(Refusal::Busy { .. }) => (busy("the router is full; try again later"), true),
        Refused::Router(Refusal::Stopping) | Refused::Closing | Refused::GivenUp => {
            (away("the router is stopping, or not up yet; try again later"), true)
        }
        Refused::Router(Refusal::TooLong { len, max }) => {
            (ApiError::invalid(format!("a name or a body has {len} bytes, and may have {max}"), None), false)
        }
        Refused::Router(
            refusal @ (Refusal::UnknownJob
            | Refusal::Cancelled
            | Refusal::OtherJob
            | Refusal::CursorAhead { .. }
            | Refusal::Forbidden
            | Refusal::Superseded { .. }),
        ) => {
            tracing::warn!(?refusal, "a call was refused in a way that should not be");
            (away("the router did not take the call"), true)
        }
    };
    let mut reply = error.reply();
    let headers = reply.headers_mut();
    if is_worth {
        headers.insert(RETRY_AFTER, retry_after(jitter));
    } else {
        headers.insert(SHOULD_RETRY, HeaderValue::from_static("false"));
    }
    reply
}

/// One to four seconds: not all at once again.
pub(crate) fn retry_after(jitter: u64) -> HeaderValue {
    HeaderValue::from_static(["1", "2", "3", "4"][(jitter % 4) as usize])
}

#[cfg(test)]
mod tests {
    use sheaf_task::Evidence;

    use super::*;

    fn failure(class: Class, upstream: Option<Upstream>) -> Failure {
        let evidence = Box::new(Evidence { upstream: upstream.map(Box::new), ..Evidence::default() });
        Failure { class, message: "http://h answers 499 m".into(), evidence }
    }

    fn reply(class: Class) -> (u16, bool) {
        let reply = failed_reply(&failure(class, None));
        (reply.status().as_u16(), reply.headers().get("x-should-retry").is_none())
    }

    #[test]
    fn each_class_has_its_status() {
        let all = Class::ALL.map(reply);
        let expected = [(400, false), (502, true), (504, true), (500, false), (502, true), (500, false), (504, true)];
        assert_eq!(all, expected);
    }

    #[tokio::test]
    async fn a_refusal_has_the_status_and_the_words_of_who_was_asked() {
        let said = |status, message: &str, code: &str| {
            let (message, code) = (message.to_owned(), code.to_owned());
            Upstream { status, message, code, ..Upstream::default() }
        };
        let of = async |class, upstream| {
            let reply = failed_reply(&failure(class, upstream));
            let status = reply.status().as_u16();
            let body = reply.into_body().collect().await.unwrap().to_bytes();
            (status, serde_json::from_slice::<serde_json::Value>(&body).unwrap())
        };
        let error = |message: &str, code: Option<&str>| json!({"error": {"message": message, "type": "invalid_request_error", "param": null, "code": code}});
        let (rejected, own) = (Class::Rejected, "http://h answers 499 m");
        let expected = (422, error("too long", Some("context_length_exceeded")));
        assert_eq!(of(rejected, Some(said(422, "too long", "context_length_exceeded"))).await, expected);
        assert_eq!(of(rejected, Some(said(413, "", ""))).await, (413, error(own, Some("rejected"))));
        // Another answer than a refusal of the request is none of it; nor are words in a message.
        for upstream in [Some(said(503, "", "")), None] {
            assert_eq!(of(rejected, upstream).await, (400, error(own, Some("rejected"))));
        }
        assert_eq!(of(Class::Error, Some(said(422, "x", ""))).await.0, 502);
    }

    #[test]
    fn what_is_refused_says_when_to_try_again_or_that_it_is_useless() {
        let busy = refused_reply(&Refused::Full, 2);
        assert_eq!((busy.status().as_u16(), busy.headers()["retry-after"].to_str().unwrap()), (429, "3"));
        let long = refused_reply(&Refused::Router(Refusal::TooLong { len: 2, max: 1 }), 0);
        assert_eq!((long.status().as_u16(), long.headers()["x-should-retry"].to_str().unwrap()), (400, "false"));
        assert_eq!(refused_reply(&Refused::Closing, 0).status().as_u16(), 503);
    }
}
