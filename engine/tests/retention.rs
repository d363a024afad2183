//! Retention: what everybody has is let go of after its time, and nothing else changes.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod world;

use std::time::Duration;

use comity_crdts::{Kind, LaneId, ObjectAddress, SpaceId, Value};
use comity_engine::{ChangeCursor, ChangesError, LogRead, PageLimit, Retention, SpaceStatus, Tx, TxError};
use world::World;

/// What is let go of after a second.
const BRIEF: Retention =
    Retention { age: Duration::from_secs(1), bytes_max: u64::MAX, announce_after: Duration::from_secs(2) };

/// A world in which all let go of what is older than a second.
fn forgetful(count: usize) -> (World, SpaceId) {
    let (mut world, space) = World::mesh(count);
    keeping(&mut world, BRIEF);
    (world, space)
}

fn keeping(world: &mut World, retention: Retention) {
    for node in 0..world.nodes.len() {
        world.nodes[node].retention = retention;
        world.crash(node);
    }
    world.connect_all();
}

fn edit(tx: &mut Tx<'_>, key: &str, text: &str) -> Result<(), TxError> {
    use comity_crdts::automerge::transaction::Transactable;
    tx.document_edit::<_, TxError>("notes", key, |doc| {
        doc.put(comity_crdts::automerge::ROOT, text, 1).unwrap();
        Ok(())
    })
}

fn entries_kept(world: &World, node: usize, space: SpaceId) -> u64 {
    world.status(node, space).lanes.iter().map(|lane| lane.applied - lane.floor).sum()
}

fn assert_floors(world: &World, node: usize, space: SpaceId) -> SpaceStatus {
    let status = world.status(node, space);
    let view = world.nodes[node].disk.view();
    let entry = |lane: &LaneId, lsn: u64| view.lane_entry(&space, lane, lsn).unwrap();
    let mut bytes = 0;
    for lane in &status.lanes {
        assert!(lane.floor <= lane.applied);
        assert!((1..=lane.floor).all(|lsn| entry(&lane.lane, lsn).is_none()), "{lane:?}");
        let kept = (lane.floor + 1..=lane.applied).map(|lsn| entry(&lane.lane, lsn).unwrap().len() as u64);
        bytes += kept.sum::<u64>();
    }
    assert_eq!(status.log_bytes, bytes);
    world.assert_verified(node);
    status
}

#[test]
fn what_everybody_has_is_let_go_of_after_its_time() {
    let (mut world, space) = forgetful(3);
    for number in 0..300 {
        world.add(number % 3, space, 1);
    }
    assert!(entries_kept(&world, 0, space) > 300);
    world.pass_for(30);
    for node in 0..3 {
        assert_floors(&world, node, space);
        let kept = entries_kept(&world, node, space);
        assert!(kept <= 2 * 3, "{kept} entries are kept at {node}");
    }
    let digest = world.status(0, space).digest;
    // After starting again everything is as it was, and replicas go on with each other.
    for node in 0..3 {
        world.crash(node);
    }
    for (a, b) in [(0, 1), (0, 2), (1, 2)] {
        world.connect(a, b);
    }
    world.run();
    assert_eq!(world.status(1, space).digest, digest);
    world.add(2, space, 5);
    world.run();
    world.assert_converged(space);
    assert_eq!(world.likes(0, space), 305);
}

#[test]
fn what_somebody_lacks_is_kept_for_them() {
    let (mut world, space) = forgetful(3);
    world.add(0, space, 1);
    world.add(1, space, 1);
    world.add(2, space, 1);
    world.pass_for(10);
    world.disconnect_all(Some(2));
    (0..50).for_each(|_| world.add(0, space, 1));
    world.pass_for(60);
    let status = assert_floors(&world, 0, space);
    let own = status.lanes.iter().find(|lane| lane.is_own).unwrap();
    assert!(own.applied - own.floor >= 50, "{own:?}");
    world.connect(0, 2);
    world.run();
    assert_eq!(world.likes(2, space), 53);
    world.pass_for(60);
    assert!(entries_kept(&world, 0, space) < 10);
}

