//! [`ToRouter`] and what it carries.

use super::{Result, all, at_most, id, required};
use crate::put::{Put, Writer};
use crate::wire::{self, ToRouterKind};
use crate::{
    BATCH_ROWS_MAX, DecodeError, FENCES_MAX, JobId, Key, PIECE_BYTES_MAX, Piece, Question, Registration, ResultItem,
    RowId, SubmitRow, ToRouter, Tokens, WorkerId,
};

impl Put for ToRouter {
    fn put(&self, to: &mut Writer) {
        match self {
            ToRouter::OpenJob(spec) => to.message(1, spec),
            ToRouter::Submit { job, cursor, rows } => to.nested(2, |to| {
                to.bytes(1, job.0);
                to.each(2, rows);
                to.uint(3, *cursor);
            }),
            ToRouter::Scanned { job } => to.given(3, job.0),
            ToRouter::Ask { id, question } => to.nested(4, |to| {
                to.uint(1, *id);
                question.put(to);
            }),
            ToRouter::Register(registration) => to.message(5, registration),
            ToRouter::Results(items) => to.nested(6, |to| to.each(1, items)),
            ToRouter::Recalled(fences) => to.nested(7, |to| to.each(1, fences)),
            ToRouter::Leave => to.unit(8),
            ToRouter::Watch { job } => to.given(9, job.0),
            ToRouter::Piece(piece) => to.message(10, piece),
        }
    }
}

impl TryFrom<wire::ToRouter> for ToRouter {
    type Error = DecodeError;

    fn try_from(w: wire::ToRouter) -> Result<Self> {
        Ok(match required(w.kind, "message to router")? {
            ToRouterKind::OpenJob(spec) => ToRouter::OpenJob(spec.try_into()?),
            ToRouterKind::Submit(w) => ToRouter::Submit {
                job: id!(JobId, w.job, "submit.job")?,
                cursor: w.cursor,
                rows: all(w.rows, BATCH_ROWS_MAX, "submit.rows")?,
            },
            ToRouterKind::Scanned(job) => ToRouter::Scanned { job: id!(JobId, job, "scanned.job")? },
            ToRouterKind::Ask(w) => {
                ToRouter::Ask { id: w.id, question: Question::try_from(required(w.kind, "question")?)? }
            }
            ToRouterKind::Register(w) => ToRouter::Register(w.try_into()?),
            ToRouterKind::Results(w) => ToRouter::Results(all(w.items, BATCH_ROWS_MAX, "results.items")?),
            ToRouterKind::Recalled(w) => ToRouter::Recalled(all(w.fences, FENCES_MAX, "recalled.fences")?),
            ToRouterKind::Leave(wire::Unit {}) => ToRouter::Leave,
            ToRouterKind::Watch(job) => ToRouter::Watch { job: id!(JobId, job, "watch.job")? },
            ToRouterKind::Piece(w) => ToRouter::Piece(w.try_into()?),
        })
    }
}

impl Put for Piece {
    fn put(&self, to: &mut Writer) {
        to.message(1, &self.fence);
        to.uint(2, self.at);
        to.bytes(3, &self.bytes);
    }
}

impl TryFrom<wire::Piece> for Piece {
    type Error = DecodeError;

    fn try_from(w: wire::Piece) -> Result<Self> {
        at_most(w.bytes.len(), PIECE_BYTES_MAX, "piece.bytes")?;
        Ok(Self { fence: required(w.fence, "piece.fence")?.try_into()?, at: w.at, bytes: w.bytes })
    }
}

impl Put for SubmitRow {
    fn put(&self, to: &mut Writer) {
        to.bytes(1, self.row.0);
        to.uint(2, self.sample);
        to.bytes(3, &self.body);
    }
}

impl TryFrom<wire::SubmitRow> for SubmitRow {
    type Error = DecodeError;

    fn try_from(w: wire::SubmitRow) -> Result<Self> {
        Ok(Self { row: id!(RowId, w.row, "submit.row")?, sample: w.sample, body: w.body })
    }
}

impl Put for Registration {
    fn put(&self, to: &mut Writer) {
        to.bytes(1, self.worker.0);
        to.uint(2, self.incarnation);
        to.bytes(3, &self.name);
        self.services.iter().for_each(|service| to.given(4, service));
        to.message(5, &self.capacity);
        to.each(6, &self.holding);
        to.each(7, &self.died_with);
    }
}

