//! Makes the sink agree with the source as it is now, before anything is submitted.
//!
//! Rows that are finished and still there are kept, under their numbers now; rows that are gone or changed are stale: a
//! file drops them, a table keeps them. What is kept is never submitted again.

use std::collections::HashMap;
use std::io;

use sheaf_task::{BATCH_BYTES_AIM, BATCH_ROWS_MAX, RowId};

use crate::rows::Namer;
use crate::sink::{Judged, Sink, SinkError};
use crate::source::{Source, SourceError};

/// What the sink has of the source.
#[derive(Debug, Default)]
pub(crate) struct Kept {
    /// Every row that is finished and still there, and whether it has an answer.
    pub(crate) names: HashMap<RowId, bool>,
}

/// Why the two cannot be compared.
#[derive(Debug, thiserror::Error)]
pub enum ReconcileError {
    /// The source cannot be read.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// The sink cannot be read or rewritten.
    #[error(transparent)]
    Sink(#[from] SinkError),
    /// The job's state directory cannot be used.
    #[error("cannot keep the samples of rows beside the results: {0}")]
    Samples(io::Error),
    /// The user said stop.
    #[error("interrupted while comparing the results with the rows; the same command resumes")]
    Interrupted,
}

/// Compares, and rewrites the sink where it must be. The source and the namer are rewound afterwards.
pub(crate) fn reconcile(
    source: &mut dyn Source,
    sink: &mut dyn Sink,
    namer: &mut Namer,
    stop: impl Fn() -> bool,
) -> Result<Kept, ReconcileError> {
    let mut judged: Vec<Judged> = sink.finished()?.into_iter().map(|finished| Judged { finished, now: None }).collect();
    if judged.is_empty() {
        return Ok(Kept::default());
    }
    let places: HashMap<RowId, usize> = judged.iter().enumerate().map(|(at, row)| (row.finished.row, at)).collect();
    let mut kept = Kept::default();
    let mut rows = Vec::new();
    loop {
        if stop() {
            return Err(ReconcileError::Interrupted);
        }
        source.next_batch(BATCH_ROWS_MAX, BATCH_BYTES_AIM, &mut rows)?;
        if rows.is_empty() {
            break;
        }
        for row in rows.drain(..) {
            let Some(name) = namer.recall(&row, |name| places.contains_key(&name)) else { continue };
            let Some(place) = places.get(&name) else { continue };
            let judged = &mut judged[*place];
            judged.now = Some(row.number);
            kept.names.insert(name, judged.finished.ok);
        }
    }
    sink.reconcile(&judged)?;
    source.rewind()?;
    namer.rewind();
    Ok(kept)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::path::Path;

    use bytes::Bytes;
    use sheaf_task::{JobId, Outcome, RouterId};

    use super::*;
    use crate::sink::{Claim, Cursor, SinkRow, SinkSpec};
    use crate::source::SourceId;
    use crate::source::SourceRow;

    /// Rows `id=body` or `body`.
    struct Rows {
        rows: Vec<&'static str>,
        at: usize,
    }

    impl Source for Rows {
        fn next_batch(&mut self, rows_max: usize, _: usize, out: &mut Vec<SourceRow>) -> Result<(), SourceError> {
            for text in self.rows.iter().skip(self.at).take(rows_max.min(2)) {
                self.at += 1;
                let (id, body) = text.split_once('=').map_or((None, *text), |(id, body)| (Some(id), body));
                out.push(SourceRow {
                    number: self.at as u64,
                    id: id.map(|id| SourceId::Text(id.into())),
                    body: Ok(Bytes::from_static(body.as_bytes())),
                });
            }
            Ok(())
        }

        fn rewind(&mut self) -> Result<(), SourceError> {
            self.at = 0;
            Ok(())
        }
    }

    /// Runs a job over `rows` to its end; answers are `body#sample`. Returns what was submitted.
    fn run(dir: &Path, rows: &[&'static str]) -> Vec<String> {
        let claim = Claim::take(&SinkSpec::new(dir.join("o.jsonl"))).unwrap();
        if claim.load().unwrap().is_none() {
            claim.store("{}").unwrap();
        }
        let mut sink = claim.open(JobId([1; 16])).unwrap();
        let mut namer = Namer::open(claim.state_dir()).unwrap();
        let mut source = Rows { rows: rows.to_vec(), at: 0 };
        let kept = reconcile(&mut source, &mut *sink, &mut namer, || false).unwrap();
        let (mut batch, mut submitted, mut out) = (Vec::new(), Vec::new(), Vec::new());
        let mut names = HashSet::new();
        loop {
            source.next_batch(10, 1 << 20, &mut batch).unwrap();
            if batch.is_empty() {
                break;
            }
            for row in batch.drain(..) {
                let row = namer.name(row, |name| kept.names.contains_key(&name)).unwrap();
                assert!(names.insert(row.name), "two rows with one name");
                if kept.names.contains_key(&row.name) {
                    continue;
                }
                let answer = format!("{}#{}", String::from_utf8_lossy(row.body.as_ref().unwrap()), row.sample);
                submitted.push(answer.clone());
                out.push(SinkRow {
                    row: row.name,
                    number: row.number,
                    id: row.id,
                    outcome: Outcome::Ok(answer.into()),
                    key: None,
                    attempts: 1,
                    worker: "".into(),
                    ms: 0,
                    tokens: None,
                });
            }
        }
        sink.commit(&out, Some(Cursor { router: RouterId([1; 16]), number: 1 })).unwrap();
        sink.finish().unwrap();
        submitted
    }

    fn lines(dir: &Path) -> Vec<String> {
        let text = std::fs::read_to_string(dir.join("o.jsonl")).unwrap();
        let mut lines: Vec<_> = text
            .lines()
            .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap())
            .map(|line| (line["row"].as_u64().unwrap(), line["output"].as_str().unwrap().to_owned()))
            .collect();
        lines.sort();
        lines.into_iter().map(|(number, output)| format!("{number} {output}")).collect()
    }

    /// First `before`, then `after`: what the second run submits, and what is in the file then.
    fn check(before: &[&'static str], after: &[&'static str], submitted: &[&str], expected: &[&str]) {
        let dir = tempfile::tempdir().unwrap();
        run(dir.path(), before);
        assert_eq!(run(dir.path(), after), submitted, "{before:?} to {after:?}");
        assert_eq!(lines(dir.path()), expected, "{before:?} to {after:?}");
        assert_eq!(run(dir.path(), after), [] as [&str; 0], "{after:?} again");
        assert_eq!(lines(dir.path()), expected, "{after:?} again");
    }

    #[test]
    fn rows_without_ids_are_their_bodies() {
        check(&["a", "b", "c"], &["a", "b", "c"], &[], &["1 a#0", "2 b#0", "3 c#0"]);
        check(&["a", "b", "c"], &["x", "a", "b", "c"], &["x#0"], &["1 x#0", "2 a#0", "3 b#0", "4 c#0"]);
        check(&["a", "b", "c"], &["a", "c"], &[], &["1 a#0", "2 c#0"]);
        check(&["a", "b", "c"], &["c", "B", "a"], &["B#0"], &["1 c#0", "2 B#0", "3 a#0"]);
        check(&["a", "b"], &[], &[], &[]);
    }

    #[test]
    fn equal_rows_are_told_apart_by_their_ordinals() {
        check(&["a", "a", "a"], &["a", "a"], &[], &["1 a#0", "2 a#1"]);
        check(&["a", "b", "a"], &["a", "a", "a"], &["a#2"], &["1 a#0", "2 a#1", "3 a#2"]);
        check(&["a", "a"], &["b", "a", "b", "a"], &["b#0", "b#1"], &["1 b#0", "2 a#0", "3 b#1", "4 a#1"]);
    }

    #[test]
    fn a_row_with_an_id_keeps_its_sample_for_life() {
        check(&["1=a", "2=a", "3=a"], &["2=a", "3=a"], &[], &["1 a#1", "2 a#2"]);
        check(&["1=a", "2=a", "3=a"], &["3=a", "2=a", "1=a"], &[], &["1 a#2", "2 a#1", "3 a#0"]);
        check(&["1=a", "2=a"], &["9=a", "1=a", "2=a"], &["a#2"], &["1 a#2", "2 a#0", "3 a#1"]);
        check(&["1=a", "2=a", "3=a"], &["9=a", "1=a", "3=a"], &["a#1"], &["1 a#1", "2 a#0", "3 a#2"]);
        check(&["1=a", "2=b"], &["1=b", "2=b"], &["b#1"], &["1 b#1", "2 b#0"]);
    }

    #[test]
    fn ids_need_not_be_unique() {
        check(&["1=a", "1=a", "1=b"], &["1=a", "1=a", "1=b"], &[], &["1 a#0", "2 a#1", "3 b#0"]);
        check(&["1=a", "1=a"], &["1=a"], &[], &["1 a#0"]);
        check(&["1=a"], &["1=a", "1=a"], &["a#1"], &["1 a#0", "2 a#1"]);
    }

    #[test]
    fn a_stop_is_heeded() {
        let dir = tempfile::tempdir().unwrap();
        run(dir.path(), &["a"]);
        let claim = Claim::take(&SinkSpec::new(dir.path().join("o.jsonl"))).unwrap();
        let mut sink = claim.open(JobId([1; 16])).unwrap();
        let mut source = Rows { rows: vec!["a"], at: 0 };
        let mut namer = Namer::open(dir.path()).unwrap();
        let stopped = reconcile(&mut source, &mut *sink, &mut namer, || true);
        assert!(matches!(stopped, Err(ReconcileError::Interrupted)));
    }
}
