//! How a task, or one attempt at it, ended.

use bytes::Bytes;

use crate::UPSTREAM_TEXT_MAX;

/// How an attempt ended, and what a task finishes with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The answer, byte for byte as the executor gave it.
    Ok(Bytes),
    /// No answer, and why.
    Failed(Failure),
}

impl Outcome {
    /// True for an answer.
    pub fn is_ok(&self) -> bool {
        matches!(self, Outcome::Ok(_))
    }

    /// Bytes that it costs to keep or send, roughly.
    pub fn len(&self) -> usize {
        match self {
            Outcome::Ok(body) => body.len(),
            Outcome::Failed(Failure { message, evidence, class: _ }) => {
                let upstream = evidence.upstream.as_ref().map_or(0, |upstream| upstream.len());
                message.len() + evidence.stderr.len() + upstream
            }
        }
    }

    /// True when there is nothing to send: an empty answer, or a failure without words.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// What kind of failure, which decides whether it is retried.
    pub class: Class,
    /// One line for a person: what happened, to which input, and what to do next.
    pub message: String,
    /// What was seen.
    pub evidence: Box<Evidence>,
}

impl Failure {
    /// A failure without evidence beyond its message.
    pub fn new(class: Class, message: impl Into<String>) -> Self {
        Self { class, message: message.into(), evidence: Box::default() }
    }
}

/// The kinds of failure.
///
/// | class | whose fault | retried |
/// |---|---|---|
/// | `Rejected` | the row's: the program said no, the input is malformed | never |
/// | `Error` | passing: exit 75, a backend's 5xx | yes |
/// | `Timeout` | the attempt took longer than allowed | yes |
/// | `Crashed` | the program or its worker died | yes; a task that killed three is poison |
/// | `Garbage` | the worker's: an answer that is none | yes, elsewhere; counts against the worker |
/// | `Cancelled` | the user's wish | no |
/// | `Expired` | nobody did it in time | no |
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// The program refused the row, or the row is malformed.
    Rejected,
    /// A passing fault.
    Error,
    /// The attempt took longer than allowed.
    Timeout,
    /// The program or its worker died.
    Crashed,
    /// An answer that is none.
    Garbage,
    /// Cancelled by a user.
    Cancelled,
    /// Not done in time.
    Expired,
}

impl Class {
    /// Every class, in wire order.
    pub const ALL: [Class; 7] = [
        Class::Rejected,
        Class::Error,
        Class::Timeout,
        Class::Crashed,
        Class::Garbage,
        Class::Cancelled,
        Class::Expired,
    ];

    /// The word for it, the same in code, output and docs.
    pub fn name(self) -> &'static str {
        match self {
            Class::Rejected => "rejected",
            Class::Error => "error",
            Class::Timeout => "timeout",
            Class::Crashed => "crashed",
            Class::Garbage => "garbage",
            Class::Cancelled => "cancelled",
            Class::Expired => "expired",
        }
    }
}

/// What was seen of a failed attempt.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Evidence {
    /// Exit code of the program, where it exited.
    pub exit_code: Option<i32>,
    /// Signal that ended the program, where one did.
    pub signal: Option<i32>,
    /// The last bytes of its standard error ([`crate::STDERR_TAIL_MAX`] at most), not necessarily UTF-8.
    pub stderr: Bytes,
    /// Name of the worker that saw it; empty where no worker did.
    pub worker: String,
    /// Deaths of programs or workers that this task is held to have caused.
    pub deaths: u32,
    /// What a server said that was called over HTTP and gave no answer. Boxed: most failures have none.
    pub upstream: Option<Box<Upstream>>,
}

/// A reply over HTTP that is no answer, in the terms of OpenAI's API: its status, and the four fields of its error, each
/// empty where it has none, and cut to [`UPSTREAM_TEXT_MAX`] bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Upstream {
    /// The status.
    pub status: u16,
    /// For people.
    pub message: String,
    /// `type`.
    pub kind: String,
    /// Which field of the request is meant.
    pub param: String,
    /// For programs.
    pub code: String,
}

impl Upstream {
    /// It, with each text cut to what may travel.
    #[must_use]
    pub fn cut(mut self) -> Self {
        for text in [&mut self.message, &mut self.kind, &mut self.param, &mut self.code] {
            text.truncate(text.floor_char_boundary(UPSTREAM_TEXT_MAX));
        }
        self
    }

    fn len(&self) -> usize {
        self.message.len() + self.kind.len() + self.param.len() + self.code.len()
    }
}