#[test]
fn a_space_that_takes_too_much_lets_go_sooner() {
    let (mut world, space) = World::mesh(2);
    let announce_after = Duration::from_secs(300);
    let retention = Retention { age: Duration::MAX, bytes_max: 2_000, announce_after };
    keeping(&mut world, retention);
    for number in 0..200 {
        world.add(number % 2, space, 1);
    }
    assert!(world.status(0, space).log_bytes > 10_000);
    world.pass_for(330);
    for node in 0..2 {
        let status = assert_floors(&world, node, space);
        assert!((1_000..=2_000).contains(&status.log_bytes), "{}", status.log_bytes);
    }
}

#[test]
fn a_reader_that_comes_too_late_is_told_what_is_gone() {
    let (mut world, space) = forgetful(2);
    world.add(0, space, 1);
    world.add(1, space, 1);
    let seen = world.status(0, space).durable;
    let mut early = ChangeCursor::after(space, seen);
    let mut late = early.clone();
    world.add(0, space, 10);
    let page = early.read(&world.nodes[0].disk.view(), PageLimit::default()).unwrap();
    assert_eq!(page.events.len(), 1);
    world.add(1, space, 100);
    world.pass_for(30);
    for cursor in [&mut late, &mut early] {
        let error = cursor.read(&world.nodes[0].disk.view(), PageLimit::default()).unwrap_err();
        assert!(matches!(error, ChangesError::Gone { .. }), "{error:?}");
        cursor.skip_to(&world.status(0, space).durable);
    }
    world.add(1, space, 1_000);
    for cursor in [&mut late, &mut early] {
        let page = cursor.read(&world.nodes[0].disk.view(), PageLimit::default()).unwrap();
        assert_eq!((page.events.len(), page.ahead), (1, 0));
    }
    // Who has seen everything up to where it is kept misses nothing.
    let mut nothing = ChangeCursor::after(space, comity_crdts::Frontier::new());
    let gone = nothing.read(&world.nodes[1].disk.view(), PageLimit::default());
    assert!(matches!(gone, Err(ChangesError::Gone { place: 1 })), "{gone:?}");
}

#[test]
fn a_document_keeps_its_changes_when_the_entries_go() {
    let (mut world, space) = forgetful(2);
    for number in 0..40 {
        world.write(number % 2, space, |tx| edit(tx, "draft", &format!("key-{number}"))).unwrap();
    }
    world.pass_for(30);
    assert!(entries_kept(&world, 0, space) < 6 && entries_kept(&world, 1, space) < 6);
    let address = ObjectAddress::new(Kind::Document, "notes", "draft").unwrap();
    let keys = |world: &World, node: usize| {
        use comity_crdts::automerge::ReadDoc;
        let view = world.nodes[node].disk.view();
        let document = comity_engine::document(&view, &space, "notes", "draft").unwrap();
        document.automerge().keys(comity_crdts::automerge::ROOT).count()
    };
    assert_eq!((keys(&world, 0), keys(&world, 1)), (40, 40));
    for node in 0..2 {
        world.crash(node);
    }
    world.connect(0, 1);
    world.run();
    world.write(1, space, |tx| edit(tx, "draft", "after")).unwrap();
    world.run();
    assert_eq!((keys(&world, 0), keys(&world, 1)), (41, 41));
    let settled = comity_engine::settle(&world.nodes[0].disk.view(), &space, &address).unwrap();
    world.input(0, comity_engine::Input::Settled { result: Ok(settled) });
    world.run();
    assert_eq!(keys(&world, 0), 41);
    world.write(0, space, |tx| tx.remove_at(&address.clone().into())).unwrap();
    world.write(0, space, |tx| tx.register_write("notes", "last", Value::I64(1))).unwrap();
    world.pass_for(30);
    world.assert_converged(space);
}

#[test]
fn who_is_new_is_told_that_entries_are_gone_and_is_not_served_them() {
    let (mut world, space) = forgetful(2);
    for number in 0..20 {
        world.add(number % 2, space, 1);
    }
    world.pass_for(30);
    let node = world.add_node([9; 32], Default::default());
    let session = world.join(0, node, space);
    world.run();
    assert!(world.is_connected(session), "nobody is blamed");
    assert_eq!(world.likes(node, space), 20, "it takes the state instead");
}
