//! Backends of the OpenAI-compatible API, as they behave and misbehave: what is sent to them, and what counts as an
//! answer.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, reason = "a test: its panic is its message")]

mod common;
#[path = "common/upstream.rs"]
mod upstream;

use std::time::Duration;

use common::{Bench, assignment, failed, fence, ok};
use serde_json::{Value, json};
use sheaf_task::{Class, Outcome};
use sheaf_worker::{Api, ApiKey, Backend, BackendUrl, Work};
use upstream::{Reply, Request, Upstream};

const HOLD: Duration = Duration::from_millis(300);

fn calling(batch: u32, answer: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> (Upstream, Bench) {
    let upstream = Upstream::start(answer);
    let api = Api::OpenAi { model: Some("m".to_owned()), key: Some(ApiKey::parse("sk-secret\n").unwrap()) };
    let url = BackendUrl::parse(&upstream.url("/v1")).unwrap();
    let backend = Backend { api, hold: HOLD, ..Backend::new(url) };
    (upstream, Bench::of(Work::Web(backend), batch))
}

/// The outcome of a request where the backend always gives this reply, and how many times it was asked.
fn outcome(request: &Value, reply: Reply) -> (Outcome, usize) {
    let (upstream, mut bench) = calling(4, move |_| reply.clone());
    let mut assignment = assignment(1, request.to_string());
    assignment.timeout_ms = 20_000;
    let outcome = bench.run(assignment);
    bench.close();
    (outcome, upstream.requests().len())
}

#[track_caller]
fn fails(request: &Value, reply: Reply, class: Class) -> String {
    failed(outcome(request, reply).0, class).message
}

fn chat() -> Value {
    json!({ "model": "m", "messages": [{ "role": "user", "content": "hello" }] })
}

fn says(text: &str) -> Value {
    json!({ "id": "1", "object": "chat.completion", "model": "m",
            "choices": [{ "index": 0, "message": { "role": "assistant", "content": text }, "finish_reason": "stop" }],
            "usage": { "prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5 } })
}

fn embed(input: &Value) -> Value {
    json!({ "model": "m", "input": input })
}

fn vectors(vectors: &[Value]) -> Reply {
    let data: Vec<Value> = vectors.iter().enumerate().map(|(at, v)| json!({ "index": at, "embedding": v })).collect();
    let usage = json!({ "prompt_tokens": 10, "total_tokens": 10 });
    Reply::ok(json!({ "object": "list", "data": data, "model": "m", "usage": usage }).to_string())
}

#[test]
fn a_request_goes_where_its_fields_say_and_comes_back_as_it_is() {
    let body = says("hi").to_string();
    let (upstream, mut bench) = calling(4, {
        let body = body.clone();
        move |request| match request.path.as_str() {
            "/v1/chat/completions" => Reply::ok(body.clone()),
            "/v1/completions" => Reply::ok(r#"{"choices":[{"text":"a"},{"text":"b"}]}"#),
            _ => vectors(&[json!([0.25, -1e-3])]),
        }
    });
    // Spaces and numbers stay as they were written.
    let sent = r#"{"messages": [{"role":"user","content":"hello"}], "model":"other", "temperature": 0.10}"#;
    assert_eq!(ok(bench.run(assignment(1, sent))), body);
    ok(bench.run(assignment(2, r#"{"prompt":["x","y"]}"#)));
    ok(bench.run(assignment(3, r#"{"input":"x"}"#)));
    let seen = upstream.requests();
    assert_eq!(seen[0].body, sent);
    assert_eq!(seen[0].headers["authorization"], "Bearer sk-secret");
    assert_eq!(seen[0].headers["idempotency-key"], fence(1).key.to_string());
    assert_eq!(serde_json::from_str::<Value>(&seen[1].body).unwrap(), json!({ "model": "m", "prompt": ["x", "y"] }));
    assert_eq!(seen[2].path, "/v1/embeddings");
    bench.close();
}

#[test]
fn rows_that_are_no_requests_are_rejected_unsent() {
    let (upstream, mut bench) = calling(4, |_| Reply::ok("{}"));
    let rows = ["plain text", "[]", r#"{"text":"x"}"#, r#"{"input":[]}"#, r#"{"messages":[1],"n":"two"}"#];
    for row in rows {
        failed(bench.run(assignment(1, row)), Class::Rejected);
    }
    let schema = json!({ "type": "json_schema", "json_schema": { "name": "x", "schema": { "type": 7 } } });
    let mut request = chat();
    request["response_format"] = schema;
    failed(bench.run(assignment(1, request.to_string())), Class::Rejected);
    assert_eq!(upstream.requests().len(), 0);
    bench.close();
}

#[test]
fn what_is_no_answer_is_garbage() {
    let chat = chat();
    for body in [
        "<html>Bad gateway</html>",
        r#"{"choices":[{"mess"#,
        "{}",
        r#"{"choices":[]}"#,
        r#"{"choices":[{"message":{"role":"assistant","content":null}}]}"#,
        r#"{"choices":[{"text":"a completion"}]}"#,
    ] {
        fails(&chat, Reply::ok(body), Class::Garbage);
    }
    let mut two = chat.clone();
    two["n"] = json!(2);
    fails(&two, Reply::ok(says("only one").to_string()), Class::Garbage);
    let tools = json!({ "choices": [{ "message": { "content": null, "tool_calls": [{ "id": "1" }] } }] });
    ok(outcome(&chat, Reply::ok(tools.to_string())).0);
}

#[test]
fn vectors_are_checked_one_by_one() {
    let one = embed(&json!("x"));
    ok(outcome(&one, vectors(&[json!([1, 2.5])])).0);
    // 1.0 and -0.5 as the SDKs ask for them.
    ok(outcome(&one, vectors(&[json!("AACAPwAAAL8=")])).0);
    for wrong in [
        vectors(&[]),
        vectors(&[json!([1]), json!([2])]),
        vectors(&[json!([])]),
        vectors(&[json!([1, null])]),
        vectors(&[json!([1, "2"])]),
        vectors(&[json!([1e39])]),
        vectors(&[json!("AADAfw==")]),
        vectors(&[json!("AAA=")]),
        vectors(&[json!("?")]),
        Reply::ok(r#"{"data":[{"index":0,"embedding":[NaN]}]}"#),
        Reply::ok(r#"{"data":[{"index":3,"embedding":[1]}]}"#),
    ] {
        fails(&one, wrong, Class::Garbage);
    }
    let two = embed(&json!(["x", "y"]));
    ok(outcome(&two, vectors(&[json!([1]), json!([2])])).0);
    fails(&two, vectors(&[json!([1]), json!([2, 3])]), Class::Garbage);
    let mut short = one;
    short["dimensions"] = json!(2);
    fails(&short, vectors(&[json!([1, 2, 3])]), Class::Garbage);
}

#[test]
fn a_backend_keeps_to_the_length_that_its_vectors_had_first() {
    let (_upstream, mut bench) = calling(1, |request| match request.number {
        2 => vectors(&[json!([1])]),
        _ => vectors(&[json!([1, 2])]),
    });
    let row = embed(&json!("x")).to_string();
    ok(bench.run(assignment(1, row.clone())));
    failed(bench.run(assignment(2, row.clone())), Class::Garbage);
    ok(bench.run(assignment(3, row)));
    bench.close();
}

#[test]
fn an_error_inside_a_good_status_counts_as_what_it_says() {
    let chat = chat();
    let inside = |error: Value| Reply::ok(json!({ "error": error }).to_string());
    fails(&chat, inside(json!({ "code": 400, "message": "too long" })), Class::Rejected);
    fails(&chat, inside(json!({ "code": "502", "message": "no provider" })), Class::Error);
    fails(&chat, inside(json!("it broke")), Class::Error);
    fails(&chat, Reply::ok(r#"{"object":"error","message":"no","code":400}"#), Class::Rejected);
    let named = json!({ "error": { "message": "too long", "type": "t", "param": "messages", "code": "c" } });
    let failure = failed(outcome(&chat, Reply::new(413, named.to_string())).0, Class::Rejected);
    let [message, kind, param, code] = ["too long", "t", "messages", "c"].map(String::from);
    let upstream = sheaf_task::Upstream { status: 413, message, kind, param, code };
    assert_eq!(failure.evidence.upstream.as_deref(), Some(&upstream));
    let (_upstream, mut bench) = calling(1, move |request| match request.number {
        1 => inside(json!({ "type": "rate_limit_exceeded", "message": "slow down" })),
        _ => Reply::ok(says("hi").to_string()),
    });
    ok(bench.run(assignment(1, chat.to_string())));
    bench.close();
}

#[test]
fn a_key_that_is_refused_is_the_workers_trouble_and_slows_it() {
    for status in [401, 403, 404] {
        let (upstream, mut bench) = calling(8, move |_| Reply::new(status, "no such key or model"));
        (0..8).for_each(|n| bench.start(assignment(n, chat().to_string())));
        for ended in bench.ends(8) {
            failed(ended.outcome, Class::Error);
        }
        assert_eq!(bench.executor.as_mut().unwrap().take_batch(), Some(0), "it takes nothing more for now");
        assert_eq!(upstream.requests().len(), 8);
        bench.close();
    }
}

#[test]
fn streams_are_put_together() {
    let events = |events: &[&str]| {
        let text: String = events.iter().map(|event| format!("data: {event}\r\n\r\n")).collect();
        Reply::ok(format!(": hello\r\n\r\n{text}")).with("content-type", "text/event-stream; charset=utf-8")
    };
    let pieces = [
        r#"{"id":"7","object":"chat.completion.chunk","model":"m","choices":[{"index":0,"delta":{"role":"assistant","content":""},"finish_reason":null}]}"#,
        r#"{"id":"7","choices":[{"index":0,"delta":{"content":"grün"},"finish_reason":null}]}"#,
        r#"{"id":"7","choices":[{"index":0,"delta":{"content":" tea"},"finish_reason":null}]}"#,
        r#"{"id":"7","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}"#,
        r#"{"id":"7","choices":[],"usage":{"prompt_tokens":3,"completion_tokens":2,"total_tokens":5}}"#,
    ];
    let answer = ok(outcome(&chat(), events(&[&pieces[..], &["[DONE]"]].concat())).0);
    let answer: Value = serde_json::from_slice(&answer).unwrap();
    assert_eq!(answer["object"], "chat.completion");
    assert_eq!(answer["choices"][0]["message"], json!({ "role": "assistant", "content": "grün tea" }));
    assert_eq!((&answer["choices"][0]["finish_reason"], &answer["usage"]["total_tokens"]), (&json!("stop"), &json!(5)));

    let calls = [
        r#"{"choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"id":"a","function":{"name":"f","arguments":"{\"x\""}}]}}]}"#,
        r#"{"choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"function":{"arguments":":1}"}}]},"finish_reason":"tool_calls"}]}"#,
    ];
    let answer: Value = serde_json::from_slice(&ok(outcome(&chat(), events(&calls)).0)).unwrap();
    assert_eq!(answer["choices"][0]["message"]["tool_calls"][0]["function"]["arguments"], r#"{"x":1}"#);

    fails(&chat(), events(&pieces[..3]), Class::Error);
    fails(&chat(), events(&["not JSON", "[DONE]"]), Class::Garbage);
    fails(&chat(), events(&[pieces[0], r#"{"error":{"code":500,"message":"cuda"}}"#]), Class::Error);
}

#[test]
fn text_that_the_schema_does_not_allow_is_garbage() {
    let mut request = chat();
    let schema =
        json!({ "type": "object", "required": ["label"], "properties": { "label": { "enum": ["good", "bad"] } } });
    request["response_format"] = json!({ "type": "json_schema", "json_schema": { "name": "label", "schema": schema } });
    ok(outcome(&request, Reply::ok(says(r#"{"label":"good"}"#).to_string())).0);
    for wrong in ["good", r#"{"label":"so-so"}"#, "{}", r#"{"label":"goo"#] {
        fails(&request, Reply::ok(says(wrong).to_string()), Class::Garbage);
    }
    request["response_format"] = json!({ "type": "json_object" });
    fails(&request, Reply::ok(says("[1]").to_string()), Class::Garbage);
    ok(outcome(&request, Reply::ok(says("{}").to_string())).0);
}

/// One vector for each input, `[its number in the text]`.
fn embedder(request: &Request) -> Reply {
    let body: Value = serde_json::from_str(&request.body).unwrap();
    let inputs = match &body["input"] {
        Value::Array(inputs) => inputs.clone(),
        one => vec![one.clone()],
    };
    if inputs.iter().any(|input| input == "bad") {
        return Reply::new(400, r#"{"error":{"message":"an input is bad"}}"#);
    }
    let number = |input: &Value| if input == "nan" { json!([null]) } else { json!([input.as_str().unwrap().len()]) };
    vectors(&inputs.iter().map(number).collect::<Vec<_>>())
}

#[test]
fn rows_share_requests_for_embeddings_and_each_gets_its_own_vector() {
    let (upstream, mut bench) = calling(16, embedder);
    for n in 1..=16 {
        bench.start(assignment(n, embed(&json!("x".repeat(n as usize))).to_string()));
    }
    let mut tokens = 0;
    for (n, ended) in (1..).zip(bench.ends(16)) {
        let answer: Value = serde_json::from_slice(&ok(ended.outcome)).unwrap();
        assert_eq!(answer["data"], json!([{ "object": "embedding", "index": 0, "embedding": [n] }]));
        tokens += answer["usage"]["prompt_tokens"].as_u64().unwrap();
    }
    assert_eq!(upstream.requests().len(), 1);
    assert_eq!(tokens, 10, "no token is counted twice or lost");
    bench.close();
}

#[test]
fn vectors_belong_to_the_rows_that_their_indexes_name() {
    let (_upstream, mut bench) =
        calling(2, |_| Reply::ok(r#"{"data":[{"index":1,"embedding":[1.0]},{"index":0,"embedding":[0.0]}]}"#));
    (0..2).for_each(|n| bench.start(assignment(n, embed(&json!("x")).to_string())));
    for (n, ended) in (0..).zip(bench.ends(2)) {
        let answer: Value = serde_json::from_slice(&ok(ended.outcome)).unwrap();
        assert_eq!(answer["data"][0]["embedding"], json!([f64::from(n)]));
    }
    bench.close();
}

#[test]
fn rows_that_ask_for_other_things_do_not_share() {
    let (upstream, mut bench) = calling(16, embedder);
    for (n, model) in (0..).zip(["a", "a", "b"]) {
        bench.start(assignment(n, json!({ "model": model, "input": "x" }).to_string()));
    }
    bench.start(assignment(3, embed(&json!(["x", "y"])).to_string()));
    bench.ends(4).into_iter().for_each(|ended| drop(ok(ended.outcome)));
    assert_eq!(upstream.requests().len(), 3);
    bench.close();
}

#[test]
fn a_bad_row_costs_those_beside_it_nothing() {
    let (_upstream, mut bench) = calling(8, embedder);
    for (n, text) in (0..).zip(["one", "bad", "three", "nan"]) {
        bench.start(assignment(n, embed(&json!(text)).to_string()));
    }
    let mut ends = bench.ends(4).into_iter().map(|ended| ended.outcome);
    ok(ends.next().unwrap());
    failed(ends.next().unwrap(), Class::Rejected);
    ok(ends.next().unwrap());
    failed(ends.next().unwrap(), Class::Garbage);
    bench.close();
}

#[test]
fn a_key_is_one_word_and_is_never_shown() {
    assert!(ApiKey::parse(" \n").is_err() && ApiKey::parse("two words").is_err() && ApiKey::parse("a\u{7}").is_err());
    assert!(!format!("{:?}", ApiKey::parse("sk-secret").unwrap()).contains("secret"));
}
