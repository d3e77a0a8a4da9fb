//! `POST /v1/chat/completions`, `/v1/completions`, `/v1/embeddings` and `GET /v1/models`.
//!
//! The task's body is the request's, byte for byte: only its model, and how the answer is wanted, are read here.

use bytes::Bytes;
use hyper::body::Incoming;
use hyper::header::{HeaderMap, HeaderName, HeaderValue};
use hyper::{Request, StatusCode};
use serde::Deserialize;
use serde_json::json;
use sheaf_task::{NAME_BYTES_MAX, Outcome, Piece};
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::admit::busy_reply;
use crate::body::{self, is_object};
use crate::calls::{Answered, Done, Identity, JobKey, NewCall, Refused, Told};
use crate::names::{derived, digest};
use crate::outcome::{failed_reply, json_bytes, named, refused_reply};
use crate::reply::{ApiError, Reply, SHOULD_RETRY, json_reply};
use crate::serve::Door;
use crate::sse;
use crate::tenants::Tenant;
use crate::vectors::{Encoding, encoded};

/// The three calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Endpoint {
    Chat,
    Completions,
    Embeddings,
}

impl Endpoint {
    /// Also the revision of its tasks.
    pub(crate) fn path(self) -> &'static str {
        match self {
            Endpoint::Chat => "/v1/chat/completions",
            Endpoint::Completions => "/v1/completions",
            Endpoint::Embeddings => "/v1/embeddings",
        }
    }
}

/// What is read of a request.
#[derive(Deserialize)]
struct Head {
    model: Option<String>,
    stream: Option<bool>,
    stream_options: Option<StreamOptions>,
    encoding_format: Option<String>,
}

#[derive(Deserialize)]
struct StreamOptions {
    include_usage: Option<bool>,
}

/// How the answer is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    Json,
    Vectors(Encoding),
    Stream { usage: bool },
}

/// Answers one call.
pub(crate) async fn online(door: &Door, tenant: &Tenant, endpoint: Endpoint, request: Request<Incoming>) -> Reply {
    let (parts, incoming) = request.into_parts();
    let body = match body::read(door, incoming).await {
        Ok(body) => body,
        Err(reply) => return reply,
    };
    let (model, form) = match read_head(endpoint, &body) {
        Ok(head) => head,
        Err(error) => return error.reply(),
    };
    let job = JobKey { service: model, revision: endpoint.path().to_owned(), timeout_ms: 0 };
    let (show, pieces) = mpsc::channel(PIECES_MAX);
    let wish = if matches!(form, Form::Stream { .. }) { Wish::Watched(show) } else { Wish::Done };
    let told = match begin(door, tenant, &parts.headers, job, body, wish).await {
        Ok(told) => told,
        Err(reply) => return reply,
    };
    match form {
        Form::Stream { usage } => sse::reply(door, endpoint, usage, told, pieces).await,
        Form::Json | Form::Vectors(_) => match wait(door, told).await {
            Ok(done) => done_reply(done, form),
            Err(reply) => reply,
        },
    }
}

/// What whoever calls waits for.
pub(crate) enum Wish {
    /// That it is on disk.
    Accepted,
    /// Its answer.
    Done,
    /// Its answer, and before it the pieces of it.
    Watched(mpsc::Sender<Piece>),
}

/// Pieces of an answer that its client has not taken yet. Full: the rest comes with the answer.
const PIECES_MAX: usize = 256;

