//! Messages to bytes and back: the entry points, the errors, and the pieces that messages share.
//!
//! Encoding allocates once. Decoding takes any bytes: it returns an error, never panics, and copies no body.
//!
//! Limits that a role answers with a refusal (the length of a body, of a job's and of a worker's names) are that role's
//! to check: here, what is over its limit is no message, and ends the session that it came on.

mod answer;
mod client;
mod router;
mod stats;
mod worker;

use bytes::Bytes;
use bytestring::ByteString;
use prost::Message;

use crate::put::{self, Put, Writer};
use crate::wire;
use crate::{
    Capacity, Class, Evidence, Failure, Fence, JobCounts, JobOptions, JobSpec, NAME_BYTES_MAX, Order, Outcome, Refusal,
    RouterId, STDERR_TAIL_MAX, ToClient, ToRouter, ToWorker, UPSTREAM_TEXT_MAX, Upstream,
};

/// Why bytes are no message.
#[derive(Debug, PartialEq, thiserror::Error)]
pub enum DecodeError {
    /// Not protobuf, or not this message.
    #[error("malformed message: {0}")]
    Proto(#[from] prost::DecodeError),
    /// An id has another length than sixteen bytes.
    #[error("{field} has {len} bytes instead of 16")]
    IdLength {
        /// Which.
        field: &'static str,
        /// What it has.
        len: usize,
    },
    /// Something that must be there is not.
    #[error("{field} is missing")]
    Missing {
        /// Which.
        field: &'static str,
    },
    /// A value that this version does not know.
    #[error("{field} has the unknown value {value}")]
    Unknown {
        /// Where.
        field: &'static str,
        /// What.
        value: u32,
    },
    /// A name that is not UTF-8.
    #[error("{field} is not UTF-8")]
    NotText {
        /// Which.
        field: &'static str,
    },
    /// A list or a name is longer than the limit.
    #[error("{field} has {len} entries or bytes, {max} are allowed")]
    TooLong {
        /// Which.
        field: &'static str,
        /// What it has.
        len: usize,
        /// What is allowed.
        max: usize,
    },
}

/// What a conversion from the wire returns.
type Result<T> = std::result::Result<T, DecodeError>;

macro_rules! codec {
    ($($memory:ident),*) => {$(
        impl $memory {
            /// Its wire bytes.
            pub fn encode(&self) -> Bytes {
                put::encode(self)
            }

            /// Reads wire bytes. Bodies are slices of `bytes`.
            pub fn decode(bytes: Bytes) -> std::result::Result<Self, DecodeError> {
                wire::$memory::decode(bytes)?.try_into()
            }
        }
    )*};
}

codec!(ToRouter, ToWorker, ToClient, Capacity, JobCounts, JobSpec, Outcome, Fence);

/// Reads a sixteen-byte id.
macro_rules! id {
    ($type:ty, $bytes:expr, $field:literal) => {{
        let bytes = &$bytes;
        <$type>::from_slice(bytes).ok_or($crate::DecodeError::IdLength { field: $field, len: bytes.len() })
    }};
}
use id;

fn required<T>(value: Option<T>, field: &'static str) -> Result<T> {
    value.ok_or(DecodeError::Missing { field })
}

fn at_most(len: usize, max: usize, field: &'static str) -> Result<()> {
    if len > max { Err(DecodeError::TooLong { field, len, max }) } else { Ok(()) }
}

fn name(text: String, field: &'static str) -> Result<String> {
    at_most(text.len(), NAME_BYTES_MAX, field)?;
    Ok(text)
}

/// A name that shares the message's bytes.
fn shared_name(text: Bytes, field: &'static str) -> Result<ByteString> {
    at_most(text.len(), NAME_BYTES_MAX, field)?;
    ByteString::try_from(text).map_err(|_| DecodeError::NotText { field })
}

fn all<W, M: TryFrom<W, Error = DecodeError>>(items: Vec<W>, max: usize, field: &'static str) -> Result<Vec<M>> {
    at_most(items.len(), max, field)?;
    items.into_iter().map(M::try_from).collect()
}

impl Put for Fence {
    fn put(&self, to: &mut Writer) {
        to.bytes(1, self.key.0);
        to.uint(2, self.epoch);
        to.uint(3, self.attempt);
    }
}

impl TryFrom<wire::Fence> for Fence {
    type Error = DecodeError;

