//! The life of a batch, decided. Pure: time is an argument, and what is to be done follows from where the batch stands,
//! so that a process that starts again goes on from what is on disk as if it had never ended.
//!
//! ```text
//! validating ──► failed
//!     │ └──────────────────────────────┐
//!     ▼                                ▼
//! in_progress ──────cancel──────► cancelling ──► cancelled
//!     │ done, or its time is over
//!     ▼
//! finalizing ──► completed, expired
//! ```
//!
//! **Invariant**: a batch that is over never changes; `finalizing` is never skipped on the way to an end that nobody
//! asked for; a cancel that was accepted is never taken back.

use super::record::{Batch, Counts, Ending, InputError, Part, Status, Usage};

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// The input is sound.
    Valid {
        /// Its models.
        parts: Vec<Part>,
        /// Its lines.
        lines: u64,
    },
    /// It is not.
    Invalid(Vec<InputError>),
    /// Every job is over, and has all that it will ever have.
    Done,
    /// `expires_at` has come.
    Expired,
    /// A client or an operator wants it to end.
    Cancel,
    /// The output and error files are in place, where there is something in them.
    Written {
        /// Lines by how they ended.
        counts: Counts,
        /// Some ended well.
        has_output: bool,
        /// Some did not.
        has_errors: bool,
        /// What the answers tell of tokens.
        usage: Option<Usage>,
    },
}

/// What is to be done with a batch as it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Duty {
    /// Read the input.
    Validate,
    /// Carry its jobs on.
    Run,
    /// Let its jobs end, and write its files. For another ending than `Complete`, what is open is cancelled first.
    Finalize(Ending),
    /// It is over.
    Nothing,
}

/// A cancel came too late.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TooLate;

impl Batch {
    /// What is to be done now.
    pub(crate) fn duty(&self) -> Duty {
        match self.status {
            Status::Validating => Duty::Validate,
            Status::InProgress => Duty::Run,
            Status::Finalizing | Status::Cancelling => Duty::Finalize(self.ending),
            Status::Failed | Status::Completed | Status::Expired | Status::Cancelled => Duty::Nothing,
        }
    }

    /// Takes what happened at `now`, seconds since 1970. What comes from work that a cancel has overtaken changes nothing.
    pub(crate) fn handle(&mut self, event: Event, now: u64) -> Result<(), TooLate> {
        match (self.status, event) {
            (Status::Validating, Event::Valid { parts, lines }) => {
                (self.parts, self.counts.total) = (parts, lines);
                self.status = Status::InProgress;
                self.times.in_progress_at = Some(now);
            }
            (Status::Validating, Event::Invalid(errors)) => {
                self.errors = errors;
                self.status = Status::Failed;
                self.times.failed_at = Some(now);
            }
            (Status::InProgress, Event::Done) => self.finalize(Ending::Complete, now),
            (Status::InProgress, Event::Expired) => self.finalize(Ending::Expired, now),
            (Status::Validating | Status::InProgress, Event::Cancel) => {
                self.ending = Ending::Cancelled;
                self.status = Status::Cancelling;
                self.times.cancelling_at = Some(now);
            }
            (Status::Finalizing | Status::Cancelling, Event::Written { counts, has_output, has_errors, usage }) => {
                (self.counts, self.has_output, self.has_errors) = (counts, has_output, has_errors);
                self.usage = usage;
                self.end(now);
            }
            (Status::Cancelling | Status::Cancelled, Event::Cancel) => {}
            (Status::Finalizing | Status::Failed | Status::Completed | Status::Expired, Event::Cancel) => {
                return Err(TooLate);
            }
            // Overtaken: it was decided otherwise while this was on its way.
            (
                Status::Validating
                | Status::InProgress
                | Status::Finalizing
                | Status::Cancelling
                | Status::Failed
                | Status::Completed
                | Status::Expired
                | Status::Cancelled,
                Event::Valid { .. } | Event::Invalid(_) | Event::Done | Event::Expired | Event::Written { .. },
            ) => {}
        }
        Ok(())
    }

