//! Every kind of object: what wins at the same time, removal, limits, transactions over all of them.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod world;

use std::time::Duration;

use comity_crdts::automerge::transaction::Transactable;
use comity_crdts::automerge::{ROOT, ReadDoc};
use comity_crdts::limits::{CHANGE_SET_OPS_MAX, CONTEXT_DOTS_MAX, ELEMENT_BYTES_MAX, VALUE_BYTES_MAX};
use comity_crdts::{Hlc, Kind, ObjectAddress, SpaceId, Value, ValueError};
use comity_engine::wire::{Group, Op};
use comity_engine::{Command, Durability, Listing, Location, StateRead, TransactError, Tx, TxError};
use proptest::prelude::*;
use world::World;
use world::ghost::{Ghost, data};
use world::spec::{Deed, Spec, top, within};
use world::unrest::{Unrest, config, deeds_of_all_kinds, run, schedules};

const UNREST: Unrest = Unrest { nodes_min: 3, nodes_max: 4, events_max: 60, ms_max: 400, restores: false };

proptest! {
    #![proptest_config(config(192))]
    #[test]
    fn every_schedule_shows_what_the_specification_says(schedule in schedules(UNREST, deeds_of_all_kinds)) {
        run(&schedule);
    }
}

/// Two confirmed nodes; the first and then both do something, without having heard of what the other does then.
fn apart(common: &[&Deed], here: &[&Deed], there: &[&Deed]) -> (World, Spec, SpaceId) {
    let [common, here, there] =
        [common, here, there].map(|deeds| deeds.iter().map(|deed| (*deed).clone()).collect::<Vec<_>>());
    let (mut world, space) = World::mesh(2);
    let mut spec = Spec::default();
    spec.write(&mut world, 1, space, &[]);
    world.command(1, Command::AwaitConfirmation { space, within: Duration::from_secs(1) }).unwrap();
    for order in [[0, 1], [1, 0]] {
        spec.write(&mut world, 0, space, &common);
        world.run();
        world.disconnect_all(None);
        for node in order {
            spec.write(&mut world, node, space, if node == 0 { &here } else { &there });
        }
        world.run();
        world.connect(0, 1);
        world.run();
        spec.check_converged(&world, space);
    }
    assert_eq!(spec.unconfirmed, 0);
    (world, spec, space)
}

fn is_enabled(world: &World, space: SpaceId, kind: Kind) -> bool {
    comity_engine::flag_at(&world.nodes[1].disk.view(), &space, &top(kind)).unwrap()
}

fn count(world: &World, space: SpaceId) -> i128 {
    comity_engine::counter_at(&world.nodes[1].disk.view(), &space, &top(Kind::Counter)).unwrap()
}

fn elements(world: &World, space: SpaceId, kind: Kind) -> Vec<Value> {
    comity_engine::set_elements_at(&world.nodes[1].disk.view(), &space, &top(kind), None, 99).unwrap()
}

#[test]
fn enabling_wins_over_disabling_and_over_removing() {
    let flag = top(Kind::Flag);
    for end in [Deed::Disable(flag.clone()), Deed::Remove(flag.clone())] {
        let enable = Deed::Enable(flag.clone());
        let (world, _, space) = apart(&[&enable], &[&end], &[&enable]);
        assert!(is_enabled(&world, space, Kind::Flag));
        let (world, _, space) = apart(&[&enable], &[&end], &[&end]);
        assert!(!is_enabled(&world, space, Kind::Flag));
        let (world, _, space) = apart(&[&enable], &[&end], &[]);
        assert!(!is_enabled(&world, space, Kind::Flag));
    }
}

#[test]
fn disabling_wins_over_enabling() {
    for end in [Deed::DwDisable, Deed::Remove(top(Kind::DwFlag))] {
        let (world, _, space) = apart(&[&Deed::DwEnable], &[&end], &[&Deed::DwEnable]);
        assert!(!is_enabled(&world, space, Kind::DwFlag));
        let (mut world, mut spec, space) = apart(&[&Deed::DwEnable], &[&end], &[&end]);
        assert!(!is_enabled(&world, space, Kind::DwFlag));
        spec.write(&mut world, 1, space, &[Deed::DwEnable]);
        world.run();
        assert!(is_enabled(&world, space, Kind::DwFlag));
        spec.check_converged(&world, space);
    }
}

