//! The place of a sink, claimed: its lock, and the job's record beside it. It knows nothing of what the record says.
//!
//! ```text
//!     OUT.sheaf/lock       held (flock) while a process writes to OUT
//!     OUT.sheaf/job.json   the record (for a table: column `record` of table `_sheaf`)
//!     OUT.sheaf/state      see `state`
//!     OUT.sheaf/spool      `--ordered`: lines in the order in which they finished
//!     OUT.sheaf/stdin      a copy of standard input, where that is the source; `stdin.done` once the job is
//! ```

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use sheaf_task::JobId;

use super::files::{Files, io_error};
use super::lines::{LineSink, Places};
use super::sqlite::{self, TableSink};
use super::{Sink, SinkError, SinkSpec, is_database, is_named_as_lines, state_dir};

/// A sink that this process alone writes to. Freed when this is dropped, or the process dies; what it made is removed
/// then, unless a job was stored.
#[derive(Debug)]
pub struct Claim {
    path: PathBuf,
    // Dropped in this order: the database is closed, its place taken away, and let go last.
    kind: Kind,
    place: StateDir,
    _lock: File,
}

/// The directory of a sink's state, and what was made for it.
#[derive(Debug)]
struct StateDir {
    dir: PathBuf,
    /// Directories, the outer one first, and a database: of this process, and not wanted without a job.
    made: Vec<PathBuf>,
    /// A job was stored here.
    kept: AtomicBool,
}

impl Drop for StateDir {
    fn drop(&mut self) {
        if *self.kept.get_mut() {
            return;
        }
        for path in self.made.drain(..).rev() {
            let removed = if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
            if let Err(error) = removed {
                tracing::warn!(%error, path = %path.display(), "cannot remove what was made for a job that did not begin");
            }
        }
    }
}

#[derive(Debug)]
enum Kind {
    File { ordered: bool },
    Table { db: rusqlite::Connection, table: String },
}

impl Claim {
    /// Claims the sink, making its state directory (not the sink itself) where it is missing.
    pub fn take(spec: &SinkSpec) -> Result<Self, SinkError> {
        let path = crate::source::absolute(&spec.path);
        if spec.path.as_os_str() == "-" {
            return Err(SinkError::Stdout);
        }
        if path.is_dir() {
            let error = std::io::Error::from(ErrorKind::IsADirectory);
            return Err(SinkError::Io { act: "write", path, error });
        }
        if path.exists() && !path.is_file() {
            return Err(SinkError::NotAFile { path });
        }
        let table = match (is_database(spec), &spec.table) {
            (false, _) => None,
            (true, Some(_)) if is_named_as_lines(&path) => return Err(SinkError::TableInFile { path }),
            (true, None) => return Err(SinkError::NeedsTable { path }),
            (true, Some(_)) if spec.ordered => return Err(SinkError::OrderedTable),
            (true, Some(table)) => Some(table.clone()),
        };
        let dir = state_dir(&path, table.as_deref());
        let made = make_state_dir(&dir, table.is_some())?;
        let lock = lock(&dir, &path)?;
        // From here on: without the lock another process may already be at home in what was made.
        let mut place = StateDir { dir, made, kept: AtomicBool::new(false) };
        let kind = match table {
            Some(table) => {
                if !path.exists() {
                    place.made.push(path.clone());
                }
                Kind::Table { db: sqlite::connect(&path)?, table }
            }
            None => Kind::File { ordered: spec.ordered },
        };
        Ok(Self { path, kind, place, _lock: lock })
    }

    /// The directory for whatever else belongs to the job.
    pub fn state_dir(&self) -> &Path {
        &self.place.dir
    }

    /// True for a table, which has one place for each id; a file has a line for each row.
    pub(crate) fn is_keyed_by_id(&self) -> bool {
        matches!(self.kind, Kind::Table { .. })
    }

    /// The sink's file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What one who wants another job here can do. A database holds more than a table of ours, often the rows themselves:
    /// nobody is told to remove it.
    pub(crate) fn way_out(&self) -> String {
        let (path, state) = (self.path.display(), self.state_dir().display());
        match &self.kind {
            Kind::Table { table, .. } => format!("The job writes to table {table:?}: choose another --table"),
            Kind::File { .. } => {
                format!("Choose another --out, or give up its results by removing {path} and {state}")
            }
        }
    }

