//! Measures the embedded store: sync latency and changes per second by group size, reopening after a kill, and
//! compacting while changes are synced. `store_bench sync DIR`, `store_bench load DIR CHANGES BYTES` (ends by a
//! kill), `store_bench open DIR`, `store_bench compact DIR CHANGES BYTES`.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed measurement")]

use std::path::Path;
use std::time::{Duration, Instant};

use comity_crdts::{OriginId, SpaceId};
use comity_engine::{Batch, LaneRecord, StateRead, Store};
use comity_store::{EmbeddedStore, StoreOptions};

const VALUE_BYTES: usize = 300;
const STATE_ROWS: u64 = 10_000;
const RUN: Duration = Duration::from_millis(1500);

/// One change: an entry and a row of the state, about as large, that cannot be compressed.
fn change(number: u64, value_bytes: usize, state_rows: u64) -> Batch {
    let mut state = number;
    let mut random = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state
    };
    let key = (random() >> 16) % state_rows;
    let value: Vec<u8> = (0..value_bytes.div_ceil(8)).flat_map(|_| random().to_be_bytes()).collect();
    Batch {
        entries: vec![LaneRecord {
            space: SpaceId([1; 16]),
            lane: OriginId([2; 16]),
            lsn: number,
            bytes: value[..value_bytes].to_vec(),
        }],
        dropped: Vec::new(),
        facts: Vec::new(),
        state: vec![(key.to_be_bytes().to_vec(), Some(value[..value_bytes * 2 / 3].to_vec()))],
    }
}

fn sync(dir: &Path, group: u64) {
    let dir = dir.join(format!("group{group}"));
    let _ = std::fs::remove_dir_all(&dir);
    let mut opened = EmbeddedStore::open(&dir, StoreOptions::default()).unwrap();
    let (mut latencies, mut number) = (Vec::new(), 0);
    let start = Instant::now();
    while start.elapsed() < RUN {
        for _ in 0..group {
            number += 1;
            opened.store.commit(change(number, VALUE_BYTES, STATE_ROWS)).unwrap();
        }
        let begun = Instant::now();
        opened.syncer.sync().unwrap();
        latencies.push(begun.elapsed().as_micros());
        opened.syncer.maintain().unwrap();
    }
    let rate = number as f64 / start.elapsed().as_secs_f64();
    latencies.sort_unstable();
    let at = |part: usize| latencies[(latencies.len() * part / 1000).min(latencies.len() - 1)];
    println!(
        "group {group}: {rate:.0} changes/s, sync p50 {} us, p99 {} us, p99.9 {} us",
        at(500),
        at(990),
        at(999)
    );
    drop(opened);
    let _ = std::fs::remove_dir_all(&dir);
}

fn load(dir: &Path, changes: u64, value_bytes: usize) {
    let _ = std::fs::remove_dir_all(dir);
    let mut opened = EmbeddedStore::open(dir, StoreOptions::default()).unwrap();
    let start = Instant::now();
    for number in 1..=changes {
        opened.store.commit(change(number, value_bytes, u64::MAX)).unwrap();
        if number % 64 == 0 {
            opened.syncer.sync().unwrap();
            opened.syncer.maintain().unwrap();
        }
    }
    println!("loaded {changes} changes in {:?}", start.elapsed());
    std::process::abort();
}

/// Writes changes, and then compacts with a sync of one change after each step.
fn compact(dir: &Path, changes: u64, value_bytes: usize) {
    let _ = std::fs::remove_dir_all(dir);
    let mut opened = EmbeddedStore::open(dir, StoreOptions::default()).unwrap();
    for number in 1..=changes {
        opened.store.commit(change(number, value_bytes, u64::MAX)).unwrap();
        if number % 1024 == 0 {
            opened.syncer.sync().unwrap();
            opened.syncer.maintain().unwrap();
        }
    }
    let (mut steps, mut syncs, mut number) = (Vec::new(), Vec::new(), changes);
    let start = Instant::now();
    let report = loop {
        let begun = Instant::now();
        let report = opened.syncer.compact_step().unwrap();
        steps.push(begun.elapsed());
        number += 1;
        opened.store.commit(change(number, value_bytes, u64::MAX)).unwrap();
        let begun = Instant::now();
        opened.syncer.sync().unwrap();
        syncs.push(begun.elapsed());
        opened.syncer.maintain().unwrap();
        if let Some(report) = report {
            break report;
        }
    };
    println!("compacted in {:?} with {} syncs: {report:?}", start.elapsed(), syncs.len());
    for (name, mut times) in [("step", steps), ("sync", syncs)] {
        times.sort_unstable();
        let at = |part: usize| times[(times.len() * part / 100).min(times.len() - 1)];
        println!("{name}: p50 {:?}, p99 {:?}, longest {:?}", at(50), at(99), at(100));
    }
    drop(opened);
    let _ = std::fs::remove_dir_all(dir);
}

fn main() {
    let arguments: Vec<_> = std::env::args().collect();
    let dir = Path::new(&arguments[2]);
    match arguments[1].as_str() {
        "sync" => [1, 16, 256, 4096].into_iter().for_each(|group| sync(dir, group)),
        "compact" => compact(dir, arguments[3].parse().unwrap(), arguments[4].parse().unwrap()),
        "load" => load(dir, arguments[3].parse().unwrap(), arguments[4].parse().unwrap()),
        _ => {
            let begun = Instant::now();
            let opened = EmbeddedStore::open(dir, StoreOptions::default()).unwrap();
            let elapsed = begun.elapsed();
            let rows = opened.store.scan(&[], &[0xff; 9], 3).unwrap().len();
            println!("opened in {elapsed:?} ({rows} rows sampled)");
            std::process::abort();
        }
    }
}