#[test]
fn removing_an_element_wins_in_a_remove_wins_set_alone() {
    let set = top(Kind::Set);
    let add = |kind: Kind| if kind == Kind::Set { Deed::Add(set.clone(), 1) } else { Deed::RwAdd(1) };
    let take = |kind: Kind| if kind == Kind::Set { Deed::Take(set.clone(), 1) } else { Deed::RwRemove(1) };
    for (kind, stays) in [(Kind::Set, 1), (Kind::RwSet, 0)] {
        for end in [take(kind), Deed::Remove(top(kind))] {
            let (world, _, space) = apart(&[&add(kind)], &[&end], &[&add(kind)]);
            assert_eq!(elements(&world, space, kind).len(), stays, "{kind}");
        }
    }
    // Also what is not there.
    let (world, _, space) = apart(&[], &[&Deed::RwRemove(1)], &[&Deed::RwAdd(1), &Deed::RwAdd(2)]);
    assert_eq!(elements(&world, space, Kind::RwSet), [Value::I64(2)]);
}

#[test]
fn a_reset_takes_back_what_its_author_saw_and_two_take_it_back_once() {
    let counter = top(Kind::Counter);
    let add = |delta: i64| Deed::Count(counter.clone(), delta);
    let reset = Deed::Remove(counter.clone());
    let (world, _, space) = apart(&[&add(5)], &[&reset], &[&add(3)]);
    assert_eq!(count(&world, space), 3, "of the second round; the reset of that one saw the first");
    let (world, _, space) = apart(&[&add(5)], &[&reset], &[&reset]);
    assert_eq!(count(&world, space), 0);
    let (world, _, space) = apart(&[&add(5)], &[&add(1), &reset, &add(2)], &[&reset, &add(10), &reset]);
    assert_eq!(count(&world, space), 2);
    let (world, _, space) = apart(&[&add(-5)], &[&reset, &add(i64::MIN)], &[&add(7)]);
    assert_eq!(count(&world, space), i128::from(i64::MIN) + 7);
}

#[test]
fn clearing_a_set_leaves_what_was_added_meanwhile() {
    let set = top(Kind::Set);
    let add = |number| Deed::Add(set.clone(), number);
    let clear = Deed::Remove(set.clone());
    let (world, _, space) = apart(&[&add(1), &add(2)], &[&clear], &[&add(2), &add(3)]);
    assert_eq!(elements(&world, space, Kind::Set), [Value::I64(2), Value::I64(3)]);
    let (world, _, space) = apart(&[&add(1)], &[&clear, &add(1)], &[&clear]);
    assert_eq!(elements(&world, space, Kind::Set), [Value::I64(1)]);
}

#[test]
fn a_document_that_is_removed_takes_concurrent_edits_with_it_and_can_be_made_again() {
    let remove = Deed::Remove(top(Kind::Document));
    let (world, _, space) = apart(&[&Deed::Edit], &[&remove], &[&Deed::Edit, &Deed::Edit]);
    let keys = |world: &World| {
        let view = world.nodes[1].disk.view();
        let document = comity_engine::document(&view, &space, "spec", "k").unwrap();
        document.automerge().keys(ROOT).count()
    };
    assert_eq!(keys(&world), 0);
    let view = world.nodes[0].disk.view();
    assert_eq!(comity_engine::journal(&view, &space, 99).unwrap().len(), 4);
    // Both remove it, one makes it again; what was made again before the other removal was heard of goes too.
    let (mut world, mut spec, space) =
        apart(&[&Deed::Edit], &[&remove, &Deed::Edit], &[&remove, &Deed::Edit, &Deed::Edit]);
    assert_eq!(keys(&world), 0);
    for node in [0, 1, 0] {
        spec.write(&mut world, node, space, &[Deed::Edit]);
        world.run();
    }
    assert_eq!(keys(&world), 3);
    spec.write(&mut world, 1, space, &[Deed::Edit, remove.clone(), Deed::Edit, Deed::Edit]);
    world.run();
    assert_eq!(keys(&world), 2);
    let before = world.status(0, space).digest;
    for node in 0..2 {
        world.crash(node);
    }
    world.connect(0, 1);
    world.run();
    assert_eq!(world.status(1, space).digest, before);
    spec.check_converged(&world, space);
}

