//! Batches whose effect can be computed, and what a store must hold after any number of them.

use std::collections::BTreeMap;

use comity_crdts::{OriginId, SpaceId};
use comity_engine::{Batch, LaneRecord, LaneSpan, LogRead, StateRead, Store};

use super::{Disk, open_with};
use crate::embedded::{EmbeddedStore, Opened, StoreOptions};
use crate::error::OpenError;

pub(super) const SPACE: SpaceId = SpaceId([1; 16]);
pub(super) const LANE: OriginId = OriginId([2; 16]);
const OTHER_LANE: OriginId = OriginId([3; 16]);
/// Every third batch has an entry in the other lane too.
const OTHER_EVERY: u64 = 3;
/// Each batch drops the entry of the first lane that is so many numbers older.
const KEPT: u64 = 8;

/// Small files and frequent checkpoints, so that a short life has many of both.
pub(super) fn options() -> StoreOptions {
    StoreOptions {
        log_file_bytes: 6 * 1024,
        checkpoint_bytes_max: 15_000,
        cache_bytes: 1024 * 1024,
        compact_step_rows: 4,
        ..StoreOptions::default()
    }
}

/// With a cache so small that the database writes within its transactions.
pub(super) fn tight() -> StoreOptions {
    StoreOptions { cache_bytes: 16 * 1024, ..options() }
}

pub(super) fn create(disk: &Disk) {
    super::create(disk).unwrap();
}

/// Opens a disk that says nothing of its space.
pub(super) fn open(disk: &Disk) -> Result<Opened, OpenError> {
    open_as(disk, &options())
}

/// As [`open`].
pub(super) fn open_as(disk: &Disk, options: &StoreOptions) -> Result<Opened, OpenError> {
    open_with(disk, options, Box::new(|| None))
}

/// A small deterministic generator (SplitMix64).
pub(super) fn random(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Mostly short, now and then longer than a file of the log.
fn entry(number: u64) -> Vec<u8> {
    let length = match random(&mut number.clone()) % 16 {
        0 => 7_000,
        1 | 2 => 1_500,
        other => other * 40,
    };
    (0..length).map(|at| (number * 31 + at) as u8).collect()
}

fn row(number: u64) -> Vec<u8> {
    format!("row/{number:04}").into_bytes()
}

/// One batch: it moves two keys together, adds a row, takes one away, and appends entries.
pub(super) fn batch(number: u64) -> Batch {
    let value = number.to_be_bytes().to_vec();
    let record = |lane, lsn, bytes| LaneRecord { space: SPACE, lane, lsn, bytes };
    let mut entries = vec![record(LANE, number, entry(number))];
    if number.is_multiple_of(OTHER_EVERY) {
        entries.push(record(OTHER_LANE, number / OTHER_EVERY, value.clone()));
    }
    let first = number.saturating_sub(KEPT);
    Batch {
        entries,
        dropped: vec![LaneSpan { space: SPACE, lane: LANE, first, count: u64::from(first > 0) }],
        facts: vec![(b"left".to_vec(), Some(value.clone())), (row(number), Some(vec![number as u8; 90]))],
        state: vec![(b"right".to_vec(), Some(value)), (row(number.saturating_sub(5)), None)],
    }
}

/// How many batches the store holds, having checked that it holds them whole and nothing else.
pub(super) fn held(store: &EmbeddedStore) -> Result<u64, String> {
    let failed = |error| format!("a read failed: {error}");
    let rows = store.scan(&[], &[0xff], usize::MAX).map_err(failed)?;
    let rows: BTreeMap<_, _> = rows.into_iter().collect();
    let number = |value: &Vec<u8>| value.as_slice().try_into().ok().map(u64::from_be_bytes);
    let held = rows.get(b"left".as_slice()).map_or(Some(0), number).ok_or("a damaged number")?;
    let mut expected = BTreeMap::new();
    if held > 0 {
        expected.insert(b"left".to_vec(), held.to_be_bytes().to_vec());
        expected.insert(b"right".to_vec(), held.to_be_bytes().to_vec());
    }
    let live = held.saturating_sub(4).max(1)..=held;
    expected.extend(live.map(|number| (row(number), vec![number as u8; 90])));
    if rows != expected {
        return Err(format!("the state is not that after {held} batches"));
    }
    let first = held.saturating_sub(KEPT) + 1;
    let lane = store.lane_entries(&SPACE, &LANE, first, usize::MAX).map_err(failed)?;
    let dropped = store.lane_entry(&SPACE, &LANE, first - 1).map_err(failed)?;
    if dropped.is_some() || !lane.into_iter().eq((first..=held).map(|lsn| (lsn, entry(lsn)))) {
        return Err(format!("the lane is not that after {held} batches"));
    }
    let other = store.lane_entries(&SPACE, &OTHER_LANE, 1, usize::MAX).map_err(failed)?;
    let expected = (1..=held / OTHER_EVERY).map(|lsn| (lsn, (lsn * OTHER_EVERY).to_be_bytes().to_vec()));
    if !other.into_iter().eq(expected) {
        return Err(format!("the other lane is not that after {held} batches"));
    }
    Ok(held)
}
