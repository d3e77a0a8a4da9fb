//! Every variant comes back as it went, and no bytes make the decoder panic.

mod any;

use bytes::Bytes;
use proptest::prelude::*;
use prost::Message;

use crate::{wire, *};

fn fence() -> Fence {
    Fence { key: Key([3; 16]), epoch: 7, attempt: 2 }
}

fn piece() -> Piece {
    Piece { fence: fence(), at: 9, bytes: Bytes::from_static(b"data: {}") }
}

fn upstream() -> Upstream {
    let [message, kind, param, code] = ["m", "t", "p", "c"].map(String::from);
    Upstream { status: 422, message, kind, param, code }
}

fn failure() -> Failure {
    let evidence = Evidence {
        exit_code: Some(-1),
        signal: Some(9),
        stderr: Bytes::from_static(b"\xffoops"),
        worker: "w".into(),
        deaths: 3,
        upstream: Some(Box::new(upstream())),
    };
    Failure { class: Class::Expired, message: "why".into(), evidence: Box::new(evidence) }
}

fn counts() -> JobCounts {
    JobCounts {
        submitted: 9,
        ok: 4,
        failed: 1,
        open: 4,
        running: 2,
        cached: 1,
        retried: 3,
        last_number: 5,
        settled: 4,
        unserved: 3,
    }
}

fn to_router() -> Vec<ToRouter> {
    let job = JobId([1; 16]);
    let spec = JobSpec {
        job,
        name: "n".into(),
        service: "s".into(),
        revision: "r".into(),
        nonce: Bytes::from_static(b"nonce"),
        cursor: 4,
        cursor_router: Some(RouterId([2; 16])),
        options: JobOptions { timeout_ms: 1, retries: 2, order: Order::Shortest, weight: 3, rate_millihertz: 4 },
    };
    let questions = [
        Question::Jobs,
        Question::Workers,
        Question::CancelJob(job),
        Question::Task(Key([1; 16])),
        Question::Failures { job, after: 3, limit: 4 },
        Question::Retry { job, keys: vec![Key([1; 16]), Key([2; 16])] },
        Question::Shutdown,
        Question::Withdraw { job, rows: vec![(Key([1; 16]), RowId([2; 16])), (Key([3; 16]), RowId([4; 16]))] },
        Question::Stats,
    ];
    let tokens = Tokens { prompt: 300, completion: 7 };
    let mut all = vec![
        ToRouter::OpenJob(JobSpec { cursor_router: None, ..spec.clone() }),
        ToRouter::OpenJob(spec),
        ToRouter::Submit {
            job,
            cursor: 6,
            rows: vec![
                SubmitRow { row: RowId([5; 16]), sample: 0, body: Bytes::new() },
                SubmitRow { row: RowId([6; 16]), sample: 7, body: Bytes::from_static(b"body") },
            ],
        },
        ToRouter::Scanned { job },
        ToRouter::Register(Registration {
            worker: WorkerId([1; 16]),
            incarnation: 5,
            name: "w".into(),
            services: vec!["a".into(), "b".into()],
            capacity: Capacity { batch: 1, depth: 2, bytes: 3 },
            holding: vec![fence()],
            died_with: vec![fence(), fence()],
        }),
        ToRouter::Results(vec![
            ResultItem { fence: fence(), outcome: Outcome::Ok(Bytes::from_static(b"answer")), ms: 1, tokens },
            ResultItem { fence: fence(), outcome: Outcome::Failed(failure()), ms: 2, tokens: Tokens::default() },
        ]),
        ToRouter::Recalled(vec![fence()]),
        ToRouter::Leave,
        ToRouter::Watch { job },
        ToRouter::Piece(piece()),
    ];
    all.extend(questions.into_iter().map(|question| ToRouter::Ask { id: 6, question }));
    all
}

