//! Much that is missing at once, much that keeps coming, and who serves whom meanwhile: windows, classes,
//! relays, grafts.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod world;

use std::collections::BTreeMap;
use std::time::Duration;

use comity_crdts::{Hlc, Kind, LaneId, ObjectAddress, SpaceId, Value};
use comity_engine::wire::{Body, Group, Have, Join, LaneRef, LaneTip, Message, Op, Subscribe};
use comity_engine::{Class, Durability, Role, SessionId, TxError};
use world::ghost::{Ghost, data, hello, open};
use world::{World, noise};

const MIB: usize = 1024 * 1024;
/// The window of a lane that is catching up.
const CATCH_UP_WINDOW: usize = 8 * MIB;
/// The window of a session.
const SESSION_WINDOW: usize = 16 * MIB;
/// The largest run: one may go beyond a window.
const RUN_MAX: usize = MIB + 256 * 1024;

/// Writes `bytes` in change sets of about 240 KB, without letting anything else happen.
fn write_much(world: &mut World, node: usize, space: SpaceId, bytes: usize) {
    for round in 0..bytes / 240_000 {
        let (result, _) = world.write_with::<_, TxError>(node, space, Durability::Local, |tx| {
            for part in 0..4 {
                let key = format!("{node}/{round}/{part}");
                tx.register_write("blobs", &key, Value::Bytes(noise(round as u64, 60_000)))?;
            }
            tx.counter_add("stats", "likes", 1)
        });
        result.unwrap();
        world.sync(node);
    }
}

/// Runs in one direction of a session: class, subscription, first entry, bytes.
fn runs(world: &World, session: SessionId, node: usize) -> Vec<(Class, u32, u64, usize)> {
    let mut runs: Vec<(Class, u32, u64, usize)> = Vec::new();
    let mut open = BTreeMap::new();
    for (class, frame) in &world.link(session).sent(node).log {
        let Message::Data(data) = Message::decode(frame).unwrap() else { continue };
        let bytes = open.remove(&data.subscription).unwrap_or(0) + data.bytes.len();
        if data.more {
            open.insert(data.subscription, bytes);
        } else {
            runs.push((*class, data.subscription, data.first, bytes));
        }
    }
    runs
}

#[test]
fn a_lane_of_several_megabytes_arrives_within_the_window_and_once() {
    let mut world = World::new(2);
    let space = world.create_space(0);
    let session = world.join(0, 1, space);
    world.disconnect(session);
    write_much(&mut world, 0, space, 20_000_000);
    world.observer.forget_counts();
    world.nodes[1].manual_sync = true;
    let session = world.connect(0, 1);
    world.drain_steps();
    let before_any_acknowledgement = world.observer.run_bytes;
    assert!(before_any_acknowledgement >= CATCH_UP_WINDOW, "the window is used");
    assert!(before_any_acknowledgement <= CATCH_UP_WINDOW + RUN_MAX, "{before_any_acknowledgement}");
    world.nodes[1].manual_sync = false;
    world.run();
    world.assert_converged(space);
    assert!(world.observer.copies.values().all(|copies| *copies == 1));
    let classes: Vec<Class> = runs(&world, session, 0).iter().map(|(class, ..)| *class).collect();
    assert_eq!(classes.first(), Some(&Class::CatchUp), "what was missed does not hold up what is urgent");
    world.add(0, space, 1);
    assert_eq!(runs(&world, session, 0).last().unwrap().0, Class::Live, "what happens now is urgent");
}

#[test]
fn a_catch_up_becomes_durable_in_batches_so_that_nothing_else_waits_for_all_of_it() {
    let mut world = World::new(2);
    let space = world.create_space(0);
    let session = world.join(0, 1, space);
    world.disconnect(session);
    write_much(&mut world, 0, space, 6_000_000);
    let lane = world.own_lane(0, space);
    let last = world.status(0, space).durable.at(&lane);
    world.nodes[1].manual_sync = true;
    world.connect(0, 1);
    world.drain_steps();
    let mut durable = world.status(1, space).durable.at(&lane);
    let mut syncs = 0;
    while durable < last {
        world.sync(1);
        world.drain_steps();
        let now = world.status(1, space).durable.at(&lane);
        assert!(now > durable, "it goes on after each sync");
        // A batch ends with the run that makes it half a MiB, and one is made up while another is synced.
        assert!(now - durable <= 8, "{} entries of 240 KB or less in one sync", now - durable);
        (durable, syncs) = (now, syncs + 1);
    }
    assert!(syncs > 3);
    world.nodes[1].manual_sync = false;
    world.run();
    world.assert_converged(space);
}

