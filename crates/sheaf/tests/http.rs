//! The front door as its clients have it: online calls and tasks over sockets, against the real binary. The client here is
//! a few lines over `std::net`, and shares no code with the door.

#![allow(clippy::expect_used, reason = "a test fails by panicking")]

mod common;
#[path = "common/http.rs"]
mod http;
#[path = "../../worker/tests/common/upstream.rs"]
mod upstream;

use std::io::{Read, Write};
use std::sync::{Arc, Mutex, mpsc};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use common::{Process, Sandbox, wait_until};
use http::{Answer, Door, door};
use serde_json::{Value, json};
use upstream::{Reply, Upstream};

fn worker(s: &Sandbox, door: &Door, args: &[&str]) -> Process {
    let name = args[1];
    let fixed = ["worker", "--join", &door.router, "--data", name];
    s.start(name, &[&fixed[..], args].concat())
}

/// Waits until some worker offers the service.
fn offered(door: &Door, service: &str) {
    let escaped = service.replace('/', "%2F");
    wait_until(service, || door.get(&format!("/v1/models/{escaped}")).status == 200);
}

fn embed(door: &Door, input: &str, format: Option<&str>) -> Value {
    let mut body = json!({"model": "hash-embed", "input": input, "dimensions": 64});
    if let Some(format) = format {
        body["encoding_format"] = format.into();
    }
    let answer = door.post("/v1/embeddings", &[], &body);
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()["data"][0]["embedding"].clone()
}

#[test]
fn models_are_what_workers_offer_and_embeddings_have_the_same_bits_in_either_form() {
    let s = Sandbox::new();
    let (_router, door) = door(&s, &[]);
    let none = door.post("/v1/embeddings", &[], &json!({"model": "hash-embed", "input": "a"}));
    assert_eq!((none.status, none.code()), (404, json!("model_not_found")));
    assert_eq!(none.header("x-should-retry"), Some("false"));
    assert_eq!(door.get("/v1/models").json()["data"], json!([]));

    let _worker = worker(&s, &door, &["--name", "w", "--backend", "builtin:hash-embed"]);
    offered(&door, "hash-embed");
    assert_eq!(door.get("/v1/models").json()["data"][0]["id"], "hash-embed");
    let other = door.post("/v1/chat/completions", &[], &json!({"model": "gpt", "messages": []}));
    assert!(other.status == 404 && other.body_text().contains("hash-embed"), "{other:?}");

    for body in [json!(["hash-embed", null, null, null]), json!("hash-embed"), json!(7)] {
        let wrong = door.post("/v1/embeddings", &[], &body);
        assert_eq!((wrong.status, &wrong.json()["error"]["type"]), (400, &json!("invalid_request_error")), "{wrong:?}");
    }

    let floats = embed(&door, "the cat sat on the mat", None);
    let floats = floats.as_array().expect("numbers").iter().map(|n| n.as_f64().expect("a number") as f32);
    let bytes: Vec<u8> = floats.flat_map(|float| float.to_le_bytes()).collect();
    let base64 = embed(&door, "the cat sat on the mat", Some("base64"));
    assert_eq!(STANDARD.decode(base64.as_str().expect("a text")).expect("base64"), bytes);
    assert_eq!(bytes.len(), 64 * 4);
}

