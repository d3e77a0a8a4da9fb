//! Before relying on a checker, remove the rule that it guards and see it speak up: one test per mutation.

use super::property::{chaos, world};
use super::stories::restored_backup;
use super::world::World;
use crate::{Depth, Mutation};

/// Runs seeds until one has a violation, and gives what it says.
fn caught(mutation: Mutation, plant: impl Fn(&mut World)) -> String {
    for seed in 5_000..5_200 {
        let mut world = world(seed);
        for actor in &mut world.actors {
            actor.config.mutation = Some(mutation);
        }
        plant(&mut world);
        for side in 0..2 {
            world.crash(side);
            world.restart(side);
        }
        chaos(&mut world, 250, 0.008);
        world.settle();
        if let Some(violation) = world.violations.first() {
            return violation.clone();
        }
    }
    panic!("{mutation:?} is not caught");
}

#[test]
fn a_sender_without_credit_check() {
    let violation = caught(Mutation::NoCreditCheck, |_| ());
    assert!(violation.contains("I9"), "{violation}");
}

#[test]
fn a_receiver_that_acknowledges_on_delivery() {
    let violation = caught(Mutation::AckBeforeCommit, |_| ());
    assert!(violation.contains("I1:"), "{violation}");
}

#[test]
fn a_sender_that_does_not_wait_for_its_disk() {
    let violation = caught(Mutation::SendBeforePersist, |world| {
        world.actors.iter_mut().for_each(|actor| actor.config.depth_tx = [Depth::Disk; 2]);
    });
    assert!(violation.contains("I2"), "{violation}");
}

#[test]
fn a_sender_that_never_compares_chains() {
    let world = restored_backup(Some(Mutation::NoChainCheck));
    assert!(!world.diverged(0), "the fork went unseen, as planted");
    let world = restored_backup(None);
    assert!(world.diverged(0));
}