    fn try_from(w: wire::Fence) -> Result<Self> {
        Ok(Self { key: id!(crate::Key, w.key, "fence.key")?, epoch: w.epoch, attempt: w.attempt })
    }
}

impl Put for Outcome {
    fn put(&self, to: &mut Writer) {
        match self {
            Outcome::Ok(body) => to.given(1, body),
            Outcome::Failed(failure) => to.message(2, failure),
        }
    }
}

impl TryFrom<wire::Outcome> for Outcome {
    type Error = DecodeError;

    fn try_from(w: wire::Outcome) -> Result<Self> {
        Ok(match required(w.kind, "outcome")? {
            wire::OutcomeKind::Ok(body) => Outcome::Ok(body),
            wire::OutcomeKind::Failed(failure) => Outcome::Failed(failure.try_into()?),
        })
    }
}

impl Put for Failure {
    fn put(&self, to: &mut Writer) {
        let Evidence { exit_code, signal, stderr, worker, deaths, upstream } = &*self.evidence;
        to.uint(1, number_of(&Class::ALL, self.class));
        to.bytes(2, &self.message);
        to.sint(3, *exit_code);
        to.sint(4, *signal);
        to.bytes(5, stderr);
        to.bytes(6, worker);
        to.uint(7, *deaths);
        if let Some(upstream) = upstream {
            to.message(8, &**upstream);
        }
    }
}

impl Put for Upstream {
    fn put(&self, to: &mut Writer) {
        to.uint(1, self.status);
        to.bytes(2, &self.message);
        to.bytes(3, &self.kind);
        to.bytes(4, &self.param);
        to.bytes(5, &self.code);
    }
}

impl TryFrom<wire::Upstream> for Upstream {
    type Error = DecodeError;

    fn try_from(w: wire::Upstream) -> Result<Self> {
        let wire::Upstream { status, message, kind, param, code } = w;
        for text in [&message, &kind, &param, &code] {
            at_most(text.len(), UPSTREAM_TEXT_MAX, "failure.upstream")?;
        }
        let unknown = DecodeError::Unknown { field: "failure.upstream.status", value: status };
        Ok(Self { status: u16::try_from(status).map_err(|_| unknown)?, message, kind, param, code })
    }
}

impl TryFrom<wire::Failure> for Failure {
    type Error = DecodeError;

    fn try_from(w: wire::Failure) -> Result<Self> {
        at_most(w.stderr.len(), STDERR_TAIL_MAX, "failure.stderr")?;
        Ok(Self {
            class: numbered(&Class::ALL, w.class, "failure.class")?,
            message: w.message,
            evidence: Box::new(Evidence {
                exit_code: w.exit_code,
                signal: w.signal,
                stderr: w.stderr,
                worker: name(w.worker, "failure.worker")?,
                deaths: w.deaths,
                upstream: w.upstream.map(|upstream| Upstream::try_from(*upstream).map(Box::new)).transpose()?,
            }),
        })
    }
}

const ORDERS: [Order; 3] = [Order::Fifo, Order::Shortest, Order::Auto];

impl Put for JobSpec {
    fn put(&self, to: &mut Writer) {
        to.bytes(1, self.job.0);
        to.bytes(2, &self.name);
        to.bytes(3, &self.service);
        to.bytes(4, &self.revision);
        to.bytes(5, &self.nonce);
        to.uint(6, self.cursor);
        if let Some(router) = self.cursor_router {
            to.bytes(7, router.0);
        }
        to.uint(8, self.options.timeout_ms);
        to.uint(9, self.options.retries);
        to.uint(10, number_of(&ORDERS, self.options.order));
        to.uint(11, self.options.weight);
        to.uint(12, self.options.rate_millihertz);
    }
}

impl TryFrom<wire::JobSpec> for JobSpec {
    type Error = DecodeError;

