//! Nothing is lost silently: what decisions, removals and refusals take away can be read in the journal and restored, and
//! what is refused leaves nothing behind.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod regions;

use std::time::Duration;

use comity::{
    JournalEntry, JournalReason, Kind, OpenOptions, Policy, ROOT, ReadDoc, ResolveError, Space, StoreError,
    TransactError, Transactable, TxError, Value, WatchError, WriteError,
};

use regions::{PATIENCE, Region, converge, pair, patient_open, within};

/// Two regions; key `k` of a map leads to a counter at 5, written at `eu`, and to a register with `"v"`, written at `us`.
async fn two_kinds() -> (Region, Region) {
    let (eu, us) = pair().await;
    us.space.confirmed(PATIENCE).await.unwrap();
    us.replica.go_offline().await.unwrap();
    eu.space.map("c", "m").counter("k").add(5).await.unwrap();
    us.space.map("c", "m").register("k").write("v").await.unwrap();
    us.replica.go_online();
    converge(&[&eu, &us]).await;
    (eu, us)
}

fn resolve_error<R: std::fmt::Debug>(outcome: Result<R, WriteError>) -> ResolveError {
    match outcome {
        Err(WriteError::Refused(TransactError::Refused(TxError::Refused(source)))) => {
            *source.downcast().expect("it is about the conflict")
        }
        outcome => panic!("{outcome:?}"),
    }
}

