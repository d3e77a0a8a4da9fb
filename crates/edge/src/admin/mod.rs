//! The admin listener: whether the process lives and is ready, its metrics, and what operators look at. Never on the
//! front door, and on loopback only: it has no tokens.
//!
//! Nothing here changes anything. Questions go to the router on a session of this process, as everybody's do.
//!
//! | path | what |
//! |---|---|
//! | `/healthz` | the process answers |
//! | `/readyz` | the journal is replayed and takes rows, the router answers |
//! | `/metrics` | Prometheus' text: numbers, and names of workers |
//! | `/api/v1/snapshot`, `/jobs`, `/jobs/{id}`, `/workers` | the same as JSON, and more of it |
//! | `/api/v1/events` | the snapshot once a second, as server-sent events |

mod api;
mod ask;
mod events;
mod http;
mod metrics;
mod page;

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};

use sheaf_net::Target;
use sheaf_server::Gauges;
use tokio::net::{TcpListener, lookup_host};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use ask::Asker;
use events::Events;

use crate::counts::Counts;

/// Why nobody listens for operators.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// Others than this machine's users would reach it.
    #[error(
        "{addr} is not a loopback address, and the admin listener has neither TLS nor tokens yet: use 127.0.0.1:PORT, and \
         a tunnel (ssh -L) from elsewhere"
    )]
    NotLoopback {
        /// As it was given.
        addr: String,
    },
    /// Its address.
    #[error("cannot listen for operators on {addr}: {error}; write it as --admin=127.0.0.1:4479")]
    Listen {
        /// As it was given.
        addr: String,
        /// What the system says.
        error: io::Error,
    },
}

/// A listener for operators.
#[derive(Debug)]
pub struct Admin {
    addr: SocketAddr,
    desk: Arc<Desk>,
    stop: watch::Sender<bool>,
    tasks: [JoinHandle<()>; 2],
}

/// What every answer is made of.
#[derive(Debug, Default)]
struct Desk {
    /// Empty until the journal is replayed.
    sources: OnceLock<Sources>,
    /// Empty where there is no front door.
    door: OnceLock<Arc<Counts>>,
    events: Events,
}

/// Where figures come from.
#[derive(Debug)]
struct Sources {
    router: Asker,
    gauges: Arc<Gauges>,
}

impl Admin {
    /// Listens, and says from then on that the process is not ready.
    pub async fn open(listen: &str) -> Result<Self, AdminError> {
        let failed = |error| AdminError::Listen { addr: listen.to_owned(), error };
        let mut at = lookup_host(listen).await.map_err(failed)?.peekable();
        if at.peek().is_none() || !at.all(|addr| addr.ip().is_loopback()) {
            return Err(AdminError::NotLoopback { addr: listen.to_owned() });
        }
        let listener = TcpListener::bind(listen).await.map_err(failed)?;
        let addr = listener.local_addr().map_err(failed)?;
        let desk = Arc::<Desk>::default();
        let (stop, stopped) = watch::channel(false);
        let tasks = [
            tokio::spawn(http::accept(listener, Arc::clone(&desk), stopped.clone())),
            tokio::spawn(events::tell(Arc::clone(&desk), stopped)),
        ];
        Ok(Self { addr, desk, stop, tasks })
    }

    /// The router runs: its journal is replayed. A second router is not taken.
    pub fn attach(&self, target: Target, gauges: Arc<Gauges>) -> io::Result<()> {
        let router = Asker::open(target)?;
        self.desk.sources.set(Sources { router, gauges }).map_err(|_| io::ErrorKind::AlreadyExists.into())
    }

    /// There is a front door too. A second one is not taken.
    pub fn attach_door(&self, counts: Arc<Counts>) -> io::Result<()> {
        self.desk.door.set(counts).map_err(|_| io::ErrorKind::AlreadyExists.into())
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Hangs up.
    pub async fn close(self) {
        self.stop.send_replace(true);
        for task in self.tasks {
            if let Err(error) = task.await {
                tracing::error!(%error, "the admin listener panicked");
            }
        }
        if let Some(sources) = self.desk.sources.get() {
            sources.router.close().await;
        }
    }
}
