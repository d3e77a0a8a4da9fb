//! A message in a sending lane's log, and where the bytes of its body are.

use bytes::Bytes;

use crate::ack::chain_next;
use crate::{Body, Micros, Place};

/// A message in the log.
#[derive(Debug)]
pub(crate) struct Entry {
    pub kind: u32,
    pub app: u32,
    pub of: Option<Place>,
    pub body: Held,
    /// The record that must be durable before the message leaves; 0 on lanes of depth MEMORY.
    pub ticket: u64,
    /// Hash over the lane up to here; set when first sent.
    pub chain: u64,
    pub sent_at: Micros,
    /// The peer has it, above a gap.
    pub held: bool,
}

/// Where the bytes of a body are.
#[derive(Debug)]
pub(crate) enum Held {
    Here(Bytes),
    /// With the embedder; not asked for.
    Away {
        len: usize,
    },
    /// With the embedder; asked for.
    Asked {
        len: usize,
    },
    /// Given by the embedder, and dropped once sent.
    Lent(Bytes),
}

impl Held {
    pub(super) fn len(&self) -> usize {
        match self {
            Held::Here(bytes) | Held::Lent(bytes) => bytes.len(),
            Held::Away { len } | Held::Asked { len } => *len,
        }
    }

    pub(super) fn bytes(&self) -> Option<&Bytes> {
        match self {
            Held::Here(bytes) | Held::Lent(bytes) => Some(bytes),
            Held::Away { .. } | Held::Asked { .. } => None,
        }
    }

    /// What the session itself stores for good.
    pub(super) fn inline_len(&self) -> usize {
        match self {
            Held::Here(bytes) => bytes.len(),
            Held::Away { .. } | Held::Asked { .. } | Held::Lent(_) => 0,
        }
    }

    /// What counts against the bytes asked for ahead.
    pub(super) fn ahead_len(&self) -> usize {
        match self {
            Held::Here(_) | Held::Away { .. } => 0,
            Held::Asked { len } => *len,
            Held::Lent(bytes) => bytes.len(),
        }
    }
}

impl Entry {
    pub(crate) fn new(kind: u32, app: u32, of: Option<Place>, body: Held, ticket: u64) -> Entry {
        Entry { kind, app, of, body, ticket, chain: 0, sent_at: Micros::ZERO, held: false }
    }

    pub(super) fn hash(&self, before: u64) -> u64 {
        let body = self.body.bytes().map_or(&[][..], |bytes| bytes);
        chain_next(before, self.kind, self.app, self.of, body)
    }
}

impl From<Body> for Held {
    fn from(body: Body) -> Held {
        match body {
            Body::Inline(bytes) => Held::Here(bytes),
            Body::Ref { len } => Held::Away { len: len as usize },
        }
    }
}
