//! TLS by the system's OpenSSL, linked dynamically.

use std::io::{self, ErrorKind, Read, Write};
use std::path::Path;

use openssl::error::ErrorStack;
use openssl::ssl::{
    Error, ErrorCode, ShutdownState, Ssl, SslContext, SslContextBuilder, SslFiletype, SslMethod, SslMode, SslOptions,
    SslSessionCacheMode, SslStream, SslVersion,
};

use crate::conn::Timed;

/// Of TLS 1.2 only what has forward secrecy and authenticates what it encrypts; of TLS 1.3 everything, as there is nothing else.
const CIPHERS_OF_1_2: &str = "ECDHE+AESGCM:ECDHE+CHACHA20";

/// Makes TLS of sockets.
pub(crate) struct Acceptor(SslContext);

/// A socket with TLS on it.
pub(crate) struct Stream(SslStream<Timed>);

impl Acceptor {
    /// Reads chain and key.
    ///
    /// # Errors
    /// When a file is missing, is no PEM, or the key is not that of the certificate.
    pub(crate) fn new(cert: &Path, key: &Path) -> Result<Self, String> {
        let mut builder = basis().map_err(|_| "OpenSSL does not start")?;
        if builder.set_certificate_chain_file(cert).is_err() {
            return Err(format!("{}: no certificate chain in PEM can be read there", cert.display()));
        }
        if builder.set_private_key_file(key, SslFiletype::PEM).is_err() || builder.check_private_key().is_err() {
            return Err(format!("{}: no private key of that certificate in PEM can be read there", key.display()));
        }
        Ok(Self(builder.build()))
    }

    /// Shakes hands.
    ///
    /// # Errors
    /// When the peer does not speak TLS, or not in time.
    pub(crate) fn accept(&self, socket: Timed) -> io::Result<Stream> {
        let ssl = Ssl::new(&self.0).map_err(|_| ErrorKind::OutOfMemory)?;
        let mut stream = SslStream::new(ssl, socket).map_err(|_| ErrorKind::OutOfMemory)?;
        stream.accept().map_err(plain)?;
        Ok(Stream(stream))
    }
}

fn basis() -> Result<SslContextBuilder, ErrorStack> {
    let mut builder = SslContext::builder(SslMethod::tls_server())?;
    builder.set_min_proto_version(Some(SslVersion::TLS1_2))?;
    builder.set_cipher_list(CIPHERS_OF_1_2)?;
    builder.set_options(SslOptions::NO_RENEGOTIATION | SslOptions::NO_COMPRESSION);
    builder.set_session_cache_mode(SslSessionCacheMode::OFF);
    // A connection that waits in the queue holds no buffers.
    builder.set_mode(SslMode::RELEASE_BUFFERS);
    Ok(builder)
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
        loop {
            match self.0.ssl_read(bytes) {
                Err(error) if error.code() == ErrorCode::ZERO_RETURN => return Ok(0),
                Err(error) if is_again(&error) => {}
                result => return result.map_err(plain),
            }
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            match self.0.ssl_write(bytes) {
                Err(error) if is_again(&error) => {}
                result => return result.map_err(plain),
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// TLS has done something for itself; the socket did not fail.
fn is_again(error: &Error) -> bool {
    matches!(error.code(), ErrorCode::WANT_READ | ErrorCode::WANT_WRITE) && error.io_error().is_none()
}

/// What the socket said. The stack of OpenSSL's errors stays unread: its words would go nowhere.
fn plain(error: Error) -> io::Error {
    error.into_io_error().unwrap_or_else(|_| ErrorKind::InvalidData.into())
}
