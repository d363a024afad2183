//! Catching up in parts, from several peers at once; and what is encoded once for all who catch up.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod world;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use comity_crdts::{SpaceId, Value};
use comity_engine::wire::{Data, Have, LaneRef, Message, PROTOCOL_VERSION, Range};
use comity_engine::{CloseReason, Command, Durability, Notice, Role, SessionId, TxError, VersionRange};
use world::ghost::{Ghost, hello, open};
use world::{World, noise};

/// Entries so long that a stream comes to the end of its window before others have said what they have.
const LONG: usize = 60_000;
/// Entries in a segment here.
const SEGMENT: u64 = 8;

/// Replicas of one space that hold the same, with small segments; connected to nobody.
fn replicas(count: usize) -> (World, SpaceId) {
    let (mut world, space) = World::mesh(count);
    world.disconnect_all(None);
    for node in 0..count {
        divide(&mut world, node);
    }
    (world, space)
}

fn divide(world: &mut World, node: usize) {
    world.nodes[node].segment_entries = SEGMENT;
    world.crash(node);
}

/// Node 0 writes one entry at a time, so that each is signed, and the others in `to` get them as they are made.
fn write_for(world: &mut World, space: SpaceId, (entries, bytes): (u64, usize), to: &[usize]) {
    let sessions: Vec<SessionId> = to.iter().map(|node| world.connect(0, *node)).collect();
    world.run();
    for entry in 0..entries {
        let value = Value::Bytes(noise(entry, bytes));
        world.write(0, space, |tx| tx.register_write("blobs", &format!("{entry}"), value)).unwrap();
        world.run();
    }
    sessions.into_iter().for_each(|session| world.disconnect(session));
    world.observer.forget_counts();
}

/// Two replicas hold the same.
fn assert_same(world: &World, space: SpaceId, (a, b): (usize, usize)) {
    let (a, b) = (world.status(a, space), world.status(b, space));
    assert_eq!((a.frontier, a.digest), (b.frontier, b.digest));
}

/// Lets frames arrive until a node has asked for a part on a session.
fn run_until_asked(world: &mut World, node: usize, session: SessionId) -> Vec<Range> {
    for _ in 0..1_000 {
        let ranges = asked(world, node, session);
        if !ranges.is_empty() {
            return ranges;
        }
        world.hop();
    }
    panic!("nothing was asked for");
}

/// A member that the test speaks for. It says on a session with node 2 that it has the lane of node 0 up to an entry.
fn helper(world: &mut World, space: SpaceId, until: u64) -> SessionId {
    let ghost = Ghost::new(7, space);
    world.command(0, Command::Grant { space, replica: ghost.replica(), role: Role::Writer }).unwrap();
    let session = world.connect(0, 2);
    world.run();
    world.disconnect(session);
    let lane = world.own_lane(0, space);
    let session = world.connect_ghost(2, ghost.replica());
    world.inject(2, session, hello());
    world.run();
    world.inject(2, session, open(space, &[]));
    let has = Have { space_ref: 0, lanes: vec![(LaneRef::New(lane), until)] };
    world.inject(2, session, Message::Have(has).encode());
    session
}

/// The parts that a node asked for on a session.
fn asked(world: &World, node: usize, session: SessionId) -> Vec<Range> {
    let log = &world.link(session).sent(node).log;
    let ranges = log.iter().filter_map(|(_, frame)| match Message::decode(frame).unwrap() {
        Message::Range(range) => Some(range),
        _ => None,
    });
    ranges.collect()
}

/// The runs that a node sent on a session, by their first entries.
fn runs(world: &World, node: usize, session: SessionId) -> BTreeMap<u64, Vec<u8>> {
    let mut runs = BTreeMap::new();
    for (_, frame) in &world.link(session).sent(node).log {
        if let Message::Data(data) = Message::decode(frame).unwrap() {
            let run: &mut Vec<u8> = runs.entry(data.first).or_default();
            run.extend_from_slice(data.bytes);
        }
    }
    runs
}

