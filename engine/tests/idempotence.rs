//! Operation ids: what is repeated under the same one does not count twice.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod world;

use std::time::Duration;

use comity_crdts::SpaceId;
use comity_engine::{
    Acknowledgement, Command, Durability, OperationId, OperationNameError, Reply, RequestId, StoreError,
    TransactError, TxError, WriteOptions, operation_ids,
};
use world::World;

fn id(name: &str) -> OperationId {
    OperationId::named(name.as_bytes()).unwrap()
}

/// One addition under an id; whether it was made now.
fn add_as(
    world: &mut World,
    node: usize,
    space: SpaceId,
    (name, durability): (&str, Durability),
) -> (bool, RequestId) {
    let options = WriteOptions { operation: Some(id(name)), durability, ..world.write_options(node) };
    let (result, request) =
        world.write_as::<_, TxError>(node, space, options, |tx| tx.counter_add("stats", "likes", 1));
    match result {
        Ok(()) => (true, request),
        Err(TransactError::Duplicate) => (false, request),
        Err(error) => panic!("{error}"),
    }
}

/// As [`add_as`], and everything runs.
fn added(world: &mut World, node: usize, space: SpaceId, name: &str) -> Acknowledgement {
    let (made, request) = add_as(world, node, space, (name, Durability::Local));
    world.run();
    let answer = world.acknowledgement(node, request).unwrap();
    assert_eq!(answer.deduplicated, !made);
    answer
}

#[test]
fn a_write_that_is_repeated_at_the_same_replica_is_made_once_and_answered_alike() {
    let mut world = World::new(1);
    let space = world.create_space(0);
    let first = added(&mut world, 0, space, "a");
    assert!(!first.deduplicated);
    added(&mut world, 0, space, "b");
    let entries = world.status(0, space).frontier;
    for _ in 0..3 {
        let again = added(&mut world, 0, space, "a");
        assert!(again.deduplicated && again.reached);
        assert_eq!(again.token, first.token);
    }
    assert_eq!(world.likes(0, space), 2);
    assert_eq!(world.status(0, space).frontier, entries, "no second change set");
    world.crash(0);
    assert_eq!(added(&mut world, 0, space, "a").token, first.token, "also after a restart");
}

#[test]
fn a_write_without_an_id_and_one_that_changes_nothing_are_not_remembered() {
    let mut world = World::new(1);
    let space = world.create_space(0);
    for _ in 0..2 {
        let options = WriteOptions { operation: Some(id("nothing")), ..world.write_options(0) };
        let (result, _) = world.write_as::<_, TxError>(0, space, options, |_| Ok(()));
        result.unwrap();
    }
    world.add(0, space, 1);
    assert_eq!(operation_ids(&world.nodes[0].disk, &space), Ok(0));
    assert!(!added(&mut world, 0, space, "nothing").deduplicated);
}

#[test]
fn every_replica_that_has_applied_the_write_knows_it_again() {
    let (mut world, space) = World::mesh(3);
    let first = added(&mut world, 1, space, "order-17");
    for node in 0..3 {
        let again = added(&mut world, node, space, "order-17");
        assert!(again.deduplicated);
        assert_eq!(again.token, first.token);
        assert_eq!(world.likes(node, space), 1);
    }
    world.assert_converged(space);
}

#[test]
fn a_write_that_is_repeated_elsewhere_waits_for_the_replicas_that_it_asks_for() {
    let (mut world, space) = World::mesh(3);
    let (made, first) = add_as(&mut world, 0, space, ("a", Durability::Local));
    assert!(made);
    world.run();
    let token = world.acknowledgement(0, first).unwrap().token;
    for durability in [Durability::Remote(2), Durability::All, Durability::Quorum] {
        let (made, again) = add_as(&mut world, 1, space, ("a", durability));
        world.run();
        let answer = world.acknowledgement(1, again).unwrap();
        assert!(!made && answer.reached && answer.token == token, "{answer:?}");
        assert!(answer.replicas.contains(&world.replica(0)), "its author has it");
    }
    // Two of them at once, for a replica that is not there.
    world.disconnect_all(Some(2));
    let (_, fresh) = add_as(&mut world, 0, space, ("b", Durability::All));
    let (made, again) = add_as(&mut world, 0, space, ("b", Durability::All));
    world.drain_steps();
    assert!(!made && world.acknowledgement(0, fresh).is_none() && world.acknowledgement(0, again).is_none());
    world.connect(0, 2);
    world.run();
    for (request, deduplicated) in [(fresh, false), (again, true)] {
        let answer = world.acknowledgement(0, request).unwrap();
        assert_eq!((answer.reached, answer.deduplicated), (true, deduplicated));
    }
}

#[test]
fn who_repeats_elsewhere_with_the_token_of_an_indeterminate_write_does_not_count_twice() {
    let (mut world, space) = World::mesh(2);
    world.disconnect_all(None);
    let (_, request) = add_as(&mut world, 0, space, ("pay", Durability::Remote(1)));
    world.run();
    let answer = world.acknowledgement(0, request).unwrap();
    assert!(!answer.reached, "indeterminate");
    // Where the write has not arrived, the token is not reached, and nothing is written.
    let wait = Command::AwaitToken { token: answer.token.clone(), within: Duration::from_millis(200) };
    assert!(world.command(1, wait).is_err());
    world.connect(0, 1);
    let wait = Command::AwaitToken { token: answer.token.clone(), within: Duration::from_secs(1) };
    assert!(matches!(world.command(1, wait), Ok(Reply::Reached)));
    let again = added(&mut world, 1, space, "pay");
    assert!(again.deduplicated && again.token == answer.token);
    assert_eq!([world.likes(0, space), world.likes(1, space)], [1, 1]);
}

