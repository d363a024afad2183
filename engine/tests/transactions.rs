//! Transactions: all or nothing, limits with typed errors that name object and limit, documents included.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod world;

use comity_crdts::automerge::transaction::Transactable;
use comity_crdts::automerge::{ObjType, ROOT, ReadDoc};
use comity_crdts::limits::{
    CHANGE_SET_BYTES_MAX, CHANGE_SET_OBJECTS_MAX, CHANGE_SET_OPS_MAX, COLLECTION_BYTES_MAX, KEY_BYTES_MAX,
    LANES_MAX, VALUE_BYTES_MAX,
};
use comity_crdts::{AddressError, SpaceId, Value, ValueError};
use comity_engine::{Durability, TransactError, Tx, TxError};
use world::{INSTANCE, World};

fn one() -> (World, SpaceId) {
    let mut world = World::new(1);
    let space = world.create_space(0);
    world.add(0, space, 5);
    (world, space)
}

/// The transaction is refused and nothing of it is kept; the error.
fn refused(
    world: &mut World,
    space: SpaceId,
    body: impl FnOnce(&mut Tx<'_>) -> Result<(), TxError>,
) -> TxError {
    let before = world.untouched(0, space);
    let (result, request) = world.write_with(0, space, Durability::Local, body);
    world.run();
    assert_eq!(world.untouched(0, space), before);
    assert!(world.acknowledgement(0, request).is_none(), "no reply comes for what was refused");
    let error = match result {
        Err(TransactError::Refused(error) | TransactError::Tx(error)) => error,
        other => panic!("{other:?}"),
    };
    world.add(0, space, 1);
    assert_eq!(world.likes(0, space), 6, "the next transaction is not affected");
    error
}

fn everything(tx: &mut Tx<'_>) -> Result<(), TxError> {
    tx.counter_add("stats", "likes", 100)?;
    tx.counter_add("new", "counter", 1)?;
    tx.set_add("s", "k", "element".into())?;
    tx.register_write("r", "k", "value".into())?;
    tx.document_edit("d", "k", |doc| {
        doc.put(ROOT, "key", "value").unwrap();
        Ok(())
    })
}

#[test]
fn an_error_rolls_everything_back() {
    let (mut world, space) = one();
    let error = refused(&mut world, space, |tx| {
        everything(tx)?;
        Err(TxError::TooManyOps { ops_max: 0 })
    });
    assert!(matches!(error, TxError::TooManyOps { ops_max: 0 }));
    let view = world.nodes[0].disk.view();
    assert!(comity_engine::register(&view, &space, "r", "k").unwrap().is_empty());
    assert!(comity_engine::document_heads(&view, &space, "d", "k").unwrap().is_empty());
}

#[test]
fn a_panic_rolls_everything_back_and_the_replica_goes_on() {
    let (mut world, space) = one();
    let before = world.untouched(0, space);
    let (result, request) = world.write_with::<(), TxError>(0, space, Durability::Local, |tx| {
        everything(tx)?;
        panic!("the application is at fault")
    });
    assert!(matches!(result, Err(TransactError::Panicked)));
    world.run();
    assert_eq!(world.untouched(0, space), before);
    assert!(world.acknowledgement(0, request).is_none());
    world.write(0, space, everything).unwrap();
    assert_eq!(world.likes(0, space), 105);
}

#[test]
fn a_first_write_that_is_rolled_back_starts_no_lane() {
    let mut world = World::new(1);
    let space = world.create_space(0);
    let result = world.write(0, space, |tx| {
        everything(tx)?;
        Err::<(), _>(TxError::TooManyOps { ops_max: 0 })
    });
    assert!(result.is_err());
    assert!(world.status(0, space).lanes.is_empty());
    world.write(0, space, everything).unwrap();
    assert_eq!(world.status(0, space).lanes.len(), 1);
}

#[test]
fn a_refused_operation_leaves_the_transaction_usable() {
    let (mut world, space) = one();
    world
        .write(0, space, |tx| {
            tx.counter_add("stats", "likes", 1)?;
            assert!(tx.register_write("r", "", Value::Null).is_err());
            assert!(tx.register_write("r", "k", Value::Bytes(vec![0; VALUE_BYTES_MAX])).is_err());
            assert!(
                tx.document_edit::<(), TxError>("d", "k", |_| Err(TxError::TooManyOps { ops_max: 1 }))
                    .is_err()
            );
            tx.counter_add("stats", "likes", 1)
        })
        .unwrap();
    assert_eq!(world.likes(0, space), 7);
    assert_eq!(world.status(0, space).frontier.iter().map(|(_, lsn)| lsn).sum::<u64>(), 2);
}

#[test]
fn names_beyond_their_limits_are_refused_by_name() {
    let (mut world, space) = one();
    let collection = "c".repeat(COLLECTION_BYTES_MAX + 1);
    let error = refused(&mut world, space, |tx| tx.counter_add(&collection, "k", 1));
    assert!(matches!(
        error,
        TxError::Address(AddressError::TooLong { part: "collection", bytes: 129, bytes_max: 128, .. })
    ));
    let (mut world, space) = one();
    let key = "k".repeat(KEY_BYTES_MAX + 1);
    let error = refused(&mut world, space, |tx| tx.set_add("s", &key, Value::Null));
    assert!(matches!(error, TxError::Address(AddressError::TooLong { part: "key", .. })));
    let (mut world, space) = one();
    let error = refused(&mut world, space, |tx| tx.register_write("", "k", Value::Null));
    assert!(matches!(error, TxError::Address(AddressError::Empty { part: "collection" })));
}

#[test]
fn a_value_beyond_its_limit_is_refused_with_its_object() {
    let (mut world, space) = one();
    let error = refused(&mut world, space, |tx| {
        tx.register_write("profile", "photo", Value::Bytes(vec![0; VALUE_BYTES_MAX]))
    });
    let TxError::Value { object, source: ValueError::TooLarge { bytes_max, .. } } = &error else {
        panic!("{error:?}")
    };
    assert_eq!((object.object.key(), *bytes_max), ("photo", VALUE_BYTES_MAX));
    assert!(error.to_string().contains("photo") && error.to_string().contains(&VALUE_BYTES_MAX.to_string()));
}

#[test]
fn additions_that_do_not_fit_one_operation_take_two() {
    let (mut world, space) = one();
    world.write(0, space, |tx| tx.counter_add("c", "k", i64::MAX)).unwrap();
    world
        .write(0, space, |tx| {
            tx.counter_add("c", "k", i64::MAX)?;
            tx.counter_add("c", "k", i64::MAX)
        })
        .unwrap();
    let view = world.nodes[0].disk.view();
    let total = comity_engine::counter(&view, &space, "c", "k").unwrap();
    assert_eq!(total, 3 * i128::from(i64::MAX), "sums that do not fit one operation take two");
}

#[test]
fn operations_and_objects_are_counted() {
    let (mut world, space) = one();
    let error = refused(&mut world, space, |tx| {
        (0..=CHANGE_SET_OPS_MAX).try_for_each(|n| tx.set_add("s", "k", Value::I64(n as i64)))
    });
    assert!(matches!(error, TxError::TooManyOps { ops_max: CHANGE_SET_OPS_MAX }));
    let (mut world, space) = one();
    let error = refused(&mut world, space, |tx| {
        (0..=CHANGE_SET_OBJECTS_MAX).try_for_each(|n| tx.counter_add("c", &n.to_string(), 1))
    });
    assert!(matches!(error, TxError::TooManyObjects { objects_max: CHANGE_SET_OBJECTS_MAX }));
}

#[test]
fn as_many_operations_and_objects_as_are_allowed_reach_other_replicas() {
    let (mut world, space) = World::mesh(2);
    world
        .write(0, space, |tx| {
            for n in 0..CHANGE_SET_OBJECTS_MAX {
                for _ in 0..15 {
                    tx.register_write("r", &n.to_string(), Value::Null)?;
                }
            }
            Ok(())
        })
        .unwrap();
    world.assert_converged(space);
    assert!(world.nodes.iter().all(|node| node.closed.is_empty()));
}

#[test]
fn a_change_set_beyond_its_size_is_refused_before_it_fills_the_memory() {
    let (mut world, space) = one();
    let mut accepted = 0;
    let error = refused(&mut world, space, |tx| {
        (0..10_000).try_for_each(|n| {
            tx.register_write("r", &n.to_string(), Value::Bytes(vec![0; 60_000]))?;
            accepted += 1;
            Ok(())
        })
    });
    assert!(matches!(error, TxError::TooLarge { bytes_max: CHANGE_SET_BYTES_MAX, .. }));
    assert_eq!(accepted, 17, "the first value too many is refused");
    // What the values alone do not tell is found at the end.
    let (mut world, space) = one();
    let key = "k".repeat(KEY_BYTES_MAX - 4);
    let error = refused(&mut world, space, |tx| {
        (0..3_000).try_for_each(|n| tx.counter_add("c", &format!("{key}{n:04}"), 1))
    });
    assert!(matches!(error, TxError::TooLarge { bytes_max: CHANGE_SET_BYTES_MAX, .. }));
}

#[test]
fn a_document_edit_that_fails_leaves_the_document_as_it_was_in_the_transaction() {
    let (mut world, space) = one();
    let put = |tx: &mut Tx<'_>, key: &str| {
        tx.document_edit::<_, TxError>("d", "k", |doc| {
            doc.put(ROOT, key, 1_i64).unwrap();
            Ok(())
        })
    };
    world.write(0, space, |tx| put(tx, "before")).unwrap();
    world
        .write(0, space, |tx| {
            put(tx, "first")?;
            let refused = tx.document_edit::<(), TxError>("d", "k", |doc| {
                doc.put(ROOT, "refused", 1_i64).unwrap();
                Err(TxError::TooManyOps { ops_max: 0 })
            });
            assert!(matches!(refused, Err(TxError::TooManyOps { ops_max: 0 })));
            let panicked = tx.document_edit::<(), TxError>("d", "k", |doc| {
                doc.put(ROOT, "panicked", 1_i64).unwrap();
                panic!("the application is at fault")
            });
            assert!(matches!(panicked, Err(TxError::EditPanicked { .. })));
            put(tx, "last")
        })
        .unwrap();
    let view = world.nodes[0].disk.view();
    let document = comity_engine::document(&view, &space, "d", "k").unwrap();
    let keys: Vec<String> = document.automerge().keys(ROOT).collect();
    assert_eq!(keys, ["before", "first", "last"]);
    world.add(0, space, 1);
    let other = world.add_node([77; 32], world::disk::Disk::default());
    world.join(0, other, space);
    world.assert_converged(space);
}

