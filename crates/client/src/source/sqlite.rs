//! Rows of a query on a SQLite database.
//!
//! With an id column the result is read in pages by id, each in a read of its own, so that nothing is locked between
//! pages and the same database may be the sink; rows come in the order of their ids. Without one the result is copied
//! to the state directory in one go, and read from there.
//!
//! The body is `--column`, else the only column beside the id as text, else an object of all columns beside the id.

use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use rusqlite::types::{Value, ValueRef};
use rusqlite::{Connection, OpenFlags, Row, Statement};
use sheaf_task::BODY_BYTES_MAX;

use super::spool::RowsWriter;
use super::{Malformed, Source, SourceError, SourceId, SourceRow, SourceSpec, open_file, push_json_string};

/// Rows read in one page.
const PAGE_ROWS: usize = 8_192;

/// How long another process's lock on the database is waited for.
const BUSY: Duration = Duration::from_secs(30);

/// The id column where none is named.
const ID_DEFAULT: &str = "id";

pub(super) fn open(spec: &SourceSpec, state_dir: &Path) -> Result<Box<dyn Source>, SourceError> {
    let path = spec.path.clone();
    let Some(query) = &spec.query else { return Err(SourceError::NeedsQuery { path }) };
    drop(open_file(&path)?);
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let db = Connection::open_with_flags(&path, flags).map_err(sql_error(&path))?;
    db.busy_timeout(BUSY).map_err(sql_error(&path))?;
    let query = query.trim().trim_end_matches(';').trim_end().to_owned();
    let columns = columns(&db, &path, &query)?;
    let shape = Shape::new(&path, &columns, spec)?;
    if let Some(place) = shape.id {
        let id = quoted(&columns[place]);
        return Ok(Box::new(Pages { db, path, query, id, shape, after: None, skip: 0, number: 0 }));
    }
    copy(&db, &path, &query, &shape, &state_dir.join("rows"))
}

fn columns(db: &Connection, path: &Path, query: &str) -> Result<Vec<String>, SourceError> {
    let statement = match db.prepare(query) {
        Ok(statement) => statement,
        Err(rusqlite::Error::MultipleStatement) => return Err(SourceError::NotAQuery),
        Err(error) => return Err(SourceError::Sql { path: path.to_owned(), error }),
    };
    if !statement.readonly() || statement.column_count() == 0 || statement.parameter_count() > 0 {
        return Err(SourceError::NotAQuery);
    }
    Ok(statement.column_names().map(str::to_owned).collect())
}

/// Copies the whole result to a file, in one read.
fn copy(db: &Connection, path: &Path, query: &str, shape: &Shape, to: &Path) -> Result<Box<dyn Source>, SourceError> {
    let mut statement = db.prepare(query).map_err(sql_error(path))?;
    let mut writer = RowsWriter::create(to)?;
    let mut rows = statement.query([]).map_err(sql_error(path))?;
    let mut number = 0;
    while let Some(row) = rows.next().map_err(sql_error(path))? {
        number += 1;
        writer.push(&shape.row(row, number).map_err(sql_error(path))?)?;
    }
    Ok(Box::new(writer.finish()?))
}

/// A result that is read in pages by id.
struct Pages {
    db: Connection,
    path: PathBuf,
    query: String,
    /// The id column's name, quoted.
    id: String,
    shape: Shape,
    /// The last id given out; `None` while that is NULL or nothing, and no bound.
    after: Option<Value>,
    /// Rows given out that have the id `after` (or, without one, all so far): ids need not be unique.
    skip: u64,
    number: u64,
}

impl Pages {
    fn page(&mut self, rows_max: usize, bytes_max: usize, out: &mut Vec<SourceRow>) -> rusqlite::Result<()> {
        let Self { db, query, id, shape, after, skip, number, .. } = self;
        let bound = if after.is_some() { format!("WHERE {id} >= ?1") } else { String::new() };
        // The other columns settle the order of rows with equal ids.
        let order = (1..=shape.names.len()).map(|n| n.to_string()).collect::<Vec<_>>().join(",");
        let sql = format!("SELECT * FROM ({query}) {bound} ORDER BY {id},{order} LIMIT {rows_max} OFFSET {skip}");
        let mut statement: Statement<'_> = db.prepare(&sql)?;
        let mut rows = match after.clone() {
            Some(value) => statement.query([value])?,
            None => statement.query([])?,
        };
        let mut bytes = 0;
        while bytes < bytes_max {
            let Some(row) = rows.next()? else { break };
            *number += 1;
            let read = shape.row(row, *number)?;
            bytes += read.body.as_ref().map_or(0, Bytes::len);
            out.push(read);
            let id = shape.id.map_or(Ok(Value::Null), |place| row.get::<_, Value>(place))?;
            if id == Value::Null || after.as_ref() == Some(&id) {
                *skip += 1;
            } else {
                (*after, *skip) = (Some(id), 1);
            }
        }
        Ok(())
    }
}

impl Source for Pages {
    fn next_batch(&mut self, rows_max: usize, bytes_max: usize, out: &mut Vec<SourceRow>) -> Result<(), SourceError> {
        self.page(rows_max.min(PAGE_ROWS), bytes_max, out).map_err(|error| sql_error(&self.path)(error))
    }

