//! What can be wrong with an address or a port.

use std::io;

use crate::tls::TlsError;

/// Why a dialer will not talk to whoever listens, now or later.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Untrusted {
    /// TLS found something wrong.
    #[error("{0}")]
    Tls(rustls::Error),
    /// It has TLS, and this side has not.
    #[error("it speaks TLS only: write its address as sheaf://HOST:PORT")]
    SpeaksTls,
}

/// Why nobody listens or connects.
#[derive(Debug, thiserror::Error)]
pub enum NetError {
    /// Plain TCP leaves this machine.
    #[error(
        "{addr} is not a loopback address, and without TLS sheaf talks on loopback only: write it as sheaf://{addr}"
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
    /// Certificates, or a key.
    #[error(transparent)]
    Tls(#[from] TlsError),
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
