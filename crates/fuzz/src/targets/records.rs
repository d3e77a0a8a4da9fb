//! What lies in journals and logs behind a good checksum: `kind u8 | bytes`. A kind below 0x40 is a record of the router;
//! above it come records and receipts of a session. What decodes must come back the same, and replay takes any of it.

use std::path::Path;

use bytes::Bytes;
use sheaf_roles::router::Record as Fact;
use sheaf_session::{Config, Depth, Receipt, Record, Session, SessionId, Side, State};
use sheaf_task::{Class, Evidence, Failure, JobId, Key, Outcome, Upstream};

use crate::target::{Shape, Spec, Target, scale};

pub(crate) const SPEC: Spec = Spec {
    name: "records",
    share: 15,
    words: &[&[0x0a, 0x12, 0x09], &[0x11], &[0x08, 0x01], &[0x08, 0x04, 0x10, 0x01], &[0x18, 0x01], &[0xff; 10]],
    make: |_: &Path| Box::new(Records),
    examples,
};

/// Kinds from here on are the session's.
const SESSION: u8 = 0x40;
/// Records of a session's log in one input.
const LOG_MAX: usize = 32;

struct Records;

impl Target for Records {
    fn run(&mut self, input: &[u8]) -> Result<Shape, String> {
        let Some((kind, bytes)) = input.split_first() else { return Ok(Shape::default()) };
        let bytes = Bytes::copy_from_slice(bytes);
        if *kind < SESSION { fact(*kind, bytes) } else { log(bytes) }
    }
}

fn fact(kind: u8, bytes: Bytes) -> Result<Shape, String> {
    match Fact::decode(kind, bytes) {
        Err(error) => Ok(Shape::of((kind, error.to_string().len()))),
        Ok(fact) => {
            let mut encoded = Vec::new();
            fact.encode_into(&mut encoded);
            match Fact::decode(fact.kind(), Bytes::from(encoded)) {
                Ok(again) if again == fact => Ok(Shape::of((kind, format!("{fact:?}").len() / 8))),
                Ok(again) => Err(format!("does not come back the same: {fact:?} as {again:?}")),
                Err(error) => Err(format!("does not come back: {fact:?}: {error}")),
            }
        }
    }
}

/// A session's log: records with a byte of length before each. A log, replayed, is a state that a session starts from,
/// and whose own records rebuild it.
fn log(mut bytes: Bytes) -> Result<Shape, String> {
    let mut state = State::new(SessionId([1; 16]));
    let mut shape = Vec::new();
    for _ in 0..LOG_MAX {
        let Some(len) = bytes.first().map(|len| usize::from(*len)) else { break };
        bytes = bytes.slice(1..);
        let part = bytes.split_to(len.min(bytes.len()));
        if let Some(receipt) = Receipt::from_bytes(&part) {
            if Receipt::from_bytes(&receipt.to_bytes()) != Some(receipt) {
                return Err(format!("a receipt does not come back: {receipt:?}"));
            }
            state.received(receipt);
            shape.push(0);
        } else if let Ok(record) = Record::from_bytes(part) {
            if Record::from_bytes(record.to_bytes()).as_ref() != Ok(&record) {
                return Err(format!("a record does not come back: {record:?}"));
            }
            shape.push(1 + format!("{record:?}").bytes().nth(12).unwrap_or(0));
            state.apply(record);
        } else {
            shape.push(1);
        }
    }
    shape.push(scale(state.snapshot().len()) as u8);
    let mut rebuilt = State::new(SessionId([1; 16]));
    state.snapshot().into_iter().for_each(|record| rebuilt.apply(record));
    let (snapshot, again) = (state.snapshot(), rebuilt.snapshot());
    if snapshot != again {
        return Err(format!("a snapshot does not rebuild: {snapshot:?} as {again:?}"));
    }
    let config = Config { depth_tx: [Depth::Disk; 2], ..Config::default() };
    drop(Session::recover(config, Side::Dialer, 1, state));
    Ok(Shape::of(shape))
}

