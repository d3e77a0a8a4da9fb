//! One POST and what came of it, over a pool of connections that are kept alive. It knows no rows and no classes.
//!
//! Redirects are not followed: a body and a key go to the address that was given and nowhere else. What a reply may
//! hold is bounded before it is read.

use std::path::Path;
use std::time::{Duration, SystemTime};

use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt, Full};
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::{Request, Response, StatusCode, Uri};
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use sheaf_task::{Fence, PIECE_BYTES_MAX, Piece};
use tokio::sync::mpsc;

use crate::backend::BackendError;

/// Longest time until a connection stands.
const CONNECT_MAX: Duration = Duration::from_secs(10);
/// How long a connection that nobody uses is kept.
const IDLE_MAX: Duration = Duration::from_secs(30);

/// What a stream of events may hold, each of which repeats what the answer says once.
const STREAM_BYTES_MAX: usize = 64 << 20;

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
const RETRY_AFTER_MS: HeaderName = HeaderName::from_static("retry-after-ms");

/// What is sent.
pub(super) struct Post {
    pub(super) uri: Uri,
    pub(super) body: Bytes,
    pub(super) content_type: &'static str,
    /// `Authorization`, marked as secret.
    pub(super) authorization: Option<HeaderValue>,
    /// The same for every attempt at the same work.
    pub(super) idempotency_key: String,
    /// What the reply may hold.
    pub(super) reply_max: usize,
    /// Who watches a stream of events come.
    pub(super) watcher: Option<Watcher>,
}

/// Is shown a stream of events while it comes.
pub(super) struct Watcher {
    fence: Fence,
    pieces: mpsc::Sender<Piece>,
    at: u64,
}

impl Watcher {
    pub(super) fn new(fence: Fence, pieces: mpsc::Sender<Piece>) -> Self {
        Self { fence, pieces, at: 0 }
    }

    /// Passes on what came; false if nobody keeps up. What would follow a gap is of no use.
    fn show(&mut self, data: &Bytes) -> bool {
        for start in (0..data.len()).step_by(PIECE_BYTES_MAX) {
            let bytes = data.slice(start..data.len().min(start + PIECE_BYTES_MAX));
            let len = bytes.len() as u64;
            if self.pieces.try_send(Piece { fence: self.fence, at: self.at, bytes }).is_err() {
                return false;
            }
            self.at += len;
        }
        true
    }
}

/// What came.
#[derive(Debug)]
pub(super) enum Answer {
    /// A whole reply.
    Reply(Reply),
    /// The reply holds more than it may.
    TooLong,
    /// Nothing was sent: no address, no connection, no TLS.
    Unreachable(String),
    /// It was sent, perhaps, and the connection or the reply broke off.
    Broken(String),
}

#[derive(Debug)]
pub(super) struct Reply {
    pub(super) status: StatusCode,
    /// How long to wait, as the other side says.
    pub(super) retry_after: Option<Duration>,
    /// `text/event-stream`.
    pub(super) is_stream: bool,
    /// Where it is elsewhere.
    pub(super) location: Option<String>,
    pub(super) body: Bytes,
}

/// The pool.
#[derive(Clone)]
pub(super) struct Client {
    pool: legacy::Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
}

impl Client {
    /// Trusts the certificate authorities in the file `ca` and no others, or those of the system.
    pub(super) fn new(ca: Option<&Path>, is_tls: bool, idle_max: usize) -> Result<Self, BackendError> {
        let tls = tls(ca, is_tls)?;
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_connect_timeout(Some(CONNECT_MAX));
        let connector = hyper_rustls::HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http().enable_http1();
        let pool = legacy::Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_MAX)
            .pool_max_idle_per_host(idle_max)
            .build(connector.wrap_connector(tcp));
        Ok(Self { pool })
    }

    /// Sends, and reads the reply to its end. Bounded in size and not in time.
    pub(super) async fn post(&self, mut post: Post) -> Answer {
        let (reply_max, watcher) = (post.reply_max, post.watcher.take());
        let request = match request(post) {
            Ok(request) => request,
            Err(error) => return Answer::Unreachable(error.to_string()),
        };
        match self.pool.request(request).await {
            Ok(response) => read(response, reply_max, watcher).await,
            Err(error) if error.is_connect() => Answer::Unreachable(causes(&error)),
            Err(error) => Answer::Broken(causes(&error)),
        }
    }
}

