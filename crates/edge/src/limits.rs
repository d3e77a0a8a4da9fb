//! What the door bounds, and what happens there.

use std::time::Duration;

use sheaf_task::BODY_BYTES_MAX;

use crate::admit::LightConfig;
use crate::calls::CallLimits;

/// The bounds of a door.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Connections at once; the next ones wait in the kernel's backlog.
    pub connections_max: usize,
    /// How long a client may take for the head of a request; then its connection is cut.
    pub head_timeout: Duration,
    /// Bytes of a request's head, and so of what an idle connection holds.
    pub head_bytes_max: usize,
    /// Bytes of a call's body; a longer one is refused.
    pub call_bytes_max: usize,
    /// How long a body may take whatever its length, and
    pub body_grace: Duration,
    /// how many bytes of it a second must come beyond that; a slower one is refused.
    pub body_rate_min: u32,
    /// How long a client waits for a call; the call goes on.
    pub call_timeout: Duration,
    /// Of the calls under way.
    pub calls: CallLimits,
    /// Bytes of bodies of calls that are being read at once; what finds no room is refused.
    pub bodies_bytes_max: usize,
    /// What calls are let in by.
    pub light: LightConfig,
    /// How long a client may take none of the bytes that wait for it; then its connection is cut.
    pub write_stall: Duration,
    /// How long a client may send nothing in the middle of an upload; and how long all of one may take, beyond what
    /// `body_rate_min` gives it.
    pub body_timeout: Duration,
    /// Bytes of an uploaded file.
    pub file_bytes_max: u64,
    /// Bytes that the files of an app may have, uploaded and written by batches; beyond it uploads and new batches are
    /// refused. What batches write is written.
    pub app_bytes_max: u64,
    /// Lines of a batch.
    pub batch_lines_max: u64,
    /// Batches that are not over, of one app; another one is refused until one is.
    pub batches_open_max: usize,
    /// Jobs of batches (one for each model of a batch) that are at the router at once; the next batches wait
    /// `in_progress` with none of their lines sent.
    pub batch_jobs_max: u32,
    /// How long requests in progress may still take when the door closes.
    pub drain: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections_max: 4_096,
            head_timeout: Duration::from_secs(10),
            head_bytes_max: 16 << 10,
            call_bytes_max: BODY_BYTES_MAX,
            body_grace: Duration::from_secs(10),
            body_rate_min: 4 << 10,
            call_timeout: Duration::from_secs(600),
            calls: CallLimits::default(),
            bodies_bytes_max: 64 << 20,
            light: LightConfig::default(),
            write_stall: Duration::from_secs(10),
            body_timeout: Duration::from_secs(60),
            file_bytes_max: 200 << 20,
            app_bytes_max: 100 << 30,
            batch_lines_max: 50_000,
            batches_open_max: 1_000,
            batch_jobs_max: 64,
            drain: Duration::from_secs(10),
        }
    }
}
