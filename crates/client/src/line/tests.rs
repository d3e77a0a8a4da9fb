//! A whole job over TCP: the real driver, line, session and link, and on the other side a router of forty lines that
//! answers every row at once.

use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex};

use sheaf_net::{Arrival, Clock, Incoming, Link, Listener, Source};
use sheaf_roles::client::Reason;
use sheaf_roles::port::fit_config;
use sheaf_session::{
    Config, Delivery, Depth, Endpoint, Fatal, HelloInfo, Input, Kind, Lane, Micros, Outgoing, Output,
    Refusal as SessionRefusal, Session, Side, Step, {Body, Event as SessionEvent},
};
use sheaf_task::{DeliveredRow, JobCounts, JobId, JobOptions, Key, Outcome, Refusal, RouterId, ToClient};
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;

use super::*;
use crate::audit::Summary;
use crate::config::{Interrupt, JobConfig, prepare};
use crate::driver::{RunError, run_job};
use crate::progress::Progress;
use crate::sink::SinkSpec;
use crate::source::SourceSpec;

/// What the router has on disk: results by number, from 1.
type Journal = Arc<Mutex<Vec<DeliveredRow>>>;

struct EchoRouter {
    session: Session,
    journal: Journal,
    /// Ends the session after so many more messages of rows.
    ends_after: Option<u32>,
    ended: bool,
    opened: bool,
    /// How it refuses whoever dials.
    refuses: Option<SessionRefusal>,
}

impl EchoRouter {
    fn say(&mut self, now: Micros, lane: Lane, message: &ToClient) {
        let body = Body::Inline(message.encode());
        self.session.send(now, Outgoing { lane, kind: Kind::Data, app: 0, of: None, body }).unwrap();
    }

    fn hear(&mut self, now: Micros, delivery: Delivery) {
        if self.ends_after == Some(0) {
            return;
        }
        match ToRouter::decode(delivery.body).unwrap() {
            ToRouter::OpenJob(spec) => {
                let journal = self.journal.lock().unwrap().clone();
                let counts = JobCounts { last_number: journal.len() as u64, ..JobCounts::default() };
                let router = RouterId([1; 16]);
                let opened = ToClient::JobOpened { job: spec.job, router, cursor: spec.cursor, counts };
                self.say(now, Lane::Urgent, &opened);
                let again = if self.opened { journal.len() } else { spec.cursor as usize };
                self.opened = true;
                for rows in journal[again..].chunks(500) {
                    self.say(now, Lane::Bulk, &ToClient::Deliver { job: spec.job, rows: rows.to_vec() });
                }
            }
            ToRouter::Submit { job, rows, .. } if !self.opened => {
                let rows = rows.into_iter().map(|row| row.row).collect();
                let refusal = Refusal::UnknownJob;
                self.say(now, Lane::Urgent, &ToClient::Refused { job, rows, refusal });
            }
            ToRouter::Submit { job, rows, .. } => {
                self.answer(now, job, rows);
                if let Some(left) = &mut self.ends_after {
                    *left -= 1;
                    if *left == 0 {
                        self.session.close(now, How::Now);
                        return;
                    }
                }
            }
            other => assert!(matches!(other, ToRouter::Scanned { .. })),
        }
        self.session.commit(now, delivery.place);
    }

    fn answer(&mut self, now: Micros, job: JobId, rows: Vec<sheaf_task::SubmitRow>) {
        let mut journal = self.journal.lock().unwrap().clone();
        let before = journal.len();
        for row in rows {
            if journal.iter().any(|known| known.row == row.row) {
                continue;
            }
            journal.push(DeliveredRow {
                number: journal.len() as u64 + 1,
                row: row.row,
                key: Key([1; 16]),
                outcome: Outcome::Ok(row.body),
                attempts: 1,
                worker: "".into(),
                ms: 0,
                cached: false,
            });
        }
        let rows = journal[before..].to_vec();
        *self.journal.lock().unwrap() = journal;
        if !rows.is_empty() {
            self.say(now, Lane::Bulk, &ToClient::Deliver { job, rows });
        }
    }
}

impl Endpoint for EchoRouter {
    type Command = ();
    type Report = ();

    fn admit(&self, _: &HelloInfo) -> Result<(), SessionRefusal> {
        self.refuses.map_or(Ok(()), Err)
    }

    fn input(&mut self, now: Micros, input: Input) -> Result<(), Fatal> {
        self.session.feed(now, input)
    }

    fn missing_bytes(&self) -> usize {
        self.session.missing_bytes()
    }

    fn command(&mut self, _: Micros, (): ()) {}

    fn poll(&mut self, now: Micros) -> Step<()> {
        loop {
            match self.session.take(now) {
                Output::Transmit(bytes) => return Step::Transmit(bytes),
                Output::Close(reason) => return Step::Close(reason),
                Output::Deliver(delivery) => self.hear(now, delivery),
                Output::Event(SessionEvent::Ended) => self.ended = true,
                Output::Event(_) => {}
                Output::Wait(_) if self.ended => return Step::Done,
                Output::Wait(wake) => return Step::Wait(wake),
                other => panic!("{other:?}"),
            }
        }
    }
}

