//! `/v1/files`: what is uploaded for batches, and what batches wrote.

mod body;
mod books;
mod expiry;
mod store;
mod upload;

use std::fs::File;
use std::io;

use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use serde_json::{Value, json};

use crate::disk::{absent_is_none, blocking, refused, unix_now};
use crate::limits::Limits;
use crate::page::{Query, page_json};
use crate::reply::{ApiError, Reply, json_reply};
use crate::route::NoRoute;
use body::FileBody;

pub(crate) use books::{Held, HeldInput};
pub(crate) use expiry::ExpiresAfter;
pub(crate) use store::{Draft, FileMeta, PREFIX, SWEEP_MAX, Store};

/// What is asked for under `/v1/files`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum FilesRoute {
    /// `POST /v1/files`
    Upload,
    /// `GET /v1/files`
    List,
    /// `GET /v1/files/{id}`
    Get(String),
    /// `DELETE /v1/files/{id}`
    Delete(String),
    /// `GET /v1/files/{id}/content`
    Content(String),
}

/// Reads what stands behind `/v1/files`.
pub(crate) fn files_route(method: &Method, rest: &[&str]) -> Result<FilesRoute, NoRoute> {
    match (rest, method) {
        ([], &Method::POST) => Ok(FilesRoute::Upload),
        ([], &Method::GET) => Ok(FilesRoute::List),
        ([], _) => Err(NoRoute::Method("GET, POST")),
        ([id], &Method::GET) => Ok(FilesRoute::Get((*id).to_owned())),
        ([id], &Method::DELETE) => Ok(FilesRoute::Delete((*id).to_owned())),
        ([_], _) => Err(NoRoute::Method("GET, DELETE")),
        ([id, "content"], &Method::GET) => Ok(FilesRoute::Content((*id).to_owned())),
        ([_, "content"], _) => Err(NoRoute::Method("GET")),
        _ => Err(NoRoute::Path),
    }
}

/// Answers a request about the files of an app.
pub(crate) async fn answer(
    store: &Store,
    limits: &Limits,
    app: &str,
    route: FilesRoute,
    request: Request<Incoming>,
) -> Result<Reply, ApiError> {
    let ok = |value: &Value| json_reply(StatusCode::OK, value);
    let (store, app) = (store.clone(), app.to_owned());
    match route {
        FilesRoute::Upload => Ok(ok(&upload::upload(&store, &app, limits, request, unix_now()).await?.json())),
        FilesRoute::List => {
            let query = Query::parse(request.uri().query(), PREFIX)?;
            let asked = query.clone();
            let found = on_disk(move || store.list(&app, &asked)).await?;
            Ok(ok(&page_json(&query, found.iter().map(FileMeta::json).collect())))
        }
        FilesRoute::Get(id) => {
            let asked = id.clone();
            let meta = on_disk(move || store.get(&app, &asked)).await?;
            Ok(ok(&meta.ok_or_else(|| unknown(&id))?.json()))
        }
        FilesRoute::Delete(id) => {
            let asked = id.clone();
            let is_deleted = on_disk(move || store.delete(&app, &asked)).await?;
            let deleted = json!({"id": id, "object": "file", "deleted": true});
            is_deleted.then(|| ok(&deleted)).ok_or_else(|| unknown(&id))
        }
        FilesRoute::Content(id) => {
            let path = store.content(&app, &id).ok_or_else(|| unknown(&id))?;
            let opened =
                on_disk(move || absent_is_none(File::open(path).and_then(|file| Ok((file.metadata()?, file)))));
            let (meta, file) = opened.await?.ok_or_else(|| unknown(&id))?;
            let mut reply = Response::new(FileBody::new(file, meta.len()).boxed());
            reply.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
            Ok(reply)
        }
    }
}

/// The error that there is no such file.
pub(crate) fn unknown(id: &str) -> ApiError {
    ApiError::not_found(format!("there is no file {id}"), Some("file_not_found"))
}

/// The error that an app has more bytes of files than it may have.
pub(crate) fn over_quota(max: u64) -> ApiError {
    let what = format!(
        "the files of this app, and what its batches under way need, would have more than {max} bytes: delete some files, or \
         let them go by themselves (expires_after); whoever runs the server may allow more (--files-max)"
    );
    let (status, kind, code) = (StatusCode::PAYLOAD_TOO_LARGE, "insufficient_quota", Some("files_quota_exceeded"));
    ApiError { status, kind, code, ..ApiError::invalid(what, None) }
}

async fn on_disk<T: Send + 'static>(act: impl FnOnce() -> io::Result<T> + Send + 'static) -> Result<T, ApiError> {
    blocking(act).await?.map_err(|error| refused(&error))
}
