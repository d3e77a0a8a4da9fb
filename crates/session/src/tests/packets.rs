//! Two sessions whose packets are handed over one by one, in any order: what depends on which of two comes first, and
//! what must not be sent at all.

use bytes::Bytes;

use crate::{
    Body, CloseReason, Config, Delivery, Event, Faults, Full, How, Input, Kind, Lane, Micros, MsgId, Outgoing, Output,
    Refusal, Session, SessionId, Side, refuse,
};

/// One side, with what it wanted to be done.
pub(super) struct Peer {
    pub session: Session,
    sent: Vec<Bytes>,
    pub events: Vec<Event>,
    pub delivered: Vec<Delivery>,
    pub closed: Vec<CloseReason>,
}

impl Peer {
    pub(super) fn new(side: Side, config: Config) -> Peer {
        Peer::of(Session::new(config, side, SessionId([7; 16]), 1))
    }

    pub(super) fn of(session: Session) -> Peer {
        Peer { session, sent: Vec::new(), events: Vec::new(), delivered: Vec::new(), closed: Vec::new() }
    }

    /// Takes all, and gives what is to be sent. Commits nothing.
    pub(super) fn take(&mut self, now: Micros) -> Vec<Bytes> {
        loop {
            match self.session.take(now) {
                Output::Transmit(bytes) => self.sent.push(bytes),
                Output::Event(event) => self.events.push(event),
                Output::Deliver(delivery) => self.delivered.push(delivery),
                Output::Persist(ticket, _) => self.session.feed(now, Input::Persisted(ticket)).unwrap(),
                Output::Wait(_) => return std::mem::take(&mut self.sent),
                Output::Close(why) => self.closed.push(why),
                Output::Need(_) => {}
            }
        }
    }

    pub(super) fn hear(&mut self, now: Micros, packets: Vec<Bytes>) {
        packets.into_iter().for_each(|packet| self.session.feed(now, Input::Bytes(packet.into())).unwrap());
    }

    pub(super) fn say(&mut self, now: Micros, len: usize) -> Result<MsgId, Full> {
        let body = Body::Inline(Bytes::from(vec![1; len]));
        self.session.send(now, Outgoing { lane: Lane::Bulk, kind: Kind::Data, app: 0, of: None, body })
    }

    pub(super) fn commit_all(&mut self, now: Micros) {
        let places: Vec<_> = self.delivered.iter().map(|delivery| delivery.place).collect();
        places.into_iter().for_each(|place| self.session.commit(now, place));
    }
}

pub(super) fn greeted(config: [Config; 2]) -> [Peer; 2] {
    let [dialer, listener] = config;
    let mut peers = [Peer::new(Side::Dialer, dialer), Peer::new(Side::Listener, listener)];
    connect(&mut peers, 1);
    peers
}

pub(super) fn connect(peers: &mut [Peer; 2], conn: u64) {
    peers.iter_mut().for_each(|peer| peer.session.feed(Micros::ZERO, Input::Connected { conn }).unwrap());
    talk(peers, Micros::ZERO);
}

/// Packets go to and fro until neither has one more.
pub(super) fn talk(peers: &mut [Peer; 2], now: Micros) {
    for _ in 0..50 {
        let [a, b] = peers;
        let (of_a, of_b) = (a.take(now), b.take(now));
        if of_a.is_empty() && of_b.is_empty() {
            return;
        }
        b.hear(now, of_a);
        a.hear(now, of_b);
    }
    panic!("they never come to rest");
}

pub(super) fn both(config: &Config) -> [Config; 2] {
    [Config { boot: 1, ..config.clone() }, Config { boot: 2, ..config.clone() }]
}

const LATER: Micros = Micros::from_ms(70);

