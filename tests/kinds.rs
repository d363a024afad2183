//! Every kind of object at two replicas: written here, read there, removed, at the same time, and after reopening.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod regions;

use std::time::Duration;

use comity::{
    BoundedError, CommandError, DecreaseError, Kind, ObjectAddress, ROOT, ReadDoc, ReplicaId, RequestError,
    Space, TransactError, Transactable, Transaction, TransferError, TxError, Value, WriteError,
};

use regions::{PATIENCE, Region, converge, pair, until};

/// Puts something into an object of every kind.
fn fill(tx: &mut Transaction<'_, '_>) -> Result<(), TxError> {
    tx.counter("c", "counter").add(5)?;
    tx.set("c", "set").insert("a")?;
    tx.set("c", "set").insert("b")?;
    tx.remove_wins_set("c", "rw").insert("a")?;
    tx.remove_wins_set("c", "rw").insert("b")?;
    tx.flag("c", "flag").enable()?;
    tx.disable_wins_flag("c", "dw").enable()?;
    tx.register("c", "register").write("x")?;
    tx.bounded_counter("c", "stock").increase(10)?;
    tx.document("c", "document").edit(|doc| Ok(doc.put(ROOT, "title", "Milk")?))?;
    let mut map = tx.map("c", "map");
    map.counter("counter").add(2)?;
    map.set("set").insert(1)?;
    map.register("register").write("y")?;
    map.flag("flag").enable()?;
    map.map("deep").map("deeper").counter("counter").add(3)
}

/// Whether a transaction sees what [`fill`] puts there, or nothing of it.
fn check_inside(tx: &mut Transaction<'_, '_>, is_filled: bool) -> Result<(), TxError> {
    let (some, count) = (|value: &str| is_filled.then(|| Value::from(value)), i128::from(is_filled));
    assert_eq!(tx.counter("c", "counter").value()?, 5 * count);
    for set in ["set", "rw"] {
        let set = if set == "rw" { tx.remove_wins_set("c", set) } else { tx.set("c", set) };
        assert_eq!(
            (set.contains("a")?, set.len()?, set.is_empty()?),
            (is_filled, 2 * count as u64, !is_filled)
        );
        assert_eq!(set.elements(None, 1)?, some("a").into_iter().collect::<Vec<_>>());
        assert_eq!(set.elements(Some(&"a".into()), 9)?, some("b").into_iter().collect::<Vec<_>>());
    }
    assert_eq!(tx.flag("c", "flag").is_enabled()?, is_filled);
    assert_eq!(tx.disable_wins_flag("c", "dw").is_enabled()?, is_filled);
    assert_eq!(tx.register("c", "register").value()?, some("x"));
    let stock = tx.bounded_counter("c", "stock");
    assert_eq!((stock.value()?, stock.rights()?), (10 * count, 10 * count as u64));
    let has_title = tx.document("c", "document").read()?.automerge().get(ROOT, "title")?.is_some();
    assert_eq!(has_title, is_filled);
    let mut map = tx.map("c", "map");
    assert_eq!(
        (map.len()?, map.is_empty()?, map.keys(None, 9)?.len()),
        (5 * count as u64, !is_filled, 5 * count as usize)
    );
    assert_eq!(map.counter("counter").value()?, 2 * count);
    assert_eq!(map.set("set").contains(1)?, is_filled);
    assert_eq!(map.register("register").value()?, some("y"));
    assert_eq!(map.flag("flag").is_enabled()?, is_filled);
    assert_eq!(map.map("deep").map("deeper").counter("counter").value()?, 3 * count);
    Ok(())
}

