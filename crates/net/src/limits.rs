//! Bounds of carriers and links, each with what happens at it.

use std::time::Duration;

/// Bytes allocated for reading at a time, at most; what is read is a slice of such a block, and keeps it alive. A packet of at
/// most half of it, as all are but those of one long body, is not cut where a block ends, once blocks have grown to that; what
/// is cut is copied when the rest of it comes.
pub const READ_BLOCK_MAX: usize = 512 << 10;

/// The same at least, and at first: blocks have room for some reads like those of the block before. Longer reads: a larger
/// block comes next, and a thousand connections with little to say have a thousand small ones.
pub const READ_BLOCK_MIN: usize = 4 << 10;

/// Bytes that wait to be written to a carrier. Full: the session is asked for nothing more until some are out.
pub const OUTBOUND_BYTES_MAX: usize = 1 << 20;

/// How long a carrier may take none of the bytes that wait for it. Longer: the connection is given up. A little longer than
/// whoever connects bears silence: the session's own timers cannot run while it is asked for nothing.
pub const WRITE_STALL: Duration = Duration::from_secs(5);

/// Reports that wait for the embedder. Full: nothing more is read from the carrier.
pub const REPORTS_MAX: usize = 4_096;

/// Batches of commands that a link takes in before it writes what came of them. More: they wait, and are taken later.
pub const COMMANDS_AT_ONCE: usize = 16;

/// Chunks under way on an in-process carrier. Full: the writer waits.
pub const IN_PROCESS_CHUNKS: usize = 64;

/// Connections over TCP that have not yet said who they are. Full: no more are accepted until one has, or its time is
/// up. Dialers of the own process have as many places again, which strangers cannot take.
pub const STRANGERS_MAX: usize = 64;

/// How long a stranger may take to greet. Longer: it is shown out.
pub const GREETING: Duration = Duration::from_secs(10);

/// Bytes read of a stranger before its greeting is whole: a greeting of 4 KiB in its envelope. More: it is shown out.
pub const GREETING_BYTES_MAX: usize = (4 << 10) + 8;

/// Addresses whose misbehaviour is counted apart. Full: counting begins anew.
pub const SHOWN_OUT_PEERS_MAX: usize = 256;

/// At most one warning in this time about strangers from one address; the next one tells how many there were.
pub const SHOWN_OUT_QUIET: Duration = Duration::from_secs(60);

/// How long one attempt to connect may take: the system asks twice in that time, and then less and less often.
pub const CONNECT: Duration = Duration::from_secs(2);

/// Pause before connecting again: full jitter up to a bound that doubles from the first to the last.
pub const RECONNECT_FIRST: Duration = Duration::from_millis(100);

/// The longest bound of that pause; well inside the default grace.
pub const RECONNECT_MAX: Duration = Duration::from_secs(10);

/// How long what was written last may take to leave when a connection or a link ends. Longer: it is lost.
pub const FLUSH: Duration = Duration::from_secs(1);
