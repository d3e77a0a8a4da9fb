use std::fs;
use std::path::Path;

use bytes::Bytes;
use serde_json::Value;
use sheaf_client::sink::{Claim, SinkRow};
use sheaf_client::source::SourceId;
use sheaf_task::{Class, Failure, JobId, Outcome as TaskOutcome, RowId};

use super::super::record::{Asked, Ending, FileNames, Part, Status, Times, Usage};
use super::*;
use crate::page::Query;

/// A batch over parts of lines, each a list of ids, as it is once its input was validated.
fn begun(root: &Path, ending: Ending, parts: &[&[&str]]) -> (Place, Batch, Store) {
    let store = Store::open(root.to_owned(), 1 << 20).unwrap();
    let line = |id: &&str| format!("{{\"custom_id\": \"{id}\", \"body\": {{}}}}\n");
    let text = |ids: &[&str]| format!("\u{feff}\n{}", ids.iter().map(line).collect::<String>());
    let now = Duration::from_secs(1);
    let mut draft = store.begin("", now).unwrap();
    draft.write(text(parts[0]).as_bytes()).unwrap();
    let meta = FileMeta {
        id: draft.id.clone(),
        bytes: draft.bytes(),
        created_at: 1,
        filename: "in".into(),
        purpose: "batch".into(),
        expires_at: None,
    };
    store.finish(draft, &meta).unwrap();
    let name = |prefix| crate::disk::new_id(prefix, now).unwrap();
    let batch = Batch {
        id: name(super::super::record::PREFIX),
        app: String::new(),
        asked: Asked {
            endpoint: String::new(),
            input_file_id: meta.id,
            completion_window: "24h".into(),
            metadata: None,
            output_expires_after: Some(3_600),
        },
        status: Status::Finalizing,
        times: Times::default(),
        ending,
        parts: parts.iter().map(|_| Part { service: "m".into(), encoding: None }).collect(),
        counts: Counts::default(),
        errors: Vec::new(),
        names: FileNames { output: name("file-"), error: name("file-") },
        has_output: false,
        has_errors: false,
        usage: None,
    };
    let place = Place::of(root, "", &batch.id).unwrap();
    assert_eq!(place.create(&store, &batch).unwrap(), Some(text(parts[0]).len() as u64));
    fs::create_dir(place.parts()).unwrap();
    for (part, ids) in parts.iter().enumerate() {
        fs::write(super::super::validate::part_file(&place.parts(), part), text(ids)).unwrap();
    }
    (place, batch, store)
}

/// Commits an outcome of a line, which stands behind a blank one.
fn commit(place: &Place, part: usize, at: u64, id: &str, answer: Option<&str>) {
    let claim = Claim::take(&place.sink(part)).unwrap();
    claim.store("{}").unwrap();
    let outcome = match answer {
        Some(answer) => TaskOutcome::Ok(Bytes::copy_from_slice(answer.as_bytes())),
        None => TaskOutcome::Failed(Failure::new(Class::Error, "no")),
    };
    let row = SinkRow {
        row: RowId([u8::try_from(at).unwrap(); 16]),
        number: at + 1,
        id: Some(SourceId::Text(id.to_owned())),
        outcome,
        key: None,
        attempts: 1,
        worker: "w".into(),
        ms: 1,
        tokens: None,
    };
    claim.open(JobId([1; 16])).unwrap().commit(&[row], None).unwrap();
}

/// Of each line in a file that the batch wrote: its name, and its answer or error.
fn lines(store: &Store, id: &str) -> Vec<String> {
    let Ok(text) = fs::read_to_string(store.content("", id).unwrap()) else { return Vec::new() };
    let shown = |line: &str| {
        let line: Value = serde_json::from_str(line).unwrap();
        let (body, code) = (&line["response"]["body"], &line["error"]["code"]);
        format!("{} {}", line["custom_id"].as_str().unwrap(), code.as_str().or(body.as_str()).unwrap())
    };
    text.lines().map(shown).collect()
}

fn written(completed: u64, failed: u64) -> Event {
    written_with(completed, failed, None)
}

fn written_with(completed: u64, failed: u64, usage: Option<Usage>) -> Event {
    let counts = Counts { total: completed + failed, completed, failed };
    Event::Written { counts, has_output: completed > 0, has_errors: failed > 0, usage }
}

fn finalized(place: &Place, batch: &Batch, store: &Store) -> Event {
    finalize(place, batch, store, Duration::from_secs(9)).unwrap()
}

#[test]
fn each_line_of_each_part_is_in_one_of_the_files_once() {
    let dir = tempfile::tempdir().unwrap();
    let (place, batch, store) = begun(dir.path(), Ending::Expired, &[&["a", "b", "c"], &["d", "e"]]);
    commit(&place, 0, 2, "b", Some("B"));
    commit(&place, 0, 1, "a", None);
    commit(&place, 1, 2, "e", Some("E"));
    for _ in 0..2 {
        assert_eq!(finalized(&place, &batch, &store), written(2, 3));
        assert_eq!(lines(&store, &batch.names.output), ["b B", "e E"]);
        assert_eq!(lines(&store, &batch.names.error), ["a upstream_error", "c batch_expired", "d batch_expired"]);
    }
    assert_eq!(store.list("", &Query::parse(None, "file-").unwrap()).unwrap().len(), 3);
}