#[test]
fn a_transaction_rolled_back_leaves_documents_as_they_were() {
    let (mut world, space) = one();
    let body = world
        .write(0, space, |tx| {
            tx.document_edit::<_, TxError>("d", "k", |doc| {
                let text = doc.put_object(ROOT, "body", ObjType::Text).unwrap();
                doc.splice_text(&text, 0, 0, "kept").unwrap();
                Ok(text)
            })
        })
        .unwrap();
    for attempt in 0..3 {
        let refused = world.write(0, space, |tx| {
            tx.document_edit::<_, TxError>("d", "k", |doc| {
                doc.splice_text(&body, 0, 0, "lost").unwrap();
                Ok(())
            })?;
            if attempt == 2 {
                panic!("the application is at fault")
            }
            Err::<(), _>(TxError::TooManyOps { ops_max: 0 })
        });
        assert!(refused.is_err());
        let text = world.write(0, space, |tx| Ok(tx.document("d", "k")?.automerge().text(&body).unwrap()));
        assert_eq!(text.unwrap(), "kept");
    }
    world
        .write(0, space, |tx| {
            tx.document_edit::<_, TxError>("d", "k", |doc| {
                doc.splice_text(&body, 4, 0, " and more").unwrap();
                Ok(())
            })
        })
        .unwrap();
    let view = world.nodes[0].disk.view();
    let document = comity_engine::document(&view, &space, "d", "k").unwrap();
    assert_eq!(document.automerge().text(&body).unwrap(), "kept and more");
}

