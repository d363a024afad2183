//! What writes and reads can ask for beyond the own disk, with real replicas: quorums, everybody, regions, repetition,
//! freshness.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod regions;

use std::path::Path;
use std::time::{Duration, Instant};

use comity::{
    CommandError, Durability, OpenOptions, Receipt, RequestError, SpaceId, Token, Transact, TransactError,
    WriteError,
};

use regions::{PATIENCE, Region, converge, loopback, pair, patient_open, within};

/// How long to wait for what does not come.
const SHORT: Duration = Duration::from_millis(150);

/// Three replicas in these regions, connected pairwise, that hold the same.
async fn three(directory: &Path, names: [&str; 3]) -> [Region; 3] {
    let mut regions: Vec<Region> = Vec::new();
    for (index, name) in names.iter().enumerate() {
        let directory = directory.join(index.to_string());
        let replica = patient_open(&directory, OpenOptions::default().region(*name)).await;
        replica.listen(loopback(0)).await.unwrap();
        match regions.first() {
            None => drop(replica.create_space("test").await.unwrap()),
            Some(founder) => {
                replica.connect(&founder.space.invite().await.unwrap()).await.unwrap();
            }
        }
        let region = Region::of(&directory, replica).await;
        region.until_member().await;
        region.add_one().await.unwrap();
        regions.push(region);
    }
    regions[2].replica.connect(&regions[1].ticket()).await.unwrap();
    regions[2].wait_connected(&regions[1]).await;
    let [a, b, c] = regions.try_into().ok().unwrap();
    converge(&[&a, &b, &c]).await;
    [a, b, c]
}

fn one(at: &Region) -> Transact {
    at.space.counter("test", "counter").add(1)
}

fn names(names: &[&str]) -> Durability {
    Durability::Regions(names.iter().map(|name| (*name).to_owned()).collect())
}

