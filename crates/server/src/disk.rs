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
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::thread;
use std::time::Duration;

use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::{Errno, retry_on_intr};
use sheaf_journal::{Disk, DiskError, DiskErrorKind, FileInfo};

/// A directory of files. Cheap to clone.
#[derive(Clone, Debug)]
pub struct FileDisk {
    dir: PathBuf,
    // Shared because reads come from the links' threads while the writer's thread writes, renames and removes.
    open: Arc<RwLock<Open>>,
    /// A sync failed, through whichever clone: from then on nothing is changed any more, so nothing can be tried again.
    has_failed: Arc<AtomicBool>,
    #[cfg(test)]
    faults: Arc<Faults>,
}

/// What goes wrong with a test's disk.
#[cfg(test)]
#[derive(Debug)]
pub(crate) struct Faults {
    /// So many bytes more may files grow; then the disk is full.
    pub(crate) room: AtomicU64,
    /// How many writes to a segment found it full.
    pub(crate) refused: AtomicU64,
    /// So many syncs work; all later ones fail.
    pub(crate) syncs: AtomicU64,
    /// The same of index files alone.
    pub(crate) index_syncs: AtomicU64,
}

#[cfg(test)]
impl Default for Faults {
    fn default() -> Self {
        let never = || AtomicU64::new(u64::MAX);
        Self { room: never(), refused: AtomicU64::new(0), syncs: never(), index_syncs: never() }
    }
}

#[cfg(test)]
impl Faults {
    fn spend(what: &AtomicU64, amount: u64) -> io::Result<()> {
        let left = |left: u64| if left == u64::MAX { Some(left) } else { left.checked_sub(amount) };
        let spent = what.fetch_update(Ordering::SeqCst, Ordering::SeqCst, left);
        spent.map(drop).map_err(|_| io::ErrorKind::StorageFull.into())
    }

    fn on_sync(&self, name: &str) -> io::Result<()> {
        let is_index = name.contains(".idx");
        Self::spend(&self.index_syncs, u64::from(is_index)).and_then(|()| Self::spend(&self.syncs, 1))
    }

    fn on_grown(&self, file: &File, end: u64) -> io::Result<()> {
        Self::spend(&self.room, end.saturating_sub(file.metadata()?.len()))
    }

    fn on_write(&self, name: &str, file: &File, end: u64) -> io::Result<()> {
        self.on_grown(file, end).inspect_err(|_| {
            self.refused.fetch_add(u64::from(name.ends_with(".seg2")), Ordering::SeqCst);
        })
    }
}

#[derive(Debug, Default)]
struct Open {
    files: BTreeMap<String, Handle>,
    /// Made since their directory was last synced.
    unnamed: BTreeSet<String>,
    /// Counts uses, to tell which handle was not used for longest.
    uses: AtomicU64,
}

#[derive(Debug)]
struct Handle {
    file: Arc<File>,
    used: AtomicU64,
    /// Written to and not synced since: it stays open, since the error of a write-back is told to those who have the file
    /// open at that time.
    is_dirty: bool,
}

/// A write goes to the system in pieces of so many bytes: for a large one it looks for large runs of free memory, which takes
/// it ten times as long where there are few.
const PIECE: usize = 64 << 10;

/// Threads that read segments at once when a journal is opened.
const READERS_MAX: usize = 8;

/// Files kept open for reading. One more: that used least recently is closed. Files with unsynced writes come on top: one
/// each of the writer and the indexer.
const HANDLES_MAX: usize = 128;

impl Open {
    fn find(&self, name: &str) -> Option<Arc<File>> {
        let handle = self.files.get(name)?;
        handle.used.store(self.uses.fetch_add(1, Ordering::Relaxed), Ordering::Relaxed);
        Some(Arc::clone(&handle.file))
    }

    fn keep(&mut self, name: &str, file: &Arc<File>) {
        let used = AtomicU64::new(self.uses.fetch_add(1, Ordering::Relaxed));
        self.files.insert(name.to_owned(), Handle { file: Arc::clone(file), used, is_dirty: false });
        let clean = || self.files.iter().filter(|(_, handle)| !handle.is_dirty);
        if clean().count() <= HANDLES_MAX {
            return;
        }
        let idlest = clean().min_by_key(|(_, handle)| handle.used.load(Ordering::Relaxed));
        if let Some(name) = idlest.map(|(name, _)| name.clone()) {
            self.files.remove(&name);
        }
    }

