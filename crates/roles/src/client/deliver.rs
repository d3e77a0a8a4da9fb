//! Results on their way into the sink.
//!
//! Invariants: numbers enter the sink one after the other without a gap; a message is committed in the session only when
//! every number in it, however often it came, is in the sink; writes asked for are at most [`WRITES_MAX`].

use std::collections::VecDeque;

use sheaf_task::{DeliveredRow, Outcome, RouterId};

use super::rows::State;
use super::{Client, Cursor, Output, Phase, Stop, Ticket, WRITES_MAX, WriteId, WriteRow};

/// Rows of one write, but for its last message.
const WRITE_ROWS: usize = 4_096;

#[derive(Debug, Default)]
pub(super) struct Deliveries {
    /// Arrived, not asked to be written.
    waiting: VecDeque<(Ticket, Vec<DeliveredRow>)>,
    /// The last number given to the sink, of `router`.
    taken: u64,
    /// The last number that the sink has.
    pub(super) committed: u64,
    /// Whose numbers they are.
    pub(super) router: Option<RouterId>,
    /// Rows that failed here.
    pub(super) local: Vec<WriteRow>,
    writes: VecDeque<Write>,
    last: WriteId,
    written: Written,
}

/// Rows that were given to the sink with an answer, a bit each: the count of repetitions rests on nothing else.
#[derive(Debug, Default)]
struct Written {
    bits: Vec<u64>,
}

impl Written {
    /// True unless the sink was given an answer of this row before.
    fn is_due(&mut self, number: u64, ok: bool) -> bool {
        let (word, bit) = ((number / 64) as usize, 1 << (number % 64));
        if self.bits.len() <= word {
            self.bits.resize(word + 1, 0);
        }
        let due = self.bits[word] & bit == 0;
        self.bits[word] |= bit * u64::from(ok);
        due
    }
}

#[derive(Debug)]
struct Write {
    id: WriteId,
    cursor: Option<Cursor>,
    /// What the session may commit afterwards.
    ticket: Option<Ticket>,
}

impl Deliveries {
    pub(super) fn new(router: Option<RouterId>, cursor: u64) -> Self {
        Self { taken: cursor, committed: cursor, router, ..Self::default() }
    }

    /// The sink has everything that came.
    pub(super) fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.local.is_empty() && self.writes.is_empty()
    }

    /// The sink has everything that it was given.
    pub(super) fn is_written(&self) -> bool {
        self.writes.is_empty()
    }

    pub(super) fn on_delivered(&mut self, ticket: Ticket, rows: Vec<DeliveredRow>) {
        self.waiting.push_back((ticket, rows));
    }

    /// A router answered that numbers from `cursor`. True if it is not the one that the cursor came from.
    pub(super) fn on_opened(&mut self, router: RouterId, cursor: u64) -> bool {
        let other = self.router != Some(router);
        self.router = Some(router);
        // Ahead of the sink it is where the sink was restored from an older copy: what it lacks is submitted anew, and gets
        // new numbers.
        if other || cursor > self.taken {
            (self.taken, self.committed) = (cursor, cursor);
        }
        other
    }

    /// What may be committed in the session now that the sink has these writes.
    pub(super) fn on_written(&mut self, upto: WriteId) -> Option<Ticket> {
        let mut ticket = None;
        while self.writes.front().is_some_and(|write| write.id <= upto)
            && let Some(write) = self.writes.pop_front()
        {
            ticket = write.ticket.or(ticket);
            if let Some(cursor) = write.cursor.filter(|cursor| Some(cursor.router) == self.router) {
                self.committed = cursor.number;
            }
        }
        ticket
    }

    fn ask(&mut self, rows: Vec<WriteRow>, cursor: Option<Cursor>, ticket: Option<Ticket>) -> Output {
        self.last = WriteId(self.last.0 + 1);
        self.writes.push_back(Write { id: self.last, cursor, ticket });
        Output::Write { id: self.last, rows, cursor }
    }
}

