//! Carriers, and the link driver that keeps a session on one. Shell: it moves bytes and time and decides nothing.
//!
//! It knows sessions, no tasks. Plain TCP is for loopback only, and everything else has TLS; every buffer and wait is bounded ([`limits`]).

mod alarm;
pub mod authority;
mod carrier;
mod clock;
mod dial;
mod error;
mod intake;
pub mod limits;
mod link;
mod listen;
mod outbound;
mod source;
mod strangers;
pub mod tls;

pub use alarm::Alarm;
pub use carrier::{Carrier, InProcess, Origin};
pub use clock::Clock;
pub use dial::{Backoff, Remote, Target};
pub use error::NetError;
pub use link::Link;
pub use listen::{Arrival, Incoming, Listener};
pub use source::Source;