    fn finalize(&mut self, ending: Ending, now: u64) {
        self.ending = ending;
        self.status = Status::Finalizing;
        self.times.finalizing_at = Some(now);
    }

    fn end(&mut self, now: u64) {
        let (status, at) = match self.ending {
            Ending::Complete => (Status::Completed, &mut self.times.completed_at),
            Ending::Expired => (Status::Expired, &mut self.times.expired_at),
            Ending::Cancelled => (Status::Cancelled, &mut self.times.cancelled_at),
        };
        *at = Some(now);
        self.status = status;
    }
}

#[cfg(test)]
mod tests {
    use super::super::record::{Asked, FileNames, Times};
    use super::*;

    fn batch() -> Batch {
        Batch {
            id: "batch_1".into(),
            app: String::new(),
            asked: Asked {
                endpoint: "/v1/embeddings".into(),
                input_file_id: "file-1".into(),
                completion_window: "24h".into(),
                metadata: None,
                output_expires_after: None,
            },
            status: Status::Validating,
            times: Times { created_at: 1, expires_at: 100, ..Times::default() },
            ending: Ending::Complete,
            parts: Vec::new(),
            counts: Counts::default(),
            errors: Vec::new(),
            names: FileNames { output: "file-o".into(), error: "file-e".into() },
            has_output: false,
            has_errors: false,
            usage: None,
        }
    }

    fn valid() -> Event {
        Event::Valid { parts: vec![Part { service: "m".into(), encoding: None }], lines: 3 }
    }

    fn written(completed: u64, failed: u64) -> Event {
        let counts = Counts { total: completed + failed, completed, failed };
        Event::Written { counts, has_output: completed > 0, has_errors: failed > 0, usage: None }
    }

    fn invalid() -> Event {
        let error = InputError { code: "empty_file".into(), line: None, message: String::new(), param: None };
        Event::Invalid(vec![error])
    }

    /// Every status that the events lead through, and whether the last of them was refused.
    fn lived(events: Vec<Event>) -> (Vec<Status>, Batch, bool) {
        let (mut batch, mut seen, mut is_refused) = (batch(), Vec::new(), false);
        for (at, event) in events.into_iter().enumerate() {
            is_refused = batch.handle(event, 10 + at as u64).is_err();
            // A restart between any two events.
            batch = serde_json::from_slice(&serde_json::to_vec(&batch).unwrap()).unwrap();
            seen.push(batch.status);
        }
        (seen, batch, is_refused)
    }

    #[test]
    fn a_batch_that_nobody_stops_is_finalized_and_completed() {
        let (seen, batch, _) = lived(vec![valid(), Event::Done, written(3, 0)]);
        assert_eq!(seen, [Status::InProgress, Status::Finalizing, Status::Completed]);
        let shown = batch.json(batch.counts);
        let times = ["in_progress_at", "finalizing_at", "completed_at", "failed_at", "expired_at", "cancelled_at"];
        let times: Vec<_> = times.map(|name| shown[name].as_u64()).to_vec();
        assert_eq!(times, [Some(10), Some(11), Some(12), None, None, None]);
        assert_eq!((&shown["output_file_id"], &shown["error_file_id"]), (&"file-o".into(), &serde_json::Value::Null));
        assert_eq!(shown["status"], "completed");
    }

    #[test]
    fn what_failed_altogether_has_no_output() {
        let (_, batch, _) = lived(vec![valid(), Event::Done, written(0, 3)]);
        let shown = batch.json(batch.counts);
        assert_eq!((&shown["output_file_id"], &shown["error_file_id"]), (&serde_json::Value::Null, &"file-e".into()));
    }

    #[test]
    fn bad_input_fails_and_says_why() {
        let (seen, batch, is_refused) = lived(vec![invalid(), Event::Cancel]);
        assert_eq!((seen, is_refused), (vec![Status::Failed, Status::Failed], true));
        assert_eq!(batch.json(batch.counts)["errors"]["data"][0]["code"], "empty_file");
    }

