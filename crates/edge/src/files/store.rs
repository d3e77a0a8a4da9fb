//! Files on disk. Everything here blocks, but for looks at what is known in memory.
//!
//! ```text
//!     files/@APP/file-…/content     the bytes
//!     files/@APP/file-…/meta.json   what is told of them
//!     tmp/…                         uploads and files being written: removed on start
//! ```
//!
//! **Invariant**: a file is there whole or not at all: its directory is made aside, synced and renamed, and leaves the
//! same way.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::books::{Books, Entry, Held, HeldInput, Purpose, RECORD_BYTES};
use crate::disk::{
    absent_is_none, app_dir, each_thing, id_of, is_damaged, is_id, make_dirs, new_id, number_of, read_record,
    remove_dir, rename, sync_dir, tell_damaged, write_whole,
};
use crate::index::{Number, read_page};
use crate::page::Query;

/// Files that one sweep removes.
pub(crate) const SWEEP_MAX: usize = 1_000;

/// When an expired file that cannot be removed is tried again: it is not to be in the way of others.
const AGAIN: Duration = Duration::from_secs(3_600);

/// The record of a file in its directory, and its bytes.
const META: &str = "meta.json";
const CONTENT: &str = "content";

/// What the names of files begin with.
pub(crate) const PREFIX: &str = "file-";

/// What is told of a file. Disk form: a field more needs an `Option`; none changes its meaning.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FileMeta {
    pub id: String,
    pub bytes: u64,
    /// Seconds since 1970.
    pub created_at: u64,
    pub filename: String,
    pub purpose: String,
    /// When it goes by itself; seconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<u64>,
}

impl FileMeta {
    /// What is known of it in memory.
    fn entry(&self) -> Entry {
        Entry { bytes: self.bytes, expires_at: self.expires_at, purpose: Purpose::named(&self.purpose) }
    }

    /// As clients see it.
    pub(crate) fn json(&self) -> Value {
        let Self { id, bytes, created_at, filename, purpose, expires_at } = self;
        json!({
            "id": id, "object": "file", "bytes": bytes, "created_at": created_at, "filename": filename,
            "purpose": purpose, "status": "processed", "status_details": null, "expires_at": expires_at,
        })
    }
}

/// The directory of files, and of what is being written.
#[derive(Clone, Debug)]
pub(crate) struct Store {
    root: PathBuf,
    books: Arc<Books>,
    /// Bytes that the files of an app may have.
    app_bytes_max: u64,
}

impl Store {
    /// Takes up the directory, and clears away what was being written when the last process ended. Reads the record of every
    /// file, one at a time.
    pub(crate) fn open(root: PathBuf, app_bytes_max: u64) -> io::Result<Self> {
        remove_dir(&root.join("tmp"))?;
        make_dirs(&root.join("tmp"))?;
        make_dirs(&root.join("files"))?;
        let store = Self { root, books: Arc::default(), app_bytes_max };
        each_thing(&store.root.join("files"), PREFIX, |app, number, place| store.take_up(app, number, &place))?;
        Ok(store)
    }

    /// Notes a file that is on disk.
    fn take_up(&self, app: &str, number: Number, place: &Path) -> io::Result<()> {
        let entry = match read_record::<FileMeta>(place, META) {
            Ok(None) => return Ok(()),
            Ok(Some(meta)) => meta.entry(),
            Err(error) if is_damaged(&error) => {
                tell_damaged("file", place, META, &error);
                // As far as that can be seen; another start may see more.
                let bytes = fs::metadata(place.join(CONTENT)).map_or(0, |content| content.len());
                Entry { bytes, expires_at: None, purpose: None }
            }
            Err(error) => return Err(error),
        };
        self.books.insert(app, number, entry);
        Ok(())
    }

    /// A place for something that is not there yet, on the file system where it will be.
    pub(crate) fn aside(&self, name: &str) -> PathBuf {
        self.root.join("tmp").join(name)
    }

    fn dir(&self, app: &str) -> PathBuf {
        self.root.join("files").join(app_dir(app))
    }

