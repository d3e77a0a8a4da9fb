//! Everything of C that crab calls by itself, and all its `unsafe`; the rest of crab forbids it.
//!
//! It is there for memory. A process that is linked with libssl has 1.7 MB more from its first instruction on, and the
//! supervisor, which is all that is left of crab at rest, needs none of it; so libssl is loaded by the server alone, when there
//! is a certificate. It knows nothing of HTTP, deadlines or programs.

pub mod heap;
#[cfg(feature = "libssl")]
pub mod libssl;
