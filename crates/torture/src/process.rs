//! One real process that this program started: its end is waited for, its log is a file, and it does not outlive us.

use std::fs::OpenOptions;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use rustix::process::{Pid, Signal};

/// A process, running or ended.
pub(crate) struct Process {
    name: String,
    log: PathBuf,
    child: Child,
}

/// Between two looks at whether something has happened.
const LOOK: Duration = Duration::from_millis(2);

impl Process {
    /// Starts `command` in `dir`. What it says is appended to `NAME.log` there.
    pub(crate) fn start(dir: &Path, name: &str, mut command: Command) -> anyhow::Result<Self> {
        let log = dir.join(format!("{name}.log"));
        let file = OpenOptions::new().create(true).append(true).open(&log)?;
        command.current_dir(dir).stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
        for variable in ["SHEAF_TOKEN", "SHEAF_JOIN", "SHEAF_DATA", "SHEAF_WORKER_DATA"] {
            command.env_remove(variable);
        }
        let child = command.spawn().with_context(|| format!("{name} does not start"))?;
        Ok(Self { name: name.to_owned(), log, child })
    }

    pub(crate) fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// How it ended, if it has.
    pub(crate) fn ended(&mut self) -> anyhow::Result<Option<ExitStatus>> {
        Ok(self.child.try_wait()?)
    }

    /// `kill -9`, and waits until it is gone. One that has ended already is left as it is.
    pub(crate) fn kill9(&mut self) -> anyhow::Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Sends a signal to this process alone.
    pub(crate) fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        rustix::process::kill_process(self.pid(), signal).with_context(|| format!("{signal:?} to {}", self.name))
    }

    /// Waits for the end, not longer than `patience`.
    pub(crate) fn wait(&mut self, patience: Duration) -> anyhow::Result<ExitStatus> {
        let mut status = None;
        wait_until(patience, || {
            status = self.child.try_wait()?;
            Ok(status.is_some())
        })?;
        match status {
            Some(status) => Ok(status),
            None => bail!("{} did not end within {} s; its log ends:\n{}", self.name, patience.as_secs(), self.tail()),
        }
    }

    /// The end of its log.
    pub(crate) fn tail(&self) -> String {
        let text = std::fs::read(&self.log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        let text = text.unwrap_or_else(|error| format!("({error})"));
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Err(error) = self.kill9() {
            eprintln!("torture: {} may still run: {error}", self.name);
        }
    }
}

/// Looks until `holds`, or `patience` is over. Says whether it came to hold.
pub(crate) fn wait_until(patience: Duration, mut holds: impl FnMut() -> anyhow::Result<bool>) -> anyhow::Result<bool> {
    let until = Instant::now() + patience;
    loop {
        if holds()? {
            return Ok(true);
        }
        if Instant::now() >= until {
            return Ok(false);
        }
        std::thread::sleep(LOOK);
    }
}