#[test]
fn what_is_written_in_one_space_does_not_wait_until_another_is_caught_up_on() {
    // Whichever of the two comes first in every order.
    let mut world = World::new(2);
    let spaces = [world.create_space(0), world.create_space(0)];
    for space in spaces {
        let session = world.join(0, 1, space);
        world.run();
        world.disconnect(session);
    }
    for (busy, quiet) in [(spaces[0], spaces[1]), (spaces[1], spaces[0])] {
        world.disconnect_all(None);
        write_much(&mut world, 0, busy, 6_000_000);
        world.nodes[1].manual_sync = true;
        world.connect(0, 1);
        world.drain_steps();
        world.add_unsent(0, quiet, 1);
        world.sync(0);
        world.drain_steps();
        let written = world.likes(0, quiet);
        for _ in 0..2 {
            world.sync(1);
            world.drain_steps();
        }
        assert_eq!(world.likes(1, quiet), written, "it is applied beside what is caught up on");
        let (ahead, behind) = (world.status(0, busy).durable, world.status(1, busy).durable);
        assert!(behind.distance_from(&ahead) == 0 && ahead.distance_from(&behind) > 0, "which goes on");
        world.nodes[1].manual_sync = false;
        world.run();
    }
}

/// Each space would otherwise wait for a sync of its own, and all the others be looked at after each.
#[test]
fn what_is_ready_in_many_spaces_becomes_durable_together() {
    const SPACES: usize = 40;
    let mut world = World::new(2);
    let spaces: Vec<SpaceId> = (0..SPACES).map(|_| world.create_space(0)).collect();
    for space in &spaces {
        world.join(0, 1, *space);
        world.add(0, *space, 1);
    }
    world.disconnect_all(None);
    world.nodes[1].manual_sync = true;
    for space in &spaces {
        world.add(0, *space, 1);
    }
    world.connect(0, 1);
    let mut syncs = 0;
    while spaces.iter().any(|space| world.likes(1, *space) < 2) {
        world.run();
        assert!(world.nodes[1].sync_wanted, "after {syncs} syncs it does not go on");
        world.sync(1);
        syncs += 1;
    }
    assert!(syncs <= 3, "{SPACES} changes took {syncs} syncs");
}

#[test]
fn the_window_of_a_session_bounds_all_its_lanes_together() {
    let (mut world, space) = World::mesh(6);
    world.disconnect_all(None);
    for node in 0..6 {
        write_much(&mut world, node, space, 5_100_000);
    }
    for node in 1..5 {
        world.connect(5, node);
    }
    world.run();
    world.disconnect_all(None);
    world.observer.forget_counts();
    world.nodes[0].manual_sync = true;
    world.connect(5, 0);
    world.drain_steps();
    let sent = world.observer.run_bytes;
    assert!(sent <= SESSION_WINDOW + 5 * RUN_MAX, "{sent} bytes without acknowledgement");
    world.nodes[0].manual_sync = false;
    world.run();
    assert_eq!(world.status(0, space).digest, world.status(5, space).digest);
}

#[test]
fn lanes_that_wait_cannot_keep_the_lane_they_wait_for_out_of_the_window() {
    let (mut world, space) = World::mesh(7);
    for node in 0..7 {
        world.add(node, space, 1);
    }
    // The lane that comes last in every order writes what all the others build on.
    let last = (1..7).max_by_key(|node| world.own_lane(*node, space)).unwrap();
    world.disconnect_all(Some(0));
    world.add(last, space, 1_000);
    for node in (1..7).filter(|node| *node != last) {
        write_much(&mut world, node, space, 5_100_000);
    }
    world.run();
    let hub = if last == 1 { 2 } else { 1 };
    world.connect(hub, 0);
    world.run();
    world.disconnect_all(None);
    world.assert_converged(space);
}

