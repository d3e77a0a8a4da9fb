//! From a request to the handler that answers it. A handler that panics is one 500 and nothing else.

use std::sync::Arc;

use hyper::body::Incoming;
use hyper::header::{HeaderName, HeaderValue};
use hyper::{Request, StatusCode};
use serde_json::json;

use crate::batches;
use crate::files;
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
        Ok(route) => match tokio::spawn(handle(door, route, request)).await {
            Ok(reply) => reply,
            Err(error) => {
                tracing::error!(%error, request = id, "a handler panicked");
                ApiError::server("a defect of the server; its log has more").reply()
            }
        },
    };
    let id = HeaderValue::from_str(&id).unwrap_or(HeaderValue::from_static("none"));
    reply.headers_mut().insert(REQUEST_ID, id);
    reply
}

async fn handle(door: Arc<Door>, route: Route, request: Request<Incoming>) -> Reply {
    let app = "";
    match route {
        Route::Files(route) => {
            let answered = files::answer(&door.files, &door.config.limits, app, route, request).await;
            answered.unwrap_or_else(|error| error.reply())
        }
        Route::Batches(route) => {
            let answered = batches::answer(&door.batches, app, route, request).await;
            answered.unwrap_or_else(|error| error.reply())
        }
        Route::Models => json_reply(StatusCode::OK, &json!({"object": "list", "data": []})),
        Route::Model(id) => {
            ApiError::not_found(format!("no worker offers the model {id}"), Some("model_not_found")).reply()
        }
    }
}