#[test]
fn two_uses_at_replicas_that_have_not_heard_of_each_other_both_stand() {
    let (mut world, space) = World::mesh(2);
    world.disconnect_all(None);
    let here = added(&mut world, 0, space, "x");
    let there = added(&mut world, 1, space, "x");
    assert!(!here.deduplicated && !there.deduplicated);
    world.connect(0, 1);
    world.run();
    world.assert_converged(space);
    assert_eq!(world.likes(0, space), 2, "nothing is taken back");
    // From then on each answers with the one it had first.
    assert_eq!(added(&mut world, 0, space, "x").token, here.token);
    assert_eq!(added(&mut world, 1, space, "x").token, there.token);
}

#[test]
fn what_a_crash_took_is_made_again_and_what_it_left_is_not() {
    let mut world = World::new(1);
    let space = world.create_space(0);
    world.nodes[0].manual_sync = true;
    let (made, _) = add_as(&mut world, 0, space, ("a", Durability::Local));
    // It is known before it is durable, and the repetition is answered with it, no sooner.
    let (again, request) = add_as(&mut world, 0, space, ("a", Durability::Local));
    assert!(made && !again && world.acknowledgement(0, request).is_none());
    world.crash(0);
    world.nodes[0].manual_sync = false;
    assert!(!added(&mut world, 0, space, "a").deduplicated);
    assert!(added(&mut world, 0, space, "a").deduplicated);
    assert_eq!(world.likes(0, space), 1);
    // A full disk leaves nothing, neither.
    world.nodes[0].disk.fail_next_commit(StoreError::NoSpace);
    let options = WriteOptions { operation: Some(id("b")), ..world.write_options(0) };
    let (refused, _) =
        world.write_as::<_, TxError>(0, space, options, |tx| tx.counter_add("stats", "likes", 1));
    assert!(matches!(refused, Err(TransactError::Tx(TxError::Store(StoreError::NoSpace)))));
    world.run();
    assert!(!added(&mut world, 0, space, "b").deduplicated);
}

#[test]
fn an_id_is_forgotten_after_a_day_and_its_rows_are_gone_an_hour_later() {
    const HOUR_MS: u64 = 3_600_000;
    let (mut world, space) = World::mesh(2);
    let forward = |world: &mut World, ms: u64| {
        world.nodes.iter_mut().for_each(|node| node.wall_ms += ms);
    };
    added(&mut world, 0, space, "a");
    forward(&mut world, 23 * HOUR_MS);
    added(&mut world, 0, space, "b");
    assert!(added(&mut world, 1, space, "a").deduplicated);
    forward(&mut world, HOUR_MS + 1_000);
    assert!(!added(&mut world, 1, space, "a").deduplicated, "a new operation, a day later");
    assert!(added(&mut world, 0, space, "a").deduplicated, "which is remembered in its turn");
    assert!(added(&mut world, 0, space, "b").deduplicated);
    for days in [2, 3] {
        forward(&mut world, 26 * HOUR_MS);
        world.add(0, space, 1);
        world.run();
        for node in 0..2 {
            assert_eq!(operation_ids(&world.nodes[node].disk, &space), Ok(0), "day {days}");
        }
    }
    for node in 0..2 {
        world.crash(node);
        world.run();
        assert_eq!(world.nodes[node].engine.next_deadline(), None, "nothing is left to be done");
    }
}

#[test]
fn what_arrives_a_day_late_is_not_remembered_and_a_clock_that_is_ahead_remembers_no_longer() {
    const DAY_MS: u64 = 86_400_000;
    let (mut world, space) = World::mesh(2);
    world.disconnect_all(None);
    added(&mut world, 0, space, "late");
    world.nodes.iter_mut().for_each(|node| node.wall_ms += DAY_MS + 1);
    world.nodes[1].wall_ms += 10 * 365 * DAY_MS;
    added(&mut world, 1, space, "ahead");
    world.connect(0, 1);
    world.run();
    assert_eq!(world.likes(0, space), 2);
    // Its author keeps the late one until it forgets it.
    assert_eq!(operation_ids(&world.nodes[1].disk, &space), Ok(1));
    assert!(added(&mut world, 0, space, "ahead").deduplicated);
    world.nodes[0].wall_ms += DAY_MS + 3_700_000;
    world.add(0, space, 1);
    world.run();
    assert_eq!(operation_ids(&world.nodes[0].disk, &space), Ok(0));
}

#[test]
fn a_name_has_1_to_64_bytes() {
    assert_eq!(OperationId::named(b""), Err(OperationNameError { bytes: 0, bytes_max: 64 }));
    assert!(OperationId::named(&[7; 64]).is_ok());
    assert_eq!(OperationId::named(&[7; 65]), Err(OperationNameError { bytes: 65, bytes_max: 64 }));
    assert_ne!(id("a"), id("b"));
}