/// Something of every kind.
fn everything(tx: &mut Tx<'_>) -> Result<(), TxError> {
    tx.counter_add_at(&top(Kind::Counter), 5)?;
    tx.set_add_at(&top(Kind::Set), Value::I64(1))?;
    tx.register_write_at(&top(Kind::Register), Value::I64(1))?;
    tx.document_edit::<_, TxError>("spec", "k", |document| {
        document.put(ROOT, "key", 1_i64).unwrap();
        Ok(())
    })?;
    tx.flag_enable_at(&top(Kind::Flag))?;
    tx.dw_flag_enable_at(&top(Kind::DwFlag))?;
    tx.rw_set_add_at(&top(Kind::RwSet), Value::I64(1))?;
    tx.counter_add_at(&within(&["a", "b"]), 5)?;
    tx.bounded_increment_at(&top(Kind::BoundedCounter), 5)
}

/// What is shown of everything.
fn shown(read: &dyn StateRead, space: &SpaceId) -> Vec<String> {
    let kinds = Kind::APPLICATION.into_iter();
    let listed = kinds.map(|kind| {
        let listing = Listing { kind, collection: "spec", prefix: "", after: None, limit: 10 };
        format!("{kind}: {:?}", comity_engine::list(read, space, listing).unwrap())
    });
    let counters = [top(Kind::Counter), within(&["a", "b"])];
    let counters =
        counters.map(|at| format!("{at}: {}", comity_engine::counter_at(read, space, &at).unwrap()));
    let sets = [Kind::Set, Kind::RwSet].map(|kind| {
        format!("{:?}", comity_engine::set_elements_at(read, space, &top(kind), None, 10).unwrap())
    });
    let flags = [Kind::Flag, Kind::DwFlag]
        .map(|kind| format!("{:?}", comity_engine::flag_at(read, space, &top(kind)).unwrap()));
    let register = comity_engine::register_at(read, space, &top(Kind::Register)).unwrap();
    let heads = comity_engine::document_heads(read, space, "spec", "k").unwrap();
    let bounded = comity_engine::bounded_counter(read, space, "spec", "k").unwrap().value();
    let rest = [format!("{:?}", register.len()), format!("{:?}", heads.len()), bounded.to_string()];
    listed.chain(counters).chain(sets).chain(flags).chain(rest).collect()
}

fn one() -> (World, SpaceId) {
    let mut world = World::new(1);
    let space = world.create_space(0);
    (world, space)
}

#[test]
fn a_transaction_over_all_kinds_reads_what_it_wrote_and_is_shown_at_once() {
    let (mut world, space) = World::mesh(2);
    let empty = shown(&world.nodes[0].disk.view(), &space);
    let (inside, _) = world.write_with::<_, TxError>(0, space, Durability::Local, |tx| {
        everything(tx)?;
        Ok(shown(tx.state(), &space))
    });
    let full = inside.unwrap();
    assert!(full.iter().zip(&empty).all(|(full, empty)| full != empty), "{full:?}");
    // Readers see all of it or nothing, at every step, here and there.
    let mut changes = [0, 0];
    loop {
        for (node, changes) in changes.iter_mut().enumerate() {
            let now = shown(&world.nodes[node].disk.view(), &space);
            assert!(now == full || now == empty, "{now:?}");
            *changes |= usize::from(now == full);
        }
        if !world.step() {
            break;
        }
    }
    assert_eq!(changes, [1, 1]);
}

