//! Random schedules: sends, syncs, cancels, disconnects, crashes of either side, injected faults; then everything heals.
//! Every invariant of the world holds on every seed.

use super::world::World;
use crate::{Config, Depth, Faults, Lane, Micros, Rng};

/// Everything that a seed decides before it runs.
pub(super) fn world(seed: u64) -> World {
    let mut rng = Rng::new(seed ^ 0x5eed);
    let mut config = || {
        let depth = |rng: &mut Rng| if rng.chance(0.5) { Depth::Disk } else { Depth::Memory };
        let faulty = rng.chance(0.4);
        let faults = Faults { drop: 0.1, dup: 0.05, reorder: 0.1, delay: 0.1, seed: rng.next_u64() };
        Config {
            depth_tx: [depth(&mut rng), depth(&mut rng)],
            boot: rng.next_u64(),
            faults: faulty.then_some(faults),
            window: [2, 10, 100][rng.below(3) as usize],
            window_max: 1_000,
            packet_aim: [200, 64 << 10][rng.below(2) as usize],
            body_max: 8 << 10,
            buffer_max: 32 << 10,
            ..Config::default()
        }
    };
    World::new(seed, config(), config())
}

/// `crashes`: how likely a side dies in a step.
pub(super) fn chaos(world: &mut World, steps: u32, crashes: f64) {
    for _ in 0..steps {
        if !world.violations.is_empty() {
            return;
        }
        for side in 0..2 {
            act(world, side);
            if world.rng.chance(crashes) {
                world.crash(side);
            }
            if world.rng.chance(0.2) {
                world.restart(side);
            }
        }
        if world.rng.chance(0.01) {
            world.disconnect();
        }
        if world.rng.chance(0.3) {
            world.connect();
        }
        let span = Micros(world.rng.below(3_000));
        world.step(span);
    }
}

fn act(world: &mut World, side: usize) {
    let now = world.now;
    if world.rng.chance(0.15) {
        let lane = Lane::ALL[world.rng.below(2) as usize];
        for _ in 0..=world.rng.below(20) {
            world.actors[side].send(now, lane);
        }
    }
    if world.rng.chance(0.1) {
        cancel(world, side);
    }
    if world.rng.chance(0.3) {
        world.actors[side].provide();
    }
    if world.rng.chance(0.3) {
        world.sync(side);
    }
    if let Some(session) = &mut world.actors[side].session {
        if world.rng.chance(0.02) {
            session.flush(now);
        }
        if world.rng.chance(0.02) {
            session.signal(now, 3, bytes::Bytes::from_static(b"value"));
        }
    }
    world.drain();
}

fn cancel(world: &mut World, side: usize) {
    let actor = &mut world.actors[side];
    let Some(session) = &mut actor.session else { return };
    let pick = world.rng.below(actor.by_id.len() as u64 + 1) as usize;
    if let Some((id, payload)) = actor.by_id.iter().nth(pick) {
        actor.optional.insert(*payload);
        session.cancel(world.now, *id);
    }
}

fn check(seed: u64, crashes: f64) -> u64 {
    let mut world = world(seed);
    chaos(&mut world, 250, crashes);
    world.settle();
    assert!(world.violations.is_empty(), "seed {seed}: {:#?}", world.violations);
    world.trace
}

#[test]
fn connections_break() {
    for seed in 0..80 {
        check(seed, 0.0);
    }
}

#[test]
fn processes_die() {
    for seed in 1_000..1_120 {
        check(seed, 0.008);
    }
}

#[test]
fn same_seed_same_trace() {
    for seed in [3, 1_003, 1_004] {
        assert_eq!(check(seed, 0.004), check(seed, 0.004));
    }
}
