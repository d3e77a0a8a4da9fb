//! Bounds of carriers and links, each with what happens at it.

use std::time::Duration;

/// Bytes read from a socket at once.
pub const READ_BYTES: usize = 256 << 10;

/// Bytes that wait to be written to a carrier. Full: the session is asked for nothing more until some are out.
pub const OUTBOUND_BYTES_MAX: usize = 1 << 20;

/// Reports that wait for the embedder. Full: nothing more is read from the carrier.
pub const REPORTS_MAX: usize = 4_096;

/// Chunks under way on an in-process carrier. Full: the writer waits.
pub const IN_PROCESS_CHUNKS: usize = 64;

/// Connections that have not yet said who they are. Full: the listener accepts no more until one has, or its time is up.
pub const STRANGERS_MAX: usize = 64;

/// How long a stranger may take to greet.
pub const GREETING: Duration = Duration::from_secs(10);

/// Bytes that a stranger may send before its greeting is whole.
pub const GREETING_BYTES_MAX: usize = 8 << 10;

/// How long one attempt to connect may take.
pub const CONNECT: Duration = Duration::from_secs(5);

/// Pause before connecting again: full jitter up to a bound that doubles from the first to the last.
pub const RECONNECT_FIRST: Duration = Duration::from_millis(100);

/// The longest bound of that pause; well inside the default grace.
pub const RECONNECT_MAX: Duration = Duration::from_secs(10);

/// How long what was written last may take to leave when a link ends.
pub const FLUSH: Duration = Duration::from_secs(1);