    fn place(&self, app: &str, id: &str) -> Option<PathBuf> {
        is_id(PREFIX, id).then(|| self.dir(app).join(id))
    }

    /// Where the bytes of a file are.
    pub(crate) fn content(&self, app: &str, id: &str) -> Option<PathBuf> {
        Some(self.place(app, id)?.join(CONTENT))
    }

    /// Bytes that an app may have, where so many more would be too many.
    pub(crate) fn too_many(&self, app: &str, bytes: u64) -> Option<u64> {
        let has = self.books.bytes(&app_dir(app));
        (has.saturating_add(bytes) > self.app_bytes_max).then_some(self.app_bytes_max)
    }

    /// Counts a batch, which stays, for the app with this directory, with what its record has beside what every one has.
    pub(crate) fn count_batch(&self, app: &str, more: u64) {
        self.books.grow(app, RECORD_BYTES + more);
    }

    /// Counts the input of a batch as long as it is held; `None` for what is no name of a file.
    pub(crate) fn hold_input(&self, app: &str, id: &str, bytes: u64) -> Option<HeldInput> {
        Some(HeldInput::new(&self.books, app_dir(app), number_of(PREFIX, id)?, bytes))
    }

    /// Counts bytes as long as they are held.
    pub(crate) fn hold(&self, app: &str, bytes: u64) -> Held {
        let mut held = Held::none(&self.books, app_dir(app));
        held.grow(bytes);
        held
    }

    /// Begins a file of a new name.
    pub(crate) fn begin(&self, app: &str, now: Duration) -> io::Result<Draft> {
        self.begin_as(app, new_id(PREFIX, now)?)
    }

    /// Begins a file of this name, which was made before: what was begun under it is gone.
    pub(crate) fn begin_as(&self, app: &str, id: String) -> io::Result<Draft> {
        let dir = self.aside(&id);
        remove_dir(&dir)?;
        fs::create_dir(&dir)?;
        let file = File::create(dir.join(CONTENT))?;
        Ok(Draft { id, dir, file, held: Held::none(&self.books, app_dir(app)), is_settled: false })
    }

    /// Puts a file in its place. One that is there already stays: it was written from the same.
    pub(crate) fn finish(&self, mut draft: Draft, meta: &FileMeta) -> io::Result<()> {
        draft.file.sync_all()?;
        write_whole(&draft.dir.join(META), json!(meta).to_string().as_bytes())?;
        sync_dir(&draft.dir)?;
        let dir = self.root.join("files").join(&draft.held.app);
        make_dirs(&dir)?;
        let place = dir.join(&draft.id);
        if place.exists() {
            return draft.discard();
        }
        rename(&draft.dir, &place)?;
        draft.is_settled = true;
        if let Some(number) = number_of(PREFIX, &draft.id) {
            self.books.insert(&draft.held.app, number, meta.entry());
        }
        Ok(())
    }

    /// What is told of a file; `None` where there is none.
    pub(crate) fn get(&self, app: &str, id: &str) -> io::Result<Option<FileMeta>> {
        let (Some(place), Some(number)) = (self.place(app, id), number_of(PREFIX, id)) else { return Ok(None) };
        let read = read_record::<FileMeta>(&place, META);
        match &read {
            Ok(Some(meta)) => self.books.note_sound(&app_dir(app), number, meta.entry()),
            Err(error) if is_damaged(error) && self.books.note_damaged(&app_dir(app), number) => {
                tell_damaged("file", &place, META, error);
            }
            Ok(None) | Err(_) => {}
        }
        read
    }

    /// The files of a page, and one more where there is one. Reads their records and no others; one that is damaged is left
    /// out.
    pub(crate) fn list(&self, app: &str, query: &Query) -> io::Result<Vec<FileMeta>> {
        let dir = app_dir(app);
        let read = |number| match self.get(app, &id_of(PREFIX, number)) {
            Err(error) if is_damaged(&error) => Ok(None),
            read => read,
        };
        read_page(query, |query| self.books.page(&dir, query), read)
    }

