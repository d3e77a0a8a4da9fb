//! The wire forms and the envelope.
//!
//! ```text
//!   len u32le | crc32c u32le | Packet (protobuf, len bytes)        the CRC covers the four bytes of len and the packet
//! ```
//!
//! Version rule: fields are added with new tags and never reused, unknown ones are skipped; `Greeting.proto` changes
//! when old peers would misunderstand. A packet carries its frames by kind, and the receiver handles the kinds in the
//! order of the tags: acknowledgements before everything that could rest on them.
//!
//! Invariants: bodies are slices of the packet, never copies; nothing is allocated for a length over the limit.

use bytes::{Bytes, BytesMut};
use prost::Message;

use crate::{Auth, Depth, Fatal, Lane, Place, Refusal, SessionId};

/// The protocol that this crate speaks.
pub(crate) const PROTO: u32 = 1;
/// `len` and `crc`.
pub(crate) const ENVELOPE: usize = 8;
/// A stranger's first packet is no longer than this.
const HELLO_MAX: usize = 4 << 10;

/// Flag: acknowledge at once.
pub(crate) const FLAG_NOW: u32 = 1;

pub(crate) const KIND_DATA: u32 = 0;
pub(crate) const KIND_REPLY: u32 = 1;
/// A number without a message: cancelled before it was sent.
pub(crate) const KIND_VOID: u32 = 2;
/// Asks for the message at `of` not to be delivered.
pub(crate) const KIND_CANCEL: u32 = 3;
/// Answers a cancel of the message at `of`: `app` is 1 if it was not delivered.
pub(crate) const KIND_ANSWER: u32 = 4;

/// All frames that leave together.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Packet {
    #[prost(fixed64, tag = "1")]
    pub conn: u64,
    #[prost(uint32, tag = "2")]
    pub flags: u32,
    #[prost(message, repeated, tag = "3")]
    pub acks: Vec<AckW>,
    #[prost(message, optional, boxed, tag = "4")]
    pub hello: Option<Box<Greeting>>,
    #[prost(message, optional, boxed, tag = "5")]
    pub welcome: Option<Box<Greeting>>,
    #[prost(message, repeated, tag = "6")]
    pub opens: Vec<OpenW>,
    #[prost(message, repeated, tag = "7")]
    pub msgs: Vec<MsgW>,
    #[prost(message, repeated, tag = "8")]
    pub wheres: Vec<WhereW>,
    #[prost(message, repeated, tag = "9")]
    pub signals: Vec<SignalW>,
    #[prost(message, repeated, tag = "10")]
    pub blocked: Vec<BlockedW>,
    #[prost(message, optional, tag = "11")]
    pub bye: Option<ByeW>,
    #[prost(uint32, optional, tag = "12")]
    pub refuse: Option<u32>,
    /// A heartbeat is a packet with nothing else in it.
    #[prost(bool, tag = "13")]
    pub ping: bool,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct PlaceW {
    #[prost(uint32, tag = "1")]
    pub lane: u32,
    #[prost(uint64, tag = "2")]
    pub epoch: u64,
    #[prost(uint64, tag = "3")]
    pub seq: u64,
}

impl From<Place> for PlaceW {
    fn from(place: Place) -> PlaceW {
        PlaceW { lane: place.lane.index() as u32, epoch: place.epoch, seq: place.seq }
    }
}

impl PlaceW {
    pub(crate) fn place(&self) -> Option<Place> {
        let lane = *Lane::ALL.get(self.lane as usize)?;
        Some(Place { lane, epoch: self.epoch, seq: self.seq })
    }
}

