//! A backend that is called over HTTP, as its user describes it. Checked before any work.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use hyper::Uri;
use hyper::header::HeaderValue;
use hyper::http::uri::{PathAndQuery, Scheme};

/// How long an attempt waits for a backend that serves nobody, since it has too much to do or is away, before it is given
/// back.
pub const HOLD_DEFAULT: Duration = Duration::from_secs(60);
/// How long a backend may take for one row where the job says nothing.
pub const REPLY_DEFAULT: Duration = Duration::from_secs(600);

/// Where rows are sent and what is understood of the answers.
#[derive(Clone, Debug)]
pub struct Backend {
    /// Where.
    pub url: BackendUrl,
    /// Trusted instead of the system's certificate authorities: a file of certificates in PEM.
    pub ca: Option<PathBuf>,
    /// What it is taken for.
    pub api: Api,
    /// [`HOLD_DEFAULT`].
    pub hold: Duration,
    /// [`REPLY_DEFAULT`].
    pub reply: Duration,
}

impl Backend {
    /// With the defaults.
    pub fn new(url: BackendUrl) -> Self {
        Self { url, ca: None, api: Api::Plain, hold: HOLD_DEFAULT, reply: REPLY_DEFAULT }
    }
}

/// What is understood of a backend's answers.
#[derive(Clone, Debug)]
pub enum Api {
    /// Nothing: what comes with a good status is the answer.
    Plain,
    /// The OpenAI-compatible API, whose address is that of the version (`…/v1`).
    OpenAi {
        /// For requests that name none.
        model: Option<String>,
        /// Sent with each request.
        key: Option<ApiKey>,
    },
}

/// What a backend knows its callers by. It is never shown.
#[derive(Clone)]
pub struct ApiKey {
    authorization: HeaderValue,
}

impl ApiKey {
    /// Reads one; white space around it is no part of it.
    pub fn parse(text: &str) -> Result<Self, BackendError> {
        let key = text.trim();
        if key.is_empty() || key.contains(char::is_whitespace) {
            return Err(BackendError::Key);
        }
        let mut authorization = HeaderValue::from_str(&format!("Bearer {key}")).map_err(|_| BackendError::Key)?;
        authorization.set_sensitive(true);
        Ok(Self { authorization })
    }

    pub(crate) fn authorization(&self) -> HeaderValue {
        self.authorization.clone()
    }
}

impl std::fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ApiKey(…)")
    }
}

/// An address that rows can be sent to: `http` or `https`, a host, and a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackendUrl {
    uri: Uri,
}

impl BackendUrl {
    /// Reads one.
    pub fn parse(text: &str) -> Result<Self, BackendError> {
        let wrong = |why| BackendError::Url { url: text.to_owned(), why };
        let uri: Uri = text.parse().map_err(|_| wrong("it is no URL"))?;
        let is_known = uri.scheme() == Some(&Scheme::HTTP) || uri.scheme() == Some(&Scheme::HTTPS);
        if !is_known {
            return Err(wrong("it must begin with http:// or https://"));
        }
        let authority = uri.authority().map_or("", |authority| authority.as_str());
        if uri.host().unwrap_or_default().is_empty() {
            return Err(wrong("it names no host"));
        }
        if authority.contains('@') {
            return Err(wrong("it holds a name or password, which would be shown: leave them out"));
        }
        Ok(Self { uri })
    }

    /// True where nobody else can read what is sent: it is encrypted, or stays on this machine.
    pub fn is_private(&self) -> bool {
        let host = self.uri.host().unwrap_or_default().trim_matches(['[', ']']);
        let is_loopback = host.parse::<IpAddr>().map_or(host == "localhost", |ip| ip.is_loopback());
        self.is_tls() || is_loopback
    }

    /// True where what is sent is encrypted.
    pub fn is_tls(&self) -> bool {
        self.uri.scheme() == Some(&Scheme::HTTPS)
    }

    /// The last part of the path, or the host: the service that is offered by default.
    pub fn base_name(&self) -> String {
        let last = self.uri.path().rsplit('/').find(|part| !part.is_empty());
        last.or(self.uri.host()).unwrap_or_default().to_owned()
    }

    /// For messages: without the query, which may hold secrets.
    pub fn shown(&self) -> String {
        let (scheme, authority) = (self.uri.scheme_str().unwrap_or_default(), self.uri.authority());
        format!("{scheme}://{}{}", authority.map_or("", |authority| authority.as_str()), self.uri.path())
    }

    pub(crate) fn uri(&self) -> Uri {
        self.uri.clone()
    }

    /// The address of `path` below this one, which is `/v1` where nothing is said; a query stays.
    pub(crate) fn below(&self, path: &str) -> Result<Uri, BackendError> {
        let wrong = |why| BackendError::Url { url: self.shown(), why };
        let query = self.uri.query().map_or(String::new(), |query| format!("?{query}"));
        let above = match self.uri.path().trim_end_matches('/') {
            "" => "/v1",
            above => above,
        };
        let whole = format!("{}{path}{query}", above);
        let mut parts = self.uri.clone().into_parts();
        parts.path_and_query = Some(PathAndQuery::try_from(whole).map_err(|_| wrong("its path cannot be extended"))?);
        Uri::from_parts(parts).map_err(|_| wrong("its path cannot be extended"))
    }
}

/// Why a backend cannot be called, whatever it would answer.
#[derive(Debug, thiserror::Error)]
pub enum BackendError {
    /// No address.
    #[error("{url} cannot be called: {why}")]
    Url {
        /// As given.
        url: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// No key, or none that can be sent.
    #[error("the API key is empty, or holds white space or signs that no key has: it must be one word")]
    Key,
    /// The file of `--backend-ca`.
    #[error("cannot use the certificates in {}: {why}", path.display())]
    Ca {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The system trusts nobody.
    #[error("this system has no certificate authorities to check a server by; name a file of them with --backend-ca")]
    NoRoots,
    /// The TLS library refuses its configuration.
    #[error("TLS cannot be set up: {0}")]
    Tls(rustls::Error),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_read_and_named() {
        let url = |text| BackendUrl::parse(text).unwrap();
        assert_eq!(url("http://h:8080/a/annotate/").base_name(), "annotate");
        assert_eq!(url("https://models.example").base_name(), "models.example");
        assert_eq!(url("https://h/v1?secret=1").shown(), "https://h/v1");
        assert_eq!(url("https://h/v1/?a=b").below("/embeddings").unwrap(), "https://h/v1/embeddings?a=b");
        assert_eq!(url("http://h:8000").below("/embeddings").unwrap(), "http://h:8000/v1/embeddings");
        for wrong in ["", "h:80", "ftp://h/", "http://", "/x", "http://me:secret@h/", "http://h/a b"] {
            assert!(BackendUrl::parse(wrong).is_err(), "{wrong}");
        }
    }
}
