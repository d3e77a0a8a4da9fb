//! [`Answer`] and what it carries.

use super::{Result, all, bytes, each, id, number_of, numbered, required};
use crate::wire::{self, AnswerKind, TaskStateKind};
use crate::{
    Answer, DecodeError, FENCES_MAX, FailureRow, JobId, JobInfo, JobState, Key, RowId, TaskInfo, TaskState, Waiting,
    WorkerId, WorkerInfo,
};

impl From<&Answer> for AnswerKind {
    fn from(answer: &Answer) -> Self {
        match answer {
            Answer::Jobs(jobs) => AnswerKind::Jobs(wire::Jobs { jobs: each(jobs) }),
            Answer::Workers(workers) => AnswerKind::Workers(wire::Workers { workers: each(workers) }),
            Answer::Task(task) => AnswerKind::Task(wire::MaybeTask { task: task.as_ref().map(Into::into) }),
            Answer::Failures(rows) => AnswerKind::Failures(wire::Failures { rows: each(rows) }),
            Answer::Done(tasks) => AnswerKind::Done(*tasks),
            Answer::NotFound => AnswerKind::NotFound(wire::Unit {}),
            Answer::Stopping => AnswerKind::Stopping(wire::Unit {}),
        }
    }
}

impl TryFrom<AnswerKind> for Answer {
    type Error = DecodeError;

    fn try_from(w: AnswerKind) -> Result<Self> {
        Ok(match w {
            AnswerKind::Jobs(w) => Answer::Jobs(all(w.jobs, FENCES_MAX, "answer.jobs")?),
            AnswerKind::Workers(w) => Answer::Workers(all(w.workers, FENCES_MAX, "answer.workers")?),
            AnswerKind::Task(w) => Answer::Task(w.task.map(TryInto::try_into).transpose()?),
            AnswerKind::Failures(w) => Answer::Failures(all(w.rows, FENCES_MAX, "answer.failures")?),
            AnswerKind::Done(tasks) => Answer::Done(tasks),
            AnswerKind::NotFound(wire::Unit {}) => Answer::NotFound,
            AnswerKind::Stopping(wire::Unit {}) => Answer::Stopping,
        })
    }
}

const JOB_STATES: [JobState; 3] = [JobState::Open, JobState::Done, JobState::Cancelled];

impl From<&JobInfo> for wire::JobInfo {
    fn from(info: &JobInfo) -> Self {
        Self {
            job: bytes(&info.job.0),
            name: info.name.clone(),
            service: info.service.clone(),
            state: number_of(&JOB_STATES, info.state),
            counts: Some((&info.counts).into()),
        }
    }
}

impl TryFrom<wire::JobInfo> for JobInfo {
    type Error = DecodeError;

    fn try_from(w: wire::JobInfo) -> Result<Self> {
        Ok(Self {
            job: id!(JobId, w.job, "job.job")?,
            name: w.name,
            service: w.service,
            state: numbered(&JOB_STATES, w.state, "job.state")?,
            counts: required(w.counts, "job.counts")?.try_into()?,
        })
    }
}

impl From<&WorkerInfo> for wire::WorkerInfo {
    fn from(info: &WorkerInfo) -> Self {
        Self {
            worker: bytes(&info.worker.0),
            name: info.name.clone(),
            services: info.services.clone(),
            batch: info.batch,
            depth: info.depth,
            outstanding: info.outstanding,
            silent_ms: info.silent_ms,
            quarantined: info.quarantined,
        }
    }
}

impl TryFrom<wire::WorkerInfo> for WorkerInfo {
    type Error = DecodeError;

    fn try_from(w: wire::WorkerInfo) -> Result<Self> {
        Ok(Self {
            worker: id!(WorkerId, w.worker, "worker.worker")?,
            name: w.name,
            services: w.services,
            batch: w.batch,
            depth: w.depth,
            outstanding: w.outstanding,
            silent_ms: w.silent_ms,
            quarantined: w.quarantined,
        })
    }
}

