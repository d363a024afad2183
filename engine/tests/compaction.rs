//! Announcements and the cut: what is removed leaves nothing behind once every writer has announced to have applied
//! it, nothing that readers see depends on that, and announcements end.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod world;

use std::time::Duration;

use comity_crdts::{Frontier, Kind, LaneId, OriginId, SpaceId, Value};
use comity_engine::wire::{Body, LaneEntry, Op};
use comity_engine::{Durability, Freeze, Tx, TxError};
use proptest::prelude::*;
use world::World;
use world::ghost::{Ghost, data};
use world::removals::{add, announcement, members, pass, remove, rows, unstable, writers};
use world::spec::{Deed, Spec, top, within};
use world::unrest::{Unrest, config, deeds_of_all_kinds, run, schedules};

fn everything(tx: &mut Tx<'_>, number: i64) -> Result<(), TxError> {
    let value = Value::I64(number);
    for path in [vec!["a"], vec!["a", "b"], vec!["c", "d", "e"]] {
        tx.counter_add_at(&within(&path), number)?;
        tx.set_add_at(&within(&path), value.clone())?;
        tx.register_write_at(&within(&path), value.clone())?;
        tx.flag_enable_at(&within(&path))?;
    }
    tx.counter_add_at(&top(Kind::Counter), number)?;
    tx.set_add_at(&top(Kind::Set), value.clone())?;
    tx.register_write_at(&top(Kind::Register), value.clone())?;
    tx.flag_enable_at(&top(Kind::Flag))?;
    tx.dw_flag_enable_at(&top(Kind::DwFlag))?;
    add(tx, number)
}

fn remove_everything(tx: &mut Tx<'_>) -> Result<(), TxError> {
    for kind in [Kind::Map, Kind::Counter, Kind::Set, Kind::Register, Kind::Flag, Kind::DwFlag, Kind::RwSet] {
        tx.remove_at(&top(kind))?;
    }
    // Of what is not there a removal is kept too, until everybody knows.
    tx.rw_set_remove_at(&top(Kind::RwSet), Value::from("never there"))?;
    tx.dw_flag_disable_at(&top(Kind::DwFlag))
}

#[test]
fn what_everybody_removed_leaves_nothing_behind_and_the_world_falls_silent() {
    let (mut world, space) = writers(3);
    let before: Vec<_> = (0..3).map(|node| rows(&world, node)).collect();
    let digest = world.status(0, space).digest;
    for node in 0..3 {
        world.write(node, space, |tx| everything(tx, node as i64)).unwrap();
    }
    // Removed by two at the same time, who have seen the same.
    world.disconnect_all(None);
    world.write(1, space, remove_everything).unwrap();
    world.write(2, space, remove_everything).unwrap();
    for (a, b) in [(0, 1), (0, 2), (1, 2)] {
        world.connect(a, b);
    }
    pass(&mut world, 4);
    world.assert_converged(space);
    for (node, before) in before.iter().enumerate() {
        assert_eq!(rows(&world, node), *before, "node {node}");
        let status = world.status(node, space);
        assert!(status.stalled_by.is_empty() && status.confirmed);
    }
    assert_eq!(world.status(0, space).digest, digest);
    let frontier = world.status(0, space).frontier;
    let commits: Vec<_> = world.nodes.iter().map(|node| node.disk.commits()).collect();
    pass(&mut world, 100);
    assert_eq!(world.status(0, space).frontier, frontier, "announcements end");
    assert_eq!(world.nodes.iter().map(|node| node.disk.commits()).collect::<Vec<_>>(), commits);
}

#[test]
fn additions_and_removals_that_leave_nothing_make_nobody_announce() {
    let (mut world, space) = writers(3);
    let lanes = |world: &World| world.status(0, space).frontier.iter().map(|(_, lsn)| lsn).sum::<u64>();
    let before = lanes(&world);
    let deeds = |tx: &mut Tx<'_>| {
        tx.set_add("s", "k", Value::Null)?;
        tx.set_remove("s", "k", Value::Null)?;
        tx.register_write("r", "k", Value::Null)?;
        tx.register_clear("r", "k")?;
        tx.flag_enable_at(&top(Kind::Flag))?;
        tx.remove_at(&top(Kind::Flag))?;
        tx.bounded_increment_at(&top(Kind::BoundedCounter), 1)?;
        add(tx, 1)?;
        tx.dw_flag_enable_at(&top(Kind::DwFlag))
    };
    world.write(1, space, deeds).unwrap();
    pass(&mut world, 10);
    assert_eq!(lanes(&world), before + 1);
}