    fn set_dirty(&mut self, name: &str, is_dirty: bool) {
        if let Some(handle) = self.files.get_mut(name) {
            handle.is_dirty = is_dirty;
        }
    }
}

impl FileDisk {
    /// The directory at `dir`, which must exist.
    pub fn new(dir: PathBuf) -> Self {
        Self {
            dir,
            open: Arc::default(),
            has_failed: Arc::default(),
            #[cfg(test)]
            faults: Arc::default(),
        }
    }

    /// One on which things go wrong.
    #[cfg(test)]
    pub(crate) fn with_faults(mut self, faults: Arc<Faults>) -> Self {
        self.faults = faults;
        self
    }

    /// How long ago a file was last written to. A clock that was set back since: not at all.
    pub(crate) fn age(&self, name: &str) -> io::Result<Duration> {
        let modified = fs::metadata(self.dir.join(name))?.modified()?;
        Ok(modified.elapsed().unwrap_or_default())
    }

    /// True once a sync has failed: the process must stop.
    pub(crate) fn has_failed(&self) -> bool {
        self.has_failed.load(Ordering::SeqCst)
    }

    fn read_file(&self, name: &str) -> io::Result<Arc<File>> {
        if let Some(file) = self.table().find(name) {
            return Ok(file);
        }
        // Opened under the lock, so that no handle of a file that was renamed or removed meanwhile is kept.
        let mut table = self.table_mut();
        if let Some(file) = table.find(name) {
            return Ok(file);
        }
        let file = Arc::new(OpenOptions::new().read(true).write(true).open(self.dir.join(name))?);
        table.keep(name, &file);
        Ok(file)
    }

