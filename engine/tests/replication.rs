//! Two and three cores wired by hand.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a failed unwrap is a failed test")]

mod world;

use comity_crdts::Value;
use world::World;

#[test]
fn two_replicas_exchange_writes_and_converge() {
    let mut world = World::new(2);
    let space = world.create_space(0);
    world.add(0, space, 5);
    let _session = world.join(0, 1, space);
    assert_eq!(world.likes(1, space), 5);
    world.add(1, space, 2);
    world.add(0, space, 1);
    assert_eq!((world.likes(0, space), world.likes(1, space)), (8, 8));
    world.assert_converged(space);
}

#[test]
fn writes_made_apart_meet_after_the_partition() {
    let mut world = World::new(2);
    let space = world.create_space(0);
    let session = world.join(0, 1, space);
    world.disconnect(session);
    world.add(0, space, 10);
    world.add(1, space, 20);
    for (node, title) in [(0, "Berlin"), (1, "Boston")] {
        world.write(node, space, |tx| tx.register_write("profile", "city", title.into())).unwrap();
        world.write(node, space, |tx| tx.set_add("tags", "post", Value::from(title))).unwrap();
    }
    assert_eq!((world.likes(0, space), world.likes(1, space)), (10, 20));
    world.connect(0, 1);
    world.run();
    assert_eq!((world.likes(0, space), world.likes(1, space)), (30, 30));
    for node in [0, 1] {
        let view = world.nodes[node].disk.view();
        let register = comity_engine::register(&view, &space, "profile", "city").unwrap();
        assert_eq!(register.len(), 2, "both concurrent values are kept");
        let tags = comity_engine::set_elements(&view, &space, ("tags", "post"), None, 10).unwrap();
        assert_eq!(tags, [Value::from("Berlin"), Value::from("Boston")]);
    }
    world.assert_converged(space);
}

#[test]
fn a_third_replica_relays_between_two_that_never_meet() {
    let mut world = World::new(3);
    let space = world.create_space(0);
    world.join(0, 1, space);
    world.join(0, 2, space);
    for round in 1..=5 {
        world.add(1, space, 1);
        world.add(2, space, 100);
        assert_eq!(world.likes(1, space), round * 101, "round {round}");
        assert_eq!(world.likes(2, space), round * 101, "round {round}");
    }
    world.assert_converged(space);
}

#[test]
fn documents_typed_into_by_both_sides_converge() {
    use comity_crdts::automerge::{ObjType, ROOT, ReadDoc, transaction::Transactable};
    let mut world = World::new(2);
    let space = world.create_space(0);
    world.join(0, 1, space);
    let body = world
        .write(0, space, |tx| {
            tx.document_edit::<_, comity_engine::TxError>("notes", "today", |doc| {
                let text = doc.put_object(ROOT, "body", ObjType::Text).unwrap();
                doc.splice_text(&text, 0, 0, "Hello").unwrap();
                Ok(text)
            })
        })
        .unwrap();
    world
        .write(1, space, |tx| {
            tx.document_edit::<_, comity_engine::TxError>("notes", "today", |doc| {
                doc.splice_text(&body, 5, 0, ", world").unwrap();
                Ok(())
            })
        })
        .unwrap();
    for node in [0, 1] {
        let view = world.nodes[node].disk.view();
        let document = comity_engine::document(&view, &space, "notes", "today").unwrap();
        assert_eq!(document.automerge().text(&body).unwrap(), "Hello, world");
    }
    world.assert_converged(space);
}
