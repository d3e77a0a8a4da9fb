//! Limits that more than one role must agree on. Each role's own limits live with that role.

/// Largest body of a task or of a result that travels inline, bytes. A larger row fails with a clear error.
pub const BODY_BYTES_MAX: usize = 1 << 20;

/// Rows, assignments or results in one message: bounds the work of one step.
pub const BATCH_ROWS_MAX: usize = 1_024;

/// Body bytes that a batch message aims at; one larger body travels alone.
pub const BATCH_BYTES_AIM: usize = 128 << 10;

/// Bytes in one piece of an answer that is still being made.
pub const PIECE_BYTES_MAX: usize = 64 << 10;

/// Bytes kept of a failed attempt's standard error, from its end.
pub const STDERR_TAIL_MAX: usize = 4 << 10;

/// Bytes kept of each text in a refusal over HTTP, from its beginning.
pub const UPSTREAM_TEXT_MAX: usize = 1 << 10;

/// Longest name of a service, revision, app, worker or job, bytes.
pub const NAME_BYTES_MAX: usize = 256;

/// Services that one worker may announce.
pub const SERVICES_MAX: usize = 64;

/// Fences in one list (`Resume`, `Recall`, `Cancel`, verdicts).
pub const FENCES_MAX: usize = 65_536;
