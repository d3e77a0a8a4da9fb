//! Taking connections: each stranger has a bounded time and a bounded number of bytes to say which session it wants;
//! only then does the embedder hear of it. Garbage costs the one who sent it its connection, and nobody else anything.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use sheaf_session::{HelloInfo, peek_hello};
use tokio::net::TcpListener;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::JoinSet;

use crate::carrier::{Carrier, InProcess};
use crate::dial::loopback;
use crate::error::NetError;
use crate::limits::{GREETING, GREETING_BYTES_MAX, STRANGERS_MAX};

/// A connection for a link.
#[derive(Debug)]
pub struct Incoming {
    /// What moves its bytes.
    pub carrier: Carrier,
    /// Its nonce.
    pub conn: u64,
    /// What was read of it already.
    pub read: Bytes,
}

/// A stranger that has greeted.
#[derive(Debug)]
pub struct Arrival {
    /// Which session it wants, and as whom.
    pub hello: HelloInfo,
    /// Its connection, for that session's link.
    pub incoming: Incoming,
}

/// Listens on TCP, within the process, or both.
#[derive(Debug)]
pub struct Listener {
    tcp: Option<TcpListener>,
    local: mpsc::Receiver<Carrier>,
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
        self.tcp.as_ref().and_then(|tcp| tcp.local_addr().ok())
    }

    /// For dialers of this process.
    pub fn door(&self) -> InProcess {
        self.door.clone()
    }

    /// Takes connections until the receiver of `arrivals` is gone.
    pub async fn serve(mut self, arrivals: mpsc::Sender<Arrival>) {
        let strangers = Arc::new(Semaphore::new(STRANGERS_MAX));
        let mut greetings = JoinSet::new();
        loop {
            let place = tokio::select! {
                () = arrivals.closed() => return,
                place = Arc::clone(&strangers).acquire_owned() => place,
            };
            // The semaphore is never closed while this holds it.
            let Ok(place) = place else { return };
            tokio::select! {
                () = arrivals.closed() => return,
                Some(carrier) = self.accept() => {
                    greetings.spawn(greet(carrier, place, arrivals.clone()));
                }
            }
            while greetings.try_join_next().is_some() {}
        }
    }

    /// The next connection; `None` where one came and was gone at once.
    async fn accept(&mut self) -> Option<Carrier> {
        let Some(tcp) = &self.tcp else { return self.local.recv().await };
        tokio::select! {
            carrier = self.local.recv() => carrier,
            accepted = tcp.accept() => match accepted.and_then(|(stream, _)| Carrier::tcp(stream)) {
                Ok(carrier) => Some(carrier),
                Err(error) => {
                    tracing::warn!(%error, "a connection was not taken");
                    // Out of file handles, as a rule: let some be closed before the next.
                    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
                    None
                }
            },
        }
    }
}

async fn bind(addr: &str) -> Result<TcpListener, NetError> {
    let at = loopback(addr).await?;
    TcpListener::bind(at).await.map_err(|error| match error.kind() {
        std::io::ErrorKind::AddrInUse => NetError::InUse { addr: addr.to_owned() },
        _ => NetError::Listen { addr: addr.to_owned(), error },
    })
}

async fn greet(carrier: Carrier, place: OwnedSemaphorePermit, arrivals: mpsc::Sender<Arrival>) {
    let peer = carrier.peer.clone();
    match tokio::time::timeout(GREETING, greeting(carrier)).await {
        Ok(Ok(arrival)) => {
            drop(place);
            if arrivals.send(arrival).await.is_err() {
                tracing::debug!(peer, "greeted while the listener was ending");
            }
        }
        Ok(Err(why)) => tracing::warn!(peer, why, "a stranger was shown out"),
        Err(_) => tracing::warn!(peer, "a stranger said nothing in time"),
    }
}

async fn greeting(mut carrier: Carrier) -> Result<Arrival, String> {
    let mut read = BytesMut::new();
    loop {
        match carrier.reader.read().await {
            Ok(Some(bytes)) => read.extend_from_slice(&bytes),
            Ok(None) => return Err("it hung up".to_owned()),
            Err(error) => return Err(error.to_string()),
        }
        match peek_hello(&read) {
            Ok(Some(hello)) => {
                let incoming = Incoming { carrier, conn: hello.conn, read: read.freeze() };
                return Ok(Arrival { hello, incoming });
            }
            Ok(None) if read.len() < GREETING_BYTES_MAX => {}
            Ok(None) => return Err("its greeting is too long".to_owned()),
            Err(error) => return Err(error.to_string()),
        }
    }
}
