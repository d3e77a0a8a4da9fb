//! One behaviour a test: events in, the outputs in short words out.

use bytes::Bytes;
use sheaf_session::Micros;
use sheaf_task::{
    Assignment, BODY_BYTES_MAX, Capacity, Class, Failure, Fence, Key, Outcome, Refusal, ResultItem, RouterId, ToRouter,
    Tokens, WorkerId,
};

use super::{Config, Event, Output, Worker};

fn fence(n: u32) -> Fence {
    Fence { key: Key([n as u8; 16]), epoch: 1, attempt: n }
}

fn fences(of: &[u32]) -> Vec<Fence> {
    of.iter().map(|n| fence(*n)).collect()
}

fn config(batch: u32, depth: u32) -> Config {
    Config {
        worker: WorkerId([9; 16]),
        incarnation: 1,
        name: "w".into(),
        services: vec!["s".into()],
        capacity: Capacity { batch, depth, bytes: 0 },
        died_with: Vec::new(),
        spooled: Vec::new(),
    }
}

fn list(of: &[Fence]) -> String {
    of.iter().map(|fence| fence.attempt.to_string()).collect::<Vec<_>>().join(",")
}

fn word(output: Output) -> String {
    match output {
        Output::Start(starts) => format!("start {}", list(&starts.iter().map(|one| one.fence).collect::<Vec<_>>())),
        Output::Kill(fence) => format!("kill {}", fence.attempt),
        Output::Send(ToRouter::Register(said)) => {
            let Capacity { batch, depth, .. } = said.capacity;
            format!("register {batch}+{depth} holding {} died {}", list(&said.holding), list(&said.died_with))
        }
        Output::Send(ToRouter::Results(items)) => {
            let one = |item: &ResultItem| match &item.outcome {
                Outcome::Ok(_) => format!("{} ok", item.fence.attempt),
                Outcome::Failed(failure) => format!("{} {}", item.fence.attempt, failure.class.name()),
            };
            format!("results {}", items.iter().map(one).collect::<Vec<_>>().join(","))
        }
        Output::Send(ToRouter::Recalled(fences)) => format!("recalled {}", list(&fences)),
        Output::Send(ToRouter::Leave) => "leave".into(),
        Output::Send(other) => format!("{other:?}"),
        Output::Announce(capacity) => format!("announce {}+{}", capacity.batch, capacity.depth),
        Output::DeathsReported => "deaths reported".into(),
        Output::Refused(_) => "refused".into(),
        Output::Done => "done".into(),
    }
}

struct Play {
    worker: Worker,
    now: Micros,
}

impl Play {
    fn new(config: Config) -> Self {
        Self { worker: Worker::new(config), now: Micros::ZERO }
    }

    fn feed(&mut self, events: impl IntoIterator<Item = Event>) -> String {
        events.into_iter().for_each(|event| self.worker.handle(self.now, event));
        let mut words = Vec::new();
        while let Some(output) = self.worker.poll() {
            words.push(word(output));
        }
        words.join("; ")
    }

    #[track_caller]
    fn check(&mut self, events: impl IntoIterator<Item = Event>, want: &str) {
        assert_eq!(self.feed(events), want);
    }
}

fn assigned(of: &[u32]) -> Event {
    let one = |n: &u32| Assignment {
        fence: fence(*n),
        service: "s".into(),
        timeout_ms: 0,
        alone: *n >= 100,
        body: Bytes::from_static(b"b"),
    };
    Event::Assigned(of.iter().map(one).collect())
}

fn ok(n: u32) -> Event {
    Event::Finished {
        fence: fence(n),
        outcome: Outcome::Ok(Bytes::from_static(b"a")),
        ms: 1,
        tokens: Tokens::default(),
    }
}

fn killed(n: u32) -> Event {
    Event::Finished {
        fence: fence(n),
        outcome: Outcome::Failed(Failure::new(Class::Cancelled, "killed")),
        ms: 1,
        tokens: Tokens::default(),
    }
}

fn registered(drop: &[u32]) -> Event {
    Event::Registered { incarnation: 1, router: RouterId([1; 16]), keep: Vec::new(), drop: fences(drop) }
}

#[test]
fn as_many_execute_as_the_batch_says_and_results_leave_together() {
    let mut play = Play::new(config(2, 3));
    play.check([Event::Up], "register 2+3 holding  died ");
    play.check([assigned(&[1, 2, 3, 4, 5])], "start 1,2");
    play.check([ok(2), ok(1)], "start 3,4; results 2 ok,1 ok");
    play.check([Event::CapacityChanged(Capacity { batch: 3, depth: 0, bytes: 0 })], "announce 3+0; start 5");
}

#[test]
fn what_is_assigned_again_does_not_start_again() {
    let mut play = Play::new(config(2, 3));
    play.check([assigned(&[1, 2, 3])], "start 1,2");
    play.check([assigned(&[1, 3])], "");
    play.check([ok(1)], "start 3; results 1 ok");
    play.check([assigned(&[1])], "");
    play.check([Event::Acknowledged(fences(&[1])), assigned(&[1])], "");
    play.check([Event::Up], "register 2+3 holding 2,3 died ");
}

