//! What a session makes of lives that ended: its own, from records, and its peer's.

use bytes::Bytes;

use super::packets::{Peer, both, connect, greeted, talk};
use crate::lane_tx::{Entry, Held, TxLane};
use crate::record::Step;
use crate::state::EPOCHS_MAX;
use crate::wire::{KIND_DATA, Packet};
use crate::{
    Body, Config, Depth, Event, Fatal, How, Input, Lane, Micros, Place, Receipt, Record, Session, SessionId, Side,
    State, Verdict, peek_hello,
};

const LATER: Micros = Micros::from_ms(70);

fn place(epoch: u64, seq: u64) -> Place {
    Place { lane: Lane::Bulk, epoch, seq }
}

fn epoch(epoch: u64, first: u64) -> Step {
    Step::Epoch { lane: Lane::Bulk, epoch, life: epoch * 10, first }
}

fn append(n: u64) -> Step {
    Step::Append { lane: Lane::Bulk, n, kind: KIND_DATA, app: 0, of: None, body: Bytes::from_static(b"body") }
}

fn forget(n: u64) -> Step {
    Step::Forget { lane: Lane::Bulk, n, chain: 77 }
}

fn replayed(steps: impl IntoIterator<Item = Step>) -> State {
    let mut state = State::new(SessionId([7; 16]));
    steps.into_iter().for_each(|step| state.apply(Record(step)));
    state
}

/// What a sender with these records says of its bulk lane to a receiver whose newest receipt this is.
fn judged(sender: Vec<Step>, receipt: (Place, u64)) -> (Verdict, Option<(u64, u64)>, bool) {
    let (place, life) = receipt;
    let config = Config { depth_tx: [Depth::Memory, Depth::Disk], ..Config::default() };
    let mut state = State::new(SessionId([7; 16]));
    state.received(Receipt { place, life, chain: 5 });
    let [mine, theirs] = both(&config);
    let mut peers = [
        Peer::of(Session::recover(mine, Side::Dialer, 1, replayed(sender))),
        Peer::of(Session::recover(theirs, Side::Listener, 2, state)),
    ];
    connect(&mut peers, 1);
    let diverged = peers[0].events.iter().find_map(|event| match event {
        Event::Diverged { lane: Lane::Bulk, verdict, lost, expected } => {
            Some((*verdict, lost.map(|(from, to)| (from.n, to.n)), *expected))
        }
        _ => None,
    });
    diverged.expect("the two do not agree")
}

#[test]
fn a_new_epoch_is_expected_only_where_the_peer_is_in_an_older_one() {
    for (theirs, life, expected) in [(4, 40, true), (5, 51, false), (6, 60, false)] {
        let said = judged(vec![epoch(5, 1)], (place(theirs, 0), life));
        assert_eq!(said, (Verdict::OtherEpoch, None, expected), "the peer is in epoch {theirs}");
    }
}

#[test]
fn what_a_peer_of_an_older_epoch_has_lost_is_named() {
    let history = || {
        let mut steps = vec![epoch(5, 1)];
        steps.extend((1..=4).map(append));
        steps.extend([forget(4), epoch(6, 5), append(5), append(6), forget(6), epoch(7, 7)]);
        steps
    };
    assert_eq!(judged(history(), (place(5, 3), 50)), (Verdict::OtherEpoch, Some((4, 6)), false));
    assert_eq!(judged(history(), (place(6, 1), 60)), (Verdict::OtherEpoch, Some((6, 6)), false));
    assert_eq!(judged(history(), (place(6, 2), 60)), (Verdict::OtherEpoch, None, true));
    assert_eq!(judged(history(), (place(3, 2), 30)), (Verdict::OtherEpoch, Some((1, 6)), false), "not remembered");
}

#[test]
fn the_beginnings_of_sixty_four_epochs_are_remembered() {
    let mut tx = TxLane::new(Lane::Bulk, Depth::Disk, 1, 1);
    for epoch in 2..=EPOCHS_MAX as u64 {
        tx.renumber(epoch, epoch);
    }
    assert_eq!(tx.committed_n(1, 3), Some(3));
    tx.renumber(EPOCHS_MAX as u64 + 1, 9);
    assert_eq!((tx.committed_n(1, 3), tx.committed_n(2, 3)), (None, Some(3)));
}

#[test]
fn a_snapshot_rebuilds_the_state_that_it_was_taken_of() {
    let mut steps = vec![Step::Start { incarnation: 3 }, epoch(5, 1)];
    steps.extend((1..=4).map(append));
    steps.extend([forget(4), epoch(6, 5)]);
    steps.extend((5..=9).map(append));
    steps.extend([forget(6), Step::Received { receipt: Receipt { place: place(2, 9), life: 4, chain: 3 } }]);
    let state = replayed(steps);
    let again = replayed(state.snapshot().into_iter().map(|record| record.0));
    assert_eq!(again, state);
}

