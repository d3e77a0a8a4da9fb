//! The journal's disk over real files: one directory, plain `pread`/`pwrite`/`fdatasync`, so that the tools that test
//! disks reach it.
//!
//! Clones share one table of open files: the writer's renames and removals are seen by every reader at once. A reader
//! that still holds a file renamed under it finds frames of another segment there, which the journal's checks refuse.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use sheaf_journal::{Disk, DiskError, DiskErrorKind, FileInfo};

/// A directory of files. Cheap to clone.
#[derive(Clone, Debug)]
pub struct FileDisk {
    dir: PathBuf,
    // Shared because reads come from the links' threads while the writer's thread writes, renames and removes.
    open: Arc<RwLock<Open>>,
}

#[derive(Debug, Default)]
struct Open {
    files: BTreeMap<String, Arc<File>>,
    /// Made since their directory was last synced.
    unnamed: BTreeSet<String>,
}

impl FileDisk {
    /// The directory at `dir`, which must exist.
    pub fn new(dir: PathBuf) -> Self {
        Self { dir, open: Arc::default() }
    }

    /// How long ago a file was last written to. A clock that was set back since: not at all.
    pub(crate) fn age(&self, name: &str) -> io::Result<Duration> {
        let modified = fs::metadata(self.dir.join(name))?.modified()?;
        Ok(modified.elapsed().unwrap_or_default())
    }

    fn read_file(&self, name: &str) -> io::Result<Arc<File>> {
        if let Some(file) = self.table().files.get(name) {
            return Ok(Arc::clone(file));
        }
        let file = Arc::new(OpenOptions::new().read(true).write(true).open(self.dir.join(name))?);
        self.table_mut().files.insert(name.to_owned(), Arc::clone(&file));
        Ok(file)
    }

    fn write_file(&self, name: &str) -> io::Result<Arc<File>> {
        match self.read_file(name) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => self.make_file(name),
            other => other,
        }
    }

    fn make_file(&self, name: &str) -> io::Result<Arc<File>> {
        let path = self.dir.join(name);
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)?;
        let file = Arc::new(file);
        let mut table = self.table_mut();
        table.files.insert(name.to_owned(), Arc::clone(&file));
        table.unnamed.insert(name.to_owned());
        Ok(file)
    }

    fn sync_dir(&self) -> io::Result<()> {
        File::open(&self.dir)?.sync_all()?;
        self.table_mut().unnamed.clear();
        Ok(())
    }

    // A panic elsewhere leaves a table of open files that is still true.
    fn table(&self) -> std::sync::RwLockReadGuard<'_, Open> {
        self.open.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn table_mut(&self) -> std::sync::RwLockWriteGuard<'_, Open> {
        self.open.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Disk for FileDisk {
    fn list(&self) -> Result<Vec<FileInfo>, DiskError> {
        let list = || -> io::Result<Vec<FileInfo>> {
            let mut files = Vec::new();
            for entry in fs::read_dir(&self.dir)? {
                let entry = entry?;
                let meta = entry.metadata()?;
                if let (true, Ok(name)) = (meta.is_file(), entry.file_name().into_string()) {
                    files.push(FileInfo { name, len: meta.len() });
                }
            }
            Ok(files)
        };
        list().map_err(|error| disk_error(".", &error))
    }

    fn read(&self, name: &str, offset: u64, buf: &mut [u8]) -> Result<usize, DiskError> {
        let mut read = || -> io::Result<usize> {
            let file = self.read_file(name)?;
            let mut filled = 0;
            while filled < buf.len() {
                match file.read_at(&mut buf[filled..], offset + filled as u64) {
                    Ok(0) => break,
                    Ok(n) => filled += n,
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => return Err(error),
                }
            }
            Ok(filled)
        };
        read().map_err(|error| disk_error(name, &error))
    }

    fn write(&mut self, name: &str, offset: u64, bytes: &[u8]) -> Result<(), DiskError> {
        let write = || self.write_file(name)?.write_all_at(bytes, offset);
        write().map_err(|error| disk_error(name, &error))
    }

    fn sync(&mut self, name: &str) -> Result<(), DiskError> {
        let sync = || {
            self.write_file(name)?.sync_data()?;
            if self.table().unnamed.contains(name) { self.sync_dir() } else { Ok(()) }
        };
        sync().map_err(|error| disk_error(name, &error))
    }

    fn rename(&mut self, from: &str, to: &str) -> Result<(), DiskError> {
        let rename = || {
            fs::rename(self.dir.join(from), self.dir.join(to))?;
            let mut table = self.table_mut();
            table.files.remove(from);
            table.files.remove(to);
            drop(table);
            self.sync_dir()
        };
        rename().map_err(|error| disk_error(from, &error))
    }

    fn remove(&mut self, name: &str) -> Result<(), DiskError> {
        let remove = || {
            fs::remove_file(self.dir.join(name))?;
            self.table_mut().files.remove(name);
            self.sync_dir()
        };
        remove().map_err(|error| disk_error(name, &error))
    }
}

fn disk_error(name: &str, error: &io::Error) -> DiskError {
    let kind = match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => DiskErrorKind::Full,
        io::ErrorKind::NotFound => DiskErrorKind::NotFound,
        _ => DiskErrorKind::Io,
    };
    DiskError { kind, file: name.to_owned(), os: error.raw_os_error() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn behaves_as_the_journal_expects() {
        let dir = tempfile::tempdir().unwrap();
        let mut disk = FileDisk::new(dir.path().to_owned());
        let reader = disk.clone();
        assert_eq!(reader.read("a", 0, &mut [0]).unwrap_err().kind, DiskErrorKind::NotFound);
        disk.write("a", 2, b"xyz").unwrap();
        disk.sync("a").unwrap();
        let mut buf = [9; 8];
        assert_eq!(reader.read("a", 0, &mut buf), Ok(5));
        assert_eq!(&buf[..5], b"\0\0xyz");
        disk.rename("a", "b").unwrap();
        assert_eq!(reader.read("a", 0, &mut buf).unwrap_err().kind, DiskErrorKind::NotFound);
        assert_eq!(reader.list(), Ok(vec![FileInfo { name: "b".into(), len: 5 }]));
        disk.remove("b").unwrap();
        assert_eq!(reader.list(), Ok(vec![]));
    }
}
