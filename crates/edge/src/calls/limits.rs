//! What the calls under way may cost, and what happens there.

use std::time::Duration;

use sheaf_session::Micros;

/// Bounds of the calls under way, of one tenant.
#[derive(Clone, Copy, Debug)]
pub struct CallLimits {
    /// Calls under way. Full: refused as busy.
    pub calls_max: usize,
    /// Bytes of their bodies. Full: refused as busy.
    pub bytes_max: usize,
    /// How long a call whose client vanished goes on, so that a retry finds it. Then it is cancelled.
    pub linger: Duration,
    /// Attempts of a task after the first.
    pub retries: u32,
}

impl Default for CallLimits {
    fn default() -> Self {
        Self { calls_max: 10_000, bytes_max: 64 << 20, linger: Duration::from_secs(60), retries: 2 }
    }
}

/// Jobs that are open at once: one per service, revision and time-limit. Full: the one that
/// has been without calls for longest is forgotten; where all have calls, refused as busy.
pub(super) const JOBS_MAX: usize = 512;

/// Jobs that one session opens. More: another session follows it, so that the router may let go of those that are over.
pub(super) const OPENED_MAX: u32 = 2_048;

/// Submissions on their way to the router's disk. Full: calls wait for the next.
pub(super) const FLIGHT_MAX: usize = 64;

/// Callers that wait for the same work. More: refused as busy.
pub(super) const WAITERS_MAX: usize = 16;

/// Answers that are kept for a retry that comes too late to join.
pub(super) const RECENT_MAX: usize = 1_024;

/// Bytes of those.
pub(super) const RECENT_BYTES_MAX: usize = 8 << 20;

/// How long such an answer is kept.
pub(super) const RECENT_AGE: Micros = Micros::from_secs(60);

/// A job without calls for so long is said to be at its end, so that it may leave the router's books.
pub(super) const IDLE: Micros = Micros::from_secs(60);

/// Times that a call of its own is named anew where the journal already has an answer under its name.
pub(super) const RENAMED_MAX: u32 = 3;
