//! Acknowledgements, tokens, and what a failing disk does to them.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod world;

use std::time::Duration;

use comity_crdts::{SpaceId, Value};
use comity_engine::{
    Acknowledgement, CloseReason, Command, CommandError, Durability, Reply, RequestId, Role, StoreError,
    Token, TransactError, TxError,
};
use world::World;

/// One addition that asks for `durability`, and nothing else.
fn add(world: &mut World, node: usize, space: SpaceId, durability: Durability) -> RequestId {
    let (result, request) =
        world.write_with::<_, TxError>(node, space, durability, |tx| tx.counter_add("stats", "likes", 1));
    result.unwrap();
    request
}

/// As [`add`], then everything runs; the acknowledgement.
fn acknowledged(world: &mut World, node: usize, space: SpaceId, durability: Durability) -> Acknowledgement {
    let request = add(world, node, space, durability);
    world.run();
    world.acknowledgement(node, request).expect("within two seconds there is an answer")
}

fn await_token(world: &mut World, node: usize, token: &Token, within: Duration) -> RequestId {
    world.ask(node, Command::AwaitToken { token: token.clone(), within })
}

#[test]
fn local_means_synced_here_and_needs_nobody() {
    let mut world = World::new(1);
    let space = world.create_space(0);
    world.nodes[0].manual_sync = true;
    let request = add(&mut world, 0, space, Durability::Local);
    world.run();
    assert!(world.acknowledgement(0, request).is_none());
    world.sync(0);
    let answer = world.acknowledgement(0, request).unwrap();
    assert!(answer.reached);
    assert_eq!(answer.token.frontier, world.status(0, space).durable);
}

#[test]
fn remote_means_synced_at_as_many_others() {
    let (mut world, space) = World::mesh(3);
    for (needed, expected) in [(0, 0), (1, 1), (2, 2)] {
        let before = world.clock;
        let answer = acknowledged(&mut world, 0, space, Durability::Remote(needed));
        assert!(answer.reached && answer.remote >= expected, "{needed}: {answer:?}");
        assert!(world.clock - before < Duration::from_secs(1));
    }
    for syncing in [1, 2] {
        let stalled = 3 - syncing;
        world.nodes[stalled].manual_sync = true;
        let one = add(&mut world, 0, space, Durability::Remote(1));
        let two = add(&mut world, 0, space, Durability::Remote(2));
        world.drain_steps();
        assert!(world.acknowledgement(0, one).unwrap().reached);
        assert!(world.acknowledgement(0, two).is_none(), "only one of the others has synced");
        world.sync(stalled);
        world.drain_steps();
        assert!(world.acknowledgement(0, two).unwrap().reached);
        world.nodes[stalled].manual_sync = false;
        world.run();
    }
}

#[test]
fn an_awaited_write_is_acknowledged_without_waiting_for_the_timer_that_gathers_others() {
    let (mut world, space) = World::mesh(2);
    for _ in 0..5 {
        let before = world.clock;
        let request = add(&mut world, 0, space, Durability::Remote(1));
        world.drain_steps();
        assert!(world.acknowledgement(0, request).is_some());
        assert_eq!(world.clock, before);
    }
}

#[test]
fn after_the_time_allowed_the_answer_is_indeterminate_and_the_write_stays() {
    let (mut world, space) = World::mesh(3);
    world.disconnect_all(Some(2));
    let before = world.clock;
    let answer = acknowledged(&mut world, 0, space, Durability::Remote(2));
    assert_eq!((answer.reached, answer.remote), (false, 1));
    assert_eq!(world.clock - before, Duration::from_secs(1), "the time that was allowed");
    world.connect(1, 2);
    world.run();
    assert_eq!(world.likes(2, space), 1, "it went on spreading");
    assert_eq!(world.nodes[0].engine.next_deadline(), None, "nothing waits any more");
}

#[test]
fn an_answer_leaves_no_timer_behind() {
    let (mut world, space) = World::mesh(2);
    for _ in 0..10 {
        add(&mut world, 0, space, Durability::Remote(1));
    }
    world.drain_steps();
    let token = acknowledged(&mut world, 0, space, Durability::Local).token;
    await_token(&mut world, 0, &token, Duration::from_secs(3_600));
    await_token(&mut world, 1, &token, Duration::MAX);
    world.run();
    assert_eq!(world.nodes[0].engine.next_deadline(), None);
    assert_eq!(world.nodes[1].engine.next_deadline(), None);
}

