//! Routers that will not talk, and addresses where none listens: the command ends soon, and says what, where and why.

#![allow(clippy::expect_used, reason = "a test fails by panicking")]

mod common;

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::process::{Command, Output};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use common::Sandbox;
use serde_json::Value;
use sheaf_net::Listener;
use sheaf_session::Refusal;

/// Far less than anything here waits for a router that might come.
const SOON: Duration = Duration::from_secs(8);

/// A router that refuses every session, for as long as the test lives.
fn refusing(refusal: Refusal) -> SocketAddr {
    let (tell, addr) = mpsc::sync_channel(1);
    thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let listener = Listener::bind(Some("127.0.0.1:0")).await.expect("a free port");
            tell.send(listener.addr().expect("it listens on TCP")).expect("the test waits");
            let (to_us, mut arrivals) = tokio::sync::mpsc::channel(1);
            let serving = tokio::spawn(listener.serve(to_us));
            while let Some(arrival) = arrivals.recv().await {
                arrival.incoming.refuse(refusal).await;
            }
            serving.abort();
        });
    });
    addr.recv().expect("it listens")
}

fn dead_port() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("an address").to_string()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn last_line(output: &Output) -> Value {
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    serde_json::from_str(said.lines().last().expect("a last line")).expect("a line of JSON")
}

fn soon(act: impl FnOnce()) {
    let began = Instant::now();
    act();
    assert!(began.elapsed() < SOON, "it took {:?}", began.elapsed());
}

#[test]
fn a_run_that_a_router_refuses_for_good_ends() {
    let s = Sandbox::new();
    s.rows("rows.txt", 3);
    let addr = refusing(Refusal::Version).to_string();
    let words = ["run", "--join", &addr, "--in", "rows.txt", "--out", "o.jsonl", "--service", "prog"];
    soon(|| assert!(stderr(&s.sheaf_exits(2, &words)).contains(&addr)));
    let output = s.sheaf_exits(2, &[&["--json"], &words[..]].concat());
    let last = last_line(&output);
    assert_eq!((last["exit"].as_u64(), last["reason"].as_str()), (Some(2), Some("error")));
    assert!(last["why"].as_str().is_some_and(|why| why.contains(&addr)));
}

#[test]
fn a_worker_that_a_router_refuses_for_good_ends() {
    let s = Sandbox::new();
    s.ledger_program("0");
    let addr = refusing(Refusal::Version).to_string();
    soon(|| {
        let output = s.sheaf_exits(2, &["worker", "--join", &addr, "--", "./prog", "{}"]);
        assert!(stderr(&output).contains(&addr));
    });
}

#[test]
fn a_question_to_nobody_is_no_time_out() {
    let s = Sandbox::new();
    let addr = dead_port();
    for words in [&["job", "ls"][..], &["shutdown"], &["job", "info", "last"]] {
        soon(|| assert!(stderr(&s.sheaf_exits(2, &[words, &["--join", &addr]].concat())).contains(&addr)));
    }
}

#[test]
fn a_question_that_has_to_wait_says_so() {
    let s = Sandbox::new();
    // It takes connections, and says nothing.
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let addr = listener.local_addr().expect("an address").to_string();
    let asks = s.start("ls", &["job", "ls", "--join", &addr]);
    soon(|| common::wait_until("it says what it waits for", || s.read("ls.log").contains(&addr)));
    drop(asks);
}

#[test]
fn a_job_that_a_router_will_not_have_says_why() {
    let s = Sandbox::new();
    s.rows("rows.txt", 3);
    s.ledger_program("0");
    let words = ["--json", "run", "--in", "rows.txt", "--out", "o.jsonl", "--data", "data", "--", "./prog", "{}"];
    let done = last_line(&s.sheaf_exits(0, &words));
    assert_eq!((done["exit"].as_u64(), done["reason"].as_str()), (Some(0), Some("complete")));
    // A copy of the router's directory comes back, from before the last result that the sink has.
    let copy = |from: &str, to: &str| {
        let status = Command::new("cp").arg("-r").arg(s.path(from)).arg(s.path(to)).status().expect("cp starts");
        assert!(status.success());
    };
    copy("data", "older");
    s.rows("rows.txt", 4);
    s.sheaf_exits(0, &words);
    fs::remove_dir_all(s.path("data")).expect("own directory");
    copy("older", "data");
    s.rows("rows.txt", 5);
    let last = last_line(&s.sheaf_exits(2, &words));
    assert_eq!((last["exit"].as_u64(), last["reason"].as_str()), (Some(2), Some("refused")), "{last}");
    assert!(last["why"].as_str().is_some_and(|why| !why.is_empty()));
}
