//! What a write may wait for: a majority, all, regions; what it is told; and what it leaves behind.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod world;

use std::time::Duration;

use comity_crdts::SpaceId;
use comity_engine::{Acknowledgement, Command, Durability, Input, RequestId, Role, TransactError, TxError};
use world::World;

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

/// A mesh of replicas in these regions, of which all but the silent ones have written, so that others know where they
/// are.
fn regions(names: &[&str], silent: &[usize]) -> (World, SpaceId) {
    let (mut world, space) = World::mesh(names.len());
    for (node, name) in names.iter().enumerate() {
        world.nodes[node].region = Some((*name).to_owned());
        world.crash(node);
        for other in 0..names.len() {
            if other != node {
                world.connect(node, other);
            }
        }
        world.run();
        if !silent.contains(&node) {
            world.add(node, space, 1);
        }
    }
    (world, space)
}

fn in_regions(names: &[&str]) -> Durability {
    Durability::Regions(names.iter().map(|name| (*name).to_owned()).collect())
}

#[test]
fn a_quorum_is_more_than_half_of_the_members_and_this_replica_is_one_of_them() {
    for (members, needed) in [(1_usize, 1_u32), (2, 2), (3, 2), (4, 3), (5, 3)] {
        let (mut world, space) = World::mesh(members);
        for node in 1..members {
            world.nodes[node].manual_sync = true;
        }
        let request = add(&mut world, 0, space, Durability::Quorum);
        world.drain_steps();
        for node in 1..needed as usize {
            assert!(world.acknowledgement(0, request).is_none(), "{members} members, {node} have it");
            world.sync(node);
            world.drain_steps();
        }
        let answer = world.acknowledgement(0, request).unwrap();
        assert!(answer.reached);
        assert_eq!((answer.counted, answer.needed), (needed, needed), "of {members}");
        let mut holders: Vec<_> = (1..needed as usize).map(|node| world.replica(node)).collect();
        holders.sort_unstable();
        assert_eq!(answer.replicas, holders, "it says who has it");
        assert_eq!(answer.remote, needed - 1);
    }
}

#[test]
fn all_is_every_member_and_when_one_is_away_the_answer_says_who_has_it_and_the_write_stays() {
    let (mut world, space) = World::mesh(3);
    let answer = acknowledged(&mut world, 1, space, Durability::All);
    assert!(answer.reached);
    assert_eq!((answer.counted, answer.needed), (3, 3));
    world.disconnect_all(Some(2));
    let before = world.clock;
    let answer = acknowledged(&mut world, 1, space, Durability::All);
    assert_eq!((answer.reached, answer.counted, answer.needed), (false, 2, 3));
    assert_eq!(answer.replicas, [world.replica(0)]);
    assert_eq!(world.clock - before, Duration::from_secs(1), "the time that was allowed");
    let quorum = acknowledged(&mut world, 1, space, Durability::Quorum);
    assert!(quorum.reached, "two of three are a majority");
    world.connect(0, 2);
    world.run();
    assert_eq!(world.likes(2, space), 3, "it went on spreading");
}

#[test]
fn who_joins_counts_from_when_the_writer_hears_of_it() {
    let (mut world, space) = World::mesh(2);
    world.disconnect_all(Some(1));
    world.add_node([9; 32], world::disk::Disk::default());
    world.run();
    world.join(0, 2, space);
    // Node 1 knows of two members, node 0 of three.
    assert_eq!(acknowledged(&mut world, 1, space, Durability::All).needed, 2);
    let answer = acknowledged(&mut world, 0, space, Durability::All);
    assert_eq!((answer.reached, answer.counted, answer.needed), (false, 2, 3));
}

#[test]
fn regions_are_reached_with_one_replica_in_each_and_the_own_one_counts() {
    let (mut world, space) = regions(&["eu", "eu", "us", "asia"], &[]);
    let own = acknowledged(&mut world, 0, space, in_regions(&["eu"]));
    assert!(own.reached, "this replica is there");
    for node in 1..4 {
        world.nodes[node].manual_sync = true;
    }
    let request = add(&mut world, 0, space, in_regions(&["eu", "us", "us"]));
    world.drain_steps();
    world.sync(1);
    world.sync(3);
    world.drain_steps();
    assert!(world.acknowledgement(0, request).is_none(), "nobody in us has it");
    world.sync(2);
    world.drain_steps();
    let answer = world.acknowledgement(0, request).unwrap();
    assert!(answer.reached);
    assert_eq!((answer.counted, answer.needed), (2, 2), "a region named twice is one");
    assert_eq!(answer.regions, ["asia", "eu", "us"]);
    world.disconnect_all(Some(3));
    for node in 1..4 {
        world.nodes[node].manual_sync = false;
    }
    let answer = acknowledged(&mut world, 0, space, in_regions(&["asia", "us"]));
    assert_eq!((answer.reached, answer.counted, answer.needed), (false, 1, 2));
    assert_eq!(answer.regions, ["eu", "us"]);
    assert_eq!(answer.replicas.len(), 2);
}

