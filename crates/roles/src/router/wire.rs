//! The wire forms of records: prost structs. Version rule: fields are added with new numbers and never reused; an
//! unknown field is skipped; a record kind is never reused.
//!
//! Ids travel as two `fixed64` halves, big end first: no allocation, no length. Bodies come last in their message.

use bytes::Bytes;
use prost::Message;

#[derive(Clone, PartialEq, Message)]
pub(super) struct IdWire {
    #[prost(fixed64, tag = "1")]
    pub(super) hi: u64,
    #[prost(fixed64, tag = "2")]
    pub(super) lo: u64,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct OpenedWire {
    #[prost(uint32, tag = "1")]
    pub(super) no: u32,
    #[prost(message, tag = "2")]
    pub(super) job: Option<IdWire>,
    #[prost(string, tag = "3")]
    pub(super) name: String,
    #[prost(string, tag = "4")]
    pub(super) service: String,
    #[prost(string, tag = "5")]
    pub(super) revision: String,
    #[prost(bytes = "bytes", tag = "6")]
    pub(super) nonce: Bytes,
    #[prost(uint64, tag = "7")]
    pub(super) timeout_ms: u64,
    #[prost(uint32, tag = "8")]
    pub(super) retries: u32,
    #[prost(uint32, tag = "9")]
    pub(super) order: u32,
    #[prost(uint32, tag = "10")]
    pub(super) weight: u32,
    #[prost(uint64, tag = "11")]
    pub(super) rate_millihertz: u64,
    #[prost(string, tag = "12")]
    pub(super) app: String,
}

/// `Submitted`, and `Joined` without a body.
#[derive(Clone, PartialEq, Message)]
pub(super) struct RowWire {
    #[prost(message, tag = "1")]
    pub(super) key: Option<IdWire>,
    #[prost(uint32, tag = "2")]
    pub(super) job: u32,
    #[prost(message, tag = "3")]
    pub(super) row: Option<IdWire>,
    #[prost(bytes = "bytes", tag = "15")]
    pub(super) body: Bytes,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct DeliveryWire {
    #[prost(uint32, tag = "1")]
    pub(super) job: u32,
    #[prost(message, tag = "2")]
    pub(super) row: Option<IdWire>,
    #[prost(uint64, tag = "3")]
    pub(super) number: u64,
}

/// `Cached`, `Withdrawn` and `Retried`: an older record and a delivery.
#[derive(Clone, PartialEq, Message)]
pub(super) struct OlderWire {
    #[prost(message, tag = "1")]
    pub(super) key: Option<IdWire>,
    #[prost(bool, tag = "2")]
    pub(super) ok: bool,
    #[prost(uint32, tag = "3")]
    pub(super) len: u32,
    #[prost(uint64, tag = "4")]
    pub(super) lsn: u64,
    #[prost(message, tag = "5")]
    pub(super) delivery: Option<DeliveryWire>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct EndedWire {
    #[prost(message, tag = "1")]
    pub(super) key: Option<IdWire>,
    /// 0: none, else the class's place in `Class::ALL` + 1.
    #[prost(uint32, tag = "2")]
    pub(super) class: u32,
    #[prost(bool, tag = "3")]
    pub(super) suspect: bool,
    #[prost(bool, tag = "4")]
    pub(super) counts: bool,
    #[prost(uint32, tag = "5")]
    pub(super) job: u32,
    #[prost(uint64, tag = "6")]
    pub(super) epoch: u64,
    #[prost(uint32, tag = "7")]
    pub(super) attempt: u32,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct FailureWire {
    #[prost(uint32, tag = "1")]
    pub(super) class: u32,
    #[prost(string, tag = "2")]
    pub(super) message: String,
    #[prost(sint32, optional, tag = "3")]
    pub(super) exit_code: Option<i32>,
    #[prost(sint32, optional, tag = "4")]
    pub(super) signal: Option<i32>,
    #[prost(bytes = "bytes", tag = "5")]
    pub(super) stderr: Bytes,
    #[prost(string, tag = "6")]
    pub(super) worker: String,
    #[prost(uint32, tag = "7")]
    pub(super) deaths: u32,
    #[prost(message, optional, boxed, tag = "8")]
    pub(super) upstream: Option<Box<UpstreamWire>>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct UpstreamWire {
    #[prost(uint32, tag = "1")]
    pub(super) status: u32,
    #[prost(string, tag = "2")]
    pub(super) message: String,
    #[prost(string, tag = "3")]
    pub(super) kind: String,
    #[prost(string, tag = "4")]
    pub(super) param: String,
    #[prost(string, tag = "5")]
    pub(super) code: String,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct FinishedWire {
    #[prost(message, tag = "1")]
    pub(super) key: Option<IdWire>,
    #[prost(uint64, tag = "2")]
    pub(super) submitted: u64,
    #[prost(uint32, tag = "3")]
    pub(super) body_len: u32,
    #[prost(uint32, tag = "4")]
    pub(super) attempts: u32,
    /// UTF-8.
    #[prost(bytes = "bytes", tag = "5")]
    pub(super) worker: Bytes,
    #[prost(uint64, tag = "6")]
    pub(super) ms: u64,
    #[prost(message, repeated, tag = "7")]
    pub(super) deliveries: Vec<DeliveryWire>,
    #[prost(message, tag = "8")]
    pub(super) failure: Option<FailureWire>,
    #[prost(bytes = "bytes", tag = "15")]
    pub(super) body: Bytes,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct WorkerWire {
    #[prost(message, tag = "1")]
    pub(super) worker: Option<IdWire>,
    #[prost(uint64, tag = "2")]
    pub(super) incarnation: u64,
    #[prost(string, tag = "3")]
    pub(super) name: String,
    #[prost(string, repeated, tag = "4")]
    pub(super) services: Vec<String>,
}

/// `Settled`; `Unlisted` and `JobLeft`, the number that they name as `last_number`; and `Scanned`, `Cancelled` and `Resumed`, without counts.
#[derive(Clone, PartialEq, Message)]
pub(super) struct JobWire {
    #[prost(uint32, tag = "1")]
    pub(super) job: u32,
    #[prost(uint64, tag = "2")]
    pub(super) settled: u64,
    #[prost(uint64, tag = "3")]
    pub(super) submitted: u64,
    #[prost(uint64, tag = "4")]
    pub(super) ok: u64,
    #[prost(uint64, tag = "5")]
    pub(super) failed: u64,
    #[prost(uint64, tag = "6")]
    pub(super) open: u64,
    #[prost(uint64, tag = "7")]
    pub(super) cached: u64,
    #[prost(uint64, tag = "8")]
    pub(super) retried: u64,
    #[prost(uint64, tag = "9")]
    pub(super) last_number: u64,
}

/// `Heard`, and `Forgotten` without a receipt.
#[derive(Clone, PartialEq, Message)]
pub(super) struct SessionWire {
    #[prost(message, tag = "1")]
    pub(super) session: Option<IdWire>,
    #[prost(bytes = "bytes", tag = "2")]
    pub(super) receipt: Bytes,
}
