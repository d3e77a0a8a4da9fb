//! The machine of calls: inputs in, effects out, as one line of text each.

use std::time::Duration;

use bytes::Bytes;
use sheaf_roles::client::{Event, Tag, Ticket};
use sheaf_session::Micros;
use sheaf_task::{
    Class, DeliveredRow, Failure, JobCounts, JobId, Key, KeyHasher, KeySecret, Outcome, Question, Refusal, RouterId,
    RowId, ToRouter,
};

use super::limits::{CallLimits, FLIGHT_MAX, IDLE, JOBS_MAX, RECENT_AGE};
use super::machine::Calls;
use super::types::{Digest, Identity, Input, JobKey, NewCall, Output, Refused, Told, Waiter};

const SECRET: [u8; 32] = [5; 32];

/// A machine, its clock and its router.
struct World {
    calls: Calls,
    now: Micros,
    /// Jobs in the order in which they were first opened: shown as `j0`, `j1`, …
    jobs: Vec<JobId>,
    number: u64,
}

fn limits() -> CallLimits {
    CallLimits { calls_max: 4, bytes_max: 100, linger: Duration::from_secs(60), retries: 2 }
}

fn call(name: u8) -> NewCall {
    let job = JobKey { service: "s".into(), revision: "r".into(), timeout_ms: 0 };
    let body = Bytes::from(vec![b'a'.wrapping_add(name)]);
    NewCall {
        job,
        body,
        identity: Identity::Own,
        row: RowId([name; 16]),
        sample: u32::from(name),
        digest: Digest([name; 16]),
        keep: false,
        is_async: false,
    }
}

impl World {
    fn new() -> Self {
        let calls = Calls::new(limits(), "app".into(), KeySecret(SECRET));
        Self { calls, now: Micros::ZERO, jobs: Vec::new(), number: 0 }
    }

    /// With a job that is open.
    fn open() -> Self {
        let mut world = Self::new();
        world.call(0, call(0));
        world.opened(0);
        world.answer(0, 0, "warm");
        world
    }

    fn handle(&mut self, input: Input) -> Vec<String> {
        self.calls.handle(self.now, input);
        let outputs: Vec<Output> = std::iter::from_fn(|| self.calls.poll()).collect();
        outputs.iter().map(|output| self.show(output)).collect()
    }

    fn call(&mut self, waiter: u64, call: NewCall) -> Vec<String> {
        self.handle(Input::Call { waiter: Waiter(waiter), call })
    }

    fn router(&mut self, job: Option<usize>, event: Event) -> Vec<String> {
        let job = job.map(|job| self.jobs[job]);
        self.handle(Input::Router { job, event })
    }

    fn opened(&mut self, job: usize) -> Vec<String> {
        let event = Event::Opened { router: RouterId([9; 16]), cursor: 0, counts: JobCounts::default() };
        self.router(Some(job), event)
    }

    fn acknowledged(&mut self, tag: u64) -> Vec<String> {
        self.router(None, Event::Acknowledged(Tag(tag)))
    }

    fn deliver(&mut self, job: usize, call: u8, sample: u32, outcome: Outcome, cached: bool) -> Vec<String> {
        self.number += 1;
        let key = key(call, sample);
        let row = RowId([call; 16]);
        let row =
            DeliveredRow { number: self.number, row, key, outcome, attempts: 1, worker: "w".into(), ms: 3, cached };
        self.router(Some(job), Event::Delivered { ticket: Ticket(self.number), rows: vec![row] })
    }

    fn answer(&mut self, job: usize, call: u8, text: &'static str) -> Vec<String> {
        self.deliver(job, call, u32::from(call), Outcome::Ok(text.into()), false)
    }

    fn wait(&mut self, span: Micros) -> Vec<String> {
        self.now = self.now + span;
        self.handle(Input::Tick)
    }

    fn job(&mut self, id: JobId) -> String {
        let at = self.jobs.iter().position(|known| *known == id).unwrap_or_else(|| {
            self.jobs.push(id);
            self.jobs.len() - 1
        });
        format!("j{at}")
    }