    #[test]
    fn time_that_is_over_ends_it_by_way_of_finalizing() {
        let (seen, batch, _) = lived(vec![valid(), Event::Expired, Event::Done, written(1, 2)]);
        assert_eq!(seen, [Status::InProgress, Status::Finalizing, Status::Finalizing, Status::Expired]);
        assert_eq!(
            (batch.times.finalizing_at, batch.times.expired_at, batch.times.completed_at),
            (Some(11), Some(13), None)
        );
    }

    #[test]
    fn a_cancel_overtakes_all_that_is_under_way_and_is_taken_once() {
        let (seen, batch, is_refused) = lived(vec![valid(), Event::Cancel, Event::Done, Event::Cancel, written(1, 2)]);
        let cancelling = [Status::Cancelling; 3];
        assert_eq!(seen, [&[Status::InProgress], cancelling.as_slice(), &[Status::Cancelled]].concat());
        assert!(!is_refused);
        assert_eq!((batch.times.cancelling_at, batch.times.cancelled_at), (Some(11), Some(14)));
        let (seen, batch, _) = lived(vec![Event::Cancel, valid(), invalid(), written(0, 0), Event::Cancel]);
        assert_eq!(seen, [&cancelling[..], &[Status::Cancelled; 2]].concat());
        assert!(batch.parts.is_empty());
    }

    #[test]
    fn a_cancel_that_comes_after_the_work_is_refused() {
        let (seen, _, is_refused) = lived(vec![valid(), Event::Done, Event::Cancel]);
        assert_eq!((seen.last(), is_refused), (Some(&Status::Finalizing), true));
    }

    #[test]
    fn what_is_to_be_done_follows_from_where_it_stands() {
        let duties = |events: Vec<Event>| lived(events).1.duty();
        assert_eq!(duties(vec![]), Duty::Validate);
        assert_eq!(duties(vec![valid()]), Duty::Run);
        assert_eq!(duties(vec![valid(), Event::Expired]), Duty::Finalize(Ending::Expired));
        assert_eq!(duties(vec![Event::Cancel]), Duty::Finalize(Ending::Cancelled));
        assert_eq!(duties(vec![invalid()]), Duty::Nothing);
    }

    /// Whatever comes in whatever order: what is over stays, and only a client's cancel leads to `cancelled`.
    #[test]
    fn no_order_of_events_leads_astray() {
        let all = [valid(), invalid(), Event::Done, Event::Expired, Event::Cancel, written(1, 1)];
        for code in 0..all.len().pow(5) {
            let picked = (0..5).map(|place| all[code / all.len().pow(place) % all.len()].clone()).collect::<Vec<_>>();
            let (seen, batch, _) = lived(picked.clone());
            for pair in seen.windows(2) {
                assert!(!pair[0].is_final() || pair[0] == pair[1], "{picked:?}: {seen:?}");
                let is_skipped = matches!(pair[1], Status::Completed | Status::Expired) && pair[0] != pair[1];
                assert!(!is_skipped || pair[0] == Status::Finalizing, "{picked:?}: {seen:?}");
            }
            assert!(batch.status != Status::Cancelled || picked.contains(&Event::Cancel), "{picked:?}");
            let has_time = match batch.status {
                Status::Validating => true,
                Status::Failed => batch.times.failed_at.is_some(),
                Status::InProgress => batch.times.in_progress_at.is_some(),
                Status::Finalizing => batch.times.finalizing_at.is_some(),
                Status::Completed => batch.times.completed_at.is_some(),
                Status::Expired => batch.times.expired_at.is_some(),
                Status::Cancelling => batch.times.cancelling_at.is_some(),
                Status::Cancelled => batch.times.cancelled_at.is_some(),
            };
            assert!(has_time, "{picked:?}");
        }
    }
}
