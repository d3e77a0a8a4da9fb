//! Acts on files that a crash leaves done or undone: written aside, synced, renamed, the directory synced. And the names
//! of things. It knows no file's meaning, and every function of it blocks.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use hyper::StatusCode;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::de::DeserializeOwned;

use crate::index::Number;
use crate::reply::ApiError;

/// Runs what blocks where it may.
pub(crate) async fn blocking<T: Send + 'static>(act: impl FnOnce() -> T + Send + 'static) -> Result<T, ApiError> {
    tokio::task::spawn_blocking(act).await.map_err(|error| {
        tracing::error!(%error, "an act on files panicked");
        ApiError::server("a defect of the server; its log has more")
    })
}

/// Since 1970, by the system's clock.
pub(crate) fn unix_now() -> Duration {
    std::time::UNIX_EPOCH.elapsed().unwrap_or_default()
}

/// What a client is told when the disk says no: that it is full, where it is, since only that is its affair.
pub(crate) fn refused(error: &io::Error) -> ApiError {
    if matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded) {
        let full = ApiError::server("the server's disk is full, and nothing was stored: try again when it has room");
        return ApiError { status: StatusCode::INSUFFICIENT_STORAGE, code: Some("disk_full"), ..full };
    }
    if is_damaged(error) {
        // Whoever found it has logged where it is.
        let damaged = ApiError::server(
            "its record on the server's disk is damaged: whoever runs the server finds where in its log",
        );
        return ApiError { code: Some("damaged_record"), is_useless_again: true, ..damaged };
    }
    tracing::error!(%error, "the disk of the door says no");
    ApiError::server("the server cannot use its disk; its log says why")
}

/// Reads the record `name` of what `dir` is the directory of; `None` where there is no such thing. One that cannot be
/// read or understood, or is missing where the rest is there, is [`Damaged`].
pub(crate) fn read_record<T: DeserializeOwned>(dir: &Path, name: &str) -> io::Result<Option<T>> {
    let damaged = |why: Damaged| io::Error::new(ErrorKind::InvalidData, why);
    match fs::read(dir.join(name)) {
        Ok(text) => serde_json::from_slice(&text).map(Some).map_err(|error| damaged(Damaged::Spoilt(error))),
        Err(error) if is_of_this_process(&error) => Err(error),
        Err(error) if error.kind() != ErrorKind::NotFound => Err(damaged(Damaged::Unreadable(error))),
        Err(_) if dir.is_dir() => Err(damaged(Damaged::Missing)),
        Err(_) => Ok(None),
    }
}

/// No memory, or no file handles: it says nothing of the file, and passes.
fn is_of_this_process(error: &io::Error) -> bool {
    const ENOMEM: i32 = 12;
    const ENFILE: i32 = 23;
    const EMFILE: i32 = 24;
    matches!(error.raw_os_error(), Some(ENOMEM | ENFILE | EMFILE))
}

/// What is wrong with the record of something.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Damaged {
    /// It is there, and means nothing.
    #[error("it is no record: {0}")]
    Spoilt(serde_json::Error),
    /// It is not there, and the rest is.
    #[error("it is not there")]
    Missing,
    /// The disk does not give it, now.
    #[error("the disk does not give it: {0}")]
    Unreadable(io::Error),
}

impl Damaged {
    fn what_to_do(&self) -> &'static str {
        match self {
            Damaged::Spoilt(_) | Damaged::Missing => "mend the record, or remove its directory, and start again",
            Damaged::Unreadable(_) => "make the record readable, and start again",
        }
    }
}

/// Whether it is a record that is damaged, and not the disk.
pub(crate) fn is_damaged(error: &io::Error) -> bool {
    error.get_ref().is_some_and(|inner| inner.is::<Damaged>())
}

/// Says once that a record is damaged: what, where, and what to do.
pub(crate) fn tell_damaged(what: &str, dir: &Path, name: &str, error: &io::Error) {
    let record = dir.join(name);
    let damaged = error.get_ref().and_then(|inner| inner.downcast_ref::<Damaged>());
    let what_to_do = damaged.map_or("see what the disk says", Damaged::what_to_do);
    tracing::error!(
        record = %record.display(), %error,
        "the record of a {what} cannot be read; the {what} is left out of lists and nothing is done with it: {what_to_do}"
    );
}

/// Puts a file with this content in place, durably, whole or not at all.
pub(crate) fn write_whole(path: &Path, content: &[u8]) -> io::Result<()> {
    let aside = path.with_extension("new");
    let mut file = File::create(&aside)?;
    file.write_all(content)?;
    file.sync_all()?;
    rename(&aside, path)
}

/// Renames within one file system, durably.
pub(crate) fn rename(from: &Path, to: &Path) -> io::Result<()> {
    fs::rename(from, to)?;
    to.parent().map_or(Ok(()), sync_dir)
}

/// Makes the names in a directory durable.
pub(crate) fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// Makes a directory and those above it, durably.
pub(crate) fn make_dirs(dir: &Path) -> io::Result<()> {
    if dir.is_dir() {
        return Ok(());
    }
    if let Some(above) = dir.parent() {
        make_dirs(above)?;
    }
    match fs::create_dir(dir) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(error),
        Ok(()) | Err(_) => {}
    }
    dir.parent().map_or(Ok(()), sync_dir)
}

