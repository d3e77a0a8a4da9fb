//! Sinks through one world: a source that is a list of names, a router that numbers their results, and a crash at every
//! step. Whatever happens, running again to the end leaves each row that the source has now once, under its number now.

use std::fs;
use std::path::Path;

use bytes::Bytes;
use sheaf_task::{Class, Failure, JobId, Key, Outcome, RouterId, RowId, Upstream};

use super::files::Files;
use super::line::Format;
use super::lines::{LineSink, Places};
use super::sqlite::TableSink;
use super::*;

const ROUTER: RouterId = RouterId([9; 16]);
const JOB: JobId = JobId([1; 16]);

fn identity(name: &str) -> RowId {
    RowId::from_slice(&blake3::hash(name.as_bytes()).as_bytes()[..16]).unwrap()
}

fn row(name: &str, number: u64) -> SinkRow {
    let outcome = match name.strip_prefix('!') {
        Some(why) => Outcome::Failed(Failure::new(Class::Rejected, why)),
        None => Outcome::Ok(Bytes::from(format!("answer,\n\"{name}\""))),
    };
    SinkRow {
        row: identity(name.trim_start_matches('!')),
        number,
        id: None,
        outcome,
        key: Some(Key([3; 16])),
        attempts: 1,
        worker: "w".into(),
        ms: 12,
        tokens: None,
    }
}

/// Runs a job to its end: reconciles with the source, then takes the deliveries above the cursor, two at a time.
/// `deliveries` are names in delivery order; a leading `!` is a failure. The source is names without it.
fn run(sink: &mut dyn Sink, source: &[&str], deliveries: &[&str]) -> Result<(), SinkError> {
    let place = |id: RowId| source.iter().position(|name| identity(name) == id).map(|at| at as u64 + 1);
    let judged: Vec<_> =
        sink.finished()?.into_iter().map(|finished| Judged { finished, now: place(finished.row) }).collect();
    sink.reconcile(&judged)?;
    let from = sink.cursor().map_or(0, |cursor| cursor.number as usize);
    for start in (from..deliveries.len()).step_by(2) {
        let end = (start + 2).min(deliveries.len());
        let rows: Vec<_> = deliveries[start..end]
            .iter()
            .filter_map(|name| place(identity(name.trim_start_matches('!'))).map(|number| row(name, number)))
            .collect();
        sink.commit(&rows, Some(Cursor { router: ROUTER, number: end as u64 }))?;
    }
    sink.finish()
}

fn open_lines(dir: &Path, name: &str, ordered: bool, files: Files) -> Result<LineSink, SinkError> {
    let places = Places { out: dir.join(name), dir: dir.join("state"), ordered };
    fs::create_dir_all(&places.dir).unwrap();
    LineSink::open(files, places, JOB)
}

/// Lines of the file as `number name`, in the file's order.
fn lines(dir: &Path, name: &str) -> Vec<String> {
    let text = fs::read_to_string(dir.join(name)).unwrap();
    if Format::of(Path::new(name)) == Format::Csv {
        let mut reader = csv::Reader::from_reader(text.as_bytes());
        return reader
            .records()
            .map(|record| {
                let record = record.unwrap();
                let answer = if &record[2] == "ok" { &record[3] } else { &record[6] };
                format!("{} {}", &record[0], answer.trim_start_matches("answer,\n").trim_matches('"'))
            })
            .collect();
    }
    text.lines()
        .map(|line| {
            let value: serde_json::Value = serde_json::from_str(line).unwrap();
            let answer = value["output"].as_str().or(value["error"]["message"].as_str()).unwrap();
            format!("{} {}", value["row"], answer.trim_start_matches("answer,\n").trim_matches('"'))
        })
        .collect()
}

const BEFORE: [&str; 6] = ["a", "b", "c", "d", "e", "f"];
/// `b` deleted, `x` inserted, `e` before `a`; so most rows have moved.
const AFTER: [&str; 6] = ["e", "x", "a", "c", "d", "f"];
/// What the router delivers: `c` fails at first, and is retried.
const DELIVERED: [&str; 8] = ["b", "a", "!c", "e", "d", "f", "c", "x"];

fn crash_everywhere(name: &str, ordered: bool) {
    let mut steps = 0;
    for first in 0.. {
        let dir = tempfile::tempdir().unwrap();
        let attempt = |files: Files, source: &[&str], delivered: &[&str]| {
            open_lines(dir.path(), name, ordered, files).and_then(|mut sink| run(&mut sink, source, delivered))
        };
        let whole = attempt(Files::cut_after(first), &BEFORE, &DELIVERED[..7]).is_ok();
        // The second run falls over too, somewhere else each time; the third is left in peace.
        let second = attempt(Files::cut_after(first * 7 % 23), &AFTER, &DELIVERED);
        drop(second);
        attempt(Files::default(), &AFTER, &DELIVERED).unwrap();
        let mut found = lines(dir.path(), name);
        if !ordered {
            found.sort();
        }
        assert_eq!(found, ["1 e", "2 x", "3 a", "4 c", "5 d", "6 f"], "{name} cut after {first} steps");
        if whole {
            steps = first;
            break;
        }
    }
    assert!(steps > 10, "the cut must fall into every step, there were {steps}");
}

