//! The jobs of a batch at the router: one for each model, run in this process as a client like any other. It knows no
//! state of a batch.
//!
//! Invariant: a job that was cancelled is given up only when the router has nothing of it that the sink lacks, or says that
//! it never will: what finished was paid for.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use sheaf_client::sink::SinkError;
use sheaf_client::source::{Format, SourceSpec};
use sheaf_client::{
    Interrupt, JobConfig, JobError, JobRecord, PrepareError, Prepared, Progress, RunError, SessionLine, Summary,
    cancel_job, claim, run_job,
};
use sheaf_net::{Backoff, Target};
use sheaf_roles::client::Reason;
use sheaf_task::{JobOptions, Refusal};
use tokio::sync::watch;

use super::place::Place;
use super::record::{Batch, Counts};
use crate::tenants::RouterDoor;

/// A key of a batch's metadata that has every line executed, whatever earlier batches have answered.
const FRESH: &str = "sheaf_fresh";

/// How long what is left of a cancelled job may take to come: then the rest is tried for again, after a pause.
const COLLECTING_MAX: Duration = Duration::from_secs(60);

/// How far the jobs of a batch are.
#[derive(Clone, Debug, Default)]
pub(super) struct Gauges {
    // Each job replaces its gauge when it begins again; whoever asks looks once.
    parts: Arc<Mutex<Vec<Option<watch::Receiver<Progress>>>>>,
}

impl Gauges {
    /// Lines that are done by now.
    pub(super) fn counts(&self, total: u64) -> Counts {
        let parts = self.parts.lock().unwrap_or_else(PoisonError::into_inner);
        let seen = parts.iter().flatten().map(|part| *part.borrow());
        let (done, failed) = seen.fold((0, 0), |(done, failed), part| (done + part.done, failed + part.failed));
        Counts { total, completed: done.saturating_sub(failed), failed }
    }

    fn begin(&self, part: usize) -> watch::Sender<Progress> {
        let (sender, gauge) = watch::channel(Progress::default());
        let mut parts = self.parts.lock().unwrap_or_else(PoisonError::into_inner);
        if parts.len() <= part {
            parts.resize(part + 1, None);
        }
        parts[part] = Some(gauge);
        sender
    }
}

/// How a job ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum JobEnd {
    /// Every line has its outcome in the sink.
    Complete,
    /// It was told to stop.
    Stopped,
    /// It was cancelled at the router.
    Cancelled,
}

/// What a job is run for.
#[derive(Clone, Copy, Debug)]
enum Aim {
    /// Every line is to have its outcome.
    Run,
    /// It is cancelled: the lines that have their outcome are to be in the sink.
    Collect,
}

/// A job, as its batch has it.
#[derive(Clone, Debug)]
pub(super) struct Job {
    pub(super) place: Place,
    pub(super) part: usize,
    pub(super) target: Target,
    pub(super) gauges: Gauges,
    config: JobConfig,
}

/// Why a run of a job ended before the job did.
#[derive(Debug, thiserror::Error)]
enum Setback {
    #[error(transparent)]
    Prepare(#[from] PrepareError),
    #[error(transparent)]
    Run(#[from] RunError),
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("the router says {0:?}")]
    Router(Reason),
}

impl Setback {
    /// What is beside the sink is of no use: of another place or another router, or damaged.
    fn is_stale(&self) -> bool {
        use SinkError::{Edited, Foreign, Gone, State};
        let of_sink = |error: &SinkError| matches!(error, Edited { .. } | Foreign { .. } | Gone { .. } | State { .. });
        match self {
            Setback::Prepare(PrepareError::Job(JobError::OtherJob { .. })) => true,
            Setback::Prepare(PrepareError::Sink(error) | PrepareError::Job(JobError::Sink(error))) => of_sink(error),
            Setback::Router(Reason::Refused(refusal)) => {
                matches!(refusal, Refusal::OtherJob | Refusal::CursorAhead { .. })
            }
            Setback::Prepare(_) | Setback::Run(_) | Setback::Io(_) | Setback::Router(_) => false,
        }
    }
}

impl Job {
    pub(super) fn new(place: &Place, batch: &Batch, part: usize, router: &RouterDoor, gauges: &Gauges) -> Self {
        let service = batch.parts[part].service.clone();
        let Batch { app, asked, .. } = batch;
        let source = SourceSpec {
            format: Some(Format::Jsonl),
            column: Some("body".to_owned()),
            id: Some("custom_id".to_owned()),
            ..SourceSpec::new(place.source(batch, part))
        };
        let config = JobConfig {
            name: batch.id.clone(),
            source,
            sink: place.sink(part),
            service,
            revision: asked.endpoint.clone(),
            prompt: None,
            fresh: asked
                .metadata
                .as_ref()
                .and_then(|metadata| metadata.get(FRESH))
                .is_some_and(|fresh| fresh == "true"),
            share: false,
            limit: None,
            max_failures: None,
            options: JobOptions::default(),
        };
        Self { place: place.clone(), part, target: router.target(app), gauges: gauges.clone(), config }
    }

