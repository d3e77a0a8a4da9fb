//! How many rows a backend gets at once, by what it says: additive increase, multiplicative decrease, and pauses.
//!
//! | the backend | the window | a pause |
//! |---|---|---|
//! | answers a window's worth of rows | grows by one, up to the most | none |
//! | says that it has too much to do | is halved | as long as it asks for, else doubling |
//! | cannot be reached, or will not have this worker | stays; one row tries first | doubling |
//! | fails in any other way, many times in a row | the same | the same |
//!
//! It knows no HTTP and no rows: time is an argument, and what was sent before the last bad news is no news.
//!
//! Invariant: `1 <= window <= most`.

use std::time::{Duration, Instant};

/// The first pause where the backend names none; doubles with each in a row.
const PAUSE_MIN: Duration = Duration::from_millis(250);
/// The longest of those.
const PAUSE_MAX: Duration = Duration::from_secs(30);
/// The shortest pause, whatever the backend asks for: nobody is asked again at once.
const ASKED_MIN: Duration = Duration::from_millis(50);
/// Failures in a row after which a backend counts as away: it would fail every row there is, and fast.
const FAULTS_MAX: u32 = 16;
/// The longest that is believed.
const ASKED_MAX: Duration = Duration::from_secs(3_600);

/// What an answer says of the backend, beside what it means for its rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Mood {
    /// It did its work.
    Good,
    /// It failed, perhaps by this row's doing.
    Failed,
    /// It has too much to do, and may say for how long.
    Pressed(Option<Duration>),
    /// It is not there, or will not have this worker.
    Away,
}

#[derive(Debug)]
pub(super) struct Pace {
    most: u32,
    window: u32,
    /// Good answers since the window last changed.
    good: u32,
    /// When bad news last changed anything.
    cut_at: Option<Instant>,
    paused_until: Option<Instant>,
    /// Bad news in a row.
    strikes: u32,
    /// Failures since the last good answer.
    faults: u32,
    /// It was away: one row tries whether it is back.
    is_probing: bool,
}

impl Pace {
    pub(super) fn new(most: u32) -> Self {
        let most = most.max(1);
        Self { most, window: most, good: 0, cut_at: None, paused_until: None, strikes: 0, faults: 0, is_probing: false }
    }

    /// Rows that may be with the backend at `now`.
    pub(super) fn room(&self, now: Instant) -> u32 {
        match self.resumes_at(now) {
            Some(_) => 0,
            None if self.is_probing => 1,
            None => self.window,
        }
    }

    /// The end of the pause that `now` is in.
    pub(super) fn resumes_at(&self, now: Instant) -> Option<Instant> {
        self.paused_until.filter(|until| *until > now)
    }

    /// An answer for a row that was sent at `sent`. True where it begins a pause, or makes it longer.
    pub(super) fn on_answer(&mut self, mood: &Mood, sent: Instant, now: Instant) -> bool {
        let is_news = self.cut_at.is_none_or(|cut| sent > cut);
        match mood {
            Mood::Good if is_news => {
                self.on_good();
                false
            }
            Mood::Good => false,
            Mood::Failed => {
                self.faults = self.faults.saturating_add(1);
                if self.faults < FAULTS_MAX {
                    return false;
                }
                self.is_probing = true;
                self.on_bad(None, is_news, now)
            }
            Mood::Pressed(asked) => {
                if is_news {
                    self.window = (self.window / 2).max(1);
                }
                self.on_bad(*asked, is_news, now)
            }
            Mood::Away => {
                self.is_probing = true;
                self.on_bad(None, is_news, now)
            }
        }
    }

    fn on_good(&mut self) {
        (self.strikes, self.faults, self.is_probing) = (0, 0, false);
        self.good += 1;
        if self.good >= self.window {
            self.good = 0;
            self.window = (self.window + 1).min(self.most);
        }
    }

