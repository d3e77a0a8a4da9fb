//! The light of one service: how many of its calls may be under way, found from how long they wait.
//!
//! Pure: time is an argument, and what it measures comes with each answer. A call's wait is all of its time here that no
//! worker spent on it. While the wait of every window stays below the target, more calls are let in; when even the
//! shortest of a window is above it, there is a standing queue, and the limit falls to what the service has done in that
//! time (Little's law), so that those who are let in wait about as long as the target says.
//!
//! Invariants: what workers execute at once is always let in; a limit is never above its greatest value.

use sheaf_session::Micros;

/// What a light goes by.
#[derive(Clone, Copy, Debug)]
pub struct LightConfig {
    /// How long a call may wait for its worker while many want one. A service whose executions last longer than that may
    /// let a call wait as long as one of them lasts.
    pub target: Micros,
    /// The shortest time over which waits are judged.
    pub window: Micros,
    /// Answers over which they are judged, at least.
    pub answers_min: u32,
    /// Calls that are let in whatever they wait.
    pub calls_min: u32,
    /// Calls that are under way at once, at most.
    pub calls_max: u32,
}

impl Default for LightConfig {
    fn default() -> Self {
        Self {
            target: Micros::from_ms(10),
            window: Micros::from_ms(100),
            answers_min: 8,
            calls_min: 4,
            calls_max: 10_000,
        }
    }
}

/// The light of one service.
#[derive(Clone, Debug)]
pub(crate) struct Light {
    config: LightConfig,
    /// Executions at once, as its workers announce.
    capacity: u32,
    limit: f64,
    under_way: u32,
    /// How long the way to workers and back takes, as seen when they were not busy.
    way: Micros,
    window: Window,
    last_used: Micros,
}

/// What was seen since the last judgement.
#[derive(Clone, Debug, Default)]
struct Window {
    since: Micros,
    answers: u32,
    shortest: Micros,
    executed_ms: u64,
    /// A call found the limit reached.
    was_full: bool,
}

impl Light {
    pub(crate) fn new(now: Micros, config: LightConfig) -> Self {
        let window = Window { since: now, ..Window::default() };
        Self {
            config,
            capacity: 0,
            limit: f64::from(config.calls_min),
            under_way: 0,
            way: Micros::ZERO,
            window,
            last_used: now,
        }
    }

    /// What workers execute of it at once. It never falls below that and a
    /// quarter: what is on its way to a worker that has just become free.
    pub(crate) fn set_capacity(&mut self, capacity: u32) {
        if capacity > self.capacity {
            // One in hand and one behind it, until it shows how long that makes them wait.
            self.limit = self.limit.max(f64::from(capacity.saturating_mul(2).min(self.config.calls_max)));
        }
        self.capacity = capacity;
        self.limit = self.limit.max(self.floor());
    }

    fn floor(&self) -> f64 {
        let floor = self.capacity.saturating_add(self.capacity / 4).max(self.config.calls_min);
        f64::from(floor.min(self.config.calls_max))
    }

    /// Whether one more would be let in.
    pub(crate) fn is_green(&self) -> bool {
        f64::from(self.under_way) < self.limit
    }

    /// Lets a call in, or not.
    pub(crate) fn admit(&mut self, now: Micros) -> bool {
        self.last_used = now;
        if !self.is_green() {
            self.note_full();
            return false;
        }
        self.under_way += 1;
        true
    }

    /// Somebody was refused for want of room.
    pub(crate) fn note_full(&mut self) {
        self.window.was_full = true;
    }

    /// A call that was let in has ended: with an answer, which took so long and was executed in so long, or without one.
    pub(crate) fn on_ended(&mut self, now: Micros, answer: Option<(Micros, u64)>) {
        self.under_way = self.under_way.saturating_sub(1);
        let Some((took, executed_ms)) = answer else { return };
        let wait = took.since(Micros::from_ms(executed_ms));
        let window = &mut self.window;
        window.shortest = if window.answers == 0 { wait } else { window.shortest.min(wait) };
        window.answers += 1;
        window.executed_ms += executed_ms;
        if now.since(window.since) >= self.config.window && window.answers >= self.config.answers_min {
            self.judge(now);
        }
    }

    fn judge(&mut self, now: Micros) {
        let Window { since, answers, shortest, executed_ms, was_full } = std::mem::take(&mut self.window);
        self.window.since = now;
        let executed = Micros(executed_ms * 1_000 / u64::from(answers));
        let span = now.since(since).0.max(1) as f64;
        let used = (executed_ms * 1_000) as f64 / span / f64::from(self.capacity.max(1));
        let is_busy = used >= BUSY || shortest.0 > self.config.target.0 * WAY_MAX;
        if !is_busy {
            // Workers that are not busy are no reason to wait: it is the way to them that is long.
            self.way = shortest;
        }
        let target = self.config.target.max(executed) + self.way;
        if shortest > target {
            // What is done in the time that a call may take: more would only wait.
            let fair = f64::from(answers) / span * (executed.0 + target.0) as f64;
            self.limit = fair.clamp(self.limit * FALL_MOST, self.limit * FALL_LEAST);
        } else if was_full && (!is_busy || shortest.0 * 2 < target.0) {
            self.limit += (self.limit * RISE).max(1.0);
        }
        self.limit = self.limit.clamp(self.floor(), f64::from(self.config.calls_max));
    }

