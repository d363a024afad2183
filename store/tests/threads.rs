//! Commits, syncs and reads on their own threads never disagree.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use comity_crdts::{OriginId, SpaceId};
use comity_engine::{Batch, LaneRecord, Position, StateRead, Store, StoreError};
use comity_store::{EmbeddedStore, Opened, Reader, Snapshot, StoreOptions, Syncer};

const SPACE: SpaceId = SpaceId([1; 16]);
const LANE: OriginId = OriginId([2; 16]);
const BATCHES: u64 = 6_000;

fn numbered(number: u64) -> Vec<u8> {
    number.to_be_bytes().to_vec()
}

fn row(number: u64) -> Vec<u8> {
    format!("row/{number:08}").into_bytes()
}

fn batch(number: u64) -> Batch {
    Batch {
        entries: vec![LaneRecord { space: SPACE, lane: LANE, lsn: number, bytes: numbered(number) }],
        dropped: Vec::new(),
        facts: vec![(b"left".to_vec(), Some(numbered(number))), (row(number), Some(numbered(number)))],
        state: vec![(b"right".to_vec(), Some(numbered(number))), (row(number.saturating_sub(20)), None)],
    }
}

fn check_rows(store: &impl StateRead, newest: u64) {
    let rows = store.scan(b"row/", b"row0", usize::MAX).unwrap();
    let numbers: Vec<_> = (newest.saturating_sub(19).max(1)..=newest).map(row).collect();
    assert_eq!(rows.into_iter().map(|(key, _)| key).collect::<Vec<_>>(), numbers);
}

/// Reads its own writes exactly, whatever the syncing thread is doing.
fn commit_all(store: &mut EmbeddedStore) {
    for number in 1..=BATCHES {
        assert_eq!(store.commit(batch(number)), Ok(Position(number)));
        assert_eq!(store.get(b"left"), Ok(Some(numbered(number))));
        check_rows(store, number);
        let from = number.saturating_sub(30).max(1);
        let lane = store.lane_entries(&SPACE, &LANE, from, usize::MAX).unwrap();
        assert!(lane.into_iter().eq((from..=number).map(|lsn| (lsn, numbered(lsn)))));
    }
}

/// Set when dropped, so that a failed thread ends the others instead of leaving them to wait.
struct Ending<'a>(&'a AtomicBool);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

fn sync_until(syncer: &mut Syncer, committed: &AtomicBool, synced: &AtomicU64) {
    loop {
        let last = committed.load(Ordering::SeqCst);
        let position = syncer.sync().unwrap();
        assert!(position.0 >= synced.swap(position.0, Ordering::SeqCst));
        if last {
            return;
        }
    }
}

/// Every snapshot is one whole group, at least as new as what was reported synced before. Returns the
/// number of the newest batch seen.
fn read_until(reader: &Reader, finished: &AtomicBool, synced: &AtomicU64) -> u64 {
    let mut newest = 0;
    loop {
        let last = finished.load(Ordering::SeqCst);
        let reported = synced.load(Ordering::SeqCst);
        let snapshot = reader.snapshot().unwrap();
        let left = snapshot.get(b"left").unwrap();
        assert_eq!(left, snapshot.get(b"right").unwrap());
        let number = left.map_or(0, |value| u64::from_be_bytes(value.try_into().unwrap()));
        assert_eq!(snapshot.position(), Position(number));
        assert!(number >= reported && number >= newest);
        check_rows(&snapshot, number);
        newest = number;
        if last {
            return newest;
        }
    }
}

