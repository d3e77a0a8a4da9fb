//! What is asked, said and waited for on the way: gaps, credit, acknowledgements, the round trip, stalls.

use bytes::{Bytes, BytesMut};

use super::packets::{Peer, both, greeted, talk};
use crate::timers::RoundTrip;
use crate::wire::{ENVELOPE, Framer, Packet, SignalW, decode};
use crate::{CloseReason, Config, Depth, Event, Fatal, Input, Lane, Micros, Timers};

fn read(packets: &[Bytes]) -> Vec<Packet> {
    packets.iter().map(|packet| decode(packet.slice(ENVELOPE..)).unwrap()).collect()
}

/// Five messages on a lossy link, each in a packet of its own; the second is lost.
fn with_a_gap() -> ([Peer; 2], Vec<Bytes>) {
    let mut peers = greeted(both(&Config { lossy: true, ..Config::default() }));
    let mut packets: Vec<Bytes> = Vec::new();
    for _ in 0..5 {
        peers[0].say(Micros::ZERO, 4_000).unwrap();
        packets.extend(peers[0].take(Micros::ZERO));
    }
    assert_eq!(packets.len(), 5, "each alone");
    packets.remove(1);
    (peers, packets)
}

#[test]
fn a_gap_is_asked_for_once_and_by_its_own_number() {
    let (mut peers, packets) = with_a_gap();
    let mut asked = Vec::new();
    for packet in packets {
        peers[1].hear(Micros::ZERO, vec![packet]);
        asked.extend(read(&peers[1].take(Micros::ZERO)).into_iter().flat_map(|packet| packet.wheres));
    }
    assert_eq!(asked.iter().map(|question| &question.ranges[..]).collect::<Vec<_>>(), [[2, 2]]);
}

#[test]
fn a_gap_is_filled_as_soon_as_the_peer_asks_long_before_a_probe() {
    let (mut peers, packets) = with_a_gap();
    peers[1].hear(Micros::ZERO, packets);
    let question = peers[1].take(Micros::ZERO);
    let now = Micros::from_ms(51);
    peers[0].hear(now, question);
    let again = peers[0].take(now);
    peers[1].hear(now, again);
    peers[1].take(now);
    assert_eq!(peers[1].delivered.len(), 5);
}

#[test]
fn a_gap_of_a_dead_connection_is_not_asked_for_on_the_next() {
    let (mut peers, packets) = with_a_gap();
    peers[1].hear(Micros::ZERO, packets);
    let mut packets = Vec::new();
    peers.iter_mut().for_each(|peer| peer.session.feed(Micros::ZERO, Input::Connected { conn: 2 }).unwrap());
    for _ in 0..5 {
        let said = peers[0].take(Micros::ZERO);
        peers[1].hear(Micros::ZERO, said);
        packets.extend(peers[1].take(Micros::ZERO));
        peers[0].hear(Micros::ZERO, packets.last().cloned().into_iter().collect());
    }
    assert!(read(&packets).iter().all(|packet| packet.wheres.is_empty()));
    assert_eq!(peers[1].delivered.len(), 5, "all that the peer lacks came by itself");
}

#[test]
fn a_sender_complains_only_when_something_waits_for_credit() {
    let mut peers = greeted(both(&Config { window: 4, ..Config::default() }));
    let mut complaints = |count: usize| {
        for _ in 0..count {
            peers[0].say(Micros::ZERO, 10).unwrap();
        }
        let said = read(&[peers[0].take(Micros::ZERO), peers[0].take(Micros::ZERO)].concat());
        said.into_iter().flat_map(|packet| packet.blocked).map(|blocked| blocked.limit).collect::<Vec<_>>()
    };
    assert_eq!(complaints(3), [], "there is room for one more");
    assert_eq!(complaints(1), [], "all has left");
    assert_eq!(complaints(2), [4], "once for each limit");
    assert_eq!(complaints(1), []);
}

