//! A whole cluster in one thread: seeded clock, network and disks, and the checkers that watch it. Pure.
//!
//! One router, some workers and some clients, each the real machines behind the real ports on real sessions and the real
//! journal; what is simulated is time, the network, the disks, the executors, the sources and the sinks. A seed decides
//! everything, so a seed that fails is a test.
//!
//! Most runs are small. Few have one of what [`Oddities`] lists: tiny windows, slow sinks, small segments that are indexed
//! and compacted, cloned worker directories, disks put back to an old copy, hosts that sleep for hours, workers that lie
//! about their room or come and go, second jobs, crowds of tiny jobs, a small job beside a huge one.
//!
//! What the checkers demand ([`Violation`]): a row is in its sink once, with the right outcome, and none is missing when its
//! job is complete; what was acknowledged is on disk after every restart or in its sink; an answer that is kept for later
//! askers is found, and nothing executes for it; no attempt begins twice where its worker could know; a worker is told only
//! of results that the router read; our own peers never break the protocol; every job ends. Where a disk went back in
//! time, what was acknowledged since is not demanded of it: a client may then be refused, loudly, and a worker whose name
//! is used twice may be turned away; the sinks' promise stays.
//!
//! ```text
//! Plan (from the seed) ─► World ─ agenda ─► hosts: RouterHost, WorkerHost*, ClientHost* ─► Ledger: what must hold
//! ```

mod agenda;
mod archive;
mod client_host;
mod env;
mod ledger;
mod mutation;
mod network;
mod oddities;
mod orders;
mod plan;
mod router_host;
mod scenario;
mod shrink;
mod spool;
mod story;
mod trace;
mod worker_host;
mod world;

pub use ledger::Violation;
pub use mutation::Planted;
pub use oddities::Oddities;
pub use plan::{Plan, Who};
pub use scenario::{Reason, Scenario, ScenarioError};
pub use shrink::shrink;
pub use trace::Show;
pub use world::{Outcome, World};
