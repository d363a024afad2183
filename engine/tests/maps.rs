//! Maps, nested three deep, against a declarative specification: every kind that nests, keys and whole maps removed,
//! concurrently, under partitions and crashes.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod world;

use std::time::Duration;

use comity_crdts::limits::{CHANGE_SET_OPS_MAX, KEY_BYTES_MAX, MAP_DEPTH_MAX};
use comity_crdts::{Kind, SpaceId, Value};
use comity_engine::{Location, Matter, StateRead, TransactError, Tx, TxError};
use proptest::prelude::*;
use world::World;
use world::spec::{Deed, NESTABLE, Spec, top, within};
use world::unrest::{Event, Unrest, config, map_deeds, run, schedules};

const THREE: Unrest = Unrest { nodes_min: 3, nodes_max: 3, events_max: 32, ms_max: 400, restores: false };
const FOUR: Unrest = Unrest { nodes_min: 4, nodes_max: 4, ..THREE };

/// The rows of objects and of what they hold, without members.
fn rows(world: &World, node: usize) -> Vec<Vec<u8>> {
    let rows = world.nodes[node].disk.scan(&[0x30], &[0x40], usize::MAX).unwrap();
    rows.into_iter().map(|(key, _)| key).filter(|key| key[0] != 0x36).collect()
}

/// Runs a schedule to its end, and then removes everything that is left.
fn run_and_remove(schedule: &(usize, Vec<Event>)) {
    let (mut world, mut spec, space) = run(schedule);
    spec.write(&mut world, 0, space, &[Deed::Remove(within(&[]))]);
    for _ in 0..2 {
        world.pass(Duration::from_secs(2));
    }
    spec.check_converged(&world, space);
    assert_eq!(spec.unconfirmed, 0, "removals in maps are not refused to who is known");
    for node in 0..world.nodes.len() {
        let is_left = |row: &Vec<u8>| matches!(row[0], 0x32 | 0x37 | 0x38);
        let left: Vec<_> = rows(&world, node).into_iter().filter(is_left).collect();
        assert!(left.is_empty(), "node {node}: {left:02x?}");
        let elements = rows(&world, node).iter().filter(|row| row[0] == 0x31).count();
        assert_eq!(elements, spec.check(&world, node, space).len(), "elements of the set of writes");
    }
}

proptest! {
    #![proptest_config(config(650))]
    #[test]
    fn maps_at_three_replicas_show_what_the_specification_says_and_removed_keys_leave_nothing(
        schedule in schedules(THREE, map_deeds),
    ) {
        run_and_remove(&schedule);
    }
}

proptest! {
    #![proptest_config(config(350))]
    #[test]
    fn maps_at_four_replicas_show_what_the_specification_says_and_removed_keys_leave_nothing(
        schedule in schedules(FOUR, map_deeds),
    ) {
        run_and_remove(&schedule);
    }
}

