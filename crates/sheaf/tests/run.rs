//! `sheaf run` in one process: the whole job, crashes, repeats, changed rows, bad input.

#![allow(clippy::expect_used, reason = "a test fails by panicking")]

mod common;

use common::{Sandbox, text, wait_until};

const RUN: [&str; 5] = ["run", "--in", "rows.txt", "--out", "out.jsonl"];

fn run<'a>(extra: &[&'a str]) -> Vec<&'a str> {
    let mut args = RUN.to_vec();
    args.extend(extra);
    args
}

#[test]
fn every_row_is_answered_once_and_failures_say_why() {
    let s = Sandbox::new();
    s.write("rows.txt", "good\nbad\nugly\n");
    s.script("prog", "#!/bin/sh\n[ $1 = bad ] && { echo 'no such code' >&2; exit 4; }\nprintf '%s' \"<$1>\"\n");
    let output = s.sheaf_exits(3, &run(&["--", "./prog", "{}"]));
    let said = text(&output);
    assert!(said.contains("submitted 3 = ok 2 + failed 1 + open 0"), "{said}");
    assert!(said.contains("lost 0") && said.contains("repeated 0"), "{said}");
    let rows = s.output("out.jsonl");
    assert_eq!(rows[&1]["output"], "<good>");
    assert_eq!(rows[&2]["status"], "failed");
    assert_eq!(rows[&2]["error"]["class"], "rejected");
    assert_eq!(rows[&2]["error"]["evidence"]["exit_code"], 4);
    assert_eq!(rows[&2]["error"]["evidence"]["stderr"], "no such code\n");
    assert_eq!(rows[&3]["output"], "<ugly>");
}

#[test]
fn kill_9_at_any_moment_then_the_same_command() {
    let s = Sandbox::new();
    s.rows("rows.txt", 60);
    s.ledger_program("0.02");
    let args = run(&["--batch", "2", "--depth", "2", "--", "./prog", "{}"]);
    for stop_at in [1, 15, 30, 45] {
        let mut process = s.start("run", &args);
        wait_until("some rows ran", || s.executed() >= stop_at);
        process.kill9();
    }
    let before = s.output_lines("out.jsonl");
    let output = s.sheaf_exits(0, &args);
    assert!(text(&output).contains("resumed: "), "{}", text(&output));
    s.assert_answers("out.jsonl", 60);
    // Each kill may cost what was not acknowledged: at most batch + depth.
    assert!(s.executed() <= 60 + 4 * 4, "{} executions of 60 rows", s.executed());
    assert!(before <= 60);
}

#[test]
fn equal_rows_are_samples_unless_shared() {
    let s = Sandbox::new();
    s.write("rows.txt", "same\nsame\nsame\n");
    s.ledger_program("0");
    s.sheaf_exits(0, &run(&["--", "./prog", "{}"]));
    assert_eq!(s.executed(), 3);
    assert_eq!(s.output("out.jsonl").len(), 3);
    s.sheaf_exits(
        0,
        &["run", "--in", "rows.txt", "--out", "shared.jsonl", "--revision", "other", "--share", "--", "./prog", "{}"],
    );
    assert_eq!(s.executed(), 4);
    assert_eq!(s.output("shared.jsonl").len(), 3);
}

#[test]
fn a_second_job_is_answered_from_the_journal() {
    let s = Sandbox::new();
    s.rows("rows.txt", 20);
    s.ledger_program("0");
    s.sheaf_exits(0, &run(&["--", "./prog", "{}"]));
    let again = |out: &str, extra: &[&str]| {
        let mut args = vec!["run", "--in", "rows.txt", "--out", out];
        args.extend(extra);
        args.extend(["--", "./prog", "{}"]);
        text(&s.sheaf_exits(0, &args))
    };
    let said = again("b.jsonl", &[]);
    assert_eq!(s.executed(), 20);
    assert!(said.contains("cached 20"), "{said}");
    s.assert_answers("b.jsonl", 20);
    again("c.jsonl", &["--fresh"]);
    assert_eq!(s.executed(), 40);
    again("d.jsonl", &["--revision", "2"]);
    assert_eq!(s.executed(), 60);
    s.ledger_program("0.00");
    again("e.jsonl", &[]);
    assert_eq!(s.executed(), 80, "an edited script is another revision");
}

