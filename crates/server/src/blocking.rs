//! Waiting on a thread that tasks share.

use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::task::block_in_place;

/// Waits here, while the other tasks of this thread, the core perhaps among them, go on elsewhere. For what may take long: it
/// costs a thread's wake and its memory, more than a read of the page cache. A runtime of one thread has nowhere to go on.
pub(crate) fn blocking<T>(wait: impl FnOnce() -> T) -> T {
    match Handle::try_current() {
        Ok(runtime) if runtime.runtime_flavor() == RuntimeFlavor::MultiThread => block_in_place(wait),
        Ok(_) | Err(_) => wait(),
    }
}
