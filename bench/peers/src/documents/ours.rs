//! The work, done by Comity.

use std::time::{Duration, Instant};

use automerge::ROOT;
use automerge::transaction::Transactable as _;

use super::{Outcome, fill};
use crate::Failure;
use crate::pair::{Author, Pair, WITHIN};

pub(super) async fn run(documents: u64, changes: u64) -> Result<Outcome, Failure> {
    let author = Author::open().await?;
    let make = author.fill(documents, |tx, number| {
        tx.document("d", &number.to_string()).edit(|document| Ok(fill(document, number)?))
    });
    make.await?;
    let (pair, initial) = author.follow().await?;
    let initial_bytes = bytes(&pair).await?;
    let (author, follower) = (&pair.author.replica, &pair.follower);
    follower.go_offline().await?;
    while author.connected().contains(&follower.id()) {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let begun = Instant::now();
    follower.go_online();
    follower.wait_connected(author.id(), WITHIN).await?;
    pair.agree().await?;
    let reconnect = begun.elapsed().as_secs_f64();
    // What is still on its way is of the reconnect too.
    tokio::time::sleep(Duration::from_millis(300)).await;
    let reconnect_bytes = bytes(&pair).await?;
    let burst = burst(&pair, changes).await?;
    pair.close().await;
    Ok(Outcome { initial, initial_bytes, reconnect, reconnect_bytes, burst })
}

/// Bytes of frames in both directions of the present connection.
async fn bytes(pair: &Pair) -> Result<f64, Failure> {
    let stats = pair.traffic().await?;
    let classes = [stats.control, stats.live, stats.catch_up];
    Ok(classes.iter().map(|class| (class.bytes_sent + class.bytes_received) as f64).sum())
}

async fn burst(pair: &Pair, changes: u64) -> Result<f64, Failure> {
    let begun = Instant::now();
    let mut waiting = Vec::new();
    for number in 0..changes {
        let edit = pair
            .author
            .space
            .document("d", "0")
            .edit(move |document| Ok(document.put(ROOT, "n", 1_000_000 + number as i64)?));
        waiting.push(edit.submit().await?);
    }
    for write in waiting {
        write.receipt().await?;
    }
    pair.agree().await?;
    let shown = pair.followed.document("d", "0").read()?;
    if shown.change_count() as u64 != changes + 1 {
        return Err("the follower does not show the burst".into());
    }
    Ok(begun.elapsed().as_secs_f64())
}
