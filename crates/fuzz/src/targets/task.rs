//! Messages between roles: `kind u8 | bytes`. What decodes must come back the same from its own encoding.

use std::path::Path;

use bytes::Bytes;
use sheaf_task::{
    Answer, Assignment, Capacity, Class, DeliveredRow, Evidence, Failure, FailureRow, Fence, JobCounts, JobId, JobInfo,
    JobOptions, JobSpec, JobState, Key, Order, Outcome, Question, Refusal, Registration, ResultItem, RouterId, RowId,
    ServiceTokens, Standing, Stats, SubmitRow, TaskInfo, TaskState, ToClient, ToRouter, ToWorker, Tokens, Totals,
    Upstream, Waiting, WorkerId, WorkerInfo,
};

use crate::target::{Shape, Spec, Target, scale};

pub(crate) const SPEC: Spec = Spec {
    name: "task",
    share: 30,
    words: &[&[0x0a, 0x10], &[0x12, 0x10], &[0x0a, 0x00], &[0x08, 0x01], &[0x22, 0x05], &[0xff; 10], b"\xf0\x9f"],
    make: |_: &Path| Box::new(Messages),
    examples,
};

struct Messages;

/// Decodes and encodes again.
macro_rules! check {
    ($type:ty, $bytes:expr, $kind:expr) => {{
        let bytes: Bytes = $bytes;
        match <$type>::decode(bytes) {
            Err(error) => Ok(Shape::of(($kind, std::mem::discriminant(&error), text_of(&error)))),
            Ok(value) => {
                let encoded = value.encode();
                let len = scale(encoded.len());
                match <$type>::decode(encoded.clone()) {
                    Ok(again) if again == value && again.encode() == encoded => {
                        // The first tag tells a message's variant.
                        Ok(Shape::of(($kind, encoded.first().copied(), len)))
                    }
                    Ok(again) => Err(format!("does not come back the same: {value:?} as {again:?}")),
                    Err(error) => Err(format!("does not come back: {value:?}: {error}")),
                }
            }
        }
    }};
}

/// Which field an error is about; the rest of the words would be too fine.
fn text_of(error: &sheaf_task::DecodeError) -> String {
    error.to_string().split(' ').take(1).collect()
}

impl Target for Messages {
    fn run(&mut self, input: &[u8]) -> Result<Shape, String> {
        let Some((kind, bytes)) = input.split_first() else { return Ok(Shape::default()) };
        let (kind, bytes) = (kind % 8, Bytes::copy_from_slice(bytes));
        match kind {
            0 => check!(ToRouter, bytes, kind),
            1 => check!(ToWorker, bytes, kind),
            2 => check!(ToClient, bytes, kind),
            3 => check!(Capacity, bytes, kind),
            4 => check!(JobCounts, bytes, kind),
            5 => check!(JobSpec, bytes, kind),
            6 => check!(Outcome, bytes, kind),
            _ => check!(Fence, bytes, kind),
        }
    }
}

fn examples() -> Vec<(String, Vec<u8>)> {
    let to_router = to_router().into_iter().map(|message| (0, message.encode()));
    let to_worker = to_worker().into_iter().map(|message| (1, message.encode()));
    let to_client = to_client().into_iter().map(|message| (2, message.encode()));
    let parts = [
        (3, Capacity { batch: 1, depth: 2, bytes: 3 }.encode()),
        (4, counts().encode()),
        (5, job().encode()),
        (6, Outcome::Failed(failure()).encode()),
        (7, fence().encode()),
    ];
    let all = to_router.chain(to_worker).chain(to_client).chain(parts);
    all.enumerate().map(|(at, (kind, bytes))| (format!("message-{at:02}"), [&[kind], &bytes[..]].concat())).collect()
}

fn fence() -> Fence {
    Fence { key: Key([3; 16]), epoch: 7, attempt: 2 }
}

fn counts() -> JobCounts {
    JobCounts { submitted: 900, ok: 4, failed: 1, open: 4, last_number: 5, settled: 4, ..JobCounts::default() }
}

fn stats() -> Stats {
    let mut totals = Totals { assigned: 5, suppressed: 1, ..Totals::default() };
    totals.note_outcome(Some(Class::Garbage));
    totals.note_length(12);
    let tokens = vec![ServiceTokens { service: "s".into(), tokens: Tokens { prompt: 1, completion: 2 } }];
    Stats { totals, standing: Standing { ready: 3, idle_ms: Some(0), ..Standing::default() }, tokens }
}

