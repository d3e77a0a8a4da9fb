//! Time as the machines count it: microseconds since this process made its clock.
//!
//! Monotonic time that stands still while the machine sleeps (`CLOCK_MONOTONIC`, and not `CLOCK_BOOTTIME`), on purpose:
//! a router that slept must not find, on waking, that all its workers have been silent for hours. It is the clock of
//! tokio's timers, so that a wait and the time that it waited for never disagree, and a test may stop both.

use std::time::Duration;

use sheaf_session::Micros;
use tokio::time::Instant;

/// A clock. Copies tell the same time.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    start: Instant,
}

impl Clock {
    /// A clock that stands at zero now.
    pub fn start() -> Self {
        Self { start: Instant::now() }
    }

    /// Microseconds since the start.
    pub fn now(&self) -> Micros {
        micros(self.start.elapsed())
    }

    /// The time that comes after `span`.
    pub(crate) fn after(&self, span: Duration) -> Micros {
        self.now() + micros(span)
    }

    /// Waits until `at`. An hour at most, so that no sum of times overflows: callers look again.
    pub async fn sleep_until(&self, at: Micros) {
        tokio::time::sleep(Duration::from_micros(at.since(self.now()).min(HOUR).0)).await;
    }
}

fn micros(span: Duration) -> Micros {
    Micros(u64::try_from(span.as_micros()).unwrap_or(u64::MAX))
}

const HOUR: Micros = Micros::from_secs(3_600);
