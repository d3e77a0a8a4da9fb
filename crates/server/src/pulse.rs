//! Notices a stage that works on one thing and gets nowhere, and says which, and from which queue the work came.
//!
//! A stage that waits for work is not stalled, however long; nor is the core while it has work and no thread takes it up. Each stall is said once.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use sheaf_net::Clock;
use sheaf_session::Micros;

use crate::stages::{QUEUES, Queue, Stage};

/// What a stage shows of itself. Odd beats: it works.
#[derive(Debug)]
pub(crate) struct Pulse {
    stage: Stage,
    // Atomic, because the watchdog's thread reads what the stage writes.
    beats: AtomicU64,
    /// Place in [`QUEUES`].
    queue: AtomicUsize,
}

impl Pulse {
    /// Of a stage that waits.
    pub(crate) fn new(stage: Stage) -> Arc<Self> {
        Arc::new(Self { stage, beats: AtomicU64::new(0), queue: AtomicUsize::new(0) })
    }

    /// Work from `queue` begins.
    pub(crate) fn begin(&self, queue: &Queue) {
        let place = QUEUES.iter().position(|other| other.name == queue.name);
        self.queue.store(place.unwrap_or_default(), Ordering::Relaxed);
        self.beats.fetch_or(1, Ordering::Relaxed);
    }

    /// A part of it is done.
    pub(crate) fn beat(&self) {
        self.beats.fetch_add(2, Ordering::Relaxed);
    }

    /// It is done; the stage waits.
    pub(crate) fn end(&self) {
        let beats = self.beats.load(Ordering::Relaxed);
        self.beats.store((beats | 1) + 1, Ordering::Relaxed);
    }
}

/// A stage that gets nowhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stall {
    pub stage: Stage,
    /// Where its work came from.
    pub queue: &'static str,
    /// For so long at least.
    pub lasted: Micros,
}

/// Looks at pulses.
#[derive(Debug)]
pub(crate) struct Watchdog {
    watched: Vec<Watched>,
    max: Micros,
}

#[derive(Debug)]
struct Watched {
    pulse: Arc<Pulse>,
    beats: u64,
    since: Micros,
    is_said: bool,
}

impl Watchdog {
    /// Over these stages; a stall is no progress for `max`.
    pub(crate) fn new(pulses: impl IntoIterator<Item = Arc<Pulse>>, max: Micros, now: Micros) -> Self {
        let watch = |pulse| Watched { pulse, beats: 0, since: now, is_said: false };
        Self { watched: pulses.into_iter().map(watch).collect(), max }
    }

    /// The stalls that were not said yet.
    pub(crate) fn look(&mut self, now: Micros) -> Vec<Stall> {
        let max = self.max;
        self.watched.iter_mut().filter_map(|watched| watched.look(now, max)).collect()
    }

    /// Says what it sees until the other end of `stop` is gone.
    pub(crate) fn run(mut self, clock: Clock, stop: &Receiver<()>) {
        let pause = Duration::from_micros(self.max.0 / 4);
        while stop.recv_timeout(pause) == Err(RecvTimeoutError::Timeout) {
            for stall in self.look(clock.now()) {
                let Stall { stage, queue, lasted } = stall;
                tracing::error!(?stage, queue, ms = lasted.0 / 1_000, "a stage has work and makes no progress");
            }
        }
    }
}

impl Watched {
    fn look(&mut self, now: Micros, max: Micros) -> Option<Stall> {
        let beats = self.pulse.beats.load(Ordering::Relaxed);
        let is_working = beats % 2 == 1;
        if beats != self.beats || !is_working {
            (self.beats, self.since, self.is_said) = (beats, now, false);
            return None;
        }
        let lasted = now.since(self.since);
        if lasted < max || std::mem::replace(&mut self.is_said, true) {
            return None;
        }
        let queue = QUEUES.get(self.pulse.queue.load(Ordering::Relaxed)).map_or("", |queue| queue.name);
        Some(Stall { stage: self.pulse.stage, queue, lasted })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stages::{APPENDS, SEALS};

    const MAX: Micros = Micros::from_secs(5);

    #[test]
    fn a_planted_stall_is_named_once_and_so_is_the_next() {
        let (writer, indexer) = (Pulse::new(Stage::Writer), Pulse::new(Stage::Indexer));
        let mut watchdog = Watchdog::new([Arc::clone(&writer), Arc::clone(&indexer)], MAX, Micros::ZERO);
        let at = Micros::from_secs;
        writer.begin(&APPENDS);
        assert_eq!(watchdog.look(at(1)), []);
        assert_eq!(watchdog.look(at(5)), []);
        let stall = Stall { stage: Stage::Writer, queue: "appends", lasted: at(5) };
        assert_eq!(watchdog.look(at(6)), [stall]);
        assert_eq!(watchdog.look(at(60)), []);
        writer.end();
        assert_eq!(watchdog.look(at(61)), []);
        indexer.begin(&SEALS);
        writer.begin(&APPENDS);
        assert_eq!(watchdog.look(at(62)), []);
        indexer.beat();
        let lasted = at(6);
        assert_eq!(watchdog.look(at(68)), [Stall { stage: Stage::Writer, queue: "appends", lasted }]);
    }

    #[test]
    fn waiting_is_no_stall_and_progress_neither() {
        let core = Pulse::new(Stage::Core);
        let mut watchdog = Watchdog::new([Arc::clone(&core)], MAX, Micros::ZERO);
        assert_eq!(watchdog.look(Micros::from_secs(100)), []);
        for second in (100..200).step_by(4) {
            core.begin(&APPENDS);
            core.beat();
            assert_eq!(watchdog.look(Micros::from_secs(second)), []);
        }
    }
}
