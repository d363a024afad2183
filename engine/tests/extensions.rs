//! Operations and kinds of later versions: kept, passed on, held, and carried out after an upgrade.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod world;

use std::time::Duration;

use comity_crdts::automerge::transaction::Transactable;
use comity_crdts::automerge::{ROOT, ReadDoc};
use comity_crdts::{ExtensionTag, Kind, ObjectAddress, SpaceId, Value};
use comity_engine::wire::{Group, Op};
use comity_engine::{
    BootstrapLimits, Command, CommandError, Extensions, Fault, Listing, Location, Matters, Notice, ReadError,
    Retention, Role, TransactError, Tx, TxError, held_objects,
};
use world::World;
use world::ghost::Ghost;
use world::removals::writers;
use world::spec::{top, within};

/// Opens a replica again that knows operations of the version that does not exist.
fn upgrade(world: &mut World, node: usize) {
    world.nodes[node].extensions = Extensions::FUTURE;
    world.crash(node);
}

fn connect_and_settle(world: &mut World) {
    world.connect_all();
    world.pass(Duration::from_secs(2));
}

/// A mesh of which the first `new` replicas know the future.
fn mixed(count: usize, new: usize) -> (World, SpaceId) {
    let (mut world, space) = World::mesh(count);
    (0..new).for_each(|node| upgrade(&mut world, node));
    connect_and_settle(&mut world);
    (world, space)
}

fn ahead(tx: &mut Tx<'_>) {
    assert!(tx.speak_of_the_future());
}

fn number(value: i64) -> Value {
    Value::I64(value)
}

fn read<R>(
    world: &World,
    node: usize,
    read: impl FnOnce(&dyn comity_engine::StateRead) -> Result<R, ReadError>,
) -> Result<R, ReadError> {
    read(&world.nodes[node].disk.view())
}

fn counter(world: &World, node: usize, space: SpaceId) -> Result<i128, ReadError> {
    read(world, node, |view| comity_engine::counter_at(view, &space, &top(Kind::Counter)))
}

fn values(world: &World, node: usize, space: SpaceId) -> Result<Vec<Value>, ReadError> {
    let register = read(world, node, |view| comity_engine::register_at(view, &space, &top(Kind::Register)))?;
    Ok(register.siblings().map(|(_, sibling)| sibling.value.clone()).collect())
}

fn assert_held<R: std::fmt::Debug>(result: Result<R, ReadError>) {
    let error = result.unwrap_err();
    assert!(matches!(error, ReadError::Held { .. }), "{error:?}");
}

fn assert_verified(world: &World) {
    for node in &world.nodes {
        let mut faults = Vec::new();
        // Of logs that are shortened there is less than it looks for.
        let is_of_log = |fault: &Fault| matches!(fault.matters, Matters::Chain | Matters::Order);
        let found = |fault: Fault| faults.extend((!is_of_log(&fault)).then(|| fault.to_string()));
        comity_engine::verify(&node.disk.view(), found, |_| {}).unwrap();
        assert_eq!(faults, Vec::<String>::new());
    }
}

#[test]
fn what_is_not_known_is_passed_on_and_held_with_all_that_follows_on_its_object() {
    // Between 0 and 2 is only 1, which does not know.
    let (mut world, space) = mixed(3, 1);
    let between = world.session_between(0, 2).unwrap();
    world.disconnect(between);
    world.write(0, space, |tx| tx.counter_add_at(&top(Kind::Counter), 1)).unwrap();
    world
        .write(0, space, |tx| {
            ahead(tx);
            tx.counter_add_at(&top(Kind::Counter), 10)?;
            tx.register_write_at(&top(Kind::Register), number(7))
        })
        .unwrap();
    world.write(0, space, |tx| tx.counter_add_at(&top(Kind::Counter), 100)).unwrap();
    world.write(0, space, |tx| tx.counter_add("stats", "other", 5)).unwrap();
    world.pass(Duration::from_secs(1));
    for node in [1, 2] {
        assert_held(counter(&world, node, space));
        assert_held(values(&world, node, space));
        let other = read(&world, node, |view| comity_engine::counter(view, &space, "stats", "other"));
        assert_eq!(other, Ok(5), "all else goes on");
        assert_eq!(world.status(node, space).frontier, world.status(0, space).frontier);
        assert_eq!(world.status(node, space).held, 2);
        let view = world.nodes[node].disk.view();
        let held = held_objects(&view, &space, None, 10).unwrap();
        assert_eq!(held, [top(Kind::Counter).object, top(Kind::Register).object]);
        assert_eq!(held_objects(&view, &space, Some(&held[0]), 10).unwrap(), held[1..]);
    }
    world.assert_held_alike(space, (1, 2));
    assert_verified(&world);
    // The one at the end is upgraded first.
    upgrade(&mut world, 2);
    connect_and_settle(&mut world);
    assert_eq!(counter(&world, 2, space), Ok(111));
    assert_eq!(values(&world, 2, space), Ok(vec![number(7)]));
    let released = |notice: &Notice| matches!(notice, Notice::Released { objects, .. } if objects.len() == 2);
    assert!(world.nodes[2].notices.iter().any(released));
    upgrade(&mut world, 1);
    connect_and_settle(&mut world);
    world.assert_converged(space);
    assert!((0..3).all(|node| world.status(node, space).held == 0));
    assert_verified(&world);
}

