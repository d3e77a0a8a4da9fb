//! What the router machine is told and what it asks for: the events and outputs of [`Router`](super::Router).
//!
//! It deliberately knows no sessions, sockets or bytes on a wire: a peer is a number, a message is decoded, a body that
//! goes out is the LSN of the record that holds it. Ports turn all of that into session traffic.

use bytes::Bytes;
use sheaf_session::{Lane, Micros, Place, Receipt, SessionId};
use sheaf_task::{
    Answer, Capacity, Fence, JobCounts, JobId, JobSpec, Key, Piece, Question, Registration, ResultItem, RowId,
    TaskInfo, ToClient, ToWorker,
};

use super::record::{JobNo, Record};

/// Position of a record in the journal; the machine counts them itself. 0: before the first record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lsn(pub u64);

impl Lsn {
    /// Before every record: an output that relies on nothing.
    pub const NONE: Lsn = Lsn(0);

    /// The one after.
    pub fn next(self) -> Lsn {
        Lsn(self.0 + 1)
    }
}

/// A session, as the shell numbers it. A number is never given to another session within the router's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerId(pub u64);

/// The router's number of a bulk message to a peer: 1, 2, 3 … per peer. The shell maps the session's ids to it and
/// reports [`Event::Acked`]. Urgent messages carry [`Tag::NONE`] and are not reported.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tag(pub u64);

impl Tag {
    /// Of messages whose acknowledgement nobody needs.
    pub const NONE: Tag = Tag(0);
}

/// How many seals of the index of finished keys a look-up has seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Generation(pub u64);

/// What the journal knows of a key and a row, found by the shell through the index ([`super::record::prior_of`]).
///
/// A wrong or missing hint costs a second execution, never a wrong answer: the port checks the record that it reads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Prior {
    /// The best outcome on record: the newest `Finished` that is ok, else the newest that failed.
    pub finished: Option<PriorFinished>,
    /// The delivery number that this job gave to this row, if it did.
    pub number: Option<u64>,
    /// The job has seen a failure of this key: final for it until `retry`.
    pub failed_here: bool,
}

/// A `Finished` record of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PriorFinished {
    /// Where.
    pub lsn: Lsn,
    /// It is an answer.
    pub ok: bool,
    /// Bytes of its outcome.
    pub len: u32,
}

/// A submitted row with its key, as the peer's own task hashed and looked it up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyedRow {
    /// The client's identity of it.
    pub row: RowId,
    /// The task that it asks for.
    pub key: Key,
    /// Ordinal of its body among equal bodies of the job.
    pub sample: u32,
    /// The body.
    pub body: Bytes,
    /// What the index knows of `key`; `None`: not found.
    pub prior: Option<Prior>,
}

/// [`sheaf_task::ToRouter`], with rows keyed and looked up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Inbound {
    /// Opens a job, or takes one up.
    OpenJob {
        /// The job.
        spec: JobSpec,
        /// The tenant that it belongs to; empty: whoever runs the router.
        app: String,
    },
    /// Rows of a job.
    Submit {
        /// The job.
        job: JobId,
        /// What its sink is known to have: see [`sheaf_task::ToRouter::Submit`].
        cursor: u64,
        /// At most [`sheaf_task::BATCH_ROWS_MAX`].
        rows: Vec<KeyedRow>,
        /// Of the index that the rows were looked up in.
        generation: Generation,
    },
    /// The source is at its end.
    Scanned {
        /// The job.
        job: JobId,
    },
    /// A question.
    Ask {
        /// The asker's number.
        id: u64,
        /// What is asked.
        question: Question,
        /// For [`Question::Task`]: what the index knows of the key.
        prior: Option<Prior>,
        /// For [`Question::Task`]: jobs that the index knows to have asked for the key.
        owners: Vec<JobNo>,
        /// What is there for the asker.
        view: View,
    },
    /// A worker's introduction.
    Register(Registration),
    /// Attempts that ended.
    Results(Vec<ResultItem>),
    /// Attempts given back unstarted.
    Recalled(Vec<Fence>),
    /// The worker goes for good.
    Leave,
    /// Pieces of the job's answers are wanted.
    Watch {
        /// The job.
        job: JobId,
    },
    /// A piece of an answer.
    Piece(Piece),
}

/// Which jobs, and tasks of jobs, are there for somebody.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum View {
    /// All.
    All,
    /// Those of this tenant.
    App(String),
}

impl View {
    pub(super) fn has(&self, app: &str) -> bool {
        match self {
            View::All => true,
            View::App(own) => own == app,
        }
    }
}

/// What the disk says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Disk {
    /// No room but the reserve: intake is refused, the rest goes on.
    Full,
    /// There is room again.
    Room,
}