/// Numbers up to `floor` are committed, up to `got` (and the bits of `held` after it) here.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct AckW {
    #[prost(uint32, tag = "1")]
    pub lane: u32,
    #[prost(uint64, tag = "2")]
    pub epoch: u64,
    #[prost(uint64, tag = "3")]
    pub floor: u64,
    #[prost(uint64, tag = "4")]
    pub got: u64,
    /// Bit i: number got + 2 + i is here (got + 1 is not, by definition).
    #[prost(bytes = "bytes", tag = "5")]
    pub held: Bytes,
    /// The highest number that may be used.
    #[prost(uint64, tag = "6")]
    pub limit: u64,
    /// Hash over the lane up to `floor` (depth DISK).
    #[prost(fixed64, optional, tag = "7")]
    pub chain: Option<u64>,
    /// Said before the sender's opening came: valid if the epoch is the sender's, but no confirmation of it.
    #[prost(bool, tag = "8")]
    pub early: bool,
}

/// Hello and Welcome.
#[derive(Clone, PartialEq, prost::Message)]
#[prost(skip_debug)]
pub(crate) struct Greeting {
    #[prost(uint32, tag = "1")]
    pub proto: u32,
    #[prost(bytes = "bytes", tag = "2")]
    pub session: Bytes,
    #[prost(uint64, tag = "3")]
    pub incarnation: u64,
    #[prost(fixed64, tag = "4")]
    pub boot: u64,
    #[prost(bytes = "bytes", tag = "5")]
    pub auth: Bytes,
    /// What the greeter knows of the other's lanes.
    #[prost(message, repeated, tag = "6")]
    pub rx: Vec<FactsW>,
    /// Bit per lane: the greeter's sending lane has depth DISK.
    #[prost(uint32, tag = "7")]
    pub disk: u32,
    #[prost(bool, tag = "8")]
    pub lossy: bool,
    /// Numbers that may be used at the beginning of an epoch.
    #[prost(uint64, tag = "9")]
    pub window: u64,
    /// Bytes of bodies that may be on their way or uncommitted, per lane.
    #[prost(uint64, tag = "10")]
    pub window_bytes: u64,
}

/// Without `auth`, which is a secret.
impl std::fmt::Debug for Greeting {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Greeting { proto, session, incarnation, boot, auth: _, rx, disk, lossy, window, window_bytes } = self;
        let mut f = f.debug_struct("Greeting");
        f.field("proto", proto).field("session", session).field("incarnation", incarnation).field("boot", boot);
        f.field("rx", rx).field("disk", disk).field("lossy", lossy);
        f.field("window", window).field("window_bytes", window_bytes).finish_non_exhaustive()
    }
}

/// A receiver's facts of one lane.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct FactsW {
    #[prost(uint32, tag = "1")]
    pub lane: u32,
    #[prost(uint64, tag = "2")]
    pub epoch: u64,
    #[prost(fixed64, tag = "3")]
    pub life: u64,
    #[prost(uint64, tag = "4")]
    pub floor: u64,
    #[prost(uint64, tag = "5")]
    pub got: u64,
    #[prost(fixed64, tag = "6")]
    pub chain: u64,
    #[prost(uint64, tag = "7")]
    pub limit: u64,
}

/// The sender's verdict: this is the lane's numbering on this connection.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct OpenW {
    #[prost(uint32, tag = "1")]
    pub lane: u32,
    #[prost(uint64, tag = "2")]
    pub epoch: u64,
    #[prost(fixed64, tag = "3")]
    pub life: u64,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct MsgW {
    #[prost(uint32, tag = "1")]
    pub lane: u32,
    #[prost(uint64, tag = "2")]
    pub epoch: u64,
    #[prost(uint64, tag = "3")]
    pub seq: u64,
    #[prost(uint32, tag = "4")]
    pub kind: u32,
    #[prost(uint32, tag = "5")]
    pub app: u32,
    #[prost(message, optional, tag = "6")]
    pub of: Option<PlaceW>,
    #[prost(bytes = "bytes", tag = "7")]
    pub body: Bytes,
}

/// Ranges of numbers that the receiver lacks: first and last, in pairs.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct WhereW {
    #[prost(uint32, tag = "1")]
    pub lane: u32,
    #[prost(uint64, tag = "2")]
    pub epoch: u64,
    #[prost(uint64, repeated, tag = "3")]
    pub ranges: Vec<u64>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct SignalW {
    #[prost(uint32, tag = "1")]
    pub topic: u32,
    #[prost(bytes = "bytes", tag = "2")]
    pub body: Bytes,
}

