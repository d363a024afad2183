//! Protocol versions: the highest common one is used, an older peer keeps working, and who shares none learns why.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod world;

use std::time::Duration;

use comity_crdts::SpaceId;
use comity_engine::wire::{Hello, Message};
use comity_engine::{
    CloseReason, Notice, PROTOCOL_VERSION, PROTOCOL_VERSION_MIN, ReadError, Retention, VersionRange,
};
use world::World;

const OLD: VersionRange = VersionRange { min: 4, max: 4 };
const NEW: VersionRange = VersionRange { min: 5, max: 5 };

/// Opens a replica again that speaks other versions.
fn speak(world: &mut World, node: usize, versions: VersionRange) {
    world.nodes[node].versions = versions;
    world.crash(node);
}

fn future(world: &mut World, node: usize) {
    world.nodes[node].extensions = comity_engine::Extensions::FUTURE;
    world.crash(node);
}

fn connect(world: &mut World, a: usize, b: usize) {
    world.connect(a, b);
    world.run();
}

fn version_between(world: &World, a: usize, b: usize) -> u16 {
    let (status, peer) = (world.nodes[a].engine.status(), world.replica(b));
    status.sessions.iter().find(|session| session.peer == peer).unwrap().version
}

fn likes(world: &World, node: usize, space: SpaceId) -> Result<i128, ReadError> {
    comity_engine::counter(&world.nodes[node].disk.view(), &space, "stats", "likes")
}

#[test]
fn a_session_has_the_highest_version_that_both_sides_speak_at_both_ends() {
    let (mut world, space) = World::mesh(3);
    speak(&mut world, 1, OLD);
    speak(&mut world, 2, NEW);
    connect(&mut world, 0, 1);
    connect(&mut world, 0, 2);
    assert_eq!((version_between(&world, 0, 1), version_between(&world, 1, 0)), (4, 4));
    assert_eq!((version_between(&world, 0, 2), version_between(&world, 2, 0)), (5, 5));
    // Who shares no version with somebody gets what that one writes from who does.
    for node in 0..3 {
        world.add(node, space, 1);
    }
    assert_eq!((0..3).map(|node| world.likes(node, space)).collect::<Vec<_>>(), [3, 3, 3]);
    world.assert_converged(space);
}

#[test]
fn both_sides_learn_that_no_version_is_shared_and_what_each_speaks() {
    let (mut world, space) = World::mesh(2);
    speak(&mut world, 0, OLD);
    speak(&mut world, 1, NEW);
    let session = world.connect(0, 1);
    world.run();
    assert!(!world.is_connected(session));
    let reasons: Vec<_> = (0..2).filter_map(|node| world.close_reason(node, session)).collect();
    assert!(reasons.contains(&CloseReason::Version), "{reasons:?}");
    for (node, ours, theirs) in [(0, OLD, NEW), (1, NEW, OLD)] {
        let refused = world.nodes[node].engine.status().refused;
        assert_eq!((refused.len(), refused[0].ours, refused[0].theirs), (1, ours, theirs));
        assert_eq!(refused[0].peer, world.replica(1 - node));
        assert!(
            refused[0].to_string().contains(&format!("speaks protocol {theirs}, and this replica {ours}"))
        );
        let told = world.nodes[node].notices.iter();
        assert_eq!(told.filter(|notice| matches!(notice, Notice::VersionRefused(_))).count(), 1);
        assert!(world.status(node, space).peers.is_empty());
    }
    // After an upgrade of one of them they go on.
    speak(&mut world, 0, VersionRange::ALL);
    connect(&mut world, 0, 1);
    world.add(0, space, 2);
    assert_eq!(world.likes(1, space), 2);
    assert!((0..2).all(|node| world.nodes[node].engine.status().refused.is_empty()));
}

#[test]
fn an_old_peer_works_with_a_new_one_through_upgrades_and_downgrades() {
    let (mut world, space) = World::mesh(3);
    let ranges = [OLD, VersionRange::ALL, OLD, VersionRange::ALL, NEW];
    for (round, range) in ranges.into_iter().enumerate() {
        speak(&mut world, 1, range);
        speak(&mut world, 2, ranges[(round + 1) % 4]);
        for (a, b) in [(0, 1), (0, 2), (1, 2)] {
            connect(&mut world, a, b);
        }
        for node in 0..3 {
            world.add(node, space, 1);
        }
        world.pass(Duration::from_secs(3));
        world.assert_converged(space);
        assert_eq!(world.likes(2, space), 3 * (round as i128 + 1));
    }
}

