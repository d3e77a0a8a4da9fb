//! Two sessions and what may happen between them, as bytes: `step u8 | arguments`. The lowest bit above the step's kind
//! says which side it is about.

use bytes::Bytes;
use sheaf_session::{
    Body, Event, How, Input, Kind, Lane, Micros, MsgId, Outgoing, Output, Place, Session, Side, State, Ticket,
};

use super::session::{CONN, ID, STREAM, config, seal};
use crate::target::{Shape, scale};

/// Steps of one script at most.
const STEPS_MAX: usize = 160;
/// Outputs taken at once at most: more, and a session never comes to rest.
const OUTPUTS_MAX: usize = 20_000;
/// Bytes that lie in a pipe at most; what would be more vanishes.
const PIPE_MAX: usize = 256 << 10;

const CARRY: u8 = 0;
const TALK: u8 = 1;
const FORGE: u8 = 2;
const RAW: u8 = 3;
const SEND: u8 = 4;
const WAIT: u8 = 5;
const CONNECT: u8 = 6;
const CANCEL: u8 = 7;
const CLOSE: u8 = 8;
const LEND: u8 = 9;
const SIGNAL: u8 = 10;
const FLUSH: u8 = 11;
const COMMIT: u8 = 12;
const RESTART: u8 = 13;
const HOLD: u8 = 14;
const FLIP: u8 = 15;

/// One side and all that its embedder keeps.
struct Peer {
    session: Session,
    side: Side,
    state: State,
    incarnation: u64,
    /// Bytes on their way to it.
    pipe: Vec<u8>,
    /// Deliveries whose commit waits; `holds`: further ones do too.
    held: Vec<Place>,
    holds: bool,
    /// The last delivery of each lane.
    last: [Option<Place>; 2],
    seen: Vec<u8>,
}

pub(super) struct Pair {
    setup: u8,
    now: Micros,
    peers: [Peer; 2],
}

impl Peer {
    fn new(setup: u8, side: Side) -> Self {
        Self {
            session: Session::new(config(setup, side), side, ID, 7 + u64::from(side == Side::Listener)),
            side,
            state: State::new(ID),
            incarnation: 1,
            pipe: Vec::new(),
            held: Vec::new(),
            holds: false,
            last: [None; 2],
            seen: Vec::new(),
        }
    }

    /// Takes and does what the session wants; returns what it sends.
    fn serve(&mut self, now: Micros) -> Result<Vec<u8>, String> {
        let mut sent = Vec::new();
        for _ in 0..OUTPUTS_MAX {
            match self.session.take(now) {
                Output::Wait(_) => return Ok(sent),
                Output::Transmit(bytes) => sent.extend_from_slice(&bytes),
                Output::Persist(ticket, record) => {
                    self.state.apply(record);
                    self.heard(now, Input::Persisted(ticket));
                }
                Output::Need(id) => self.session.provide(id, Bytes::from(vec![b'n'; (id.n % 90) as usize])),
                Output::Deliver(delivery) => {
                    self.rises(delivery.place)?;
                    if let Some(receipt) = delivery.receipt {
                        self.state.received(receipt);
                    }
                    if self.holds { self.held.push(delivery.place) } else { self.session.commit(now, delivery.place) }
                }
                Output::Event(event) => self.on_event(&event),
                Output::Close(_) => self.heard(now, Input::Disconnected),
            }
        }
        Err("never rests: a session always has one thing more to do".to_owned())
    }

    fn on_event(&mut self, event: &Event) {
        if let Event::Renumbered { lane, .. } = event {
            self.last[lane.index()] = None;
        }
        let name = format!("{event:?}");
        self.seen.push(name.len() as u8 ^ name.as_bytes()[0]);
    }

    fn rises(&mut self, place: Place) -> Result<(), String> {
        let last = self.last[place.lane.index()].replace(place);
        match last {
            Some(last) if last.epoch == place.epoch && last.seq >= place.seq => {
                Err(format!("delivered out of order: {place:?} after {last:?}"))
            }
            Some(_) | None => Ok(()),
        }
    }

    /// A fatal error costs the connection, as in the driver.
    fn heard(&mut self, now: Micros, input: Input) {
        if let Err(fatal) = self.session.feed(now, input) {
            self.seen.push(format!("{fatal:?}").len() as u8 | 0x80);
            if self.session.feed(now, Input::Disconnected).is_err() {
                self.seen.push(0);
            }
        }
    }
}

/// What is left of the script; what is missing is zero.
struct Script<'a>(&'a [u8]);

