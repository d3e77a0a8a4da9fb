//! What the embedder logs for a session, as opaque bytes: one record per output `Persist`.
//!
//! Version rule: tags and fields are added, never reused; unknown ones make the record `BadRecord`, for a log that is
//! half understood is not a log.

use bytes::Bytes;
use prost::Message;

use crate::{Lane, Place, Receipt};

/// A step of a session's durable state. Replay all of them, in order, through [`crate::State::apply`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record(pub(crate) Step);

/// The bytes are no record of this version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a session record of a known version")]
pub struct BadRecord;

/// The steps themselves. Messages are named by the sender's handle `n`, which no epoch changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// This side started with this incarnation.
    Start { incarnation: u64 },
    /// A message entered the lane.
    Append { lane: Lane, n: u64, kind: u32, app: u32, of: Option<Place>, body: Bytes },
    /// The message keeps its number and loses its content.
    Void { lane: Lane, n: u64 },
    /// From `first` on the lane is numbered anew from 1.
    Epoch { lane: Lane, epoch: u64, life: u64, first: u64 },
    /// All up to `n` is acknowledged; `chain` is the hash over the lane up to it.
    Forget { lane: Lane, n: u64, chain: u64 },
    /// The receiver's facts after messages that the session handles itself.
    Received { receipt: Receipt },
}

impl Record {
    /// For the embedder to log, synced, before it opens the session: see [`crate::State::incarnation`].
    pub fn start(incarnation: u64) -> Record {
        Record(Step::Start { incarnation })
    }

    /// The record as bytes.
    pub fn to_bytes(&self) -> Bytes {
        Bytes::from(RecordW::from(&self.0).encode_to_vec())
    }

    /// The reverse of [`Record::to_bytes`]; bodies stay slices of `bytes`.
    ///
    /// # Errors
    /// `BadRecord` if the bytes are none of ours.
    pub fn from_bytes(bytes: Bytes) -> Result<Record, BadRecord> {
        let wire = RecordW::decode(bytes).map_err(|_| BadRecord)?;
        wire.step().map(Record).ok_or(BadRecord)
    }
}

const START: u32 = 1;
const APPEND: u32 = 2;
const VOID: u32 = 3;
const EPOCH: u32 = 4;
const FORGET: u32 = 5;
const RECEIVED: u32 = 6;

#[derive(Clone, PartialEq, prost::Message)]
struct RecordW {
    #[prost(uint32, tag = "1")]
    tag: u32,
    #[prost(uint32, tag = "2")]
    lane: u32,
    #[prost(uint64, tag = "3")]
    n: u64,
    #[prost(uint32, tag = "4")]
    kind: u32,
    #[prost(uint32, tag = "5")]
    app: u32,
    #[prost(message, optional, tag = "6")]
    of: Option<crate::wire::PlaceW>,
    #[prost(bytes = "bytes", tag = "7")]
    body: Bytes,
    #[prost(uint64, tag = "8")]
    epoch: u64,
    #[prost(fixed64, tag = "9")]
    life: u64,
    #[prost(fixed64, tag = "10")]
    chain: u64,
}

impl From<&Step> for RecordW {
    fn from(step: &Step) -> RecordW {
        let blank = |tag: u32, lane: Lane| RecordW { tag, lane: lane.index() as u32, ..RecordW::default() };
        match step {
            Step::Start { incarnation } => RecordW { n: *incarnation, ..blank(START, Lane::Urgent) },
            Step::Append { lane, n, kind, app, of, body } => {
                let (of, body) = (of.map(Into::into), body.clone());
                RecordW { n: *n, kind: *kind, app: *app, of, body, ..blank(APPEND, *lane) }
            }
            Step::Void { lane, n } => RecordW { n: *n, ..blank(VOID, *lane) },
            Step::Epoch { lane, epoch, life, first } => {
                RecordW { n: *first, epoch: *epoch, life: *life, ..blank(EPOCH, *lane) }
            }
            Step::Forget { lane, n, chain } => RecordW { n: *n, chain: *chain, ..blank(FORGET, *lane) },
            Step::Received { receipt: Receipt { place, life, chain } } => {
                RecordW { n: place.seq, epoch: place.epoch, life: *life, chain: *chain, ..blank(RECEIVED, place.lane) }
            }
        }
    }
}

impl RecordW {
    fn step(self) -> Option<Step> {
        let lane = *Lane::ALL.get(self.lane as usize)?;
        let of = match self.of {
            Some(place) => Some(place.place()?),
            None => None,
        };
        Some(match self.tag {
            START => Step::Start { incarnation: self.n },
            APPEND => Step::Append { lane, n: self.n, kind: self.kind, app: self.app, of, body: self.body },
            VOID => Step::Void { lane, n: self.n },
            EPOCH => Step::Epoch { lane, epoch: self.epoch, life: self.life, first: self.n },
            FORGET => Step::Forget { lane, n: self.n, chain: self.chain },
            RECEIVED => {
                let place = Place { lane, epoch: self.epoch, seq: self.n };
                Step::Received { receipt: Receipt { place, life: self.life, chain: self.chain } }
            }
            _ => return None,
        })
    }
}

#[cfg(test)]
impl Record {
    /// The body of a message that this record appends.
    pub(crate) fn body(&self) -> Option<&Bytes> {
        match &self.0 {
            Step::Append { body, .. } => Some(body),
            Step::Start { .. }
            | Step::Void { .. }
            | Step::Epoch { .. }
            | Step::Forget { .. }
            | Step::Received { .. } => None,
        }
    }
}
