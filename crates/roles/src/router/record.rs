//! The records of the journal: everything durable about jobs, tasks and workers. Memory form, and what shells ask of
//! payloads; the wire form is in `super::codec`.
//!
//! It deliberately knows no file, frame or checksum. **Records are replayed in order of their original LSN**, moved ones
//! included: a record that ends another's meaning has the higher LSN.
//!
//! ```text
//! task:  Submitted ─┬─ Ended* ──── Finished (ok) ── Settled          Joined: one more row waits for an open task
//!        Retried ───┘           └─ Finished (failed) ── Retried …    Cached: a row answered by an old Finished
//!                               └─ Withdrawn: the job's wish ended   Ended: an attempt without an answer
//! job:   Opened ── Scanned ── … ── Cancelled ── Resumed … ── JobLeft
//! worker: Registered ── … ── Left                                    Heard: what a session has taken durably
//! ```

use bytes::Bytes;
use bytestring::ByteString;
use sheaf_session::{Receipt, SessionId};
use sheaf_task::{Class, DeliveredRow, JobCounts, JobId, JobOptions, Key, Outcome, RowId, WorkerId};
use smallvec::SmallVec;

use super::event::{Lsn, Prior, PriorFinished};

pub use super::codec::RecordError;

/// A job as records name it: 1, 2, 3 … in order of opening, never reused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct JobNo(pub u32);

/// One fact.
#[derive(Clone, Debug, PartialEq)]
pub enum Record {
    /// A job is known, or known with other options (same number).
    Opened(Box<Opened>),
    /// A task is open; its body is here.
    Submitted(Submitted),
    /// One more row waits for an open task.
    Joined(Joined),
    /// A row is answered by an outcome that was there before.
    Cached(Cached),
    /// An attempt ended without finishing its task.
    Ended(Ended),
    /// A task has its outcome, and every row that asked for it a delivery number.
    Finished(Finished),
    /// A job no longer wants a row; the row ends as `cancelled`.
    Withdrawn(Withdrawn),
    /// A failed row is open again, under the body that it had.
    Retried(Retried),
    /// A failed row is no longer one: it was retried.
    Unlisted {
        /// Which job's.
        job: JobNo,
        /// The number under which it failed.
        number: u64,
    },
    /// A worker is known in this life of it.
    Registered(Registered),
    /// A worker is not expected back.
    Left {
        /// Who.
        worker: WorkerId,
    },
    /// The sink of a job has committed up to `counts.settled`; where the job stood then, so that older records can go.
    Settled {
        /// Which.
        job: JobNo,
        /// After it; `running` is not kept.
        counts: JobCounts,
    },
    /// A job's source was read to its end.
    Scanned {
        /// Which.
        job: JobNo,
    },
    /// A job is cancelled; its rows follow as `Withdrawn`.
    Cancelled {
        /// Which.
        job: JobNo,
    },
    /// A cancelled job is wanted again.
    Resumed {
        /// Which.
        job: JobNo,
    },
    /// A job with nothing open and nothing unsettled made room for another: its number means nothing any more.
    JobLeft {
        /// Which.
        job: JobNo,
        /// The last number given to any job until then: numbers go on after it, though nothing else tells of it.
        last: JobNo,
    },
    /// What a session's receiver had taken when the records before this one were written.
    Heard {
        /// Whose.
        session: SessionId,
        /// As the session gave it.
        receipt: Receipt,
    },
    /// A session is over: its receipt is of no use.
    Forgotten {
        /// Whose.
        session: SessionId,
    },
}

/// See [`Record::Opened`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opened {
    /// Its number.
    pub no: JobNo,
    /// Its id.
    pub job: JobId,
    /// For people.
    pub name: String,
    /// What its tasks ask for.
    pub service: String,
    /// Part of the keys.
    pub revision: String,
    /// Part of the keys.
    pub nonce: Bytes,
    /// How its tasks are treated.
    pub options: JobOptions,
    /// The tenant that it belongs to; empty: whoever runs the router.
    pub app: String,
}

/// See [`Record::Submitted`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Submitted {
    /// The task.
    pub key: Key,
    /// Who asks.
    pub job: JobNo,
    /// For which row.
    pub row: RowId,
    /// The body.
    pub body: Bytes,
}

/// See [`Record::Joined`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Joined {
    /// The open task.
    pub key: Key,
    /// Who asks.
    pub job: JobNo,
    /// For which row.
    pub row: RowId,
}

/// See [`Record::Cached`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cached {
    /// The finished task.
    pub key: Key,
    /// The outcome is an answer (else a failure that the same job has seen).
    pub ok: bool,
    /// Bytes of it.
    pub len: u32,
    /// The `Finished` record.
    pub finished: Lsn,
    /// The row that gets it.
    pub delivery: Delivery,
}

