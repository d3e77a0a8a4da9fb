//! JSON, as sources need it: picking two fields out of an object, and writing one by hand.

use std::fmt;

use bytes::Bytes;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::Value;

use super::SourceId;

/// What was found in one line.
#[derive(Debug, Default)]
pub(super) struct Picked {
    /// The value of the body's field.
    pub(super) body: Option<Value>,
    /// The value of the id's field.
    pub(super) id: Option<Value>,
    /// False for a JSON value that is no object.
    pub(super) object: bool,
}

/// Picks fields while the rest is only checked.
pub(super) struct Pick<'a> {
    pub(super) body: Option<&'a str>,
    pub(super) id: Option<&'a str>,
}

impl Pick<'_> {
    /// Reads one JSON value that fills `line`.
    pub(super) fn read(self, line: &[u8]) -> Result<Picked, serde_json::Error> {
        let mut reader = serde_json::Deserializer::from_slice(line);
        // Strings that are only skipped are not checked by the parser: a body must be UTF-8 as a whole.
        let picked = if line.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'{') {
            self.deserialize(&mut reader)?
        } else {
            serde::de::Deserialize::deserialize(&mut reader).map(|IgnoredAny| Picked::default())?
        };
        reader.end()?;
        Ok(picked)
    }
}

impl<'de> DeserializeSeed<'de> for Pick<'_> {
    type Value = Picked;

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<Picked, D::Error> {
        reader.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Pick<'_> {
    type Value = Picked;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Picked, A::Error> {
        let mut picked = Picked { object: true, ..Picked::default() };
        while let Some(name) = map.next_key::<Name<'de>>()? {
            let is_body = self.body == Some(&*name.0);
            let is_id = self.id == Some(&*name.0);
            if !is_body && !is_id {
                map.next_value::<IgnoredAny>()?;
                continue;
            }
            let value: Value = map.next_value()?;
            if is_id {
                picked.id = Some(value.clone());
            }
            if is_body {
                picked.body = Some(value);
            }
        }
        Ok(picked)
    }
}

/// A field's name, borrowed where it has no escapes.
#[derive(serde::Deserialize)]
struct Name<'a>(#[serde(borrow)] std::borrow::Cow<'a, str>);

/// A string's own text; anything else as JSON.
pub(super) fn text_of(value: Value) -> Bytes {
    match value {
        Value::String(text) => Bytes::from(text),
        other => Bytes::from(other.to_string()),
    }
}

/// The id in a value; `null` is none.
pub(super) fn id_of(value: Value) -> Option<SourceId> {
    match value {
        Value::Null => None,
        Value::String(text) => Some(SourceId::Text(text)),
        Value::Number(number) => Some(match number.as_i64() {
            Some(number) => SourceId::Int(number),
            None => SourceId::Text(number.to_string()),
        }),
        other => Some(SourceId::Text(other.to_string())),
    }
}

/// Appends `text` as a JSON string, with its quotes.
pub(crate) fn push_json_string(out: &mut Vec<u8>, text: &str) {
    #[expect(clippy::expect_used, reason = "writing a string into memory cannot fail")]
    serde_json::to_writer(out, text).expect("a string is always JSON");
}