impl<'a> Script<'a> {
    fn byte(&mut self) -> u8 {
        let Some((byte, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *byte
    }

    fn word(&mut self) -> usize {
        usize::from(u16::from_le_bytes([self.byte(), self.byte()]))
    }

    fn bytes(&mut self) -> &'a [u8] {
        let len = self.word().min(self.0.len());
        let (bytes, rest) = self.0.split_at(len);
        self.0 = rest;
        bytes
    }
}

impl Pair {
    pub(super) fn new(setup: u8) -> Self {
        Self { setup, now: Micros::ZERO, peers: [Side::Dialer, Side::Listener].map(|side| Peer::new(setup, side)) }
    }

    pub(super) fn shape(&self) -> Shape {
        let seen = self.peers.each_ref().map(|peer| peer.seen.iter().copied().take(12).collect::<Vec<_>>());
        let now = self.peers.each_ref().map(|peer| {
            let status = peer.session.status();
            (status.up, status.ended, status.unacked.map(scale), status.uncommitted.map(scale))
        });
        Shape::of((self.setup, seen, now))
    }

    pub(super) fn play(&mut self, script: &[u8]) -> Result<(), String> {
        let mut script = Script(script);
        for _ in 0..STEPS_MAX {
            if script.0.is_empty() {
                return Ok(());
            }
            let step = script.byte();
            self.step(step & 0x0f, usize::from(step >> 4 & 1), &mut script);
            self.settle()?;
        }
        Ok(())
    }

    /// Both do what they want to; what they send lies in the other's pipe.
    fn settle(&mut self) -> Result<(), String> {
        for of in 0..2 {
            let sent = self.peers[of].serve(self.now)?;
            let pipe = &mut self.peers[1 - of].pipe;
            if pipe.len() + sent.len() <= PIPE_MAX {
                pipe.extend(sent);
            }
        }
        Ok(())
    }

    fn step(&mut self, kind: u8, of: usize, script: &mut Script<'_>) {
        let now = self.now;
        let peer = &mut self.peers[of];
        match kind {
            CARRY => {
                let most = script.word().min(peer.pipe.len());
                let bytes = peer.pipe.drain(..most).collect::<Vec<_>>();
                peer.heard(now, Input::Bytes(bytes.as_slice().into()));
            }
            TALK => self.talk(),
            FORGE => peer.heard(now, Input::Bytes(seal(script.bytes()).as_slice().into())),
            RAW => peer.heard(now, Input::Bytes(script.bytes().into())),
            SEND | LEND => {
                let (lane, len) = (lane(script.byte()), script.word() % 5_000);
                let body = match kind {
                    SEND => Body::Inline(Bytes::from(vec![b's'; len])),
                    _ => Body::Ref { len: len as u32 },
                };
                let of = peer.last[0].filter(|_| len.is_multiple_of(3));
                let kind = if of.is_some() { Kind::Reply } else { Kind::Data };
                // A full lane is one of the states to be in.
                let sent = peer.session.send(now, Outgoing { lane, kind, app: 1, of, body });
                peer.seen.extend(sent.is_err().then_some(1));
            }
            WAIT => {
                self.now = now + Micros::from_ms(script.word() as u64);
                let now = self.now;
                self.peers.iter_mut().for_each(|peer| peer.heard(now, Input::Tick));
            }
            CONNECT => self.connect(script.byte()),
            CANCEL => peer.session.cancel(now, MsgId { lane: lane(script.byte()), n: u64::from(script.byte()) }),
            CLOSE => peer.session.close(now, if script.byte().is_multiple_of(2) { How::Drain } else { How::Now }),
            SIGNAL => peer.session.signal(now, u16::from(script.byte()), Bytes::from_static(b"signal")),
            FLUSH => peer.session.flush(now),
            COMMIT => {
                let held = std::mem::take(&mut peer.held);
                held.into_iter().for_each(|place| peer.session.commit(now, place));
            }
            RESTART => self.restart(of),
            HOLD => peer.holds = !peer.holds,
            FLIP => {
                let at = script.word() % peer.pipe.len().max(1);
                if let Some(byte) = peer.pipe.get_mut(at) {
                    *byte ^= 1 << (script.byte() % 8);
                }
            }
            _ => peer.heard(now, Input::Persisted(Ticket(u64::MAX))),
        }
    }

    /// What lies in the pipes arrives.
    fn talk(&mut self) {
        for peer in &mut self.peers {
            let bytes = std::mem::take(&mut peer.pipe);
            peer.heard(self.now, Input::Bytes(bytes.as_slice().into()));
        }
    }

