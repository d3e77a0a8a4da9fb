//! What only some runs have: rare sizes, rare people, rare accidents. Drawn apart from the rest of a plan, so that the small
//! world stays the common case and stays as it was for a seed.

use sheaf_session::{Config, Micros, Rng};

/// What is odd about a run; nothing by default.
#[derive(Clone, Debug, Default)]
pub struct Oddities {
    /// Messages that each side of a session may send ahead at first: so few that senders stand at their limit.
    pub window: Option<u64>,
    /// Longest commit of a sink, where its disk is slow: a slow reader.
    pub slow_sink: Option<Micros>,
}

impl Oddities {
    /// As the seed has it.
    pub(crate) fn draw(seed: u64) -> Self {
        let rng = &mut Rng::new(seed ^ 0x0dd_0dd_0dd_0dd);
        Self {
            window: rng.chance(0.3).then(|| 1 + rng.below(6)),
            slow_sink: rng.chance(0.1).then(|| Micros(1 + rng.below(4_000_000))),
        }
    }

    /// The settings of any session.
    pub(crate) fn session_config(&self) -> Config {
        let usual = Config::default();
        Config { window: self.window.unwrap_or(usual.window), ..usual }
    }
}
