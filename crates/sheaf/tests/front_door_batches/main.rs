//! Files and batches at the front door of the real binary, as a client on the wire sees them: whole lives, bad input,
//! cancel and expiry, and `kill -9` in each state. What ran is told by a ledger that the program keeps.

#![allow(clippy::expect_used, reason = "a test fails by panicking")]

mod answers;
mod client;
#[path = "../common/mod.rs"]
mod common;
mod files;

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;

use client::{Answer, Door, form, read_answer};
use common::{Process, Sandbox, wait_until};
use serde_json::{Value, json};

const CHAT: &str = "/v1/chat/completions";
const EMBED: &str = "/v1/embeddings";

/// A line that asks `model` for row `n`.
fn chat(n: usize, model: &str) -> String {
    let body = json!({"model": model, "messages": [{"role": "user", "content": format!("row-{n};")}]});
    json!({"custom_id": format!("c-{n}"), "method": "POST", "url": CHAT, "body": body}).to_string() + "\n"
}

fn embed(id: &str, model: &str, input: &str) -> String {
    let body = json!({"model": model, "input": input});
    json!({"custom_id": id, "method": "POST", "url": EMBED, "body": body}).to_string() + "\n"
}

fn chats(n: usize, model: &str) -> String {
    (1..=n).map(|n| chat(n, model)).collect()
}

/// A program that lives long, writes `row-N` into the ledger, and answers `{"n":N}`, pausing before each.
fn serve_program(s: &Sandbox, pause: &str) {
    let (ledger, pause) = (s.path("ledger"), if pause == "0" { String::new() } else { format!("sleep {pause};") });
    let text = format!(
        "#!/bin/sh\nwhile read -r line; do\n  id=${{line#*'\"id\":'}}; id=${{id%%[,\\}}]*}}\n  n=${{line#*row-}}; \
         n=${{n%%;*}}\n  echo \"row-$n\" >> '{}'; {pause}\n  printf '{{\"id\":%s,\"output\":\"{{\\\\\"n\\\\\":%s}}\"}}\\n' \
         \"$id\" \"$n\"\ndone\n",
        ledger.display()
    );
    s.script("serve", &text);
}

const SERVE: [&str; 6] = ["--batch", "4", "--serve", "--", "./serve", "x"];

fn serve(door: &Door, s: &Sandbox, service: &str, pause: &str) -> Process {
    serve_program(s, pause);
    door.worker(s, service, &SERVE)
}

/// Insists that the files of a batch hold rows 1 … n once each, and returns how many of them were answered; each as the
/// program does.
fn assert_whole(door: &Door, batch: &Value, n: usize) -> usize {
    let (output, errors) = (door.lines(&batch["output_file_id"]), door.lines(&batch["error_file_id"]));
    let mut seen = BTreeSet::new();
    for line in output.iter().chain(&errors) {
        assert!(seen.insert(line["custom_id"].as_str().expect("an id").to_owned()), "twice: {line}");
    }
    assert_eq!(seen, (1..=n).map(|n| format!("c-{n}")).collect());
    for line in &output {
        let n: u64 = line["custom_id"].as_str().and_then(|id| id[2..].parse().ok()).expect("our id");
        assert_eq!((&line["response"]["body"], &line["error"]), (&json!({"n": n}), &Value::Null), "{line}");
        assert_eq!(line["response"]["status_code"], 200);
    }
    let counts = json!({"total": n, "completed": output.len(), "failed": errors.len()});
    assert_eq!(batch["request_counts"], counts);
    output.len()
}

