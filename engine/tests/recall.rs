//! Recall: what was forgotten comes back when somebody turns out not to have seen it.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod world;

use comity_crdts::{Frontier, Kind, SpaceId, Value};
use comity_engine::wire::{Body, Group, Op};
use comity_engine::{StoreError, Tx, TxError};
use world::World;
use world::disk::Disk;
use world::ghost::{Ghost, data};
use world::removals::{add, members, pass, remove, unstable};
use world::spec::{top, within};

/// What readers of a node see: the remove-wins set, the disable-wins flag, the counter and the one in the map.
fn shown(world: &World, node: usize, space: SpaceId) -> (Vec<Value>, bool, i128, i128) {
    let view = world.nodes[node].disk.view();
    let count = |at| comity_engine::counter_at(&view, &space, &at).unwrap();
    let flag = comity_engine::flag_at(&view, &space, &top(Kind::DwFlag)).unwrap();
    (members(world, node, space), flag, count(top(Kind::Counter)), count(within(&["a"])))
}

fn count(tx: &mut Tx<'_>, delta: i64) -> Result<(), TxError> {
    tx.counter_add_at(&top(Kind::Counter), delta)?;
    tx.counter_add_at(&within(&["a"]), delta)
}

fn put(tx: &mut Tx<'_>) -> Result<(), TxError> {
    add(tx, 1)?;
    tx.dw_flag_enable_at(&top(Kind::DwFlag))
}

fn take(tx: &mut Tx<'_>) -> Result<(), TxError> {
    remove(tx, 1)?;
    tx.dw_flag_disable_at(&top(Kind::DwFlag))?;
    reset(tx)
}

fn reset(tx: &mut Tx<'_>) -> Result<(), TxError> {
    tx.remove_at(&top(Kind::Counter))?;
    tx.remove_at(&within(&["a"]))
}

/// Starts a copy of a node beside it.
fn clone(world: &mut World, node: usize) -> usize {
    let copy = world.backup(node);
    let clone = world.add_node([99; 32], Disk::default());
    world.restore(clone, copy, [7; 32]);
    assert_eq!(world.replica(clone), world.replica(node));
    clone
}

/// Nodes 0, which founded the space, and 1, which has not written. A copy of node 0 runs beside it, and while node
/// 0 is alone and has taken everything away and forgotten that, the copy and node 1 have confirmed each other.
fn confirmed_by_a_copy() -> (World, SpaceId) {
    let (mut world, space) = World::mesh(2);
    world.write(0, space, |tx| count(tx, 5)).unwrap();
    world.disconnect_all(None);
    let copy = clone(&mut world, 0);
    world.write(0, space, take).unwrap();
    pass(&mut world, 3);
    assert_eq!(unstable(&world, 0), 0, "who is alone forgets at once");
    assert!(world.write(1, space, put).is_err(), "nobody has confirmed it");
    world.connect(1, copy);
    pass(&mut world, 4);
    (world, space)
}

#[test]
fn what_an_original_forgot_comes_back_when_its_copy_has_confirmed_somebody() {
    let (mut world, space) = confirmed_by_a_copy();
    world.write(1, space, put).unwrap();
    world.write(1, space, |tx| reset(tx).and_then(|()| count(tx, 7))).unwrap();
    assert_eq!(shown(&world, 1, space), (vec![Value::I64(1)], true, 7, 7));
    // What may be forgotten is remembered.
    world.crash(0);
    world.connect(0, 1);
    pass(&mut world, 4);
    for node in 0..3 {
        let removed = (Vec::new(), false, 7, 7);
        assert_eq!(
            shown(&world, node, space),
            removed,
            "node {node}: nobody who put it there had seen it taken away"
        );
    }
    world.assert_converged(space);
    for node in 0..3 {
        assert_eq!(unstable(&world, node), 0, "node {node}: all have announced to have seen it");
    }
    world.write(1, space, put).unwrap();
    pass(&mut world, 4);
    world.assert_converged(space);
    assert_eq!(shown(&world, 0, space), (vec![Value::I64(1)], true, 7, 7));
}