impl Client {
    /// Hands to the sink what may be handed.
    pub(super) fn fill_writes(&mut self) {
        while self.phase == Phase::Running && self.deliveries.writes.len() < WRITES_MAX {
            let before = self.deliveries.taken;
            let Some((rows, ticket)) = self.gather() else { break };
            let moved = self.deliveries.taken > before;
            let router = self.deliveries.router.filter(|_| moved);
            let cursor = router.map(|router| Cursor { router, number: self.deliveries.taken });
            self.hand_over(rows, cursor, ticket);
            self.check_failures();
        }
    }

    fn hand_over(&mut self, rows: Vec<WriteRow>, cursor: Option<Cursor>, ticket: Option<Ticket>) {
        #[cfg(feature = "mutations")]
        let ticket = match ticket {
            Some(early) if self.commits_before_sink => {
                self.outputs.push_back(Output::Commit(early));
                None
            }
            other => other,
        };
        if !rows.is_empty() || cursor.is_some() {
            let write = self.deliveries.ask(rows, cursor, ticket);
            self.outputs.push_back(write);
            return;
        }
        // Nothing but repetitions: in the sink as soon as all that it was given is.
        match (self.deliveries.writes.back_mut(), ticket) {
            (Some(write), Some(ticket)) => write.ticket = Some(ticket),
            (None, Some(ticket)) => self.outputs.push_back(Output::Commit(ticket)),
            (Some(_) | None, None) => {}
        }
    }

    /// The rows of the next write and the message up to which they go; `None` when there is nothing to do.
    fn gather(&mut self) -> Option<(Vec<WriteRow>, Option<Ticket>)> {
        let mut rows = std::mem::take(&mut self.deliveries.local);
        let mut last = None;
        while self.opened.is_some()
            && rows.len() < WRITE_ROWS
            && self.may_take_next()
            && let Some((ticket, delivered)) = self.deliveries.waiting.pop_front()
        {
            for row in delivered {
                if row.number > self.deliveries.taken + 1 {
                    // Written so far is right; what follows must not be taken for all before it.
                    self.phase = Phase::Stopping(Stop::Gap { after: self.deliveries.taken, got: row.number });
                    return Some((rows, last));
                }
                rows.extend(self.take(row));
            }
            last = Some(ticket);
        }
        (last.is_some() || !rows.is_empty()).then_some((rows, last))
    }

    /// Until the source has been read once, a row that is not known may be one that is still to be read: after a crash
    /// results come from the router's journal before the scan has met their rows. Such a message waits for the scan.
    fn may_take_next(&self) -> bool {
        let Some((_, delivered)) = self.deliveries.waiting.front() else { return false };
        let taken = self.deliveries.taken;
        self.submissions.has_read_once()
            || delivered.iter().all(|row| row.number <= taken || self.rows.find(row.row).is_some())
    }

    /// The row for the sink, if it is one of this run that lacks its answer.
    fn take(&mut self, delivered: DeliveredRow) -> Option<WriteRow> {
        if delivered.number <= self.deliveries.taken {
            return None;
        }
        self.deliveries.taken = delivered.number;
        let ok = delivered.outcome.is_ok();
        let Some((number, state)) = self.rows.find(delivered.row) else {
            self.audit.stale += 1;
            return None;
        };
        match state {
            State::Open | State::Refused => {}
            // It was delivered while its submission was still on its way: the router took that for a sink that lost it.
            State::Ok => {
                self.audit.stale += 1;
                return None;
            }
            // Retried by an operator: what comes now replaces what the sink has.
            State::Failed => self.audit.failed -= 1,
            State::KeptFailed => {
                self.audit.resumed -= 1;
                self.audit.resumed_failed -= 1;
                self.audit.submitted += 1;
            }
        }
        if state == State::Refused {
            self.submissions.on_answered();
        }
        self.rows.set(delivered.row, if ok { State::Ok } else { State::Failed });
        self.audit.ok += u64::from(ok);
        self.audit.failed += u64::from(!ok);
        self.audit.cached += u64::from(ok && delivered.cached);
        self.audit.repeated += u64::from(!self.deliveries.written.is_due(number, ok));
        Some(to_write(delivered, number))
    }
}

fn to_write(delivered: DeliveredRow, number: u64) -> WriteRow {
    let DeliveredRow { number: _, row, key, outcome, attempts, worker, ms, cached: _ } = delivered;
    let outcome: Outcome = outcome;
    WriteRow { row, number, outcome, key: Some(key), attempts, worker, ms }
}
