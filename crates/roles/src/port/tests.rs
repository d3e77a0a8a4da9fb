//! A port against a plain session that says what a peer of its role might, and what it must not.

use bytes::Bytes;
use sheaf_session::{
    Body, Config, Delivery, Depth, Endpoint, How, Input, Kind, Lane, Micros, Outgoing, Output, Session, SessionId,
    Side, Step,
};
use sheaf_task::{Capacity, Fence, JobCounts, Key, Outcome, Registration, ResultItem, ToRouter, WorkerId, topic};

use super::{ClientPort, ClientReport, Over, WorkerCommand, WorkerPort, WorkerReport, fit_config};
use crate::{client, worker};

const NOW: Micros = Micros::from_ms(1);

/// A port that dials, and the session that it talks to.
struct Pair<P: Endpoint> {
    port: P,
    peer: Session,
    reports: Vec<P::Report>,
    delivered: Vec<Delivery>,
}

impl<P: Endpoint> Pair<P> {
    fn new(port: impl FnOnce(Session) -> P) -> Self {
        let session = |side| Session::new(fit_config(Config::default(), Depth::Memory), side, SessionId([7; 16]), 1);
        let mut pair = Self {
            port: port(session(Side::Dialer)),
            peer: session(Side::Listener),
            reports: Vec::new(),
            delivered: Vec::new(),
        };
        pair.port.input(NOW, Input::Connected { conn: 1 }).unwrap();
        pair.peer.feed(NOW, Input::Connected { conn: 1 }).unwrap();
        pair.talk();
        pair
    }

    /// Until neither has more to say.
    fn talk(&mut self) {
        for _ in 0..20 {
            let mut quiet = true;
            loop {
                match self.port.poll(NOW) {
                    Step::Transmit(bytes) => {
                        quiet = false;
                        self.peer.feed(NOW, Input::Bytes(bytes)).unwrap();
                    }
                    Step::Report(report) => self.reports.push(report),
                    Step::Close(_) => {}
                    Step::Wait(_) | Step::Done => break,
                }
            }
            loop {
                match self.peer.take(NOW) {
                    Output::Transmit(bytes) => {
                        quiet = false;
                        self.port.input(NOW, Input::Bytes(bytes)).unwrap();
                    }
                    Output::Deliver(delivery) => self.delivered.push(delivery),
                    Output::Wait(_) => break,
                    Output::Event(_) | Output::Persist(..) | Output::Need(_) | Output::Close(_) => {}
                }
            }
            if quiet {
                return;
            }
        }
        panic!("they never come to rest");
    }

    fn commit_all(&mut self) {
        for delivery in self.delivered.drain(..) {
            self.peer.commit(NOW, delivery.place);
        }
        self.peer.flush(NOW);
        self.talk();
    }
}

#[test]
fn progress_reaches_the_client_and_garbage_ends_its_session() {
    let mut pair = Pair::new(ClientPort::new);
    let counts = JobCounts { submitted: 5, ok: 3, ..JobCounts::default() };
    pair.peer.signal(NOW, topic::PROGRESS, counts.encode());
    pair.talk();
    let told =
        |report: &ClientReport| matches!(report, ClientReport::Event(client::Event::Progress(c)) if *c == counts);
    assert!(pair.reports.iter().any(told), "{:?}", pair.reports);
    pair.peer.signal(NOW, topic::PROGRESS, Bytes::from_static(&[0xff; 9]));
    pair.talk();
    assert!(matches!(pair.reports.last(), Some(ClientReport::Over(Over::Malformed))), "{:?}", pair.reports);
    assert!(pair.peer.status().ended, "the peer learns of it");
}

#[test]
fn what_is_no_message_ends_the_session_and_is_not_committed() {
    let mut pair = Pair::new(ClientPort::new);
    let body = Body::Inline(Bytes::from_static(&[0xff; 9]));
    pair.peer.send(NOW, Outgoing { lane: Lane::Bulk, kind: Kind::Data, app: 0, of: None, body }).unwrap();
    pair.talk();
    assert!(matches!(pair.reports.last(), Some(ClientReport::Over(Over::Malformed))), "{:?}", pair.reports);
}

#[test]
fn a_worker_learns_that_the_router_has_its_results_in_their_order() {
    let mut pair = Pair::new(WorkerPort::new);
    let registration = Registration {
        worker: WorkerId([9; 16]),
        incarnation: 1,
        name: "w".into(),
        services: vec!["s".into()],
        capacity: Capacity { batch: 1, depth: 0, bytes: 0 },
        holding: Vec::new(),
        died_with: Vec::new(),
    };
    pair.port.command(NOW, WorkerCommand::Send(ToRouter::Register(registration)));
    let fence = |attempt| Fence { key: Key([1; 16]), epoch: 1, attempt };
    for attempt in 1..=3 {
        let item = ResultItem { fence: fence(attempt), outcome: Outcome::Ok(Bytes::from_static(b"a")), ms: 1 };
        pair.port.command(NOW, WorkerCommand::Send(ToRouter::Results(vec![item])));
    }
    pair.talk();
    let known = |pair: &Pair<WorkerPort>| -> Vec<u32> {
        let fences = pair.reports.iter().flat_map(|report| match report {
            WorkerReport::Event(worker::Event::Acknowledged(fences)) => fences.clone(),
            _ => Vec::new(),
        });
        fences.map(|fence| fence.attempt).collect()
    };
    assert_eq!(known(&pair), []);
    assert_eq!(pair.port.unacknowledged().len(), 3);
    let last = pair.delivered.iter().rposition(|delivery| delivery.place.lane == Lane::Bulk).unwrap();
    let last = pair.delivered.remove(last);
    pair.commit_all();
    assert_eq!(known(&pair), [1, 2]);
    pair.delivered.push(last);
    pair.commit_all();
    assert_eq!(known(&pair), [1, 2, 3]);
    pair.port.command(NOW, WorkerCommand::Close(How::Now));
    pair.talk();
    assert!(pair.peer.status().ended);
}