#[test]
fn a_transaction_that_changes_nothing_is_acknowledged_once_what_it_saw_is_durable() {
    let mut world = World::new(1);
    let space = world.create_space(0);
    world.nodes[0].manual_sync = true;
    add(&mut world, 0, space, Durability::Local);
    let (seen, request) = world.write_with::<_, TxError>(0, space, Durability::Remote(3), |tx| {
        Ok(comity_engine::counter(tx.state(), &space, "stats", "likes")?)
    });
    assert_eq!(seen.unwrap(), 1);
    assert!(world.acknowledgement(0, request).is_none());
    world.sync(0);
    assert!(world.acknowledgement(0, request).unwrap().reached);
}

#[test]
fn who_presents_a_token_elsewhere_reads_its_own_write_there() {
    let (mut world, space) = World::mesh(2);
    let session = world.session_between(0, 1).unwrap();
    world.link_mut(session).stalled = true;
    let token = acknowledged(&mut world, 0, space, Durability::Local).token;
    let token = Token::from_bytes(&token.to_bytes()).unwrap();
    let request = await_token(&mut world, 1, &token, Duration::from_secs(5));
    world.run();
    assert!(!world.nodes[1].replies.contains_key(&request));
    assert_eq!(world.likes(1, space), 0);
    world.link_mut(session).stalled = false;
    world.run();
    assert!(matches!(world.nodes[1].replies.remove(&request), Some(Ok(Reply::Reached))));
    assert_eq!(world.likes(1, space), 1);
}

#[test]
fn a_token_that_is_not_reached_in_time_is_stale_by_a_number_of_change_sets() {
    let (mut world, space) = World::mesh(2);
    world.disconnect_all(None);
    let mut token = acknowledged(&mut world, 0, space, Durability::Local).token;
    for _ in 0..4 {
        token.merge(&acknowledged(&mut world, 0, space, Durability::Local).token);
    }
    let request = await_token(&mut world, 1, &token, Duration::from_millis(300));
    world.run();
    let reply = world.nodes[1].replies.remove(&request).unwrap();
    assert_eq!(reply.unwrap_err(), CommandError::Stale { missing: 5 });
    let elsewhere = Token { space: SpaceId([1; 16]), ..token };
    let request = await_token(&mut world, 1, &elsewhere, Duration::from_millis(300));
    let reply = world.nodes[1].replies.remove(&request).unwrap();
    assert_eq!(reply.unwrap_err(), CommandError::UnknownSpace(elsewhere.space));
}

#[test]
fn a_token_is_reached_only_once_what_it_names_is_durable() {
    let (mut world, space) = World::mesh(2);
    world.nodes[1].manual_sync = true;
    let token = acknowledged(&mut world, 0, space, Durability::Local).token;
    let request = await_token(&mut world, 1, &token, Duration::from_secs(9));
    world.run();
    assert_eq!(world.status(1, space).frontier, token.frontier);
    assert!(!world.nodes[1].replies.contains_key(&request));
    world.sync(1);
    assert!(world.nodes[1].replies.contains_key(&request));
}

#[test]
fn a_full_disk_is_reported_to_who_waits_and_waited_out() {
    let (mut world, space) = World::mesh(2);
    world.nodes[0].fail_sync = Some(StoreError::NoSpace);
    let request = add(&mut world, 0, space, Durability::Local);
    world.drain_steps();
    let reply = world.nodes[0].replies.remove(&request).unwrap();
    assert_eq!(reply.unwrap_err(), CommandError::Store(StoreError::NoSpace));
    assert_eq!(world.likes(1, space), 0, "nothing left while it was not durable");
    assert!(world.nodes[0].closed.is_empty());
    world.run();
    assert_eq!([world.likes(0, space), world.likes(1, space)], [1, 1], "the outcome was indeterminate");
    world.add(0, space, 1);
    assert_eq!(world.likes(1, space), 2);
}

