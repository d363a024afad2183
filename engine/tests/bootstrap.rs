//! Bootstrapping: who is new, or too far behind, takes over the state of another replica, whatever interrupts it, and keeps
//! what it wrote itself.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod world;

use std::time::Duration;

use comity_crdts::{Frontier, Kind, SpaceId, Value};
use comity_engine::wire::{Message, SnapshotPiece, WalkRow, decode_piece, encode_piece};
use comity_engine::{
    BootstrapLimits, BootstrapPhase, ChangeCursor, ChangesError, Input, JournalReason, Offer, PageLimit,
    Retention, Role, StateRead, TransactError, Tx, TxError,
};
use world::World;
use world::removals::writers;
use world::spec::{top, within};

const BRIEF: Retention =
    Retention { age: Duration::from_secs(1), bytes_max: u64::MAX, announce_after: Duration::from_secs(2) };

/// Something of every kind.
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
    tx.register_write("many", &format!("key-{number}"), Value::from("x".repeat(200)))?;
    tx.flag_enable_at(&top(Kind::Flag))?;
    tx.dw_flag_enable_at(&top(Kind::DwFlag))?;
    tx.rw_set_add_at(&top(Kind::RwSet), value)?;
    tx.document_edit::<_, TxError>("notes", "draft", |doc| {
        use comity_crdts::automerge::transaction::Transactable;
        doc.put(comity_crdts::automerge::ROOT, format!("key-{number}"), number).unwrap();
        Ok(())
    })
}

fn remove_some(tx: &mut Tx<'_>, number: i64) -> Result<(), TxError> {
    tx.rw_set_remove_at(&top(Kind::RwSet), Value::I64(number))?;
    tx.dw_flag_disable_at(&top(Kind::DwFlag))?;
    tx.remove_at(&within(&["a"]))?;
    tx.remove_at(&top(Kind::Counter))
}

/// Three replicas that keep nothing for long and have done something of everything.
fn old_space(rounds: i64) -> (World, SpaceId) {
    let (mut world, space) = writers(3);
    for node in 0..3 {
        world.nodes[node].retention = BRIEF;
        world.crash(node);
    }
    world.connect_all();
    for number in 0..rounds {
        world.write((number % 3) as usize, space, |tx| everything(tx, number)).unwrap();
        if number % 5 == 4 {
            world.write((number % 2) as usize, space, |tx| remove_some(tx, number - 2)).unwrap();
        }
    }
    world.pass_for(40);
    let gone: u64 = world.status(0, space).lanes.iter().map(|lane| lane.floor).sum();
    assert!(gone > rounds as u64, "{:?}", world.status(0, space));
    (world, space)
}

/// Adds a replica that is invited and connected to one that is there.
fn joiner(world: &mut World, space: SpaceId, key: u8) -> usize {
    let node = world.add_node([key; 32], Default::default());
    world.nodes[node].retention = BRIEF;
    let secret = world.invite(0, space, Role::Writer);
    world.prepare_join(0, node, space, secret);
    node
}

/// The rows of a replica's state that replicas with the same state share.
fn shared_rows(world: &World, node: usize) -> Vec<(Vec<u8>, Vec<u8>)> {
    let rows = world.nodes[node].disk.view().scan(&[0x30], &[0x3a], usize::MAX).unwrap();
    // Documents are numbered anew, and their tails may be where the log was; what can be forgotten and what is in
    // conflict is beside them.
    rows.into_iter()
        .filter(|(key, _)| !(matches!(key[0], 0x33..=0x35) || key[0] == 0x30 && key[17] == 4))
        .collect()
}

fn assert_same(world: &World, space: SpaceId, (node, other): (usize, usize)) {
    let (ours, theirs) = (world.status(node, space), world.status(other, space));
    assert_eq!((ours.digest, &ours.frontier), (theirs.digest, &theirs.frontier), "{node} and {other}");
    assert_eq!(shared_rows(world, node), shared_rows(world, other));
    [node, other].iter().for_each(|node| world.assert_verified(*node));
    let keys = |node: usize| {
        use comity_crdts::automerge::ReadDoc;
        let view = world.nodes[node].disk.view();
        let document = comity_engine::document(&view, &space, "notes", "draft").unwrap();
        let found: Vec<String> = document.automerge().keys(comity_crdts::automerge::ROOT).collect();
        found
    };
    assert_eq!(keys(node), keys(other));
}

