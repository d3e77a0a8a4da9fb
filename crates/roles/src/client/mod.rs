//! The client machine: rows of one job on their way to the router, results on their way into the sink.
//!
//! It deliberately knows no source, no sink and no session: the shell reads and commits what the outputs say, the port
//! carries messages. Rows are named by the shell; bodies leave with the message that submits them and are not kept.
//!
//! ```text
//! row:  Read ─► Submitted ─► (acknowledged) ─► delivered ─► written ─► in the sink
//!          ▲        │ refused as busy, or the router lost it
//!          └────────┘ the source is read again
//! run:  Opening ─► Running ─► Closing: everything is in the sink, the router is asked whether nothing is open ─► Over
//! ```
//!
//! A job that was cancelled takes no more rows. What the router has of it (results that the sink lacks, rows that were
//! withdrawn) is brought in all the same, and only then the run ends as refused.
//!
//! Invariants: the session commits a delivery only when the sink has it, with the cursor, in one act; deliveries enter
//! the sink in order of their numbers, each once; a row that this run does not know is never written, but its number
//! counts; memory is a few dozen bytes per row (`rows`), and no body.

mod deliver;
mod end;
mod rows;
mod submit;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;

use bytes::Bytes;
use bytestring::ByteString;
use sheaf_session::Micros;
use sheaf_task::{DeliveredRow, Failure, JobCounts, JobSpec, Key, Outcome, Refusal, RouterId, RowId, ToRouter};

use deliver::Deliveries;
use rows::Rows;
use submit::Submissions;

/// What to do.
#[derive(Clone, Debug)]
pub struct Config {
    /// The job, with the sink's cursor as it is at the start.
    pub spec: JobSpec,
    /// Stop when more rows than this failed in this run.
    pub failures_max: Option<u64>,
    /// The job is cancelled, or may be by now: submit nothing, bring in what the router has of it.
    pub collects: bool,
}

/// A row read from the source that the sink does not have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScannedRow {
    /// Where it stands in the source, from 1; below 2^38.
    pub number: u64,
    /// Its name.
    pub row: RowId,
    /// Ordinal of its body among equal bodies; 0 with `--share`.
    pub sample: u32,
    /// Its body, or why it can be no task: then it goes into the sink as failed.
    pub body: Result<Bytes, Failure>,
}

/// Rows that the sink has already.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Kept {
    /// How many, failed ones included.
    pub rows: u64,
    /// Name and number of those without an answer: an operator's retry may bring them one.
    pub failed: Vec<(RowId, u64)>,
}

/// The shell's handle of one delivery message, in order of arrival from 1; the port maps it to the session's place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub u64);

/// Number of a bulk message of this machine, in order from 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tag(pub u64);

/// Number of an [`Output::Write`], in order from 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WriteId(pub u64);

/// One input.
#[derive(Clone, Debug)]
pub enum Event {
    /// The session has a live connection.
    Up,
    /// It has none.
    Down,
    /// What the router had acknowledged may be lost to it, or the session was begun anew: unfinished rows go again.
    Lost,
    /// The answer to [`Output::Read`]: the next rows; none when all that were read are in the sink.
    Scanned {
        /// Those to be worked on.
        rows: Vec<ScannedRow>,
        /// Those that are in the sink.
        kept: Kept,
    },
    /// The answer to [`Output::Read`]: there are no more rows.
    SourceEnd,
    /// The job is open.
    Opened {
        /// Who answers.
        router: RouterId,
        /// The number from which it delivers.
        cursor: u64,
        /// Where the job stands.
        counts: JobCounts,
    },
    /// It is not.
    JobRefused(Refusal),
    /// The router has on disk every `Submit` up to this one.
    Acknowledged(Tag),
    /// Rows were not accepted.
    RowsRefused {
        /// Which.
        rows: Vec<RowId>,
        /// Why.
        refusal: Refusal,
    },
    /// Results.
    Delivered {
        /// Of the message.
        ticket: Ticket,
        /// In order of number.
        rows: Vec<DeliveredRow>,
    },
    /// The router's word on where the job stands.
    Progress(JobCounts),
    /// The sink has committed every write up to this one.
    Written(WriteId),
    /// Ctrl-C: submit nothing more, finish what the sink is doing, end.
    Interrupt,
    /// The time of [`Client::deadline`] has come.
    Tick,
}

