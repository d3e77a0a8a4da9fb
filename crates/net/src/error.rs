//! What can be wrong with an address or a port.

use std::io;

/// Why nobody listens or connects.
#[derive(Debug, thiserror::Error)]
pub enum NetError {
    /// Plain TCP leaves this machine.
    #[error(
        "{addr} is not a loopback address: without TLS sheaf talks on loopback only; use 127.0.0.1:PORT, or a tunnel (ssh -L) from elsewhere"
    )]
    NotLoopback {
        /// As given.
        addr: String,
    },
    /// Not an address.
    #[error("{addr} is no address: write it as 127.0.0.1:4477 ({error})")]
    Address {
        /// As given.
        addr: String,
        /// What the system said.
        error: io::Error,
    },
    /// Another process listens there.
    #[error("{addr} is in use: another process listens there; stop it, or choose another port with --listen")]
    InUse {
        /// As given.
        addr: String,
    },
    /// The system said no.
    #[error("cannot listen on {addr}: {error}")]
    Listen {
        /// As given.
        addr: String,
        /// What it said.
        error: io::Error,
    },
}
