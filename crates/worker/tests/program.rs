//! One process an attempt, with real programs: what each end means, and that nothing is left behind.
//!
//! Needs `sh`, `cat` and friends, as every Unix has them; `/proc` for what looks at other processes.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, reason = "a test: its panic is its message")]

mod common;

use std::time::Duration;

use common::{Bench, alive, assignment, config, eventually, failed, fence, mark, ok};
use sheaf_task::{BODY_BYTES_MAX, Class, STDERR_TAIL_MAX};
use sheaf_worker::Mode::{Argument, Stdin};

#[test]
fn output_is_kept_byte_for_byte() {
    let mut argument = Bench::new(config(Argument, &["printf", "%s|", "{}", "a{}b{}"]));
    assert_eq!(ok(argument.run(assignment(1, &b"x \xff\n"[..]))), &b"x \xff\n|ax \xff\nbx \xff\n|"[..]);
    assert_eq!(ok(argument.run(assignment(2, ""))), "|ab|");
    let mut stdin = Bench::new(config(Stdin, &["cat"]));
    let body: Vec<u8> = (0..BODY_BYTES_MAX).map(|n| (n * 7) as u8).collect();
    assert_eq!(ok(stdin.run(assignment(1, body.clone()))), body);
    assert_eq!(ok(stdin.run(assignment(2, ""))), "");
}

#[test]
fn output_is_whole_whether_a_pipe_holds_it_or_not() {
    let mut bench = Bench::sh(Argument, "head -c {} /dev/zero; head -c {} /dev/zero >&2");
    for len in [1, 65_536, 65_537, 300_000, BODY_BYTES_MAX] {
        assert_eq!(ok(bench.run(assignment(len as u32, len.to_string()))).len(), len);
    }
}

#[test]
fn rows_that_fill_the_socket_of_the_keeper_all_get_their_programs() {
    let mut bench = Bench::new(config(Argument, &["sh", "-c", "printf %s \"$1\" | wc -c", "sh", "{}"]));
    let len = |n: u32| 100_000 + n as usize;
    (0..40).for_each(|n| bench.start(assignment(n, vec![b'x'; len(n)])));
    // Behind all of it: one of them is to be killed.
    bench.start(assignment(40, vec![b'x'; len(40)]));
    bench.kill(40);
    for (n, ended) in bench.ends(41).into_iter().enumerate().take(40) {
        assert_eq!(ok(ended.outcome), format!("{}\n", len(n as u32)));
    }
}

#[test]
fn each_end_has_its_class() {
    let mut bench = Bench::sh(Argument, "echo out; echo why >&2; {}");
    let rejected = failed(bench.run(assignment(1, "exit 3")), Class::Rejected);
    assert_eq!((rejected.evidence.exit_code, &rejected.evidence.stderr[..]), (Some(3), &b"why\n"[..]));
    assert_eq!(failed(bench.run(assignment(2, "exit 75")), Class::Error).evidence.exit_code, Some(75));
    assert_eq!(failed(bench.run(assignment(3, "kill -SEGV $$")), Class::Crashed).evidence.signal, Some(11));
    assert_eq!(ok(bench.run(assignment(4, "exit 0"))), "out\n");
    let mut retrying = config(Argument, &["sh", "-c", "exit {}"]);
    retrying.retry_exit = vec![3];
    let mut bench = Bench::new(retrying);
    failed(bench.run(assignment(1, "3")), Class::Error);
    failed(bench.run(assignment(2, "75")), Class::Rejected);
}

#[test]
fn rows_that_no_argument_can_hold_are_rejected() {
    let mut bench = Bench::new(config(Argument, &["true", "{}"]));
    failed(bench.run(assignment(1, "a\0b")), Class::Rejected);
    failed(bench.run(assignment(2, vec![b'x'; BODY_BYTES_MAX])), Class::Rejected);
    assert_eq!(ok(bench.run(assignment(3, "fine"))), "");
}