#[test]
fn a_transaction_over_all_kinds_is_rolled_back_as_a_whole() {
    let (mut world, space) = one();
    for (round, kinds) in [Vec::new(), Kind::APPLICATION.to_vec()].into_iter().enumerate() {
        let rows = world.nodes[0].disk.scan(&[0], &[0xff], usize::MAX).unwrap();
        let digest = world.status(0, space).digest;
        for panics in [false, true] {
            let (result, _) = world.write_with::<(), TxError>(0, space, Durability::Local, |tx| {
                everything(tx)?;
                kinds.iter().try_for_each(|kind| tx.remove_at(&top(*kind)))?;
                everything(tx)?;
                assert!(!panics, "the application is at fault");
                Err(TxError::refuse("no"))
            });
            assert!(result.is_err());
            assert_eq!(world.nodes[0].disk.scan(&[0], &[0xff], usize::MAX).unwrap(), rows, "round {round}");
            assert_eq!(world.status(0, space).digest, digest);
        }
        world.write(0, space, everything).unwrap();
    }
}

#[test]
fn whatever_is_removed_is_listed_no_more_and_can_be_made_again() {
    let (mut world, space) = World::mesh(2);
    let empty = shown(&world.nodes[0].disk.view(), &space);
    let mut digests = Vec::new();
    for _ in 0..3 {
        world.write(0, space, everything).unwrap();
        world.assert_converged(space);
        for kind in Kind::APPLICATION {
            world.write(0, space, |tx| tx.remove_at(&top(kind))).unwrap();
            // Once more does nothing.
            let before = world.status(0, space).digest;
            world.write(0, space, |tx| tx.remove_at(&top(kind))).unwrap();
            assert_eq!(world.status(0, space).digest, before);
        }
        world.assert_converged(space);
        assert_eq!(shown(&world.nodes[1].disk.view(), &space), empty);
        digests.push(world.status(0, space).digest);
    }
    digests.dedup();
    assert_eq!(digests.len(), 1);
}

#[test]
fn the_member_list_and_settings_are_no_ordinary_objects() {
    let (mut world, space) = one();
    let members = Location::from(ObjectAddress::members());
    let refused = world.write(0, space, |tx| tx.remove_at(&members));
    assert!(
        matches!(&refused, Err(TransactError::Refused(TxError::NotRemovable { object, .. })) if *object == members),
        "{refused:?}"
    );
    assert_eq!(world.status(0, space).members.len(), 1);
}