/// A row's place in its job's results.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// The job.
    pub job: JobNo,
    /// The row.
    pub row: RowId,
    /// Its number.
    pub number: u64,
}

/// See [`Record::Ended`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    /// The task.
    pub key: Key,
    /// The job that counts it as a retry: that of the task's first row.
    pub job: JobNo,
    /// Why there is no answer; `None`: the worker was lost.
    pub class: Option<Class>,
    /// Epoch and number of the attempt, so that nobody who has not heard of its end is taken to run it still; zeros where
    /// the worker was lost, who may come back with it.
    pub attempt: (u64, u32),
    /// A death of program or worker that this task is suspected of.
    pub suspect: bool,
    /// It counts against the job's retries.
    pub counts: bool,
}

/// See [`Record::Finished`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finished {
    /// The task.
    pub key: Key,
    /// Where its body is.
    pub submitted: Lsn,
    /// Bytes of the body.
    pub body_len: u32,
    /// Attempts that it took.
    pub attempts: u32,
    /// Who did it.
    pub worker: ByteString,
    /// How long the last attempt took, milliseconds.
    pub ms: u64,
    /// How it ended.
    pub outcome: Outcome,
    /// Who gets it: nearly always one.
    pub deliveries: SmallVec<[Delivery; 1]>,
}

/// See [`Record::Withdrawn`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Withdrawn {
    /// The task.
    pub key: Key,
    /// Where its body is.
    pub submitted: Lsn,
    /// Bytes of the body.
    pub body_len: u32,
    /// The row and the number of its `cancelled`.
    pub delivery: Delivery,
}

/// See [`Record::Retried`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retried {
    /// The task.
    pub key: Key,
    /// Where its body is.
    pub submitted: Lsn,
    /// Bytes of the body.
    pub body_len: u32,
    /// The row, and the number under which it failed.
    pub delivery: Delivery,
}

/// See [`Record::Registered`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registered {
    /// Who.
    pub worker: WorkerId,
    /// Which of its lives.
    pub incarnation: u64,
    /// For people.
    pub name: String,
    /// What it can do.
    pub services: Vec<String>,
}

/// The body in the payload of a `Submitted` record, without a copy.
pub fn body_of_submitted(payload: Bytes) -> Result<Bytes, RecordError> {
    match Record::decode(super::codec::kind::SUBMITTED, payload)? {
        Record::Submitted(submitted) => Ok(submitted.body),
        other => Err(RecordError::Kind(other.kind())),
    }
}

/// The key under which the index finds a record: of `Finished`, `Withdrawn` and `Cached`; `None` for all others.
pub fn index_key(record: &Record) -> Option<Key> {
    match record {
        Record::Finished(finished) => Some(finished.key),
        Record::Withdrawn(withdrawn) => Some(withdrawn.key),
        Record::Cached(cached) => Some(cached.key),
        Record::Opened(_)
        | Record::Submitted(_)
        | Record::Joined(_)
        | Record::Ended(_)
        | Record::Retried(_)
        | Record::Registered(_)
        | Record::Left { .. }
        | Record::Unlisted { .. }
        | Record::Settled { .. }
        | Record::Scanned { .. }
        | Record::Cancelled { .. }
        | Record::Resumed { .. }
        | Record::JobLeft { .. }
        | Record::Heard { .. }
        | Record::Forgotten { .. } => None,
    }
}

/// The jobs that a record is about; a job's own `Opened` is not.
pub(super) fn each_job(record: &Record, mut tell: impl FnMut(JobNo)) {
    match record {
        Record::Submitted(submitted) => tell(submitted.job),
        Record::Joined(joined) => tell(joined.job),
        Record::Ended(ended) => tell(ended.job),
        Record::Finished(finished) => finished.deliveries.iter().for_each(|delivery| tell(delivery.job)),
        Record::Cached(Cached { delivery, .. })
        | Record::Withdrawn(Withdrawn { delivery, .. })
        | Record::Retried(Retried { delivery, .. }) => tell(delivery.job),
        Record::Settled { job, .. }
        | Record::Unlisted { job, .. }
        | Record::Scanned { job }
        | Record::Cancelled { job }
        | Record::Resumed { job }
        | Record::JobLeft { job, .. } => tell(*job),
        Record::Opened(_)
        | Record::Registered(_)
        | Record::Left { .. }
        | Record::Heard { .. }
        | Record::Forgotten { .. } => {}
    }
}