/// As [`check_inside`], by the handles and by a view.
fn check(space: &Space, is_filled: bool) {
    let (some, count) = (|value: &str| is_filled.then(|| Value::from(value)), i128::from(is_filled));
    let view = space.view().unwrap();
    assert_eq!(space.counter("c", "counter").value().unwrap(), 5 * count);
    assert_eq!(view.counter("c", "counter").unwrap(), 5 * count);
    let sets = [
        (space.set("c", "set"), view.set("c", "set")),
        (space.remove_wins_set("c", "rw"), view.remove_wins_set("c", "rw")),
    ];
    for (set, read) in sets {
        let elements: Vec<Value> = some("a").into_iter().chain(some("b")).collect();
        assert_eq!((set.elements().unwrap(), set.len().unwrap()), (elements.clone(), 2 * count as u64));
        assert_eq!((set.contains("b").unwrap(), set.is_empty().unwrap()), (is_filled, !is_filled));
        assert_eq!((read.elements(None, 9).unwrap(), read.len().unwrap()), (elements, 2 * count as u64));
        assert_eq!((read.contains("b").unwrap(), read.is_empty().unwrap()), (is_filled, !is_filled));
    }
    assert_eq!(space.flag("c", "flag").is_enabled().unwrap(), is_filled);
    assert_eq!(space.disable_wins_flag("c", "dw").is_enabled().unwrap(), is_filled);
    assert_eq!(view.flag("c", "flag").unwrap(), is_filled);
    assert_eq!(view.disable_wins_flag("c", "dw").unwrap(), is_filled);
    assert_eq!(space.register("c", "register").value().unwrap(), some("x"));
    assert_eq!(view.register("c", "register").unwrap().value().unwrap(), some("x"));
    assert_eq!(view.document_heads("c", "document").unwrap().len(), usize::from(is_filled));
    let document = space.document("c", "document").read().unwrap();
    assert_eq!(document.automerge().get(ROOT, "title").unwrap().is_some(), is_filled);
    let (map, read) = (space.map("c", "map"), view.map("c", "map"));
    let keys = [("counter", Kind::Counter), ("deep", Kind::Map), ("flag", Kind::Flag)];
    let keys = keys.into_iter().chain([("register", Kind::Register), ("set", Kind::Set)]);
    let keys: Vec<_> = keys.filter(|_| is_filled).map(|(key, kind)| (key.to_owned(), vec![kind])).collect();
    assert_eq!((map.keys(None, 9).unwrap(), map.len().unwrap()), (keys.clone(), 5 * count as u64));
    assert_eq!(read.keys(Some("deep"), 2).unwrap(), keys.get(2..4).unwrap_or_default());
    assert_eq!((map.is_empty().unwrap(), read.is_empty().unwrap()), (!is_filled, !is_filled));
    assert_eq!(map.counter("counter").value().unwrap(), 2 * count);
    assert_eq!(read.counter("counter").unwrap(), 2 * count);
    assert_eq!(map.set("set").contains(1).unwrap(), is_filled);
    assert_eq!(read.set("set").contains(1).unwrap(), is_filled);
    assert_eq!(map.register("register").value().unwrap(), some("y"));
    assert_eq!(read.register("register").unwrap().latest(), some("y"));
    assert_eq!(map.flag("flag").is_enabled().unwrap(), is_filled);
    assert_eq!(read.flag("flag").unwrap(), is_filled);
    assert_eq!(read.map("deep").map("deeper").counter("counter").unwrap(), 3 * count);
    assert_eq!(map.map("deep").map("deeper").counter("counter").value().unwrap(), 3 * count);
}

