//! Requests for batches, and what is answered.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::{Method, Request, StatusCode};
use serde::{Deserialize, Deserializer, Serialize, de};
use serde_json::value::RawValue;
use serde_json::{Value, json};
use tokio::time::timeout;

use super::machine::{Event, TooLate};
use super::place::Place;
use super::record::{Asked, Batch, Counts, Ending, FileNames, PREFIX, Status, Times};
use super::results::{self, Cursor};
use super::validate::ENDPOINTS;
use super::{Batches, name};
use crate::body::is_object;
use crate::disk::{blocking, refused, unix_now};
use crate::files::{self, ExpiresAfter, PREFIX as FILE_PREFIX};
use crate::outcome::json_bytes;
use crate::page::{Query, limit_of, page_json, pairs};
use crate::reply::{ApiError, Reply, json_reply};
use crate::route::NoRoute;

/// Bytes of a request that creates a batch: its metadata is most of it.
const BODY_MAX: usize = 256 << 10;

/// What metadata may hold.
const METADATA_MAX: usize = 16;
const METADATA_KEY_MAX: usize = 64;
const METADATA_VALUE_MAX: usize = 512;

/// The longest completion window.
const WINDOW_MAX: Duration = Duration::from_secs(30 * 24 * 3_600);

/// The longest way to say one: it is kept as it was given.
const WINDOW_BYTES_MAX: usize = 16;

/// Lines of a page of results.
const RESULTS_DEFAULT: usize = 100;
const RESULTS_MAX: usize = 1_000;

/// What is asked for under `/v1/batches`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum BatchesRoute {
    /// `POST /v1/batches`
    Create,
    /// `GET /v1/batches`
    List,
    /// `GET /v1/batches/{id}`
    Get(String),
    /// `POST /v1/batches/{id}/cancel`
    Cancel(String),
    /// `GET /v1/batches/{id}/results`
    Results(String),
}

/// Reads what stands behind `/v1/batches`.
pub(crate) fn batches_route(method: &Method, rest: &[&str]) -> Result<BatchesRoute, NoRoute> {
    match (rest, method) {
        ([], &Method::POST) => Ok(BatchesRoute::Create),
        ([], &Method::GET) => Ok(BatchesRoute::List),
        ([], _) => Err(NoRoute::Method("GET, POST")),
        ([id], &Method::GET) => Ok(BatchesRoute::Get((*id).to_owned())),
        ([id, "results"], &Method::GET) => Ok(BatchesRoute::Results((*id).to_owned())),
        ([_] | [_, "results"], _) => Err(NoRoute::Method("GET")),
        ([id, "cancel"], &Method::POST) => Ok(BatchesRoute::Cancel((*id).to_owned())),
        ([_, "cancel"], _) => Err(NoRoute::Method("POST")),
        _ => Err(NoRoute::Path),
    }
}

/// Answers a request about the batches of an app.
pub(crate) async fn answer(
    batches: &Arc<Batches>,
    app: &str,
    route: BatchesRoute,
    request: Request<Incoming>,
) -> Result<Reply, ApiError> {
    let value = match route {
        BatchesRoute::Create => create(batches, app, request).await?,
        BatchesRoute::List => list(batches, app, request.uri().query()).await?,
        BatchesRoute::Get(id) => {
            let (batch, counts) = batches.get(app, &id).await?.ok_or_else(|| unknown(&id))?;
            batch.json(counts)
        }
        BatchesRoute::Cancel(id) => cancel(batches, app, &id).await?,
        BatchesRoute::Results(id) => return results(batches, app, &id, request.uri().query()).await,
    };
    Ok(json_reply(StatusCode::OK, &value))
}

fn unknown(id: &str) -> ApiError {
    ApiError::not_found(format!("there is no batch {id}"), Some("batch_not_found"))
}

async fn list(batches: &Batches, app: &str, query: Option<&str>) -> Result<Value, ApiError> {
    let query = Query::parse(query, PREFIX)?;
    let (shared, app, asked) = (Arc::clone(&batches.shared), app.to_owned(), query.clone());
    let found = blocking(move || shared.list(&app, &asked)).await?.map_err(|error| refused(&error))?;
    Ok(page_json(&query, found.iter().map(|(batch, counts)| batch.json(*counts)).collect()))
}

