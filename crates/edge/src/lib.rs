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
//! | `files` | what is uploaded, and what batches wrote |
//! | `batches` | jobs made of files, with a life that survives this process |
//! | `page`, `disk` | lists a page at a time; acts on files that a crash leaves done or undone |
//! | `reply` | bodies and errors, as clients of OpenAI's API expect them |

mod answer;
mod batches;
mod disk;
mod files;
mod limits;
mod page;
mod reply;
mod route;
mod serve;

pub use limits::Limits;
pub use serve::{Edge, EdgeConfig, EdgeError};
