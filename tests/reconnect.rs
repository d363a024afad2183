//! A reconnect sends only what is missing: frames and bytes are counted.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod regions;

use comity::{ConnectionStats, Durability, Receipt};

use regions::{PATIENCE, Region, eventually, pair, same_state};

/// Bytes of `Hello` and `Open` in one direction, with two lanes of some hundred entries: 9, then 20 and at most
/// 28 for each lane.
const OPENING_BYTES_MAX: u64 = 9 + 3 + 1 + 20 + 2 * 28;
/// Bytes around the entries of one run: the frame's header, the counter's name, the signature, and the
/// acknowledgement.
const RUN_BYTES_OVERHEAD: u64 = 115;
/// Frames of a greeting and an opening, both ways: `Hello`, `Shared`, `Heard` and `Open` each.
const OPENING_FRAMES: u64 = 2 * 4;
/// Frames of a run that is acknowledged.
const RUN_FRAMES: u64 = 2;
/// Bytes that one increment of a counter adds to a run. What it varies by is the stamp's distance from the one
/// before.
const INCREMENT_BYTES_MAX: u64 = 14;

/// What went over the present connection of two regions, seen from the first.
async fn traffic(here: &Region, there: &Region) -> Option<ConnectionStats> {
    let traffic = here.replica.traffic().await.unwrap();
    traffic.into_iter().find(|(peer, _)| *peer == there.id()).map(|(_, stats)| stats)
}

/// Frames and bytes of all classes, both ways.
fn sums(stats: &ConnectionStats) -> (u64, u64) {
    let classes = [stats.control, stats.live, stats.catch_up];
    let frames = classes.iter().map(|class| class.frames_sent + class.frames_received).sum();
    let bytes = classes.iter().map(|class| class.bytes_sent + class.bytes_received).sum();
    (frames, bytes)
}

/// Cuts the connection, lets `meanwhile` happen in both regions, and connects again.
async fn reconnect(here: &Region, there: &Region, meanwhile: impl AsyncFnOnce()) {
    there.replica.go_offline().await.unwrap();
    eventually("the connection is gone", async || here.replica.connected().is_empty()).await;
    meanwhile().await;
    there.replica.go_online();
    here.wait_connected(there).await;
    there.wait_connected(here).await;
}

/// Waits until both regions know of each other that nothing is missing, and counts what that took: at least
/// `frames`, because the last answer may not have left when nothing is missing any more. Frames are counted when
/// they leave and when they arrive; when both counts agree, nothing is on its way.
async fn settled(here: &Region, there: &Region, frames: u64) -> ConnectionStats {
    eventually("nothing is on its way", async || {
        let lacks = [here.status().await.peers, there.status().await.peers];
        if lacks.iter().any(|peers| peers.len() != 1 || !peers[0].behind.is_none()) {
            return false;
        }
        let (Some(ours), Some(theirs)) = (traffic(here, there).await, traffic(there, here).await) else {
            return false;
        };
        if sums(&ours).0 < frames {
            return false;
        }
        let pairs =
            [(ours.control, theirs.control), (ours.live, theirs.live), (ours.catch_up, theirs.catch_up)];
        pairs.iter().all(|(ours, theirs)| {
            (ours.frames_sent, ours.frames_received) == (theirs.frames_received, theirs.frames_sent)
        })
    })
    .await;
    traffic(here, there).await.unwrap()
}

/// A write that the other region acknowledges: everything sent before it has arrived by then, and whatever was
/// to be answered at once has been.
async fn fence(region: &Region) -> Receipt {
    let write = region.space.counter("test", "counter").add(1);
    let receipt = write.durability(Durability::Remote(1)).within(PATIENCE).await.unwrap();
    assert!(receipt.reached());
    receipt
}

