//! Source ids by row number, in little memory: a job may have ten million rows open.

use crate::source::SourceId;

/// The ids of rows, noted in the order of their numbers.
///
/// Row numbers have gaps (finished rows, blank lines), so ids are found by search over the noted numbers. Nothing is kept
/// for sources without ids.
#[derive(Debug, Default)]
pub(crate) struct Ids {
    /// (row number, where its id begins in `bytes`), ascending.
    starts: Vec<(u64, u64)>,
    bytes: Vec<u8>,
}

const INT: u8 = 0;
const TEXT: u8 = 1;

impl Ids {
    /// Notes the id of a row. Rows come by ascending number; those that come again are known.
    pub(crate) fn note(&mut self, number: u64, id: &SourceId) {
        if self.starts.last().is_some_and(|(last, _)| *last >= number) {
            return;
        }
        self.starts.push((number, self.bytes.len() as u64));
        match id {
            SourceId::Int(number) => {
                self.bytes.push(INT);
                self.bytes.extend_from_slice(&number.to_le_bytes());
            }
            SourceId::Text(text) => {
                self.bytes.push(TEXT);
                self.bytes.extend_from_slice(text.as_bytes());
            }
        }
    }

    /// The id of a row; `None` where none was noted.
    pub(crate) fn of(&self, number: u64) -> Option<SourceId> {
        let at = self.starts.binary_search_by_key(&number, |(noted, _)| *noted).ok()?;
        let start = usize::try_from(self.starts[at].1).ok()?;
        let end = self.starts.get(at + 1).map_or(Some(self.bytes.len()), |(_, end)| usize::try_from(*end).ok())?;
        let (kind, rest) = self.bytes.get(start..end)?.split_first()?;
        match *kind {
            INT => Some(SourceId::Int(i64::from_le_bytes(rest.try_into().ok()?))),
            _ => Some(SourceId::Text(std::str::from_utf8(rest).ok()?.to_owned())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_come_back_as_they_were() {
        let mut ids = Ids::default();
        let rows = [
            (3, Some(SourceId::Int(-7))),
            (4, None),
            (9, Some(SourceId::Text("é".into()))),
            (10, Some(SourceId::Text(String::new()))),
        ];
        for (number, id) in &rows {
            if let Some(id) = id {
                ids.note(*number, id);
            }
        }
        for (number, id) in rows {
            assert_eq!(ids.of(number), id);
        }
        assert_eq!(ids.of(5), None);
    }
}
