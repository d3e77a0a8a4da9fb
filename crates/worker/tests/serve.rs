//! Long-lived programs: many tasks in one process, and what becomes of them when it misbehaves.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, reason = "a test: its panic is its message")]

mod common;

use common::{Bench, alive, assignment, config, eventually, failed, mark, ok};
use sheaf_task::{Assignment, BODY_BYTES_MAX, Class, Outcome};
use sheaf_worker::Mode;

const SERVE: Mode = Mode::Serve { processes: 1 };

/// Reads lines; `$id` and `$body` are those of the line. Bodies in these tests hold nothing that JSON escapes.
fn server(script: &str) -> Bench {
    let script = format!(
        r#"while IFS= read -r line; do
             id=${{line#*'"id":'}}; id=${{id%%,*}}; body=${{line#*'"body":"'}}; body=${{body%'"}}'}}
             {script}
           done"#
    );
    Bench::new(config(SERVE, &["sh", "-c", &script]))
}

const ANSWER: &str = r#"printf '{"id":%s,"output":"%s"}\n' "$id" "$body""#;

fn with_timeout(mut assignment: Assignment, ms: u64) -> Assignment {
    assignment.timeout_ms = ms;
    assignment
}

#[test]
fn many_in_flight_and_answers_in_any_order() {
    // It keeps what it reads and answers backwards, so it must have all of it before the first answer.
    let script = r#"all="$id:$body $all"; n=$((n + 1))
        [ $n = 50 ] && for each in $all; do printf '{"id":%s,"output":"got %s"}\n' "${each%%:*}" "${each#*:}"; done"#;
    let mut bench = server(script);
    (0..50).for_each(|n| bench.start(assignment(n, n.to_string())));
    for (n, ended) in bench.ends(50).into_iter().enumerate() {
        assert_eq!(ok(ended.outcome), format!("got {n}"));
    }
    bench.close();
}

#[test]
fn errors_of_a_row_are_final_unless_it_says_otherwise() {
    let mut bench = server(r#"printf '{"id":%s,"error":"no","retry":%s}\n' "$id" "$body""#);
    assert_eq!(failed(bench.run(assignment(1, "false")), Class::Rejected).message, "no");
    failed(bench.run(assignment(2, "true")), Class::Error);
}

#[test]
fn what_json_lines_cannot_carry_is_rejected() {
    let mut bench = server(ANSWER);
    failed(bench.run(assignment(1, &b"\xff"[..])), Class::Rejected);
    let big = "x".repeat(BODY_BYTES_MAX);
    assert_eq!(
        ok(Bench::new(config(SERVE, &["sed", "-u", "s/\"body\"/\"output\"/"])).run(assignment(1, big.clone()))),
        big
    );
}

#[test]
fn its_death_makes_suspects_of_all_that_it_had_and_it_is_started_again() {
    let mut bench =
        server(&format!(r#"case $body in die) echo last words >&2; kill -9 $$;; wait) ;; *) {ANSWER};; esac"#));
    assert_eq!(ok(bench.run(assignment(1, "a"))), "a");
    bench.start(assignment(2, "wait"));
    bench.start(assignment(3, "die"));
    for ended in bench.ends(2) {
        let failure = failed(ended.outcome, Class::Crashed);
        assert_eq!((failure.evidence.signal, &failure.evidence.stderr[..]), (Some(9), &b"last words\n"[..]));
    }
    assert_eq!(ok(bench.run(assignment(4, "b"))), "b");
}

/// Tasks of a keeper that died were handed to the next one, and so for ever: a program that kills what keeps it was never
/// given up.
#[test]
fn one_that_kills_its_keeper_is_a_suspect() {
    let mut bench = server(&format!(r#"case $body in kill) kill -9 $PPID; sleep 1000;; *) {ANSWER};; esac"#));
    for n in 1..3 {
        failed(bench.run(assignment(n, "kill")), Class::Crashed);
    }
    assert_eq!(ok(bench.run(assignment(3, "b"))), "b");
}

#[test]
fn answers_given_before_it_died_count() {
    let mut bench = server(&format!(r#"{ANSWER}; [ $body = last ] && exit 0"#));
    for n in 0..5 {
        assert_eq!(ok(bench.run(assignment(n, "last"))), "last");
    }
}

#[test]
fn a_time_out_kills_it_and_the_others_are_done_by_the_next() {
    let dir = tempfile::tempdir().unwrap();
    let flag = dir.path().join("second-life");
    let script = format!(
        "if [ -e {flag} ]; then {ANSWER}; else case $body in slow) touch {flag}; sleep 1000;; esac; fi",
        flag = flag.display()
    );
    let mut bench = server(&script);
    bench.start(assignment(1, "a"));
    bench.start(with_timeout(assignment(2, "slow"), 300));
    bench.start(assignment(3, "b"));
    let ends = bench.ends(3);
    assert_eq!(ok(ends[0].outcome.clone()), "a");
    failed(ends[1].outcome.clone(), Class::Timeout);
    assert_eq!(ok(ends[2].outcome.clone()), "b");
}

#[test]
fn a_cancelled_task_that_has_it_alone_ends_it_another_does_not() {
    let mark = mark("serve-cancel");
    let mut bench = server(&format!("case $body in hold) ;; *) {ANSWER};; esac; : {mark}"));
    bench.start(assignment(1, "hold"));
    bench.start(assignment(2, "hold"));
    assert_eq!(ok(bench.run(assignment(3, "x"))), "x");
    let first = alive(&mark);
    bench.kill(1);
    failed(bench.ends(1).remove(0).outcome, Class::Cancelled);
    assert_eq!(ok(bench.run(assignment(4, "y"))), "y");
    assert_eq!(alive(&mark), first);
    bench.kill(2);
    failed(bench.ends(1).remove(0).outcome, Class::Cancelled);
    eventually("it is gone", || alive(&mark).is_empty());
    assert_eq!(ok(bench.run(assignment(5, "z"))), "z");
}

#[test]
fn an_answer_that_is_none_is_garbage_and_named() {
    let mut bench = server(&format!(
        r#"case $body in bad) echo "{{\"id\":$id,\"output\":NaN}}";; none) echo "{{\"id\":$id}}";; *) {ANSWER};; esac"#
    ));
    bench.start(assignment(1, "bad"));
    bench.start(assignment(2, "fine"));
    bench.start(assignment(3, "none"));
    let ends = bench.ends(3);
    failed(ends[0].outcome.clone(), Class::Garbage);
    assert_eq!(ok(ends[1].outcome.clone()), "fine");
    failed(ends[2].outcome.clone(), Class::Garbage);
}

#[test]
fn an_unknown_number_or_endless_chatter_puts_all_in_doubt() {
    for script in [
        r#"echo '{"id":999,"output":"whose?"}'"#,
        r#"echo '{"output":"whose?"}'"#,
        "i=0; while [ $i -lt 20 ]; do echo '<html>'; i=$((i + 1)); done",
        "head -c 20000000 /dev/zero",
    ] {
        let mut bench = server(script);
        bench.start(assignment(1, "a"));
        bench.start(assignment(2, "b"));
        for ended in bench.ends(2) {
            failed(ended.outcome, Class::Garbage);
        }
    }
}

#[test]
fn a_greeting_is_no_garbage() {
    let mut bench = server(&format!("echo; echo loading model; {ANSWER}"));
    for n in 0..40 {
        assert_eq!(ok(bench.run(assignment(n, "x"))), "x");
    }
}

#[test]
fn an_answer_too_long_to_travel_is_rejected_the_rest_goes_on() {
    let mut bench = server(&format!(
        r#"case $body in big) printf '{{"id":%s,"output":"' $id; head -c 1200000 /dev/zero | tr '\0' x; echo '"}}';;
           huge) printf '{{"id":%s,"output":"' $id; head -c 100000000 /dev/zero | tr '\0' x; echo '"}}';; *) {ANSWER};; esac"#
    ));
    failed(bench.run(assignment(1, "big")), Class::Rejected);
    failed(bench.run(assignment(2, "huge")), Class::Rejected);
    assert_eq!(ok(bench.run(assignment(3, "x"))), "x");
}

#[test]
fn a_task_that_must_be_alone_is() {
    // Each answer says how many lines had been read without an answer before this one.
    let script = r#"case $body in hold) held=$id;; free) printf '{"id":%s,"output":"held"}\n{"id":%s,"output":"free"}\n' $held $id; held=;;
        *) printf '{"id":%s,"output":"%s"}\n' $id "${held:-alone}";; esac"#;
    let mut bench = server(script);
    bench.start(assignment(1, "hold"));
    bench.start(assignment(2, "free"));
    let mut suspect = assignment(3, "suspect");
    suspect.alone = true;
    bench.start(suspect);
    bench.start(assignment(4, "after"));
    let bodies: Vec<_> = bench.ends(4).into_iter().map(|ended| ok(ended.outcome)).collect();
    assert_eq!(bodies, ["held", "free", "alone", "alone"]);
}

#[test]
fn a_program_that_cannot_be_started_fails_its_tasks_as_errors() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("program");
    std::fs::copy("/bin/cat", &path).unwrap();
    let mut bench = Bench::new(config(SERVE, &[path.to_str().unwrap()]));
    std::fs::remove_file(&path).unwrap();
    failed(bench.run(assignment(1, "x")), Class::Error);
}

#[test]
fn a_pool_shares_the_work() {
    let mut bench = Bench::new(config(
        Mode::Serve { processes: 3 },
        &[
            "sh",
            "-c",
            r#"while IFS= read -r line; do id=${line#*'"id":'}; echo "{\"id\":${id%%,*},\"output\":$$}"; done"#,
        ],
    ));
    (0..3).for_each(|n| bench.start(assignment(n, "x")));
    let mut pids: Vec<_> = bench.ends(3).into_iter().map(|ended| ok(ended.outcome)).collect();
    pids.sort();
    pids.dedup();
    assert_eq!(pids.len(), 3);
    assert!(matches!(bench.run(assignment(9, "x")), Outcome::Ok(_)));
    bench.close();
}

#[test]
fn one_that_cannot_be_talked_to_any_more_is_ended_and_its_tasks_are_suspects() {
    for script in ["exec >&-; sleep 1000", "exec <&-; sleep 1000"] {
        let mut bench = server(script);
        let ends = if script.contains('<') {
            // The second cannot be written.
            bench.start(assignment(1, "a"));
            bench.start(assignment(2, vec![b'x'; 500_000]));
            2
        } else {
            bench.start(assignment(1, "a"));
            1
        };
        for ended in bench.ends(ends) {
            assert_eq!(failed(ended.outcome, Class::Crashed).evidence.signal, Some(9));
        }
    }
}
