//! JSON, as sources need it: picking two fields out of an object, and writing one by hand.

use std::fmt;

use bytes::Bytes;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::Value;
use serde_json::value::RawValue;

use super::SourceId;

/// What was found in one line.
#[derive(Debug, Default)]
pub(super) struct Picked {
    /// The value of the body's field, as it stands there: what is worked on must be what was written.
    pub(super) body: Option<Box<RawValue>>,
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
            if !is_body {
                picked.id = Some(map.next_value()?);
                continue;
            }
            let value: Box<RawValue> = map.next_value()?;
            if is_id {
                picked.id = Some(serde_json::from_str(value.get()).map_err(serde::de::Error::custom)?);
            }
            picked.body = Some(value);
        }
        Ok(picked)
    }
}

/// A field's name, borrowed where it has no escapes.
#[derive(serde::Deserialize)]
struct Name<'a>(#[serde(borrow)] std::borrow::Cow<'a, str>);

/// A string's own text; any other value as it is written. `None` for `null`.
pub(super) fn text_of(value: &RawValue) -> Result<Option<Bytes>, serde_json::Error> {
    match value.get() {
        "null" => Ok(None),
        text if text.starts_with('"') => serde_json::from_str::<String>(text).map(|text| Some(Bytes::from(text))),
        other => Ok(Some(Bytes::copy_from_slice(other.as_bytes()))),
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