#[test]
fn what_several_have_is_fetched_in_parts_from_all_of_them_and_once() {
    let (mut world, space) = replicas(3);
    write_for(&mut world, space, (200, LONG), &[1]);
    let (to_owner, to_other) = (world.connect(2, 0), world.connect(2, 1));
    world.run();
    assert_same(&world, space, (0, 2));
    let (of_owner, of_other) = (asked(&world, 2, to_owner), asked(&world, 2, to_other));
    assert!(of_owner.len() > 1 && of_other.len() > 1, "{} and {}", of_owner.len(), of_other.len());
    let mut parts: Vec<(u64, u64)> =
        of_owner.iter().chain(&of_other).map(|range| (range.from, range.until)).collect();
    parts.sort_unstable();
    for pair in parts.windows(2) {
        assert_eq!(pair[0].1 + 1, pair[1].0, "every entry is asked of one");
    }
    let copies = world.observer.copies_per_entry();
    assert!((copies - 1.0).abs() < f64::EPSILON, "{copies} copies of what was missing");
    // And it goes on as a stream.
    let before = asked(&world, 2, to_owner).len();
    world.add(0, space, 1);
    world.run();
    assert_same(&world, space, (0, 2));
    assert_eq!(asked(&world, 2, to_owner).len(), before);
}

#[test]
fn of_long_entries_fewer_are_asked_for_at_once() {
    let (mut world, space) = World::mesh(3);
    world.disconnect_all(None);
    write_for(&mut world, space, (300, LONG), &[1]);
    let sessions = [world.connect(2, 0), world.connect(2, 1)];
    world.run();
    assert_same(&world, space, (0, 2));
    let parts: Vec<Range> = sessions.iter().flat_map(|session| asked(&world, 2, *session)).collect();
    assert!(parts.len() > 3, "{parts:?}");
    assert!(parts.iter().all(|range| range.until % 16 == 0), "16 of them are nearly a MiB: {parts:?}");
    let copies = world.observer.copies_per_entry();
    assert!((copies - 1.0).abs() < f64::EPSILON, "{copies} copies of what was missing");
}

#[test]
fn a_stream_that_is_under_way_ends_at_a_segment_when_somebody_else_can_help() {
    let (mut world, space) = replicas(3);
    write_for(&mut world, space, (300, LONG), &[1]);
    // The owner has sent much before the other one is there.
    let to_owner = world.connect(2, 0);
    for _ in 0..4 {
        world.hop();
    }
    let to_other = world.connect(2, 1);
    world.run();
    assert_same(&world, space, (0, 2));
    let copies = world.observer.copies_per_entry();
    assert!((copies - 1.0).abs() < f64::EPSILON, "{copies} copies of what was missing");
    let limited = world.link(to_owner).sent(0).log.iter().find_map(|(_, frame)| {
        match Message::decode(frame).unwrap() {
            Message::Limited(limited) => Some(limited.last),
            _ => None,
        }
    });
    if let Some(last) = limited {
        assert!(asked(&world, 2, to_other).iter().all(|range| range.from > last));
    }
}

#[test]
fn what_a_peer_that_is_gone_was_asked_for_is_asked_of_others() {
    let (mut world, space) = replicas(4);
    write_for(&mut world, space, (200, LONG), &[1, 2]);
    let sessions: Vec<SessionId> = (0..3).map(|node| world.connect(3, node)).collect();
    // One of them has not sent anything when its connection ends.
    world.link_mut(sessions[1]).stalled = true;
    for _ in 0..8 {
        world.hop();
    }
    world.link_mut(sessions[1]).stalled = false;
    world.disconnect(sessions[1]);
    world.run();
    assert_same(&world, space, (0, 3));
}

#[test]
fn who_says_nothing_does_not_hold_up_a_lane() {
    let (mut world, space) = replicas(4);
    write_for(&mut world, space, (200, LONG), &[1, 2]);
    let sessions: Vec<SessionId> = (0..3).map(|node| world.connect(3, node)).collect();
    run_until_asked(&mut world, 3, sessions[1]);
    world.link_mut(sessions[1]).stalled = true;
    world.run();
    world.pass(Duration::from_secs(20));
    assert_same(&world, space, (0, 3));
    let lane = world.own_lane(0, space);
    let status = world.status(3, space);
    let parent = status.lanes.iter().find(|of| of.lane == lane).unwrap().parent;
    assert_eq!(parent, Some(world.replica(0)), "it is received from its owner again");
}

