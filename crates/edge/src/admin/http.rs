//! Connections of operators and scrapers: few and short. Requests only ask.
//!
//! A page in a browser may send requests here too. It cannot read the replies, unless its own name leads to this machine:
//! so a request without a token under any name but `localhost` and addresses is told no more than probes are.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::Value;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;

use super::api::{self, Missing};
use super::{Desk, metrics};
use crate::io::Patient;
use crate::reply::{ApiError, Reply, json_reply};
use crate::wire::Wire;

/// Connections at once. More wait in the kernel's backlog.
const CONNECTIONS_MAX: usize = 128;

/// How long a client may take for the head of a request, and bytes of it; then its connection is cut.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
const HEAD_BYTES_MAX: usize = 16 << 10;

/// Out of file handles, as a rule: let some be closed before the next.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// How long answers may still take when the listener closes.
const DRAIN: Duration = Duration::from_secs(1);

/// How long an operator may take none of the bytes that wait.
const WRITE_STALL: Duration = Duration::from_secs(10);

/// Told to everybody: whoever keeps a process running has no token, and these name nobody.
const PROBES: [&str; 2] = ["/healthz", "/readyz"];

const TEXT: &str = "text/plain; charset=utf-8";
const PROMETHEUS: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Takes connections until it is stopped.
pub(super) async fn accept(listener: TcpListener, desk: Arc<Desk>, mut stopped: watch::Receiver<bool>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            _ = stopped.changed() => break,
            Some(ended) = connections.join_next() => {
                if let Err(error) = ended {
                    tracing::error!(%error, "a connection of the admin listener panicked");
                }
            }
            accepted = listener.accept(), if connections.len() < CONNECTIONS_MAX => match accepted {
                Ok((stream, _)) => drop(connections.spawn(serve(stream, Arc::clone(&desk), stopped.clone()))),
                Err(error) => {
                    tracing::warn!(%error, "a connection was not taken by the admin listener");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    }
    drop(listener);
    let drained = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(DRAIN, drained).await.is_err() {
        tracing::debug!("an operator is cut off");
    }
    connections.shutdown().await;
}

async fn serve(stream: TcpStream, desk: Arc<Desk>, mut stopped: watch::Receiver<bool>) {
    let cut = Arc::<Notify>::default();
    let (of_listener, for_service) = (Arc::clone(&cut), Arc::clone(&desk));
    let service = service_fn(move |request| {
        let (desk, cut) = (Arc::clone(&for_service), Arc::clone(&of_listener));
        async move { Ok::<_, Infallible>(answer(&desk, &request, cut).await) }
    });
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT).max_buf_size(HEAD_BYTES_MAX);
    let tls = desk.tls.clone();
    let opened = Wire::open(Patient::new(stream, WRITE_STALL), tls);
    let Ok(Ok(stream)) = tokio::time::timeout(HEAD_TIMEOUT, opened).await else {
        tracing::debug!("an operator did not shake hands");
        return;
    };
    let connection = http.serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    let ended = tokio::select! {
        ended = &mut connection => ended,
        () = cut.notified() => return,
        _ = stopped.changed() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection of the admin listener ended");
    }
}

async fn answer(desk: &Desk, request: &Request<Incoming>, cut: Arc<Notify>) -> Reply {
    let path = request.uri().path();
    if !PROBES.contains(&path)
        && let Err(error) = desk.who.admin(request.headers())
    {
        return error.reply();
    }
    if request.method() != Method::GET && request.method() != Method::HEAD {
        let error = ApiError::invalid("this listener only tells: use GET", None);
        return ApiError { status: StatusCode::METHOD_NOT_ALLOWED, ..error }.reply();
    }
    let mut reply = route(desk, path, cut).await;
    reply.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    reply
}

async fn route(desk: &Desk, path: &str, cut: Arc<Notify>) -> Reply {
    match path {
        "/healthz" => text(StatusCode::OK, TEXT, "alive\n"),
        "/readyz" => match api::why_not_ready(desk).await {
            None => text(StatusCode::OK, TEXT, "ready\n"),
            Some(why) => text(StatusCode::SERVICE_UNAVAILABLE, TEXT, format!("not ready: {why}\n")),
        },
        "/metrics" => text(StatusCode::OK, PROMETHEUS, metrics::page(desk).await),
        "/api/v1/snapshot" => json(api::snapshot(desk).await),
        "/api/v1/jobs" => json(api::jobs(desk).await),
        "/api/v1/workers" => json(api::workers(desk).await),
        "/api/v1/events" => events(desk, cut),
        _ => match path.strip_prefix("/api/v1/jobs/") {
            Some(job) if !job.is_empty() && !job.contains('/') => json(api::job(desk, job).await),
            _ => ApiError::not_found(
                "there is /healthz, /readyz, /metrics, and under /api/v1: snapshot, jobs, jobs/{id}, workers, events",
                Some("unknown_url"),
            )
            .reply(),
        },
    }
}

fn events(desk: &Desk, cut: Arc<Notify>) -> Reply {
    match desk.events.listen(cut) {
        Some(mut reply) => {
            reply.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
            reply
        }
        None => unavailable("too many listen already; come back later"),
    }
}

fn json(found: Result<Value, Missing>) -> Reply {
    match found {
        Ok(value) => json_reply(StatusCode::OK, &value),
        Err(Missing::Starting) => unavailable("the journal is being replayed"),
        Err(Missing::Router) => unavailable("the router does not answer: its own output may say why"),
        Err(Missing::Job) => ApiError::not_found("there is no such job", None).reply(),
        Err(Missing::Ambiguous) => {
            ApiError::invalid("more than one job is called so: give more of its id", None).reply()
        }
    }
}

fn unavailable(why: &str) -> Reply {
    let (status, kind) = (StatusCode::SERVICE_UNAVAILABLE, "server_error");
    ApiError { status, kind, ..ApiError::invalid(why, None) }.reply()
}

fn text(status: StatusCode, kind: &'static str, text: impl Into<Bytes>) -> Reply {
    let mut reply = Reply::new(Full::new(text.into()).map_err(|never| match never {}).boxed());
    *reply.status_mut() = status;
    reply.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    reply
}
