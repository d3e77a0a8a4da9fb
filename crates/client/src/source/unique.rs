//! Rows for a sink that has one place for each id: of rows with equal ids the first is worked on, every later one is a
//! malformed row. It knows no sink.

use std::collections::HashSet;

use super::{Malformed, Source, SourceError, SourceId, SourceRow};

/// A source whose ids are made unique.
pub(crate) struct UniqueIds {
    source: Box<dyn Source>,
    /// Digests of the ids of this scan: 16 bytes a row.
    seen: HashSet<[u8; 16]>,
    /// Rows of this scan that came too late, and the id of the first of them.
    late: Option<(u64, SourceId)>,
    said: bool,
}

impl UniqueIds {
    pub(crate) fn new(source: Box<dyn Source>) -> Self {
        Self { source, seen: HashSet::new(), late: None, said: false }
    }

    fn judge(&mut self, row: &mut SourceRow) {
        let Some(id) = &row.id else { return };
        let identity = id.identity();
        let mut digest = [0; 16];
        digest.copy_from_slice(&blake3::hash(&identity).as_bytes()[..16]);
        if self.seen.insert(digest) {
            return;
        }
        let message = format!("duplicate id {id}: an earlier row has it, and the table has one place for each id");
        let bytes = match &row.body {
            Ok(body) => [&identity, body.as_ref()].concat(),
            Err(malformed) => [&identity, malformed.digest.as_slice()].concat(),
        };
        row.body = Err(Malformed::new(message, &bytes));
        let id = row.id.take();
        self.late = match (self.late.take(), id) {
            (Some((rows, first)), _) => Some((rows + 1, first)),
            (None, id) => id.map(|id| (1, id)),
        };
    }

    /// Once, when the first scan is over.
    fn say(&mut self) {
        if let (Some((rows, first)), false) = (&self.late, self.said) {
            tracing::warn!("{rows} rows have the id of an earlier row, and fail for it; the first such id is {first}");
            self.said = true;
        }
    }
}

impl Source for UniqueIds {
    fn next_batch(&mut self, rows_max: usize, bytes_max: usize, out: &mut Vec<SourceRow>) -> Result<(), SourceError> {
        let from = out.len();
        self.source.next_batch(rows_max, bytes_max, out)?;
        out[from..].iter_mut().for_each(|row| self.judge(row));
        if out.len() == from {
            self.say();
        }
        Ok(())
    }

    fn rewind(&mut self) -> Result<(), SourceError> {
        self.say();
        self.seen.clear();
        self.late = None;
        self.source.rewind()
    }
}

impl Drop for UniqueIds {
    fn drop(&mut self) {
        self.say();
    }
}
