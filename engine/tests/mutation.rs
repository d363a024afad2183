//! Frames between two honest cores, spoiled on the way: whatever arrives, a reader sees only what honest
//! replicas wrote to objects of every kind, whole and in causal order, and once the spoiling ends both converge.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod world;

use std::time::Duration;

use comity_crdts::SpaceId;
use comity_engine::{Command, Input};
use proptest::prelude::*;
use world::World;
use world::spec::{COLLECTION, Deed, Spec};
use world::unrest::deeds_of_all_kinds;

/// What happens to the next frame of one direction.
#[derive(Clone, Debug)]
enum Spoil {
    Flip { at: usize, mask: u8 },
    Truncate { length: usize },
    Insert { at: usize, byte: u8 },
    Duplicate,
    Reorder,
    Drop,
}

#[derive(Clone, Debug)]
enum Event {
    Write { node: usize, deeds: Vec<Deed> },
    Acquire { node: usize },
    Time { ms: u64 },
    Deliver { pick: usize },
    Spoil { pick: usize, spoil: Spoil },
    Connect,
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let spoil = prop_oneof![
        4 => (0..400_usize, 1..=255_u8).prop_map(|(at, mask)| Spoil::Flip { at, mask }),
        1 => (0..200_usize).prop_map(|length| Spoil::Truncate { length }),
        1 => (0..200_usize, any::<u8>()).prop_map(|(at, byte)| Spoil::Insert { at, byte }),
        1 => Just(Spoil::Duplicate),
        1 => Just(Spoil::Reorder),
        1 => Just(Spoil::Drop),
    ];
    let event = prop_oneof![
        3 => (0..2_usize, prop::collection::vec(deeds_of_all_kinds(), 1..4))
            .prop_map(|(node, deeds)| Event::Write { node, deeds }),
        1 => (0..2_usize).prop_map(|node| Event::Acquire { node }),
        1 => (0..1_500_u64).prop_map(|ms| Event::Time { ms }),
        8 => (0..8_usize).prop_map(|pick| Event::Deliver { pick }),
        3 => (0..8_usize, spoil).prop_map(|(pick, spoil)| Event::Spoil { pick, spoil }),
        2 => Just(Event::Connect),
    ];
    prop::collection::vec(event, 1..80)
}

/// Spoils what one side of one session sent first.
fn spoil(world: &mut World, pick: usize, how: &Spoil) {
    let ways = world.deliverable();
    let Some((session, side)) = ways.get(pick % ways.len().max(1)).copied() else { return };
    let queues = &mut world.link_mut(session).wires[side].queues;
    let Some(queue) = queues.values_mut().find(|queue| !queue.is_empty()) else { return };
    let Some(frame) = queue.front_mut() else { return };
    match *how {
        Spoil::Flip { at, mask } => {
            let at = at % frame.len().max(1);
            if let Some(byte) = frame.get_mut(at) {
                *byte ^= mask;
            }
        }
        Spoil::Truncate { length } => frame.truncate(length),
        Spoil::Insert { at, byte } => frame.insert(at % (frame.len() + 1), byte),
        Spoil::Duplicate => {
            let again = frame.clone();
            queue.push_front(again);
        }
        Spoil::Reorder => {
            let first = queue.pop_front();
            queue.extend(first);
        }
        Spoil::Drop => drop(queue.pop_front()),
    }
}

fn happen(world: &mut World, spec: &mut Spec, space: SpaceId, event: &Event) {
    match event {
        Event::Write { node, deeds } => {
            spec.write(world, *node, space, deeds);
            world.sync(*node);
        }
        Event::Acquire { node } => {
            let (collection, key) = (COLLECTION.to_owned(), "k".to_owned());
            let within = Duration::from_secs(1);
            world.ask(*node, Command::AcquireRights { space, collection, key, amount: 5, within });
        }
        Event::Time { ms } => {
            world.clock += Duration::from_millis(*ms);
            for node in [0, 1] {
                world.input(node, Input::DeadlineReached);
            }
        }
        Event::Deliver { pick } => {
            let ways = world.deliverable();
            if let Some((session, side)) = ways.get(pick % ways.len().max(1)).copied() {
                world.deliver(session, side);
            }
            for node in [0, 1] {
                world.sync(node);
                spec.check(world, node, space);
            }
        }
        Event::Spoil { pick, spoil: how } => spoil(world, *pick, how),
        Event::Connect => {
            if world.session_between(0, 1).is_none() {
                world.connect(0, 1);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 384, ..ProptestConfig::default() })]
    #[test]
    fn spoiled_frames_never_change_what_honest_replicas_wrote(events in events()) {
        let mut world = World::new(2);
        let space = world.create_space(0);
        world.join(0, 1, space);
        let mut spec = Spec::default();
        for event in &events {
            happen(&mut world, &mut spec, space, event);
        }
        world.disconnect_all(None);
        world.connect(0, 1);
        for _ in 0..2 {
            world.pass(Duration::from_secs(2));
        }
        spec.check_converged(&world, space);
        for node in [0, 1] {
            let lanes = world.status(node, space).lanes;
            prop_assert!(lanes.iter().all(|lane| lane.frozen.is_none()), "nobody forked: {lanes:?}");
        }
    }
}
