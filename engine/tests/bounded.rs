//! Bounded counters: never below zero whatever happens, rights that belong to an incarnation, and peers that hand
//! them over when asked.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod world;

use std::time::Duration;

use comity_crdts::limits::BOUNDED_BITS_MAX;
use comity_crdts::{BoundedCounter, BoundedError, Kind, LaneId, OriginId, SpaceId};
use comity_engine::wire::{Group, Message, Op, RightsRequest};
use comity_engine::{CloseReason, Command, CommandError, Reply, TransactError, TxError};
use proptest::prelude::*;
use world::World;
use world::disk::Disk;
use world::ghost::{Ghost, data, hello, open};
use world::spec::{COLLECTION, top};
use world::unrest::{Unrest, bounded_deeds, config, run, schedules};

const UNREST: Unrest = Unrest { nodes_min: 3, nodes_max: 4, events_max: 80, ms_max: 900, restores: true };

proptest! {
    #![proptest_config(config(128))]
    #[test]
    fn no_schedule_takes_a_counter_below_zero_or_loses_rights(schedule in schedules(UNREST, bounded_deeds)) {
        run(&schedule);
    }
}

fn raise(world: &mut World, node: usize, space: SpaceId, amount: u64) {
    world.write(node, space, |tx| tx.bounded_increment_at(&top(Kind::BoundedCounter), amount)).unwrap();
}

fn lower(world: &mut World, node: usize, space: SpaceId, amount: u64) -> Result<(), TransactError<TxError>> {
    world.write(node, space, |tx| tx.bounded_decrement_at(&top(Kind::BoundedCounter), amount))
}

fn counter(world: &World, node: usize, space: SpaceId) -> BoundedCounter {
    let view = world.nodes[node].disk.view();
    comity_engine::bounded_counter(&view, &space, COLLECTION, "k").unwrap()
}

fn rights(world: &World, node: usize, space: SpaceId) -> i128 {
    counter(world, node, space).rights(&world.own_lane(node, space))
}

fn acquire(space: SpaceId, amount: u64) -> Command {
    let (collection, key) = (COLLECTION.to_owned(), "k".to_owned());
    Command::AcquireRights { space, collection, key, amount, within: Duration::from_millis(1_800) }
}

#[test]
fn rights_of_everybody_come_together_where_they_are_needed() {
    let (mut world, space) = World::mesh(4);
    for node in 0..3 {
        raise(&mut world, node, space, 5 + node as u64);
    }
    assert!(matches!(lower(&mut world, 3, space, 18), Err(TransactError::Refused(TxError::Bounded { .. }))));
    let held = world.command(3, acquire(space, 18));
    assert!(matches!(held, Ok(Reply::RightsHeld(18))), "{held:?}");
    lower(&mut world, 3, space, 18).unwrap();
    world.assert_converged(space);
    assert_eq!(counter(&world, 0, space).value(), 0);
    // What is there already is answered at once, and without a word to anybody.
    raise(&mut world, 3, space, 2);
    let before = world.status(3, space).frontier;
    assert!(matches!(world.command(3, acquire(space, 2)), Ok(Reply::RightsHeld(2))));
    assert_eq!(world.status(3, space).frontier, before);
}

#[test]
fn asking_takes_no_more_than_is_needed() {
    let (mut world, space) = World::mesh(3);
    raise(&mut world, 0, space, 10);
    raise(&mut world, 1, space, 10);
    raise(&mut world, 2, space, 1);
    assert!(matches!(world.command(2, acquire(space, 4)), Ok(Reply::RightsHeld(4))));
    assert_eq!((0..3).map(|node| rights(&world, node, space)).sum::<i128>(), 21);
    assert_eq!(rights(&world, 2, space), 4);
}

#[test]
fn what_nobody_hands_over_in_time_is_told_with_numbers() {
    let (mut world, space) = World::mesh(3);
    raise(&mut world, 0, space, 10);
    raise(&mut world, 1, space, 3);
    // There are enough, but whoever holds them is away.
    world.disconnect_all(Some(0));
    let refused = world.command(1, acquire(space, 5)).unwrap_err();
    assert_eq!(refused, CommandError::Rights { held: 3, needed: 5, value: 13 });
    // There are too few in all.
    let refused = world.command(1, acquire(space, 14)).unwrap_err();
    assert_eq!(refused, CommandError::Rights { held: 3, needed: 14, value: 13 });
    let refused = world.command(1, acquire(space, u64::MAX)).unwrap_err();
    assert_eq!(refused, CommandError::Rights { held: 3, needed: u64::MAX, value: 13 });
    assert!(matches!(
        world.command(1, acquire(SpaceId([3; 16]), 1)),
        Err(CommandError::UnknownSpace(SpaceId([3, ..])))
    ));
    // Whoever comes back in time still helps.
    let request = world.ask(1, acquire(space, 5));
    world.drain_steps();
    assert!(!world.nodes[1].replies.contains_key(&request));
    world.connect(0, 1);
    world.run();
    assert!(matches!(world.nodes[1].replies.remove(&request), Some(Ok(Reply::RightsHeld(5)))));
}