    fn show(&mut self, output: &Output) -> String {
        match output {
            Output::Commit(ticket) => format!("commit {}", ticket.0),
            Output::Tell { waiter, told } => format!("tell {} {}", waiter.0, show_told(told)),
            Output::Show { waiter, piece } => format!("show {} at {}", waiter.0, piece.at),
            Output::Send { tag, message } => match message {
                ToRouter::OpenJob(spec) => format!("open {} {} cursor {}", self.job(spec.job), spec.name, spec.cursor),
                ToRouter::Submit { job, cursor, rows } => {
                    let rows = rows.iter().map(|row| format!("{}/{}", row.row.0[0], row.sample));
                    let rows = rows.collect::<Vec<_>>().join(" ");
                    format!("submit#{} {} cursor {cursor}: {rows}", tag.unwrap().0, self.job(*job))
                }
                ToRouter::Scanned { job } => format!("scanned {}", self.job(*job)),
                ToRouter::Watch { job } => format!("watch {}", self.job(*job)),
                ToRouter::Ask { question: Question::Withdraw { job, rows }, .. } => {
                    let rows = rows.iter().map(|(_, row)| row.0[0].to_string()).collect::<Vec<_>>().join(" ");
                    format!("withdraw {}: {rows}", self.job(*job))
                }
                other => format!("{other:?}"),
            },
        }
    }
}

/// As the router names it.
fn key(call: u8, sample: u32) -> Key {
    KeyHasher::new(&KeySecret(SECRET), "app", "s", "r", b"").key(&[b'a' + call], sample)
}

fn show_told(told: &Result<Told, Refused>) -> String {
    match told {
        Ok(Told::Accepted(_)) => "accepted".into(),
        Ok(Told::Done(done)) => match &done.outcome {
            Outcome::Ok(body) => String::from_utf8_lossy(body).into_owned(),
            Outcome::Failed(failure) => failure.class.name().into(),
        },
        Err(refused) => format!("{refused:?}"),
    }
}

#[test]
fn a_call_opens_its_job_and_is_answered_when_its_row_is() {
    let mut world = World::new();
    assert_eq!(world.call(1, call(1)), ["open j0 http 0 0 r cursor 0"]);
    assert_eq!(world.call(2, call(2)), [""; 0], "the job is being opened");
    assert_eq!(world.opened(0), ["watch j0", "submit#1 j0 cursor 0: 1/1 2/2"]);
    assert_eq!(world.acknowledged(1), [""; 0]);
    assert_eq!(world.answer(0, 2, "two"), ["tell 2 two", "commit 1"]);
    assert_eq!(world.answer(0, 1, "one"), ["tell 1 one", "commit 2"]);
    assert_eq!(world.answer(0, 1, "again"), ["commit 3"], "of nobody: it is taken off the router's hands");
    assert_eq!(world.call(3, call(3)), ["submit#2 j0 cursor 3: 3/3"]);
}

#[test]
fn an_answer_that_the_journal_had_is_not_taken_for_a_calls_own() {
    let mut world = World::open();
    assert_eq!(world.call(1, call(1)), ["submit#2 j0 cursor 1: 1/1"]);
    let next = 1u32.wrapping_add(0x9E37_79B9);
    let again = world.deliver(0, 1, 1, Outcome::Ok("old".into()), true);
    assert_eq!(again, ["commit 2".to_owned(), format!("submit#3 j0 cursor 2: 1/{next}")]);
    assert_eq!(world.deliver(0, 1, next, Outcome::Ok("new".into()), false), ["tell 1 new", "commit 3"]);

    let named = NewCall { identity: Identity::Named, ..call(2) };
    world.call(2, named);
    assert_eq!(world.deliver(0, 2, 2, Outcome::Ok("old".into()), true), ["tell 2 old", "commit 4"]);
}

#[test]
fn a_retry_finds_the_call_that_it_repeats_under_way_or_done() {
    let mut world = World::open();
    world.call(1, call(1));
    let retry = NewCall { identity: Identity::Retry, row: RowId([77; 16]), ..call(1) };
    world.handle(Input::Gone(Waiter(1)));
    assert_eq!(world.call(2, retry.clone()), [""; 0], "it joins");
    assert_eq!(world.wait(Micros::from_secs(61)), ["scanned j0"; 0], "and is not withdrawn");
    assert_eq!(world.answer(0, 1, "one"), ["tell 1 one", "tell 2 one", "commit 2"]);
    assert_eq!(world.call(3, retry.clone()), ["tell 3 one"]);
    world.wait(RECENT_AGE + Micros(1));
    assert_eq!(world.call(4, retry), ["submit#3 j0 cursor 2: 77/1"], "too late: it is work of its own");
}