async fn made<R: Send + 'static>(write: Transact<R>) -> Receipt<R> {
    within("the acknowledgement", write.within(PATIENCE).into_future()).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn writes_wait_for_a_quorum_for_everybody_and_for_regions() {
    let directory = tempfile::tempdir().unwrap();
    let [eu, us, asia] = three(directory.path(), ["eu", "us", "asia"]).await;
    let receipt = made(one(&us).durability(Durability::Quorum)).await;
    assert!(receipt.reached() && receipt.progress().0 >= 2);
    assert_eq!(receipt.progress().1, 2);
    let receipt = made(one(&us).durability(Durability::All)).await;
    assert_eq!(receipt.progress(), (3, 3));
    let mut others = [eu.id(), asia.id()];
    others.sort_unstable();
    assert_eq!(receipt.replicas(), others);
    assert_eq!(receipt.regions(), ["asia", "eu", "us"]);
    let receipt = made(one(&us).durability(names(&["eu", "asia"]))).await;
    assert_eq!((receipt.reached(), receipt.progress()), (true, (2, 2)));

    asia.replica.go_offline().await.unwrap();
    assert!(made(one(&us).durability(Durability::Quorum)).await.reached());
    let receipt = one(&us).durability(names(&["eu", "asia"])).within(SHORT).await.unwrap();
    assert_eq!((receipt.reached(), receipt.progress()), (false, (1, 2)));
    assert_eq!(receipt.regions(), ["eu", "us"]);
    let before = us.count();
    let refused = one(&us).durability(names(&["eu", "mars"])).await.unwrap_err();
    assert!(matches!(&refused, WriteError::Refused(TransactError::UnknownRegion(name)) if name == "mars"));
    assert_eq!(us.count(), before, "nothing was written");
    asia.replica.go_online();
    converge(&[&eu, &us, &asia]).await;
    assert_eq!(asia.count(), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_whose_caller_gave_up_stays_and_the_replica_goes_on() {
    let (here, there) = pair().await;
    there.replica.go_offline().await.unwrap();
    for _ in 0..50 {
        let write = one(&here).durability(Durability::Remote(1)).within(Duration::MAX);
        assert!(tokio::time::timeout(Duration::from_millis(2), write.into_future()).await.is_err());
        let pending = one(&here).durability(Durability::All).within(Duration::MAX).submit().await.unwrap();
        drop(pending);
        let nowhere = Token {
            frontier: [(comity::OriginId([9; 16]), 1)].into_iter().collect(),
            ..here.applied().await
        };
        let read = here.space.at_within(&nowhere, Duration::MAX);
        assert!(tokio::time::timeout(Duration::from_millis(1), read).await.is_err());
    }
    there.replica.go_online();
    converge(&[&here, &there]).await;
    assert!(there.count() >= 50, "each submitted write stays");
    assert_eq!(there.count(), here.count());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeated_write_counts_once_at_every_replica_that_knows_it() {
    let (here, there) = pair().await;
    let first = made(one(&here).operation_id("order-17")).await;
    assert_eq!((first.value, first.deduplicated()), (Some(()), false));
    let again = made(one(&here).operation_id(b"order-17")).await;
    assert_eq!((again.value, again.deduplicated()), (None, true));
    assert_eq!(again.token(), first.token());
    let elsewhere =
        made(one(&there).operation_id("order-17").after(&first.token()).durability(Durability::All)).await;
    assert!(elsewhere.deduplicated() && elsewhere.reached());
    assert_eq!(elsewhere.token(), first.token());
    here.replica.clone().shutdown().await;
    let here = here.reopen().await;
    there.replica.connect(&here.ticket()).await.unwrap();
    assert!(made(one(&here).operation_id("order-17")).await.deduplicated());
    assert_eq!([here.count(), there.count()], [1, 1]);

    // An indeterminate write, repeated elsewhere with its token: not before the write is there.
    there.replica.go_offline().await.unwrap();
    let lost =
        one(&here).operation_id("order-18").durability(Durability::Remote(1)).within(SHORT).await.unwrap();
    assert!(!lost.reached());
    let early = one(&there).operation_id("order-18").after(&lost.token()).within(SHORT).await.unwrap_err();
    assert!(matches!(early, WriteError::Behind(RequestError::Command(CommandError::Stale { missing: 1 }))));
    assert_eq!(there.count(), 1, "nothing was written");
    there.replica.go_online();
    let late = made(one(&there).operation_id("order-18").after(&lost.token())).await;
    assert!(late.deduplicated());
    converge(&[&here, &there]).await;
    assert_eq!([here.count(), there.count()], [2, 2]);

    for name in ["", &"x".repeat(65)] {
        let refused = one(&here).operation_id(name).await.unwrap_err();
        assert!(matches!(refused, WriteError::OperationName(error) if error.bytes == name.len()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_closure_is_not_run_for_a_repetition_and_a_refused_write_can_be_repeated() {
    let (here, _there) = pair().await;
    let stock = here.space.bounded_counter("stock", "seats");
    made(stock.increase(1)).await;
    let take = || {
        let write = here.space.transact(|tx| {
            tx.bounded_counter("stock", "seats").decrease(1)?;
            Ok("seat 1".to_owned())
        });
        write.operation_id("booking-1")
    };
    assert_eq!(made(take()).await.value.as_deref(), Some("seat 1"));
    // There is nothing left to take, and nothing is taken.
    let again = made(take()).await;
    assert!(again.deduplicated() && again.value.is_none());
    let other = || stock.increase(0).operation_id("empty");
    assert!(!made(other()).await.deduplicated());
    let refused = || {
        let write = here.space.transact(|tx| tx.bounded_counter("stock", "seats").decrease(1));
        write.operation_id("booking-2")
    };
    assert!(refused().await.is_err());
    made(stock.increase(1)).await;
    assert!(!made(refused()).await.deduplicated(), "what was refused left no id");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_follows_what_its_client_read_elsewhere() {
    let (here, there) = pair().await;
    for round in 1..=10 {
        let read = made(one(&here)).await.token();
        let answer = made(there.space.counter("test", "answers").add(1).after(&read)).await;
        assert!(answer.token().frontier.covers(&read.frontier), "the write is after what was read");
        let view = here.space.at(&answer.token()).await.unwrap();
        assert_eq!(view.counter("test", "answers").unwrap(), round);
    }
    let elsewhere = Token { space: SpaceId([1; 16]), ..here.applied().await };
    let refused = one(&here).after(&elsewhere).await.unwrap_err();
    let WriteError::Behind(RequestError::Command(error)) = refused else { panic!("{refused}") };
    assert_eq!(error, CommandError::OtherSpace { token: elsewhere.space, space: here.space.id() });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quorum_read_shows_every_write_acknowledged_by_a_quorum() {
    let directory = tempfile::tempdir().unwrap();
    let [a, b, c] = three(directory.path(), ["eu", "us", "asia"]).await;
    for round in 0..20 {
        let (writer, reader) = if round % 2 == 0 { (&a, &c) } else { (&c, &b) };
        assert!(made(one(writer).durability(Durability::Quorum)).await.reached());
        let view = reader.space.read_quorum(PATIENCE).await.unwrap();
        assert_eq!(view.counter("test", "counter").unwrap(), 3 + round + 1);
    }
    // What only the others have is pulled through whoever is left.
    a.replica.go_offline().await.unwrap();
    assert!(made(one(&c).durability(Durability::Quorum)).await.reached());
    assert_eq!(b.space.read_quorum(PATIENCE).await.unwrap().counter("test", "counter").unwrap(), 24);
    let refused = a.space.read_quorum(SHORT).await.map(|_| ()).unwrap_err();
    assert_eq!(refused, RequestError::Command(CommandError::NoQuorum { reached: 1, needed: 2 }));
    assert_eq!(refused.to_string(), "1 of 2 members that a quorum needs were read");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fresh_read_is_as_fresh_as_it_says_or_says_towards_whom_it_is_not() {
    let (here, there) = pair().await;
    for round in 1..=20 {
        made(one(&here)).await;
        let view = there.space.fresh_within(Duration::ZERO, PATIENCE).await.unwrap();
        assert_eq!(view.counter("test", "counter").unwrap(), round);
    }
    let known = Instant::now();
    here.replica.go_offline().await.unwrap();
    made(one(&here)).await;
    let view = there.space.fresh_within(PATIENCE, SHORT).await.unwrap();
    assert_eq!(view.counter("test", "counter").unwrap(), 20, "older than is allowed it is not");
    let refused = there.space.fresh_within(Duration::ZERO, SHORT).await.map(|_| ()).unwrap_err();
    let RequestError::Command(CommandError::NotFresh { by_ms: Some(by_ms), behind }) = refused else {
        panic!("{refused}")
    };
    assert_eq!(behind, [here.id()]);
    assert!(
        u128::from(by_ms) >= SHORT.as_millis() && u128::from(by_ms) <= known.elapsed().as_millis() + 1_000
    );
    let (space, waiting) = (there.space.clone(), here.replica.clone());
    let reading = tokio::spawn(async move { space.fresh_within(Duration::ZERO, PATIENCE).await });
    waiting.go_online();
    let view = within("the fresh read", reading).await.unwrap().unwrap();
    assert_eq!(view.counter("test", "counter").unwrap(), 21);
}
