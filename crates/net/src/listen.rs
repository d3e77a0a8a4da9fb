//! Taking connections: each stranger has a bounded time and a bounded number of bytes to say which session it wants;
//! only then does the embedder hear of it. Garbage costs the one who sent it its connection, and nobody else anything.

use std::future::pending;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use sheaf_session::{Fatal, HelloInfo, Refusal, SessionId, peek_hello, refuse};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::carrier::{Carrier, InProcess, Origin, Peer};
use crate::clock::Clock;
use crate::dial::loopback;
use crate::error::NetError;
use crate::limits::{FLUSH, GREETING, GREETING_BYTES_MAX, STRANGERS_MAX};
use crate::outbound::Outbound;
use crate::strangers::{ShownOut, Strangers};

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
    /// Says why it is not taken, and hangs up.
    pub async fn refuse(mut self, why: Refusal) {
        let peer = self.carrier.peer;
        tracing::warn!(%peer, ?why, "a connection was refused");
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
    tcp: Option<(TcpListener, SocketAddr)>,
    local: mpsc::Receiver<(Carrier, Origin)>,
    door: InProcess,
}

impl Listener {
    /// Listens within the process, and on `addr` where one is given.
    ///
    /// # Errors
    /// The address is none, is not loopback, or is in use.
    pub async fn bind(addr: Option<&str>) -> Result<Self, NetError> {
        let tcp = match addr {
            Some(addr) => Some(bind(addr).await?),
            None => None,
        };
        let (door, local) = InProcess::door();
        Ok(Self { tcp, local, door })
    }

    /// Where it listens on TCP.
    pub fn addr(&self) -> Option<SocketAddr> {
        self.tcp.as_ref().map(|(_, addr)| *addr)
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
            let (carrier, origin) = tokio::select! {
                () = arrivals.closed() => break,
                Some(arrived) = self.local.recv(), if near => arrived,
                carrier = accept(self.tcp.as_ref()), if far => match carrier {
                    Ok(carrier) => (carrier, Origin::Socket),
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
            greetings.spawn(greet(carrier, origin, arrivals.clone()));
        }
        greetings.shutdown().await;
    }
}

async fn bind(addr: &str) -> Result<(TcpListener, SocketAddr), NetError> {
    let at = loopback(addr).await?;
    let failed = |error: io::Error| match error.kind() {
        io::ErrorKind::AddrInUse => NetError::InUse { addr: addr.to_owned() },
        _ => NetError::Listen { addr: addr.to_owned(), error },
    };
    let tcp = TcpListener::bind(at).await.map_err(failed)?;
    let bound = tcp.local_addr().map_err(failed)?;
    Ok((tcp, bound))
}

/// The next connection over TCP.
async fn accept(tcp: Option<&(TcpListener, SocketAddr)>) -> io::Result<Carrier> {
    let Some((tcp, _)) = tcp else { return pending().await };
    let accepted = tcp.accept().await;
    if accepted.is_err() {
        // Out of file handles, as a rule: let some be closed before the next.
        tokio::time::sleep(ACCEPT_PAUSE).await;
    }
    Carrier::tcp(accepted?.0)
}

const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

async fn greet(carrier: Carrier, origin: Origin, arrivals: mpsc::Sender<Arrival>) -> Result<(), (Peer, ShownOut)> {
    let peer = carrier.peer;
    let greeted = tokio::time::timeout(GREETING, greeting(carrier, origin)).await;
    let arrival = greeted.unwrap_or(Err(ShownOut::Late)).map_err(|why| (peer, why))?;
    if arrivals.send(arrival).await.is_err() {
        tracing::debug!(%peer, "greeted while the listener was ending");
    }
    Ok(())
}

async fn greeting(mut carrier: Carrier, origin: Origin) -> Result<Arrival, ShownOut> {
    let mut read = BytesMut::new();
    loop {
        let room = GREETING_BYTES_MAX.saturating_sub(read.len());
        if room == 0 {
            return Err(Fatal::TooLong { len: read.len(), max: GREETING_BYTES_MAX }.into());
        }
        let bytes = carrier.reader.read_little(room).await?.ok_or(ShownOut::HungUp)?;
        read.extend_from_slice(&bytes);
        if let Some(hello) = peek_hello(&read)? {
            let session = hello.session;
            let incoming = Incoming { carrier, conn: hello.conn, read: read.freeze(), hello: Some(hello) };
            return Ok(Arrival { session, origin, incoming });
        }
    }
}
