//! What stands in a sink, row by row as it is written there: nothing is put in order, nothing is taken for equal.
//!
//! Plain readers of JSONL, CSV and SQLite, none of them Sheaf's own.

use std::path::Path;

use anyhow::Context;
use rusqlite::{Connection, OpenFlags};
use serde_json::Value;

/// The kinds of sink.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Jsonl,
    Csv,
    Sqlite,
}

/// The table of a SQLite sink.
pub(crate) const TABLE: &str = "results";

impl Kind {
    /// The file of a job's sink.
    pub(crate) fn file(self, job: &str) -> String {
        match self {
            Kind::Jsonl => format!("{job}.jsonl"),
            Kind::Csv => format!("{job}.csv"),
            Kind::Sqlite => format!("{job}.sqlite"),
        }
    }

    /// What `sheaf run` is told beside `--out`.
    pub(crate) fn options(self) -> &'static [&'static str] {
        match self {
            Kind::Jsonl | Kind::Csv => &[],
            Kind::Sqlite => &["--table", TABLE],
        }
    }
}

/// One row of a sink.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SinkRow {
    pub row: u64,
    pub result: Landed,
}

/// What a row says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Landed {
    Ok(String),
    /// An answer that is not UTF-8, in base64.
    Bytes(String),
    /// Deaths of programs or workers while it ran, where the kind of sink tells.
    Failed {
        class: String,
        deaths: Option<u64>,
    },
}

/// Everything that stands there. A sink that does not exist yet is empty; half a line at the end of a file is no row.
pub(crate) fn read(kind: Kind, path: &Path) -> anyhow::Result<Vec<SinkRow>> {
    if !path.exists() {
        return Ok(Vec::new());
    }
    let rows = match kind {
        Kind::Jsonl => jsonl(path),
        Kind::Csv => csv(path),
        Kind::Sqlite => sqlite(path),
    };
    rows.with_context(|| format!("the sink {} cannot be read", path.display()))
}

fn whole_lines(path: &Path) -> anyhow::Result<Vec<u8>> {
    let mut bytes = std::fs::read(path)?;
    let end = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
    bytes.truncate(end);
    Ok(bytes)
}

fn jsonl(path: &Path) -> anyhow::Result<Vec<SinkRow>> {
    let bytes = whole_lines(path)?;
    bytes.split_inclusive(|byte| *byte == b'\n').map(jsonl_row).collect()
}

fn jsonl_row(line: &[u8]) -> anyhow::Result<SinkRow> {
    let shown = || String::from_utf8_lossy(line).into_owned();
    let value: Value = serde_json::from_slice(line).with_context(shown)?;
    let row = value["row"].as_u64().with_context(shown)?;
    let result = match value["status"].as_str() {
        Some("ok") => match value["output"].as_str() {
            Some(text) => Landed::Ok(text.to_owned()),
            None => Landed::Bytes(value["output_base64"].as_str().with_context(shown)?.to_owned()),
        },
        _ => Landed::Failed {
            class: value["error"]["class"].as_str().with_context(shown)?.to_owned(),
            deaths: value["error"]["evidence"]["deaths"].as_u64(),
        },
    };
    Ok(SinkRow { row, result })
}

fn csv(path: &Path) -> anyhow::Result<Vec<SinkRow>> {
    let bytes = whole_lines(path)?;
    let mut reader = csv::Reader::from_reader(&bytes[..]);
    let header = reader.headers()?.clone();
    let column = |name: &str| header.iter().position(|found| found == name).with_context(|| format!("no {name}"));
    if bytes.is_empty() {
        return Ok(Vec::new());
    }
    let (row, status, output, class) = (column("row")?, column("status")?, column("output")?, column("error_class")?);
    let mut rows = Vec::new();
    for record in reader.records() {
        let record = record?;
        let result = landed(&record[status], &record[output], &record[class]);
        rows.push(SinkRow { row: record[row].parse()?, result });
    }
    Ok(rows)
}

fn sqlite(path: &Path) -> anyhow::Result<Vec<SinkRow>> {
    let base = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    base.busy_timeout(std::time::Duration::from_secs(10))?;
    let tables = "select count(*) from sqlite_master where type = 'table' and name = ?1";
    let exists: bool = base.query_row(tables, [TABLE], |row| row.get(0))?;
    if !exists {
        return Ok(Vec::new());
    }
    let mut statement = base.prepare("select * from results")?;
    let rows = statement.query_map([], |row| {
        let text = |name: &str| row.get::<_, Option<String>>(name).map(Option::unwrap_or_default);
        Ok(SinkRow {
            row: row.get::<_, i64>("row")?.unsigned_abs(),
            result: landed(&text("status")?, &text("output")?, &text("error_class")?),
        })
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}

fn landed(status: &str, output: &str, class: &str) -> Landed {
    match status {
        "ok" => Landed::Ok(output.to_owned()),
        _ => Landed::Failed { class: class.to_owned(), deaths: None },
    }
}