#[test]
fn who_does_not_return_is_named_until_it_does() {
    let (mut world, space) = writers(3);
    world.disconnect_all(Some(2));
    world.write(0, space, |tx| add(tx, 1)).unwrap();
    world.write(0, space, |tx| remove(tx, 1)).unwrap();
    pass(&mut world, 20);
    let status = world.status(0, space);
    assert_eq!(status.stalled_by, [world.replica(2)]);
    assert!(!status.cut.covers(&status.frontier));
    assert_eq!((unstable(&world, 0), unstable(&world, 1)), (1, 1));
    assert!(members(&world, 1, space).is_empty());
    world.connect(1, 2);
    pass(&mut world, 4);
    world.connect(0, 1);
    pass(&mut world, 4);
    for node in 0..3 {
        assert!(world.status(node, space).stalled_by.is_empty());
        assert_eq!(unstable(&world, node), 0, "node {node}");
    }
}

#[test]
fn the_founder_alone_needs_nobody() {
    let mut world = World::new(1);
    let space = world.create_space(0);
    assert!(world.status(0, space).confirmed);
    world.write(0, space, |tx| everything(tx, 1)).unwrap();
    world.write(0, space, remove_everything).unwrap();
    pass(&mut world, 4);
    assert_eq!(rows(&world, 0), Vec::<Vec<u8>>::new());
}

/// A node and a ghost with a lane of one change set that has seen and announced the node's first two entries.
fn announced() -> (World, SpaceId, Ghost, LaneId) {
    let mut world = World::new(1);
    let space = world.create_space(0);
    world.add(0, space, 1);
    world.add(0, space, 1);
    let own = world.own_lane(0, space);
    let mut ghost = Ghost::new(9, space);
    ghost.append(announcement(&ghost, &[(own, 2)], &[(own, 2)]));
    (world, space, ghost, own)
}

/// The ghost's lane is frozen at its last entry, and everything before counts.
fn assert_frozen(last: impl FnOnce(&Ghost, LaneId) -> LaneEntry) {
    let (mut world, space, mut ghost, own) = announced();
    let entry = last(&ghost, own);
    ghost.append(entry);
    let count = ghost.entries.len();
    let (session, subscription) = world.admit(0, &ghost);
    let cut = world.status(0, space).cut;
    world.inject(0, session, data(subscription, 1, &ghost.run(0, count)));
    world.run();
    let status = world.status(0, space);
    let lane = status.lanes.iter().find(|lane| lane.lane == ghost.lane()).unwrap();
    assert!(matches!(lane.frozen, Some(Freeze::Invalid { lsn, .. }) if lsn == count as u64), "{lane:?}");
    assert_eq!((lane.applied, status.frontier.at(&ghost.lane())), (count as u64 - 1, count as u64 - 1));
    assert!(status.cut.covers(&cut) && !status.cut.covers(&Frontier::from_iter([(own, 3)])));
    world.write(0, space, |tx| remove(tx, 1)).unwrap();
    pass(&mut world, 3);
    assert_eq!(unstable(&world, 0), 1, "whoever lies keeps things from being forgotten, and nothing else");
}

#[test]
fn announcements_that_lie_freeze_their_lane() {
    // More than the author admits to have applied.
    assert_frozen(|ghost, own| announcement(ghost, &[(own, 3)], &[(own, 2)]));
    assert_frozen(|ghost, own| announcement(ghost, &[(own, u64::MAX)], &[(own, 2)]));
    // More than there is of its own.
    assert_frozen(|ghost, own| announcement(ghost, &[(own, 2), (ghost.lane(), 2)], &[(own, 2)]));
    // A lane that it admits nothing of.
    assert_frozen(|ghost, own| announcement(ghost, &[(own, 2), (OriginId([1; 16]), 1)], &[(own, 2)]));
    // Less than before.
    assert_frozen(|ghost, own| announcement(ghost, &[(own, 1)], &[(own, 2)]));
    // A greeting, after it has announced something.
    assert_frozen(|ghost, own| announcement(ghost, &[], &[(own, 2)]));
}

#[test]
fn who_has_announced_to_have_seen_something_may_not_write_as_if_it_had_not() {
    assert_frozen(|ghost, own| {
        let address = top(Kind::RwSet).object;
        let ops = vec![Op::RwSetAdd { element: Value::I64(1) }];
        let mut entry = ghost.draft(vec![comity_engine::wire::Group { address, ops }]);
        entry.admitted = [(own, 2)].into_iter().collect();
        if let Body::Change(change) = &mut entry.body {
            change.context = [(own, 1)].into_iter().collect();
        }
        entry
    });
}

