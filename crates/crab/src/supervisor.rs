//! The supervisor process: owns the listening socket, and starts the server again whatever happened to it, be it a panic, a
//! signal or the want of memory. What waits in the backlog of the socket survives that. A server that had nothing to do ends, and
//! the next connection brings another: at rest there is nothing but the supervisor, which has no TLS in its memory.
//!
//! It knows nothing of HTTP, TLS or programs. There is no orderly shutdown: kill it, and the server ends with its programs.

use std::io::{self, Read};
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::process::{Pid, WaitOptions, WaitStatus, wait};

use crate::EXIT_USAGE;
use crate::args::Config;
use crate::family;
use crate::program;
use crate::say;

/// First word of the command line of the server process.
pub(crate) const SERVER_WORD: &str = "--as-server";

/// How a server ends that had nothing to do, and one that cannot work.
const AT_REST: i32 = 0;
const EXIT_WRONG: i32 = EXIT_USAGE as i32;
/// Connections that the kernel holds for us. Std asks for as many as the system allows, often 4,096: too many to wait behind.
const BACKLOG: i32 = 64;
/// A server that lived so long was not broken from the start.
const HEALTHY: Duration = Duration::from_secs(10);
/// Shortest and longest pause before a server is started that failed soon.
const PAUSE_FIRST: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// Starts servers, one after the other.
///
/// # Errors
/// When there is no such program, or the address cannot be listened on.
pub(crate) fn run(config: &Config) -> Result<ExitCode, String> {
    program::check(&config.program)?;
    let listener = config.listen.ok_or(io::ErrorKind::InvalidInput.into()).and_then(TcpListener::bind);
    let listener = listener.and_then(|listener| Ok(rustix::net::listen(&listener, BACKLOG).map(|()| listener)?));
    let listener = listener.map_err(|error| format!("cannot listen there: {error}"))?;
    let port = listener.local_addr().map_or(0, |address| address.port());
    let scheme = if config.cert.is_some() { "HTTPS" } else { "HTTP" };
    let mut news = Some(format!("listening for {scheme} on port {port}"));
    family::adopt_orphans();
    let mut pause = Duration::ZERO;
    loop {
        let started = Instant::now();
        let end = serve(&listener, &mut news);
        family::end_all();
        match end.as_ref().ok().and_then(|status| status.exit_status()) {
            Some(AT_REST) => {
                pause = Duration::ZERO;
                wait_for_a_client(&listener)?;
                continue;
            }
            Some(EXIT_WRONG) if news.is_some() => return Ok(ExitCode::from(EXIT_USAGE)),
            _ => {}
        }
        pause = if started.elapsed() >= HEALTHY { PAUSE_FIRST } else { (2 * pause).clamp(PAUSE_FIRST, PAUSE_MAX) };
        say::line(&format!("the server ended ({}) and starts again", told(&end)));
        thread::sleep(pause);
    }
}

/// The life of one server. The first that is ready is news.
fn serve(listener: &TcpListener, news: &mut Option<String>) -> io::Result<WaitStatus> {
    let (mut lifeline, far_end) = UnixStream::pair()?;
    let mut command = Command::new("/proc/self/exe");
    command.arg0("crab").arg(SERVER_WORD).args(std::env::args_os().skip(1));
    command.stdin(Stdio::from(OwnedFd::from(listener.try_clone()?))).stdout(Stdio::from(OwnedFd::from(far_end)));
    // A Ctrl-C is for the supervisor; the server ends by its lifeline, and cleans up.
    let child = command.process_group(0).spawn()?;
    drop(command);
    if matches!(lifeline.read(&mut [0]), Ok(1))
        && let Some(news) = news.take()
    {
        say::line(&news);
    }
    let status = wait_for(Pid::from_child(&child))?;
    drop(lifeline);
    Ok(status)
}

/// The rest of crab: until a connection is there to be accepted.
fn wait_for_a_client(listener: &TcpListener) -> Result<(), String> {
    loop {
        match poll(&mut [PollFd::new(listener, PollFlags::IN)], None) {
            Ok(_) => return Ok(()),
            Err(Errno::INTR) => {}
            Err(error) => return Err(format!("cannot wait for clients: {error}")),
        }
    }
}

/// Waits for this child, and reaps every other that was left to us.
fn wait_for(pid: Pid) -> io::Result<WaitStatus> {
    loop {
        match wait(WaitOptions::empty()) {
            Ok(Some((ended, status))) if ended == pid => return Ok(status),
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

fn told(end: &io::Result<WaitStatus>) -> String {
    match end {
        Ok(status) => match (status.exit_status(), status.terminating_signal()) {
            (Some(code), _) => format!("exit {code}"),
            (_, signal) => format!("signal {}", signal.unwrap_or_default()),
        },
        Err(error) => error.to_string(),
    }
}