#[test]
fn who_was_restored_starts_without_rights_and_can_ask_for_some() {
    let (mut world, space) = World::mesh(3);
    raise(&mut world, 1, space, 10);
    let backup = world.backup(1);
    lower(&mut world, 1, space, 6).unwrap();
    world.restore(1, backup, [9; 32]);
    let refused = lower(&mut world, 1, space, 1);
    let Err(TransactError::Refused(TxError::Bounded { object, source })) = &refused else {
        panic!("{refused:?}")
    };
    assert_eq!(object, &top(Kind::BoundedCounter));
    assert_eq!(*source, BoundedError::Insufficient { needed: 1, rights: 0, value: 10 });
    world.connect(1, 0);
    world.connect(1, 2);
    world.run();
    assert_eq!(counter(&world, 1, space).value(), 4, "what it took before it was restored stays taken");
    // Its former rights are out of reach, and do not keep it from being given others.
    raise(&mut world, 0, space, 2);
    raise(&mut world, 2, space, 3);
    assert!(matches!(world.command(1, acquire(space, 5)), Ok(Reply::RightsHeld(5))));
    lower(&mut world, 1, space, 5).unwrap();
    world.assert_converged(space);
    assert_eq!(counter(&world, 0, space).value(), 4);
}

#[test]
fn rights_that_a_peer_left_behind_do_not_keep_anybody_from_asking_others() {
    let (mut world, space) = World::mesh(4);
    raise(&mut world, 1, space, 10);
    let backup = world.backup(1);
    world.restore(1, backup, [9; 32]);
    for peer in [0, 2, 3] {
        world.connect(1, peer);
    }
    world.run();
    raise(&mut world, 1, space, 1);
    raise(&mut world, 2, space, 4);
    raise(&mut world, 0, space, 4);
    let held = world.command(3, acquire(space, 9));
    assert!(matches!(held, Ok(Reply::RightsHeld(9))), "{held:?}");
}

#[test]
fn increments_and_transfers_beyond_what_is_possible_are_refused_by_number() {
    let (mut world, space) = World::mesh(2);
    let at = top(Kind::BoundedCounter);
    raise(&mut world, 0, space, (1 << BOUNDED_BITS_MAX) - 1);
    for node in 0..2 {
        let refused = world.write(node, space, |tx| tx.bounded_increment_at(&at, 1));
        let Err(TransactError::Refused(error @ TxError::Bounded { .. })) = &refused else {
            panic!("{refused:?}")
        };
        assert!(error.to_string().contains("2^63") && error.to_string().contains("spec"), "{error}");
    }
    let to = OriginId([1; 16]);
    let refused = world.write(1, space, |tx| tx.bounded_transfer_at(&at, to, 1));
    assert!(matches!(
        refused,
        Err(TransactError::Refused(TxError::Bounded { source: BoundedError::Insufficient { .. }, .. }))
    ));
    let whole = (1 << BOUNDED_BITS_MAX) - 1;
    assert!(matches!(world.command(1, acquire(space, whole)), Ok(Reply::RightsHeld(held)) if held == whole));
    lower(&mut world, 1, space, whole).unwrap();
    assert_eq!(counter(&world, 0, space).value(), 0);
}

#[test]
fn removing_gives_up_the_rights_held_there_and_with_the_last_of_them_nothing_is_left() {
    let (mut world, space) = World::mesh(2);
    let at = top(Kind::BoundedCounter);
    raise(&mut world, 0, space, 5);
    raise(&mut world, 1, space, 7);
    world.write(0, space, |tx| tx.remove_at(&at)).unwrap();
    world.run();
    assert_eq!(counter(&world, 1, space).value(), 7, "what others hold stays");
    world.write(0, space, |tx| tx.remove_at(&at)).unwrap();
    world.write(1, space, |tx| tx.remove_at(&at)).unwrap();
    world.run();
    for node in 0..2 {
        assert!(counter(&world, node, space).is_empty());
    }
}

/// A node with ten rights, and a ghost that is a member with a lane of one entry.
fn giver() -> (World, SpaceId, Ghost, comity_engine::SessionId) {
    let mut world = World::new(1);
    let space = world.create_space(0);
    raise(&mut world, 0, space, 10);
    let mut ghost = Ghost::new(9, space);
    ghost.add(1);
    let (session, subscription) = world.admit(0, &ghost);
    world.inject(0, session, data(subscription, 1, &ghost.run(0, 1)));
    world.run();
    (world, space, ghost, session)
}