#[test]
fn an_object_that_is_held_can_be_neither_written_nor_removed_and_others_can() {
    let (mut world, space) = mixed(2, 1);
    world
        .write(0, space, |tx| {
            ahead(tx);
            tx.counter_add_at(&top(Kind::Counter), 10)?;
            tx.counter_add_at(&within(&["a"]), 1)
        })
        .unwrap();
    let refused = |result: Result<(), TransactError<TxError>>| {
        assert!(matches!(result, Err(TransactError::Refused(TxError::Held { .. }))), "{result:?}")
    };
    refused(world.write(1, space, |tx| tx.counter_add_at(&top(Kind::Counter), 1)));
    refused(world.write(1, space, |tx| tx.remove_at(&top(Kind::Counter))));
    refused(world.write(1, space, |tx| tx.counter_add_at(&within(&["b"]), 1)));
    refused(world.write(1, space, |tx| tx.remove_at(&within(&["a"]))));
    assert_held(read(&world, 1, |view| comity_engine::map_len(view, &space, &top(Kind::Map))));
    // Rights to a counter that is held are not asked for.
    world
        .write(0, space, |tx| {
            ahead(tx);
            tx.bounded_increment_at(&top(Kind::BoundedCounter), 9)
        })
        .unwrap();
    let at = top(Kind::BoundedCounter).object;
    let (collection, key) = (at.collection().to_owned(), at.key().to_owned());
    let acquire =
        Command::AcquireRights { space, collection, key, amount: 2, within: Duration::from_secs(1) };
    assert!(matches!(world.command(1, acquire), Err(CommandError::Held { .. })));
    world.write(1, space, |tx| tx.counter_add("stats", "other", 1)).unwrap();
    // A transaction that was refused one operation can go on with another.
    world
        .write(1, space, |tx| {
            assert!(tx.counter_add_at(&top(Kind::Counter), 1).is_err());
            tx.counter_add("stats", "other", 1)
        })
        .unwrap();
    assert_eq!(read(&world, 0, |view| comity_engine::counter(view, &space, "stats", "other")), Ok(2));
}

#[test]
fn what_comes_after_is_carried_out_after_it() {
    let (mut world, space) = mixed(2, 1);
    let at = top(Kind::Register);
    world.write(0, space, |tx| tx.register_write_at(&at, number(1))).unwrap();
    world
        .write(0, space, |tx| {
            ahead(tx);
            tx.register_write_at(&at, number(2))
        })
        .unwrap();
    // It replaces what is held at the other one.
    world.write(0, space, |tx| tx.register_write_at(&at, number(3))).unwrap();
    upgrade(&mut world, 1);
    connect_and_settle(&mut world);
    assert_eq!(values(&world, 1, space), Ok(vec![number(3)]));
    world.assert_converged(space);
}