#[test]
fn a_cancel_that_overtakes_its_message_keeps_it_from_being_delivered() {
    let mut peers = greeted(both(&Config::default()));
    let ids = [8, 9, 10].map(|len| peers[0].say(Micros::ZERO, len).unwrap());
    let messages = peers[0].take(Micros::ZERO);
    peers[0].session.cancel(Micros::ZERO, ids[2]);
    let cancel = peers[0].take(Micros::ZERO);
    peers[1].hear(Micros::ZERO, [cancel, messages].concat());
    let answer = peers[1].take(Micros::ZERO);
    assert_eq!(peers[1].delivered.iter().map(|delivery| delivery.body.len()).collect::<Vec<_>>(), [8, 9]);
    peers[0].hear(Micros::ZERO, answer);
    peers[1].commit_all(Micros::ZERO);
    talk(&mut peers, LATER);
    talk(&mut peers, LATER + LATER);
    assert!(peers[0].events.contains(&Event::Cancelled(ids[2])), "{:?}", peers[0].events);
    assert_eq!(peers[0].session.status().unacked, [0, 0]);
}

#[test]
fn a_cancel_of_what_was_delivered_and_not_committed_is_too_late() {
    let mut peers = greeted(both(&Config::default()));
    let ids = [8, 9].map(|len| peers[0].say(Micros::ZERO, len).unwrap());
    talk(&mut peers, Micros::ZERO);
    assert_eq!(peers[1].delivered.len(), 2);
    peers[0].session.cancel(Micros::ZERO, ids[1]);
    talk(&mut peers, Micros::ZERO);
    talk(&mut peers, LATER);
    assert!(peers[0].events.contains(&Event::TooLate(ids[1])), "{:?}", peers[0].events);
    assert!(!peers[0].events.contains(&Event::Cancelled(ids[1])));
}

#[test]
fn a_cancel_whose_question_died_with_its_connection_is_answered_on_the_next() {
    let mut peers = greeted(both(&Config::default()));
    let id = peers[0].say(Micros::ZERO, 8).unwrap();
    let lost = peers[0].take(Micros::ZERO);
    peers[0].session.cancel(Micros::ZERO, id);
    let lost = [lost, peers[0].take(Micros::ZERO)].concat();
    assert!(!lost.is_empty());
    // The listener is another process, and knows nothing of it.
    peers[1] = Peer::new(Side::Listener, Config { boot: 3, incarnation: 2, ..Config::default() });
    connect(&mut peers, 2);
    peers[1].commit_all(Micros::ZERO);
    talk(&mut peers, LATER);
    let answered = |event: &Event| matches!(event, Event::Cancelled(of) | Event::TooLate(of) if *of == id);
    assert_eq!(peers[0].events.iter().filter(|event| answered(event)).count(), 1, "{:?}", peers[0].events);
}

#[test]
fn the_first_connection_resumes_nothing_and_the_second_does() {
    let mut peers = greeted(both(&Config::default()));
    assert!(peers.iter().all(|peer| peer.events.contains(&Event::Up { resumed: false })));
    peers.iter_mut().for_each(|peer| peer.say(Micros::ZERO, 1).map(drop).unwrap());
    talk(&mut peers, Micros::ZERO);
    connect(&mut peers, 2);
    for peer in &peers {
        assert_eq!(peer.events.last(), Some(&Event::Up { resumed: true }), "{:?}", peer.events);
    }
}

#[test]
fn only_what_was_lost_is_sent_again() {
    let mut peers = greeted(both(&Config { lossy: true, ..Config::default() }));
    let mut packets: Vec<Bytes> = Vec::new();
    for len in [4_001, 4_002, 4_003, 4_004, 4_005] {
        peers[0].say(Micros::ZERO, len).unwrap();
        packets.extend(peers[0].take(Micros::ZERO));
    }
    assert_eq!(packets.len(), 5, "each alone");
    packets.remove(1);
    peers[1].hear(Micros::ZERO, packets);
    let mut again = 0;
    for step in 1..20 {
        let now = Micros::from_ms(step * 30);
        let answers = peers[1].take(now);
        peers[0].session.feed(now, Input::Tick).unwrap();
        peers[0].hear(now, answers);
        let packets = peers[0].take(now);
        again += packets.iter().map(Bytes::len).sum::<usize>();
        peers[1].session.feed(now, Input::Tick).unwrap();
        peers[1].hear(now, packets);
        peers[1].commit_all(now);
    }
    peers[1].take(Micros::from_secs(1));
    assert_eq!(peers[1].delivered.len(), 5);
    assert!((4_002..4_900).contains(&again), "{again} bytes were sent again");
}

