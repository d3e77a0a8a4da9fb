//! Any message at all, within its limits.

#![expect(clippy::disallowed_types, reason = "inside of proptest's macro, in tests only")]

use bytes::Bytes;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;

use crate::*;

fn id<T>(new: fn([u8; 16]) -> T) -> impl Strategy<Value = T>
where
    T: std::fmt::Debug,
{
    any::<[u8; 16]>().prop_map(new)
}

fn bytes() -> impl Strategy<Value = Bytes> {
    vec(any::<u8>(), 0..300).prop_map(Bytes::from)
}

fn text() -> impl Strategy<Value = String> {
    vec(any::<char>(), 0..40).prop_map(|chars| chars.into_iter().collect())
}

/// Of every length in varints.
fn number() -> impl Strategy<Value = u64> {
    (any::<u64>(), 0..64_u32).prop_map(|(number, shift)| number >> shift)
}

fn small() -> impl Strategy<Value = u32> {
    number().prop_map(|number| number as u32)
}

fn tokens() -> impl Strategy<Value = Tokens> {
    (number(), number()).prop_map(|(prompt, completion)| Tokens { prompt, completion })
}

fn fence() -> impl Strategy<Value = Fence> {
    (id(Key), number(), small()).prop_map(|(key, epoch, attempt)| Fence { key, epoch, attempt })
}

fn piece() -> impl Strategy<Value = Piece> {
    (fence(), number(), bytes()).prop_map(|(fence, at, bytes)| Piece { fence, at, bytes })
}

fn upstream() -> impl Strategy<Value = Box<Upstream>> {
    (any::<u16>(), [text(), text(), text(), text()])
        .prop_map(|(status, [message, kind, param, code])| Box::new(Upstream { status, message, kind, param, code }))
}

fn failure() -> impl Strategy<Value = Failure> {
    let ends = (option::of(any::<i32>()), option::of(any::<i32>()));
    let evidence = (ends, bytes(), text(), small(), option::of(upstream()));
    (select(&Class::ALL[..]), text(), evidence).prop_map(|(class, message, seen)| {
        let ((exit_code, signal), stderr, worker, deaths, upstream) = seen;
        Failure { class, message, evidence: Box::new(Evidence { exit_code, signal, stderr, worker, deaths, upstream }) }
    })
}

fn outcome() -> impl Strategy<Value = Outcome> {
    prop_oneof![bytes().prop_map(Outcome::Ok), failure().prop_map(Outcome::Failed)]
}

pub(super) fn job_spec() -> impl Strategy<Value = JobSpec> {
    let order = select(&[Order::Fifo, Order::Shortest, Order::Auto][..]);
    let options = (number(), small(), order, small(), number()).prop_map(
        |(timeout_ms, retries, order, weight, rate_millihertz)| JobOptions {
            timeout_ms,
            retries,
            order,
            weight,
            rate_millihertz,
        },
    );
    let nonce = vec(any::<u8>(), 0..NAME_BYTES_MAX).prop_map(Bytes::from);
    let cursor = (number(), option::of(id(RouterId)));
    (id(JobId), (text(), text(), text()), nonce, cursor, options).prop_map(
        |(job, (name, service, revision), nonce, (cursor, cursor_router), options)| JobSpec {
            job,
            name,
            service,
            revision,
            nonce,
            cursor,
            cursor_router,
            options,
        },
    )
}

fn counts() -> impl Strategy<Value = JobCounts> {
    proptest::array::uniform10(number()).prop_map(
        |[submitted, ok, failed, open, running, cached, retried, last_number, settled, unserved]| JobCounts {
            submitted,
            ok,
            failed,
            open,
            running,
            cached,
            retried,
            last_number,
            settled,
            unserved,
        },
    )
}

fn capacity() -> impl Strategy<Value = Capacity> {
    (small(), small(), number()).prop_map(|(batch, depth, bytes)| Capacity { batch, depth, bytes })
}

