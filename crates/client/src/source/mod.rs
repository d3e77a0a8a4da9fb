//! Sources: where rows come from. It knows no job, no sink and no router.
//!
//! A source is scanned more than once (to reconcile the sink, then to submit), so it can be rewound; standard input is
//! spooled to a file first. Scans hold a bounded page and no read transaction.
//!
//! Invariant: a malformed row is a row. It comes out in its place with a reason, and costs no other row anything.

mod csv;
mod json;
mod jsonl;
mod line;
mod prompted;
mod spool;
mod sqlite;
#[cfg(test)]
mod tests;
mod text;
mod unique;

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use bytes::Bytes;

pub(crate) use json::push_json_string;
pub(crate) use prompted::Prompted;
pub(crate) use unique::UniqueIds;

/// One row of a source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceRow {
    /// Where it stands in the source as it is now, from 1: a line of a text or JSONL file, a record of a CSV file after
    /// its header, a row of a query's result.
    pub number: u64,
    /// The source's own name for it, where it has one.
    pub id: Option<SourceId>,
    /// What is to be worked on, or why the row cannot be.
    pub body: Result<Bytes, Malformed>,
}

/// A source's own name for a row; shown in results as it was in the source.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SourceId {
    /// A whole number.
    Int(i64),
    /// Anything else, as text.
    Text(String),
}

impl SourceId {
    /// The bytes that the row's identity is made of: the two kinds never meet.
    pub fn identity(&self) -> Vec<u8> {
        match self {
            SourceId::Int(number) => [b"i".as_slice(), &number.to_le_bytes()].concat(),
            SourceId::Text(text) => [b"t", text.as_bytes()].concat(),
        }
    }
}

impl std::fmt::Display for SourceId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            SourceId::Int(number) => write!(f, "{number}"),
            SourceId::Text(text) => write!(f, "{text:?}"),
        }
    }
}

/// Why a row cannot be worked on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Malformed {
    /// One line for a person: where it stands and what is wrong with it.
    pub message: String,
    /// Digest of the row's bytes: what its identity is made of, however long it is.
    pub digest: [u8; 32],
}

impl Malformed {
    fn new(message: String, bytes: &[u8]) -> Self {
        Self { message, digest: *blake3::hash(bytes).as_bytes() }
    }
}

/// Yields rows in the order of their numbers, which is the same in every scan of an unchanged source.
pub trait Source: Send {
    /// Appends the next rows to `out`: at most `rows_max`, and no more after `bytes_max` bytes of bodies are there
    /// (one row always fits). Nothing appended means that the source is at its end.
    fn next_batch(&mut self, rows_max: usize, bytes_max: usize, out: &mut Vec<SourceRow>) -> Result<(), SourceError>;

    /// Begins again with the first row.
    fn rewind(&mut self) -> Result<(), SourceError>;
}

/// Where rows are and how they are read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceSpec {
    /// A file, or `-` for standard input.
    pub path: PathBuf,
    /// How it is read; by its name's ending when `None`.
    pub format: Option<Format>,
    /// The rows of a SQLite database.
    pub query: Option<String>,
    /// The field or column that is the body; else the whole line, the only column beside the id, or all as JSON.
    pub column: Option<String>,
    /// The field or column that names a row; for a query, a column called `id` when `None`.
    pub id: Option<String>,
    /// The body is an object of all fields, also where one of them alone would be taken.
    pub all_fields: bool,
}

impl SourceSpec {
    /// A source at `path`, read by its name's ending.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), format: None, query: None, column: None, id: None, all_fields: false }
    }

    /// True for standard input.
    pub fn is_stdin(&self) -> bool {
        self.path.as_os_str() == "-"
    }

    /// How it will be read.
    pub fn format(&self) -> Format {
        self.format.unwrap_or_else(|| if self.query.is_some() { Format::Sqlite } else { Format::of(&self.path) })
    }

    /// What the job's fingerprint holds of it. The same rows in the same way have the same description.
    pub fn description(&self) -> String {
        let path = if self.is_stdin() { PathBuf::from("-") } else { absolute(&self.path) };
        let mut text = format!("{} {}", self.format().name(), path.display());
        for (word, value) in [("query", &self.query), ("column", &self.column), ("id", &self.id)] {
            if let Some(value) = value {
                text.push_str(&format!(" {word}={value:?}"));
            }
        }
        text
    }
}

/// The kinds of source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// One row a line; the body is the line, of any bytes. CRLF and a byte order mark are taken off. Blank lines are
    /// rows with an empty body, but for those at the end.
    Text,
    /// One JSON value a line; blank lines are no rows.
    Jsonl,
    /// Comma-separated with a header; a record may span lines. Blank lines are no rows.
    Csv,
    /// The same with tabs.
    Tsv,
    /// A query on a SQLite database.
    Sqlite,
}

impl Format {
    /// By the ending of the name; text unless it says something else.
    pub fn of(path: &Path) -> Format {
        let ending = path.extension().map(|ending| ending.to_string_lossy().to_ascii_lowercase());
        match ending.as_deref() {
            Some("jsonl" | "ndjson") => Format::Jsonl,
            Some("csv") => Format::Csv,
            Some("tsv") => Format::Tsv,
            Some("db" | "sqlite" | "sqlite3") => Format::Sqlite,
            _ => Format::Text,
        }
    }