    fn try_from(w: wire::JobSpec) -> Result<Self> {
        at_most(w.nonce.len(), NAME_BYTES_MAX, "job.nonce")?;
        let known = !w.cursor_router.is_empty();
        Ok(Self {
            job: id!(crate::JobId, w.job, "job.job")?,
            name: w.name,
            service: w.service,
            revision: w.revision,
            nonce: w.nonce,
            cursor: w.cursor,
            cursor_router: known.then(|| id!(RouterId, w.cursor_router, "job.cursor_router")).transpose()?,
            options: JobOptions {
                timeout_ms: w.timeout_ms,
                retries: w.retries,
                order: numbered(&ORDERS, w.order, "job.order")?,
                weight: w.weight,
                rate_millihertz: w.rate_millihertz,
            },
        })
    }
}

impl Put for Capacity {
    fn put(&self, to: &mut Writer) {
        to.uint(1, self.batch);
        to.uint(2, self.depth);
        to.uint(3, self.bytes);
    }
}

impl TryFrom<wire::Capacity> for Capacity {
    type Error = DecodeError;

    fn try_from(w: wire::Capacity) -> Result<Self> {
        Ok(Self { batch: w.batch, depth: w.depth, bytes: w.bytes })
    }
}

impl Put for JobCounts {
    fn put(&self, to: &mut Writer) {
        let JobCounts { submitted, ok, failed, open, running, cached, retried, last_number, settled, unserved } = *self;
        let counts = [submitted, ok, failed, open, running, cached, retried, last_number, settled, unserved];
        (1..).zip(counts).for_each(|(field, count)| to.uint(field, count));
    }
}

impl TryFrom<wire::JobCounts> for JobCounts {
    type Error = DecodeError;

    fn try_from(w: wire::JobCounts) -> Result<Self> {
        let wire::JobCounts { submitted, ok, failed, open, running, cached, retried, last_number, settled, unserved } =
            w;
        Ok(Self { submitted, ok, failed, open, running, cached, retried, last_number, settled, unserved })
    }
}

impl Put for Refusal {
    fn put(&self, to: &mut Writer) {
        let (kind, a, b) = match self {
            Refusal::Busy { retry_ms } => (1_u32, *retry_ms, 0),
            Refusal::TooLong { len, max } => (2, *len, *max),
            Refusal::UnknownJob => (3, 0, 0),
            Refusal::Cancelled => (4, 0, 0),
            Refusal::OtherJob => (5, 0, 0),
            Refusal::CursorAhead { last } => (6, *last, 0),
            Refusal::Stopping => (7, 0, 0),
            Refusal::Superseded { incarnation } => (8, *incarnation, 0),
            Refusal::Forbidden => (9, 0, 0),
        };
        to.uint(1, kind);
        to.uint(2, a);
        to.uint(3, b);
    }
}

impl TryFrom<wire::Refusal> for Refusal {
    type Error = DecodeError;

    fn try_from(w: wire::Refusal) -> Result<Self> {
        Ok(match w.kind {
            1 => Refusal::Busy { retry_ms: w.a },
            2 => Refusal::TooLong { len: w.a, max: w.b },
            3 => Refusal::UnknownJob,
            4 => Refusal::Cancelled,
            5 => Refusal::OtherJob,
            6 => Refusal::CursorAhead { last: w.a },
            7 => Refusal::Stopping,
            8 => Refusal::Superseded { incarnation: w.a },
            9 => Refusal::Forbidden,
            value => return Err(DecodeError::Unknown { field: "refusal", value }),
        })
    }
}

/// The wire number of `value`: its place in `all`, from 1, so that 0 is never a value.
fn number_of<T: PartialEq + Copy>(all: &[T], value: T) -> u32 {
    let place = all.iter().position(|each| *each == value);
    place.map_or(0, |place| place as u32 + 1)
}

fn numbered<T: Copy>(all: &[T], value: u32, field: &'static str) -> Result<T> {
    let place = (value as usize).checked_sub(1);
    place.and_then(|place| all.get(place).copied()).ok_or(DecodeError::Unknown { field, value })
}

#[cfg(test)]
mod tests;
