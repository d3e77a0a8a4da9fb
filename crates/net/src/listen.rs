//! Taking connections: each stranger has a bounded time and a bounded number of bytes to say which session it wants, TLS's
//! handshake included;
//! only then does the embedder hear of it. Garbage costs the one who sent it its connection, and nobody else anything.

use std::fmt;
use std::future::pending;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use rustls::ServerConfig;
use sheaf_session::{Fatal, HelloInfo, Refusal, SessionId, peek_hello, refuse};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use crate::carrier::{Carrier, InProcess, Origin, Peer};
use crate::clock::Clock;
use crate::dial::{loopback, resolve};
use crate::error::NetError;
use crate::limits::{FLUSH, GREETING, GREETING_BYTES_MAX, STRANGERS_MAX};
use crate::outbound::Outbound;
use crate::strangers::{ShownOut, Strangers};
use crate::tls::{ALERT_NO_TLS, is_handshake};

/// A connection for a link.
#[derive(Debug)]
pub struct Incoming {
    /// What moves its bytes.
    pub carrier: Carrier,
    /// Its nonce.
    pub conn: u64,
    /// What was read of it already.
    pub read: Bytes,
    /// What it says of itself, where a listener has it from a dialer.
    pub hello: Option<HelloInfo>,
}

impl Incoming {
    /// Where it comes from, for messages about it.
    pub fn place(&self) -> String {
        self.carrier.peer.to_string()
    }

    /// Says why it is not taken, and hangs up.
    pub async fn refuse(mut self, why: Refusal) {
        let peer = self.carrier.peer;
        tracing::debug!(%peer, ?why, "a connection was refused");
        let mut last = Outbound::default();
        last.push(refuse(self.conn, why));
        // It is all that was ever written there, so there is room for it.
        match tokio::time::timeout(FLUSH, self.carrier.writer.write(&mut last)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!(%peer, %error, "it did not hear why"),
            Err(_) => tracing::debug!(%peer, "it did not hear why in time"),
        }
    }
}

/// A stranger that has greeted.
#[derive(Debug)]
pub struct Arrival {
    /// Which session it wants.
    pub session: SessionId,
    /// Where it comes from.
    pub origin: Origin,
    /// Its connection, for that session's link.
    pub incoming: Incoming,
}

/// Listens on TCP, within the process, or both.
#[derive(Debug)]
pub struct Listener {
    tcp: Option<Ear>,
    local: mpsc::Receiver<(Carrier, Origin)>,
    door: InProcess,
}

/// A port, and the language spoken there.
struct Ear {
    tcp: TcpListener,
    addr: SocketAddr,
    tls: Option<TlsAcceptor>,
}

/// Whoever comes.
enum Comer {
    Socket(TcpStream, Option<TlsAcceptor>),
    Process(Carrier, Origin),
}

impl Listener {
    /// Listens within the process, and on `addr` where one is given.
    ///
    /// # Errors
    /// The address is none, is not loopback, or is in use.
    pub async fn bind(addr: Option<&str>) -> Result<Self, NetError> {
        let tcp = match addr {
            Some(addr) => Some(Ear::bind(addr, loopback(addr).await?, None).await?),
            None => None,
        };
        let (door, local) = InProcess::door();
        Ok(Self { tcp, local, door })
    }

    /// The same at any address, with TLS ([`crate::tls`], [`crate::authority`]).
    ///
    /// # Errors
    /// The address is none, or is in use.
    pub async fn bind_tls(addr: &str, config: Arc<ServerConfig>) -> Result<Self, NetError> {
        let tcp = Some(Ear::bind(addr, resolve(addr).await?, Some(config.into())).await?);
        let (door, local) = InProcess::door();
        Ok(Self { tcp, local, door })
    }

    /// Whether it has TLS.
    pub fn is_tls(&self) -> bool {
        self.tcp.as_ref().is_some_and(|ear| ear.tls.is_some())
    }

    /// Where it listens on TCP.
    pub fn addr(&self) -> Option<SocketAddr> {
        self.tcp.as_ref().map(|ear| ear.addr)
    }

    /// For dialers of this process.
    pub fn door(&self) -> InProcess {
        self.door.clone()
    }

