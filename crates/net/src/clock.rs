//! Time as the machines count it: microseconds since this process made its clock.
//!
//! Monotonic time that stands still while the machine sleeps (`CLOCK_MONOTONIC`), on purpose: a router that slept must
//! not find, on waking, that all its workers have been silent for hours.

use std::time::{Duration, Instant};

use sheaf_session::Micros;

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
        Micros(u64::try_from(self.start.elapsed().as_micros()).unwrap_or(u64::MAX))
    }

    /// Waits until `at`. An hour at most, so that no sum of times overflows: callers look again.
    pub async fn sleep_until(&self, at: Micros) {
        let wait = at.0.saturating_sub(self.now().0).min(HOUR.0);
        tokio::time::sleep(Duration::from_micros(wait)).await;
    }
}

const HOUR: Micros = Micros(3_600_000_000);
