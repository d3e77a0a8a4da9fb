//! Records from their wire forms; `encode` writes them. Decoding copies no body, and any bytes decode to a record or an
//! error.

use bytes::Bytes;
use bytestring::ByteString;
use prost::Message;
use sheaf_session::{Receipt, SessionId};
use sheaf_task::put::append;
use sheaf_task::{
    Class, Evidence, Failure, JobCounts, JobId, JobOptions, Key, Order, Outcome, RowId, Upstream, WorkerId,
};

use super::event::Lsn;
use super::record::{
    Cached, Delivery, Ended, Finished, JobNo, Joined, Opened, Record, Registered, Retried, Submitted, Withdrawn,
};
use super::wire::{
    DeliveryWire, EndedWire, FailureWire, FinishedWire, IdWire, JobWire, OlderWire, OpenedWire, RowWire, SessionWire,
    UpstreamWire, WorkerWire,
};

/// The kinds of record, as journal frames name them.
pub mod kind {
    /// [`super::Record::Opened`].
    pub const OPENED: u8 = 1;
    /// [`super::Record::Submitted`].
    pub const SUBMITTED: u8 = 2;
    /// [`super::Record::Joined`].
    pub const JOINED: u8 = 3;
    /// [`super::Record::Cached`].
    pub const CACHED: u8 = 4;
    /// [`super::Record::Ended`].
    pub const ENDED: u8 = 5;
    /// [`super::Record::Finished`].
    pub const FINISHED: u8 = 6;
    /// [`super::Record::Withdrawn`].
    pub const WITHDRAWN: u8 = 7;
    /// [`super::Record::Retried`].
    pub const RETRIED: u8 = 8;
    /// [`super::Record::Registered`].
    pub const REGISTERED: u8 = 9;
    /// [`super::Record::Left`].
    pub const LEFT: u8 = 10;
    /// [`super::Record::Settled`].
    pub const SETTLED: u8 = 11;
    /// [`super::Record::Scanned`].
    pub const SCANNED: u8 = 12;
    /// [`super::Record::Cancelled`].
    pub const CANCELLED: u8 = 13;
    /// [`super::Record::Heard`].
    pub const HEARD: u8 = 14;
    /// [`super::Record::Forgotten`].
    pub const FORGOTTEN: u8 = 15;
    /// [`super::Record::Resumed`].
    pub const RESUMED: u8 = 16;
    /// [`super::Record::Unlisted`].
    pub const UNLISTED: u8 = 17;
    /// [`super::Record::JobLeft`].
    pub const JOB_LEFT: u8 = 18;
}

