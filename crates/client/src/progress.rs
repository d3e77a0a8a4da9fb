//! How far a job is, and when it may be done. Pure: the clock is an argument.
//!
//! The end is told as a range: what is left, divided by the fastest and by the slowest of the rates seen over the last
//! seconds, the last minute and the whole run. Nothing is told before there is something to tell it by.

use std::collections::VecDeque;

/// A job as its client sees it now.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Progress {
    /// What is being done.
    pub phase: Phase,
    /// Rows that the source has, once it has been read to its end (within `--limit`).
    pub rows: Option<u64>,
    /// Rows read so far, resumed ones included.
    pub scanned: u64,
    /// Rows with an outcome in the sink, resumed ones included.
    pub done: u64,
    /// Of those: without an answer.
    pub failed: u64,
    /// Of those: in the sink before this run began.
    pub resumed: u64,
    /// Of those: answered from the journal without execution.
    pub cached: u64,
    /// Rows that workers have, to execute or behind what they execute, by the router's last word.
    pub running: u64,
    /// Rows that wait for any worker to offer their service, by the router's last word.
    pub unserved: u64,
    /// The router is connected.
    pub connected: bool,
    /// Rows done per second, lately.
    pub rate: f64,
    /// Seconds to the end: at best, at worst.
    pub eta: Option<(u64, u64)>,
}

/// What a job is doing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Phase {
    /// Comparing the sink with the source.
    #[default]
    Reconciling,
    /// Reading rows, sending them and taking results.
    Running,
    /// Interrupted: taking what is already on its way.
    Draining,
    /// Bringing the sink into its final form.
    Finishing,
}

/// Seconds over which a rate is taken, besides the whole run.
const WINDOWS_S: [u64; 2] = [10, 60];

/// The least time and work by which the end is told.
const TELL_AFTER_MS: u64 = 2_000;
const TELL_AFTER_ROWS: u64 = 3;

/// Rates and the end, from a count that grows.
#[derive(Clone, Debug, Default)]
pub struct Pace {
    /// (milliseconds since the start, rows done in this run), at most one a second, over the longest window.
    seen: VecDeque<(u64, u64)>,
    latest: (u64, u64),
}

impl Pace {
    /// At `ms` since the start, `done` rows were done in this run. Neither goes back.
    pub fn note(&mut self, ms: u64, done: u64) {
        self.latest = (ms, done);
        if self.seen.back().is_none_or(|(last, _)| ms >= last + 1_000) {
            self.seen.push_back((ms, done));
        }
        while self.seen.len() > 1 && self.seen[1].0 + WINDOWS_S[1] * 1_000 <= ms {
            self.seen.pop_front();
        }
    }

    /// Rows per second over the last seconds; 0 where nothing was seen.
    pub fn rate(&self) -> f64 {
        self.rate_over(WINDOWS_S[0])
    }

    /// Seconds until `left` more rows are done: at best, at worst. `None` while that is anyone's guess.
    pub fn eta(&self, left: u64) -> Option<(u64, u64)> {
        let (ms, done) = self.latest;
        if ms < TELL_AFTER_MS || done < TELL_AFTER_ROWS {
            return None;
        }
        let whole = done as f64 * 1_000.0 / ms as f64;
        let rates = [self.rate_over(WINDOWS_S[0]), self.rate_over(WINDOWS_S[1]), whole];
        let fast = rates.iter().copied().fold(0.0, f64::max);
        let slow = rates.iter().copied().filter(|rate| *rate > 0.0).fold(fast, f64::min);
        let seconds = |rate: f64| (left as f64 / rate).ceil() as u64;
        Some((seconds(fast), seconds(slow)))
    }

    fn rate_over(&self, seconds: u64) -> f64 {
        let (ms, done) = self.latest;
        let begin = ms.saturating_sub(seconds * 1_000);
        // The last sight before the window began, or the start.
        let (from, before) = self.seen.iter().rev().find(|(at, _)| *at <= begin).copied().unwrap_or((0, 0));
        if ms == from { 0.0 } else { (done - before) as f64 * 1_000.0 / (ms - from) as f64 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paced(steps: &[(u64, u64)]) -> Pace {
        let mut pace = Pace::default();
        for (seconds, done) in steps {
            pace.note(seconds * 1_000, *done);
        }
        pace
    }

    #[test]
    fn a_steady_pace_has_a_sharp_end() {
        let steps: Vec<_> = (0..200).map(|second| (second, second * 40)).collect();
        let pace = paced(&steps);
        assert_eq!(pace.rate(), 40.0);
        assert_eq!(pace.eta(4_000), Some((100, 100)));
    }

    #[test]
    fn a_pace_that_slows_widens_the_range() {
        let steps: Vec<_> =
            (0..=110).map(|second: u64| (second, second.min(100) * 10 + second.saturating_sub(100))).collect();
        let pace = paced(&steps);
        assert_eq!(pace.rate(), 1.0);
        let (best, worst) = pace.eta(100).unwrap();
        assert!(best < 15 && worst == 100, "{best} to {worst}");
    }

    #[test]
    fn nothing_is_told_before_there_is_something_to_tell_it_by() {
        assert_eq!(paced(&[]).eta(10), None);
        assert_eq!(paced(&[]).rate(), 0.0);
        assert_eq!(paced(&[(1, 1_000)]).eta(10), None);
        assert_eq!(paced(&[(60, 2)]).eta(10), None);
    }

    #[test]
    fn a_stall_is_no_division_by_zero() {
        let pace = paced(&[(1, 10), (2, 20), (40, 20), (100, 20)]);
        assert_eq!(pace.rate(), 0.0);
        assert_eq!(pace.eta(20), Some((100, 100)));
    }

    #[test]
    fn memory_is_bounded_by_the_longest_window() {
        let mut pace = Pace::default();
        for ms in 0..200_000 {
            pace.note(ms, ms);
        }
        assert!(pace.seen.len() <= 63);
        assert!((pace.rate() - 1_000.0).abs() < 1.0);
    }
}
