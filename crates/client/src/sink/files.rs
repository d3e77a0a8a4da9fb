//! The few acts on files that a file sink is made of, each a step at which a crash may fall. It knows no format.
//!
//! Tests cut the power before any step: see `Files::cut_after`.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::SinkError;

/// Access to files.
#[derive(Clone, Debug, Default)]
pub(super) struct Files {
    #[cfg(test)]
    cut: Option<std::sync::Arc<std::sync::atomic::AtomicI64>>,
}

impl Files {
    /// Fails the step after `steps` successful ones, and every step after it: what is on disk then is what a crash left.
    /// The failing step does half of its work, where it has halves.
    #[cfg(test)]
    pub(super) fn cut_after(steps: i64) -> Self {
        Self { cut: Some(std::sync::Arc::new(steps.into())) }
    }

    /// True if the step may be done.
    fn step(&self) -> bool {
        #[cfg(test)]
        if let Some(left) = &self.cut {
            return left.fetch_sub(1, std::sync::atomic::Ordering::Relaxed) > 0;
        }
        true
    }

    fn act<T>(&self, act: &'static str, path: &Path, run: impl FnOnce() -> io::Result<T>) -> Result<T, SinkError> {
        if !self.step() {
            return Err(SinkError::Io {
                act,
                path: path.to_owned(),
                error: io::Error::from(io::ErrorKind::Interrupted),
            });
        }
        run().map_err(io_error(act, path))
    }

    /// Opens a file to read and append, making it where it is missing.
    pub(super) fn open(&self, path: &Path) -> Result<File, SinkError> {
        let open = || OpenOptions::new().read(true).append(true).create(true).open(path);
        self.act("write", path, open)
    }

    /// Makes an empty file.
    pub(super) fn create(&self, path: &Path) -> Result<File, SinkError> {
        self.act("write", path, || OpenOptions::new().read(true).write(true).create(true).truncate(true).open(path))
    }

    pub(super) fn append(&self, file: &mut File, path: &Path, bytes: &[u8]) -> Result<(), SinkError> {
        if !self.step() {
            file.write_all(&bytes[..bytes.len() / 2]).map_err(io_error("write", path))?;
            let error = io::Error::from(io::ErrorKind::Interrupted);
            return Err(SinkError::Io { act: "write", path: path.to_owned(), error });
        }
        file.write_all(bytes).map_err(io_error("write", path))
    }

    /// Makes what was written durable.
    pub(super) fn sync(&self, file: &File, path: &Path) -> Result<(), SinkError> {
        self.act("sync", path, || file.sync_data())
    }

    /// Cuts a file to `len` bytes, durably.
    pub(super) fn truncate(&self, file: &File, path: &Path, len: u64) -> Result<(), SinkError> {
        self.act("truncate", path, || file.set_len(len).and_then(|()| file.sync_all()))
    }

    /// Renames within one file system, durably.
    pub(super) fn rename(&self, from: &Path, to: &Path) -> Result<(), SinkError> {
        self.act("rename to", to, || fs::rename(from, to))?;
        self.sync_dir_of(to)
    }

    /// Makes the names in a file's directory durable.
    pub(super) fn sync_dir_of(&self, path: &Path) -> Result<(), SinkError> {
        let dir = directory(path);
        self.act("sync", &dir, || File::open(&dir)?.sync_all())
    }

    pub(super) fn remove(&self, path: &Path) -> Result<(), SinkError> {
        self.act("remove", path, || fs::remove_file(path))
    }
}

fn directory(path: &Path) -> PathBuf {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        Some(_) | None => PathBuf::from("."),
    }
}

pub(super) fn io_error(act: &'static str, path: &Path) -> impl FnOnce(io::Error) -> SinkError {
    let path = path.to_owned();
    move |error| SinkError::Io { act, path, error }
}