/// Why a payload is no record.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// Not protobuf, or not this record.
    #[error("malformed record: {0}")]
    Proto(#[from] prost::DecodeError),
    /// No such kind, or not the one that was asked for.
    #[error("unexpected record kind {0}")]
    Kind(u8),
    /// A value that no record has, in this field.
    #[error("impossible value in field {0}")]
    Field(&'static str),
}

fn id_out(wire: Option<IdWire>) -> [u8; 16] {
    let wire = wire.unwrap_or_default();
    ((u128::from(wire.hi) << 64) | u128::from(wire.lo)).to_be_bytes()
}

impl Record {
    /// Its kind, for the journal's frame.
    pub fn kind(&self) -> u8 {
        match self {
            Record::Opened(_) => kind::OPENED,
            Record::Submitted(_) => kind::SUBMITTED,
            Record::Joined(_) => kind::JOINED,
            Record::Cached(_) => kind::CACHED,
            Record::Ended(_) => kind::ENDED,
            Record::Finished(_) => kind::FINISHED,
            Record::Withdrawn(_) => kind::WITHDRAWN,
            Record::Retried(_) => kind::RETRIED,
            Record::Registered(_) => kind::REGISTERED,
            Record::Left { .. } => kind::LEFT,
            Record::Settled { .. } => kind::SETTLED,
            Record::Scanned { .. } => kind::SCANNED,
            Record::Cancelled { .. } => kind::CANCELLED,
            Record::Resumed { .. } => kind::RESUMED,
            Record::Unlisted { .. } => kind::UNLISTED,
            Record::JobLeft { .. } => kind::JOB_LEFT,
            Record::Heard { .. } => kind::HEARD,
            Record::Forgotten { .. } => kind::FORGOTTEN,
        }
    }

    /// Appends the payload to `buffer`: bodies are copied once, and nothing is allocated but room.
    pub fn encode_into(&self, buffer: &mut Vec<u8>) {
        append(self, buffer);
    }

    /// Reads a payload of this kind; bodies are slices of it.
    pub fn decode(kind: u8, payload: Bytes) -> Result<Record, RecordError> {
        Ok(match kind {
            kind::OPENED => Record::Opened(Box::new(opened_out(OpenedWire::decode(payload)?)?)),
            kind::SUBMITTED => {
                let RowWire { key, job, row, body } = RowWire::decode(payload)?;
                Record::Submitted(Submitted { key: Key(id_out(key)), job: JobNo(job), row: RowId(id_out(row)), body })
            }
            kind::JOINED => {
                let RowWire { key, job, row, body: _ } = RowWire::decode(payload)?;
                Record::Joined(Joined { key: Key(id_out(key)), job: JobNo(job), row: RowId(id_out(row)) })
            }
            kind::CACHED => Record::Cached(cached_out(OlderWire::decode(payload)?)?),
            kind::WITHDRAWN => Record::Withdrawn(withdrawn_out(OlderWire::decode(payload)?)?),
            kind::RETRIED => Record::Retried(retried_out(OlderWire::decode(payload)?)?),
            kind::ENDED => Record::Ended(ended_out(EndedWire::decode(payload)?)?),
            kind::FINISHED => Record::Finished(finished_out(FinishedWire::decode(payload)?)?),
            kind::REGISTERED => Record::Registered(worker_out(WorkerWire::decode(payload)?)),
            kind::LEFT => Record::Left { worker: worker_out(WorkerWire::decode(payload)?).worker },
            kind::SETTLED => {
                let wire = JobWire::decode(payload)?;
                Record::Settled { job: JobNo(wire.job), counts: counts_out(&wire) }
            }
            kind::SCANNED => Record::Scanned { job: JobNo(JobWire::decode(payload)?.job) },
            kind::CANCELLED => Record::Cancelled { job: JobNo(JobWire::decode(payload)?.job) },
            kind::UNLISTED => {
                let wire = JobWire::decode(payload)?;
                Record::Unlisted { job: JobNo(wire.job), number: wire.last_number }
            }
            kind::JOB_LEFT => {
                let wire = JobWire::decode(payload)?;
                let last = u32::try_from(wire.last_number).map_err(|_| RecordError::Field("last_number"))?;
                Record::JobLeft { job: JobNo(wire.job), last: JobNo(last) }
            }
            kind::RESUMED => Record::Resumed { job: JobNo(JobWire::decode(payload)?.job) },
            kind::HEARD => heard_out(SessionWire::decode(payload)?)?,
            kind::FORGOTTEN => Record::Forgotten { session: SessionId(id_out(SessionWire::decode(payload)?.session)) },
            unknown => return Err(RecordError::Kind(unknown)),
        })
    }
}

fn order_out(order: u32) -> Result<Order, RecordError> {
    match order {
        0 => Ok(Order::Auto),
        1 => Ok(Order::Fifo),
        2 => Ok(Order::Shortest),
        3.. => Err(RecordError::Field("order")),
    }
}

fn class_out(class: u32) -> Result<Class, RecordError> {
    let at = (class as usize).checked_sub(1);
    at.and_then(|at| Class::ALL.get(at)).copied().ok_or(RecordError::Field("class"))
}

fn opened_out(wire: OpenedWire) -> Result<Opened, RecordError> {
    let OpenedWire { no, job, name, service, revision, nonce, app, .. } = wire;
    let options = JobOptions {
        timeout_ms: wire.timeout_ms,
        retries: wire.retries,
        order: order_out(wire.order)?,
        weight: wire.weight,
        rate_millihertz: wire.rate_millihertz,
    };
    Ok(Opened { no: JobNo(no), job: JobId(id_out(job)), name, service, revision, nonce, options, app })
}

fn delivery_out(wire: DeliveryWire) -> Delivery {
    Delivery { job: JobNo(wire.job), row: RowId(id_out(wire.row)), number: wire.number }
}

fn older_out(wire: OlderWire) -> Result<(Key, Lsn, u32, Delivery), RecordError> {
    let delivery = delivery_out(wire.delivery.ok_or(RecordError::Field("delivery"))?);
    Ok((Key(id_out(wire.key)), Lsn(wire.lsn), wire.len, delivery))
}

fn cached_out(wire: OlderWire) -> Result<Cached, RecordError> {
    let ok = wire.ok;
    let (key, finished, len, delivery) = older_out(wire)?;
    Ok(Cached { key, ok, len, finished, delivery })
}

fn withdrawn_out(wire: OlderWire) -> Result<Withdrawn, RecordError> {
    let (key, submitted, body_len, delivery) = older_out(wire)?;
    Ok(Withdrawn { key, submitted, body_len, delivery })
}

fn retried_out(wire: OlderWire) -> Result<Retried, RecordError> {
    let (key, submitted, body_len, delivery) = older_out(wire)?;
    Ok(Retried { key, submitted, body_len, delivery })
}

fn ended_out(wire: EndedWire) -> Result<Ended, RecordError> {
    let class = if wire.class == 0 { None } else { Some(class_out(wire.class)?) };
    let EndedWire { key, class: _, suspect, counts, job, epoch, attempt } = wire;
    Ok(Ended { key: Key(id_out(key)), job: JobNo(job), class, attempt: (epoch, attempt), suspect, counts })
}

fn failure_out(wire: FailureWire) -> Result<Failure, RecordError> {
    let FailureWire { class, message, exit_code, signal, stderr, worker, deaths, upstream } = wire;
    let upstream = upstream.map(|upstream| upstream_out(*upstream).map(Box::new)).transpose()?;
    let evidence = Box::new(Evidence { exit_code, signal, stderr, worker, deaths, upstream });
    Ok(Failure { class: class_out(class)?, message, evidence })
}

fn upstream_out(wire: UpstreamWire) -> Result<Upstream, RecordError> {
    let UpstreamWire { status, message, kind, param, code } = wire;
    let status = u16::try_from(status).map_err(|_| RecordError::Field("upstream"))?;
    Ok(Upstream { status, message, kind, param, code })
}

fn finished_out(wire: FinishedWire) -> Result<Finished, RecordError> {
    let FinishedWire { key, submitted, body_len, attempts, worker, ms, deliveries, failure, body } = wire;
    let outcome = match failure {
        Some(failure) => Outcome::Failed(failure_out(failure)?),
        None => Outcome::Ok(body),
    };
    let worker = ByteString::try_from(worker).map_err(|_| RecordError::Field("worker"))?;
    let deliveries = deliveries.into_iter().map(delivery_out).collect();
    let key = Key(id_out(key));
    Ok(Finished { key, submitted: Lsn(submitted), body_len, attempts, worker, ms, outcome, deliveries })
}

fn worker_out(wire: WorkerWire) -> Registered {
    let WorkerWire { worker, incarnation, name, services } = wire;
    Registered { worker: WorkerId(id_out(worker)), incarnation, name, services }
}

fn counts_out(wire: &JobWire) -> JobCounts {
    let JobWire { job: _, settled, submitted, ok, failed, open, cached, retried, last_number } = *wire;
    JobCounts { submitted, ok, failed, open, running: 0, cached, retried, last_number, settled, unserved: 0 }
}

fn heard_out(wire: SessionWire) -> Result<Record, RecordError> {
    let receipt = Receipt::from_bytes(&wire.receipt).ok_or(RecordError::Field("receipt"))?;
    Ok(Record::Heard { session: SessionId(id_out(wire.session)), receipt })
}

#[cfg(test)]
mod tests {
    use prost::Message as _;

    use super::super::wire::FinishedWire;
    use super::*;

    fn finished(upstream: Option<Box<Upstream>>) -> Record {
        let evidence = Box::new(Evidence { exit_code: Some(4), upstream, ..Evidence::default() });
        Record::Finished(Finished {
            key: Key([3; 16]),
            submitted: Lsn(2),
            body_len: 3,
            attempts: 1,
            worker: "w".into(),
            ms: 4,
            outcome: Outcome::Failed(Failure { class: Class::Rejected, message: "no".to_owned(), evidence }),
            deliveries: Default::default(),
        })
    }

    fn bytes(record: &Record) -> Bytes {
        let mut bytes = Vec::new();
        record.encode_into(&mut bytes);
        bytes.into()
    }

    #[test]
    fn what_a_server_said_of_a_refusal_is_on_record() {
        let [message, kind, param, code] = ["too long", "t", "p", "c"].map(String::from);
        let record = finished(Some(Box::new(Upstream { status: 422, message, kind, param, code })));
        let encoded = bytes(&record);
        assert_eq!(Record::decode(record.kind(), encoded.clone()).unwrap(), record);
        assert_eq!(Bytes::from(FinishedWire::decode(encoded.clone()).unwrap().encode_to_vec()), encoded);
    }

    #[test]
    fn a_failure_of_a_journal_from_before_servers_were_on_record_is_read() {
        // As 0.1.0 wrote it.
        let old = b"\x0a\x12\x09\x03\x03\x03\x03\x03\x03\x03\x03\x11\x03\x03\x03\x03\x03\x03\x03\x03\x10\x02\x18\x03\
            \x20\x01\x2a\x01w\x30\x04\x42\x08\x08\x01\x12\x02no\x18\x08";
        assert_eq!(Record::decode(kind::FINISHED, Bytes::from_static(old)).unwrap(), finished(None));
        assert_eq!(bytes(&finished(None)), &old[..]);
    }
}