#[test]
fn a_change_set_of_almost_a_megabyte_travels_in_frames() {
    let (mut world, space) = World::mesh(2);
    world
        .write(0, space, |tx| {
            (0..17)
                .try_for_each(|n| tx.register_write("blobs", &n.to_string(), Value::Bytes(noise(n, 60_000))))
        })
        .unwrap();
    world.assert_converged(space);
    let session = world.sessions()[0];
    let (_, _, _, bytes) = *runs(&world, session, 0).last().unwrap();
    assert!((1_020_000..MIB + 1_000).contains(&bytes));
    let frames = &world.link(session).sent(0).log;
    assert!(frames.iter().filter(|(_, frame)| frame.len() > 200_000).count() >= 4);
}

#[test]
fn nothing_is_overtaken_when_urgent_streams_are_delivered_first() {
    for class_order in
        [[Class::Live, Class::Control, Class::CatchUp], [Class::CatchUp, Class::Live, Class::Control]]
    {
        let mut world = World::new(2);
        let space = world.create_space(0);
        let session = world.join(0, 1, space);
        world.disconnect(session);
        write_much(&mut world, 0, space, 6_000_000);
        world.class_order = class_order;
        world.connect(1, 0);
        // While the node catches up, the other one goes on writing.
        for _ in 0..40 {
            let (result, _) = world.write_with::<_, TxError>(0, space, Durability::Local, |tx| {
                tx.counter_add("stats", "likes", 1)
            });
            result.unwrap();
            for _ in 0..3 {
                world.step();
            }
        }
        world.run();
        world.assert_converged(space);
        assert!(world.nodes.iter().all(|node| node.closed.is_empty()));
    }
}

/// A line: node 0 founds, node 1 is in the middle, node 2 hears of node 0 through it only.
fn line() -> (World, SpaceId) {
    let mut world = World::new(3);
    let space = world.create_space(0);
    world.join(0, 1, space);
    let at_first = world.join(0, 2, space);
    world.disconnect(at_first);
    world.connect(1, 2);
    world.run();
    (world, space)
}

#[test]
fn a_relay_passes_on_what_is_durable_while_more_keeps_coming() {
    let (mut world, space) = line();
    world.nodes[1].manual_sync = true;
    let lane = world.own_lane(0, space);
    world.add_without_time(0, space, 1);
    for round in 0..50 {
        // The relay is syncing what came before: this entry waits there when the sync ends.
        world
            .write_with::<_, TxError>(0, space, Durability::Local, |tx| tx.counter_add("stats", "likes", 1))
            .0
            .unwrap();
        world.drain_steps();
        world.sync(1);
        world.drain_steps();
        let [relay, leaf] = [1, 2].map(|node| world.status(node, space).durable.at(&lane));
        assert_eq!(leaf, relay, "round {round}: the leaf has what is durable at the relay");
    }
    world.nodes[1].manual_sync = false;
    world.run();
    world.assert_converged(space);
}

#[test]
fn a_copy_of_many_tiny_entries_is_served_in_runs_that_are_accepted() {
    let (mut world, space) = line();
    world.disconnect_all(Some(2));
    for _ in 0..9_000 {
        world
            .write_with::<_, TxError>(0, space, Durability::Local, |tx| tx.counter_add("s", "l", 1))
            .0
            .unwrap();
    }
    world.run();
    world.disconnect_all(Some(0));
    world.connect(1, 2);
    world.run();
    world.assert_converged(space);
    assert!(world.nodes.iter().all(|node| node.closed.is_empty()), "{:?}", world.nodes[1].closed);
}

#[test]
fn a_copy_with_long_names_is_served_in_runs_that_are_accepted() {
    let (mut world, space) = line();
    world.disconnect_all(Some(2));
    let (collection, key) = ("c".repeat(128), "k".repeat(500));
    for round in 0..60 {
        // Live runs: by now names are references, so that a run of many entries is small.
        for n in 0..100 {
            let key = format!("{key}{n:03}");
            world
                .write_with::<_, TxError>(0, space, Durability::Local, |tx| {
                    tx.counter_add(&collection, &key, round)
                })
                .0
                .unwrap();
        }
        world.run();
    }
    world.disconnect_all(Some(0));
    world.connect(1, 2);
    world.run();
    world.assert_converged(space);
    assert!(world.nodes.iter().all(|node| node.closed.is_empty()), "{:?}", world.nodes[1].closed);
}