async fn cancel(batches: &Arc<Batches>, app: &str, id: &str) -> Result<Value, ApiError> {
    let Some(live) = batches.shared.find(app, id) else {
        let (batch, counts) = batches.get(app, id).await?.ok_or_else(|| unknown(id))?;
        return if batch.status == Status::Cancelled { Ok(batch.json(counts)) } else { Err(too_late(&batch)) };
    };
    let cancel = async move {
        match live.handle(Event::Cancel).await.map_err(|error| refused(&error))? {
            Ok(batch) => Ok(batch.json(live.counts(&batch))),
            Err(TooLate) => Err(too_late(&live.batch())),
        }
    };
    batches.see_through(cancel).await
}

fn too_late(batch: &Batch) -> ApiError {
    let status = json!(batch.status);
    let what = format!("the batch {} is {} and cannot be cancelled", batch.id, status.as_str().unwrap_or_default());
    let (status, code) = (StatusCode::CONFLICT, Some("batch_not_cancellable"));
    ApiError { status, code, is_useless_again: true, ..ApiError::invalid(what, None) }
}

/// A page of results. Its lines go out byte for byte: what a worker answers need not fit into a [`Value`].
#[derive(Serialize)]
struct ResultsPage {
    object: &'static str,
    data: Vec<Box<RawValue>>,
    next: String,
    has_more: bool,
    status: Status,
}

async fn results(batches: &Batches, app: &str, id: &str, query: Option<&str>) -> Result<Reply, ApiError> {
    let (mut limit, mut after) = (RESULTS_DEFAULT, None);
    for (name, value) in pairs(query) {
        match name.as_str() {
            "limit" => limit = limit_of(&value, RESULTS_MAX)?,
            "after" => {
                let cursor = Cursor::parse(&value);
                after = Some(cursor.ok_or_else(|| ApiError::invalid("after is no cursor of results", Some("after")))?);
            }
            _ => {}
        }
    }
    let mut looks = 0;
    loop {
        let (batch, _) = batches.get(app, id).await?.ok_or_else(|| unknown(id))?;
        let place = Place::of(&batches.shared.root, app, id).ok_or_else(|| unknown(id))?;
        let (store, status, after) = (batches.shared.store.clone(), batch.status, after.clone());
        match blocking(move || results::page(&place, &batch, &store, after, limit)).await? {
            Ok(page) => {
                let (next, has_more, data) = (page.next.text(), page.has_more, page.lines);
                let page = ResultsPage { object: "list", data, next, has_more, status };
                let text = serde_json::to_vec(&page).map_err(|error| refused(&error.into()))?;
                return Ok(json_bytes(StatusCode::OK, text.into()));
            }
            // It came to its end while it was looked at, and its results are in its files now.
            Err(error) if error.kind() == io::ErrorKind::NotFound && looks == 0 => looks += 1,
            Err(error) => return Err(refused(&error)),
        }
    }
}

/// What creates a batch. Fields that are not known here are refused: to pass over one is to promise it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Create {
    input_file_id: String,
    endpoint: String,
    completion_window: String,
    metadata: Option<BTreeMap<String, String>>,
    #[serde(default, deserialize_with = "object")]
    output_expires_after: Option<ExpiresAfter>,
}

/// What creates a batch, as the body of a request says it.
fn read(body: &[u8]) -> Result<Create, ApiError> {
    // A struct would be read of an array too, field by field.
    if !is_object(body) {
        return Err(ApiError::invalid("this creates no batch: the body is no JSON object", None));
    }
    serde_json::from_slice(body).map_err(|error| ApiError::invalid(format!("this creates no batch: {error}"), None))
}

/// A struct of an object alone, or of null.
fn object<'de, D: Deserializer<'de>>(from: D) -> Result<Option<ExpiresAfter>, D::Error> {
    let raw: Option<Box<RawValue>> = Deserialize::deserialize(from)?;
    let Some(raw) = raw else { return Ok(None) };
    if !is_object(raw.get().as_bytes()) {
        return Err(de::Error::custom("output_expires_after is no JSON object"));
    }
    serde_json::from_str(raw.get()).map(Some).map_err(de::Error::custom)
}

