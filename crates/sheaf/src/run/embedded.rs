//! The router and the worker of a `sheaf run` that joins nobody: in this process, on in-process carriers.

use anyhow::{Context, Result};
use sheaf_net::Target;
use sheaf_server::{Access, Server, ServerConfig};
use sheaf_task::Capacity;
use sheaf_worker::Stop;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::args::RunArgs;
use crate::program::{capacity_of, is_started_per_row, service_of, work_of};
use crate::signals::Signals;

/// Both, running.
pub(super) struct Embedded {
    server: Server,
    worker: JoinHandle<Result<sheaf_worker::Summary, sheaf_worker::WorkerError>>,
    stop: watch::Sender<Stop>,
}

/// Rows that wait in the worker of a run at least, where each is a process: there is no other worker that could have them,
/// and with some at hand results need not leave one by one.
const DEPTH_MIN: u32 = 16;

/// Where the router of a run can be asked about it: any free loopback port, noted in its data directory.
const LISTEN: &str = "127.0.0.1:0";

impl Embedded {
    /// Starts the router on its data directory, then the worker.
    pub(super) async fn start(args: &RunArgs) -> Result<Self> {
        let server = Server::start(ServerConfig {
            data: args.data.clone(),
            listen: Some(LISTEN.to_owned()),
            access: Access::default(),
            grace: args.grace,
            faults: args.chaos.chaos,
            limits: sheaf_server::Limits::default(),
        })
        .await?;
        let (stop, stopped) = watch::channel(Stop::No);
        let service = service_of(args.service.as_ref(), &args.program)?;
        let worker = tokio::spawn(sheaf_worker::run(
            sheaf_worker::Config {
                name: "local".to_owned(),
                services: vec![service],
                capacity: capacity(args),
                work: work_of(&args.program)?,
                target: server.target(),
                // A name for life, so that after a crash the router need not wait for a worker that never returns; and
                // what was finished when the crash came is not done again.
                data: Some(args.data.join("worker")),
                faults: args.chaos.chaos,
            },
            stopped,
        ));
        Ok(Self { server, worker, stop })
    }

    /// For the client's line.
    pub(super) fn target(&self) -> Target {
        self.server.target()
    }

    /// The worker begins nothing more, and finishes what it runs.
    pub(super) fn drain(&self) {
        self.stop.send_replace(Stop::Drain);
    }

    /// Lets the worker finish what it runs, then stops the router. A signal meanwhile does not wait for the worker.
    pub(super) async fn stop(mut self, signals: &mut Signals) -> Result<()> {
        self.drain();
        let worker = loop {
            tokio::select! {
                ended = &mut self.worker => break ended,
                () = signals.next() => {
                    self.stop.send_replace(Stop::Force);
                }
            }
        };
        self.server.stopper().stop();
        self.server.ended().await?;
        worker.context("the worker panicked")??;
        Ok(())
    }
}

fn capacity(args: &RunArgs) -> Capacity {
    let mut capacity = capacity_of(&args.program);
    if args.program.depth.is_none() && is_started_per_row(&args.program) {
        capacity.depth = capacity.depth.max(DEPTH_MIN);
    }
    capacity
}
