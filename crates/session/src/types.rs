//! The words between a session and its embedder: what goes in, what comes out, and the names of messages.
//! Nothing here has behaviour beyond encoding a receipt.

use bytes::{Bytes, BytesMut};

use crate::{Micros, Record};

/// Names a session, for both peers and for life. No secret.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(pub [u8; 16]);

impl std::fmt::Display for SessionId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// Who opens connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Connects, greets first and names the connection.
    Dialer,
    /// Waits for a greeting.
    Listener,
}

/// One of the two logs of a direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Lane {
    /// Lane 0: short and first.
    Urgent,
    /// Lane 1: everything else.
    Bulk,
}

impl Lane {
    /// Both lanes in order of precedence.
    pub const ALL: [Lane; 2] = [Lane::Urgent, Lane::Bulk];

    /// 0 or 1.
    pub const fn index(self) -> usize {
        match self {
            Lane::Urgent => 0,
            Lane::Bulk => 1,
        }
    }
}

/// How much a sending lane survives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Depth {
    /// The connection; the outbox can be rebuilt by its owner.
    Memory,
    /// The process: each message is persisted before it leaves.
    Disk,
}

/// The sender's handle of a message: grows by one per message of its lane, survives renumbering by a new epoch and, on
/// lanes of depth DISK, restarts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MsgId {
    /// The lane that it was sent on.
    pub lane: Lane,
    /// 1, 2, 3 …
    pub n: u64,
}

/// The receiver's name of a message: its identity on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// The lane that it came on.
    pub lane: Lane,
    /// The lane's numbering.
    pub epoch: u64,
    /// Its number there: 1, 2, 3 …
    pub seq: u64,
}

/// The receiver's durable facts of a lane as of one message, to be stored in the same commit as the message's effects.
/// Store them in order of `place.seq`, or keep the highest below which all is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Receipt {
    /// The message.
    pub place: Place,
    /// The life of the sender's log that it belongs to.
    pub life: u64,
    /// Hash over the content of the lane up to and including the message.
    pub chain: u64,
}

impl Receipt {
    /// Layout: `lane u8 | 7 zero | epoch | seq | life | chain | zero` (u64 little endian), 64 bytes.
    pub fn to_bytes(&self) -> [u8; 64] {
        let mut bytes = [0; 64];
        bytes[0] = self.place.lane.index() as u8;
        for (slot, word) in [self.place.epoch, self.place.seq, self.life, self.chain].into_iter().enumerate() {
            bytes[8 + 8 * slot..16 + 8 * slot].copy_from_slice(&word.to_le_bytes());
        }
        bytes
    }

    /// The reverse of [`Receipt::to_bytes`]; `None` if the bytes are none.
    pub fn from_bytes(bytes: &[u8]) -> Option<Receipt> {
        let bytes: &[u8; 64] = bytes.try_into().ok()?;
        let lane = *Lane::ALL.get(usize::from(bytes[0]))?;
        let word = |slot: usize| {
            let mut word = [0; 8];
            word.copy_from_slice(&bytes[8 + 8 * slot..16 + 8 * slot]);
            u64::from_le_bytes(word)
        };
        Some(Receipt { place: Place { lane, epoch: word(0), seq: word(1) }, life: word(2), chain: word(3) })
    }
}

/// What an embedder may send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A message of its own.
    Data,
    /// An answer to the message at `of`.
    Reply,
}

/// A body, or the promise to give it when it is sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    /// Kept by the session until acknowledged.
    Inline(Bytes),
    /// Kept by the embedder, which is asked by [`Output::Need`] at each (re)send and gives the same bytes each time.
    /// Lanes of depth MEMORY only.
    Ref {
        /// Expected length in bytes.
        len: u32,
    },
}

impl Body {
    /// Length in bytes, as far as known.
    pub fn len(&self) -> usize {
        match self {
            Body::Inline(bytes) => bytes.len(),
            Body::Ref { len } => *len as usize,
        }
    }