async fn create(batches: &Arc<Batches>, app: &str, request: Request<Incoming>) -> Result<Value, ApiError> {
    let body = body_of(request, batches.shared.limits.body_timeout).await?;
    let asked = read(&body)?;
    let window = check(&asked)?;
    if !batches.has_room(app) {
        let what = "too many batches are under way: create this one when some of them are over";
        let (status, kind) = (StatusCode::TOO_MANY_REQUESTS, "rate_limit_error");
        return Err(ApiError { status, kind, code: Some("too_many_batches"), ..ApiError::invalid(what, None) });
    }
    let expires = asked.output_expires_after.as_ref().map(|expires| expires.seconds("output_expires_after"));
    let output_expires_after = expires.transpose()?;
    if let Some(max) = batches.shared.store.too_many(app, 1) {
        return Err(files::over_quota(max));
    }
    let Create { input_file_id, endpoint, completion_window, metadata, .. } = asked;
    let asked = Asked { endpoint, input_file_id, completion_window, metadata, output_expires_after };
    let (store, root, app) = (batches.shared.store.clone(), batches.shared.root.clone(), app.to_owned());
    let made = blocking(move || -> io::Result<Result<(Place, Batch, u64), ApiError>> {
        let id = asked.input_file_id.clone();
        let Some(input) = store.get(&app, &id)? else { return Ok(Err(no_input(&id))) };
        if input.purpose != "batch" {
            let what = format!("the file {id} was not uploaded for purpose \"batch\"");
            return Ok(Err(ApiError::invalid(what, Some("input_file_id"))));
        }
        let batch = new_batch(app, asked, window)?;
        let place = Place::of(&root, &batch.app, &batch.id).ok_or(io::ErrorKind::InvalidInput)?;
        Ok(place.create(&store, &batch)?.map(|bytes| (place, batch, bytes)).ok_or_else(|| no_input(&id)))
    });
    let begun = Arc::clone(batches);
    let begin = async move {
        let (place, batch, input_bytes) = made.await?.map_err(|error| refused(&error))??;
        let shown = batch.json(batch.counts);
        begun.begin_new(place, batch, input_bytes);
        Ok(shown)
    };
    batches.see_through(begin).await
}

fn no_input(id: &str) -> ApiError {
    ApiError { param: Some("input_file_id"), ..files::unknown(id) }
}

fn new_batch(app: String, asked: Asked, window: Duration) -> io::Result<Batch> {
    let created_at = unix_now().as_secs();
    Ok(Batch {
        id: name(PREFIX)?,
        app,
        asked,
        status: Status::Validating,
        times: Times { created_at, expires_at: created_at + window.as_secs(), ..Times::default() },
        ending: Ending::Complete,
        parts: Vec::new(),
        counts: Counts::default(),
        errors: Vec::new(),
        names: FileNames { output: name(FILE_PREFIX)?, error: name(FILE_PREFIX)? },
        has_output: false,
        has_errors: false,
        usage: None,
    })
}

/// What is wrong with a request, as far as it shows in it alone; else its completion window.
fn check(asked: &Create) -> Result<Duration, ApiError> {
    if !ENDPOINTS.contains(&asked.endpoint.as_str()) {
        let what = format!("endpoint is {:?}, and must be one of {}", asked.endpoint, ENDPOINTS.join(", "));
        return Err(ApiError::invalid(what, Some("endpoint")));
    }
    let metadata = asked.metadata.iter().flatten();
    let is_long = |(key, value): (&String, &String)| {
        key.chars().count() > METADATA_KEY_MAX || value.chars().count() > METADATA_VALUE_MAX
    };
    if asked.metadata.as_ref().is_some_and(|metadata| metadata.len() > METADATA_MAX)
        || metadata.into_iter().any(is_long)
    {
        let what = format!(
            "metadata may have {METADATA_MAX} keys of {METADATA_KEY_MAX} characters with values of {METADATA_VALUE_MAX}"
        );
        return Err(ApiError::invalid(what, Some("metadata")));
    }
    window_of(&asked.completion_window).ok_or_else(|| {
        let what =
            format!("completion_window is {:?}, and must be like \"24h\", or 90s, 10m, 7d", asked.completion_window);
        ApiError::invalid(what, Some("completion_window"))
    })
}

/// `24h` and the like: a second to thirty days.
fn window_of(text: &str) -> Option<Duration> {
    if text.len() > WINDOW_BYTES_MAX {
        return None;
    }
    let unit = match text.bytes().next_back()? {
        b's' => 1,
        b'm' => 60,
        b'h' => 3_600,
        b'd' => 24 * 3_600,
        _ => return None,
    };
    let number: u64 = text[..text.len() - 1].parse().ok()?;
    let window = Duration::from_secs(number.checked_mul(unit)?);
    (!window.is_zero() && window <= WINDOW_MAX).then_some(window)
}