    fn write_file(&self, name: &str) -> io::Result<Arc<File>> {
        let file = match self.read_file(name) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => self.make_file(name)?,
            other => other?,
        };
        self.table_mut().set_dirty(name, true);
        Ok(file)
    }

    fn make_file(&self, name: &str) -> io::Result<Arc<File>> {
        let path = self.dir.join(name);
        let mut table = self.table_mut();
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)?;
        let file = Arc::new(file);
        table.keep(name, &file);
        table.unnamed.insert(name.to_owned());
        Ok(file)
    }

    fn sync_dir(&self) -> io::Result<()> {
        self.synced(File::open(&self.dir)?.sync_all())?;
        self.table_mut().unnamed.clear();
        Ok(())
    }

    /// Notes the outcome of a sync.
    fn synced(&self, outcome: io::Result<()>) -> io::Result<()> {
        if outcome.is_err() {
            self.has_failed.store(true, Ordering::SeqCst);
        }
        outcome
    }

    /// Before anything is changed.
    fn check(&self) -> io::Result<()> {
        if self.has_failed() { Err(io::Error::other("an earlier sync of the journal's files failed")) } else { Ok(()) }
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
        let write = || {
            self.check()?;
            let file = self.write_file(name)?;
            #[cfg(test)]
            self.faults.on_write(name, &file, offset + bytes.len() as u64)?;
            let mut at = offset;
            for piece in bytes.chunks(PIECE) {
                file.write_all_at(piece, at)?;
                at += piece.len() as u64;
            }
            Ok(())
        };
        write().map_err(|error| disk_error(name, &error))
    }

    fn reserve(&mut self, name: &str, len: u64) -> Result<(), DiskError> {
        let reserve = || {
            self.check()?;
            let file = self.write_file(name)?;
            #[cfg(test)]
            self.faults.on_grown(&file, len)?;
            let had = file.metadata()?.len();
            if had >= len {
                return Ok(());
            }
            match retry_on_intr(|| fallocate(&*file, FallocateFlags::empty(), had, len - had)) {
                // Not every file system can, or may. What it cannot write it says when it is written.
                Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL | Errno::PERM | Errno::FBIG) => Ok(()),
                outcome => Ok(outcome?),
            }
        };
        reserve().map_err(|error| disk_error(name, &error))
    }

    fn sync(&mut self, name: &str) -> Result<(), DiskError> {
        let sync = || {
            self.check()?;
            let file = self.read_file(name)?;
            #[cfg(test)]
            self.synced(self.faults.on_sync(name))?;
            self.synced(file.sync_data())?;
            self.table_mut().set_dirty(name, false);
            if self.table().unnamed.contains(name) { self.sync_dir() } else { Ok(()) }
        };
        sync().map_err(|error| disk_error(name, &error))
    }

    fn rename(&mut self, from: &str, to: &str) -> Result<(), DiskError> {
        let rename = || {
            self.check()?;
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
            self.check()?;
            fs::remove_file(self.dir.join(name))?;
            self.table_mut().files.remove(name);
            self.sync_dir()
        };
        remove().map_err(|error| disk_error(name, &error))
    }

    fn each<T: Send>(&self, count: usize, work: impl Fn(&Self, usize) -> T + Sync) -> Vec<T> {
        let threads = thread::available_parallelism().map_or(1, usize::from).min(count).min(READERS_MAX);
        let next = AtomicUsize::new(0);
        // Each takes the next that nobody has, so that a long one holds up nobody.
        let take = || {
            let mut done = Vec::new();
            loop {
                let at = next.fetch_add(1, Ordering::Relaxed);
                if at >= count {
                    return done;
                }
                done.push((at, work(self, at)));
            }
        };
        let mut all: Vec<(usize, T)> = thread::scope(|scope| {
            let helping: Vec<_> = (1..threads).map(|_| scope.spawn(take)).collect();
            let mut all = take();
            for thread in helping {
                all.extend(thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
            }
            all
        });
        all.sort_unstable_by_key(|(at, _)| *at);
        all.into_iter().map(|(_, done)| done).collect()
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
        disk.reserve("a", 7).unwrap();
        assert_eq!(reader.read("a", 0, &mut buf), Ok(7));
        assert_eq!(&buf[..7], b"\0\0xyz\0\0");
        disk.reserve("a", 2).unwrap();
        disk.rename("a", "b").unwrap();
        assert_eq!(reader.read("a", 0, &mut buf).unwrap_err().kind, DiskErrorKind::NotFound);
        assert_eq!(reader.list(), Ok(vec![FileInfo { name: "b".into(), len: 7 }]));
        disk.remove("b").unwrap();
        assert_eq!(reader.list(), Ok(vec![]));
    }

    #[test]
    fn a_journal_of_many_files_keeps_few_open() {
        let dir = tempfile::tempdir().unwrap();
        let mut disk = FileDisk::new(dir.path().to_owned());
        let name = |n: usize| format!("{n:04}");
        disk.write("unsynced", 0, b"x").unwrap();
        for n in 0..3 * HANDLES_MAX {
            fs::write(dir.path().join(name(n)), name(n)).unwrap();
        }
        let mut buf = [0; 4];
        for n in 0..3 * HANDLES_MAX {
            assert_eq!(disk.read("0000", 0, &mut buf), Ok(4));
            assert_eq!(disk.read(&name(n), 0, &mut buf), Ok(4));
            assert_eq!(buf, name(n).as_bytes());
            let table = disk.table();
            assert!(table.files.len() <= HANDLES_MAX + 1);
            assert!(table.files["unsynced"].is_dirty && table.files.contains_key("0000"));
        }
        disk.sync("unsynced").unwrap();
        assert!(!disk.table().files["unsynced"].is_dirty);
    }

    #[test]
    fn after_a_failed_sync_nothing_is_changed_any_more() {
        let dir = tempfile::tempdir().unwrap();
        let mut disk = FileDisk::new(dir.path().to_owned());
        let mut other = disk.clone();
        disk.write("a", 0, b"x").unwrap();
        assert!(disk.synced(Err(io::ErrorKind::StorageFull.into())).is_err());
        assert!(disk.has_failed() && other.has_failed());
        assert_eq!(other.write("b", 0, b"x").unwrap_err().kind, DiskErrorKind::Io);
        assert_eq!(disk.sync("a").unwrap_err().kind, DiskErrorKind::Io);
        assert_eq!(disk.rename("a", "b").unwrap_err().kind, DiskErrorKind::Io);
        assert_eq!(disk.remove("a").unwrap_err().kind, DiskErrorKind::Io);
        assert_eq!(other.read("a", 0, &mut [0]), Ok(1));
    }
}
