//! What a queue must offer to be measured: a server that can be started, and connections that submit, work and collect.
//!
//! Invariant: a figure counts only what the server confirmed as it promises to keep it, and a task or result is removed
//! only when what follows from it was confirmed.

use std::path::PathBuf;

use anyhow::Result;

use crate::server::{Ground, Server};

/// A kind of server, with its settings.
pub(crate) trait Peer: Sync {
    fn profile(&self) -> Profile;

    /// Starts the server with its data below `ground`, and makes its two queues: of tasks, and of results.
    fn start(&self, ground: Ground) -> Result<Server>;

    /// A connection. Each is used for one of the three things only.
    fn connect(&self, server: &Server) -> Result<Box<dyn Link>>;
}

/// What the driver must know of a peer.
#[derive(Clone, Debug)]
pub(crate) struct Profile {
    pub(crate) name: &'static str,
    /// Nothing is confirmed before it is synced.
    pub(crate) synced: bool,
    /// Tasks that are handed over at once where the rate counts.
    pub(crate) batch: usize,
    /// Workers at once, each with a thread and a connection of its own.
    pub(crate) workers: usize,
    /// The programs that must be there.
    pub(crate) programs: &'static [&'static str],
    /// Where they come from.
    pub(crate) package: Package,
}

/// A package that has a server.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Package {
    Debian(&'static str),
    Python(&'static str),
}

/// A connection to a server, blocking. Calls that find nothing to do come back within about a second.
pub(crate) trait Link: Send {
    /// Hands over tasks. May return before they are confirmed, as long as what is open stays within a window.
    fn submit(&mut self, bodies: &[Vec<u8>]) -> Result<()>;

    /// Waits until all that was submitted is confirmed.
    fn settle(&mut self) -> Result<()>;

    /// Takes up to `most` tasks, answers each with its own body, and returns how many.
    fn work(&mut self, most: usize) -> Result<usize>;

    /// Takes up to `most` results and removes them.
    fn collect(&mut self, most: usize) -> Result<Vec<Vec<u8>>>;
}

/// Where a program is: in `PATH`, in the directories that Debian keeps servers in, or in our own.
pub(crate) fn program(name: &str, tools: &std::path::Path) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut places: Vec<PathBuf> = vec![tools.join("bin"), "/usr/lib/rabbitmq/bin".into()];
    places.extend(std::env::split_paths(&path));
    places.push("/usr/sbin".into());
    if let Ok(versions) = std::fs::read_dir("/usr/lib/postgresql") {
        places.extend(versions.flatten().map(|version| version.path().join("bin")));
    }
    places.into_iter().map(|place| place.join(name)).find(|path| path.is_file())
}