    /// Runs it to its end, through whatever sets it back, or until `halt`.
    pub(super) async fn run(self, mut halt: watch::Receiver<bool>) -> JobEnd {
        let mut backoff = Backoff::new(self.part as u64);
        loop {
            let setback = match self.run_once(Aim::Run, &mut halt).await {
                Ok(summary) => match summary.ended.reason {
                    Reason::Complete => return JobEnd::Complete,
                    Reason::Refused(Refusal::Cancelled) => return JobEnd::Cancelled,
                    Reason::Interrupted => return JobEnd::Stopped,
                    reason => Setback::Router(reason),
                },
                Err(setback) => setback,
            };
            if *halt.borrow() {
                return JobEnd::Stopped;
            }
            tracing::warn!(batch = self.config.name, part = self.part, error = %setback, "a job of a batch begins again");
            if setback.is_stale() {
                self.start_over().await;
            }
            tokio::select! {
                () = tokio::time::sleep(backoff.pause()) => {}
                _ = halt.changed() => return JobEnd::Stopped,
            }
        }
    }

    /// Cancels it at the router. Doing so again is harmless. False where nothing can be left of it there: it was never
    /// begun, it is done, the router does not know it, or nobody can say any more which job it is.
    pub(super) async fn cancel(&self) -> io::Result<bool> {
        let sink = self.config.sink.clone();
        let record = tokio::task::spawn_blocking(move || JobRecord::beside(&sink)).await.map_err(io::Error::other)?;
        let record = match record {
            Ok(Some(record)) => record,
            Ok(None) => return Ok(false),
            Err(error @ SinkError::State { .. }) => {
                tracing::warn!(batch = self.config.name, part = self.part, %error, "a job cannot be cancelled by its record");
                return Ok(false);
            }
            Err(error) => return Err(io::Error::other(error)),
        };
        let is_known = cancel_job(self.target.clone(), record.job).await?.is_some();
        Ok(is_known && !record.done)
    }

    /// Brings what the router has of it, once it is cancelled, into the sink. What came is kept where that fails.
    ///
    /// # Errors
    /// It may be tried again: the router is away, the disk is full, there is too much of it, or `stop` is set.
    pub(super) async fn collect(&self, stop: &mut watch::Receiver<bool>) -> io::Result<()> {
        let (halt, mut halted) = watch::channel(false);
        let collecting = self.run_once(Aim::Collect, &mut halted);
        tokio::pin!(collecting);
        let ended = tokio::select! {
            ended = &mut collecting => Some(ended),
            () = tokio::time::sleep(COLLECTING_MAX) => None,
            _ = stop.wait_for(|stop| *stop) => None,
        };
        let ended = match ended {
            Some(ended) => ended,
            None => {
                halt.send_replace(true);
                collecting.await
            }
        };
        let setback = match ended {
            Ok(summary) => match summary.ended.reason {
                Reason::Complete | Reason::Refused(Refusal::Cancelled) => return Ok(()),
                Reason::Interrupted => return Err(io::ErrorKind::TimedOut.into()),
                reason => Setback::Router(reason),
            },
            Err(setback) => setback,
        };
        if !setback.is_stale() {
            return Err(io::Error::other(setback));
        }
        tracing::warn!(batch = self.config.name, part = self.part, error = %setback, "nothing more can be had of a cancelled job");
        Ok(())
    }

    async fn run_once(&self, aim: Aim, halt: &mut watch::Receiver<bool>) -> Result<Summary, Setback> {
        let interrupt = Interrupt::default();
        let (config, asked) = (self.config.clone(), interrupt.clone());
        let preparing = tokio::task::spawn_blocking(move || prepare(config, &asked));
        let running = async {
            let prepared = preparing.await.map_err(io::Error::other)??;
            let line = SessionLine::open(self.target.clone(), None)?;
            let progress = self.gauges.begin(self.part);
            let interrupt = interrupt.clone();
            let prepared = match aim {
                Aim::Run => prepared,
                Aim::Collect => prepared.to_collect(),
            };
            Ok(run_job(prepared, line, interrupt, progress).await?)
        };
        tokio::pin!(running);
        tokio::select! {
            ended = &mut running => return ended,
            _ = halt.wait_for(|halt| *halt) => interrupt.ask(),
        }
        running.await
    }

    async fn start_over(&self) {
        let (place, part) = (self.place.clone(), self.part);
        let done = tokio::task::spawn_blocking(move || place.start_over(part)).await.map_err(io::Error::other);
        if let Err(error) = done.and_then(|done| done) {
            tracing::error!(%error, batch = self.config.name, "the results of a job cannot be removed");
        }
    }
}

/// Claims the sink and makes it agree with the source. Blocks.
fn prepare(mut config: JobConfig, asked: &Interrupt) -> Result<Prepared, PrepareError> {
    // A job that stands beside the sink is this batch's own. Were it done, `fresh` would begin another on the same lines.
    config.fresh &= JobRecord::beside(&config.sink)?.is_none();
    claim(config)?.prepare(asked)
}