#[test]
fn a_program_that_goes_away_in_mid_job_is_a_passing_error() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("program");
    std::fs::copy("/bin/cat", &path).unwrap();
    let mut bench = Bench::new(config(Stdin, &[path.to_str().unwrap()]));
    assert_eq!(ok(bench.run(assignment(1, "here"))), "here");
    std::fs::remove_file(&path).unwrap();
    failed(bench.run(assignment(2, "gone")), Class::Error);
}

#[test]
fn a_hundred_megabytes_cost_a_rejection_and_little_memory() {
    let mut bench = Bench::sh(Argument, "{} head -c 100000000 /dev/zero; sleep 1000");
    let before = peak_kib();
    failed(bench.run(assignment(1, "")), Class::Rejected);
    assert!(peak_kib() < before + 16 * 1024, "{before} KiB, then {}", peak_kib());
    let mut bench = Bench::sh(Argument, "{} head -c 100000000 /dev/zero >&2; echo end >&2; exit 1");
    let stderr = failed(bench.run(assignment(1, "")), Class::Rejected).evidence.stderr;
    assert_eq!(stderr.len(), STDERR_TAIL_MAX);
    assert!(stderr.ends_with(b"end\n"));
}

#[test]
fn a_program_need_not_read_its_row() {
    let mut bench = Bench::sh(Stdin, "echo done");
    assert_eq!(ok(bench.run(assignment(1, vec![b'x'; BODY_BYTES_MAX]))), "done\n");
}

#[test]
fn a_time_out_ends_it_with_all_its_children() {
    let mark = mark("timeout");
    let mut bench = Bench::sh(Argument, &format!("sleep 1000 # {{}} {mark}\n sh -c 'sleep 1001; : {mark}' & wait"));
    let mut late = assignment(1, "");
    late.timeout_ms = 50;
    failed(bench.run(late), Class::Timeout);
    let took = eventually("its processes are gone", || alive(&mark).is_empty());
    assert!(took < Duration::from_secs(1), "{took:?}");
}

#[test]
fn a_cancelled_program_leaves_nothing_behind_not_even_what_escaped() {
    let mark = mark("cancel");
    // One in the background of its group, one in a session of its own, one that is also without its environment.
    let script = format!(
        "sh -c 'sleep 1000; : {mark}' & setsid sh -c 'sleep 1000; : {mark}' & \
         setsid env -i PATH=\"$PATH\" sh -c 'sleep 1000; : {mark}' & sleep 1000 # {{}}"
    );
    let mut bench = Bench::sh(Argument, &script);
    bench.start(assignment(1, ""));
    eventually("all four run", || alive(&mark).len() == 4);
    bench.kill(1);
    failed(bench.ends(1).remove(0).outcome, Class::Cancelled);
    let took = eventually("its processes are gone", || alive(&mark).is_empty());
    assert!(took < Duration::from_secs(1), "{took:?}");
}

#[test]
fn what_a_finished_program_left_running_goes_with_it_and_does_not_hold_its_result() {
    let mark = mark("leftover");
    let mut bench = Bench::sh(Argument, &format!("setsid sh -c 'sleep 1000; : {mark}' & echo answer {{}}"));
    assert_eq!(ok(bench.run(assignment(1, "1"))), "answer 1\n");
    eventually("the leftover is gone", || alive(&mark).is_empty());
}

#[test]
fn a_background_process_of_a_running_program_is_left_alone() {
    let mut bench = Bench::sh(Argument, "(setsid sh -c 'sleep 0.3; echo late' &) ; sleep 0.6; echo {}");
    bench.start(assignment(1, "end"));
    // Another attempt ends meanwhile, so that a sweep takes place.
    let mut other = assignment(2, "x");
    other.timeout_ms = 20;
    bench.start(other);
    let ends = bench.ends(2);
    assert_eq!(ok(ends[0].outcome.clone()), "late\nend\n");
}