/// The body of a small request.
async fn body_of(request: Request<Incoming>, patience: Duration) -> Result<bytes::Bytes, ApiError> {
    let Ok(read) = timeout(patience, Limited::new(request.into_body(), BODY_MAX).collect()).await else {
        let error = ApiError::invalid("the body of the request did not come in time", None);
        return Err(ApiError { status: StatusCode::REQUEST_TIMEOUT, ..error });
    };
    read.map(http_body_util::Collected::to_bytes).map_err(|error| {
        if error.is::<LengthLimitError>() {
            let error = ApiError::invalid(format!("the request may have {BODY_MAX} bytes"), None);
            return ApiError { status: StatusCode::PAYLOAD_TOO_LARGE, ..error };
        }
        ApiError::invalid(format!("the body of the request cannot be read: {error}"), None)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(json: &str) -> Result<Duration, Option<&'static str>> {
        let asked = read(json.as_bytes()).map_err(|error| error.param)?;
        check(&asked).map_err(|error| error.param)
    }

    fn asked(endpoint: &str, window: &str, metadata: &Value) -> String {
        let asked =
            json!({"input_file_id": "f", "endpoint": endpoint, "completion_window": window, "metadata": metadata});
        asked.to_string()
    }

    #[test]
    fn a_request_is_checked_field_by_field() {
        let day = Duration::from_secs(24 * 3_600);
        assert_eq!(checked(&asked("/v1/embeddings", "24h", &Value::Null)), Ok(day));
        assert_eq!(checked(&asked("/v1/models", "24h", &Value::Null)), Err(Some("endpoint")));
        for window in ["", "24", "h", "0s", "-1h", "31d", "99999999999999999999h", "24é", "0000000000000024h"] {
            assert_eq!(checked(&asked("/v1/tasks", window, &Value::Null)), Err(Some("completion_window")), "{window}");
        }
        assert_eq!(checked(&asked("/v1/tasks", "90s", &json!({"k": "v".repeat(512)}))), Ok(Duration::from_secs(90)));
        let many: BTreeMap<_, _> = (0..17).map(|at| (at.to_string(), "")).collect();
        for metadata in [json!({"k": "v".repeat(513)}), json!({"k".repeat(65): ""}), json!(many)] {
            assert_eq!(checked(&asked("/v1/tasks", "1d", &metadata)), Err(Some("metadata")));
        }
        assert_eq!(checked(&asked("/v1/tasks", "1d", &json!({"k": 1}))), Err(None));
        assert_eq!(checked(r#"{"endpoint": "/v1/tasks", "completion_window": "24h"}"#), Err(None));
    }

    #[test]
    fn an_array_is_no_request_though_its_fields_are_in_order() {
        let array = r#"["f", "/v1/tasks", "24h", null, null]"#;
        assert_eq!(checked(array), Err(None));
        let expiring = |expires: &str| {
            let text = asked("/v1/tasks", "24h", &Value::Null);
            checked(&text.replacen('{', &format!(r#"{{"output_expires_after": {expires}, "#), 1))
        };
        assert_eq!(expiring(r#"["created_at", 3600]"#), Err(None));
        for whole in ["null", r#" {"anchor": "created_at", "seconds": 3600}"#] {
            assert_eq!(expiring(whole), Ok(Duration::from_secs(24 * 3_600)), "{whole}");
        }
        assert_eq!(expiring(r#"{"anchor": "created_at", "seconds": 3600, "more": 1}"#), Err(None));
    }

    #[test]
    fn routes_take_their_methods_only() {
        let route = |method: Method, rest: &[&str]| batches_route(&method, rest);
        assert_eq!(route(Method::POST, &["b", "cancel"]), Ok(BatchesRoute::Cancel("b".into())));
        assert_eq!(route(Method::GET, &["b", "cancel"]), Err(NoRoute::Method("POST")));
        assert_eq!(route(Method::DELETE, &["b"]), Err(NoRoute::Method("GET")));
        assert_eq!(route(Method::GET, &["b", "x"]), Err(NoRoute::Path));
    }
}
