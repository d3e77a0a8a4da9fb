//! One behaviour each, told from beginning to end.

use std::collections::BTreeSet;

use bytes::Bytes;

use super::actor::Payload;
use super::world::World;
use crate::{
    Body, Config, Depth, Event, Faults, Full, How, Input, Kind, Lane, Micros, Outgoing, Output, Refusal, Session,
    SessionId, Side, Verdict, peek_hello,
};

fn disk() -> Config {
    Config { depth_tx: [Depth::Disk; 2], boot: 1, ..Config::default() }
}

fn memory() -> Config {
    Config { boot: 2, ..Config::default() }
}

fn send(world: &mut World, side: usize, count: usize) {
    for _ in 0..count {
        let now = world.now;
        world.actors[side].send(now, Lane::Bulk).expect("room");
    }
    world.drain();
}

fn sound(world: &World) {
    assert!(world.violations.is_empty(), "{:#?}", world.violations);
}

fn events(world: &World, side: usize) -> &[Event] {
    &world.actors[side].events
}

/// Each once: what a lane of depth MEMORY carries may come again to a later life.
fn effects(world: &World, side: usize) -> BTreeSet<Payload> {
    world.actors[side].effects(true).collect()
}

impl World {
    pub(super) fn diverged(&self, side: usize) -> bool {
        events(self, side).iter().any(|event| matches!(event, Event::Diverged { expected: false, .. }))
    }

    fn verdicts(&self, side: usize) -> Vec<Verdict> {
        let verdict = |event: &Event| match event {
            Event::Diverged { verdict, .. } => Some(*verdict),
            _ => None,
        };
        events(self, side).iter().filter_map(verdict).collect()
    }
}

#[test]
fn a_message_is_stored_sent_committed_and_acknowledged() {
    let mut world = World::new(1, disk(), memory());
    world.connect();
    send(&mut world, 0, 3);
    world.run(Micros::from_ms(100));
    assert_eq!(world.actors[1].delivered.len(), 0, "nothing leaves before it is persisted");
    world.sync(0);
    world.run(Micros::from_ms(100));
    assert_eq!(world.actors[1].delivered.len(), 3);
    assert!(world.actors[1].delivered.iter().all(|delivery| delivery.receipt.is_some()));
    assert!(world.actors[0].acked.is_empty(), "delivered is not committed");
    world.sync(1);
    world.run(Micros::from_ms(200));
    assert_eq!((world.actors[0].stored.len(), world.actors[0].acked.len()), (3, 3));
    sound(&world);
}

#[test]
fn many_messages_share_a_packet() {
    let mut world = World::new(2, memory(), memory());
    world.connect();
    world.run(Micros::from_secs(1));
    let before = world.packets[0];
    // Bodies by reference are asked for in one go, too.
    send(&mut world, 0, 60);
    world.actors[0].provide();
    world.drain();
    assert!(world.packets[0] - before <= 2, "{} packets", world.packets[0] - before);
    world.settle();
    sound(&world);
}

#[test]
fn an_idle_connection_sends_heartbeats_only() {
    let mut world = World::new(3, disk(), memory());
    world.connect();
    send(&mut world, 0, 5);
    world.settle();
    world.run(Micros::from_secs(2));
    let before = world.packets;
    world.run(Micros::from_secs(60));
    for (after, before) in world.packets.iter().zip(before) {
        let beats = after - before;
        assert!((11..=13).contains(&beats), "I17: {beats} packets in a minute");
    }
    sound(&world);
}

#[test]
fn a_silent_peer_is_dead_after_fifteen_seconds() {
    let mut world = World::new(4, memory(), memory());
    world.connect();
    world.run(Micros::from_secs(1));
    world.actors[1].session = None;
    world.actors[1].wait = None;
    world.pipes = Default::default();
    world.run(Micros::from_secs(13));
    assert!(world.connected);
    world.run(Micros::from_secs(3));
    assert!(!world.connected);
    assert_eq!(events(&world, 0).last(), Some(&Event::Down));
}

