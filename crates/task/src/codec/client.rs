//! [`ToClient`] and what it carries.

use super::{Result, all, at_most, id, required, shared_name};
use crate::put::{Put, Writer};
use crate::wire::{self, ToClientKind};
use crate::{Answer, BATCH_ROWS_MAX, DecodeError, DeliveredRow, JobId, Key, RouterId, RowId, ToClient};

impl Put for ToClient {
    fn put(&self, to: &mut Writer) {
        match self {
            ToClient::JobOpened { job, router, cursor, counts } => to.nested(1, |to| {
                to.bytes(1, job.0);
                to.bytes(2, router.0);
                to.uint(3, *cursor);
                to.message(4, counts);
            }),
            ToClient::JobRefused { job, refusal } => to.nested(2, |to| {
                to.bytes(1, job.0);
                to.message(2, refusal);
            }),
            ToClient::Deliver { job, rows } => to.nested(3, |to| {
                to.bytes(1, job.0);
                to.each(2, rows);
            }),
            ToClient::Refused { job, rows, refusal } => to.nested(4, |to| {
                to.bytes(1, job.0);
                rows.iter().for_each(|row| to.given(2, row.0));
                to.message(3, refusal);
            }),
            ToClient::Answer { id, answer } => to.nested(5, |to| {
                to.uint(1, *id);
                answer.put(to);
            }),
            ToClient::Piece { job, row, piece } => to.nested(6, |to| {
                to.bytes(1, job.0);
                to.bytes(2, row.0);
                to.message(3, piece);
            }),
        }
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
            ToClientKind::Piece(w) => ToClient::Piece {
                job: id!(JobId, w.job, "piece.job")?,
                row: id!(RowId, w.row, "piece.row")?,
                piece: required(w.piece, "piece")?.try_into()?,
            },
        })
    }
}

impl Put for DeliveredRow {
    fn put(&self, to: &mut Writer) {
        to.uint(1, self.number);
        to.bytes(2, self.row.0);
        to.bytes(3, self.key.0);
        to.message(4, &self.outcome);
        to.uint(5, self.attempts);
        to.bytes(6, &self.worker);
        to.uint(7, self.ms);
        to.uint(8, self.cached);
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
            worker: shared_name(w.worker, "deliver.worker")?,
            ms: w.ms,
            cached: w.cached,
        })
    }
}
