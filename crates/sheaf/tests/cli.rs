//! The command line as users meet it: help, completions, flags of `run`, and the commands of operators on a stopped router.

#![allow(clippy::expect_used, reason = "a test fails by panicking")]

mod common;

use common::{Sandbox, text, wait_until};
use serde_json::Value;

/// `sheaf run` of rows.txt into out.jsonl.
fn run<'a>(extra: &[&'a str]) -> Vec<&'a str> {
    [&["run", "--in", "rows.txt", "--out", "out.jsonl"][..], extra].concat()
}

fn stdout(output: &std::process::Output) -> String {
    String::from_utf8(output.stdout.clone()).expect("text")
}

/// A sandbox in which a job of four rows has ended, the third failed, and its key.
fn one_failed() -> (Sandbox, String) {
    let s = Sandbox::new();
    s.rows("rows.txt", 4);
    s.script("prog", "#!/bin/sh\n[ $1 = row-3 ] && { echo 'not that one' >&2; exit 4; }\nprintf '%s!' \"$1\"\n");
    s.sheaf_exits(3, &run(&["--", "./prog", "{}"]));
    let key = s.output("out.jsonl")[&3]["key"].as_str().expect("a key").to_owned();
    (s, key)
}

#[test]
fn help_shows_examples_and_version_a_version() {
    let s = Sandbox::new();
    let help = stdout(&s.sheaf_exits(0, &["--help"]));
    let (examples, commands) = (help.find("Examples:"), help.find("Commands:"));
    assert!(examples.is_some() && examples < commands, "examples come first:\n{help}");
    for command in ["run", "up", "worker", "failures", "retry", "doctor"] {
        let page = stdout(&s.sheaf_exits(0, &[command, "--help"]));
        let (example, usage) = (page.find("Example"), page.find("Usage:"));
        assert!(example.is_some() && example < usage, "examples of {command} come first:\n{page}");
    }
    let version = stdout(&s.sheaf_exits(0, &["--version"]));
    assert_eq!(version, format!("sheaf {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn completions_are_scripts_of_their_shells() {
    let s = Sandbox::new();
    for (shell, mark) in [("bash", "complete "), ("zsh", "#compdef sheaf"), ("fish", "complete -c sheaf")] {
        let script = stdout(&s.sheaf_exits(0, &["completions", shell]));
        assert!(script.contains(mark) && script.contains("max-failures"), "{shell}");
    }
}

#[test]
fn usage_errors_exit_2() {
    let s = Sandbox::new();
    s.rows("rows.txt", 1);
    for args in [
        &["--tea"][..],
        &["tea"],
        &["run", "--tea"],
        &["run", "--in", "rows.txt"],
        &run(&["--rate", "fast", "--", "echo", "{}"]),
        &run(&["--timeout", "5 parsecs", "--", "echo", "{}"]),
        &run(&["--chaos", "drop=2", "--", "echo", "{}"]),
        &run(&["--stdin", "--serve", "--", "cat"]),
        &run(&["--batch", "0", "--", "echo", "{}"]),
        &run(&["--table", "labels", "--", "echo", "{}"]),
        &["task", "info", "nonsense"],
    ] {
        s.sheaf_exits(2, args);
    }
    let said = text(&s.sheaf_exits(2, &run(&["echo", "{}"])));
    assert!(said.contains("-- echo {}"), "{said}");
    assert!(!s.path("out.jsonl").exists() && !s.path(".sheaf").exists(), "a refusal leaves nothing behind");
}

#[test]
fn a_machine_reads_the_audit_as_one_line() {
    let s = Sandbox::new();
    s.rows("rows.txt", 3);
    let output = s.sheaf_exits(0, &run(&["--json", "--", "echo", "{}"]));
    let said = stdout(&output);
    assert_eq!(said.lines().count(), 1, "{said}");
    let line: Value = serde_json::from_str(&said).expect("a line of JSON");
    assert_eq!(line["audit"]["submitted"], 3);
    assert_eq!(line["audit"]["ok"], 3);
    assert_eq!(line["audit"]["lost"], 0);
    assert_eq!(line["exit"], 0);
    for line in String::from_utf8_lossy(&output.stderr).lines() {
        assert!(serde_json::from_str::<Value>(line).is_ok(), "no JSON: {line}");
    }
}

#[test]
fn no_color_means_no_color() {
    let s = Sandbox::new();
    s.write("rows.csv", "id,t\n1,a\n1,b\n");
    let warned = s.sheaf_exits(
        3,
        &[
            "run", "--in", "rows.csv", "--id", "id", "--column", "t", "--out", "o.db", "--table", "t", "--", "echo",
            "{}",
        ],
    );
    assert!(text(&warned).contains("WARN") && !text(&warned).contains('\u{1b}'), "{}", text(&warned));
    for args in [&["--help"][..], &["run", "--tea"]] {
        let output = s.command(args).env("NO_COLOR", "1").env("CLICOLOR_FORCE", "1").output().expect("sheaf starts");
        assert!(!text(&output).contains('\u{1b}'), "{args:?}: {}", text(&output));
    }
}

#[test]
fn doctor_finds_a_flipped_byte_and_nothing_in_a_good_directory() {
    let s = Sandbox::new();
    // More than one segment's worth, so that a part is sealed.
    s.write("rows.txt", (0..300).map(|i| format!("{i}{}\n", "x".repeat(200_000))).collect::<String>());
    s.sheaf_exits(0, &run(&["--", "builtin:echo"]));
    let good = stdout(&s.sheaf_exits(0, &["doctor"]));
    assert!(good.contains("every record is whole"), "{good}");
    let sealed = sealed_segment(&s);
    let mut bytes = std::fs::read(&sealed).expect("a segment");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&sealed, bytes).expect("own file");
    let bad = stdout(&s.sheaf_exits(1, &["doctor"]));
    let name = sealed.file_name().expect("a file").to_string_lossy().into_owned();
    assert!(bad.contains("damaged: ") && bad.contains(&name), "{name} is not named:\n{bad}");
    assert!(text(&s.sheaf_exits(2, &["doctor", "--data", "nowhere"])).contains("nowhere"));
}

/// The oldest segment file of the journal.
fn sealed_segment(s: &Sandbox) -> std::path::PathBuf {
    let mut found: Vec<_> =
        walk(&s.path(".sheaf")).into_iter().filter(|path| path.to_string_lossy().contains(".seg")).collect();
    found.sort();
    assert!(found.len() > 1, "{:?}", walk(&s.path(".sheaf")));
    found.remove(0)
}

fn walk(dir: &std::path::Path) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(dir).expect("a directory").map(|entry| entry.expect("an entry").path());
    entries.flat_map(|path| if path.is_dir() { walk(&path) } else { vec![path] }).collect()
}