#[test]
fn failed_rows_run_again_in_another_job_or_by_retry() {
    let s = Sandbox::new();
    s.rows("rows.txt", 3);
    s.script("prog", "#!/bin/sh\necho \"$1\" >> ledger\n[ -e fixed ] || exit 1\nprintf '%s!' \"$1\"\n");
    let args = run(&["--revision", "1", "--", "./prog", "{}"]);
    s.sheaf_exits(3, &args);
    s.sheaf_exits(3, &args);
    assert_eq!(s.executed(), 3, "a failure is final for the job that saw it");
    s.write("fixed", "");
    s.sheaf_exits(0, &["run", "--in", "rows.txt", "--out", "b.jsonl", "--revision", "1", "--", "./prog", "{}"]);
    assert_eq!(s.executed(), 6);
    s.sheaf_exits(0, &["retry", "out.jsonl"]);
    s.sheaf_exits(0, &args);
    s.assert_answers("out.jsonl", 3);
}

#[test]
fn rows_may_change_between_a_kill_and_the_repeat() {
    let s = Sandbox::new();
    s.rows("rows.txt", 40);
    s.ledger_program("0.02");
    let args = run(&["--batch", "2", "--depth", "2", "--", "./prog", "{}"]);
    let mut process = s.start("run", &args);
    wait_until("half ran", || s.executed() >= 20);
    process.kill9();
    let mut rows: Vec<String> = (1..=40).rev().map(|i| format!("row-{i}")).collect();
    rows.retain(|row| row != "row-5");
    rows[3] = "changed".to_owned();
    rows.insert(10, "inserted".to_owned());
    s.write("rows.txt", rows.join("\n") + "\n");
    s.sheaf_exits(0, &args);
    let output = s.output("out.jsonl");
    assert_eq!(output.len(), rows.len());
    for (at, row) in rows.iter().enumerate() {
        assert_eq!(output[&(at as u64 + 1)]["output"], format!("{row}!"));
    }
}

#[test]
fn another_program_on_the_same_output_is_refused() {
    let s = Sandbox::new();
    s.rows("rows.txt", 2);
    s.ledger_program("0");
    s.sheaf_exits(0, &run(&["--", "./prog", "{}"]));
    let refused = s.sheaf_exits(2, &run(&["--", "cat", "{}"]));
    assert!(text(&refused).contains("another job"), "{}", text(&refused));
    s.assert_answers("out.jsonl", 2);
}

#[test]
fn a_task_that_kills_its_program_fails_after_three() {
    let s = Sandbox::new();
    s.rows("rows.txt", 20);
    s.script("prog", "#!/bin/sh\necho \"$1\" >> ledger\n[ $1 = row-7 ] && kill -9 $$\nprintf '%s!' \"$1\"\n");
    s.sheaf_exits(3, &run(&["--retries", "10", "--", "./prog", "{}"]));
    let rows = s.output("out.jsonl");
    assert_eq!(rows.len(), 20);
    assert_eq!(rows.values().filter(|row| row["status"] == "ok").count(), 19);
    assert_eq!(rows[&7]["error"]["class"], "crashed");
    assert_eq!(rows[&7]["error"]["evidence"]["signal"], 9);
    assert_eq!(s.executions()["row-7"], 3);
}

#[test]
fn a_long_lived_program_that_dies_takes_no_other_row_with_it() {
    let s = Sandbox::new();
    s.rows("rows.txt", 20);
    s.script(
        "serve",
        "#!/bin/sh\nwhile read -r line; do\n  id=$(printf '%s' \"$line\" | sed 's/.*\"id\":\\([^,}]*\\).*/\\1/')\n  \
         case $line in *row-7\\\"*) kill -9 $$ ;; esac\n  printf '{\"id\":%s,\"output\":\"fine\"}\\n' \"$id\"\ndone\n",
    );
    s.sheaf_exits(3, &run(&["--serve", "--batch", "4", "--retries", "10", "--", "./serve"]));
    let rows = s.output("out.jsonl");
    assert_eq!(rows.len(), 20);
    assert_eq!(rows[&7]["error"]["class"], "crashed");
    assert_eq!(rows.values().filter(|row| row["output"] == "fine").count(), 19);
}

