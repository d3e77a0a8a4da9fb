//! What the answers of a batch look like to who asked: vectors in the form that each line wants, tokens summed.

use serde_json::{Value, json};

use crate::client::Door;
use crate::common::{Process, Sandbox};
use crate::{EMBED, embed};

/// A worker that answers whatever is asked with these floats as numbers, and tells of its tokens.
fn floats(door: &Door, s: &Sandbox, service: &str) -> Process {
    let answer = json!({"object": "list", "data": [{"object": "embedding", "index": 0, "embedding": "FLOATS"}],
        "model": service, "usage": {"prompt_tokens": 3, "total_tokens": 3}});
    let answer = answer.to_string().replace("\"FLOATS\"", "[0.1, -2.5, 1e-3, 16777217]");
    s.script("floats", &format!("#!/bin/sh\ncat > /dev/null\necho '{answer}'\n"));
    door.worker(s, service, &["--stdin", "--", "./floats"])
}

/// The same floats, little-endian.
const PACKED: &str = "zczMPQAAIMBvEoM6AACASw==";

fn vectors<'a>(lines: &'a [Value]) -> Vec<(&'a str, &'a Value)> {
    let vector = |line: &'a Value| {
        (line["custom_id"].as_str().expect("an id"), &line["response"]["body"]["data"][0]["embedding"])
    };
    let mut found: Vec<_> = lines.iter().map(vector).collect();
    found.sort_by_key(|(id, _)| *id);
    found
}

#[test]
fn each_line_gets_its_vectors_in_the_form_that_it_asks_for() {
    let s = Sandbox::new();
    let door = Door::open(&s);
    let _worker = floats(&door, &s, "m");
    let asks = |id: &str, model: &str, encoding: &str| {
        embed(id, model, "x").replace("\"input\"", &format!("\"encoding_format\":\"{encoding}\",\"input\""))
    };
    let input = [embed("a", "m", "x"), asks("b", "m", "base64"), asks("c", "m", "float"), asks("d", "later", "base64")];
    let batch = door.create(&door.upload(&input.concat()), EMBED, "24h");
    door.done(&batch, 3);
    let (numbers, packed) = (json!([0.1, -2.5, 1e-3, 16_777_217]), json!(PACKED));
    let page = door.get(&format!("/v1/batches/{batch}/results")).good();
    let running = page["data"].as_array().expect("lines");
    assert_eq!(vectors(running), [("a", &numbers), ("b", &packed), ("c", &numbers)]);
    let _later = floats(&door, &s, "later");
    let over = door.over(&batch, "completed");
    let written = door.lines(&over["output_file_id"]);
    assert_eq!(vectors(&written), [("a", &numbers), ("b", &packed), ("c", &numbers), ("d", &packed)]);
    let usage = json!({"input_tokens": 12, "input_tokens_details": {"cached_tokens": 0}, "output_tokens": 0,
        "output_tokens_details": {"reasoning_tokens": 0}, "total_tokens": 12});
    assert_eq!((&over["usage"], &over["model"]), (&usage, &Value::Null), "two models are none");
}

#[test]
fn a_batch_of_one_model_names_it_and_tells_of_no_tokens_that_nobody_told() {
    let s = Sandbox::new();
    let door = Door::open(&s);
    let _worker = door.worker(&s, "cat", &["--stdin", "--", "cat"]);
    let batch = door.create(&door.upload(&embed("a", "cat", "x")), EMBED, "24h");
    let over = door.over(&batch, "completed");
    assert_eq!((&over["model"], &over["usage"]), (&json!("cat"), &Value::Null));
}