/// Removes everything that [`fill`] puts there but the bounded counter, by the handles.
async fn empty(space: &Space) {
    space.counter("c", "counter").remove().await.unwrap();
    space.set("c", "set").remove("a").await.unwrap();
    space.set("c", "set").clear().await.unwrap();
    space.remove_wins_set("c", "rw").remove("a").await.unwrap();
    space.remove_wins_set("c", "rw").clear().await.unwrap();
    space.flag("c", "flag").disable().await.unwrap();
    space.disable_wins_flag("c", "dw").remove().await.unwrap();
    space.register("c", "register").remove().await.unwrap();
    space.document("c", "document").remove().await.unwrap();
    space.map("c", "map").register("register").clear().await.unwrap();
    space.map("c", "map").counter("counter").remove().await.unwrap();
    space.map("c", "map").remove("deep").await.unwrap();
    assert_eq!(space.map("c", "map").len().unwrap(), 2);
    space.map("c", "map").clear().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_one_replica_writes_and_removes_the_other_reads_and_keeps() {
    let (eu, us) = pair().await;
    check(&eu.space, false);
    eu.space.transact(fill).await.unwrap();
    converge(&[&eu, &us]).await;
    check(&eu.space, true);
    check(&us.space, true);
    us.replica.clone().shutdown().await;
    let us = us.reopen().await;
    check(&us.space, true);

    us.space.confirmed(PATIENCE).await.unwrap();
    empty(&us.space).await;
    check(&us.space, false);
    converge(&[&eu, &us]).await;
    check(&eu.space, false);
    eu.replica.clone().shutdown().await;
    let eu = eu.reopen().await;
    check(&eu.space, false);
    assert_eq!(eu.space.bounded_counter("c", "stock").value().unwrap(), 10);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_over_every_kind_reads_its_writes_and_leaves_nothing_when_refused() {
    let region = Region::founder().await;
    let before = region.status().await;
    let refused = region.space.transact(|tx| {
        check_inside(tx, false)?;
        fill(tx)?;
        check_inside(tx, true)?;
        Err::<(), _>(TxError::refuse("changed my mind"))
    });
    assert_eq!(refused.await.map(|_| ()).unwrap_err().to_string(), "changed my mind");
    let after = region.status().await;
    assert_eq!((&after.frontier, after.digest), (&before.frontier, before.digest));
    check(&region.space, false);

    let made = region.space.transact(|tx| {
        fill(tx)?;
        check_inside(tx, true)
    });
    made.await.unwrap();
    let after = region.status().await;
    assert_eq!(after.frontier.distance_from(&before.frontier), 1, "one change set");
    check(&region.space, true);

    let removed = region.space.transact(|tx| {
        tx.counter("c", "counter").remove()?;
        tx.set("c", "set").clear()?;
        tx.remove_wins_set("c", "rw").clear()?;
        tx.flag("c", "flag").remove()?;
        tx.disable_wins_flag("c", "dw").disable()?;
        tx.register("c", "register").clear()?;
        tx.document("c", "document").remove()?;
        tx.map("c", "map").remove("deep")?;
        tx.map("c", "map").clear()?;
        tx.bounded_counter("c", "stock").decrease(10)?;
        check_inside(tx, false)
    });
    removed.await.unwrap();
    check(&region.space, false);
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_writers_meet_by_the_rule_of_each_kind() {
    let (eu, us) = pair().await;
    us.space.confirmed(PATIENCE).await.unwrap();
    eu.space.transact(fill).await.unwrap();
    converge(&[&eu, &us]).await;
    us.replica.go_offline().await.unwrap();
    let here = eu.space.transact(|tx| {
        tx.counter("c", "counter").remove()?;
        tx.set("c", "set").remove("a")?;
        tx.remove_wins_set("c", "rw").remove("a")?;
        tx.flag("c", "flag").disable()?;
        tx.disable_wins_flag("c", "dw").disable()?;
        tx.map("c", "map").remove("register")?;
        tx.map("c", "map").remove("flag")
    });
    here.await.unwrap();
    let there = us.space.transact(|tx| {
        tx.counter("c", "counter").add(3)?;
        tx.set("c", "set").insert("a")?;
        tx.remove_wins_set("c", "rw").insert("a")?;
        tx.flag("c", "flag").enable()?;
        tx.disable_wins_flag("c", "dw").enable()?;
        tx.map("c", "map").register("register").write("z")
    });
    there.await.unwrap();
    us.replica.go_online();
    converge(&[&eu, &us]).await;
    for space in [&eu.space, &us.space] {
        assert_eq!(space.counter("c", "counter").value().unwrap(), 3, "an addition nobody saw stays");
        assert!(space.set("c", "set").contains("a").unwrap(), "adding wins");
        assert!(!space.remove_wins_set("c", "rw").contains("a").unwrap(), "removing wins");
        assert!(space.flag("c", "flag").is_enabled().unwrap(), "enabling wins");
        assert!(!space.disable_wins_flag("c", "dw").is_enabled().unwrap(), "disabling wins");
        let map = space.map("c", "map");
        assert_eq!(map.register("register").value().unwrap(), Some("z".into()), "what nobody saw stays");
        assert_eq!(map.keys(Some("deep"), 1).unwrap()[0].0, "register", "the flag is gone");
    }
}

fn bounded_error(error: &WriteError) -> Option<(&ObjectAddress, BoundedError)> {
    match error {
        WriteError::Refused(TransactError::Refused(TxError::Bounded { object, source })) => {
            Some((&object.object, *source))
        }
        _ => None,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rights_to_a_bounded_counter_move_to_whoever_needs_them() {
    let (eu, us) = pair().await;
    let (here, there) =
        (eu.space.bounded_counter("stock", "apples"), us.space.bounded_counter("stock", "apples"));
    here.increase(10).await.unwrap();
    converge(&[&eu, &us]).await;
    assert_eq!((here.rights().await.unwrap(), there.rights().await.unwrap()), (10, 0));

    // Inside a transaction and within no time, nobody is asked.
    let inside = us.space.transact(|tx| tx.bounded_counter("stock", "apples").decrease(1)).await.unwrap_err();
    let (object, source) = bounded_error(&inside).unwrap();
    assert_eq!(object.to_string(), "bounded-counter stock/apples");
    assert_eq!(source, BoundedError::Insufficient { needed: 1, rights: 0, value: 10 });
    let alone = there.decrease(3).within(Duration::ZERO).await.unwrap_err();
    let text = alone.to_string();
    assert!(text.contains("stock/apples: 3 rights") && text.contains("is at 10"), "{text}");

    us.wait_connected(&eu).await;
    there.decrease(3).within(PATIENCE).await.unwrap();
    converge(&[&eu, &us]).await;
    for counter in [&here, &there] {
        assert_eq!(counter.value().unwrap(), 7);
    }
    assert_eq!((here.rights().await.unwrap(), there.rights().await.unwrap()), (7, 0));
    here.transfer(us.id(), 2).await.unwrap();
    converge(&[&eu, &us]).await;
    assert_eq!((here.rights().await.unwrap(), there.rights().await.unwrap()), (5, 2));
    let held: Vec<i128> = us
        .space
        .view()
        .unwrap()
        .bounded_counter("stock", "apples")
        .unwrap()
        .holders()
        .map(|held| held.1)
        .collect();
    assert_eq!(held, [5, 2]);

    // More than there is: nobody could hand it over, however long one waits.
    let too_much = there.decrease(8).within(PATIENCE).await.unwrap_err();
    assert!(
        matches!(&too_much, DecreaseError::Insufficient { needed: 8, held: 2, value: 7, .. }),
        "{too_much}"
    );
    us.replica.go_offline().await.unwrap();
    there.decrease(2).await.unwrap();
    let cut_off = there.decrease(1).within(Duration::from_millis(100)).await.unwrap_err();
    assert!(
        matches!(&cut_off, DecreaseError::Insufficient { needed: 1, held: 0, value: 5, .. }),
        "{cut_off}"
    );
    let nobody = ReplicaId([7; 32]);
    let unknown = here.transfer(nobody, 1).await.map(|_| ()).unwrap_err();
    let WriteError::Refused(TransactError::Refused(TxError::Refused(source))) = &unknown else {
        panic!("{unknown}");
    };
    assert_eq!(source.downcast_ref::<TransferError>().unwrap().to, nobody);
    let range = here.increase(u64::MAX).await.map(|_| ()).unwrap_err();
    assert!(matches!(bounded_error(&range), Some((_, BoundedError::Range { bits_max: 63, .. }))), "{range}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_of_which_nobody_has_heard_says_so_until_it_is_confirmed() {
    let eu = Region::founder().await;
    eu.space.remove_wins_set("c", "rw").insert("a").await.unwrap();
    eu.space.remove_wins_set("c", "rw").remove("b").await.unwrap();
    let directory = tempfile::tempdir().unwrap();
    let replica = regions::open(directory.path()).await;
    replica.go_offline().await.unwrap();
    let space = replica.connect(&eu.space.invite().await.unwrap()).await.unwrap();
    space.set("c", "set").insert("a").await.unwrap();
    let refused = space.remove_wins_set("c", "rw").remove("a").await.map(|_| ()).unwrap_err();
    let WriteError::Refused(TransactError::Refused(TxError::Unconfirmed { object })) = &refused else {
        panic!("{refused}");
    };
    assert_eq!(object.to_string(), "remove-wins-set c/rw");
    let waited = space.confirmed(Duration::from_millis(10)).await;
    assert_eq!(waited, Err(RequestError::Command(CommandError::Unconfirmed(space.id()))));
    replica.go_online();
    space.confirmed(PATIENCE).await.unwrap();
    space.remove_wins_set("c", "rw").remove("a").await.unwrap();
    until(&eu.space, async |space| space.remove_wins_set("c", "rw").is_empty().unwrap()).await;
    replica.shutdown().await;
}

/// Why a transaction is refused, as text.
async fn refusal(
    space: &Space,
    body: impl FnOnce(&mut Transaction<'_, '_>) -> Result<(), TxError> + Send + 'static,
) -> String {
    match space.transact(body).await {
        Err(WriteError::Refused(error)) => error.to_string(),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_name_the_object_and_the_limit() {
    let region = Region::founder().await;
    let (space, before) = (&region.space, region.status().await);
    let deep = |tx: &mut Transaction<'_, '_>| {
        tx.map("c", "map").map("1").map("2").map("3").map("4").counter("5").add(1)
    };
    let text = refusal(space, deep).await;
    assert!(text.contains("map c/map › 1 › 2 › 3 › 4 › 5: maps nest four deep"), "{text}");
    let text = refusal(space, |tx| tx.map("c", "map").register("").write(1)).await;
    assert!(text.contains("map c/map › : keys of maps are non-empty"), "{text}");
    let text = refusal(space, |tx| tx.map("c", "map").set(&"k".repeat(513)).insert(1)).await;
    assert!(text.contains("map key") && text.contains("513") && text.contains("512"), "{text}");
    let text = refusal(space, |tx| tx.map("c", "map").set("set").insert("x".repeat(4_096))).await;
    assert!(text.contains("map c/map › set") && text.contains("4096"), "{text}");
    let text = refusal(space, |tx| tx.remove_wins_set("c", "rw").insert("x".repeat(4_096))).await;
    assert!(text.contains("remove-wins-set c/rw") && text.contains("4096"), "{text}");
    let text = refusal(space, |tx| tx.disable_wins_flag(&"c".repeat(129), "f").enable()).await;
    assert!(text.contains("collection") && text.contains("129") && text.contains("128"), "{text}");
    let text = refusal(space, |tx| tx.set_policy(&"c".repeat(129), &comity::Policy::Min)).await;
    assert!(text.contains("collection") && text.contains("129") && text.contains("128"), "{text}");
    let text = refusal(space, |tx| tx.bounded_counter("c", "stock").decrease(1)).await;
    assert!(text.contains("bounded-counter c/stock: 1 rights are needed and 0 are held"), "{text}");
    assert!(space.flag("", "flag").is_enabled().is_err());
    assert!(space.policy(&"c".repeat(129)).is_err());
    let now = region.status().await;
    assert_eq!((&now.frontier, now.digest), (&before.frontier, before.digest));
}