#[test]
fn sqlite_in_and_out_killed_and_repeated() {
    let s = Sandbox::new();
    let db = rusqlite::Connection::open(s.path("db.sqlite")).unwrap();
    db.execute_batch("create table reviews (id integer primary key, text text);").unwrap();
    for i in 1..=100 {
        db.execute("insert into reviews values (?1, ?2)", (i, format!("row-{i}"))).unwrap();
    }
    s.ledger_program("0.01");
    let args = [
        "run",
        "--in",
        "db.sqlite",
        "--query",
        "select id, text from reviews",
        "--out",
        "db.sqlite",
        "--table",
        "labels",
        "--batch",
        "2",
        "--depth",
        "2",
        "--",
        "./prog",
        "{}",
    ];
    for round in 1..=20 {
        let mut process = s.start("run", &args);
        wait_until("a few rows ran", || s.executed() >= round * 4);
        process.kill9();
    }
    s.sheaf_exits(0, &args);
    let (rows, ids, right): (i64, i64, i64) = db
        .query_row("select count(*), count(distinct id), sum(output = 'row-' || id || '!') from labels", [], |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?))
        })
        .unwrap();
    assert_eq!((rows, ids, right), (100, 100, 100));
}

#[test]
fn ctrl_c_drains_and_the_same_command_resumes() {
    let s = Sandbox::new();
    s.rows("rows.txt", 40);
    s.ledger_program("0.05");
    let args = run(&["--batch", "2", "--depth", "2", "--", "./prog", "{}"]);
    let mut process = s.start("run", &args);
    wait_until("some rows ran", || s.executed() >= 5);
    process.signal("-INT");
    process.exits(130);
    assert!(s.executed() < 40);
    let in_sink = format!("= ok {} + failed 0", s.output("out.jsonl").len());
    assert!(process.log().contains(&in_sink), "{in_sink}, {} ran\n{}", s.executed(), process.log());
    s.sheaf_exits(0, &args);
    s.assert_answers("out.jsonl", 40);
    assert_eq!(s.executed(), 40, "what ran when Ctrl-C came was finished, not run again");
}

#[test]
fn ordered_output_is_in_the_order_of_the_rows() {
    let s = Sandbox::new();
    s.rows("rows.txt", 30);
    s.script("prog", "#!/bin/sh\n[ $1 = row-1 ] && sleep 0.3\nprintf '%s!' \"$1\"\n");
    s.sheaf_exits(0, &run(&["--ordered", "--batch", "4", "--", "./prog", "{}"]));
    let text = s.read("out.jsonl");
    let order: Vec<u64> =
        text.lines().map(|l| serde_json::from_str::<serde_json::Value>(l).unwrap()["row"].as_u64().unwrap()).collect();
    assert_eq!(order, (1..=30).collect::<Vec<_>>());
}

#[test]
fn chaos_changes_nothing() {
    let s = Sandbox::new();
    s.rows("rows.txt", 200);
    s.ledger_program("0");
    s.sheaf_exits(0, &run(&["--chaos", "drop=0.1,dup=0.05,reorder=0.1", "--batch", "4", "--", "./prog", "{}"]));
    s.assert_answers("out.jsonl", 200);
    assert_eq!(s.executed(), 200);
}

#[test]
fn ctrl_c_is_answered_while_standard_input_is_read() {
    let s = Sandbox::new();
    let args = ["run", "--in", "-", "--out", "out.jsonl", "--", "echo", "{}"];
    let mut child = s.command(&args).stdin(std::process::Stdio::piped()).spawn().expect("sheaf starts");
    wait_until("it reads", || s.path("out.jsonl.sheaf/stdin.new").exists());
    let kill = std::process::Command::new("kill").args(["-INT", &child.id().to_string()]).status();
    assert!(kill.expect("kill exists").success());
    // Its input stays open until here.
    assert_eq!(child.wait().expect("own child").code(), Some(130));
}