#[test]
fn an_acknowledgement_waits_for_company_unless_a_quarter_of_the_window_is_new() {
    let mut peers = greeted(both(&Config { window: 16, window_max: 16, ..Config::default() }));
    for round in 0..8 {
        let now = Micros::from_ms(round * 200);
        peers[0].say(now, 10).unwrap();
        talk(&mut peers, now);
        talk(&mut peers, now + Micros::from_ms(100));
        let now = now + Micros::from_ms(101);
        let last = peers[1].delivered.pop().unwrap().place;
        peers[1].session.commit(now, last);
        assert_eq!(peers[1].take(now).len(), 0, "commit {round} alone is no reason to say so at once");
        peers[1].session.feed(now + Micros::from_ms(50), Input::Tick).unwrap();
        assert!(!peers[1].take(now + Micros::from_ms(50)).is_empty());
    }
    let now = Micros::from_secs(2);
    (0..4).for_each(|_| peers[0].say(now, 10).map(drop).unwrap());
    talk(&mut peers, now);
    talk(&mut peers, now + Micros::from_ms(100));
    peers[1].commit_all(now + Micros::from_ms(101));
    assert!(!peers[1].take(now + Micros::from_ms(101)).is_empty(), "four of sixteen");
}

#[test]
fn an_acknowledgement_carries_the_hash_of_a_deep_lane() {
    let config = Config { depth_tx: [Depth::Memory, Depth::Disk], ..Config::default() };
    let mut peers = greeted(both(&config));
    peers[0].say(Micros::ZERO, 10).unwrap();
    talk(&mut peers, Micros::ZERO);
    let receipt = peers[1].delivered[0].receipt.expect("deep lanes have receipts");
    peers[1].commit_all(Micros::ZERO);
    peers[1].session.flush(Micros::ZERO);
    let acks: Vec<_> = read(&peers[1].take(Micros::ZERO)).into_iter().flat_map(|packet| packet.acks).collect();
    let of = |lane: Lane| acks.iter().find(|ack| ack.lane == lane.index() as u32).expect("both are flushed");
    assert_eq!((of(Lane::Bulk).floor, of(Lane::Bulk).chain), (1, Some(receipt.chain)));
    assert_eq!(of(Lane::Urgent).chain, None);
}

/// A message of this length was committed by a peer that is patient.
fn patient(len: usize, lossy: bool) -> [Peer; 2] {
    let mut peers = greeted(both(&Config { lossy, ..Config::default() }));
    let start = Micros::ZERO;
    peers[1].session.set_patience(start, Lane::Bulk, PATIENCE);
    peers[0].say(start, len).unwrap();
    let said = peers[0].take(start);
    peers[1].hear(start, said);
    peers[1].take(start);
    peers[1].commit_all(start);
    peers
}

const PATIENCE: Micros = Micros::from_ms(200);

fn acks_at(peer: &mut Peer, now: Micros) -> usize {
    peer.session.feed(now, Input::Tick).unwrap();
    read(&peer.take(now)).iter().map(|packet| packet.acks.len()).sum()
}

#[test]
fn an_acknowledgement_rides_on_what_is_said_within_its_patience_and_leaves_alone_after_it() {
    let soon = Micros::from_ms(199);
    let mut peers = patient(10, false);
    assert_eq!([soon, PATIENCE].map(|now| acks_at(&mut peers[1], now)), [0, 1]);

    let mut peers = patient(10, false);
    peers[1].say(soon, 10).unwrap();
    assert_eq!([soon, PATIENCE].map(|now| acks_at(&mut peers[1], now)), [1, 0]);
}

#[test]
fn an_acknowledgement_that_somebody_may_wait_for_has_no_patience() {
    let soon = Micros::from_ms(1);
    // What takes much to keep until it is acknowledged.
    assert_eq!(acks_at(&mut patient(1 << 20, false)[1], soon), 1);
    // Where silence calls for a probe.
    assert_eq!(acks_at(&mut patient(10, true)[1], Micros::from_ms(5)), 1);
    // Somebody is about to leave.
    let mut peers = patient(10, false);
    peers[1].session.set_patience(soon, Lane::Bulk, Micros::ZERO);
    assert_eq!(acks_at(&mut peers[1], soon), 1);
}

