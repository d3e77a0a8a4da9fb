//! The limits of the router process; those of its machine and its sessions are theirs.

/// Bounds of one router process.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Sessions at once, connected or waiting. Full: a new one is refused as busy.
    pub sessions_max: usize,
    /// Bytes of recent records kept in memory. Full: older bodies are read back from disk.
    pub recent_bytes: usize,
    /// Batches of events taken in one step. More: the next step goes on.
    pub step_batches_max: usize,
    /// A session without a connection is forgotten after this, milliseconds. Its peer starts afresh or resumes by name.
    pub session_warm_ms: u64,
    /// A segment of the journal is sealed at this size, bytes. Larger: fewer files, longer until keys leave memory.
    pub segment_bytes: u32,
    /// What is settled stays to answer later jobs for so long, milliseconds. Then it leaves with its segment.
    pub retention_ms: u64,
    /// Bytes of journal past which settled work leaves before its time.
    pub journal_bytes_max: u64,
    /// A stage that works on one thing for longer than this is reported, milliseconds.
    pub stall_ms_max: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            sessions_max: 10_000,
            recent_bytes: 4 << 20,
            step_batches_max: 32,
            session_warm_ms: 120_000,
            segment_bytes: 64 << 20,
            retention_ms: 30 * 24 * 3_600 * 1_000,
            journal_bytes_max: 32 << 30,
            stall_ms_max: 5_000,
        }
    }
}

/// Bytes of frames that wait for the writer. Full: the core takes no more events until the disk has caught up.
pub(crate) const APPEND_BYTES_MAX: usize = 2 << 20;

/// The most bytes of frames that one event adds: a message of the largest size, full of the shortest rows.
pub(crate) const EVENT_BYTES_MAX: usize = sheaf_roles::port::MESSAGE_BYTES_MAX + sheaf_task::BATCH_ROWS_MAX * ROW_EXTRA;

/// What stands around a row in the journal and not in the message that brought it: its frame, its key.
pub(crate) const ROW_EXTRA: usize = 128;

/// The journal's reserve: where records go when the disk is full. Full too: nothing is acknowledged until there is room.
pub(crate) const RESERVE_BYTES: u32 = 10 << 20;

/// What the reserve has at least for settling, cancelling and finishing what was taken in before the disk was full.
pub(crate) const UPKEEP_BYTES_MIN: usize = 1 << 20;

// A full disk is noticed when a batch does not fit. The machine has taken that one in already, and the next one too, which
// it gathered meanwhile; of those that follow none has new rows.
const _: () = assert!(RESERVE_BYTES as usize >= 2 * (APPEND_BYTES_MAX + EVENT_BYTES_MAX) + UPKEEP_BYTES_MIN);

/// One limit, for `sheaf doctor --limits`.
#[derive(Clone, Copy, Debug)]
pub struct Limit {
    /// Its name.
    pub name: &'static str,
    /// Its value.
    pub value: u64,
    /// What happens when it is reached.
    pub when_full: &'static str,
}

/// Every limit of a router and its links, with their defaults.
pub fn limits() -> Vec<Limit> {
    let own = Limits::default();
    let machine = sheaf_roles::router::Limits::default();
    let limit = |name, value, when_full| Limit { name, value, when_full };
    vec![
        limit("body_bytes_max", sheaf_task::BODY_BYTES_MAX as u64, "the row fails with a clear error"),
        limit("batch_rows_max", sheaf_task::BATCH_ROWS_MAX as u64, "more rows go in the next message"),
        limit("tasks_open_max", machine.tasks_open_max.into(), "rows are refused as busy and sent again later"),
        limit(
            "jobs_max",
            machine.jobs_max.into(),
            "the oldest that is over leaves; else opening another is refused as busy",
        ),
        limit("workers_max", machine.workers_max.into(), "registering another worker is refused as busy"),
        limit("services_max", machine.services_max.into(), "whoever names another service is refused as busy"),
        limit("unsettled_max", machine.unsettled_max, "new rows of jobs with such results are refused as busy"),
        limit(
            "deliver_messages_max",
            machine.deliver_messages_max.into(),
            "results wait on disk until the sink commits",
        ),
        limit("failures_max", machine.failures_max.into(), "the oldest failures leave the list; they stay delivered"),
        limit("capacity_max", machine.capacity_max.into(), "an announcement of more is taken as this"),
        limit("sessions_max", own.sessions_max as u64, "a new session is refused as busy, and tries again later"),
        limit("session_warm_ms", own.session_warm_ms, "a session without a connection is forgotten"),
        limit("recent_bytes", own.recent_bytes as u64, "older bodies are read back from disk"),
        limit("append_bytes_max", APPEND_BYTES_MAX as u64, "no more events are taken until the disk has caught up"),
        limit("reserve_bytes", RESERVE_BYTES.into(), "on a full disk nothing more is acknowledged until there is room"),
        limit("segment_bytes", own.segment_bytes.into(), "the journal goes on in a new file; keys leave memory"),
        limit("retention_ms", own.retention_ms, "what is settled leaves the journal and answers no later job"),
        limit("journal_bytes_max", own.journal_bytes_max, "what is settled leaves before its retention is over"),
        limit("stall_ms_max", own.stall_ms_max, "the log names the stage and its queue, once a stall"),
        limit("outbound_bytes_max", sheaf_net::limits::OUTBOUND_BYTES_MAX as u64, "the session waits for its carrier"),
        limit("reports_max", sheaf_net::limits::REPORTS_MAX as u64, "nothing more is read from the carrier"),
        limit("strangers_max", sheaf_net::limits::STRANGERS_MAX as u64, "no more connections are accepted for now"),
    ]
}