impl From<&TaskInfo> for wire::TaskInfo {
    fn from(info: &TaskInfo) -> Self {
        Self {
            key: bytes(&info.key.0),
            service: info.service.clone(),
            body_len: info.body_len,
            attempts: info.attempts,
            state: Some((&info.state).into()),
        }
    }
}

impl TryFrom<wire::TaskInfo> for TaskInfo {
    type Error = DecodeError;

    fn try_from(w: wire::TaskInfo) -> Result<Self> {
        Ok(Self {
            key: id!(Key, w.key, "task.key")?,
            service: w.service,
            body_len: w.body_len,
            attempts: w.attempts,
            state: required(w.state, "task.state")?.try_into()?,
        })
    }
}

impl From<&TaskState> for wire::TaskState {
    fn from(state: &TaskState) -> Self {
        let kind = match state {
            TaskState::Waiting(why) => TaskStateKind::Waiting(why.into()),
            TaskState::Running { worker, ms } => {
                TaskStateKind::Running(wire::Running { worker: worker.clone(), ms: *ms })
            }
            TaskState::Ok => TaskStateKind::Ok(wire::Unit {}),
            TaskState::Failed(failure) => TaskStateKind::Failed(failure.into()),
        };
        Self { kind: Some(kind) }
    }
}

impl TryFrom<wire::TaskState> for TaskState {
    type Error = DecodeError;

    fn try_from(w: wire::TaskState) -> Result<Self> {
        Ok(match required(w.kind, "task.state")? {
            TaskStateKind::Waiting(why) => TaskState::Waiting(why.try_into()?),
            TaskStateKind::Running(w) => TaskState::Running { worker: w.worker, ms: w.ms },
            TaskStateKind::Ok(wire::Unit {}) => TaskState::Ok,
            TaskStateKind::Failed(failure) => TaskState::Failed(failure.try_into()?),
        })
    }
}

impl From<&Waiting> for wire::Waiting {
    fn from(why: &Waiting) -> Self {
        let (kind, service, a, b) = match why {
            Waiting::NoWorker { service } => (1, service.clone(), 0, 0),
            Waiting::AllFull { workers, ahead } => (2, String::new(), u64::from(*workers), *ahead),
            Waiting::Backoff { ms } => (3, String::new(), *ms, 0),
            Waiting::Withheld { ms } => (4, String::new(), *ms, 0),
            Waiting::Suspect => (5, String::new(), 0, 0),
            Waiting::Rate => (6, String::new(), 0, 0),
            Waiting::Ready => (7, String::new(), 0, 0),
        };
        Self { kind, service, a, b }
    }
}

impl TryFrom<wire::Waiting> for Waiting {
    type Error = DecodeError;

    fn try_from(w: wire::Waiting) -> Result<Self> {
        Ok(match w.kind {
            1 => Waiting::NoWorker { service: w.service },
            2 => Waiting::AllFull { workers: u32::try_from(w.a).unwrap_or(u32::MAX), ahead: w.b },
            3 => Waiting::Backoff { ms: w.a },
            4 => Waiting::Withheld { ms: w.a },
            5 => Waiting::Suspect,
            6 => Waiting::Rate,
            7 => Waiting::Ready,
            value => return Err(DecodeError::Unknown { field: "waiting", value }),
        })
    }
}

impl From<&FailureRow> for wire::FailureRow {
    fn from(row: &FailureRow) -> Self {
        Self {
            number: row.number,
            row: bytes(&row.row.0),
            key: bytes(&row.key.0),
            attempts: row.attempts,
            failure: Some((&row.failure).into()),
            body: row.body.clone(),
        }
    }
}

impl TryFrom<wire::FailureRow> for FailureRow {
    type Error = DecodeError;

    fn try_from(w: wire::FailureRow) -> Result<Self> {
        Ok(Self {
            number: w.number,
            row: id!(RowId, w.row, "failure.row")?,
            key: id!(Key, w.key, "failure.key")?,
            attempts: w.attempts,
            failure: required(w.failure, "failure.failure")?.try_into()?,
            body: w.body,
        })
    }
}