    fn rewind(&mut self) -> Result<(), SourceError> {
        (self.after, self.skip, self.number) = (None, 0, 0);
        Ok(())
    }
}

/// Which columns are what.
struct Shape {
    names: Vec<String>,
    id: Option<usize>,
    body: BodyColumns,
}

enum BodyColumns {
    One(usize),
    /// An object of these.
    Object(Vec<usize>),
}

impl Shape {
    fn new(path: &Path, names: &[String], spec: &SourceSpec) -> Result<Self, SourceError> {
        let place = |name: &str| names.iter().position(|known| known.eq_ignore_ascii_case(name));
        let known = |name: &Option<String>| match name {
            None => Ok(None),
            Some(name) => place(name).map(Some).ok_or_else(|| SourceError::UnknownColumn {
                path: path.to_owned(),
                name: name.clone(),
                existing: names.to_vec(),
            }),
        };
        let id = if spec.id.is_some() { known(&spec.id)? } else { place(ID_DEFAULT) };
        let others: Vec<usize> = (0..names.len()).filter(|place| Some(*place) != id).collect();
        let body = match (known(&spec.column)?, others.as_slice()) {
            (Some(column), _) => BodyColumns::One(column),
            (None, _) if spec.all_fields => BodyColumns::Object((0..names.len()).collect()),
            (None, [only]) => BodyColumns::One(*only),
            (None, []) => BodyColumns::One(0),
            (None, _) => BodyColumns::Object(others),
        };
        Ok(Self { names: names.to_vec(), id, body })
    }

    fn row(&self, row: &Row<'_>, number: u64) -> rusqlite::Result<SourceRow> {
        let id = match self.id {
            None => None,
            Some(place) => id_of(row.get_ref(place)?),
        };
        let body = match &self.body {
            BodyColumns::One(place) => self.text(row, *place)?,
            BodyColumns::Object(places) => self.object(row, places)?,
        };
        let body = body.and_then(|body| match body.len() {
            len if len <= BODY_BYTES_MAX => Ok(body),
            len => Err(format!("it is {len} bytes long; a row may have {BODY_BYTES_MAX}")),
        });
        let body = body.map_err(|reason| {
            let name = id.as_ref().map_or(String::new(), |id| format!(" (id {})", shown(id)));
            let identity = id.as_ref().map_or_else(Vec::new, SourceId::identity);
            Malformed::new(format!("row {number}{name}: {reason}"), &[&identity, reason.as_bytes()].concat())
        });
        Ok(SourceRow { number, id, body })
    }

    fn text(&self, row: &Row<'_>, place: usize) -> rusqlite::Result<Result<Bytes, String>> {
        Ok(match row.get_ref(place)? {
            ValueRef::Null => Err(format!("column {:?} is NULL", self.names[place])),
            ValueRef::Integer(number) => Ok(Bytes::from(number.to_string())),
            ValueRef::Real(number) => Ok(Bytes::from(number.to_string())),
            ValueRef::Text(bytes) | ValueRef::Blob(bytes) => Ok(Bytes::copy_from_slice(bytes)),
        })
    }

    fn object(&self, row: &Row<'_>, places: &[usize]) -> rusqlite::Result<Result<Bytes, String>> {
        let mut out = Vec::new();
        for place in places {
            out.push(if out.is_empty() { b'{' } else { b',' });
            push_json_string(&mut out, &self.names[*place]);
            out.push(b':');
            match row.get_ref(*place)? {
                ValueRef::Null => out.extend_from_slice(b"null"),
                ValueRef::Integer(number) => out.extend_from_slice(number.to_string().as_bytes()),
                ValueRef::Real(number) => out.extend_from_slice(serde_json::Value::from(number).to_string().as_bytes()),
                ValueRef::Text(bytes) | ValueRef::Blob(bytes) => match std::str::from_utf8(bytes) {
                    Ok(text) => push_json_string(&mut out, text),
                    Err(_) => return Ok(Err(format!("column {:?} is not UTF-8", self.names[*place]))),
                },
            }
        }
        out.push(b'}');
        Ok(Ok(Bytes::from(out)))
    }
}

fn id_of(value: ValueRef<'_>) -> Option<SourceId> {
    match value {
        ValueRef::Null => None,
        ValueRef::Integer(number) => Some(SourceId::Int(number)),
        ValueRef::Real(number) => Some(SourceId::Text(number.to_string())),
        ValueRef::Text(bytes) => Some(SourceId::Text(String::from_utf8_lossy(bytes).into_owned())),
        ValueRef::Blob(bytes) => Some(SourceId::Text(bytes.iter().map(|byte| format!("{byte:02x}")).collect())),
    }
}

fn shown(id: &SourceId) -> String {
    match id {
        SourceId::Int(number) => number.to_string(),
        SourceId::Text(text) => format!("{text:?}"),
    }
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

fn sql_error(path: &Path) -> impl Fn(rusqlite::Error) -> SourceError + '_ {
    move |error| SourceError::Sql { path: path.to_owned(), error }
}