/// What the records that the index finds for `key` mean to a row of a job. `found`: each with its LSN, in LSN order;
/// records of other keys are ignored, so the index need not be trusted.
pub fn prior_of(key: Key, job: Option<JobNo>, row: RowId, found: &[(Lsn, Record)]) -> Option<Prior> {
    let mut prior = Prior::default();
    let mut known = false;
    for (lsn, record) in found.iter().filter(|(_, record)| index_key(record) == Some(key)) {
        known = true;
        match record {
            Record::Finished(finished) => prior.add_finished(*lsn, finished, job, row),
            Record::Withdrawn(withdrawn) => prior.add_delivery(&withdrawn.delivery, job, row),
            Record::Cached(cached) => prior.add_delivery(&cached.delivery, job, row),
            Record::Opened(_)
            | Record::Submitted(_)
            | Record::Joined(_)
            | Record::Ended(_)
            | Record::Retried(_)
            | Record::Registered(_)
            | Record::Left { .. }
            | Record::Unlisted { .. }
            | Record::Settled { .. }
            | Record::Scanned { .. }
            | Record::Cancelled { .. }
            | Record::Resumed { .. }
            | Record::JobLeft { .. }
            | Record::Heard { .. }
            | Record::Forgotten { .. } => {}
        }
    }
    known.then_some(prior)
}

/// The jobs that were given an outcome of `key`, by the records that the index finds for it.
pub fn owners_of(key: Key, found: &[(Lsn, Record)]) -> Vec<JobNo> {
    let mut owners = Vec::new();
    let of_key = found.iter().filter(|(_, record)| index_key(record) == Some(key));
    of_key.for_each(|(_, record)| each_job(record, |job| owners.push(job)));
    owners
}

impl Prior {
    fn add_finished(&mut self, lsn: Lsn, finished: &Finished, job: Option<JobNo>, row: RowId) {
        let ok = finished.outcome.is_ok();
        if ok || self.finished.is_none_or(|known| !known.ok) {
            self.finished = Some(PriorFinished { lsn, ok, len: finished.outcome.len() as u32 });
        }
        for delivery in &finished.deliveries {
            self.failed_here |= !ok && Some(delivery.job) == job;
            self.add_delivery(delivery, job, row);
        }
    }

    fn add_delivery(&mut self, delivery: &Delivery, job: Option<JobNo>, row: RowId) {
        if Some(delivery.job) == job && delivery.row == row {
            self.number = Some(delivery.number);
        }
    }
}

/// What a record says of the delivery `number` of a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Delivered {
    /// The result.
    Row(DeliveredRow),
    /// The outcome is in an older `Finished` record: read it, then [`delivered_from`].
    See {
        /// Where.
        finished: Lsn,
        /// The row that gets it.
        delivery: Delivery,
    },
    /// The record does not give this number: it is not what the machine referred to.
    Other,
}

/// The result that `record` delivers to `job` under `number`.
pub fn delivered(record: Record, job: JobNo, number: u64) -> Delivered {
    let is = |delivery: &Delivery| delivery.job == job && delivery.number == number;
    match record {
        Record::Finished(finished) => match finished.deliveries.iter().copied().find(is) {
            Some(delivery) => Delivered::Row(row_of(finished, delivery, false)),
            None => Delivered::Other,
        },
        Record::Withdrawn(withdrawn) if is(&withdrawn.delivery) => Delivered::Row(withdrawn_row(&withdrawn)),
        Record::Cached(cached) if is(&cached.delivery) => {
            Delivered::See { finished: cached.finished, delivery: cached.delivery }
        }
        Record::Withdrawn(_)
        | Record::Cached(_)
        | Record::Opened(_)
        | Record::Submitted(_)
        | Record::Joined(_)
        | Record::Ended(_)
        | Record::Retried(_)
        | Record::Registered(_)
        | Record::Left { .. }
        | Record::Unlisted { .. }
        | Record::Settled { .. }
        | Record::Scanned { .. }
        | Record::Cancelled { .. }
        | Record::Resumed { .. }
        | Record::JobLeft { .. }
        | Record::Heard { .. }
        | Record::Forgotten { .. } => Delivered::Other,
    }
}

/// The result of a row that is answered by an older `Finished` record.
pub fn delivered_from(finished: Finished, delivery: Delivery) -> DeliveredRow {
    row_of(finished, delivery, true)
}

fn row_of(finished: Finished, delivery: Delivery, cached: bool) -> DeliveredRow {
    DeliveredRow {
        number: delivery.number,
        row: delivery.row,
        key: finished.key,
        outcome: finished.outcome,
        attempts: finished.attempts,
        worker: finished.worker,
        ms: finished.ms,
        cached,
    }
}

fn withdrawn_row(withdrawn: &Withdrawn) -> DeliveredRow {
    DeliveredRow {
        number: withdrawn.delivery.number,
        row: withdrawn.delivery.row,
        key: withdrawn.key,
        outcome: Outcome::Failed(cancelled()),
        attempts: 0,
        worker: ByteString::new(),
        ms: 0,
        cached: false,
    }
}

/// The failure of a withdrawn row.
pub fn cancelled() -> sheaf_task::Failure {
    sheaf_task::Failure::new(Class::Cancelled, "the job was cancelled before this row was done")
}