    /// 0, 1: one side has a fresh connection; else both, and nothing of the old one arrives.
    fn connect(&mut self, who: u8) {
        for (at, peer) in self.peers.iter_mut().enumerate() {
            if usize::from(who) == at || who > 1 {
                peer.pipe.clear();
                peer.heard(self.now, Input::Connected { conn: CONN });
            }
        }
    }

    /// The process is gone; a new one has what was persisted.
    fn restart(&mut self, of: usize) {
        let peer = &mut self.peers[of];
        peer.incarnation += 1;
        let mut config = config(self.setup, peer.side);
        config.incarnation = peer.incarnation;
        peer.session = Session::recover(config, peer.side, peer.incarnation, peer.state.clone());
        peer.pipe.clear();
        (peer.held, peer.last) = (Vec::new(), [None; 2]);
    }
}

fn lane(byte: u8) -> Lane {
    if byte.is_multiple_of(2) { Lane::Urgent } else { Lane::Bulk }
}

/// Takes everything that a session wants done, and does none of it.
pub(super) fn drain(session: &mut Session, each: &mut dyn FnMut(Output)) -> Result<(), String> {
    for _ in 0..OUTPUTS_MAX {
        match session.take(Micros::ZERO) {
            Output::Wait(_) => return Ok(()),
            output => each(output),
        }
    }
    Err("never rests: a session always has one thing more to do".to_owned())
}

/// Conversations, and the packets of one of them as streams.
pub(super) fn examples() -> Vec<(String, Vec<u8>)> {
    let greet = [CONNECT, 2, TALK, TALK];
    let say = |side: u8, lane: u8, len: u8| [SEND | side << 4, lane, len, 0];
    let mut examples = Vec::new();
    for setup in 0..16_u8 {
        let mut script = vec![setup];
        script.extend(greet);
        script.extend([say(0, 0, 9), say(0, 1, 200), say(1, 1, 30), [TALK; 4]].concat());
        let tail: &[&[u8]] = match setup % 4 {
            0 => &[&[HOLD | 0x10], &say(0, 1, 3), &[TALK, TALK, CANCEL, 1, 2, COMMIT | 0x10, WAIT, 100, 0, TALK]],
            1 => &[&say(1, 0, 6), &[CONNECT, 2], &[TALK, TALK, RESTART, CONNECT, 2, TALK, TALK, WAIT, 200, 0, TALK]],
            2 => &[&[LEND, 1, 50, 0, SIGNAL, 3, FLUSH, WAIT, 0, 32, TALK, FLIP, 9, 0, 1], &say(0, 0, 1), &[TALK; 3]],
            _ => &[&[CLOSE, 0, TALK, TALK, CLOSE | 0x10, 0, TALK, TALK, WAIT, 0, 90, TALK]],
        };
        script.extend(tail.concat());
        examples.push((format!("talk-{setup:02}"), script));
    }
    for setup in [0, 1, 2] {
        let (forged, stream) = packets(setup);
        examples.push((format!("forged-{setup}"), forged));
        examples.push((format!("stream-{setup}"), stream));
    }
    examples
}

/// What a dialer sends to a listener in a short talk: forged, packet by packet, and as a stream.
fn packets(setup: u8) -> (Vec<u8>, Vec<u8>) {
    let mut pair = Pair::new(setup);
    let (mut forged, mut stream) = (vec![setup, CONNECT, 1], vec![setup | STREAM]);
    let script = [CONNECT, 2, SEND, 0, 5, 0, SEND, 1, 40, 0, SEND | 0x10, 1, 9, 0];
    let mut played = pair.play(&script);
    for _ in 0..6 {
        let mut rest = pair.peers[1].pipe.as_slice();
        while let Some((head, more)) = rest.split_first_chunk::<8>() {
            let len = usize::from(u16::from_le_bytes([head[0], head[1]])).min(more.len());
            forged.extend([FORGE | 0x10, head[0], head[1]]);
            forged.extend_from_slice(&more[..len]);
            // A part of a stream has one byte of length; even ones are sealed.
            if len < 256 && len.is_multiple_of(2) {
                stream.push(len as u8);
                stream.extend_from_slice(&more[..len]);
            } else if len < 248 {
                stream.push((len as u8 + 8) | 1);
                stream.extend_from_slice(&rest[..len + 8]);
            }
            rest = &more[len..];
        }
        played = played.and_then(|()| pair.play(&[TALK, WAIT, 60, 0]));
    }
    assert_eq!(played, Ok(()), "an honest talk");
    (forged, stream)
}