#[test]
fn whoever_has_an_answer_knows_that_its_question_was_committed() {
    let mut peers = greeted(both(&Config { lossy: true, ..Config::default() }));
    peers[0].say(Micros::ZERO, 10).unwrap();
    let question = peers[0].take(Micros::ZERO);
    peers[1].hear(Micros::ZERO, question);
    peers[1].take(Micros::ZERO);
    peers[1].commit_all(Micros::ZERO);
    peers[1].session.feed(LATER, Input::Tick).unwrap();
    assert!(!peers[1].take(LATER).is_empty(), "it is acknowledged, and the acknowledgement is lost");
    peers[1].say(LATER, 10).unwrap();
    let answer = peers[1].take(LATER);
    peers[0].hear(LATER, answer);
    peers[0].take(LATER);
    assert_eq!(peers[0].delivered.len(), 1);
    let acked = peers[0].events.iter().any(|event| matches!(event, Event::Acked { .. }));
    assert!(acked, "{:?}", peers[0].events);
}

#[test]
fn a_lossy_connection_at_rest_is_not_probed() {
    let mut peers = greeted(both(&Config { lossy: true, ..Config::default() }));
    peers[0].say(Micros::ZERO, 10).unwrap();
    talk(&mut peers, Micros::ZERO);
    peers[1].commit_all(Micros::ZERO);
    talk(&mut peers, LATER);
    let mut packets = 0;
    for step in 1..40 {
        let now = LATER + Micros::from_ms(step * 100);
        for side in 0..2 {
            peers[side].session.feed(now, Input::Tick).unwrap();
            let sent = peers[side].take(now);
            packets += sent.len();
            peers[1 - side].hear(now, sent);
        }
    }
    assert!(packets <= 2, "{packets} packets in four seconds of nothing to say");
}

#[test]
fn a_sender_that_is_blocked_gets_a_wider_window_before_anything_is_committed() {
    let mut peers = greeted(both(&Config { window: 4, ..Config::default() }));
    for _ in 0..40 {
        peers[0].say(Micros::ZERO, 10).unwrap();
    }
    for step in 0..20 {
        talk(&mut peers, Micros::from_ms(step * 60));
    }
    assert!(peers[1].delivered.len() > 8, "{} of 40 came", peers[1].delivered.len());
}

#[test]
fn an_outbox_takes_bytes_up_to_its_bound_and_not_one_more() {
    let mut peer = Peer::new(Side::Dialer, Config { outbox_bytes_max: 100, ..Config::default() });
    assert!(peer.say(Micros::ZERO, 60).is_ok());
    assert!(peer.say(Micros::ZERO, 40).is_ok());
    assert_eq!(peer.say(Micros::ZERO, 1), Err(Full::Bytes { max: 100 }));
    assert!(peer.say(Micros::ZERO, 0).is_ok());
}

#[test]
fn a_delayed_packet_leaves_at_the_time_that_the_session_named() {
    let faults = Faults { delay: 1.0, seed: 3, ..Faults::default() };
    let mut session =
        Session::new(Config { faults: Some(faults), ..Config::default() }, Side::Dialer, SessionId([7; 16]), 1);
    session.feed(Micros::ZERO, Input::Connected { conn: 1 }).unwrap();
    let due = loop {
        match session.take(Micros::ZERO) {
            Output::Wait(due) => break due.unwrap(),
            Output::Transmit(_) => panic!("every packet is held back"),
            _ => {}
        }
    };
    assert!(Micros::ZERO < due && due <= Micros::from_ms(51), "{due:?}");
    session.feed(due, Input::Tick).unwrap();
    assert!(matches!(session.take(due), Output::Transmit(_)), "the greeting leaves");
}

