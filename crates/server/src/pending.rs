//! Records that the machine has emitted and the writer has not taken: the next batch of the group commit.

use bytes::Bytes;
use sheaf_journal::{Class, FRAME_EXTRA_MAX};
use sheaf_roles::router::{Lsn, Record};

use crate::recent::Batch;
use crate::writer::Append;

/// The next batch, payloads one behind the other.
#[derive(Debug)]
pub(crate) struct Pending {
    /// LSN of the first record in `buffer`.
    first: Lsn,
    buffer: Vec<u8>,
    marks: Vec<(u8, u32)>,
    /// Some of them are new work.
    has_intake: bool,
    /// The writer has a batch.
    is_writing: bool,
}

/// A batch is handed over in one piece; its offsets are 32 bits.
const BATCH_BYTES_MAX: usize = 1 << 30;

impl Pending {
    /// Nothing yet; the next record is `next`.
    pub(crate) fn new(next: Lsn) -> Self {
        Self { first: next, buffer: Vec::new(), marks: Vec::new(), has_intake: false, is_writing: false }
    }

    /// Bytes that wait, at most as many as the journal will write.
    pub(crate) fn bytes(&self) -> usize {
        self.buffer.len() + self.marks.len() * FRAME_EXTRA_MAX
    }

    /// Adds the record after the last one.
    pub(crate) fn push(&mut self, lsn: Lsn, record: &Record) {
        assert_eq!(lsn.0, self.first.0 + self.marks.len() as u64, "records come in order, without gaps");
        record.encode_into(&mut self.buffer);
        assert!(self.buffer.len() < BATCH_BYTES_MAX, "intake stops long before");
        self.marks.push((record.kind(), self.buffer.len() as u32));
        self.has_intake |= matches!(record, Record::Submitted(_));
    }

    /// What there is, if the writer is free to take it. Until [`Pending::written`] it is not.
    pub(crate) fn take(&mut self) -> Option<Append> {
        if self.is_writing || self.marks.is_empty() {
            return None;
        }
        self.is_writing = true;
        let marks = std::mem::take(&mut self.marks);
        let first = self.first.0;
        self.first = Lsn(first + marks.len() as u64);
        let class = if std::mem::take(&mut self.has_intake) { Class::Intake } else { Class::Upkeep };
        // The next batch may be as large: one allocation for all of its records.
        let room = Vec::with_capacity(self.buffer.len());
        let mut buffer = std::mem::replace(&mut self.buffer, room);
        // It stays for a while, and what it had room for would stay with it.
        buffer.shrink_to_fit();
        let batch = Batch { first, buffer: Bytes::from(buffer), marks };
        Some(Append { batch, class })
    }

    /// The writer has done its batch.
    pub(crate) fn written(&mut self) {
        self.is_writing = false;
    }
}
