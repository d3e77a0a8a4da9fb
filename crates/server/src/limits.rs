//! The limits of the router process; those of its machine and its sessions are theirs.

/// Bounds of one router process.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Sessions at once, connected or waiting. Full: a new one is refused as busy.
    pub sessions_max: usize,
    /// Bytes of recent records kept in memory. Full: older bodies are read back from disk.
    pub recent_bytes: usize,
    /// Bytes of records that wait for the writer. Full: the core takes no more events until the disk has caught up.
    pub append_bytes_max: usize,
    /// Batches of events taken in one step. More: the next step goes on.
    pub step_batches_max: usize,
    /// A session without a connection is forgotten after this, milliseconds. Its peer starts afresh or resumes by name.
    pub session_warm_ms: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            sessions_max: 10_000,
            recent_bytes: 64 << 20,
            append_bytes_max: 8 << 20,
            step_batches_max: 32,
            session_warm_ms: 120_000,
        }
    }
}
