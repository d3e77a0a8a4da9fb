//! What is known of files in memory: which there are, when they go, and how many bytes each app has.
//!
//! It knows no disk. Invariant: the bytes of an app are those of its files, of what is being written for it, and of its
//! batches, each once. The input of a batch under way is its file, and counts for itself where that was deleted.
//!
//! Every request for files looks here, and waits for whoever else does. So nothing here walks over more than a page of what
//! an app has, or than one sweep takes.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::index::{Number, page_of};
use crate::page::Query;

/// What a file or a batch takes at least, however little it holds: its directory and its record.
pub(super) const RECORD_BYTES: u64 = 4 << 10;

/// Purposes that files have here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// To be uploaded.
    Batch,
    /// What a batch wrote.
    BatchOutput,
}

impl Purpose {
    /// By its name; `None` for one that no file here has.
    pub(super) fn named(name: &str) -> Option<Self> {
        match name {
            "batch" => Some(Purpose::Batch),
            "batch_output" => Some(Purpose::BatchOutput),
            _ => None,
        }
    }
}

/// What is known of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) bytes: u64,
    /// Seconds since 1970.
    pub(super) expires_at: Option<u64>,
    /// None where its record is damaged, and no list has it.
    pub(super) purpose: Option<Purpose>,
}

impl Entry {
    /// What it takes of what its app may have.
    fn charge(&self) -> u64 {
        self.bytes.max(RECORD_BYTES)
    }
}

type Shelf = BTreeMap<Number, Entry>;

/// What an app has.
#[derive(Debug, Default)]
struct App {
    bytes: u64,
    /// Files by purpose, each on one shelf.
    uploaded: Shelf,
    written: Shelf,
    damaged: Shelf,
    /// When files go, and which.
    ending: BTreeSet<(u64, Number)>,
    /// Files that batches under way read; those that are on no shelf any more count here.
    inputs: BTreeMap<Number, Input>,
}

#[derive(Debug)]
struct Input {
    batches: usize,
    bytes: u64,
}

impl App {
    fn grow(&mut self, by: u64) {
        self.bytes = self.bytes.saturating_add(by);
    }

    fn shrink(&mut self, by: u64) {
        self.bytes = self.bytes.saturating_sub(by);
    }

    fn shelf(&mut self, purpose: Option<Purpose>) -> &mut Shelf {
        match purpose {
            Some(Purpose::Batch) => &mut self.uploaded,
            Some(Purpose::BatchOutput) => &mut self.written,
            None => &mut self.damaged,
        }
    }

    fn has(&self, number: Number) -> bool {
        [&self.uploaded, &self.written, &self.damaged].iter().any(|shelf| shelf.contains_key(&number))
    }

    /// In the place of what was there.
    fn put(&mut self, number: Number, entry: Entry) {
        self.take(number);
        self.shelf(entry.purpose).insert(number, entry);
        self.ending.extend(entry.expires_at.map(|at| (at, number)));
        self.grow(entry.charge());
        if let Some(input) = self.inputs.get(&number) {
            let bytes = input.bytes;
            self.shrink(bytes);
        }
    }

    fn take(&mut self, number: Number) -> Option<Entry> {
        let shelves = [&mut self.uploaded, &mut self.written, &mut self.damaged];
        let entry = shelves.into_iter().find_map(|shelf| shelf.remove(&number))?;
        if let Some(at) = entry.expires_at {
            self.ending.remove(&(at, number));
        }
        self.shrink(entry.charge());
        if let Some(input) = self.inputs.get(&number) {
            let bytes = input.bytes;
            self.grow(bytes);
        }
        Some(entry)
    }

    fn hold_input(&mut self, number: Number, bytes: u64) {
        let is_file = self.has(number);
        let input = self.inputs.entry(number).or_insert(Input { batches: 0, bytes });
        input.batches += 1;
        if input.batches == 1 && !is_file {
            self.grow(bytes);
        }
    }

    fn release_input(&mut self, number: Number) {
        let Some(input) = self.inputs.get_mut(&number) else { return };
        input.batches -= 1;
        if input.batches > 0 {
            return;
        }
        let bytes = input.bytes;
        self.inputs.remove(&number);
        if !self.has(number) {
            self.shrink(bytes);
        }
    }

    /// The files of a page, and one more where there is one.
    fn page(&self, query: &Query) -> Vec<Number> {
        let of = |shelf| page_of(shelf, query, |_: &Entry| true);
        match query.purpose.as_deref().map(Purpose::named) {
            Some(Some(Purpose::Batch)) => of(&self.uploaded),
            Some(Some(Purpose::BatchOutput)) => of(&self.written),
            Some(None) => Vec::new(),
            None => {
                let mut both = of(&self.uploaded);
                both.extend(of(&self.written));
                both.sort_unstable_by(|a, b| if query.newest_first { b.cmp(a) } else { a.cmp(b) });
                both.truncate(query.limit + 1);
                both
            }
        }
    }
}

