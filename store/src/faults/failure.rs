//! A disk that says no.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use comity_engine::{Position, StateRead, Store, StoreError};

use super::workload::{batch, create, held, open, options};
use super::{Disk, Image, open_with};
use crate::embedded::Opened;
use crate::syncer::Room;

fn created() -> (Disk, Opened) {
    let disk = Disk::new(Image::default());
    create(&disk);
    let opened = open(&disk).unwrap();
    (disk, opened)
}

/// Two batches for each group.
fn commit_group(opened: &mut Opened, group: u64) -> Result<Position, StoreError> {
    opened.store.commit(batch(2 * group - 1))?;
    opened.store.commit(batch(2 * group))
}

/// Runs groups until the disk refuses, and returns how many batches were acknowledged.
fn run(opened: &mut Opened, groups: u64) -> (u64, Result<(), StoreError>) {
    for group in 2..=groups {
        let result = commit_group(opened, group).and_then(|_| opened.syncer.sync());
        if let Err(error) = result {
            return (2 * group - 2, Err(error));
        }
    }
    (2 * groups, Ok(()))
}

#[test]
fn a_failure_at_any_change_poisons_every_handle_and_loses_nothing_acknowledged() {
    let mut failures = 0;
    for budget in 0.. {
        let (disk, mut opened) = created();
        commit_group(&mut opened, 1).unwrap();
        opened.syncer.sync().unwrap();
        let snapshot = opened.reader.snapshot().unwrap();
        disk.fail_after(budget, io::ErrorKind::Other);
        let (acknowledged, result) = run(&mut opened, 12);
        if result.is_ok() {
            break;
        }
        failures += 1;
        assert_eq!(opened.syncer.sync(), Err(StoreError::Poisoned));
        assert_eq!(opened.syncer.maintain(), Err(StoreError::Poisoned));
        assert_eq!(opened.store.commit(batch(99)), Err(StoreError::Poisoned));
        assert_eq!(opened.store.get(b"left"), Err(StoreError::Poisoned));
        assert_eq!(opened.store.scan(b"a", b"z", 1), Err(StoreError::Poisoned));
        assert_eq!(opened.reader.snapshot().map(drop), Err(StoreError::Poisoned));
        assert_eq!(snapshot.get(b"left"), Err(StoreError::Poisoned));
        let done = disk.changes();
        drop(opened);
        assert_eq!(disk.changes(), done);
        disk.heal();
        let reopened = open(&Disk::new(disk.image())).unwrap();
        let held = held(&reopened.store).unwrap();
        assert!(held == acknowledged || held == acknowledged + 2, "{held} of {acknowledged}");
        assert_eq!(reopened.damage, None);
    }
    assert!(failures > 20, "{failures}");
}

#[test]
fn a_failure_at_any_change_while_opening_leaves_the_store_as_it_was() {
    let (disk, mut opened) = created();
    commit_group(&mut opened, 1).unwrap();
    opened.syncer.sync().unwrap();
    // As after a crash: the group is in the log only.
    let image = disk.image();
    let mut failures = 0;
    for budget in 0.. {
        let disk = Disk::new(image.clone());
        disk.fail_after(budget, io::ErrorKind::Other);
        let result = open(&disk);
        if let Ok(opened) = result {
            assert_eq!(held(&opened.store), Ok(2));
            break;
        }
        failures += 1;
        disk.heal();
        let opened = open(&disk).unwrap();
        assert_eq!((held(&opened.store), opened.damage), (Ok(2), None));
    }
    assert!(failures > 5, "{failures}");
}

#[test]
fn a_disk_too_full_for_the_next_file_of_the_log_is_no_failure() {
    let (disk, mut opened) = created();
    disk.fill_up();
    let mut number = 0;
    loop {
        number += 1;
        opened.store.commit(batch(number)).unwrap();
        match opened.syncer.sync() {
            Ok(position) => assert_eq!(position, Position(number)),
            Err(StoreError::NoSpace) => break,
            Err(error) => panic!("{error}"),
        }
    }
    assert!(number > 2);
    assert_eq!(opened.syncer.sync(), Err(StoreError::NoSpace));
    assert_eq!(held(&opened.store), Ok(number));
    let snapshot = opened.reader.snapshot().unwrap();
    assert_eq!(snapshot.get(b"left"), Ok(Some((number - 1).to_be_bytes().to_vec())));
    number += 1;
    opened.store.commit(batch(number)).unwrap();
    disk.heal();
    assert_eq!(opened.syncer.sync(), Ok(Position(number)));
    drop(opened);
    assert_eq!(held(&open(&disk).unwrap().store), Ok(number));
}

#[test]
fn a_nearly_full_disk_is_noticed_before_anything_is_written_and_the_next_sync_tries_again() {
    let disk = Disk::new(Image::default());
    create(&disk);
    let free = Arc::new(AtomicU64::new(0));
    let probed = Arc::clone(&free);
    let room = move || Some(Room { free: probed.load(Ordering::SeqCst), used: 0 });
    let mut opened = open_with(&disk, &options(), Box::new(room)).unwrap();
    assert_eq!(opened.syncer.sync(), Ok(Position(0)));
    commit_group(&mut opened, 1).unwrap();
    let done = disk.changes();
    assert_eq!(opened.syncer.sync(), Err(StoreError::NoSpace));
    assert_eq!(disk.changes(), done);
    assert_eq!(held(&opened.store), Ok(2));
    assert_eq!(opened.reader.snapshot().unwrap().get(b"left"), Ok(None));
    commit_group(&mut opened, 2).unwrap();
    free.store(1 << 30, Ordering::SeqCst);
    assert_eq!(opened.syncer.sync(), Ok(Position(4)));
    assert!(opened.reader.snapshot().unwrap().get(b"left").unwrap().is_some());
    assert_eq!(held(&opened.store), Ok(4));
    free.store(0, Ordering::SeqCst);
    commit_group(&mut opened, 3).unwrap();
    assert_eq!(opened.syncer.sync(), Err(StoreError::NoSpace));
}
