//! Sinks: where results go. It knows no router and no source, only rows with outcomes and the cursor they came with.
//!
//! Invariants: rows and cursor are committed in one atomic act, so that after any crash the sink holds exactly the rows
//! that its cursor stands for. A row's identity has one result in a finished sink, the latest.

mod files;
mod home;
mod line;
mod lines;
mod sqlite;
mod state;
#[cfg(test)]
mod tests;

use std::io;
use std::path::{Path, PathBuf};

use bytestring::ByteString;
use sheaf_task::{Key, Outcome, RouterId, RowId};

use crate::prompt::Tokens;
use crate::source::SourceId;

pub use home::Claim;
pub(crate) use home::peek;

/// One result on its way into the sink.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SinkRow {
    /// The row's identity.
    pub row: RowId,
    /// Where the row stands in the source now, from 1.
    pub number: u64,
    /// The source's own name for it.
    pub id: Option<SourceId>,
    /// The answer, or why there is none.
    pub outcome: Outcome,
    /// The task; `None` for a row that never became one.
    pub key: Option<Key>,
    /// Attempts that it took.
    pub attempts: u32,
    /// Who did it; empty where nobody did.
    pub worker: ByteString,
    /// How long the last attempt took, milliseconds.
    pub ms: u64,
    /// What it cost, where that is known.
    pub tokens: Option<Tokens>,
}

/// The number up to which a router's deliveries are in the sink.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cursor {
    /// Whose numbers.
    pub router: RouterId,
    /// Up to and with this one.
    pub number: u64,
}

/// How far a file of results counts: what is beyond was never committed, and may be cut off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Committed {
    /// Which rewrite of the file this is about: an offset means nothing in another.
    pub generation: u64,
    /// Up to here.
    pub offset: u64,
}

/// How far the file of lines at `path` is committed, whether or not a process writes to it; `None` before the first job.
/// Reads only.
pub fn committed(path: &Path) -> Result<Option<Committed>, SinkError> {
    state::committed(&state_dir(&crate::source::absolute(path), None).join("state"))
}

/// A row that is in the sink.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Finished {
    /// Its identity.
    pub row: RowId,
    /// The number that it was written with.
    pub number: u64,
    /// Where the sink has it: an offset in a file, a rowid in a table.
    pub place: u64,
    /// Its length there, in a file.
    pub len: u32,
    /// It has an answer.
    pub ok: bool,
}

impl Finished {
    fn end(&self) -> u64 {
        self.place + u64::from(self.len)
    }
}

/// A row in the sink, and the number that it has in the source now; `None` where the source has it no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Judged {
    /// The row as the sink has it.
    pub finished: Finished,
    /// Its number now.
    pub now: Option<u64>,
}

/// Takes results.
pub trait Sink: Send {
    /// What the rows in it came with; `None` before the first.
    fn cursor(&self) -> Option<Cursor>;

    /// The rows in it, in its order; of a row with two results the latest only.
    fn finished(&mut self) -> Result<Vec<Finished>, SinkError>;

    /// Makes it agree with the source: a file drops stale lines and renumbers moved ones; a table keeps every answer and
    /// renumbers. `judged` holds every row of [`Sink::finished`], in that order. Writes nothing where nothing changed.
    fn reconcile(&mut self, judged: &[Judged]) -> Result<(), SinkError>;

    /// Takes rows and, where one is given, the new cursor: durable on return, both or neither.
    fn commit(&mut self, rows: &[SinkRow], cursor: Option<Cursor>) -> Result<(), SinkError>;

    /// Everything is in it: brings it into its final form. More may be committed later.
    fn finish(&mut self) -> Result<(), SinkError>;
}

/// Where results go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SinkSpec {
    /// A file or a SQLite database.
    pub path: PathBuf,
    /// The table, in a database.
    pub table: Option<String>,
    /// Files only: lines in the order of their rows, written when all are there.
    pub ordered: bool,
}

impl SinkSpec {
    /// A sink at `path`.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), table: None, ordered: false }
    }

    /// What the job's fingerprint holds of it.
    pub fn description(&self) -> String {
        let path = crate::source::absolute(&self.path);
        let order = if self.ordered { " ordered" } else { "" };
        match &self.table {
            Some(table) => format!("table {table:?} of {}", path.display()),
            None => format!("{}{order}", path.display()),
        }
    }
}