#[test]
fn no_new_privileges_no_core_dumps_own_group_and_nothing_to_read() {
    let script =
        "grep NoNewPrivs /proc/self/status; ulimit -c; [ $(ps -o pgid= -p $$) = $$ ] && echo leader; cat; : {}";
    let mut bench = Bench::sh(Argument, script);
    assert_eq!(ok(bench.run(assignment(1, ""))), "NoNewPrivs:\t1\n0\nleader\n");
}

#[test]
fn a_memory_limit_holds() {
    let mut limited =
        config(Argument, &["sh", "-c", "sleep 0.1; ulimit -v; head -c {} /dev/zero | tail -c {} | wc -c"]);
    limited.memory = Some(64 << 20);
    let mut bench = Bench::new(limited);
    assert_eq!(ok(bench.run(assignment(1, "1000"))), "65536\n1000\n");
    assert_ne!(ok(bench.run(assignment(2, "200000000"))), "65536\n200000000\n");
}

#[test]
fn a_memory_limit_holds_before_the_program_begins() {
    // Too little for the loader of any program: whatever began before its limit would end well.
    let mut limited = config(Argument, &["true", "{}"]);
    limited.memory = Some(64 << 10);
    let mut bench = Bench::new(limited);
    (0..50).for_each(|n| bench.start(assignment(n, "")));
    for ended in bench.ends(50) {
        failed(ended.outcome, Class::Crashed);
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("program");
    std::fs::copy("/bin/cat", &path).unwrap();
    let mut limited = config(Stdin, &[path.to_str().unwrap()]);
    limited.memory = Some(1 << 30);
    let mut bench = Bench::new(limited);
    assert_eq!(ok(bench.run(assignment(1, "here"))), "here");
    std::fs::remove_file(&path).unwrap();
    failed(bench.run(assignment(2, "gone")), Class::Error);
}

#[test]
fn many_at_once_all_end() {
    let mut bench = Bench::new(config(Argument, &["echo", "{}"]));
    (0..300).for_each(|n| bench.start(assignment(n, n.to_string())));
    let ends = bench.ends(300);
    for (n, ended) in ends.into_iter().enumerate() {
        assert_eq!(ended.fence, fence(n as u32));
        assert_eq!(ok(ended.outcome), format!("{n}\n"));
    }
    bench.close();
}

#[test]
fn programs_die_with_the_executor() {
    let mark = mark("close");
    let mut bench = Bench::sh(
        Argument,
        &format!("sh -c 'sleep 1000; : {mark}' & setsid sh -c 'sleep 1000; : {mark}' & wait; : {{}}"),
    );
    bench.start(assignment(1, ""));
    eventually("both run", || alive(&mark).len() == 3);
    bench.close();
    assert_eq!(alive(&mark), Vec::<u32>::new());
}

#[test]
fn a_keeper_that_dies_makes_suspects_and_is_replaced() {
    let mut bench = Bench::sh(Argument, "{}");
    let mark = mark("orphan");
    bench.start(assignment(1, format!("sleep 1000; : {mark}")));
    let pid = keeper_pid();
    eventually("it runs", || alive(&mark).len() == 1);
    bench.start(assignment(2, "kill -9 $PPID; sleep 1000"));
    let ends = bench.ends(2);
    for ended in ends {
        failed(ended.outcome, Class::Crashed);
    }
    eventually("its programs are gone", || alive(&mark).is_empty());
    eventually("the keeper is gone", || !std::path::Path::new(&format!("/proc/{pid}")).exists());
    assert_eq!(ok(bench.run(assignment(3, "echo again"))), "again\n");
}

fn keeper_pid() -> u32 {
    let mut found = None;
    eventually("the keeper runs", || {
        found = alive("sheaf-keeper").into_iter().find(|pid| parent_of(*pid) == Some(std::process::id()));
        found.is_some()
    });
    found.unwrap()
}

fn parent_of(pid: u32) -> Option<u32> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.split(' ').nth(1)?.parse().ok()
}

fn peak_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}
