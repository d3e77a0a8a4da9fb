//! The latest records, so that a body that is assigned soon after it came is not read back from disk.
//!
//! Bounded in bytes: the oldest batch leaves first. A miss costs a read, never correctness.

use std::collections::VecDeque;

use bytes::Bytes;

/// The latest records, by LSN.
#[derive(Debug)]
pub(crate) struct Recent {
    batches: VecDeque<Batch>,
    bytes: usize,
    bytes_max: usize,
}

/// Payloads of consecutive records in one buffer.
#[derive(Clone, Debug)]
pub(crate) struct Batch {
    /// LSN of the first.
    pub first: u64,
    /// All payloads, one after the other.
    pub buffer: Bytes,
    /// Each record's kind, and where it ends in `buffer`.
    pub marks: Vec<(u8, u32)>,
}

impl Batch {
    /// Kind and payload of the record `lsn`, if it is in this batch.
    pub(crate) fn record(&self, lsn: u64) -> Option<(u8, Bytes)> {
        let at = usize::try_from(lsn.checked_sub(self.first)?).ok()?;
        let (kind, end) = *self.marks.get(at)?;
        let start = if at == 0 { 0 } else { self.marks[at - 1].1 as usize };
        Some((kind, self.buffer.slice(start..end as usize)))
    }

    /// Its records, in order.
    pub(crate) fn records(&self) -> impl Iterator<Item = (u8, &[u8])> {
        let mut start = 0;
        self.marks.iter().map(move |(kind, end)| {
            let payload = &self.buffer[start..*end as usize];
            start = *end as usize;
            (*kind, payload)
        })
    }

    fn cost(&self) -> usize {
        self.buffer.len() + self.marks.len() * size_of::<(u8, u32)>()
    }
}

impl Recent {
    /// Keeps at most `bytes_max` bytes, but always the last batch.
    pub(crate) fn new(bytes_max: usize) -> Self {
        Self { batches: VecDeque::new(), bytes: 0, bytes_max }
    }

    /// Adds the records that come after all that were added before.
    pub(crate) fn push(&mut self, batch: Batch) {
        self.bytes += batch.cost();
        self.batches.push_back(batch);
        while self.bytes > self.bytes_max && self.batches.len() > 1 {
            if let Some(oldest) = self.batches.pop_front() {
                self.bytes -= oldest.cost();
            }
        }
    }

    /// Kind and payload of the record `lsn`, if it is still here.
    pub(crate) fn record(&self, lsn: u64) -> Option<(u8, Bytes)> {
        let after = self.batches.partition_point(|batch| batch.first <= lsn);
        self.batches.get(after.checked_sub(1)?)?.record(lsn)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(first: u64, texts: &[&str]) -> Batch {
        let mut marks = Vec::new();
        let mut buffer = Vec::new();
        for text in texts {
            buffer.extend_from_slice(text.as_bytes());
            marks.push((7, buffer.len() as u32));
        }
        Batch { first, buffer: buffer.into(), marks }
    }

    #[test]
    fn finds_what_it_keeps_and_drops_the_oldest() {
        let mut recent = Recent::new(40);
        recent.push(batch(1, &["a", "", "ccc"]));
        recent.push(batch(4, &["dddd"]));
        assert_eq!(recent.record(3), Some((7, Bytes::from_static(b"ccc"))));
        assert_eq!(recent.record(2), Some((7, Bytes::from_static(b""))));
        assert_eq!(recent.record(5), None);
        recent.push(batch(5, &["eeeeeeeeeeeeeeeeeeee"]));
        assert_eq!(recent.record(1), None);
        assert_eq!(recent.record(4), Some((7, Bytes::from_static(b"dddd"))));
        assert_eq!(recent.record(0), None);
    }
}
