//! Executors: what makes an attempt. They know no router and no session: an assignment goes in, its end comes out.
//!
//! Invariants: every started attempt ends exactly once, killed or not; an executor starts what it is told to, the
//! worker machine bounds how many; memory per attempt is bounded whatever the program writes.

mod flight;
mod hash_embed;
mod life;
mod line;
mod pipes;
mod pool;
mod program;
mod serve;
mod verdict;
mod web;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use sheaf_task::{Assignment, Capacity, Class, Failure, Fence, Outcome, Piece, Tokens};
use tokio::sync::{mpsc, oneshot};
use tokio::task::{self, JoinSet};

use crate::config::{ConfigError, Mode, ProgramConfig, Work};
use crate::keeper::KeeperSlot;
pub use hash_embed::HASH_EMBED_MODEL;
use pool::Pool;
use web::Web;
pub(crate) use web::check as check_backend;
pub use web::check_schema;

/// The end of one attempt.
#[derive(Clone, Debug)]
pub struct Ended {
    /// Which.
    pub fence: Fence,
    /// How.
    pub outcome: Outcome,
    /// How long it executed, milliseconds.
    pub ms: u64,
    /// What its answer cost.
    pub tokens: Tokens,
}

impl Ended {
    /// Of an attempt whose answer costs nothing that is counted.
    fn new(fence: Fence, outcome: Outcome, ms: u64) -> Self {
        Self { fence, outcome, ms, tokens: Tokens::default() }
    }
}

/// The executor of a worker.
pub struct Executor {
    kind: Kind,
    /// Ends that are there already.
    ready: VecDeque<Ended>,
}

enum Kind {
    Echo,
    HashEmbed,
    Program(Programs),
    Serve(Pool),
    Web(Web),
}

/// One process an attempt.
struct Programs {
    config: Arc<ProgramConfig>,
    keepers: KeeperSlot,
    tasks: JoinSet<Ended>,
    fences: HashMap<task::Id, Fence>,
    stops: HashMap<Fence, oneshot::Sender<()>>,
}

impl Executor {
    /// Checks `work` and makes ready for it: for `capacity` at once. Call within a tokio runtime.
    pub fn start_up(work: &Work, capacity: Capacity) -> Result<Self, ConfigError> {
        let kind = match work {
            Work::Echo => Kind::Echo,
            Work::HashEmbed => Kind::HashEmbed,
            Work::Web(backend) => Kind::Web(Web::new(backend, capacity.batch)?),
            Work::Program(config) => {
                config.check()?;
                let keepers = KeeperSlot::start(config.keeper.clone())
                    .map_err(|error| ConfigError::Keeper { program: config.keeper.program.clone(), error })?;
                let config = Arc::new(config.clone());
                match config.mode {
                    Mode::Serve { processes } => Kind::Serve(Pool::new(config, keepers, processes)),
                    Mode::Argument | Mode::Stdin => Kind::Program(Programs::new(config, keepers)),
                }
            }
        };
        Ok(Self { kind, ready: VecDeque::new() })
    }

    /// Starts an attempt. Its end comes out of [`Executor::ended`].
    pub fn start(&mut self, assignment: Assignment) {
        match &mut self.kind {
            Kind::Echo => {
                self.ready.push_back(Ended::new(assignment.fence, Outcome::Ok(assignment.body), 0));
            }
            Kind::HashEmbed => {
                let since = Instant::now();
                let (outcome, tokens) = hash_embed::answer(&assignment.body);
                let ms = since.elapsed().as_millis() as u64;
                self.ready.push_back(Ended { fence: assignment.fence, outcome, ms, tokens });
            }
            Kind::Program(programs) => programs.start(assignment),
            Kind::Serve(pool) => pool.start(assignment),
            Kind::Web(web) => self.ready.extend(web.start(assignment)),
        }
    }

    /// Ends an attempt at once; it comes out as cancelled, or as what it ended with a moment before.
    pub fn kill(&mut self, fence: Fence) {
        match &mut self.kind {
            Kind::Echo | Kind::HashEmbed => {}
            Kind::Program(programs) => programs.kill(fence),
            Kind::Serve(pool) => self.ready.extend(pool.kill(fence)),
            Kind::Web(web) => self.ready.extend(web.kill(fence)),
        }
    }

    /// Each attempt is a process of its own.
    pub(crate) fn is_by_process(&self) -> bool {
        matches!(self.kind, Kind::Program(_))
    }

