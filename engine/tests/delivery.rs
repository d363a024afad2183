//! Causal order, atomicity, durability before release, exactly once; crashes between any two steps. Random
//! schedules of all of these are in `schedule.rs`.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod world;

use std::time::Duration;

use comity_crdts::{SpaceId, Value};
use comity_engine::{Durability, Notice, TxError};
use world::World;
use world::model::Model;

/// A writes, B sees it and writes, C hears B only.
fn b_ahead_of_a_at_c() -> (World, SpaceId) {
    let (mut world, space) = World::mesh(3);
    for node in 0..3 {
        world.add(node, space, 1);
    }
    let direct = world.session_between(0, 2).unwrap();
    world.link_mut(direct).stalled = true;
    (world, space)
}

#[test]
fn an_entry_waits_for_what_its_author_had_seen_and_the_status_says_for_what() {
    let (mut world, space) = b_ahead_of_a_at_c();
    let lane = world.own_lane(0, space);
    let needed = world.status(0, space).durable.at(&lane) + 1;
    world.add_without_time(0, space, 10);
    world.add_without_time(1, space, 100);
    let status = world.status(2, space);
    let b = world.own_lane(1, space);
    let waiting = status.lanes.iter().find(|status| status.lane == b).unwrap();
    let blocked = waiting.blocked.clone().unwrap();
    assert_eq!((waiting.staged, blocked.lane, blocked.lsn), (1, lane, needed));
    assert_eq!(world.likes(2, space), 3, "B's write is not shown before A's");
    let missing = status.lanes.iter().find(|status| status.lane == lane).unwrap();
    assert_eq!((missing.applied, missing.known), (needed - 1, needed), "B is known to have it");
    // A's entry comes from B when A stays silent for too long.
    world.run();
    assert_eq!(world.likes(2, space), 113);
    let status = world.status(2, space);
    assert!(status.lanes.iter().all(|status| status.staged == 0 && status.blocked.is_none()));
}

#[test]
fn readers_see_a_transaction_over_many_objects_whole_or_not_at_all() {
    let (mut world, space) = World::mesh(2);
    let objects = 40;
    for round in 1..=5_i64 {
        let write = world.write_with::<_, TxError>(0, space, Durability::Local, |tx| {
            for n in 0..objects {
                tx.counter_add("c", &n.to_string(), 1)?;
                tx.register_write("r", &n.to_string(), Value::I64(round))?;
                tx.set_add("s", "all", Value::I64(round * 1_000 + n))?;
            }
            Ok(())
        });
        write.0.unwrap();
        let check = |world: &World| {
            for node in [0, 1] {
                let view = world.nodes[node].disk.view();
                let done = comity_engine::counter(&view, &space, "c", "0").unwrap();
                for n in 0..objects {
                    let key = n.to_string();
                    assert_eq!(comity_engine::counter(&view, &space, "c", &key).unwrap(), done);
                    let register = comity_engine::register(&view, &space, "r", &key).unwrap();
                    assert_eq!(register.len() as i128, done.min(1));
                }
                let elements = comity_engine::set_len(&view, &space, "s", "all").unwrap();
                assert_eq!(i128::from(elements), done * i128::from(objects));
            }
        };
        check(&world);
        while world.step() {
            check(&world);
        }
    }
    world.run();
    world.assert_converged(space);
}

#[test]
fn nothing_is_sent_shown_or_announced_before_it_is_durable() {
    let (mut world, space) = World::mesh(2);
    world.nodes[0].manual_sync = true;
    world.nodes[0].notices.clear();
    let session = world.session_between(0, 1).unwrap();
    let before = world.link(session).sent(0).log.len();
    let (_, request) =
        world.write_with::<_, TxError>(0, space, Durability::Local, |tx| tx.counter_add("stats", "likes", 1));
    world.run();
    assert_eq!(world.link(session).sent(0).log.len(), before);
    assert_eq!((world.likes(0, space), world.likes(1, space)), (0, 0));
    assert!(world.nodes[0].notices.is_empty());
    assert!(world.acknowledgement(0, request).is_none());
    assert_eq!(world.status(0, space).frontier.distance_from(&world.status(0, space).durable), 1);
    world.sync(0);
    world.run();
    assert_eq!((world.likes(0, space), world.likes(1, space)), (1, 1));
    assert!(matches!(&world.nodes[0].notices[..], [Notice::Applied(_)]));
    assert!(world.acknowledgement(0, request).is_some());
}