#[test]
fn nothing_of_somebody_late_is_taken_in_before_what_was_forgotten_is_back_whichever_commit_fails() {
    for steps in 0.. {
        let (mut world, space) = confirmed_by_a_copy();
        world.write(1, space, put).unwrap();
        world.connect(0, 1);
        let is_over = !(0..steps).all(|_| world.step());
        world.nodes[0].disk.fail_next_commit(StoreError::NoSpace);
        world.run();
        assert_eq!(shown(&world, 0, space), (Vec::new(), false, 0, 0), "after {steps} steps");
        world.disconnect_all(Some(0));
        world.connect(0, 1);
        pass(&mut world, 4);
        world.assert_converged(space);
        assert_eq!(shown(&world, 0, space), (Vec::new(), false, 0, 0), "after {steps} steps");
        if is_over {
            assert!(steps > 5, "{steps} steps");
            return;
        }
    }
}

/// Here nobody runs twice: those who were restored do not know that somebody else had joined.
#[test]
fn what_a_member_forgot_of_whom_all_others_do_not_know_any_more_comes_back() {
    let (mut world, space) = World::mesh(2);
    world.write(1, space, |tx| count(tx, 5)).unwrap();
    let backups = [0, 1].map(|node| world.backup(node));
    let newcomer = world.add_node([50; 32], Disk::default());
    world.join(0, newcomer, space);
    world.connect(1, newcomer);
    pass(&mut world, 2);
    world.write(1, space, take).unwrap();
    pass(&mut world, 4);
    assert_eq!(unstable(&world, newcomer), 0);
    for (node, backup) in backups.into_iter().enumerate() {
        world.restore(node, backup, [60 + node as u8; 32]);
    }
    assert!(world.write(0, space, put).is_err());
    world.connect(0, 1);
    pass(&mut world, 4);
    world.write(0, space, put).unwrap();
    world.write(0, space, |tx| reset(tx).and_then(|()| count(tx, 7))).unwrap();
    // Node 1 is trusted by the member's records, and learns of the member from its own lane that comes back.
    world.connect(0, newcomer);
    world.connect(1, newcomer);
    pass(&mut world, 4);
    world.join(0, newcomer, space);
    world.connect(1, newcomer);
    pass(&mut world, 4);
    world.assert_converged(space);
    assert_eq!(shown(&world, newcomer, space), (Vec::new(), false, 7, 7));
}

/// An author whose context shrinks could have the log searched for each of its change sets.
#[test]
fn one_lane_makes_the_log_be_searched_twice_at_most() {
    let (mut world, space) = World::mesh(1);
    let mut removed_at = vec![0];
    for number in 1..=20 {
        world.write(0, space, |tx| remove(tx, number)).unwrap();
        removed_at.push(world.status(0, space).frontier.at(&world.own_lane(0, space)));
    }
    pass(&mut world, 3);
    assert_eq!(unstable(&world, 0), 0);
    let own = world.own_lane(0, space);
    let mut ghost = Ghost::new(9, space);
    for number in 1..=20 {
        let element = Value::I64(number as i64);
        let group = Group { address: top(Kind::RwSet).object, ops: vec![Op::RwSetAdd { element }] };
        let mut entry = ghost.draft(vec![group]);
        entry.admitted = Frontier::from_iter([(own, removed_at[20])]);
        if let Body::Change(change) = &mut entry.body {
            change.context = Frontier::from_iter([(own, removed_at[20 - number])]);
        }
        ghost.append(entry);
    }
    let (session, subscription) = world.admit(0, &ghost);
    let mut searches = 0;
    for round in 0..20 {
        let before = world.nodes[0].disk.commits();
        world.inject(0, session, data(subscription, round as u64 + 1, &ghost.run(round, round + 1)));
        world.run();
        searches += world.nodes[0].disk.commits() - before - 1;
    }
    assert_eq!(searches, 2);
    let undone: Vec<_> = (1..=10).map(Value::I64).collect();
    assert_eq!(members(&world, 0, space), undone, "up to there additions had seen the removals");
}