#[test]
fn a_result_on_its_way_is_still_held() {
    let mut play = Play::new(Config { spooled: fences(&[7]), died_with: fences(&[8]), ..config(1, 1) });
    play.check([Event::Up], "register 1+1 holding 7 died 8");
    play.check([Event::Down, Event::Up], "register 1+1 holding 7 died 8");
    play.check([registered(&[])], "deaths reported");
    play.check([assigned(&[7, 8])], "");
    play.check([Event::Acknowledged(fences(&[7])), Event::Up], "register 1+1 holding  died ");
}

#[test]
fn only_what_has_not_started_is_given_back() {
    let mut play = Play::new(config(1, 3));
    play.check([assigned(&[1, 2, 3])], "start 1");
    play.check([Event::Recall(fences(&[1, 3, 9]))], "recalled 3");
    play.check([assigned(&[3]), ok(1)], "start 2; results 1 ok");
}

#[test]
fn a_cancelled_attempt_ends_once_wherever_it_was() {
    let mut play = Play::new(config(1, 3));
    play.check([assigned(&[1, 2])], "start 1");
    play.check([Event::Cancel(fences(&[1, 2, 3]))], "kill 1; recalled 2");
    play.check([Event::Cancel(fences(&[1]))], "");
    play.check([killed(1)], "results 1 cancelled");
    play.check([assigned(&[3])], "recalled 3");
}

#[test]
fn a_dropped_attempt_is_silent_but_for_an_answer() {
    let mut play = Play::new(config(2, 3));
    play.check([assigned(&[1, 2, 3])], "start 1,2");
    play.check([registered(&[1, 2, 3])], "kill 1; kill 2");
    play.check([killed(1)], "");
    play.check([ok(2)], "results 2 ok");
    play.check([Event::Up], "register 2+3 holding 2 died ");
}

#[test]
fn a_suspect_executes_alone() {
    let mut play = Play::new(config(3, 3));
    play.check([assigned(&[1, 100, 2, 3])], "start 1");
    play.check([ok(1)], "start 100; results 1 ok");
    play.check([ok(100)], "start 2,3; results 100 ok");
}

#[test]
fn stopping_gives_back_finishes_and_leaves_when_all_is_acknowledged() {
    let mut play = Play::new(config(1, 3));
    play.check([assigned(&[1, 2])], "start 1");
    play.check([Event::Stop], "announce 0+0; recalled 2");
    play.check([assigned(&[3])], "recalled 3");
    play.check([ok(1)], "results 1 ok");
    play.check([Event::Up], "register 0+0 holding 1 died ");
    play.check([Event::Acknowledged(fences(&[1]))], "leave; done");
}

#[test]
fn an_answer_that_is_too_long_is_a_failure_that_says_so() {
    let mut play = Play::new(config(1, 0));
    play.check([assigned(&[1])], "start 1");
    let outcome = Outcome::Ok(Bytes::from(vec![0; BODY_BYTES_MAX + 1]));
    play.check([Event::Finished { fence: fence(1), outcome, ms: 1, tokens: Tokens::default() }], "results 1 rejected");
}

#[test]
fn long_results_go_in_several_messages() {
    let mut play = Play::new(config(4, 0));
    play.check([assigned(&[1, 2, 3, 4])], "start 1,2,3,4");
    let long = |n| Event::Finished {
        fence: fence(n),
        outcome: Outcome::Ok(Bytes::from(vec![0; 100 << 10])),
        ms: 1,
        tokens: Tokens::default(),
    };
    play.check([long(1), ok(2), long(3), ok(4)], "results 1 ok,2 ok; results 3 ok,4 ok");
}

#[test]
fn a_busy_router_is_asked_again() {
    let mut play = Play::new(config(1, 1));
    play.check([Event::Up], "register 1+1 holding  died ");
    play.check([Event::Refused(Refusal::Busy { retry_ms: 500 })], "");
    assert_eq!(play.worker.deadline(), Some(Micros::from_ms(500)));
    play.now = Micros::from_ms(500);
    play.check([Event::Tick], "register 1+1 holding  died ");
    play.check([Event::Refused(Refusal::OtherJob)], "refused");
    play.now = Micros::from_secs(11);
    play.check([Event::Tick], "announce 1+1");
}

#[test]
fn a_refusal_of_an_earlier_life_is_passed_over() {
    let mut play = Play::new(config(2, 3));
    play.check([Event::Up], "register 2+3 holding  died ");
    play.check([Event::Refused(Refusal::Superseded { incarnation: 1 })], "");
    play.check([Event::Refused(Refusal::Superseded { incarnation: 2 })], "refused");
}

#[test]
fn it_tells_how_many_execute_and_how_many_wait() {
    let mut play = Play::new(config(2, 3));
    play.check([Event::Up, assigned(&[1, 2, 3])], "register 2+3 holding  died ; start 1,2");
    assert_eq!((play.worker.executing(), play.worker.waiting()), (2, 1));
}
