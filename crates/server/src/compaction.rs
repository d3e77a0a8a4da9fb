//! Takes what is settled and past its retention out of the journal, the oldest segment first, in slices between commits.
//!
//! ```text
//!   Idle ──due──▶ Asking ⇄ Asked ──all judged──▶ Leaving ──verdicts durable──▶ Idle (segment gone)
//!                   │ next slice's records: to the core; its verdict: what moves on
//! ```
//!
//! It decides when, never what: what is needed is the machine's to say. Invariants: one question under way; a segment goes
//! only when every record that a verdict rests on is durable; commits wait for one slice at most.

use std::time::{Duration, Instant};

use bytes::Bytes;
use sheaf_journal::index::{Posting, Span};
use sheaf_journal::{AppendError, CompactError, Journal, Keep, Lsn, Progress, SegmentId, SegmentView};
use sheaf_roles::router::record::index_key;
use sheaf_roles::router::{Generation, Record};
use tokio::sync::mpsc::Sender;
use tokio::sync::mpsc::error::TrySendError;

use crate::disk::FileDisk;
use crate::finished::Finished;
use crate::limits::Limits;

/// Asks the core which of these the journal must keep.
#[derive(Debug)]
pub(crate) struct Question {
    /// Look-ups of older generations may still have found what may go now.
    pub generation: Generation,
    /// In the order of the segment.
    pub records: Vec<(sheaf_roles::router::Lsn, Record)>,
}

/// The answer.
#[derive(Debug)]
pub(crate) struct Verdict {
    /// One for each record asked about, in that order.
    pub needed: Vec<bool>,
    /// It holds once everything up to here is durable.
    pub rests_on: Lsn,
}

/// What the writer is to do after a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum After {
    /// Nothing.
    Go,
    /// Commit, so that readers see what changed.
    Commit,
}

/// Compaction of one journal.
#[derive(Debug)]
pub(crate) struct Compaction {
    limits: Limits,
    questions: Sender<Question>,
    state: State,
    round: Round,
    /// The last record that any verdict rests on.
    rests_on: Lsn,
    /// When the oldest segment is past its retention.
    ripe: Option<(SegmentId, Instant)>,
    /// After a failure: nothing before then.
    not_before: Option<Instant>,
    /// While idle: how long until the next look.
    look: Duration,
}

#[derive(Debug)]
enum State {
    Idle,
    Asking(Generation),
    Asked(Generation, Vec<Asked>),
    Leaving,
}

/// A record of the slice that was asked about.
#[derive(Clone, Copy, Debug)]
struct Asked {
    lsn: Lsn,
    /// Under which the index finds it.
    key: Option<[u8; 16]>,
    /// False: it does not decode and is kept unasked.
    is_known: bool,
}

/// Within a round each segment is compacted once: what is needed for long is not moved again and again.
#[derive(Clone, Copy, Debug)]
struct Round {
    /// Active when it began; older ones are of this round.
    end: SegmentId,
    began: Instant,
    /// Bytes of records appended since.
    appended: u64,
}

/// Read and judged at once: about a millisecond.
const SLICE: usize = 256 << 10;
/// A round begins at least this often …
const ROUND_MAX: Duration = Duration::from_secs(6 * 3_600);
/// … or when this part of the journal is new, so that moving costs a bounded share of what is written.
const ROUND_PART: u64 = 4;
/// Pause after a failure.
const RETRY: Duration = Duration::from_secs(10);
/// Pauses between two looks for something to do.
const LOOK_MAX: Duration = Duration::from_secs(60);
const LOOK_MIN: Duration = Duration::from_millis(50);

impl Compaction {
    /// Of `journal`; the first round begins now.
    pub(crate) fn new(journal: &Journal<FileDisk>, limits: Limits, questions: Sender<Question>) -> Self {
        let round = Round { end: journal.active_view().id(), began: Instant::now(), appended: 0 };
        let (rests_on, ripe, not_before, look) = (Lsn(0), None, None, LOOK_MIN);
        Self { limits, questions, state: State::Idle, round, rests_on, ripe, not_before, look }
    }

    /// Records of so many bytes were appended.
    pub(crate) fn on_appended(&mut self, bytes: usize) {
        self.round.appended += bytes as u64;
    }

    /// Nothing of it is under way.
    pub(crate) fn is_idle(&self) -> bool {
        matches!(self.state, State::Idle)
    }

    /// How long the next turn may wait, if nothing else happens.
    pub(crate) fn patience(&self) -> Duration {
        match self.state {
            State::Idle => self.look,
            State::Asking(_) => LOOK_MIN,
            State::Asked(..) | State::Leaving => LOOK_MAX,
        }
    }

    /// Does one slice of what there is to do.
    pub(crate) fn turn(&mut self, journal: &mut Journal<FileDisk>, finished: &Finished) -> Result<After, AppendError> {
        match &self.state {
            State::Idle => match self.due(journal, finished) {
                Some(view) => {
                    let end = sheaf_roles::router::Lsn(view.end().0);
                    self.state = State::Asking(finished.raise_floor(end));
                    self.ask(journal)
                }
                None => Ok(After::Go),
            },
            State::Asking(_) => self.ask(journal),
            State::Asked(..) => Ok(After::Go),
            State::Leaving => self.leave(journal),
        }
    }

