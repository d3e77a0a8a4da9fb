//! A batch as it is on disk, and as clients see it. It knows how a batch looks, not how one lives: see `machine`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::vectors::Encoding;

/// What the names of batches begin with.
pub(crate) const PREFIX: &str = "batch_";

/// The file of a batch in its directory.
pub(crate) const FILE: &str = "batch.json";

/// A batch. Disk form: a field more needs an `Option` or a default; none changes its meaning.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Batch {
    pub id: String,
    pub app: String,
    pub asked: Asked,
    pub status: Status,
    pub times: Times,
    /// Why it ends, once it does.
    pub ending: Ending,
    /// A job each; none before it is validated.
    pub parts: Vec<Part>,
    pub counts: Counts,
    /// What is wrong with its input.
    pub errors: Vec<InputError>,
    /// What its files will be called, fixed before the first byte of them is written.
    pub names: FileNames,
    /// Which of them exist.
    pub has_output: bool,
    pub has_errors: bool,
    /// Tokens that its answers tell of, once they are counted; none where none does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<Usage>,
}

/// What the client asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Asked {
    pub endpoint: String,
    pub input_file_id: String,
    /// As it was given.
    pub completion_window: String,
    pub metadata: Option<BTreeMap<String, String>>,
    /// Seconds that the files that it writes stay; none: until they are deleted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output_expires_after: Option<u64>,
}

/// Where a batch stands; the words are OpenAI's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Status {
    Validating,
    Failed,
    InProgress,
    Finalizing,
    Completed,
    Expired,
    Cancelling,
    Cancelled,
}

impl Status {
    /// Nothing will change any more.
    pub(crate) fn is_final(self) -> bool {
        match self {
            Status::Failed | Status::Completed | Status::Expired | Status::Cancelled => true,
            Status::Validating | Status::InProgress | Status::Finalizing | Status::Cancelling => false,
        }
    }
}

/// Why a batch ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Ending {
    /// Every line has its outcome.
    #[default]
    Complete,
    /// Its time was over.
    Expired,
    /// Somebody cancelled it.
    Cancelled,
}

/// When it came to be what it was; seconds since 1970.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Times {
    pub created_at: u64,
    pub expires_at: u64,
    pub in_progress_at: Option<u64>,
    pub finalizing_at: Option<u64>,
    pub completed_at: Option<u64>,
    pub failed_at: Option<u64>,
    pub expired_at: Option<u64>,
    pub cancelling_at: Option<u64>,
    pub cancelled_at: Option<u64>,
}

/// Lines of one model, which want their vectors alike.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Part {
    /// The service that does them.
    pub service: String,
    /// How they want vectors; none: as they come.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encoding: Option<Encoding>,
}

/// Lines by how they ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Counts {
    pub total: u64,
    pub completed: u64,
    pub failed: u64,
}

/// Tokens, summed over the answers that tell of any; what none of them tells of is 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Usage {
    pub input: u64,
    /// Of the input, what came from a cache.
    pub cached: u64,
    pub output: u64,
    /// Of the output, what was thought and not said.
    pub reasoning: u64,
    pub total: u64,
}

impl Usage {
    /// The tokens of both.
    pub(crate) fn plus(self, other: Self) -> Self {
        Self {
            input: self.input.saturating_add(other.input),
            cached: self.cached.saturating_add(other.cached),
            output: self.output.saturating_add(other.output),
            reasoning: self.reasoning.saturating_add(other.reasoning),
            total: self.total.saturating_add(other.total),
        }
    }

    fn json(self) -> Value {
        let Self { input, cached, output, reasoning, total } = self;
        json!({
            "input_tokens": input, "input_tokens_details": {"cached_tokens": cached},
            "output_tokens": output, "output_tokens_details": {"reasoning_tokens": reasoning},
            "total_tokens": total,
        })
    }
}

/// What is wrong with a line of the input, or with all of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct InputError {
    pub code: String,
    pub line: Option<u64>,
    pub message: String,
    pub param: Option<String>,
}

/// The files that a batch writes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FileNames {
    pub output: String,
    pub error: String,
}

impl Batch {
    /// As clients see it, with the lines that are done by now.
    pub(crate) fn json(&self, counts: Counts) -> Value {
        let Self { id, asked, status, times, names, .. } = self;
        let errors = (!self.errors.is_empty()).then(|| json!({"object": "list", "data": self.errors}));
        let Counts { total, completed, failed } = counts;
        json!({
            "id": id, "object": "batch", "endpoint": asked.endpoint, "errors": errors,
            "input_file_id": asked.input_file_id, "completion_window": asked.completion_window, "status": status,
            "output_file_id": self.has_output.then_some(&names.output),
            "error_file_id": self.has_errors.then_some(&names.error),
            "created_at": times.created_at, "expires_at": times.expires_at, "in_progress_at": times.in_progress_at,
            "finalizing_at": times.finalizing_at, "completed_at": times.completed_at, "failed_at": times.failed_at,
            "expired_at": times.expired_at, "cancelling_at": times.cancelling_at, "cancelled_at": times.cancelled_at,
            "request_counts": {"total": total, "completed": completed, "failed": failed},
            "metadata": asked.metadata, "model": self.model(), "usage": self.usage.map(Usage::json),
        })
    }

    /// Its only model, once its input was read.
    fn model(&self) -> Option<&str> {
        let (first, rest) = self.parts.split_first()?;
        rest.iter().all(|part| part.service == first.service).then_some(&*first.service)
    }
}
