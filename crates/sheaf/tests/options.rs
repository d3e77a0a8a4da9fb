//! The options of `sheaf run`, each by what it does to a job: bounds, retries, sources and sinks.

#![allow(clippy::expect_used, reason = "a test fails by panicking")]

mod common;

use common::{Sandbox, text};

/// `sheaf run` of rows.txt into out.jsonl.
fn run<'a>(extra: &[&'a str]) -> Vec<&'a str> {
    [&["run", "--in", "rows.txt", "--out", "out.jsonl"][..], extra].concat()
}

#[test]
fn limit_takes_the_first_rows_and_may_grow() {
    let s = Sandbox::new();
    s.rows("rows.txt", 30);
    s.ledger_program("0");
    s.sheaf_exits(0, &run(&["--limit", "10", "--", "./prog", "{}"]));
    s.assert_answers("out.jsonl", 10);
    s.sheaf_exits(0, &run(&["--limit", "20", "--", "./prog", "{}"]));
    s.assert_answers("out.jsonl", 20);
    s.sheaf_exits(0, &run(&["--", "./prog", "{}"]));
    s.assert_answers("out.jsonl", 30);
    assert_eq!(s.executed(), 30);
}

#[test]
fn too_many_failures_stop_a_job_and_the_command_resumes() {
    let s = Sandbox::new();
    s.rows("rows.txt", 400);
    s.script(
        "prog",
        "#!/bin/sh\necho \"$1\" >> ledger\nsleep 0.02\ncase $1 in *5) exit 1 ;; esac\nprintf '%s!' \"$1\"\n",
    );
    let args = |most| run(&["--batch", "2", "--depth", "2", "--max-failures", most, "--", "./prog", "{}"]);
    let said = text(&s.sheaf_exits(3, &args("5")));
    assert!(said.contains("failures"), "{said}");
    let first = s.executed();
    assert!(first < 400, "it did not stop: {first} executed\n{said}");
    s.sheaf_exits(3, &args("100"));
    let rows = s.output("out.jsonl");
    assert_eq!(rows.len(), 400);
    assert_eq!(rows.values().filter(|row| row["status"] == "failed").count(), 40);
    assert!(s.executions().values().all(|&times| times == 1), "nothing that finished is done again");
}

#[test]
fn a_rate_bounds_how_many_rows_start() {
    let s = Sandbox::new();
    s.rows("rows.txt", 12);
    s.script("prog", "#!/bin/sh\ndate +%s%N >> starts\n");
    s.sheaf_exits(0, &run(&["--rate", "10/s", "--", "./prog", "{}"]));
    let starts: Vec<u64> = s.read("starts").lines().filter_map(|line| line.parse().ok()).collect();
    assert_eq!(starts.len(), 12);
    let (first, last) = (starts.iter().min().copied(), starts.iter().max().copied());
    let ms = last.zip(first).map_or(0, |(last, first)| (last - first) / 1_000_000);
    assert!(ms >= 500, "12 rows at 10/s started within {ms} ms");
}

#[test]
fn an_attempt_that_takes_too_long_is_a_timeout() {
    let s = Sandbox::new();
    s.write("rows.txt", "slow\nquick\n");
    s.script("prog", "#!/bin/sh\necho \"$1\" >> ledger\n[ $1 = slow ] && exec sleep 600\nprintf '%s!' \"$1\"\n");
    s.sheaf_exits(3, &run(&["--timeout", "300ms", "--retries", "1", "--", "./prog", "{}"]));
    let rows = s.output("out.jsonl");
    assert_eq!(rows[&1]["error"]["class"], "timeout", "{}", rows[&1]);
    assert_eq!(rows[&2]["output"], "quick!");
    assert_eq!(s.executions()["slow"], 2, "one attempt and one retry");
}

#[test]
fn retry_exit_says_which_codes_may_pass() {
    let s = Sandbox::new();
    s.rows("rows.txt", 3);
    // Fails the first time, with the code that stands in the row's own name.
    s.write("rows.txt", "75\n9\n4\n");
    s.script(
        "prog",
        "#!/bin/sh\necho \"$1\" >> ledger\n[ -e seen-$1 ] && { printf fine; exit 0; }\n: > seen-$1\nexit $1\n",
    );
    s.sheaf_exits(3, &run(&["--retry-exit", "9,75", "--", "./prog", "{}"]));
    let rows = s.output("out.jsonl");
    assert_eq!((&rows[&1]["output"], &rows[&2]["output"]), (&"fine".into(), &"fine".into()));
    assert_eq!(rows[&3]["error"]["class"], "rejected");
    assert_eq!(s.executions(), [("75", 2), ("9", 2), ("4", 1)].map(|(code, n)| (code.to_owned(), n)).into());
}

#[test]
fn a_weight_of_nothing_is_refused() {
    let s = Sandbox::new();
    s.rows("rows.txt", 1);
    s.sheaf_exits(2, &run(&["--weight", "0", "--", "echo", "{}"]));
    s.sheaf_exits(0, &run(&["--weight", "1", "--timeout", "60s", "--", "echo", "{}"]));
}