/// The sender has more and may not send it above `limit`.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct BlockedW {
    #[prost(uint32, tag = "1")]
    pub lane: u32,
    #[prost(uint64, tag = "2")]
    pub limit: u64,
}

#[derive(Clone, Copy, PartialEq, prost::Message)]
pub(crate) struct ByeW {
    /// Do not drain.
    #[prost(bool, tag = "1")]
    pub now: bool,
}

impl Packet {
    /// The packet in its envelope.
    pub(crate) fn seal(&self) -> Bytes {
        let len = self.encoded_len();
        let mut bytes = Vec::with_capacity(ENVELOPE + len);
        bytes.extend_from_slice(&(len as u32).to_le_bytes());
        bytes.extend_from_slice(&[0; 4]);
        self.encode_raw(&mut bytes);
        let crc = checksum(&bytes[..4], &bytes[ENVELOPE..]);
        bytes[4..ENVELOPE].copy_from_slice(&crc.to_le_bytes());
        Bytes::from(bytes)
    }

    /// Empties the packet and keeps its storage.
    pub(crate) fn reset(&mut self) {
        self.clear();
    }
}

fn checksum(len: &[u8], packet: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(len), packet)
}

/// Cuts a stream into packets, whatever the chunks. Holds at most one partial packet.
#[derive(Debug, Default)]
pub(crate) struct Framer {
    partial: BytesMut,
}

impl Framer {
    pub(crate) fn clear(&mut self) {
        self.partial = BytesMut::new();
    }

    /// Bytes that are missing of the partial packet, as far as can be told; zero: there is none.
    pub(crate) fn missing_bytes(&self) -> usize {
        let has = self.partial.len();
        match has {
            0 => 0,
            1..ENVELOPE => ENVELOPE - has,
            // It would have been given out if it were whole.
            _ => ENVELOPE + length(&self.partial) - has,
        }
    }

    /// The next whole packet's bytes; `None` when `chunk` is used up.
    pub(crate) fn next(&mut self, chunk: &mut BytesMut, max: usize) -> Result<Option<Bytes>, Fatal> {
        if !self.partial.is_empty() {
            if self.partial.as_ptr_range().end == chunk.as_ptr() {
                // Read into the same block, right behind it.
                self.partial.unsplit(std::mem::take(chunk));
                *chunk = std::mem::take(&mut self.partial);
            } else if !self.complete(chunk, max)? {
                return Ok(None);
            } else {
                return open_envelope(std::mem::take(&mut self.partial).freeze()).map(Some);
            }
        }
        match whole(chunk, max)? {
            Some(len) => open_envelope(chunk.split_to(ENVELOPE + len).freeze()).map(Some),
            None => {
                self.partial = std::mem::take(chunk);
                Ok(None)
            }
        }
    }

    /// Adds to the partial packet what it lacks; false if there is too little.
    fn complete(&mut self, chunk: &mut BytesMut, max: usize) -> Result<bool, Fatal> {
        if !self.top_up(chunk, ENVELOPE) {
            return Ok(false);
        }
        let wanted = ENVELOPE + announced(&self.partial, max)?;
        Ok(self.top_up(chunk, wanted))
    }

    fn top_up(&mut self, chunk: &mut BytesMut, wanted: usize) -> bool {
        if self.partial.capacity() < wanted {
            // Memory for this packet alone: more room in the block that it begins in would be more of the whole block.
            let begun = std::mem::replace(&mut self.partial, BytesMut::with_capacity(wanted));
            self.partial.extend_from_slice(&begun);
        }
        let lacking = wanted.saturating_sub(self.partial.len());
        self.partial.extend_from_slice(&chunk.split_to(lacking.min(chunk.len())));
        self.partial.len() >= wanted
    }
}