#[test]
fn a_crash_at_any_step_leaves_each_row_once_in_jsonl() {
    crash_everywhere("out.jsonl", false);
}

#[test]
fn a_crash_at_any_step_leaves_each_row_once_in_csv() {
    crash_everywhere("out.csv", false);
}

#[test]
fn a_crash_at_any_step_leaves_an_ordered_file_in_order() {
    crash_everywhere("out.jsonl", true);
    crash_everywhere("out.csv", true);
}

#[test]
fn a_crash_in_the_second_run_at_any_step_too() {
    for cut in 0..60 {
        let dir = tempfile::tempdir().unwrap();
        let attempt = |files: Files, source: &[&str], delivered: &[&str]| {
            open_lines(dir.path(), "o.jsonl", false, files).and_then(|mut sink| run(&mut sink, source, delivered))
        };
        attempt(Files::default(), &BEFORE, &DELIVERED[..5]).unwrap();
        drop(attempt(Files::cut_after(cut), &AFTER, &DELIVERED));
        attempt(Files::default(), &AFTER, &DELIVERED).unwrap();
        let mut found = lines(dir.path(), "o.jsonl");
        found.sort();
        assert_eq!(found, ["1 e", "2 x", "3 a", "4 c", "5 d", "6 f"], "cut after {cut} steps");
    }
}

#[test]
fn nothing_changed_writes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let again =
        || run(&mut open_lines(dir.path(), "o.jsonl", false, Files::default()).unwrap(), &BEFORE, &BEFORE).unwrap();
    again();
    let before = fs::metadata(dir.path().join("o.jsonl")).unwrap();
    again();
    let after = fs::metadata(dir.path().join("o.jsonl")).unwrap();
    assert_eq!(before.modified().unwrap(), after.modified().unwrap());
    use std::os::unix::fs::MetadataExt;
    assert_eq!(before.ino(), after.ino());
}

#[test]
fn what_others_did_to_the_file_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("o.jsonl");
    let open = || open_lines(dir.path(), "o.jsonl", false, Files::default());
    run(&mut open().unwrap(), &BEFORE, &BEFORE).unwrap();
    let good = fs::read(&path).unwrap();
    fs::write(&path, &good[..good.len() - 3]).unwrap();
    assert!(matches!(open().err().unwrap(), SinkError::Edited { .. }));
    fs::write(&path, [good.as_slice(), b"a line of mine\n"].concat()).unwrap();
    assert!(matches!(open().err().unwrap(), SinkError::Edited { .. }));
    let mut same_length = good.clone();
    same_length[3] = b'x';
    fs::write(&path, &same_length).unwrap();
    assert!(matches!(run(&mut open().unwrap(), &AFTER, &BEFORE).err().unwrap(), SinkError::Edited { .. }));
    fs::remove_file(&path).unwrap();
    assert!(matches!(open().err().unwrap(), SinkError::Gone { .. }));
    fs::write(&path, &good).unwrap();
    open().unwrap();
}

#[test]
fn another_job_empties_the_file() {
    let dir = tempfile::tempdir().unwrap();
    run(&mut open_lines(dir.path(), "o.csv", false, Files::default()).unwrap(), &BEFORE, &BEFORE).unwrap();
    let places = Places { out: dir.path().join("o.csv"), dir: dir.path().join("state"), ordered: false };
    let mut other = LineSink::open(Files::default(), places, JobId([2; 16])).unwrap();
    assert_eq!((other.finished().unwrap(), other.cursor()), (vec![], None));
    run(&mut other, &["z"], &["z"]).unwrap();
    assert_eq!(lines(dir.path(), "o.csv"), ["1 z"]);
}

#[test]
fn a_line_says_everything_in_json() {
    let mut sink_row = row("x", 17);
    sink_row.id = Some(SourceId::Text("a\"b".into()));
    sink_row.outcome = Outcome::Ok(Bytes::from_static(b"\xff\x00a\"\n"));
    let mut out = Vec::new();
    Format::Jsonl.push(&mut out, &sink_row);
    let value: serde_json::Value = serde_json::from_slice(&out).unwrap();
    let expected = serde_json::json!({
        "row": 17, "id": "a\"b", "status": "ok", "output": null, "output_base64": "/wBhIgo=", "error": null,
        "key": "03".repeat(16), "attempts": 1, "worker": "w", "ms": 12
    });
    assert_eq!(value, expected);
    let mut failed = row("!bad", 2);
    if let Outcome::Failed(failure) = &mut failed.outcome {
        failure.evidence.exit_code = Some(3);
        failure.evidence.stderr = Bytes::from_static(b"no\xff");
    }
    out.clear();
    Format::Jsonl.push(&mut out, &failed);
    let value: serde_json::Value = serde_json::from_slice(&out).unwrap();
    assert_eq!(
        value["error"],
        serde_json::json!({
            "class": "rejected", "message": "bad",
            "evidence": {"exit_code": 3, "signal": null, "stderr": "no\u{fffd}", "worker": "", "deaths": 0}
        })
    );
    if let Outcome::Failed(failure) = &mut failed.outcome {
        let (status, message) = (422, "no \"such\"".to_owned());
        failure.evidence.upstream = Some(Box::new(Upstream { status, message, ..Upstream::default() }));
    }
    out.clear();
    Format::Jsonl.push(&mut out, &failed);
    let value: serde_json::Value = serde_json::from_slice(&out).unwrap();
    let expected = serde_json::json!({"status": 422, "message": "no \"such\"", "type": "", "param": "", "code": ""});
    assert_eq!(value["error"]["evidence"]["upstream"], expected);
}