#[test]
fn a_batch_lives_from_upload_to_output() {
    let s = Sandbox::new();
    let door = Door::open(&s);
    let fields = [("file", Some("rows of mine.jsonl"), &*chats(3, "m")), ("purpose", None, "batch")];
    let file = door.post_form("b", &form(&fields)).good();
    assert_eq!(file["filename"], "rows of mine.jsonl");
    let id = file["id"].as_str().expect("an id");
    assert_eq!(door.get(&format!("/v1/files/{id}")).good(), file);
    let asked = json!({"input_file_id": id, "endpoint": CHAT, "completion_window": "24h", "metadata": {"k": "v"}});
    let batch = door.post("/v1/batches", &asked).good();
    let batch = batch["id"].as_str().expect("an id");
    wait_until("it is in progress", || door.batch(batch)["status"] == "in_progress");
    // A file that is deleted is still the batch's.
    assert_eq!(door.delete(&format!("/v1/files/{id}")).good()["deleted"], true);
    door.get(&format!("/v1/files/{id}")).refused(404);
    let _worker = serve(&door, &s, "m", "0");
    let over = door.over(batch, "completed");
    assert_eq!(assert_whole(&door, &over, 3), 3);
    assert_eq!((&over["metadata"], &over["error_file_id"]), (&json!({"k": "v"}), &Value::Null));
    for at in ["created_at", "in_progress_at", "finalizing_at", "completed_at", "expires_at"] {
        assert!(over[at].is_u64(), "{at} in {over}");
    }
    let output = over["output_file_id"].as_str().expect("an output");
    assert_eq!(door.get(&format!("/v1/files/{output}")).good()["purpose"], "batch_output");
    let results = door.get(&format!("/v1/batches/{batch}/results")).good();
    assert_eq!((results["data"].as_array().map(Vec::len), &results["status"]), (Some(3), &json!("completed")));
    door.post(&format!("/v1/batches/{batch}/cancel"), &json!({})).refused(409);
}

#[test]
fn lists_go_page_by_page() {
    let s = Sandbox::new();
    let door = Door::open(&s);
    let files: Vec<String> = (0..3).map(|n| door.upload(&format!("{n}"))).collect();
    let batches: Vec<String> = files.iter().map(|file| door.create(file, CHAT, "24h")).collect();
    for (path, ids) in [("/v1/files", &files), ("/v1/batches", &batches)] {
        let page = door.get(&format!("{path}?limit=2")).good();
        assert_eq!((&page["object"], &page["has_more"]), (&json!("list"), &json!(true)));
        assert_eq!((&page["first_id"], &page["last_id"]), (&json!(ids[2]), &json!(ids[1])));
        let page = door.get(&format!("{path}?limit=2&after={}", ids[1])).good();
        assert_eq!((&page["data"][0]["id"], &page["has_more"]), (&json!(ids[0]), &json!(false)));
        door.get(&format!("{path}?limit=101")).refused(400);
    }
}

#[test]
fn a_batch_may_have_several_models_and_is_readable_while_it_runs() {
    let s = Sandbox::new();
    let door = Door::open(&s);
    let _embedder = door.worker(&s, "hash", &["--backend", "builtin:hash-embed"]);
    let input: String =
        (0..20).map(|n| embed(&format!("e-{n}"), if n % 2 == 0 { "hash" } else { "later" }, "a b")).collect();
    let batch = door.create(&door.upload(&input), EMBED, "24h");
    door.done(&batch, 10);
    // The first model is done, the second has no worker yet.
    let page = |after: &str| door.get(&format!("/v1/batches/{batch}/results?limit=7&after={after}")).good();
    let first = door.get(&format!("/v1/batches/{batch}/results?limit=7")).good();
    let second = page(first["next"].as_str().expect("a cursor"));
    assert_eq!((first["data"].as_array().map(Vec::len), second["data"].as_array().map(Vec::len)), (Some(7), Some(3)));
    assert_eq!((&first["has_more"], &second["has_more"]), (&json!(true), &json!(false)));
    let third = page(second["next"].as_str().expect("a cursor"));
    assert_eq!(third["data"], json!([]));
    let _later = door.worker(&s, "later", &["--backend", "builtin:hash-embed"]);
    let over = door.over(&batch, "completed");
    let output = door.lines(&over["output_file_id"]);
    let models: BTreeMap<_, _> =
        output.iter().map(|line| (line["custom_id"].to_string(), &line["response"]["body"])).collect();
    assert_eq!(models.len(), 20);
    assert!(models.values().all(|body| body["data"][0]["embedding"].is_array()), "{models:?}");
    let rest = page(second["next"].as_str().expect("a cursor"));
    assert_eq!(rest["data"].as_array().map(Vec::len), Some(7), "a cursor of before begins again");
}