#[test]
fn a_retry_does_not_get_a_failure_again_but_a_named_call_does() {
    let mut world = World::open();
    world.call(1, call(1));
    let failed = Outcome::Failed(Failure::new(Class::Error, "no"));
    assert_eq!(world.deliver(0, 1, 1, failed, false), ["tell 1 error", "commit 2"]);
    let named = NewCall { identity: Identity::Named, ..call(1) };
    assert_eq!(world.call(2, named), ["tell 2 error"]);
    let retry = NewCall { identity: Identity::Retry, row: RowId([77; 16]), ..call(1) };
    assert_eq!(world.call(3, retry), ["submit#3 j0 cursor 2: 77/1"]);
}

#[test]
fn equal_calls_are_two_unless_they_are_named() {
    let mut world = World::open();
    let twin = NewCall { row: RowId([2; 16]), sample: 2, ..call(1) };
    assert_eq!(world.call(1, call(1)), ["submit#2 j0 cursor 1: 1/1"]);
    assert_eq!(world.call(2, twin), ["submit#3 j0 cursor 1: 2/2"]);
    let named = NewCall { identity: Identity::Named, ..call(3) };
    assert_eq!(world.call(3, named.clone()), ["submit#4 j0 cursor 1: 3/3"]);
    assert_eq!(world.call(4, named), [""; 0]);
    assert_eq!(world.answer(0, 3, "three"), ["tell 3 three", "tell 4 three", "commit 2"]);
}

#[test]
fn a_call_without_a_client_lingers_and_is_then_withdrawn_unless_it_is_kept() {
    let mut world = World::open();
    world.call(1, call(1));
    world.call(2, NewCall { keep: true, ..call(2) });
    world.handle(Input::Gone(Waiter(1)));
    world.handle(Input::Gone(Waiter(2)));
    assert_eq!(world.wait(Micros::from_secs(59)), [""; 0]);
    world.handle(Input::Gone(Waiter(1)));
    assert_eq!(world.wait(Micros::from_secs(1)), ["withdraw j0: 1", "tell 1 GivenUp"]);
    assert_eq!(world.answer(0, 1, "late"), ["commit 2"]);
    assert_eq!(world.answer(0, 2, "two"), ["tell 2 two", "commit 3"]);
}

#[test]
fn what_is_not_waited_for_is_told_when_it_is_on_disk_and_then_costs_nothing() {
    let mut world = World::open();
    let send = NewCall { is_async: true, keep: true, ..call(1) };
    assert_eq!(world.call(1, send), ["submit#2 j0 cursor 1: 1/1"]);
    assert_eq!(world.acknowledged(2), ["tell 1 accepted"]);
    for name in 2..6 {
        assert_eq!(world.call(u64::from(name), call(name)).len(), 1, "all room is there");
    }
    assert_eq!(world.answer(0, 1, "one"), ["commit 2"]);
}

#[test]
fn what_is_under_way_is_bounded_in_number_and_bytes() {
    let mut world = World::open();
    for name in 1..5 {
        world.call(u64::from(name), call(name));
    }
    assert_eq!(world.call(5, call(5)), ["tell 5 Full"]);
    world.answer(0, 1, "one");
    assert_eq!(world.call(6, NewCall { body: vec![0; 98].into(), ..call(6) }), ["tell 6 Full"]);
    assert_eq!(world.call(7, NewCall { body: vec![0; 97].into(), ..call(7) }).len(), 1);
}

#[test]
fn submissions_wait_for_the_routers_disk() {
    let limits = CallLimits { calls_max: 1_000, bytes_max: 10_000, ..limits() };
    let mut world = World { calls: Calls::new(limits, "app".into(), KeySecret(SECRET)), ..World::new() };
    world.call(0, call(0));
    world.opened(0);
    for name in 1..FLIGHT_MAX as u8 {
        assert_eq!(world.call(u64::from(name), call(name)).len(), 1);
    }
    assert_eq!(world.call(200, call(200)), [""; 0]);
    assert_eq!(world.call(201, call(201)), [""; 0]);
    assert_eq!(world.acknowledged(1), [format!("submit#{} j0 cursor 0: 200/200 201/201", FLIGHT_MAX + 1)]);
}

#[test]
fn a_lost_session_has_everything_submitted_again() {
    let mut world = World::open();
    world.call(1, call(1));
    world.acknowledged(2);
    world.call(2, call(2));
    assert_eq!(world.router(None, Event::Lost), ["open j0 http 0 0 r cursor 1"]);
    assert_eq!(world.opened(0), ["watch j0", "submit#4 j0 cursor 1: 1/1 2/2"]);
    assert_eq!(world.answer(0, 1, "one"), ["tell 1 one", "commit 2"]);
}

