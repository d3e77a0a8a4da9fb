//! Bodies and errors, as clients of OpenAI's API expect them: every error has `message`, `type`, `param` and `code`.

use std::io;

use bytes::Bytes;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderName, HeaderValue};
use hyper::{Response, StatusCode};
use serde_json::{Value, json};

use crate::route::NoRoute;

/// Says to SDKs whether another try is worth it.
pub(crate) const SHOULD_RETRY: HeaderName = HeaderName::from_static("x-should-retry");

/// What a handler answers with.
pub(crate) type Reply = Response<ReplyBody>;

/// Its body.
pub(crate) type ReplyBody = BoxBody<Bytes, io::Error>;

/// A JSON value with a status.
pub(crate) fn json_reply(status: StatusCode, value: &Value) -> Reply {
    let body = Full::new(Bytes::from(value.to_string())).map_err(|never| match never {}).boxed();
    let mut reply = Response::new(body);
    *reply.status_mut() = status;
    reply.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    reply
}

/// What the client did wrong, or what went wrong here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ApiError {
    pub status: StatusCode,
    /// Which kind, by the names that SDKs know.
    pub kind: &'static str,
    /// For people: what happened, and what to do.
    pub message: String,
    /// The field of the request that is wrong.
    pub param: Option<&'static str>,
    /// For programs.
    pub code: Option<&'static str>,
    /// Another try is of no use, where SDKs would try the status again.
    pub is_useless_again: bool,
}

impl ApiError {
    /// The request is wrong as it is.
    pub(crate) fn invalid(message: impl Into<String>, param: Option<&'static str>) -> Self {
        let (kind, status) = ("invalid_request_error", StatusCode::BAD_REQUEST);
        Self { status, kind, message: message.into(), param, code: None, is_useless_again: false }
    }

    /// There is no such thing.
    pub(crate) fn not_found(message: impl Into<String>, code: Option<&'static str>) -> Self {
        Self { status: StatusCode::NOT_FOUND, code, ..Self::invalid(message, None) }
    }

    /// Something went wrong here.
    pub(crate) fn server(message: impl Into<String>) -> Self {
        let (kind, status) = ("server_error", StatusCode::INTERNAL_SERVER_ERROR);
        Self { status, kind, ..Self::invalid(message, None) }
    }

    pub(crate) fn reply(&self) -> Reply {
        let Self { status, kind, message, param, code, is_useless_again } = self;
        let body = json!({"error": {"message": message, "type": kind, "param": param, "code": code}});
        let mut reply = json_reply(*status, &body);
        if *is_useless_again {
            reply.headers_mut().insert(SHOULD_RETRY, HeaderValue::from_static("false"));
        }
        reply
    }
}

/// The answer to a request that means nothing.
pub(crate) fn no_route(why: NoRoute, path: &str) -> Reply {
    match why {
        NoRoute::Path => ApiError::not_found(format!("there is no {path} here"), Some("unknown_url")).reply(),
        NoRoute::Method(allowed) => {
            let status = StatusCode::METHOD_NOT_ALLOWED;
            let error = ApiError { status, ..ApiError::invalid(format!("{path} takes {allowed} only"), None) };
            let mut reply = error.reply();
            reply.headers_mut().insert(ALLOW, HeaderValue::from_static(allowed));
            reply
        }
    }
}
