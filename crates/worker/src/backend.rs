//! A backend that is called over HTTP, as its user describes it. Checked before any work.

use std::path::PathBuf;
use std::time::Duration;

use hyper::Uri;
use hyper::http::uri::Scheme;

/// How long an attempt waits for a backend that has too much to do or is away, before it is given back.
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
    /// [`HOLD_DEFAULT`].
    pub hold: Duration,
    /// [`REPLY_DEFAULT`].
    pub reply: Duration,
}

impl Backend {
    /// With the defaults.
    pub fn new(url: BackendUrl) -> Self {
        Self { url, ca: None, hold: HOLD_DEFAULT, reply: REPLY_DEFAULT }
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
    /// The file of `--ca`.
    #[error("cannot use the certificates in {}: {why}", path.display())]
    Ca {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The system trusts nobody.
    #[error("this system has no certificate authorities to check a server by; name a file of them with --ca")]
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
        for wrong in ["", "h:80", "ftp://h/", "http://", "/x", "http://me:secret@h/", "http://h/a b"] {
            assert!(BackendUrl::parse(wrong).is_err(), "{wrong}");
        }
    }
}
