//! TLS by the system's OpenSSL, linked dynamically.

use std::io::{self, ErrorKind, Read, Write};
use std::path::Path;

use openssl::ssl::{
    ShutdownState, SslAcceptor, SslFiletype, SslMethod, SslMode, SslOptions, SslSessionCacheMode, SslStream,
};

use crate::conn::Timed;

/// Makes TLS of sockets.
pub(crate) struct Acceptor(SslAcceptor);

/// A socket with TLS on it.
pub(crate) struct Stream(SslStream<Timed>);

impl Acceptor {
    /// Reads chain and key.
    ///
    /// # Errors
    /// When a file is missing, is no PEM, or the key is not that of the certificate.
    pub(crate) fn new(cert: &Path, key: &Path) -> Result<Self, String> {
        let fault = |path: &Path, error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
        let mut builder =
            SslAcceptor::mozilla_intermediate_v5(SslMethod::tls_server()).map_err(|error| fault(cert, &error))?;
        builder.set_certificate_chain_file(cert).map_err(|error| fault(cert, &error))?;
        builder.set_private_key_file(key, SslFiletype::PEM).map_err(|error| fault(key, &error))?;
        builder.check_private_key().map_err(|_| fault(key, &"not the key of this certificate"))?;
        builder.set_options(SslOptions::NO_RENEGOTIATION);
        builder.set_session_cache_mode(SslSessionCacheMode::OFF);
        // A connection that waits in the queue holds no buffers.
        builder.set_mode(SslMode::RELEASE_BUFFERS);
        Ok(Self(builder.build()))
    }

    /// Shakes hands.
    ///
    /// # Errors
    /// When the peer does not speak TLS, or not in time.
    pub(crate) fn accept(&self, socket: Timed) -> io::Result<Stream> {
        self.0.accept(socket).map(Stream).map_err(|_| ErrorKind::InvalidData.into())
    }
}

impl Stream {
    pub(crate) fn timed(&self) -> &Timed {
        self.0.get_ref()
    }

    pub(crate) fn timed_mut(&mut self) -> &mut Timed {
        self.0.get_mut()
    }

    /// Tells the peer that nothing was cut off. Its own goodbye is not waited for.
    pub(crate) fn say_goodbye(&mut self) {
        if !self.0.get_shutdown().contains(ShutdownState::SENT) {
            // A peer that is gone needs no goodbye.
            let _ = self.0.shutdown();
        }
    }
}

impl Read for Stream {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        self.0.read(bytes)
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}