/// One input of the machine.
#[derive(Clone, Debug)]
pub enum Event {
    /// A session has a live connection, for the first time or again.
    PeerUp {
        /// Which.
        peer: PeerId,
    },
    /// Its connection is gone; the session waits.
    PeerDown {
        /// Which.
        peer: PeerId,
    },
    /// The session is over for good.
    PeerGone {
        /// Which.
        peer: PeerId,
    },
    /// Something, anything, came from the peer. At most about once a second.
    Heard {
        /// From whom.
        peer: PeerId,
        /// When.
        at: Micros,
    },
    /// A message of the peer.
    Message {
        /// From whom.
        peer: PeerId,
        /// What to commit once its effects are durable.
        place: Place,
        /// From a lane of depth DISK: what to make durable in the same commit.
        receipt: Option<(SessionId, Receipt)>,
        /// The message.
        inbound: Inbound,
    },
    /// A worker's capacity signal.
    Announce {
        /// From whom.
        peer: PeerId,
        /// What it says.
        capacity: Capacity,
    },
    /// The peer has committed every bulk message up to this one.
    Acked {
        /// Who.
        peer: PeerId,
        /// The last.
        upto: Tag,
    },
    /// Every record up to this one is on disk.
    Durable(Lsn),
    /// The index now covers all keys finished up to `upto`; look-ups from now on carry `generation`.
    Sealed {
        /// Up to which record.
        upto: Lsn,
        /// The index that has them.
        generation: Generation,
    },
    /// This record cannot be read back. What is sent again may want one that has rightly left the journal; whatever is
    /// still owed is lost, and said so: a held task fails with that as its evidence, and [`Output::Lost`] follows.
    Unreadable {
        /// Which.
        lsn: Lsn,
        /// What for.
        wanted: Wanted,
    },
    /// The disk fills or has room again.
    Disk(Disk),
    /// The time has come ([`super::Router::deadline`]). The last event of a batch, so that silence is judged only after
    /// pending input was read.
    Tick,
    /// Stop gracefully.
    Stop,
}

/// What a message wanted a record for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// It is the body of a task.
    Body,
    /// The result of this number.
    Result {
        /// Of this job.
        job: JobNo,
        /// Delivery number.
        number: u64,
    },
    /// A failure on a job's list.
    Failure {
        /// The `Submitted` record that holds its body.
        body: Lsn,
    },
}

/// One effect that the machine wants.
#[derive(Clone, Debug, PartialEq)]
pub enum Output {
    /// Append this record; they come in LSN order, the first at the `next_lsn` given to [`super::Router::start`].
    Append {
        /// Its position.
        lsn: Lsn,
        /// The record.
        record: Record,
    },
    /// The effects of this message are durable: commit it in its session.
    Commit {
        /// Whose.
        peer: PeerId,
        /// Which.
        place: Place,
    },
    /// Send a message.
    Send {
        /// To whom.
        peer: PeerId,
        /// On which lane.
        lane: Lane,
        /// Its number on the bulk lane.
        tag: Tag,
        /// What.
        message: Outbound,
    },
    /// Look the keys of this `Submit` up in the present index, then hand the same message in again.
    Relook {
        /// Whose.
        peer: PeerId,
        /// Of the message.
        place: Place,
        /// Of the message.
        receipt: Option<(SessionId, Receipt)>,
        /// The message.
        inbound: Box<Inbound>,
    },
    /// Signal on topic PROGRESS.
    Signal {
        /// To whom.
        peer: PeerId,
        /// Where its job stands.
        counts: JobCounts,
    },
    /// This record is still needed and cannot be read: tell the operator.
    Lost(Lsn),
    /// Everything is durable and nothing more will come: end.
    Stopped,
}

/// A message of the router, bodies as references.
#[derive(Clone, Debug, PartialEq)]
pub enum Outbound {
    /// Complete as it stands.
    Client(Box<ToClient>),
    /// [`ToClient::JobOpened`], and what the port needs to look up rows of the job ([`super::record::prior_of`]).
    Opened {
        /// The job as records name it.
        job_no: JobNo,
        /// The message.
        message: Box<ToClient>,
    },
    /// Complete as it stands.
    Worker(ToWorker),
    /// [`ToWorker::Assign`].
    Assign {
        /// What all of them ask for.
        service: String,
        /// In order.
        items: Vec<AssignItem>,
    },
    /// [`ToClient::Deliver`].
    Deliver {
        /// The job.
        job: JobId,
        /// The job as records name it.
        job_no: JobNo,
        /// In order of number, without gaps.
        items: Vec<DeliverItem>,
    },
    /// [`Answer::Failures`].
    Failures {
        /// The asker's number.
        id: u64,
        /// In order of number.
        items: Vec<FailureItem>,
    },
    /// [`Answer::Task`] of a finished task.
    Task {
        /// The asker's number.
        id: u64,
        /// Its key. The rest the record gives; until then `body_len` is about how long the record is.
        info: Box<TaskInfo>,
        /// The record with its outcome.
        finished: Lsn,
    },
}

impl Outbound {
    /// A message that is complete as it stands.
    pub(crate) fn client(message: ToClient) -> Self {
        Outbound::Client(Box::new(message))
    }

    /// An answer that is complete.
    pub(super) fn answer(id: u64, answer: Answer) -> Self {
        Self::client(ToClient::Answer { id, answer })
    }
}

/// One assignment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AssignItem {
    /// Which attempt.
    pub fence: Fence,
    /// Longest time that it may take, milliseconds; 0: none.
    pub timeout_ms: u64,
    /// A suspect.
    pub alone: bool,
    /// The `Submitted` record with the body ([`super::record::body_of_submitted`]).
    pub body: Lsn,
    /// Bytes of the body.
    pub len: u32,
}

/// One result on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeliverItem {
    /// Delivery number.
    pub number: u64,
    /// The `Finished`, `Withdrawn` or `Cached` record that gave the number ([`super::record::delivered`]).
    pub record: Lsn,
    /// Bytes of the outcome, rounded up to 64; for budgets.
    pub len: u32,
}

/// One failed row of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FailureItem {
    /// Delivery number.
    pub number: u64,
    /// The client's identity of it.
    pub row: RowId,
    /// The task.
    pub key: Key,
    /// The `Finished` record that holds the failure, or the `Withdrawn` one of a cancelled row.
    pub finished: Lsn,
    /// The `Submitted` record that holds the body.
    pub body: Lsn,
}