#[test]
fn a_blocked_window_doubles_and_drains() {
    let mut world = World::new(5, disk(), Config { window: 4, ..memory() });
    world.connect();
    send(&mut world, 0, 2_000);
    world.settle();
    assert!(world.now < Micros::from_secs(20), "took {} ms", world.now.as_ms());
    sound(&world);
}

#[test]
fn a_deep_sender_survives_its_own_death() {
    let mut world = World::new(6, disk(), memory());
    send(&mut world, 0, 10);
    world.sync(0);
    world.crash(0);
    world.restart(0);
    world.connect();
    world.settle();
    assert_eq!(world.actors[1].effects(true).count(), 10);
    assert_eq!(world.verdicts(0), []);
    sound(&world);
}

#[test]
fn a_receiver_with_receipts_resumes_and_one_without_begins_a_new_epoch_as_expected() {
    for (config, expected) in [(disk(), vec![]), (memory(), vec![Verdict::Gone])] {
        let mut world = World::new(7, config, memory());
        world.connect();
        send(&mut world, 0, 10);
        world.settle();
        world.crash(1);
        world.restart(1);
        world.connect();
        send(&mut world, 0, 10);
        world.settle();
        assert_eq!(world.actors[1].effects(true).count(), 20);
        assert_eq!(world.verdicts(0), expected);
        assert!(!world.diverged(0), "nothing is lost, so it is expected");
        sound(&world);
    }
}

#[test]
fn a_listener_that_restarts_begins_its_memory_lanes_anew_and_says_that_this_is_expected() {
    let mut world = World::new(17, disk(), memory());
    world.connect();
    send(&mut world, 1, 10);
    world.settle();
    world.crash(1);
    world.restart(1);
    send(&mut world, 1, 10);
    world.connect();
    world.settle();
    assert_eq!(world.actors[0].effects(true).count(), 20);
    assert_eq!(world.verdicts(1), [Verdict::OtherEpoch, Verdict::OtherEpoch]);
    assert!(!world.diverged(1));
    assert!(events(&world, 0).iter().any(|event| matches!(event, Event::Renumbered { lane: Lane::Bulk, .. })));
    sound(&world);
}

#[test]
fn a_session_that_the_peer_forgot_ends_all_the_same() {
    let mut world = World::new(18, memory(), memory());
    world.connect();
    send(&mut world, 0, 3);
    world.settle();
    // The last word is lost with the connection: the listener has forgotten, the dialer has not heard.
    let now = world.now;
    world.actors[0].session.as_mut().unwrap().close(now, How::Drain);
    world.disconnect();
    world.crash(1);
    world.actors[1].log.clear();
    world.actors[1].synced = 0;
    world.restart(1);
    world.connect();
    world.run(Micros::from_secs(2));
    for side in 0..2 {
        assert!(events(&world, side).contains(&Event::Ended), "side {side}: {:?}", events(&world, side));
    }
    assert!(!world.diverged(0));
}

#[test]
fn signals_and_long_bodies_stay_within_a_packet() {
    let mut world = World::new(19, memory(), memory());
    let now = world.now;
    let session = world.actors[0].session.as_mut().unwrap();
    let long = Bytes::from(vec![1; 1 << 20]);
    for topic in 0..4 {
        session.signal(now, topic, long.clone());
        let body = Body::Inline(long.clone());
        session.send(now, Outgoing { lane: Lane::Bulk, kind: Kind::Data, app: 0, of: None, body }).unwrap();
    }
    session.feed(now, Input::Connected { conn: 1 }).unwrap();
    let mut listener = Session::new(memory(), Side::Listener, SessionId([7; 16]), 1);
    listener.feed(now, Input::Connected { conn: 1 }).unwrap();
    let mut seen = (0, 0);
    for _ in 0..100 {
        if let Output::Transmit(bytes) = session.take(now) {
            assert_eq!(listener.feed(now, Input::Bytes(bytes.into())), Ok(()));
        }
        match listener.take(now) {
            Output::Transmit(bytes) => assert_eq!(session.feed(now, Input::Bytes(bytes.into())), Ok(())),
            Output::Deliver(delivery) => {
                listener.commit(now, delivery.place);
                seen.0 += 1;
            }
            Output::Event(Event::Signal { .. }) => seen.1 += 1,
            _ => {}
        }
    }
    assert_eq!(seen, (4, 4));
}

