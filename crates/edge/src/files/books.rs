//! What is known of files in memory: which there are, when they go, and how many bytes each app has.
//!
//! It knows no disk. Invariant: the bytes of an app are those of its files and of what is being written for it, each once.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::index::{Index, Number};
use crate::page::Query;

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

/// The files of all apps, each named as its directory is.
#[derive(Debug, Default)]
pub(super) struct Books {
    // Every request for files looks here, and a sweep reads all of it: for some milliseconds where there are very many.
    books: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    files: Index<Entry>,
    bytes: HashMap<String, u64>,
}

impl Inner {
    fn grow(&mut self, app: &str, by: u64) {
        match self.bytes.get_mut(app) {
            Some(bytes) => *bytes = bytes.saturating_add(by),
            None => drop(self.bytes.insert(app.to_owned(), by)),
        }
    }

    fn shrink(&mut self, app: &str, by: u64) {
        if let Some(bytes) = self.bytes.get_mut(app) {
            *bytes = bytes.saturating_sub(by);
        }
    }
}

impl Books {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Bytes that an app has.
    pub(super) fn bytes(&self, app: &str) -> u64 {
        self.inner().bytes.get(app).copied().unwrap_or_default()
    }

    /// Notes a file that is in its place.
    pub(super) fn insert(&self, app: &str, number: Number, entry: Entry) {
        let mut inner = self.inner();
        inner.grow(app, entry.bytes);
        if let Some(before) = inner.files.insert(app, number, entry) {
            inner.shrink(app, before.bytes);
        }
    }

    /// Notes that a file is gone.
    pub(super) fn remove(&self, app: &str, number: Number) {
        let mut inner = self.inner();
        if let Some(entry) = inner.files.remove(app, number) {
            inner.shrink(app, entry.bytes);
        }
    }

    /// Notes that the record of a file is damaged; whether that is news.
    pub(super) fn note_damaged(&self, app: &str, number: Number) -> bool {
        self.inner().files.get_mut(app, number).is_some_and(|entry| entry.purpose.take().is_some())
    }

    /// The files of a page, and one more where there is one.
    pub(super) fn page(&self, app: &str, query: &Query) -> Vec<Number> {
        let wanted = query.purpose.as_deref().map(Purpose::named);
        let is_wanted = |entry: &Entry| entry.purpose.is_some() && wanted.is_none_or(|wanted| entry.purpose == wanted);
        self.inner().files.page(app, query, is_wanted)
    }

    /// Files whose time is over, at most so many.
    pub(super) fn expired(
        &self,
        now: u64,
        max: usize,
        is_needed: impl Fn(&str, Number) -> bool,
    ) -> Vec<(String, Number)> {
        let inner = self.inner();
        let is_over = |entry: &Entry| entry.expires_at.is_some_and(|at| at <= now);
        let over = inner.files.iter().filter(|(app, number, entry)| is_over(entry) && !is_needed(app, *number));
        over.take(max).map(|(app, number, _)| (app.to_owned(), number)).collect()
    }
}

/// Bytes of an app that are no file yet.
#[derive(Debug)]
pub(super) struct Held {
    books: Arc<Books>,
    pub(super) app: String,
    pub(super) bytes: u64,
}

impl Held {
    pub(super) fn none(books: &Arc<Books>, app: String) -> Self {
        Self { books: Arc::clone(books), app, bytes: 0 }
    }

    pub(super) fn grow(&mut self, by: u64) {
        self.books.inner().grow(&self.app, by);
        self.bytes += by;
    }
}

impl Drop for Held {
    /// They are a file now, which counts for itself, or nothing.
    fn drop(&mut self) {
        self.books.inner().shrink(&self.app, self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(bytes: u64, expires_at: Option<u64>) -> Entry {
        Entry { bytes, expires_at, purpose: Some(Purpose::Batch) }
    }

    #[test]
    fn bytes_are_those_of_files_and_of_what_is_being_written() {
        let books = Arc::new(Books::default());
        let mut held = Held::none(&books, "a".into());
        held.grow(5);
        held.grow(2);
        assert_eq!((books.bytes("a"), books.bytes("b")), (7, 0));
        books.insert("a", 1, entry(7, None));
        drop(held);
        books.insert("a", 1, entry(8, None));
        books.insert("a", 2, entry(1, None));
        assert_eq!(books.bytes("a"), 9, "a file that is there again counts once");
        books.remove("a", 1);
        books.remove("a", 1);
        assert_eq!(books.bytes("a"), 1);
    }

    #[test]
    fn what_is_over_is_found_within_bounds_and_what_is_needed_is_not() {
        let books = Books::default();
        for number in 0..10 {
            books.insert("a", number, entry(0, Some(100 + number as u64)));
        }
        books.insert("a", 10, entry(0, None));
        let expired = |now, max| books.expired(now, max, |app, number| app == "a" && number == 3).len();
        assert_eq!([expired(99, 99), expired(104, 99), expired(104, 2), expired(u64::MAX, 99)], [0, 4, 2, 9]);
    }

    #[test]
    fn what_is_damaged_is_in_no_list_and_is_news_once() {
        let books = Books::default();
        books.insert("a", 1, entry(3, None));
        books.insert("a", 2, entry(3, None));
        let page = |query: &str| books.page("a", &Query::parse(Some(query), "file-").unwrap());
        assert_eq!((page(""), page("purpose=batch"), page("purpose=x")), (vec![2, 1], vec![2, 1], vec![]));
        assert!(books.note_damaged("a", 2) && !books.note_damaged("a", 2) && !books.note_damaged("a", 3));
        assert_eq!((page(""), page("purpose=batch_output")), (vec![1], vec![]));
        assert_eq!(books.bytes("a"), 6);
    }
}