#[test]
fn no_read_misses_a_row_or_sees_an_older_one_while_syncs_complete() {
    let dir = tempfile::tempdir().unwrap();
    let Opened { mut store, mut syncer, reader, .. } =
        EmbeddedStore::open(dir.path(), StoreOptions::default()).unwrap();
    let (committed, finished, synced) = (AtomicBool::new(false), AtomicBool::new(false), AtomicU64::new(0));
    thread::scope(|scope| {
        scope.spawn(|| {
            let _ending = Ending(&finished);
            sync_until(&mut syncer, &committed, &synced);
        });
        let readers = [(); 2].map(|()| scope.spawn(|| read_until(&reader, &finished, &synced)));
        {
            let _ending = Ending(&committed);
            commit_all(&mut store);
        }
        assert_eq!(readers.map(|reader| reader.join().unwrap()), [BATCHES; 2]);
    });
    drop((store, syncer));
    let opened = EmbeddedStore::open(dir.path(), StoreOptions::default()).unwrap();
    check_rows(&opened.store, BATCHES);
    assert!(matches!(reader.snapshot(), Err(StoreError::Failed { .. })));
}

#[test]
fn the_handles_can_go_to_their_threads() {
    fn sent<T: Send>() {}
    fn shared<T: Send + Sync>() {}
    sent::<EmbeddedStore>();
    sent::<Syncer>();
    shared::<Reader>();
    shared::<Snapshot>();
}

#[test]
fn an_overlay_at_its_bound_refuses_until_a_sync_and_takes_one_large_batch_alone() {
    let dir = tempfile::tempdir().unwrap();
    let options = StoreOptions { overlay_bytes_max: 1024, ..StoreOptions::default() };
    let mut opened = EmbeddedStore::open(dir.path(), options).unwrap();
    let large = |key: &str| Batch { state: vec![(key.into(), Some(vec![0; 4096]))], ..Batch::default() };
    assert_eq!(opened.store.commit(large("a")), Ok(Position(1)));
    assert!(opened.store.commit(large("b")).is_err());
    assert_eq!(opened.store.get(b"b"), Ok(None));
    assert_eq!(opened.syncer.sync(), Ok(Position(1)));
    assert_eq!(opened.store.commit(large("b")), Ok(Position(2)));
}

#[test]
fn an_empty_batch_takes_a_position_and_its_sync_needs_no_disk() {
    let dir = tempfile::tempdir().unwrap();
    let mut opened = EmbeddedStore::open(dir.path(), StoreOptions::default()).unwrap();
    assert_eq!(opened.syncer.sync(), Ok(Position(0)));
    assert_eq!(opened.store.commit(Batch::default()), Ok(Position(1)));
    assert_eq!(opened.syncer.sync(), Ok(Position(1)));
}

#[test]
fn a_snapshot_expires() {
    let dir = tempfile::tempdir().unwrap();
    let options = StoreOptions { view_age_max: Duration::ZERO, ..StoreOptions::default() };
    let mut opened = EmbeddedStore::open(dir.path(), options).unwrap();
    let snapshot = opened.reader.snapshot().unwrap();
    assert_eq!(snapshot.get(b"a"), Err(StoreError::ViewExpired));
    opened.store.commit(batch(1)).unwrap();
    opened.syncer.sync().unwrap();
    assert_eq!(snapshot.scan(b"a", b"z", 9), Err(StoreError::ViewExpired));
    assert_eq!(opened.store.get(b"left"), Ok(Some(numbered(1))));
}

/// Overwrites one large value again and again, and returns how long the file became.
fn file_length_after_overwrites(view_age_max: Duration) -> u64 {
    let dir = tempfile::tempdir().unwrap();
    let options = StoreOptions { view_age_max, ..StoreOptions::default() };
    let mut opened = EmbeddedStore::open(dir.path(), options).unwrap();
    let mut held = Vec::new();
    for number in 0..40u8 {
        let value = vec![number; 1024 * 1024];
        let batch = Batch { state: vec![(b"large".to_vec(), Some(value))], ..Batch::default() };
        opened.store.commit(batch).unwrap();
        opened.syncer.sync().unwrap();
        held.push(opened.reader.snapshot().unwrap());
    }
    dir.path().join("comity.redb").metadata().unwrap().len()
}

#[test]
fn pages_that_only_expired_snapshots_hold_are_used_again() {
    let expired = file_length_after_overwrites(Duration::ZERO);
    let held = file_length_after_overwrites(Duration::from_secs(3600));
    assert!(expired * 2 < held, "{expired} bytes with expired snapshots, {held} with live ones");
}
