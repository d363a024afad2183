//! Confirmation: whoever is new makes no removals before it has seen what others may have forgotten.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod world;

use std::time::Duration;

use comity_crdts::{Kind, SpaceId, Value};
use comity_engine::{Class, Command, CommandError, Reply, TransactError, Tx, TxError};
use world::World;
use world::disk::Disk;
use world::ghost::{Ghost, data};
use world::removals::{add, announcement, members, pass, remove, unstable, writers};
use world::spec::{top, within};

fn is_unconfirmed<R: std::fmt::Debug>(result: &Result<R, TransactError<TxError>>) -> bool {
    matches!(result, Err(TransactError::Refused(TxError::Unconfirmed { .. })))
}

fn await_confirmation(space: SpaceId) -> Command {
    Command::AwaitConfirmation { space, within: Duration::from_secs(1) }
}

#[test]
fn who_never_wrote_stalls_nobody() {
    let (mut world, space) = World::mesh(3);
    world.write(1, space, |tx| tx.counter_add("c", "k", 1)).unwrap();
    pass(&mut world, 2);
    world.disconnect_all(Some(2));
    world.write(0, space, |tx| remove(tx, 1)).unwrap();
    pass(&mut world, 4);
    assert_eq!(unstable(&world, 0) + unstable(&world, 1), 0);
    assert!(world.status(0, space).stalled_by.is_empty());
    // Its first removal waits for an answer, because others have forgotten what it has not seen.
    assert!(is_unconfirmed(&world.write(2, space, |tx| add(tx, 1))));
    world.connect(2, 1);
    world.run();
    world.write(2, space, |tx| add(tx, 1)).unwrap();
    world.connect(0, 1);
    pass(&mut world, 4);
    world.assert_converged(space);
    assert_eq!(
        members(&world, 0, space),
        [Value::I64(1)],
        "it was added by somebody who knew of the removal"
    );
}

#[test]
fn the_founder_needs_nobody() {
    let mut world = World::new(1);
    let space = world.create_space(0);
    assert!(world.status(0, space).confirmed);
    assert!(matches!(world.command(0, await_confirmation(space)), Ok(Reply::Confirmed)));
    assert!(world.status(0, space).lanes.is_empty(), "nor does it say so");
}

#[test]
fn a_founder_that_was_restored_while_alone_goes_on_and_lets_others_in() {
    let mut world = World::new(2);
    let space = world.create_space(0);
    world.add(0, space, 1);
    let backup = world.backup(0);
    world.restore(0, backup, [7; 32]);
    world.write(0, space, |tx| add(tx, 1)).unwrap();
    world.write(0, space, |tx| remove(tx, 1)).unwrap();
    pass(&mut world, 4);
    world.join(0, 1, space);
    pass(&mut world, 4);
    assert_eq!(world.status(1, space).frontier, world.status(0, space).frontier);
    for node in 0..2 {
        let lanes = world.status(node, space).lanes;
        assert!(lanes.iter().all(|lane| lane.frozen.is_none()), "{lanes:?}");
    }
    world.write(0, space, |tx| remove(tx, 2)).unwrap();
    assert!(is_unconfirmed(&world.write(1, space, |tx| add(tx, 2))));
    pass(&mut world, 2);
    world.write(1, space, |tx| add(tx, 2)).unwrap();
    pass(&mut world, 4);
    world.assert_converged(space);
}

