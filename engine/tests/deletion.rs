//! Deleting a space: nothing of it is left, whenever the power is cut, and it can be joined again.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a failed unwrap is a failed test")]

mod world;

use std::time::Duration;

use comity_crdts::automerge::ROOT;
use comity_crdts::automerge::transaction::Transactable;
use comity_crdts::{Kind, ObjectAddress, Policy, SpaceId};
use comity_engine::{
    Command, CommandError, Durability, Input, Location, LogRead, OperationId, Reply, Role, StateRead, Tx,
    TxError, WriteOptions,
};
use world::{World, noise};

fn at(kind: Kind, key: &str, path: &[&str]) -> Location {
    let path = path.iter().map(|key| (*key).to_owned()).collect();
    Location { object: ObjectAddress::new(kind, "all", key).unwrap(), path }
}

/// Something of every kind, of most of them more than once.
fn fill(tx: &mut Tx<'_>, number: u64) -> Result<(), TxError> {
    let name = format!("{}", number % 3);
    tx.counter_add_at(&at(Kind::Counter, &name, &[]), 1)?;
    tx.register_write_at(&at(Kind::Register, &name, &[]), "value".into())?;
    tx.flag_enable_at(&at(Kind::Flag, &name, &[]))?;
    tx.bounded_increment_at(&at(Kind::BoundedCounter, &name, &[]), 3)?;
    tx.set_policy("all", &Policy::Siblings)?;
    for element in 0..20 {
        tx.set_add_at(&at(Kind::Set, &name, &[]), (100 * number as i64 + element).into())?;
        tx.set_add_at(&at(Kind::Map, &name, &["a", "b"]), element.into())?;
    }
    tx.counter_add_at(&at(Kind::Map, &name, &["a", "c"]), 1)?;
    tx.register_write_at(&at(Kind::Map, "other", &[&name]), 1.into())?;
    tx.document_edit("all", &name, |edit| edit.put(ROOT, "key", noise(number, 100)).map_err(TxError::from))?;
    Ok(())
}

/// What needs to be confirmed: some of it is kept until everybody has heard of it.
fn remove(tx: &mut Tx<'_>, number: u64) -> Result<(), TxError> {
    tx.rw_set_add_at(&at(Kind::RwSet, "kept", &[]), (number as i64).into())?;
    tx.rw_set_remove_at(&at(Kind::RwSet, "empty", &[]), (number as i64).into())?;
    tx.dw_flag_disable_at(&at(Kind::DwFlag, "off", &[]))?;
    tx.remove_at(&at(Kind::Document, "2", &[]))
}

/// Two members of two spaces; what is in the second at node 1.
fn filled() -> (World, SpaceId, SpaceId) {
    let mut world = World::new(2);
    let spaces = [world.create_space(0), world.create_space(0)];
    for space in spaces {
        let secret = world.invite(0, space, Role::Admin);
        world.prepare_join(0, 1, space, secret);
    }
    world.connect(0, 1);
    world.run();
    for space in spaces {
        for node in [0, 1] {
            for number in 0..7 {
                let operation = Some(OperationId::named(format!("{node} {number}").as_bytes()).unwrap());
                let options = WriteOptions { operation, ..world.write_options(node) };
                world.write_as(node, space, options, |tx| fill(tx, number)).0.unwrap();
                world.run();
            }
        }
        world.pass(Duration::from_secs(2));
        world.disconnect_all(None);
        // Registers of which several values are written at once, and replaced: the journal has them.
        for node in [0, 1] {
            world.write(node, space, |tx| tx.register_write("all", "0", "mine".into())).unwrap();
        }
        world.connect(0, 1);
        world.run();
        world.write(1, space, |tx| tx.register_write("all", "0", "both".into())).unwrap();
        world.disconnect_all(None);
        world.write(1, space, |tx| remove(tx, 1)).unwrap();
        world.connect(0, 1);
        world.drain_steps();
    }
    world.invite(1, spaces[1], Role::Writer);
    (world, spaces[0], spaces[1])
}

/// Every row of a node, but those that are about the node itself and where others are.
fn rows(world: &World, node: usize) -> Vec<(Vec<u8>, Vec<u8>)> {
    let rows = world.nodes[node].disk.scan(&[1], &[0xff], usize::MAX).unwrap();
    rows.into_iter().filter(|(key, _)| key[0] != 4).collect()
}

fn delete(world: &mut World, node: usize, space: SpaceId) {
    let reply = world.command(node, Command::DeleteSpace { space });
    assert!(matches!(reply, Ok(Reply::Deleted(_))), "{reply:?}");
}