fn to_worker() -> Vec<ToWorker> {
    let refusals = [
        Refusal::Busy { retry_ms: 1 },
        Refusal::TooLong { len: 2, max: 1 },
        Refusal::UnknownJob,
        Refusal::Cancelled,
        Refusal::OtherJob,
        Refusal::CursorAhead { last: 9 },
        Refusal::Stopping,
        Refusal::Superseded { incarnation: 3 },
        Refusal::Forbidden,
    ];
    let mut all = vec![
        ToWorker::Registered { incarnation: 5, router: RouterId([1; 16]), keep: vec![fence()], drop: vec![] },
        ToWorker::Assign(vec![Assignment {
            fence: fence(),
            service: "s".into(),
            timeout_ms: 9,
            alone: true,
            body: Bytes::from_static(b"body"),
        }]),
        ToWorker::Recall(vec![fence()]),
        ToWorker::Cancel(vec![fence()]),
    ];
    all.extend(refusals.into_iter().map(ToWorker::Refused));
    all
}

fn task_states() -> Vec<TaskState> {
    let waiting = [
        Waiting::NoWorker { service: "s".into() },
        Waiting::AllFull { workers: 2, ahead: 3 },
        Waiting::Backoff { ms: 1 },
        Waiting::Withheld { ms: 2 },
        Waiting::Suspect,
        Waiting::Rate,
        Waiting::Ready,
    ];
    let mut all = vec![TaskState::Running { worker: "w".into(), ms: 4 }, TaskState::Ok, TaskState::Failed(failure())];
    all.extend(waiting.into_iter().map(TaskState::Waiting));
    all
}

fn totals() -> Totals {
    let mut totals = Totals { took_ms: 1, assigned: 2, redelivered: 3, recalled: 4, ..Totals::default() };
    (totals.outcomes[0], totals.outcomes[7], totals.lengths[23]) = (5, 6, 7);
    totals
}

fn answers() -> Vec<Answer> {
    let job = JobId([1; 16]);
    let states = [JobState::Open, JobState::Done, JobState::Cancelled];
    let jobs = states.map(|state| JobInfo { job, name: "n".into(), service: "s".into(), state, counts: counts() });
    let worker = WorkerInfo {
        worker: WorkerId([1; 16]),
        name: "w".into(),
        services: vec!["s".into()],
        batch: 1,
        depth: 2,
        outstanding: 3,
        silent_ms: 4,
        quarantined: true,
    };
    let row = FailureRow {
        number: 1,
        row: RowId([2; 16]),
        key: Key([3; 16]),
        attempts: 4,
        failure: failure(),
        body: Bytes::from_static(b"payload"),
    };
    let tasks = task_states().into_iter().map(|state| {
        let output = (state == TaskState::Ok).then(Bytes::new);
        Answer::Task(Some(TaskInfo { key: Key([1; 16]), service: "s".into(), body_len: 3, attempts: 4, state, output }))
    });
    let mut all = vec![
        Answer::Jobs(jobs.to_vec()),
        Answer::Workers(vec![worker]),
        Answer::Task(None),
        Answer::Failures(vec![row]),
        Answer::Done(8),
        Answer::NotFound,
        Answer::Forbidden,
        Answer::Stopping,
        Answer::Stats(Stats::default()),
        Answer::Stats(Stats {
            totals: totals(),
            standing: Standing { idle_ms: Some(0), ..Standing::default() },
            tokens: vec![ServiceTokens { service: "s".into(), tokens: Tokens { prompt: 1, completion: 2 } }],
        }),
    ];
    all.extend(tasks);
    all
}

fn to_client() -> Vec<ToClient> {
    let job = JobId([1; 16]);
    let row = DeliveredRow {
        number: 3,
        row: RowId([1; 16]),
        key: Key([2; 16]),
        outcome: Outcome::Ok(Bytes::new()),
        attempts: 1,
        worker: "w".into(),
        ms: 5,
        cached: true,
    };
    let mut all = vec![
        ToClient::JobOpened { job, router: RouterId([1; 16]), cursor: 2, counts: counts() },
        ToClient::JobRefused { job, refusal: Refusal::OtherJob },
        ToClient::Deliver { job, rows: vec![row] },
        ToClient::Refused { job, rows: vec![RowId([9; 16])], refusal: Refusal::Busy { retry_ms: 5 } },
        ToClient::Piece { job, row: RowId([9; 16]), piece: piece() },
    ];
    all.extend(answers().into_iter().map(|answer| ToClient::Answer { id: 4, answer }));
    all
}

