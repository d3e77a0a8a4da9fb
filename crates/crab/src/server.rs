//! The server process: the accept loop, and nobody above it. When that panics the process ends, and the supervisor makes
//! another: what it held is lost, the listening socket and what waits there are not.
//!
//! It gets the listening socket as its standard input, and a lifeline to the supervisor as its standard output, on which it says
//! one byte when it is ready. When the supervisor dies the lifeline ends, and the server takes its programs with it.

use std::io::{self, Read, Write};
use std::net::TcpListener;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::process::{self, ExitCode};
use std::thread;

use foreign::heap;

use crate::accept::Accept;
use crate::args::Config;
use crate::family;
use crate::limits;
use crate::reader::Door;

/// Bytes of stack for a thread that waits.
const STACK: usize = 128 << 10;

/// Serves until there was nothing to do for a while, or something breaks.
///
/// # Errors
/// When the certificate, the descriptors or the command line cannot work.
pub(crate) fn run(mut config: Config) -> Result<ExitCode, String> {
    let listener = TcpListener::from(io::stdin().as_fd().try_clone_to_owned().map_err(no_supervisor)?);
    listener.local_addr().map_err(no_supervisor)?;
    let mut lifeline = UnixStream::from(io::stdout().as_fd().try_clone_to_owned().map_err(no_supervisor)?);
    heap::keep_small();
    limits::fit(&mut config)?;
    if config.per_address == 0 {
        config.per_address = config.readers.div_ceil(2);
    }
    let door = Door::new(&config)?;
    family::adopt_orphans();
    lifeline.write_all(b"!").map_err(no_supervisor)?;
    let lifeline = thread::Builder::new().stack_size(STACK).spawn(move || end_with(lifeline));
    lifeline.and_then(|_| Accept::new(listener, config, door)?.run()).map_err(|error| error.to_string())?;
    Ok(ExitCode::SUCCESS)
}

fn no_supervisor(error: io::Error) -> String {
    format!("the server part is started by crab itself: {error}")
}

/// Waits for the end of the supervisor, and leaves nothing running.
fn end_with(mut lifeline: UnixStream) {
    // Nothing is ever sent on it: any return of the read is the end.
    let _ = lifeline.read(&mut [0]);
    family::end_all();
    process::exit(0);
}
