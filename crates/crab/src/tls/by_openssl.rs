//! TLS by the system's OpenSSL.

use std::io::{self, ErrorKind, Read, Write};
use std::path::Path;

use foreign::libssl::{Context, Fault, Session, Stop};
use rustix::event::PollFlags;

use crate::conn::Timed;

/// Makes TLS of sockets.
pub(crate) struct Acceptor(Context);

/// A socket with TLS on it.
pub(crate) struct Stream {
    session: Session,
    timed: Timed,
}

impl Acceptor {
    /// Reads chain and key.
    ///
    /// # Errors
    /// When there is no libssl, a file is missing, is no PEM, or the key is not that of the certificate.
    pub(crate) fn new(cert: &Path, key: &Path) -> Result<Self, String> {
        Context::load(cert, key).map(Self).map_err(|fault| match fault {
            Fault::NoLibrary => {
                "libssl.so.3 is not there: apt-get install libssl3, or build with --features rustls".into()
            }
            Fault::NoStart => "OpenSSL does not start".into(),
            Fault::Chain => format!("{}: no certificate chain in PEM can be read there", cert.display()),
            Fault::Key => {
                format!("{}: no private key of that certificate in PEM, unencrypted, can be read there", key.display())
            }
        })
    }

    /// Shakes hands.
    ///
    /// # Errors
    /// When the peer does not speak TLS, or not in time.
    pub(crate) fn accept(&self, timed: Timed) -> io::Result<Stream> {
        let session = self.0.session(timed.socket()).ok_or(ErrorKind::OutOfMemory)?;
        let mut stream = Stream { session, timed };
        stream.in_time(Session::accept)?;
        Ok(stream)
    }
}

impl Stream {
    pub(crate) fn timed(&self) -> &Timed {
        &self.timed
    }

    pub(crate) fn timed_mut(&mut self) -> &mut Timed {
        &mut self.timed
    }

    /// Tells the peer that nothing was cut off. Its own goodbye is not waited for.
    pub(crate) fn say_goodbye(&mut self) {
        self.session.say_goodbye();
    }

    /// Tries again until it is done, the peer is gone, or the deadline comes.
    fn in_time<T>(&mut self, mut work: impl FnMut(&mut Session) -> Result<T, Stop>) -> io::Result<T> {
        loop {
            self.timed.left()?;
            match work(&mut self.session) {
                Ok(done) => return Ok(done),
                Err(Stop::Reads) => self.timed.wait(PollFlags::IN)?,
                Err(Stop::Writes) => self.timed.wait(PollFlags::OUT)?,
                Err(Stop::Ended) => return Err(ErrorKind::UnexpectedEof.into()),
                Err(Stop::Broken) => return Err(ErrorKind::InvalidData.into()),
            }
        }
    }
}

impl Read for Stream {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        match self.in_time(|session| session.read(bytes)) {
            Ok(count) => Ok(self.timed.moved(count)),
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => Ok(0),
            Err(error) => Err(error),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.in_time(|session| session.write(bytes))?;
        Ok(self.timed.moved(count))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