#[test]
fn resets_of_the_same_additions_can_be_forgotten_one_by_one() {
    // Which of two concurrent resets comes first is decided by the names of their lanes, so both orders are tried.
    for (early, late) in [(1, 2), (2, 1)] {
        let (mut world, space) = writers(4);
        world.write(0, space, |tx| tx.counter_add_at(&top(Kind::Counter), 5)).unwrap();
        world.disconnect_all(None);
        world.write(early, space, |tx| tx.remove_at(&top(Kind::Counter))).unwrap();
        world.write(late, space, |tx| tx.remove_at(&top(Kind::Counter))).unwrap();
        // The early reset reaches everybody, and everybody but the author of the late one announces it.
        for node in [0, 3] {
            world.connect(early, node);
        }
        pass(&mut world, 3);
        world.disconnect_all(None);
        // The author of the late one hears of it and announces; node 0 alone hears of both.
        world.connect(late, early);
        world.drain_steps();
        pass(&mut world, 3);
        for node in [early, late] {
            world.crash(node);
        }
        world.connect(early, late);
        pass(&mut world, 3);
        for (a, b) in [(0, early), (3, 0)] {
            world.connect(a, b);
        }
        pass(&mut world, 6);
        world.assert_converged(space);
        for node in 0..4 {
            assert_eq!(unstable(&world, node), 0);
            let view = world.nodes[node].disk.view();
            assert_eq!(comity_engine::counter_at(&view, &space, &top(Kind::Counter)).unwrap(), 0);
        }
    }
}

#[test]
fn forgetting_goes_on_after_a_crash_at_any_step() {
    for steps in 0..60 {
        let (mut world, space) = writers(2);
        let before = rows(&world, 0);
        world.write(0, space, |tx| everything(tx, 1)).unwrap();
        let (result, _) = world.write_with(1, space, Durability::Local, remove_everything);
        result.unwrap();
        let mut left = steps;
        while left > 0 {
            left -= 1;
            if !world.step() {
                world.slow_hop(Duration::from_millis(150));
            }
        }
        for node in 0..2 {
            world.crash(node);
        }
        world.connect(0, 1);
        pass(&mut world, 4);
        world.assert_converged(space);
        if world.status(0, space).frontier.len() < 2 {
            continue;
        }
        let is_lost = !members(&world, 0, space).is_empty();
        for node in 0..2 {
            assert_eq!(unstable(&world, node), 0, "node {node} after {steps} steps");
            assert!(is_lost || rows(&world, node) == before, "node {node} after {steps} steps");
        }
    }
}

#[test]
fn one_step_forgets_a_bounded_number_of_rows() {
    let (mut world, space) = writers(2);
    let before = rows(&world, 0).len();
    let (removed, _) = world.write_with::<_, TxError>(0, space, Durability::Local, |tx| {
        (0..5_000).try_for_each(|number| remove(tx, number))
    });
    removed.unwrap();
    assert_eq!(unstable(&world, 0), 5_000);
    let mut left = rows(&world, 0).len();
    let mut steps = 0;
    while left > before && steps < 10_000 {
        if !world.step() {
            let due = world.nodes.iter().filter_map(|node| node.engine.next_deadline()).min();
            world.clock = world.clock.max(due.unwrap());
            for node in 0..2 {
                world.input(node, comity_engine::Input::DeadlineReached);
            }
        }
        let now = rows(&world, 0).len();
        assert!(left - now.min(left) <= 2 * 1_024, "{left} rows, then {now}");
        left = now;
        steps += 1;
    }
    assert_eq!(left, before);
}

const UNREST: Unrest = Unrest { nodes_min: 3, nodes_max: 4, events_max: 80, ms_max: 1_500, restores: true };

proptest! {
    #![proptest_config(config(128))]
    #[test]
    fn whatever_is_forgotten_when_readers_see_the_same(schedule in schedules(UNREST, deeds_of_all_kinds)) {
        run(&schedule);
    }
}

const NO_RESTORES: Unrest = Unrest { restores: false, ..UNREST };

proptest! {
    #![proptest_config(config(64))]
    #[test]
    fn in_the_end_nothing_is_left_to_be_forgotten(schedule in schedules(NO_RESTORES, deeds_of_all_kinds)) {
        let (mut world, mut spec, space): (World, Spec, SpaceId) = run(&schedule);
        spec.write(&mut world, 0, space, &[Deed::RwRemove(1)]);
        pass(&mut world, 6);
        spec.check_converged(&world, space);
        for node in 0..world.nodes.len() {
            prop_assert_eq!(unstable(&world, node), 0, "node {}: {:?}", node, world.status(node, space));
        }
        let frontier = world.status(0, space).frontier;
        pass(&mut world, 20);
        prop_assert_eq!(world.status(0, space).frontier, frontier, "announcements end");
    }
}