/// The dialer's disk goes back to a backup, goes on with other messages under the same numbers, and dies before it
/// dials: numbers that the listener knows now have other content.
pub(super) fn restored_backup(#[cfg(feature = "mutations")] mutation: Option<crate::Mutation>) -> World {
    #[cfg(feature = "mutations")]
    let config = Config { mutation, ..disk() };
    #[cfg(not(feature = "mutations"))]
    let config = disk();
    let mut world = World::new(8, config, memory());
    world.rewound = true;
    world.connect();
    send(&mut world, 0, 5);
    world.settle();
    let backup = world.actors[0].log.clone();
    send(&mut world, 0, 3);
    world.settle();
    world.crash(0);
    world.actors[0].log = backup;
    world.actors[0].synced = world.actors[0].log.len();
    world.restart(0);
    send(&mut world, 0, 6);
    world.sync(0);
    world.crash(0);
    world.restart(0);
    world.connect();
    world.run(Micros::from_secs(1));
    world
}

#[cfg(not(feature = "mutations"))]
fn restored() -> World {
    restored_backup()
}
#[cfg(feature = "mutations")]
fn restored() -> World {
    restored_backup(None)
}

#[test]
fn a_restored_backup_is_an_event_and_loses_nothing_that_it_holds() {
    let mut world = restored();
    assert!(world.verdicts(0).contains(&Verdict::Fork), "{:?}", world.verdicts(0));
    assert!(world.diverged(0), "a fork is never expected");
    world.settle();
    assert_eq!(world.actors[1].effects(true).count(), 5 + 3 + 6);
    sound(&world);
}

#[test]
fn a_restored_sender_that_is_behind_says_so() {
    let mut world = World::new(9, disk(), memory());
    world.rewound = true;
    world.connect();
    send(&mut world, 0, 5);
    world.settle();
    let backup = world.actors[0].log.clone();
    send(&mut world, 0, 5);
    world.settle();
    world.crash(0);
    world.actors[0].log = backup;
    world.restart(0);
    world.connect();
    world.run(Micros::from_secs(1));
    assert_eq!(world.verdicts(0), [Verdict::SenderBehind]);
}

#[test]
fn a_receiver_that_lost_its_disk_has_every_possible_loss_named() {
    let mut world = World::new(10, disk(), memory());
    world.rewound = true;
    world.connect();
    send(&mut world, 0, 4);
    world.settle();
    let backup = world.actors[1].log.clone();
    send(&mut world, 0, 5);
    world.settle();
    world.crash(1);
    world.actors[1].log = backup;
    world.restart(1);
    world.connect();
    world.run(Micros::from_secs(1));
    let lost = events(&world, 0).iter().find_map(|event| match event {
        Event::Diverged { verdict: Verdict::Behind, lost, .. } => *lost,
        _ => None,
    });
    assert_eq!(lost.map(|(first, last)| (first.n, last.n)), Some((5, 9)));
}

