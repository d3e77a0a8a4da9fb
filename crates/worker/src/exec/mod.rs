//! Executors: what makes an attempt. They know no router and no session: an assignment goes in, its end comes out.
//!
//! Invariants: every started attempt ends exactly once, killed or not; an executor starts what it is told to, the
//! worker machine bounds how many; memory per attempt is bounded whatever the program writes.

mod life;
mod line;
mod pipes;
mod pool;
mod program;
mod serve;
mod verdict;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use sheaf_task::{Assignment, Fence, Outcome};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;

use crate::config::{ConfigError, Mode, ProgramConfig, Work};
use crate::keeper::KeeperSlot;
use pool::Pool;

/// Ends waiting to be taken; an attempt that ended waits for room.
const ENDED_MAX: usize = 1_024;

/// The end of one attempt.
#[derive(Clone, Debug)]
pub struct Ended {
    /// Which.
    pub fence: Fence,
    /// How.
    pub outcome: Outcome,
    /// How long it executed, milliseconds.
    pub ms: u64,
}

/// The executor of a worker.
pub struct Executor {
    kind: Kind,
    /// Ends that are there already.
    ready: VecDeque<Ended>,
    inbox: mpsc::Receiver<Ended>,
    report: mpsc::Sender<Ended>,
}

enum Kind {
    Echo,
    Program(Programs),
    Serve(Pool),
}

/// One process an attempt.
struct Programs {
    config: Arc<ProgramConfig>,
    keepers: KeeperSlot,
    tasks: JoinSet<()>,
    stops: HashMap<Fence, oneshot::Sender<()>>,
}

impl Executor {
    /// Checks `work` and makes ready for it. Call within a tokio runtime.
    pub fn start_up(work: &Work) -> Result<Self, ConfigError> {
        let (report, inbox) = mpsc::channel(ENDED_MAX);
        let kind = match work {
            Work::Echo => Kind::Echo,
            Work::Program(config) => {
                config.check()?;
                let keepers = KeeperSlot::start(config.keeper.clone())
                    .map_err(|error| ConfigError::Keeper { program: config.keeper.program.clone(), error })?;
                let config = Arc::new(config.clone());
                match config.mode {
                    Mode::Serve { processes } => Kind::Serve(Pool::new(config, keepers, processes, &report)),
                    Mode::Argument | Mode::Stdin => {
                        Kind::Program(Programs { config, keepers, tasks: JoinSet::new(), stops: HashMap::new() })
                    }
                }
            }
        };
        Ok(Self { kind, ready: VecDeque::new(), inbox, report })
    }

    /// Starts an attempt. Its end comes out of [`Executor::ended`].
    pub fn start(&mut self, assignment: Assignment) {
        match &mut self.kind {
            Kind::Echo => {
                self.ready.push_back(Ended { fence: assignment.fence, outcome: Outcome::Ok(assignment.body), ms: 0 });
            }
            Kind::Program(programs) => programs.start(assignment, self.report.clone()),
            Kind::Serve(pool) => pool.start(assignment),
        }
    }

    /// Ends an attempt at once; it comes out as cancelled, or as what it ended with a moment before.
    pub fn kill(&mut self, fence: Fence) {
        match &mut self.kind {
            Kind::Echo => {}
            Kind::Program(programs) => {
                if let Some(stop) = programs.stops.remove(&fence)
                    && stop.send(()).is_err()
                {
                    tracing::debug!(?fence, "ended just before it was to be stopped");
                }
            }
            Kind::Serve(pool) => self.ready.extend(pool.kill(fence)),
        }
    }

    /// Waits for attempts that ended, and appends them. Nothing is lost when the wait is dropped.
    pub async fn ended(&mut self, into: &mut Vec<Ended>) {
        if self.ready.is_empty() {
            // The channel is never closed: its sender is here.
            self.ready.extend(self.inbox.recv().await);
        }
        while let Ok(ended) = self.inbox.try_recv() {
            self.ready.push_back(ended);
        }
        for ended in self.ready.drain(..) {
            match &mut self.kind {
                Kind::Echo => {}
                Kind::Program(programs) => programs.on_ended(ended.fence),
                Kind::Serve(pool) => pool.on_ended(ended.fence),
            }
            into.push(ended);
        }
    }

    /// Ends whatever still runs. A long-lived program is told by the end of its input, and has a moment to leave.
    pub async fn close(self) {
        drop(self.inbox);
        match self.kind {
            Kind::Echo => {}
            Kind::Program(mut programs) => {
                programs.tasks.shutdown().await;
                programs.keepers.close().await;
            }
            Kind::Serve(pool) => pool.close().await,
        }
    }
}

impl Programs {
    fn start(&mut self, assignment: Assignment, report: mpsc::Sender<Ended>) {
        let (stop, stopped) = oneshot::channel();
        let fence = assignment.fence;
        self.stops.insert(fence, stop);
        let (config, keepers) = (self.config.clone(), self.keepers.clone());
        self.tasks.spawn(async move {
            let since = Instant::now();
            let outcome = match keepers.live() {
                Ok(keeper) => program::attempt(config, keeper, assignment, stopped).await,
                Err(error) => verdict::not_started(&config.base_name(), error.raw_os_error().unwrap_or(0)),
            };
            tell(&report, Ended { fence, outcome, ms: since.elapsed().as_millis() as u64 }).await;
        });
    }

    fn on_ended(&mut self, fence: Fence) {
        self.stops.remove(&fence);
        while let Some(joined) = self.tasks.try_join_next() {
            if let Err(error) = joined {
                tracing::error!(%error, "an attempt's task panicked");
            }
        }
    }
}

async fn tell(report: &mpsc::Sender<Ended>, ended: Ended) {
    if let Err(mpsc::error::SendError(ended)) = report.send(ended).await {
        tracing::debug!(fence = ?ended.fence, "ended after the executor was closed");
    }
}
