//! [`ToRouter`] and what it carries.

use super::{Result, all, at_most, bytes, each, id, name, required};
use crate::wire::{self, ToRouterKind};
use crate::{
    BATCH_ROWS_MAX, DecodeError, FENCES_MAX, JobId, Key, Question, Registration, ResultItem, RowId, SERVICES_MAX,
    SubmitRow, ToRouter, WorkerId,
};

impl From<&ToRouter> for wire::ToRouter {
    fn from(message: &ToRouter) -> Self {
        let kind = match message {
            ToRouter::OpenJob(spec) => ToRouterKind::OpenJob(spec.into()),
            ToRouter::Submit { job, rows } => {
                ToRouterKind::Submit(wire::Submit { job: bytes(&job.0), rows: each(rows) })
            }
            ToRouter::Scanned { job } => ToRouterKind::Scanned(bytes(&job.0)),
            ToRouter::Ask { id, question } => ToRouterKind::Ask(wire::Ask { id: *id, kind: Some(question.into()) }),
            ToRouter::Register(registration) => ToRouterKind::Register(registration.into()),
            ToRouter::Results(items) => ToRouterKind::Results(wire::Results { items: each(items) }),
            ToRouter::Recalled(fences) => ToRouterKind::Recalled(wire::Fences { fences: each(fences) }),
            ToRouter::Leave => ToRouterKind::Leave(wire::Unit {}),
        };
        Self { kind: Some(kind) }
    }
}

impl TryFrom<wire::ToRouter> for ToRouter {
    type Error = DecodeError;

    fn try_from(w: wire::ToRouter) -> Result<Self> {
        Ok(match required(w.kind, "message to router")? {
            ToRouterKind::OpenJob(spec) => ToRouter::OpenJob(spec.try_into()?),
            ToRouterKind::Submit(w) => ToRouter::Submit {
                job: id!(JobId, w.job, "submit.job")?,
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
        })
    }
}

impl From<&SubmitRow> for wire::SubmitRow {
    fn from(row: &SubmitRow) -> Self {
        Self { row: bytes(&row.row.0), sample: row.sample, body: row.body.clone() }
    }
}

impl TryFrom<wire::SubmitRow> for SubmitRow {
    type Error = DecodeError;

    fn try_from(w: wire::SubmitRow) -> Result<Self> {
        Ok(Self { row: id!(RowId, w.row, "submit.row")?, sample: w.sample, body: w.body })
    }
}

impl From<&Registration> for wire::Registration {
    fn from(r: &Registration) -> Self {
        Self {
            worker: bytes(&r.worker.0),
            incarnation: r.incarnation,
            name: r.name.clone(),
            services: r.services.clone(),
            capacity: Some((&r.capacity).into()),
            holding: each(&r.holding),
            died_with: each(&r.died_with),
        }
    }
}

impl TryFrom<wire::Registration> for Registration {
    type Error = DecodeError;

    fn try_from(w: wire::Registration) -> Result<Self> {
        at_most(w.services.len(), SERVICES_MAX, "register.services")?;
        Ok(Self {
            worker: id!(WorkerId, w.worker, "register.worker")?,
            incarnation: w.incarnation,
            name: name(w.name, "register.name")?,
            services: w.services.into_iter().map(|s| name(s, "register.service")).collect::<Result<_>>()?,
            capacity: required(w.capacity, "register.capacity")?.try_into()?,
            holding: all(w.holding, FENCES_MAX, "register.holding")?,
            died_with: all(w.died_with, FENCES_MAX, "register.died_with")?,
        })
    }
}

impl From<&ResultItem> for wire::ResultItem {
    fn from(item: &ResultItem) -> Self {
        Self { fence: Some((&item.fence).into()), outcome: Some((&item.outcome).into()), ms: item.ms }
    }
}

impl TryFrom<wire::ResultItem> for ResultItem {
    type Error = DecodeError;

    fn try_from(w: wire::ResultItem) -> Result<Self> {
        Ok(Self {
            fence: required(w.fence, "result.fence")?.try_into()?,
            outcome: required(w.outcome, "result.outcome")?.try_into()?,
            ms: w.ms,
        })
    }
}

impl From<&Question> for wire::AskKind {
    fn from(question: &Question) -> Self {
        match question {
            Question::Jobs => wire::AskKind::Jobs(wire::Unit {}),
            Question::Workers => wire::AskKind::Workers(wire::Unit {}),
            Question::CancelJob(job) => wire::AskKind::CancelJob(bytes(&job.0)),
            Question::Task(key) => wire::AskKind::Task(bytes(&key.0)),
            Question::Failures { job, after, limit } => {
                wire::AskKind::Failures(wire::AskFailures { job: bytes(&job.0), after: *after, limit: *limit })
            }
            Question::Retry { job, keys } => wire::AskKind::Retry(wire::AskRetry {
                job: bytes(&job.0),
                keys: keys.iter().map(|key| bytes(&key.0)).collect(),
            }),
            Question::Shutdown => wire::AskKind::Shutdown(wire::Unit {}),
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
        })
    }
}