/// Serves every session that arrives. The first ends after so many messages of rows, where that is said.
async fn serve(listener: Listener, mut ends_after: Option<u32>, refuses: Option<SessionRefusal>) {
    let journal = Journal::default();
    let (arrivals_in, mut arrivals) = mpsc::channel(4);
    let serving = tokio::spawn(listener.serve(arrivals_in));
    let mut sessions: std::collections::BTreeMap<[u8; 16], mpsc::Sender<Incoming>> = Default::default();
    let mut held = Vec::new();
    while let Some(Arrival { session: id, incoming, origin: _ }) = arrivals.recv().await {
        // A session that is over here and not there is begun anew, as after a restart of the router.
        sessions.retain(|_, door| !door.is_closed());
        let door = sessions.entry(id.0).or_insert_with(|| {
            let config = fit_config(Config::default(), Depth::Memory);
            let session = Session::new(config, Side::Listener, id, 7);
            let (door, connections) = mpsc::channel(1);
            let (commands, taken) = mpsc::channel(1);
            let (says, mut reports) = mpsc::channel(1);
            let endpoint = EchoRouter {
                session,
                journal: journal.clone(),
                ends_after: ends_after.take(),
                ended: false,
                opened: false,
                refuses,
            };
            tokio::spawn(Link::new(endpoint, Clock::start(), Source::Accept(connections), taken, says).run());
            tokio::spawn(async move { while reports.recv().await.is_some() {} });
            held.push(commands);
            door
        });
        drop(door.send(incoming).await);
    }
    serving.abort();
}

fn job(dir: &Path, lines: &[String]) -> JobConfig {
    fs::write(dir.join("rows.txt"), lines.join("\n")).unwrap();
    JobConfig {
        name: "tcp".into(),
        source: SourceSpec::new(dir.join("rows.txt")),
        sink: SinkSpec { ordered: true, ..SinkSpec::new(dir.join("o.csv")) },
        service: "echo".into(),
        revision: "1".into(),
        prompt: None,
        fresh: false,
        share: false,
        limit: None,
        max_failures: None,
        options: JobOptions::default(),
    }
}

async fn run(config: JobConfig, target: Target, faults: Option<Faults>) -> Result<Summary, RunError> {
    let prepared = prepare(config, &Interrupt::default()).unwrap();
    let line = SessionLine::open(target, faults).unwrap();
    let run = run_job(prepared, line, Interrupt::default(), watch::Sender::new(Progress::default()));
    timeout(Duration::from_secs(60), run).await.unwrap()
}

async fn job_over_tcp(faults: Option<Faults>, ends_after: Option<u32>, rows: usize) {
    let dir = tempfile::tempdir().unwrap();
    let lines: Vec<String> = (0..rows).map(|n| format!("row {n}")).collect();
    let listener = Listener::bind(Some("127.0.0.1:0")).await.unwrap();
    let target = Target::Tcp(listener.addr().unwrap());
    let router = tokio::spawn(serve(listener, ends_after, None));
    let summary = run(job(dir.path(), &lines), target, faults).await.unwrap();
    assert_eq!(summary.ended.reason, Reason::Complete, "{summary}");
    let mut reader = csv::Reader::from_path(dir.path().join("o.csv")).unwrap();
    let answers: Vec<String> = reader.records().map(|record| record.unwrap()[3].to_owned()).collect();
    assert_eq!(answers, lines);
    router.abort();
}

#[tokio::test]
async fn a_job_over_tcp() {
    job_over_tcp(None, None, 5_000).await;
}

#[tokio::test]
async fn a_job_over_a_line_that_loses_and_repeats() {
    let faults = Faults { drop: 0.1, dup: 0.05, reorder: 0.1, seed: 3, ..Faults::default() };
    job_over_tcp(Some(faults), None, 3_000).await;
}

#[tokio::test]
async fn a_session_that_ends_is_followed_by_another() {
    job_over_tcp(None, Some(3), 5_000).await;
}

#[tokio::test]
async fn a_refusal_for_good_ends_the_run() {
    for refusal in [SessionRefusal::Version, SessionRefusal::Auth] {
        let dir = tempfile::tempdir().unwrap();
        let listener = Listener::bind(Some("127.0.0.1:0")).await.unwrap();
        let addr = listener.addr().unwrap();
        let router = tokio::spawn(serve(listener, None, Some(refusal)));
        let ended = run(job(dir.path(), &["row".to_owned()]), Target::Tcp(addr), None).await;
        let Err(RunError::Line(error)) = ended else { panic!("{ended:?}") };
        assert_eq!(error, LineError { place: addr.to_string(), over: Over::Refused(refusal) });
        router.abort();
    }
}

#[tokio::test]
async fn sessions_that_end_are_followed_ever_more_slowly_until_something_comes_of_one() {
    let target = Target::Tcp("127.0.0.1:1".parse().unwrap());
    let mut line = SessionLine::open(target, None).unwrap();
    line.backoff = Backoff::new(3);
    let pause = |line: &mut SessionLine| {
        let now = Instant::now();
        line.take(vec![ClientReport::Over(Over::Ended)]).unwrap();
        line.again_at.duration_since(now)
    };
    let pauses: Vec<Duration> = (0..40).map(|_| pause(&mut line)).collect();
    let (moment, most) = (Duration::from_millis(500), Duration::from_millis(10_500));
    assert!(pauses[..2].iter().all(|pause| *pause <= moment), "{pauses:?}");
    assert!(pauses.iter().all(|pause| *pause <= most), "{pauses:?}");
    assert!(pauses[10..].iter().sum::<Duration>() > Duration::from_secs(60), "{pauses:?}");
    line.take(vec![ClientReport::Event { job: None, event: Event::Acknowledged(Tag(1)) }]).unwrap();
    assert!(pause(&mut line) <= moment, "something came of it");
}
