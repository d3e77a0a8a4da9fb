//! Messages of the router whose bodies are in the journal, while they are on their way: which records they need, and the
//! bytes that come of them.
//!
//! Invariant: the same records give the same bytes. A damaged record costs what it held and nothing else of the message;
//! a delivery number is never left out, or nothing after it could be taken.

use std::collections::BTreeSet;

use bytes::Bytes;
use bytestring::ByteString;
use sheaf_task::{
    Answer, Assignment, Class, DeliveredRow, Failure, FailureRow, Fence, Key, Outcome, RowId, TaskInfo, TaskState,
    ToClient, ToWorker,
};

use super::Fetched;
use crate::router::record::{Delivered, Delivery, Finished, body_of_submitted, cancelled, delivered, delivered_from};
use crate::router::{AssignItem, DeliverItem, FailureItem, JobNo, Lsn, Outbound, Record, Wanted};

/// A message with references, kept until it is acknowledged.
#[derive(Debug)]
pub(super) struct Serving {
    message: Outbound,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    /// Nobody waits for its bytes.
    Idle,
    /// Its records are being read.
    First,
    /// The records that those refer to are being read.
    Second(Vec<Slot>),
}

/// One row of a delivery.
#[derive(Debug)]
enum Slot {
    Row(DeliveredRow),
    See { delivery: Delivery, finished: Lsn },
}

/// What is needed next.
pub(super) enum Next {
    Provide(Bytes),
    Fetch(Vec<Lsn>),
}

impl Serving {
    pub(super) fn new(message: Outbound) -> Self {
        Self { message, stage: Stage::Idle }
    }

    /// Bytes to expect, about.
    pub(super) fn len(message: &Outbound) -> u32 {
        let around = |items: usize, each: u32| (items as u32).saturating_mul(each).saturating_add(64);
        match message {
            Outbound::Assign { service, items } => {
                let bodies = items.iter().fold(0u32, |sum, item| sum.saturating_add(item.len));
                bodies.saturating_add(around(items.len(), 64 + service.len() as u32))
            }
            Outbound::Deliver { items, .. } => {
                let bodies = items.iter().fold(0u32, |sum, item| sum.saturating_add(item.len));
                bodies.saturating_add(around(items.len(), 160))
            }
            Outbound::Failures { items, .. } => around(items.len(), 1_024),
            Outbound::Task { info, .. } => around(1, (8 << 10) + u32::try_from(info.body_len).unwrap_or(u32::MAX >> 1)),
            Outbound::Client(_) | Outbound::Opened { .. } | Outbound::Worker(_) => 0,
        }
    }

    /// The worker has had these attempts, whatever it has acknowledged: should its next life be sent this again, it must
    /// not start them anew.
    pub(super) fn leave_out(&mut self, ended: &BTreeSet<Fence>) {
        if let (Outbound::Assign { items, .. }, Stage::Idle) = (&mut self.message, &self.stage) {
            items.retain(|item| !ended.contains(&item.fence));
        }
    }

    /// Its bytes are asked for: the records to read; `None` while they are being read already.
    pub(super) fn begin(&mut self) -> Option<Vec<Lsn>> {
        if !matches!(self.stage, Stage::Idle) {
            return None;
        }
        self.stage = Stage::First;
        Some(match &self.message {
            Outbound::Assign { items, .. } => items.iter().map(|item| item.body).collect(),
            Outbound::Deliver { items, .. } => items.iter().map(|item| item.record).collect(),
            Outbound::Failures { items, .. } => items.iter().flat_map(|item| [item.finished, item.body]).collect(),
            Outbound::Task { finished, .. } => vec![*finished],
            Outbound::Client(_) | Outbound::Opened { .. } | Outbound::Worker(_) => Vec::new(),
        })
    }

