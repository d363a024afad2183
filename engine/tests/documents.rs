//! Documents: snapshots, tails that nobody has to load, quarantine, readers.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod world;

use std::num::NonZeroU64;
use std::sync::Arc;

use comity_crdts::automerge::legacy::{Key, ObjectId, Op as EditOp, OpId, OpType, SortedVec};
use comity_crdts::automerge::transaction::Transactable;
use comity_crdts::automerge::{
    ActorId, Automerge, Change, ChangeHash, ExpandedChange, ObjType, PatchAction, ROOT, ReadDoc, ScalarValue,
};
use comity_crdts::{Document, Kind, ObjectAddress, RawChange, SpaceId};
use comity_engine::wire::{Body, Group, Op};
use comity_engine::{DocumentReader, Input, JournalReason, StateRead, TxError};
use world::World;
use world::ghost::{Ghost, data};

fn address() -> ObjectAddress {
    ObjectAddress::new(Kind::Document, "d", "k").unwrap()
}

fn put(world: &mut World, node: usize, space: SpaceId, key: &str, value: i64) {
    world.write(node, space, |tx| tx.document_edit("d", "k", |edit| put_in(edit, key, value))).unwrap();
}

fn put_in(
    edit: &mut comity_crdts::automerge::transaction::Transaction<'_>,
    key: &str,
    value: i64,
) -> Result<(), TxError> {
    edit.put(ROOT, key, value).map_err(TxError::from)
}

fn document(world: &World, node: usize, space: SpaceId) -> Document {
    comity_engine::document(&world.nodes[node].disk.view(), &space, "d", "k").unwrap()
}

fn rows(world: &World, node: usize, prefix: u8) -> usize {
    world.nodes[node].disk.view().scan(&[prefix], &[prefix + 1], usize::MAX).unwrap().len()
}

const TAIL: u8 = 0x33;
const SNAPSHOT: u8 = 0x35;

/// Types `count` letters, several changes in each change set.
fn type_letters(world: &mut World, node: usize, space: SpaceId, count: usize) {
    for from in (0..count).step_by(100) {
        let letters = 100.min(count - from);
        world
            .write(node, space, |tx| {
                for _ in 0..letters {
                    tx.document_edit("d", "k", |edit| -> Result<(), TxError> {
                        let refuse = |error: comity_crdts::automerge::AutomergeError| TxError::from(error);
                        let text = match edit.get(ROOT, "text").map_err(refuse)? {
                            Some((_, text)) => text,
                            None => edit.put_object(ROOT, "text", ObjType::Text).map_err(refuse)?,
                        };
                        edit.splice_text(&text, edit.length(&text), 0, "x").map_err(refuse)
                    })?;
                }
                Ok::<_, TxError>(())
            })
            .unwrap();
    }
}

fn text(document: &Document) -> String {
    let (_, text) = document.automerge().get(ROOT, "text").unwrap().unwrap();
    document.automerge().text(&text).unwrap()
}

#[test]
fn a_long_tail_becomes_a_snapshot_at_every_replica_and_the_document_stays() {
    let (mut world, space) = World::mesh(2);
    type_letters(&mut world, 0, space, 300);
    assert_eq!((rows(&world, 0, TAIL), rows(&world, 0, SNAPSHOT)), (300, 0));
    type_letters(&mut world, 0, space, 300);
    for node in 0..2 {
        assert!(rows(&world, node, TAIL) <= 100, "{} changes are in the tail", rows(&world, node, TAIL));
        assert_eq!(rows(&world, node, SNAPSHOT), 1);
        assert_eq!(text(&document(&world, node, space)), "x".repeat(600));
        world.crash(node);
        assert_eq!(text(&document(&world, node, space)), "x".repeat(600));
    }
    world.connect(0, 1);
    world.run();
    put(&mut world, 1, space, "n", 1);
    put(&mut world, 0, space, "n", 2);
    type_letters(&mut world, 1, space, 600);
    world.assert_converged(space);
    for node in 0..2 {
        assert_eq!(document(&world, node, space).change_count(), 1_202);
        assert_eq!(rows(&world, node, SNAPSHOT), 1, "the snapshot before is gone");
    }
}