#[test]
fn what_the_router_refuses_is_told_and_what_it_forgot_is_opened_again() {
    let mut world = World::open();
    world.call(1, call(1));
    let busy = Refusal::Busy { retry_ms: 9 };
    let refused = |refusal: &Refusal| Event::RowsRefused { rows: vec![RowId([1; 16])], refusal: refusal.clone() };
    assert_eq!(world.router(Some(0), refused(&busy)), ["tell 1 Router(Busy { retry_ms: 9 })"]);

    world.call(1, call(1));
    assert_eq!(world.router(Some(0), refused(&Refusal::UnknownJob)), ["open j0 http 0 0 r cursor 1"]);
    assert_eq!(world.opened(0), ["watch j0", "submit#4 j0 cursor 1: 1/1"]);

    let opened = ["open j1 http 1 0 r cursor 0"];
    assert_eq!(world.router(Some(0), refused(&Refusal::Cancelled)), opened, "an operator cancelled the job");
    assert_eq!(world.opened(1), ["watch j1", "submit#5 j1 cursor 0: 1/1"]);
    assert_eq!(world.router(Some(1), Event::JobRefused(busy)), ["tell 1 Router(Busy { retry_ms: 9 })"]);
    assert_eq!(world.call(2, call(2)), ["open j0 http 0 0 r cursor 0"], "it begins anew");
}

#[test]
fn a_job_without_calls_may_leave_the_routers_books() {
    let mut world = World::open();
    assert_eq!(world.wait(IDLE), ["scanned j0"]);
    assert_eq!(world.wait(IDLE), [""; 0], "once");
    assert_eq!(world.call(1, call(1)), ["submit#2 j0 cursor 1: 1/1"]);
    assert_eq!(world.wait(IDLE), [""; 0], "it has one under way");
}

#[test]
fn jobs_are_bounded_and_one_without_calls_gives_way() {
    let limits = CallLimits { calls_max: 10_000, ..limits() };
    let mut world = World { calls: Calls::new(limits, "app".into(), KeySecret(SECRET)), ..World::new() };
    let of = |n: usize| {
        let job = JobKey { service: "s".into(), revision: n.to_string(), timeout_ms: 0 };
        let mut row = [0; 16];
        row[..8].copy_from_slice(&(n as u64).to_le_bytes());
        NewCall { job, body: Bytes::new(), row: RowId(row), ..call(0) }
    };
    for n in 0..JOBS_MAX {
        assert_eq!(world.call(n as u64, of(n)).len(), 1);
    }
    assert_eq!(world.call(9_999, of(9_999)), ["tell 9999 Full"], "all have calls");
    world.opened(7);
    let RowId(row) = of(7).row;
    let event = |number| {
        let key = KeyHasher::new(&KeySecret(SECRET), "app", "s", "7", b"").key(b"", 0);
        let outcome = Outcome::Ok("done".into());
        let row = DeliveredRow {
            number,
            row: RowId(row),
            key,
            outcome,
            attempts: 1,
            worker: "w".into(),
            ms: 3,
            cached: false,
        };
        Event::Delivered { ticket: Ticket(number), rows: vec![row] }
    };
    assert_eq!(world.router(Some(7), event(1)), ["tell 7 done", "commit 1"]);
    let opened = format!("open j{JOBS_MAX} http 0 0 9999 cursor 0");
    assert_eq!(world.call(9_999, of(9_999)), ["scanned j7".to_owned(), opened]);
}

#[test]
fn the_next_life_of_a_door_takes_up_what_the_last_one_left() {
    let world = World::open();
    let left = world.jobs[0];
    let mut next = World { jobs: vec![left], ..World::new() };
    next.calls.take_up(next.now, left, "http 0 0 r", "s");
    next.calls.take_up(next.now, left, "http 0 0 r", "s");
    next.calls.take_up(next.now, JobId([1; 16]), "http 0 0 x", "s");
    next.calls.take_up(next.now, left, "a file's name", "s");
    assert_eq!(next.wait(Micros(1)), ["open j0 http 0 0 r cursor 0"]);
    assert_eq!(next.call(1, call(1)), [""; 0], "the same job");
    assert_eq!(next.opened(0), ["watch j0", "submit#1 j0 cursor 0: 1/1"]);
    assert_eq!(next.answer(0, 0, "of the last life"), ["commit 1"]);
}
