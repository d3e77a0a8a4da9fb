//! Who is answered at the front door, and what is there for whom: tokens, tenants, TLS.

#![allow(clippy::expect_used, reason = "a test fails by panicking")]

mod common;
#[path = "common/http.rs"]
mod http;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use common::{Process, Sandbox, text, wait_until};
use http::{Answer, Door, door, door_at};
use serde_json::{Value, json};

/// Makes a token, as a user does.
fn token(s: &Sandbox, role: &[&str]) -> String {
    let made = s.sheaf_exits(0, &[&["token", "create", "--data", "router", "--role"], role].concat());
    String::from_utf8(made.stdout).expect("a token").trim().to_owned()
}

/// Asks with a token, or with none.
fn ask(door: &Door, token: &str, method: &str, path: &str, body: &Value) -> Answer {
    let body = if body.is_null() { String::new() } else { body.to_string() };
    let auth = if token.is_empty() { String::new() } else { format!("authorization: Bearer {token}\r\n") };
    let length = body.len();
    let head = format!(
        "{method} {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n{auth}content-length: {length}\r\n\r\n"
    );
    door.ask(&[head.into_bytes(), body.into_bytes()].concat())
}

fn get(door: &Door, token: &str, path: &str) -> Answer {
    ask(door, token, "GET", path, &Value::Null)
}

/// Uploads a batch of one line.
fn upload(door: &Door, token: &str) -> String {
    let line = json!({"custom_id": "1", "method": "POST", "url": "/v1/embeddings",
        "body": {"model": "echo", "input": "a"}});
    let form = format!(
        "--b\r\ncontent-disposition: form-data; name=\"purpose\"\r\n\r\nbatch\r\n--b\r\n\
         content-disposition: form-data; name=\"file\"; filename=\"in.jsonl\"\r\n\r\n{line}\n\r\n--b--\r\n"
    );
    let head = format!(
        "POST /v1/files HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\nauthorization: Bearer {token}\r\n\
         content-type: multipart/form-data; boundary=b\r\ncontent-length: {}\r\n\r\n",
        form.len()
    );
    let answer = door.ask(&[head.into_bytes(), form.into_bytes()].concat());
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()["id"].as_str().expect("an id").to_owned()
}

#[test]
fn tenants_see_nothing_of_each_other_at_the_door() {
    let s = Sandbox::new();
    let (a, b) = (token(&s, &["client", "--app", "a"]), token(&s, &["client", "--app", "b"]));
    let worker = token(&s, &["worker"]);
    let (router, door) = door(&s, &["--require-token"]);
    s.write("w", worker.as_bytes());
    let echo = ["worker", "--join", &door.router, "--token-file", "w", "--data", "w-data", "--service", "echo"];
    let _worker = s.start("worker", &[&echo[..], &["--", "builtin:echo"]].concat());
    wait_until("the worker", || get(&door, &a, "/v1/models/echo").status == 200);

    for (shown, status) in [("", 401), ("sk-none", 401), ("sheaf_00", 401), (worker.as_str(), 403)] {
        let answer = get(&door, shown, "/v1/models");
        assert_eq!(answer.status, status, "{shown}");
        assert_ne!(answer.code(), Value::Null);
    }

    let task = json!({"service": "echo", "body": "x"});
    let made = |token: &str| ask(&door, token, "POST", "/v1/tasks", &task).json()["key"].clone();
    let key = made(&a);
    let path = format!("/v1/tasks/{}", key.as_str().expect("a key"));
    assert_eq!((get(&door, &a, &path).status, get(&door, &b, &path).status), (200, 404));
    assert_ne!(made(&b), key);

    let file = upload(&door, &a);
    let request = json!({"input_file_id": file, "endpoint": "/v1/embeddings", "completion_window": "24h"});
    assert_eq!(ask(&door, &b, "POST", "/v1/batches", &request).status, 404, "another's file");
    let batch = ask(&door, &a, "POST", "/v1/batches", &request).json()["id"].clone();
    let batch = batch.as_str().expect("an id");
    let cancel = format!("/v1/batches/{batch}/cancel");
    for path in [format!("/v1/files/{file}"), format!("/v1/files/{file}/content"), format!("/v1/batches/{batch}")] {
        assert_eq!((get(&door, &a, &path).status, get(&door, &b, &path).status), (200, 404), "{path}");
    }
    assert_eq!(ask(&door, &b, "POST", &cancel, &Value::Null).status, 404);
    for path in ["/v1/files", "/v1/batches"] {
        assert_eq!(get(&door, &b, path).json()["data"], json!([]), "{path}");
    }
    let life = || get(&door, &a, &format!("/v1/batches/{batch}")).json();
    wait_until("the batch", || life()["status"] == "completed");
    // The same line of another tenant is work of its own, and has the same answer.
    let answered = life()["output_file_id"].as_str().expect("an output").to_owned();
    assert_eq!(get(&door, &b, &format!("/v1/files/{answered}/content")).status, 404);
    assert!(get(&door, &a, &format!("/v1/files/{answered}/content")).body_text().contains("custom_id"));

    revoke(&s, "client of app a");
    wait_until("the token is gone", || get(&door, &a, "/v1/models").status == 401);
    assert_eq!(get(&door, &b, "/v1/models").status, 200);
    let said = router.log();
    assert!([&a, &b, &worker].iter().all(|token| !said.contains(token.trim_start_matches("sheaf_"))), "{said}");
}