fn aside(space: &Space, kind: Kind) -> JournalEntry {
    let entries = space.journal(100).unwrap();
    entries.into_iter().find(|entry| entry.kind == kind).expect("it is in the journal")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kind_that_a_resolution_discards_is_in_the_journal_and_can_be_restored() {
    let (eu, us) = two_kinds().await;
    let conflict = eu.space.conflicts(None, 9).unwrap().remove(0);
    eu.space.resolve(&conflict, Kind::Register).await.unwrap();
    converge(&[&eu, &us]).await;
    for region in [&eu, &us] {
        let entry = aside(&region.space, Kind::Counter);
        assert_eq!((&entry.location, &entry.value), (&conflict.location, &Value::I64(5)));
        assert_eq!((&entry.reason, entry.by_author), (&JournalReason::KindRemoved, Some(eu.id())));
    }
    us.space.restore(&aside(&us.space, Kind::Counter)).await.unwrap();
    converge(&[&eu, &us]).await;
    assert_eq!(eu.space.map("c", "m").counter("k").value().unwrap(), 5);
    // The other way round, of a register.
    let conflict = us.space.conflicts(None, 9).unwrap().remove(0);
    us.space.resolve(&conflict, Kind::Counter).await.unwrap();
    converge(&[&eu, &us]).await;
    let entry = aside(&eu.space, Kind::Register);
    assert_eq!((&entry.value, entry.author), (&Value::from("v"), Some(us.id())));
    eu.space.restore(&entry).await.unwrap();
    assert_eq!(eu.space.map("c", "m").register("k").value().unwrap(), Some("v".into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn kinds_are_resolved_as_they_were_seen_or_not_at_all() {
    let (eu, us) = two_kinds().await;
    let old = eu.space.conflicts(None, 9).unwrap().remove(0);
    us.space.map("c", "m").register("k").write("newer").await.unwrap();
    converge(&[&eu, &us]).await;
    let changed = resolve_error(eu.space.resolve(&old, Kind::Counter).await);
    assert_eq!(changed, ResolveError::Changed { location: old.location.clone() });
    assert_eq!(eu.space.map("c", "m").register("k").value().unwrap(), Some("newer".into()));
    // Who decided first has decided: the loser of the race removes nothing.
    let seen = eu.space.conflicts(None, 9).unwrap().remove(0);
    us.space.resolve(&seen, Kind::Counter).await.unwrap();
    converge(&[&eu, &us]).await;
    let changed = resolve_error(eu.space.resolve(&seen, Kind::Register).await);
    assert_eq!(changed, ResolveError::Changed { location: old.location });
    assert_eq!(eu.space.map("c", "m").counter("k").value().unwrap(), 5);
    assert_eq!(aside(&us.space, Kind::Register).value, "newer".into());
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_decides_differently_at_the_same_time_loses_nothing_of_either() {
    let (eu, us) = two_kinds().await;
    let conflict = eu.space.conflicts(None, 9).unwrap().remove(0);
    us.replica.go_offline().await.unwrap();
    eu.space.resolve(&conflict, Kind::Counter).await.unwrap();
    us.space.resolve(&conflict, Kind::Register).await.unwrap();
    us.replica.go_online();
    converge(&[&eu, &us]).await;
    assert!(eu.space.map("c", "m").is_empty().unwrap(), "each took away what the other one chose");
    // Each has what it discarded.
    assert_eq!(aside(&eu.space, Kind::Register).value, "v".into());
    assert_eq!(aside(&us.space, Kind::Counter).value, Value::I64(5));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_resolution_named_among_others_is_journalled_when_it_is_alone_by_then() {
    let (eu, us) = pair().await;
    eu.space.set_policy("c", Policy::Siblings).await.unwrap();
    eu.space.register("c", "k").write("A").await.unwrap();
    converge(&[&eu, &us]).await;
    us.replica.go_offline().await.unwrap();
    us.space.register("c", "k").clear().await.unwrap();
    eu.space.register("c", "k").resolve("B", &[]).await.unwrap();
    let seen = eu.space.conflicts(None, 9).unwrap().remove(0);
    us.replica.go_online();
    converge(&[&eu, &us]).await;
    assert_eq!(eu.space.register("c", "k").value().unwrap(), Some("B".into()), "the clear has seen A only");
    eu.space.resolve(&seen, "X").await.unwrap();
    assert!(eu.space.journal(9).unwrap().iter().any(|entry| entry.value == "B".into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_resolution_inside_a_transaction_leaves_nothing_behind() {
    let (eu, us) = pair().await;
    us.replica.go_offline().await.unwrap();
    let both = |tx: &mut comity::Transaction<'_, '_>| {
        tx.map("c", "m").set("k").insert(1)?;
        tx.map("c", "m").map("k").counter("n").add(1)
    };
    eu.space.transact(both).await.unwrap();
    us.space.map("c", "m").register("k").write("v").await.unwrap();
    us.replica.go_online();
    converge(&[&eu, &us]).await;
    us.replica.clone().shutdown().await;
    let copy = tempfile::tempdir().unwrap();
    regions::copy(&us.directory, copy.path());
    // An incarnation of which nobody has heard may not remove counters.
    let mut options = OpenOptions::default();
    options.stay_offline = true;
    let replica = patient_open(copy.path(), options).await;
    let space = replica.space(us.space.id()).await.unwrap();
    let conflict = space.conflicts(None, 9).unwrap().remove(0);
    let write = space.transact(move |tx| {
        assert!(matches!(tx.resolve(&conflict, Kind::Set), Err(TxError::Unconfirmed { .. })));
        tx.counter("c", "attempts").add(1)
    });
    write.await.unwrap();
    assert_eq!(space.map("c", "m").register("k").value().unwrap(), Some("v".into()));
    assert!(space.journal(9).unwrap().is_empty());
    replica.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn additions_that_a_removal_beats_are_in_both_journals() {
    let (eu, us) = pair().await;
    us.space.confirmed(PATIENCE).await.unwrap();
    let (guests, open) = (eu.space.remove_wins_set("c", "guests"), eu.space.disable_wins_flag("c", "open"));
    guests.insert("ada").await.unwrap();
    open.enable().await.unwrap();
    converge(&[&eu, &us]).await;
    us.replica.go_offline().await.unwrap();
    let both = |tx: &mut comity::Transaction<'_, '_>| {
        tx.remove_wins_set("c", "guests").remove("ada")?;
        tx.disable_wins_flag("c", "open").disable()
    };
    us.space.transact(both).await.unwrap();
    let both = |tx: &mut comity::Transaction<'_, '_>| {
        tx.remove_wins_set("c", "guests").insert("ada")?;
        tx.disable_wins_flag("c", "open").enable()
    };
    eu.space.transact(both).await.unwrap();
    us.replica.go_online();
    converge(&[&eu, &us]).await;
    assert!(!guests.contains("ada").unwrap() && !open.is_enabled().unwrap());
    for region in [&eu, &us] {
        for (kind, value) in [(Kind::RwSet, Value::from("ada")), (Kind::DwFlag, Value::Bool(true))] {
            let entry = aside(&region.space, kind);
            assert_eq!((&entry.value, &entry.reason), (&value, &JournalReason::RemovalWon));
            assert_eq!((entry.author, entry.by_author), (Some(eu.id()), Some(us.id())));
        }
        assert_eq!(region.space.journal_totals().unwrap().entries, 2, "and what was seen is not");
    }
    us.space.restore(&aside(&us.space, Kind::RwSet)).await.unwrap();
    us.space.restore(&aside(&us.space, Kind::DwFlag)).await.unwrap();
    converge(&[&eu, &us]).await;
    assert!(guests.contains("ada").unwrap() && open.is_enabled().unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_document_can_be_read_and_edited_after_an_edit_of_it_was_refused() {
    fn noise(seed: u64) -> String {
        let mut x = seed;
        let mut letter = || {
            x = x.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            char::from(b'a' + ((x >> 33) % 26) as u8)
        };
        (0..400_000).map(|_| letter()).collect()
    }
    let eu = Region::founder().await;
    eu.space.document("d", "x").edit(|doc| Ok(doc.put(ROOT, "zero", 0_i64)?)).await.unwrap();
    let write = eu.space.transact(|tx| {
        tx.document("d", "x").edit(|doc| Ok(doc.put(ROOT, "one", noise(1))?))?;
        tx.document("d", "x").edit(|doc| Ok(doc.put(ROOT, "two", noise(2))?))?;
        let refused = tx.document("d", "x").edit(|doc| Ok(doc.put(ROOT, "three", noise(3))?));
        assert!(matches!(refused, Err(TxError::TooLarge { .. })), "{refused:?}");
        assert_eq!(tx.document("d", "x").read()?.automerge().length(ROOT), 3);
        tx.document("d", "x").edit(|doc| Ok(doc.put(ROOT, "four", 4_i64)?))?;
        Ok(tx.document("d", "x").read()?.automerge().keys(ROOT).collect::<Vec<_>>())
    });
    let inside = write.await.unwrap().value;
    assert_eq!(inside, ["four", "one", "two", "zero"]);
    let after = eu.space.document("d", "x").read().unwrap();
    assert_eq!(after.automerge().keys(ROOT).collect::<Vec<_>>(), inside);
}

#[tokio::test(flavor = "multi_thread")]
async fn replay_reads_as_many_entries_as_it_is_told_and_the_rest_of_one_decision() {
    let eu = Region::founder().await;
    let collide = |tx: &mut comity::Transaction<'_, '_>| {
        (0..20).try_for_each(|number| {
            tx.register("c", &number.to_string()).write(1)?;
            tx.register("c", &number.to_string()).resolve(2, &[])
        })
    };
    eu.space.transact(collide).await.unwrap();
    let decide = |tx: &mut comity::Transaction<'_, '_>| {
        (0..20).try_for_each(|number| tx.register("c", &number.to_string()).write(3))
    };
    eu.space.transact(decide).await.unwrap();
    for limit in [1, 2, 3, 10] {
        let replayed = eu.space.replay(&Policy::First, limit).unwrap();
        let entries: usize = replayed.iter().map(|replayed| replayed.siblings.len()).sum();
        assert!((limit..limit + 2).contains(&entries), "{entries} entries of {limit}");
        assert!(replayed.last().unwrap().siblings.len() == 2, "the last decision is whole");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_asks_for_rights_may_be_as_patient_as_can_be() {
    let eu = Region::founder().await;
    eu.space.bounded_counter("c", "b").increase(1).await.unwrap();
    eu.space.bounded_counter("c", "b").decrease(1).within(Duration::MAX).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_space_is_unknown_to_reads_and_watches() {
    let eu = Region::founder().await;
    let (space, id) = (eu.space.clone(), eu.space.id());
    space.counter("c", "c").add(5).await.unwrap();
    let (mut watch, mut conflicts) = (space.watch(), space.conflict_events());
    let mut feed = space.document("c", "d").follow().unwrap();
    feed.next().await.unwrap();
    eu.space.clone().delete().await.unwrap();
    let unknown = Some(WatchError::Store(StoreError::UnknownSpace(id)));
    assert_eq!(within("the end of the watch", watch.next()).await.err(), unknown);
    assert_eq!(within("the end of the conflicts", conflicts.next()).await.err(), unknown);
    assert_eq!(within("the end of the feed", feed.next()).await.err(), unknown);
    assert!(space.counter("c", "c").value().is_err());
    assert_eq!(space.view().err(), Some(StoreError::UnknownSpace(id)));
    assert_eq!(space.conflicts(None, 1).err(), Some(StoreError::UnknownSpace(id)));
}