    /// Whether the body has no bytes.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A message to send.
#[derive(Clone, Debug)]
pub struct Outgoing {
    /// The lane.
    pub lane: Lane,
    /// Message or answer.
    pub kind: Kind,
    /// The application behind the port.
    pub app: u32,
    /// The message that this one answers.
    pub of: Option<Place>,
    /// Its bytes.
    pub body: Body,
}

/// A message for the application: in order within its lane, once per durable floor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// Its identity; [`crate::Session::commit`] wants it back.
    pub place: Place,
    /// Message or answer.
    pub kind: Kind,
    /// The application behind the port.
    pub app: u32,
    /// The message that it answers.
    pub of: Option<Place>,
    /// Its bytes, a slice of what was fed.
    pub body: Bytes,
    /// To be stored with the effects: there iff the peer's lane has depth DISK.
    pub receipt: Option<Receipt>,
}

/// A step of the embedder's log: tickets grow, and `Persisted(t)` says that every ticket up to `t` is durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub u64);

/// What happened outside.
#[derive(Clone, Debug)]
pub enum Input {
    /// A fresh connection; an older one is gone. The dialer's `conn` (random) names it, the listener's is ignored.
    Connected {
        /// Nonce of the connection.
        conn: u64,
    },
    /// Bytes of the stream, cut anywhere. What continues a packet is not copied where it lies behind what came before it,
    /// in one block.
    Bytes(BytesMut),
    /// The connection is gone.
    Disconnected,
    /// All records up to this ticket are durable.
    Persisted(Ticket),
    /// The time that `Wait` named has come.
    Tick,
}

/// What is to be done outside.
#[derive(Clone, Debug)]
pub enum Output {
    /// Append this record to the session's log, then feed `Persisted`.
    Persist(Ticket, Record),
    /// Give the bytes of this message by [`crate::Session::provide`].
    Need(MsgId),
    /// Send these bytes on the connection.
    Transmit(Bytes),
    /// A message for the application.
    Deliver(Delivery),
    /// Something worth knowing.
    Event(Event),
    /// Drop the connection once what was transmitted is out; the session stays.
    Close(CloseReason),
    /// Nothing more now: feed `Tick` at this time at the latest.
    Wait(Option<Micros>),
}

/// Something worth knowing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Both sides have greeted. `resumed`: the peer remembers this session.
    Up {
        /// Whether anything of an earlier connection goes on.
        resumed: bool,
    },
    /// The connection is gone; the session waits for another.
    Down,
    /// Durable here (depth DISK): this message will be delivered, cancelled or reported.
    Stored(MsgId),
    /// The peer's application committed all messages of the lane up to and including this one.
    Acked {
        /// The lane.
        lane: Lane,
        /// The last of them.
        upto: MsgId,
    },
    /// The cancelled message has not been and will not be delivered.
    Cancelled(MsgId),
    /// The message was delivered before the cancel came, or may have been.
    TooLate(MsgId),
    /// The peer's durable facts do not continue my log: a new epoch began, unless the verdict says otherwise.
    Diverged {
        /// My sending lane.
        lane: Lane,
        /// What was found.
        verdict: Verdict,
        /// First and last of the messages that were acknowledged and are no longer known to the peer.
        lost: Option<(MsgId, MsgId)>,
        /// True where a restart of a lane of depth MEMORY explains it and nothing is lost.
        expected: bool,
    },
    /// The peer's lane began a new epoch: places of older ones are void, and what was not committed comes again.
    Renumbered {
        /// The peer's sending lane.
        lane: Lane,
        /// Its epoch from now on.
        epoch: u64,
    },
    /// A higher incarnation of this side took the session over: stop.
    Fenced,
    /// The peer will not talk.
    Refused(Refusal),
    /// The peer is done sending and will forget the session once this side has drained.
    PeerBye,
    /// Both sides have forgotten the session: drop this value. A peer that did not hear the last word dials again, and a
    /// fresh session of the same id tells it.
    Ended,
    /// A value of the peer; older ones of its topic may have been skipped.
    Signal {
        /// What it is about.
        topic: u16,
        /// The newest value.
        body: Bytes,
    },
    /// After `Full`: the lane's send buffer is half empty again.
    Room {
        /// The lane.
        lane: Lane,
    },
}