#[test]
fn a_map_is_held_whole_and_lists_show_what_is_held() {
    let (mut world, space) = mixed(2, 1);
    world
        .write(0, space, |tx| {
            tx.counter_add("stats", "a", 1)?;
            ahead(tx);
            tx.counter_add("stats", "b", 1)?;
            tx.counter_add("stats", "b-2", 1)?;
            tx.counter_add("stats", "d", 1)
        })
        .unwrap();
    world.write(0, space, |tx| tx.counter_add("stats", "c", 1)).unwrap();
    let list = |after, limit| {
        let listing = Listing { kind: Kind::Counter, collection: "stats", prefix: "", after, limit };
        read(&world, 1, |view| comity_engine::list(view, &space, listing)).unwrap()
    };
    assert_eq!(list(None, 9), ["a", "b", "b-2", "c", "d"]);
    assert_eq!(list(Some("b"), 2), ["b-2", "c"]);
    let collections =
        read(&world, 1, |view| comity_engine::collections(view, &space, Kind::Counter, None, 9)).unwrap();
    assert_eq!(collections, ["stats"]);
}

#[test]
fn objects_of_kinds_that_are_not_known_are_held_from_the_start() {
    let (mut world, space) = mixed(3, 1);
    let kind = Kind::from_tag(64).unwrap();
    for delta in [3, 4] {
        world.write(0, space, |tx| tx.future_counter_add("later", "score", delta)).unwrap();
    }
    let address = ObjectAddress::new(kind, "later", "score").unwrap();
    for node in [1, 2] {
        let view = world.nodes[node].disk.view();
        assert_eq!(held_objects(&view, &space, None, 9).unwrap(), std::slice::from_ref(&address));
        let listing = Listing { kind, collection: "later", prefix: "", after: None, limit: 9 };
        assert_eq!(comity_engine::list(&view, &space, listing).unwrap(), ["score"]);
        let collections = comity_engine::collections(&view, &space, kind, None, 9).unwrap();
        assert_eq!(collections, ["later"]);
    }
    assert_verified(&world);
    for node in [1, 2] {
        upgrade(&mut world, node);
    }
    connect_and_settle(&mut world);
    world.assert_converged(space);
    assert_verified(&world);
    assert!((0..3).all(|node| world.status(node, space).held == 0));
}

#[test]
fn two_that_hold_agree_although_they_stopped_at_different_places() {
    let (mut world, space) = mixed(3, 1);
    world.disconnect_all(None);
    // 2 has its own addition before what it does not know, and 1 after.
    world.write(2, space, |tx| tx.counter_add_at(&top(Kind::Counter), 1)).unwrap();
    world
        .write(0, space, |tx| {
            ahead(tx);
            tx.counter_add_at(&top(Kind::Counter), 10)
        })
        .unwrap();
    world.connect(0, 1);
    world.run();
    connect_and_settle(&mut world);
    world.assert_held_alike(space, (1, 2));
    (1..3).for_each(|node| upgrade(&mut world, node));
    connect_and_settle(&mut world);
    assert_eq!((0..3).map(|node| counter(&world, node, space).unwrap()).collect::<Vec<_>>(), [11, 11, 11]);
    world.assert_converged(space);
    assert_verified(&world);
}

#[test]
fn removals_are_judged_by_what_was_seen_although_everybody_forgets_meanwhile() {
    let (mut world, space) = writers(3);
    upgrade(&mut world, 0);
    connect_and_settle(&mut world);
    let club = top(Kind::RwSet);
    let has = |world: &World, node| {
        read(world, node, |view| comity_engine::set_contains_at(view, &space, &club, &number(1)))
    };
    world.write(0, space, |tx| tx.rw_set_add_at(&club, number(1))).unwrap();
    world.pass(Duration::from_secs(3));
    world.disconnect_all(None);
    // At the same time: removed, and added in a way that only 0 knows. The removal wins.
    world.write(1, space, |tx| tx.rw_set_remove_at(&club, number(1))).unwrap();
    world
        .write(0, space, |tx| {
            ahead(tx);
            tx.rw_set_add_at(&club, number(1))
        })
        .unwrap();
    connect_and_settle(&mut world);
    for _ in 0..5 {
        world.pass(Duration::from_secs(3));
    }
    assert_eq!(has(&world, 0), Ok(false));
    (1..3).for_each(|node| upgrade(&mut world, node));
    connect_and_settle(&mut world);
    world.pass(Duration::from_secs(5));
    assert_eq!([has(&world, 1), has(&world, 2)], [Ok(false), Ok(false)]);
    world.assert_converged(space);
    for node in 0..3 {
        let rows = comity_engine::unstable_rows(&world.nodes[node].disk.view(), &space);
        assert_eq!(rows, Ok(0), "what was kept for it is forgotten");
    }
}

