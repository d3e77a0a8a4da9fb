//! Takes connections and ends them. Each is a task of its own; there are never more than the limit says, and the next
//! ones wait in the kernel's backlog.

use std::convert::Infallible;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::Response;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::ServerConfig;
use sheaf_net::InProcess;
use sheaf_task::KeySecret;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

use crate::admit::{Gate, read_pressure};
use crate::answer::{answer, refused_at_once};
use crate::batches::Batches;
use crate::bound::Bound;
use crate::counts::Counts;
use crate::files::Store;
use crate::io::{Patient, end};
use crate::limits::Limits;
use crate::names::Names;
use crate::offers::Offers;
use crate::reply::ReplyBody;
use crate::tenants::{Lines, RouterDoor, Tenants};
use crate::turns::{Open, Turns, Words};
use crate::who::Who;
use crate::wire::Wire;

/// What a door is opened with.
#[derive(Clone, Debug)]
pub struct EdgeConfig {
    /// Its directory: files and batches.
    pub data: PathBuf,
    /// The router.
    pub router: InProcess,
    /// The router's secret, so that a task has the same name here as there.
    pub secret: KeySecret,
    /// Its bounds.
    pub limits: Limits,
}

/// Why a door cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum EdgeError {
    /// Random numbers.
    #[error("cannot read random numbers: {0}")]
    Random(io::Error),
    /// Its directory.
    #[error("cannot use {path}: {error}")]
    Data {
        /// The directory.
        path: PathBuf,
        /// What the system says.
        error: io::Error,
    },
}

/// What every handler has.
pub(crate) struct Door {
    pub config: EdgeConfig,
    pub tls: Option<Arc<ServerConfig>>,
    pub files: Store,
    pub batches: Arc<Batches>,
    /// Told apart by when the door opened; counted from there.
    opened: u64,
    requests: AtomicU64,
    pub who: Who,
    pub tenants: Tenants,
    pub offers: Offers,
    pub names: Names,
    pub gate: Arc<Gate>,
    pub counts: Arc<Counts>,
}

impl Door {
    /// A name for a request, the same in its answer and in the log.
    pub(crate) fn request_id(&self) -> String {
        self.request_name(self.request_number())
    }

    /// Of one more request.
    pub(crate) fn request_number(&self) -> u64 {
        self.requests.fetch_add(1, Ordering::Relaxed)
    }

    pub(crate) fn request_name(&self, number: u64) -> String {
        format!("req_{:x}_{number:x}", self.opened)
    }
}

/// How far a door is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Open,
    /// What has begun is answered.
    Draining,
    /// What waits is told to come later.
    Closing,
}

/// An open door.
#[derive(Debug)]
pub struct Edge {
    addr: SocketAddr,
    batches: Arc<Batches>,
    stop: watch::Sender<Stage>,
    accepting: JoinHandle<()>,
    /// They end when the door is gone.
    lines: Lines,
    counts: Arc<Counts>,
}