    /// The records are there. Those that could not be read are added to `unreadable`.
    pub(super) fn on_fetched(&mut self, records: Vec<Option<Fetched>>, unreadable: &mut Vec<(Lsn, Wanted)>) -> Next {
        match (std::mem::replace(&mut self.stage, Stage::Idle), &self.message) {
            (Stage::First, Outbound::Deliver { items, job_no, .. }) => {
                let slots = slots(items, *job_no, records, unreadable);
                let see: Vec<Lsn> = slots.iter().filter_map(Slot::needs).collect();
                if !see.is_empty() {
                    self.stage = Stage::Second(slots);
                    return Next::Fetch(see);
                }
                Next::Provide(self.deliver(slots, Vec::new(), unreadable))
            }
            (Stage::Second(slots), _) => Next::Provide(self.deliver(slots, records, unreadable)),
            (_, Outbound::Assign { service, items }) => Next::Provide(assign(service, items, records, unreadable)),
            (_, Outbound::Failures { id, items }) => {
                let rows = failures(items, records, unreadable);
                Next::Provide(ToClient::Answer { id: *id, answer: Answer::Failures(rows) }.encode())
            }
            (_, Outbound::Task { id, info, finished: _ }) => {
                let info = task((**info).clone(), records);
                Next::Provide(ToClient::Answer { id: *id, answer: Answer::Task(info) }.encode())
            }
            (_, Outbound::Client(message) | Outbound::Opened { message, .. }) => Next::Provide(message.encode()),
            (_, Outbound::Worker(message)) => Next::Provide(message.encode()),
            (Stage::Idle, Outbound::Deliver { .. }) => Next::Fetch(Vec::new()),
        }
    }

    fn deliver(&self, slots: Vec<Slot>, records: Vec<Option<Fetched>>, unreadable: &mut Vec<(Lsn, Wanted)>) -> Bytes {
        let mut records = records.into_iter();
        let rows = slots.into_iter().map(|slot| match slot {
            Slot::Row(row) => row,
            Slot::See { delivery, finished } => match finished_in(records.next().flatten()) {
                Some(found) => delivered_from(found, delivery),
                None => {
                    unreadable.push((finished, Wanted::Result { job: delivery.job, number: delivery.number }));
                    damaged(delivery.row, delivery.number)
                }
            },
        });
        let rows: Vec<DeliveredRow> = rows.collect();
        match &self.message {
            Outbound::Deliver { job, .. } => ToClient::Deliver { job: *job, rows }.encode(),
            Outbound::Client(_)
            | Outbound::Opened { .. }
            | Outbound::Worker(_)
            | Outbound::Assign { .. }
            | Outbound::Failures { .. }
            | Outbound::Task { .. } => unreachable!("only deliveries have slots"),
        }
    }
}

impl Slot {
    fn needs(&self) -> Option<Lsn> {
        match self {
            Slot::Row(_) => None,
            Slot::See { finished, .. } => Some(*finished),
        }
    }
}

fn decode(fetched: Option<Fetched>) -> Option<Record> {
    fetched.and_then(|fetched| Record::decode(fetched.kind, fetched.payload).ok())
}

fn finished_in(fetched: Option<Fetched>) -> Option<Finished> {
    match decode(fetched) {
        Some(Record::Finished(finished)) => Some(finished),
        Some(_) | None => None,
    }
}

/// Why a row failed, and after how many attempts: by its last one, or because its job was cancelled.
fn failed_in(fetched: Option<Fetched>) -> Option<(u32, Failure)> {
    match decode(fetched) {
        Some(Record::Finished(Finished { attempts, outcome: Outcome::Failed(failure), .. })) => {
            Some((attempts, failure))
        }
        Some(Record::Withdrawn(_)) => Some((0, cancelled())),
        Some(_) | None => None,
    }
}

fn slots(
    items: &[DeliverItem],
    job: JobNo,
    records: Vec<Option<Fetched>>,
    unreadable: &mut Vec<(Lsn, Wanted)>,
) -> Vec<Slot> {
    let mut records = records.into_iter();
    let slot =
        |item: &DeliverItem| match decode(records.next().flatten()).map(|record| delivered(record, job, item.number)) {
            Some(Delivered::Row(row)) => Slot::Row(row),
            Some(Delivered::See { finished, delivery }) => Slot::See { delivery, finished },
            Some(Delivered::Other) | None => {
                unreadable.push((item.record, Wanted::Result { job, number: item.number }));
                Slot::Row(damaged(RowId::default(), item.number))
            }
        };
    items.iter().map(slot).collect()
}

/// Stands for a result that the journal cannot give back any more. Where not even the row is known, no client knows it.
fn damaged(row: RowId, number: u64) -> DeliveredRow {
    let message = "the record of this result is damaged in the router's journal: `sheaf doctor` names it, `sheaf retry` runs \
                   the row again";
    DeliveredRow {
        number,
        row,
        key: Key::default(),
        outcome: Outcome::Failed(Failure::new(Class::Error, message)),
        attempts: 0,
        worker: ByteString::new(),
        ms: 0,
        cached: false,
    }
}