#[test]
fn a_backend_is_heard_word_for_word_in_one_piece_or_as_a_stream() {
    let s = Sandbox::new();
    let (_router, door) = door(&s, &[]);
    let model = Upstream::start(|request| match request.body.as_str() {
        body if body.contains("garbage") => Reply::ok("<html>"),
        body if body.contains("refuse") => Reply::new(422, r#"{"error":{"message":"no such thing","code":"odd"}}"#),
        _ => Reply::ok(
            r#"{"id":"c1",  "object":"chat.completion","choices":[{"index":0,"finish_reason":"stop","message":{"role":"assistant","content":"hi"}}],"usage":{"total_tokens":3}}"#,
        ),
    });
    let _worker = worker(&s, &door, &["--name", "w", "--model", "org/m", "--backend", &model.url("/v1")]);
    offered(&door, "org/m");
    let chat = |content: &str, stream: bool| {
        let messages = json!([{"role": "user", "content": content}]);
        door.post("/v1/chat/completions", &[], &json!({"model": "org/m", "messages": messages, "stream": stream}))
    };

    let whole = chat("hello", false);
    assert_eq!(whole.status, 200, "{whole:?}");
    assert!(whole.body_text().starts_with(r#"{"id":"c1",  "object""#), "byte for byte: {whole:?}");
    assert!(whole.header("x-request-id").is_some_and(|id| id.starts_with("req_")));
    let sent = model.requests().pop().expect("a request").body;
    let sent: Value = serde_json::from_str(&sent).expect("JSON");
    assert_eq!(sent["messages"][0]["content"], "hello");

    let stream = chat("hello", true);
    assert_eq!(stream.header("content-type"), Some("text/event-stream; charset=utf-8"));
    let events: Vec<&str> = stream.body_text().leak().split("\n\n").filter(|event| !event.is_empty()).collect();
    let first: Value = serde_json::from_str(events[0].trim_start_matches("data: ")).expect("JSON");
    assert_eq!(first["choices"][0]["delta"]["content"], "hi");
    assert_eq!((first["object"].as_str(), events.last()), (Some("chat.completion.chunk"), Some(&"data: [DONE]")));

    let refused = chat("refuse", false);
    assert_eq!((refused.status, refused.code()), (422, json!("odd")), "{refused:?}");
    assert_eq!(refused.header("x-should-retry"), Some("false"));
    let key = refused.header("x-sheaf-task").expect("its name");
    let told = door.get(&format!("/v1/tasks/{key}")).json();
    let said = json!({"status": 422, "message": "no such thing", "type": "", "param": "", "code": "odd"});
    assert_eq!(told["error"]["evidence"]["upstream"], said, "it is on record: {told}");
    let garbage = chat("garbage", false);
    assert_eq!((garbage.status, garbage.code()), (502, json!("garbage")), "{garbage:?}");
}

#[test]
fn a_program_that_speaks_of_a_status_has_none() {
    let s = Sandbox::new();
    s.script("prog", "#!/bin/sh\necho 'http://other answers 451 to this' >&2\nexit 1\n");
    let (_router, door) = door(&s, &[]);
    let _worker = worker(&s, &door, &["--name", "w", "--", "./prog", "{}"]);
    offered(&door, "prog");
    let refused = door.post("/v1/tasks", &[], &json!({"service": "prog", "body": "row"}));
    assert_eq!((refused.status, refused.json()["error"]["code"].clone()), (400, json!("rejected")), "{refused:?}");
}

#[test]
fn a_stream_is_shown_while_it_comes() {
    let s = Sandbox::new();
    let (_router, door) = door(&s, &[]);
    let (send, events) = mpsc::sync_channel(8);
    let events = Arc::new(Mutex::new(events));
    let model = Upstream::start(move |_| Reply::Events(Arc::clone(&events)));
    let _worker = worker(&s, &door, &["--name", "w", "--model", "m", "--backend", &model.url("/v1")]);
    offered(&door, "m");

    let body = json!({"model": "m", "stream": true, "messages": [{"role": "user", "content": "count"}]}).to_string();
    let mut client = door.connect();
    let head = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    client.write_all(&[head.as_bytes(), body.as_bytes()].concat()).expect("sent");
    let mut seen = String::new();
    let mut read_until = |what: &str| {
        let mut buffer = [0; 4096];
        while !seen.contains(what) {
            let count = client.read(&mut buffer).expect("more of the answer");
            assert!(count > 0, "no {what} in {seen}");
            seen.push_str(&String::from_utf8_lossy(&buffer[..count]));
        }
    };
    let event = |text: &str, finish: Value| {
        let choice = json!({"index": 0, "delta": {"content": text}, "finish_reason": finish});
        format!("data: {}\n\n", json!({"id": "c", "object": "chat.completion.chunk", "choices": [choice]}))
    };
    // Each is there before the next one is sent.
    for number in ["one", "two", "three"] {
        send.send(event(number, Value::Null)).expect("the backend streams");
        read_until(number);
    }
    send.send(event("", json!("stop"))).expect("the backend streams");
    send.send("data: [DONE]\n\n".to_owned()).expect("the backend streams");
    drop(send);
    read_until("data: [DONE]");
    assert_eq!(seen.matches("\"one\"").count(), 1, "{seen}");
    assert_eq!(seen.matches("\"stop\"").count(), 1, "{seen}");
}

#[test]
fn a_task_is_answered_when_done_or_named_when_on_disk_and_outlives_the_door() {
    let s = Sandbox::new();
    s.ledger_program("0");
    let (mut router, door) = door(&s, &[]);
    let mut prog = worker(&s, &door, &["--name", "w", "--batch", "2", "--", "./prog", "{}"]);
    offered(&door, "prog");
    let task = |door: &Door, headers: &[(&str, &str)], more: Value| {
        let mut body = json!({"service": "prog", "body": "row-1"});
        body.as_object_mut().expect("fields").extend(more.as_object().expect("fields").clone());
        door.post("/v1/tasks", headers, &body)
    };

    let done = task(&door, &[], json!({}));
    assert_eq!((done.status, &done.json()["output"]), (200, &json!("row-1!")), "{done:?}");
    let again = task(&door, &[], json!({}));
    assert_ne!(done.json()["key"], again.json()["key"], "equal tasks are two");
    assert_eq!(s.executed(), 2);

    let key = [("idempotency-key", "k1")];
    let first = task(&door, &key, json!({}));
    let second = task(&door, &key, json!({}));
    assert_eq!((first.json()["key"].clone(), s.executed()), (second.json()["key"].clone(), 3), "named, they are one");

    // Nobody does it: it is taken all the same, and named.
    prog.signal("-STOP");
    let taken = task(&door, &[("prefer", "respond-async")], json!({"revision": "2"}));
    assert_eq!(taken.status, 202, "{taken:?}");
    let of = |door: &Door, answer: &Answer| {
        door.get(&format!("/v1/tasks/{}", answer.json()["key"].as_str().expect("a key")))
    };
    assert_ne!(of(&door, &taken).json()["status"], "ok");

    router.kill9();
    let (_router, door) = http::door_at(&s, &door.router, &[]);
    prog.signal("-CONT");
    wait_until("the task is done in the next life of the door", || of(&door, &taken).json()["status"] == "ok");
    assert_eq!(of(&door, &taken).json()["output"], "row-1!");
    assert_eq!(s.executed(), 4);
    offered(&door, "prog");
    let third = task(&door, &key, json!({}));
    assert_eq!((third.json()["key"].clone(), s.executed()), (first.json()["key"].clone(), 4), "found in the journal");
    assert_eq!(door.get("/v1/tasks/00").code(), json!("task_not_found"));
    prog.kill9();
}

#[test]
fn a_failed_task_says_what_its_program_said() {
    let s = Sandbox::new();
    s.script("prog", "#!/bin/sh\necho 'not today' >&2\nexit 1\n");
    let (_router, door) = door(&s, &[]);
    let _worker = worker(&s, &door, &["--name", "w", "--", "./prog", "{}"]);
    offered(&door, "prog");
    let failed = door.post("/v1/tasks", &[], &json!({"service": "prog", "body": "x"}));
    assert_eq!((failed.status, failed.code()), (400, json!("rejected")), "{failed:?}");
    assert!(failed.body_text().contains("not today"), "{failed:?}");
    let key = failed.json()["key"].as_str().expect("a key").to_owned();
    assert_eq!(door.get(&format!("/v1/tasks/{key}")).json()["status"], "failed");
}

#[test]
fn a_client_that_hung_up_finds_its_call_by_trying_again() {
    let s = Sandbox::new();
    let held = s.path("held");
    let script = "#!/bin/sh\necho \"$1\" >> ledger\nwhile [ ! -e HELD ]; do sleep 0.02; done\nprintf done\n";
    s.script(
        "prog",
        &script.replace("HELD", &held.display().to_string()).replace("ledger", &s.path("ledger").display().to_string()),
    );
    let (_router, door) = door(&s, &[]);
    let _worker = worker(&s, &door, &["--name", "w", "--batch", "2", "--", "./prog", "{}"]);
    offered(&door, "prog");
    let body = json!({"service": "prog", "body": "row"});
    let first = door.send("/v1/tasks", &[("x-stainless-retry-count", "0")], &body);
    wait_until("it runs", || s.executed() == 1);
    drop(first);
    let retry = {
        let (door, body) = (door.clone(), body.clone());
        std::thread::spawn(move || door.post("/v1/tasks", &[("x-stainless-retry-count", "1")], &body))
    };
    // Another caller's equal call is one of its own.
    let other = door.send("/v1/tasks", &[], &body);
    wait_until("the other runs too", || s.executed() == 2);
    s.write("held", "");
    let answer = retry.join().expect("no panic");
    assert_eq!((answer.status, &answer.json()["output"]), (200, &json!("done")), "{answer:?}");
    let late = door.post("/v1/tasks", &[("x-stainless-retry-count", "2")], &body);
    assert_eq!((late.status, s.executed()), (200, 2), "answered a moment ago: {late:?}");
    drop(other);
}

#[test]
fn a_door_that_closes_answers_what_it_has_taken() {
    let s = Sandbox::new();
    s.ledger_program("0.5");
    let (mut router, door) = door(&s, &[]);
    let mut prog = worker(&s, &door, &["--name", "w", "--batch", "1", "--", "./prog", "{}"]);
    offered(&door, "prog");
    let calling = {
        let door = door.clone();
        std::thread::spawn(move || door.post("/v1/tasks", &[], &json!({"service": "prog", "body": "row-1"})))
    };
    wait_until("it runs", || s.executed() == 1);
    router.signal("-TERM");
    let answer = calling.join().expect("no panic");
    assert_eq!((answer.status, &answer.json()["output"]), (200, &json!("row-1!")), "{answer:?}");
    router.exits(0);
    prog.kill9();
}

#[test]
fn a_door_that_must_close_tells_those_who_wait_to_come_later() {
    // By `sheaf shutdown`, and by a second signal.
    for ends in [false, true] {
        let s = Sandbox::new();
        s.ledger_program("60");
        let (mut router, door) = door(&s, &[]);
        let mut prog = worker(&s, &door, &["--name", "w", "--batch", "1", "--", "./prog", "{}"]);
        offered(&door, "prog");
        let calling = {
            let door = door.clone();
            std::thread::spawn(move || door.post("/v1/tasks", &[], &json!({"service": "prog", "body": "row-1"})))
        };
        wait_until("it runs", || s.executed() == 1);
        if ends {
            router.signal("-TERM");
            wait_until("it stops", || router.log().contains("stopping"));
            router.signal("-TERM");
        } else {
            s.sheaf_exits(0, &["shutdown", "--data", "router"]);
        }
        let answer = calling.join().expect("no panic");
        assert_eq!((answer.status, answer.code()), (503, json!("unavailable")), "{answer:?}");
        assert!(answer.header("retry-after").is_some(), "{answer:?}");
        router.exits(0);
        prog.kill9();
    }
}

#[test]
fn too_many_calls_are_told_to_come_later_and_those_let_in_are_answered() {
    let s = Sandbox::new();
    s.script("prog", "#!/bin/sh\nsleep 0.2\nprintf ok\n");
    let (_router, door) = door(&s, &[]);
    let _worker = worker(&s, &door, &["--name", "w", "--batch", "1", "--", "./prog", "{}"]);
    offered(&door, "prog");
    let calls: Vec<_> = (0..120)
        .map(|_| {
            let door = door.clone();
            std::thread::spawn(move || {
                door.post("/v1/tasks", &[], &json!({"service": "prog", "body": "x".repeat(9_000)}))
            })
        })
        .collect();
    let answers: Vec<Answer> = calls.into_iter().map(|call| call.join().expect("no panic")).collect();
    let (ok, rest): (Vec<Answer>, Vec<Answer>) = answers.into_iter().partition(|answer| answer.status == 200);
    assert!(!ok.is_empty() && !rest.is_empty(), "{} of 120 were let in", ok.len());
    for refused in rest {
        let after: u64 = refused.header("retry-after").and_then(|after| after.parse().ok()).expect("seconds");
        assert!(refused.status == 429 && (1..=60).contains(&after), "{refused:?}");
        assert_eq!(refused.code(), json!("busy"), "all four fields: {refused:?}");
    }
}
