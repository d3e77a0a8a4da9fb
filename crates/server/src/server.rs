//! The router process: starts the stages, and ends them in order.
//!
//! ```text
//! listener ─► sessions ─► links ═events═► core ═appends═► writer ─► disk
//!                           ▲══orders══════╝ ▲═durables═════╝══seals═► indexer ═indexed═► core
//! ```

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use sheaf_net::{Clock, InProcess, Listener, NetError, Target};
use sheaf_roles::router::Router;
use sheaf_session::{Faults, Micros, Receipt, SessionId};
use sheaf_task::{KeySecret, RouterId};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use crate::core::Input;
use crate::datadir::{DataDir, DataDirError, random};
use crate::disk::FileDisk;
use crate::gate::{Gate, forget_operator};
use crate::gauges::Gauges;
use crate::limits::Limits;
use crate::restore::{RestoreError, Restored, restore};
use crate::sessions::Sessions;
use crate::spawn::{Shared, spawn};
use crate::store::Store;
use crate::tokens::TokensError;
use crate::writer::WriterError;

/// What a router process is started with.
#[derive(Clone, Debug)]
pub struct ServerConfig {
    /// Where its journal is.
    pub data: PathBuf,
    /// Where it listens; `None`: within the process only.
    pub listen: Option<String>,
    /// Whom it lets in there.
    pub access: Access,
    /// Silence of a worker that never re-runs anything.
    pub grace: Duration,
    /// Faults on every link.
    pub faults: Option<Faults>,
    /// Its bounds.
    pub limits: Limits,
    /// What goes wrong with its disk.
    #[cfg(test)]
    pub(crate) disk_faults: Arc<crate::disk::Faults>,
}

/// Whom a router lets in from outside.
#[derive(Clone, Debug, Default)]
pub struct Access {
    /// With TLS it may listen anywhere; without, on loopback.
    pub tls: Option<Arc<rustls::ServerConfig>>,
    /// Nobody without a token: always so where it does not listen on loopback.
    pub require_token: bool,
}

