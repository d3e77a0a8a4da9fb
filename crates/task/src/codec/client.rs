//! [`ToClient`] and what it carries.

use super::{Result, all, at_most, bytes, each, id, name, required};
use crate::wire::{self, ToClientKind};
use crate::{Answer, BATCH_ROWS_MAX, DecodeError, DeliveredRow, JobId, Key, RouterId, RowId, ToClient};

impl From<&ToClient> for wire::ToClient {
    fn from(message: &ToClient) -> Self {
        let kind = match message {
            ToClient::JobOpened { job, router, cursor, counts } => ToClientKind::JobOpened(wire::JobOpened {
                job: bytes(&job.0),
                router: bytes(&router.0),
                cursor: *cursor,
                counts: Some(counts.into()),
            }),
            ToClient::JobRefused { job, refusal } => {
                ToClientKind::JobRefused(wire::JobRefused { job: bytes(&job.0), refusal: Some(refusal.into()) })
            }
            ToClient::Deliver { job, rows } => {
                ToClientKind::Deliver(wire::Deliver { job: bytes(&job.0), rows: each(rows) })
            }
            ToClient::Refused { job, rows, refusal } => ToClientKind::Refused(wire::RowsRefused {
                job: bytes(&job.0),
                rows: rows.iter().map(|row| bytes(&row.0)).collect(),
                refusal: Some(refusal.into()),
            }),
            ToClient::Answer { id, answer } => {
                ToClientKind::Answer(wire::Answered { id: *id, kind: Some(answer.into()) })
            }
        };
        Self { kind: Some(kind) }
    }
}

impl TryFrom<wire::ToClient> for ToClient {
    type Error = DecodeError;

    fn try_from(w: wire::ToClient) -> Result<Self> {
        Ok(match required(w.kind, "message to client")? {
            ToClientKind::JobOpened(w) => ToClient::JobOpened {
                job: id!(JobId, w.job, "opened.job")?,
                router: id!(RouterId, w.router, "opened.router")?,
                cursor: w.cursor,
                counts: required(w.counts, "opened.counts")?.try_into()?,
            },
            ToClientKind::JobRefused(w) => ToClient::JobRefused {
                job: id!(JobId, w.job, "refused.job")?,
                refusal: required(w.refusal, "refused.refusal")?.try_into()?,
            },
            ToClientKind::Deliver(w) => ToClient::Deliver {
                job: id!(JobId, w.job, "deliver.job")?,
                rows: all(w.rows, BATCH_ROWS_MAX, "deliver.rows")?,
            },
            ToClientKind::Refused(w) => {
                at_most(w.rows.len(), BATCH_ROWS_MAX, "refused.rows")?;
                ToClient::Refused {
                    job: id!(JobId, w.job, "refused.job")?,
                    rows: w.rows.iter().map(|row| id!(RowId, row, "refused.row")).collect::<Result<_>>()?,
                    refusal: required(w.refusal, "refused.refusal")?.try_into()?,
                }
            }
            ToClientKind::Answer(w) => {
                ToClient::Answer { id: w.id, answer: Answer::try_from(required(w.kind, "answer")?)? }
            }
        })
    }
}

impl From<&DeliveredRow> for wire::DeliveredRow {
    fn from(row: &DeliveredRow) -> Self {
        Self {
            number: row.number,
            row: bytes(&row.row.0),
            key: bytes(&row.key.0),
            outcome: Some((&row.outcome).into()),
            attempts: row.attempts,
            worker: row.worker.clone(),
            ms: row.ms,
            cached: row.cached,
        }
    }
}

impl TryFrom<wire::DeliveredRow> for DeliveredRow {
    type Error = DecodeError;

    fn try_from(w: wire::DeliveredRow) -> Result<Self> {
        Ok(Self {
            number: w.number,
            row: id!(RowId, w.row, "deliver.row")?,
            key: id!(Key, w.key, "deliver.key")?,
            outcome: required(w.outcome, "deliver.outcome")?.try_into()?,
            attempts: w.attempts,
            worker: name(w.worker, "deliver.worker")?,
            ms: w.ms,
            cached: w.cached,
        })
    }
}