/// Two nodes that have not heard of each other's last writes.
fn apart(
    first: impl FnOnce(&mut Tx<'_>) -> Result<(), TxError>,
    here: impl FnOnce(&mut Tx<'_>) -> Result<(), TxError>,
    there: impl FnOnce(&mut Tx<'_>) -> Result<(), TxError>,
) -> (World, SpaceId) {
    let (mut world, space) = World::mesh(2);
    world.write(1, space, |tx| tx.counter_add("stats", "likes", 1)).unwrap();
    world.write(0, space, first).unwrap();
    world.disconnect_all(None);
    world.write(0, space, here).unwrap();
    world.write(1, space, there).unwrap();
    world.connect(0, 1);
    world.run();
    world.assert_converged(space);
    (world, space)
}

fn everything(tx: &mut Tx<'_>, path: &[&str], number: i64) -> Result<(), TxError> {
    tx.counter_add_at(&within(path), number)?;
    tx.set_add_at(&within(path), Value::I64(number))?;
    tx.register_write_at(&within(path), Value::I64(number))?;
    tx.flag_enable_at(&within(path))
}

#[test]
fn what_is_added_while_a_key_is_removed_survives_alone() {
    for removed in [vec!["a", "b", "c", "d"], vec!["a", "b"], vec![]] {
        let path = ["a", "b", "c", "d"];
        let (world, space) = apart(
            |tx| everything(tx, &path, 1),
            |tx| tx.remove_at(&within(&removed)),
            |tx| everything(tx, &path, 2),
        );
        let view = world.nodes[0].disk.view();
        assert_eq!(comity_engine::counter_at(&view, &space, &within(&path)).unwrap(), 2);
        let elements = comity_engine::set_elements_at(&view, &space, &within(&path), None, 9).unwrap();
        assert_eq!(elements, [Value::I64(2)]);
        let register = comity_engine::register_at(&view, &space, &within(&path)).unwrap();
        assert_eq!(register.siblings().map(|(_, s)| s.value.clone()).collect::<Vec<_>>(), [Value::I64(2)]);
        assert!(comity_engine::flag_at(&view, &space, &within(&path)).unwrap());
        assert_eq!(comity_engine::map_len(&view, &space, &within(&path[..3])).unwrap(), 4);
        assert_eq!(comity_engine::map_len(&view, &space, &within(&[])).unwrap(), 1);
    }
}

#[test]
fn kinds_that_meet_under_a_key_are_a_conflict_until_all_but_one_are_removed() {
    let (mut world, space) = apart(
        |_| Ok(()),
        |tx| tx.counter_add_at(&within(&["a", "k"]), 1),
        |tx| tx.register_write_at(&within(&["a", "k"]), Value::Null),
    );
    let conflicts = |world: &World| {
        let view = world.nodes[0].disk.view();
        comity_engine::conflicts(&view, &space, &Default::default(), None, 10).unwrap()
    };
    let found = conflicts(&world);
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].location, within(&["a", "k"]));
    assert!(
        matches!(&found[0].matter, Matter::Kinds { kinds, .. } if *kinds == [Kind::Counter, Kind::Register])
    );
    assert!(found[0].seen().is_empty());
    let view = world.nodes[0].disk.view();
    let keys = comity_engine::map_keys(&view, &space, &within(&["a"]), None, 10).unwrap();
    assert_eq!(keys, [("k".to_owned(), vec![Kind::Counter, Kind::Register])]);
    assert_eq!(comity_engine::map_len(&view, &space, &within(&["a"])).unwrap(), 2);
    world.write(1, space, |tx| tx.register_clear_at(&within(&["a", "k"]))).unwrap();
    assert!(conflicts(&world).is_empty());
}

#[test]
fn keys_come_in_pages() {
    let mut world = World::new(1);
    let space = world.create_space(0);
    let mut names: Vec<String> = (0..40).map(|n| format!("k{n:02}")).collect();
    names.extend(["a", "aa", "a\u{1}", "b\u{1f600}"].map(str::to_owned));
    names.sort();
    world
        .write(0, space, |tx| {
            for (index, name) in names.iter().enumerate() {
                tx.counter_add_at(&within(&[name]), 1)?;
                if index % 3 == 0 {
                    tx.flag_enable_at(&within(&[name]))?;
                }
            }
            (0..3).try_for_each(|gone| tx.remove_at(&within(&[&names[gone * 7 + 1]])))
        })
        .unwrap();
    let gone = |index: usize| [1, 8, 15].contains(&index);
    let wanted: Vec<&String> =
        names.iter().enumerate().filter(|(i, _)| !gone(*i)).map(|(_, name)| name).collect();
    let view = world.nodes[0].disk.view();
    for limit in [1, 2, 3, 7, 100, usize::MAX] {
        let mut found: Vec<String> = Vec::new();
        loop {
            let after = found.last().map(String::as_str);
            let page = comity_engine::map_keys(&view, &space, &within(&[]), after, limit).unwrap();
            assert!(page.len() <= limit);
            let is_end = page.is_empty();
            found.extend(page.into_iter().map(|(name, _)| name));
            if is_end {
                break;
            }
        }
        assert_eq!(found.iter().collect::<Vec<_>>(), wanted, "pages of {limit}");
    }
    assert!(comity_engine::map_keys(&view, &space, &within(&[]), None, 0).unwrap().is_empty());
}

/// The transaction is refused, naming the object.
fn refused(body: impl FnOnce(&mut Tx<'_>) -> Result<(), TxError>) -> TxError {
    let mut world = World::new(1);
    let space = world.create_space(0);
    let before = world.nodes[0].disk.commits();
    let result = world.write(0, space, body);
    assert_eq!(world.nodes[0].disk.commits(), before);
    match result {
        Err(TransactError::Refused(error) | TransactError::Tx(error)) => error,
        other => panic!("{other:?}"),
    }
}

#[test]
fn paths_that_lead_nowhere_are_refused_with_their_object() {
    let deep: Vec<&str> = vec!["a"; MAP_DEPTH_MAX + 1];
    let long = "k".repeat(KEY_BYTES_MAX + 1);
    for path in [vec![""], vec!["a", "b\0"], deep.clone()] {
        let error = refused(|tx| tx.counter_add_at(&within(&path), 1));
        assert!(matches!(&error, TxError::Path { object, .. } if *object == within(&path)), "{error:?}");
        let error = refused(|tx| tx.remove_at(&within(&path)));
        assert!(matches!(&error, TxError::Path { object, .. } if *object == within(&path)), "{error:?}");
    }
    let error = refused(|tx| tx.counter_add_at(&within(&[&long]), 1));
    assert!(error.to_string().contains(&KEY_BYTES_MAX.to_string()), "{error}");
    let nested_in = |kind: Kind| Location { path: vec!["a".to_owned()], ..top(kind) };
    for kind in Kind::APPLICATION.into_iter().filter(|kind| *kind != Kind::Map) {
        let error = refused(|tx| tx.counter_add_at(&nested_in(kind), 1));
        assert!(matches!(&error, TxError::Path { .. }), "{error:?}");
        let error = refused(|tx| tx.remove_at(&nested_in(kind)));
        assert!(matches!(&error, TxError::Path { .. }), "{error:?}");
    }
    let error = refused(|tx| tx.rw_set_add_at(&within(&["a"]), Value::Null));
    assert!(matches!(&error, TxError::Path { .. }), "{error:?}");
    let error = refused(|tx| tx.bounded_increment_at(&within(&["a"]), 1));
    assert!(matches!(&error, TxError::Path { .. }), "{error:?}");
    let error = refused(|tx| tx.dw_flag_disable_at(&within(&["a"])));
    assert!(matches!(&error, TxError::Path { .. }), "{error:?}");
}

#[test]
fn paths_of_the_greatest_length_reach_other_replicas() {
    let (mut world, space) = World::mesh(2);
    let long = "k".repeat(KEY_BYTES_MAX);
    let path = vec![long.as_str(); MAP_DEPTH_MAX];
    world.write(0, space, |tx| everything(tx, &path, 1)).unwrap();
    world.assert_converged(space);
    let view = world.nodes[1].disk.view();
    for kind in NESTABLE {
        let keys = comity_engine::map_keys(&view, &space, &within(&path[..3]), None, 10).unwrap();
        assert!(keys[0].1.contains(&kind));
    }
    assert!(world.nodes.iter().all(|node| node.closed.is_empty()));
}

#[test]
fn a_map_too_large_to_be_removed_at_once_can_be_removed_key_by_key() {
    let mut world = World::new(1);
    let space = world.create_space(0);
    let count = CHANGE_SET_OPS_MAX + 1;
    for part in 0..2 {
        let names = (0..count).filter(|n| n % 2 == part);
        world
            .write(0, space, |tx| {
                names.map(|n| n.to_string()).try_for_each(|n| tx.flag_enable_at(&within(&[&n])))
            })
            .unwrap();
    }
    let before = world.status(0, space).digest;
    let refused = world.write(0, space, |tx| tx.remove_at(&within(&[])));
    let Err(TransactError::Refused(TxError::TooManyOps { ops_max: CHANGE_SET_OPS_MAX })) = refused else {
        panic!("{refused:?}")
    };
    assert_eq!(world.status(0, space).digest, before);
    world.write(0, space, |tx| tx.remove_at(&within(&["0"]))).unwrap();
    world.write(0, space, |tx| tx.remove_at(&within(&[]))).unwrap();
    assert!(rows(&world, 0).iter().all(|row| row[0] != 0x32));
}

#[test]
fn a_specification_that_is_wrong_is_noticed() {
    let mut world = World::new(1);
    let space = world.create_space(0);
    let mut spec = Spec::default();
    spec.write(&mut world, 0, space, &[Deed::Count(within(&["a"]), 1)]);
    world.run();
    spec.check(&world, 0, space);
    world.write(0, space, |tx| tx.counter_add_at(&within(&["a"]), 1)).unwrap();
    let unnoticed = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| spec.check(&world, 0, space)));
    assert!(unnoticed.is_err());
}
