//! Files on disk. Everything here blocks.
//!
//! ```text
//!     files/@APP/file-…/content     the bytes
//!     files/@APP/file-…/meta.json   what is told of them
//!     tmp/…                         uploads and files being written: removed on start
//! ```
//!
//! **Invariant**: a file is there whole or not at all: its directory is made aside, synced and renamed, and leaves the
//! same way.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::disk::{absent_is_none, app_dir, is_id, make_dirs, new_id, remove_dir, rename, sync_dir, write_whole};
use crate::page::Query;

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
}

impl FileMeta {
    /// As clients see it.
    pub(crate) fn json(&self) -> Value {
        let Self { id, bytes, created_at, filename, purpose } = self;
        json!({
            "id": id, "object": "file", "bytes": bytes, "created_at": created_at, "filename": filename,
            "purpose": purpose, "status": "processed", "status_details": null, "expires_at": null,
        })
    }
}

/// The directory of files, and of what is being written.
#[derive(Clone, Debug)]
pub(crate) struct Store {
    root: PathBuf,
}

impl Store {
    /// Takes up the directory, and clears away what was being written when the last process ended.
    pub(crate) fn open(root: PathBuf) -> io::Result<Self> {
        remove_dir(&root.join("tmp"))?;
        make_dirs(&root.join("tmp"))?;
        make_dirs(&root.join("files"))?;
        Ok(Self { root })
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
        Some(self.place(app, id)?.join("content"))
    }

    /// Begins a file of a new name.
    pub(crate) fn begin(&self, now: Duration) -> io::Result<Draft> {
        self.begin_as(new_id(PREFIX, now)?)
    }

    /// Begins a file of this name, which was made before: what was begun under it is gone.
    pub(crate) fn begin_as(&self, id: String) -> io::Result<Draft> {
        let dir = self.aside(&id);
        remove_dir(&dir)?;
        fs::create_dir(&dir)?;
        let file = File::create(dir.join("content"))?;
        Ok(Draft { id, dir, file, bytes: 0, is_settled: false })
    }

    /// Puts a file in its place. One that is there already stays: it was written from the same.
    pub(crate) fn finish(&self, mut draft: Draft, app: &str, meta: &FileMeta) -> io::Result<()> {
        draft.file.sync_all()?;
        write_whole(&draft.dir.join("meta.json"), json!(meta).to_string().as_bytes())?;
        sync_dir(&draft.dir)?;
        let dir = self.dir(app);
        make_dirs(&dir)?;
        let place = dir.join(&draft.id);
        if place.exists() {
            return draft.discard();
        }
        rename(&draft.dir, &place)?;
        draft.is_settled = true;
        Ok(())
    }

    /// What is told of a file; `None` where there is none.
    pub(crate) fn get(&self, app: &str, id: &str) -> io::Result<Option<FileMeta>> {
        let Some(place) = self.place(app, id) else { return Ok(None) };
        let Some(text) = absent_is_none(fs::read(place.join("meta.json")))? else { return Ok(None) };
        Ok(Some(serde_json::from_slice(&text)?))
    }

    /// The files of a page, and one more where there is one.
    pub(crate) fn list(&self, app: &str, query: &Query) -> io::Result<Vec<FileMeta>> {
        let mut found = Vec::new();
        for id in query.arrange(names(&self.dir(app), PREFIX)?) {
            // It may have been deleted since its name was read.
            let Some(meta) = self.get(app, &id)? else { continue };
            if query.purpose.as_ref().is_none_or(|purpose| *purpose == meta.purpose) {
                found.push(meta);
            }
            if found.len() > query.limit {
                break;
            }
        }
        Ok(found)
    }

    /// Deletes a file; false where there is none. What reads it, or has it linked elsewhere, keeps it.
    pub(crate) fn delete(&self, app: &str, id: &str) -> io::Result<bool> {
        let Some(place) = self.place(app, id) else { return Ok(false) };
        let gone = self.aside(&format!("deleted-{id}"));
        if absent_is_none(fs::rename(&place, &gone))?.is_none() {
            return Ok(false);
        }
        sync_dir(&self.dir(app))?;
        remove_dir(&gone)?;
        Ok(true)
    }
}