    /// Takes connections until the receiver of `arrivals` is gone. A stranger keeps its place until it is taken there.
    pub async fn serve(mut self, arrivals: mpsc::Sender<Arrival>) {
        let mut greetings = JoinSet::new();
        let mut strangers = Strangers::default();
        let clock = Clock::start();
        loop {
            let (near, far) = (greetings.len() < 2 * STRANGERS_MAX, greetings.len() < STRANGERS_MAX);
            let comer = tokio::select! {
                () = arrivals.closed() => break,
                Some((carrier, origin)) = self.local.recv(), if near => Comer::Process(carrier, origin),
                comer = accept(self.tcp.as_ref()), if far => match comer {
                    Ok(comer) => comer,
                    Err(error) => {
                        tracing::warn!(%error, "a connection was not taken");
                        continue;
                    }
                },
                Some(greeted) = greetings.join_next() => {
                    match greeted {
                        Ok(Ok(())) => {}
                        Ok(Err((peer, why))) => strangers.shown_out(clock.now(), peer, &why),
                        Err(error) => tracing::error!(%error, "a greeting panicked"),
                    }
                    continue;
                }
            };
            greetings.spawn(greet(comer, arrivals.clone()));
        }
        greetings.shutdown().await;
    }
}

impl Ear {
    async fn bind(addr: &str, at: SocketAddr, tls: Option<TlsAcceptor>) -> Result<Self, NetError> {
        let failed = |error: io::Error| match error.kind() {
            io::ErrorKind::AddrInUse => NetError::InUse { addr: addr.to_owned() },
            _ => NetError::Listen { addr: addr.to_owned(), error },
        };
        let tcp = TcpListener::bind(at).await.map_err(failed)?;
        let addr = tcp.local_addr().map_err(failed)?;
        Ok(Self { tcp, addr, tls })
    }
}

impl fmt::Debug for Ear {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ear").field("addr", &self.addr).field("is_tls", &self.tls.is_some()).finish_non_exhaustive()
    }
}

/// The next connection over TCP.
async fn accept(ear: Option<&Ear>) -> io::Result<Comer> {
    let Some(Ear { tcp, tls, .. }) = ear else { return pending().await };
    let accepted = tcp.accept().await;
    if accepted.is_err() {
        // Out of file handles, as a rule: let some be closed before the next.
        tokio::time::sleep(ACCEPT_PAUSE).await;
    }
    Ok(Comer::Socket(accepted?.0, tls.clone()))
}

const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

async fn greet(comer: Comer, arrivals: mpsc::Sender<Arrival>) -> Result<(), (Peer, ShownOut)> {
    let peer = match &comer {
        Comer::Process(..) => Peer::InProcess,
        Comer::Socket(stream, _) => match stream.peer_addr() {
            Ok(addr) => Peer::Tcp(addr),
            // It has left already, and nobody knows who it was.
            Err(_) => return Ok(()),
        },
    };
    let greeted = tokio::time::timeout(GREETING, greeting(comer)).await;
    let arrival = greeted.unwrap_or(Err(ShownOut::Late)).map_err(|why| (peer, why))?;
    if arrivals.send(arrival).await.is_err() {
        tracing::debug!(%peer, "greeted while the listener was ending");
    }
    Ok(())
}

async fn greeting(comer: Comer) -> Result<Arrival, ShownOut> {
    let (mut carrier, origin) = match comer {
        Comer::Process(carrier, origin) => (carrier, origin),
        Comer::Socket(stream, None) => (Carrier::tcp(stream)?, Origin::Socket),
        Comer::Socket(stream, Some(tls)) => {
            stream.set_nodelay(true)?;
            let peer = stream.peer_addr()?;
            let stream = tls.accept(stream).await.map_err(ShownOut::NoTls)?;
            (Carrier::tls(stream.into(), peer), Origin::Socket)
        }
    };
    let mut read = BytesMut::new();
    loop {
        let room = GREETING_BYTES_MAX.saturating_sub(read.len());
        if room == 0 {
            return Err(Fatal::TooLong { len: read.len(), max: GREETING_BYTES_MAX }.into());
        }
        let bytes = carrier.reader.read_little(room).await?.ok_or(ShownOut::HungUp)?;
        read.extend_from_slice(&bytes);
        if is_handshake(&read) {
            let mut alert = Outbound::default();
            alert.push(Bytes::from_static(&ALERT_NO_TLS));
            carrier.writer.write(&mut alert).await?;
            return Err(ShownOut::SpeaksTls);
        }
        if let Some(hello) = peek_hello(&read)? {
            let session = hello.session;
            let incoming = Incoming { carrier, conn: hello.conn, read: read.freeze(), hello: Some(hello) };
            return Ok(Arrival { session, origin, incoming });
        }
    }
}
