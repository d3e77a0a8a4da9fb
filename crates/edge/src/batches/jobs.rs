//! The jobs of a batch at the router: one for each model, run in this process as a client like any other. It knows no
//! state of a batch.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use sheaf_client::sink::SinkError;
use sheaf_client::source::{Format, SourceSpec};
use sheaf_client::{
    Interrupt, JobConfig, JobError, JobRecord, PrepareError, Progress, RunError, SessionLine, Summary, cancel_job,
    claim, run_job,
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
            let setback = match self.run_once(&mut halt).await {
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

    async fn run_once(&self, halt: &mut watch::Receiver<bool>) -> Result<Summary, Setback> {
        let interrupt = Interrupt::default();
        let (config, asked) = (self.config.clone(), interrupt.clone());
        let preparing = tokio::task::spawn_blocking(move || claim(config)?.prepare(&asked));
        let running = async {
            let prepared = preparing.await.map_err(io::Error::other)??;
            let line = SessionLine::open(self.target.clone(), None)?;
            let progress = self.gauges.begin(self.part);
            Ok(run_job(prepared, line, interrupt.clone(), progress).await?)
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

/// Cancels the jobs of a batch at the router. Doing so again is harmless.
pub(super) async fn cancel_jobs(place: &Place, batch: &Batch, router: &RouterDoor) -> io::Result<()> {
    for part in 0..batch.parts.len() {
        let sink = place.sink(part);
        let record = tokio::task::spawn_blocking(move || JobRecord::beside(&sink)).await.map_err(io::Error::other)?;
        if let Some(record) = record.map_err(io::Error::other)? {
            cancel_job(router.target(&batch.app), record.job).await?;
        }
    }
    Ok(())
}
