//! A stand-in for a model of embeddings: feature hashing of words and their parts. It runs here, needs nothing, and is
//! always the same.
//!
//! It is lexical: texts are alike where their words are spelt alike, and it knows no meaning. It takes and gives what
//! the API for embeddings does, so that everything around a model can be tried without one.
//!
//! A text's vector: each word, and each three letters of ` word `, adds 1 or -1 (words twice that) at a place; both the
//! sign and the place come from its hash. The vector is then made one long.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::Deserialize;
use serde_json::json;
use sheaf_task::{BODY_BYTES_MAX, Class, Evidence, Outcome, Tokens};

use super::verdict;

/// The name of what it does, in `model`.
pub const HASH_EMBED_MODEL: &str = "hash-embed";
/// Numbers in a vector where the request says nothing.
const DIMENSIONS: usize = 256;
/// The most that a request may ask for.
const DIMENSIONS_MAX: usize = 4_096;
/// A word counts as much as so many of its parts.
const WORD_WEIGHT: f32 = 2.0;

#[derive(Deserialize)]
struct Ask {
    input: Input,
    dimensions: Option<usize>,
    encoding_format: Option<String>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Input {
    One(String),
    Several(Vec<String>),
}

/// The outcome of a task whose body is a request for embeddings, and the words that were read for it.
pub(super) fn answer(body: &[u8]) -> (Outcome, Tokens) {
    match read(body) {
        Ok((answer, words)) => (Outcome::Ok(answer), Tokens { prompt: words as u64, completion: 0 }),
        Err(why) => (verdict::failed(Class::Rejected, why, Evidence::default()), Tokens::default()),
    }
}

fn read(body: &[u8]) -> Result<(Bytes, usize), String> {
    let ask: Ask = serde_json::from_slice(body).map_err(|error| {
        format!(
            "{HASH_EMBED_MODEL} answers requests for embeddings, {{\"input\": \"text\"}}, and this row is none: {error}"
        )
    })?;
    let dimensions = ask.dimensions.unwrap_or(DIMENSIONS);
    if !(1..=DIMENSIONS_MAX).contains(&dimensions) {
        return Err(format!("dimensions must be from 1 to {DIMENSIONS_MAX}, and are {dimensions}"));
    }
    let is_base64 = match ask.encoding_format.as_deref() {
        None | Some("float") => false,
        Some("base64") => true,
        Some(other) => return Err(format!("{HASH_EMBED_MODEL} gives embeddings as float or base64, not as {other}")),
    };
    let texts = match ask.input {
        Input::One(text) => vec![text],
        Input::Several(texts) => texts,
    };
    if texts.len().saturating_mul(dimensions) > BODY_BYTES_MAX {
        return Err(format!("{} texts in one request have vectors longer than a result may be", texts.len()));
    }
    let mut tokens = 0;
    let mut data = Vec::with_capacity(texts.len());
    for (index, text) in texts.iter().enumerate() {
        tokens += words(text).count();
        let vector = vector(text, dimensions);
        let bytes = || vector.iter().flat_map(|number| number.to_le_bytes()).collect::<Vec<u8>>();
        let embedding = if is_base64 { json!(STANDARD.encode(bytes())) } else { json!(vector) };
        data.push(json!({ "object": "embedding", "index": index, "embedding": embedding }));
    }
    let usage = json!({ "prompt_tokens": tokens, "total_tokens": tokens });
    let answer = json!({ "object": "list", "data": data, "model": HASH_EMBED_MODEL, "usage": usage });
    Ok((answer.to_string().into(), tokens))
}

fn vector(text: &str, dimensions: usize) -> Vec<f32> {
    let mut vector = vec![0.0; dimensions];
    let mut add = |part: &str, weight: f32| {
        let hash = hash(part.as_bytes());
        let sign = if hash >> 63 == 0 { weight } else { -weight };
        vector[(hash % dimensions as u64) as usize] += sign;
    };
    for word in words(text) {
        add(&word, WORD_WEIGHT);
        let framed: Vec<char> = format!(" {word} ").chars().collect();
        framed.windows(3).for_each(|part| add(&part.iter().collect::<String>(), 1.0));
    }
    let norm = vector.iter().map(|number| number * number).sum::<f32>().sqrt();
    if norm > 0.0 {
        vector.iter_mut().for_each(|number| *number /= norm);
    }
    vector
}

fn words(text: &str) -> impl Iterator<Item = String> {
    text.split(|sign: char| !sign.is_alphanumeric()).filter(|word| !word.is_empty()).map(str::to_lowercase)
}

/// FNV-1a, and a last mixing so that both ends of the number depend on all of it.
fn hash(bytes: &[u8]) -> u64 {
    let fnv = bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3));
    let mixed = (fnv ^ (fnv >> 32)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed ^ (mixed >> 29)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn alike(a: &str, b: &str) -> f32 {
        vector(a, DIMENSIONS).iter().zip(vector(b, DIMENSIONS)).map(|(a, b)| a * b).sum()
    }

    #[test]
    fn texts_are_alike_where_their_words_are() {
        let text = "The borrow checker complains about a borrowed value";
        assert!((alike(text, "the BORROW checker, complains about: a borrowed value") - 1.0).abs() < 1e-5);
        assert!(alike(text, "a value borrowed twice") > alike(text, "fish swim in salty seas") + 0.2);
        assert!(vector("", 8).iter().all(|number| *number == 0.0));
    }

    #[test]
    fn it_takes_and_gives_what_the_api_does() {
        let (answer, words) = read(br#"{"input":["one","two words"],"dimensions":16,"model":"x"}"#).unwrap();
        assert_eq!(words, 3);
        let answer: serde_json::Value = serde_json::from_slice(&answer).unwrap();
        assert_eq!(answer["data"][1]["embedding"].as_array().unwrap().len(), 16);
        assert_eq!(answer["usage"]["prompt_tokens"], 3);
        let (answer, _) = read(br#"{"input":"one","dimensions":16,"encoding_format":"base64"}"#).unwrap();
        let answer: serde_json::Value = serde_json::from_slice(&answer).unwrap();
        let bytes = STANDARD.decode(answer["data"][0]["embedding"].as_str().unwrap()).unwrap();
        let numbers = bytes.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes));
        assert_eq!(numbers.collect::<Vec<f32>>(), vector("one", 16));
        let int8 = &br#"{"input":"x","encoding_format":"int8"}"#[..];
        for wrong in [int8, b"text", b"{}", br#"{"input":[1]}"#, br#"{"input":"x","dimensions":0}"#] {
            assert!(read(wrong).is_err());
        }
    }
}
