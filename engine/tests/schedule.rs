//! Random schedules: connections come and go, frames of different streams overtake each other, syncs end
//! late, processes crash. Readers must never see anything the model does not allow, and once all is calm
//! every replica must show the same.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod world;

use std::time::Duration;

use comity_crdts::SpaceId;
use comity_engine::{Class, Input};
use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use world::World;
use world::model::Model;

/// One thing that happens.
#[derive(Clone, Debug)]
enum Event {
    Write { node: usize, untag: Option<usize> },
    Deliver { pick: usize, count: usize },
    Sync { node: usize },
    Connect { a: usize, b: usize },
    Disconnect { pick: usize },
    Crash { node: usize },
    Time { ms: u64 },
    Streams { order: usize },
}

fn events(nodes: usize) -> impl Strategy<Value = Vec<Event>> {
    let node = 0..nodes;
    let event = prop_oneof![
        6 => (node.clone(), prop::option::of(0..8_usize)).prop_map(|(node, untag)| Event::Write { node, untag }),
        12 => (0..64_usize, 1..6_usize).prop_map(|(pick, count)| Event::Deliver { pick, count }),
        6 => node.clone().prop_map(|node| Event::Sync { node }),
        3 => (node.clone(), node.clone()).prop_map(|(a, b)| Event::Connect { a, b }),
        1 => (0..16_usize).prop_map(|pick| Event::Disconnect { pick }),
        1 => node.prop_map(|node| Event::Crash { node }),
        2 => (0..400_u64).prop_map(|ms| Event::Time { ms }),
        1 => (0..6_usize).prop_map(|order| Event::Streams { order }),
    ];
    prop::collection::vec(event, 1..120)
}

const ORDERS: [[Class; 3]; 6] = {
    use Class::{CatchUp, Control, Live};
    [
        [Control, Live, CatchUp],
        [Control, CatchUp, Live],
        [Live, Control, CatchUp],
        [Live, CatchUp, Control],
        [CatchUp, Control, Live],
        [CatchUp, Live, Control],
    ]
};

fn happen(world: &mut World, model: &mut Model, space: SpaceId, event: &Event) {
    match *event {
        Event::Write { node, untag } => model.write(world, node, space, untag),
        Event::Deliver { pick, count } => {
            for _ in 0..count {
                let ways = world.deliverable();
                if let Some((session, side)) = ways.get(pick % ways.len().max(1)) {
                    world.deliver(*session, *side);
                }
            }
        }
        Event::Sync { node } => {
            world.sync(node);
            model.check(world, node, space);
        }
        Event::Connect { a, b } => {
            if a != b {
                world.connect(a, b);
            }
        }
        Event::Disconnect { pick } => {
            let sessions = world.sessions();
            if let Some(session) = sessions.get(pick % sessions.len().max(1)) {
                world.disconnect(*session);
            }
        }
        Event::Crash { node } => {
            world.crash(node);
            model.check(world, node, space);
        }
        Event::Time { ms } => {
            world.clock += Duration::from_millis(ms);
            for node in 0..world.nodes.len() {
                world.input(node, Input::DeadlineReached);
            }
        }
        Event::Streams { order } => world.class_order = ORDERS[order],
    }
}

/// Ends the unrest: every node is reachable from every other, along a line or by the sessions that are
/// there already.
fn calm(world: &mut World, reconnect: bool) {
    for node in &mut world.nodes {
        node.manual_sync = false;
    }
    if reconnect {
        world.disconnect_all(None);
    }
    for node in 1..world.nodes.len() {
        world.connect(node - 1, node);
    }
    for _ in 0..4 {
        world.pass(Duration::from_secs(2));
    }
}

/// 256 schedules of a new seed each time; `COMITY_SCHEDULES` schedules of the seed `COMITY_SEED` when these are
/// set, which is a fixed set.
#[expect(clippy::disallowed_methods, reason = "a test is configured by its environment")]
fn config() -> ProptestConfig {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let cases = number("COMITY_SCHEDULES").unwrap_or(256) as u32;
    let rng_seed = number("COMITY_SEED").map_or(RngSeed::Random, RngSeed::Fixed);
    ProptestConfig { cases, rng_seed, max_shrink_iters: 4_000, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(config())]
    #[test]
    fn every_schedule_ends_in_convergence_and_no_reader_sees_anything_impossible(
        (nodes, events) in (3..5_usize).prop_flat_map(|nodes| (Just(nodes), events(nodes))),
        reconnect in any::<bool>(),
    ) {
        let mut world = World::new(nodes);
        let space = world.create_space(0);
        for node in 1..nodes {
            world.join(0, node, space);
        }
        world.disconnect_all(None);
        for node in &mut world.nodes {
            node.manual_sync = true;
        }
        let mut model = Model::default();
        for event in &events {
            happen(&mut world, &mut model, space, event);
        }
        calm(&mut world, reconnect);
        model.check_converged(&world, space);
        for node in &world.nodes {
            prop_assert!(node.closed.is_empty(), "honest peers close nothing: {:?}", node.closed);
        }
    }
}
