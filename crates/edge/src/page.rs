//! Lists, a page at a time: `limit`, `after`, `order`, and what was found. It knows no handler, and not what there is.

use percent_encoding::percent_decode_str;
use serde_json::{Value, json};

use crate::disk::number_of;
use crate::index::Number;
use crate::reply::ApiError;

/// Entries of a page, where the client does not say and at most.
const LIMIT_DEFAULT: usize = 20;
const LIMIT_MAX: usize = 100;

/// Which page of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Query {
    pub limit: usize,
    /// The entry before the page.
    pub after: Option<Number>,
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
    /// Of a list of things whose names begin with `prefix`. What nobody asked for is left as it is; names that mean nothing
    /// here are passed over, as SDKs may send some.
    pub(crate) fn parse(query: Option<&str>, prefix: &str) -> Result<Self, ApiError> {
        let mut page = Self { limit: LIMIT_DEFAULT, after: None, newest_first: true, purpose: None };
        for (name, value) in pairs(query) {
            match name.as_str() {
                "limit" => page.limit = limit_of(&value, LIMIT_MAX)?,
                "after" => {
                    let after = number_of(prefix, &value);
                    page.after = Some(after.ok_or_else(|| {
                        ApiError::invalid(format!("after is {value:?}, and must be the id of an entry"), Some("after"))
                    })?);
                }
                "purpose" => page.purpose = Some(value),
                "order" if value == "asc" => page.newest_first = false,
                "order" if value == "desc" => page.newest_first = true,
                "order" => return Err(ApiError::invalid("order is asc or desc", Some("order"))),
                _ => {}
            }
        }
        Ok(page)
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

    #[test]
    fn a_page_with_one_entry_more_says_that_there_is_another() {
        let after = format!("limit=2&purpose=a+b%26&x&after=file-{:032x}", 7);
        let query = Query::parse(Some(&after), "file-").unwrap();
        assert_eq!((query.limit, query.purpose.as_deref(), query.after), (2, Some("a b&"), Some(7)));
        let page = page_json(&query, vec![json!({"id": 1}), json!({"id": 2}), json!({"id": 3})]);
        assert_eq!((&page["first_id"], &page["last_id"], &page["has_more"]), (&json!(1), &json!(2), &json!(true)));
        assert_eq!(page_json(&query, Vec::new())["last_id"], Value::Null);
    }

    #[test]
    fn a_page_that_makes_no_sense_is_refused() {
        for wrong in ["limit=0", "limit=101", "limit=x", "limit=", "order=up", "after=x", "after="] {
            assert_eq!(
                Query::parse(Some(wrong), "file-").unwrap_err().status,
                hyper::StatusCode::BAD_REQUEST,
                "{wrong}"
            );
        }
    }
}
