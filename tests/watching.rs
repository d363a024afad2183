//! Watching a space over real files and sockets: everything once and in order, across restarts, at another
//! replica, however slow the watcher is and however often it is interrupted.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a failed unwrap is a failed test")]

mod regions;

use std::collections::BTreeSet;

use comity::{ChangeEvent, Did, Frontier, Kind, Space, SpaceId, StoreError, Token, Watch, WatchError};
use regions::{Draws, PATIENCE, Region, converge, pair, within};

/// The number that a write of [`write`] is.
fn number(event: &ChangeEvent) -> i64 {
    let did = event.changes.iter().flat_map(|change| &change.did);
    let mut added = did.filter_map(|did| if let Did::Added(number) = did { Some(*number) } else { None });
    added.next_back().unwrap_or_else(|| panic!("it adds nothing: {event:?}"))
}

/// Makes writes that are numbers, all under way at once.
async fn write(space: &Space, numbers: impl IntoIterator<Item = i64>) {
    let mut pending = Vec::new();
    for number in numbers {
        pending.push(space.counter("watched", "numbers").add(number).submit().await.unwrap());
    }
    for pending in pending {
        within("the receipt", pending.receipt()).await.unwrap();
    }
}

async fn next(watch: &mut Watch) -> ChangeEvent {
    within("the next change", watch.next()).await.unwrap()
}

async fn numbers(watch: &mut Watch, count: usize) -> Vec<i64> {
    let mut numbers = Vec::new();
    while numbers.len() < count {
        numbers.push(number(&next(watch).await));
    }
    numbers
}

