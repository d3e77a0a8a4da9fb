//! A port against a plain session that says what a peer of its role might, and what it must not.

use bytes::Bytes;
use sheaf_session::{
    Body, Config, Delivery, Depth, Endpoint, How, Input, Kind, Lane, Micros, Outgoing, Output, Session, SessionId,
    Side, Step,
};
use sheaf_task::{
    Capacity, Fence, JobCounts, JobId, Key, KeySecret, Outcome, Registration, ResultItem, RowId, ToRouter, WorkerId,
    topic,
};

use super::lookup::LOOK_UP_KEYS_MAX;
use super::{
    ClientPort, ClientReport, Over, Principal, RouterPort, WorkerCommand, WorkerPort, WorkerReport, fit_config,
};
use crate::router::record::{Delivery as Numbered, Withdrawn};
use crate::router::{Generation, Inbound, JobNo, KeyedRow, Lsn, PeerId, Record};
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
                        self.peer.feed(NOW, Input::Bytes(bytes.into())).unwrap();
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
                        self.port.input(NOW, Input::Bytes(bytes.into())).unwrap();
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
    let told = |report: &ClientReport| matches!(report, ClientReport::Event { event: client::Event::Progress(c), .. } if *c == counts);
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
        let item = ResultItem {
            fence: fence(attempt),
            outcome: Outcome::Ok(Bytes::from_static(b"a")),
            ms: 1,
            tokens: sheaf_task::Tokens::default(),
        };
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

#[test]
fn the_rows_of_a_large_message_are_looked_up_slice_by_slice_and_each_by_its_own_key() {
    let session = Session::new(fit_config(Config::default(), Depth::Memory), Side::Listener, SessionId([7; 16]), 1);
    let port = RouterPort::new(session, SessionId([7; 16]), PeerId(1), KeySecret([1; 32]), Principal::Owner);
    let key = |n: usize| Key((n as u128).to_be_bytes());
    let row = |n| KeyedRow { row: RowId(key(n).0), key: key(n), sample: 0, body: Bytes::new(), prior: None };
    let rows: Vec<_> = (0..2 * LOOK_UP_KEYS_MAX + 1).map(row).collect();
    let mut inbound = Inbound::Submit { job: JobId([3; 16]), cursor: 0, rows, generation: Generation(0) };

    let known = key(LOOK_UP_KEYS_MAX + 3);
    let delivery = Numbered { job: JobNo(1), row: RowId(known.0), number: 1 };
    let withdrawn = Record::Withdrawn(Withdrawn { key: known, submitted: Lsn(1), body_len: 0, delivery });
    let mut slices = Vec::new();
    port.look_up(&mut inbound, Generation(5), |keys| {
        slices.push(keys.len());
        keys.iter().map(|key| if *key == known { vec![(Lsn(2), withdrawn.clone())] } else { Vec::new() }).collect()
    });

    assert_eq!(slices, [LOOK_UP_KEYS_MAX, LOOK_UP_KEYS_MAX, 1]);
    let Inbound::Submit { rows, generation, .. } = inbound else { panic!("it stays what it is") };
    assert_eq!(generation, Generation(5));
    let found: Vec<_> = rows.iter().filter(|row| row.prior.is_some()).map(|row| row.key).collect();
    assert_eq!(found, [known]);
}
