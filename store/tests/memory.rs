//! What the store in memory offers beyond the contract: partial syncs and injected failures.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use comity_crdts::{OriginId, SpaceId};
use comity_engine::{Batch, LaneRecord, Position, StateRead, Store, StoreError};
use comity_store::MemoryStore;

fn put(key: &str, value: &str) -> Batch {
    Batch { state: vec![(key.into(), Some(value.into()))], ..Batch::default() }
}

#[test]
fn a_sync_that_started_earlier_covers_only_what_was_committed_then() {
    let mut store = MemoryStore::new();
    let started = store.commit(put("a", "1")).unwrap();
    store.commit(put("a", "2")).unwrap();
    assert_eq!(store.sync_through(started), Position(1));
    assert_eq!(store.view().get(b"a"), Ok(Some(b"1".to_vec())));
    assert_eq!(store.sync_through(started), Position(1));
    store.crash();
    assert_eq!(store.get(b"a"), Ok(Some(b"1".to_vec())));
    assert_eq!(store.commit(put("a", "3")), Ok(Position(1)));
}

#[test]
fn a_crash_brings_back_what_was_replaced_and_deleted_and_takes_what_was_added() {
    let (space, lane) = (SpaceId([1; 16]), OriginId([2; 16]));
    let record = |lsn: u64, byte: u8| LaneRecord { space, lane, lsn, bytes: vec![byte] };
    let mut store = MemoryStore::new();
    store.commit(Batch { entries: vec![record(1, 1)], ..put("kept", "1") }).unwrap();
    store.commit(put("deleted", "1")).unwrap();
    store.sync();
    store.commit(Batch { entries: vec![record(1, 9), record(2, 2)], ..put("kept", "2") }).unwrap();
    store.commit(put("kept", "3")).unwrap();
    store.commit(put("added", "1")).unwrap();
    store.commit(Batch { state: vec![(b"deleted".to_vec(), None)], ..Batch::default() }).unwrap();
    store.crash();
    let rows = [("deleted", "1"), ("kept", "1")].map(|(key, value)| (key.into(), value.into()));
    assert_eq!(store.scan(b"", b"z", usize::MAX), Ok(rows.to_vec()));
    assert_eq!(store.lane_entries(&space, &lane, 1, usize::MAX), Ok(vec![(1, vec![1])]));
}

#[test]
fn an_injected_full_disk_changes_nothing_and_the_next_commit_passes() {
    let mut store = MemoryStore::new();
    store.fail_next_commit(StoreError::NoSpace);
    assert_eq!(store.commit(put("a", "1")), Err(StoreError::NoSpace));
    assert_eq!(store.get(b"a"), Ok(None));
    assert_eq!(store.commit(put("a", "1")), Ok(Position(1)));
}

#[test]
fn an_injected_failure_poisons_until_the_store_is_opened_again() {
    let mut store = MemoryStore::new();
    store.commit(put("a", "1")).unwrap();
    store.sync();
    store.fail_next_commit(StoreError::Failed { detail: "test".into() });
    assert!(matches!(store.commit(put("a", "2")), Err(StoreError::Failed { .. })));
    assert_eq!(store.commit(put("a", "2")), Err(StoreError::Poisoned));
    assert_eq!(store.get(b"a"), Err(StoreError::Poisoned));
    store.crash();
    assert_eq!(store.get(b"a"), Ok(Some(b"1".to_vec())));
}

#[test]
fn a_reader_follows_syncs_and_its_snapshots_stay() {
    let mut store = MemoryStore::new();
    let reader = store.reader();
    let before = reader.snapshot();
    store.commit(put("a", "1")).unwrap();
    assert_eq!(reader.snapshot().get(b"a"), Ok(None));
    store.sync();
    assert_eq!(reader.snapshot().get(b"a"), Ok(Some(b"1".to_vec())));
    assert_eq!(before.get(b"a"), Ok(None));
}