/// What a sender finds at resume by comparing the peer's durable facts with its log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The log goes on after the peer's floor.
    Resume,
    /// The peer was rewound below what has been forgotten here.
    Behind,
    /// The peer has more than was ever sent by this log: this side was restored or cloned.
    SenderBehind,
    /// Same numbers, other content.
    Fork,
    /// The peer knows another numbering.
    OtherEpoch,
    /// The peer knows nothing, and nothing was ever forgotten here.
    Fresh,
    /// The peer knows nothing, but something was forgotten here.
    Gone,
}

/// What a dialer shows before anything else is believed. A secret: it is compared, and never written anywhere.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Auth(pub Bytes);

impl std::fmt::Debug for Auth {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.0.is_empty() { "Auth(none)" } else { "Auth(secret)" })
    }
}

/// Why a peer will not talk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Same incarnation, other process: a copied directory.
    Clone,
    /// A higher incarnation has been seen.
    Fenced,
    /// Another protocol version.
    Version,
    /// The embedder's word: not allowed.
    Auth,
    /// The embedder's word: no room for another session.
    Busy,
    /// The dialer's own word: whoever listens there is not to be trusted, or only one of the two speaks TLS.
    Untrusted,
}

/// Why the connection is to be dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloseReason {
    /// The session has ended in agreement.
    Ended,
    /// This side or the peer refused.
    Refused(Refusal),
    /// The greeting did not come in time.
    HelloTimeout,
    /// Nothing heard for too long.
    Dead,
    /// Sent messages made no progress for too long.
    Stalled,
    /// A chain differed: the next greeting starts a new epoch.
    Diverged,
}

/// How to close.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// Send and receive what is open, then both forget.
    Drain,
    /// Forget at once.
    Now,
}

/// The peer broke the protocol: drop the connection. The session stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fatal {
    /// A length over the limit.
    #[error("packet of {len} bytes, at most {max} allowed")]
    TooLong {
        /// Announced bytes.
        len: usize,
        /// Allowed bytes.
        max: usize,
    },
    /// The checksum does not match.
    #[error("packet with a bad checksum")]
    Checksum,
    /// The bytes are no packet.
    #[error("packet does not decode")]
    Malformed,
    /// The first packet is no greeting.
    #[error("no greeting")]
    NoHello,
    /// The greeting is for another session.
    #[error("greeting for another session")]
    OtherSession,
    /// An acknowledgement of something never sent.
    #[error("acknowledgement of what was never sent")]
    AckUnsent,
    /// A message above the limit that was granted.
    #[error("message above the granted limit")]
    OverCredit,
    /// A body over the limit.
    #[error("body of {len} bytes, at most {max} allowed")]
    BodyTooLong {
        /// Its bytes.
        len: usize,
        /// Allowed bytes.
        max: usize,
    },
}

/// Why `send` takes nothing now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Full {
    /// The lane holds as many messages as it may; `Event::Room` follows.
    #[error("send buffer holds {max} messages")]
    Messages {
        /// The bound.
        max: usize,
    },
    /// The lane holds as many bytes as it may; `Event::Room` follows.
    #[error("send buffer holds {max} bytes")]
    Bytes {
        /// The bound.
        max: usize,
    },
    /// The body is longer than any may be; never retry.
    #[error("body of {len} bytes, at most {max} allowed")]
    BodyTooLong {
        /// Its bytes.
        len: usize,
        /// Allowed bytes.
        max: usize,
    },
    /// A reference on a lane of depth DISK, which must hold its bodies; never retry.
    #[error("a lane of depth DISK takes inline bodies only")]
    RefOnDisk,
    /// The session is closing or has ended; never retry.
    #[error("session is closing")]
    Closing,
}

/// A look at a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status {
    /// Both sides have greeted on a live connection.
    pub up: bool,
    /// When the peer was last heard, on any connection.
    pub last_heard: Option<Micros>,
    /// Messages that wait for their acknowledgement, per lane.
    pub unacked: [usize; 2],
    /// Inline bytes that wait for their acknowledgement, per lane.
    pub unacked_bytes: [usize; 2],
    /// Deliveries that wait for their commit, per lane.
    pub uncommitted: [usize; 2],
    /// Both sides have forgotten the session.
    pub ended: bool,
}