fn of_numbers(space: &Space, token: &Token) -> Watch {
    space.watch_from(token).unwrap().object(Kind::Counter, "watched", "numbers").unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_goes_on_over_restarts_with_everything_once_and_in_order() {
    let (here, mut there) = pair().await;
    let start = there.space.view().unwrap().token().unwrap();
    // What the watcher keeps between its lives.
    let mut saved = start.to_bytes();
    let mut seen: Vec<ChangeEvent> = Vec::new();
    for round in 0..5_i64 {
        let other = there.space.clone();
        let ours = (0..60).map(|number| round * 1_000 + number);
        let theirs = (100..140).map(move |number| round * 1_000 + number);
        let writing = tokio::spawn(async move { write(&other, theirs).await });
        write(&here.space, ours).await;
        writing.await.unwrap();
        let mut watch = of_numbers(&there.space, &Token::from_bytes(&saved).unwrap());
        // It ends in the midst of a page, before everything has arrived or after.
        for _ in 0..37 + round * 7 {
            let event = next(&mut watch).await;
            let view = there.space.view().unwrap().token().unwrap();
            assert!(view.frontier.at(&event.lane) >= event.lsn, "a view taken after an event shows it");
            assert_eq!(watch.token(), event.token());
            saved = event.token().to_bytes();
            seen.push(event);
        }
        drop(watch);
        there.replica.clone().shutdown().await;
        there = there.reopen().await;
    }
    let mut watch = of_numbers(&there.space, &Token::from_bytes(&saved).unwrap());
    while seen.len() < 500 {
        seen.push(next(&mut watch).await);
    }
    write(&there.space, [-1]).await;
    assert_eq!(number(&next(&mut watch).await), -1, "nothing comes twice");

    let distinct: BTreeSet<i64> = seen.iter().map(number).collect();
    assert_eq!(distinct.len(), 500);
    for (first, second) in seen.iter().zip(&seen[1..]) {
        assert!(second.frontier.covers(&first.frontier) && second.frontier != first.frontier);
    }
    for (author, count) in [(here.id(), 300), (there.id(), 200)] {
        let own: Vec<&ChangeEvent> = seen.iter().filter(|event| event.author == author).collect();
        assert_eq!(own.len(), count);
        let in_order = |(first, second): (&&ChangeEvent, &&ChangeEvent)| {
            number(first) < number(second) && first.hlc < second.hlc && first.lsn < second.lsn
        };
        assert!(own.iter().zip(&own[1..]).all(in_order));
    }
    // One life that was never interrupted sees the same.
    let mut whole = of_numbers(&there.space, &start);
    for event in &seen {
        assert_eq!(&next(&mut whole).await, event);
    }

    // Each of the tokens is good at the other replica: it gets the rest there, in the order there.
    converge(&[&here, &there]).await;
    for index in [0, 123, 250, 498] {
        let rest: BTreeSet<i64> = seen[index + 1..].iter().map(number).chain([-1]).collect();
        let mut elsewhere = of_numbers(&here.space, &seen[index].token());
        let told = numbers(&mut elsewhere, rest.len()).await;
        assert_eq!(told.into_iter().collect::<BTreeSet<_>>(), rest);
        assert_eq!(elsewhere.token(), here.space.view().unwrap().token().unwrap());
    }
    here.replica.shutdown().await;
    there.replica.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_token_knows_from_elsewhere_is_not_told_when_it_arrives() {
    let (here, there) = pair().await;
    there.replica.go_offline().await.unwrap();
    write(&here.space, 1..=3).await;
    let token = here.space.view().unwrap().token().unwrap();
    write(&there.space, [10]).await;
    let mut watch = of_numbers(&there.space, &token);
    assert_eq!(number(&next(&mut watch).await), 10);
    write(&here.space, [4]).await;
    there.replica.go_online();
    assert_eq!(number(&next(&mut watch).await), 4);
    converge(&[&here, &there]).await;
    write(&there.space, [11]).await;
    assert_eq!(number(&next(&mut watch).await), 11);
    let view = there.space.view().unwrap().token().unwrap();
    assert_eq!(watch.token(), view);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scope_delivers_its_objects_and_its_token_counts_for_every_scope() {
    let region = Region::founder().await;
    let mut whole = region.space.watch();
    let mut profile = region.space.watch().collection("profile").unwrap();
    let mut name = region.space.watch().object(Kind::Register, "profile", "name").unwrap();
    region.add_one().await.unwrap();
    let write = region.space.transact(|tx| {
        tx.register("profile", "name").write("Ada")?;
        tx.counter("profile", "name").add(1)?;
        tx.set("tags", "post").insert("rust")
    });
    write.await.unwrap();
    region.space.counter("profile", "visits").add(2).await.unwrap();
    region.space.register("profile", "name").write("Bob").await.unwrap();

    let mut objects = Vec::new();
    for _ in 0..4 {
        let event = next(&mut whole).await;
        objects.push(event.changes.iter().map(|change| change.object.to_string()).collect::<Vec<_>>());
    }
    let all = ["register profile/name", "counter profile/name", "set tags/post"];
    assert_eq!(objects, [&["counter test/counter"][..], &all[..], &["counter profile/visits"], &all[..1]]);

    let first = next(&mut profile).await;
    let (first_name, second) = (next(&mut name).await, next(&mut profile).await);
    assert_eq!(first.changes.len(), 2, "what was done elsewhere is left out");
    assert_eq!(first_name.changes, first.changes[..1]);
    assert_eq!(first_name.frontier, first.frontier);
    assert_eq!(second.changes[0].did, [Did::Added(2)]);
    let replaced = comity::Dot { origin: first.origin, seq: first.seq, index: 0 };
    let last = next(&mut name).await;
    let written = Did::Written { value: "Bob".into(), hlc: last.hlc, replaced: vec![replaced] };
    assert_eq!(last.changes[0].did, [written]);
    assert_eq!(last.token(), whole.token());

    // A watch that changes its scope goes on where it is, whatever it has read ahead.
    let mut visits = profile.object(Kind::Counter, "profile", "visits").unwrap();
    region.space.register("profile", "name").write("Eve").await.unwrap();
    region.space.counter("profile", "visits").add(7).await.unwrap();
    assert_eq!(next(&mut visits).await.changes[0].did, [Did::Added(7)]);
    let mut all = region.space.watch_from(&second.token()).unwrap();
    for expected in ["Bob", "Eve"] {
        let event = next(&mut all).await;
        assert!(
            matches!(&event.changes[0].did[..], [Did::Written { value, .. }] if *value == expected.into())
        );
    }

    assert!(region.space.watch().collection("").is_err());
    assert!(region.space.watch().object(Kind::Set, "tags", &"k".repeat(513)).is_err());
    let (space, other) = (region.space.id(), SpaceId([9; 16]));
    let token = Token { space: other, frontier: Frontier::new() };
    let refused = WatchError::OtherSpace { token: other, space };
    assert_eq!(region.space.watch_from(&token).map(|_| ()).unwrap_err(), refused);
    assert_eq!(all.skip_to(&token), Err(refused));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_watcher_is_told_once_how_far_behind_it_is_and_misses_nothing() {
    let region = Region::founder().await;
    let mut watch = region.space.watch().lag_max(100);
    let start = watch.token();
    write(&region.space, 0..100).await;
    assert_eq!(number(&next(&mut watch).await), 0, "as far behind as it may be");
    write(&region.space, 100..1_000).await;
    assert_eq!(numbers(&mut watch, 99).await, (1..100).collect::<Vec<_>>());
    let here = watch.token();
    assert_eq!(watch.next().await, Err(WatchError::Lagged { behind: 900, resume: here.clone() }));
    assert_eq!(watch.token(), here);
    assert_eq!(numbers(&mut watch, 900).await, (100..1_000).collect::<Vec<_>>(), "and is not told again");

    write(&region.space, 1_000..1_100).await;
    assert_eq!(numbers(&mut watch, 100).await, (1_000..1_100).collect::<Vec<_>>(), "it had caught up");
    write(&region.space, 1_100..1_201).await;
    assert!(matches!(watch.next().await, Err(WatchError::Lagged { behind: 101, .. })));
    assert_eq!(number(&next(&mut watch).await), 1_100);
    // The rest is in a view.
    let view = region.space.view().unwrap();
    assert_eq!(view.counter("watched", "numbers").unwrap(), (0..1_201).sum::<i128>());
    watch.skip_to(&view.token().unwrap()).unwrap();
    assert_eq!(watch.token(), view.token().unwrap());
    watch.skip_to(&start).unwrap();
    write(&region.space, [5_000]).await;
    assert_eq!(number(&next(&mut watch).await), 5_000);

    // One that comes from afar is told first, unless its scope has it pass over everything at once.
    let mut late = region.space.watch_from(&start).unwrap().lag_max(1_000);
    let told = within("the lag", late.next()).await;
    assert_eq!(told, Err(WatchError::Lagged { behind: 1_202, resume: start.clone() }));
    assert_eq!(number(&next(&mut late).await), 0);
    let mut late = region.space.watch_from(&start).unwrap().collection("nothing").unwrap().lag_max(1_000);
    region.space.counter("nothing", "x").add(1).await.unwrap();
    assert_eq!(number(&next(&mut late).await), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_that_is_interrupted_at_every_turn_loses_and_repeats_nothing() {
    let (here, there) = pair().await;
    let mut watch = of_numbers(&there.space, &there.space.view().unwrap().token().unwrap());
    let writer = here.space.clone();
    let writing = tokio::spawn(async move {
        for number in 0..20 {
            write(&writer, number * 50..(number + 1) * 50).await;
        }
    });
    let (mut draws, mut told, mut interrupted) = (Draws(7), Vec::new(), 0);
    let reading = async {
        while told.len() < 1_000 {
            let patience = async {
                for _ in 0..draws.below(4) {
                    tokio::task::yield_now().await;
                }
            };
            tokio::select! {
                biased;
                event = watch.next() => told.push(number(&event.unwrap())),
                () = patience => interrupted += 1,
            }
        }
    };
    within("everything is told", reading).await;
    writing.await.unwrap();
    assert_eq!(told, (0..1_000).collect::<Vec<_>>());
    assert!(interrupted > 0, "it was never interrupted");
    write(&here.space, [-1]).await;
    assert_eq!(number(&next(&mut watch).await), -1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_that_cannot_read_says_why_and_can_be_asked_again() {
    let directory = tempfile::tempdir().unwrap();
    let mut options = comity::OpenOptions::default();
    options.store.view_age_max = std::time::Duration::ZERO;
    let replica = comity::Replica::open_with(directory.path(), options).await.unwrap();
    let space = replica.create_space("test").await.unwrap();
    let token = space.token().await.unwrap();
    for mut watch in [space.watch(), space.watch_from(&token).unwrap()] {
        for _ in 0..3 {
            let read = tokio::time::timeout(PATIENCE, watch.next()).await.unwrap();
            assert_eq!(read, Err(WatchError::Store(StoreError::ViewExpired)));
        }
    }
    replica.shutdown().await;
}
