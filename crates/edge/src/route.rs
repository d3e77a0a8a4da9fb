//! Which path means what. It knows no handler.

use hyper::Method;
use percent_encoding::percent_decode_str;

use crate::batches::{BatchesRoute, batches_route};
use crate::files::{FilesRoute, files_route};
use crate::online::Endpoint;

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Route {
    /// `GET /v1/models`
    Models,
    /// `GET /v1/models/{id}`
    Model(String),
    /// `POST` to one of the three.
    Online(Endpoint),
    /// `POST /v1/tasks`
    Tasks,
    /// `GET /v1/tasks/{key}`
    Task(String),
    /// `/v1/files…`
    Files(FilesRoute),
    /// `/v1/batches…`
    Batches(BatchesRoute),
}

/// Why a path and a method mean nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoRoute {
    /// There is no such path.
    Path,
    /// There is, with these methods.
    Method(&'static str),
}

/// Reads a request's first line; ids may hold `%2F`.
pub(crate) fn route(method: &Method, path: &str) -> Result<Route, NoRoute> {
    let segments = path.strip_prefix("/v1/").ok_or(NoRoute::Path)?;
    let segments: Vec<String> = segments.split('/').map(decoded).collect::<Option<_>>().ok_or(NoRoute::Path)?;
    let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
    let get = |route| if method == Method::GET { Ok(route) } else { Err(NoRoute::Method("GET")) };
    let post = |route| if method == Method::POST { Ok(route) } else { Err(NoRoute::Method("POST")) };
    match segments.as_slice() {
        ["chat", "completions"] => post(Route::Online(Endpoint::Chat)),
        ["completions"] => post(Route::Online(Endpoint::Completions)),
        ["embeddings"] => post(Route::Online(Endpoint::Embeddings)),
        ["tasks"] => post(Route::Tasks),
        ["tasks", key] => get(Route::Task((*key).to_owned())),
        ["models"] => get(Route::Models),
        ["models", id] => get(Route::Model((*id).to_owned())),
        ["files", rest @ ..] => files_route(method, rest).map(Route::Files),
        ["batches", rest @ ..] => batches_route(method, rest).map(Route::Batches),
        _ => Err(NoRoute::Path),
    }
}

fn decoded(segment: &str) -> Option<String> {
    Some(percent_decode_str(segment).decode_utf8().ok()?.into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_may_have_a_slash_in_its_name() {
        let named = Ok(Route::Model("org/model".to_owned()));
        assert_eq!(route(&Method::GET, "/v1/models/org%2Fmodel"), named);
        assert_eq!(route(&Method::GET, "/v1/models/org/model"), Err(NoRoute::Path));
        assert_eq!(route(&Method::GET, "/v1/models/%ff"), Err(NoRoute::Path));
        assert_eq!(route(&Method::DELETE, "/v1/models"), Err(NoRoute::Method("GET")));
    }
}
