//! A conversation between two peers that outlives connections, processes and, if asked, disks.
//!
//! A [`Session`] is a pure machine: [`Session::feed`] what arrived, [`Session::take`] what is to be done. It knows no
//! clock, no socket, no file and no task: payloads are bytes, time is an argument, effects are values.
//!
//! Each direction has two lanes (urgent and bulk); a lane is a log of messages numbered 1, 2, 3 … An acknowledgement is
//! a guarantee: the receiving application said [`Session::commit`]. A sender that asks for depth DISK has each message
//! persisted before it leaves, so that it survives its own `kill -9` too.
//!
//! Invariants I1 to I18 of the protocol are checked in `tests`, in a world of two sessions and one faulty pipe.

mod ack;
mod config;
mod endpoint;
mod faults;
mod greet;
mod lane_rx;
mod lane_tx;
mod link;
mod micros;
mod receive;
mod record;
mod resume;
mod rng;
mod session;
mod state;
#[cfg(test)]
mod tests;
mod timers;
mod transmit;
mod types;
mod wire;

#[cfg(feature = "mutations")]
pub use config::Mutation;
pub use config::{Config, Faults, Timers};
pub use endpoint::{Endpoint, Step};
pub use micros::Micros;
pub use record::{BadRecord, Record};
pub use rng::Rng;
pub use session::Session;
pub use state::{State, StoredMsg, TxState};
pub use types::{
    Auth, Body, CloseReason, Delivery, Depth, Event, Fatal, Full, How, Input, Kind, Lane, MsgId, Outgoing, Output,
    Place, Receipt, Refusal, SessionId, Side, Status, Ticket, Verdict,
};
pub use wire::{HelloInfo, peek_hello, refuse};
