//! [`Answer`] and what it carries.

use super::{Result, all, id, number_of, numbered, required};
use crate::put::{Put, Writer};
use crate::wire::{self, AnswerKind, TaskStateKind};
use crate::{
    Answer, DecodeError, FENCES_MAX, FailureRow, JobId, JobInfo, JobState, Key, RowId, TaskInfo, TaskState, Waiting,
    WorkerId, WorkerInfo,
};

impl Put for Answer {
    fn put(&self, to: &mut Writer) {
        match self {
            Answer::Jobs(jobs) => to.nested(2, |to| to.each(1, jobs)),
            Answer::Workers(workers) => to.nested(3, |to| to.each(1, workers)),
            Answer::Task(task) => to.nested(4, |to| to.each(1, task.as_slice())),
            Answer::Failures(rows) => to.nested(5, |to| to.each(1, rows)),
            Answer::Done(tasks) => to.number(6, *tasks),
            Answer::NotFound => to.unit(7),
            Answer::Stopping => to.unit(8),
            Answer::Forbidden => to.unit(9),
            Answer::Stats(stats) => to.message(10, stats),
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
            AnswerKind::Forbidden(wire::Unit {}) => Answer::Forbidden,
            AnswerKind::Stats(w) => Answer::Stats(w.try_into()?),
        })
    }
}

const JOB_STATES: [JobState; 3] = [JobState::Open, JobState::Done, JobState::Cancelled];

impl Put for JobInfo {
    fn put(&self, to: &mut Writer) {
        to.bytes(1, self.job.0);
        to.bytes(2, &self.name);
        to.bytes(3, &self.service);
        to.uint(4, number_of(&JOB_STATES, self.state));
        to.message(5, &self.counts);
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

impl Put for WorkerInfo {
    fn put(&self, to: &mut Writer) {
        to.bytes(1, self.worker.0);
        to.bytes(2, &self.name);
        self.services.iter().for_each(|service| to.given(3, service));
        to.uint(4, self.batch);
        to.uint(5, self.depth);
        to.uint(6, self.outstanding);
        to.uint(7, self.silent_ms);
        to.uint(8, self.quarantined);
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

impl Put for TaskInfo {
    fn put(&self, to: &mut Writer) {
        to.bytes(1, self.key.0);
        to.bytes(2, &self.service);
        to.uint(3, self.body_len);
        to.uint(4, self.attempts);
        to.message(5, &self.state);
        self.output.iter().for_each(|output| to.given(6, output));
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
            output: w.output,
        })
    }
}

impl Put for TaskState {
    fn put(&self, to: &mut Writer) {
        match self {
            TaskState::Waiting(why) => to.message(1, why),
            TaskState::Running { worker, ms } => to.nested(2, |to| {
                to.bytes(1, worker);
                to.uint(2, *ms);
            }),
            TaskState::Ok => to.unit(3),
            TaskState::Failed(failure) => to.message(4, failure),
        }
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

impl Put for Waiting {
    fn put(&self, to: &mut Writer) {
        let (kind, service, a, b) = match self {
            Waiting::NoWorker { service } => (1_u32, service.as_str(), 0, 0),
            Waiting::AllFull { workers, ahead } => (2, "", u64::from(*workers), *ahead),
            Waiting::Backoff { ms } => (3, "", *ms, 0),
            Waiting::Withheld { ms } => (4, "", *ms, 0),
            Waiting::Suspect => (5, "", 0, 0),
            Waiting::Rate => (6, "", 0, 0),
            Waiting::Ready => (7, "", 0, 0),
        };
        to.uint(1, kind);
        to.bytes(2, service);
        to.uint(3, a);
        to.uint(4, b);
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

impl Put for FailureRow {
    fn put(&self, to: &mut Writer) {
        to.uint(1, self.number);
        to.bytes(2, self.row.0);
        to.bytes(3, self.key.0);
        to.uint(4, self.attempts);
        to.message(5, &self.failure);
        to.bytes(6, &self.body);
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
