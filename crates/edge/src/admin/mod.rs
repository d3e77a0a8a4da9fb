//! The admin listener: whether the process lives and is ready, its metrics, and what operators look at. Never on the
//! front door. Whether it lives and is ready is told to everybody; all else to admins, wherever tokens are asked for.
//!
//! Nothing here changes anything. Questions go to the router on a session of this process, as everybody's do.
//!
//! | path | what |
//! |---|---|
//! | `/healthz` | the process answers |
//! | `/readyz` | the journal is replayed and takes rows, the router answers, and so does the front door where there is one |
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

use rustls::ServerConfig;
use sheaf_net::Target;
use sheaf_server::Gauges;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use ask::Asker;
use events::Events;

use crate::bound::Bound;
use crate::counts::Counts;
use crate::who::Who;

/// A listener for operators.
pub struct Admin {
    addr: SocketAddr,
    desk: Arc<Desk>,
    stop: watch::Sender<bool>,
    tasks: [JoinHandle<()>; 2],
}

/// What every answer is made of.
struct Desk {
    tls: Option<Arc<ServerConfig>>,
    who: Who,
    /// Empty until the journal is replayed.
    sources: OnceLock<Sources>,
    /// Empty until the front door is open, or where there is none.
    door: OnceLock<Arc<Counts>>,
    /// There will be one, and before that the process is not ready.
    expects_door: bool,
    events: Events,
}

/// Where figures come from.
#[derive(Debug)]
struct Sources {
    router: Asker,
    gauges: Arc<Gauges>,
}

impl Admin {
    /// Answers, and says that the process is not ready until a router is attached, and a front door where one is expected.
    pub fn open(at: Bound, expects_door: bool) -> Self {
        let Bound { listener, addr, tls, who } = at;
        let (sources, door, events) = (OnceLock::new(), OnceLock::new(), Events::default());
        let desk = Arc::new(Desk { tls, who, sources, door, expects_door, events });
        let (stop, stopped) = watch::channel(false);
        let tasks = [
            tokio::spawn(http::accept(listener, Arc::clone(&desk), stopped.clone())),
            tokio::spawn(events::tell(Arc::clone(&desk), stopped)),
        ];
        Self { addr, desk, stop, tasks }
    }

    /// The router runs: its journal is replayed. A second router is not taken.
    pub fn attach(&self, target: Target, gauges: Arc<Gauges>) -> io::Result<()> {
        let router = Asker::open(target)?;
        self.desk.sources.set(Sources { router, gauges }).map_err(|_| io::ErrorKind::AlreadyExists.into())
    }

    /// The front door is open, too. A second one is not taken.
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