    /// When it was last asked.
    pub(crate) fn last_used(&self) -> Micros {
        self.last_used
    }

    /// Somebody was refused since the last judgement.
    #[cfg(test)]
    pub(crate) fn was_full(&self) -> bool {
        self.window.was_full
    }

    /// Calls that it has let in and that have not ended.
    pub(crate) fn under_way(&self) -> u32 {
        self.under_way
    }
}

/// Workers are busy when so much of their time goes into executions.
const BUSY: f64 = 0.8;
/// So many times the target the way to them may take.
const WAY_MAX: u64 = 50;
/// In one judgement the limit falls no lower than to this part of itself,
const FALL_MOST: f64 = 0.5;
/// and at least to this.
const FALL_LEAST: f64 = 0.95;
/// It rises by this part of itself.
const RISE: f64 = 0.1;

#[cfg(test)]
mod tests {
    use super::*;

    /// A service of `servers` that each take `ms`, offered `offered` calls a second for `secs`: answers a second in the last
    /// half, and the longest wait there.
    fn run(servers: u32, ms: u64, offered: u64, secs: u64) -> (f64, Micros) {
        let mut light = Light::new(Micros::ZERO, LightConfig::default());
        light.set_capacity(servers);
        let mut free_at = vec![Micros::ZERO; servers as usize];
        let mut ends = std::collections::BTreeSet::<(Micros, u64, Micros)>::new();
        let (mut done, mut longest) = (0u64, Micros::ZERO);
        let (end, half) = (Micros::from_secs(secs), Micros::from_secs(secs / 2));
        for n in 0..offered * secs {
            let now = Micros(n * 1_000_000 / offered);
            while let Some((at, number, begun)) = ends.first().copied().filter(|(at, ..)| *at <= now) {
                ends.remove(&(at, number, begun));
                light.on_ended(at, Some((at.since(begun), ms)));
                if at > half && at <= end {
                    done += 1;
                    longest = longest.max(at.since(begun).since(Micros::from_ms(ms)));
                }
            }
            if light.admit(now) {
                let server = free_at.iter_mut().min().unwrap();
                let at = now.max(*server) + Micros::from_ms(ms);
                *server = at;
                ends.insert((at, n, now));
            }
        }
        (done as f64 / (secs - secs / 2) as f64, longest)
    }

    #[test]
    fn overload_costs_no_throughput_and_no_long_wait() {
        for (servers, ms) in [(16, 10), (1, 10), (64, 10), (4, 200)] {
            let peak = f64::from(servers) * 1_000.0 / ms as f64;
            for times in [2, 10, 100] {
                let (rate, wait) = run(servers, ms, (peak * f64::from(times)) as u64, 6);
                assert!(rate >= 0.98 * peak, "{servers} of {ms} ms, {times}x: {rate} of {peak} a second");
                let fair = Micros::from_ms(10.max(ms) * 4).max(Micros::from_ms(u64::from(4 / servers) * ms));
                assert!(wait <= fair, "{servers} of {ms} ms, {times}x: the longest wait is {wait:?}");
            }
        }
    }

    #[test]
    fn below_capacity_everything_is_let_in() {
        let (rate, _) = run(16, 10, 1_400, 6);
        assert!(rate >= 1_399.0, "{rate}");
    }

    #[test]
    fn a_long_way_to_idle_workers_is_not_taken_for_a_queue() {
        for way in [30, 90, 300] {
            let (done, possible) = (far_workers(way), 16 * (way + 10) / 10);
            assert!(u64::from(done) >= possible / 2, "{done} in {way} ms, where {possible} are possible");
        }
    }

    /// Calls under way in the end, where sixteen workers of 10 ms are so far away.
    fn far_workers(way: u64) -> u32 {
        let mut light = Light::new(Micros::ZERO, LightConfig::default());
        light.set_capacity(16);
        let (mut now, mut done) = (Micros::ZERO, 0);
        for _ in 0..200 {
            let begun = now;
            while light.admit(now) {}
            now = now + Micros::from_ms(way + 10);
            done = light.under_way();
            for _ in 0..done {
                light.on_ended(now, Some((now.since(begun), 10)));
            }
        }
        done
    }

    #[test]
    fn what_workers_execute_at_once_is_let_in_whatever_it_waits() {
        let mut light = Light::new(Micros::ZERO, LightConfig::default());
        light.set_capacity(400);
        for second in 0..100 {
            let now = Micros::from_secs(second);
            while light.admit(now) {}
            assert!(light.under_way() >= 400);
            for _ in 0..100 {
                light.on_ended(now + Micros::from_ms(900), Some((Micros::from_secs(60), 5)));
            }
        }
    }

    #[test]
    fn what_ends_without_an_answer_makes_room_and_says_nothing_of_waits() {
        let mut light = Light::new(Micros::ZERO, LightConfig { calls_min: 1, ..LightConfig::default() });
        assert!(light.admit(Micros::ZERO) && !light.admit(Micros::ZERO));
        light.on_ended(Micros::from_secs(9), None);
        assert!(light.admit(Micros::from_secs(9)));
    }
}
