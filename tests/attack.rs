//! Applications that behave badly: futures dropped midway, handles dropped under way, far too many writers.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod regions;

use std::future::{Future, IntoFuture};
use std::pin::pin;
use std::task::Poll;
use std::time::{Duration, Instant};

use comity::{Durability, Space, WriteError};

use regions::{Draws, Region, converge, pair, within};

/// Adds one, and an element that tells the write from all others.
fn numbered(space: &Space, number: u64) -> comity::Transact {
    let number = i64::try_from(number).unwrap();
    space.transact(move |tx| {
        tx.counter("test", "counter").add(1)?;
        tx.set("test", "numbers").insert(number)
    })
}

/// Every write that is there is there as a whole and once.
fn whole(region: &Region) -> u64 {
    let view = region.space.view().unwrap();
    let elements = view.set("test", "numbers").len().unwrap();
    assert_eq!(view.counter("test", "counter").unwrap(), i128::from(elements));
    elements
}

/// Polls a future so often at most, then drops it.
async fn abandon<T>(future: impl Future<Output = T>, polls: u64) -> Option<T> {
    let mut future = pin!(future);
    for _ in 0..polls {
        let polled = std::future::poll_fn(|context| Poll::Ready(future.as_mut().poll(context))).await;
        if let Poll::Ready(output) = polled {
            return Some(output);
        }
        tokio::task::yield_now().await;
    }
    None
}

#[tokio::test(flavor = "multi_thread")]
async fn futures_dropped_midway_lose_answers_and_nothing_else() {
    let (here, there) = pair().await;
    let mut draws = Draws(1);
    let mut acknowledged = 0;
    for number in 0..2_000 {
        let write = numbered(&here.space, number).into_future();
        acknowledged += u64::from(abandon(write, draws.below(4)).await.is_some_and(|done| done.is_ok()));
        let space = &here.space;
        match draws.below(8) {
            0 => drop(abandon(space.status(), draws.below(3)).await),
            1 => drop(abandon(here.replica.create_space("abandoned"), draws.below(3)).await),
            2 => drop(abandon(space.invite(), draws.below(3)).await),
            3 => {
                let mut token = here.applied().await;
                let lane = token.frontier.iter().next().unwrap().0;
                token.frontier.advance(lane, u64::MAX);
                drop(abandon(space.at(&token), draws.below(3)).await);
            }
            4 => {
                let remote = numbered(space, 10_000 + number).durability(Durability::Remote(1));
                drop(abandon(remote.into_future(), draws.below(3)).await);
            }
            5 => drop(abandon(space.watch().next(), draws.below(3)).await),
            _ => {}
        }
    }
    here.add_one().await.unwrap();
    here.space.set("test", "numbers").insert(-1).await.unwrap();
    converge(&[&here, &there]).await;
    assert_eq!(whole(&here), whole(&there));
    assert!(whole(&here) > acknowledged);
    here.replica.clone().shutdown().await;
    assert!(whole(&here.reopen().await) > acknowledged);
}

#[tokio::test(flavor = "multi_thread")]
async fn abandoned_offline_switches_leave_the_replica_in_one_piece() {
    let (here, there) = pair().await;
    let mut draws = Draws(2);
    for number in 0..100 {
        drop(abandon(here.replica.go_offline(), draws.below(4)).await);
        numbered(&here.space, number).await.unwrap();
        here.replica.go_online();
    }
    converge(&[&here, &there]).await;
    assert_eq!(whole(&there), 100);
}