fn refusal() -> impl Strategy<Value = Refusal> {
    prop_oneof![
        number().prop_map(|retry_ms| Refusal::Busy { retry_ms }),
        (number(), number()).prop_map(|(len, max)| Refusal::TooLong { len, max }),
        number().prop_map(|last| Refusal::CursorAhead { last }),
        number().prop_map(|incarnation| Refusal::Superseded { incarnation }),
        select(
            &[Refusal::UnknownJob, Refusal::Cancelled, Refusal::OtherJob, Refusal::Stopping, Refusal::Forbidden][..]
        ),
    ]
}

fn question() -> impl Strategy<Value = Question> {
    prop_oneof![
        select(&[Question::Jobs, Question::Workers, Question::Shutdown, Question::Stats][..]),
        id(JobId).prop_map(Question::CancelJob),
        id(Key).prop_map(Question::Task),
        (id(JobId), number(), small()).prop_map(|(job, after, limit)| Question::Failures { job, after, limit }),
        (id(JobId), vec(id(Key), 0..5)).prop_map(|(job, keys)| Question::Retry { job, keys }),
        (id(JobId), vec((id(Key), id(RowId)), 0..5)).prop_map(|(job, rows)| Question::Withdraw { job, rows }),
    ]
}

pub(super) fn to_router() -> impl Strategy<Value = ToRouter> {
    let row = (id(RowId), small(), bytes()).prop_map(|(row, sample, body)| SubmitRow { row, sample, body });
    let result = (fence(), outcome(), number(), tokens()).prop_map(|(fence, outcome, ms, tokens)| ResultItem {
        fence,
        outcome,
        ms,
        tokens,
    });
    let held = (vec(fence(), 0..4), vec(fence(), 0..4));
    let registration = (id(WorkerId), number(), text(), vec(text(), 0..4), capacity(), held).prop_map(
        |(worker, incarnation, name, services, capacity, (holding, died_with))| Registration {
            worker,
            incarnation,
            name,
            services,
            capacity,
            holding,
            died_with,
        },
    );
    prop_oneof![
        job_spec().prop_map(ToRouter::OpenJob),
        (id(JobId), number(), vec(row, 0..6)).prop_map(|(job, cursor, rows)| ToRouter::Submit { job, cursor, rows }),
        id(JobId).prop_map(|job| ToRouter::Scanned { job }),
        (number(), question()).prop_map(|(id, question)| ToRouter::Ask { id, question }),
        registration.prop_map(ToRouter::Register),
        vec(result, 0..6).prop_map(ToRouter::Results),
        vec(fence(), 0..6).prop_map(ToRouter::Recalled),
        Just(ToRouter::Leave),
        id(JobId).prop_map(|job| ToRouter::Watch { job }),
        piece().prop_map(ToRouter::Piece),
    ]
}

pub(super) fn to_worker() -> impl Strategy<Value = ToWorker> {
    let assignment =
        (fence(), text(), number(), any::<bool>(), bytes()).prop_map(|(fence, service, timeout_ms, alone, body)| {
            Assignment { fence, service: service.into(), timeout_ms, alone, body }
        });
    prop_oneof![
        (any::<u64>(), id(RouterId), vec(fence(), 0..4), vec(fence(), 0..4))
            .prop_map(|(incarnation, router, keep, drop)| ToWorker::Registered { incarnation, router, keep, drop }),
        vec(assignment, 0..6).prop_map(ToWorker::Assign),
        vec(fence(), 0..6).prop_map(ToWorker::Recall),
        vec(fence(), 0..6).prop_map(ToWorker::Cancel),
        refusal().prop_map(ToWorker::Refused),
    ]
}

fn waiting() -> impl Strategy<Value = Waiting> {
    prop_oneof![
        text().prop_map(|service| Waiting::NoWorker { service }),
        (small(), number()).prop_map(|(workers, ahead)| Waiting::AllFull { workers, ahead }),
        number().prop_map(|ms| Waiting::Backoff { ms }),
        number().prop_map(|ms| Waiting::Withheld { ms }),
        select(&[Waiting::Suspect, Waiting::Rate, Waiting::Ready][..]),
    ]
}