fn refused(body: impl FnOnce(&mut Tx<'_>) -> Result<(), TxError>) -> TxError {
    let (mut world, space) = one();
    let result = world.write(0, space, body);
    assert!(world.status(0, space).lanes.is_empty());
    match result {
        Err(TransactError::Refused(error) | TransactError::Tx(error)) => error,
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_is_of_another_kind_is_refused_with_its_name() {
    type Operation = fn(&mut Tx<'_>, &Location) -> Result<(), TxError>;
    let operations: [(Kind, Operation); 15] = [
        (Kind::Counter, |tx, at| tx.counter_add_at(at, 1)),
        (Kind::Set, |tx, at| tx.set_add_at(at, Value::Null)),
        (Kind::Set, |tx, at| tx.set_remove_at(at, Value::Null)),
        (Kind::Set, |tx, at| tx.clear_set_at(at)),
        (Kind::RwSet, |tx, at| tx.rw_set_add_at(at, Value::Null)),
        (Kind::RwSet, |tx, at| tx.rw_set_remove_at(at, Value::Null)),
        (Kind::Register, |tx, at| tx.register_write_at(at, Value::Null)),
        (Kind::Register, |tx, at| tx.register_clear_at(at)),
        (Kind::Flag, |tx, at| tx.flag_enable_at(at)),
        (Kind::Flag, |tx, at| tx.flag_disable_at(at)),
        (Kind::DwFlag, |tx, at| tx.dw_flag_enable_at(at)),
        (Kind::DwFlag, |tx, at| tx.dw_flag_disable_at(at)),
        (Kind::BoundedCounter, |tx, at| tx.bounded_increment_at(at, 1)),
        (Kind::BoundedCounter, |tx, at| tx.bounded_decrement_at(at, 0)),
        (Kind::BoundedCounter, |tx, at| tx.bounded_transfer_at(at, tx.origin(), 0)),
    ];
    for (kind, operation) in operations {
        for other in Kind::APPLICATION.into_iter().filter(|other| *other != kind) {
            let error = refused(|tx| operation(tx, &top(other)));
            let named = matches!(&error, TxError::Path { object, .. } if *object == top(other));
            assert!(named, "an operation on a {kind} was made on a {other}: {error:?}");
        }
    }
}

#[test]
fn values_beyond_their_limits_are_refused_with_object_and_limit() {
    let long = |bytes: usize| Value::Bytes(vec![0; bytes]);
    let assert_named = |error: TxError, at: &Location, limit: usize| {
        let TxError::Value { object, source: ValueError::TooLarge { bytes_max, .. } } = &error else {
            panic!("{error:?}")
        };
        assert_eq!((object, *bytes_max), (at, limit));
        assert!(error.to_string().contains(&limit.to_string()), "{error}");
    };
    for at in [top(Kind::Set), within(&["a", "b"])] {
        let error = refused(|tx| tx.set_add_at(&at, long(ELEMENT_BYTES_MAX)));
        assert_named(error, &at, ELEMENT_BYTES_MAX);
        let error = refused(|tx| tx.set_remove_at(&at, long(ELEMENT_BYTES_MAX)));
        assert_named(error, &at, ELEMENT_BYTES_MAX);
    }
    for at in [top(Kind::Register), within(&["a", "b"])] {
        let error = refused(|tx| tx.register_write_at(&at, long(VALUE_BYTES_MAX)));
        assert_named(error, &at, VALUE_BYTES_MAX);
    }
    let set = top(Kind::RwSet);
    assert_named(refused(|tx| tx.rw_set_add_at(&set, long(ELEMENT_BYTES_MAX))), &set, ELEMENT_BYTES_MAX);
    assert_named(refused(|tx| tx.rw_set_remove_at(&set, long(ELEMENT_BYTES_MAX))), &set, ELEMENT_BYTES_MAX);
    let error = refused(|tx| {
        (0..130).try_for_each(|_| tx.counter_add_at(&top(Kind::Counter), i64::MAX))?;
        tx.set_add_at(&top(Kind::Set), long(ELEMENT_BYTES_MAX))
    });
    assert_named(error, &top(Kind::Set), ELEMENT_BYTES_MAX);
}

#[test]
fn a_removal_that_does_not_fit_removes_nothing_of_it() {
    let (mut world, space) = one();
    let half = CHANGE_SET_OPS_MAX / 2 + 1;
    let fill = |tx: &mut Tx<'_>, from: usize| {
        let numbers = (from..from + half).map(|number| Value::I64(number as i64));
        numbers.into_iter().try_for_each(|number| tx.rw_set_add_at(&top(Kind::RwSet), number))
    };
    world.write(0, space, |tx| fill(tx, 0)).unwrap();
    world.write(0, space, |tx| fill(tx, half)).unwrap();
    // The transaction goes on without the removal.
    world
        .write(0, space, |tx| {
            let refused = tx.remove_at(&top(Kind::RwSet));
            assert!(
                matches!(refused, Err(TxError::TooManyOps { ops_max: CHANGE_SET_OPS_MAX })),
                "{refused:?}"
            );
            tx.counter_add_at(&top(Kind::Counter), 1)
        })
        .unwrap();
    let view = world.nodes[0].disk.view();
    assert_eq!(comity_engine::set_len_at(&view, &space, &top(Kind::RwSet)).unwrap(), 2 * half as u64);
}

#[test]
fn a_removal_that_needs_to_be_confirmed_removes_nothing_of_it_before() {
    let (mut world, space) = World::mesh(2);
    world
        .write(0, space, |tx| {
            tx.set_add_at(&within(&["a"]), Value::I64(1))?;
            tx.register_write_at(&within(&["b"]), Value::I64(1))?;
            tx.counter_add_at(&within(&["c"]), 1)
        })
        .unwrap();
    world.disconnect_all(None);
    world
        .write(1, space, |tx| {
            let refused = tx.remove_at(&within(&[]));
            assert!(
                matches!(&refused, Err(TxError::Unconfirmed { object }) if *object == within(&["c"])),
                "{refused:?}"
            );
            tx.counter_add_at(&top(Kind::Counter), 1)
        })
        .unwrap();
    let view = world.nodes[1].disk.view();
    assert_eq!(comity_engine::map_len(&view, &space, &within(&[])).unwrap(), 3);
}

/// A ghost that wrote `ops` to an object at once, each without having seen the others.
fn flooded(kind: Kind, ops: Vec<Op>) -> (World, SpaceId) {
    let (mut world, space) = one();
    let mut ghost = Ghost::new(9, space);
    let entry = ghost.draft(vec![Group { address: top(kind).object, ops }]);
    ghost.append(entry);
    let (session, subscription) = world.admit(0, &ghost);
    world.inject(0, session, data(subscription, 1, &ghost.run(0, 1)));
    world.run();
    assert!(world.is_connected(session));
    (world, space)
}

#[test]
fn more_concurrent_values_than_an_operation_can_name_are_told_and_not_dropped() {
    // As many as fit into a change set: what it takes to apply them grows with their number, not with its square.
    let count = CHANGE_SET_OPS_MAX;
    let enable = |_| Op::FlagEnable { observed: Vec::new() };
    let (mut world, space) = flooded(Kind::Flag, (0..count).map(enable).collect());
    for body in [
        (|tx| tx.flag_disable_at(&top(Kind::Flag))) as fn(&mut Tx<'_>) -> Result<(), TxError>,
        |tx| tx.flag_enable_at(&top(Kind::Flag)),
        |tx| tx.remove_at(&top(Kind::Flag)),
    ] {
        let refused = world.write(0, space, body);
        let Err(TransactError::Refused(error @ TxError::TooManySiblings { .. })) = &refused else {
            panic!("{refused:?}")
        };
        assert!(error.to_string().contains(&CONTEXT_DOTS_MAX.to_string()), "{error}");
    }
    let view = world.nodes[0].disk.view();
    assert!(comity_engine::flag_at(&view, &space, &top(Kind::Flag)).unwrap());
    // A set is cleared by intervals, which one author has one of.
    let add = |_| Op::SetAdd { element: Value::Null, observed: Vec::new() };
    let (mut world, space) = flooded(Kind::Set, (0..count).map(add).collect());
    world.write(0, space, |tx| tx.clear_set_at(&top(Kind::Set))).unwrap();
    let view = world.nodes[0].disk.view();
    assert_eq!(comity_engine::set_len_at(&view, &space, &top(Kind::Set)).unwrap(), 0);
    // Two registers in turns.
    let write = |n: usize| Op::Nested {
        path: vec![["a", "b"][n % 2].to_owned()],
        op: Box::new(Op::RegisterSet {
            value: Value::I64(n as i64),
            hlc: Hlc::new(1_700_000_000_001, 0),
            observed: Vec::new(),
        }),
    };
    let (world, space) = flooded(Kind::Map, (0..count / 2).map(write).collect());
    let view = world.nodes[0].disk.view();
    let siblings = comity_engine::register_at(&view, &space, &within(&["a"])).unwrap();
    assert_eq!(siblings.len(), count / 4 + 1);
}

#[test]
fn lists_come_in_pages_of_what_is_there() {
    let (mut world, space) = World::mesh(2);
    let at =
        |n: usize| Location::from(ObjectAddress::new(Kind::DwFlag, "flags", &format!("{n:03}")).unwrap());
    world.write(0, space, |tx| (0..90).try_for_each(|n| tx.dw_flag_enable_at(&at(n)))).unwrap();
    let (removed, _) = world.write_with::<_, TxError>(0, space, Durability::Local, |tx| {
        (0..90).filter(|n| n % 3 != 0).try_for_each(|n| tx.dw_flag_disable_at(&at(n)))
    });
    removed.unwrap();
    world.drain_steps();
    for limit in [1, 7, 30, 31, usize::MAX] {
        let (mut keys, mut after): (Vec<String>, Option<String>) = (Vec::new(), None);
        loop {
            let (kind, after_key) = (Kind::DwFlag, after.as_deref());
            let listing = Listing { kind, collection: "flags", prefix: "0", after: after_key, limit };
            let page = comity_engine::list(&world.nodes[1].disk.view(), &space, listing).unwrap();
            assert!(page.len() <= limit);
            let Some(last) = page.last() else { break };
            after = Some(last.clone());
            keys.extend(page);
        }
        let wanted: Vec<String> = (0..90).step_by(3).map(|n| format!("{n:03}")).collect();
        assert_eq!(keys, wanted, "pages of {limit}");
    }
}
