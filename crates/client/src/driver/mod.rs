//! Runs a job: between the source's thread, the sink's thread and the line to the router stands the client machine, which
//! decides everything; this loop carries.
//!
//! ```text
//! source ─ scanner thread ─► ┌────────┐ ─ submit, commit ─► line ─► router
//!                            │ client │
//! sink  ◄─ writer thread  ◄─ └────────┘ ◄──── deliveries ── line ◄─
//! ```

#[cfg(test)]
mod tests;

use std::io;
use std::time::Duration;

use sheaf_net::{Alarm, Clock};
use sheaf_roles::client::{Client, Config, Event, Kept, Output, ScannedRow, Tag, Ticket, WriteId, WriteRow};
use sheaf_task::{Class, Failure, JobSpec, Outcome, ToRouter};
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};

use crate::audit::Summary;
use crate::config::{Interrupt, JobConfig, Prepared};
use crate::identity::{JobError, JobRecord};
use crate::ids::Ids;
use crate::line::LineError;
use crate::progress::{Pace, Phase, Progress};
use crate::prompt::{Prompt, Tokens};
use crate::reconcile::ReconcileError;
use crate::rows::NamedRow;
use crate::scan::{Page, Scanned, Scanner};
use crate::sink::{Claim, Cursor, Sink, SinkError, SinkRow};
use crate::writer::{Writer, WriterError};

/// How often progress is told.
const TELL_EVERY: Duration = Duration::from_millis(100);

/// A line to the router: a session on a link, and the port that knows what its messages mean.
pub trait Line: Send {
    /// The next thing that came. Cancel-safe. A line that is down is being put up again, unless that is of no use.
    fn next(&mut self) -> impl Future<Output = Result<Event, LineError>> + Send;

    /// Says this to the router, in order; with a tag, `Acknowledged` names it when it is on the router's disk.
    fn send(&mut self, tag: Option<Tag>, message: ToRouter);

    /// The effects of every delivery up to this one are durable.
    fn commit(&mut self, ticket: Ticket);

    /// Lets the router hear what was said, as far as it does within a moment, and hangs up.
    fn close(self) -> impl Future<Output = ()> + Send;
}