#[test]
fn the_round_trip_is_smoothed_and_its_spread_widens_the_pause_before_a_probe() {
    let timers = Timers { ack_delay: Micros::ZERO, probe_min: Micros::ZERO, ..Timers::default() };
    let mut rtt = RoundTrip::new();
    let mut pauses = Vec::new();
    for (seq, took) in [(1, 80), (2, 80), (3, 160)] {
        rtt.start(Lane::Bulk, seq, Micros::ZERO);
        rtt.on_got(Lane::Bulk, seq, Micros::from_ms(took));
        pauses.push((rtt.span().0, rtt.probe_after(&timers, 0).0));
    }
    // Spread: half of the first, then a quarter of each error is taken in.
    assert_eq!(pauses, [(80_000, 80_000 + 4 * 40_000), (80_000, 80_000 + 4 * 30_000), (90_000, 90_000 + 4 * 42_500)]);
}

#[test]
fn a_slow_link_is_not_probed_before_its_measured_round_trip() {
    let mut peers = greeted(both(&Config { lossy: true, ..Config::default() }));
    peers[0].say(Micros::ZERO, 10).unwrap();
    let said = peers[0].take(Micros::ZERO);
    let heard = Micros::from_ms(400);
    peers[1].hear(heard, said);
    peers[1].session.feed(heard + Micros::from_ms(50), Input::Tick).unwrap();
    let answer = peers[1].take(heard + Micros::from_ms(50));
    assert!(!answer.is_empty(), "it has it, and has not committed it");
    peers[0].hear(Micros::from_ms(800), answer);
    let start = Micros::from_secs(1);
    peers[0].take(start);
    peers[0].say(start, 3_000).unwrap();
    assert_eq!(peers[0].take(start).len(), 1, "and it is lost");
    let mut probed = None;
    for step in 1..60 {
        let now = start + Micros::from_ms(step * 100);
        peers[0].session.feed(now, Input::Tick).unwrap();
        if peers[0].take(now).iter().any(|packet| packet.len() > 3_000) {
            probed = probed.or(Some(step * 100));
        }
    }
    // 800 ms, four times half of it, and the peer's pause for company.
    assert!(probed.is_some_and(|after| (2_400..=2_600).contains(&after)), "{probed:?}");
}

/// Ticks both sides for a while: the listener's beats arrive, nothing of the dialer does.
fn beat(peers: &mut [Peer; 2], from: Micros, steps: u64, mut each: impl FnMut(&mut Peer, Micros)) {
    for step in 1..=steps {
        let now = from + Micros::from_ms(step * 500);
        peers[1].session.feed(now, Input::Tick).unwrap();
        let beats = peers[1].take(now);
        peers[0].session.feed(now, Input::Tick).unwrap();
        peers[0].hear(now, beats);
        each(&mut peers[0], now);
        peers[0].take(now);
    }
}

#[test]
fn a_stall_is_counted_from_the_first_message_after_a_rest() {
    let mut peers = greeted(both(&Config::default()));
    for second in 1..=30 {
        let now = Micros::from_secs(second);
        peers.iter_mut().for_each(|peer| peer.session.feed(now, Input::Tick).unwrap());
        talk(&mut peers, now);
    }
    let now = Micros::from_secs(30);
    peers[0].say(now, 10).unwrap();
    peers[0].take(now);
    beat(&mut peers, now, 19, |_, _| ());
    assert_eq!(peers[0].closed, [], "it has ten seconds");
    beat(&mut peers, now + Micros::from_ms(9_500), 2, |_, _| ());
    assert_eq!(peers[0].closed, [CloseReason::Stalled]);
}

#[test]
fn more_messages_do_not_put_a_stall_off() {
    let mut peers = greeted(both(&Config::default()));
    beat(&mut peers, Micros::ZERO, 22, |dialer, now| dialer.say(now, 10).map(drop).unwrap());
    assert_eq!(peers[0].closed, [CloseReason::Stalled]);
}

#[test]
fn each_connection_on_which_nothing_moves_is_given_twice_the_time_of_the_one_before() {
    let timers = Timers { stall: Micros::from_secs(2), stall_max: Micros::from_secs(5), ..Timers::default() };
    let mut peers = greeted(both(&Config { timers, ..Config::default() }));
    peers[0].say(Micros::ZERO, 10).unwrap();
    let mut now = Micros::ZERO;
    let mut patience = Vec::new();
    for conn in 2..7 {
        // What it sends is lost, as what it sent before.
        let start = now;
        while peers[0].closed.is_empty() {
            beat(&mut peers, now, 1, |_, _| ());
            now = now + Micros::from_ms(500);
        }
        patience.push(now.since(start).0 / 1_000_000);
        peers[0].closed.clear();
        let is_third = conn == 4;
        peers.iter_mut().for_each(|peer| peer.session.feed(now, Input::Connected { conn }).unwrap());
        // The greetings arrive; on the third connection more than they.
        for _ in 0..if is_third { 50 } else { 1 } {
            let [dialer, listener] = &mut peers;
            listener.hear(now, dialer.take(now));
            dialer.hear(now, listener.take(now));
        }
        if is_third {
            peers[0].say(now, 10).unwrap();
        }
        peers[0].take(now);
    }
    assert_eq!(patience, [2, 4, 5, 2, 4]);
}