fn assign(
    service: &str,
    items: &[AssignItem],
    records: Vec<Option<Fetched>>,
    unreadable: &mut Vec<(Lsn, Wanted)>,
) -> Bytes {
    let service = ByteString::from(service);
    let mut assignments = Vec::with_capacity(items.len());
    let mut records = records.into_iter();
    for item in items {
        match records.next().flatten().and_then(|record| body_of_submitted(record.payload).ok()) {
            Some(body) => assignments.push(Assignment {
                fence: item.fence,
                service: service.clone(),
                timeout_ms: item.timeout_ms,
                alone: item.alone,
                body,
            }),
            None => unreadable.push((item.body, Wanted::Body)),
        }
    }
    ToWorker::Assign(assignments).encode()
}

fn failures(
    items: &[FailureItem],
    records: Vec<Option<Fetched>>,
    unreadable: &mut Vec<(Lsn, Wanted)>,
) -> Vec<FailureRow> {
    let mut rows = Vec::with_capacity(items.len());
    let mut records = records.into_iter();
    for item in items {
        let failed = failed_in(records.next().flatten());
        let body = records.next().flatten().and_then(|record| body_of_submitted(record.payload).ok());
        let Some((attempts, failure)) = failed else {
            unreadable.push((item.finished, Wanted::Failure { body: item.body }));
            continue;
        };
        if body.is_none() {
            unreadable.push((item.body, Wanted::Failure { body: item.body }));
        }
        let body = body.unwrap_or_default();
        rows.push(FailureRow { number: item.number, row: item.row, key: item.key, attempts, failure, body });
    }
    rows
}

/// What was found a moment ago and has left the journal since is as unknown as what was never there.
fn task(info: TaskInfo, records: Vec<Option<Fetched>>) -> Option<TaskInfo> {
    let finished = finished_in(records.into_iter().next().flatten())?;
    let (state, output) = match finished.outcome {
        Outcome::Ok(output) => (TaskState::Ok, Some(output)),
        Outcome::Failed(failure) => (TaskState::Failed(failure), None),
    };
    Some(TaskInfo { state, output, attempts: finished.attempts, body_len: u64::from(finished.body_len), ..info })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::router::record::{Submitted, Withdrawn};

    fn fetched(record: &Record) -> Option<Fetched> {
        let mut payload = Vec::new();
        record.encode_into(&mut payload);
        Some(Fetched { kind: record.kind(), payload: payload.into() })
    }

    #[test]
    fn a_cancelled_row_is_among_the_failures() {
        let (key, job, row) = (Key([1; 16]), JobNo(1), RowId([2; 16]));
        let submitted = Record::Submitted(Submitted { key, job, row, body: Bytes::from_static(b"a row") });
        let delivery = Delivery { job, row, number: 7 };
        let withdrawn = Record::Withdrawn(Withdrawn { key, submitted: Lsn(3), body_len: 5, delivery });
        let items = [FailureItem { number: 7, row, key, finished: Lsn(4), body: Lsn(3) }];

        let mut unreadable = Vec::new();
        let rows = failures(&items, vec![fetched(&withdrawn), fetched(&submitted)], &mut unreadable);

        let body = Bytes::from_static(b"a row");
        assert_eq!(rows, [FailureRow { number: 7, row, key, attempts: 0, failure: cancelled(), body }]);
        assert_eq!(unreadable, []);
    }

    #[test]
    fn a_finished_task_is_told_as_its_record_has_it() {
        let key = Key([1; 16]);
        let failure = Failure::new(Class::Rejected, "no");
        let finished = Record::Finished(Finished {
            key,
            submitted: Lsn(3),
            body_len: 70,
            attempts: 3,
            worker: "w".into(),
            ms: 5,
            outcome: Outcome::Failed(failure.clone()),
            deliveries: Default::default(),
        });
        let asked =
            TaskInfo { key, service: String::new(), body_len: 0, attempts: 0, state: TaskState::Ok, output: None };
        let told = TaskInfo { body_len: 70, attempts: 3, state: TaskState::Failed(failure), ..asked.clone() };
        assert_eq!(task(asked.clone(), vec![fetched(&finished)]), Some(told));
        assert_eq!(task(asked, vec![None]), None, "it has left the journal since");
    }

    #[test]
    fn a_message_says_its_length_about_right_before_its_bodies_are_read() {
        let fence = Fence { key: Key([1; 16]), epoch: 1, attempt: 1 };
        let item = |len| AssignItem { fence, timeout_ms: 0, alone: false, body: Lsn(1), len };
        let service = "s".repeat(100);
        let least = 3_000 + 2 * (service.len() + 16);
        let said = Serving::len(&Outbound::Assign { service, items: vec![item(1_000), item(2_000)] }) as usize;
        assert!((least..least + 400).contains(&said), "{said} bytes, and {least} at least");
    }
}