/// One effect.
#[derive(Clone, Debug, PartialEq)]
pub enum Output {
    /// Read the next rows, at most so many and about so many bytes; answered by `Scanned` or `SourceEnd`.
    Read {
        /// Rows.
        rows: usize,
        /// Bytes of bodies.
        bytes: usize,
    },
    /// Begin the source again with its first row, with the same names; `Read` follows. Rows kept are kept again.
    Rewind,
    /// Say this to the router.
    Send {
        /// Its number, for `Submit`.
        tag: Option<Tag>,
        /// What.
        message: ToRouter,
    },
    /// Commit these rows and this cursor in the sink, both or neither; answered by `Written`. In order; at most
    /// [`WRITES_MAX`] are asked for and not answered.
    Write {
        /// Its number.
        id: WriteId,
        /// The rows; may be none, when only the cursor moves.
        rows: Vec<WriteRow>,
        /// The cursor after them; `None`: it stays.
        cursor: Option<Cursor>,
    },
    /// The effects of every delivery up to this one are durable.
    Commit(Ticket),
    /// It is over; nothing comes after it.
    Done(Ended),
}

/// Writes asked for and not answered, at most; deliveries wait behind them, bounded by the session's credit.
pub const WRITES_MAX: usize = 4;

/// A row for the sink.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WriteRow {
    /// Its name.
    pub row: RowId,
    /// Where it stands in the source.
    pub number: u64,
    /// How it ended.
    pub outcome: Outcome,
    /// The task; `None` for a row that never became one.
    pub key: Option<Key>,
    /// Attempts that it took.
    pub attempts: u32,
    /// Who did it.
    pub worker: ByteString,
    /// How long the last attempt took, milliseconds.
    pub ms: u64,
}

/// Up to where a router's deliveries are in the sink.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cursor {
    /// Whose numbers.
    pub router: RouterId,
    /// Up to and including.
    pub number: u64,
}

/// How it ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    /// Why.
    pub reason: Reason,
    /// The books.
    pub audit: Audit,
}

/// Why a run ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    /// Every row has its outcome in the sink, or is counted as lost.
    Complete,
    /// Interrupted; the same command resumes.
    Interrupted,
    /// More rows failed than allowed; the same command resumes.
    TooManyFailures,
    /// The router will not have the job. Where it was cancelled: every outcome that the router had is in the sink.
    Refused(Refusal),
    /// The router left out deliveries: what came before them is in the sink; the same command asks for them again.
    Gap {
        /// The last number that is there.
        after: u64,
        /// The one that came next.
        got: u64,
    },
}

/// The books of a run: `submitted = ok + failed + open`, and `lost` is a part of `open`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Audit {
    /// Rows of this run that the sink did not have.
    pub submitted: u64,
    /// Of those, in the sink with an answer.
    pub ok: u64,
    /// Of those, in the sink without one.
    pub failed: u64,
    /// Of those, not in the sink.
    pub open: u64,
    /// Acknowledged by the router, not in the sink, and not open at the router: must be 0.
    pub lost: u64,
    /// Times that the sink was asked to write a row that it had an answer of: must be 0.
    pub repeated: u64,
    /// Of those with an answer: nobody executed them for this job.
    pub cached: u64,
    /// Rows that the sink had from earlier runs.
    pub resumed: u64,
    /// Of those: without an answer.
    pub resumed_failed: u64,
    /// Deliveries that were not written: of rows that this run does not know (deleted or changed since), or that had
    /// their answer.
    pub stale: u64,
}

/// How far the run is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Running,
    /// No more rows are read or sent; ends when the sink has what it was given.
    Stopping(Stop),
    Over,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stop {
    Interrupt,
    Failures,
    Gap {
        after: u64,
        got: u64,
    },
    /// With `Client::refused`.
    Refused,
}

/// The machine.
#[derive(Debug)]
pub struct Client {
    config: Config,
    phase: Phase,
    up: bool,
    /// The router that answered on this connection; deliveries wait for it.
    opened: Option<RouterId>,
    rows: Rows,
    submissions: Submissions,
    deliveries: Deliveries,
    closing: end::Closing,
    counts: JobCounts,
    audit: Audit,
    refused: Option<Refusal>,
    outputs: VecDeque<Output>,
    #[cfg(feature = "mutations")]
    commits_before_sink: bool,
    #[cfg(feature = "mutations")]
    leaves_when_cancelled: bool,
}