/// Makes the call that a request asks for.
pub(crate) async fn begin(
    door: &Door,
    tenant: &Tenant,
    headers: &HeaderMap,
    job: JobKey,
    body: Bytes,
    wish: Wish,
) -> Result<Answered, Reply> {
    let is_async = matches!(wish, Wish::Accepted);
    let show = if let Wish::Watched(show) = wish { Some(show) } else { None };
    let refused = |refused: Refused| refused_reply(&refused, door.names.number());
    let offered = door.offers.with(&door.tenants.owner().caller, &job.service).await.map_err(refused)?;
    door.gate.set_services(offered.len());
    let Some(capacity) = offered.get(&job.service) else {
        return Err(not_offered(&job.service, offered.keys()));
    };
    // What is not waited for takes no place of those who wait.
    let permit = if is_async {
        None
    } else {
        let permit = door.gate.admit(&job.service, *capacity);
        Some(permit.ok_or_else(|| busy_reply(door.names.number()))?)
    };
    let digest = digest(&job.service, &job.revision, job.timeout_ms, &body);
    let (identity, (row, sample)) = match (given_name(headers), is_retry(headers)) {
        (Some(name), _) => (Identity::Named, derived(&tenant.app, Some(&name), digest)),
        (None, true) => (Identity::Retry, derived(&tenant.app, None, digest)),
        (None, false) => (Identity::Own, door.names.own()),
    };
    let keep = is_async || headers.get(KEEP).is_some_and(|keep| keep == "true");
    let call = NewCall { job, body, identity, row, sample, digest, keep, is_async };
    tenant.caller.call(call, permit, show).await.map_err(refused)
}

/// Waits until the call has ended, or for as long as a call may take.
pub(crate) async fn wait(door: &Door, told: Answered) -> Result<Done, Reply> {
    match timeout(door.config.limits.call_timeout, told).await {
        Ok(Ok(Ok(Told::Done(done)))) => Ok(done),
        Ok(Ok(Ok(Told::Accepted(key)))) => {
            Err(named(json_reply(StatusCode::ACCEPTED, &json!({"key": key.to_string()})), key))
        }
        Ok(Ok(Err(refused))) => Err(refused_reply(&refused, door.names.number())),
        Ok(Err(_)) => Err(refused_reply(&Refused::Closing, door.names.number())),
        Err(_) => {
            let (status, kind, code) = (StatusCode::GATEWAY_TIMEOUT, "server_error", Some("timeout"));
            let message = "no worker has done it in time; sent again with the same Idempotency-Key it is found";
            Err(ApiError { status, kind, code, ..ApiError::invalid(message, None) }.reply())
        }
    }
}

/// The reply to a call that has ended.
fn done_reply(done: Done, form: Form) -> Reply {
    let Done { key, outcome, attempts: _, worker: _, ms } = done;
    let mut reply = match outcome {
        Outcome::Ok(body) => match form {
            Form::Vectors(encoding) => json_bytes(StatusCode::OK, encoded(body, encoding)),
            Form::Json | Form::Stream { .. } => json_bytes(StatusCode::OK, body),
        },
        Outcome::Failed(failure) => failed_reply(&failure),
    };
    reply.headers_mut().insert(PROCESSING_MS, HeaderValue::from(ms));
    named(reply, key)
}

fn read_head(endpoint: Endpoint, body: &[u8]) -> Result<(String, Form), ApiError> {
    // Lists, too, would be read as the fields of a struct.
    if !is_object(body) {
        let message = "the body should be a JSON object, the request: {\"model\": …}";
        return Err(ApiError::invalid(message, None));
    }
    let head: Head = serde_json::from_slice(body)
        .map_err(|error| ApiError::invalid(format!("the body is no JSON object of a request: {error}"), None))?;
    let model = head.model.filter(|model| !model.is_empty());
    let model = model.ok_or_else(|| ApiError::invalid("the request names no model", Some("model")))?;
    if model.len() > NAME_BYTES_MAX {
        return Err(ApiError::invalid(format!("a model's name has {NAME_BYTES_MAX} bytes at most"), Some("model")));
    }
    let usage = head.stream_options.and_then(|options| options.include_usage).unwrap_or(false);
    let form = match (endpoint, head.encoding_format.as_deref()) {
        (Endpoint::Embeddings, name) => Form::Vectors(
            Encoding::named(name)
                .ok_or_else(|| ApiError::invalid("encoding_format is float or base64", Some("encoding_format")))?,
        ),
        (Endpoint::Chat | Endpoint::Completions, _) if head.stream == Some(true) => Form::Stream { usage },
        (Endpoint::Chat | Endpoint::Completions, _) => Form::Json,
    };
    Ok((model, form))
}