#[test]
fn what_was_settled_of_another_version_is_dropped() {
    let (mut world, space) = World::mesh(1);
    type_letters(&mut world, 0, space, 20);
    let settle = |world: &World| comity_engine::settle(&world.nodes[0].disk.view(), &space, &address());
    let (first, second) = (settle(&world), settle(&world));
    type_letters(&mut world, 0, space, 5);
    world.input(0, Input::Settled { result: first });
    world.run();
    assert_eq!((rows(&world, 0, TAIL), rows(&world, 0, SNAPSHOT)), (5, 1), "what came since is the tail");
    world.input(0, Input::Settled { result: second });
    world.run();
    assert_eq!(rows(&world, 0, TAIL), 5, "it was made from no snapshot, and there is one now");
    assert_eq!(text(&document(&world, 0, space)).len(), 25);
    let late = settle(&world);
    world.write(0, space, |tx| tx.remove_at(&address().into())).unwrap();
    type_letters(&mut world, 0, space, 3);
    world.input(0, Input::Settled { result: late });
    world.run();
    assert_eq!(text(&document(&world, 0, space)).len(), 3);
    assert_eq!((rows(&world, 0, TAIL), rows(&world, 0, SNAPSHOT)), (3, 0));
}

#[test]
fn a_change_follows_its_authors_previous_one_through_what_was_settled_meanwhile() {
    let (mut world, space) = World::mesh(2);
    let part = |world: &mut World| world.disconnect_all(None);
    let meet = |world: &mut World| {
        world.connect(0, 1);
        world.run();
    };
    // An edit at a version names just that version, though it may have the author's previous change in it.
    let put_at = |world: &mut World, value: i64| {
        let heads = document(world, 1, space).heads();
        world
            .write(1, space, |tx| tx.document_edit_at("d", "k", &heads, |edit| put_in(edit, "b", value)))
            .unwrap();
    };
    put(&mut world, 1, space, "b", 1);
    put(&mut world, 0, space, "a", 1);
    part(&mut world);
    put(&mut world, 0, space, "a", 2);
    put_at(&mut world, 2);
    // Node 0 looks up what its own change depends on.
    meet(&mut world);
    put(&mut world, 0, space, "a", 3);
    part(&mut world);
    put(&mut world, 0, space, "a", 4);
    let result = comity_engine::settle(&world.nodes[0].disk.view(), &space, &address());
    world.input(0, Input::Settled { result });
    world.run();
    assert_eq!((rows(&world, 0, TAIL), rows(&world, 0, SNAPSHOT)), (0, 1));
    put_at(&mut world, 3);
    meet(&mut world);
    world.assert_converged(space);
    assert_eq!(document(&world, 0, space).change_count(), 7);
    let journal = comity_engine::journal(&world.nodes[0].disk.view(), &space, 10).unwrap();
    assert!(journal.is_empty());
}

/// A change that keeps all rules and that automerge panics on: it writes to an object that nobody made.
fn poison(document: &Document, actor: u8) -> RawChange {
    let max_op = document.changes().iter().map(RawChange::max_op).max().unwrap_or(0);
    let op = EditOp {
        action: OpType::Put(ScalarValue::Int(6)),
        obj: ObjectId::Id(OpId(1_000, ActorId::from(&[actor; 16][..]))),
        key: Key::Map("x".into()),
        pred: SortedVec::new(),
        insert: false,
    };
    let expanded = ExpandedChange {
        operations: vec![op],
        actor_id: ActorId::from(&[actor; 16][..]),
        hash: None,
        seq: 1,
        start_op: NonZeroU64::new(max_op + 1).unwrap(),
        time: 0,
        message: None,
        deps: document.heads().into_iter().map(ChangeHash).collect(),
        extra_bytes: Vec::new(),
        author: None,
    };
    RawChange::parse(Change::from(expanded).raw_bytes()).unwrap()
}

fn draft(
    world: &World,
    ghost: &Ghost,
    space: SpaceId,
    changes: Vec<RawChange>,
) -> comity_engine::wire::LaneEntry {
    let group = Group { address: address(), ops: changes.into_iter().map(Op::DocumentChange).collect() };
    let mut entry = ghost.draft(vec![group]);
    // It has seen everything.
    let seen = world.status(0, space).durable;
    let seen = seen.iter().filter(|(lane, _)| *lane != ghost.lane()).collect::<comity_crdts::Frontier>();
    entry.admitted = seen.clone();
    if let Body::Change(change) = &mut entry.body {
        change.context = seen;
    }
    entry
}

