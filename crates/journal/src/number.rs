//! The numbers of the journal. Three kinds, never mixed: what callers name records by, who wrote them, and the order of
//! frames on the disk.

use std::fmt;

/// Names a caller's record for life: 1, 2, 3 … without gaps, in the order of appending. Compaction moves bytes, not names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lsn(pub u64);

/// One opening of the journal. Each open takes the next.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Epoch(pub u32);

/// Number of a frame on the disk: every frame has that of the one before it, plus one; also the journal's own frames
/// (marks, moved records), which take no [`Lsn`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Seq(pub(crate) u64);

impl Lsn {
    /// Before the first record.
    pub const ZERO: Self = Self(0);

    /// The number after this one.
    pub fn next(self) -> Self {
        self.ahead(1)
    }

    /// The number so many after this one; numbers do not run out, whatever damaged bytes say.
    pub(crate) fn ahead(self, count: u8) -> Self {
        Self(self.0.saturating_add(count.into()))
    }

    /// The number before this one; that of zero is zero.
    pub fn prev(self) -> Self {
        Self(self.0.saturating_sub(1))
    }
}

impl Epoch {
    /// The epoch after this one.
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl Seq {
    pub(crate) fn next(self) -> Self {
        Self(self.0 + 1)
    }

    pub(crate) fn prev(self) -> Self {
        Self(self.0.saturating_sub(1))
    }
}

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}
