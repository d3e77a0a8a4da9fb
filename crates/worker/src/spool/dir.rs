//! A worker's data directory: its lock, who it is, and which life this is.
//!
//! ```text
//! DIR/lock          held (flock) while a worker runs: one process per directory
//! DIR/identity      16 bytes worker id, 16 bytes session id, CRC32C of both; made once
//! DIR/incarnation   u64, CRC32C: +1 and synced at each start, before anything is said
//! DIR/spool         results that the router has not acknowledged ([`super::log`])
//! ```

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;
use std::time::{Duration, Instant};

use sheaf_task::WorkerId;

use super::SpoolError;

/// A locked worker directory. The lock is freed when this is dropped, or the process dies.
#[derive(Debug)]
pub(crate) struct WorkerDir {
    _lock: File,
    pub(crate) worker: WorkerId,
    pub(crate) session: [u8; 16],
    pub(crate) incarnation: u64,
}

impl WorkerDir {
    /// Opens the directory, making it where it is missing, locks it and begins a new life.
    pub(crate) fn open(path: &Path) -> Result<Self, SpoolError> {
        DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(failed("create", path))?;
        let lock = lock(path)?;
        let (worker, session) = identity(path)?;
        let incarnation = next_incarnation(path)?;
        Ok(Self { _lock: lock, worker, session, incarnation })
    }
}

/// How long a lock is waited for. A process that was killed while it started another leaves its lock to that one until
/// it has become another program, a moment later: the same command must work again at once.
const LOCK_WAIT: Duration = Duration::from_millis(500);
const LOCK_LOOK: Duration = Duration::from_millis(10);

fn lock(dir: &Path) -> Result<File, SpoolError> {
    let path = dir.join("lock");
    let opened = OpenOptions::new().create(true).truncate(false).read(true).write(true).open(&path);
    let file = opened.map_err(failed("open", &path))?;
    let until = Instant::now() + LOCK_WAIT;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) if Instant::now() < until => std::thread::sleep(LOCK_LOOK),
            Err(TryLockError::WouldBlock) => return Err(SpoolError::InUse { path: dir.to_owned() }),
            Err(TryLockError::Error(error)) => return Err(SpoolError::Io { act: "lock", path, error }),
        }
    }
}

fn identity(dir: &Path) -> Result<(WorkerId, [u8; 16]), SpoolError> {
    let path = dir.join("identity");
    let bytes = match read_checked::<32>(&path)? {
        Some(bytes) => bytes,
        None => {
            let mut bytes = [0; 32];
            random(&mut bytes).map_err(failed("read", Path::new("/dev/urandom")))?;
            write_checked(dir, "identity", &bytes)?;
            bytes
        }
    };
    let (mut worker, mut session) = ([0; 16], [0; 16]);
    worker.copy_from_slice(&bytes[..16]);
    session.copy_from_slice(&bytes[16..]);
    Ok((WorkerId(worker), session))
}

fn next_incarnation(dir: &Path) -> Result<u64, SpoolError> {
    let before = read_checked::<8>(&dir.join("incarnation"))?.map_or(0, u64::from_le_bytes);
    let now = before + 1;
    write_checked(dir, "incarnation", &now.to_le_bytes())?;
    Ok(now)
}

/// The `N` bytes of a file that ends with their CRC; `None` where there is no such file.
fn read_checked<const N: usize>(path: &Path) -> Result<Option<[u8; N]>, SpoolError> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(SpoolError::Io { act: "read", path: path.to_owned(), error }),
    };
    let damaged = || SpoolError::Damaged { path: path.to_owned() };
    let (value, crc) =
        bytes.split_last_chunk::<4>().ok_or_else(damaged).map(|(value, crc)| (value, u32::from_le_bytes(*crc)))?;
    if crc32c::crc32c(value) != crc {
        return Err(damaged());
    }
    value.try_into().map(Some).map_err(|_| damaged())
}

/// Written aside, synced and renamed: there whole or not at all.
fn write_checked(dir: &Path, name: &str, value: &[u8]) -> Result<(), SpoolError> {
    let path = dir.join(name);
    let aside = dir.join(format!("{name}.new"));
    let write = || -> io::Result<()> {
        let mut file = OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&aside)?;
        file.write_all(value)?;
        file.write_all(&crc32c::crc32c(value).to_le_bytes())?;
        file.sync_all()?;
        fs::rename(&aside, &path)?;
        File::open(dir)?.sync_all()
    };
    write().map_err(failed("write", &path))
}

/// Fills `out` with the operating system's random bytes.
pub(crate) fn random(out: &mut [u8]) -> io::Result<()> {
    File::open("/dev/urandom")?.read_exact(out)
}

pub(super) fn failed(act: &'static str, path: &Path) -> impl FnOnce(io::Error) -> SpoolError {
    let path = path.to_owned();
    move |error| SpoolError::Io { act, path, error }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_process_a_directory_one_identity_for_life_and_each_life_counted() {
        let dir = tempfile::tempdir().unwrap();
        let first = WorkerDir::open(dir.path()).unwrap();
        assert!(matches!(WorkerDir::open(dir.path()), Err(SpoolError::InUse { .. })));
        let (worker, session) = (first.worker, first.session);
        assert_eq!(first.incarnation, 1);
        drop(first);
        let second = WorkerDir::open(dir.path()).unwrap();
        assert_eq!((second.worker, second.session, second.incarnation), (worker, session, 2));
    }

    #[test]
    fn a_damaged_file_is_named_not_replaced() {
        let dir = tempfile::tempdir().unwrap();
        drop(WorkerDir::open(dir.path()).unwrap());
        for name in ["identity", "incarnation"] {
            let path = dir.path().join(name);
            let good = fs::read(&path).unwrap();
            let mut bad = good.clone();
            bad[3] ^= 1;
            for bad in [&bad[..], &good[..5], b""] {
                fs::write(&path, bad).unwrap();
                assert!(
                    matches!(WorkerDir::open(dir.path()), Err(SpoolError::Damaged { path: named }) if named == path)
                );
            }
            fs::write(&path, good).unwrap();
        }
    }

    /// A worker that was killed in the moment in which it started its keeper left its lock to that one, and the same
    /// command, repeated at once, was refused.
    #[test]
    fn a_lock_that_is_about_to_be_freed_is_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let first = WorkerDir::open(dir.path()).unwrap();
        std::thread::scope(|scope| {
            let again = scope.spawn(|| WorkerDir::open(dir.path()));
            drop(first);
            assert!(again.join().unwrap().is_ok());
        });
    }
}