/// Why a sink cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SinkError {
    /// The file system said no.
    #[error("cannot {act} {path}: {error}")]
    Io {
        /// What was tried.
        act: &'static str,
        /// On what.
        path: PathBuf,
        /// What it said.
        error: io::Error,
    },
    /// The directory of the sink is not there.
    #[error("the directory {path} does not exist; make it, or choose another --out")]
    NoDirectory {
        /// The directory.
        path: PathBuf,
    },
    /// Another process writes there.
    #[error("{path} is being written by another sheaf process; wait for it, or choose another --out")]
    InUse {
        /// The sink.
        path: PathBuf,
    },
    /// There is a file that no job of ours wrote.
    #[error("{path} exists and was not written by this job; move it away, or choose another --out")]
    Foreign {
        /// The file.
        path: PathBuf,
    },
    /// The file is not as the job left it.
    #[error(
        "{path} was changed by someone else: the job left {recorded} bytes, now there are {found}. Put it back, or start \
         over by removing both it and {state} (finished rows are answered from the journal)"
    )]
    Edited {
        /// The file.
        path: PathBuf,
        /// Bytes that the job wrote.
        recorded: u64,
        /// Bytes that are there.
        found: u64,
        /// The directory that holds the job's state.
        state: PathBuf,
    },
    /// What the job wrote is not there any more.
    #[error("{path} was removed while the job's state still tells of it")]
    Gone {
        /// The file or database.
        path: PathBuf,
    },
    /// The state beside the sink cannot be read.
    #[error(
        "{path} is damaged; start over by removing it together with the results (finished rows are answered from the journal)"
    )]
    State {
        /// The file.
        path: PathBuf,
    },
    /// The database said no.
    #[error("cannot write to {path}: {error}")]
    Sql {
        /// The database.
        path: PathBuf,
        /// What it said.
        error: rusqlite::Error,
    },
    /// A database without a table.
    #[error("{path} is a SQLite database: say which table with --table NAME")]
    NeedsTable {
        /// The database.
        path: PathBuf,
    },
    /// A table, asked for in a file of lines.
    #[error(
        "{path} is named as a file of lines, and --table is for a SQLite database: leave it out, or name the file .sqlite"
    )]
    TableInFile {
        /// The file.
        path: PathBuf,
    },
    /// An ordered table.
    #[error("--ordered is for files; a table has no order (use `order by row`)")]
    OrderedTable,
    /// A table that is not shaped for results.
    #[error("table {table:?} of {path} has no column {}; choose another --table, and it will be made", missing.join(", "))]
    Columns {
        /// The database.
        path: PathBuf,
        /// The table.
        table: String,
        /// What it would need.
        missing: Vec<String>,
    },
    /// A device, a pipe or the like.
    #[error("{path} is no regular file; results need one, which can be cut and synced")]
    NotAFile {
        /// What was named.
        path: PathBuf,
    },
    /// Standard output, which cannot be taken back after a crash.
    #[error("results go to a file or a table: standard output cannot take each row once; choose --out FILE")]
    Stdout,
    /// An earlier act failed, and what is durable is no longer known.
    #[error("{path} failed before; run the same command again to resume")]
    Stopped {
        /// The sink.
        path: PathBuf,
    },
}

fn is_named_as_lines(path: &Path) -> bool {
    let ending = path.extension().map(|ending| ending.to_string_lossy().to_ascii_lowercase());
    matches!(ending.as_deref(), Some("jsonl" | "ndjson" | "json" | "csv" | "tsv" | "txt"))
}

fn is_database(spec: &SinkSpec) -> bool {
    let ending = spec.path.extension().map(|ending| ending.to_string_lossy().to_ascii_lowercase());
    spec.table.is_some() || matches!(ending.as_deref(), Some("db" | "sqlite" | "sqlite3"))
}

/// The directory of a sink's state: `OUT.sheaf`, and `DB.sheaf/TABLE` for a table (only its lock and copies of rows:
/// the state itself is in the database).
fn state_dir(path: &Path, table: Option<&str>) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".sheaf");
    let dir = PathBuf::from(name);
    match table {
        Some(table) => dir.join(table.replace(['/', '\0'], "_")),
        None => dir,
    }
}
