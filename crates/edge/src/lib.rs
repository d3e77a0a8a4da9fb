//! The HTTP front door: OpenAI's API before a router. Shell.
//!
//! A client of the router like any other, over the in-process carrier: there is no second way in. What it knows of a
//! call it can lose: the journal has the tasks, its own directory has files and batches.
//!
//! | module | what |
//! |---|---|
//! | `serve` | takes connections, within its limits, and ends them |
//! | `route` | which path means what |
//! | `answer` | from a request to the handler that answers it |
//! | `reply` | bodies and errors, as clients of OpenAI's API expect them |
//! | `admin` | a listener of its own, for operators: health, metrics, snapshots |

mod admin;
mod answer;
mod limits;
mod reply;
mod route;
mod serve;

pub use admin::{Admin, AdminError};
pub use limits::Limits;
pub use serve::{Edge, EdgeConfig, EdgeError};