#[test]
fn a_poisonous_change_is_quarantined_with_its_author_and_all_else_goes_on() {
    let (mut world, space) = World::mesh(2);
    put(&mut world, 0, space, "n", 1);
    let mut ghost = Ghost::new(9, space);
    ghost.add(1);
    let (session, subscription) = world.admit(0, &ghost);
    let bad = poison(&document(&world, 0, space), 0xdd);
    let entry = draft(&world, &ghost, space, vec![bad.clone()]);
    ghost.append(entry);
    world.inject(0, session, data(subscription, 1, &ghost.run(0, 2)));
    world.run();
    assert_eq!(world.close_reason(0, session), None, "who passes it on is not to blame");
    world.assert_converged(space);
    for node in 0..2 {
        let heads = comity_engine::document_heads(&world.nodes[node].disk.view(), &space, "d", "k").unwrap();
        assert_eq!(heads, [bad.hash()], "it was admitted, as the rules have it");
        assert_eq!(world.status(node, space).quarantined, 0, "nobody has looked yet");
        assert_eq!(
            document(&world, node, space).automerge().get(ROOT, "n").unwrap().unwrap().0.as_i64(),
            Some(1)
        );
    }
    // One of them edits the document, which needs it loaded, and finds out.
    put(&mut world, 1, space, "after", 2);
    assert_eq!(world.status(1, space).quarantined, 1);
    world.assert_converged(space);
    let mut readers = DocumentReader::default();
    let read = readers.read(&world.nodes[0].disk.view(), &space, &address()).unwrap();
    assert_eq!((read.refused, read.document.change_count()), (1, 2));
    world.input(0, Input::Unsettled { space, object: address() });
    world.run();
    for node in 0..2 {
        let view = world.nodes[node].disk.view();
        let quarantined = comity_engine::quarantined(&view, &space, 10).unwrap();
        assert_eq!(quarantined.len(), 1);
        assert_eq!((&quarantined[0].object, quarantined[0].change), (&address(), bad.hash()));
        assert_eq!(quarantined[0].author, Some(ghost.replica()));
        let journal = comity_engine::journal(&view, &space, 10).unwrap();
        assert_eq!((journal.len(), journal[0].author), (1, Some(ghost.replica())));
        assert!(
            matches!(&journal[0].reason, JournalReason::ChangeRefused { detail } if detail == &quarantined[0].reason)
        );
        assert_eq!(journal[0].value, comity_crdts::Value::Bytes(bad.bytes().to_vec()));
        assert_eq!(world.status(node, space).quarantined, 1);
        world.crash(node);
        assert_eq!(world.status(node, space).quarantined, 1);
        assert_eq!(document(&world, node, space).automerge().length(ROOT), 2);
    }
}

#[test]
fn what_follows_a_quarantined_change_is_admitted_and_quarantined_everywhere() {
    let (mut world, space) = World::mesh(2);
    put(&mut world, 0, space, "n", 1);
    let mut ghost = Ghost::new(9, space);
    ghost.add(1);
    let (session, subscription) = world.admit(0, &ghost);
    let bad = poison(&document(&world, 0, space), 0xdd);
    let entry = draft(&world, &ghost, space, vec![bad.clone()]);
    ghost.append(entry);
    world.inject(0, session, data(subscription, 1, &ghost.run(0, 2)));
    world.run();
    // One settles it, snapshot and all; the other has not looked at it.
    world.input(0, Input::Unsettled { space, object: address() });
    world.run();
    assert_eq!((rows(&world, 0, TAIL), rows(&world, 1, TAIL)), (0, 2));
    let mut child = Change::try_from(poison(&document(&world, 0, space), 0xdd).bytes()).unwrap().decode();
    (child.seq, child.deps) = (2, vec![ChangeHash(bad.hash())]);
    child.start_op = NonZeroU64::new(bad.max_op() + 1).unwrap();
    child.operations[0].obj = ObjectId::Root;
    let child = RawChange::parse(Change::from(child).raw_bytes()).unwrap();
    let entry = draft(&world, &ghost, space, vec![child.clone()]);
    ghost.append(entry);
    world.inject(0, session, data(subscription, 3, &ghost.run(2, 3)));
    world.run();
    world.assert_converged(space);
    for node in 0..2 {
        world.input(node, Input::Unsettled { space, object: address() });
        world.run();
        assert_eq!(world.status(node, space).quarantined, 2);
        assert_eq!(document(&world, node, space).change_count(), 1);
    }
    put(&mut world, 0, space, "n", 2);
    put(&mut world, 1, space, "n", 3);
    world.assert_converged(space);
    world.write(0, space, |tx| tx.remove_at(&address().into())).unwrap();
    world.run();
    for node in 0..2 {
        assert_eq!(world.status(node, space).quarantined, 0, "it went with the document");
    }
}

