//! A session that takes packets full of messages: parsing, checking, delivering, committing, acknowledging.

use bytes::Bytes;
use sheaf_session::{Body, Config, Input, Kind, Lane, Micros, Outgoing, Output, Session, SessionId, Side};

use crate::{BATCH, BATCHES, body};

/// Between two rounds: long enough for every acknowledgement that is held back to leave.
const ROUND: Micros = Micros::from_ms(100);

pub(crate) fn run() -> u64 {
    let ends = [(Side::Dialer, 1), (Side::Listener, 2)];
    let [mut from, mut to] = ends.map(|(side, seed)| Session::new(Config::default(), side, SessionId([1; 16]), seed));
    let (mut now, mut sent, mut taken) = (Micros::from_secs(1), 0, 0);
    feed(&mut from, now, Input::Connected { conn: 7 });
    feed(&mut to, now, Input::Connected { conn: 7 });
    let (mut there, mut back) = (Vec::new(), Vec::new());
    while taken < BATCH * BATCHES {
        while sent < BATCH * BATCHES && from.send(now, message(sent)).is_ok() {
            sent += 1;
        }
        take(&mut from, now, &mut there);
        taken += there.drain(..).map(|packet| measured(&mut to, now, packet, &mut back)).sum::<u64>();
        now = now + ROUND;
        feed(&mut to, now, Input::Tick);
        take(&mut to, now, &mut back);
        back.drain(..).for_each(|packet| feed(&mut from, now, Input::Bytes(packet.into())));
        feed(&mut from, now, Input::Tick);
    }
    taken
}

/// Takes one packet and everything that follows from it.
#[inline(never)]
fn measured(to: &mut Session, now: Micros, packet: Bytes, back: &mut Vec<Bytes>) -> u64 {
    feed(to, now, Input::Bytes(packet.into()));
    take(to, now, back)
}

fn feed(session: &mut Session, now: Micros, input: Input) {
    session.feed(now, input).expect("what the other side said");
}

/// Takes what the session has: packets, and how many messages it delivered.
fn take(session: &mut Session, now: Micros, packets: &mut Vec<Bytes>) -> u64 {
    let mut delivered = 0;
    loop {
        match session.take(now) {
            Output::Transmit(bytes) => packets.push(bytes),
            Output::Deliver(delivery) => {
                session.commit(now, delivery.place);
                delivered += 1;
            }
            Output::Wait(_) => return delivered,
            Output::Event(_) | Output::Close(_) => {}
            Output::Persist(..) | Output::Need(_) => unreachable!("depth MEMORY, inline bodies"),
        }
    }
}

fn message(number: u64) -> Outgoing {
    Outgoing { lane: Lane::Bulk, kind: Kind::Data, app: 0, of: None, body: Body::Inline(body(number)) }
}