    /// The machine has answered: what it needs moves to the active segment.
    pub(crate) fn on_verdict(
        &mut self,
        journal: &mut Journal<FileDisk>,
        finished: &Finished,
        verdict: &Verdict,
    ) -> Result<(), AppendError> {
        let State::Asked(generation, asked) = std::mem::replace(&mut self.state, State::Idle) else { return Ok(()) };
        self.rests_on = self.rests_on.max(verdict.rests_on);
        let mut needed = verdict.needed.iter().copied();
        let mut asked = asked.into_iter();
        let mut kept: Vec<Posting> = Vec::new();
        let outcome = journal.compact(SLICE, &mut |lsn, _, _| {
            let asked = asked.next().filter(|asked| asked.lsn == lsn);
            let is_needed = match asked {
                Some(Asked { is_known: true, .. }) => needed.next().unwrap_or(true),
                Some(Asked { is_known: false, .. }) | None => true,
            };
            if !is_needed {
                return Keep::Drop;
            }
            kept.extend(asked.and_then(|asked| asked.key).map(|key| (key, lsn)));
            Keep::Keep
        });
        match outcome {
            Ok(_) => {
                finished.enter_moved(journal.active_view().id(), kept);
                self.state = State::Asking(generation);
                Ok(())
            }
            Err(CompactError::Append(error @ (AppendError::Disk(_) | AppendError::Poisoned))) => Err(error),
            Err(error) => {
                self.give_up(&error);
                Ok(())
            }
        }
    }

    /// The segment to compact now.
    fn due(&mut self, journal: &Journal<FileDisk>, finished: &Finished) -> Option<SegmentView> {
        self.look = LOOK_MAX;
        let oldest = journal.oldest_sealed()?;
        let now = Instant::now();
        if let Some(at) = self.not_before.filter(|at| now < *at) {
            self.look = at.duration_since(now).max(LOOK_MIN);
            return None;
        }
        let ripe = match self.ripe {
            Some((id, at)) if id == oldest.id() => at,
            Some(_) | None => self.ripe_at(journal, &oldest, now),
        };
        let bytes = journal.bytes();
        if now < ripe && bytes <= self.limits.journal_bytes_max {
            self.look = ripe.duration_since(now).clamp(LOOK_MIN, LOOK_MAX);
            return None;
        }
        if !self.is_of_round(oldest.id(), bytes, journal, now) {
            return None;
        }
        let has_index = finished.tiers().files().iter().any(|file| file.span().covers(Span::of(oldest.id())));
        if !has_index {
            self.look = LOOK_MIN;
            return None;
        }
        Some(oldest)
    }

    fn is_of_round(&mut self, oldest: SegmentId, bytes: u64, journal: &Journal<FileDisk>, now: Instant) -> bool {
        let grown = (bytes / ROUND_PART).max(self.limits.segment_bytes.into());
        let is_over = now.duration_since(self.round.began) >= ROUND_MAX || self.round.appended >= grown;
        if oldest >= self.round.end && is_over {
            self.round = Round { end: journal.active_view().id(), began: now, appended: 0 };
        }
        oldest < self.round.end
    }

    fn ripe_at(&mut self, journal: &Journal<FileDisk>, oldest: &SegmentView, now: Instant) -> Instant {
        let retention = Duration::from_millis(self.limits.retention_ms);
        let left = match journal.disk().age(&oldest.file()) {
            Ok(age) => retention.saturating_sub(age),
            Err(error) => {
                tracing::warn!(%error, file = oldest.file(), "the age of a segment cannot be told: it is taken for new");
                retention
            }
        };
        // A retention without end is an hour that begins anew.
        let at = now.checked_add(left).unwrap_or(now + Duration::from_secs(3_600));
        self.ripe = Some((oldest.id(), at));
        at
    }

    fn ask(&mut self, journal: &mut Journal<FileDisk>) -> Result<After, AppendError> {
        let State::Asking(generation) = self.state else { return Ok(After::Go) };
        let (mut asked, mut records) = (Vec::new(), Vec::new());
        let shown = journal.compact_next(SLICE, &mut |lsn, kind, payload| {
            let record = Record::decode(kind, Bytes::copy_from_slice(payload));
            let key = record.as_ref().ok().and_then(index_key).map(|key| key.0);
            asked.push(Asked { lsn, key, is_known: record.is_ok() });
            records.extend(record.map(|record| (sheaf_roles::router::Lsn(lsn.0), record)));
        });
        match shown {
            Ok(true) => {}
            Ok(false) => {
                self.state = State::Leaving;
                return self.leave(journal);
            }
            Err(error) => {
                self.give_up(&error.into());
                return Ok(After::Go);
            }
        }
        match self.questions.try_send(Question { generation, records }) {
            Ok(()) => self.state = State::Asked(generation, asked),
            Err(TrySendError::Full(_)) => {}
            Err(TrySendError::Closed(_)) => tracing::debug!("the core has ended before compaction"),
        }
        Ok(After::Go)
    }

    fn leave(&mut self, journal: &mut Journal<FileDisk>) -> Result<After, AppendError> {
        if journal.durable() < self.rests_on {
            return Ok(After::Go);
        }
        match journal.compact(SLICE, &mut |_, _, _| Keep::Keep) {
            Ok(Progress::AwaitsCommit) => Ok(After::Commit),
            Ok(Progress::Dropped(segment)) => {
                tracing::info!(segment = segment.0, bytes = journal.bytes(), "a segment of the journal is compacted");
                self.state = State::Idle;
                Ok(After::Commit)
            }
            Ok(Progress::Nothing | Progress::Slice { .. }) => {
                self.state = State::Idle;
                Ok(After::Go)
            }
            Err(CompactError::Append(error)) => Err(error),
            Err(error @ CompactError::Read(_)) => {
                self.give_up(&error);
                Ok(After::Go)
            }
        }
    }

    /// For now: everything is still there.
    fn give_up(&mut self, error: &CompactError) {
        tracing::warn!(%error, "a segment cannot be compacted for now");
        self.state = State::Idle;
        self.not_before = Some(Instant::now() + RETRY);
    }
}
