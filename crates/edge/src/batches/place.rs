//! The directory of a batch. Everything here blocks.
//!
//! ```text
//!     batches/@APP/batch_…/batch.json          see `record`; alone, once the batch is over
//!     batches/@APP/batch_…/input.jsonl         a link to the uploaded file: whoever deletes that, deletes its name
//!     batches/@APP/batch_…/parts/N.jsonl       the lines of model N, where there are several
//!     batches/@APP/batch_…/results.N.jsonl     the job's sink, and its state in `results.N.jsonl.sheaf`
//! ```

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use sheaf_client::sink::{Committed, SinkSpec, committed};

use super::record::{Batch, FILE, PREFIX};
use super::validate::part_file;
use crate::disk::{
    absent_is_none, app_dir, each_thing, is_damaged, is_id, make_dirs, read_record, remove_dir, rename, sync_dir,
    tell_damaged, write_whole,
};
use crate::files::Store;
use crate::index::Number;

/// Where a batch is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    dir: PathBuf,
}

impl Place {
    /// `None` for what is no name of a batch.
    pub(super) fn of(root: &Path, app: &str, id: &str) -> Option<Self> {
        is_id(PREFIX, id).then(|| Self { dir: app_place(root, app).join(id) })
    }

    /// Puts a new batch in its place, with a link to its input; the bytes of that, or `None` where it is gone.
    pub(super) fn create(&self, store: &Store, batch: &Batch) -> io::Result<Option<u64>> {
        let aside = store.aside(&batch.id);
        let input = fill(&aside, store, batch);
        if !matches!(input, Ok(Some(_))) {
            remove_dir(&aside)?;
            return input;
        }
        if let Some(above) = self.dir.parent() {
            make_dirs(above)?;
        }
        rename(&aside, &self.dir)?;
        input
    }

    pub(super) fn load(&self) -> io::Result<Option<Batch>> {
        read_record(&self.dir, FILE)
    }

    /// Says that the record is damaged.
    pub(super) fn tell_damaged(&self, error: &io::Error) {
        tell_damaged("batch", &self.dir, FILE, error);
    }

    pub(super) fn store(&self, batch: &Batch) -> io::Result<()> {
        write_whole(&self.dir.join(FILE), &serde_json::to_vec(batch)?)
    }

    pub(super) fn input(&self) -> PathBuf {
        self.dir.join(INPUT)
    }

    /// The bytes of its input, as far as that can be seen.
    pub(super) fn input_bytes(&self) -> u64 {
        fs::metadata(self.input()).map_or(0, |input| input.len())
    }

    pub(super) fn parts(&self) -> PathBuf {
        self.dir.join("parts")
    }

    /// The lines of a part.
    pub(super) fn source(&self, batch: &Batch, part: usize) -> PathBuf {
        if batch.parts.len() == 1 { self.input() } else { part_file(&self.parts(), part) }
    }

    /// The results of a part.
    pub(super) fn sink(&self, part: usize) -> SinkSpec {
        SinkSpec::new(self.dir.join(format!("results.{part}.jsonl")))
    }

    /// How far the results of a part count.
    pub(super) fn committed(&self, part: usize) -> io::Result<Committed> {
        let found = committed(&self.sink(part).path).map_err(io::Error::other)?;
        Ok(found.unwrap_or(Committed { generation: 0, offset: 0 }))
    }

    /// Gives up the results of a part and its job: what is finished is answered from the journal.
    pub(super) fn start_over(&self, part: usize) -> io::Result<()> {
        let path = self.sink(part).path;
        let mut state = path.as_os_str().to_owned();
        state.push(".sheaf");
        remove_dir(Path::new(&state))?;
        absent_is_none(fs::remove_file(path)).map(|_| ())
    }

    /// Removes what a batch that is over needs no more.
    pub(super) fn clear(&self) -> io::Result<()> {
        for entry in fs::read_dir(&self.dir)? {
            let entry = entry?;
            if entry.file_name() == FILE {
                continue;
            }
            if entry.file_type()?.is_dir() { remove_dir(&entry.path())? } else { fs::remove_file(entry.path())? }
        }
        Ok(())
    }
}

/// Makes the directory of a new batch; the bytes of its input, or `None` where that is gone.
fn fill(aside: &Path, store: &Store, batch: &Batch) -> io::Result<Option<u64>> {
    let Some(input) = store.content(&batch.app, &batch.asked.input_file_id) else { return Ok(None) };
    fs::create_dir(aside)?;
    if absent_is_none(fs::hard_link(input, aside.join(INPUT)))?.is_none() {
        return Ok(None);
    }
    write_whole(&aside.join(FILE), &serde_json::to_vec(batch)?)?;
    sync_dir(aside)?;
    Ok(Some(fs::metadata(aside.join(INPUT))?.len()))
}

/// Where the batches of an app are.
fn app_place(root: &Path, app: &str) -> PathBuf {
    root.join("batches").join(app_dir(app))
}

/// Takes every batch there is, one at a time: the directory of its app, its number, and, unless its record is damaged,
/// itself.
pub(super) fn each(
    root: &Path,
    mut take: impl FnMut(&str, Number, Option<(Place, Batch)>) -> io::Result<()>,
) -> io::Result<()> {
    make_dirs(&root.join("batches"))?;
    each_thing(&root.join("batches"), PREFIX, |app, number, dir| {
        let place = Place { dir };
        match place.load() {
            Ok(Some(batch)) => take(app, number, Some((place, batch))),
            Ok(None) => Ok(()),
            Err(error) if is_damaged(&error) => {
                place.tell_damaged(&error);
                take(app, number, None)
            }
            Err(error) => Err(error),
        }
    })
}

const INPUT: &str = "input.jsonl";