    /// The word for it.
    pub fn name(self) -> &'static str {
        match self {
            Format::Text => "text",
            Format::Jsonl => "jsonl",
            Format::Csv => "csv",
            Format::Tsv => "tsv",
            Format::Sqlite => "sqlite",
        }
    }
}

/// Opens a source. `state_dir` exists and is this job's own: standard input, and the result of a query without an id
/// column, are copied there.
pub fn open(spec: &SourceSpec, state_dir: &Path) -> Result<Box<dyn Source>, SourceError> {
    let format = spec.format();
    let path = if spec.is_stdin() && format != Format::Sqlite { spool::stdin(state_dir)? } else { spec.path.clone() };
    for (given, word) in [(&spec.column, "column"), (&spec.id, "id")] {
        if let (Some(name), Format::Text) = (given, format) {
            return Err(SourceError::NoColumns { path, option: word, name: name.clone() });
        }
    }
    if spec.query.is_some() && format != Format::Sqlite {
        return Err(SourceError::QueryNeedsDatabase { path });
    }
    Ok(match format {
        Format::Text => Box::new(text::Text::open(&path)?),
        Format::Jsonl => Box::new(jsonl::Jsonl::open(&path, spec)?),
        Format::Csv => Box::new(csv::Csv::open(&path, b',', spec)?),
        Format::Tsv => Box::new(csv::Csv::open(&path, b'\t', spec)?),
        Format::Sqlite => sqlite::open(spec, state_dir)?,
    })
}

/// Removes what was copied to `state_dir` for a job that is done now.
pub(crate) fn discard_copies(state_dir: &Path) -> Result<(), SourceError> {
    spool::discard(state_dir)
}

/// Why a source cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
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
    /// Standard input is empty, and what came on it before is not kept: its job is done.
    #[error("standard input is empty, and the job that read it is done; give it the rows again, changed or not")]
    StdinTaken,
    /// A field or column was named that is not there.
    #[error("{path} has no column {name:?}; it has {}", existing.join(", "))]
    UnknownColumn {
        /// The source.
        path: PathBuf,
        /// What was named.
        name: String,
        /// What there is.
        existing: Vec<String>,
    },
    /// A column was named of a source that has none.
    #[error("{path} is read as text, a row a line: --{option} {name} needs .jsonl, .csv or a query")]
    NoColumns {
        /// The source.
        path: PathBuf,
        /// Which option.
        option: &'static str,
        /// What was named.
        name: String,
    },
    /// A database without a query.
    #[error("{path} is a SQLite database: say which rows with --query 'select id, text from …'")]
    NeedsQuery {
        /// The source.
        path: PathBuf,
    },
    /// A query without a database.
    #[error("--query is for a SQLite database, and {path} is read as something else")]
    QueryNeedsDatabase {
        /// The source.
        path: PathBuf,
    },
    /// A statement that is no single reading query.
    #[error("--query must be one statement that reads rows and takes no parameters")]
    NotAQuery,
    /// The database said no.
    #[error("cannot query {path}: {error}")]
    Sql {
        /// The database.
        path: PathBuf,
        /// What it said.
        error: rusqlite::Error,
    },
    /// A row that cannot be made into a request.
    #[error("no request can be made of row {row}: {reason}")]
    Prompt {
        /// The first sound row of the source.
        row: u64,
        /// What is wrong.
        reason: String,
    },
    /// A CSV file whose header cannot be read.
    #[error("the header of {path} cannot be read: {reason}")]
    Header {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: HeaderFault,
    },
}

/// What is wrong with a CSV header.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeaderFault {
    /// Longer than a row may be, or an open quote.
    #[error("it is too long, or a quote in it is never closed")]
    Unreadable,
    /// Not UTF-8.
    #[error("it is not UTF-8")]
    NotUtf8,
    /// Two columns of one name.
    #[error("the column {0:?} is there twice")]
    Twice(String),
}

pub(crate) fn io_error(act: &'static str, path: &Path) -> impl FnOnce(io::Error) -> SourceError {
    let path = path.to_owned();
    move |error| SourceError::Io { act, path, error }
}

fn open_file(path: &Path) -> Result<File, SourceError> {
    let file = File::open(path).map_err(io_error("read", path))?;
    if file.metadata().map_err(io_error("read", path))?.is_dir() {
        let error = io::Error::from(io::ErrorKind::IsADirectory);
        return Err(SourceError::Io { act: "read", path: path.to_owned(), error });
    }
    Ok(file)
}

/// The path from the root, with links resolved as far as it exists.
pub(crate) fn absolute(path: &Path) -> PathBuf {
    if let Ok(path) = path.canonicalize() {
        return path;
    }
    match (path.parent(), path.file_name()) {
        (Some(parent), Some(name)) => {
            let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
            parent.canonicalize().unwrap_or_else(|_| parent.to_owned()).join(name)
        }
        _ => path.to_owned(),
    }
}

/// Fills a batch from a function that yields one row at a time.
fn line_batch(
    rows_max: usize,
    bytes_max: usize,
    out: &mut Vec<SourceRow>,
    mut next: impl FnMut() -> Result<Option<SourceRow>, SourceError>,
) -> Result<(), SourceError> {
    let mut bytes = 0;
    for _ in 0..rows_max {
        let Some(row) = next()? else { return Ok(()) };
        bytes += row.body.as_ref().map_or(0, Bytes::len);
        out.push(row);
        if bytes >= bytes_max {
            return Ok(());
        }
    }
    Ok(())
}
