//! The worker's loop against a stand-in for the router: what it says when it starts, works, dies, returns and leaves.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, reason = "a test: its panic is its message")]

mod common;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use common::router::{Heard, Router, Say};
use common::{PATIENCE, assignment, config, eventually, fence, ok};
use sheaf_session::Faults;
use sheaf_task::{Assignment, Capacity, Fence, ToRouter, ToWorker};
use sheaf_worker::{Config, Mode, Stop, Summary, Work, WorkerError};
use tokio::sync::watch;
use tokio::task::JoinHandle;

const CAPACITY: Capacity = Capacity { batch: 2, depth: 3, bytes: 0 };

struct Running {
    stop: watch::Sender<Stop>,
    task: JoinHandle<Result<Summary, WorkerError>>,
}

impl Running {
    async fn end(self) -> Result<Summary, WorkerError> {
        tokio::time::timeout(PATIENCE, self.task).await.expect("the worker never ends").unwrap()
    }

    /// As `kill -9`: nothing more is written or said.
    async fn die(self) {
        self.task.abort();
        assert!(self.task.await.unwrap_err().is_cancelled());
    }
}

fn start(router: &Router, work: Work, data: Option<PathBuf>, faults: Option<Faults>) -> Running {
    let (stop, stopped) = watch::channel(Stop::No);
    let config = Config {
        name: "tester".to_owned(),
        services: vec!["test".to_owned()],
        capacity: CAPACITY,
        work,
        target: router.target.clone(),
        data,
        faults,
    };
    Running { stop, task: tokio::spawn(sheaf_worker::run(config, stopped)) }
}

fn sh(script: &str) -> Work {
    Work::Program(config(Mode::Argument, &["sh", "-c", script]))
}

/// Each body is a path: the program makes `PATH.began`, waits for the file `PATH`, and answers.
fn gated() -> Work {
    sh("touch {}.began; until [ -e {} ]; do sleep 0.02; done; echo {}")
}

fn gate(dir: &Path, n: u32) -> Assignment {
    assignment(n, dir.join(n.to_string()).to_str().unwrap().to_owned())
}

fn began(dir: &Path, n: u32) {
    eventually("it begins", || dir.join(format!("{n}.began")).exists());
}

fn open(dir: &Path, n: u32) {
    std::fs::write(dir.join(n.to_string()), "").unwrap();
}

fn run(test: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap().block_on(test);
}

#[test]
fn it_registers_works_and_leaves() {
    run(async {
        let mut router = Router::start().await;
        let worker = start(&router, Work::Echo, None, None);
        let registration = router.register().await;
        assert_eq!((registration.incarnation, registration.capacity), (1, CAPACITY));
        assert_eq!((registration.holding, registration.died_with), (vec![], vec![]));
        router.assign((1..=5).map(|n| assignment(n, n.to_string())).collect()).await;
        let bodies: Vec<_> = router.all_results(5).await.into_iter().map(|item| ok(item.outcome)).collect();
        assert_eq!(bodies, ["1", "2", "3", "4", "5"]);
        worker.stop.send(Stop::Drain).unwrap();
        let place = router
            .until(|heard| match heard {
                Heard::Message(place, ToRouter::Leave) => Some(place),
                _ => None,
            })
            .await;
        router.say(Say::Commit(place)).await;
        router.say(Say::Close).await;
        assert_eq!(worker.end().await.unwrap(), Summary { attempts: 5, unacknowledged: 0 });
    });
}

#[test]
fn with_chaos_on_every_answer_still_comes_once() {
    run(async {
        let mut router = Router::start().await;
        let faults = Faults { drop: 0.1, dup: 0.05, reorder: 0.1, delay: 0.05, seed: 7 };
        let worker = start(&router, Work::Echo, None, Some(faults));
        router.register().await;
        for chunk in 0..40 {
            router.assign((0..5).map(|n| assignment(chunk * 5 + n, "x")).collect()).await;
            let fences: Vec<Fence> = router.all_results(5).await.iter().map(|item| item.fence).collect();
            assert_eq!(fences, (0..5).map(|n| fence(chunk * 5 + n)).collect::<Vec<_>>());
        }
        worker.die().await;
    });
}

#[test]
fn a_stop_gives_back_what_waits_and_finishes_what_runs() {
    run(async {
        let dir = tempfile::tempdir().unwrap();
        let mut router = Router::start().await;
        let worker = start(&router, gated(), None, None);
        router.register().await;
        router.assign((1..=4).map(|n| gate(dir.path(), n)).collect()).await;
        (1..=2).for_each(|n| began(dir.path(), n));
        worker.stop.send(Stop::Drain).unwrap();
        assert_eq!(router.recalled().await, [fence(3), fence(4)]);
        (1..=2).for_each(|n| open(dir.path(), n));
        assert_eq!(router.all_results(2).await.len(), 2);
        worker.stop.send(Stop::Force).unwrap();
        assert_eq!(worker.end().await.unwrap().attempts, 2);
    });
}

#[test]
fn a_cancelled_attempt_is_ended_and_said() {
    run(async {
        let dir = tempfile::tempdir().unwrap();
        let mut router = Router::start().await;
        let worker = start(&router, gated(), None, None);
        router.register().await;
        router.assign(vec![gate(dir.path(), 1)]).await;
        began(dir.path(), 1);
        router.say(Say::Urgent(ToWorker::Cancel(vec![fence(1)]))).await;
        let item = router.results(true).await.remove(0);
        common::failed(item.outcome, sheaf_task::Class::Cancelled);
        worker.die().await;
    });
}