#[test]
fn no_retries_means_one_attempt() {
    let s = Sandbox::new();
    s.rows("rows.txt", 1);
    s.script("prog", "#!/bin/sh\necho \"$1\" >> ledger\nexit 75\n");
    s.sheaf_exits(3, &run(&["--retries", "0", "--", "./prog", "{}"]));
    assert_eq!(s.executed(), 1);
}

#[test]
fn csv_in_and_out() {
    let s = Sandbox::new();
    s.write("rows.csv", "id,text\n7,\"one, two\"\n9,\"a \"\"b\"\"\nc\"\n");
    let args = ["run", "--in", "rows.csv", "--column", "text", "--out", "out.csv", "--stdin", "--", "cat"];
    s.sheaf_exits(0, &args);
    let out = s.read("out.csv");
    assert!(out.contains("\"one, two\"") && out.contains("\"a \"\"b\"\"\nc\""), "{out}");
    s.sheaf_exits(0, &args);
    assert_eq!(s.read("out.csv"), out, "nothing changes when nothing is new");
}

#[test]
fn jsonl_with_a_column_and_an_id_follows_its_rows() {
    let s = Sandbox::new();
    s.ledger_program("0");
    s.write("rows.jsonl", "{\"key\":\"a\",\"text\":\"one\"}\n{\"key\":\"b\",\"text\":\"two\"}\n");
    let args =
        ["run", "--in", "rows.jsonl", "--column", "text", "--id", "key", "--out", "out.jsonl", "--", "./prog", "{}"];
    s.sheaf_exits(0, &args);
    s.write(
        "rows.jsonl",
        "{\"key\":\"b\",\"text\":\"two\"}\n{\"key\":\"c\",\"text\":\"three\"}\n{\"key\":\"a\",\"text\":\"uno\"}\n",
    );
    s.sheaf_exits(0, &args);
    let rows = s.output("out.jsonl");
    let answers: Vec<_> = rows.values().map(|row| (row["id"].as_str(), row["output"].as_str())).collect();
    assert_eq!(answers, [(Some("b"), Some("two!")), (Some("c"), Some("three!")), (Some("a"), Some("uno!"))]);
    assert_eq!(s.executed(), 4, "a row with a new text is executed, a row that moved is not");
}

#[test]
fn rows_come_from_standard_input() {
    let s = Sandbox::new();
    s.rows("rows.txt", 20);
    s.ledger_program("0");
    let args = ["run", "--in", "-", "--out", "out.jsonl", "--", "./prog", "{}"];
    let feed = || {
        let mut command = s.command(&args);
        command.stdin(std::fs::File::open(s.path("rows.txt")).expect("rows")).output().expect("sheaf starts")
    };
    assert_eq!(feed().status.code(), Some(0));
    s.assert_answers("out.jsonl", 20);
    let again = feed();
    assert_eq!(again.status.code(), Some(0), "{}", text(&again));
    s.assert_answers("out.jsonl", 20);
    assert_eq!(s.executed(), 20);
}

#[test]
fn a_program_over_its_memory_fails_its_row_only() {
    // The limit is set just after the program has begun (docs/GUIDE.md), so this one is greedy only after a moment.
    let s = Sandbox::new();
    s.write("rows.txt", "greedy\nmodest\n");
    s.script(
        "prog",
        "#!/bin/sh\n[ $1 = greedy ] && sleep 0.5 && exec dd if=/dev/zero of=/dev/null bs=400M count=1\nprintf '%s!' \"$1\"\n",
    );
    s.sheaf_exits(3, &run(&["--memory", "64MiB", "--", "./prog", "{}"]));
    let rows = s.output("out.jsonl");
    assert_eq!(rows[&1]["status"], "failed", "{}", rows[&1]);
    assert_eq!(rows[&2]["output"], "modest!");
}

#[test]
fn standard_input_is_kept_until_the_job_is_done_and_never_taken_for_empty() {
    let s = Sandbox::new();
    let feed = |rows: &str, code: i32, extra: &[&str]| {
        let args = [&["run", "--in", "-", "--out", "out.jsonl"][..], extra, &["--", "echo", "{}"]].concat();
        let input = std::fs::File::open(s.write("input", rows)).expect("own file");
        let ended = s.command(&args).stdin(input).output().expect("sheaf starts");
        assert_eq!(ended.status.code(), Some(code), "{}", text(&ended));
    };
    feed("one\ntwo\nthree\n", 0, &["--limit", "1"]);
    feed("", 0, &[]);
    assert_eq!(s.output("out.jsonl").len(), 3);
    assert!(!s.path("out.jsonl.sheaf/stdin").exists());
    feed("", 2, &[]);
    assert_eq!(s.output("out.jsonl").len(), 3);
    feed("two\n", 0, &[]);
    assert_eq!(s.output("out.jsonl").len(), 1);
}

#[test]
fn an_exit_code_that_no_program_can_end_with_is_refused() {
    let s = Sandbox::new();
    s.rows("rows.txt", 1);
    for codes in ["0", "256", "75,999"] {
        s.sheaf_exits(2, &run(&["--retry-exit", codes, "--", "echo", "{}"]));
    }
}