#[test]
fn a_new_replica_takes_over_the_state_and_goes_on_with_everybody() {
    let (mut world, space) = old_space(40);
    let node = joiner(&mut world, space, 9);
    world.connect(0, node);
    world.run();
    assert_same(&world, space, (node, 0));
    assert!(world.status(node, space).bootstrap.is_none());
    world.connect_all();
    world.add(node, space, 1);
    world.pass_for(20);
    for number in 100..120 {
        let at = [0, node, 2][number as usize % 3];
        world.write(at, space, |tx| everything(tx, number)).unwrap();
    }
    world.pass_for(20);
    world.assert_converged(space);
    assert_same(&world, space, (node, 1));
    world.crash(node);
    world.connect_all();
    assert_same(&world, space, (node, 1));
}

#[test]
fn what_was_written_before_the_state_came_is_applied_to_it() {
    let (mut world, space) = old_space(30);
    let node = joiner(&mut world, space, 9);
    for number in 1_000..1_020 {
        world.write(node, space, |tx| tx.set_add("mine", "set", Value::I64(number))).unwrap();
        world.write(node, space, |tx| tx.counter_add("stats", "likes", 1)).unwrap();
    }
    let before = world.likes(0, space);
    world.connect(0, node);
    world.run();
    world.connect_all();
    world.pass_for(10);
    world.assert_converged(space);
    assert_same(&world, space, (node, 2));
    assert_eq!(world.likes(2, space), before + 20);
    let mine = comity_engine::set_len(&world.nodes[1].disk.view(), &space, "mine", "set").unwrap();
    assert_eq!(mine, 20);
}

#[test]
fn who_comes_back_with_what_others_never_had_keeps_it() {
    let (mut world, space) = old_space(20);
    // Node 2 is put back to before most of it, under an identity that goes on as another incarnation.
    let backup = world.backup(2);
    for number in 200..260 {
        world.write((number % 3) as usize, space, |tx| everything(tx, number)).unwrap();
    }
    world.pass_for(40);
    world.disconnect_all(None);
    world.restore(2, backup, [7; 32]);
    for number in 500..520 {
        world.write(2, space, |tx| tx.set_add("mine", "set", Value::I64(number))).unwrap();
    }
    let mut cursor = ChangeCursor::after(space, world.status(2, space).durable);
    let mut lagging = ChangeCursor::after(space, Frontier::new());
    assert!(lagging.read(&world.nodes[2].disk.view(), PageLimit::default()).is_err());
    world.connect_all();
    world.pass_for(10);
    world.assert_converged(space);
    assert_same(&world, space, (2, 0));
    let mine = comity_engine::set_len(&world.nodes[1].disk.view(), &space, "mine", "set").unwrap();
    assert_eq!(mine, 20);
    let gone = cursor.read(&world.nodes[2].disk.view(), PageLimit::default());
    assert!(matches!(gone, Err(ChangesError::Gone { .. })), "places count anew: {gone:?}");
    cursor.skip_to(&world.status(2, space).durable);
    world.write(0, space, |tx| everything(tx, 900)).unwrap();
    world.pass_for(2);
    let page = cursor.read(&world.nodes[2].disk.view(), PageLimit::default()).unwrap();
    assert_eq!(page.events.len(), 1);
}

#[test]
fn nothing_is_read_or_written_while_the_state_is_replaced_and_a_crash_anywhere_changes_nothing() {
    // A crash after each of some steps; in one round somebody writes meanwhile, which lets everything go on at once.
    const WRITES_AT: usize = 48;
    let mut was_blocked = false;
    for steps in (20..64).step_by(4) {
        let (mut world, space) = old_space(25);
        let node = joiner(&mut world, space, 9);
        (0..10).for_each(|_| world.add_unsent(node, space, 1));
        world.connect(0, node);
        for _ in 0..steps {
            if !world.step() {
                world.clock += Duration::from_micros(2);
                world.input(node, Input::DeadlineReached);
            }
            let status = world.nodes[node].engine.status().spaces.pop();
            let phase = status.and_then(|status| status.bootstrap).map(|bootstrap| bootstrap.phase);
            let view = world.nodes[node].disk.view();
            was_blocked |= comity_engine::is_installing(&view, &space).unwrap();
            if phase == Some(BootstrapPhase::Installing) && steps == WRITES_AT {
                let refused = world.write(node, space, |tx| tx.counter_add("stats", "likes", 1));
                assert!(matches!(refused, Err(TransactError::Installing(_))), "{refused:?}");
            }
        }
        world.crash(node);
        world.connect_all();
        world.pass_for(10);
        world.assert_converged(space);
        assert_same(&world, space, (node, 1));
    }
    assert!(was_blocked);
}

