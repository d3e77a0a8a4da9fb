//! What users get wrong: each a clear error or a failed row, and nothing else lost.

#![allow(clippy::expect_used, reason = "a test fails by panicking")]

mod common;

use std::fs;
use std::io::{Read, Write};

use common::{Sandbox, text};

/// Runs, insists on exit code 2 and that the message holds every word.
fn refused(s: &Sandbox, args: &[&str], words: &[&str]) {
    let said = text(&s.sheaf_exits(2, args));
    for word in words {
        assert!(said.contains(word), "`{word}` is not in:\n{said}");
    }
}

#[test]
fn malformed_rows_are_failed_rows() {
    let s = Sandbox::new();
    s.write("rows.jsonl", b"{\"text\":\"one\"}\n{broken\n\xff\xfe\n{\"other\":1}\n{\"text\":\"five\"}".as_slice());
    let args = ["run", "--in", "rows.jsonl", "--column", "text", "--out", "out.jsonl", "--", "echo", "{}"];
    let said = text(&s.sheaf_exits(3, &args));
    assert!(!said.contains("sheaf retry"), "nothing of it can be run again:\n{said}");
    let rows = s.output("out.jsonl");
    assert_eq!(rows[&1]["output"], "one\n");
    assert_eq!(rows[&5]["output"], "five\n", "a last line without its newline is a row");
    for row in [2, 3, 4] {
        assert_eq!(rows[&row]["error"]["class"], "rejected", "{}", rows[&row]);
    }
}

#[test]
fn an_empty_input_is_a_job_without_rows() {
    let s = Sandbox::new();
    s.write("rows.txt", "");
    let said = text(&s.sheaf_exits(0, &["run", "--in", "rows.txt", "--out", "out.jsonl", "--", "echo", "{}"]));
    assert!(said.contains("submitted 0"), "{said}");
}

#[test]
fn a_row_over_the_limit_fails_and_one_at_the_limit_does_not() {
    let s = Sandbox::new();
    let at = "x".repeat(1 << 20);
    s.write("rows.txt", format!("{at}\n{at}y\nsmall\n"));
    s.sheaf_exits(3, &["run", "--in", "rows.txt", "--out", "out.jsonl", "--stdin", "--", "wc", "-c"]);
    let rows = s.output("out.jsonl");
    assert_eq!(rows[&1]["output"], "1048576\n");
    assert_eq!(rows[&2]["error"]["class"], "rejected");
    assert_eq!(rows[&3]["status"], "ok");
}

#[test]
fn a_program_that_writes_without_end_fails_its_row_only() {
    let s = Sandbox::new();
    s.write("rows.txt", "1\n2\n");
    s.script("prog", "#!/bin/sh\n[ $1 = 1 ] && exec head -c 100000000 /dev/zero\necho fine\n");
    s.sheaf_exits(3, &["run", "--in", "rows.txt", "--out", "out.jsonl", "--", "./prog", "{}"]);
    let rows = s.output("out.jsonl");
    assert_eq!(rows[&1]["status"], "failed");
    assert_eq!(rows[&2]["output"], "fine\n");
}

#[test]
fn what_cannot_start_says_why() {
    let s = Sandbox::new();
    s.rows("rows.txt", 2);
    let out = ["--out", "out.jsonl"];
    let run = |extra: &[&'static str]| [&["run", "--in", "rows.txt"], &out[..], extra].concat();
    refused(&s, &run(&["--", "./no-such-program", "{}"]), &["no-such-program"]);
    refused(&s, &run(&["--", "echo", "row"]), &["{}", "--stdin"]);
    refused(&s, &["run", "--in", "missing.txt", "--out", "out.jsonl", "--", "echo", "{}"], &["missing.txt"]);
    refused(&s, &["run", "--in", "rows.txt", "--out", "no/such/dir/out.jsonl", "--", "echo", "{}"], &["no/such/dir"]);
    s.write("rows.csv", "a,b\n1,2\n");
    refused(
        &s,
        &["run", "--in", "rows.csv", "--column", "c", "--out", "out.jsonl", "--", "echo", "{}"],
        &["c", "a", "b"],
    );
}

#[test]
fn what_means_nothing_with_a_router_elsewhere_is_refused() {
    let s = Sandbox::new();
    s.rows("rows.txt", 2);
    let (_router, addr) = s.router(&[]);
    let run = ["run", "--join", &addr, "--in", "rows.txt", "--out", "out.jsonl", "--service", "prog", "--limit", "0"];
    for words in [
        &["--batch", "2"][..],
        &["--depth", "2"],
        &["--memory", "1GiB"],
        &["--grace", "9s"],
        &["--retry-exit", "9"],
        &["--stdin"],
        &["--serve"],
    ] {
        refused(&s, &[&run[..], words].concat(), &[words[0], "--join"]);
    }
    s.sheaf_exits(0, &[&run[..], &["--stdin", "--", "cat"]].concat());
}

#[test]
fn what_is_in_use_says_so() {
    let s = Sandbox::new();
    let (_router, addr) = s.router(&[]);
    refused(&s, &["up", "--listen", "127.0.0.1:0", "--data", "router"], &["router", "in use"]);
    refused(&s, &["up", "--listen", &addr, "--data", "other"], &[&addr, "in use"]);
    refused(&s, &["up", "--listen", "0.0.0.0:0", "--data", "other"], &["sheaf token create"]);
}

#[test]
fn garbage_on_the_port_hurts_nobody() {
    let s = Sandbox::new();
    s.rows("rows.txt", 20);
    s.ledger_program("0");
    let (_router, addr) = s.router(&[]);
    for garbage in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0xff; 64], &[0; 64]] {
        let mut stream = std::net::TcpStream::connect(&addr).unwrap();
        stream.write_all(garbage).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let mut answer = Vec::new();
        // A reset is as good an answer as an end.
        if stream.read_to_end(&mut answer).is_ok() {
            assert!(answer.is_empty(), "nothing is said to a stranger");
        }
    }
    let _worker = s.start("a", &["worker", "--join", &addr, "--data", "a", "--", "./prog", "{}"]);
    s.sheaf_exits(
        0,
        &["run", "--join", &addr, "--in", "rows.txt", "--out", "out.jsonl", "--service", "prog", "--revision", "1"],
    );
    s.assert_answers("out.jsonl", 20);
}

#[test]
fn a_refused_run_leaves_nothing_behind() {
    let s = Sandbox::new();
    s.rows("rows.txt", 2);
    s.write("file", "");
    s.write("junk.db", "no database at all, but long enough to look like one: ".repeat(40));
    let names = || {
        let mut names: Vec<_> = fs::read_dir(s.path(".")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names
    };
    let before = names();
    for (rows, out) in [
        (&["nowhere.txt"][..], &["out.jsonl"][..]),
        (&["nowhere.txt"], &["out.db", "--table", "t"]),
        (&["rows.txt"], &["out.jsonl", "--data", "file/nested"]),
        (&["rows.txt"], &["out.db", "--table", "t", "--data", "file/nested"]),
        (&["rows.txt"], &["junk.db", "--table", "t"]),
        (&["junk.db", "--query", "select 1"], &["out.jsonl"]),
        (&["rows.txt", "--column", "a"], &["out.jsonl"]),
    ] {
        let args = [&["run", "--in"][..], rows, &["--out"], out, &["--", "echo", "{}"]].concat();
        s.sheaf_exits(2, &args);
        assert_eq!(names(), before, "{args:?}");
    }
}
