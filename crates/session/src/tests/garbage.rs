//! Bytes from nowhere: `feed`, `peek_hello` and the record decoder take any of them without panic, whatever the state.

use bytes::{Bytes, BytesMut};

use crate::wire::{AckW, FactsW, Greeting, MsgW, OpenW, Packet, PlaceW, WhereW};
use crate::{
    Body, Config, Depth, Faults, Input, Kind, Lane, Micros, Outgoing, Output, Receipt, Record, Rng, Session, SessionId,
    Side, peek_hello,
};

fn session(side: Side, seed: u64) -> Session {
    let depth = if seed.is_multiple_of(2) { Depth::Disk } else { Depth::Memory };
    let faults = seed.is_multiple_of(3).then_some(Faults { dup: 0.2, reorder: 0.2, seed, ..Faults::default() });
    let config = Config { depth_tx: [depth; 2], packet_max: 64 << 10, faults, ..Config::default() };
    let mut session = Session::new(config, side, SessionId([1; 16]), seed);
    for lane in [Lane::Urgent, Lane::Bulk, Lane::Bulk] {
        let body = Body::Inline(Bytes::from_static(b"something to say"));
        session.send(Micros::ZERO, Outgoing { lane, kind: Kind::Data, app: 1, of: None, body }).unwrap();
    }
    session.feed(Micros::ZERO, Input::Connected { conn: 1 }).unwrap();
    session
}

/// Takes everything; gives what was transmitted. Commits and persists at once.
fn drain(session: &mut Session, now: Micros) -> BytesMut {
    let mut sent = BytesMut::new();
    loop {
        match session.take(now) {
            Output::Wait(_) => return sent,
            Output::Transmit(bytes) => sent.extend_from_slice(&bytes),
            Output::Persist(ticket, _) => session.feed(now, Input::Persisted(ticket)).unwrap(),
            Output::Deliver(delivery) => session.commit(now, delivery.place),
            Output::Need(_) | Output::Event(_) | Output::Close(_) => {}
        }
    }
}

fn feed_all(session: &mut Session, bytes: &[u8], rng: &mut Rng) {
    let mut rest = BytesMut::from(bytes);
    let mut now = Micros::ZERO;
    while !rest.is_empty() {
        let chunk = rest.split_to(1 + rng.below(rest.len() as u64) as usize);
        now = now + Micros(rng.below(200_000));
        // Behind the last one in one block, or by itself.
        let chunk = if rng.below(3) == 0 { BytesMut::from(&chunk[..]) } else { chunk };
        if session.feed(now, Input::Bytes(chunk)).is_err() {
            session.feed(now, Input::Connected { conn: 1 }).unwrap();
        }
        drain(session, now);
    }
}

#[test]
fn random_bytes() {
    let mut rng = Rng::new(1);
    for seed in 0..1_000 {
        let bytes: Vec<u8> = (0..rng.below(200)).map(|_| rng.next_u64() as u8).collect();
        drop(peek_hello(&bytes));
        drop(Record::from_bytes(Bytes::copy_from_slice(&bytes)));
        assert!(bytes.len() == 64 || Receipt::from_bytes(&bytes).is_none());
        feed_all(&mut session(if seed % 4 < 2 { Side::Dialer } else { Side::Listener }, seed), &bytes, &mut rng);
    }
}

#[test]
fn flipped_bits_in_a_valid_stream_are_seen() {
    let mut rng = Rng::new(2);
    for seed in 0..600 {
        let (mut dialer, mut listener) = (session(Side::Dialer, 7), session(Side::Listener, seed * 6 + 1));
        let mut stream = drain(&mut dialer, Micros::ZERO);
        let flip = rng.below(stream.len() as u64 * 8) as usize;
        stream[flip / 8] ^= 1u8 << (flip % 8);
        feed_all(&mut listener, &stream, &mut rng);
        assert!(!listener.status().up, "a damaged greeting was believed");
    }
}

/// Well-formed packets with absurd content, past the checksum.
#[test]
fn absurd_packets() {
    let mut rng = Rng::new(3);
    for seed in 0..1_500 {
        let side = if seed % 4 < 2 { Side::Dialer } else { Side::Listener };
        let mut session = session(side, seed);
        drain(&mut session, Micros::ZERO);
        let mut stream = Vec::new();
        stream.extend_from_slice(&absurd(&mut rng, true).seal());
        for _ in 0..10 {
            stream.extend_from_slice(&absurd(&mut rng, false).seal());
        }
        feed_all(&mut session, &stream, &mut rng);
    }
}

fn number(rng: &mut Rng) -> u64 {
    match rng.below(6) {
        0 => u64::MAX,
        1 => rng.next_u64(),
        2 => 1 << 16,
        3 => (1 << 16) + 1,
        _ => rng.below(5),
    }
}

fn absurd(rng: &mut Rng, greets: bool) -> Packet {
    let (lane, epoch) = (rng.below(5) as u32 / 2, number(rng));
    let facts = FactsW {
        lane,
        epoch,
        life: number(rng),
        floor: number(rng),
        got: number(rng),
        chain: number(rng),
        limit: number(rng),
    };
    let greeting = || {
        Box::new(Greeting {
            proto: 1,
            session: Bytes::from_static(&[1; 16]),
            rx: vec![facts.clone()],
            disk: epoch as u32,
            window: facts.floor,
            window_bytes: facts.got,
            ..Greeting::default()
        })
    };
    let held = Bytes::from(vec![0xff; rng.below(2_000) as usize]);
    let body = Bytes::from(vec![1; rng.below(100) as usize]);
    let of = rng.chance(0.7).then(|| PlaceW { lane, epoch: number(rng), seq: number(rng) });
    Packet {
        conn: 1,
        flags: rng.next_u64() as u32,
        acks: vec![AckW {
            lane,
            epoch,
            floor: number(rng),
            got: number(rng),
            held,
            limit: number(rng),
            ..AckW::default()
        }],
        hello: greets.then(greeting),
        welcome: greets.then(greeting),
        opens: vec![OpenW { lane, epoch: number(rng), life: number(rng) }],
        msgs: vec![MsgW { lane, epoch: number(rng), seq: number(rng), kind: rng.below(7) as u32, app: 0, of, body }],
        wheres: vec![WhereW { lane, epoch, ranges: (0..rng.below(9)).map(|_| number(rng)).collect() }],
        blocked: vec![crate::wire::BlockedW { lane, limit: number(rng) }],
        ..Packet::default()
    }
}

#[test]
fn a_receipt_comes_back_from_its_bytes() {
    let place = crate::Place { lane: Lane::Bulk, epoch: 0x0102_0304_0506_0708, seq: 0x1112_1314_1516_1718 };
    let receipt = Receipt { place, life: 0x2122_2324_2526_2728, chain: 0x3132_3334_3536_3738 };
    assert_eq!(Receipt::from_bytes(&receipt.to_bytes()), Some(receipt));
}
