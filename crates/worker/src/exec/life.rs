//! One life of a long-lived program: its pipes, and what is under way in them.

use std::time::Duration;

use bytes::BytesMut;
use tokio::net::unix::pipe;
use tokio::time::Instant;

use super::line;
use super::pipes::{self, Tail};
use crate::keeper::{Attended, Keeper};

/// Once its first process has ended, how long its output may stay open.
const OUTPUT_LINGER: Duration = Duration::from_secs(1);
/// How long it may live on with its input or output closed.
const MUTE_MAX: Duration = Duration::from_secs(1);
/// After the end of its input, how long it may take to leave.
const LEAVE_WITHIN: Duration = Duration::from_secs(5);

/// A running program.
pub(super) struct Life {
    pub(super) keeper: Keeper,
    pub(super) program: Attended,
    pub(super) stdin: Option<pipe::Sender>,
    pub(super) outgoing: BytesMut,
    pub(super) incoming: Vec<u8>,
    pub(super) tail: Tail,
    pub(super) errors: Vec<u8>,
    pub(super) strays: u32,
    /// Since then it cannot be talked to: its input or output is closed.
    pub(super) mute_since: Option<Instant>,
    pub(super) stdout_ended: bool,
    /// We ended it: what it had in flight is not to blame.
    pub(super) killed: bool,
}

impl Life {
    pub(super) fn new(keeper: Keeper, mut program: Attended) -> Self {
        let stdin = program.stdin.take();
        Self {
            keeper,
            program,
            stdin,
            outgoing: BytesMut::new(),
            incoming: Vec::with_capacity(64 << 10),
            tail: Tail::default(),
            errors: vec![0; 4 << 10],
            strays: 0,
            mute_since: None,
            stdout_ended: false,
            killed: false,
        }
    }

    pub(super) async fn kill(&mut self) {
        if !self.killed {
            self.killed = true;
            self.keeper.kill(self.program.id).await;
        }
    }

    /// It has closed its input or output. One that is about to end does that; one that stays is of no use.
    pub(super) fn on_closed(&mut self) {
        self.mute_since.get_or_insert_with(Instant::now);
    }

    /// When it is ended for that.
    pub(super) fn mute_until(&self) -> Option<Instant> {
        self.mute_since.map(|since| since + MUTE_MAX)
    }

    /// Ends it for its own fault: what it had in flight is to blame as if it had died.
    pub(super) async fn end(&mut self) {
        self.mute_since = None;
        self.keeper.kill(self.program.id).await;
    }

    /// Reads what is left of a dead program's output and errors.
    pub(super) async fn drain(&mut self) {
        self.stdin = None;
        let Self { program, incoming, tail, stdout_ended, .. } = self;
        let rest = async {
            let limit = line::LINE_BYTES_MAX;
            if !*stdout_ended && pipes::gather(&mut program.stdout, incoming, limit).await {
                tracing::warn!("a long-lived program died in the middle of a very long line");
            }
            pipes::follow(&mut program.stderr, tail).await;
        };
        if tokio::time::timeout(OUTPUT_LINGER, rest).await.is_err() {
            tracing::warn!("something that a long-lived program left behind holds its pipes");
        }
    }

    /// Tells the program to go, by the end of its input; one that stays is killed.
    pub(super) async fn leave(mut self) {
        self.stdin = None;
        if tokio::time::timeout(LEAVE_WITHIN, &mut self.program.end).await.is_err() {
            self.kill().await;
        }
    }
}