    /// Removes files whose time is over, at most [`SWEEP_MAX`] of them, but for those that are needed, by the directory of
    /// the app and their number, and no more once it is to stop; returns how many it has looked at.
    pub(crate) fn sweep(
        &self,
        now: Duration,
        is_needed: impl Fn(&str, Number) -> bool,
        is_stopping: impl Fn() -> bool,
    ) -> usize {
        let (mut looked, mut gone) = (0, BTreeMap::<String, Vec<PathBuf>>::new());
        for (app, number) in self.books.expired(now.as_secs(), SWEEP_MAX, is_needed) {
            if is_stopping() {
                break;
            }
            looked += 1;
            let id = id_of(PREFIX, number);
            match self.take_away(&app, &id) {
                Ok(taken) => gone.entry(app).or_default().extend(taken),
                Err(error) => {
                    tracing::warn!(app, file = id, %error, "an expired file cannot be removed, and is tried again");
                    self.books.put_off(&app, number, (now + AGAIN).as_secs());
                }
            }
        }
        for (app, gone) in &gone {
            match self.clear_away(app, gone, &is_stopping) {
                Ok(()) => tracing::debug!(app, files = gone.len(), "files have expired"),
                Err(error) => tracing::warn!(app, %error, "expired files are cleared away at the next start"),
            }
        }
        looked
    }

    /// Deletes a file; false where there is none. What reads it, or has it linked elsewhere, keeps it.
    pub(crate) fn delete(&self, app: &str, id: &str) -> io::Result<bool> {
        if is_id(PREFIX, id) { self.remove(&app_dir(app), id) } else { Ok(false) }
    }

    /// Removes a file of the app with this directory.
    fn remove(&self, app: &str, id: &str) -> io::Result<bool> {
        let Some(gone) = self.take_away(app, id)? else { return Ok(false) };
        self.clear_away(app, &[gone], || false)?;
        Ok(true)
    }

    /// Takes a file from its place: where it is now, until that is cleared away. `None` where there is none.
    fn take_away(&self, app: &str, id: &str) -> io::Result<Option<PathBuf>> {
        let (dir, gone) = (self.root.join("files").join(app), self.aside(&format!("deleted-{id}")));
        let is_there = absent_is_none(fs::rename(dir.join(id), &gone))?.is_some();
        if let Some(number) = number_of(PREFIX, id) {
            self.books.remove(app, number);
        }
        Ok(is_there.then_some(gone))
    }

    /// Clears away what was taken from an app, once that is durable: half of a file must never be in its place again. What
    /// is left when it is to stop, the next start clears away.
    fn clear_away(&self, app: &str, gone: &[PathBuf], is_stopping: impl Fn() -> bool) -> io::Result<()> {
        if gone.is_empty() {
            return Ok(());
        }
        sync_dir(&self.root.join("files").join(app))?;
        gone.iter().take_while(|_| !is_stopping()).try_for_each(|gone| remove_dir(gone))
    }
}

/// A file that is being written, which nobody sees. Dropped before it is finished, it is gone.
#[derive(Debug)]
pub(crate) struct Draft {
    pub id: String,
    dir: PathBuf,
    file: File,
    /// What was written, as its app's.
    held: Held,
    /// It is in its place, or gone.
    is_settled: bool,
}

impl Drop for Draft {
    /// As where the client of an upload hangs up. At once: the same name may be begun again.
    fn drop(&mut self) {
        if !self.is_settled
            && let Err(error) = remove_dir(&self.dir)
        {
            tracing::warn!(%error, path = %self.dir.display(), "what was being written is cleared at the next start");
        }
    }
}

impl Draft {
    pub(crate) fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.held.grow(bytes.len() as u64);
        self.file.write_all(bytes)
    }

    /// What was written.
    pub(crate) fn bytes(&self) -> u64 {
        self.held.bytes
    }

    /// Gives it up.
    pub(crate) fn discard(mut self) -> io::Result<()> {
        self.is_settled = true;
        remove_dir(&self.dir)
    }
}

#[cfg(test)]
mod tests;
