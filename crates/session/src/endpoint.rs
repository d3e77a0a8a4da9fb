//! What a link driver drives: a session, or something pure that owns one and gives its messages meaning.
//!
//! The driver moves bytes and time and decides nothing; so what it drives runs in the simulator just as well.

use bytes::Bytes;

use crate::{CloseReason, Fatal, HelloInfo, Input, Micros, Refusal};

/// One side of a session as its driver sees it.
pub trait Endpoint {
    /// What its embedder asks of it.
    type Command;
    /// What it tells its embedder.
    type Report;

    /// Whether a dialer may take the connection over, asked before the present one is let go: somebody else with a copy
    /// of the dialer's state must not end its conversation. One that never listens is never asked.
    ///
    /// # Errors
    /// Why not: to be told to the comer, and to nobody else.
    fn admit(&self, _hello: &HelloInfo) -> Result<(), Refusal> {
        Ok(())
    }

    /// Something happened outside.
    ///
    /// # Errors
    /// The peer broke the protocol: drop the connection, and say so by `Disconnected`.
    fn input(&mut self, now: Micros, input: Input) -> Result<(), Fatal>;

    /// Bytes that are missing of a packet that came in part, as far as it knows; zero: the next byte begins a packet. A
    /// driver that reads these behind the others, into the same block, spares that packet a copy.
    fn missing_bytes(&self) -> usize;

    /// The embedder asks.
    fn command(&mut self, now: Micros, command: Self::Command);

    /// What is to be done outside; called until it says `Wait` or `Done`.
    fn poll(&mut self, now: Micros) -> Step<Self::Report>;
}

/// One thing to be done outside.
#[derive(Clone, Debug)]
pub enum Step<R> {
    /// Send these bytes on the connection.
    Transmit(Bytes),
    /// Tell the embedder.
    Report(R),
    /// Drop the connection once what was transmitted is out.
    Close(CloseReason),
    /// Nothing more now: input `Tick` at this time at the latest.
    Wait(Option<Micros>),
    /// The session is over: the driver may go.
    Done,
}