#[test]
fn forms_that_are_none_are_refused() {
    let s = Sandbox::new();
    let door = Door::open(&s);
    let whole = form(&[("purpose", None, "batch"), ("file", Some("x"), "content")]);
    door.post_form("b", &whole).good();
    door.post_form("b", &whole[..whole.len() - 10]).refused(400);
    door.post_form("other", &whole).refused(400);
    door.post_form("b", b"").refused(400);
    door.post("/v1/files", &json!({"purpose": "batch"})).refused(400);
    let refused = |fields: &[(&str, Option<&str>, &str)]| door.post_form("b", &form(fields)).refused(400);
    assert_eq!(refused(&[("purpose", None, "fine-tune"), ("file", Some("x"), "c")]), "invalid_purpose");
    assert_eq!(refused(&[("file", Some("x"), "c"), ("purpose", None, "fine-tune")]), "invalid_purpose");
    refused(&[("file", Some("x"), "c")]);
    refused(&[("purpose", None, "batch")]);
    refused(&[("purpose", None, "batch"), ("file", Some("x"), "c"), ("file", Some("y"), "d")]);
    assert_eq!(door.get("/v1/files").good()["data"].as_array().map(Vec::len), Some(1), "nothing half is kept");
    assert_eq!(std::fs::read_dir(s.path("router/edge/tmp")).expect("the door's own").count(), 0);
}

#[test]
fn a_body_that_is_too_long_is_refused_before_it_is_sent() {
    let s = Sandbox::new();
    let door = Door::open(&s);
    let headers = "content-type: multipart/form-data; boundary=b\r\ncontent-length: 314572800\r\n";
    let answer = read_answer(door.begin("POST", "/v1/files", headers));
    assert_eq!(answer.refused(413), "file_too_large");
    // One that does not say how long it will be is refused when it is.
    let headers = "content-type: multipart/form-data; boundary=b\r\ntransfer-encoding: chunked\r\n";
    let mut stream = door.begin("POST", "/v1/files", headers);
    let start = "--b\r\ncontent-disposition: form-data; name=\"file\"; filename=\"x\"\r\n\r\n";
    write!(stream, "{:x}\r\n{start}\r\n", start.len()).expect("the door reads");
    let chunk = vec![b'x'; 1 << 20];
    for _ in 0..300 {
        let sent = write!(stream, "{:x}\r\n", chunk.len()).and_then(|()| stream.write_all(&chunk));
        if sent.and_then(|()| stream.write_all(b"\r\n")).is_err() {
            break;
        }
    }
    assert_eq!(read_answer(stream).refused(413), "file_too_large");
    let long = "x".repeat(300 << 10);
    door.post("/v1/batches", &json!({"input_file_id": long})).refused(413);
}

#[test]
fn a_client_that_hangs_up_leaves_nothing_half_done() {
    let s = Sandbox::new();
    let door = Door::open(&s);
    let in_tmp = || std::fs::read_dir(s.path("router/edge/tmp")).expect("the door's own").count();
    let headers = "content-type: multipart/form-data; boundary=b\r\ncontent-length: 5000000\r\n";
    let mut stream = door.begin("POST", "/v1/files", headers);
    stream.write_all(&form(&[("file", Some("x"), &"x".repeat(3_000_000))])[..2_500_000]).expect("the door reads");
    wait_until("some of it is on disk", || in_tmp() > 0);
    drop(stream);
    wait_until("it is gone", || in_tmp() == 0);
    let asked = json!({"input_file_id": door.upload("x"), "endpoint": CHAT, "completion_window": "24h"}).to_string();
    for _ in 0..30 {
        let headers = format!("content-length: {}\r\n", asked.len());
        let mut stream = door.begin("POST", "/v1/batches", &headers);
        stream.write_all(asked.as_bytes()).expect("the door reads");
    }
    // Whatever was created lives its life.
    door.over(&door.create(&door.upload("x"), CHAT, "24h"), "failed");
    wait_until("none is left behind", || {
        let list = door.get("/v1/batches?limit=100").good();
        list["data"].as_array().expect("a list").iter().all(|batch| batch["status"] == "failed")
    });
}