#[tokio::test(flavor = "multi_thread")]
async fn handles_dropped_while_a_write_is_under_way_do_not_stop_it() {
    let region = Region::founder().await;
    let mut pending = Vec::new();
    for number in 0..100 {
        let space = region.replica.space(region.space.id()).await.unwrap();
        pending.push(numbered(&space, number).submit().await.unwrap());
        drop(space);
    }
    for pending in pending {
        within("the receipt", pending.receipt()).await.unwrap();
    }
    assert_eq!(whole(&region), 100);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_handle_dropped_ends_the_replica_and_everybody_who_waits() {
    let mut region = Region::founder().await;
    let mut kept = 0;
    for round in 0..10_u64 {
        let mut pending = Vec::new();
        for number in 0..50 {
            pending.push(numbered(&region.space, round * 50 + number).submit().await.unwrap());
        }
        let mut watch = region.space.watch();
        let reopening = tokio::spawn(region.reopen());
        for pending in pending {
            match within("an answer", pending.receipt()).await {
                Ok(_) => kept += 1,
                Err(WriteError::Stopped) => {}
                Err(error) => panic!("{error}"),
            }
        }
        while within("the end", watch.next()).await != Err(comity::WatchError::Stopped) {}
        region = within("the directory is free", reopening).await.unwrap();
        assert!(whole(&region) >= kept, "{kept} were acknowledged, {} are there", whole(&region));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shutdown_abandoned_midway_can_be_finished() {
    let mut region = Region::founder().await;
    for polls in 0..40 {
        region.add_one().await.unwrap();
        let _ = abandon(region.replica.clone().shutdown(), polls).await;
        within("the shutdown", region.replica.clone().shutdown()).await;
        // The directory is free the moment any shutdown returns.
        comity::Replica::open(&region.directory).await.unwrap().shutdown().await;
        region = region.reopen().await;
        assert_eq!(region.count(), i128::from(polls) + 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_writers_at_once_are_all_served() {
    const WRITERS: u64 = 10_000;
    let (here, there) = pair().await;
    let started = Instant::now();
    let writers: Vec<_> = (0..WRITERS)
        .map(|number| {
            let space = here.space.clone();
            tokio::spawn(async move { numbered(&space, number).await.map(|_| ()) })
        })
        .collect();
    for writer in writers {
        within("the writer", writer).await.unwrap().unwrap();
    }
    let elapsed = started.elapsed();
    println!("{WRITERS} writers at once: {:.0} writes/s", WRITERS as f64 / elapsed.as_secs_f64());
    assert_eq!(whole(&here), WRITERS);
    converge(&[&here, &there]).await;
    assert_eq!(whole(&there), WRITERS);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_that_panics_in_every_second_writer_harms_no_other() {
    let region = Region::founder().await;
    let writers: Vec<_> = (0..200_u64)
        .map(|number| {
            let space = region.space.clone();
            tokio::spawn(async move {
                if number % 2 == 0 {
                    return numbered(&space, number).await.map(|_| ());
                }
                let bad = space.transact(move |tx| {
                    tx.counter("test", "counter").add(1)?;
                    tx.document("notes", "today").edit(|doc| {
                        comity::Transactable::put(doc, comity::ROOT, "half", 1)?;
                        Ok(())
                    })?;
                    // Unwinds without the message that a panic prints.
                    std::panic::resume_unwind(Box::new("a bug in the application"))
                });
                bad.await.map(|receipt: comity::Receipt| drop(receipt))
            })
        })
        .collect();
    let mut done = 0;
    for writer in writers {
        done += u64::from(within("the writer", writer).await.unwrap().is_ok());
    }
    assert_eq!((done, whole(&region)), (100, 100));
    assert!(region.space.view().unwrap().document_heads("notes", "today").unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_dropped_outside_of_any_runtime_ends() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().to_owned();
    let runtime_thread = std::thread::spawn(move || {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let replica = runtime.block_on(async {
            let replica = regions::open(&path).await;
            replica.create_space("test").await.unwrap();
            replica
        });
        // The runtime goes first, as it does in a program whose main function ends.
        drop(runtime);
        drop(replica);
    });
    runtime_thread.join().unwrap();
    let replica = regions::patient_open(directory.path(), comity::OpenOptions::default()).await;
    assert_eq!(replica.spaces().await.unwrap().len(), 1);
    tokio::time::timeout(Duration::from_secs(30), replica.shutdown()).await.unwrap();
}
