//! Results in a table of a SQLite database, committed in its own transactions. The same database may be the source.
//!
//! ```text
//!     LABELS    id primary key (the source's id, else the row's identity in hex), row, status, output (a blob where the
//!               answer is not UTF-8), error_class, error_message, exit_code, signal, stderr, key, attempts, worker, ms,
//!               row_id (the identity of the row that was answered; NULL for answers of an earlier job)
//!     _sheaf    tbl primary key, record (the job), job (whose cursor and row_ids these are), router, number
//! ```
//!
//! A row that the query no longer returns keeps its answer; a row that changed has its answer replaced when the new one
//! comes. Of rows with equal ids the first has the id's place; the others come here as failed rows without an id.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::types::{ToSql, Value};
use rusqlite::{Connection, OpenFlags, OptionalExtension, Transaction, TransactionBehavior, params};
use sheaf_task::{JobId, Outcome, RouterId, RowId};

use super::{Cursor, Finished, Judged, Sink, SinkError, SinkRow};
use crate::source::SourceId;

/// How long another connection's lock on the database is waited for.
const BUSY: Duration = Duration::from_secs(30);

const COLUMNS: [&str; 14] = [
    "id",
    "row",
    "status",
    "output",
    "error_class",
    "error_message",
    "exit_code",
    "signal",
    "stderr",
    "key",
    "attempts",
    "worker",
    "ms",
    "row_id",
];

/// Opens the database for results, with its state table.
pub(super) fn connect(path: &Path) -> Result<Connection, SinkError> {
    let open = || -> rusqlite::Result<Connection> {
        let db = Connection::open(path)?;
        db.busy_timeout(BUSY)?;
        // With a write-ahead log readers of the same database, our own source among them, are not in our way. Where it
        // cannot be had, all of this still works, only slower.
        let mode = db.pragma_update_and_check(None, "journal_mode", "wal", |row| row.get::<_, String>(0));
        tracing::debug!(?mode, path = %path.display(), "journal mode");
        db.pragma_update(None, "synchronous", "full")?;
        db.execute_batch(
            "CREATE TABLE IF NOT EXISTS _sheaf (tbl TEXT PRIMARY KEY, record TEXT NOT NULL, job BLOB, router BLOB, number INTEGER)",
        )?;
        Ok(db)
    };
    open().map_err(sql_error(path))
}

/// The job's record beside the table.
pub(super) fn load(db: &Connection, path: &Path, table: &str) -> Result<Option<String>, SinkError> {
    db.query_row("SELECT record FROM _sheaf WHERE tbl = ?1", [table], |row| row.get(0))
        .optional()
        .map_err(sql_error(path))
}

/// Like [`load`], of a database that is not ours to write to now.
pub(super) fn peek(path: &Path, table: &str) -> Result<Option<String>, SinkError> {
    let open = || -> rusqlite::Result<Option<Connection>> {
        let db = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
        db.busy_timeout(BUSY)?;
        Ok(db.table_exists(None, "_sheaf")?.then_some(db))
    };
    match open().map_err(sql_error(path))? {
        Some(db) => load(&db, path, table),
        None => Ok(None),
    }
}

/// Puts the job's record beside the table, durably.
pub(super) fn store(db: &Connection, path: &Path, table: &str, record: &str) -> Result<(), SinkError> {
    let sql =
        "INSERT INTO _sheaf (tbl, record) VALUES (?1, ?2) ON CONFLICT (tbl) DO UPDATE SET record = excluded.record";
    db.execute(sql, [table, record]).map(|_| ()).map_err(sql_error(path))
}

/// A table that takes results.
pub(super) struct TableSink {
    db: Connection,
    path: PathBuf,
    /// For `_sheaf`.
    table: String,
    /// For statements.
    quoted: String,
    cursor: Option<Cursor>,
}