type Deeds = fn(&mut Tx<'_>) -> Result<(), TxError>;

/// What an incarnation that nobody has confirmed may not do yet.
const RISKY: [Deeds; 7] = [
    |tx| add(tx, 1),
    |tx| remove(tx, 1),
    |tx| tx.dw_flag_enable_at(&top(Kind::DwFlag)),
    |tx| tx.dw_flag_disable_at(&top(Kind::DwFlag)),
    |tx| tx.remove_at(&top(Kind::RwSet)),
    |tx| tx.remove_at(&top(Kind::Counter)),
    |tx| tx.remove_at(&within(&["a"])),
];

#[test]
fn a_restored_replica_makes_no_removals_until_it_is_confirmed() {
    let (mut world, space) = writers(3);
    world
        .write(0, space, |tx| {
            add(tx, 1)?;
            tx.set_add_at(&top(Kind::Set), Value::Null)?;
            tx.register_write_at(&top(Kind::Register), Value::Null)?;
            tx.dw_flag_enable_at(&top(Kind::DwFlag))?;
            tx.counter_add_at(&within(&["a"]), 1)?;
            tx.counter_add_at(&top(Kind::Counter), 1)
        })
        .unwrap();
    let backup = world.backup(2);
    world.write(0, space, |tx| remove(tx, 5)).unwrap();
    pass(&mut world, 4);
    world.restore(2, backup, [9; 32]);
    assert!(!world.status(2, space).confirmed);
    for deed in RISKY {
        assert!(is_unconfirmed(&world.write(2, space, deed)));
    }
    // Whatever names what it removes is not affected.
    world
        .write(2, space, |tx| {
            tx.set_add("s", "k", Value::Null)?;
            tx.remove_at(&top(Kind::Set))?;
            tx.remove_at(&top(Kind::Register))?;
            tx.counter_add("c", "k", 1)
        })
        .unwrap();
    let waiting = world.ask(2, Command::AwaitConfirmation { space, within: Duration::from_secs(60) });
    pass(&mut world, 10);
    assert!(!world.nodes[2].replies.contains_key(&waiting));
    world.connect(2, 1);
    world.run();
    assert!(matches!(world.nodes[2].replies.remove(&waiting), Some(Ok(Reply::Confirmed))));
    assert!(world.status(2, space).confirmed);
    for deed in RISKY {
        world.write(2, space, deed).unwrap();
    }
    world.connect(0, 1);
    pass(&mut world, 4);
    world.assert_converged(space);
}

#[test]
fn waiting_for_confirmation_ends_with_its_deadline() {
    let (mut world, space) = writers(2);
    let backup = world.backup(1);
    world.restore(1, backup, [9; 32]);
    let answer = world.command(1, await_confirmation(space));
    assert_eq!(answer.unwrap_err(), CommandError::Unconfirmed(space));
    let unknown = world.command(1, await_confirmation(SpaceId([9; 16])));
    assert_eq!(unknown.unwrap_err(), CommandError::UnknownSpace(SpaceId([9; 16])));
}

#[test]
fn a_relay_that_writes_nothing_brings_the_confirmation() {
    let (mut world, space) = World::mesh(3);
    // Node 1 never writes.
    world.write(2, space, |tx| tx.counter_add("c", "k", 1)).unwrap();
    let backup = world.backup(2);
    world.disconnect_all(None);
    world.restore(2, backup, [9; 32]);
    world.connect(0, 1);
    world.connect(1, 2);
    world.run();
    assert!(is_unconfirmed(&world.write(2, space, |tx| remove(tx, 1))));
    world.run();
    assert!(world.status(2, space).confirmed, "the founder answers, though it has nothing else to say");
    world.write(2, space, |tx| remove(tx, 1)).unwrap();
    pass(&mut world, 4);
    world.assert_converged(space);
}

#[test]
fn who_is_new_itself_confirms_nobody() {
    let (mut world, space) = writers(2);
    world.write(0, space, |tx| add(tx, 1)).unwrap();
    // Two join, and then hear of each other only.
    let (one, other) = (world.add_node([50; 32], Disk::default()), world.add_node([51; 32], Disk::default()));
    world.join(0, one, space);
    world.join(0, other, space);
    world.disconnect_all(Some(one));
    world.disconnect_all(Some(other));
    world.write(0, space, |tx| remove(tx, 1)).unwrap();
    pass(&mut world, 4);
    assert_eq!(unstable(&world, 0), 0, "the removal is forgotten");
    world.connect(one, other);
    world.run();
    for node in [one, other, one, other] {
        world.write(node, space, |tx| tx.counter_add("c", "k", 1)).unwrap();
        let refused = world.write(node, space, |tx| add(tx, 1));
        assert!(is_unconfirmed(&refused), "{refused:?}");
        pass(&mut world, 2);
    }
    world.connect(0, other);
    pass(&mut world, 4);
    for node in [one, other] {
        world.write(node, space, |tx| add(tx, 1)).unwrap();
    }
    pass(&mut world, 4);
    world.assert_converged(space);
    assert_eq!(members(&world, one, space), [Value::I64(1)]);
    assert_eq!(unstable(&world, one), 0);
}

#[test]
fn replicas_that_were_all_restored_confirm_each_other() {
    let (mut world, space) = World::mesh(3);
    world.write(1, space, |tx| add_to(tx, 1)).unwrap();
    pass(&mut world, 3);
    let backups: Vec<_> = (0..3).map(|node| world.backup(node)).collect();
    for (node, backup) in backups.into_iter().enumerate() {
        world.restore(node, backup, [50 + node as u8; 32]);
    }
    assert!(is_unconfirmed(&world.write(0, space, |tx| remove(tx, 1))));
    world.connect(0, 1);
    pass(&mut world, 4);
    let refused = world.write(0, space, |tx| remove(tx, 1));
    assert!(is_unconfirmed(&refused), "the third may have forgotten something: {refused:?}");
    world.connect(0, 2);
    pass(&mut world, 4);
    world.write(0, space, |tx| remove(tx, 1)).unwrap();
    pass(&mut world, 4);
    world.assert_converged(space);
    let frontier = world.status(0, space).frontier;
    pass(&mut world, 20);
    assert_eq!(world.status(0, space).frontier, frontier, "answers end");
}

#[test]
fn who_never_wrote_answers_when_nobody_else_can() {
    let (mut world, space) = World::mesh(2);
    let backup = world.backup(0);
    world.restore(0, backup, [9; 32]);
    assert!(is_unconfirmed(&world.write(0, space, |tx| remove(tx, 1))));
    world.connect(0, 1);
    pass(&mut world, 4);
    world.write(0, space, |tx| remove(tx, 1)).unwrap();
    // Where somebody else can, it starts no lane for that.
    let (mut world, space) = World::mesh(3);
    world.write(1, space, |tx| tx.counter_add("c", "k", 1)).unwrap();
    let backup = world.backup(1);
    world.restore(1, backup, [9; 32]);
    assert!(is_unconfirmed(&world.write(1, space, |tx| remove(tx, 1))));
    world.connect(0, 1);
    world.connect(1, 2);
    pass(&mut world, 10);
    assert!(world.status(1, space).confirmed);
    let writers: Vec<_> = world.status(1, space).lanes.iter().map(|lane| lane.owner).collect();
    assert!(!writers.contains(&world.replica(2)));
}

#[test]
fn what_a_peer_holds_does_not_confirm_before_it_was_received() {
    let (mut world, space) = World::mesh(2);
    world.write(1, space, |tx| tx.counter_add("c", "k", 1)).unwrap();
    let backup = world.backup(1);
    world.write(0, space, |tx| tx.dw_flag_disable_at(&top(Kind::DwFlag))).unwrap();
    pass(&mut world, 4);
    world.disconnect_all(None);
    world.restore(1, backup, [9; 32]);
    assert!(is_unconfirmed(&world.write(1, space, |tx| tx.dw_flag_enable_at(&top(Kind::DwFlag)))));
    // That the greeting was received overtakes everything else that comes.
    world.class_order = [Class::Control, Class::Live, Class::CatchUp];
    world.connect(0, 1);
    let mut steps = 0;
    while !world.status(1, space).confirmed {
        if !world.step() {
            world.slow_hop(Duration::from_millis(5));
        }
        steps += 1;
        assert!(steps < 100, "nobody has confirmed it");
    }
    world.write(1, space, |tx| tx.dw_flag_enable_at(&top(Kind::DwFlag))).unwrap();
    pass(&mut world, 4);
    world.assert_converged(space);
    let view = world.nodes[0].disk.view();
    assert!(comity_engine::flag_at(&view, &space, &top(Kind::DwFlag)).unwrap());
}

fn add_to(tx: &mut Tx<'_>, delta: i64) -> Result<(), TxError> {
    tx.counter_add("c", "k", delta)
}

#[test]
fn a_greeting_is_answered_after_a_crash_too() {
    let (mut world, space) = writers(3);
    let backup = world.backup(1);
    world.disconnect_all(None);
    world.restore(1, backup, [9; 32]);
    assert!(is_unconfirmed(&world.write(1, space, |tx| remove(tx, 1))));
    world.connect(0, 1);
    // The greeting arrives and is durable; its receiver crashes before it can answer.
    world.drain_steps();
    assert!(world.status(0, space).frontier.covers(&world.status(1, space).frontier));
    assert!(!world.status(1, space).confirmed);
    world.crash(0);
    world.connect(0, 1);
    pass(&mut world, 3);
    assert!(world.status(1, space).confirmed);
}

#[test]
fn one_lane_is_greeted_once() {
    let (mut world, space) = writers(1);
    let mut ghost = Ghost::new(9, space);
    for _ in 0..20 {
        ghost.append(announcement(&ghost, &[], &[]));
    }
    let (session, subscription) = world.admit(0, &ghost);
    let own = world.own_lane(0, space);
    let before = world.status(0, space).frontier.at(&own);
    for round in 0..20 {
        let (from, to) = (round, round + 1);
        world.inject(0, session, data(subscription, round as u64 + 1, &ghost.run(from, to)));
        pass(&mut world, 2);
    }
    assert_eq!(world.status(0, space).frontier.at(&ghost.lane()), 20);
    assert_eq!(world.status(0, space).frontier.at(&own), before + 1, "twenty greetings, one answer");
}