#[test]
fn every_variant_round_trips() {
    for message in to_router() {
        assert_eq!(ToRouter::decode(message.encode()), Ok(message));
    }
    for message in to_worker() {
        assert_eq!(ToWorker::decode(message.encode()), Ok(message));
    }
    for message in to_client() {
        assert_eq!(ToClient::decode(message.encode()), Ok(message));
    }
}

#[test]
fn decoding_copies_no_body() {
    let body = Bytes::from(vec![7; 1000]);
    let rows = vec![SubmitRow { row: RowId([1; 16]), sample: 0, body }];
    let wire = ToRouter::Submit { job: JobId([1; 16]), cursor: 0, rows }.encode();
    let range = wire.as_ptr_range();
    let Ok(ToRouter::Submit { rows, .. }) = ToRouter::decode(wire) else { panic!("a submit") };
    assert!(range.contains(&rows[0].body.as_ptr()));
}

/// It comes back as it went, and its bytes are those that prost writes for the same fields.
macro_rules! check {
    ($message:ident, $memory:ident) => {{
        let bytes = $message.encode();
        let read = wire::$memory::decode(bytes.clone()).unwrap();
        prop_assert_eq!(&read.encode_to_vec(), &bytes);
        prop_assert_eq!($memory::decode(bytes), Ok($message));
    }};
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn anything_to_a_router_round_trips(message in any::to_router()) {
        check!(message, ToRouter);
    }

    #[test]
    fn anything_to_a_worker_round_trips(message in any::to_worker()) {
        check!(message, ToWorker);
    }

    #[test]
    fn anything_to_a_client_round_trips(message in any::to_client()) {
        check!(message, ToClient);
    }

    #[test]
    fn what_travels_alone_round_trips(spec in any::job_spec(), batch: u32, depth: u32, bytes: u64) {
        let capacity = Capacity { batch, depth, bytes };
        check!(spec, JobSpec);
        check!(capacity, Capacity);
    }

    #[test]
    fn random_bytes_do_not_make_it_panic(bytes in proptest::collection::vec(proptest::arbitrary::any::<u8>(), 0..200)) {
        decode_all(bytes.into());
    }
}

/// How many kinds of message the bytes are.
fn decode_all(bytes: Bytes) -> usize {
    let messages = [
        ToRouter::decode(bytes.clone()).is_ok(),
        ToWorker::decode(bytes.clone()).is_ok(),
        ToClient::decode(bytes.clone()).is_ok(),
        Capacity::decode(bytes.clone()).is_ok(),
        JobCounts::decode(bytes.clone()).is_ok(),
        JobSpec::decode(bytes.clone()).is_ok(),
        Outcome::decode(bytes.clone()).is_ok(),
        Fence::decode(bytes).is_ok(),
    ];
    messages.into_iter().filter(|is_one| *is_one).count()
}

/// A message to the router, written by hand.
fn by_hand(kind: wire::ToRouterKind) -> Result<ToRouter, DecodeError> {
    ToRouter::decode(wire::ToRouter { kind: Some(kind) }.encode_to_vec().into())
}