#[test]
fn a_range_is_what_this_build_speaks_of_it() {
    assert_eq!(VersionRange::new(0, 900), Some(VersionRange::ALL));
    assert_eq!(VersionRange::new(0, 4), Some(OLD));
    assert_eq!(VersionRange::new(PROTOCOL_VERSION + 1, 900), None);
    assert_eq!(VersionRange::new(5, 4), None);
    assert_eq!(VersionRange { min: 5, max: 3 }.common(VersionRange::ALL), None);
    assert_eq!((PROTOCOL_VERSION_MIN, PROTOCOL_VERSION), (4, 6));
}

#[test]
fn a_lane_goes_up_to_what_an_old_version_cannot_say_and_on_after_the_upgrade() {
    let (mut world, space) = World::mesh(2);
    future(&mut world, 0);
    speak(&mut world, 1, OLD);
    connect(&mut world, 0, 1);
    world.add(0, space, 1);
    let write = |world: &mut World| {
        world.write(0, space, |tx| {
            assert!(tx.speak_of_the_future());
            tx.counter_add("stats", "likes", 10)
        })
    };
    // In one run with what can be said, and with more of it after.
    world.add_unsent(0, space, 2);
    write(&mut world).unwrap();
    world.add(0, space, 4);
    world.pass(Duration::from_secs(1));
    assert_eq!(likes(&world, 0, space), Ok(17));
    assert_eq!(likes(&world, 1, space), Ok(3), "what comes before it arrives");
    assert_eq!(world.nodes[0].engine.status().sessions[0].stopped_lanes, 1);
    assert!(world.sessions().iter().all(|session| world.is_connected(*session)));
    // The other way all goes on.
    world.add(1, space, 100);
    assert_eq!(likes(&world, 0, space), Ok(117));
    speak(&mut world, 1, VersionRange::ALL);
    connect(&mut world, 0, 1);
    assert!(matches!(likes(&world, 1, space), Err(ReadError::Held { .. })), "it arrives, and is not known");
    assert_eq!(world.nodes[0].engine.status().sessions[0].stopped_lanes, 0);
    future(&mut world, 1);
    connect(&mut world, 0, 1);
    world.pass(Duration::from_secs(1));
    assert_eq!(likes(&world, 1, space), Ok(117));
    world.assert_converged(space);
}

#[test]
fn somebody_in_between_passes_on_what_an_old_peer_can_take_of_a_copied_lane() {
    let (mut world, space) = World::mesh(3);
    future(&mut world, 0);
    speak(&mut world, 2, OLD);
    connect(&mut world, 0, 1);
    connect(&mut world, 1, 2);
    world.add(0, space, 2);
    world
        .write(0, space, |tx| {
            tx.speak_of_the_future();
            tx.counter_add("stats", "likes", 10)
        })
        .unwrap();
    world.add(0, space, 4);
    world.pass(Duration::from_secs(1));
    assert_eq!(likes(&world, 2, space), Ok(2), "up to where the lane could be proved");
    let reached = world.status(2, space).frontier;
    speak(&mut world, 2, VersionRange::ALL);
    connect(&mut world, 1, 2);
    assert!(world.status(2, space).frontier != reached);
    world.assert_held_alike(space, (1, 2));
}

#[test]
fn logs_are_kept_for_an_old_peer_that_cannot_take_them() {
    let (mut world, space) = World::mesh(2);
    world.nodes[0].retention = Retention {
        age: Duration::from_secs(1),
        bytes_max: u64::MAX,
        announce_after: Duration::from_secs(1),
    };
    world.nodes[1].retention = world.nodes[0].retention;
    future(&mut world, 0);
    speak(&mut world, 1, OLD);
    connect(&mut world, 0, 1);
    world
        .write(0, space, |tx| {
            tx.speak_of_the_future();
            tx.counter_add("stats", "likes", 10)
        })
        .unwrap();
    for _ in 0..20 {
        world.add(0, space, 1);
        world.nodes.iter_mut().for_each(|node| node.wall_ms += 1_000);
        world.pass(Duration::from_secs(1));
    }
    let (lane, status) = (world.own_lane(0, space), world.status(0, space));
    let floor = status.lanes.iter().find(|status| status.lane == lane).unwrap().floor;
    assert!(floor < status.frontier.at(&lane) - 20, "{status:?}");
    speak(&mut world, 1, VersionRange::ALL);
    future(&mut world, 1);
    connect(&mut world, 0, 1);
    world.pass(Duration::from_secs(1));
    assert_eq!(likes(&world, 1, space), Ok(30));
    world.assert_converged(space);
}

#[test]
fn the_greeting_says_what_is_spoken() {
    let (mut world, _) = World::mesh(2);
    speak(&mut world, 0, OLD);
    let session = world.connect(0, 1);
    world.run();
    let log = &world.link(session).sent(0).log;
    let hello = Message::decode(&log[0].1).unwrap();
    assert!(matches!(hello, Message::Hello(Hello { version_min: 4, version_max: 4, .. })), "{hello:?}");
}