#[test]
fn much_at_once_is_taken_over_rather_than_applied() {
    let (mut world, space) = World::mesh(2);
    for number in 0..60 {
        world.add(number % 2, space, 1);
    }
    let node = world.add_node([9; 32], Default::default());
    world.nodes[node].bootstrap = BootstrapLimits { entries_min: 50, ..BootstrapLimits::USUAL };
    let secret = world.invite(0, space, Role::Writer);
    world.crash(node);
    world.prepare_join(0, node, space, secret);
    world.connect(0, node);
    world.run();
    assert_eq!(world.likes(node, space), 60);
    let status = world.status(node, space);
    assert!(status.lanes.iter().map(|lane| lane.floor).sum::<u64>() >= 60, "{status:?}");
}

/// What is on its way to a node over a session, in some class.
fn frames_to(world: &mut World, node: usize, source: usize) -> Vec<&mut Vec<u8>> {
    let Some(session) = world.session_between(source, node) else { return Vec::new() };
    let wire = world.link_mut(session).sent_mut(source);
    wire.queues.values_mut().flatten().collect()
}

#[test]
fn spoiled_frames_of_a_snapshot_cost_a_session_and_nothing_else() {
    for round in 0..24_u64 {
        let (mut world, space) = old_space(12);
        let node = joiner(&mut world, space, 9);
        world.add_unsent(node, space, 1);
        world.connect(0, node);
        let mut spoiled = 0;
        for step in 0..300_u64 {
            let draw = blake3::hash(&[round.to_le_bytes(), step.to_le_bytes()].concat());
            let draw = u64::from_le_bytes(*draw.as_bytes().first_chunk().unwrap());
            for frame in frames_to(&mut world, node, 0) {
                if (0x30..=0x35).contains(&frame[0]) && spoiled < 3 && draw % 3 == 0 {
                    let at = 1 + (draw >> 8) as usize % (frame.len() - 1);
                    frame[at] ^= 1 << (draw >> 40 & 7);
                    spoiled += 1;
                }
            }
            world.step();
        }
        for _ in 0..4 {
            world.connect_all();
            world.pass_for(70);
        }
        world.assert_converged(space);
        assert_same(&world, space, (node, 1));
        let lanes = world.status(node, space).lanes;
        assert!(lanes.iter().all(|lane| lane.frozen.is_none()), "{lanes:?}");
    }
}

/// What a lying source does to the rows of a snapshot.
type Lie = fn(&mut Vec<WalkRow>);