#[test]
fn a_cancel_that_the_peer_forgot_with_its_life_is_asked_again() {
    let mut peers = greeted(both(&Config::default()));
    let id = peers[0].say(Micros::ZERO, 8).unwrap();
    peers[0].take(Micros::ZERO);
    peers[0].session.cancel(Micros::ZERO, id);
    // The message is lost, and its cancel comes: the peer notes it, and acknowledges it.
    let question = peers[0].take(Micros::ZERO);
    peers[1].hear(Micros::ZERO, question);
    talk(&mut peers, LATER);
    assert_eq!(peers[0].session.status().unacked, [0, 1], "the question is done with");
    peers[1] = Peer::new(Side::Listener, Config { boot: 3, incarnation: 2, ..Config::default() });
    connect(&mut peers, 2);
    peers[1].commit_all(LATER);
    talk(&mut peers, LATER + LATER);
    let answered = |event: &Event| matches!(event, Event::Cancelled(of) | Event::TooLate(of) if *of == id);
    assert_eq!(peers[0].events.iter().filter(|event| answered(event)).count(), 1, "{:?}", peers[0].events);
}

#[test]
fn a_bye_ends_with_the_life_that_said_it_and_not_with_its_connection() {
    for (boot, talks) in [(2, false), (3, true)] {
        let mut peers = greeted(both(&Config::default()));
        peers[0].say(Micros::ZERO, 8).unwrap();
        talk(&mut peers, Micros::ZERO);
        peers[1].session.close(Micros::ZERO, How::Drain);
        talk(&mut peers, Micros::ZERO);
        assert!(peers[0].events.contains(&Event::PeerBye));
        assert!(peers[0].say(Micros::ZERO, 1).is_err(), "it drains");
        if talks {
            peers[1] = Peer::new(Side::Listener, Config { boot, incarnation: 2, ..Config::default() });
        }
        connect(&mut peers, 2);
        assert_eq!(peers[0].say(Micros::ZERO, 1).is_ok(), talks);
    }
}

#[test]
fn a_place_names_a_message_in_its_own_epoch_only() {
    let mut tx = TxLane::new(Lane::Bulk, Depth::Memory, 5, 1);
    for _ in 0..2 {
        tx.push(Entry::new(KIND_DATA, 0, None, Held::Here(Bytes::new()), 0));
    }
    let named = [place(5, 1), place(5, 2), place(5, 3), place(5, 0), place(4, 1), place(6, 2)].map(|at| tx.n_of(at));
    assert_eq!(named, [Some(1), Some(2), None, None, None, None]);
}

#[test]
fn nothing_of_a_dead_connection_is_read_on_the_next() {
    let mut peers = [Peer::new(Side::Dialer, Config::default()), Peer::new(Side::Listener, Config::default())];
    peers[0].session.feed(Micros::ZERO, Input::Connected { conn: 1 }).unwrap();
    peers[1].session.feed(Micros::ZERO, Input::Connected { conn: 1 }).unwrap();
    let hello = peers[0].take(Micros::ZERO).remove(0);
    peers[1].hear(Micros::ZERO, vec![hello.slice(..hello.len() / 2)]);
    connect(&mut peers, 2);
    assert!(peers.iter().all(|peer| peer.session.status().up));
}

#[test]
fn without_a_connection_nothing_is_read_and_nothing_is_dropped() {
    let mut peers = greeted(both(&Config::default()));
    let dialer = &mut peers[0];
    dialer.session.feed(Micros::ZERO, Input::Disconnected).unwrap();
    assert_eq!(dialer.session.feed(Micros::ZERO, Input::Bytes(Bytes::from(vec![0xff; 100]).into())), Ok(()));
    dialer.session.close(Micros::ZERO, How::Now);
    dialer.take(Micros::ZERO);
    assert_eq!(dialer.events.last(), Some(&Event::Ended));
    assert_eq!(dialer.closed, []);
}

#[test]
fn a_whole_packet_that_greets_nobody_is_an_error_at_once() {
    let nothing = Packet::default().seal();
    assert_eq!(peek_hello(&nothing), Err(Fatal::NoHello));
    assert_eq!(peek_hello(&nothing[..nothing.len() - 1]), Ok(None));
}

#[test]
fn a_body_is_empty_when_it_has_no_bytes() {
    assert!(Body::Inline(Bytes::new()).is_empty() && Body::Ref { len: 0 }.is_empty());
    assert!(!Body::Inline(Bytes::from_static(b"x")).is_empty() && !Body::Ref { len: 1 }.is_empty());
}