impl Edge {
    /// Answers from now on.
    pub async fn open(at: Bound, config: EdgeConfig) -> Result<Self, EdgeError> {
        let Bound { listener, addr, tls, who } = at;
        let (files, batches) = open_data(&config).await?;
        let opened = std::time::UNIX_EPOCH.elapsed().map_or(0, |since| since.as_micros() as u64);
        let router = RouterDoor::new(config.router.clone());
        let tenants = Tenants::open(router, config.secret.clone(), config.limits.calls).map_err(EdgeError::Random)?;
        let lines = tenants.lines();
        let (offers, names) = (Offers::new(), Names::new().map_err(EdgeError::Random)?);
        let counts = Arc::new(Counts::default());
        let Limits { light, bodies_bytes_max, .. } = config.limits;
        let gate = Arc::new(Gate::new(light, bodies_bytes_max, Arc::clone(&counts)));
        let requests = AtomicU64::new(0);
        let told = Arc::clone(&counts);
        let kept = Arc::clone(&batches);
        let door = Arc::new(Door {
            config,
            tls,
            files,
            batches: kept,
            opened,
            requests,
            who,
            tenants,
            offers,
            names,
            gate,
            counts: told,
        });
        let (stop, stopped) = watch::channel(Stage::Open);
        let accepting = tokio::spawn(accept(listener, door, stopped));
        Ok(Self { addr, batches, stop, accepting, lines, counts })
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// What it counts of itself.
    pub fn counts(&self) -> Arc<Counts> {
        Arc::clone(&self.counts)
    }

    /// Takes no more requests, answers those that have begun, and closes. When `hurry` comes, or the time for it is over,
    /// those that still wait are told to come later.
    pub async fn close(mut self, hurry: impl Future<Output = ()>) {
        self.stop.send_replace(Stage::Draining);
        let accepted = tokio::select! {
            accepted = &mut self.accepting => accepted,
            () = hurry => {
                self.stop.send_replace(Stage::Closing);
                self.accepting.await
            }
        };
        if let Err(error) = accepted {
            tracing::error!(%error, "the door's listener panicked");
        }
        self.lines.ended().await;
        self.batches.close().await;
    }
}

/// Takes up the directory, and goes on with every batch in it that is not over.
async fn open_data(config: &EdgeConfig) -> Result<(Store, Arc<Batches>), EdgeError> {
    let (root, app_bytes_max) = (config.data.clone(), config.limits.app_bytes_max);
    let failed = |error| EdgeError::Data { path: config.data.clone(), error };
    let opened = tokio::task::spawn_blocking(move || Store::open(root, app_bytes_max)).await.map_err(io::Error::other);
    let files = opened.and_then(|opened| opened).map_err(failed)?;
    let batches = Batches::open(config, files.clone()).await.map_err(failed)?;
    Ok((files, batches))
}

/// Out of file handles, as a rule: let some be closed before the next.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// How often it is looked how short memory is.
const PRESSURE_EVERY: Duration = Duration::from_secs(1);

/// How long the last answers may take to leave.
const LAST_WORDS: Duration = Duration::from_secs(1);

async fn accept(listener: TcpListener, door: Arc<Door>, mut stopped: watch::Receiver<Stage>) {
    let mut connections = JoinSet::new();
    let limits = door.config.limits;
    let mut look = tokio::time::interval(PRESSURE_EVERY);
    let taking_up = door.tenants.take_up_left(door.who.apps());
    tokio::pin!(taking_up);
    let mut is_taken_up = false;
    loop {
        let is_red = connections.len() >= limits.connections_max || door.gate.is_red();
        tokio::select! {
            _ = stopped.changed() => break,
            _ = look.tick() => door.gate.set_pressure(read_pressure()),
            () = &mut taking_up, if !is_taken_up => is_taken_up = true,
            Some(ended) = connections.join_next() => {
                if let Err(error) = ended {
                    tracing::error!(%error, "a connection panicked");
                }
            }
            accepted = listener.accept(), if !is_red => match accepted {
                Ok((stream, _)) => {
                    door.counts.connection();
                    drop(connections.spawn(serve(stream, Arc::clone(&door), stopped.clone())));
                }
                Err(error) => {
                    tracing::warn!(%error, "a connection was not taken");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    }
    drop(listener);
    tokio::select! {
        () = all(&mut connections) => {}
        () = tokio::time::sleep(limits.drain) => {}
        _ = stopped.wait_for(|stage| *stage == Stage::Closing) => {}
    }
    // Whoever still waits for a call is told to come later.
    door.tenants.lines().abort();
    if tokio::time::timeout(LAST_WORDS, all(&mut connections)).await.is_err() {
        tracing::warn!("requests were still being answered, and are cut off");
    }
    connections.shutdown().await;
}

async fn all(connections: &mut JoinSet<()>) {
    while connections.join_next().await.is_some() {}
}

/// What a connection writes for a request.
type Answer = Response<Open<ReplyBody>>;

/// An answer, or a handler that makes one.
enum Answering<F> {
    Now(Option<Answer>),
    Later(Pin<Box<F>>),
}

impl<F: Future<Output = Answer>> Future for Answering<F> {
    type Output = Result<Answer, Infallible>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut *self {
            Answering::Now(answer) => answer.take().map_or(Poll::Pending, |answer| Poll::Ready(Ok(answer))),
            Answering::Later(handler) => handler.as_mut().poll(cx).map(Ok),
        }
    }
}

async fn serve(stream: TcpStream, door: Arc<Door>, mut stopped: watch::Receiver<Stage>) {
    let (limits, tls) = (door.config.limits, door.tls.clone());
    let turns = Arc::<Turns>::default();
    let (of_service, for_service) = (Arc::clone(&turns), Arc::clone(&door));
    let service = service_fn(move |request| {
        let (door, turn) = (Arc::clone(&for_service), of_service.begin());
        match refused_at_once(&door, &request) {
            Some(reply) => Answering::Now(Some(turn.open(reply))),
            None => Answering::Later(Box::pin(async move { turn.open(answer(door, request).await) })),
        }
    });
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "answers may be held back");
    }
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(limits.head_timeout).max_buf_size(limits.head_bytes_max);
    let opened = Wire::open(Patient::new(stream, limits.write_stall), tls);
    let Ok(Ok(stream)) = tokio::time::timeout(limits.head_timeout, opened).await else {
        tracing::debug!("a client did not shake hands");
        return;
    };
    let mut connection = http.serve_connection(TokioIo::new(Words::new(stream, turns)), service);
    let ended = tokio::select! {
        ended = poll_fn(|cx| connection.poll_without_shutdown(cx)) => ended,
        _ = stopped.changed() => {
            Pin::new(&mut connection).graceful_shutdown();
            poll_fn(|cx| connection.poll_without_shutdown(cx)).await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection ended");
    }
    let words = connection.into_parts().io.into_inner();
    let refusal = words.refusal(&door.request_id());
    let mut wire = words.into_wire();
    if let Some(refusal) = refusal {
        door.counts.request();
        if let Err(error) = wire.write_all(&refusal).await {
            tracing::debug!(%error, "a refusal was not taken");
        }
    }
    end(wire.into_socket().await).await;
}
