//! The router process: core loop, journal writer, restore, listeners. Shell: it decides nothing that the router machine
//! can decide.
//!
//! Invariants: nothing is acknowledged before the writer has synced it; after an error of the disk the process stops;
//! no stages wait for each other ([`stages`]).

mod blocking;
mod check;
mod compaction;
mod core;
mod datadir;
mod disk;
mod finished;
mod gate;
mod gauges;
mod inbox;
mod indexer;
mod limits;
mod lookups;
mod peer;
mod pending;
mod pulse;
mod recent;
mod restore;
mod server;
mod sessions;
mod spawn;
pub mod stages;
mod store;
#[cfg(test)]
mod tests;
pub mod tokens;
mod writer;

pub use check::{Check, check};
pub use datadir::{DataDir, DataDirError, random};
pub use disk::FileDisk;
pub use gate::{TokenBook, operator_auth};
pub use gauges::{Gauges, Health, Histogram, SIZES};
pub use limits::{Limit, Limits, limits};
pub use restore::RestoreError;
pub use server::{Access, Server, ServerConfig, ServerError, StartError, Stopper};
pub use writer::WriterError;
