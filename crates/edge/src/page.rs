//! Lists, a page at a time: `limit`, `after`, `order`, and what was found. It knows no handler.

use percent_encoding::percent_decode_str;
use serde_json::{Value, json};

use crate::reply::ApiError;

/// Entries of a page, where the client does not say and at most.
const LIMIT_DEFAULT: usize = 20;
const LIMIT_MAX: usize = 100;

/// Which page of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Query {
    pub limit: usize,
    /// The entry before the page.
    pub after: Option<String>,
    pub newest_first: bool,
    pub purpose: Option<String>,
}

/// The parts of a request's query.
pub(crate) fn pairs(query: Option<&str>) -> impl Iterator<Item = (String, String)> {
    let parts = query.unwrap_or_default().split('&').filter(|part| !part.is_empty());
    parts.map(|part| {
        let (name, value) = part.split_once('=').unwrap_or((part, ""));
        let decoded = |text: &str| percent_decode_str(&text.replace('+', " ")).decode_utf8_lossy().into_owned();
        (decoded(name), decoded(value))
    })
}

/// Reads `limit`, which is at least 1.
pub(crate) fn limit_of(value: &str, max: usize) -> Result<usize, ApiError> {
    let limit = value.parse().ok().filter(|limit| (1..=max).contains(limit));
    limit.ok_or_else(|| {
        ApiError::invalid(format!("limit is {value:?}, and must be a number from 1 to {max}"), Some("limit"))
    })
}

impl Query {
    /// What nobody asked for is left as it is; names that mean nothing here are passed over, as SDKs may send some.
    pub(crate) fn parse(query: Option<&str>) -> Result<Self, ApiError> {
        let mut page = Self { limit: LIMIT_DEFAULT, after: None, newest_first: true, purpose: None };
        for (name, value) in pairs(query) {
            match name.as_str() {
                "limit" => page.limit = limit_of(&value, LIMIT_MAX)?,
                "after" => page.after = Some(value),
                "purpose" => page.purpose = Some(value),
                "order" if value == "asc" => page.newest_first = false,
                "order" if value == "desc" => page.newest_first = true,
                "order" => return Err(ApiError::invalid("order is asc or desc", Some("order"))),
                _ => {}
            }
        }
        Ok(page)
    }

    /// Puts names, which order as they were made, into the order of the page, and leaves out those before it.
    pub(crate) fn arrange(&self, mut names: Vec<String>) -> Vec<String> {
        names.sort_unstable();
        if let Some(after) = &self.after {
            names.retain(|name| if self.newest_first { name < after } else { name > after });
        }
        if self.newest_first {
            names.reverse();
        }
        names
    }
}

/// A page as clients expect it: `found` may have one entry more than the page, which says that there is another.
pub(crate) fn page_json(query: &Query, mut found: Vec<Value>) -> Value {
    let has_more = found.len() > query.limit;
    found.truncate(query.limit);
    let id = |entry: Option<&Value>| entry.map_or(Value::Null, |entry| entry["id"].clone());
    let (first, last) = (id(found.first()), id(found.last()));
    json!({"object": "list", "data": found, "first_id": first, "last_id": last, "has_more": has_more})
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(query: &str) -> Vec<String> {
        Query::parse(Some(query)).unwrap().arrange(["b", "d", "a", "c"].map(str::to_owned).to_vec())
    }

    #[test]
    fn a_page_is_named_by_what_came_before_it_even_where_that_is_gone() {
        assert_eq!(names(""), ["d", "c", "b", "a"]);
        assert_eq!(names("after=c"), ["b", "a"]);
        assert_eq!(names("after=bb&order=asc"), ["c", "d"]);
        let query = Query::parse(Some("limit=2&purpose=a+b%26&x")).unwrap();
        assert_eq!((query.limit, query.purpose.as_deref()), (2, Some("a b&")));
        let page = page_json(&query, vec![json!({"id": 1}), json!({"id": 2}), json!({"id": 3})]);
        assert_eq!((&page["first_id"], &page["last_id"], &page["has_more"]), (&json!(1), &json!(2), &json!(true)));
        assert_eq!(page_json(&query, Vec::new())["last_id"], Value::Null);
    }

    #[test]
    fn a_page_that_makes_no_sense_is_refused() {
        for wrong in ["limit=0", "limit=101", "limit=x", "limit=", "order=up"] {
            assert_eq!(Query::parse(Some(wrong)).unwrap_err().status, hyper::StatusCode::BAD_REQUEST, "{wrong}");
        }
    }
}