#[test]
fn documents_are_held_too_and_need_no_log_when_they_go_on() {
    let (mut world, space) = mixed(2, 1);
    let brief = Retention {
        age: Duration::from_secs(1),
        bytes_max: u64::MAX,
        announce_after: Duration::from_secs(1),
    };
    world.nodes.iter_mut().for_each(|node| node.retention = brief);
    (0..2).for_each(|node| world.crash(node));
    connect_and_settle(&mut world);
    let edit = |world: &mut World, key: &'static str| {
        world
            .write(0, space, |tx| {
                tx.document_edit::<_, TxError>("notes", "draft", |doc| Ok(doc.put(ROOT, key, 1)?))
            })
            .unwrap();
    };
    edit(&mut world, "before");
    // An operation that nobody knows what to make of does nothing to a document.
    world
        .write(0, space, |tx| tx.future_touch(&ObjectAddress::new(Kind::Document, "notes", "draft")?.into()))
        .unwrap();
    edit(&mut world, "after");
    edit(&mut world, "last");
    let keys = |world: &World, node: usize| {
        let document = comity_engine::document(&world.nodes[node].disk.view(), &space, "notes", "draft");
        document.map(|document| document.automerge().length(ROOT))
    };
    assert_eq!(keys(&world, 0), Ok(3));
    assert_eq!(
        keys(&world, 1).unwrap_err(),
        ReadError::Held { location: ObjectAddress::new(Kind::Document, "notes", "draft").unwrap().into() }
    );
    for _ in 0..30 {
        world.nodes.iter_mut().for_each(|node| node.wall_ms += 1_000);
        world.pass(Duration::from_secs(1));
    }
    let status = world.status(1, space);
    assert!(status.lanes.iter().any(|lane| lane.floor > 3), "{status:?}");
    assert_verified(&world);
    upgrade(&mut world, 1);
    connect_and_settle(&mut world);
    assert_eq!(keys(&world, 1), Ok(3));
    world.assert_converged(space);
    assert_verified(&world);
}

#[test]
fn what_is_held_comes_with_a_state_that_is_taken_over_and_is_carried_out_there() {
    let (mut world, space) = mixed(2, 1);
    world
        .write(0, space, |tx| {
            ahead(tx);
            tx.counter_add_at(&top(Kind::Counter), 10)?;
            tx.register_write_at(&top(Kind::Register), number(7))
        })
        .unwrap();
    for _ in 0..20 {
        world.add(0, space, 1);
    }
    let admin = Command::Grant { space, replica: world.replica(1), role: Role::Admin };
    world.command(0, admin).unwrap();
    // From 1, which holds: one that does not know, and one that does.
    for knows in [false, true] {
        let node = world.add_node([0x30 + u8::from(knows); 32], world::disk::Disk::default());
        world.nodes[node].bootstrap = BootstrapLimits { entries_min: 5, ..BootstrapLimits::USUAL };
        if knows {
            world.nodes[node].extensions = Extensions::FUTURE;
        }
        world.crash(node);
        let secret = world.invite(1, space, Role::Writer);
        world.prepare_join(1, node, space, secret);
        world.connect(1, node);
        world.run();
        for _ in 0..20 {
            world.pass(Duration::from_secs(1));
        }
        assert!(world.status(node, space).lanes.iter().any(|lane| lane.floor > 0), "by its state");
        if knows {
            assert_eq!(counter(&world, node, space), Ok(10));
        } else {
            assert_held(counter(&world, node, space));
            world.assert_held_alike(space, (1, node));
        }
    }
    assert_verified(&world);
    (1..3).for_each(|node| upgrade(&mut world, node));
    connect_and_settle(&mut world);
    world.assert_converged(space);
    assert_verified(&world);
}

#[test]
fn a_state_with_kinds_that_the_other_does_not_know_is_not_offered() {
    let (mut world, space) = mixed(2, 1);
    world.write(0, space, |tx| tx.future_counter_add("later", "score", 1)).unwrap();
    for _ in 0..20 {
        world.add(0, space, 1);
    }
    let node = world.add_node([0x30; 32], world::disk::Disk::default());
    world.nodes[node].bootstrap = BootstrapLimits { entries_min: 5, ..BootstrapLimits::USUAL };
    world.crash(node);
    let secret = world.invite(0, space, Role::Writer);
    world.prepare_join(0, node, space, secret);
    world.connect(0, node);
    for _ in 0..10 {
        world.pass(Duration::from_secs(1));
    }
    assert!(world.status(node, space).lanes.iter().all(|lane| lane.floor == 0));
    // From somebody who holds the same it can be had.
    world.connect(1, node);
    for _ in 0..10 {
        world.pass(Duration::from_secs(1));
    }
    world.assert_held_alike(space, (1, node));
}