fn examples() -> Vec<(String, Vec<u8>)> {
    let mut examples = Vec::new();
    // The kinds of record share a few layouts: a job, a row, a delivery, a worker, a session's receipt.
    let id = [0x0a, 0x12, 0x09, 1, 2, 3, 4, 5, 6, 7, 8, 0x11, 8, 7, 6, 5, 4, 3, 2, 1];
    let numbers = [0x10, 0x01, 0x18, 0x02, 0x20, 0x03, 0x28, 0x04, 0x30, 0x05];
    for kind in 1..=17_u8 {
        if Fact::decode(kind, Bytes::new()).is_ok() {
            examples.push((format!("empty-{kind:02}"), vec![kind]));
        }
        for (name, parts) in [("id", &[&id[..], &numbers][..]), ("numbers", &[&[0x08, 0x01], &numbers[..]])] {
            let bytes = parts.concat();
            if Fact::decode(kind, Bytes::from(bytes.clone())).is_ok() {
                examples.push((format!("{name}-{kind:02}"), [&[kind], &bytes[..]].concat()));
            }
        }
    }
    let opened = sheaf_roles::router::record::Opened {
        no: sheaf_roles::router::JobNo(1),
        job: JobId([9; 16]),
        name: "job".into(),
        service: "s".into(),
        revision: "r".into(),
        nonce: Bytes::from_static(b"n"),
        options: sheaf_task::JobOptions::default(),
        app: "a".into(),
    };
    let mut bytes = vec![1];
    Fact::Opened(Box::new(opened)).encode_into(&mut bytes);
    examples.push(("opened".to_owned(), bytes));
    for (name, upstream) in [("failed", None), ("failed-upstream", Some(Box::new(said())))] {
        let evidence = Evidence { exit_code: Some(4), upstream, ..Evidence::default() };
        let failure = Failure { class: Class::Rejected, message: "no".into(), evidence: Box::new(evidence) };
        let mut bytes = Vec::new();
        let fact = finished(failure);
        bytes.push(fact.kind());
        fact.encode_into(&mut bytes);
        examples.push((name.to_owned(), bytes));
    }
    examples.push(("log".to_owned(), session_log()));
    examples
}

fn said() -> Upstream {
    Upstream { status: 422, message: "too long".into(), code: "c".into(), ..Upstream::default() }
}

fn finished(failure: Failure) -> Fact {
    Fact::Finished(sheaf_roles::router::record::Finished {
        key: Key([3; 16]),
        submitted: sheaf_roles::router::Lsn(2),
        body_len: 3,
        attempts: 1,
        worker: "w".into(),
        ms: 4,
        outcome: Outcome::Failed(failure),
        deliveries: Default::default(),
    })
}

/// What a session of depth DISK logs when it says something and takes some of it back.
fn session_log() -> Vec<u8> {
    let config = Config { depth_tx: [Depth::Disk; 2], ..Config::default() };
    let mut session = Session::new(config, Side::Dialer, SessionId([1; 16]), 7);
    let now = sheaf_session::Micros::ZERO;
    for lane in sheaf_session::Lane::ALL {
        let body = sheaf_session::Body::Inline(Bytes::from_static(b"body"));
        let message =
            sheaf_session::Outgoing { lane, kind: sheaf_session::Kind::Data, app: 1, of: None, body: body.clone() };
        if let Ok(id) = session.send(now, message) {
            session.cancel(now, id);
        }
    }
    let mut bytes = vec![SESSION];
    while let sheaf_session::Output::Persist(_, record) = session.take(now) {
        let record = record.to_bytes();
        bytes.push(record.len() as u8);
        bytes.extend_from_slice(&record);
    }
    let place = sheaf_session::Place { lane: sheaf_session::Lane::Bulk, epoch: 65_536, seq: 3 };
    bytes.push(64);
    bytes.extend_from_slice(&Receipt { place, life: 5, chain: 6 }.to_bytes());
    bytes
}
