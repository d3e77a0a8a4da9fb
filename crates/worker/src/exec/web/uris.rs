//! Where requests of each kind go, and what their bodies are called.

use bytes::Bytes;
use hyper::Uri;

use super::openai::Kind;
use crate::backend::{Backend, BackendError};

/// Where requests go.
pub(super) struct Uris {
    plain: Uri,
    chat: Uri,
    completions: Uri,
    embeddings: Uri,
}

impl Uris {
    pub(super) fn new(backend: &Backend) -> Result<Self, BackendError> {
        let of = |kind: Kind| backend.url.below(kind.path());
        let (chat, completions, embeddings) = (of(Kind::Chat)?, of(Kind::Completions)?, of(Kind::Embeddings)?);
        Ok(Self { plain: backend.url.uri(), chat, completions, embeddings })
    }

    pub(super) fn of(&self, kind: Option<Kind>) -> Uri {
        let uri = match kind {
            None => &self.plain,
            Some(Kind::Chat) => &self.chat,
            Some(Kind::Completions) => &self.completions,
            Some(Kind::Embeddings) => &self.embeddings,
        };
        uri.clone()
    }
}

/// What a body looks like: the other side may insist on a word for it.
pub(super) fn content_type(body: &Bytes) -> &'static str {
    let is_json = matches!(body.trim_ascii_start().first(), Some(b'{' | b'['));
    match std::str::from_utf8(body) {
        Ok(_) if is_json => "application/json",
        Ok(_) => "text/plain; charset=utf-8",
        Err(_) => "application/octet-stream",
    }
}
