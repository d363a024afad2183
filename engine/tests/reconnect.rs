//! What a reconnect costs: frames, bytes and round trips. Who serves whom and in which class is in
//! `catch_up.rs`.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod world;

use std::time::Duration;

use comity_crdts::SpaceId;
use comity_engine::SessionId;
use comity_engine::wire::Message;
use world::World;

/// A greeting, with its wall clock.
const HELLO_BYTES: usize = 9;
/// Saying that all is opened that is shared, and that the other has said so.
const SHARED_BYTES: usize = 4;
/// Opening a space, without its lanes.
const SPACE_BYTES: usize = 20;
/// A lane in `Open`: id, hash, subscription, and a position below 128. The own lane takes a byte less,
/// because nobody subscribes to it.
const LANE_BYTES: usize = 27;
/// A lane that one side reports in `Have` by its place.
const HAVE_LANE_BYTES: usize = 6;
/// A run around its entries: frame, flags, count, signature.
const RUN_BYTES: usize = 80;

/// Two nodes with `lanes` lanes between them, converged and disconnected. The lanes beyond two belong to
/// replicas that are gone.
fn parted(lanes: usize) -> (World, SpaceId) {
    let mut world = World::new(lanes);
    let space = world.create_space(0);
    for node in 1..lanes {
        world.join(0, node, space);
    }
    for node in 0..lanes {
        world.add(node, space, 1);
    }
    world.assert_converged(space);
    world.disconnect_all(None);
    (world, space)
}

fn reconnect(world: &mut World) -> SessionId {
    world.observer.forget_counts();
    let session = world.connect(0, 1);
    world.run();
    session
}

fn names(world: &World, session: SessionId, node: usize) -> Vec<String> {
    let log = &world.link(session).sent(node).log;
    let name = |frame: &[u8]| format!("{:?}", Message::decode(frame).unwrap());
    log.iter().map(|(_, frame)| name(frame).split(['(', ' ']).next().unwrap().to_owned()).collect()
}

#[test]
fn with_nothing_new_a_reconnect_in_one_space_is_one_greeting_and_one_opening_each_way() {
    for lanes in [2, 3, 5, 8] {
        let (mut world, _) = parted(lanes);
        let session = reconnect(&mut world);
        for (node, traffic) in [(0, world.traffic(session).0), (1, world.traffic(session).1)] {
            assert_eq!(names(&world, session, node), ["Hello", "Shared", "Open", "Heard"]);
            let stated = HELLO_BYTES + SHARED_BYTES + SPACE_BYTES + lanes * LANE_BYTES - 1;
            assert_eq!(traffic.bytes, stated, "{lanes} lanes");
        }
    }
}

#[test]
fn missing_change_sets_come_once_and_cost_little_more_than_their_payload() {
    for missing in [1, 10, 1_000] {
        let (mut world, space) = parted(2);
        for _ in 0..missing {
            world
                .write_with::<_, comity_engine::TxError>(1, space, Default::default(), |tx| {
                    tx.counter_add("stats", "likes", 1)
                })
                .0
                .unwrap();
        }
        world.run();
        let session = reconnect(&mut world);
        world.assert_converged(space);
        assert_eq!(world.likes(0, space), 2 + missing);
        assert!(world.observer.copies.values().all(|copies| *copies == 1), "no entry is sent twice");
        assert_eq!(world.observer.copies.len() as i128, missing, "no entry is sent that was there");
        let (forth, back) = world.traffic(session);
        let opening = HELLO_BYTES + SHARED_BYTES + SPACE_BYTES + 2 * LANE_BYTES;
        // 10 bytes suffice for an addition; the first of a run also names the counter and the time.
        let payload = 10 * missing as usize + 40;
        let runs = world.observer.runs * RUN_BYTES;
        assert!(back.bytes <= opening + payload + runs, "{missing}: {} bytes", back.bytes);
        assert!(forth.bytes <= opening + world.observer.runs * HAVE_LANE_BYTES + 6, "{} bytes", forth.bytes);
    }
}

#[test]
fn missing_data_arrives_after_one_round_trip() {
    let (mut world, space) = parted(2);
    world.add(1, space, 10);
    world.connect(0, 1);
    assert_eq!(world.hops_until_equal(space, (0, 1)), 2, "opening there, data back");
}

#[test]
fn both_sides_exchange_what_they_wrote_apart_in_one_round_trip() {
    let (mut world, space) = parted(3);
    for _ in 0..5 {
        world.add(0, space, 1);
        world.add(1, space, 100);
    }
    let before = world.clock;
    world.observer.forget_counts();
    world.connect(0, 1);
    world.hop();
    world.hop();
    for node in [0, 1] {
        assert_eq!(world.likes(node, space), 3 + 505, "node {node}");
    }
    assert_eq!(world.clock, before, "no timer was needed");
    world.run();
    assert!(world.observer.copies.values().all(|copies| *copies == 1));
    assert_eq!(world.observer.copies.len(), 10);
}

#[test]
fn an_owner_that_returns_is_followed_at_once_although_its_lane_has_another_parent() {
    let (mut world, space) = World::mesh(3);
    for node in 0..3 {
        world.add(node, space, 1);
    }
    world.disconnect_all(Some(2));
    world.pass(Duration::from_secs(3));
    let lane = world.own_lane(2, space);
    let followed = |world: &World| {
        let lanes = world.status(0, space).lanes;
        lanes.iter().find(|status| status.lane == lane).unwrap().parent
    };
    assert_eq!(followed(&world), Some(world.replica(1)), "in the meantime the other one stands in");
    world.add(2, space, 1_000);
    world.connect(0, 2);
    assert_eq!(world.hops_until_equal(space, (0, 2)), 2);
    assert_eq!(followed(&world), Some(world.replica(2)));
}

#[test]
fn in_a_mesh_at_rest_every_replica_is_sent_every_entry_once() {
    let (mut world, space) = World::mesh(3);
    for node in 0..3 {
        world.add(node, space, 1);
    }
    world.pass(Duration::from_secs(3));
    world.observer.forget_counts();
    for round in 0..10 {
        for node in 0..3 {
            world.add(node, space, round);
        }
    }
    world.assert_converged(space);
    assert_eq!(world.observer.copies.len(), 60, "30 entries to 2 others each");
    assert!((world.observer.copies_per_entry() - 1.0).abs() < f64::EPSILON);
}

#[test]
fn a_small_write_reaches_another_replica_and_is_acknowledged_in_few_bytes() {
    let (mut world, space) = parted(2);
    let session = reconnect(&mut world);
    world.add(1, space, 1);
    let (forth, back) = world.traffic(session);
    world.add(1, space, 1);
    let after = world.traffic(session);
    let (data, have) = (after.1.bytes - back.bytes, after.0.bytes - forth.bytes);
    assert!(data <= RUN_BYTES + 14, "the write took {data} bytes");
    assert!(have <= HAVE_LANE_BYTES, "its acknowledgement took {have} bytes");
    assert_eq!((after.1.frames - back.frames, after.0.frames - forth.frames), (1, 1));
}