#[test]
fn nothing_is_left_of_a_space_that_is_deleted_and_all_of_the_others() {
    let (mut world, kept, deleted) = filled();
    let lanes = world.status(1, deleted).lanes;
    let all = rows(&world, 1).len();
    delete(&mut world, 1, deleted);
    let left = rows(&world, 1);
    assert!(left.len() > 100 && left.len() < 2 * all / 3, "{} of {all}", left.len());
    let mentions = |(key, _): &&(Vec<u8>, Vec<u8>)| key.windows(16).any(|part| part == deleted.0);
    assert_eq!(left.iter().find(mentions), None);
    for lane in lanes {
        for lsn in 1..=lane.applied {
            let entry = world.nodes[1].disk.lane_entry(&deleted, &lane.lane, lsn).unwrap();
            assert_eq!(entry, None, "entry {lsn}");
        }
    }
    assert!(!world.nodes[1].engine.trust().invitations_open);
    assert!(world.nodes[1].engine.status().spaces.iter().all(|space| space.space == kept));
    for node in [0, 1] {
        world.write(node, kept, |tx| fill(tx, 9)).unwrap();
        assert!(world.status(0, deleted).peers.is_empty(), "it is not shared any more");
    }
    world.assert_converged(kept);
    // And when that is deleted too, there is nothing.
    delete(&mut world, 1, kept);
    assert_eq!(rows(&world, 1), []);
}

#[test]
fn a_deletion_goes_on_after_a_crash_at_any_step() {
    let (mut world, kept, deleted) = filled();
    let before = world.status(1, kept);
    let request = world.ask(1, Command::DeleteSpace { space: deleted });
    world.crash(1);
    assert_eq!(world.nodes[1].replies.remove(&request).map(|reply| reply.is_ok()), None);
    assert_eq!(world.status(1, deleted).members.len(), 2, "what was not durable has not begun");
    world.ask(1, Command::DeleteSpace { space: deleted });
    world.sync(1);
    let mut steps = 0;
    while rows(&world, 1).iter().any(|(key, _)| key[0] == 6) {
        let unknown = world.command(1, Command::DeleteSpace { space: deleted });
        assert_eq!(unknown.unwrap_err(), CommandError::UnknownSpace(deleted));
        world.crash(1);
        world.clock += Duration::from_millis(1);
        world.input(1, Input::DeadlineReached);
        world.sync(1);
        steps += 1;
        assert!(steps < 1_000);
    }
    let left = rows(&world, 1);
    assert!(!left.iter().any(|(key, _)| key.windows(16).any(|part| part == deleted.0)));
    assert_eq!(world.status(1, kept).digest, before.digest);
}

#[test]
fn a_space_that_was_deleted_can_be_joined_again_as_somebody_new_in_it() {
    let (mut world, _, space) = filled();
    let lane = world.own_lane(1, space);
    let session = world.session_between(0, 1).unwrap();
    let request = world.ask(1, Command::DeleteSpace { space });
    let inviter = world.replica(0);
    let join = Command::JoinSpace { space, inviter, secret: None };
    let early = world.ask(1, join.clone());
    assert!(matches!(world.nodes[1].replies.remove(&early), Some(Err(CommandError::Deleting(_)))));
    world.run();
    assert!(matches!(world.nodes[1].replies.remove(&request), Some(Ok(Reply::Deleted(_)))));
    assert!(world.is_connected(session), "another space is shared over it");
    // It is a member still, as the others see it.
    world.command(1, join).unwrap();
    world.write(1, space, |tx| fill(tx, 11)).unwrap();
    world.pass(Duration::from_secs(3));
    assert_ne!(world.own_lane(1, space), lane);
    world.assert_converged(space);
    assert!(world.status(1, space).lanes.iter().any(|other| other.lane == lane && !other.is_own));
}

#[test]
fn who_waits_in_a_space_that_is_deleted_is_answered() {
    let (mut world, _, space) = filled();
    world.disconnect_all(None);
    let (result, write) = world.write_with::<_, TxError>(1, space, Durability::Remote(1), |tx| fill(tx, 1));
    result.unwrap();
    world.drain_steps();
    world.nodes[1].manual_sync = true;
    let (result, unsynced) = world.write_with::<_, TxError>(1, space, Durability::Local, |tx| fill(tx, 2));
    result.unwrap();
    let within = Duration::from_secs(60);
    let mut token = comity_engine::Token { space, frontier: world.status(0, space).frontier };
    token.frontier.advance(comity_crdts::OriginId([7; 16]), 9);
    let waits = [
        world.ask(1, Command::AwaitToken { token, within }),
        world.ask(
            1,
            Command::AwaitFresh { space, whom: comity_engine::Whom::All, max_age: Duration::ZERO, within },
        ),
    ];
    world.ask(1, Command::DeleteSpace { space });
    assert!(!world.acknowledgement(1, write).unwrap().reached);
    for wait in waits {
        assert!(matches!(world.nodes[1].replies.remove(&wait), Some(Err(CommandError::SpaceDeleted(_)))));
    }
    world.nodes[1].manual_sync = false;
    world.sync(1);
    assert!(matches!(world.nodes[1].replies.remove(&unsynced), Some(Err(CommandError::SpaceDeleted(_)))));
}
