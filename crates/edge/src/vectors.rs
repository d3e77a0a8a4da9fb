//! Vectors as the client asked for them: arrays of numbers, or base64 of little-endian 32-bit floats. Every float keeps
//! its bits.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// How a client wants its vectors. Disk form, in the record of a batch: none changes its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Encoding {
    Float,
    Base64,
}

impl Encoding {
    /// As a request says it, which may say nothing. `None`: no encoding that is known here.
    pub(crate) fn named(name: Option<&str>) -> Option<Self> {
        match name {
            None | Some("float") => Some(Encoding::Float),
            Some("base64") => Some(Encoding::Base64),
            Some(_) => None,
        }
    }
}

type Fields = BTreeMap<String, Box<RawValue>>;

/// The answer with each vector in this encoding; as it came where it is so already, or where it is no list of vectors.
pub(crate) fn encoded(body: Bytes, encoding: Encoding) -> Bytes {
    converted(&body, encoding).map_or(body, Bytes::from)
}

/// The same, where anything is to be changed.
pub(crate) fn converted(body: &[u8], encoding: Encoding) -> Option<Vec<u8>> {
    let mut list: Fields = serde_json::from_slice(body).ok()?;
    let mut items: Vec<Fields> = serde_json::from_str(list.get("data")?.get()).ok()?;
    let mut is_changed = false;
    for item in &mut items {
        let vector = item.get_mut("embedding")?;
        let is_base64 = vector.get().starts_with('"');
        let changed = match encoding {
            Encoding::Base64 if !is_base64 => to_base64(vector.get())?,
            Encoding::Float if is_base64 => to_numbers(vector.get())?,
            Encoding::Base64 | Encoding::Float => continue,
        };
        *vector = RawValue::from_string(changed).ok()?;
        is_changed = true;
    }
    if !is_changed {
        return None;
    }
    list.insert("data".to_owned(), serde_json::value::to_raw_value(&items).ok()?);
    serde_json::to_vec(&list).ok()
}

/// Digit by digit to the nearest float: by way of a 64-bit one it might be another.
fn to_base64(numbers: &str) -> Option<String> {
    let inside = numbers.strip_prefix('[')?.strip_suffix(']')?;
    let mut bytes = Vec::with_capacity(inside.len());
    for number in inside.split(',').map(str::trim).filter(|number| !number.is_empty()) {
        bytes.extend_from_slice(&number.parse::<f32>().ok()?.to_le_bytes());
    }
    Some(format!("\"{}\"", STANDARD.encode(bytes)))
}

fn to_numbers(encoded: &str) -> Option<String> {
    let encoded: String = serde_json::from_str(encoded).ok()?;
    let bytes = STANDARD.decode(encoded).ok()?;
    let (floats, rest) = bytes.as_chunks::<4>();
    if !rest.is_empty() {
        return None;
    }
    // The shortest digits that mean this float and no other.
    let numbers: Vec<String> =
        floats.iter().map(|bytes| f32::from_le_bytes(*bytes)).map(|n| format!("{n:e}")).collect();
    Some(format!("[{}]", numbers.join(",")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(vector: &str) -> Bytes {
        format!(r#"{{"data":[{{"embedding":{vector},"index":0}}],"model":"m"}}"#).into()
    }

    #[test]
    fn every_float_keeps_its_bits_there_and_back() {
        let hard = [0.1, -0.0, 1e-45, f32::MIN_POSITIVE, f32::MAX, f32::MIN, 1.0, 16_777_217.0, 0.333_333_34];
        let drawn =
            (0..20_000u32).map(|n| f32::from_bits(n.wrapping_mul(2_654_435_761))).filter(|float| float.is_finite());
        let floats: Vec<f32> = hard.into_iter().chain(drawn).collect();
        let bytes: Vec<u8> = floats.iter().flat_map(|float| float.to_le_bytes()).collect();
        let base64 = list(&format!("\"{}\"", STANDARD.encode(bytes)));

        let numbers = encoded(base64.clone(), Encoding::Float);
        assert_eq!(encoded(numbers.clone(), Encoding::Base64), base64);
        assert_eq!(encoded(numbers.clone(), Encoding::Float), numbers);

        // As a client reads them: 64-bit numbers, rounded once more.
        let read: serde_json::Value = serde_json::from_slice(&numbers).unwrap();
        let read = read["data"][0]["embedding"].as_array().unwrap().iter().map(|n| n.as_f64().unwrap() as f32);
        assert!(read.map(f32::to_bits).eq(floats.iter().map(|float| float.to_bits())));
    }

    #[test]
    fn what_is_no_list_of_vectors_stays_as_it_is() {
        for body in ["", "{}", r#"{"data":[{"index":0}]}"#, r#"{"data":[{"embedding":["a"]}]}"#, "[1]"] {
            assert_eq!(encoded(body.into(), Encoding::Base64), body);
        }
    }
}
