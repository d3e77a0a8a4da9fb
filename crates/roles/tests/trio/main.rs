//! Client, router and workers through their ports over pipes that fail, in virtual time: every row ends in the sink once.

#![expect(clippy::expect_used, clippy::panic, reason = "what a test does not expect ends it")]

mod core;
mod dialers;
mod world;

use world::{Fault, Setup, World};

#[track_caller]
fn check(setup: Setup, faults: &[(u64, Fault)]) -> World {
    let rows = setup.rows;
    let mut world = World::new(setup);
    world.run(faults);
    let ended = world.client.ended.clone().expect("the run came to its end");
    assert_eq!(ended.reason, sheaf_roles::client::Reason::Complete, "{ended:?}");
    assert_eq!((ended.audit.lost, ended.audit.repeated, ended.audit.open), (0, 0, 0), "{ended:?}");
    let sink = &world.client.sink;
    assert_eq!(sink.rows.len() as u64, rows, "each row has its line");
    assert!(sink.rows.values().all(|times| *times == 1), "no row was written twice");
    assert!(world.workers.iter().all(|worker| worker.twice == 0), "an attempt started twice");
    assert!(!world.client.overtaken, "the router settled what the sink had not");
    world
}

fn executions(world: &World) -> (usize, u32) {
    (world.ledger.len(), world.ledger.values().sum())
}

#[test]
fn rows_are_done_once() {
    let world = check(Setup { rows: 500, ..Setup::default() }, &[]);
    assert_eq!(executions(&world), (500, 500));
}

#[test]
fn with_faults_on_every_link() {
    for seed in 1..=4 {
        let world = check(Setup { rows: 300, seed, faulty: true, ..Setup::default() }, &[]);
        assert_eq!(executions(&world), (300, 300), "seed {seed}");
    }
}

#[test]
fn cut_links_cost_nothing() {
    let faults: Vec<_> = (1..30).map(|n| (n * 37, Fault::Cut(n as usize % 3))).collect();
    let world = check(Setup { rows: 500, ..Setup::default() }, &faults);
    assert_eq!(executions(&world), (500, 500));
}

#[test]
fn a_router_that_restarts_takes_nothing_from_anybody() {
    let faults = [(60, Fault::Router), (400, Fault::Router), (401, Fault::Router), (2_000, Fault::Router)];
    for seed in 1..=4 {
        let world = check(Setup { rows: 500, seed, faulty: seed % 2 == 0, ..Setup::default() }, &faults);
        assert_eq!(executions(&world), (500, 500), "seed {seed}");
    }
}

#[test]
fn a_worker_that_dies_costs_what_it_executed() {
    let faults = [(50, Fault::Worker(0)), (300, Fault::Worker(1)), (500, Fault::Worker(0))];
    for seed in 1..=4 {
        let setup = Setup { rows: 400, seed, faulty: seed % 2 == 0, ..Setup::default() };
        let world = check(setup, &faults);
        let (rows, times) = executions(&world);
        assert_eq!(rows, 400);
        assert!(times <= 400 + world.died_executing, "{times} executions, {} of them cut short", world.died_executing);
    }
}

#[test]
fn a_client_that_dies_finds_its_place() {
    let faults = [(40, Fault::Client), (41, Fault::Client), (300, Fault::Client)];
    for seed in 1..=4 {
        let world = check(Setup { rows: 400, seed, faulty: seed % 2 == 0, ..Setup::default() }, &faults);
        assert_eq!(executions(&world), (400, 400), "seed {seed}");
    }
}

#[test]
fn everything_at_once() {
    let faults: Vec<_> = (0..24)
        .map(|n| {
            let fault = match n % 4 {
                0 => Fault::Router,
                1 => Fault::Worker(n / 4 % 2),
                2 => Fault::Client,
                _ => Fault::Cut(n / 4 % 3),
            };
            (50 + 90 * n as u64, fault)
        })
        .collect();
    for seed in 1..=12 {
        let world = check(Setup { rows: 600, seed, faulty: true, ..Setup::default() }, &faults);
        let (rows, times) = executions(&world);
        assert_eq!(rows, 600);
        assert!(times <= 600 + world.died_executing, "seed {seed}: {times}, {} cut short", world.died_executing);
    }
}

#[cfg(feature = "mutations")]
mod mutations {
    use super::*;

    #[test]
    #[should_panic(expected = "the router settled what the sink had not")]
    fn a_session_that_commits_before_the_sink_is_seen() {
        let faults: Vec<_> = (1..9).map(|n| (n * 400, Fault::Client)).collect();
        check(Setup { rows: 400, write_ms: 250, commit_before_sink: true, ..Setup::default() }, &faults);
    }

    #[test]
    fn the_same_sink_without_that_is_in_order() {
        let faults: Vec<_> = (1..9).map(|n| (n * 400, Fault::Client)).collect();
        check(Setup { rows: 400, write_ms: 250, ..Setup::default() }, &faults);
    }

    #[test]
    fn a_worker_that_starts_again_what_is_assigned_again_is_seen() {
        let faults: Vec<_> = (1..30).map(|n| (n * 37, Fault::Worker(n as usize % 2))).collect();
        let mut world = World::new(Setup { rows: 400, run_twice: true, faulty: true, ..Setup::default() });
        world.run(&faults);
        assert!(world.workers.iter().any(|worker| worker.twice > 0));
    }
}