#[test]
fn a_signal_over_the_limit_of_a_body_is_dropped() {
    let config = Config { body_max: 10, ..Config::default() };
    let mut peers = greeted(both(&config));
    for (topic, len) in [(1, 10), (2, 11)] {
        peers[0].session.signal(Micros::ZERO, topic, Bytes::from(vec![0; len]));
    }
    talk(&mut peers, Micros::ZERO);
    let topic = |event: &Event| match event {
        Event::Signal { topic, .. } => Some(*topic),
        _ => None,
    };
    let topics: Vec<u16> = peers[1].events.iter().filter_map(topic).collect();
    assert_eq!(topics, [1]);
}

#[test]
fn a_packet_may_be_as_long_as_the_limit() {
    let packet = Packet { conn: 1, ping: true, ..Packet::default() }.seal();
    let len = packet.len() - ENVELOPE;
    assert!(matches!(Framer::default().next(&mut packet.clone().into(), len), Ok(Some(_))));
    let max = len - 1;
    assert_eq!(Framer::default().next(&mut packet.into(), max), Err(Fatal::TooLong { len, max }));
}

/// A packet with so long a body, of a connection of that number.
fn packet_of(body: usize) -> Bytes {
    let signals = vec![SignalW { topic: 1, body: vec![7; body].into() }];
    Packet { conn: body as u64, signals, ..Packet::default() }.seal()
}

/// The connections that the packets in these chunks name, and whether all of them are in the same memory as the chunks.
fn cut_out(chunks: [BytesMut; 3], memory: &std::ops::Range<*const u8>) -> (Vec<u64>, bool) {
    let (mut framer, mut conns, mut is_there) = (Framer::default(), Vec::new(), true);
    for mut chunk in chunks {
        while let Some(packet) = framer.next(&mut chunk, 1 << 20).unwrap() {
            is_there &= memory.contains(&packet.as_ptr());
            conns.push(decode(packet).unwrap().conn);
        }
    }
    (conns, is_there)
}

#[test]
fn however_a_stream_is_cut_its_packets_are_whole_and_copied_only_from_block_to_block() {
    let stream = [1, 300, 2].map(packet_of).concat();
    for first in 0..=stream.len() {
        for second in first..=stream.len() {
            let mut block = BytesMut::from(&stream[..]);
            let memory = block.as_ptr_range();
            let chunks = [block.split_to(first), block.split_to(second - first), block];
            assert_eq!(cut_out(chunks, &memory), (vec![1, 300, 2], true), "cut at {first} and {second}");
            let chunks = [&stream[..first], &stream[first..second], &stream[second..]].map(BytesMut::from);
            assert_eq!(cut_out(chunks, &memory).0, [1, 300, 2], "of other blocks, cut at {first} and {second}");
        }
    }
}

#[test]
fn what_is_missing_of_a_packet_is_known_as_far_as_it_can_be() {
    for stream in [1, 300, 70_000].map(packet_of) {
        let len = stream.len();
        let mut block = BytesMut::from(&stream[..]);
        let (mut in_a_block, mut in_pieces) = (Framer::default(), Framer::default());
        for has in 0..len {
            let whole = if has < ENVELOPE { ENVELOPE } else { len };
            for (framer, mut chunk) in
                [(&mut in_a_block, block.split_to(1)), (&mut in_pieces, BytesMut::from(&stream[has..=has]))]
            {
                assert_eq!(framer.missing_bytes(), if has == 0 { 0 } else { whole - has }, "{has} of {len}");
                let found = framer.next(&mut chunk, 1 << 20).unwrap();
                assert_eq!(found.map(|packet| packet.len()), (has + 1 == len).then_some(len - ENVELOPE));
            }
        }
    }
}
