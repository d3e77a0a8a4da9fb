//! A whole cluster in one thread: seeded clock, network and disks, and the checkers that watch it. Pure.
//!
//! One router, some workers and some clients, each the real machines behind the real ports on real sessions and the real
//! journal; what is simulated is time, the network, the disks, the executors, the sources and the sinks. A seed decides
//! everything, so a seed that fails is a test.
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
