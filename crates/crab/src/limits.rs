//! How many connections fit into the descriptors that this process may have, and the queue cut to that size.
//!
//! A connection is one descriptor wherever it waits. Being read or queued are at most `queue + readers`, as many are in the
//! batch of the handler, and `readers` more get their answer.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::args::Config;
use crate::say;

/// Standard streams, listener, lifeline, and what the C library and `/proc` take for a moment.
const BASE: u64 = 12;
/// Three pipes and their far ends while the program starts, its pidfd, the pipe on which a failed start is told, its client.
const PER_PROGRAM: u64 = 10;

/// Makes `config` fit: raises the soft limit towards the hard one, then has fewer readers and a shorter queue.
///
/// # Errors
/// When the limit leaves no room for a single connection.
pub(crate) fn fit(config: &mut Config) -> Result<(), String> {
    let programs = config.jellyfish.unwrap_or(1) as u64;
    let reserve = BASE + PER_PROGRAM * programs;
    let wanted = reserve + 2 * config.queue as u64 + 3 * config.readers as u64;
    let have = raise(wanted);
    if have >= wanted {
        return Ok(());
    }
    let room = usize::try_from(have.saturating_sub(reserve)).unwrap_or(usize::MAX);
    if room < 5 {
        return Err(format!("{have} descriptors are too few for anything: `ulimit -n {wanted}` gives what it needs"));
    }
    config.readers = config.readers.min(room / 5);
    config.queue = config.queue.min((room - 3 * config.readers) / 2);
    let Config { queue, readers, .. } = config;
    say::line(&format!(
        "only {have} descriptors: a queue of {queue} and {readers} readers; `ulimit -n {wanted}` gives what was asked for"
    ));
    Ok(())
}

/// The soft limit after it was raised as far as allowed and needed.
fn raise(wanted: u64) -> u64 {
    let limit = getrlimit(Resource::Nofile);
    let (soft, hard) = (limit.current.unwrap_or(u64::MAX), limit.maximum.unwrap_or(u64::MAX));
    let better = wanted.min(hard);
    if soft >= better {
        return soft;
    }
    match setrlimit(Resource::Nofile, Rlimit { current: Some(better), maximum: limit.maximum }) {
        Ok(()) => better,
        Err(_) => soft,
    }
}
