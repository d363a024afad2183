//! Who receives what from whom, in each shape of a network: every entry once, through others only where there is no
//! direct way, and around a link that carries nothing.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a failed unwrap is a failed test")]

mod world;

use std::collections::BTreeMap;
use std::time::Duration;

use comity_crdts::{SpaceId, Value};
use comity_engine::{Durability, Input, SessionId, TxError};
use world::World;

const HOP: Duration = Duration::from_millis(10);

/// Who is connected with whom.
type Links = Vec<(usize, usize)>;

fn all(nodes: usize) -> Links {
    (0..nodes).flat_map(|a| (a + 1..nodes).map(move |b| (a, b))).collect()
}

fn star(nodes: usize) -> Links {
    (1..nodes).map(|node| (0, node)).collect()
}

fn chain(nodes: usize) -> Links {
    (1..nodes).map(|node| (node - 1, node)).collect()
}

/// Every node but the first hangs on the one at half its number.
fn tree(nodes: usize) -> Links {
    (1..nodes).map(|node| ((node - 1) / 2, node)).collect()
}

fn ring(nodes: usize) -> Links {
    chain(nodes).into_iter().chain([(0, nodes - 1)]).collect()
}

/// A world of members of one space, connected in this way and no other. Each has written once.
fn wired(nodes: usize, links: &Links) -> (World, SpaceId, BTreeMap<(usize, usize), SessionId>) {
    let mut world = World::new(nodes);
    let space = world.create_space(0);
    for node in 1..nodes {
        let session = world.join(0, node, space);
        world.disconnect(session);
    }
    let sessions = links.iter().map(|(a, b)| ((*a, *b), world.connect(*a, *b))).collect();
    world.run();
    for node in 0..nodes {
        world.add(node, space, 1);
    }
    world.pass(Duration::from_secs(5));
    world.assert_converged(space);
    world.observer.forget_counts();
    (world, space, sessions)
}

/// Lets everybody write at once, round after round, while what was written is on its way. Returns how many entries there
/// are more.
fn write_much(world: &mut World, space: SpaceId, rounds: usize) -> usize {
    let entries = |world: &World| world.status(0, space).frontier.iter().map(|(_, lsn)| lsn).sum::<u64>();
    let before = entries(world);
    for _ in 0..rounds {
        for node in 0..world.nodes.len() {
            world.add_unsent(node, space, 1);
        }
        (0..3).for_each(|_| world.slow_hop(HOP));
    }
    (0..20).for_each(|_| world.slow_hop(HOP));
    world.pass(Duration::from_secs(5));
    world.assert_converged(space);
    (entries(world) - before) as usize
}

/// The replicas from which a node receives lanes of others.
fn parents(world: &World, node: usize, space: SpaceId) -> Vec<(usize, usize)> {
    let number = |replica| (0..world.nodes.len()).find(|node| world.replica(*node) == replica).unwrap();
    let lanes = world.status(node, space).lanes;
    let foreign = lanes.iter().filter(|lane| !lane.is_own && lane.owner != world.replica(node));
    foreign.map(|lane| (number(lane.owner), number(lane.parent.unwrap()))).collect()
}

#[test]
fn all_to_all_sends_every_entry_once_and_from_its_owner() {
    for nodes in [3, 5, 8] {
        let (mut world, space, _) = wired(nodes, &all(nodes));
        let written = write_much(&mut world, space, 20);
        let sent: u32 = world.observer.copies.values().sum();
        let needed = written * (nodes - 1);
        assert_eq!(world.observer.copies.len(), needed, "everybody was sent what others wrote");
        assert!(f64::from(sent) <= 1.05 * needed as f64, "{sent} copies of {needed} among {nodes}");
        for node in 0..nodes {
            assert!(parents(&world, node, space).iter().all(|(owner, parent)| owner == parent));
        }
    }
}

#[test]
fn where_there_is_one_way_every_entry_takes_it_once() {
    for (links, nodes) in [(star(6), 6), (chain(5), 5), (tree(7), 7)] {
        let (mut world, space, _) = wired(nodes, &links);
        let written = write_much(&mut world, space, 15);
        let needed = written * (nodes - 1);
        assert_eq!(world.observer.copies.len(), needed, "{links:?}");
        assert!(world.observer.copies.values().all(|copies| *copies == 1), "{links:?}");
        // Who relays is who lies on the way.
        for node in 0..nodes {
            for (_, parent) in parents(&world, node, space) {
                assert!(links.contains(&(node.min(parent), node.max(parent))), "{links:?}");
            }
        }
    }
}

#[test]
fn a_ring_with_a_broken_link_goes_on_the_other_way_round() {
    let (mut world, space, sessions) = wired(6, &ring(6));
    let written = write_much(&mut world, space, 10);
    let sent: u32 = world.observer.copies.values().sum();
    assert!(f64::from(sent) <= 1.05 * (written * 5) as f64, "{sent} copies of {}", written * 5);
    world.disconnect(sessions[&(2, 3)]);
    world.run();
    world.observer.forget_counts();
    let written = write_much(&mut world, space, 10);
    assert_eq!(world.observer.copies.len(), written * 5);
    assert!(world.observer.copies.values().all(|copies| *copies == 1), "a broken ring is a chain");
}