/// The names in a directory that may be of things with this prefix.
pub(crate) fn names(dir: &Path, prefix: &str) -> io::Result<Vec<String>> {
    let Some(entries) = absent_is_none(fs::read_dir(dir))? else { return Ok(Vec::new()) };
    let mut names = Vec::new();
    for entry in entries {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if is_id(prefix, &name) {
            names.push(name);
        }
    }
    Ok(names)
}

/// A file that is being written, which nobody sees. Dropped before it is finished, it is gone.
#[derive(Debug)]
pub(crate) struct Draft {
    pub id: String,
    dir: PathBuf,
    file: File,
    pub bytes: u64,
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
        self.bytes += bytes.len() as u64;
        self.file.write_all(bytes)
    }

    /// Gives it up.
    pub(crate) fn discard(mut self) -> io::Result<()> {
        self.is_settled = true;
        remove_dir(&self.dir)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(store: &Store, app: &str, second: u64, text: &str) -> FileMeta {
        let mut draft = store.begin(Duration::from_secs(second)).unwrap();
        draft.write(text.as_bytes()).unwrap();
        let meta = FileMeta {
            id: draft.id.clone(),
            bytes: draft.bytes,
            created_at: second,
            filename: "rows.jsonl".into(),
            purpose: if second.is_multiple_of(2) { "batch" } else { "batch_output" }.into(),
        };
        store.finish(draft, app, &meta).unwrap();
        meta
    }

    #[test]
    fn files_are_listed_read_and_deleted_by_their_own_app_only() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path().join("edge")).unwrap();
        let metas: Vec<_> = (1..=4).map(|second| put(&store, "", second, "abc")).collect();
        let theirs = put(&store, "them", 9, "secret");
        let ids = |query: &str| -> Vec<String> {
            let query = Query::parse(Some(query)).unwrap();
            store.list("", &query).unwrap().into_iter().map(|meta| meta.id).collect()
        };
        assert_eq!(ids("limit=1"), [metas[3].id.clone(), metas[2].id.clone()]);
        assert_eq!(ids("purpose=batch&order=asc"), [metas[1].id.clone(), metas[3].id.clone()]);
        assert_eq!(store.get("", &theirs.id).unwrap(), None);
        assert!(!store.delete("", &theirs.id).unwrap());
        assert_eq!(store.get("them", &theirs.id).unwrap(), Some(theirs));
        assert!(store.delete("", &metas[0].id).unwrap());
        assert!(!store.delete("", &metas[0].id).unwrap());
        assert_eq!(ids("").len(), 3);
        assert_eq!(fs::read(store.content("", &metas[1].id).unwrap()).unwrap(), b"abc");
        assert_eq!(store.content("", "file-../x"), None);
    }

    #[test]
    fn what_was_being_written_is_gone_after_a_crash_and_finishing_twice_is_once() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path().join("edge")).unwrap();
        let mut draft = store.begin(Duration::from_secs(1)).unwrap();
        draft.write(b"half").unwrap();
        std::mem::forget(draft);
        let store = Store::open(dir.path().join("edge")).unwrap();
        assert_eq!(fs::read_dir(dir.path().join("edge/tmp")).unwrap().count(), 0);
        drop(store.begin(Duration::from_secs(1)).unwrap());
        assert_eq!(fs::read_dir(dir.path().join("edge/tmp")).unwrap().count(), 0);
        let meta = put(&store, "", 2, "whole");
        let mut again = store.begin_as(meta.id.clone()).unwrap();
        again.write(b"whole").unwrap();
        store.finish(again, "", &meta).unwrap();
        assert_eq!(store.list("", &Query::parse(None).unwrap()).unwrap(), [meta]);
        assert_eq!(fs::read_dir(dir.path().join("edge/tmp")).unwrap().count(), 0);
    }
}