#[test]
fn a_reader_that_goes_away_has_seen_enough() {
    let s = Sandbox::new();
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    let output = s.command(&["doctor", "--limits"]).stdout(writer).output().expect("it starts");
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    assert!(output.stderr.is_empty(), "{}", text(&output));
}

#[test]
fn doctor_prints_limits() {
    let s = Sandbox::new();
    let said = stdout(&s.sheaf_exits(0, &["doctor", "--limits"]));
    assert!(said.lines().count() >= 10, "{said}");
    assert!(said.lines().all(|line| line.split_whitespace().count() >= 3), "name, value, what happens:\n{said}");
}

#[test]
fn failures_are_listed_and_retried() {
    let (s, key) = one_failed();
    let said = stdout(&s.sheaf_exits(0, &["failures"]));
    assert!(said.contains(&key) && said.contains("row-3") && said.contains("not that one"), "{said}");
    let line: Value =
        serde_json::from_str(&stdout(&s.sheaf_exits(0, &["failures", "last", "--json"]))).expect("one line");
    assert_eq!(line["error"]["evidence"]["exit_code"], 4);
    assert!(text(&s.sheaf_exits(2, &["retry", "last", "--key", &"0".repeat(32)])).contains("no such failed rows"));
    s.sheaf_exits(0, &["retry", "last", "--key", &key]);
    assert!(text(&s.sheaf_exits(0, &["failures"])).contains("no failures"));
}

