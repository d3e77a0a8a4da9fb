//! The server process: makes the loops and their channels, and ends when one of them does.
//!
//! It gets the listening socket as its standard input, and a lifeline to the supervisor as its standard output. When the
//! supervisor dies the lifeline ends, and the server takes its programs with it.

use std::io::{self, Read};
use std::net::TcpListener;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::process::{self, ExitCode};
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::mpsc;
use std::thread::{self, Thread};

use crate::accept::{self, Tickets};
use crate::args::Config;
use crate::family;
use crate::limits;
use crate::queue::Keeper;
use crate::reader::Door;

/// Exit code after a fault of crab itself; that of a Rust program that panics.
const EXIT_FAULT: i32 = 101;
/// Bytes of stack of the loops.
const STACK: usize = 128 << 10;

/// Serves until something breaks.
///
/// # Errors
/// When the certificate, the descriptors or the command line cannot work.
pub(crate) fn run(mut config: Config) -> Result<ExitCode, String> {
    let listener = TcpListener::from(io::stdin().as_fd().try_clone_to_owned().map_err(no_supervisor)?);
    listener.local_addr().map_err(no_supervisor)?;
    let lifeline = UnixStream::from(io::stdout().as_fd().try_clone_to_owned().map_err(no_supervisor)?);
    limits::fit(&mut config)?;
    if config.per_address == 0 {
        config.per_address = config.readers.div_ceil(2);
    }
    let door = Door::new(&config)?;
    family::adopt_orphans();
    let config = Arc::new(config);
    // One event for each reader or ticket, and one of the handler: nobody ever waits to tell.
    let (events, inbox) = mpsc::sync_channel(config.readers + 4);
    let tell = events.clone();
    vital("lifeline", move || end_with(lifeline)).map_err(no_thread)?;
    let count = Arc::new(AtomicUsize::new(0));
    let seen = Arc::clone(&count);
    let accepting = vital("accept", move || accept::run(&listener, &seen, &tell)).map_err(no_thread)?;
    let _end = EndOfServer;
    Keeper::new(config, door, Tickets { count, accepting }, events).run(&inbox);
    Ok(ExitCode::FAILURE)
}

fn no_supervisor(error: io::Error) -> String {
    format!("the server part is started by crab itself: {error}")
}

fn no_thread(error: io::Error) -> String {
    format!("no thread: {error}")
}

/// A thread without which there is no server: when it ends, in whatever way, so does the process.
fn vital(name: &str, work: impl FnOnce() + Send + 'static) -> io::Result<Thread> {
    let body = move || {
        let _end = EndOfServer;
        work();
    };
    thread::Builder::new().name(name.to_owned()).stack_size(STACK).spawn(body).map(|handle| handle.thread().clone())
}

struct EndOfServer;

impl Drop for EndOfServer {
    fn drop(&mut self) {
        process::exit(EXIT_FAULT);
    }
}

/// Waits for the end of the supervisor, and leaves nothing running.
fn end_with(mut lifeline: UnixStream) {
    // Nothing is ever sent on it: any return of the read is the end.
    let _ = lifeline.read(&mut [0]);
    family::end_all();
}