#[test]
fn of_two_outcomes_of_a_line_the_later_counts() {
    let dir = tempfile::tempdir().unwrap();
    let (place, batch, store) = begun(dir.path(), Ending::Complete, &[&["a"]]);
    commit(&place, 0, 1, "a", None);
    commit(&place, 0, 1, "a", Some("A"));
    assert_eq!(finalized(&place, &batch, &store), written(1, 0));
    assert_eq!(lines(&store, &batch.names.output), ["a A"]);
    assert_eq!(store.get("", &batch.names.error).unwrap(), None);
}

#[test]
fn tokens_are_summed_over_the_answers_that_tell_of_them() {
    let dir = tempfile::tempdir().unwrap();
    let (place, batch, store) = begun(dir.path(), Ending::Complete, &[&["a", "b", "c", "d"], &["e"]]);
    let full = r#"{"usage": {"prompt_tokens": 3, "completion_tokens": 5, "total_tokens": 8,
        "prompt_tokens_details": {"cached_tokens": 2}, "completion_tokens_details": {"reasoning_tokens": 4}}}"#;
    // Of two outcomes of a line the later one's tokens count, as its answer does.
    commit(&place, 0, 1, "a", Some(full));
    commit(&place, 0, 1, "a", Some(full));
    commit(&place, 0, 2, "b", Some(r#"{"usage": {"prompt_tokens": 7, "total_tokens": 7}}"#));
    commit(&place, 0, 3, "c", Some("text"));
    commit(&place, 0, 4, "d", None);
    commit(&place, 1, 1, "e", Some(r#"{"usage": null}"#));
    let usage = Usage { input: 10, cached: 2, output: 5, reasoning: 4, total: 15 };
    assert_eq!(finalized(&place, &batch, &store), written_with(4, 1, Some(usage)));
}

#[test]
fn what_was_never_committed_does_not_count() {
    let dir = tempfile::tempdir().unwrap();
    let (place, batch, store) = begun(dir.path(), Ending::Cancelled, &[&["a", "b"]]);
    commit(&place, 0, 1, "a", Some("A"));
    let path = place.sink(0).path;
    let torn = fs::read_to_string(&path).unwrap().replace("\"row\": 2", "\"row\": 3").replace("\"a\"", "\"b\"");
    fs::write(&path, fs::read_to_string(&path).unwrap() + &torn + "{\"row\": ").unwrap();
    assert_eq!(finalized(&place, &batch, &store), written(1, 1));
    assert_eq!(lines(&store, &batch.names.error), ["b batch_cancelled"]);
}

/// Of each of three lines, all answered, what became of it once the results of a stopped batch were damaged so.
fn salvaged(damage: impl FnOnce(&Path)) -> (Vec<String>, Vec<String>) {
    let dir = tempfile::tempdir().unwrap();
    let (place, batch, store) = begun(dir.path(), Ending::Cancelled, &[&["a", "b", "c"]]);
    for (at, id, answer) in [(1, "a", "A"), (2, "b", "B"), (3, "c", "C")] {
        commit(&place, 0, at, id, Some(answer));
    }
    damage(&place.sink(0).path);
    finalized(&place, &batch, &store);
    (lines(&store, &batch.names.output), lines(&store, &batch.names.error))
}

#[test]
fn what_can_be_read_of_the_damaged_results_of_a_stopped_batch_counts() {
    let without = |ids: &[&str]| ids.iter().map(|id| format!("{id} batch_cancelled")).collect::<Vec<_>>();
    let ok = |lines: &[&str]| lines.iter().map(|line| (*line).to_owned()).collect::<Vec<_>>();
    let gone = salvaged(|path| fs::remove_file(path).unwrap());
    assert_eq!(gone, (vec![], without(&["a", "b", "c"])));
    let torn = salvaged(|path| {
        let text = fs::read(path).unwrap();
        fs::write(path, &text[..text.len() - 9]).unwrap();
    });
    assert_eq!(torn, (ok(&["a A", "b B"]), without(&["c"])));
    let edited = salvaged(|path| {
        let text = fs::read_to_string(path).unwrap();
        fs::write(path, text.replace("\"b\"", "\"b ").replace("{\"row\": 4", "[\"row\": 4")).unwrap();
    });
    assert_eq!(edited, (ok(&["a A"]), without(&["b", "c"])));
    let unknown = salvaged(|path| fs::write(format!("{}.sheaf/state", path.display()), "no state").unwrap());
    assert_eq!(unknown, (ok(&["a A", "b B", "c C"]), vec![]));
}

#[test]
fn a_complete_batch_waits_for_results_that_are_gone() {
    let dir = tempfile::tempdir().unwrap();
    let (place, batch, store) = begun(dir.path(), Ending::Complete, &[&["a"]]);
    commit(&place, 0, 1, "a", Some("A"));
    fs::remove_file(place.sink(0).path).unwrap();
    assert!(finalize(&place, &batch, &store, Duration::from_secs(9)).is_err());
}

#[test]
fn a_batch_that_was_stopped_before_it_was_read_has_no_files() {
    let dir = tempfile::tempdir().unwrap();
    let (place, mut batch, store) = begun(dir.path(), Ending::Cancelled, &[&["a"]]);
    batch.parts.clear();
    assert_eq!(finalized(&place, &batch, &store), written(0, 0));
    assert_eq!(store.list("", &Query::parse(None, "file-").unwrap()).unwrap().len(), 1);
}