fn failure() -> Failure {
    let stderr = Bytes::from_static(b"\xffoops");
    let upstream = Upstream { status: 422, message: "m".into(), kind: "t".into(), ..Upstream::default() };
    let evidence = Evidence {
        exit_code: Some(-1),
        signal: Some(9),
        stderr,
        worker: "w".into(),
        deaths: 3,
        upstream: Some(Box::new(upstream)),
    };
    Failure { class: Class::Expired, message: "why".into(), evidence: Box::new(evidence) }
}

fn job() -> JobSpec {
    JobSpec {
        job: JobId([1; 16]),
        name: "n".into(),
        service: "s".into(),
        revision: "r".into(),
        nonce: Bytes::from_static(b"nonce"),
        cursor: 4,
        cursor_router: Some(RouterId([2; 16])),
        options: JobOptions { timeout_ms: 1, retries: 2, order: Order::Shortest, weight: 3, rate_millihertz: 4 },
    }
}

fn to_router() -> Vec<ToRouter> {
    let (job_id, keys) = (JobId([1; 16]), vec![Key([1; 16]), Key([2; 16])]);
    let tokens = Tokens { prompt: 300, completion: 7 };
    let row = |n, body: &'static [u8]| SubmitRow { row: RowId([n; 16]), sample: 7, body: Bytes::from_static(body) };
    vec![
        ToRouter::OpenJob(job()),
        ToRouter::Submit { job: job_id, cursor: 6, rows: vec![row(5, b""), row(6, b"body")] },
        ToRouter::Scanned { job: job_id },
        ToRouter::Register(Registration {
            worker: WorkerId([1; 16]),
            incarnation: 5,
            name: "w".into(),
            services: vec!["a".into(), "b".into()],
            capacity: Capacity { batch: 1, depth: 2, bytes: 3 },
            holding: vec![fence()],
            died_with: vec![fence(), fence()],
        }),
        ToRouter::Results(vec![ResultItem { fence: fence(), outcome: Outcome::Failed(failure()), ms: 2, tokens }]),
        ToRouter::Recalled(vec![fence()]),
        ToRouter::Leave,
        ToRouter::Ask { id: 6, question: Question::Failures { job: job_id, after: 3, limit: 4 } },
        ToRouter::Ask { id: 7, question: Question::Retry { job: job_id, keys } },
        ToRouter::Ask { id: 8, question: Question::Stats },
    ]
}

fn to_worker() -> Vec<ToWorker> {
    let body = Bytes::from_static(b"body");
    let assignment = Assignment { fence: fence(), service: "s".into(), timeout_ms: 9, alone: true, body };
    vec![
        ToWorker::Registered { incarnation: 5, router: RouterId([1; 16]), keep: vec![fence()], drop: vec![] },
        ToWorker::Assign(vec![assignment]),
        ToWorker::Recall(vec![fence()]),
        ToWorker::Cancel(vec![fence()]),
        ToWorker::Refused(Refusal::TooLong { len: 2, max: 1 }),
    ]
}

fn to_client() -> Vec<ToClient> {
    let job = JobId([1; 16]);
    let (row, key, worker) = (RowId([2; 16]), Key([3; 16]), String::from("w"));
    let delivered = DeliveredRow {
        number: 3,
        row,
        key,
        outcome: Outcome::Ok(Bytes::new()),
        attempts: 1,
        worker: worker.as_str().into(),
        ms: 5,
        cached: true,
    };
    let info = JobInfo { job, name: "n".into(), service: "s".into(), state: JobState::Open, counts: counts() };
    let services = vec!["s".into()];
    let (batch, depth, outstanding, silent_ms, quarantined) = (1, 2, 3, 4, true);
    let id = WorkerId([1; 16]);
    let of_worker =
        WorkerInfo { worker: id, name: worker, services, batch, depth, outstanding, silent_ms, quarantined };
    let failed =
        FailureRow { number: 1, row, key, attempts: 4, failure: failure(), body: Bytes::from_static(b"payload") };
    let state = TaskState::Waiting(Waiting::AllFull { workers: 2, ahead: 3 });
    let task = TaskInfo { key, service: "s".into(), body_len: 3, attempts: 4, state, output: None };
    let answers = [
        Answer::Jobs(vec![info]),
        Answer::Workers(vec![of_worker]),
        Answer::Task(Some(task)),
        Answer::Failures(vec![failed]),
        Answer::Done(8),
        Answer::Stats(stats()),
    ];
    let mut all = vec![
        ToClient::JobOpened { job, router: RouterId([1; 16]), cursor: 2, counts: counts() },
        ToClient::Deliver { job, rows: vec![delivered] },
        ToClient::Refused { job, rows: vec![row], refusal: Refusal::Busy { retry_ms: 5 } },
    ];
    all.extend(answers.map(|answer| ToClient::Answer { id: 4, answer }));
    all
}