#[test]
fn jobs_of_a_stopped_router() {
    let (s, key) = one_failed();
    let list = stdout(&s.sheaf_exits(0, &["job", "ls"]));
    assert!(list.contains("out.jsonl") && list.contains("done"), "{list}");
    let page = stdout(&s.sheaf_exits(0, &["job", "info"]));
    assert!(page.contains("submitted 4 = ok 3 + failed 1 + open 0"), "{page}");
    s.sheaf_exits(3, &["job", "wait", "out.jsonl"]);
    let job: Value = serde_json::from_str(&stdout(&s.sheaf_exits(0, &["job", "info", "--json"]))).expect("one line");
    let id = job["job"].as_str().expect("an id").to_owned();
    s.sheaf_exits(0, &["job", "info", &id[..8]]);
    assert!(text(&s.sheaf_exits(2, &["job", "info", "elsewhere"])).contains("there is no job elsewhere"));
    let task = stdout(&s.sheaf_exits(0, &["task", "info", &key]));
    assert!(task.contains("failed (rejected)"), "{task}");
    assert!(text(&s.sheaf_exits(2, &["task", "info", &"0".repeat(32)])).contains("knows no task"));
    // Open again, and with nobody there to do it: waiting would be for ever, cancelling is not.
    s.sheaf_exits(0, &["retry", "last"]);
    assert!(text(&s.sheaf_exits(2, &["job", "wait"])).contains("1 rows are open"));
    s.sheaf_exits(0, &["job", "cancel"]);
    let page = stdout(&s.sheaf_exits(0, &["job", "info"]));
    assert!(page.contains("cancelled") && page.contains("open 0"), "{page}");
}

#[test]
fn a_row_that_ran_again_is_counted_in_true_words() {
    let s = Sandbox::new();
    s.rows("rows.txt", 3);
    s.script("prog", "#!/bin/sh\n[ -e fixed ] || [ $1 != row-2 ] || exit 1\nprintf '%s!' \"$1\"\n");
    let args = run(&["--revision", "1", "--", "./prog", "{}"]);
    let said = text(&s.sheaf_exits(3, &args));
    assert!(said.contains("sheaf retry"), "{said}");
    s.write("fixed", "");
    s.sheaf_exits(0, &["retry", "last"]);
    let said = text(&s.sheaf_exits(0, &args));
    assert!(said.contains("resumed: 3 in the output, 1 of them failed") && said.contains("resumed 2"), "{said}");
    let page = stdout(&s.sheaf_exits(0, &["job", "info"]));
    assert!(page.contains("4 of 4 results") && page.contains("ran again"), "{page}");
    let key = s.output("out.jsonl")[&2]["key"].as_str().expect("a key").to_owned();
    let page = stdout(&s.sheaf_exits(0, &["task", "info", &key]));
    assert!(page.lines().all(|line| line.split_whitespace().count() > 1), "{page}");
    let said = stdout(&s.sheaf_exits(0, &["task", "explain", &key]));
    assert!(said.split_whitespace().count() > 3, "{said}");
}

#[test]
fn explain_says_that_no_worker_offers_the_service() {
    let s = Sandbox::new();
    s.rows("rows.txt", 1);
    s.script("prog", "#!/bin/sh\nexit 4\n");
    let (_router, addr) = s.router(&[]);
    let mut worker = s.start("worker", &["worker", "--join", &addr, "--data", "worker", "--", "./prog", "{}"]);
    s.sheaf_exits(3, &run(&["--join", &addr, "--service", "prog"]));
    let key = s.output("out.jsonl")[&1]["key"].as_str().expect("a key").to_owned();
    worker.signal("-TERM");
    worker.exits(0);
    s.sheaf_exits(0, &["retry", "last", "--join", &addr]);
    wait_until("the router knows that the worker left", || {
        let said = stdout(&s.sheaf_exits(0, &["task", "explain", &key, "--join", &addr]));
        said.contains("no worker offers `prog`") && said.contains("sheaf worker")
    });
}

#[test]
fn explain_of_an_open_task_says_that_no_router_runs() {
    let (s, key) = one_failed();
    s.sheaf_exits(0, &["retry", "last"]);
    let said = stdout(&s.sheaf_exits(0, &["task", "explain", &key]));
    assert!(said.contains(".sheaf") && !said.contains(" s more"), "{said}");
}

#[test]
fn a_directory_that_was_named_is_asked_and_no_other_router() {
    let s = Sandbox::new();
    for command in [&["job", "ls"][..], &["failures"], &["shutdown"]] {
        let said = text(&s.sheaf_exits(2, &[command, &["--data", "nowhere"]].concat()));
        assert!(said.contains("nowhere"), "{command:?} asked elsewhere: {said}");
    }
}