fn names_in_table(path: &Path) -> Vec<String> {
    let db = rusqlite::Connection::open(path).unwrap();
    let mut statement = db.prepare("select row, output, error_message from labels order by row, output").unwrap();
    let rows = statement.query_map([], |row| {
        let answer: Option<String> = row.get(1)?;
        let answer = answer.unwrap_or(row.get::<_, Option<String>>(2)?.unwrap_or_default());
        Ok(format!("{} {}", row.get::<_, i64>(0)?, answer.trim_start_matches("answer,\n").trim_matches('"')))
    });
    rows.unwrap().map(Result::unwrap).collect()
}

#[test]
fn a_table_killed_and_reopened_has_each_row_once() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.db");
    sqlite::store(&sqlite::connect(&path).unwrap(), &path, "labels", "{}").unwrap();
    let names: Vec<String> = (0..60).map(|n| format!("n{n:02}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    for life in 1..=20 {
        let mut sink = TableSink::open(&path, "labels", JOB).unwrap();
        assert_eq!(sink.finished().unwrap().len(), 3 * (life - 1));
        run(&mut sink, &names, &names[..3 * life]).unwrap();
        // Killed: its connection is never closed.
        std::mem::forget(sink);
    }
    let found = names_in_table(&path);
    assert_eq!(found.len(), 60);
    assert_eq!((found[0].as_str(), found[59].as_str()), ("1 n00", "60 n59"));
}

#[test]
fn a_table_keeps_answers_that_the_query_no_longer_returns() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.db");
    sqlite::store(&sqlite::connect(&path).unwrap(), &path, "labels", "{}").unwrap();
    run(&mut TableSink::open(&path, "labels", JOB).unwrap(), &["a", "b"], &["a", "!b"]).unwrap();
    run(&mut TableSink::open(&path, "labels", JOB).unwrap(), &["b", "c"], &["a", "!b", "b", "c"]).unwrap();
    assert_eq!(names_in_table(&path), ["1 a", "1 b", "2 c"]);
    // A fresh job has answered nothing yet, and takes no answer away.
    let mut fresh = TableSink::open(&path, "labels", JobId([2; 16])).unwrap();
    assert_eq!((fresh.finished().unwrap(), fresh.cursor()), (vec![], None));
    assert_eq!(names_in_table(&path).len(), 3);
}

#[test]
fn a_table_of_another_shape_is_refused_and_a_dropped_one_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.db");
    let db = sqlite::connect(&path).unwrap();
    db.execute_batch("create table mine (id, note)").unwrap();
    for table in ["mine", "labels"] {
        sqlite::store(&db, &path, table, "{}").unwrap();
    }
    assert!(
        matches!(TableSink::open(&path, "mine", JOB), Err(SinkError::Columns { missing, .. }) if missing.len() == 13)
    );
    drop(TableSink::open(&path, "labels", JOB).unwrap());
    db.execute_batch("drop table labels").unwrap();
    assert!(matches!(TableSink::open(&path, "labels", JOB), Err(SinkError::Gone { .. })));
}

#[test]
fn a_sink_is_claimed_by_one_process_and_never_over_a_foreign_file() {
    let dir = tempfile::tempdir().unwrap();
    let spec = SinkSpec::new(dir.path().join("o.jsonl"));
    let claim = Claim::take(&spec).unwrap();
    assert_eq!(claim.load().unwrap(), None);
    assert!(matches!(Claim::take(&spec), Err(SinkError::InUse { .. })));
    claim.store("{\"a\": 1}").unwrap();
    drop(claim);
    assert_eq!(Claim::take(&spec).unwrap().load().unwrap().as_deref(), Some("{\"a\": 1}"));
    let foreign = SinkSpec::new(dir.path().join("mine.txt"));
    fs::write(&foreign.path, "dear diary").unwrap();
    assert!(matches!(Claim::take(&foreign).unwrap().load(), Err(SinkError::Foreign { .. })));
    let nowhere = SinkSpec::new("/proc/nowhere/out.jsonl");
    assert!(
        matches!(Claim::take(&nowhere), Err(SinkError::NoDirectory { path }) if path == Path::new("/proc/nowhere"))
    );
    assert!(matches!(Claim::take(&SinkSpec::new("-")), Err(SinkError::Stdout)));
    assert!(matches!(Claim::take(&SinkSpec::new("/dev/null")), Err(SinkError::NotAFile { .. })));
    assert!(matches!(Claim::take(&SinkSpec::new(dir.path().join("a.db"))), Err(SinkError::NeedsTable { .. })));
}