/// Two regions that have both written, so that each has a lane.
async fn two_writers() -> (Region, Region) {
    let (here, there) = pair().await;
    fence(&here).await;
    fence(&there).await;
    settled(&here, &there, OPENING_FRAMES + 2 * RUN_FRAMES).await;
    (here, there)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reconnect_with_nothing_new_is_a_greeting_and_an_opening_each_way() {
    let (here, there) = two_writers().await;
    for round in 0..5 {
        reconnect(&here, &there, async || {}).await;
        let stats = settled(&here, &there, OPENING_FRAMES).await;
        let (frames, bytes) = sums(&stats);
        let (udp_sent, udp_received) = (stats.udp_bytes_sent, stats.udp_bytes_received);
        println!("round {round}: {frames} frames, {bytes} bytes; UDP {udp_sent} + {udp_received} bytes");
        assert_eq!(frames, OPENING_FRAMES, "{stats:?}");
        assert!(bytes <= 2 * OPENING_BYTES_MAX, "{bytes} bytes");
        assert_eq!(stats.live, comity::ClassStats::default());
        assert_eq!(stats.catch_up, comity::ClassStats::default());
        // Each region writes once and is acknowledged once; nothing else was still to come.
        fence(&here).await;
        fence(&there).await;
        let after = settled(&here, &there, OPENING_FRAMES + 2 * RUN_FRAMES).await;
        assert_eq!(sums(&after).0, OPENING_FRAMES + 2 * RUN_FRAMES, "a run for each write: {after:?}");
    }
    same_state(&[&here, &there]).await;
}

async fn missing_change_sets_are_sent_once(count: u64) {
    let (here, there) = two_writers().await;
    let before = here.count();
    reconnect(&here, &there, async || {
        for _ in 0..count {
            here.add_one().await.unwrap();
        }
    })
    .await;
    there.space.at_within(&here.space.token().await.unwrap(), PATIENCE).await.unwrap();
    let stats = settled(&here, &there, OPENING_FRAMES + RUN_FRAMES).await;
    let (frames, bytes) = sums(&stats);
    let payload = bytes - stats.control.bytes_sent - stats.control.bytes_received;
    let (udp_sent, udp_received) = (stats.udp_bytes_sent, stats.udp_bytes_received);
    println!(
        "{count} missing: {frames} frames, {bytes} bytes, {payload} of them runs; UDP {udp_sent} + {udp_received}"
    );
    let runs = stats.live.frames_sent + stats.catch_up.frames_sent;
    assert_eq!(runs, 1, "one run brings all: {stats:?}");
    assert_eq!(stats.live.frames_received + stats.catch_up.frames_received, 0, "nothing comes back");
    assert_eq!(frames, OPENING_FRAMES + RUN_FRAMES, "{stats:?}");
    let expected = 2 * OPENING_BYTES_MAX + RUN_BYTES_OVERHEAD + count * INCREMENT_BYTES_MAX;
    assert!(bytes <= expected, "{bytes} bytes, {expected} expected at most");
    assert_eq!(there.count(), before + i128::from(count), "each change set arrived once");
    same_state(&[&here, &there]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_missing_change_set_costs_one_run() {
    missing_change_sets_are_sent_once(1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_missing_change_sets_cost_one_run() {
    missing_change_sets_are_sent_once(100).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_both_regions_missed_crosses_once_each_way() {
    let (here, there) = two_writers().await;
    let before = here.count();
    reconnect(&here, &there, async || {
        for _ in 0..50 {
            here.add_one().await.unwrap();
            there.add_one().await.unwrap();
        }
    })
    .await;
    there.space.at_within(&here.space.token().await.unwrap(), PATIENCE).await.unwrap();
    here.space.at_within(&there.space.token().await.unwrap(), PATIENCE).await.unwrap();
    let stats = settled(&here, &there, OPENING_FRAMES + 2 * RUN_FRAMES).await;
    let (frames, bytes) = sums(&stats);
    println!("50 missing each way: {frames} frames, {bytes} bytes");
    assert_eq!(stats.live.frames_sent + stats.catch_up.frames_sent, 1, "{stats:?}");
    assert_eq!(stats.live.frames_received + stats.catch_up.frames_received, 1, "{stats:?}");
    let expected = 2 * (OPENING_BYTES_MAX + RUN_BYTES_OVERHEAD + 50 * INCREMENT_BYTES_MAX);
    assert!(bytes <= expected, "{bytes} bytes, {expected} expected at most");
    assert_eq!(here.count(), before + 100);
    same_state(&[&here, &there]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restarted_replica_is_sent_only_what_it_lacks() {
    let (here, there) = two_writers().await;
    here.replica.connect(&there.ticket()).await.unwrap();
    for _ in 0..200 {
        here.add_one().await.unwrap();
    }
    there.space.at_within(&here.space.token().await.unwrap(), PATIENCE).await.unwrap();
    there.replica.clone().shutdown().await;
    eventually("the connection is gone", async || here.replica.connected().is_empty()).await;
    here.add_one().await.unwrap();
    let there = there.reopen().await;
    there.space.at_within(&here.space.token().await.unwrap(), PATIENCE).await.unwrap();
    let stats = settled(&here, &there, OPENING_FRAMES + RUN_FRAMES).await;
    let (frames, bytes) = sums(&stats);
    println!("1 missing after a restart: {frames} frames, {bytes} bytes");
    assert_eq!(frames, OPENING_FRAMES + RUN_FRAMES, "{stats:?}");
    assert!(bytes <= 2 * OPENING_BYTES_MAX + RUN_BYTES_OVERHEAD + INCREMENT_BYTES_MAX, "{bytes} bytes");
    same_state(&[&here, &there]).await;
}
