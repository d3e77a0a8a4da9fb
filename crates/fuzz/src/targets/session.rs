//! The wire: `setup u8 | step*`. Two real sessions talk over a pipe that a script owns: it carries, cuts, flips and
//! forges what passes, sealing packets with an envelope of this file's own.
//!
//! Checked: no panic in any state; a lane delivers rising numbers; a session that is asked what to do comes to rest;
//! `peek_hello` says of a prefix nothing that more bytes unsay; and a stream that is cut anywhere says what it says whole.

use std::path::Path;

use bytes::BytesMut;
use sheaf_session::{Config, Depth, Input, Micros, Rng, Session, SessionId, Side, Timers, peek_hello};

use super::pair::{self, Pair};
use crate::target::{Shape, Spec, Target, scale};

pub(crate) const SPEC: Spec = Spec {
    name: "session",
    share: 25,
    words: &[
        &[0x0a, 0x10],
        &[0x09, 1, 0, 0, 0, 0, 0, 0, 0],
        &[0x12, 0x10, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1],
        &[0x10, 0x80, 0x80, 0x04],
        &[0x10, 0x81, 0x80, 0x04],
        &[0x08, 0x01],
        &[0x3a, 0x04],
        &[0x1a, 0x06, 0x08, 0x01],
        &[0x42, 0x04],
        &[0x52, 0x02],
        &[0x5a, 0x00],
        &[0x60, 0x02],
        &[0xff; 10],
    ],
    make: |_: &Path| Box::new(Wire),
    examples: pair::examples,
};

/// Setup: depth DISK; a lossy carrier; injected faults; small windows; a stream instead of a conversation.
const DISK: u8 = 1;
const LOSSY: u8 = 2;
const FAULTS: u8 = 4;
const SMALL: u8 = 8;
pub(super) const STREAM: u8 = 16;

/// The id of every session here.
pub(super) const ID: SessionId = SessionId([1; 16]);
/// The name of every connection here.
pub(super) const CONN: u64 = 1;

struct Wire;

impl Target for Wire {
    fn run(&mut self, input: &[u8]) -> Result<Shape, String> {
        let Some((setup, script)) = input.split_first() else { return Ok(Shape::default()) };
        if setup & STREAM == 0 {
            let mut pair = Pair::new(*setup);
            pair.play(script)?;
            return Ok(pair.shape());
        }
        stream(*setup, script)
    }
}

pub(super) fn config(setup: u8, side: Side) -> Config {
    let depth = if setup & DISK == 0 { Depth::Memory } else { Depth::Disk };
    let mut config = Config {
        depth_tx: [depth; 2],
        boot: 1 + u64::from(side == Side::Listener),
        lossy: setup & LOSSY != 0,
        body_max: 4 << 10,
        packet_max: 16 << 10,
        packet_aim: 2 << 10,
        buffer_max: 64 << 10,
        outbox_messages_max: 64,
        outbox_bytes_max: 64 << 10,
        window: 16,
        window_max: 256,
        timers: Timers::default(),
        ..Config::default()
    };
    if setup & SMALL != 0 {
        (config.window, config.window_max, config.buffer_max) = (1, 2, 4 << 10);
    }
    if setup & FAULTS != 0 {
        let seed = 5 + u64::from(side == Side::Listener);
        config.faults = Some(sheaf_session::Faults { drop: 0.1, dup: 0.1, reorder: 0.2, delay: 0.1, seed });
    }
    config
}

/// Puts a packet into its envelope.
pub(super) fn seal(packet: &[u8]) -> Vec<u8> {
    let len = (packet.len() as u32).to_le_bytes();
    let crc = crc32c::crc32c_append(crc32c::crc32c(&len), packet).to_le_bytes();
    [&len[..], &crc, packet].concat()
}

/// One session hears a stream: parts `len u8 | bytes` (sealed if `len` is even), at once or in pieces.
fn stream(setup: u8, script: &[u8]) -> Result<Shape, String> {
    let mut stream = Vec::new();
    let mut rest = script;
    while let Some((len, more)) = rest.split_first() {
        let (part, more) = more.split_at(usize::from(*len).min(more.len()));
        if len.is_multiple_of(2) {
            stream.extend(seal(part))
        } else {
            stream.extend_from_slice(part)
        }
        rest = more;
    }
    peek(&stream)?;
    let side = if setup & SMALL == 0 { Side::Listener } else { Side::Dialer };
    let hear = |seed: Option<u64>| {
        // Faults act on packets as they come, whatever the pieces; but their draws must be the same.
        let mut session = Session::new(config(setup & !SMALL, side), side, ID, 7);
        let mut result = session.feed(Micros::ZERO, Input::Connected { conn: CONN });
        let (mut rest, mut rng) = (BytesMut::from(&stream[..]), seed.map(Rng::new));
        while !rest.is_empty() && result.is_ok() {
            let most = rest.len() as u64;
            let len = rng.as_mut().map_or(most, |rng| 1 + rng.below(most.min(1 + rng.clone().below(most))));
            result = session.feed(Micros::ZERO, Input::Bytes(rest.split_to(len as usize)));
        }
        let mut said = Vec::new();
        pair::drain(&mut session, &mut |output| said.push(format!("{output:?}")))?;
        Ok::<_, String>((result, said))
    };
    let whole = hear(None)?;
    for seed in 0..2 {
        if hear(Some(seed))? != whole {
            return Err(format!("pieces: a stream that is cut says something else, {:?}", whole.0));
        }
    }
    let fatal = whole.0.err().map(|fatal| std::mem::discriminant(&fatal));
    let words = whole.1.iter().map(|said| said.split(['(', '{', ' ']).take(2).map(str::len).sum::<usize>());
    Ok(Shape::of((fatal, scale(whole.1.len()), words.take(8).collect::<Vec<_>>())))
}

/// Asks of every prefix up to some length what the listener asks.
fn peek(stream: &[u8]) -> Result<(), String> {
    let whole = peek_hello(stream);
    for len in (0..stream.len().min(64)).chain([stream.len() / 2, stream.len()]) {
        let part = peek_hello(&stream[..len]);
        if !matches!(part, Ok(None)) && part != whole {
            return Err(format!("peek: {len} bytes say {part:?}, {} say {whole:?}", stream.len()));
        }
    }
    if let Ok(Some(hello)) = whole
        && hello.consumed > stream.len()
    {
        return Err(format!("peek: {} bytes of {} are used up", hello.consumed, stream.len()));
    }
    Ok(())
}
