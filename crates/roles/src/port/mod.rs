//! Ports: each owns a session and speaks for one machine. Session deliveries become machine events, machine outputs
//! become session messages. Pure; a port runs wherever its session runs, in a shell's connection task or in the simulator.
//!
//! They deliberately know no sockets, no journal and no machine state: what needs those is asked for by a report and
//! answered by a command.
//!
//! | port | side | its machine | asks for |
//! |---|---|---|---|
//! | [`RouterPort`] | listener | [`crate::router`] | keys looked up, bodies fetched by LSN |
//! | [`WorkerPort`] | dialer, bulk lane DISK or MEMORY | [`crate::worker`] | records spooled |
//! | [`ClientPort`] | dialer, MEMORY | [`crate::client`], or an operator's questions | |
//!
//! Invariant: a message that does not decode ends the session, and is never committed.

mod client;
mod lookup;
mod principal;
mod pump;
mod router;
mod serve;
#[cfg(test)]
mod tests;
mod worker;

pub use client::{ClientCommand, ClientPort, ClientReport};
pub use lookup::look_up;
pub use principal::Principal;
pub use router::{Fetched, RouterCommand, RouterPort, RouterReport};
pub use worker::{WorkerCommand, WorkerPort, WorkerReport};

use sheaf_session::{Config, Depth, Micros, Refusal};

/// Why a session is over for good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Over {
    /// Both sides agreed.
    Ended,
    /// The peer will not talk.
    Refused(Refusal),
    /// A later life of this side has taken it over.
    Fenced,
    /// The peer sent what is no message of its role.
    Malformed,
    /// The peer left more unread than is kept for it.
    Overrun,
}

/// Longest encoded message: one body of the largest size, or a batch, with what stands around it.
pub const MESSAGE_BYTES_MAX: usize = (2 << 20) - (64 << 10);

/// Everybody is heard this often, however idle the session: a lease lives as long as its worker is heard, so a grace must
/// be a few times this ([`GRACE_MIN`]), and so must [`DOUBT`].
const HEARTBEAT: Micros = Micros::from_secs(1);

/// A dialer that hears nothing for so long, or of whose messages none arrives for so long, connects anew. What was lost in a
/// cut of some seconds TCP sends again only after as long again; a new connection is there soon after the cut.
const DOUBT: Micros = Micros::from_secs(3);

/// The shortest grace that a router should be given: a shorter one takes silence between two heartbeats for loss.
pub const GRACE_MIN: Micros = Micros::from_secs(3);

/// `config` as these ports need it: bodies as long as their messages, and the depths of the lanes.
pub fn fit_config(mut config: Config, bulk: Depth) -> Config {
    config.timers.heartbeat = HEARTBEAT;
    Config { depth_tx: [Depth::Memory, bulk], body_max: MESSAGE_BYTES_MAX, packet_max: 2 << 20, ..config }
}

/// [`fit_config`] for those who connect. Where packets are lost one by one, silence says less.
pub fn fit_dialer_config(mut config: Config, bulk: Depth) -> Config {
    if !config.lossy && config.faults.is_none() {
        (config.timers.dead, config.timers.stall) = (DOUBT, DOUBT);
    }
    fit_config(config, bulk)
}