impl Client {
    /// A run that has not been connected yet.
    pub fn new(config: Config) -> Self {
        let deliveries = Deliveries::new(config.spec.cursor_router, config.spec.cursor);
        let submissions = Submissions::new(config.collects);
        Self {
            config,
            phase: Phase::Running,
            up: false,
            opened: None,
            rows: Rows::new(),
            submissions,
            deliveries,
            closing: end::Closing::default(),
            counts: JobCounts::default(),
            audit: Audit::default(),
            refused: None,
            outputs: VecDeque::new(),
            #[cfg(feature = "mutations")]
            commits_before_sink: false,
            #[cfg(feature = "mutations")]
            leaves_when_cancelled: false,
        }
    }

    /// Takes one input. Drain [`Client::poll`] when the inputs at hand have been taken: it batches.
    pub fn handle(&mut self, now: Micros, event: Event) {
        match event {
            Event::Up => {
                self.up = true;
                self.opened = None;
                self.closing.on_up();
                self.open_job();
            }
            Event::Down => self.up = false,
            Event::Lost => self.submissions.on_lost(),
            Event::Scanned { rows, kept } => self.on_scanned(rows, kept),
            Event::SourceEnd => self.submissions.on_source_end(),
            Event::Opened { router, cursor, counts } => self.on_opened(now, router, cursor, counts),
            Event::JobRefused(refusal) => self.on_job_refused(now, refusal),
            Event::Acknowledged(tag) => self.submissions.on_acknowledged(tag),
            Event::RowsRefused { rows, refusal } => self.on_rows_refused(now, rows, refusal),
            Event::Delivered { ticket, rows } => self.deliveries.on_delivered(ticket, rows),
            Event::Progress(counts) => self.on_progress(counts),
            Event::Written(id) => {
                if let Some(ticket) = self.deliveries.on_written(id) {
                    self.outputs.push_back(Output::Commit(ticket));
                }
            }
            Event::Interrupt => self.stop(Stop::Interrupt),
            Event::Tick => self.on_tick(now),
        }
    }

    /// The next effect, in the order in which they must be done; `None` when there is nothing to do now.
    pub fn poll(&mut self, now: Micros) -> Option<Output> {
        if self.outputs.is_empty() && self.phase != Phase::Over {
            self.fill_writes();
            self.fill_submissions(now);
            self.fill_end(now);
        }
        self.outputs.pop_front()
    }

    /// When [`Event::Tick`] is due at the latest.
    pub fn deadline(&self) -> Option<Micros> {
        if self.phase == Phase::Over {
            return None;
        }
        // A question that is out is not asked again: waiting for its answer must not look like being due.
        let ask_at = self.closing.ask_at.filter(|_| !self.closing.is_asked());
        let asks = [ask_at, self.closing.open_at].into_iter().flatten().filter(|_| self.up);
        asks.chain(self.submissions.paused_until).min()
    }

    /// The books so far; `lost` is known at the end only.
    pub fn audit(&self) -> Audit {
        let open = self.audit.submitted - self.audit.ok - self.audit.failed;
        Audit { open, ..self.audit }
    }

    /// The router's last word on the job.
    pub fn counts(&self) -> JobCounts {
        self.counts
    }

    fn open_job(&mut self) {
        let spec = JobSpec {
            cursor: self.deliveries.committed,
            cursor_router: self.deliveries.router,
            ..self.config.spec.clone()
        };
        self.closing.on_asked();
        self.outputs.push_back(Output::Send { tag: None, message: ToRouter::OpenJob(spec) });
    }

    fn stop(&mut self, stop: Stop) {
        if self.phase == Phase::Running {
            self.phase = Phase::Stopping(stop);
        }
    }
}

/// Rules that can be taken out, to prove that a checker sees it.
#[cfg(feature = "mutations")]
impl Client {
    /// A delivery is committed in the session before the sink has it.
    pub fn plant_commit_before_sink(&mut self) {
        self.commits_before_sink = true;
    }

    /// The run ends with the first row that a cancelled job refuses.
    pub fn plant_leave_when_cancelled(&mut self) {
        self.leaves_when_cancelled = true;
    }
}