#[test]
fn a_copy_ends_parts_where_its_owner_signed_nothing() {
    let (mut world, space) = replicas(4);
    // Signed only where runs of it end.
    for entry in 0..200 {
        let value = Value::Bytes(noise(entry, LONG));
        let (result, _) = world.write_with::<_, TxError>(0, space, Durability::Local, |tx| {
            tx.register_write("blobs", &format!("{entry}"), value)
        });
        result.unwrap();
    }
    world.sync(0);
    for node in [1, 2] {
        world.connect(0, node);
    }
    world.run();
    world.disconnect_all(None);
    world.observer.forget_counts();
    let sessions = [world.connect(3, 1), world.connect(3, 2)];
    world.run();
    assert_same(&world, space, (0, 3));
    let parts: Vec<Range> = sessions.iter().flat_map(|session| asked(&world, 3, *session)).collect();
    assert!(parts.len() > 3, "{parts:?}");
    let copies = world.observer.copies_per_entry();
    assert!((copies - 1.0).abs() < f64::EPSILON, "{copies} copies of what was missing");
}

#[test]
fn all_are_sent_the_same_bytes_of_what_is_sealed() {
    let (mut world, space) = replicas(4);
    write_for(&mut world, space, (60, 10), &[1]);
    // The third one lacks less, and comes to the same runs at the next segment.
    let early = world.connect(0, 3);
    for _ in 0..6 {
        world.hop();
    }
    world.run();
    let late = world.connect(0, 2);
    world.run();
    assert_same(&world, space, (2, 3));
    let (first, second) = (runs(&world, 0, early), runs(&world, 0, late));
    let sealed: Vec<u64> = first.keys().copied().filter(|first| first % SEGMENT == 1).collect();
    assert!(sealed.len() >= 6, "{sealed:?}");
    let same = |from: &&u64| second.get(from) == first.get(from);
    assert!(sealed[1..sealed.len() - 1].iter().all(|from| same(&from)), "sealed runs are sent as they are");
    let different: BTreeSet<&u64> = first.keys().filter(|from| !same(from)).collect();
    assert!(different.iter().all(|from| !sealed[1..sealed.len() - 1].contains(from)));
}

#[test]
fn a_peer_that_sends_something_else_is_asked_for_no_more_and_the_part_comes_from_another() {
    for wrong in [b"nothing of the kind".to_vec(), Vec::new()] {
        let (mut world, space) = replicas(3);
        let session = helper(&mut world, space, 190);
        write_for(&mut world, space, (200, LONG), &[1]);
        world.connect(2, 0);
        world.connect(2, 1);
        let parts = run_until_asked(&mut world, 2, session);
        for range in parts {
            let (subscription, first) = (range.subscription, range.from);
            let data = Data { subscription, more: false, awaited: false, ends: true, first, bytes: &wrong };
            world.inject(2, session, Message::Data(data).encode());
        }
        world.run();
        world.pass(Duration::from_secs(10));
        // It may be on the other branch of a fork, so the connection stays; and it can do that once.
        assert_eq!(world.close_reason(2, session), None);
        let unfit = |notice: &&Notice| matches!(notice, Notice::PartUnfit { .. });
        assert_eq!(world.nodes[2].notices.iter().filter(unfit).count(), 1);
        assert_same(&world, space, (0, 2));
    }
}

#[test]
fn a_part_is_not_sent_twice_nor_beyond_what_may_wait() {
    let (mut world, space) = replicas(3);
    let session = helper(&mut world, space, 190);
    write_for(&mut world, space, (200, LONG), &[1]);
    let others = [world.connect(2, 0), world.connect(2, 1)];
    let range = run_until_asked(&mut world, 2, session).pop().unwrap();
    for other in others {
        world.link_mut(other).stalled = true;
    }
    let much = vec![0; 100_000];
    let mut sent = 0;
    while world.is_connected(session) && sent < 20_000_000 {
        let (subscription, first) = (range.subscription, range.from);
        let data = Data { subscription, more: false, awaited: false, ends: false, first, bytes: &much };
        world.inject(2, session, Message::Data(data).encode());
        sent += much.len();
    }
    let reason = world.close_reason(2, session);
    assert!(matches!(reason, Some(CloseReason::Window | CloseReason::Malformed)), "{reason:?} after {sent}");
}

#[test]
fn a_peer_of_an_earlier_version_is_not_asked_for_parts() {
    let (mut world, space) = replicas(3);
    world.nodes[1].versions = VersionRange::new(4, PROTOCOL_VERSION - 1).unwrap();
    world.crash(1);
    write_for(&mut world, space, (200, LONG), &[1]);
    let (to_owner, to_other) = (world.connect(2, 0), world.connect(2, 1));
    world.run();
    assert_same(&world, space, (0, 2));
    assert!(asked(&world, 2, to_owner).is_empty() && asked(&world, 2, to_other).is_empty());
}
