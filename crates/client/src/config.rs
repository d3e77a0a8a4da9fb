//! What a job is asked to do, and everything that can be settled before a router is needed.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use sheaf_task::JobOptions;

use crate::identity::{Fingerprint, JobError, JobRecord, take_up};
use crate::prompt::Prompt;
use crate::reconcile::{Kept, ReconcileError, reconcile};
use crate::rows::Namer;
use crate::sink::{Claim, Sink, SinkError, SinkSpec};
use crate::source::{self, Format, Prompted, Source, SourceError, SourceSpec, UniqueIds};

/// A job, as a command describes it.
#[derive(Clone, Debug)]
pub struct JobConfig {
    /// For people; the sink's file name by default.
    pub name: String,
    /// Where rows come from.
    pub source: SourceSpec,
    /// Where results go.
    pub sink: SinkSpec,
    /// What the tasks ask for.
    pub service: String,
    /// What changes when the answers change: see [`crate::default_revision`].
    pub revision: String,
    /// How requests are made of rows, and results of answers, where they are.
    pub prompt: Option<Prompt>,
    /// Execute every row, whatever earlier jobs have answered.
    pub fresh: bool,
    /// Equal rows share one execution.
    pub share: bool,
    /// Only the first rows.
    pub limit: Option<u64>,
    /// Stop when more rows than this have failed in this run.
    pub max_failures: Option<u64>,
    /// How the router treats the tasks.
    pub options: JobOptions,
}

impl JobConfig {
    fn fingerprint(&self) -> Fingerprint {
        Fingerprint {
            source: self.source.description(),
            sink: self.sink.description(),
            service: self.service.clone(),
            revision: self.revision.clone(),
            template: self.prompt.as_ref().map_or_else(String::new, Prompt::description),
        }
    }
}

/// Stops a job from elsewhere: a signal handler, another task.
#[derive(Clone, Debug, Default)]
pub struct Interrupt {
    asked: Arc<AtomicBool>,
    notify: Arc<tokio::sync::Notify>,
}

impl Interrupt {
    /// Asks the job to end: it submits nothing more, writes what has come, and returns with
    /// `Reason::Interrupted`. The same command resumes it.
    pub fn ask(&self) {
        self.asked.store(true, Ordering::Release);
        self.notify.notify_one();
    }

    /// True once it was asked.
    pub fn is_asked(&self) -> bool {
        self.asked.load(Ordering::Acquire)
    }

    pub(crate) async fn asked(&self) {
        while !self.is_asked() {
            self.notify.notified().await;
        }
    }
}

/// A job that is ready to be run: its sink is claimed, agrees with its source, and its id is on disk.
pub struct Prepared {
    pub(crate) config: JobConfig,
    pub(crate) claim: Claim,
    pub(crate) record: JobRecord,
    pub(crate) sink: Box<dyn Sink>,
    pub(crate) source: Box<dyn Source>,
    pub(crate) namer: Namer,
    pub(crate) kept: Kept,
    /// Nothing is submitted.
    pub(crate) collects: bool,
}

impl std::fmt::Debug for Prepared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Prepared").field("config", &self.config).field("record", &self.record).finish_non_exhaustive()
    }
}

impl Prepared {
    /// Only what the router still has of a cancelled job is brought into the sink, and nothing is submitted. Where rows are
    /// missing then, the run ends as refused.
    #[must_use]
    pub fn to_collect(self) -> Self {
        Self { collects: true, ..self }
    }

    /// The job, as it is stored beside its sink.
    pub fn record(&self) -> &JobRecord {
        &self.record
    }

    /// What the tasks ask for.
    pub fn service(&self) -> &str {
        &self.config.service
    }

    /// Rows that the sink has already, and that will not be submitted.
    pub fn resumed(&self) -> u64 {
        self.kept.names.len() as u64
    }

    /// Of those: without an answer. Where an operator has them run again, a new outcome takes their place.
    pub fn resumed_failed(&self) -> u64 {
        self.kept.names.values().filter(|ok| !**ok).count() as u64
    }
}

/// A job whose source can be read, and whose sink nobody else writes to. Nothing of it is on disk yet: if this is
/// dropped, what it made is taken away again.
pub struct Claimed {
    config: JobConfig,
    claim: Claim,
    source: Box<dyn Source>,
}

/// Claims the sink and opens the source. Blocks for as long as it takes to copy standard input, where that is the source.
pub fn claim(config: JobConfig) -> Result<Claimed, PrepareError> {
    let claim = Claim::take(&config.sink)?;
    let mut source = source::open(&config.source, claim.state_dir())?;
    if let Some(prompt) = &config.prompt {
        let is_text = config.source.format() == Format::Text || config.source.column.is_some();
        source = Box::new(Prompted::open(source, prompt.clone(), is_text)?);
    }
    if claim.is_keyed_by_id() {
        source = Box::new(UniqueIds::new(source));
    }
    Ok(Claimed { config, claim, source })
}

impl Claimed {
    /// Stores the job, opens its sink, and makes it agree with the source. Blocks for as long as it takes to read the
    /// source once, where the sink has rows.
    pub fn prepare(self, interrupt: &Interrupt) -> Result<Prepared, PrepareError> {
        let Self { config, claim, mut source } = self;
        let (record, mut sink) = take_up(&claim, &config.fingerprint(), config.fresh)?;
        let mut namer = Namer::open(claim.state_dir()).map_err(ReconcileError::Samples)?;
        let kept = reconcile(&mut *source, &mut *sink, &mut namer, || interrupt.is_asked())?;
        Ok(Prepared { config, claim, record, sink, source, namer, kept, collects: false })
    }
}

/// Does all of a job that needs no router: every error in what the user wrote comes from here.
pub fn prepare(config: JobConfig, interrupt: &Interrupt) -> Result<Prepared, PrepareError> {
    claim(config)?.prepare(interrupt)
}

/// Why a job cannot be begun.
#[derive(Debug, thiserror::Error)]
pub enum PrepareError {
    /// The source cannot be used.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// The sink cannot be used.
    #[error(transparent)]
    Sink(#[from] SinkError),
    /// The sink is another job's, or the job cannot be stored.
    #[error(transparent)]
    Job(#[from] JobError),
    /// The sink cannot be made to agree with the source.
    #[error(transparent)]
    Reconcile(#[from] ReconcileError),
}

impl PrepareError {
    /// True where nothing is wrong, and the user said stop: the same command resumes.
    pub fn is_interrupt(&self) -> bool {
        matches!(self, PrepareError::Reconcile(ReconcileError::Interrupted))
    }
}