#[test]
fn a_source_that_lies_about_the_state_is_found_out_before_any_of_it_is_seen() {
    let lies: [(&str, Lie); 9] = [
        ("an object less", |rows| {
            let at = rows.iter().position(|(key, _)| key[0] == 0x30 && key[1] == 3).unwrap();
            rows.remove(at);
        }),
        ("an element less", |rows| {
            let at =
                rows.iter().position(|(key, _)| key[0] == 0x30 && key[1] == 2 && key.len() > 10).unwrap();
            rows.remove(at);
        }),
        ("a member less", |rows| rows.retain(|(key, _)| key[0] != 0x36)),
        ("no lanes", |rows| rows.retain(|(key, _)| key[0] != 0x21)),
        ("another lane's row", |rows| {
            let value = rows.iter().rfind(|(key, _)| key[0] == 0x21).unwrap().1.clone();
            rows.iter_mut().find(|(key, _)| key[0] == 0x21).unwrap().1 = value;
        }),
        ("a lane's row that is cut off", |rows| {
            rows.iter_mut().find(|(key, _)| key[0] == 0x21).unwrap().1.truncate(20);
        }),
        ("a value that is none", |rows| {
            rows.iter_mut().filter(|(key, _)| key[0] == 0x30).for_each(|(_, value)| *value = vec![0xff; 9]);
        }),
        ("a document's changes swapped", |rows| {
            let tail: Vec<usize> = (0..rows.len())
                .filter(|at| rows[*at].0[0] == 0x30 && rows[*at].0[1] == 4 && rows[*at].0.contains(&0x33))
                .collect();
            let last = rows[*tail.last().unwrap()].1.clone();
            rows[tail[0]].1 = last;
        }),
        ("a row of no sort", |rows| rows.push((vec![0x60, 1], vec![1]))),
    ];
    for (name, lie) in lies {
        let (mut world, space) = old_space(12);
        let node = joiner(&mut world, space, 9);
        world.add_unsent(node, space, 1);
        let before = world.status(node, space);
        world.connect(0, node);
        let mut offered = None;
        for _ in 0..3_000 {
            for frame in frames_to(&mut world, node, 0) {
                let forged = match Message::decode(frame).unwrap() {
                    Message::SnapshotOffer(offer) => {
                        offered = Some(offer.offer);
                        continue;
                    }
                    Message::SnapshotPiece(piece) => {
                        let offer = offered.as_ref().unwrap();
                        let Ok(([from, until], mut rows)) = decode_piece(offer, piece.bytes) else {
                            continue;
                        };
                        assert!(!piece.more && until == [0xff], "all of it is one piece");
                        lie(&mut rows);
                        let bytes = encode_piece(offer, (&from, &until), &rows);
                        let (number, more) = (piece.number, false);
                        Message::SnapshotPiece(SnapshotPiece { number, more, bytes: &bytes }).encode()
                    }
                    _ => continue,
                };
                *frame = forged;
                offered = offered.map(|offer| Offer { applied: u64::MAX, ..offer });
            }
            if !world.step() {
                break;
            }
        }
        let status = world.status(node, space);
        let fault = status.bootstrap.as_ref().and_then(|bootstrap| bootstrap.fault.clone());
        assert!(fault.is_some() || world.session_between(0, node).is_none(), "{name}: {status:?}");
        assert_eq!((&status.frontier, status.digest), (&before.frontier, status.digest), "{name}");
        world.connect_all();
        world.pass_for(80);
        world.assert_converged(space);
        assert_same(&world, space, (node, 1));
    }
}

#[test]
fn what_a_rolled_back_replica_wrote_on_another_branch_is_journalled_when_it_cannot_be_kept() {
    let (mut world, space) = old_space(20);
    let backup = world.backup(2);
    for number in 200..260 {
        world.write((number % 3) as usize, space, |tx| everything(tx, number)).unwrap();
    }
    world.pass_for(40);
    world.disconnect_all(None);
    // Nothing shows that this is an old copy, so it goes on in its lane, where others hold something else by now.
    let instance = world.nodes[2].instance;
    world.restore(2, backup, instance);
    world
        .write(2, space, |tx| {
            tx.set_add("mine", "set", Value::I64(1))?;
            tx.counter_add("mine", "counter", 7)?;
            tx.register_write("mine", "register", Value::from("late"))
        })
        .unwrap();
    world.connect_all();
    world.pass_for(20);
    assert_same(&world, space, (2, 0));
    let journal = |world: &World| {
        let view = world.nodes[2].disk.view();
        let entries = comity_engine::journal(&view, &space, usize::MAX).unwrap();
        entries.into_iter().filter(|entry| entry.reason == JournalReason::BranchLost).collect::<Vec<_>>()
    };
    let lost = journal(&world);
    let mut kinds: Vec<Kind> = lost.iter().map(|entry| entry.kind).collect();
    kinds.sort_unstable();
    assert_eq!(kinds, [Kind::Counter, Kind::Set, Kind::Register]);
    assert!(lost.iter().all(|entry| entry.author == Some(world.replica(2)) && entry.by == entry.dot));
    for entry in &lost {
        world.write(2, space, |tx| tx.restore(entry)).unwrap();
    }
    world.pass_for(2);
    assert_same(&world, space, (2, 0));
    let view = world.nodes[0].disk.view();
    assert_eq!(comity_engine::set_len(&view, &space, "mine", "set").unwrap(), 1);
    assert_eq!(comity_engine::counter(&view, &space, "mine", "counter").unwrap(), 7);
}