#[test]
fn a_receiver_says_that_it_has_an_entry_only_once_it_is_durable_there() {
    let (mut world, space) = World::mesh(2);
    world.add(0, space, 1);
    world.nodes[1].manual_sync = true;
    let (_, request) = world
        .write_with::<_, TxError>(0, space, Durability::Remote(1), |tx| tx.counter_add("stats", "likes", 1));
    world.drain_steps();
    assert!(world.acknowledgement(0, request).is_none());
    world.crash(1);
    world.connect(0, 1);
    world.drain_steps();
    assert!(world.acknowledgement(0, request).is_none(), "it was lost there and came again");
    world.sync(1);
    world.drain_steps();
    assert!(world.acknowledgement(0, request).unwrap().reached);
}

#[test]
fn two_sessions_between_the_same_two_replicas_count_nothing_twice() {
    let (mut world, space) = World::mesh(3);
    world.connect(0, 1);
    world.connect(1, 0);
    world.connect(2, 0);
    world.run();
    world.observer.forget_counts();
    for node in 0..3 {
        world.add(node, space, 10);
    }
    for node in 0..3 {
        assert_eq!(world.likes(node, space), 30);
    }
    let lanes = 3;
    assert_eq!(world.observer.copies.len(), lanes * 2);
    assert!(world.observer.copies.values().all(|copies| *copies == 1), "each lane has one parent");
}

#[test]
fn parents_that_come_and_go_count_nothing_twice() {
    let (mut world, space) = World::mesh(4);
    let mut expected = 0;
    for round in 0..30_usize {
        let (writer, other) = (round % 4, (round + 1 + round / 4 % 3) % 4);
        if let Some(session) = world.session_between(writer, other) {
            world.disconnect(session);
        } else {
            world.connect(writer, other);
        }
        world.add_without_time(writer, space, 1);
        expected += 1;
    }
    for a in 0..4 {
        for b in a + 1..4 {
            if world.session_between(a, b).is_none() {
                world.connect(a, b);
            }
        }
    }
    world.run();
    for node in 0..4 {
        assert_eq!(world.likes(node, space), expected);
    }
    world.assert_converged(space);
}

/// A fixed story of writes on three nodes; each step is one frame, one sync or one write.
fn story(crash: Option<(usize, usize)>) -> usize {
    let (mut world, space) = World::mesh(3);
    let mut model = Model::default();
    let mut steps = 0;
    for round in 0..6 {
        for node in 0..3 {
            model.write(&mut world, node, space, Some(round));
        }
        while world.step() {
            steps += 1;
            if let Some((_, victim)) = crash.filter(|(at, _)| *at == steps) {
                world.crash(victim);
                model.check(&world, victim, space);
                for other in (0..3).filter(|other| *other != victim) {
                    world.connect(victim, other);
                }
            }
        }
    }
    world.pass(Duration::from_secs(3));
    model.check_converged(&world, space);
    steps
}

#[test]
fn a_crash_of_any_node_after_any_step_loses_only_what_was_not_acknowledged() {
    let steps = story(None);
    assert!(steps > 60, "the story has {steps} steps");
    for at in 1..=steps {
        for victim in 0..3 {
            story(Some((at, victim)));
        }
    }
}

#[test]
fn all_nodes_crashing_at_once_after_any_step_lose_only_what_was_not_acknowledged() {
    for at in (0..60).step_by(3) {
        let (mut world, space) = World::mesh(3);
        let mut model = Model::default();
        for node in 0..3 {
            model.write(&mut world, node, space, None);
        }
        for _ in 0..at {
            world.step();
        }
        for node in 0..3 {
            model.write(&mut world, node, space, Some(0));
            world.crash(node);
        }
        for (a, b) in [(0, 1), (1, 2), (2, 0)] {
            world.connect(a, b);
        }
        for node in 0..3 {
            model.write(&mut world, node, space, None);
        }
        world.pass(Duration::from_secs(3));
        model.check_converged(&world, space);
    }
}
