//! An answer that came as a stream of events, put together into the answer that would have come without one.
//!
//! Each event is a piece of the answer; what grows (texts, arguments) is appended, what stands is set. The stream has
//! ended well when it says `[DONE]`, or every choice has said why it ends.

use bytes::Bytes;
use serde_json::{Map, Value, json};

use super::Wrong;

/// Fields whose pieces follow each other.
const GROWING: [&str; 6] = ["content", "reasoning_content", "reasoning", "refusal", "arguments", "text"];

/// Choices, tool calls and the like that one answer may have.
const ITEMS_MAX: usize = 1_024;

pub(super) fn assemble(body: &[u8]) -> Result<Bytes, Wrong> {
    let garbage = |what: &str| Wrong::Garbage(what.to_owned());
    let text = std::str::from_utf8(body).map_err(|_| garbage("a stream that is not UTF-8"))?;
    let (mut answer, mut is_done) = (Map::new(), false);
    for data in events(text) {
        if data == "[DONE]" {
            is_done = true;
            break;
        }
        let Ok(Value::Object(piece)) = serde_json::from_str(&data) else {
            // The last event of a stream that was cut may be a part of one.
            return Err(if text.ends_with('\n') { garbage("an event that is no JSON") } else { short() });
        };
        if piece.get("error").is_some_and(|error| !error.is_null()) {
            return Ok(Value::Object(piece).to_string().into());
        }
        add(&mut answer, piece)?;
    }
    let choices = answer.get("choices").and_then(Value::as_array);
    let has_ended = |choice: &Value| choice.get("finish_reason").is_some_and(|reason| !reason.is_null());
    let all_ended = choices.is_some_and(|choices| !choices.is_empty() && choices.iter().all(has_ended));
    if !is_done && !all_ended {
        return Err(short());
    }
    Ok(Value::Object(answer).to_string().into())
}

fn short() -> Wrong {
    Wrong::Short("a stream that ends before it says so".to_owned())
}

/// The data of each event.
fn events(text: &str) -> impl Iterator<Item = String> {
    let mut lines = text.lines();
    std::iter::from_fn(move || {
        let mut data: Vec<&str> = Vec::new();
        loop {
            match lines.next() {
                Some("") | None if !data.is_empty() => return Some(data.join("\n")),
                Some(line) => {
                    data.extend(line.strip_prefix("data:").map(|rest| rest.strip_prefix(' ').unwrap_or(rest)))
                }
                None => return None,
            }
        }
    })
}

/// Adds one event to the answer.
fn add(answer: &mut Map<String, Value>, piece: Map<String, Value>) -> Result<(), Wrong> {
    for (name, value) in piece {
        match (name.as_str(), value) {
            ("choices", Value::Array(choices)) => {
                let all = answer.entry("choices").or_insert_with(|| json!([]));
                choices.into_iter().try_for_each(|choice| add_indexed(all, as_choice(choice)))?;
            }
            ("object", Value::String(object)) => {
                answer.insert(name, object.trim_end_matches(".chunk").into());
            }
            (_, Value::Null) => {}
            (_, value) => {
                answer.insert(name, value);
            }
        }
    }
    Ok(())
}

/// A chat's piece calls its message `delta`.
fn as_choice(mut choice: Value) -> Value {
    if let Some(fields) = choice.as_object_mut()
        && let Some(delta) = fields.remove("delta")
    {
        fields.insert("message".to_owned(), delta);
    }
    choice
}

/// Adds an item to those of the same kind: to the one with its index.
fn add_indexed(all: &mut Value, item: Value) -> Result<(), Wrong> {
    let Some(all) = all.as_array_mut() else {
        return Err(Wrong::Garbage("a stream whose pieces do not fit".to_owned()));
    };
    let index = |item: &Value| item.get("index").and_then(Value::as_u64).unwrap_or(0);
    match all.iter().position(|known| index(known) == index(&item)) {
        Some(at) => merge(&mut all[at], item),
        None if all.len() < ITEMS_MAX => {
            all.push(item);
            Ok(())
        }
        None => Err(Wrong::Garbage(format!("a stream of more than {ITEMS_MAX} choices"))),
    }
}

fn merge(known: &mut Value, piece: Value) -> Result<(), Wrong> {
    let (Value::Object(known), Value::Object(piece)) = (known, piece) else { return Ok(()) };
    for (name, value) in piece {
        match (known.get_mut(&name), value) {
            (_, Value::Null) => {}
            (Some(Value::String(text)), Value::String(more)) if GROWING.contains(&name.as_str()) => {
                text.push_str(&more)
            }
            (Some(all @ Value::Array(_)), Value::Array(items)) => {
                items.into_iter().try_for_each(|item| add_indexed(all, item))?;
            }
            (Some(inner @ Value::Object(_)), value @ Value::Object(_)) => merge(inner, value)?,
            (_, value) => {
                known.insert(name, value);
            }
        }
    }
    Ok(())
}