#[test]
fn a_commit_that_finds_the_disk_full_or_slow_changes_nothing_and_is_tried_again() {
    for error in [StoreError::NoSpace, StoreError::Overloaded] {
        let (mut world, space) = World::mesh(2);
        world.nodes[0].disk.fail_next_commit(error.clone());
        let before = world.status(0, space).frontier;
        let refused = world.write(0, space, |tx| tx.counter_add("stats", "likes", 1));
        assert!(matches!(refused, Err(TransactError::Tx(TxError::Store(found))) if found == error));
        assert_eq!(world.status(0, space).frontier, before);
        // What arrives from others is applied once there is room.
        world.nodes[0].disk.fail_next_commit(error.clone());
        world.add(1, space, 10);
        assert_eq!(world.likes(0, space), 10);
        world.add(0, space, 1);
        assert_eq!([world.likes(0, space), world.likes(1, space)], [11, 11]);
        assert!(world.nodes[0].closed.is_empty());
    }
}

#[test]
fn after_a_failed_sync_everything_is_refused_and_peers_are_told() {
    let (mut world, space) = World::mesh(2);
    let session = world.session_between(0, 1).unwrap();
    let failed = StoreError::Failed { detail: "I/O error".to_owned() };
    world.nodes[0].fail_sync = Some(failed.clone());
    let request = add(&mut world, 0, space, Durability::Local);
    world.run();
    let store_error = CommandError::Store(failed.clone());
    assert_eq!(world.nodes[0].replies.remove(&request).unwrap().unwrap_err(), store_error);
    assert_eq!(world.close_reason(0, session), Some(CloseReason::Storage));
    let refused = world.write(0, space, |tx| tx.counter_add("stats", "likes", 1));
    assert!(matches!(refused, Err(TransactError::Tx(TxError::Store(error))) if error == failed));
    let commands = [
        Command::CreateSpace { name: "another".to_owned() },
        Command::Invite { space, role: Role::Writer, valid_for: Duration::from_secs(1) },
        Command::Status,
    ];
    for command in commands {
        assert_eq!(world.command(0, command).unwrap_err(), store_error);
    }
    let again = world.connect(0, 1);
    world.run();
    assert_eq!(world.close_reason(0, again), Some(CloseReason::Storage));
    // What had not been synced is gone after the restart; everything else works.
    world.crash(0);
    world.connect(0, 1);
    world.add(0, space, 5);
    assert_eq!([world.likes(0, space), world.likes(1, space)], [5, 5]);
}

#[test]
fn after_a_failed_sync_nobody_waits_for_others_any_more() {
    let (mut world, space) = World::mesh(2);
    world.disconnect_all(None);
    let elsewhere = acknowledged(&mut world, 1, space, Durability::Local).token;
    let token = await_token(&mut world, 0, &elsewhere, Duration::MAX);
    let write = add(&mut world, 0, space, Durability::Remote(1));
    world.sync(0);
    assert!(world.acknowledgement(0, write).is_none());
    world.nodes[0].fail_sync = Some(StoreError::Failed { detail: "I/O error".to_owned() });
    add(&mut world, 0, space, Durability::Local);
    world.drain_steps();
    assert!(!world.acknowledgement(0, write).unwrap().reached, "durable here, and nowhere else");
    assert!(matches!(world.nodes[0].replies.remove(&token), Some(Err(CommandError::Store(_)))));
}

#[test]
fn a_commit_that_fails_for_good_stops_the_replica_too() {
    let (mut world, space) = World::mesh(2);
    let session = world.session_between(0, 1).unwrap();
    world.nodes[0].disk.fail_next_commit(StoreError::Failed { detail: "I/O error".to_owned() });
    world.add(1, space, 10);
    assert_eq!(world.close_reason(0, session), Some(CloseReason::Storage));
    assert!(world.write(0, space, |tx| tx.set_add("s", "k", Value::Null)).is_err());
}

#[test]
fn a_join_that_cannot_be_stored_leaves_no_space_behind() {
    let mut world = World::new(2);
    let space = world.create_space(0);
    let secret = world.invite(0, space, Role::Writer);
    world.nodes[1].disk.fail_next_commit(StoreError::NoSpace);
    let inviter = world.replica(0);
    let join = Command::JoinSpace { space, inviter, secret: Some(secret) };
    assert!(world.command(1, join).is_err());
    assert_eq!(world.nodes[1].engine.spaces().count(), 0);
}