#[test]
fn an_unsent_message_is_cancelled_at_once_and_a_delivered_one_too_late() {
    let mut world = World::new(11, memory(), memory());
    send(&mut world, 0, 2);
    let now = world.now;
    let payload = Payload { lane: Lane::Bulk, n: 1 };
    let id = world.actors[0].sent[&payload];
    world.actors[0].optional.insert(payload);
    world.actors[0].session.as_mut().unwrap().cancel(now, id);
    world.drain();
    assert_eq!(events(&world, 0), [Event::Cancelled(id)]);
    world.connect();
    world.settle();
    let second = world.actors[0].sent[&Payload { lane: Lane::Bulk, n: 2 }];
    world.actors[0].session.as_mut().unwrap().cancel(world.now, second);
    world.drain();
    assert_eq!(events(&world, 0).last(), Some(&Event::TooLate(second)));
    sound(&world);
}

#[test]
fn a_session_ends_in_agreement_after_draining() {
    for faults in [None, Some(Faults { drop: 0.2, seed: 3, ..Faults::default() })] {
        let mut world = World::new(12, Config { faults, ..disk() }, memory());
        world.connect();
        send(&mut world, 0, 8);
        let now = world.now;
        world.actors[0].session.as_mut().unwrap().close(now, How::Drain);
        let last = Outgoing { lane: Lane::Bulk, kind: Kind::Data, app: 0, of: None, body: Body::Inline(Bytes::new()) };
        assert_eq!(world.actors[0].session.as_mut().unwrap().send(now, last), Err(Full::Closing));
        for _ in 0..2_000 {
            world.sync(0);
            world.sync(1);
            world.step(Micros::from_ms(20));
        }
        assert_eq!(world.actors[1].effects(true).count(), 8);
        assert!(events(&world, 1).contains(&Event::PeerBye));
        for side in 0..2 {
            assert!(events(&world, side).contains(&Event::Ended), "side {side}: {:?}", events(&world, side));
        }
        sound(&world);
    }
}

/// The dialer has said Bye and dies before it has acknowledged what the listener had for it; then it is back.
fn back_after_bye(listener_closes: bool) -> World {
    let mut world = World::new(17, disk(), memory());
    world.connect();
    send(&mut world, 1, 1);
    world.run(Micros::from_ms(100));
    let now = world.now;
    world.actors[0].session.as_mut().unwrap().close(now, How::Drain);
    if listener_closes {
        world.actors[1].session.as_mut().unwrap().close(now, How::Drain);
    }
    world.drain();
    world.run(Micros::from_ms(100));
    assert!(events(&world, 1).contains(&Event::PeerBye), "the listener has read it");
    world.crash(0);
    world.restart(0);
    world.connect();
    world.run(Micros::from_ms(100));
    world
}

#[test]
fn a_bye_is_the_word_of_one_life_and_the_next_goes_on_talking() {
    let mut world = back_after_bye(false);
    send(&mut world, 0, 2);
    send(&mut world, 1, 2);
    world.settle();
    assert_eq!(effects(&world, 0).len(), 3);
    for side in 0..2 {
        assert!(!events(&world, side).contains(&Event::Ended), "side {side}: {:?}", events(&world, side));
    }
    sound(&world);
}

#[test]
fn who_closes_itself_still_does_when_the_peer_is_back_from_the_dead() {
    let mut world = back_after_bye(true);
    for _ in 0..200 {
        world.sync(0);
        world.step(Micros::from_ms(20));
    }
    for side in 0..2 {
        assert!(events(&world, side).contains(&Event::Ended), "side {side}: {:?}", events(&world, side));
    }
    assert_eq!(effects(&world, 0).len(), 1);
    sound(&world);
}

