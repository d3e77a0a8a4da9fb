//! Rows on their way to the router: read, submitted within bounds, submitted again where they must be.
//!
//! Invariants: rows read and not sent are at most [`QUEUED_ROWS_MAX`] plus one read; what is sent and not acknowledged is
//! bounded in rows and bytes; the source is begun again only when nothing is on its way, so that one pass sees each row
//! in a settled state; once the job takes no more rows, the source is read to its end and nothing of it is submitted.

use std::collections::VecDeque;

use bytestring::ByteString;
use sheaf_session::Micros;
use sheaf_task::{
    BATCH_BYTES_AIM, BATCH_ROWS_MAX, BODY_BYTES_MAX, Class, Failure, JobId, Outcome, Refusal, RowId, SubmitRow,
    ToRouter,
};

use super::rows::State;
use super::{Client, Kept, Output, Phase, ScannedRow, Stop, Tag, WriteRow};

/// Rows read ahead.
const QUEUED_ROWS_MAX: usize = 2 * BATCH_ROWS_MAX;
/// Rows sent and not acknowledged.
const FLIGHT_ROWS_MAX: usize = 64 * BATCH_ROWS_MAX;
/// Bytes of bodies sent and not acknowledged.
const FLIGHT_BYTES_MAX: usize = 8 << 20;
/// When a router that is shutting down is tried again.
const STOPPING_RETRY: Micros = Micros::from_secs(1);

#[derive(Debug, Default)]
pub(super) struct Submissions {
    /// Read, not sent.
    queue: VecDeque<SubmitRow>,
    /// The number up to which the sink was known not to have the rows of this pass.
    pub(super) cursor: Option<u64>,
    flight: VecDeque<Flight>,
    flight_rows: usize,
    flight_bytes: usize,
    tag: Tag,
    /// A `Read` is not answered.
    reading: bool,
    at_end: bool,
    passes: u64,
    /// This pass submits every row that is not in the sink, not only refused ones.
    everything: bool,
    /// The router may have lost what it acknowledged.
    lost: bool,
    /// The job takes no more rows. They are read all the same: what comes must find its row.
    is_closed: bool,
    /// Refused rows that this pass has not met yet.
    refused_before: u64,
    /// Refused since this pass began.
    refused: u64,
    /// Refused rows that the source had no more when it was read again.
    pub(super) vanished: u64,
    pub(super) paused_until: Option<Micros>,
}

#[derive(Debug)]
struct Flight {
    tag: Tag,
    rows: usize,
    bytes: usize,
}

impl Submissions {
    pub(super) fn new(is_closed: bool) -> Self {
        Self { is_closed, ..Self::default() }
    }

    /// The job takes no more rows.
    pub(super) fn is_closed(&self) -> bool {
        self.is_closed
    }

    fn close(&mut self) {
        self.is_closed = true;
        self.queue.clear();
    }

    /// Every row has been read, submitted and acknowledged.
    pub(super) fn is_finished(&self) -> bool {
        self.at_end && self.queue.is_empty() && self.flight.is_empty() && !self.must_rewind()
    }

    /// The source has been read to its end, in this pass or an earlier one.
    pub(super) fn has_read_once(&self) -> bool {
        self.at_end || self.passes > 0
    }

    fn must_rewind(&self) -> bool {
        !self.is_closed && (self.lost || self.refused > 0)
    }

    fn has_room(&self) -> bool {
        self.flight_rows < FLIGHT_ROWS_MAX && self.flight_bytes < FLIGHT_BYTES_MAX
    }

    fn is_paused(&self, now: Micros) -> bool {
        self.paused_until.is_some_and(|until| now < until)
    }

    pub(super) fn on_lost(&mut self) {
        self.lost |= self.passes > 0 || self.tag > Tag::default();
    }

    pub(super) fn on_acknowledged(&mut self, upto: Tag) {
        while self.flight.front().is_some_and(|flight| flight.tag <= upto)
            && let Some(flight) = self.flight.pop_front()
        {
            self.flight_rows -= flight.rows;
            self.flight_bytes -= flight.bytes;
        }
    }

    pub(super) fn on_source_end(&mut self) {
        self.reading = false;
        self.at_end = true;
        self.vanished += std::mem::take(&mut self.refused_before);
    }

    /// A refused row has its answer after all (it was submitted in an earlier run). Which of the two counts it was in is
    /// not known: at worst the source is read once more.
    pub(super) fn on_answered(&mut self) {
        match self.refused_before {
            0 => self.refused = self.refused.saturating_sub(1),
            before => self.refused_before = before - 1,
        }
    }

    fn rewind(&mut self) {
        self.at_end = false;
        self.passes += 1;
        self.everything = std::mem::take(&mut self.lost);
        self.refused_before = std::mem::take(&mut self.refused);
    }

    fn next_batch(&mut self, job: JobId) -> Output {
        let (mut rows, mut bytes) = (Vec::new(), 0);
        while let Some(next) = self.queue.front() {
            let full = rows.len() == BATCH_ROWS_MAX || bytes + next.body.len() > BATCH_BYTES_AIM;
            if full && !rows.is_empty() {
                break;
            }
            bytes += next.body.len();
            rows.extend(self.queue.pop_front());
        }
        self.tag = Tag(self.tag.0 + 1);
        self.flight.push_back(Flight { tag: self.tag, rows: rows.len(), bytes });
        self.flight_rows += rows.len();
        self.flight_bytes += bytes;
        Output::Send { tag: Some(self.tag), message: ToRouter::Submit { job, cursor: self.cursor.unwrap_or(0), rows } }
    }
}