#[test]
fn what_is_wrong_with_the_input_is_told_afterwards() {
    let s = Sandbox::new();
    let door = Door::open(&s);
    let failed = |content: &str| {
        let batch = door.over(&door.create(&door.upload(content), EMBED, "24h"), "failed");
        assert!(batch["failed_at"].is_u64() && batch["output_file_id"].is_null(), "{batch}");
        let error = &batch["errors"]["data"][0];
        assert!(error["message"].is_string());
        (error["code"].as_str().expect("a code").to_owned(), error["line"].as_u64())
    };
    let line = embed("a", "m", "x");
    assert_eq!(failed(""), ("empty_file".to_owned(), None));
    assert_eq!(failed(&format!("{line}{line}")), ("duplicate_custom_id".to_owned(), Some(2)));
    assert_eq!(failed(&format!("{line}{{")), ("invalid_json_line".to_owned(), Some(2)));
    assert_eq!(failed(&chat(1, "m")), ("url_mismatch".to_owned(), Some(1)));
    assert_eq!(failed(&"{}\n".repeat(50_001)).0, "missing_required_parameter");
    let many: String = (0..=50_000).map(|n| embed(&n.to_string(), "m", "")).collect();
    assert_eq!(failed(&many), ("too_many_tasks".to_owned(), None));
    let _worker = door.worker(&s, "hash", &["--backend", "builtin:hash-embed"]);
    let odd = format!("\u{feff}{}\r\n\n{}", embed("a", "hash", "x").trim_end(), embed("b", "hash", "x").trim_end());
    let over = door.over(&door.create(&door.upload(&odd), EMBED, "24h"), "completed");
    assert_eq!(door.lines(&over["output_file_id"]).len(), 2);
}

#[test]
fn what_is_not_there_is_404_and_what_makes_no_sense_400() {
    let s = Sandbox::new();
    let door = Door::open(&s);
    let zeros = "0".repeat(32);
    for id in ["x", "file-..", "%2e%2e%2fidentity", &format!("file-{zeros}"), &format!("batch_{zeros}")] {
        for path in ["files/ID", "files/ID/content", "batches/ID", "batches/ID/results"] {
            door.get(&format!("/v1/{}", path.replace("ID", id))).refused(404);
        }
        door.delete(&format!("/v1/files/{id}")).refused(404);
        door.post(&format!("/v1/batches/{id}/cancel"), &json!({})).refused(404);
        let asked = json!({"input_file_id": id, "endpoint": CHAT, "completion_window": "24h"});
        door.post("/v1/batches", &asked).refused(404);
    }
    let file = door.upload("x");
    let create = |field: &str, value: Value| {
        let mut asked = json!({"input_file_id": file, "endpoint": CHAT, "completion_window": "24h"});
        asked[field] = value;
        door.post("/v1/batches", &asked)
    };
    let wrong =
        [("endpoint", json!("/v1/models")), ("completion_window", json!("soon")), ("metadata", json!({"a": 1}))];
    for (field, value) in wrong {
        create(field, value).refused(400);
    }
    create("input_file_id", json!(7)).refused(400);
    door.get(&format!("/v1/batches/{}/results?after=x", door.create(&file, CHAT, "24h"))).refused(400);
}

#[test]
fn what_every_worker_rejects_is_no_output() {
    let s = Sandbox::new();
    let door = Door::open(&s);
    s.script("prog", "#!/bin/sh\necho no such thing >&2\nexit 1\n");
    let _worker = door.worker(&s, "m", &["--", "./prog", "{}"]);
    let over = door.over(&door.create(&door.upload(&chats(3, "m")), CHAT, "24h"), "completed");
    assert_eq!((&over["output_file_id"], &over["request_counts"]["failed"]), (&Value::Null, &json!(3)));
    for line in door.lines(&over["error_file_id"]) {
        assert_eq!((&line["response"]["status_code"], &line["error"]), (&json!(400), &Value::Null), "{line}");
    }
}