#[test]
fn documents_edited_across_restarts_and_new_incarnations_converge() {
    let (mut world, space) = World::mesh(2);
    let edit = |world: &mut World, node: usize, key: String| {
        world
            .write(node, space, |tx| {
                tx.document_edit::<_, TxError>("d", "k", |doc| {
                    doc.put(ROOT, key, 1_i64).unwrap();
                    Ok(())
                })
            })
            .unwrap();
    };
    for round in 0..4 {
        edit(&mut world, 0, format!("a{round}"));
        edit(&mut world, 1, format!("b{round}"));
        let backup = world.backup(1);
        if round % 2 == 0 {
            world.crash(1)
        } else {
            world.restore(1, backup, [round; 32])
        }
        edit(&mut world, 1, format!("c{round}"));
        world.connect(0, 1);
        world.run();
        world.assert_converged(space);
    }
    let view = world.nodes[0].disk.view();
    let document = comity_engine::document(&view, &space, "d", "k").unwrap();
    assert_eq!(document.automerge().keys(ROOT).count(), 12);
    assert!(comity_engine::journal(&view, &space, 10).unwrap().is_empty());
}

#[test]
fn a_space_full_of_lanes_takes_no_new_one() {
    let mut world = World::new(1);
    let space = world.create_space(0);
    for round in 0..LANES_MAX {
        let backup = world.backup(0);
        let mut instance = INSTANCE;
        instance[..8].copy_from_slice(&round.to_be_bytes());
        world.restore(0, backup, instance);
        world.add(0, space, 1);
    }
    assert_eq!(world.status(0, space).lanes.len(), LANES_MAX);
    let backup = world.backup(0);
    world.restore(0, backup, [9; 32]);
    let refused = world.write(0, space, |tx| tx.counter_add("stats", "likes", 1));
    assert!(matches!(refused, Err(TransactError::Tx(TxError::TooManyLanes { lanes: LANES_MAX, .. }))));
    assert_eq!(world.likes(0, space), LANES_MAX as i128);
}
