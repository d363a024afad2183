//! How far replicas are behind each other, with real replicas: what status says, who is told, and who is held up.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod regions;

use std::path::Path;
use std::time::Duration;

use comity::{
    Away, LagChange, LagEvent, LagEvents, LagEventsError, LagLimits, LagSide, OpenOptions, PeerStatus,
    Throttle, Transact, TransactError, WriteError,
};

use regions::{PATIENCE, Region, converge, eventually, loopback, patient_open, within};

/// How long to wait for what does not come.
const SHORT: Duration = Duration::from_millis(150);

/// A region with these options that founded the space, and one that joined it; both have written.
async fn pair_with(directory: &Path, options: OpenOptions) -> (Region, Region) {
    let paths = [directory.join("here"), directory.join("there")];
    let here = patient_open(&paths[0], options).await;
    here.listen(loopback(0)).await.unwrap();
    here.create_space("test").await.unwrap();
    let here = Region::of(&paths[0], here).await;
    let there = patient_open(&paths[1], OpenOptions::default()).await;
    there.listen(loopback(0)).await.unwrap();
    there.connect(&here.space.invite().await.unwrap()).await.unwrap();
    let there = Region::of(&paths[1], there).await;
    there.until_member().await;
    there.add_one().await.unwrap();
    here.add_one().await.unwrap();
    converge(&[&here, &there]).await;
    (here, there)
}

fn one(at: &Region) -> Transact {
    at.space.counter("test", "counter").add(1)
}

async fn peer(of: &Region) -> Option<PeerStatus> {
    of.status().await.peers.pop()
}

fn limits(entries: u64) -> LagLimits {
    LagLimits { entries, ..LagLimits::NONE }
}

async fn next(events: &mut LagEvents) -> LagEvent {
    within("an event", events.next()).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn who_falls_behind_is_told_of_until_it_has_caught_up() {
    let directory = tempfile::tempdir().unwrap();
    let (here, there) = pair_with(directory.path(), OpenOptions::default().lag_limits(limits(100))).await;
    let mut events = here.space.lag_events();
    there.replica.go_offline().await.unwrap();
    eventually("it is gone", async || peer(&here).await.is_none()).await;
    let mut pending = Vec::new();
    for _ in 0..6_000 {
        pending.push(one(&here).submit().await.unwrap());
    }
    for write in pending {
        write.receipt().await.unwrap();
    }
    assert!(here.status().await.missing.is_none(), "nobody is there of whom something could be missing");
    there.replica.go_online();
    let exceeded = next(&mut events).await;
    assert_eq!((exceeded.space, exceeded.peer), (here.space.id(), there.id()));
    assert_eq!((exceeded.side, exceeded.change), (LagSide::There, LagChange::Exceeded));
    assert!(exceeded.lag.entries > 100 && exceeded.lag.bytes > 100 && exceeded.lag.age_ms.is_some());
    let recovered = next(&mut events).await;
    assert_eq!((recovered.peer, recovered.change), (there.id(), LagChange::Recovered));
    assert!(recovered.lag.entries <= 50);
    converge(&[&here, &there]).await;
    for region in [&here, &there] {
        eventually("nobody lacks anything", async || {
            let status = region.status().await;
            let peer = status.peers.first().cloned();
            status.missing.is_none()
                && status.catch_up_ms == Some(0)
                && peer.is_some_and(|peer| {
                    peer.behind.is_none() && peer.ahead.is_none() && peer.catch_up_ms == Some(0)
                })
        })
        .await;
    }
    let known = peer(&here).await.unwrap();
    assert!(known.round_trip_ms.is_some() && known.lanes.is_empty());
    let traffic = there.replica.status().await.unwrap().sessions;
    let from_here = traffic.iter().find(|session| session.peer == here.id()).unwrap();
    assert!(from_here.needed_bytes > 0);
    assert_eq!(from_here.received_bytes, from_here.needed_bytes, "nothing came twice");

    here.replica.clone().shutdown().await;
    assert_eq!(within("the end", events.next()).await, Err(LagEventsError::Stopped));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_that_nobody_would_follow_waits_and_then_is_not_made() {
    let directory = tempfile::tempdir().unwrap();
    let throttle = Throttle { bound: limits(10), followers: 1, away: Away::Counted };
    let (here, there) = pair_with(directory.path(), OpenOptions::default().throttle(throttle)).await;
    one(&here).await.unwrap();
    there.replica.go_offline().await.unwrap();
    eventually("it is gone", async || here.replica.connected().is_empty()).await;
    let before = here.count();
    let refused = one(&here).within(SHORT).await.unwrap_err();
    let WriteError::Throttled(throttled) = refused else { panic!("{refused}") };
    assert_eq!((throttled.within, throttled.needed, throttled.bound), (0, 1, limits(10)));
    assert_eq!(here.count(), before, "nothing was written");
    // One that nobody waits for any more is not made either.
    let given_up = tokio::time::timeout(SHORT, one(&here).within(Duration::MAX).into_future()).await;
    assert!(given_up.is_err());
    let waiting = tokio::spawn(one(&here).within(PATIENCE).into_future());
    there.replica.go_online();
    within("the write", waiting).await.unwrap().unwrap();
    converge(&[&here, &there]).await;
    assert_eq!([here.count(), there.count()], [before + 1, before + 1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn writers_at_once_go_on_as_fast_as_they_are_followed() {
    let directory = tempfile::tempdir().unwrap();
    let throttle = Throttle { bound: limits(3), followers: 1, away: Away::Ignored };
    let (here, there) = pair_with(directory.path(), OpenOptions::default().throttle(throttle)).await;
    let before = here.count();
    let writers: Vec<_> = (0..8)
        .map(|_| {
            let space = here.space.clone();
            tokio::spawn(async move {
                for _ in 0..25 {
                    match space.counter("test", "counter").add(1).within(PATIENCE).await {
                        Ok(_) => {}
                        Err(WriteError::Refused(TransactError::Throttled(_))) => panic!("it waits instead"),
                        Err(error) => panic!("{error}"),
                    }
                }
            })
        })
        .collect();
    // Whoever looks never sees more than the bound and the write that exceeds it.
    while !writers.iter().all(tokio::task::JoinHandle::is_finished) {
        let behind = peer(&here).await.map_or(0, |peer| peer.behind.entries);
        assert!(behind <= 4, "{behind} entries");
    }
    for writer in writers {
        writer.await.unwrap();
    }
    // What comes from elsewhere is not held up, and alone it writes freely.
    there.add_one().await.unwrap();
    converge(&[&here, &there]).await;
    assert_eq!(there.count(), before + 201);
    there.replica.go_offline().await.unwrap();
    eventually("it is gone", async || here.replica.connected().is_empty()).await;
    for _ in 0..20 {
        one(&here).within(SHORT).await.unwrap();
    }
}
