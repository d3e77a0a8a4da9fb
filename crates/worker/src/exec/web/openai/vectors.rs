//! Answers to embeddings: every vector checked, and each row's own taken out of an answer to several.
//!
//! A vector is an array of numbers, or the base64 of little-endian 32-bit floats. It is passed on as it came, byte for
//! byte. Tokens of a request for several rows are divided by the lengths of their texts: their sum is right, the parts
//! are an estimate.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::ask::Ask;

#[derive(Deserialize)]
struct List<'a> {
    #[serde(borrow)]
    data: Vec<Item<'a>>,
    model: Option<String>,
    #[serde(default)]
    usage: Option<Usage>,
}

#[derive(Deserialize)]
struct Item<'a> {
    index: Option<usize>,
    #[serde(borrow)]
    embedding: &'a RawValue,
}

#[derive(Clone, Copy, Default, Deserialize)]
struct Usage {
    #[serde(default)]
    prompt_tokens: u64,
}

/// The result of each row, or what is wrong with its vector. `settle` tells the length that vectors must have, given that
/// of the first. The error is of the answer as a whole, and completes "it answered with …".
pub(super) fn split(
    asks: &[Ask],
    body: &Bytes,
    settle: impl Fn(usize) -> usize,
) -> Result<Vec<Result<Bytes, String>>, String> {
    let list: List<'_> =
        serde_json::from_slice(body).map_err(|error| format!("JSON that is no list of embeddings ({error})"))?;
    let count: usize = asks.iter().map(|ask| ask.count).sum();
    if list.data.len() != count {
        return Err(format!("{} vectors, where {count} were asked for", list.data.len()));
    }
    let mut vectors: Vec<Option<&RawValue>> = vec![None; count];
    for (place, item) in list.data.iter().enumerate() {
        let index = item.index.unwrap_or(place);
        match vectors.get_mut(index) {
            Some(vector @ None) => *vector = Some(item.embedding),
            _ => return Err(format!("a vector whose index {index} is none that was asked for, or is there twice")),
        }
    }
    let vectors: Vec<&RawValue> = vectors.into_iter().flatten().collect();
    let lengths: Vec<Result<usize, String>> = vectors.iter().map(|vector| length(vector)).collect();
    let expected = lengths.iter().find_map(|length| length.as_ref().ok()).map(|first| settle(*first));
    let faults = lengths.into_iter().map(|length| match length {
        Ok(length) if Some(length) == expected => None,
        Ok(length) => Some(format!("a vector of {length} numbers, where {} are right", expected.unwrap_or_default())),
        Err(fault) => Some(fault),
    });
    let faults: Vec<Option<String>> = faults.collect();
    if let [_] = asks {
        let fault = faults.into_iter().flatten().next();
        return Ok(vec![fault.map_or_else(|| Ok(body.clone()), Err)]);
    }
    let tokens = divide(list.usage.unwrap_or_default().prompt_tokens, asks);
    let one = |((fault, vector), tokens): ((Option<String>, &&RawValue), u64)| match fault {
        Some(fault) => Err(fault),
        None => Ok(single(vector, list.model.as_deref().unwrap_or_default(), tokens)),
    };
    Ok(faults.into_iter().zip(&vectors).zip(tokens).map(one).collect())
}

/// Numbers in a vector; the error says what is wrong with it.
fn length(vector: &RawValue) -> Result<usize, String> {
    let text = vector.get();
    let numbers = if text.starts_with('"') {
        let encoded: String = serde_json::from_str(text).map_err(|error| error.to_string())?;
        let bytes = STANDARD.decode(encoded).map_err(|_| "a vector that is no base64".to_owned())?;
        let (floats, rest) = bytes.as_chunks::<4>();
        if !rest.is_empty() || floats.iter().any(|bytes| !f32::from_le_bytes(*bytes).is_finite()) {
            return Err("a vector that is not of finite 32-bit floats".to_owned());
        }
        floats.len()
    } else {
        let numbers: Vec<f64> = serde_json::from_str(text).map_err(|_| "a vector that is not of numbers".to_owned())?;
        if numbers.iter().any(|number| !(*number as f32).is_finite()) {
            return Err("a vector with a number that no 32-bit float holds".to_owned());
        }
        numbers.len()
    };
    if numbers == 0 { Err("a vector of no numbers".to_owned()) } else { Ok(numbers) }
}

/// An answer as if the row had been alone.
fn single(vector: &RawValue, model: &str, tokens: u64) -> Bytes {
    let head = "{\"object\":\"list\",\"data\":[{\"object\":\"embedding\",\"index\":0,\"embedding\":";
    let usage = serde_json::json!({ "prompt_tokens": tokens, "total_tokens": tokens });
    let (vector, model) = (vector.get(), serde_json::Value::from(model));
    format!("{head}{vector}}}],\"model\":{model},\"usage\":{usage}}}").into()
}

fn divide(total: u64, asks: &[Ask]) -> Vec<u64> {
    let weight = |ask: &Ask| ask.part.as_ref().map_or(1, |part| part.input.get().len()) as u128;
    let all: u128 = asks.iter().map(weight).sum::<u128>().max(1);
    let (mut seen, mut given) = (0, 0);
    let share = |ask: &Ask| {
        seen += weight(ask);
        let so_far = (u128::from(total) * seen / all) as u64;
        let share = so_far - given;
        given = so_far;
        share
    };
    asks.iter().map(share).collect()
}