fn code_of(line: &Value) -> &str {
    line["error"]["code"].as_str().unwrap_or_default()
}

/// A batch's jobs, where their tasks are.
fn jobs_at_router(door: &Door, s: &Sandbox, batch: &str) -> Vec<Value> {
    let said = s.sheaf_exits(0, &["job", "ls", "--json", "--join", &door.router]);
    let jobs = String::from_utf8(said.stdout).expect("UTF-8");
    let jobs = jobs.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
    jobs.filter(|job| job["name"] == batch).collect()
}

/// The only one.
fn job_at_router(door: &Door, s: &Sandbox, batch: &str) -> Option<Value> {
    jobs_at_router(door, s, batch).pop()
}

fn router_says(door: &Door, s: &Sandbox, batch: &str) -> Value {
    job_at_router(door, s, batch).expect("its job")["state"].clone()
}

#[test]
fn what_is_cancelled_keeps_what_is_done() {
    let s = Sandbox::new();
    let door = Door::open(&s);
    let _worker = serve(&door, &s, "m", "0.2");
    let batch = door.create(&door.upload(&chats(400, "m")), CHAT, "24h");
    door.done(&batch, 10);
    let cancel = || door.post(&format!("/v1/batches/{batch}/cancel"), &json!({})).good()["status"].clone();
    assert_eq!(cancel(), "cancelling");
    assert!(["cancelling", "cancelled"].contains(&cancel().as_str().expect("a status")), "twice is once");
    let over = door.over(&batch, "cancelled");
    let done = assert_whole(&door, &over, 400);
    assert!((10..400).contains(&done), "{done} done");
    assert!(door.lines(&over["error_file_id"]).iter().all(|line| code_of(line) == "batch_cancelled"));
    assert!(over["cancelling_at"].is_u64() && over["cancelled_at"].is_u64());
    assert_eq!(router_says(&door, &s, &batch), "cancelled");
}

#[test]
fn what_takes_too_long_expires_and_keeps_what_is_done() {
    let s = Sandbox::new();
    let door = Door::open(&s);
    let _worker = serve(&door, &s, "m", "0.1");
    let batch = door.create(&door.upload(&chats(2_000, "m")), CHAT, "5s");
    let over = door.over(&batch, "expired");
    let done = assert_whole(&door, &over, 2_000);
    assert!(done < 2_000);
    assert!(door.lines(&over["error_file_id"]).iter().all(|line| code_of(line) == "batch_expired"));
    assert!(over["finalizing_at"].is_u64() && over["expired_at"].as_u64() >= over["expires_at"].as_u64());
    assert_eq!(router_says(&door, &s, &batch), "cancelled");
}

#[test]
fn tasks_of_any_service_take_any_body() {
    let s = Sandbox::new();
    let door = Door::open(&s);
    s.ledger_program("0");
    let _worker = door.worker(&s, "shout", &["--", "./prog", "{}"]);
    let line = |id: &str, body: Value| {
        json!({"custom_id": id, "method": "POST", "url": "/v1/tasks", "service": "shout", "body": body}).to_string()
            + "\n"
    };
    let input = line("a", json!("row-1")) + &line("b", json!({"x": 1}));
    let over = door.over(&door.create(&door.upload(&input), "/v1/tasks", "24h"), "completed");
    let bodies: BTreeMap<_, _> = door
        .lines(&over["output_file_id"])
        .into_iter()
        .map(|line| (line["custom_id"].to_string(), line["response"]["body"].clone()))
        .collect();
    assert_eq!((&bodies["\"a\""], &bodies["\"b\""]), (&json!("row-1!"), &json!("{\"x\":1}!")));
}

