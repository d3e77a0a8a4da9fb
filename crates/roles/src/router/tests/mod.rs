//! Tests of the machine: stories in `testdata/router/*.txt` (commands in, whole trace out; `UPDATE=1` records anew), and
//! random days, each checked against a replay of its own records.

mod jobs_listed;
mod random;
mod script;
mod world;

use std::path::Path;

use sheaf_task::{Key, RowId};

use super::record::{Cached, Delivered, Delivery, delivered};
use super::{JobNo, Lsn, Record};

/// One story a file: lines are commands, the indented lines after each are what came out.
#[expect(clippy::disallowed_methods, reason = "stories are files, and are recorded into them")]
fn check(name: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/router").join(name);
    let expected = std::fs::read_to_string(&path).unwrap();
    let actual = script::run(&expected);
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&path, actual).unwrap();
    } else {
        assert_eq!(actual, expected, "{name}: run with UPDATE=1 to record anew");
    }
}

macro_rules! stories {
    ($($name:ident)*) => {
        $(#[test] fn $name() { check(concat!(stringify!($name), ".txt")); })*

        #[test]
        fn every_story_is_told() {
            let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/router");
            let files = std::fs::read_dir(dir).unwrap().count();
            assert_eq!(files, [$(stringify!($name)),*].len());
        }
    };
}

stories! {
    alike_lengths
    announced_bytes
    auto_order
    balance_and_lies
    busy
    cancel
    cancelled_in_slices
    cancelled_is_collected
    compaction
    cursor
    deaths_of_workers
    end_is_told_when_it_is_on_disk
    end_on_record_is_not_waited_for
    explain
    failures_are_final_for_the_job_that_saw_them
    fairness_and_rate
    full_to_the_byte
    garbage_quarantine
    gates
    heir_of_a_job_that_left
    jobs_leave
    joins_and_cached_answers
    late_submit_after_compaction
    learned_lengths
    life_of_a_task
    long_failures
    long_names
    lost_and_found
    many_lost_at_once
    old_report_of_death
    one_garbage
    opened_is_lost
    own_sleep_extends_leases
    pieces
    poison
    recall
    released_in_slices
    relook
    restart_keeps_running_tasks
    retry_classes
    retry_order
    same_row_elsewhere
    settled_row_asked_again
    shortest_first
    shutdown
    stale_attempts
    stats
    tenants
    two_sessions_of_one_job
    unreadable_body
    unsettled_results
    withdraw
    worker_is_down
    workers_new_life
}

#[test]
fn a_record_delivers_what_it_gave_that_number_to_and_nothing_else() {
    let delivery = Delivery { job: JobNo(1), row: RowId([2; 16]), number: 7 };
    let cached = Record::Cached(Cached { key: Key([1; 16]), ok: true, len: 5, finished: Lsn(3), delivery });
    let of = |job, number| delivered(cached.clone(), JobNo(job), number);
    assert!(matches!(of(1, 7), Delivered::See { finished: Lsn(3), .. }));
    assert!(matches!(of(1, 8), Delivered::Other) && matches!(of(2, 7), Delivered::Other));
}
