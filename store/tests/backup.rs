//! A backup is the store as it was at one moment, whatever is written meanwhile.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::path::Path;

use comity_crdts::{OriginId, SpaceId};
use comity_engine::{Batch, LaneRecord, LogRead, StateRead, Store};
use comity_store::{BackupError, EmbeddedStore, StoreOptions, restore};

const SPACE: SpaceId = SpaceId([1; 16]);
const LANE: OriginId = OriginId([2; 16]);

/// An entry, and a row that says the same.
fn batch(number: u64) -> Batch {
    let record = LaneRecord { space: SPACE, lane: LANE, lsn: number, bytes: number.to_be_bytes().to_vec() };
    let state = vec![
        (number.to_be_bytes().to_vec(), Some(vec![7; 100])),
        (b"last".to_vec(), Some(number.to_be_bytes().to_vec())),
    ];
    Batch { entries: vec![record], state, ..Batch::default() }
}

/// The last number in a store, once everything up to it was found and nothing beyond.
fn whole(dir: &Path) -> u64 {
    let opened = EmbeddedStore::open(dir, StoreOptions::default()).unwrap();
    assert!(opened.damage.is_none());
    let last = opened.store.get(b"last").unwrap().unwrap();
    let last = u64::from_be_bytes(last.try_into().unwrap());
    for number in 1..=last + 1 {
        let is_there = number <= last;
        assert_eq!(
            opened.store.get(&number.to_be_bytes()).unwrap().is_some(),
            is_there,
            "{number} of {last}"
        );
        assert_eq!(opened.store.lane_entry(&SPACE, &LANE, number).unwrap().is_some(), is_there, "{number}");
    }
    last
}

#[test]
fn a_backup_holds_one_moment_although_groups_go_on_being_written() {
    let directory = tempfile::tempdir().unwrap();
    let (data, backup, again) =
        (directory.path().join("a"), directory.path().join("b"), directory.path().join("c"));
    let mut opened = EmbeddedStore::open(&data, StoreOptions::default()).unwrap();
    let token = opened.instance;
    for number in 1..=10_000 {
        opened.store.commit(batch(number)).unwrap();
    }
    opened.syncer.sync().unwrap();
    let mut number = 10_000;
    let (store, syncer) = (&mut opened.store, &mut opened.syncer);
    // A group between any two portions of the copy.
    let report = opened.reader.back_up(&backup, |progress| {
        assert!(progress.rows <= progress.rows_all);
        number += 1;
        store.commit(batch(number)).unwrap();
        syncer.sync().unwrap();
    });
    let report = report.unwrap();
    assert!(number > 10_003, "the copy has several portions: {number}");
    assert_eq!(report.rows, 20_001);
    let refused = opened.reader.back_up(&backup, |_| {});
    assert!(matches!(refused, Err(BackupError::NotEmpty { .. })), "{refused:?}");
    drop(opened);
    assert_eq!(whole(&data), number);
    let mut copied = 0;
    restore(&backup, &again, |done, all| {
        assert_eq!(all, report.file_bytes);
        copied = done;
    })
    .unwrap();
    assert_eq!(copied, report.file_bytes);
    assert_eq!(whole(&again), 10_000);
    assert_ne!(
        EmbeddedStore::open(&again, StoreOptions::default()).unwrap().instance,
        token,
        "it is another directory"
    );
    assert!(restore(&backup, &again, |_, _| {}).is_err(), "what is there is not overwritten");
}