/// The files of all apps, each named as its directory is.
#[derive(Debug, Default)]
pub(super) struct Books {
    apps: Mutex<HashMap<String, App>>,
}

impl Books {
    fn apps(&self) -> MutexGuard<'_, HashMap<String, App>> {
        self.apps.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does something with what an app has.
    fn of<T>(&self, app: &str, act: impl FnOnce(&mut App) -> T) -> T {
        let mut apps = self.apps();
        if let Some(app) = apps.get_mut(app) {
            return act(app);
        }
        act(apps.entry(app.to_owned()).or_default())
    }

    /// Bytes that an app has.
    pub(super) fn bytes(&self, app: &str) -> u64 {
        self.apps().get(app).map_or(0, |app| app.bytes)
    }

    /// Notes bytes that stay.
    pub(super) fn grow(&self, app: &str, by: u64) {
        self.of(app, |app| app.grow(by));
    }

    /// Notes a file that is in its place.
    pub(super) fn insert(&self, app: &str, number: Number, entry: Entry) {
        self.of(app, |app| app.put(number, entry));
    }

    /// Notes that a file is gone.
    pub(super) fn remove(&self, app: &str, number: Number) {
        self.of(app, |app| app.take(number));
    }

    /// Notes that the record of a file is damaged; whether that is news.
    pub(super) fn note_damaged(&self, app: &str, number: Number) -> bool {
        self.of(app, |app| {
            let Some(entry) = app.take(number) else { return false };
            app.put(number, Entry { purpose: None, ..entry });
            entry.purpose.is_some()
        })
    }

    /// Notes that the record of a file can be read, where it could not.
    pub(super) fn note_sound(&self, app: &str, number: Number, entry: Entry) {
        self.of(app, |app| {
            if app.damaged.contains_key(&number) {
                app.put(number, entry);
            }
        });
    }

    /// Notes that a file whose time is over cannot go before this one.
    pub(super) fn put_off(&self, app: &str, number: Number, until: u64) {
        self.of(app, |app| {
            if let Some(entry) = app.take(number) {
                app.put(number, Entry { expires_at: Some(until), ..entry });
            }
        });
    }

    /// The files of a page, and one more where there is one.
    pub(super) fn page(&self, app: &str, query: &Query) -> Vec<Number> {
        self.apps().get(app).map(|app| app.page(query)).unwrap_or_default()
    }

    /// Files whose time is over, at most so many.
    pub(super) fn expired(
        &self,
        now: u64,
        max: usize,
        is_needed: impl Fn(&str, Number) -> bool,
    ) -> Vec<(String, Number)> {
        let apps = self.apps();
        let over = apps
            .iter()
            .flat_map(|(name, app)| app.ending.range(..=(now, Number::MAX)).map(move |(_, number)| (name, *number)));
        let over = over.filter(|(app, number)| !is_needed(app, *number));
        over.take(max).map(|(app, number)| (app.clone(), number)).collect()
    }
}

/// Bytes of an app that are no file: none yet, or what a batch has of its own.
#[derive(Debug)]
pub(crate) struct Held {
    books: Arc<Books>,
    pub(super) app: String,
    pub(super) bytes: u64,
}

impl Held {
    pub(super) fn none(books: &Arc<Books>, app: String) -> Self {
        Self { books: Arc::clone(books), app, bytes: 0 }
    }

    pub(super) fn grow(&mut self, by: u64) {
        self.books.grow(&self.app, by);
        self.bytes += by;
    }
}

impl Drop for Held {
    /// They are a file now, which counts for itself, or nothing.
    fn drop(&mut self) {
        self.books.of(&self.app, |app| app.shrink(self.bytes));
    }
}

/// The input of a batch under way, which counts until the last such batch is over, though its file be deleted.
#[derive(Debug)]
pub(crate) struct HeldInput {
    books: Arc<Books>,
    app: String,
    number: Number,
}

impl HeldInput {
    pub(super) fn new(books: &Arc<Books>, app: String, number: Number, bytes: u64) -> Self {
        books.of(&app, |app| app.hold_input(number, bytes));
        Self { books: Arc::clone(books), app, number }
    }
}

impl Drop for HeldInput {
    fn drop(&mut self) {
        self.books.of(&self.app, |app| app.release_input(self.number));
    }
}

#[cfg(test)]
mod tests;