/// The length of the packet at the front, if it is there whole.
fn whole(bytes: &[u8], max: usize) -> Result<Option<usize>, Fatal> {
    if bytes.len() < ENVELOPE {
        return Ok(None);
    }
    let len = announced(bytes, max)?;
    Ok((bytes.len() - ENVELOPE >= len).then_some(len))
}

/// Requires `bytes.len() >= 4`.
fn length(bytes: &[u8]) -> usize {
    u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]) as usize
}

/// Requires `bytes.len() >= 4`.
fn announced(bytes: &[u8], max: usize) -> Result<usize, Fatal> {
    let len = length(bytes);
    if len > max { Err(Fatal::TooLong { len, max }) } else { Ok(len) }
}

/// Requires a whole envelope; gives the packet's bytes.
fn open_envelope(mut envelope: Bytes) -> Result<Bytes, Fatal> {
    let head = envelope.split_to(ENVELOPE);
    let crc = u32::from_le_bytes([head[4], head[5], head[6], head[7]]);
    if checksum(&head[..4], &envelope) != crc { Err(Fatal::Checksum) } else { Ok(envelope) }
}

pub(crate) fn decode(packet: Bytes) -> Result<Packet, Fatal> {
    Packet::decode(packet).map_err(|_| Fatal::Malformed)
}

/// What a listener learns from a stranger's first packet, before it finds or makes the session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HelloInfo {
    /// The session that the dialer wants.
    pub session: SessionId,
    /// The connection's nonce.
    pub conn: u64,
    /// The dialer's incarnation.
    pub incarnation: u64,
    /// The dialer's process.
    pub boot: u64,
    /// The dialer's credentials.
    pub auth: Auth,
    /// The depth of the dialer's sending lanes.
    pub depth: [Depth; 2],
    /// Bytes of the packet; feed them to the session too.
    pub consumed: usize,
}

/// Reads a greeting at the front of `bytes`; `None`: more bytes are needed.
///
/// # Errors
/// `Fatal` if the first packet is over 4 KiB, damaged, or no greeting of this protocol version.
pub fn peek_hello(bytes: &[u8]) -> Result<Option<HelloInfo>, Fatal> {
    let Some(len) = whole(bytes, HELLO_MAX)? else { return Ok(None) };
    let consumed = ENVELOPE + len;
    let packet = decode(open_envelope(Bytes::copy_from_slice(&bytes[..consumed]))?)?;
    let hello = packet.hello.ok_or(Fatal::NoHello)?;
    Ok(Some(HelloInfo {
        session: session_id(&hello)?,
        conn: packet.conn,
        incarnation: hello.incarnation,
        boot: hello.boot,
        depth: depths(&hello),
        auth: Auth(hello.auth),
        consumed,
    }))
}

pub(crate) fn session_id(greeting: &Greeting) -> Result<SessionId, Fatal> {
    greeting.session[..].try_into().map(SessionId).map_err(|_| Fatal::Malformed)
}

pub(crate) fn depths(greeting: &Greeting) -> [Depth; 2] {
    Lane::ALL.map(|lane| if greeting.disk >> lane.index() & 1 == 1 { Depth::Disk } else { Depth::Memory })
}

/// A packet that turns away the connection `conn`: for a listener that has no session for it.
pub fn refuse(conn: u64, why: Refusal) -> Bytes {
    Packet { conn, refuse: Some(refusal_code(why)), ..Packet::default() }.seal()
}

pub(crate) fn refusal_code(why: Refusal) -> u32 {
    match why {
        Refusal::Clone => 1,
        Refusal::Fenced => 2,
        Refusal::Version => 3,
        Refusal::Auth => 4,
        Refusal::Busy => 5,
        Refusal::Untrusted => 6,
    }
}

pub(crate) fn refusal(code: u32) -> Option<Refusal> {
    [Refusal::Clone, Refusal::Fenced, Refusal::Version, Refusal::Auth, Refusal::Busy, Refusal::Untrusted]
        .into_iter()
        .find(|why| refusal_code(*why) == code)
}