/// No worker is on the books for this service.
fn not_offered<'a>(service: &str, offered: impl Iterator<Item = &'a String>) -> Reply {
    let offered: Vec<&str> = offered.take(NAMED_MAX).map(String::as_str).collect();
    let message = if offered.is_empty() {
        format!("no worker offers {service}, or anything: start one with `sheaf worker`")
    } else {
        format!("no worker offers {service}; there is: {}", offered.join(", "))
    };
    let error = ApiError { param: Some("model"), ..ApiError::not_found(message, Some("model_not_found")) };
    let mut reply = error.reply();
    reply.headers_mut().insert(SHOULD_RETRY, HeaderValue::from_static("false"));
    reply
}

/// What the client calls this call, so that it is done once.
fn given_name(headers: &HeaderMap) -> Option<String> {
    let name = headers.get("idempotency-key")?.to_str().ok()?.trim();
    (!name.is_empty()).then(|| name.to_owned())
}

/// An SDK says that it has tried before.
fn is_retry(headers: &HeaderMap) -> bool {
    let count = headers.get("x-stainless-retry-count").and_then(|count| count.to_str().ok());
    count.and_then(|count| count.trim().parse::<u32>().ok()).is_some_and(|count| count > 0)
}

/// `GET /v1/models`, and one of them.
pub(crate) async fn models(door: &Door, id: Option<&str>) -> Reply {
    let offered = match door.offers.all(&door.tenants.owner().caller).await {
        Ok(offered) => offered,
        Err(refused) => return refused_reply(&refused, door.names.number()),
    };
    let model = |id: &str| json!({"id": id, "object": "model", "created": 0, "owned_by": "sheaf"});
    match id {
        None => {
            let data: Vec<_> = offered.keys().map(|id| model(id)).collect();
            json_reply(StatusCode::OK, &json!({"object": "list", "data": data}))
        }
        Some(id) if offered.contains_key(id) => json_reply(StatusCode::OK, &model(id)),
        Some(id) => not_offered(id, offered.keys()),
    }
}

/// The call goes on when its client is gone.
const KEEP: HeaderName = HeaderName::from_static("x-sheaf-keep");
const PROCESSING_MS: HeaderName = HeaderName::from_static("openai-processing-ms");
/// Services that an error names.
const NAMED_MAX: usize = 20;

#[cfg(test)]
mod tests {
    use super::*;

    fn head(endpoint: Endpoint, body: &str) -> Result<(String, Form), Option<&'static str>> {
        read_head(endpoint, body.as_bytes()).map_err(|error| error.param)
    }

    #[test]
    fn the_model_and_the_form_are_read() {
        let chat = |body| head(Endpoint::Chat, body);
        let of = |form| Ok(("m".to_owned(), form));
        assert_eq!(chat(r#"{"messages":[],"model":"m"}"#), of(Form::Json));
        assert_eq!(chat(r#"{"model":"m","stream":true}"#), of(Form::Stream { usage: false }));
        let usage = r#"{"model":"m","stream":true,"stream_options":{"include_usage":true}}"#;
        assert_eq!(chat(usage), of(Form::Stream { usage: true }));
        let vectors = |body| head(Endpoint::Embeddings, body);
        assert_eq!(vectors(r#"{"model":"m","encoding_format":"base64"}"#), of(Form::Vectors(Encoding::Base64)));
        assert_eq!(vectors(r#"{"model":"m","stream":true}"#), of(Form::Vectors(Encoding::Float)));
        assert_eq!(vectors(r#"{"model":"m","encoding_format":"int8"}"#), Err(Some("encoding_format")));
    }

    #[test]
    fn a_request_without_a_model_is_none() {
        let bad = ["", "{}", r#"{"model":""}"#, r#"{"model":7}"#, r#"{"model":"a","model":"b"}"#, "{\"model\":\"m\""];
        assert!(bad.iter().all(|body| head(Endpoint::Chat, body).is_err()));
        for body in ["[]", r#"["m"]"#, r#" ["m",true,null,null]"#, r#""m""#, "7", "null"] {
            assert_eq!(head(Endpoint::Chat, body), Err(None), "{body}");
        }
        assert!(head(Endpoint::Chat, " \t\r\n{\"model\":\"m\"}").is_ok());
        let long = format!(r#"{{"model":"{}"}}"#, "m".repeat(NAME_BYTES_MAX + 1));
        assert_eq!(head(Endpoint::Chat, &long), Err(Some("model")));
    }
}