#[test]
fn readers_share_an_instance_that_goes_on_and_old_views_show_what_they_showed() {
    let (mut world, space) = World::mesh(2);
    type_letters(&mut world, 0, space, 50);
    let mut readers = DocumentReader::default();
    let old = world.nodes[1].disk.view();
    let first = readers.read(&old, &space, &address()).unwrap().document;
    let again = readers.read(&old, &space, &address()).unwrap().document;
    assert!(Arc::ptr_eq(&first, &again));
    let followed = readers.follow(&old, &space, &address(), None).unwrap();
    assert!(followed.patches.is_none());
    type_letters(&mut world, 0, space, 7);
    let view = world.nodes[1].disk.view();
    let next = readers.follow(&view, &space, &address(), Some(followed.position)).unwrap();
    let patches = next.patches.unwrap();
    let typed: usize = patches
        .iter()
        .map(|patch| match &patch.action {
            PatchAction::SpliceText { value, .. } => value.make_string().len(),
            other => panic!("{other:?}"),
        })
        .sum();
    assert_eq!((typed, text(&next.read.document).len(), text(&first).len()), (7, 57, 50));
    assert_eq!(text(&readers.read(&old, &space, &address()).unwrap().document).len(), 50);
    world.write(1, space, |tx| tx.remove_at(&address().into())).unwrap();
    let view = world.nodes[1].disk.view();
    let gone = readers.follow(&view, &space, &address(), Some(next.position)).unwrap();
    assert_eq!((gone.read.document.change_count(), gone.patches.is_none()), (0, true));
}

#[test]
fn random_edits_at_three_replicas_give_what_plain_automerge_gives() {
    for seed in 0..30_u64 {
        let (mut world, space) = World::mesh(3);
        let mut state = seed;
        let mut roll = move |below: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) % below
        };
        type_letters(&mut world, 0, space, 3);
        for round in 0..4 {
            world.disconnect_all(None);
            for node in 0..3 {
                for _ in 0..roll(6) {
                    let (at, what) = (roll(20) as usize, roll(5));
                    let edit = move |edit: &mut comity_crdts::automerge::transaction::Transaction<'_>| {
                        let (_, text) = edit.get(ROOT, "text").unwrap().unwrap();
                        let length = edit.length(&text);
                        let at = at.min(length);
                        match what {
                            0 if at < length => edit.splice_text(&text, at, 1, ""),
                            1 => edit.splice_text(&text, at, 0, "ab"),
                            2 => edit.put(ROOT, "k", at as i64),
                            3 => edit.put_object(ROOT, "m", ObjType::Map).map(drop),
                            _ => edit.splice_text(&text, at, 0, "c"),
                        }
                        .map_err(TxError::from)
                    };
                    world.write(node, space, move |tx| tx.document_edit("d", "k", edit)).unwrap();
                }
                if (seed + round) % 3 == node as u64 {
                    world.input(node, Input::Unsettled { space, object: address() });
                }
            }
            for (a, b) in [(0, 1), (1, 2), (0, 2)] {
                world.connect(a, b);
            }
            world.run();
        }
        world.assert_converged(space);
        let shown = document(&world, 0, space);
        let mut plain = Automerge::new();
        let changes = shown.changes();
        let changes = changes.iter().rev().map(|raw| Change::try_from(raw.bytes()).unwrap());
        plain.apply_changes(changes).unwrap();
        for node in 0..3 {
            let document = document(&world, node, space);
            assert_eq!(document.heads(), shown.heads(), "seed {seed}");
            assert_eq!(document.automerge().hydrate(None), plain.hydrate(None), "seed {seed}");
        }
    }
}