#[test]
fn what_is_wrong_is_named() {
    let result = |class, epoch_key: &'static [u8]| {
        let failure = wire::Failure { class, ..wire::Failure::default() };
        let fence = wire::Fence { key: Bytes::from_static(epoch_key), epoch: 1, attempt: 1 };
        let outcome = wire::Outcome { kind: Some(wire::OutcomeKind::Failed(failure)) };
        let item = wire::ResultItem { fence: Some(fence), outcome: Some(outcome), ..wire::ResultItem::default() };
        by_hand(wire::ToRouterKind::Results(wire::Results { items: vec![item] }))
    };
    assert!(result(1, &[1; 16]).is_ok());
    assert_eq!(result(0, &[1; 16]), Err(DecodeError::Unknown { field: "failure.class", value: 0 }));
    assert_eq!(result(8, &[1; 16]), Err(DecodeError::Unknown { field: "failure.class", value: 8 }));
    assert_eq!(result(1, &[1; 17]), Err(DecodeError::IdLength { field: "fence.key", len: 17 }));
    let nothing = wire::Results { items: vec![wire::ResultItem::default()] };
    assert_eq!(by_hand(wire::ToRouterKind::Results(nothing)), Err(DecodeError::Missing { field: "result.fence" }));
    let row = wire::SubmitRow { row: Bytes::from_static(&[1; 16]), ..wire::SubmitRow::default() };
    let (len, max) = (BATCH_ROWS_MAX + 1, BATCH_ROWS_MAX);
    let submit = wire::Submit { job: Bytes::from_static(&[1; 16]), rows: vec![row; len], ..wire::Submit::default() };
    let error = Err(DecodeError::TooLong { field: "submit.rows", len, max });
    assert_eq!(by_hand(wire::ToRouterKind::Submit(submit)), error);
    let long = Assignment {
        fence: fence(),
        service: "s".repeat(NAME_BYTES_MAX + 1).into(),
        timeout_ms: 0,
        alone: false,
        body: Bytes::new(),
    };
    let error = DecodeError::TooLong { field: "assign.service", len: NAME_BYTES_MAX + 1, max: NAME_BYTES_MAX };
    assert_eq!(ToWorker::decode(ToWorker::Assign(vec![long]).encode()), Err(error));
}

#[test]
fn what_the_router_answers_with_a_refusal_reaches_it() {
    let long = "n".repeat(NAME_BYTES_MAX + 1);
    for message in to_router() {
        let message = match message {
            ToRouter::OpenJob(spec) => ToRouter::OpenJob(JobSpec { name: long.clone(), service: long.clone(), ..spec }),
            ToRouter::Register(r) => {
                ToRouter::Register(Registration { services: vec![long.clone(); SERVICES_MAX + 1], ..r })
            }
            ToRouter::Submit { job, cursor, mut rows } => {
                rows[0].body = vec![0; BODY_BYTES_MAX + 1].into();
                ToRouter::Submit { job, cursor, rows }
            }
            other => other,
        };
        assert_eq!(ToRouter::decode(message.encode()), Ok(message));
    }
}

#[test]
fn limits_are_enforced() {
    let fences = vec![fence(); FENCES_MAX + 1];
    let error = ToRouter::decode(ToRouter::Recalled(fences).encode());
    assert!(matches!(error, Err(DecodeError::TooLong { field: "recalled.fences", .. })));
    let short = ToRouter::decode(Bytes::from_static(&[0x1a, 1, 0]));
    assert_eq!(short, Err(DecodeError::IdLength { field: "scanned.job", len: 1 }));
    assert!(matches!(ToRouter::decode(Bytes::new()), Err(DecodeError::Missing { .. })));
}

#[test]
fn no_bytes_make_it_panic() {
    let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = move || {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed
    };
    let mut samples: Vec<Bytes> = to_router().iter().map(ToRouter::encode).collect();
    samples.extend(to_worker().iter().map(ToWorker::encode));
    samples.extend(to_client().iter().map(ToClient::encode));
    // Cut anywhere.
    for sample in &samples {
        for len in 0..sample.len() {
            decode_all(sample.slice(..len));
        }
    }
    let mut accepted = 0;
    for round in 0..40_000 {
        let mut bytes = samples[round % samples.len()].to_vec();
        for _ in 0..=next() % 4 {
            let at = next() as usize % bytes.len().max(1);
            match bytes.get_mut(at) {
                Some(byte) => *byte ^= 1 << (next() % 8),
                None => bytes.push(next() as u8),
            }
        }
        accepted += decode_all(bytes.into());
    }
    assert!(accepted > 0, "damage that still decodes is part of the test");
}