    /// The record of the job that writes here, if there is one. A file with content that no job wrote is refused.
    pub fn load(&self) -> Result<Option<String>, SinkError> {
        if let Kind::Table { db, table } = &self.kind {
            return sqlite::load(db, &self.path, table);
        }
        let path = self.place.dir.join("job.json");
        match fs::read_to_string(&path) {
            Ok(record) => Ok(Some(record)),
            Err(error) if error.kind() == ErrorKind::InvalidData => Err(SinkError::State { path }),
            Err(error) if error.kind() != ErrorKind::NotFound => Err(io_error("read", &path)(error)),
            Err(_) if fs::metadata(&self.path).is_ok_and(|meta| meta.len() > 0) => {
                Err(SinkError::Foreign { path: self.path.clone() })
            }
            Err(_) => Ok(None),
        }
    }

    /// Puts the record in place, durably.
    pub fn store(&self, record: &str) -> Result<(), SinkError> {
        self.place.kept.store(true, Ordering::Relaxed);
        if let Kind::Table { db, table } = &self.kind {
            return sqlite::store(db, &self.path, table, record);
        }
        let (path, aside) = (self.place.dir.join("job.json"), self.place.dir.join("job.new"));
        let write = || -> std::io::Result<()> {
            let mut file = File::create(&aside)?;
            file.write_all(record.as_bytes())?;
            file.sync_all()
        };
        write().map_err(io_error("write", &aside))?;
        let files = Files::default();
        files.rename(&aside, &path)?;
        files.sync_dir_of(&self.place.dir)
    }

    /// Opens the sink for `job`, whose record has been stored. Rows of an earlier job are no rows of this one: a file is
    /// emptied, a table keeps them until they are answered anew.
    pub fn open(&self, job: JobId) -> Result<Box<dyn Sink>, SinkError> {
        Ok(match &self.kind {
            Kind::Table { table, .. } => Box::new(TableSink::open(&self.path, table, job)?),
            Kind::File { ordered } => {
                let places = Places { out: self.path.clone(), dir: self.place.dir.clone(), ordered: *ordered };
                Box::new(LineSink::open(Files::default(), places, job)?)
            }
        })
    }
}

/// Reads the record of the job that writes to a sink, whether or not a process is at it; writes nothing.
pub(crate) fn peek(spec: &SinkSpec) -> Result<Option<String>, SinkError> {
    let path = crate::source::absolute(&spec.path);
    if let Some(table) = &spec.table {
        return if path.exists() { sqlite::peek(&path, table) } else { Ok(None) };
    }
    let path = state_dir(&path, None).join("job.json");
    match fs::read_to_string(&path) {
        Ok(record) => Ok(Some(record)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(io_error("read", &path)(error)),
    }
}

/// Makes the state directory, but not the one that the sink is in: a slip in a path must not leave a tree behind.
/// Returns what was not there before.
fn make_state_dir(dir: &Path, of_table: bool) -> Result<Vec<PathBuf>, SinkError> {
    let mut made = Vec::new();
    for dir in dir.parent().filter(|_| of_table).into_iter().chain([dir]) {
        match fs::create_dir(dir) {
            Ok(()) => made.push(dir.to_owned()),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            Err(error) => return Err(cannot_create(dir, error)),
        }
    }
    Ok(made)
}

/// What is missing is said, rather than what was to be made in it.
fn cannot_create(dir: &Path, error: std::io::Error) -> SinkError {
    match dir.parent() {
        Some(parent) if !parent.exists() => SinkError::NoDirectory { path: parent.to_owned() },
        Some(_) | None => io_error("create", dir)(error),
    }
}

/// How long a lock is waited for. A process that was killed while it started another leaves its lock to that one until
/// it has become another program, a moment later: the same command must work again at once.
const LOCK_WAIT: Duration = Duration::from_millis(500);
const LOCK_LOOK: Duration = Duration::from_millis(10);

fn lock(dir: &Path, sink: &Path) -> Result<File, SinkError> {
    let path = dir.join("lock");
    let open = OpenOptions::new().create(true).truncate(false).read(true).write(true).open(&path);
    let file = open.map_err(io_error("write", &path))?;
    let until = Instant::now() + LOCK_WAIT;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) if Instant::now() < until => std::thread::sleep(LOCK_LOOK),
            Err(TryLockError::WouldBlock) => return Err(SinkError::InUse { path: sink.to_owned() }),
            Err(TryLockError::Error(error)) => return Err(io_error("lock", &path)(error)),
        }
    }
}