/// Why a run failed. What is in the sink is right; the same command resumes.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The source could not be read further.
    #[error(transparent)]
    Scan(#[from] ReconcileError),
    /// The sink could not be written further.
    #[error(transparent)]
    Sink(#[from] SinkError),
    /// The job's record could not be written.
    #[error(transparent)]
    Job(#[from] JobError),
    /// The router will not talk to this client, now or later.
    #[error(transparent)]
    Line(#[from] LineError),
    /// A thread could not be started.
    #[error("cannot start a thread: {0}")]
    Thread(io::Error),
    /// A thread of this process panicked: a defect.
    #[error("a thread of the client panicked; the same command resumes")]
    Panicked,
}

impl From<WriterError> for RunError {
    fn from(error: WriterError) -> Self {
        match error {
            WriterError::Sink(error) => RunError::Sink(error),
            WriterError::Panicked => RunError::Panicked,
        }
    }
}

/// Runs a job until every row has its outcome in the sink, or it is stopped. `progress` is told ten times a second.
pub async fn run_job<L: Line>(
    prepared: Prepared,
    line: L,
    interrupt: Interrupt,
    progress: watch::Sender<Progress>,
) -> Result<Summary, RunError> {
    let clock = Clock::start();
    let Prepared { config, claim, record, sink, source, namer, kept, collects } = prepared;
    let spec = spec(&config, &record, &*sink);
    let resumed = kept.names.len() as u64;
    let machine = Client::new(Config { spec, failures_max: config.max_failures, collects });
    let scanner = Scanner::start(source, namer, kept, config.limit).map_err(RunError::Thread)?;
    let writer = Writer::start(sink).map_err(RunError::Thread)?;
    let mut run = Run {
        clock,
        alarm: Alarm::default(),
        machine,
        line,
        scanner,
        writer,
        ids: Ids::default(),
        prompt: config.prompt,
        tokens: None,
        share: config.share,
        whole: None,
        job: (claim, record),
        teller: Teller {
            progress,
            pace: Pace::default(),
            resumed: (config.limit.is_none()).then_some(resumed),
            connected: false,
            saw_failure: false,
        },
    };
    let ended = run.drive(&interrupt).await;
    run.end(ended).await
}

fn spec(config: &JobConfig, record: &JobRecord, sink: &dyn Sink) -> JobSpec {
    let cursor = sink.cursor();
    JobSpec {
        job: record.job,
        name: config.name.clone(),
        service: config.service.clone(),
        revision: config.revision.clone(),
        nonce: record.nonce.clone().into(),
        cursor: cursor.map_or(0, |cursor| cursor.number),
        cursor_router: cursor.map(|cursor| cursor.router),
        options: config.options,
    }
}

struct Run<L> {
    clock: Clock,
    alarm: Alarm,
    machine: Client,
    line: L,
    scanner: Scanner,
    writer: Writer<WriteId>,
    ids: Ids,
    prompt: Option<Prompt>,
    /// Of the rows written in this run.
    tokens: Option<Tokens>,
    share: bool,
    /// The scan has ended, at the source's end or at the limit.
    whole: Option<bool>,
    job: (Claim, JobRecord),
    teller: Teller,
}

impl<L: Line> Run<L> {
    async fn drive(&mut self, interrupt: &Interrupt) -> Result<sheaf_roles::client::Ended, RunError> {
        let mut ticks = interval(TELL_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let mut told = false;
        loop {
            if let Some(ended) = self.drain()? {
                return Ok(ended);
            }
            let deadline = self.machine.deadline();
            let event = tokio::select! {
                event = self.line.next() => event?,
                answer = self.scanner.answer() => self.on_scanned(answer.ok_or(RunError::Panicked)?)?,
                written = self.writer.durable() => match written.as_deref() {
                    // The writer has failed; ending the run says why.
                    None => return Err(RunError::Panicked),
                    Some([]) => continue,
                    Some([.., last]) => Event::Written(*last),
                },
                () = interrupt.asked(), if !told => {
                    told = true;
                    Event::Interrupt
                }
                () = self.alarm.wait(self.clock, deadline) => Event::Tick,
                _ = ticks.tick() => {
                    self.tell(if told { Phase::Draining } else { Phase::Running });
                    continue;
                }
            };
            self.teller.note(&event);
            self.machine.handle(self.clock.now(), event);
        }
    }

    /// Does what the machine wants done.
    fn drain(&mut self) -> Result<Option<sheaf_roles::client::Ended>, RunError> {
        while let Some(output) = self.machine.poll(self.clock.now()) {
            match output {
                Output::Read { rows, bytes } => check(self.scanner.read(rows, bytes))?,
                Output::Rewind => check(self.scanner.rewind())?,
                Output::Send { tag, message } => self.line.send(tag, message),
                Output::Commit(ticket) => self.line.commit(ticket),
                Output::Write { id, rows, cursor } => {
                    let rows = rows.into_iter().map(|row| self.sink_row(row)).collect();
                    let cursor = cursor.map(|cursor| Cursor { router: cursor.router, number: cursor.number });
                    check(self.writer.push((rows, cursor), id))?;
                }
                Output::Done(ended) => return Ok(Some(ended)),
            }
        }
        Ok(None)
    }

    fn sink_row(&mut self, row: WriteRow) -> SinkRow {
        let WriteRow { row, number, outcome, key, attempts, worker, ms } = row;
        let (outcome, tokens) = match (outcome, &self.prompt) {
            (Outcome::Ok(answer), Some(prompt)) => {
                let (result, tokens) = prompt.result(answer);
                (Outcome::Ok(result), tokens)
            }
            (outcome, _) => (outcome, None),
        };
        if let Some(tokens) = tokens {
            *self.tokens.get_or_insert_default() += tokens;
        }
        SinkRow { row, number, id: self.ids.of(number), outcome, key, attempts, worker, ms, tokens }
    }

    fn on_scanned(&mut self, scanned: Scanned) -> Result<Event, RunError> {
        match scanned {
            Scanned::Failed(error) => Err(error.into()),
            Scanned::End { whole } => {
                self.whole = Some(whole);
                Ok(Event::SourceEnd)
            }
            Scanned::Rows(Page { rows, kept, kept_failed, ids }) => {
                if !rows.is_empty() {
                    // Before anything is submitted: a fresh job that has more to do is the one to resume.
                    self.job.1.set_done(&self.job.0, false)?;
                }
                ids.iter().for_each(|(number, id)| self.ids.note(*number, id));
                let rows = rows.into_iter().map(|row| self.scanned_row(row)).collect();
                Ok(Event::Scanned { rows, kept: Kept { rows: kept, failed: kept_failed } })
            }
        }
    }

    fn scanned_row(&self, row: NamedRow) -> ScannedRow {
        let sample = if self.share { 0 } else { row.sample };
        let body = row.body.map_err(|malformed| Failure::new(Class::Rejected, malformed.message));
        ScannedRow { number: row.number, row: row.name, sample, body }
    }

    fn tell(&mut self, phase: Phase) {
        self.teller.tell(ms(self.clock), phase, &self.machine, self.whole.is_some());
    }

    /// Hangs up, ends the threads, and brings the sink into its final form where the job is done.
    async fn end(mut self, ended: Result<sheaf_roles::client::Ended, RunError>) -> Result<Summary, RunError> {
        self.tell(Phase::Finishing);
        self.line.close().await;
        let tasks_failed = self.teller.saw_failure || self.machine.counts().failed > 0;
        let (clock, whole, (claim, mut record)) = (self.clock, self.whole == Some(true), self.job);
        let (scanner, writer, tokens) = (self.scanner, self.writer, self.tokens);
        let finish = move || -> Result<Summary, RunError> {
            scanner.stop();
            let mut sink = writer.stop()?;
            let ended = ended?;
            if ended.reason == sheaf_roles::client::Reason::Complete {
                sink.finish()?;
                record.set_done(&claim, whole && ended.audit.open == 0)?;
                // Where rows failed, an operator's retry and the same command may follow, without the rows.
                if record.done && ended.audit.failed + ended.audit.resumed_failed == 0 {
                    crate::source::discard_copies(claim.state_dir()).map_err(ReconcileError::Source)?;
                }
            }
            Ok(Summary { ended, tasks_failed, whole, tokens, ms: ms(clock) })
        };
        tokio::task::spawn_blocking(finish).await.map_err(|_| RunError::Panicked)?
    }
}

/// Milliseconds since the run began.
fn ms(clock: Clock) -> u64 {
    clock.now().0 / 1_000
}

/// A thread that takes nothing has failed; ending the run says why.
fn check(taken: bool) -> Result<(), RunError> {
    if taken { Ok(()) } else { Err(RunError::Panicked) }
}

/// Tells how far the job is.
struct Teller {
    progress: watch::Sender<Progress>,
    pace: Pace,
    /// Known before the scan, unless a limit leaves some of them out.
    resumed: Option<u64>,
    connected: bool,
    /// A failure was delivered.
    saw_failure: bool,
}

impl Teller {
    fn note(&mut self, event: &Event) {
        match event {
            Event::Up => self.connected = true,
            Event::Down => self.connected = false,
            Event::Delivered { rows, .. } => self.saw_failure |= rows.iter().any(|row| !row.outcome.is_ok()),
            Event::Lost
            | Event::Scanned { .. }
            | Event::SourceEnd
            | Event::Opened { .. }
            | Event::JobRefused(_)
            | Event::Acknowledged(_)
            | Event::RowsRefused { .. }
            | Event::Progress(_)
            | Event::Written(_)
            | Event::Interrupt
            | Event::Tick => {}
        }
    }

    fn tell(&mut self, ms: u64, phase: Phase, machine: &Client, at_end: bool) {
        let audit = machine.audit();
        let done_now = audit.ok + audit.failed;
        self.pace.note(ms, done_now);
        let resumed = self.resumed.unwrap_or(audit.resumed);
        let scanned = audit.submitted + audit.resumed;
        self.progress.send_replace(Progress {
            phase,
            rows: at_end.then_some(scanned),
            scanned,
            done: done_now + resumed,
            failed: audit.failed + audit.resumed_failed,
            resumed,
            cached: audit.cached,
            running: machine.counts().running,
            unserved: machine.counts().unserved,
            connected: self.connected,
            rate: self.pace.rate(),
            eta: if at_end { self.pace.eta(audit.open) } else { None },
        });
    }
}
