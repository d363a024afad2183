//! The work, done by Comity.

use std::time::{Duration, Instant};

use automerge::ROOT;
use automerge::transaction::Transactable as _;
use comity::{Replica, Space};

use crate::{Failure, Outcome, fill};

/// Documents made in one transaction.
const AT_ONCE: u64 = 100;
const WITHIN: Duration = Duration::from_secs(600);

pub(crate) async fn run(documents: u64, changes: u64) -> Result<Outcome, Failure> {
    let directory = tempfile::tempdir()?;
    let author = Replica::open(directory.path().join("author")).await?;
    author.listen("127.0.0.1:0".parse()?).await?;
    let space = author.create_space("bench").await?;
    for first in (0..documents).step_by(AT_ONCE as usize) {
        let numbers = first..(first + AT_ONCE).min(documents);
        let write = space.transact(move |tx| {
            for number in numbers {
                tx.document("d", &number.to_string()).edit(|document| Ok(fill(document, number)?))?;
            }
            Ok(())
        });
        write.await?;
    }
    let follower = Replica::open(directory.path().join("follower")).await?;
    let ticket = space.invite().await?;
    let begun = Instant::now();
    let followed = follower.connect(&ticket).await?;
    agree(&space, &followed).await?;
    let initial = begun.elapsed().as_secs_f64();
    let initial_bytes = bytes(&author).await?;
    follower.go_offline().await?;
    while author.connected().contains(&follower.id()) {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let begun = Instant::now();
    follower.go_online();
    follower.wait_connected(author.id(), WITHIN).await?;
    agree(&space, &followed).await?;
    let reconnect = begun.elapsed().as_secs_f64();
    // What is still on its way is of the reconnect too.
    tokio::time::sleep(Duration::from_millis(300)).await;
    let reconnect_bytes = bytes(&author).await?;
    let burst = burst(&space, &followed, changes).await?;
    author.shutdown().await;
    follower.shutdown().await;
    Ok(Outcome { initial, initial_bytes, reconnect, reconnect_bytes, burst })
}

async fn agree(space: &Space, followed: &Space) -> Result<(), Failure> {
    followed.at_within(&space.token().await?, WITHIN).await?;
    Ok(())
}

/// Bytes of frames in both directions of the present connection.
async fn bytes(author: &Replica) -> Result<f64, Failure> {
    let traffic = author.traffic().await?;
    let (_, stats) = traffic.first().ok_or("the replicas are not connected")?;
    let classes = [stats.control, stats.live, stats.catch_up];
    Ok(classes.iter().map(|class| (class.bytes_sent + class.bytes_received) as f64).sum())
}

async fn burst(space: &Space, followed: &Space, changes: u64) -> Result<f64, Failure> {
    let begun = Instant::now();
    let mut waiting = Vec::new();
    for number in 0..changes {
        let edit = space
            .document("d", "0")
            .edit(move |document| Ok(document.put(ROOT, "n", 1_000_000 + number as i64)?));
        waiting.push(edit.submit().await?);
    }
    for write in waiting {
        write.receipt().await?;
    }
    agree(space, followed).await?;
    let shown = followed.document("d", "0").read()?;
    if shown.change_count() as u64 != changes + 1 {
        return Err("the follower does not show the burst".into());
    }
    Ok(begun.elapsed().as_secs_f64())
}