/// How long it takes until a node has applied what another has written, in steps of 5 ms.
fn time_until_equal(world: &mut World, space: SpaceId, (node, other): (usize, usize)) -> Duration {
    let (goal, started) = (world.status(other, space).durable, world.clock);
    while !world.status(node, space).durable.covers(&goal) {
        world.slow_hop(Duration::from_millis(5));
        assert!(world.clock < started + Duration::from_secs(5), "nobody finds a way");
    }
    world.clock - started
}

#[test]
fn a_direct_link_that_carries_nothing_is_routed_around_and_taken_again() {
    let (mut world, space, sessions) = wired(4, &all(4));
    write_much(&mut world, space, 5);
    let dead = sessions[&(0, 1)];
    world.link_mut(dead).stalled = true;
    world.add_unsent(0, space, 1);
    world.sync(0);
    let took = time_until_equal(&mut world, space, (1, 0));
    // To another, whose word takes as long again; the patience; asking that one, and its answer.
    let (there_and_back, graft) = (Duration::from_millis(10), Duration::from_millis(60));
    assert!(took <= 2 * there_and_back + graft, "{took:?}");
    assert!(parents(&world, 1, space).iter().all(|(owner, parent)| *owner != 0 || *parent != 0));
    // What comes next is not waited for again.
    for _ in 0..10 {
        world.add_unsent(0, space, 1);
        world.sync(0);
        let took = time_until_equal(&mut world, space, (1, 0));
        assert!(took <= 2 * there_and_back, "{took:?}");
    }
    // The owner is taken again, once it is heard of and the way round was used for a while.
    world.link_mut(dead).stalled = false;
    world.slow_hop(HOP);
    world.slow_hop(HOP);
    assert!(parents(&world, 1, space).iter().any(|(owner, parent)| *owner == 0 && *parent != 0));
    world.pass(Duration::from_secs(5));
    assert!(parents(&world, 1, space).iter().all(|(owner, parent)| owner == parent));
    world.add(0, space, 1);
    world.assert_converged(space);
}

#[test]
fn a_far_owner_is_given_the_time_that_its_distance_takes() {
    let (mut world, space, sessions) = wired(3, &all(3));
    let far = sessions[&(0, 1)];
    // What 0 and 1 say to each other arrives every 200 ms; what 2 says arrives after 10.
    let round = |world: &mut World| {
        for node in [0, 1] {
            world.add_unsent(node, space, 1);
            world.sync(node);
        }
        world.link_mut(far).stalled = true;
        (0..20).for_each(|_| world.slow_hop(HOP));
        world.link_mut(far).stalled = false;
        world.slow_hop(HOP);
    };
    // So far nothing took any time in this world.
    (0..40).for_each(|_| round(&mut world));
    world.observer.forget_counts();
    (0..30).for_each(|_| round(&mut world));
    world.pass(Duration::from_secs(5));
    world.assert_converged(space);
    assert!(world.observer.copies.values().all(|copies| *copies == 1), "nobody is asked instead");
    assert!(parents(&world, 1, space).iter().all(|(owner, parent)| owner == parent));
}

#[test]
fn a_run_that_takes_long_is_not_fetched_twice_while_its_pieces_come() {
    let (mut world, space, sessions) = wired(3, &all(3));
    let blob = world::noise(1, 18 * 50_000);
    let (written, _) = world.write_with::<_, TxError>(0, space, Durability::Local, |tx| {
        let mut pieces = blob.chunks(50_000).enumerate();
        pieces.try_for_each(|(place, piece)| {
            tx.register_write("blobs", &place.to_string(), Value::Bytes(piece.to_vec()))
        })
    });
    written.unwrap();
    world.sync(0);
    // To 2 everything gets at once, so that 1 hears of it there; from 0 it hears a piece every 30 ms.
    let slow = sessions[&(0, 1)];
    world.link_mut(slow).stalled = true;
    (0..2).for_each(|_| world.hop());
    let mut pieces = 0;
    while world.deliver(slow, usize::from(world.link(slow).sent(0).is_idle())) {
        pieces += 1;
        world.clock += Duration::from_millis(30);
        (0..3).for_each(|node| world.input(node, Input::DeadlineReached));
        (0..3).for_each(|node| world.sync(node));
        for (session, side) in world.deliverable() {
            while world.deliver(session, side) {}
        }
    }
    assert!(pieces >= 4, "{pieces} pieces");
    world.link_mut(slow).stalled = false;
    world.pass(Duration::from_secs(5));
    world.assert_converged(space);
    assert!(world.observer.copies.values().all(|copies| *copies == 1));
}