/// What a worker answers need not be anything that this program could hold as a value: it goes out as it came.
#[test]
fn results_are_the_lines_of_the_output_byte_for_byte() {
    let s = Sandbox::new();
    let door = Door::open(&s);
    let _worker = door.worker(&s, "cat", &["--stdin", "--", "cat"]);
    let body = r#"{"far": 1e400, "long": 12345678901234567890123, "half": "\ud800"}"#;
    let input = format!(
        "{{\"custom_id\": \"a\", \"method\": \"POST\", \"url\": \"/v1/tasks\", \"service\": \"cat\", \"body\": {body}}}\n"
    );
    let batch = door.create(&door.upload(&input), "/v1/tasks", "24h");
    door.over(&batch, "completed");
    let page = door.get(&format!("/v1/batches/{batch}/results"));
    assert_eq!(page.status, 200);
    assert!(String::from_utf8_lossy(&page.body).contains(body));
    // A place within a line is none that was ever given out: it means the first line.
    let within = door.get(&format!("/v1/batches/{batch}/results?after=f.5"));
    assert_eq!((within.status, within.body), (200, page.body));
}

#[test]
fn equal_lines_are_two_requests_and_an_equal_batch_costs_nothing() {
    let s = Sandbox::new();
    let door = Door::open(&s);
    let _worker = serve(&door, &s, "m", "0");
    let file = door.upload(&(chat(1, "m") + &chat(1, "m").replace("c-1", "c-2")));
    let run = |metadata: &Value| {
        let asked = json!({"input_file_id": file, "endpoint": CHAT, "completion_window": "24h", "metadata": metadata});
        let batch = door.post("/v1/batches", &asked).good();
        let over = door.over(batch["id"].as_str().expect("an id"), "completed");
        assert_eq!(door.lines(&over["output_file_id"]).len(), 2);
        s.executed()
    };
    assert_eq!(run(&Value::Null), 2);
    assert_eq!(run(&Value::Null), 2, "from the journal");
    assert_eq!(run(&json!({"sheaf_fresh": "true"})), 4);
}

fn number(name: &str, default: usize) -> usize {
    std::env::var(name).map_or(default, |value| value.parse().expect("a number"))
}

/// Kills the router once so many lines are done. `SHEAF_BATCH_LINES=10000 SHEAF_BATCH_KILLS=10` is the whole proof.
#[test]
fn a_batch_survives_kills_and_runs_no_line_for_nothing() {
    let (lines, kills) = (number("SHEAF_BATCH_LINES", 1_000), number("SHEAF_BATCH_KILLS", 3));
    let s = Sandbox::new();
    let mut door = Door::open(&s);
    let _worker = serve(&door, &s, "m", "0.002");
    let batch = door.create(&door.upload(&chats(lines, "m")), CHAT, "24h");
    let mut random = u64::from(std::process::id());
    for kill in 0..kills {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let (step, place) = (lines / (kills + 1), (random >> 33) as usize);
        let at = kill * step + place % step;
        eprintln!("kill {kill} when {at} lines are done");
        door.done(&batch, at as u64);
        door.killed(&s);
    }
    let over = door.over(&batch, "completed");
    assert_eq!(assert_whole(&door, &over, lines), lines);
    let executions = s.executions();
    let (executed, rows) = (executions.values().sum::<usize>(), executions.len());
    eprintln!("{lines} lines, {kills} kills: {executed} executions");
    assert_eq!(rows, lines);
    assert!(executed <= lines + kills * 4, "{executed} executions of {lines} lines, 4 at once, {kills} kills");
    let place = s.path(&format!("router/edge/batches/@/{batch}"));
    wait_until("it keeps its record only", || std::fs::read_dir(&place).expect("its own").count() == 1);
}

