//! A source whose rows are made into requests as they are read.

use super::{Malformed, Source, SourceError, SourceRow};
use crate::prompt::Prompt;

/// Rows that are looked at for one that can be rendered, before any work.
const LOOKED_AT: usize = 1_024;
/// Bytes of them.
const LOOKED_AT_BYTES: usize = 16 << 20;

/// Requests in the place of rows. A row that cannot be one is malformed, and costs no other row anything.
pub(crate) struct Prompted {
    source: Box<dyn Source>,
    prompt: Prompt,
    /// Bodies are texts and no JSON.
    is_text: bool,
}

impl Prompted {
    /// Tries the prompt on the first sound row: a name that this row does not have is more likely a slip than a file
    /// full of failures.
    pub(crate) fn open(source: Box<dyn Source>, prompt: Prompt, is_text: bool) -> Result<Self, SourceError> {
        let mut prompted = Self { source, prompt, is_text };
        let mut rows = Vec::new();
        prompted.source.next_batch(LOOKED_AT, LOOKED_AT_BYTES, &mut rows)?;
        if let Some((number, body)) = rows.iter().find_map(|row| Some((row.number, row.body.as_ref().ok()?))) {
            let tried = prompted.prompt.request(body, is_text);
            tried.map_err(|reason| SourceError::Prompt { row: number, reason })?;
        }
        prompted.source.rewind()?;
        Ok(prompted)
    }
}

impl Source for Prompted {
    fn next_batch(&mut self, rows_max: usize, bytes_max: usize, out: &mut Vec<SourceRow>) -> Result<(), SourceError> {
        let from = out.len();
        self.source.next_batch(rows_max, bytes_max, out)?;
        for row in &mut out[from..] {
            let Ok(body) = &row.body else { continue };
            row.body = self
                .prompt
                .request(body, self.is_text)
                .map_err(|reason| Malformed::new(format!("row {}: {reason}", row.number), body));
        }
        Ok(())
    }

    fn rewind(&mut self) -> Result<(), SourceError> {
        self.source.rewind()
    }
}
