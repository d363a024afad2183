//! Policies, the conflict inbox, its events, and the journal.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod regions;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use comity::{
    Conflict, ConflictEvent, ConflictEvents, ConflictPolicy, CustomPolicy, Dot, JournalLimits, JournalReason,
    Kind, Location, Matter, ObjectAddress, OpenError, OpenOptions, Policy, ROOT, ReadDoc, RegisterView,
    RegistryError, Replica, ResolveError, Sibling, Space, Token, TransactError, Transactable, TxError, Value,
    WatchError, WriteError,
};

use regions::{PATIENCE, Region, converge, eventually, loopback, pair, patient_open, within};

/// Two regions that are opened with options of their own.
async fn pair_with(directory: &Path, eu: OpenOptions, us: OpenOptions) -> (Region, Region) {
    let (here, there) = (directory.join("eu"), directory.join("us"));
    let replica = patient_open(&here, eu).await;
    replica.listen(loopback(0)).await.unwrap();
    let space = replica.create_space("test").await.unwrap();
    let ticket = space.invite().await.unwrap();
    let eu = Region::of(&here, replica).await;
    let replica = patient_open(&there, us).await;
    replica.listen(loopback(0)).await.unwrap();
    replica.connect(&ticket).await.unwrap();
    let us = Region::of(&there, replica).await;
    us.until_member().await;
    converge(&[&eu, &us]).await;
    (eu, us)
}

/// Both write the register at the same time, `eu` what comes first.
async fn collide(eu: &Region, us: &Region, collection: &str, values: [&str; 2]) {
    us.replica.go_offline().await.unwrap();
    eu.space.register(collection, "title").write(values[0]).await.unwrap();
    // Stamps count milliseconds, and who comes second is to have the later one.
    let later = SystemTime::now() + Duration::from_millis(2);
    eventually("the clock moves on", async || SystemTime::now() > later).await;
    us.space.register(collection, "title").write(values[1]).await.unwrap();
    us.replica.go_online();
    converge(&[eu, us]).await;
}

fn register(collection: &str) -> Location {
    ObjectAddress::new(Kind::Register, collection, "title").unwrap().into()
}

fn only(conflicts: Vec<Conflict>) -> Conflict {
    assert_eq!(conflicts.len(), 1, "{conflicts:?}");
    conflicts.into_iter().next().unwrap()
}

fn values(space: &Space, collection: &str) -> Vec<Value> {
    let siblings = space.register(collection, "title").read().unwrap().siblings();
    let mut values: Vec<Value> = siblings.into_iter().map(|(_, value)| value).collect();
    values.sort();
    values
}

/// The dot of the sibling with a value.
fn dot_of(conflict: &Conflict, value: &str) -> Dot {
    let Matter::Siblings { siblings, .. } = &conflict.matter else { panic!("{conflict:?}") };
    siblings.iter().find(|sibling| sibling.value == value.into()).unwrap().dot
}

