//! The router's data directory: its lock, its identity and secret, the address it can be reached at.
//!
//! ```text
//! DIR/lock        held (flock) while a router runs: one process per directory
//! DIR/identity    16 bytes router id, 32 bytes key secret, 4 bytes CRC32C of both, little-endian; made once, readable by
//!                 the owner only. With one wrong bit no key would be found again, and no client would know its router
//! DIR/addr        where the running router listens; stale once the lock is free
//! DIR/journal/    segments and index files
//! ```

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use sheaf_task::{KeySecret, RouterId};

/// Why a data directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DataDirError {
    /// Another process holds the lock.
    #[error("{path} is in use by another sheaf process; stop it, or choose another directory with --data")]
    InUse {
        /// The directory.
        path: PathBuf,
    },
    /// `identity` is not what this program writes.
    #[error(
        "{path} is damaged ({len} bytes, which do not check); restore it, without it no earlier result can be found"
    )]
    Identity {
        /// The file.
        path: PathBuf,
        /// Its length.
        len: usize,
    },
    /// The file system said no.
    #[error("cannot {act} {path}: {error}")]
    Io {
        /// What was tried.
        act: &'static str,
        /// On what.
        path: PathBuf,
        /// What it said.
        error: io::Error,
    },
}

/// A locked data directory. The lock is freed when this is dropped, or the process dies.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    _lock: File,
    /// Who this router is.
    pub router: RouterId,
    /// What its keys are hashed with.
    pub secret: KeySecret,
}

impl DataDir {
    /// Opens the directory, making it where it is missing, and locks it.
    pub fn open(path: &Path) -> Result<Self, DataDirError> {
        let journal = path.join("journal");
        let missing = journal.ancestors().take_while(|dir| !dir.as_os_str().is_empty() && !dir.exists()).count();
        DirBuilder::new().recursive(true).mode(0o700).create(&journal).map_err(io_error("create", &journal))?;
        let lock = lock(path)?;
        // A power cut must not take the directory away from under what was acknowledged in it. Until there is an identity,
        // a run before this one may have made it and died before it came to this.
        let made = if path.join("identity").exists() { missing } else { missing.max(2) };
        sync_names(&journal, made)?;
        let (router, secret) = identity(path)?;
        Ok(Self { path: path.to_owned(), _lock: lock, router, secret })
    }

    /// True while some process has the directory open.
    pub fn is_running(path: &Path) -> bool {
        let Ok(file) = OpenOptions::new().read(true).open(path.join("lock")) else { return false };
        matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock))
    }

    /// Where the router of this directory listens, if one runs.
    pub fn running_addr(path: &Path) -> Option<String> {
        if !Self::is_running(path) {
            return None;
        }
        fs::read_to_string(path.join("addr")).map(|addr| addr.trim().to_owned()).ok().filter(|addr| !addr.is_empty())
    }

    /// Says where this router listens, for commands that are given the directory. A full disk is no reason not to start:
    /// the router delivers and makes room. Such commands must then be told the address.
    pub fn publish_addr(&self, addr: &str) -> Result<(), DataDirError> {
        let path = self.path.join("addr");
        let aside = self.path.join("addr.new");
        match fs::write(&aside, addr) {
            Ok(()) => fs::rename(&aside, &path).map_err(io_error("rename to", &path)),
            Err(error) if error.kind() == io::ErrorKind::StorageFull => {
                tracing::error!(%error, "the router's address cannot be noted: commands need --join {addr}");
                // An address of before would lead them astray.
                [&aside, &path].into_iter().try_for_each(|stale| remove(stale))
            }
            Err(error) => Err(io_error("write", &aside)(error)),
        }
    }

    /// The directory of segments and indexes.
    pub fn journal(&self) -> PathBuf {
        self.path.join("journal")
    }

    /// The directory itself.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

fn remove(path: &Path) -> Result<(), DataDirError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(io_error("remove", path)(error)),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Makes the names of `dir` and of those above it durable, so many in all, each in its parent.
fn sync_names(dir: &Path, count: usize) -> Result<(), DataDirError> {
    for made in dir.ancestors().take(count) {
        let parent = match made.parent() {
            Some(parent) if parent.as_os_str().is_empty() => Path::new("."),
            Some(parent) => parent,
            None => return Ok(()),
        };
        File::open(parent).and_then(|dir| dir.sync_all()).map_err(io_error("sync", parent))?;
    }
    Ok(())
}

/// How long a lock is waited for. A process that was killed while it started another leaves its lock to that one until
/// it has become another program, a moment later: the same command must work again at once.
const LOCK_WAIT: Duration = Duration::from_millis(500);
const LOCK_LOOK: Duration = Duration::from_millis(10);