#[test]
fn a_probe_leaves_out_what_the_peer_holds_above_a_gap() {
    let mut peers = greeted(both(&Config { lossy: true, ..Config::default() }));
    let mut packets: Vec<Bytes> = Vec::new();
    for _ in 0..5 {
        peers[0].say(Micros::ZERO, 4_000).unwrap();
        packets.extend(peers[0].take(Micros::ZERO));
    }
    packets.remove(1);
    peers[1].hear(Micros::ZERO, packets);
    let answers = peers[1].take(Micros::ZERO);
    peers[0].hear(Micros::ZERO, answers);
    // From here on all that the sender says vanishes, and so does every answer.
    let mut again = peers[0].take(Micros::ZERO);
    for step in 1..40 {
        let now = Micros::from_ms(step * 100);
        peers[0].session.feed(now, Input::Tick).unwrap();
        again.extend(peers[0].take(now));
    }
    let long: Vec<usize> = again.iter().map(Bytes::len).filter(|len| *len > 3_000).collect();
    assert!(long.len() > 2 && long.iter().all(|len| *len < 5_000), "only the second message is probed for: {long:?}");
}

#[test]
fn an_ordered_connection_on_which_nothing_moves_is_dropped() {
    let mut peers = greeted(both(&Config::default()));
    peers[0].say(Micros::ZERO, 10).unwrap();
    assert!(!peers[0].take(Micros::ZERO).is_empty(), "and it is lost");
    for step in 1..25 {
        let now = Micros::from_ms(step * 500);
        peers[1].session.feed(now, Input::Tick).unwrap();
        let beats = peers[1].take(now);
        peers[0].session.feed(now, Input::Tick).unwrap();
        peers[0].hear(now, beats);
        peers[0].take(now);
    }
    assert_eq!(peers[0].closed, [CloseReason::Stalled], "it is heard, so it is not dead");
}

#[test]
fn a_refusal_is_told_and_costs_the_connection() {
    let mut dialer = Peer::new(Side::Dialer, Config::default());
    dialer.session.feed(Micros::ZERO, Input::Connected { conn: 1 }).unwrap();
    dialer.take(Micros::ZERO);
    dialer.hear(Micros::ZERO, vec![refuse(1, Refusal::Busy)]);
    dialer.take(Micros::ZERO);
    assert_eq!(dialer.events, [Event::Refused(Refusal::Busy)]);
    assert_eq!(dialer.closed, [CloseReason::Refused(Refusal::Busy)]);
}

#[test]
fn a_session_that_is_closed_now_takes_its_peer_along() {
    let mut peers = greeted(both(&Config::default()));
    peers[1].say(Micros::ZERO, 10).unwrap();
    peers[0].session.close(Micros::ZERO, How::Now);
    let last = peers[0].take(Micros::ZERO);
    peers[1].hear(Micros::ZERO, last);
    peers[1].take(Micros::ZERO);
    assert!(peers.iter().all(|peer| peer.session.status().ended));
}

#[test]
fn a_full_outbox_has_room_again_when_its_bytes_are_half_gone() {
    let mut peers = greeted([
        Config { boot: 1, outbox_bytes_max: 100, ..Config::default() },
        Config { boot: 2, ..Config::default() },
    ]);
    for len in [30, 30, 40] {
        peers[0].say(Micros::ZERO, len).unwrap();
    }
    assert_eq!(peers[0].say(Micros::ZERO, 1), Err(Full::Bytes { max: 100 }));
    talk(&mut peers, Micros::ZERO);
    let has_room = |peer: &Peer| peer.events.contains(&Event::Room { lane: Lane::Bulk });
    for (commits, room) in [(0, false), (1, true)] {
        let place = peers[1].delivered[commits].place;
        let now = Micros::from_ms(100 * (commits as u64 + 1));
        peers[1].session.commit(now, place);
        peers[1].session.flush(now);
        talk(&mut peers, now);
        assert_eq!(has_room(&peers[0]), room, "after {} commits", commits + 1);
    }
}
