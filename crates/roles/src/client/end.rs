//! Opening the job, and knowing when the run is over.
//!
//! The end is asked for, never guessed: when all is submitted and nothing is on its way, the job is opened once more, and
//! the answer says whether anything is open at the router (an operator's retry) or undelivered. That answer is younger
//! than everything before it, which a progress signal need not be. A cancelled job ends the same way: its rows that the
//! router never took are missing then, and that is what the run ends with.

use sheaf_session::Micros;
use sheaf_task::{JobCounts, Refusal, RouterId, ToRouter};

use super::{Client, Ended, Output, Phase, Reason, Stop};

/// How often a router that has nothing to deliver is asked whether it will.
const ASK_EVERY: Micros = Micros::from_secs(5);
/// When a router that cannot open the job now is asked again.
const OPEN_RETRY: Micros = Micros::from_secs(1);

#[derive(Debug, Default)]
pub(super) struct Closing {
    /// `Scanned` was said on this connection, and no row was submitted since: with each the router takes it back.
    said_scanned: bool,
    /// Nothing has come in or gone out since this question, whose answer has not come.
    asked: bool,
    /// Times that the job was opened on this connection and no answer came. Answers come in the order of the questions.
    unanswered: u32,
    /// The answer to the question.
    answer: Option<JobCounts>,
    /// Rows that the router had lost were submitted once more.
    tried_again: bool,
    /// The next question.
    pub(super) ask_at: Option<Micros>,
    /// The job was refused for now.
    pub(super) open_at: Option<Micros>,
}

impl Client {
    pub(super) fn on_opened(&mut self, now: Micros, router: RouterId, cursor: u64, counts: JobCounts) {
        self.counts = counts;
        self.closing.open_at = None;
        self.closing.unanswered = self.closing.unanswered.saturating_sub(1);
        if self.opened.is_some() && self.closing.asked {
            if self.closing.unanswered > 0 {
                // To an earlier question: it knows nothing of what was submitted since.
                return;
            }
            self.closing.asked = false;
            self.closing.answer = Some(counts);
            self.closing.ask_at = Some(now + ASK_EVERY);
            return;
        }
        self.opened = Some(router);
        self.closing.said_scanned = false;
        self.closing.asked = false;
        let before = self.deliveries.committed;
        let is_other = self.deliveries.on_opened(router, cursor);
        if self.submissions.cursor.is_none() || self.deliveries.committed != before {
            self.submissions.cursor = Some(self.deliveries.committed);
        }
        if is_other {
            // Another journal: it knows none of the rows.
            self.submissions.on_lost();
        }
    }

    pub(super) fn on_job_refused(&mut self, now: Micros, refusal: Refusal) {
        self.closing.unanswered = self.closing.unanswered.saturating_sub(1);
        match refusal {
            Refusal::Busy { retry_ms } => self.closing.open_at = Some(now + Micros::from_ms(retry_ms)),
            Refusal::Stopping | Refusal::UnknownJob => self.closing.open_at = Some(now + OPEN_RETRY),
            Refusal::TooLong { .. }
            | Refusal::Cancelled
            | Refusal::OtherJob
            | Refusal::CursorAhead { .. }
            | Refusal::Superseded { .. }
            | Refusal::Forbidden => {
                self.end_refused(refusal);
            }
        }
    }

    pub(super) fn on_progress(&mut self, counts: JobCounts) {
        self.counts = counts;
        if counts.open == 0 {
            // Perhaps the end: worth a question at once.
            self.closing.ask_at = self.closing.ask_at.map(|_| Micros::ZERO);
        }
    }

    pub(super) fn on_tick(&mut self, now: Micros) {
        if self.submissions.paused_until.is_some_and(|until| until <= now) {
            self.submissions.paused_until = None;
        }
        if self.up && self.closing.open_at.is_some_and(|at| at <= now) {
            self.closing.open_at = None;
            self.open_job();
        }
    }