/// Why a router does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Its data directory.
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    /// Its journal.
    #[error(transparent)]
    Restore(#[from] RestoreError),
    /// Its address.
    #[error(transparent)]
    Net(#[from] NetError),
    /// Its tokens.
    #[error(transparent)]
    Tokens(#[from] TokensError),
    /// Nobody could speak to it.
    #[error(
        "no token is known in {data}, and none but who has one is let in: make one with \
         `sheaf token create --data {data} --role client --app APP`, and others with --role worker and --role admin"
    )]
    NoTokens {
        /// The data directory.
        data: PathBuf,
    },
    /// The system's random numbers, or a thread.
    #[error("cannot start: {0}")]
    System(#[from] std::io::Error),
}

/// Why a router stopped otherwise than asked.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// The disk failed.
    #[error(transparent)]
    Writer(#[from] WriterError),
    /// A stage panicked: a defect. What was acknowledged is on disk.
    #[error("a stage of the router panicked; start it again: what was acknowledged is on disk")]
    Panicked,
}

/// A running router.
#[derive(Debug)]
pub struct Server {
    door: InProcess,
    addr: Option<SocketAddr>,
    is_tls: bool,
    router: RouterId,
    gauges: Arc<Gauges>,
    /// While it is there the core goes on.
    _inputs: mpsc::Sender<Vec<Input>>,
    stop: watch::Sender<bool>,
    /// The core, and after it every thread.
    ended: JoinHandle<Result<(), ServerError>>,
    listener: JoinHandle<()>,
    sessions: JoinHandle<()>,
    dir: DataDir,
}

impl Server {
    /// Listens, takes the data directory, and replays the journal.
    pub async fn start(config: ServerConfig) -> Result<Self, StartError> {
        let listener = Self::bind(&config).await?;
        Self::start_at(listener, config).await
    }

    /// Takes its address: nobody is answered there yet.
    pub async fn bind(config: &ServerConfig) -> Result<Listener, NetError> {
        match (&config.listen, &config.access.tls) {
            (Some(listen), Some(tls)) => Listener::bind_tls(listen, Arc::clone(tls)).await,
            (listen, _) => Listener::bind(listen.as_deref()).await,
        }
    }

    /// Takes the data directory, replays the journal, and answers at an address that was taken for it.
    pub async fn start_at(listener: Listener, config: ServerConfig) -> Result<Self, StartError> {
        let (addr, door, is_tls) = (listener.addr(), listener.door(), listener.is_tls());
        let is_far = addr.is_some_and(|addr| !addr.ip().to_canonical().is_loopback());
        let is_strict = is_far || config.access.require_token;
        let opening = config.clone();
        let opened = tokio::task::spawn_blocking(move || open(&opening));
        let (dir, boot, restored) = opened.await.map_err(std::io::Error::other)??;
        let gate = Gate::open(dir.path(), is_strict)?;
        if is_strict && !gate.has_tokens() {
            return Err(StartError::NoTokens { data: config.data });
        }
        if !is_strict {
            forget_operator(dir.path())?;
        }
        dir.publish_addr(&addr.map(|addr| reached_at(addr, is_tls)).unwrap_or_default())?;

        let clock = Clock::start();
        let Restored { mut router, finished, indexed, journal, next } = restored;
        router.start(clock.now(), next);
        let receipts = receipts(&router);
        let incarnation = u64::from(journal.epoch().0);
        let store = Arc::new(Store::new(journal.disk().clone(), journal.map().clone(), config.limits.recent_bytes));
        let finished = Arc::new(finished);
        let gauges = Arc::<Gauges>::default();
        let shared = Shared {
            clock,
            limits: config.limits,
            store: Arc::clone(&store),
            finished: Arc::clone(&finished),
            gauges: Arc::clone(&gauges),
        };
        let (stop, stopped) = watch::channel(false);
        let (inputs, ended) = spawn(router, journal, (next, indexed), stopped, &shared)?;
        let sessions = Sessions {
            clock,
            limits: config.limits,
            secret: KeySecret(dir.secret.0),
            incarnation,
            boot,
            faults: config.faults,
            store,
            finished,
            gate,
            core: inputs.clone(),
            receipts,
            peers: 0,
            turned_away: (None, 0),
            gauges: Arc::clone(&gauges),
        };
        let (to_sessions, arrivals) = mpsc::channel(1);
        let listener = tokio::spawn(listener.serve(to_sessions));
        let sessions = tokio::spawn(sessions.serve(arrivals));
        let router = dir.router;
        Ok(Self { door, addr, is_tls, router, gauges, _inputs: inputs, stop, ended, listener, sessions, dir })
    }

    /// Who it is.
    pub fn id(&self) -> RouterId {
        self.router
    }

    /// What it names tasks with: for whoever is of this process and must know a task's name before the router tells it.
    pub fn secret(&self) -> KeySecret {
        self.dir.secret.clone()
    }

    /// Where it listens on TCP.
    pub fn addr(&self) -> Option<SocketAddr> {
        self.addr
    }

    /// Whether it has TLS there.
    pub fn is_tls(&self) -> bool {
        self.is_tls
    }

    /// What its stages measure.
    pub fn gauges(&self) -> Arc<Gauges> {
        Arc::clone(&self.gauges)
    }

    /// The door for links of this process.
    pub fn door(&self) -> InProcess {
        self.door.clone()
    }

    /// For links of this process.
    pub fn target(&self) -> Target {
        Target::InProcess(self.door.clone())
    }

    /// Asks it to stop: it accepts nothing more, makes everything durable and ends.
    pub fn stopper(&self) -> Stopper {
        Stopper { stop: self.stop.clone() }
    }

    /// Waits until it has stopped: asked to, or because the disk failed.
    pub async fn ended(mut self) -> Result<(), ServerError> {
        let outcome = (&mut self.ended).await.unwrap_or(Err(ServerError::Panicked));
        let sessions = match tokio::time::timeout(LAST_WORDS, &mut self.sessions).await {
            Ok(ended) => ended,
            Err(_) => {
                tracing::debug!("some links did not end in time");
                self.sessions.abort();
                self.sessions.await
            }
        };
        self.listener.abort();
        for ended in [sessions, self.listener.await] {
            if ended.is_err_and(|error| error.is_panic()) {
                return Err(ServerError::Panicked);
            }
        }
        outcome
    }
}

/// How long links may take to let what was said last leave.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// Stops a router from elsewhere.
#[derive(Clone, Debug)]
pub struct Stopper {
    stop: watch::Sender<bool>,
}

impl Stopper {
    /// Asks the router to stop.
    pub fn stop(&self) {
        self.stop.send_replace(true);
    }
}

/// Where a process of this machine finds the listener.
fn reached_at(mut addr: SocketAddr, is_tls: bool) -> String {
    match addr.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => addr.set_ip(Ipv4Addr::LOCALHOST.into()),
        IpAddr::V6(ip) if ip.is_unspecified() => addr.set_ip(Ipv6Addr::LOCALHOST.into()),
        IpAddr::V4(_) | IpAddr::V6(_) => {}
    }
    if is_tls { format!("sheaf://{addr}") } else { addr.to_string() }
}

fn open(config: &ServerConfig) -> Result<(DataDir, u64, Restored), StartError> {
    let dir = DataDir::open(&config.data)?;
    let mut seed = [0; 8];
    random(&mut seed)?;
    let boot = u64::from_le_bytes(seed);
    let disk = FileDisk::new(dir.journal());
    #[cfg(test)]
    let disk = disk.with_faults(Arc::clone(&config.disk_faults));
    let restored = restore(disk, dir.router, micros(config.grace), boot, config.limits.segment_bytes)?;
    Ok((dir, boot, restored))
}

fn receipts(router: &Router) -> BTreeMap<SessionId, Vec<Receipt>> {
    let mut receipts: BTreeMap<SessionId, Vec<Receipt>> = BTreeMap::new();
    for (session, receipt) in router.receipts() {
        receipts.entry(session).or_default().push(receipt);
    }
    receipts
}

fn micros(duration: Duration) -> Micros {
    Micros(u64::try_from(duration.as_micros()).unwrap_or(u64::MAX))
}