impl Client {
    pub(super) fn on_scanned(&mut self, rows: Vec<ScannedRow>, kept: Kept) {
        self.submissions.reading = false;
        if self.submissions.passes == 0 {
            self.audit.resumed += kept.rows;
            self.audit.resumed_failed += kept.failed.len() as u64;
            kept.failed.into_iter().for_each(|(row, number)| self.rows.insert(row, number, State::KeptFailed));
        }
        rows.into_iter().for_each(|row| self.on_row(row));
    }

    fn on_row(&mut self, row: ScannedRow) {
        match self.rows.find(row.row).map(|(_, state)| state) {
            None => {
                self.rows.insert(row.row, row.number, State::Open);
                self.audit.submitted += 1;
            }
            Some(State::Refused) => {
                self.submissions.refused_before = self.submissions.refused_before.saturating_sub(1);
                self.rows.set(row.row, State::Open);
            }
            Some(State::Open) if self.submissions.everything => {}
            Some(State::Open | State::Ok | State::Failed | State::KeptFailed) => return,
        }
        match row.body {
            Ok(_) if self.submissions.is_closed => {}
            Ok(body) if body.len() <= BODY_BYTES_MAX => {
                self.submissions.queue.push_back(SubmitRow { row: row.row, sample: row.sample, body });
            }
            Ok(body) => self.fail_here(row.row, too_long(body.len() as u64, BODY_BYTES_MAX as u64)),
            Err(failure) => self.fail_here(row.row, failure),
        }
    }

    /// The row ends as failed without ever having been a task.
    fn fail_here(&mut self, row: RowId, failure: Failure) {
        let Some((number, State::Open)) = self.rows.find(row) else { return };
        self.rows.set(row, State::Failed);
        self.audit.failed += 1;
        self.deliveries.local.push(WriteRow {
            row,
            number,
            outcome: Outcome::Failed(failure),
            key: None,
            attempts: 0,
            worker: ByteString::new(),
            ms: 0,
        });
        self.check_failures();
    }

    pub(super) fn on_rows_refused(&mut self, now: Micros, rows: Vec<RowId>, refusal: Refusal) {
        #[cfg(feature = "mutations")]
        if self.leaves_when_cancelled && refusal == Refusal::Cancelled {
            return self.end_refused(refusal);
        }
        match refusal {
            Refusal::Busy { retry_ms } => self.refuse_rows(rows, now + Micros::from_ms(retry_ms)),
            Refusal::Stopping => self.refuse_rows(rows, now + STOPPING_RETRY),
            Refusal::UnknownJob => {
                self.refuse_rows(rows, now);
                self.open_job();
            }
            Refusal::TooLong { len, max } => rows.into_iter().for_each(|row| self.fail_here(row, too_long(len, max))),
            // What was taken before the cancel has its outcome there, perhaps one that was paid for.
            Refusal::Cancelled => self.submissions.close(),
            Refusal::OtherJob | Refusal::CursorAhead { .. } | Refusal::Superseded { .. } | Refusal::Forbidden => {
                self.end_refused(refusal);
            }
        }
    }

    fn refuse_rows(&mut self, rows: Vec<RowId>, until: Micros) {
        self.submissions.paused_until = Some(until);
        for row in rows {
            if let Some((_, State::Open)) = self.rows.find(row) {
                self.rows.set(row, State::Refused);
                self.submissions.refused += 1;
            }
        }
    }

    /// Reads on, and submits what may be.
    pub(super) fn fill_submissions(&mut self, now: Micros) {
        if self.phase != Phase::Running {
            return;
        }
        let may_send = self.opened.is_some() && !self.submissions.is_paused(now);
        let job = self.config.spec.job;
        while may_send && !self.submissions.queue.is_empty() && self.submissions.has_room() {
            let batch = self.submissions.next_batch(job);
            self.outputs.push_back(batch);
            self.closing.on_submitted();
        }
        let submissions = &mut self.submissions;
        let settled = submissions.at_end && submissions.queue.is_empty() && submissions.flight.is_empty();
        if settled && may_send && submissions.must_rewind() {
            submissions.rewind();
            submissions.cursor = Some(self.deliveries.committed);
            self.outputs.push_back(Output::Rewind);
        }
        if !submissions.at_end && !submissions.reading && submissions.queue.len() < QUEUED_ROWS_MAX {
            submissions.reading = true;
            self.outputs.push_back(Output::Read { rows: BATCH_ROWS_MAX, bytes: BATCH_BYTES_AIM });
        }
    }

    /// Of a cancelled job everything is brought in, however much of it was withdrawn.
    pub(super) fn check_failures(&mut self) {
        if self.submissions.is_closed() {
            return;
        }
        if self.config.failures_max.is_some_and(|max| self.audit.failed > max) && self.phase == Phase::Running {
            self.phase = Phase::Stopping(Stop::Failures);
        }
    }
}

fn too_long(len: u64, max: u64) -> Failure {
    Failure::new(Class::Rejected, format!("the row has {len} bytes, and a task holds at most {max}: make it shorter"))
}
