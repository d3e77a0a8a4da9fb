//! A wait for a time that moves. Most waits of a loop end before their time, and the next one is for later: so the timer
//! stays set where it was, and is set anew only when it rings too early or would ring too late.

use std::future::pending;
use std::pin::Pin;
use std::time::Duration;

use sheaf_session::Micros;
use tokio::time::{Instant, Sleep, sleep_until};

use crate::clock::Clock;

/// One timer for all waits of one loop.
#[derive(Debug, Default)]
pub struct Alarm {
    timer: Option<Pin<Box<Sleep>>>,
    /// When it rings, if it has not.
    set: Option<Micros>,
}

impl Alarm {
    /// Waits until `at` by `clock`, the same for all waits; `None`: for ever. May be dropped at any await and called again,
    /// for another time.
    pub async fn wait(&mut self, clock: Clock, at: Option<Micros>) {
        let Some(at) = at else { return pending().await };
        loop {
            if self.set.is_none_or(|set| set > at) {
                self.set(clock, at);
            }
            if let Some(timer) = &mut self.timer {
                timer.await;
            }
            self.set = None;
            if clock.now() >= at {
                return;
            }
        }
    }

    fn set(&mut self, clock: Clock, at: Micros) {
        let now = clock.now();
        let ahead = at.since(now).min(AHEAD_MAX);
        self.set = Some(now + ahead);
        let deadline = Instant::now() + Duration::from_micros(ahead.0);
        match &mut self.timer {
            Some(timer) => timer.as_mut().reset(deadline),
            None => self.timer = Some(Box::pin(sleep_until(deadline))),
        }
    }
}

/// So that no sum of times overflows: it rings too early then.
const AHEAD_MAX: Micros = Micros::from_secs(3_600);

#[cfg(test)]
mod tests {
    use tokio::time::timeout;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn rings_at_the_time_that_was_asked_for_last() {
        let (clock, mut alarm) = (Clock::start(), Alarm::default());
        let seconds = Micros::from_secs;
        // Dropped before its time, and asked for a later time, an earlier one, one that is over, and one after hours.
        let dropped = timeout(Duration::from_secs(1), alarm.wait(clock, Some(seconds(3)))).await;
        assert!(dropped.is_err());
        for (at, rings) in [(5, 5), (9, 9), (7, 9), (20, 20), (30_000, 30_000)] {
            alarm.wait(clock, Some(seconds(at))).await;
            let late = clock.now().since(seconds(rings));
            assert!(clock.now() >= seconds(rings) && late < Micros::from_ms(10), "{at} rings at {:?}", clock.now());
        }
        let never = timeout(Duration::from_secs(9), alarm.wait(clock, None)).await;
        assert!(never.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn an_earlier_time_is_not_missed() {
        let (clock, mut alarm) = (Clock::start(), Alarm::default());
        let dropped = timeout(Duration::from_secs(1), alarm.wait(clock, Some(Micros::from_secs(60)))).await;
        assert!(dropped.is_err());
        alarm.wait(clock, Some(Micros::from_secs(2))).await;
        assert!(clock.now() < Micros::from_secs(3));
    }
}
