//! TLS by rustls with ring, in the binary itself.

use std::io::{self, Read, Write};
use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned, crypto};

use crate::conn::Timed;

/// Makes TLS of sockets.
pub(crate) struct Acceptor(Arc<ServerConfig>);

/// A socket with TLS on it.
pub(crate) struct Stream(Box<StreamOwned<ServerConnection, Timed>>);

impl Acceptor {
    /// Reads chain and key.
    ///
    /// # Errors
    /// When a file is missing, is no PEM, or the key is not that of the certificate.
    pub(crate) fn new(cert: &Path, key: &Path) -> Result<Self, String> {
        let fault = |path: &Path, error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
        let chain = CertificateDer::pem_file_iter(cert).and_then(Iterator::collect::<Result<Vec<_>, _>>);
        let chain = chain.map_err(|error| fault(cert, &error))?;
        let secret = PrivateKeyDer::from_pem_file(key).map_err(|error| fault(key, &error))?;
        let mut config = ServerConfig::builder_with_provider(Arc::new(crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| fault(cert, &error))?
            .with_no_client_auth()
            .with_single_cert(chain, secret)
            .map_err(|error| fault(key, &error))?;
        config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
        config.ticketer = crypto::ring::Ticketer::new().map_err(|error| fault(key, &error))?;
        Ok(Self(Arc::new(config)))
    }

    /// Shakes hands.
    ///
    /// # Errors
    /// When the peer does not speak TLS, or not in time.
    pub(crate) fn accept(&self, mut socket: Timed) -> io::Result<Stream> {
        let mut tls = ServerConnection::new(Arc::clone(&self.0)).map_err(io::Error::other)?;
        while tls.is_handshaking() {
            tls.complete_io(&mut socket)?;
        }
        Ok(Stream(Box::new(StreamOwned::new(tls, socket))))
    }
}

impl Stream {
    pub(crate) fn timed(&self) -> &Timed {
        &self.0.sock
    }

    pub(crate) fn timed_mut(&mut self) -> &mut Timed {
        &mut self.0.sock
    }

    /// Tells the peer that nothing was cut off. Its own goodbye is not waited for.
    pub(crate) fn say_goodbye(&mut self) {
        self.0.conn.send_close_notify();
        // A peer that is gone needs no goodbye.
        let _ = self.0.flush();
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