fn ask(space: SpaceId, to: LaneId, amount: u64) -> RightsRequest {
    RightsRequest { space, collection: COLLECTION.to_owned(), key: "k".to_owned(), to, amount }
}

#[test]
fn a_member_is_given_what_there_is_and_no_more() {
    let (mut world, space, ghost, session) = giver();
    for (amount, left) in [(0, 10), (4, 6), (u64::MAX, 0), (1, 0)] {
        world.inject(0, session, Message::RightsRequest(ask(space, ghost.lane(), amount)).encode());
        world.run();
        assert_eq!(rights(&world, 0, space), left, "after {amount}");
        assert_eq!(counter(&world, 0, space).rights(&ghost.lane()), 10 - left);
    }
    assert!(world.is_connected(session));
    assert_eq!(counter(&world, 0, space).value(), 10);
}

#[test]
fn requests_that_make_no_sense_give_nothing() {
    let (mut world, space, ghost, session) = giver();
    let own = world.own_lane(0, space);
    let unknown = Ghost::new(10, space).lane();
    let commits = world.nodes[0].disk.commits();
    for to in [own, unknown, OriginId([0; 16]), OriginId([0xff; 16])] {
        world.inject(0, session, Message::RightsRequest(ask(space, to, 5)).encode());
    }
    for (collection, key) in [(COLLECTION, "another"), ("another", "k")] {
        let (collection, key) = (collection.to_owned(), key.to_owned());
        let request = RightsRequest { collection, key, ..ask(space, ghost.lane(), 5) };
        world.inject(0, session, Message::RightsRequest(request).encode());
    }
    world.run();
    assert!(world.is_connected(session));
    assert_eq!((rights(&world, 0, space), world.nodes[0].disk.commits()), (10, commits));
    let nonsense = [
        (RightsRequest { key: String::new(), ..ask(space, ghost.lane(), 5) }, CloseReason::Malformed),
        (
            RightsRequest { collection: "c".repeat(999), ..ask(space, ghost.lane(), 5) },
            CloseReason::Malformed,
        ),
        (RightsRequest { key: "a\0".to_owned(), ..ask(space, ghost.lane(), 5) }, CloseReason::Malformed),
        (ask(SpaceId([4; 16]), ghost.lane(), 5), CloseReason::Unexpected),
    ];
    for (request, reason) in nonsense {
        let (mut world, space, _, session) = giver();
        world.inject(0, session, Message::RightsRequest(request.clone()).encode());
        assert_eq!(world.close_reason(0, session), Some(reason), "{request:?}");
        assert_eq!(rights(&world, 0, space), 10);
    }
}

#[test]
fn who_is_no_member_or_has_not_opened_the_space_is_given_nothing() {
    let (mut world, space, ghost, _) = giver();
    let stranger = Ghost::new(10, space);
    for peer in [&stranger, &ghost] {
        let session = world.connect_ghost(0, peer.replica());
        world.inject(0, session, hello());
        if peer.replica() == stranger.replica() {
            world.inject(0, session, open(space, &[]));
        }
        world.inject(0, session, Message::RightsRequest(ask(space, ghost.lane(), 5)).encode());
        world.run();
        assert_eq!(world.close_reason(0, session), Some(CloseReason::Unexpected));
    }
    assert_eq!(rights(&world, 0, space), 10);
}

#[test]
fn who_takes_without_rights_owes_them_alone() {
    let (mut world, space, mut ghost, session) = giver();
    let ops = vec![Op::BoundedDecrement(25), Op::BoundedTransfer { to: OriginId([1; 16]), amount: u64::MAX }];
    let entry = ghost.draft(vec![Group { address: top(Kind::BoundedCounter).object, ops }]);
    ghost.append(entry);
    let subscription = world.subscription(0, session, ghost.lane()).unwrap();
    world.inject(0, session, data(subscription, 2, &ghost.run(1, 2)));
    world.run();
    let counter_now = counter(&world, 0, space);
    assert_eq!(counter_now.value(), -15);
    assert_eq!(rights(&world, 0, space), 10, "rights of others are theirs");
    lower(&mut world, 0, space, 10).unwrap();
    assert!(lower(&mut world, 0, space, 1).is_err());
    raise(&mut world, 0, space, 3);
    let other = world.add_node([50; 32], Disk::default());
    world.join(0, other, space);
    assert_eq!(counter(&world, other, space), counter(&world, 0, space));
    let refused = world.command(other, acquire(space, 2)).unwrap_err();
    assert_eq!(refused, CommandError::Rights { held: 0, needed: 2, value: -22 });
}
