//! Replicas that take over a state over QUIC, each with threads of its own: how long a new one waits.

use std::collections::VecDeque;
use std::path::Path;
use std::time::{Duration, Instant};

use comity::{BootstrapPhase, OpenOptions, Replica, Retention, Space, SpaceStatus};

use super::{OBJECTS_AT_ONCE, text};
use crate::Failure;
use crate::figures::Samples;
use crate::quic::Quic;

/// Transactions under way at once.
const AT_ONCE: usize = 8;
const WITHIN: Duration = Duration::from_secs(600);
/// How often it is looked how far the new replica is.
const LOOK: Duration = Duration::from_millis(20);

/// What was measured, MB of rows a second.
#[derive(Default)]
pub(super) struct Taken {
    /// Rows of the state, bytes.
    pub(super) bytes: u64,
    /// A bare QUIC stream with as many bytes.
    pub(super) stream: Samples,
    /// Until all of it was received, durable and checked.
    pub(super) received: Samples,
    /// Until the new replica shows it.
    pub(super) shown: Samples,
}

/// Has new replicas take over a state of so many registers of so many bytes, one after the other.
pub(super) async fn take_over(count: u64, bytes: usize, repeats: usize) -> Result<Taken, Failure> {
    let directory = tempfile::tempdir()?;
    let announce_after = Duration::from_millis(200);
    let retention = Retention { age: Duration::ZERO, bytes_max: u64::MAX, announce_after };
    let options = OpenOptions::default().retention(retention);
    let author = Replica::open_with(directory.path().join("author"), options).await?;
    author.listen("127.0.0.1:0".parse()?).await?;
    let space = author.create_space("bench").await?;
    write(&space, count, bytes).await?;
    let begun = Instant::now();
    while of(&author, &space).await?.log_bytes > 1024 * 1024 {
        if begun.elapsed() > WITHIN {
            return Err("the log is not let go of".into());
        }
        tokio::time::sleep(LOOK).await;
    }
    let quic = Quic::connect().await?;
    let mut taken = Taken::default();
    for number in 0..repeats {
        let path = directory.path().join(format!("new-{number}"));
        let (received, shown, rows) = one(&author, &space, &path).await?;
        std::fs::remove_dir_all(&path)?;
        let rate = |time: Duration| rows as f64 / 1e6 / time.as_secs_f64();
        taken.bytes = rows;
        taken.received.push(rate(received));
        taken.shown.push(rate(shown));
        taken.stream.push(rate(quic.transfer(rows).await?));
    }
    author.shutdown().await;
    Ok(taken)
}

async fn write(space: &Space, count: u64, bytes: usize) -> Result<(), Failure> {
    let mut waiting = VecDeque::new();
    for first in (0..count).step_by(OBJECTS_AT_ONCE as usize) {
        let numbers = first..(first + OBJECTS_AT_ONCE).min(count);
        let write = space.transact(move |tx| {
            for number in numbers {
                tx.register("measured", &format!("object-{number:08}")).write(text(number, bytes))?;
            }
            Ok(())
        });
        waiting.push_back(write.submit().await?);
        if waiting.len() >= AT_ONCE
            && let Some(oldest) = waiting.pop_front()
        {
            oldest.receipt().await?;
        }
    }
    for pending in waiting {
        pending.receipt().await?;
    }
    Ok(())
}

/// How long one took to receive the state and to show it, and the bytes of its rows.
async fn one(author: &Replica, space: &Space, path: &Path) -> Result<(Duration, Duration, u64), Failure> {
    let new = Replica::open(path).await?;
    let (ticket, token) = (space.invite().await?, space.token().await?);
    let begun = Instant::now();
    let taken = new.connect(&ticket).await?;
    let (mut received, mut rows) = (None, 0);
    let shown = taken.at_within(&token, WITHIN);
    tokio::pin!(shown);
    loop {
        if let Ok(shown) = tokio::time::timeout(LOOK, &mut shown).await {
            shown?;
            break;
        }
        let Some(bootstrap) = of(&new, &taken).await?.bootstrap else { continue };
        rows = bootstrap.bytes_total.max(rows);
        if bootstrap.phase == BootstrapPhase::Installing {
            received.get_or_insert(begun.elapsed());
        }
    }
    let shown = begun.elapsed();
    // What either has written since goes on its way.
    while of(&new, &taken).await?.digest != of(author, space).await?.digest {
        if begun.elapsed() > WITHIN {
            return Err("the new replica holds another state".into());
        }
        tokio::time::sleep(LOOK).await;
    }
    new.shutdown().await;
    Ok((received.ok_or("the state was not taken over")?, shown, rows))
}

async fn of(replica: &Replica, space: &Space) -> Result<SpaceStatus, Failure> {
    let status = replica.status().await?;
    let found = status.spaces.into_iter().find(|status| status.space == space.id());
    found.ok_or_else(|| "the space is gone".into())
}
