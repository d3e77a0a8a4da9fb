//! The HTTP front door: OpenAI's API before a router. Shell.
//!
//! A client of the router like any other, over the in-process carrier: there is no second way in. What it knows of a
//! call it can lose: the journal has the tasks, its own directory has files and batches.
//!
//! | module | what |
//! |---|---|
//! | `bound` | addresses, taken before anything is said |
//! | `serve`, `io`, `wire` | takes connections, within its limits, and ends them |
//! | `turns` | says by itself what hyper would say barely |
//! | `admit` | who is let in, and who is told to come later |
//! | `counts` | what the door counts of itself |
//! | `route` | which path means what |
//! | `answer` | from a request to the handler that answers it |
//! | `files` | what is uploaded, and what batches wrote |
//! | `batches` | jobs made of files, with a life that survives this process |
//! | `page`, `index` | lists a page at a time, of what is known in memory |
//! | `disk` | acts on files that a crash leaves done or undone |
//! | `reply` | bodies and errors, as clients of OpenAI's API expect them |
//! | `online`, `tasks` | calls: requests that wait for their answer; `sse` and `vectors` are forms of it |
//! | `calls` | the machine of calls, and its session with the router |
//! | `offers` | what workers offer |
//! | `outcome` | what HTTP says of how a task ended |
//! | `who`, `tenants` | whom a request speaks for, and that one's line to the router |
//! | `body`, `names` | a call's body, read within bounds; a call's name |
//! | `admin` | a listener of its own, for operators: health, metrics, snapshots |

mod admin;
mod admit;
mod answer;
mod batches;
mod body;
mod bound;
mod calls;
mod counts;
mod disk;
mod files;
mod index;
mod io;
mod limits;
mod names;
mod offers;
mod online;
mod outcome;
mod page;
mod reply;
mod route;
mod serve;
mod sse;
mod tasks;
mod tenants;
mod turns;
mod vectors;
mod who;
mod wire;

pub use admin::Admin;
pub use admit::LightConfig;
pub use bound::{BindError, Bound, ListenConfig, Role};
pub use calls::CallLimits;
pub use counts::{Counted, Counts};
pub use limits::Limits;
pub use serve::{Edge, EdgeConfig, EdgeError};