#[test]
fn a_region_in_which_nobody_is_known_to_be_is_refused_before_anything_is_written() {
    let (mut world, space) = regions(&["eu", "us"], &[1]);
    let before = world.status(0, space).frontier;
    for unknown in ["us", "mars"] {
        let (refused, request) =
            world.write_with::<_, TxError>(0, space, in_regions(&["eu", unknown]), |tx| {
                tx.counter_add("stats", "likes", 1)
            });
        assert!(matches!(refused, Err(TransactError::UnknownRegion(region)) if region == unknown));
        world.run();
        assert!(world.acknowledgement(0, request).is_none(), "no answer comes after a refusal");
    }
    assert_eq!(world.status(0, space).frontier, before);
    // With its first write it says where it is.
    world.add(1, space, 1);
    assert!(acknowledged(&mut world, 0, space, in_regions(&["eu", "us"])).reached);
    // And a replica that starts again knows it still.
    world.crash(0);
    world.connect(0, 1);
    world.run();
    assert!(acknowledged(&mut world, 0, space, in_regions(&["us"])).reached);
}

#[test]
fn a_write_that_waits_for_a_region_is_answered_when_a_holder_says_that_it_is_there() {
    let (mut world, space) = regions(&["eu", "us", "us"], &[1]);
    world.disconnect_all(Some(2));
    let request = add(&mut world, 0, space, in_regions(&["us"]));
    world.drain_steps();
    assert!(world.acknowledgement(0, request).is_none(), "the one that is connected has said nothing yet");
    let (said, _) =
        world.write_with::<_, TxError>(1, space, Durability::Local, |tx| tx.counter_add("s", "l", 1));
    said.unwrap();
    world.drain_steps();
    assert!(world.acknowledgement(0, request).unwrap().reached);
}

#[test]
fn who_stops_waiting_leaves_nothing_behind_and_the_write_stays() {
    let (mut world, space) = World::mesh(3);
    world.disconnect_all(Some(2));
    let synced = add(&mut world, 0, space, Durability::All);
    world.drain_steps();
    world.nodes[0].manual_sync = true;
    let unsynced = add(&mut world, 0, space, Durability::All);
    let token = world.status(1, space).frontier;
    let token = comity_engine::Token {
        space,
        frontier: [(world.own_lane(0, space), 99)].into_iter().chain(token.iter()).collect(),
    };
    let others = [
        Command::AwaitToken { token, within: Duration::MAX },
        Command::AwaitFresh {
            space,
            whom: comity_engine::Whom::All,
            max_age: Duration::ZERO,
            within: Duration::MAX,
        },
    ];
    let others = others.map(|command| world.ask(0, command));
    assert!(world.nodes[0].engine.next_deadline().is_some());
    for request in others.into_iter().chain([synced, unsynced, unsynced]) {
        world.input(0, Input::Cancelled { request });
    }
    world.nodes[0].manual_sync = false;
    world.run();
    assert_eq!(world.nodes[0].engine.next_deadline(), None, "no timer is left");
    assert!(world.acknowledgement(0, synced).is_none());
    for request in others {
        assert!(!world.nodes[0].replies.contains_key(&request));
    }
    assert_eq!(world.likes(1, space), 2, "what was written stays and spreads");
    // What comes after is not taken for awaited, and others are answered as before.
    assert!(acknowledged(&mut world, 0, space, Durability::Remote(1)).reached);
}

#[test]
fn who_has_not_heard_of_its_space_yet_reaches_no_quorum() {
    let mut world = World::new(2);
    let space = world.create_space(0);
    let secret = world.invite(0, space, Role::Writer);
    world.prepare_join(0, 1, space, secret);
    for durability in [Durability::Quorum, Durability::All] {
        let answer = acknowledged(&mut world, 1, space, durability);
        assert_eq!((answer.reached, answer.counted, answer.needed), (false, 0, 1));
    }
    let request = add(&mut world, 1, space, Durability::Quorum);
    world.connect(0, 1);
    world.run();
    let answer = world.acknowledgement(1, request).unwrap();
    assert_eq!((answer.reached, answer.counted, answer.needed), (true, 2, 2));
}