#[test]
fn a_kill_in_each_state_is_survived() {
    let s = Sandbox::new();
    let mut door = Door::open(&s);
    // In an upload.
    let headers = "content-type: multipart/form-data; boundary=b\r\ncontent-length: 5000000\r\n";
    let mut stream = door.begin("POST", "/v1/files", headers);
    stream.write_all(&form(&[("file", Some("x"), &"x".repeat(3_000_000))])[..2_500_000]).expect("the door reads");
    wait_until("some of it is on disk", || {
        std::fs::read_dir(s.path("router/edge/tmp")).is_ok_and(|dir| dir.count() > 0)
    });
    door.killed(&s);
    assert_eq!(std::fs::read_dir(s.path("router/edge/tmp")).expect("the door's own").count(), 0);
    assert_eq!(door.get("/v1/files").good()["data"], json!([]));
    // While it validates, or as soon after as it is killed.
    let batch = door.create(&door.upload(&chats(2_000, "m")), CHAT, "24h");
    door.killed(&s);
    let worker = serve(&door, &s, "m", "0");
    // While it finalizes, or as close to it as can be seen from here.
    wait_until("the last lines are done", || {
        let seen = door.batch(&batch);
        seen["status"] == "finalizing" || seen["request_counts"]["completed"].as_u64() >= Some(1_990)
    });
    door.killed(&s);
    let over = door.over(&batch, "completed");
    assert_eq!(assert_whole(&door, &over, 2_000), 2_000);
    drop(worker);
    // While it is being cancelled.
    let batch = door.create(&door.upload(&chats(100, "nobody")), CHAT, "24h");
    wait_until("it is in progress", || door.batch(&batch)["status"] == "in_progress");
    let answer: Answer = door.post(&format!("/v1/batches/{batch}/cancel"), &json!({}));
    assert_eq!(answer.good()["status"], "cancelling");
    door.killed(&s);
    let over = door.over(&batch, "cancelled");
    assert_eq!(assert_whole(&door, &over, 100), 0);
    let listed = door.get("/v1/files?limit=100").good();
    assert_eq!(listed["data"].as_array().map(Vec::len), Some(4), "two inputs, an output, errors: {listed}");
}

/// Eleven lines of twelve finish while the door cannot have its own sink, as if it died before each delivery; then it is
/// cancelled, and dies for good.
#[test]
fn what_finished_before_a_cancel_is_kept_though_the_door_dies_before_it_is_delivered() {
    let s = Sandbox::new();
    let mut door = Door::open(&s);
    let batch = door.create(&door.upload(&chats(12, "m")), CHAT, "24h");
    let job = |door: &Door, is: &dyn Fn(&Value) -> bool| job_at_router(door, &s, &batch).is_some_and(|job| is(&job));
    wait_until("the lines are at the router", || job(&door, &|job| job["open"] == 12));
    door.process.kill9();
    let sink = s.path(&format!("router/edge/batches/@/{batch}/results.0.jsonl.sheaf/lock"));
    let held = std::fs::File::open(sink).expect("the sink of its job");
    held.lock().expect("nobody holds it");
    door.killed(&s);
    let ledger = s.path("ledger");
    let program = format!(
        "#!/bin/sh\nn=${{1#*row-}}; n=${{n%%;*}}\necho \"row-$n\" >> '{}'\n[ \"$n\" != 12 ] || sleep 1000\nprintf '{{\"n\":%s}}' \"$n\"\n",
        ledger.display()
    );
    s.script("prog", &program);
    let _worker = door.worker(&s, "m", &["--batch", "4", "--", "./prog", "{}"]);
    wait_until("all but one are finished", || job(&door, &|job| job["ok"] == 11));
    assert_eq!(door.post(&format!("/v1/batches/{batch}/cancel"), &json!({})).good()["status"], "cancelling");
    wait_until("the router knows", || job(&door, &|job| job["state"] == "cancelled" && job["open"] == 0));
    door.process.kill9();
    drop(held);
    door.killed(&s);
    let over = door.over(&batch, "cancelled");
    assert_eq!(assert_whole(&door, &over, 12), 11, "what finished was paid for");
    assert!(door.lines(&over["error_file_id"]).iter().all(|line| code_of(line) == "batch_cancelled"));
    assert_eq!(s.executed(), 12, "nothing ran twice");
}

