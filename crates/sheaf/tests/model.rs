//! Models behind an API, as a user calls them: what is asked, what lands beside the rows, and what a backend that
//! misbehaves can do to a job. The backends share no code with what calls them.

#![allow(clippy::expect_used, reason = "a test fails by panicking")]

mod common;
#[path = "../../worker/tests/common/upstream.rs"]
mod upstream;

use std::collections::BTreeSet;
use std::sync::Mutex;

use common::{Sandbox, text, wait_until};
use serde_json::{Value, json};
use upstream::{Reply, Request, Upstream};

const PROMPT: &str = "Classify: {{ text }}";

fn reviews(s: &Sandbox, n: usize) {
    let line = |i| json!({ "id": format!("r{i}"), "text": format!("review {i}") }).to_string() + "\n";
    s.write("reviews.jsonl", (1..=n).map(line).collect::<String>());
}

/// `sheaf run` of the reviews, each a question to the model at this address.
fn asking<'a>(url: &'a str, extra: &[&'a str]) -> Vec<&'a str> {
    let start = ["run", "--in", "reviews.jsonl", "--id", "id", "--out", "labels.jsonl", "--prompt", PROMPT];
    [&start[..], &["--model", "m", "--backend", url], extra].concat()
}

/// What the request asks: the last message.
fn question(request: &Request) -> String {
    let body: Value = serde_json::from_str(&request.body).expect("a request is JSON");
    body["messages"]
        .as_array()
        .and_then(|all| all.last())
        .map_or(String::new(), |last| last["content"].as_str().unwrap_or_default().to_owned())
}

fn says(text: &str) -> Reply {
    let usage = json!({ "prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7 });
    Reply::ok(json!({ "choices": [{ "message": { "content": text } }], "usage": usage }).to_string())
}

/// Answers a question with itself in upper case.
fn echo(request: &Request) -> Reply {
    says(&question(request).to_uppercase())
}

#[test]
fn each_row_is_asked_once_and_its_label_stands_beside_it() {
    let s = Sandbox::new();
    reviews(&s, 12);
    let model = Upstream::start(echo);
    let url = model.url("/v1");
    let options = ["--system", "One word.", "--max-tokens", "7", "--temperature", "0", "--param", "top_p=0.5"];
    let said = text(&s.sheaf_exits(0, &asking(&url, &options)));
    assert!(said.contains("tokens 60 in, 24 out"), "{said}");
    for (row, line) in s.output("labels.jsonl") {
        assert_eq!(line["output"], format!("CLASSIFY: REVIEW {row}"));
        assert_eq!(
            (&line["id"], &line["tokens"]),
            (&json!(format!("r{row}")), &json!({ "prompt": 5, "completion": 2 }))
        );
    }
    let body: Value = serde_json::from_str(&model.requests()[0].body).expect("JSON");
    assert_eq!((&body["model"], &body["max_tokens"], &body["top_p"]), (&json!("m"), &json!(7), &json!(0.5)));
    assert_eq!(body["messages"][0], json!({ "role": "system", "content": "One word." }));
    s.sheaf_exits(0, &asking(&url, &options));
    assert_eq!(model.requests().len(), 12, "the same command asks nothing again");
}

#[test]
fn every_kind_of_source_has_its_fields() {
    let s = Sandbox::new();
    let db = rusqlite::Connection::open(s.path("r.sqlite")).expect("a database");
    db.execute_batch("create table r (id integer primary key, t text); insert into r values (7, 'a')").expect("SQL");
    s.write("r.csv", "id,t\n7,a\n");
    s.write("r.jsonl", "{\"id\": 7, \"t\": \"a\", \"more\": [1]}\n");
    s.write("r.txt", "a\n");
    let model = Upstream::start(echo);
    let url = model.url("/v1");
    let asks = |input: &[&str], prompt: &str, out: &str| {
        let start = ["run", "--out", out, "--model", "m", "--backend", &url, "--prompt", prompt];
        s.sheaf_exits(0, &[&start[..], input].concat());
        s.output(out).remove(&1).expect("a row")["output"].clone()
    };
    let query = ["--in", "r.sqlite", "--query", "select id, t from r"];
    assert_eq!(asks(&query, "{{ id }} is {{ t }}", "1.jsonl"), "7 IS A");
    assert_eq!(asks(&["--in", "r.csv"], "{{ id }} was {{ t }}", "2.jsonl"), "7 WAS A");
    assert_eq!(asks(&["--in", "r.jsonl", "--id", "id"], "{{ t }}{{ more[0] }}", "3.jsonl"), "A1");
    assert_eq!(asks(&["--in", "r.jsonl", "--column", "t"], "<{{ text }}>", "4.jsonl"), "<A>");
    assert_eq!(asks(&["--in", "r.txt"], "[{{ text }}]", "5.jsonl"), "[A]");
}

#[test]
fn mistakes_are_told_before_anything_is_sent() {
    let s = Sandbox::new();
    reviews(&s, 3);
    s.write("schema.json", r#"{"type": 7}"#);
    s.write("empty", "\n");
    let model = Upstream::start(echo);
    let url = model.url("/v1");
    let start = ["run", "--in", "reviews.jsonl", "--out", "labels.jsonl"];
    let refused = |extra: &[&str]| text(&s.sheaf_exits(2, &[&start[..], extra].concat()));
    let said = refused(&["--prompt", "{{ txt }}", "--model", "m", "--backend", &url]);
    assert!(["txt", "id, text", "row 1"].into_iter().all(|part| said.contains(part)), "{said}");
    for wrong in [
        &["--prompt", "{{ text", "--model", "m", "--backend", &url][..],
        &["--prompt", PROMPT, "--backend", &url],
        &["--prompt", PROMPT, "--model", "m", "--backend", &url, "--schema", "schema.json"],
        &["--prompt", PROMPT, "--model", "m", "--backend", &url, "--schema", "missing.json"],
        &["--prompt", PROMPT, "--model", "m", "--backend", &url, "--param", "messages=[]"],
        &["--prompt", PROMPT, "--model", "m", "--backend", &url, "--api-key-file", "empty"],
        &["--prompt", PROMPT, "--model", "m", "--backend", "127.0.0.1:8000"],
        &["--prompt", PROMPT, "--model", "m", "--backend", &url, "--backend-ca", "empty"],
        &["--system", "x", "--model", "m", "--backend", &url],
        &["--http", &url, "--", "cat"],
    ] {
        refused(wrong);
    }
    assert!(!common::exists(&s.path("labels.jsonl")));
    assert_eq!(model.requests().len(), 0);
}

#[test]
fn an_answer_that_the_schema_does_not_allow_is_asked_for_again() {
    let s = Sandbox::new();
    reviews(&s, 4);
    s.write(
        "schema.json",
        r#"{"type": "object", "properties": {"label": {"enum": ["good", "bad"]}}, "required": ["label"]}"#,
    );
    let seen = Mutex::new(BTreeSet::new());
    let model = Upstream::start(move |request| {
        let is_first = seen.lock().expect("no panic").insert(question(request));
        says(if is_first { "I think it is good." } else { r#"{"label":"good"}"# })
    });
    s.sheaf_exits(0, &asking(&model.url("/v1"), &["--batch", "1", "--schema", "schema.json"]));
    for line in s.output("labels.jsonl").values() {
        assert_eq!((&line["output"], &line["attempts"]), (&json!(r#"{"label":"good"}"#), &json!(2)));
    }
    let body: Value = serde_json::from_str(&model.requests()[0].body).expect("JSON");
    assert_eq!(body["response_format"]["json_schema"]["schema"]["type"], "object");
}

#[test]
fn nothing_but_answers_lands_whatever_the_backend_does() {
    let s = Sandbox::new();
    reviews(&s, 40);
    // Each question is answered badly once, each in another way; then well.
    let seen = Mutex::new(BTreeSet::new());
    let model = Upstream::start(move |request| {
        let mut seen = seen.lock().expect("no panic");
        if !seen.insert(question(request)) {
            return echo(request);
        }
        match seen.len() % 10 {
            0 => Reply::new(429, "slow down").with("retry-after", "0.1"),
            1 => Reply::new(503, "loading"),
            2 => Reply::new(500, "oops"),
            3 => Reply::HangUp,
            4 => Reply::Truncated(r#"{"choices":[{"message":{"content":"hal"#),
            5 => Reply::ok("<html>"),
            6 => Reply::ok(r#"{"error":{"code":502,"message":"no provider"}}"#),
            7 => Reply::ok(r#"{"choices":[]}"#),
            8 => Reply::Noise,
            _ => echo(request),
        }
    });
    s.sheaf_exits(0, &asking(&model.url("/v1"), &["--batch", "4"]));
    let rows = s.output("labels.jsonl");
    assert_eq!(rows.len(), 40);
    for (row, line) in rows {
        assert_eq!(line["output"], format!("CLASSIFY: REVIEW {row}"), "{line}");
    }
}

#[test]
fn a_worker_whose_answers_are_garbage_is_given_nothing_more_and_the_others_do_it_all() {
    let s = Sandbox::new();
    reviews(&s, 60);
    let (bad, good) = (Upstream::start(|_| Reply::ok("{}")), Upstream::start(echo));
    let (mut router, addr) = s.router(&[]);
    let worker = |name: &str, url: &str| {
        let args = ["worker", "--join", &addr, "--name", name, "--data", name, "--batch", "1", "--depth", "0"];
        s.start(name, &[&args[..], &["--backend", url, "--model", "m"]].concat())
    };
    let mut spoiler = worker("spoiler", &bad.url("/v1"));
    wait_until("it is asked", || spoiler.log().contains("worker for `m`"));
    let mut helper = worker("helper", &good.url("/v1"));
    let run = ["run", "--join", &addr, "--in", "reviews.jsonl", "--out", "labels.jsonl", "--retries", "20"];
    s.sheaf_exits(0, &[&run[..], &["--prompt", PROMPT, "--model", "m"]].concat());
    let rows = s.output("labels.jsonl");
    assert_eq!(rows.len(), 60);
    rows.values().for_each(|line| assert_eq!(line["worker"], "helper"));
    assert!(bad.requests().len() <= 10, "{} requests went to the bad one", bad.requests().len());
    for process in [&mut spoiler, &mut helper, &mut router] {
        process.signal("-TERM");
        process.exits(0);
    }
}

#[test]
fn rows_are_posted_to_any_server() {
    let s = Sandbox::new();
    s.rows("rows.txt", 20);
    let server = Upstream::start(|request| match request.body.as_str() {
        "row-7" => Reply::new(422, "seven is not allowed"),
        row => Reply::ok(format!("{row}!")),
    });
    s.sheaf_exits(3, &["run", "--in", "rows.txt", "--out", "out.jsonl", "--http", &server.url("/annotate")]);
    for (row, line) in s.output("out.jsonl") {
        match row {
            7 => assert_eq!((&line["error"]["class"], &line["attempts"]), (&json!("rejected"), &json!(1))),
            _ => assert_eq!(line["output"], format!("row-{row}!")),
        }
    }
    assert_eq!(server.requests().len(), 20);
}

#[test]
fn rows_are_embedded_without_a_model() {
    let s = Sandbox::new();
    s.write("rows.txt", "the cat sat\nthe cat sits\nquarterly revenue\n");
    let run = ["run", "--in", "rows.txt", "--out", "vectors.jsonl", "--embed", "{{ text }}"];
    s.sheaf_exits(0, &[&run[..], &["--backend", "builtin:hash-embed", "--param", "dimensions=64"]].concat());
    let vector = |line: &Value| -> Vec<f64> {
        serde_json::from_str(line["output"].as_str().expect("an output")).expect("a vector")
    };
    let vectors: Vec<Vec<f64>> = s.output("vectors.jsonl").values().map(vector).collect();
    let alike = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    assert!(vectors.iter().all(|vector| vector.len() == 64));
    assert!(alike(&vectors[0], &vectors[1]) > alike(&vectors[0], &vectors[2]));
}

#[test]
fn a_key_goes_to_this_machine_and_is_in_no_message_and_no_file() {
    let s = Sandbox::new();
    reviews(&s, 2);
    let model = Upstream::start(|_| Reply::new(401, r#"{"error":{"message":"wrong key"}}"#));
    let url = model.url("/v1");
    let args = asking(&url, &["--retries", "0"]);
    let output = s.command(&args).env("OPENAI_API_KEY", "sk-very-secret").output().expect("sheaf starts");
    assert_eq!(output.status.code(), Some(3), "{}", text(&output));
    assert_eq!(model.requests()[0].headers["authorization"], "Bearer sk-very-secret");
    for line in s.output("labels.jsonl").values() {
        assert_eq!(line["error"]["class"], "error", "a key is no fault of the row");
    }
    let found = std::process::Command::new("grep").args(["-rl", "very-secret", "."]).current_dir(s.path("")).output();
    assert!(found.expect("grep exists").stdout.is_empty(), "the key is in a file");
    assert!(!text(&output).contains("very-secret"));
}
