//! Which things there are of each app, by name, in memory: a page of a list reads the records of that page and no other.
//!
//! A name is 16 bytes here, and a file's entry 48 with it; with the nodes that hold them, about 100 bytes a file, 50 more of
//! one that goes by itself, and 40 a batch. It is made once at start, of what is on disk, and knows no disk itself.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::ops::Bound;

use crate::page::Query;

/// The digits of a name, as a number: they order as they were made.
pub(crate) type Number = u128;

/// Things by app, which is named as its directory is.
#[derive(Debug)]
pub(crate) struct Index<V> {
    apps: HashMap<String, BTreeMap<Number, V>>,
}

impl<V> Default for Index<V> {
    fn default() -> Self {
        Self { apps: HashMap::new() }
    }
}

impl<V> Index<V> {
    /// Returns what was there.
    pub(crate) fn insert(&mut self, app: &str, number: Number, entry: V) -> Option<V> {
        if let Some(things) = self.apps.get_mut(app) {
            return things.insert(number, entry);
        }
        self.apps.insert(app.to_owned(), BTreeMap::from([(number, entry)]));
        None
    }

    pub(crate) fn get_mut(&mut self, app: &str, number: Number) -> Option<&mut V> {
        self.apps.get_mut(app)?.get_mut(&number)
    }

    /// The names of a page, and one more where there is one. One that is named by what came before it is found even where
    /// that is gone.
    pub(crate) fn page(&self, app: &str, query: &Query, is_wanted: impl Fn(&V) -> bool) -> Vec<Number> {
        self.apps.get(app).map(|things| page_of(things, query, is_wanted)).unwrap_or_default()
    }
}

/// The names of a page of these things: see [`Index::page`].
pub(crate) fn page_of<V>(things: &BTreeMap<Number, V>, query: &Query, is_wanted: impl Fn(&V) -> bool) -> Vec<Number> {
    let wanted = |(number, entry): (&Number, &V)| is_wanted(entry).then_some(*number);
    let after = query.after.map_or(Bound::Unbounded, Bound::Excluded);
    if query.newest_first {
        things.range((Bound::Unbounded, after)).rev().filter_map(wanted).take(query.limit + 1).collect()
    } else {
        things.range((after, Bound::Unbounded)).filter_map(wanted).take(query.limit + 1).collect()
    }
}

/// Reads the things of a page, and one more where there is one. `names` finds those of a page as [`Index::page`] does; what
/// `read` does not find any more is passed over, and the next ones are read in its place.
pub(crate) fn read_page<T>(
    query: &Query,
    names: impl Fn(&Query) -> Vec<Number>,
    read: impl Fn(Number) -> io::Result<Option<T>>,
) -> io::Result<Vec<T>> {
    let (mut found, mut asked) = (Vec::new(), query.clone());
    loop {
        let numbers = names(&asked);
        let Some(last) = numbers.last() else { return Ok(found) };
        asked.after = Some(*last);
        for number in numbers {
            found.extend(read(number)?);
            if found.len() > query.limit {
                return Ok(found);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(text: &str) -> Query {
        Query::parse(Some(text), "x-").unwrap()
    }

    fn digits(number: u128) -> String {
        format!("x-{number:032x}")
    }

    #[test]
    fn a_page_is_named_by_what_came_before_it_even_where_that_is_gone() {
        let mut index = Index::default();
        for number in [20, 40, 10, 30] {
            assert_eq!(index.insert("a", number, number == 20), None);
        }
        index.insert("b", 25, false);
        let page = |text: &str| index.page("a", &query(text), |_| true);
        assert_eq!(page(""), [40, 30, 20, 10]);
        assert_eq!(page("limit=1"), [40, 30], "one more says that there is another page");
        assert_eq!(page(&format!("after={}", digits(30))), [20, 10]);
        assert_eq!(page(&format!("after={}&order=asc", digits(25))), [30, 40]);
        assert_eq!(index.page("a", &query(""), |is_odd| *is_odd), [20]);
        assert_eq!(index.page("nobody", &query(""), |_| true), []);
    }

    #[test]
    fn what_is_gone_leaves_no_gap_in_a_page() {
        let mut index = Index::default();
        for number in 0..10u128 {
            index.insert("a", number, ());
        }
        let read = |number: Number| Ok((number < 5 || number == 9).then_some(number));
        let found = read_page(&query("limit=3"), |query| index.page("a", query, |()| true), read);
        assert_eq!(found.unwrap(), [9, 4, 3, 2]);
        let none = read_page(&query(""), |query| index.page("a", query, |()| true), |_| Ok(None::<()>));
        assert_eq!(none.unwrap(), []);
    }
}