fn stats() -> impl Strategy<Value = Stats> {
    let lists = (vec(number(), OUTCOMES), vec(number(), LENGTHS));
    let totals = (lists, vec(number(), 8)).prop_map(|((outcomes, lengths), figures)| Totals {
        outcomes: outcomes.try_into().unwrap(),
        lengths: lengths.try_into().unwrap(),
        took_ms: figures[0],
        assigned: figures[1],
        redelivered: figures[2],
        recalled: figures[3],
        dropped: figures[4],
        lost: figures[5],
        refused: figures[6],
        suppressed: figures[7],
    });
    let standing = (vec(number(), 7), option::of(number())).prop_map(|(figures, idle_ms)| Standing {
        ready: figures[0],
        running: figures[1],
        backoff: figures[2],
        suspect: figures[3],
        withheld: figures[4],
        jobs: figures[5],
        unsettled: figures[6],
        idle_ms,
    });
    let of_service = (text(), tokens()).prop_map(|(service, tokens)| ServiceTokens { service, tokens });
    (totals, standing, vec(of_service, 0..3)).prop_map(|(totals, standing, tokens)| Stats { totals, standing, tokens })
}

fn answer() -> impl Strategy<Value = Answer> {
    let states = select(&[JobState::Open, JobState::Done, JobState::Cancelled][..]);
    let job = (id(JobId), text(), text(), states, counts()).prop_map(|(job, name, service, state, counts)| JobInfo {
        job,
        name,
        service,
        state,
        counts,
    });
    let figures = (small(), small(), small(), number(), any::<bool>());
    let worker = (id(WorkerId), text(), vec(text(), 0..4), figures).prop_map(|(worker, name, services, figures)| {
        let (batch, depth, outstanding, silent_ms, quarantined) = figures;
        WorkerInfo { worker, name, services, batch, depth, outstanding, silent_ms, quarantined }
    });
    let state = prop_oneof![
        waiting().prop_map(TaskState::Waiting),
        (text(), number()).prop_map(|(worker, ms)| TaskState::Running { worker, ms }),
        Just(TaskState::Ok),
        failure().prop_map(TaskState::Failed),
    ];
    let task = (id(Key), text(), number(), small(), (state, option::of(bytes()))).prop_map(
        |(key, service, body_len, attempts, (state, output))| TaskInfo {
            key,
            service,
            body_len,
            attempts,
            state,
            output,
        },
    );
    let row = (number(), id(RowId), id(Key), small(), failure(), bytes()).prop_map(
        |(number, row, key, attempts, failure, body)| FailureRow { number, row, key, attempts, failure, body },
    );
    prop_oneof![
        vec(job, 0..4).prop_map(Answer::Jobs),
        vec(worker, 0..4).prop_map(Answer::Workers),
        option::of(task).prop_map(Answer::Task),
        vec(row, 0..4).prop_map(Answer::Failures),
        number().prop_map(Answer::Done),
        stats().prop_map(Answer::Stats),
        select(&[Answer::NotFound, Answer::Stopping, Answer::Forbidden][..]),
    ]
}

pub(super) fn to_client() -> impl Strategy<Value = ToClient> {
    let made = (small(), text(), number(), any::<bool>());
    let row = (number(), id(RowId), id(Key), outcome(), made).prop_map(|(number, row, key, outcome, made)| {
        let (attempts, worker, ms, cached) = made;
        DeliveredRow { number, row, key, outcome, attempts, worker: worker.into(), ms, cached }
    });
    prop_oneof![
        (id(JobId), id(RouterId), number(), counts()).prop_map(|(job, router, cursor, counts)| ToClient::JobOpened {
            job,
            router,
            cursor,
            counts
        }),
        (id(JobId), refusal()).prop_map(|(job, refusal)| ToClient::JobRefused { job, refusal }),
        (id(JobId), vec(row, 0..6)).prop_map(|(job, rows)| ToClient::Deliver { job, rows }),
        (id(JobId), vec(id(RowId), 0..6), refusal()).prop_map(|(job, rows, refusal)| ToClient::Refused {
            job,
            rows,
            refusal
        }),
        (number(), answer()).prop_map(|(id, answer)| ToClient::Answer { id, answer }),
        (id(JobId), id(RowId), piece()).prop_map(|(job, row, piece)| ToClient::Piece { job, row, piece }),
    ]
}
