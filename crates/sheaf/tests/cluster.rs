//! Router, workers and client as processes of their own on loopback, each killed in turn.

#![allow(clippy::expect_used, reason = "a test fails by panicking")]

mod common;

use std::time::Instant;

use common::{Process, Sandbox, text, wait_until};

const ROWS: usize = 60;

fn worker(s: &Sandbox, name: &str, addr: &str, batch: &str, depth: &str, extra: &[&str]) -> Process {
    let mut args = vec![
        "worker",
        "--join",
        addr,
        "--service",
        "prog",
        "--name",
        name,
        "--data",
        name,
        "--batch",
        batch,
        "--depth",
        depth,
    ];
    args.extend(extra);
    args.extend(["--", "./prog", "{}"]);
    s.start(name, &args)
}

fn client<'a>(addr: &'a str, extra: &[&'a str]) -> Vec<&'a str> {
    let mut args =
        vec!["run", "--join", addr, "--in", "rows.txt", "--out", "out.jsonl", "--service", "prog", "--revision", "1"];
    args.extend(extra);
    args
}

fn sandbox(pause: &str) -> Sandbox {
    let s = Sandbox::new();
    s.rows("rows.txt", ROWS);
    s.ledger_program(pause);
    s
}

#[test]
fn a_router_killed_in_mid_job_leaves_workers_running_and_nothing_runs_twice() {
    let s = sandbox("0.1");
    let (mut router, addr) = s.router(&["--grace", "30s"]);
    let _a = worker(&s, "a", &addr, "1", "3", &[]);
    let _b = worker(&s, "b", &addr, "4", "2", &[]);
    let mut run = s.start("run", &client(&addr, &[]));
    for stop_at in [10, 30] {
        wait_until("some rows ran", || s.executed() >= stop_at);
        router.kill9();
        router = s.router_at(&addr, &["--grace", "30s"]);
    }
    run.exits(0);
    s.assert_answers("out.jsonl", ROWS);
    assert_eq!(s.executed(), ROWS, "every row executes once: {:?}", twice(&s));
    s.sheaf_exits(0, &["shutdown", "--join", &addr]);
    router.exits(0);
    assert!(router.log().contains("shutdown"), "{}", router.log());
}

#[test]
fn a_worker_killed_costs_only_what_it_held() {
    let s = sandbox("0.05");
    let (_router, addr) = s.router(&["--grace", "5s"]);
    let mut a = worker(&s, "a", &addr, "2", "2", &[]);
    let _b = worker(&s, "b", &addr, "2", "2", &[]);
    let mut run = s.start("run", &client(&addr, &[]));
    wait_until("some rows ran", || s.executed() >= 20);
    a.kill9();
    run.exits(0);
    s.assert_answers("out.jsonl", ROWS);
    assert!(s.executed() <= ROWS + 4, "{} executions, {:?} twice", s.executed(), twice(&s));
}

#[test]
fn a_client_killed_and_repeated_has_each_row_once() {
    let s = sandbox("0.03");
    let (_router, addr) = s.router(&[]);
    let _a = worker(&s, "a", &addr, "2", "2", &[]);
    for stop_at in [10, 25, 40] {
        let mut run = s.start("run", &client(&addr, &[]));
        wait_until("some rows ran", || s.executed() >= stop_at);
        run.kill9();
    }
    s.sheaf_exits(0, &client(&addr, &[]));
    s.assert_answers("out.jsonl", ROWS);
    assert_eq!(s.executed(), ROWS, "{:?} twice", twice(&s));
}

#[test]
fn a_worker_that_joins_late_has_work_within_a_second() {
    let s = sandbox("0.2");
    let (_router, addr) = s.router(&[]);
    let _a = worker(&s, "a", &addr, "1", "1", &[]);
    let mut run = s.start("run", &client(&addr, &[]));
    wait_until("some rows ran", || s.executed() >= 5);
    let joined = Instant::now();
    let _b = worker(&s, "b", &addr, "8", "8", &[]);
    let before = s.executed();
    wait_until("the second worker runs rows", || s.executed() >= before + 8);
    println!("8 more rows ran {} ms after the second worker's start", joined.elapsed().as_millis());
    run.exits(0);
    s.assert_answers("out.jsonl", ROWS);
    assert_eq!(s.executed(), ROWS);
}

#[test]
fn a_worker_stopped_for_less_than_the_grace_keeps_its_tasks() {
    let s = sandbox("0.05");
    let (_router, addr) = s.router(&["--grace", "60s"]);
    let a = worker(&s, "a", &addr, "2", "2", &[]);
    let _b = worker(&s, "b", &addr, "2", "2", &[]);
    let mut run = s.start("run", &client(&addr, &[]));
    wait_until("some rows ran", || s.executed() >= 10);
    a.signal("-STOP");
    wait_until("the other worker has done the rest", || s.executed() >= ROWS - 8);
    a.signal("-CONT");
    run.exits(0);
    s.assert_answers("out.jsonl", ROWS);
    assert_eq!(s.executed(), ROWS, "{:?} twice", twice(&s));
}

#[test]
fn a_worker_stopped_for_longer_never_replaces_a_settled_result() {
    let s = sandbox("0.05");
    let (_router, addr) = s.router(&["--grace", "3s"]);
    let a = worker(&s, "a", &addr, "2", "2", &[]);
    let _b = worker(&s, "b", &addr, "2", "2", &[]);
    let mut run = s.start("run", &client(&addr, &[]));
    wait_until("some rows ran", || s.executed() >= 10);
    a.signal("-STOP");
    run.exits(0);
    let before = s.read("out.jsonl");
    a.signal("-CONT");
    s.sheaf_exits(0, &client(&addr, &[]));
    assert_eq!(s.read("out.jsonl"), before);
    s.assert_answers("out.jsonl", ROWS);
    assert!(s.executed() <= ROWS + 4);
}

#[test]
fn chaos_on_every_link_changes_nothing() {
    let s = sandbox("0.01");
    let chaos = ["--chaos", "drop=0.1,dup=0.05,reorder=0.1"];
    let (mut router, addr) = s.router(&chaos);
    let _a = worker(&s, "a", &addr, "1", "3", &chaos);
    let _b = worker(&s, "b", &addr, "4", "2", &chaos);
    let mut run = s.start("run", &client(&addr, &chaos));
    wait_until("some rows ran", || s.executed() >= 20);
    router.kill9();
    let _router = s.router_at(&addr, &chaos);
    run.exits(0);
    s.assert_answers("out.jsonl", ROWS);
    assert_eq!(s.executed(), ROWS, "{:?} twice", twice(&s));
}

#[test]
fn operators_see_jobs_and_stop_the_router() {
    let s = sandbox("0");
    let (mut router, addr) = s.router(&[]);
    let mut run = s.start("run", &client(&addr, &[]));
    wait_until("the job is listed", || text(&s.sheaf(&["job", "ls", "--join", &addr])).contains("prog"));
    let info = text(&s.sheaf_exits(0, &["job", "info", "last", "--join", &addr]));
    assert!(info.contains("open"), "{info}");
    wait_until("it says why nothing runs", || text(&s.sheaf(&["job", "info", "--join", &addr])).contains("`prog`"));
    wait_until("the run says so too", || run.log().contains("`prog`"));
    let _a = worker(&s, "a", &addr, "4", "4", &[]);
    s.sheaf_exits(0, &["job", "wait", "last", "--join", &addr]);
    assert!(!text(&s.sheaf_exits(0, &["job", "info", "--join", &addr])).contains("`prog`"));
    run.exits(0);
    s.assert_answers("out.jsonl", ROWS);
    let key = s.output("out.jsonl")[&1]["key"].as_str().unwrap().to_owned();
    let task = text(&s.sheaf_exits(0, &["task", "info", &key, "--join", &addr]));
    assert!(task.contains("ok"), "{task}");
    router.signal("-TERM");
    router.exits(0);
}

#[test]
fn a_cancelled_job_ends_with_its_rows_reported() {
    let s = sandbox("0.2");
    let (_router, addr) = s.router(&[]);
    let _a = worker(&s, "a", &addr, "2", "2", &[]);
    let mut run = s.start("run", &client(&addr, &[]));
    wait_until("some rows ran", || s.executed() >= 4);
    s.sheaf_exits(0, &["job", "cancel", "last", "--join", &addr]);
    run.exits(3);
    let rows = s.output("out.jsonl");
    assert_eq!(rows.len(), ROWS, "no row is dropped without a word");
    assert!(rows.values().any(|row| row["error"]["class"] == "cancelled"));
    assert!(s.executed() < ROWS);
}

/// Rows that the ledger has more than once.
fn twice(s: &Sandbox) -> Vec<String> {
    s.executions().into_iter().filter(|(_, times)| *times > 1).map(|(row, _)| row).collect()
}

#[test]
fn a_client_that_died_before_its_job_was_cancelled_gets_what_had_finished() {
    let s = sandbox("0.2");
    let (_router, addr) = s.router(&[]);
    let mut run = s.start("run", &client(&addr, &[]));
    let job = || {
        let said = s.sheaf_exits(0, &["job", "ls", "--json", "--join", &addr]);
        let job = String::from_utf8(said.stdout).expect("UTF-8").lines().next().map(str::to_owned);
        job.map_or(serde_json::Value::Null, |job| serde_json::from_str(&job).expect("JSON"))
    };
    wait_until("the rows are at the router", || job()["open"] == ROWS);
    run.kill9();
    let _a = worker(&s, "a", &addr, "2", "2", &[]);
    wait_until("some rows are finished", || job()["ok"].as_u64() >= Some(4));
    s.sheaf_exits(0, &["job", "cancel", "last", "--join", &addr]);
    let finished = job()["ok"].as_u64();
    // The same command, with a row that the job never had: that one is refused, when all the rest is in the sink.
    s.rows("rows.txt", ROWS + 1);
    s.sheaf_exits(2, &client(&addr, &[]));
    let rows = s.output("out.jsonl");
    let ok = rows.values().filter(|row| row["error"].is_null()).count();
    assert_eq!((rows.len(), Some(ok as u64)), (ROWS, finished));
    let executions = s.executions();
    assert!(executions.values().all(|times| *times == 1) && executions.len() < ROWS, "{executions:?}");
}
