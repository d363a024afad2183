//! The library as an application uses it: transactions, views, errors, watching, shutting down.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod regions;

use std::time::Duration;

use comity::{
    CommandError, Kind, Listing, ObjType, OpenOptions, ROOT, ReadDoc, ReadError, Replica, RequestError,
    Space, StoreError, TransactError, Transactable, TxError, Value, WatchError, WriteError,
};

use regions::{PATIENCE, Region, is_stopped, patient_open, within};

/// Writes something of every kind in one transaction, which ends as `end` says.
async fn write_all(
    space: &Space,
    end: impl FnOnce() -> Result<u8, TxError> + Send + 'static,
) -> Result<comity::Receipt<u8>, WriteError> {
    let write = space.transact(move |tx| {
        tx.counter("stats", "likes").add(5)?;
        tx.set("tags", "post").insert("rust")?;
        tx.register("profile", "name").write("Carol")?;
        tx.document("notes", "today").edit(|doc| Ok(doc.put(ROOT, "title", "Milk")?))?;
        end()
    });
    write.await
}

async fn assert_unchanged(region: &Region, before: &comity::SpaceStatus) {
    let now = region.status().await;
    assert_eq!((&now.frontier, now.digest), (&before.frontier, before.digest));
    let view = region.space.view().unwrap();
    assert_eq!(view.counter("stats", "likes").unwrap(), 0);
    assert_eq!(view.set("tags", "post").len().unwrap(), 0);
    assert_eq!(view.register("profile", "name").unwrap().latest(), None);
    assert!(view.document_heads("notes", "today").unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_is_one_change_set_and_what_goes_wrong_in_it_leaves_nothing() {
    let region = Region::founder().await;
    let before = region.status().await;

    let refused = write_all(&region.space, || Err(TxError::refuse("out of stock"))).await.unwrap_err();
    assert!(matches!(refused, WriteError::Refused(TransactError::Refused(TxError::Refused(_)))));
    assert_eq!(refused.to_string(), "out of stock");
    assert_unchanged(&region, &before).await;

    let panicked = write_all(&region.space, || panic!("a bug in the application")).await.unwrap_err();
    assert!(matches!(panicked, WriteError::Refused(TransactError::Panicked)), "{panicked}");
    assert_unchanged(&region, &before).await;

    let slow = || {
        std::thread::sleep(Duration::from_millis(1_100));
        Ok(1)
    };
    let slow = write_all(&region.space, slow).await.unwrap_err();
    let limit = |error: &WriteError| match error {
        WriteError::Refused(TransactError::Refused(TxError::TooSlow { millis_max, .. })) => Some(*millis_max),
        _ => None,
    };
    assert_eq!(limit(&slow), Some(1_000), "{slow}");
    assert_unchanged(&region, &before).await;

    let receipt = write_all(&region.space, || Ok(7)).await.unwrap();
    assert_eq!((receipt.value, receipt.remote(), receipt.reached()), (7, 0, true));
    let after = region.status().await;
    assert_eq!(after.frontier.distance_from(&before.frontier), 1, "one change set");
    let view = region.space.view().unwrap();
    assert_eq!(view.counter("stats", "likes").unwrap(), 5);
    assert!(view.set("tags", "post").contains("rust").unwrap());
    assert_eq!(view.register("profile", "name").unwrap().latest(), Some("Carol".into()));
    assert_eq!(view.document_heads("notes", "today").unwrap().len(), 1);
}

/// The error of a transaction, as text.
async fn refusal<R: Send + 'static>(
    space: &Space,
    body: impl FnOnce(&mut comity::Transaction<'_, '_>) -> Result<R, TxError> + Send + 'static,
) -> String {
    match space.transact(body).await {
        Err(WriteError::Refused(error)) => error.to_string(),
        Err(error) => panic!("{error}"),
        Ok(_) => panic!("it is accepted"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_name_the_object_and_the_limit() {
    let region = Region::founder().await;
    let (space, before) = (&region.space, region.status().await);
    let long = "k".repeat(513);
    let text = refusal(space, move |tx| tx.counter("stats", &long).add(1)).await;
    assert!(text.contains("key") && text.contains("513") && text.contains("512"), "{text}");
    let text = refusal(space, |tx| tx.set(&"c".repeat(129), "post").insert(1)).await;
    assert!(text.contains("collection") && text.contains("129") && text.contains("128"), "{text}");
    assert_eq!(refusal(space, |tx| tx.register("", "name").clear()).await, "the collection name is empty");
    assert!(refusal(space, |tx| tx.register("a\0b", "name").write(1)).await.contains("NUL"));
    let text = refusal(space, |tx| tx.register("profile", "name").write("x".repeat(65_536))).await;
    assert!(text.contains("profile/name") && text.contains("65536"), "{text}");
    let text = refusal(space, |tx| tx.set("tags", "post").insert("x".repeat(4_096))).await;
    assert!(text.contains("tags/post") && text.contains("4096"), "{text}");
    let nested = (0..40).fold(Value::from(1), |value, _| Value::List(vec![value]));
    let text = refusal(space, move |tx| tx.register("profile", "deep").write(nested)).await;
    assert!(text.contains("profile/deep") && text.contains("32"), "{text}");
    let text =
        refusal(space, |tx| (0..=4_096).try_for_each(|key| tx.counter("many", &key.to_string()).add(1)));
    assert_eq!(text.await, "the transaction touches more than 4096 objects");
    let text = refusal(space, |tx| {
        (0..20).try_for_each(|key| tx.register("large", &key.to_string()).write("x".repeat(65_000)))
    });
    assert!(text.await.contains("the limit is 1048576"));
    let text = refusal(space, |tx| {
        tx.document("notes", "today").edit(|_| -> Result<(), TxError> { panic!("a bug in the edit") })
    });
    assert_eq!(text.await, "document notes/today: the edit panicked; nothing of it was kept");
    assert_unchanged(&region, &before).await;

    let name = region.replica.create_space(&"n".repeat(129)).await.map(|_| ()).unwrap_err();
    assert!(matches!(name, RequestError::Command(CommandError::SpaceName { bytes: 129, .. })), "{name}");
    assert!(region.replica.create_space("").await.is_err());
    let unknown = comity::SpaceId([1; 16]);
    let refused = region.replica.space(unknown).await.map(|_| ()).unwrap_err();
    assert_eq!(refused, RequestError::Command(CommandError::UnknownSpace(unknown)));
    assert!(matches!(space.view().unwrap().counter("", "likes"), Err(ReadError::Address(_))));
    // After all that was refused, the replica goes on.
    write_all(space, || Ok(0)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn objects_of_every_kind_are_listed_by_prefix_place_and_number() {
    let region = Region::founder().await;
    let keys = ["a", "b1", "b2", "b3", "c"];
    for key in keys {
        let write = region.space.transact(move |tx| {
            tx.counter("things", key).add(1)?;
            tx.set("things", key).insert(1)?;
            tx.register("things", key).write(1)?;
            tx.document("things", key).edit(|doc| Ok(doc.put(ROOT, "x", 1)?))?;
            tx.counter("things2", "other").add(1)
        });
        write.await.unwrap();
    }
    let view = region.space.view().unwrap();
    for kind in [Kind::Counter, Kind::Set, Kind::Register, Kind::Document] {
        let all = Listing { kind, collection: "things", prefix: "", after: None, limit: usize::MAX };
        assert_eq!(view.list(all).unwrap(), keys);
        assert_eq!(view.list(Listing { prefix: "b", ..all }).unwrap(), ["b1", "b2", "b3"]);
        assert_eq!(view.list(Listing { prefix: "b", after: Some("b1"), ..all }).unwrap(), ["b2", "b3"]);
        assert_eq!(view.list(Listing { after: Some("b"), limit: 2, ..all }).unwrap(), ["b1", "b2"]);
        assert_eq!(view.list(Listing { limit: 0, ..all }).unwrap(), [""; 0]);
        assert_eq!(view.list(Listing { prefix: "d", ..all }).unwrap(), [""; 0]);
        assert_eq!(view.list(Listing { collection: "nothing", ..all }).unwrap(), [""; 0]);
    }
    let emptied = region.space.transact(|tx| {
        tx.set("things", "b1").remove(1)?;
        tx.register("things", "b1").clear()?;
        let rest = Listing { kind: Kind::Set, collection: "things", prefix: "b", after: None, limit: 9 };
        tx.list(rest)
    });
    assert_eq!(emptied.await.unwrap().value, ["b2", "b3"], "an emptied object holds nothing");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_view_never_changes_and_shows_only_what_is_synced() {
    let region = Region::founder().await;
    region.add_one().await.unwrap();
    let old = region.space.view().unwrap();
    let mut pending = Vec::new();
    for _ in 0..200 {
        let space = region.space.clone();
        let write = region.space.transact(move |tx| {
            let counter = |view: &comity::View| view.counter("test", "counter");
            let (synced, newest) = (counter(&space.view()?)?, tx.counter("test", "counter").value()?);
            tx.counter("test", "counter").add(1)?;
            Ok((synced, newest, counter(&space.view()?)?))
        });
        pending.push(write.submit().await.unwrap());
    }
    let mut ahead = 0;
    for (before, pending) in (1..).zip(pending) {
        let (synced, newest, after) = pending.receipt().await.unwrap().value;
        assert_eq!(newest, before, "a transaction sees everything before it");
        assert!(synced <= newest && after <= newest, "a view shows nothing that is not synced");
        ahead += u32::from(synced < newest);
        assert!(region.count() > newest, "what is acknowledged is visible");
    }
    assert!(ahead > 0, "no transaction ran ahead of the disk");
    assert_eq!(old.counter("test", "counter").unwrap(), 1);
    assert_eq!(region.count(), 201);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_view_expires_and_says_so() {
    let directory = tempfile::tempdir().unwrap();
    let mut options = OpenOptions::default();
    options.store.view_age_max = Duration::ZERO;
    let replica = Replica::open_with(directory.path(), options).await.unwrap();
    let space = replica.create_space("test").await.unwrap();
    let read = space.view().map_err(ReadError::Store).and_then(|view| view.counter("test", "counter"));
    assert_eq!(read, Err(ReadError::Store(StoreError::ViewExpired)));
    replica.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn documents_are_edited_at_the_newest_version_and_at_an_older_one() {
    let region = Region::founder().await;
    let document = region.space.document("notes", "today");
    let text = document
        .edit(|doc| {
            let text = doc.put_object(ROOT, "text", ObjType::Text)?;
            doc.splice_text(&text, 0, 0, "milk")?;
            Ok(text)
        })
        .await
        .unwrap()
        .value;
    let old = region.space.view().unwrap().document_heads("notes", "today").unwrap();
    let object = text.clone();
    document.edit(move |doc| Ok(doc.splice_text(&object, 0, 0, "oat ")?)).await.unwrap();
    let (object, heads) = (text.clone(), old.clone());
    let write = region.space.transact(move |tx| {
        tx.document("notes", "today").edit_at(&heads, |doc| Ok(doc.splice_text(&object, 4, 0, "!")?))?;
        Ok(tx.document("notes", "today").read()?.automerge().text(&object)?)
    });
    assert_eq!(write.await.unwrap().value, "oat milk!");
    assert_eq!(document.read().unwrap().automerge().text(&text).unwrap(), "oat milk!");

    let object = text.clone();
    let failed = document.edit(move |doc| {
        doc.splice_text(&object, 0, 4, "")?;
        Err::<(), _>(TxError::refuse("changed my mind"))
    });
    assert_eq!(failed.await.map(|_| ()).unwrap_err().to_string(), "changed my mind");
    let unknown = region.space.transact(|tx| tx.document("notes", "today").edit_at(&[[9; 32]], |_| Ok(())));
    assert!(unknown.await.is_err(), "a version that the document does not hold");
    assert_eq!(document.read().unwrap().automerge().text(&text).unwrap(), "oat milk!");
    let receipt = region.space.transact(|_| Ok("nothing")).await.unwrap();
    assert_eq!((receipt.value, receipt.reached()), ("nothing", true));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_writes_under_way_take_place_in_order() {
    let region = Region::founder().await;
    let mut watch = region.space.watch();
    let mut pending = Vec::new();
    for _ in 0..1_000 {
        let write = region.space.transact(|tx| {
            let before = tx.counter("test", "counter").value()?;
            tx.counter("test", "counter").add(1)?;
            Ok(before)
        });
        pending.push(write.submit().await.unwrap());
    }
    let mut last = comity::Frontier::new();
    for (expected, pending) in (0..).zip(pending) {
        let receipt = pending.receipt().await.unwrap();
        assert_eq!(receipt.value, expected);
        let seen = within("the notice", watch.next()).await.unwrap();
        assert_eq!(seen.frontier, receipt.token().frontier, "watchers see change sets in their order");
        assert_eq!((seen.author, seen.changes.len()), (region.id(), 1));
        assert_eq!(seen.changes[0].object.key(), "counter");
        assert!(seen.frontier.covers(&last) && seen.frontier != last);
        last = seen.frontier;
        assert!(region.count() > expected, "a view taken after a notice shows it");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_was_shut_down_says_so_to_everybody() {
    let region = Region::founder().await;
    let (space, replica) = (region.space.clone(), region.replica.clone());
    let mut watch = space.watch();
    let token = region.add_one().await.unwrap().token();
    watch.next().await.unwrap();
    let waiting = tokio::spawn({
        let (space, mut token) = (space.clone(), token.clone());
        let lane = token.frontier.iter().next().unwrap().0;
        token.frontier.advance(lane, 1_000);
        async move { space.at_within(&token, PATIENCE).await.map(|_| ()) }
    });
    let watching = tokio::spawn(async move { watch.next().await });
    let (first, second) = (replica.clone(), replica.clone());
    let first = tokio::spawn(first.shutdown());
    within("the second shutdown", second.shutdown()).await;
    // The directory is free the moment any shutdown returns.
    Replica::open(&region.directory).await.unwrap().shutdown().await;
    within("the first shutdown", first).await.unwrap();

    assert!(is_stopped(&within("the end of waiting", waiting).await.unwrap()));
    assert_eq!(within("the end of watching", watching).await.unwrap(), Err(WatchError::Stopped));
    assert_eq!(within("watching", space.watch().next()).await, Err(WatchError::Stopped));
    assert!(matches!(space.counter("test", "counter").add(1).await, Err(WriteError::Stopped)));
    assert!(is_stopped(&space.at(&token).await.map(|_| ())));
    assert!(is_stopped(&space.status().await.map(|_| ())));
    assert!(is_stopped(&replica.create_space("late").await.map(|_| ())));
    assert!(is_stopped(&replica.traffic().await));
    assert!(is_stopped(&replica.go_offline().await));
    assert!(space.invite().await.is_err());
    assert!(replica.listen(regions::loopback(0)).await.is_err());
    assert!(matches!(space.view().map(|_| ()), Err(StoreError::Failed { .. })));
    assert!(space.counter("test", "counter").value().is_err());
    let waited = replica.wait_connected(region.id(), PATIENCE).await;
    assert_eq!(waited, Err(comity::ConnectedError::Stopped));
    within("one more shutdown", replica.shutdown()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn spaces_are_found_again_by_id_and_name() {
    let directory = tempfile::tempdir().unwrap();
    let replica = patient_open(directory.path(), OpenOptions::default()).await;
    let mut made = Vec::new();
    for name in ["one", "two", "two"] {
        made.push((replica.create_space(name).await.unwrap().id(), name.to_owned()));
    }
    let space = replica.space(made[0].0).await.unwrap();
    space.counter("test", "counter").add(3).await.unwrap();
    replica.shutdown().await;
    let replica = patient_open(directory.path(), OpenOptions::default()).await;
    let mut found = replica.spaces().await.unwrap();
    found.sort();
    made.sort();
    assert_eq!(found, made);
    for (id, _) in &made {
        let value = replica.space(*id).await.unwrap().counter("test", "counter").value().unwrap();
        assert_eq!(value, if *id == space.id() { 3 } else { 0 }, "spaces share nothing");
    }
    replica.shutdown().await;
}