fn refused<R: std::fmt::Debug>(outcome: Result<R, WriteError>) -> ResolveError {
    match outcome.unwrap_err() {
        WriteError::Refused(TransactError::Refused(TxError::Refused(source))) => {
            source.downcast_ref::<ResolveError>().unwrap().clone()
        }
        other => panic!("{other}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn resolving_an_old_view_leaves_a_newer_write_alone() {
    let directory = tempfile::tempdir().unwrap();
    let (at_eu, at_us) = (OpenOptions::default().region("eu"), OpenOptions::default().region("us"));
    let (eu, us) = pair_with(directory.path(), at_eu, at_us).await;
    eu.space.set_policy("posts", Policy::Siblings).await.unwrap();
    converge(&[&eu, &us]).await;
    collide(&eu, &us, "posts", ["one", "two"]).await;
    let old = only(eu.space.conflicts(None, 10).unwrap());
    assert_eq!(old, only(us.space.conflicts(None, 10).unwrap()), "both see the same");
    assert_eq!(old.location, register("posts"));
    let Matter::Siblings { policy: Policy::Siblings, siblings } = &old.matter else { panic!("{old:?}") };
    for sibling in siblings {
        let (author, region) = if sibling.value == "one".into() { (eu.id(), "eu") } else { (us.id(), "us") };
        assert_eq!((sibling.author, sibling.region.as_deref()), (Some(author), Some(region)));
    }
    assert!(eu.space.conflicts(Some(&old.location), 10).unwrap().is_empty());

    us.space.register("posts", "title").write("newer").await.unwrap();
    converge(&[&eu, &us]).await;
    assert!(eu.space.conflicts(None, 10).unwrap().is_empty());
    eu.space.resolve(&old, dot_of(&old, "one")).await.unwrap();
    converge(&[&eu, &us]).await;
    for region in [&eu, &us] {
        assert_eq!(values(&region.space, "posts"), ["newer".into(), "one".into()], "both stay");
    }

    let conflict = only(us.space.conflicts(None, 10).unwrap());
    let stranger = dot_of(&old, "two");
    let error = refused(us.space.resolve(&conflict, stranger).await);
    assert_eq!(error, ResolveError::NoSibling { location: register("posts"), dot: stranger });
    assert!(matches!(
        refused(us.space.resolve(&conflict, Kind::Counter).await),
        ResolveError::OtherMatter { .. }
    ));
    us.space.resolve(&conflict, "one, newer").await.unwrap();
    converge(&[&eu, &us]).await;
    for region in [&eu, &us] {
        assert_eq!(region.space.register("posts", "title").value().unwrap(), Some("one, newer".into()));
        assert!(region.space.conflicts(None, 10).unwrap().is_empty());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_set_aside_is_in_the_journal_and_can_be_restored() {
    let (eu, us) = pair().await;
    collide(&eu, &us, "posts", ["one", "two"]).await;
    assert_eq!(us.space.register("posts", "title").value().unwrap(), Some("two".into()), "the last one");
    us.space.register("posts", "title").write("three").await.unwrap();
    converge(&[&eu, &us]).await;
    let journal = eu.space.journal(10).unwrap();
    assert_eq!(journal.len(), 2);
    for entry in &journal {
        let author = if entry.value == "one".into() { eu.id() } else { us.id() };
        assert_eq!((entry.author, entry.by_author), (Some(author), Some(us.id())));
        assert_eq!((&entry.location, &entry.reason), (&register("posts"), &JournalReason::SiblingReplaced));
    }
    assert_eq!(eu.space.journal_of(&register("posts"), 10).unwrap(), journal);
    assert_eq!(eu.space.journal_of(&register("posts"), 1).unwrap(), journal[..1]);
    assert!(eu.space.journal_of(&register("others"), 10).unwrap().is_empty());
    let totals = eu.space.journal_totals().unwrap();
    assert_eq!((totals.entries, totals.pruned), (2, 0));
    let replayed = eu.space.replay(&Policy::First, 10).unwrap();
    assert_eq!(replayed.len(), 1);
    assert_eq!(replayed[0].chosen, RegisterView::Value("one".into()), "the first writer would have won");

    let lost = journal.iter().find(|entry| entry.value == "one".into()).unwrap();
    eu.space.restore(lost).await.unwrap();
    converge(&[&eu, &us]).await;
    assert_eq!(us.space.register("posts", "title").value().unwrap(), Some("one".into()));

    // An edit of a document that was removed meanwhile is there too, and brings the document back.
    eu.space.document("notes", "today").edit(|doc| Ok(doc.put(ROOT, "a", 1)?)).await.unwrap();
    converge(&[&eu, &us]).await;
    us.replica.go_offline().await.unwrap();
    eu.space.document("notes", "today").remove().await.unwrap();
    us.space.document("notes", "today").edit(|doc| Ok(doc.put(ROOT, "b", 2)?)).await.unwrap();
    us.replica.go_online();
    converge(&[&eu, &us]).await;
    assert!(us.space.view().unwrap().document_heads("notes", "today").unwrap().is_empty());
    let note = Location::from(ObjectAddress::new(Kind::Document, "notes", "today").unwrap());
    let entries = eu.space.journal_of(&note, 10).unwrap();
    assert_eq!(entries.len(), 1);
    assert_eq!((&entries[0].reason, entries[0].author), (&JournalReason::DocumentRemoved, Some(us.id())));
    eu.space.restore(&entries[0]).await.unwrap();
    converge(&[&eu, &us]).await;
    let restored = us.space.document("notes", "today").read().unwrap();
    assert_eq!(restored.automerge().keys(ROOT).collect::<Vec<_>>(), ["a", "b"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_nested_in_a_map_has_a_journal_of_its_own() {
    let (eu, us) = pair().await;
    us.replica.go_offline().await.unwrap();
    for (region, text) in [(&eu, "here"), (&us, "there")] {
        for key in ["a", "b"] {
            region.space.map("c", "m").map(key).register("title").write(text).await.unwrap();
        }
    }
    us.replica.go_online();
    converge(&[&eu, &us]).await;
    eu.space.map("c", "m").map("a").register("title").write("both").await.unwrap();
    eu.space.map("c", "m").map("b").register("title").write("both").await.unwrap();
    let object = ObjectAddress::new(Kind::Map, "c", "m").unwrap();
    let at = |path: &[&str]| {
        let path = path.iter().map(|key| (*key).to_owned()).collect();
        eu.space.journal_of(&Location { object: object.clone(), path }, 3).unwrap()
    };
    assert_eq!((at(&[]).len(), at(&["a"]).len(), at(&["a", "title"]).len(), at(&["c"]).len()), (3, 2, 2, 0));
    assert!(at(&["b"]).iter().all(|entry| entry.location.path == ["b", "title"]));
    let lost = at(&["a", "title"]).into_iter().find(|entry| entry.value == "there".into()).unwrap();
    eu.space.restore(&lost).await.unwrap();
    let restored = eu.space.map("c", "m").map("a").register("title").value().unwrap();
    assert_eq!(restored, Some("there".into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_journal_beyond_its_limits_forgets_and_says_how_much() {
    let directory = tempfile::tempdir().unwrap();
    let limits = JournalLimits { bytes_max: 0, ..JournalLimits::USUAL };
    let options = OpenOptions::default().journal(limits);
    let (eu, us) = pair_with(directory.path(), options, OpenOptions::default()).await;
    collide(&eu, &us, "posts", ["one", "two"]).await;
    us.space.register("posts", "title").write("three").await.unwrap();
    converge(&[&eu, &us]).await;
    eventually("the journal is pruned", async || eu.space.journal_totals().unwrap().pruned == 2).await;
    assert!(eu.space.journal(10).unwrap().is_empty());
    assert_eq!(us.space.journal(10).unwrap().len(), 2, "each keeps what its own limits say");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_that_both_change_at_the_same_time_is_one_at_both() {
    let (eu, us) = pair().await;
    assert_eq!(eu.space.policy("posts").unwrap(), Policy::Lww);
    collide(&eu, &us, "posts", ["one", "two"]).await;
    us.replica.go_offline().await.unwrap();
    eu.space.set_policy("posts", Policy::Max).await.unwrap();
    us.space.set_policy("posts", Policy::Min).await.unwrap();
    assert_eq!(eu.space.register("posts", "title").value().unwrap(), Some("two".into()));
    assert_eq!(us.space.register("posts", "title").value().unwrap(), Some("one".into()));
    us.replica.go_online();
    converge(&[&eu, &us]).await;
    let policy = eu.space.policy("posts").unwrap();
    assert!([Policy::Min, Policy::Max].contains(&policy), "{policy}");
    let shown = if policy == Policy::Min { "one" } else { "two" };
    for region in [&eu, &us] {
        assert_eq!(region.space.policy("posts").unwrap(), policy);
        assert_eq!(region.space.policy("others").unwrap(), Policy::Lww);
        let read = region.space.register("posts", "title").read().unwrap();
        assert_eq!((read.value().unwrap(), read.policy()), (Some(shown.into()), &policy));
        assert_eq!(read.under(&Policy::Siblings), region_siblings(&read));
    }
    // What is stored never changed, so any policy can be set afterwards.
    let changed = us.space.transact(|tx| {
        tx.set_policy("posts", &Policy::Siblings)?;
        tx.policy("posts")
    });
    assert_eq!(changed.await.unwrap().value, Policy::Siblings);
    converge(&[&eu, &us]).await;
    only(eu.space.conflicts(None, 10).unwrap());
}

fn region_siblings(read: &comity::RegisterReader) -> RegisterView {
    let siblings = read.register().siblings().map(|(dot, sibling)| (*dot, sibling.clone()));
    RegisterView::Siblings(siblings.collect())
}

/// Joins texts.
struct Joined(u32);

impl ConflictPolicy for Joined {
    fn name(&self) -> &str {
        "joined"
    }

    fn version(&self) -> u32 {
        self.0
    }

    fn resolve(&self, siblings: &[(Dot, Sibling)]) -> Option<Value> {
        let texts = siblings.iter().map(|(_, sibling)| sibling.value.clone().into_text().ok());
        let mut texts = texts.collect::<Option<Vec<_>>>()?;
        texts.sort();
        Some(texts.join("+").into())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_of_the_applications_own_counts_where_it_is_registered() {
    comity::check_policy(&Joined(1), &[vec!["a".into(), "b".into()], vec![1.into(), "b".into()]]).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let options = OpenOptions::default().policy(Arc::new(Joined(1))).policy(Arc::new(Joined(2)));
    let (eu, us) = pair_with(directory.path(), options, OpenOptions::default()).await;
    let policy = Policy::Custom(CustomPolicy::new("joined", 1).unwrap());
    us.space.set_policy("posts", policy.clone()).await.unwrap();
    converge(&[&eu, &us]).await;
    collide(&eu, &us, "posts", ["one", "two"]).await;
    let read = eu.space.register("posts", "title").read().unwrap();
    assert_eq!((read.value().unwrap(), read.policy()), (Some("one+two".into()), &policy));
    assert!(eu.space.conflicts(None, 10).unwrap().is_empty());
    let inside = eu.space.transact(|tx| tx.register("posts", "title").value());
    assert_eq!(inside.await.unwrap().value, Some("one+two".into()));
    let unknown = us.space.register("posts", "title").read().unwrap();
    assert!(matches!(unknown.shown(), RegisterView::Siblings(all) if all.len() == 2));
    assert_eq!(only(us.space.conflicts(None, 10).unwrap()).location, register("posts"));
    // An older version of the application cannot decide about what a newer one sets.
    us.space.set_policy("posts", Policy::Custom(CustomPolicy::new("joined", 3).unwrap())).await.unwrap();
    converge(&[&eu, &us]).await;
    only(eu.space.conflicts(None, 10).unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn options_that_are_none_are_refused_before_anything_is_made() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("replica");
    let open = async |options| Replica::open_with(&path, options).await.map(|_| ()).unwrap_err();
    let error = open(OpenOptions::default().region("")).await;
    assert!(matches!(&error, OpenError::Region { bytes: 0, bytes_max: 64, .. }), "{error}");
    let error = open(OpenOptions::default().region("r".repeat(65))).await.to_string();
    assert!(error.contains("rrrr") && error.contains("65 bytes") && error.contains("64"), "{error}");
    let twice = OpenOptions::default().policy(Arc::new(Joined(1))).policy(Arc::new(Joined(1)));
    let error = open(twice).await;
    assert!(matches!(&error, OpenError::Policy(RegistryError::Duplicate { version: 1, .. })), "{error}");
    assert!(!path.exists());
}

async fn next(events: &mut ConflictEvents) -> ConflictEvent {
    within("the next conflict event", events.next()).await.unwrap()
}

/// Everything that is told until a policy is set in the collection `end`.
async fn told(space: &Space, from: &Token) -> Vec<ConflictEvent> {
    let mut events = space.conflict_events_from(from).unwrap();
    let mut told = Vec::new();
    loop {
        match next(&mut events).await {
            ConflictEvent::PolicySet { collection, .. } if collection == "end" => return told,
            event => told.push(event),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn conflicts_open_and_are_settled_in_order_and_go_on_from_a_token() {
    let (eu, us) = pair().await;
    let mut events = eu.space.conflict_events();
    let mut watch = us.space.conflict_events();
    eu.space.set_policy("posts", Policy::Siblings).await.unwrap();
    match next(&mut events).await {
        ConflictEvent::PolicySet { collection, policy, by, .. } => {
            assert_eq!((collection.as_str(), policy, by), ("posts", Policy::Siblings, eu.id()));
        }
        other => panic!("{other:?}"),
    }
    converge(&[&eu, &us]).await;
    // Under last-writer-wins nothing is ever in conflict.
    collide(&eu, &us, "lists", ["one", "two"]).await;
    us.space.register("lists", "title").write("three").await.unwrap();
    collide(&eu, &us, "posts", ["one", "two"]).await;
    let conflict = only(eu.space.conflicts(None, 10).unwrap());
    assert_eq!(next(&mut events).await, ConflictEvent::Open(conflict.clone()));
    let resume = events.token();
    // The other write touched the place too, and the conflict is there still.
    assert_eq!(next(&mut events).await, ConflictEvent::Open(conflict.clone()));
    us.space.resolve(&conflict, "three").await.unwrap();
    converge(&[&eu, &us]).await;
    let is_settled = |event: &ConflictEvent| match event {
        ConflictEvent::Settled { location, by, replaced, .. } => {
            *location == conflict.location && *by == us.id() && *replaced == conflict.seen()
        }
        _ => false,
    };
    let event = next(&mut events).await;
    assert!(is_settled(&event), "{event:?}");

    // One value is removed by somebody who has not seen the other.
    eu.space.register("posts", "title").clear().await.unwrap();
    converge(&[&eu, &us]).await;
    us.replica.go_offline().await.unwrap();
    eu.space.register("posts", "title").write("one").await.unwrap();
    eu.space.register("posts", "title").clear().await.unwrap();
    us.space.register("posts", "title").write("two").await.unwrap();
    us.replica.go_online();
    converge(&[&eu, &us]).await;
    eu.space.set_policy("end", Policy::Lww).await.unwrap();
    converge(&[&eu, &us]).await;
    eu.replica.clone().shutdown().await;
    assert!(events.next().await.is_err());
    let eu = eu.reopen().await;
    for (space, again) in [(&eu.space, 0), (&us.space, 1)] {
        let told = told(space, &resume).await;
        assert!(is_settled(&told[0]), "a token goes on after what was delivered, anywhere: {told:?}");
        // Where the other value was there before, there was a conflict for that moment; elsewhere there never was one.
        assert!(told[1..].iter().all(|event| matches!(event, ConflictEvent::Settled { .. })), "{told:?}");
        assert_eq!(told.len(), 1 + again, "{told:?}");
    }
    // From the beginning, what is over by now is not told as open.
    let first = next(&mut watch).await;
    assert!(matches!(&first, ConflictEvent::PolicySet { collection, .. } if collection == "posts"));
    assert!(is_settled(&next(&mut watch).await));
    let other = Token { space: comity::SpaceId([1; 16]), ..resume };
    assert!(matches!(eu.space.conflict_events_from(&other), Err(WatchError::OtherSpace { .. })));
}

#[tokio::test(flavor = "multi_thread")]
async fn several_kinds_under_one_key_are_a_conflict_until_one_is_chosen() {
    let (eu, us) = pair().await;
    us.space.confirmed(PATIENCE).await.unwrap();
    let mut events = eu.space.conflict_events();
    us.replica.go_offline().await.unwrap();
    let both = eu.space.transact(|tx| {
        tx.map("c", "m").map("deep").register("key").write("text")?;
        tx.map("c", "m").register("deep").write("text")
    });
    both.await.unwrap();
    us.space.map("c", "m").register("deep").write("other").await.unwrap();
    us.space.map("c", "m").counter("plain").add(1).await.unwrap();
    us.replica.go_online();
    converge(&[&eu, &us]).await;
    // The register among the kinds holds two values besides, which is no second conflict in one place.
    assert_eq!(eu.space.map("c", "m").register("deep").read().unwrap().siblings().len(), 2);
    let conflict = only(eu.space.conflicts(None, 10).unwrap());
    assert_eq!(conflict.location.to_string(), "map c/m › deep");
    assert!(matches!(&conflict.matter, Matter::Kinds { kinds, .. } if *kinds == [Kind::Register, Kind::Map]));
    assert_eq!(
        next(&mut events).await,
        ConflictEvent::Open(conflict.clone()),
        "by what eu wrote there and below"
    );
    assert_eq!(next(&mut events).await, ConflictEvent::Open(conflict.clone()));
    let error = refused(us.space.resolve(&conflict, Kind::Set).await);
    assert!(matches!(&error, ResolveError::NoKind { chosen: Kind::Set, .. }), "{error}");
    assert!(matches!(refused(us.space.resolve(&conflict, "text").await), ResolveError::OtherMatter { .. }));
    us.space.resolve(&conflict, Kind::Map).await.unwrap();
    converge(&[&eu, &us]).await;
    for region in [&eu, &us] {
        assert!(region.space.conflicts(None, 10).unwrap().is_empty());
        let keys = region.space.map("c", "m").keys(None, 10).unwrap();
        assert_eq!(keys, [("deep".to_owned(), vec![Kind::Map]), ("plain".to_owned(), vec![Kind::Counter])]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_set_that_was_told_in_part_is_told_again_as_a_whole() {
    let (eu, us) = pair().await;
    eu.space.set_policy("posts", Policy::Siblings).await.unwrap();
    converge(&[&eu, &us]).await;
    let mut events = eu.space.conflict_events();
    us.replica.go_offline().await.unwrap();
    for region in [&eu, &us] {
        let write = region.space.transact(|tx| {
            tx.register("posts", "a").write("x")?;
            tx.register("posts", "b").write("y")?;
            tx.counter("posts", "c").add(1)
        });
        write.await.unwrap();
    }
    us.replica.go_online();
    converge(&[&eu, &us]).await;
    let conflicts = eu.space.conflicts(None, 10).unwrap();
    let both: Vec<ConflictEvent> = conflicts.iter().cloned().map(ConflictEvent::Open).collect();
    assert_eq!(both.len(), 2);
    let (page, rest) = (eu.space.conflicts(None, 1).unwrap(), &conflicts[1..]);
    assert_eq!(
        (&page[..], &eu.space.conflicts(Some(&page[0].location), 9).unwrap()[..]),
        (&conflicts[..1], rest)
    );
    let start = events.token();
    assert_eq!(next(&mut events).await, both[0]);
    assert_eq!(events.token().frontier, start.frontier, "the change set is not delivered to its end");
    let mut again = eu.space.conflict_events_from(&events.token()).unwrap();
    assert_eq!(next(&mut events).await, both[1]);
    assert_ne!(events.token().frontier, start.frontier);
    for expected in [&both[0], &both[1], &both[0], &both[1]] {
        assert_eq!(&next(&mut again).await, expected);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_never_in_conflict_is_never_settled() {
    let eu = Region::founder().await;
    let space = &eu.space;
    space.set_policy("c", Policy::Siblings).await.unwrap();
    space.register("c", "k").write("A").await.unwrap();
    space.map("c", "m").register("k").write("A").await.unwrap();
    let from = space.view().unwrap().token().unwrap();
    space
        .transact(|tx| {
            tx.register("c", "k").clear()?;
            tx.register("c", "k").write("B")?;
            tx.map("c", "m").remove("k")?;
            tx.map("c", "m").register("k").write("B")
        })
        .await
        .unwrap();
    // Whoever looks late sees what was written after the removal.
    space.register("c", "k").clear().await.unwrap();
    space.register("c", "k").write("C").await.unwrap();
    space.set_policy("end", Policy::Lww).await.unwrap();
    assert_eq!(told(space, &from).await, []);
}