fn lock(dir: &Path) -> Result<File, DataDirError> {
    let path = dir.join("lock");
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .read(true)
        .write(true)
        .open(&path)
        .map_err(io_error("open", &path))?;
    let until = Instant::now() + LOCK_WAIT;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) if Instant::now() < until => std::thread::sleep(LOCK_LOOK),
            Err(TryLockError::WouldBlock) => return Err(DataDirError::InUse { path: dir.to_owned() }),
            Err(TryLockError::Error(error)) => return Err(DataDirError::Io { act: "lock", path, error }),
        }
    }
}

/// Reads the identity, or makes one: written aside, synced and renamed, so that it is there whole or not at all.
fn identity(dir: &Path) -> Result<(RouterId, KeySecret), DataDirError> {
    let path = dir.join("identity");
    let bytes = match fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => make_identity(dir, &path)?,
        Err(error) => return Err(DataDirError::Io { act: "read", path, error }),
    };
    parse_identity(&bytes).ok_or(DataDirError::Identity { path, len: bytes.len() })
}

fn parse_identity(bytes: &[u8]) -> Option<(RouterId, KeySecret)> {
    let (router, rest) = bytes.split_first_chunk()?;
    let (secret, crc) = rest.split_first_chunk()?;
    let is_intact = crc == crc32c::crc32c(&bytes[..IDENTITY]).to_le_bytes();
    is_intact.then_some((RouterId(*router), KeySecret(*secret)))
}

/// Bytes of an identity that its checksum covers.
const IDENTITY: usize = 48;

fn make_identity(dir: &Path, path: &Path) -> Result<Vec<u8>, DataDirError> {
    let mut bytes = vec![0; IDENTITY];
    random(&mut bytes).map_err(io_error("read", Path::new("/dev/urandom")))?;
    bytes.extend(crc32c::crc32c(&bytes).to_le_bytes());
    let aside = dir.join("identity.new");
    let write = || -> io::Result<()> {
        let mut file = OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&aside)?;
        file.write_all(&bytes)?;
        file.sync_all()?;
        fs::rename(&aside, path)?;
        File::open(dir)?.sync_all()
    };
    write().map_err(io_error("write", path))?;
    Ok(bytes)
}

/// Fills `out` with the operating system's random bytes.
pub fn random(out: &mut [u8]) -> io::Result<()> {
    File::open("/dev/urandom")?.read_exact(out)
}

fn io_error(act: &'static str, path: &Path) -> impl FnOnce(io::Error) -> DataDirError {
    let path = path.to_owned();
    move |error| DataDirError::Io { act, path, error }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_process_a_directory_and_one_identity_for_life() {
        let dir = tempfile::tempdir().unwrap();
        let first = DataDir::open(dir.path()).unwrap();
        assert!(DataDir::is_running(dir.path()));
        assert!(matches!(DataDir::open(dir.path()), Err(DataDirError::InUse { .. })));
        let router = first.router;
        drop(first);
        assert!(!DataDir::is_running(dir.path()));
        assert_eq!(DataDir::open(dir.path()).unwrap().router, router);
    }

    #[test]
    fn a_directory_deep_in_others_is_made_with_its_names() {
        let dir = tempfile::tempdir().unwrap();
        let deep = dir.path().join("a/b/c");
        drop(DataDir::open(&deep).unwrap());
        assert!(deep.join("journal").is_dir());
        assert!(matches!(sync_names(Path::new("no/such"), 1), Err(DataDirError::Io { act: "sync", .. })));
        sync_names(Path::new("x"), 5).unwrap();
    }

    #[test]
    fn a_damaged_identity_is_named_not_replaced() {
        let dir = tempfile::tempdir().unwrap();
        drop(DataDir::open(dir.path()).unwrap());
        fs::write(dir.path().join("identity"), b"short").unwrap();
        assert!(matches!(DataDir::open(dir.path()), Err(DataDirError::Identity { len: 5, .. })));
    }

    #[test]
    fn a_full_disk_hides_the_address_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let data = DataDir::open(dir.path()).unwrap();
        data.publish_addr("127.0.0.1:1").unwrap();
        assert_eq!(DataDir::running_addr(dir.path()).as_deref(), Some("127.0.0.1:1"));
        std::os::unix::fs::symlink("/dev/full", dir.path().join("addr.new")).unwrap();
        data.publish_addr("127.0.0.1:2").unwrap();
        assert_eq!(DataDir::running_addr(dir.path()), None, "not the one of before");
        data.publish_addr("127.0.0.1:3").unwrap();
        assert_eq!(DataDir::running_addr(dir.path()).as_deref(), Some("127.0.0.1:3"));
    }

    #[test]
    fn every_bit_of_an_identity_is_checked() {
        let dir = tempfile::tempdir().unwrap();
        drop(DataDir::open(dir.path()).unwrap());
        let bytes = fs::read(dir.path().join("identity")).unwrap();
        assert!(parse_identity(&bytes).is_some());
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(parse_identity(&flipped).is_none(), "bit {bit}");
        }
        assert!(parse_identity(&bytes[..IDENTITY]).is_none());
    }
}