#[test]
fn what_it_was_executing_when_it_died_it_names_when_it_returns() {
    run(async {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("worker");
        let mut router = Router::start().await;
        let first = start(&router, gated(), Some(data.clone()), None);
        router.register().await;
        router.assign((1..=3).map(|n| gate(dir.path(), n)).collect()).await;
        (1..=2).for_each(|n| began(dir.path(), n));
        open(dir.path(), 1);
        assert_eq!(router.all_results(1).await[0].fence, fence(1));
        began(dir.path(), 3);
        first.die().await;
        for (incarnation, died_with) in [(2, vec![fence(2), fence(3)]), (3, vec![])] {
            let again = start(&router, gated(), Some(data.clone()), None);
            let registration = router.register().await;
            assert_eq!((registration.incarnation, registration.died_with), (incarnation, died_with));
            // An answered attempt shows that the answer to the registration has been heard.
            open(dir.path(), 10 + incarnation as u32);
            router.assign(vec![gate(dir.path(), 10 + incarnation as u32)]).await;
            router.all_results(1).await;
            again.die().await;
        }
    });
}

#[test]
fn results_that_were_not_acknowledged_outlive_it_and_are_not_made_again() {
    run(async {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("worker");
        let mut router = Router::start().await;
        let first = start(&router, Work::Echo, Some(data.clone()), None);
        router.register().await;
        router.assign(vec![assignment(1, "kept")]).await;
        let place = router
            .until(|heard| match heard {
                Heard::Message(place, ToRouter::Results(_)) => Some(place),
                _ => None,
            })
            .await;
        first.die().await;
        let again = start(&router, sh("exit 1 {}"), Some(data.clone()), None);
        let registration = router.register().await;
        assert_eq!((registration.holding, registration.died_with), (vec![fence(1)], vec![]));
        router.say(Say::Commit(place)).await;
        // A later result is acknowledged after it.
        router.assign(vec![assignment(2, "")]).await;
        assert_eq!(router.all_results(1).await[0].fence, fence(2));
        again.stop.send(Stop::Drain).unwrap();
        router
            .until(|heard| match heard {
                Heard::Message(_, ToRouter::Leave) => Some(()),
                _ => None,
            })
            .await;
        again.die().await;
        let third = start(&router, Work::Echo, Some(data.clone()), None);
        assert_eq!(router.register().await.holding, vec![]);
        third.die().await;
    });
}

#[test]
fn a_directory_in_use_and_a_missing_program_are_said_before_any_work() {
    run(async {
        let dir = tempfile::tempdir().unwrap();
        let mut router = Router::start().await;
        let first = start(&router, Work::Echo, Some(dir.path().to_owned()), None);
        router.register().await;
        let second = start(&router, Work::Echo, Some(dir.path().to_owned()), None);
        assert!(matches!(second.end().await, Err(WorkerError::Spool(sheaf_worker::SpoolError::InUse { .. }))));
        first.die().await;
        let missing = Work::Program(config(Mode::Stdin, &["no-such-program-here"]));
        let third = start(&router, missing, Some(dir.path().to_owned()), None);
        assert!(matches!(third.end().await, Err(WorkerError::Config(_))));
    });
}

/// A file system of one megabyte; `None`, loudly, where this process may not mount one.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn mount() -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=1m", "none"]).arg(dir.path()).status();
        if mounted.is_ok_and(|status| status.success()) {
            return Some(Self(dir));
        }
        eprintln!("SKIPPED: only root can mount the small disk that this test needs");
        None
    }

    fn fill(&self) {
        let mut file = std::fs::File::create(self.0.path().join("filler")).unwrap();
        while file.write_all(&[0; 4096]).is_ok() {}
    }

    fn free(&self) {
        std::fs::remove_file(self.0.path().join("filler")).unwrap();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let unmounted = Command::new("umount").arg("-l").arg(self.0.path()).status();
        assert!(unmounted.unwrap().success());
    }
}

#[test]
fn on_a_full_disk_it_takes_no_more_and_loses_nothing() {
    let Some(disk) = SmallDisk::mount() else { return };
    run(async {
        let mut router = Router::start().await;
        let worker = start(&router, Work::Echo, Some(disk.0.path().to_owned()), None);
        router.register().await;
        disk.fill();
        let body = vec![b'x'; 100_000];
        router.assign(vec![assignment(1, body.clone())]).await;
        let announced =
            |wanted: Capacity| move |heard| matches!(heard, Heard::Capacity(found) if found == wanted).then_some(());
        router.until(announced(Capacity { batch: 0, depth: 0, bytes: 0 })).await;
        disk.free();
        let item = router.all_results(1).await.remove(0);
        assert_eq!(ok(item.outcome), body);
        router.until(announced(CAPACITY)).await;
        worker.die().await;
    });
}

#[test]
fn it_leaves_in_time_when_the_router_is_away() {
    run(async {
        let dir = tempfile::tempdir().unwrap();
        let router = Router::start().await;
        let worker = start(&router, Work::Echo, Some(dir.path().to_owned()), None);
        drop(router);
        worker.stop.send(Stop::Drain).unwrap();
        assert_eq!(worker.end().await.unwrap(), Summary::default());
    });
}
