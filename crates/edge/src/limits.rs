//! What the door bounds, and what happens there.

use std::time::Duration;

/// The bounds of a door.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Connections at once; the next ones wait in the kernel's backlog.
    pub connections_max: usize,
    /// How long a client may take for the head of a request; then its connection is cut.
    pub head_timeout: Duration,
    /// Bytes of a request's head, and so of what an idle connection holds.
    pub head_bytes_max: usize,
    /// How long requests in progress may still take when the door closes.
    pub drain: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections_max: 4_096,
            head_timeout: Duration::from_secs(10),
            head_bytes_max: 16 << 10,
            drain: Duration::from_secs(10),
        }
    }
}
