//! What an embedder may set: depths, identity, bounds, timers and injected faults. Each bound states what happens at it.

use crate::{Auth, Depth, Micros};

/// Settings of one side of a session. Both sides may differ; what matters to the peer is announced in the greeting.
#[derive(Clone, Debug)]
pub struct Config {
    /// How deep my own sending lanes are stored: urgent, bulk.
    pub depth_tx: [Depth; 2],
    /// Grows by one, durably, at each start of this side; a higher one fences a lower one. Also the base of epochs.
    pub incarnation: u64,
    /// A random number of this process: tells a restart from a clone.
    pub boot: u64,
    /// Shown to the listener before anything else is believed.
    pub auth: Auth,
    /// Longest body; a longer one is refused by `send` and fatal on arrival.
    pub body_max: usize,
    /// Longest packet; a longer one is fatal before anything is allocated. At least the peer's `body_max` and twice its
    /// `packet_aim`.
    pub packet_max: usize,
    /// Packets are filled up to about this many bytes.
    pub packet_aim: usize,
    /// Bytes of bodies received and not yet committed, both lanes together; the credit given keeps the peer within.
    pub buffer_max: usize,
    /// Messages waiting for their acknowledgement on one lane; at it `send` says `Full`.
    pub outbox_messages_max: usize,
    /// Inline bytes waiting for their acknowledgement on one lane; at it `send` says `Full`.
    pub outbox_bytes_max: usize,
    /// Messages that the peer may send ahead of my commits at first; doubles each time it says that it is blocked.
    pub window: u64,
    /// The window never exceeds this.
    pub window_max: u64,
    /// All timers.
    pub timers: Timers,
    /// The carrier may lose packets: probe for what is not acknowledged. Implied by `faults` on either side.
    pub lossy: bool,
    /// Faults to inject on this side; `None` in earnest.
    pub faults: Option<Faults>,
    /// The rule that this side breaks, so that the checkers can show that they see it.
    #[cfg(feature = "mutations")]
    pub mutation: Option<Mutation>,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            depth_tx: [Depth::Memory; 2],
            incarnation: 1,
            boot: 0,
            auth: Auth::default(),
            body_max: 1 << 20,
            packet_max: 2 << 20,
            packet_aim: 64 << 10,
            buffer_max: 8 << 20,
            outbox_messages_max: 1 << 17,
            outbox_bytes_max: 16 << 20,
            window: 100,
            window_max: 65_536,
            timers: Timers::default(),
            lossy: false,
            faults: None,
            #[cfg(feature = "mutations")]
            mutation: None,
        }
    }
}

/// All spans of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timers {
    /// An acknowledgement waits this long for company (at most [`Timers::ACK_DELAY_MAX`]).
    pub ack_delay: Micros,
    /// The least pause before what was not acknowledged is probed for (lossy carriers).
    pub probe_min: Micros,
    /// Probes double their pause up to this.
    pub probe_max: Micros,
    /// Ordered carriers: this long without progress on sent messages closes the connection. Each connection that ends so
    /// is followed by one that has twice the time, up to `stall_max`.
    pub stall: Micros,
    /// The longest time without progress.
    pub stall_max: Micros,
    /// A ping after this long without sending.
    pub heartbeat: Micros,
    /// The connection is dead after this long without hearing.
    pub dead: Micros,
    /// The greeting must be done by then.
    pub hello: Micros,
}

impl Timers {
    /// No acknowledgement waits longer, whatever `ack_delay` says.
    pub const ACK_DELAY_MAX: Micros = Micros::from_secs(1);
}

impl Default for Timers {
    fn default() -> Timers {
        Timers {
            ack_delay: Micros::from_ms(5),
            probe_min: Micros::from_ms(10),
            probe_max: Micros::from_secs(5),
            stall: Micros::from_secs(10),
            stall_max: Micros::from_secs(10),
            heartbeat: Micros::from_secs(5),
            dead: Micros::from_secs(15),
            hello: Micros::from_secs(10),
        }
    }
}

/// Faults injected inside the session, on packets in either direction and on deliveries; all but `seed` are
/// probabilities in 0..=1. The protocol itself repairs them.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Faults {
    /// A packet vanishes; a message vanishes on its way to the application.
    pub drop: f64,
    /// A packet comes twice.
    pub dup: f64,
    /// A packet lets the next ones pass.
    pub reorder: f64,
    /// A packet is held back for up to 50 ms.
    pub delay: f64,
    /// Everything random about them.
    pub seed: u64,
}

/// One rule removed, for proving that a checker sees its absence.
#[cfg(feature = "mutations")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutation {
    /// The sender ignores the limit that it was granted.
    NoCreditCheck,
    /// The sender never compares chains.
    NoChainCheck,
    /// The receiver acknowledges on delivery.
    AckBeforeCommit,
    /// A message of depth DISK leaves before it is persisted.
    SendBeforePersist,
}