/// Removes a directory and all in it; one that is not there is removed already.
pub(crate) fn remove_dir(dir: &Path) -> io::Result<()> {
    absent_is_none(fs::remove_dir_all(dir)).map(|_| ())
}

/// `None` where there is no such file.
pub(crate) fn absent_is_none<T>(found: io::Result<T>) -> io::Result<Option<T>> {
    match found {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// The directory of an app: its own, whatever its name is made of.
pub(crate) fn app_dir(app: &str) -> String {
    format!("@{}", utf8_percent_encode(app, NON_ALPHANUMERIC))
}

/// Takes everything whose name has this prefix, one at a time, in a directory that has one for each app: the name of the
/// app's directory, the thing's number, and where it is.
pub(crate) fn each_thing(
    dir: &Path,
    prefix: &str,
    mut take: impl FnMut(&str, Number, PathBuf) -> io::Result<()>,
) -> io::Result<()> {
    for app in fs::read_dir(dir)? {
        let app = app?;
        if !app.file_type()?.is_dir() {
            continue;
        }
        let name = app.file_name().to_string_lossy().into_owned();
        for thing in fs::read_dir(app.path())? {
            let thing = thing?;
            if let Some(number) = number_of(prefix, &thing.file_name().to_string_lossy()) {
                take(&name, number, thing.path())?;
            }
        }
    }
    Ok(())
}

/// Digits of a name after its prefix: microseconds since 1970, then random ones.
const DIGITS: usize = 32;

/// A new name. Names order as they were made, and none can be guessed.
pub(crate) fn new_id(prefix: &str, now: Duration) -> io::Result<String> {
    let mut random = [0; 9];
    File::open("/dev/urandom")?.read_exact(&mut random)?;
    let mut id = format!("{prefix}{:014x}", now.as_micros() & ((1 << 56) - 1));
    random.iter().for_each(|byte| id.push_str(&format!("{byte:02x}")));
    Ok(id)
}

/// Whether this may be the name of something: what is not never becomes a path.
pub(crate) fn is_id(prefix: &str, id: &str) -> bool {
    id.strip_prefix(prefix).is_some_and(|digits| {
        digits.len() == DIGITS && digits.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    })
}

/// The digits of a name, as a number; `None` for what is no name.
pub(crate) fn number_of(prefix: &str, id: &str) -> Option<Number> {
    is_id(prefix, id).then(|| Number::from_str_radix(id.strip_prefix(prefix)?, 16).ok()).flatten()
}

/// The name that has this number.
pub(crate) fn id_of(prefix: &str, number: Number) -> String {
    format!("{prefix}{number:0DIGITS$x}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_order_by_time_and_lead_nowhere_else() {
        let older = new_id("file-", Duration::from_secs(1_000)).unwrap();
        let newer = new_id("file-", Duration::from_secs(2_000_000_000)).unwrap();
        assert!(older < newer && is_id("file-", &older) && is_id("file-", &newer));
        let number = |id: &str| number_of("file-", id).unwrap();
        assert!(number(&older) < number(&newer) && id_of("file-", number(&older)) == older);
        assert_ne!(older, new_id("file-", Duration::from_secs(1_000)).unwrap());
        for wrong in
            ["", "file-", "file-../../../../etc/passwd", "batch_0", &newer.to_uppercase(), &format!("{newer}0")]
        {
            assert!(!is_id("file-", wrong) && number_of("file-", wrong).is_none(), "{wrong}");
        }
        assert_eq!(app_dir("../a"), "@%2E%2E%2Fa");
        assert_eq!(app_dir(""), "@");
    }

    #[test]
    fn a_record_is_there_or_not_or_damaged() {
        let dir = tempfile::tempdir().unwrap();
        let thing = dir.path().join("thing");
        let read = || read_record::<u8>(&thing, "r.json").map_err(|error| is_damaged(&error));
        assert_eq!(read(), Ok(None));
        fs::create_dir(&thing).unwrap();
        assert_eq!(read(), Err(true), "there is the thing, and no record");
        fs::create_dir(thing.join("r.json")).unwrap();
        assert_eq!(read(), Err(true), "it cannot be read");
        fs::remove_dir(thing.join("r.json")).unwrap();
        for torn in ["", "{", "300"] {
            fs::write(thing.join("r.json"), torn).unwrap();
            assert_eq!(read(), Err(true), "{torn}");
        }
        fs::write(thing.join("r.json"), "3").unwrap();
        assert_eq!(read(), Ok(Some(3)));
    }

    #[test]
    fn a_file_is_put_in_place_whole_and_directories_are_made_once() {
        let dir = tempfile::tempdir().unwrap();
        let deep = dir.path().join("a/b");
        make_dirs(&deep).unwrap();
        make_dirs(&deep).unwrap();
        let path = deep.join("x.json");
        write_whole(&path, b"1").unwrap();
        write_whole(&path, b"2").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"2");
        assert_eq!(fs::read_dir(&deep).unwrap().count(), 1);
        remove_dir(&deep).unwrap();
        remove_dir(&deep).unwrap();
        assert_eq!(absent_is_none(fs::read(&path)).unwrap(), None);
    }
}
