//! What crab says to people: a line where its state changes, and nothing for a request, however many there are.
//!
//! Invariant: nothing here fails or panics, whatever became of standard error; a full disk silences crab, and no more.

use std::io::{self, Write};
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

/// One line on standard error.
pub(crate) fn line(text: &str) {
    // A message that cannot be written has nobody left to be told so.
    let _ = writeln!(io::stderr(), "crab: {text}");
}

/// What was asked for, on standard output.
pub(crate) fn result(text: &str) -> ExitCode {
    match io::stdout().write_all(text.as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

/// A panic is one line, and at most one a second is printed: a fault that a stranger can trigger must not fill a disk.
pub(crate) fn one_line_for_each_panic() {
    static LAST: AtomicU64 = AtomicU64::new(0);
    std::panic::set_hook(Box::new(|panic| {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        if LAST.swap(now, Ordering::Relaxed) != now {
            let place = panic.location().map(ToString::to_string).unwrap_or_default();
            line(&format!("a fault of its own at {place}: {}", panic.payload_as_str().unwrap_or("no message")));
        }
    }));
}