fn request(post: Post) -> Result<Request<Full<Bytes>>, hyper::http::Error> {
    let mut request = Request::post(post.uri)
        .header(header::CONTENT_TYPE, post.content_type)
        .header(header::ACCEPT, "*/*")
        .header(header::USER_AGENT, concat!("sheaf/", env!("CARGO_PKG_VERSION")))
        .header(IDEMPOTENCY_KEY, post.idempotency_key);
    if let Some(authorization) = post.authorization {
        request = request.header(header::AUTHORIZATION, authorization);
    }
    request.body(Full::new(post.body))
}

async fn read(response: Response<hyper::body::Incoming>, reply_max: usize, watcher: Option<Watcher>) -> Answer {
    let (head, mut incoming) = response.into_parts();
    let text = |name: &HeaderName| head.headers.get(name).and_then(|value| value.to_str().ok());
    let is_stream = text(&header::CONTENT_TYPE).is_some_and(|kind| kind.starts_with("text/event-stream"));
    let mut watcher = watcher.filter(|_| is_stream && head.status.is_success());
    let reply_max = if is_stream { STREAM_BYTES_MAX } else { reply_max };
    let mut body = BytesMut::new();
    while let Some(frame) = incoming.frame().await {
        match frame {
            Ok(frame) => {
                let data = frame.into_data().unwrap_or_default();
                if body.len() + data.len() > reply_max {
                    return Answer::TooLong;
                }
                watcher = watcher.and_then(|mut watcher| watcher.show(&data).then_some(watcher));
                body.extend_from_slice(&data);
            }
            Err(error) => return Answer::Broken(causes(&error)),
        }
    }
    Answer::Reply(Reply {
        status: head.status,
        retry_after: retry_after(&head.headers, SystemTime::now()),
        is_stream,
        location: text(&header::LOCATION).map(str::to_owned),
        body: body.freeze(),
    })
}

/// In seconds, as a date, or in milliseconds in a header that some backends add for finer waits.
fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let text = |name: &HeaderName| headers.get(name).and_then(|value| value.to_str().ok()).map(str::trim);
    let number = |text: &str| text.parse::<f64>().ok().filter(|number| *number >= 0.0);
    if let Some(ms) = text(&RETRY_AFTER_MS).and_then(number) {
        return Duration::try_from_secs_f64(ms / 1_000.0).ok();
    }
    let text = text(&header::RETRY_AFTER)?;
    match number(text) {
        Some(seconds) => Duration::try_from_secs_f64(seconds).ok(),
        // A date that is over says: now.
        None => Some(httpdate::parse_http_date(text).ok()?.duration_since(now).unwrap_or_default()),
    }
}

fn tls(ca: Option<&Path>, is_tls: bool) -> Result<rustls::ClientConfig, BackendError> {
    let mut roots = rustls::RootCertStore::empty();
    if let Some(ca) = ca {
        let unreadable = |why: String| BackendError::Ca { path: ca.to_owned(), why };
        for certificate in CertificateDer::pem_file_iter(ca).map_err(|error| unreadable(error.to_string()))? {
            let certificate = certificate.map_err(|error| unreadable(error.to_string()))?;
            roots.add(certificate).map_err(|error| unreadable(error.to_string()))?;
        }
        if roots.is_empty() {
            return Err(unreadable("it holds no certificate in PEM".to_owned()));
        }
    } else if is_tls {
        let found = rustls_native_certs::load_native_certs();
        roots.add_parsable_certificates(found.certs);
        if roots.is_empty() {
            return Err(BackendError::NoRoots);
        }
    }
    let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
    let versions = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let versions = versions.map_err(BackendError::Tls)?;
    Ok(versions.with_root_certificates(roots).with_no_client_auth())
}

/// An error and what it came from: the outermost says least.
fn causes(error: &(dyn std::error::Error + 'static)) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_are_read_in_each_of_their_forms() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_770);
        let wait = |name: &'static str, value: &'static str| {
            let headers = [(HeaderName::from_static(name), HeaderValue::from_static(value))];
            retry_after(&headers.into_iter().collect(), now)
        };
        assert_eq!(wait("retry-after", "7"), Some(Duration::from_secs(7)));
        assert_eq!(wait("retry-after", " 0.5 "), Some(Duration::from_millis(500)));
        assert_eq!(wait("retry-after", "Sun, 06 Nov 1994 08:49:37 GMT"), Some(Duration::from_secs(7)));
        assert_eq!(wait("retry-after", "Sun, 06 Nov 1994 08:49:00 GMT"), Some(Duration::ZERO));
        assert_eq!(wait("retry-after-ms", "20"), Some(Duration::from_millis(20)));
        for nonsense in ["soon", "-1", "inf", "NaN", "", "1e300"] {
            assert_eq!(wait("retry-after", nonsense), None, "{nonsense}");
        }
    }
}
