//! From a request to the handler that answers it. A handler that panics is one 500 and nothing else.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use hyper::body::{Body, Incoming};
use hyper::header::{CONNECTION, CONTENT_LENGTH, HOST, HeaderName, HeaderValue, TRANSFER_ENCODING};
use hyper::{Method, Request, StatusCode, Version};

use crate::admit::{Gate, busy_reply};
use crate::batches;
use crate::files;
use crate::online::{models, online};
use crate::reply::{ApiError, Reply, no_route};
use crate::route::{Route, route};
use crate::serve::Door;
use crate::tasks;
use crate::who::Who;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The refusal of a call while every call is refused. There may be many of them: nothing is read but what any answer
/// needs, and no handler is begun.
pub(crate) fn refused_at_once(door: &Door, request: &Request<Incoming>) -> Option<Reply> {
    let asked = asked_at_once(&door.who, &door.gate, door.config.limits.call_bytes_max, request)?;
    door.counts.request();
    let number = door.request_number();
    let mut reply = match asked {
        Ok(_) => {
            door.gate.refuse();
            busy_reply(number)
        }
        Err(error) => error.reply(),
    };
    reply.headers_mut().insert(REQUEST_ID, header(door.request_name(number)));
    Some(reply)
}

/// Whose call it is that is refused; `None`: a handler answers. Who asks is looked up once for each request, here or there.
fn asked_at_once<B: Body>(
    who: &Who,
    gate: &Gate,
    bytes_max: usize,
    request: &Request<B>,
) -> Option<Result<String, ApiError>> {
    let headers = request.headers();
    let is_call = request.method() == Method::POST && CALLS.contains(&request.uri().path());
    let is_sound = framing_fault(request).is_none() && !headers.contains_key(TRANSFER_ENCODING);
    let is_fit = request.body().size_hint().lower() <= bytes_max as u64;
    (is_call && is_sound && is_fit && gate.is_yellow()).then(|| who.app(headers))
}

fn header(name: String) -> HeaderValue {
    HeaderValue::try_from(name).unwrap_or(HeaderValue::from_static("none"))
}

/// What refused calls are sent to.
const CALLS: [&str; 4] = ["/v1/chat/completions", "/v1/embeddings", "/v1/completions", "/v1/tasks"];

/// Answers one request, whatever it is.
pub(crate) async fn answer(door: Arc<Door>, request: Request<Incoming>) -> Reply {
    let id = door.request_id();
    let counts = Arc::clone(&door.counts);
    counts.request();
    let path = request.uri().path().to_owned();
    let fault = framing_fault(&request);
    // Where a length stood beside it, it is not told here any more; after such a request the connection must end.
    let is_last = fault.is_some() || request.headers().contains_key(TRANSFER_ENCODING);
    let routed = match fault {
        Some(fault) => Err(ApiError::invalid(fault, None).reply()),
        None => route(request.method(), &path).map_err(|why| no_route(why, &path)),
    };
    let mut reply = match routed {
        Err(reply) => reply,
        Ok(route) => match unpanicked(handle(door, route, request)).await {
            Some(reply) => reply,
            None => {
                counts.panicked();
                tracing::error!(request = id, "a handler panicked");
                let (kind, status) = ("server_error", StatusCode::INTERNAL_SERVER_ERROR);
                ApiError { status, kind, ..ApiError::invalid("a defect of the server; its log has more", None) }.reply()
            }
        },
    };
    reply.headers_mut().insert(REQUEST_ID, header(id));
    if is_last {
        reply.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    reply
}

/// What is wrong with a request whose end another server might see elsewhere, or whose place.
fn framing_fault<B>(request: &Request<B>) -> Option<&'static str> {
    let headers = request.headers();
    if headers.contains_key(TRANSFER_ENCODING) && headers.contains_key(CONTENT_LENGTH) {
        return Some("a request has a Content-Length or a Transfer-Encoding, not both");
    }
    let hosts = headers.get_all(HOST).iter().count();
    let is_old = request.version() < Version::HTTP_11;
    (hosts > 1 || (hosts == 0 && !is_old)).then_some("a request has one Host")
}

async fn handle(door: Arc<Door>, route: Route, request: Request<Incoming>) -> Reply {
    let tenant = match door.who.app(request.headers()) {
        Ok(app) => match door.tenants.get(&app) {
            Ok(tenant) => tenant,
            Err(error) => return ApiError::server(format!("cannot begin a line to the router: {error}")).reply(),
        },
        Err(error) => return error.reply(),
    };
    match route {
        Route::Models => models(&door, None).await,
        Route::Model(id) => models(&door, Some(&id)).await,
        Route::Online(endpoint) => online(&door, &tenant, endpoint, request).await,
        Route::Tasks => tasks::post(&door, &tenant, request).await,
        Route::Task(key) => tasks::get(&door, &tenant, &key).await,
        Route::Files(route) => {
            let answered = files::answer(&door.files, &door.config.limits, &tenant.app, route, request).await;
            answered.unwrap_or_else(|error| error.reply())
        }
        Route::Batches(route) => {
            let answered = batches::answer(&door.batches, &tenant.app, route, request).await;
            answered.unwrap_or_else(|error| error.reply())
        }
    }
}

/// What comes of `handler`; nothing where it panics. It runs on the connection's own task, and ends with it: a client that
/// hangs up is not waited for. A handler that panicked is never polled again, so nobody sees what it left half done.
async fn unpanicked(handler: impl Future<Output = Reply>) -> Option<Reply> {
    let mut handler = pin!(handler);
    std::future::poll_fn(|cx| match catch_unwind(AssertUnwindSafe(|| handler.as_mut().poll(cx))) {
        Ok(Poll::Ready(reply)) => Poll::Ready(Some(reply)),
        Ok(Poll::Pending) => Poll::Pending,
        Err(_) => Poll::Ready(None),
    })
    .await
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http_body_util::Full;
    use sheaf_server::TokenBook;

    use super::*;
    use crate::admit::{LightConfig, Pressure};
    use crate::counts::Counts;

    #[test]
    fn who_asks_is_looked_up_once_also_while_every_call_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let who = Who::new(TokenBook::open(dir.path()).unwrap(), true);
        let gate = Gate::new(LightConfig::default(), 1 << 20, Arc::new(Counts::default()));
        let request = Request::post(CALLS[0]).header(HOST, "localhost").header("authorization", "Bearer sheaf_none");
        let request = request.body(Full::new(Bytes::from_static(b"{}"))).unwrap();
        let asked = || asked_at_once(&who, &gate, 1 << 20, &request).map(|asked| asked.map_err(|error| error.status));
        assert_eq!(asked(), None, "the handler asks");
        gate.set_pressure(Pressure::Some);
        assert_eq!(asked(), Some(Err(StatusCode::UNAUTHORIZED)), "no handler asks again");
    }

    #[tokio::test]
    async fn a_handler_that_panics_is_no_reply_and_nothing_else() {
        let sound = unpanicked(async { ApiError::invalid("m", None).reply() }).await;
        assert_eq!(sound.map(|reply| reply.status()), Some(StatusCode::BAD_REQUEST));
        let broken = unpanicked(async {
            tokio::task::yield_now().await;
            panic!("planted")
        });
        assert!(broken.await.is_none());
    }
}