/// A founder, two relays and a leaf that is connected to the relays only.
fn diamond() -> (World, SpaceId, [SessionId; 2]) {
    let (mut world, space) = World::mesh(4);
    for node in 0..4 {
        world.add(node, space, 1);
    }
    let direct = world.session_between(0, 3).unwrap();
    world.disconnect(direct);
    world.pass(Duration::from_secs(3));
    let sessions = [1, 2].map(|relay| world.session_between(relay, 3).unwrap());
    (world, space, sessions)
}

fn parent(world: &World, space: SpaceId, node: usize, lane: LaneId) -> Option<usize> {
    let lanes = world.status(node, space).lanes;
    let parent = lanes.iter().find(|status| status.lane == lane)?.parent?;
    (0..world.nodes.len()).find(|other| world.replica(*other) == parent)
}

#[test]
fn a_relay_that_is_stuck_is_left_for_one_that_is_not() {
    let (mut world, space, sessions) = diamond();
    let lane = world.own_lane(0, space);
    let first = parent(&world, space, 3, lane).expect("the leaf follows somebody");
    world.link_mut(sessions[first - 1]).stalled = true;
    let before = world.clock;
    world.add(0, space, 50);
    assert_eq!(world.likes(3, space), 54);
    assert_eq!(parent(&world, space, 3, lane), Some(3 - first));
    assert!(world.clock - before <= Duration::from_millis(2_100));
}

#[test]
fn a_relay_that_claims_to_have_the_most_and_sends_nothing_is_left_too() {
    let (mut world, space, sessions) = diamond();
    let lane = world.own_lane(0, space);
    let first = parent(&world, space, 3, lane).expect("the leaf follows somebody");
    // It says that it is far ahead, and the frames with the entries never arrive.
    let stuck = sessions[first - 1];
    let place = world.link(stuck).sent(first).log.iter().find_map(|(_, frame)| {
        match Message::decode(frame).unwrap() {
            Message::Open(open) => open.lanes.iter().position(|open| open.lane == lane),
            _ => None,
        }
    });
    let claim = Have { space_ref: 0, lanes: vec![(LaneRef::Known(place.unwrap() as u32), 1_000_000)] };
    world.inject(3, stuck, Message::Have(claim).encode());
    world.link_mut(stuck).stalled = true;
    world.add(0, space, 50);
    world.pass(Duration::from_secs(1));
    assert_eq!(world.likes(3, space), 54);
}

#[test]
fn an_owner_that_dies_leaves_nobody_behind_anybody() {
    let (mut world, space, _) = diamond();
    // One relay has the owner's last words, the other does not.
    let [deaf, between, below] = [0, 1, 3].map(|other| world.session_between(2, other).unwrap());
    for session in [deaf, between, below] {
        world.link_mut(session).stalled = true;
    }
    world.add(0, space, 7);
    assert_eq!((world.likes(1, space), world.likes(2, space)), (11, 4));
    world.disconnect_all(Some(0));
    world.link_mut(between).stalled = false;
    world.link_mut(below).stalled = false;
    world.run();
    for node in [1, 2, 3] {
        assert_eq!(world.likes(node, space), 11, "node {node}");
    }
}

#[test]
fn links_slower_than_patience_do_not_keep_a_lane_from_arriving() {
    let (mut world, space, _) = diamond();
    let lane = world.own_lane(0, space);
    // Every frame takes 400 ms, the owner writes all the time, both relays announce.
    let mut worst = 0;
    for round in 0..60 {
        world
            .write_with::<_, TxError>(0, space, Durability::Local, |tx| tx.counter_add("stats", "likes", 1))
            .0
            .unwrap();
        world.slow_hop(Duration::from_millis(400));
        let [owner, leaf] = [0, 3].map(|node| world.status(node, space).durable.at(&lane));
        if round > 20 {
            worst = worst.max(owner - leaf);
        }
    }
    assert!(worst <= 12, "the leaf is {worst} writes behind, each way takes two delays");
    world.observer.forget_counts();
    for _ in 0..30 {
        world
            .write_with::<_, TxError>(0, space, Durability::Local, |tx| tx.counter_add("stats", "likes", 1))
            .0
            .unwrap();
        world.slow_hop(Duration::from_millis(400));
    }
    let copies = world.observer.copies_per_entry();
    assert!(copies <= 1.5, "{copies} copies of each entry");
}

