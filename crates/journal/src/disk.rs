//! The disk as the journal sees it: one flat directory of named files. The server shell has one over real files, the
//! simulator one that loses any subset of what was not synced.
//!
//! A name is a handle of nothing: implementations may cache open files by name, but must forget them at `rename` and
//! `remove`.

/// A file of the directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileInfo {
    /// Its name, without directory.
    pub name: String,
    /// Its length in bytes.
    pub len: u64,
}

/// One directory of files.
pub trait Disk {
    /// All files of the directory, in any order.
    fn list(&self) -> Result<Vec<FileInfo>, DiskError>;

    /// Reads from `offset` until `buf` is full or the file ends; returns how many bytes were read.
    fn read(&self, name: &str, offset: u64, buf: &mut [u8]) -> Result<usize, DiskError>;

    /// Writes all of `bytes` at `offset`, making or lengthening the file as needed. Durable after the next `sync` of
    /// that file. After an error any part of it may have been written.
    fn write(&mut self, name: &str, offset: u64, bytes: &[u8]) -> Result<(), DiskError>;

    /// Asks for blocks, so that the file can be written up to `len` bytes and its length need not change; what is new in it
    /// reads as zeros. A help that a disk may do without; one without room says so, and may have done part of it. Makes the file.
    fn reserve(&mut self, name: &str, len: u64) -> Result<(), DiskError>;

    /// Makes all earlier writes to the file durable (`fdatasync`), and the file's own name if it is new.
    fn sync(&mut self, name: &str) -> Result<(), DiskError>;

    /// Renames `from` to `to`, replacing `to` where it exists. The new name is durable on return; unsynced content is not.
    fn rename(&mut self, from: &str, to: &str) -> Result<(), DiskError>;

    /// Removes the file. Durable on return.
    fn remove(&mut self, name: &str) -> Result<(), DiskError>;

    /// The outcomes of `work` for 0 to `count`, in that order. It only reads, and no work rests on another: a disk whose
    /// files are read faster by several at once may do them so.
    fn each<T: Send>(&self, count: usize, work: impl Fn(&Self, usize) -> T + Sync) -> Vec<T> {
        (0..count).map(|at| work(self, at)).collect()
    }
}

/// A disk that is lent: its owner has it back when the journal is gone, or could not be opened.
impl<D: Disk> Disk for &mut D {
    fn list(&self) -> Result<Vec<FileInfo>, DiskError> {
        (**self).list()
    }

    fn read(&self, name: &str, offset: u64, buf: &mut [u8]) -> Result<usize, DiskError> {
        (**self).read(name, offset, buf)
    }

    fn write(&mut self, name: &str, offset: u64, bytes: &[u8]) -> Result<(), DiskError> {
        (**self).write(name, offset, bytes)
    }

    fn reserve(&mut self, name: &str, len: u64) -> Result<(), DiskError> {
        (**self).reserve(name, len)
    }

    fn sync(&mut self, name: &str) -> Result<(), DiskError> {
        (**self).sync(name)
    }

    fn rename(&mut self, from: &str, to: &str) -> Result<(), DiskError> {
        (**self).rename(from, to)
    }

    fn remove(&mut self, name: &str) -> Result<(), DiskError> {
        (**self).remove(name)
    }
}

/// What kind of failure: all that the journal branches on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiskErrorKind {
    /// No space left (also: over quota).
    Full,
    /// The device or the file system failed.
    Io,
    /// No such file.
    NotFound,
}

/// A failed operation on a disk.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{kind:?} error on journal file {file} (os error {os:?})")]
pub struct DiskError {
    /// What kind.
    pub kind: DiskErrorKind,
    /// On which file.
    pub file: String,
    /// The operating system's number for it, where there is one.
    pub os: Option<i32>,
}

impl DiskError {
    /// An error without a number from the operating system.
    pub fn new(kind: DiskErrorKind, file: &str) -> Self {
        Self { kind, file: file.to_owned(), os: None }
    }
}