#[test]
fn an_upgrade_is_interrupted_anywhere_and_nothing_is_lost_or_done_twice() {
    let (mut world, space) = mixed(2, 1);
    for round in 0..600 {
        world
            .write(0, space, |tx| {
                ahead(tx);
                tx.counter_add_at(&top(Kind::Counter), 1)?;
                tx.counter_add("stats", &format!("key-{}", round % 7), 1)
            })
            .unwrap();
    }
    assert_eq!(world.status(1, space).held, 600);
    world.nodes[1].extensions = Extensions::FUTURE;
    for syncs in 0..6 {
        world.crash(1);
        world.nodes[1].manual_sync = true;
        for _ in 0..syncs {
            world.input(1, comity_engine::Input::DeadlineReached);
            world.clock += Duration::from_millis(1);
            world.sync(1);
        }
        assert_verified(&world);
    }
    world.nodes[1].manual_sync = false;
    world.crash(1);
    connect_and_settle(&mut world);
    assert_eq!(counter(&world, 1, space), Ok(600));
    world.assert_converged(space);
    assert_verified(&world);
}

/// A peer that signs entries with whatever operations.
fn ghost_writes(world: &mut World, space: SpaceId, groups: Vec<Group>) {
    let mut ghost = Ghost::new(9, space);
    let replica = ghost.replica();
    world.command(0, Command::Grant { space, replica, role: Role::Writer }).unwrap();
    let session = world.connect_ghost(0, replica);
    world.inject(0, session, world::ghost::hello());
    ghost.add_groups(groups);
    let (session, subscription) = world.offer(0, session, &ghost);
    world.inject(0, session, world::ghost::data(subscription, 1, &ghost.run(0, 1)));
    world.run();
    assert!(world.is_connected(session));
}

fn extension(tag: u8, body: &[u8]) -> Op {
    Op::Extension { tag: ExtensionTag::new(tag).unwrap(), body: body.to_vec() }
}

#[test]
fn garbage_is_kept_by_who_does_not_know_it_and_does_nothing_at_who_does() {
    let (mut world, space) = mixed(2, 1);
    let at = |kind, key| ObjectAddress::new(kind, "all", key).unwrap();
    let later = Kind::from_tag(64).unwrap();
    let groups = vec![
        Group { address: at(Kind::Counter, "a"), ops: vec![extension(64, b"\xff\xff"), Op::CounterAdd(2)] },
        // A register's operation on a set, one that names what was never made, and one within itself.
        Group { address: at(Kind::Set, "b"), ops: vec![extension(64, &[5, 0])] },
        Group {
            address: at(Kind::Set, "c"),
            ops: vec![extension(64, &[3, 3, 2, 1, 0, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 9, 0])],
        },
        Group { address: at(later, "d"), ops: vec![extension(64, &[64, 0])] },
        // Nobody knows this one.
        Group { address: at(Kind::Document, "e"), ops: vec![extension(255, &[7; 900])] },
        Group { address: at(Kind::from_tag(99).unwrap(), "f"), ops: vec![extension(64, b"")] },
    ];
    ghost_writes(&mut world, space, groups);
    world.pass(Duration::from_secs(1));
    let a = |world: &World, node| {
        read(world, node, |view| {
            comity_engine::counter_at(view, &space, &Location::from(at(Kind::Counter, "a")))
        })
    };
    assert_eq!(a(&world, 0), Ok(2));
    assert_held(a(&world, 1));
    let view = |node: usize| world.nodes[node].disk.view();
    assert_eq!(held_objects(&view(0), &space, None, 99).unwrap().len(), 2);
    assert_eq!(held_objects(&view(1), &space, None, 99).unwrap().len(), 6);
    assert_verified(&world);
    upgrade(&mut world, 1);
    connect_and_settle(&mut world);
    assert_eq!(a(&world, 1), Ok(2));
    world.assert_converged(space);
    assert_verified(&world);
}