#[test]
fn who_returns_over_links_slower_than_patience_stays_with_somebody_long_enough() {
    let (mut world, space, _) = diamond();
    let lane = world.own_lane(0, space);
    world.disconnect_all(Some(3));
    world.add(0, space, 1);
    world.connect(3, 1);
    world.connect(3, 2);
    for _ in 0..16 {
        world.add_unsent(0, space, 1);
        world.slow_hop(Duration::from_millis(400));
    }
    let [owner, leaf] = [0, 3].map(|node| world.status(node, space).durable.at(&lane));
    assert!(owner - leaf <= 4, "the leaf is {} writes behind", owner - leaf);
}

#[test]
fn a_lane_served_from_the_middle_starts_where_the_subscriber_stands() {
    let (mut world, space) = World::mesh(2);
    for _ in 0..10 {
        world.add(0, space, 1);
    }
    let lane = world.own_lane(0, space);
    let ghost = Ghost::new(9, space);
    let secret = world.invite(0, space, Role::Writer);
    let session = world.connect_ghost(0, ghost.replica());
    world.inject(0, session, hello());
    let join = Join { space, secret };
    world.inject(0, session, Message::Join(join).encode());
    world.inject(0, session, open(space, &[]));
    world.run();
    let subscribe = Subscribe { space, subscription: 3, lane, from: 1, hash: start_hash(space, lane) };
    world.inject(0, session, Message::Subscribe(subscribe).encode());
    world.run();
    let sent = runs(&world, session, 0);
    assert_eq!(sent.iter().map(|(_, number, first, _)| (*number, *first)).collect::<Vec<_>>(), [(3, 1)]);
}

fn start_hash(space: SpaceId, lane: LaneId) -> [u8; 8] {
    LaneTip::start(&space, &lane).hash.prefix()
}

/// A member that holds a lane of another ghost, says so, and is subscribed to or not.
fn relay(world: &mut World, seed: u8, lane: &Ghost) -> SessionId {
    let member = Ghost::new(seed, lane.space);
    let secret = world.invite(0, lane.space, Role::Writer);
    let session = world.connect_ghost(0, member.replica());
    world.inject(0, session, hello());
    world.inject(0, session, Message::Join(Join { space: lane.space, secret }).encode());
    let count = lane.entries.len();
    let claim = (lane.lane(), count as u64, lane.tip(count).hash.prefix());
    world.inject(0, session, open(lane.space, &[claim]));
    world.run();
    session
}

#[test]
fn a_lane_that_waits_is_not_asked_for_elsewhere_until_there_is_room_for_another_window() {
    let mut world = World::new(1);
    let space = world.create_space(0);
    let (mut needed, mut lane) = (Ghost::new(30, space), Ghost::new(31, space));
    needed.add(1);
    for _ in 0..80 {
        let blob = Value::Bytes(vec![7; 60_000]);
        let address = ObjectAddress::new(Kind::Register, "blobs", "k").unwrap();
        let ops = vec![Op::RegisterSet { value: blob, hlc: Hlc::new(1 << 47, 1), observed: Vec::new() }];
        let mut entry = lane.draft(vec![Group { address, ops }]);
        entry.admitted.advance(needed.lane(), 1);
        if let Body::Change(change) = &mut entry.body {
            change.context = entry.admitted.clone();
        }
        lane.append(entry);
    }
    let (owner, _) = world.admit(0, &lane);
    world.disconnect(owner);
    let first = relay(&mut world, 40, &lane);
    let number = world.subscription(0, first, lane.lane()).unwrap();
    for from in 0..60 {
        world.inject(0, first, data(number, from as u64 + 1, &lane.run(from, from + 1)));
    }
    let second = relay(&mut world, 41, &lane);
    world.pass(Duration::from_secs(5));
    assert_eq!(world.subscription(0, second, lane.lane()), None, "its parent is not at fault");
    world.disconnect(first);
    world.pass(Duration::from_secs(5));
    assert_eq!(world.subscription(0, second, lane.lane()), None, "a window more would not fit");
    let (session, number) = world.admit(0, &needed);
    world.inject(0, session, data(number, 1, &needed.run(0, 1)));
    world.run();
    assert_eq!(world.status(0, space).frontier.at(&lane.lane()), 60);
    let number = world.subscription(0, second, lane.lane()).expect("there is room");
    world.inject(0, second, data(number, 61, &lane.run(60, 80)));
    world.run();
    assert_eq!(world.status(0, space).frontier.at(&lane.lane()), 80);
}