#[test]
fn what_a_door_left_of_an_app_is_taken_by_the_next_though_the_app_does_not_call() {
    let s = Sandbox::new();
    let a = token(&s, &["client", "--app", "a"]);
    let (mut process, first) = door(&s, &[]);
    let go = s.path("go");
    s.script("prog", &format!("#!/bin/sh\nwhile [ ! -e '{}' ]; do sleep 0.1; done\nprintf done\n", go.display()));
    let slow = ["worker", "--join", &first.router, "--data", "w-data", "--service", "slow", "--", "./prog", "{}"];
    let _worker = s.start("worker", &slow);
    wait_until("the worker", || get(&first, &a, "/v1/models/slow").status == 200);
    let task = json!({"service": "slow", "body": "x", "wait": false});
    assert_eq!(ask(&first, &a, "POST", "/v1/tasks", &task).status, 202);
    process.kill9();
    let (_process, door) = door_at(&s, &first.router, &[]);
    s.write("go", "");
    wait_until("its result is taken", || {
        let said = s.sheaf_exits(0, &["job", "ls", "--json", "--join", &door.router]);
        let jobs = String::from_utf8(said.stdout).expect("UTF-8");
        let mut jobs = jobs.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
        jobs.any(|job| job["ok"] == 1 && job["settled"] == job["last_number"])
    });
}

fn revoke(s: &Sandbox, what: &str) {
    let list = text(&s.sheaf_exits(0, &["token", "ls", "--data", "router"]));
    let is_meant = |line: &&str| line.split_whitespace().collect::<Vec<_>>().join(" ").contains(what);
    let line = list.lines().find(is_meant).expect("the token is listed");
    s.sheaf_exits(0, &["token", "revoke", "--data", "router", line.split(' ').next().expect("an id")]);
}

/// A door with TLS, by the address that stands in what the router says.
fn tls_door(s: &Sandbox) -> (Process, String, String) {
    let (process, router) = s.router(&["--tls", "--http=127.0.0.1:0"]);
    let mut addr = None;
    wait_until("the door is open", || {
        let log = process.log();
        addr = log.split("https://").nth(1).and_then(|rest| rest.split("/v1").next()).map(str::to_owned);
        addr.is_some()
    });
    (process, router, addr.expect("an address"))
}

#[test]
fn the_door_has_the_routers_tls() {
    let s = Sandbox::new();
    let (_router, router, addr) = tls_door(&s);
    let join = format!("sheaf://{router}");
    let ca = "router/tls/ca.pem";
    let echo = ["worker", "--join", &join, "--ca", ca, "--data", "w", "--service", "echo", "--", "builtin:echo"];
    let _worker = s.start("worker", &echo);
    // Our own client of HTTPS is another program's code than the door's.
    let rows: String = (0..5).map(|n| format!("{{\"service\":\"echo\",\"body\":\"row {n}\"}}\n")).collect();
    s.write("rows.txt", rows.as_bytes());
    let port = addr.rsplit(':').next().expect("a port");
    let url = format!("https://localhost:{port}/v1/tasks");
    let run = ["run", "--in", "rows.txt", "--http", &url, "--retries", "20"];
    s.sheaf_exits(0, &[&run[..], &["--out", "out.jsonl", "--data", "own", "--backend-ca", ca]].concat());
    let output = s.output("out.jsonl");
    assert_eq!(output.len(), 5);
    assert!(output.values().all(|line| line["output"].to_string().contains("row ")), "{output:?}");

    let mut plain = TcpStream::connect(&addr).expect("the door listens");
    plain.set_read_timeout(Some(Duration::from_secs(60))).expect("a socket");
    plain.write_all(b"GET /v1/models HTTP/1.1\r\nhost: localhost\r\n\r\n").expect("sent");
    let mut answer = Vec::new();
    // It is cut off, one way or another, and not answered.
    let read = plain.read_to_end(&mut answer);
    assert!(!answer.starts_with(b"HTTP"), "{read:?} {answer:?}");
}

#[test]
fn a_door_that_is_open_to_everybody_does_not_open() {
    let s = Sandbox::new();
    let refused = s.sheaf_exits(2, &["up", "--data", "router", "--listen", "127.0.0.1:0", "--http=0.0.0.0:0"]);
    assert!(text(&refused).contains("sheaf token create"), "{}", text(&refused));
}
