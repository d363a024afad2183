//! The work, done by Comity: every entry is a register.

use std::time::Instant;

use comity::{Replica, Value};

use super::{APART, LOCAL, Outcome, key, value};
use crate::Failure;
use crate::figures::Times;
use crate::pair::{Author, Pair};

const COLLECTION: &str = "d";

pub(super) async fn run(entries: u64, live: u64) -> Result<Outcome, Failure> {
    let author = Author::open().await?;
    let local = insert(&author.replica).await?;
    author.fill(entries, |tx, number| tx.register(COLLECTION, &key(number)).write(bytes(number))).await?;
    let (pair, initial) = author.follow().await?;
    let traffic = pair.traffic().await?;
    let initial_bytes = (traffic.udp_bytes_sent + traffic.udp_bytes_received) as f64;
    let last = entries.saturating_sub(1);
    if pair.followed.register(COLLECTION, &key(last)).value()? != Some(bytes(last)) {
        return Err("the follower does not show the entries".into());
    }
    let times = seen(&pair, entries..entries + live).await?;
    pair.close().await;
    let (live_p50, live_p99) = (times.percentile_us(50), times.percentile_us(99));
    Ok(Outcome { initial, initial_bytes, live_p50, live_p99, local })
}

fn bytes(number: u64) -> Value {
    Value::Bytes(value(number).to_vec())
}

/// Insertions a second into a space that nobody else takes part in.
async fn insert(replica: &Replica) -> Result<f64, Failure> {
    let space = replica.create_space("local").await?;
    let (begun, mut inserted) = (Instant::now(), 0);
    while begun.elapsed() < LOCAL {
        space.register(COLLECTION, &key(inserted)).write(bytes(inserted)).await?;
        inserted += 1;
    }
    Ok(inserted as f64 / begun.elapsed().as_secs_f64())
}

/// Writes one entry after the other and waits for each at the follower.
async fn seen(pair: &Pair, numbers: std::ops::Range<u64>) -> Result<Times, Failure> {
    let mut watch = pair.followed.watch().collection(COLLECTION)?;
    let mut times = Times::default();
    for number in numbers {
        tokio::time::sleep(APART).await;
        let register = pair.author.space.register(COLLECTION, &key(number));
        let begun = Instant::now();
        let write = register.write(bytes(number)).submit().await?;
        watch.next().await?;
        times.push(begun.elapsed());
        write.receipt().await?;
    }
    Ok(times)
}