impl TryFrom<wire::Registration> for Registration {
    type Error = DecodeError;

    fn try_from(w: wire::Registration) -> Result<Self> {
        Ok(Self {
            worker: id!(WorkerId, w.worker, "register.worker")?,
            incarnation: w.incarnation,
            name: w.name,
            services: w.services,
            capacity: required(w.capacity, "register.capacity")?.try_into()?,
            holding: all(w.holding, FENCES_MAX, "register.holding")?,
            died_with: all(w.died_with, FENCES_MAX, "register.died_with")?,
        })
    }
}

impl Put for ResultItem {
    fn put(&self, to: &mut Writer) {
        to.message(1, &self.fence);
        to.message(2, &self.outcome);
        to.uint(3, self.ms);
        to.uint(4, self.tokens.prompt);
        to.uint(5, self.tokens.completion);
    }
}

impl TryFrom<wire::ResultItem> for ResultItem {
    type Error = DecodeError;

    fn try_from(w: wire::ResultItem) -> Result<Self> {
        Ok(Self {
            fence: required(w.fence, "result.fence")?.try_into()?,
            outcome: required(w.outcome, "result.outcome")?.try_into()?,
            ms: w.ms,
            tokens: Tokens { prompt: w.prompt_tokens, completion: w.completion_tokens },
        })
    }
}

impl Put for Question {
    fn put(&self, to: &mut Writer) {
        match self {
            Question::Jobs => to.unit(2),
            Question::Workers => to.unit(3),
            Question::CancelJob(job) => to.given(4, job.0),
            Question::Task(key) => to.given(5, key.0),
            Question::Failures { job, after, limit } => to.nested(6, |to| {
                to.bytes(1, job.0);
                to.uint(2, *after);
                to.uint(3, *limit);
            }),
            Question::Retry { job, keys } => to.nested(7, |to| {
                to.bytes(1, job.0);
                keys.iter().for_each(|key| to.given(2, key.0));
            }),
            Question::Shutdown => to.unit(8),
            Question::Withdraw { job, rows } => to.nested(9, |to| {
                to.bytes(1, job.0);
                rows.iter().for_each(|(key, row)| {
                    to.given(2, key.0);
                    to.given(2, row.0);
                });
            }),
            Question::Stats => to.unit(10),
        }
    }
}

impl TryFrom<wire::AskKind> for Question {
    type Error = DecodeError;

    fn try_from(w: wire::AskKind) -> Result<Self> {
        Ok(match w {
            wire::AskKind::Jobs(wire::Unit {}) => Question::Jobs,
            wire::AskKind::Workers(wire::Unit {}) => Question::Workers,
            wire::AskKind::CancelJob(job) => Question::CancelJob(id!(JobId, job, "cancel.job")?),
            wire::AskKind::Task(key) => Question::Task(id!(Key, key, "task.key")?),
            wire::AskKind::Failures(w) => {
                Question::Failures { job: id!(JobId, w.job, "failures.job")?, after: w.after, limit: w.limit }
            }
            wire::AskKind::Retry(w) => {
                at_most(w.keys.len(), FENCES_MAX, "retry.keys")?;
                let keys = w.keys.iter().map(|key| id!(Key, key, "retry.key")).collect::<Result<_>>()?;
                Question::Retry { job: id!(JobId, w.job, "retry.job")?, keys }
            }
            wire::AskKind::Shutdown(wire::Unit {}) => Question::Shutdown,
            wire::AskKind::Withdraw(w) => {
                at_most(w.rows.len(), 2 * BATCH_ROWS_MAX, "withdraw.rows")?;
                let (pairs, rest) = w.rows.as_chunks::<2>();
                at_most(rest.len(), 0, "withdraw.rows")?;
                let pair = |[key, row]: &[bytes::Bytes; 2]| {
                    Ok((id!(Key, key, "withdraw.key")?, id!(RowId, row, "withdraw.row")?))
                };
                let rows = pairs.iter().map(pair).collect::<Result<_>>()?;
                Question::Withdraw { job: id!(JobId, w.job, "withdraw.job")?, rows }
            }
            wire::AskKind::Stats(wire::Unit {}) => Question::Stats,
        })
    }
}
