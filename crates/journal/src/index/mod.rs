//! The index of finished keys: from a 128-bit key to the numbers of the records that may hold it.
//!
//! One immutable file beside each sealed segment, or beside a run of them once merged. All of it is derived: it can be lost
//! or damaged and rebuilt from its segments ([`crate::Journal::scan_segment`]), and it is never trusted: a lookup yields
//! candidates, and the caller checks the record. A miss costs a second execution, never correctness.
//!
//! ```text
//!   seal ──build──▶ tier 0 ─┐
//!   seal ──build──▶ tier 0 ─┼─merge (4 of a tier, adjacent)──▶ tier 1 ──▶ …
//!   …                       ┘                     dropped when the last of its segments is
//! ```

mod build;
mod file;
mod filter;
mod merge;
#[cfg(test)]
mod tests;
mod tiers;

pub use build::{BuildError, build};
pub use file::{Damaged, Index, LookupError, Span};
pub use merge::{KEYS_MAX, merge};
pub use tiers::{Candidates, Tiers};

use crate::number::Lsn;

/// A key and the record that holds it.
pub type Posting = ([u8; 16], Lsn);