impl TableSink {
    /// Opens the sink of `job`, whose record has been stored; makes the table where it is missing.
    pub(super) fn open(path: &Path, table: &str, job: JobId) -> Result<Self, SinkError> {
        let mut db = connect(path)?;
        let quoted = format!("\"{}\"", table.replace('"', "\"\""));
        let begin = |db: &mut Connection| -> rusqlite::Result<Begun> {
            let tx = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let begun = begin(&tx, table, &quoted, job)?;
            tx.commit()?;
            Ok(begun)
        };
        let cursor = match begin(&mut db).map_err(sql_error(path))? {
            Begun::Ready(cursor) => cursor,
            Begun::Gone => return Err(SinkError::Gone { path: path.to_owned() }),
            Begun::Misses(missing) => {
                return Err(SinkError::Columns { path: path.to_owned(), table: table.to_owned(), missing });
            }
        };
        Ok(Self { db, path: path.to_owned(), table: table.to_owned(), quoted, cursor })
    }

    fn with<T>(
        &mut self,
        act: impl FnOnce(&Transaction<'_>, &str, &str) -> rusqlite::Result<T>,
    ) -> Result<T, SinkError> {
        let Self { db, path, table, quoted, .. } = self;
        let run = || {
            let tx = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let done = act(&tx, table, quoted)?;
            tx.commit()?;
            Ok(done)
        };
        run().map_err(sql_error(path))
    }
}

enum Begun {
    Ready(Option<Cursor>),
    /// The job has answers, and the table is not there.
    Gone,
    Misses(Vec<String>),
}

fn begin(tx: &Transaction<'_>, table: &str, quoted: &str, job: JobId) -> rusqlite::Result<Begun> {
    let sql = "SELECT job, router, number FROM _sheaf WHERE tbl = ?1";
    let (owner, router, number): (Option<Vec<u8>>, Option<Vec<u8>>, Option<i64>) =
        tx.query_row(sql, [table], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
    let ours = owner.as_deref() == Some(&job.0);
    let mut existing = Vec::new();
    tx.pragma(None, "table_info", table, |row| {
        existing.push(row.get::<_, String>(1)?);
        Ok(())
    })?;
    if existing.is_empty() {
        if ours {
            return Ok(Begun::Gone);
        }
        let columns = "id PRIMARY KEY NOT NULL, row INTEGER, status TEXT NOT NULL, output, error_class TEXT, error_message TEXT, \
            exit_code INTEGER, signal INTEGER, stderr TEXT, key TEXT, attempts INTEGER, worker TEXT, ms INTEGER, row_id BLOB";
        tx.execute_batch(&format!("CREATE TABLE {quoted} ({columns})"))?;
    } else {
        let missing: Vec<_> = COLUMNS.iter().filter(|name| !existing.iter().any(|known| known == *name)).collect();
        if !missing.is_empty() {
            return Ok(Begun::Misses(missing.into_iter().map(|name| (*name).to_owned()).collect()));
        }
    }
    if ours {
        let router = router.as_deref().and_then(RouterId::from_slice);
        let number = number.and_then(|number| u64::try_from(number).ok());
        return Ok(Begun::Ready(router.zip(number).map(|(router, number)| Cursor { router, number })));
    }
    tx.execute(&format!("UPDATE {quoted} SET row_id = NULL WHERE row_id IS NOT NULL"), [])?;
    tx.execute("UPDATE _sheaf SET job = ?2, router = NULL, number = NULL WHERE tbl = ?1", params![table, job.0])?;
    Ok(Begun::Ready(None))
}

impl Sink for TableSink {
    fn cursor(&self) -> Option<Cursor> {
        self.cursor
    }

    fn finished(&mut self) -> Result<Vec<Finished>, SinkError> {
        self.with(|tx, _, quoted| {
            let sql =
                format!("SELECT rowid, row_id, row, status FROM {quoted} WHERE row_id IS NOT NULL ORDER BY rowid");
            let mut statement = tx.prepare(&sql)?;
            let mut found = statement.query([])?;
            let mut rows = Vec::new();
            while let Some(row) = found.next()? {
                let place = row.get::<_, i64>(0)?.cast_unsigned();
                let Some(id) = row.get_ref(1)?.as_blob().ok().and_then(RowId::from_slice) else { continue };
                let number = row.get::<_, Option<i64>>(2)?.unwrap_or(0).cast_unsigned();
                let ok = row.get_ref(3)?.as_str().is_ok_and(|status| status == "ok");
                rows.push(Finished { row: id, number, place, len: 0, ok });
            }
            Ok(rows)
        })
    }

    fn reconcile(&mut self, judged: &[Judged]) -> Result<(), SinkError> {
        let moved: Vec<_> = judged
            .iter()
            .filter_map(|row| row.now.filter(|now| *now != row.finished.number).map(|now| (row.finished.place, now)))
            .collect();
        if moved.is_empty() {
            return Ok(());
        }
        self.with(|tx, _, quoted| {
            let mut update = tx.prepare(&format!("UPDATE {quoted} SET row = ?2 WHERE rowid = ?1"))?;
            for (place, now) in moved {
                update.execute([place.cast_signed(), now.cast_signed()])?;
            }
            Ok(())
        })
    }

    fn commit(&mut self, rows: &[SinkRow], cursor: Option<Cursor>) -> Result<(), SinkError> {
        self.with(|tx, table, quoted| {
            let mut upsert = tx.prepare_cached(&upsert_sql(quoted))?;
            for row in rows {
                upsert_row(&mut upsert, row)?;
            }
            if let Some(cursor) = cursor {
                let sql = "UPDATE _sheaf SET router = ?2, number = ?3 WHERE tbl = ?1";
                tx.execute(sql, params![table, cursor.router.0, cursor.number.cast_signed()])?;
            }
            Ok(())
        })?;
        self.cursor = cursor.or(self.cursor);
        Ok(())
    }

    fn finish(&mut self) -> Result<(), SinkError> {
        Ok(())
    }
}

fn upsert_sql(quoted: &str) -> String {
    let places: Vec<_> = (1..=COLUMNS.len()).map(|n| format!("?{n}")).collect();
    let set: Vec<_> = COLUMNS[1..].iter().map(|name| format!("{name} = excluded.{name}")).collect();
    format!(
        "INSERT INTO {quoted} ({}) VALUES ({}) ON CONFLICT (id) DO UPDATE SET {}",
        COLUMNS.join(","),
        places.join(","),
        set.join(",")
    )
}

fn upsert_row(upsert: &mut rusqlite::Statement<'_>, row: &SinkRow) -> rusqlite::Result<()> {
    let id = match &row.id {
        Some(SourceId::Int(number)) => Value::Integer(*number),
        Some(SourceId::Text(text)) => Value::Text(text.clone()),
        None => Value::Text(row.row.to_string()),
    };
    let (output, failure) = match &row.outcome {
        Outcome::Ok(body) => (text_or_blob(body), None),
        Outcome::Failed(failure) => (Value::Null, Some(failure)),
    };
    let evidence = failure.map(|failure| &failure.evidence);
    let values: [&dyn ToSql; 14] = [
        &id,
        &row.number.cast_signed(),
        &if failure.is_none() { "ok" } else { "failed" },
        &output,
        &failure.map(|failure| failure.class.name()),
        &failure.map(|failure| &failure.message),
        &evidence.and_then(|evidence| evidence.exit_code),
        &evidence.and_then(|evidence| evidence.signal),
        &evidence.map(|evidence| String::from_utf8_lossy(&evidence.stderr).into_owned()),
        &row.key.map(|key| key.to_string()),
        &row.attempts,
        &&*row.worker,
        &row.ms.cast_signed(),
        &row.row.0,
    ];
    upsert.execute(values.as_slice()).map(|_| ())
}

fn text_or_blob(bytes: &[u8]) -> Value {
    match std::str::from_utf8(bytes) {
        Ok(text) => Value::Text(text.to_owned()),
        Err(_) => Value::Blob(bytes.to_vec()),
    }
}

fn sql_error(path: &Path) -> impl FnOnce(rusqlite::Error) -> SinkError + use<> {
    let path = path.to_owned();
    move |error| SinkError::Sql { path, error }
}