    pub(super) fn end_refused(&mut self, refusal: Refusal) {
        self.refused = Some(refusal);
        self.stop(Stop::Refused);
    }

    /// Ends the run if it is over, or takes the next step towards it.
    pub(super) fn fill_end(&mut self, now: Micros) {
        match self.phase {
            Phase::Stopping(stop) if self.deliveries.is_written() => {
                let reason = match stop {
                    Stop::Interrupt => Reason::Interrupted,
                    Stop::Failures => Reason::TooManyFailures,
                    Stop::Gap { after, got } => Reason::Gap { after, got },
                    Stop::Refused => Reason::Refused(self.refused.take().unwrap_or(Refusal::Cancelled)),
                };
                self.end(reason, 0);
            }
            Phase::Running if self.submissions.is_finished() && self.opened.is_some() => self.close(now),
            Phase::Running => self.closing.forget_answer(),
            Phase::Stopping(_) | Phase::Over => {}
        }
    }

    fn close(&mut self, now: Micros) {
        if !self.closing.said_scanned {
            self.closing.said_scanned = true;
            let message = ToRouter::Scanned { job: self.config.spec.job };
            self.outputs.push_back(Output::Send { tag: None, message });
        }
        if !self.deliveries.is_idle() {
            self.closing.forget_answer();
            return;
        }
        if let Some(counts) = self.closing.answer.take()
            && counts.open == 0
            && counts.last_number == self.deliveries.committed
        {
            self.on_nothing_open(now);
            return;
        }
        let first = if self.is_more_due() { now + ASK_EVERY } else { now };
        let ask_at = *self.closing.ask_at.get_or_insert(first);
        if self.up && ask_at <= now && !self.closing.asked {
            self.closing.asked = true;
            self.closing.ask_at = Some(now + ASK_EVERY);
            self.open_job();
        }
    }

    /// As far as is known here, more must come before it can be the end.
    fn is_more_due(&self) -> bool {
        if self.submissions.is_closed() {
            // What is missing here may be what the router never took.
            return self.counts.open > 0 || self.counts.last_number > self.deliveries.committed;
        }
        self.audit().open > self.submissions.vanished
    }

    /// The router has nothing more for this job. Rows that are missing then were lost to it, by a journal restored from an
    /// older copy for example: they are submitted once more, and only then given up.
    fn on_nothing_open(&mut self, now: Micros) {
        let open = self.audit().open;
        let lost = open - self.submissions.vanished.min(open);
        if self.submissions.is_closed() {
            let is_whole = lost == 0;
            return self.end(if is_whole { Reason::Complete } else { Reason::Refused(Refusal::Cancelled) }, 0);
        }
        if lost > 0 && !self.closing.tried_again {
            let unanswered = self.closing.unanswered;
            self.closing = Closing { tried_again: true, unanswered, ..Closing::default() };
            self.submissions.on_lost();
            self.fill_submissions(now);
            return;
        }
        self.end(Reason::Complete, lost);
    }

    fn end(&mut self, reason: Reason, lost: u64) {
        self.phase = Phase::Over;
        let audit = super::Audit { lost, ..self.audit() };
        self.outputs.push_back(Output::Done(Ended { reason, audit }));
    }
}

impl Closing {
    pub(super) fn is_asked(&self) -> bool {
        self.asked
    }

    /// Rows go out, perhaps such as were refused before.
    pub(super) fn on_submitted(&mut self) {
        self.said_scanned = false;
    }

    /// The job is opened, anew or as a question.
    pub(super) fn on_asked(&mut self) {
        self.unanswered += 1;
    }

    /// What was asked on an earlier connection is perhaps never answered: its router may have died.
    pub(super) fn on_up(&mut self) {
        self.unanswered = 0;
    }

    /// Something moved: what the router said before no longer counts.
    fn forget_answer(&mut self) {
        self.answer = None;
        self.asked = false;
        self.ask_at = None;
    }
}
