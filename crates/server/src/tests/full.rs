//! A router whose disk is full, and whose reserve is full too: long results of what was taken in before.

use sheaf_roles::client::Reason;
use tokio::time::timeout;

use super::*;
use crate::{Health, WriterError};

/// Their results are more than the reserve holds, and what is reserved behind the rows.
const LONG: usize = 200;
const BYTES: usize = 100_000;

/// All rows are on disk, nobody works; then the disk is full, and a worker comes.
async fn stuck(world: &World) -> (Server, JoinHandle<Summary>, Worker) {
    let rows: String = (0..LONG).map(|n| format!("{n} {}\n", "x".repeat(BYTES))).collect();
    fs::write(world.path("a"), rows).unwrap();
    let server = world.start().await;
    let job = world.job(&server, "a", "a.jsonl");
    until("the rows are written", || world.written() > (LONG * BYTES) as u64).await;
    world.faults.room.store(0, Ordering::SeqCst);
    let worker = echo(&server, "a");
    until("some results are in the reserve", || lines(&world.path("a.jsonl")) > 0).await;
    let refused = || world.faults.refused.load(Ordering::SeqCst);
    until("the disk and then the reserve are full", || refused() >= 2).await;
    (server, job, worker)
}

/// Whoever works and asks goes away.
async fn leave(job: JoinHandle<Summary>, worker: Worker) {
    job.abort();
    worker.task.abort();
    until("both are gone", || job.is_finished() && worker.task.is_finished()).await;
}

/// With the same command, on whatever there is now.
async fn all_have_their_answer(world: &World) {
    let server = world.start().await;
    let worker = echo(&server, "a");
    let summary = world.job(&server, "a", "a.jsonl").await.unwrap();
    let audit = summary.ended.audit;
    assert_eq!(summary.ended.reason, Reason::Complete);
    assert_eq!((audit.ok + audit.resumed, audit.lost, audit.repeated), (LONG as u64, 0, 0));
    assert_eq!(lines(&world.path("a.jsonl")), LONG);
    worker.stop().await;
    stop(server).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_without_any_room_ends_with_an_error_and_loses_nothing() {
    let world = World { grace: Duration::from_secs(3), ..World::new(Limits::default()) };
    let (server, job, worker) = stuck(&world).await;
    server.stopper().stop();
    let ended = timeout(Duration::from_secs(30), server.ended()).await.expect("it ends");
    assert!(matches!(ended, Err(ServerError::Writer(WriterError::Full))), "{ended:?}");
    leave(job, worker).await;
    world.faults.room.store(u64::MAX, Ordering::SeqCst);
    all_have_their_answer(&world).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn room_that_comes_back_is_used() {
    let world = World { grace: Duration::from_secs(3), ..World::new(Limits::default()) };
    let (server, job, worker) = stuck(&world).await;
    let gauges = server.gauges();
    until("operators are told", || gauges.health() == Health::Stuck).await;
    world.faults.room.store(u64::MAX, Ordering::SeqCst);
    let summary = timeout(Duration::from_secs(60), job).await.expect("it goes on").unwrap();
    assert_eq!((summary.ended.audit.ok, lines(&world.path("a.jsonl"))), (LONG as u64, LONG));
    until("operators are told of the room", || gauges.health() == Health::Writable).await;
    assert!(gauges.journal_bytes() > (LONG * BYTES) as u64 && gauges.commits_us.counts().iter().sum::<u64>() > 0);
    worker.stop().await;
    stop(server).await;
}
