//! The limits of the router machine: each with its default and what happens when it is reached.

/// Bounds of one router. `sheaf doctor --limits` prints them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Open tasks. Full: submitted rows are refused as `Busy`.
    pub tasks_open_max: u32,
    /// Jobs on record. Full: opening another lets the oldest go that is done or cancelled, settled and without a client; if
    /// there is none, it is refused as `Busy`.
    pub jobs_max: u32,
    /// Workers on record. Full: registering another is refused as `Busy`.
    pub workers_max: u32,
    /// Services named by jobs and workers. Full: whoever names another is refused as `Busy`.
    pub services_max: u32,
    /// Results that no sink has committed, of all jobs, eight bytes each. Full: a job with such results has new rows refused
    /// as `Busy` until its sink has them all; other jobs go on.
    pub unsettled_max: u64,
    /// Deliver messages that a client has not committed. Full: results wait.
    pub deliver_messages_max: u32,
    /// Failed rows of a job that `failures` and `retry` know. Full: the oldest leave that list; they stay delivered.
    pub failures_max: u32,
    /// Rows that are recalled, walked or assigned in one step. More: the next step goes on.
    pub slice_max: u32,
    /// What an announcement may say of `batch` and of `depth`. More: taken as this.
    pub capacity_max: u32,
    /// Milliseconds that a refused row waits before it is sent again.
    pub busy_retry_ms: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            tasks_open_max: 12_000_000,
            jobs_max: 10_000,
            workers_max: 4_096,
            services_max: 4_096,
            unsettled_max: 32_000_000,
            deliver_messages_max: 64,
            failures_max: 100_000,
            slice_max: 4_096,
            capacity_max: 4_096,
            busy_retry_ms: 1_000,
        }
    }
}

/// Deaths of programs or workers after which a suspect is poison.
pub const DEATHS_MAX: u8 = 3;

/// Garbage answers without an `ok` between them after which a worker is quarantined.
pub const GARBAGE_MAX: u32 = 5;

/// How long a quarantined worker is given nothing the first time, milliseconds; doubles with each garbage answer after it.
pub const QUARANTINE_FIRST_MS: u64 = 10_000;

/// The longest that a quarantined worker is given nothing, milliseconds.
pub const QUARANTINE_MAX_MS: u64 = 300_000;

/// First pause before a failed task is tried again, milliseconds; doubles with each failure.
pub const BACKOFF_FIRST_MS: u64 = 500;

/// Longest pause before a failed task is tried again, milliseconds.
pub const BACKOFF_MAX_MS: u64 = 300_000;

/// A longer gap between two events is the router's own sleep: leases are extended by the excess. Milliseconds.
pub const GAP_MAX_MS: u64 = 3_000;

/// Longest time until the next tick is asked for, milliseconds. Less than [`GAP_MAX_MS`].
pub const TICK_MS: u64 = 1_000;

/// A lost worker that stays silent so much longer is not expected back, milliseconds.
pub const FORGET_WORKER_MS: u64 = 3_600_000;

/// Between two progress signals to a client, milliseconds.
pub const PROGRESS_MS: u64 = 250;