    fn on_bad(&mut self, asked: Option<Duration>, is_news: bool, now: Instant) -> bool {
        if is_news {
            self.strikes += 1;
            (self.good, self.cut_at) = (0, Some(now));
        } else if asked.is_none() {
            return false;
        }
        let doubled = PAUSE_MIN.saturating_mul(1 << (self.strikes - 1).min(16)).min(PAUSE_MAX);
        let until = now + asked.map_or(doubled, |asked| asked.clamp(ASKED_MIN, ASKED_MAX));
        let is_longer = self.paused_until.is_none_or(|known| known < until);
        if is_longer {
            self.paused_until = Some(until);
        }
        is_longer
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A pace and a clock that stands still until it is told.
    struct World {
        pace: Pace,
        now: Instant,
    }

    impl World {
        fn new(most: u32) -> Self {
            Self { pace: Pace::new(most), now: Instant::now() }
        }

        /// So many rows are sent now and answered a moment later.
        fn round(&mut self, rows: u32, mood: &Mood) {
            let sent = self.now;
            self.now += Duration::from_millis(1);
            (0..rows).for_each(|_| {
                self.pace.on_answer(mood, sent, self.now);
            });
            self.now += Duration::from_millis(1);
        }

        fn pause(&mut self) -> Duration {
            let until = self.pace.resumes_at(self.now).unwrap_or(self.now);
            let pause = until - self.now;
            self.now = until;
            pause
        }

        fn room(&self) -> u32 {
            self.pace.room(self.now)
        }
    }

    #[test]
    fn pressure_halves_the_window_once_for_all_that_was_on_its_way() {
        let mut world = World::new(16);
        world.round(16, &Mood::Pressed(None));
        assert_eq!(world.room(), 0, "nothing is sent in a pause");
        world.pause();
        assert_eq!(world.room(), 8);
        (0..5).for_each(|_| {
            world.round(8, &Mood::Pressed(None));
            world.pause();
        });
        assert_eq!(world.room(), 1, "it never goes away");
    }

    #[test]
    fn good_answers_let_it_grow_by_one_a_window_up_to_the_most() {
        let mut world = World::new(4);
        world.round(4, &Mood::Pressed(None));
        world.pause();
        assert_eq!(world.room(), 2);
        world.round(1, &Mood::Good);
        assert_eq!(world.room(), 2);
        world.round(1, &Mood::Good);
        assert_eq!(world.room(), 3);
        world.round(100, &Mood::Good);
        assert_eq!(world.room(), 4);
    }

    #[test]
    fn a_good_answer_from_before_the_cut_is_no_news() {
        let mut world = World::new(2);
        let early = world.now;
        world.round(1, &Mood::Pressed(Some(Duration::from_secs(1))));
        world.pause();
        let now = world.now;
        (0..9).for_each(|_| assert!(!world.pace.on_answer(&Mood::Good, early, now)));
        assert_eq!(world.room(), 1);
    }

    #[test]
    fn pauses_double_until_something_is_good_again_and_what_is_asked_for_is_kept() {
        let mut world = World::new(8);
        let mut pauses = Vec::new();
        for _ in 0..12 {
            world.round(1, &Mood::Pressed(None));
            pauses.push(world.pause().as_millis() + 1);
        }
        assert_eq!(pauses[..4], [250, 500, 1_000, 2_000]);
        assert_eq!(pauses[11], 30_000);
        world.round(1, &Mood::Good);
        world.round(1, &Mood::Pressed(None));
        assert_eq!(world.pause().as_millis() + 1, 250);
        world.round(1, &Mood::Pressed(Some(Duration::from_secs(7))));
        assert_eq!(world.pause().as_millis() + 1, 7_000);
        world.round(1, &Mood::Pressed(Some(Duration::from_secs(1 << 40))));
        assert_eq!(world.pause().as_secs(), 3_599);
        world.round(1, &Mood::Pressed(Some(Duration::ZERO)));
        assert_eq!(world.pause().as_millis() + 1, 50);
    }

    #[test]
    fn who_only_fails_is_soon_given_one_row_at_a_time() {
        let mut world = World::new(8);
        world.round(FAULTS_MAX - 1, &Mood::Failed);
        world.round(1, &Mood::Good);
        world.round(FAULTS_MAX - 1, &Mood::Failed);
        assert_eq!(world.room(), 8, "rows may be to blame");
        world.round(1, &Mood::Failed);
        let first = world.pause();
        assert_eq!(world.room(), 1);
        world.round(1, &Mood::Failed);
        assert!(first > Duration::ZERO && world.pause() > first);
        world.round(1, &Mood::Good);
        assert_eq!(world.room(), 8);
    }

    #[test]
    fn one_row_tries_whether_a_backend_is_back() {
        let mut world = World::new(8);
        world.round(8, &Mood::Away);
        assert_eq!(world.room(), 0);
        world.pause();
        assert_eq!(world.room(), 1);
        world.round(1, &Mood::Failed);
        assert_eq!(world.room(), 1);
        world.round(1, &Mood::Good);
        assert_eq!(world.room(), 8);
    }
}