    /// How many attempts it can make at once from now on, where that has changed since it was last asked.
    pub fn take_batch(&mut self) -> Option<u32> {
        match &mut self.kind {
            Kind::Echo | Kind::HashEmbed | Kind::Program(_) | Kind::Serve(_) => None,
            Kind::Web(web) => web.take_batch(),
        }
    }

    /// Pieces of answers that came since it was last asked.
    pub fn take_pieces(&mut self) -> Vec<Piece> {
        match &mut self.kind {
            Kind::Echo | Kind::HashEmbed | Kind::Program(_) | Kind::Serve(_) => Vec::new(),
            Kind::Web(web) => web.take_pieces(),
        }
    }

    /// Waits for attempts that ended, and appends them; or, appending none, until [`Executor::take_batch`] or
    /// [`Executor::take_pieces`] has news.
    /// Nothing is lost when the wait is dropped.
    pub async fn ended(&mut self, into: &mut Vec<Ended>) {
        if self.ready.is_empty() {
            match &mut self.kind {
                Kind::Echo | Kind::HashEmbed => std::future::pending().await,
                Kind::Program(programs) => programs.ended(into).await,
                Kind::Serve(pool) => pool.ended(into).await,
                Kind::Web(web) => web.ended(into).await,
            }
        }
        into.extend(self.ready.drain(..));
    }

    /// Ends whatever still runs. A long-lived program is told by the end of its input, and has a moment to leave.
    pub async fn close(self) {
        match self.kind {
            Kind::Echo | Kind::HashEmbed => {}
            Kind::Program(mut programs) => {
                programs.tasks.shutdown().await;
                programs.keepers.close().await;
            }
            Kind::Serve(pool) => pool.close().await,
            Kind::Web(web) => web.close().await,
        }
    }
}

impl Programs {
    fn new(config: Arc<ProgramConfig>, keepers: KeeperSlot) -> Self {
        Self { config, keepers, tasks: JoinSet::new(), fences: HashMap::new(), stops: HashMap::new() }
    }

    fn start(&mut self, assignment: Assignment) {
        let (stop, stopped) = oneshot::channel();
        let fence = assignment.fence;
        let (config, keepers) = (self.config.clone(), self.keepers.clone());
        let task = self.tasks.spawn(async move {
            let since = Instant::now();
            let outcome = match keepers.live() {
                Ok(keeper) => program::attempt(config, keeper, assignment, stopped).await,
                Err(error) => verdict::not_started(&config.base_name(), error.raw_os_error().unwrap_or(0)),
            };
            Ended::new(fence, outcome, since.elapsed().as_millis() as u64)
        });
        self.fences.insert(task.id(), fence);
        self.stops.insert(fence, stop);
    }

    fn kill(&mut self, fence: Fence) {
        if let Some(stop) = self.stops.remove(&fence)
            && stop.send(()).is_err()
        {
            tracing::debug!(?fence, "ended just before it was to be stopped");
        }
    }

    async fn ended(&mut self, into: &mut Vec<Ended>) {
        let Some(joined) = self.tasks.join_next_with_id().await else {
            return std::future::pending().await;
        };
        self.on_joined(joined, into);
        while let Some(joined) = self.tasks.try_join_next_with_id() {
            self.on_joined(joined, into);
        }
    }

    fn on_joined(&mut self, joined: Result<(task::Id, Ended), task::JoinError>, into: &mut Vec<Ended>) {
        match joined {
            Ok((id, ended)) => {
                self.fences.remove(&id);
                self.stops.remove(&ended.fence);
                into.push(ended);
            }
            Err(error) => {
                let Some(fence) = self.fences.remove(&error.id()) else { return };
                self.stops.remove(&fence);
                into.push(panicked(fence, &error));
            }
        }
    }
}

/// A panic of ours is the attempt's end, not the worker's.
fn panicked(fence: Fence, error: &task::JoinError) -> Ended {
    tracing::error!(%error, "an executor panicked");
    let failure = Failure::new(
        Class::Error,
        "the executor of this task panicked; this is a defect of sheaf, see the worker's log",
    );
    Ended::new(fence, Outcome::Failed(failure), 0)
}

async fn tell(report: &mpsc::Sender<Ended>, ended: Ended) {
    if let Err(mpsc::error::SendError(ended)) = report.send(ended).await {
        tracing::debug!(fence = ?ended.fence, "ended after the executor was closed");
    }
}
