//! Ctrl-C and SIGTERM: the first asks for a graceful end, the second forces one.

use tokio::signal::unix::{Signal, SignalKind, signal};

/// Exit code of a process that was interrupted and can be resumed.
pub(crate) const INTERRUPTED: u8 = 130;

/// Both signals, listened to from now on.
pub(crate) struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    /// Listens.
    pub(crate) fn listen() -> std::io::Result<Self> {
        Ok(Self { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    /// Waits for the next one. Cancel-safe.
    pub(crate) async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}