#[test]
fn a_clone_is_refused_and_a_lower_incarnation_is_fenced() {
    let mut listener = Session::new(memory(), Side::Listener, SessionId([7; 16]), 1);
    let mut greet = |incarnation: u64, boot: u64| {
        let config = Config { incarnation, boot, ..memory() };
        let mut dialer = Session::new(config, Side::Dialer, SessionId([7; 16]), 2);
        dialer.feed(Micros(1), Input::Connected { conn: boot }).unwrap();
        let Output::Transmit(hello) = dialer.take(Micros(1)) else { panic!("no hello") };
        let info = peek_hello(&hello).unwrap().unwrap();
        assert_eq!(info.consumed, hello.len());
        let admitted = listener.admit(&info);
        listener.feed(Micros(1), Input::Connected { conn: 0 }).unwrap();
        listener.feed(Micros(1), Input::Bytes(hello.into())).unwrap();
        loop {
            match listener.take(Micros(1)) {
                Output::Transmit(bytes) => dialer.feed(Micros(1), Input::Bytes(bytes.into())).unwrap(),
                Output::Wait(_) => break,
                Output::Event(event) => {
                    let is_end = matches!(event, Event::Refused(_) | Event::Fenced | Event::Ended);
                    assert!(!is_end, "the session goes on: {event:?}");
                }
                _ => {}
            }
        }
        let up = dialer.status().up;
        assert_eq!(up, admitted.is_ok());
        admitted
    };
    assert_eq!(greet(5, 50), Ok(()));
    assert_eq!(greet(5, 51), Err(Refusal::Clone));
    assert_eq!(greet(4, 49), Err(Refusal::Fenced));
    assert_eq!(greet(6, 60), Ok(()));
}

#[test]
fn packets_of_another_connection_have_no_effect() {
    let mut world = World::new(13, memory(), memory());
    world.connect();
    world.run(Micros::from_ms(100));
    let stray = crate::wire::Packet {
        conn: 999,
        msgs: vec![crate::wire::MsgW { lane: 1, epoch: 1 << 16, seq: 1, ..Default::default() }],
        bye: Some(crate::wire::ByeW { now: true }),
        ..Default::default()
    };
    let now = world.now;
    world.actors[1].session.as_mut().unwrap().feed(now, Input::Bytes(stray.seal().into())).unwrap();
    world.drain();
    assert!(world.actors[1].delivered.is_empty());
    assert!(!events(&world, 1).contains(&Event::PeerBye));
}

#[test]
fn a_full_outbox_says_so_and_later_that_it_has_room() {
    let mut world = World::new(14, Config { outbox_messages_max: 4, ..disk() }, memory());
    send(&mut world, 0, 4);
    let one = Outgoing { lane: Lane::Bulk, kind: Kind::Data, app: 0, of: None, body: Body::Inline(Bytes::new()) };
    let full = world.actors[0].session.as_mut().unwrap().send(Micros(1), one);
    assert_eq!(full, Err(Full::Messages { max: 4 }));
    world.connect();
    world.settle();
    assert!(events(&world, 0).contains(&Event::Room { lane: Lane::Bulk }));
}

#[test]
fn a_missing_body_holds_its_own_lane_only() {
    let mut world = World::new(15, memory(), memory());
    world.connect();
    world.run(Micros::from_ms(50));
    let now = world.now;
    world.actors[0].next_payload = 3;
    assert!(world.actors[0].send(now, Lane::Bulk).is_some(), "3: by reference");
    assert!(world.actors[0].send(now, Lane::Urgent).is_some(), "4: inline");
    world.drain();
    world.run(Micros::from_ms(50));
    let came: Vec<u64> = world.actors[1].delivered.iter().map(|it| Payload::of(it.place.lane, &it.body).n).collect();
    assert_eq!(came, [4]);
    world.settle();
    sound(&world);
}

#[test]
fn the_newest_signal_wins() {
    let mut world = World::new(16, memory(), memory());
    for value in ["old", "new"] {
        let now = world.now;
        world.actors[0].session.as_mut().unwrap().signal(now, 9, Bytes::from(value));
    }
    world.connect();
    world.run(Micros::from_ms(50));
    let signals: Vec<_> = events(&world, 1).iter().filter(|event| matches!(event, Event::Signal { .. })).collect();
    assert_eq!(signals, [&Event::Signal { topic: 9, body: Bytes::from("new") }]);
}