/// A batch in progress, as a door leaves it that dies once it has written down that it is cancelled.
fn write_cancelling(place: &std::path::Path) {
    let record = std::fs::read(place.join("batch.json")).expect("its record");
    let mut record: Value = serde_json::from_slice(&record).expect("JSON");
    (record["status"], record["ending"]) = (json!("cancelling"), json!("cancelled"));
    record["times"]["cancelling_at"] = record["times"]["in_progress_at"].clone();
    std::fs::write(place.join("batch.json"), record.to_string()).expect("its place");
}

#[test]
fn a_cancelled_batch_ends_with_what_it_has_though_the_record_of_its_job_is_damaged() {
    let s = Sandbox::new();
    let mut door = Door::open(&s);
    let _worker = serve(&door, &s, "m", "0");
    let batch = door.create(&door.upload(&(chats(3, "m") + &chat(4, "nobody"))), CHAT, "24h");
    door.done(&batch, 3);
    door.process.kill9();
    let place = s.path(&format!("router/edge/batches/@/{batch}"));
    write_cancelling(&place);
    std::fs::write(place.join("results.0.jsonl.sheaf/job.json"), "{").expect("its place");
    door.killed(&s);
    let over = door.over(&batch, "cancelled");
    assert_eq!(assert_whole(&door, &over, 4), 3);
    assert!(door.lines(&over["error_file_id"]).iter().all(|line| code_of(line) == "batch_cancelled"));
}

/// The door dies once it has written down that a batch is cancelled, and before it says so to the router. The next one
/// cannot have the sink of the first model; the second must not be executed meanwhile.
#[test]
fn every_model_of_a_cancelled_batch_is_called_back_before_the_first_is_collected() {
    let s = Sandbox::new();
    let mut door = Door::open(&s);
    let batch = door.create(&door.upload(&(chat(1, "first") + &chat(2, "second"))), CHAT, "24h");
    let are = |door: &Door, is: &dyn Fn(&Value) -> bool| {
        let jobs = jobs_at_router(door, &s, &batch);
        jobs.len() == 2 && jobs.iter().all(is)
    };
    wait_until("the lines are at the router", || are(&door, &|job| job["open"] == 1));
    door.process.kill9();
    let place = s.path(&format!("router/edge/batches/@/{batch}"));
    let sink = std::fs::File::open(place.join("results.0.jsonl.sheaf/lock")).expect("the sink of its job");
    sink.lock().expect("nobody holds it");
    write_cancelling(&place);
    door.killed(&s);
    wait_until("the router knows", || are(&door, &|job| job["state"] == "cancelled"));
    assert_eq!(door.batch(&batch)["status"], "cancelling");
    drop(sink);
    let over = door.over(&batch, "cancelled");
    assert_eq!(assert_whole(&door, &over, 2), 0);
}

#[test]
fn a_model_that_is_done_is_not_run_again_where_all_is_to_be_fresh() {
    let s = Sandbox::new();
    let mut door = Door::open(&s);
    let _first = serve(&door, &s, "m", "0");
    let file = door.upload(&(chats(5, "m") + &(6..=10).map(|n| chat(n, "later")).collect::<String>()));
    let asked = json!({"input_file_id": file, "endpoint": CHAT, "completion_window": "24h",
        "metadata": {"sheaf_fresh": "true"}});
    let batch = door.post("/v1/batches", &asked).good();
    let batch = batch["id"].as_str().expect("an id");
    door.done(batch, 5);
    let record = s.path(&format!("router/edge/batches/@/{batch}/results.0.jsonl.sheaf/job.json"));
    wait_until("the first model's job is done", || {
        std::fs::read_to_string(&record).is_ok_and(|record| record.contains("\"done\": true"))
    });
    door.killed(&s);
    let _later = serve(&door, &s, "later", "0");
    let over = door.over(batch, "completed");
    assert_eq!(assert_whole(&door, &over, 10), 10);
    assert_eq!(s.executed(), 10, "nothing ran twice");
}
