//! What the machine of calls takes and gives.

use bytes::Bytes;
use bytestring::ByteString;
use sheaf_roles::client::{Event, Tag, Ticket};
use sheaf_task::{JobId, Key, Outcome, Piece, Refusal, RowId, ToRouter};

/// One who waits for a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Waiter(pub u64);

/// Digest of what a call asks for, body and all; the same bytes, the same digest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Digest(pub [u8; 16]);

/// Calls that agree in this share a job.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct JobKey {
    /// Which service.
    pub service: String,
    /// What changes when its answers change: the path of the API, as a rule.
    pub revision: String,
    /// Longest time of an attempt, milliseconds; 0: none.
    pub timeout_ms: u64,
}

/// Whether a call is work of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Identity {
    /// It is.
    Own,
    /// Calls of this name and body are the same work.
    Named,
    /// A client tries again what it has lost: the last call of this body, else as `Named`.
    Retry,
}

/// A call.
#[derive(Clone, Debug)]
pub(crate) struct NewCall {
    pub job: JobKey,
    pub body: Bytes,
    pub identity: Identity,
    /// Its name: random, or digest of what names it.
    pub row: RowId,
    /// Its ordinal among equal bodies: as random, or derived from the same.
    pub sample: u32,
    pub digest: Digest,
    /// It goes on when nobody waits for it.
    pub keep: bool,
    /// Answered as soon as it is on the router's disk.
    pub is_async: bool,
}

/// What became of a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Told {
    /// It is on disk, under this name.
    Accepted(Key),
    /// It is done.
    Done(Done),
}

/// How a call ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Done {
    pub key: Key,
    pub outcome: Outcome,
    pub attempts: u32,
    pub worker: ByteString,
    /// How long the last attempt took, milliseconds.
    pub ms: u64,
}

/// Why a call is not taken, or not taken any further.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    /// Too much is under way here.
    Full,
    /// The router will not.
    Router(Refusal),
    /// The door closes.
    Closing,
    /// Nobody has waited for it for long.
    GivenUp,
}

/// One input.
#[derive(Clone, Debug)]
pub(crate) enum Input {
    /// A client calls.
    Call { waiter: Waiter, call: NewCall },
    /// A client waits no more.
    Gone(Waiter),
    /// From the router, about this job or about the session.
    Router { job: Option<JobId>, event: Event },
    /// A piece of the answer to a call.
    Piece { row: RowId, piece: Piece },
    /// The time of the deadline has come.
    Tick,
}

/// One effect.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Output {
    /// Say this to the router.
    Send { tag: Option<Tag>, message: ToRouter },
    /// Everything up to this delivery is dealt with.
    Commit(Ticket),
    /// Show the client a piece of the answer, if it watches.
    Show { waiter: Waiter, piece: Piece },
    /// Answer the client.
    Tell { waiter: Waiter, told: Result<Told, Refused> },
}
