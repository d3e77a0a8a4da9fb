//! From a request to the handler that answers it. A handler that panics is one 500 and nothing else.

use std::sync::Arc;

use hyper::body::Incoming;
use hyper::header::{HeaderName, HeaderValue};
use hyper::{Request, StatusCode};
use serde_json::json;

use crate::reply::{ApiError, Reply, json_reply, no_route};
use crate::route::{Route, route};
use crate::serve::Door;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Answers one request, whatever it is.
pub(crate) async fn answer(door: Arc<Door>, request: Request<Incoming>) -> Reply {
    let id = door.request_id();
    let path = request.uri().path().to_owned();
    let mut reply = match route(request.method(), &path) {
        Err(why) => no_route(why, &path),
        Ok(route) => match tokio::spawn(handle(door, route)).await {
            Ok(reply) => reply,
            Err(error) => {
                tracing::error!(%error, request = id, "a handler panicked");
                let (kind, status) = ("server_error", StatusCode::INTERNAL_SERVER_ERROR);
                ApiError { status, kind, ..ApiError::invalid("a defect of the server; its log has more", None) }.reply()
            }
        },
    };
    let id = HeaderValue::from_str(&id).unwrap_or(HeaderValue::from_static("none"));
    reply.headers_mut().insert(REQUEST_ID, id);
    reply
}

async fn handle(_door: Arc<Door>, route: Route) -> Reply {
    match route {
        Route::Models => json_reply(StatusCode::OK, &json!({"object": "list", "data": []})),
        Route::Model(id) => {
            ApiError::not_found(format!("no worker offers the model {id}"), Some("model_not_found")).reply()
        }
    }
}
