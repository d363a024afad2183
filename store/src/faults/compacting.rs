//! Compacting while the store is in use, on disks that fail, fill up and lose power.

use std::io;
use std::time::Duration;

use comity_engine::{Batch, LogRead, Position, StateRead, Store, StoreError};

use super::workload::{batch, create, held, open, open_as, options};
use super::{Disk, Full, Image, Tear};
use crate::compact::{CompactError, CompactReport};
use crate::embedded::{Opened, StoreOptions};

/// A store with so many batches in it, each synced.
fn filled(options: &StoreOptions, batches: u64) -> (Disk, Opened) {
    let disk = Disk::new(Image::default());
    create(&disk);
    let mut opened = open_as(&disk, options).unwrap();
    write(&mut opened, 1..=batches);
    (disk, opened)
}

fn write(opened: &mut Opened, numbers: std::ops::RangeInclusive<u64>) {
    for number in numbers {
        opened.store.commit(batch(number)).unwrap();
        assert_eq!(opened.syncer.sync().map(drop), Ok(()));
    }
}

/// So many rows, each of 200 bytes and its key of 8.
fn rows(numbers: std::ops::Range<u64>, value: Option<&[u8]>) -> Batch {
    let put = |number: u64| (number.to_be_bytes().to_vec(), value.map(<[u8]>::to_vec));
    Batch { state: numbers.map(put).collect(), ..Batch::default() }
}

#[test]
fn the_space_of_removed_rows_is_given_back_and_everything_else_stays() {
    let (disk, mut opened) = filled(&StoreOptions::default(), 0);
    for numbers in [0..10_000, 10_000..20_000] {
        opened.store.commit(rows(numbers, Some(&[7; 200]))).unwrap();
        opened.syncer.sync().unwrap();
    }
    opened.store.commit(rows(0..19_500, None)).unwrap();
    opened.syncer.sync().unwrap();
    let report = opened.syncer.compact().unwrap();
    assert_eq!((report.live_rows, report.live_bytes), (500, 500 * 208));
    assert!(report.bytes_before > 4 << 20, "{report:?}");
    assert!(report.bytes_after < 500 * 208 * 3, "{report:?}");
    assert!(!opened.syncer.is_compacting());
    let found = opened.store.scan(&[], &[0xff], usize::MAX).unwrap();
    assert!(
        found
            .into_iter()
            .eq((19_500..20_000_u64).map(|number| (number.to_be_bytes().to_vec(), vec![7; 200])))
    );
    drop(opened);
    let opened = open(&disk).unwrap();
    assert_eq!(opened.store.scan(&[], &[0xff], usize::MAX).unwrap().len(), 500);
}

#[test]
fn groups_that_are_written_between_two_steps_are_in_the_copy() {
    for every in 1..6 {
        let (disk, mut opened) = filled(&options(), 30);
        let mut number = 30;
        let mut step = 0;
        let report: CompactReport = loop {
            step += 1;
            if step % every == 0 {
                number += 1;
                write(&mut opened, number..=number);
            }
            if let Some(report) = opened.syncer.compact_step().unwrap() {
                break report;
            }
        };
        assert!(step > 6, "{step} steps");
        assert_eq!(held(&opened.store), Ok(number));
        let stored = |rows: Vec<(Vec<u8>, Vec<u8>)>| {
            rows.iter().map(|row| (row.0.len() + row.1.len()) as u64).sum::<u64>()
        };
        let state = stored(opened.store.scan(&[], &[0xff], usize::MAX).unwrap());
        assert!(report.live_bytes > state && report.live_rows > number / 2, "{report:?}");
        write(&mut opened, number + 1..=number + 30);
        // A second one counts the same rows anew.
        let again = opened.syncer.compact().unwrap();
        assert!(again.live_rows > report.live_rows, "{again:?} after {report:?}");
        drop(opened);
        assert_eq!(held(&open(&disk).unwrap().store), Ok(number + 30));
    }
}

#[test]
fn a_snapshot_from_before_reads_on_until_it_expires() {
    let (_disk, mut opened) = filled(&options(), 20);
    let snapshot = opened.reader.snapshot().unwrap();
    let before = snapshot.scan(&[], &[0xff], usize::MAX).unwrap();
    opened.syncer.compact().unwrap();
    assert!(opened.syncer.reclaim());
    write(&mut opened, 21..=40);
    assert_eq!(snapshot.scan(&[], &[0xff], usize::MAX).unwrap(), before);
    assert_eq!(opened.reader.snapshot().unwrap().get(b"left"), Ok(Some(40_u64.to_be_bytes().to_vec())));
    drop(snapshot);
    assert!(!opened.syncer.reclaim());

    let expiring = StoreOptions { view_age_max: Duration::ZERO, ..options() };
    let (_disk, mut opened) = filled(&expiring, 20);
    let snapshot = opened.reader.snapshot().unwrap();
    opened.syncer.compact().unwrap();
    assert!(!opened.syncer.reclaim());
    assert_eq!(snapshot.get(b"left"), Err(StoreError::ViewExpired));
    let (space, lane) = (comity_crdts::SpaceId([1; 16]), comity_crdts::OriginId([2; 16]));
    assert_eq!(snapshot.lane_entry(&space, &lane, 1), Err(StoreError::ViewExpired));
}

#[test]
fn the_position_of_snapshots_is_that_of_the_last_group_also_after_compacting() {
    let (_disk, mut opened) = filled(&options(), 3);
    opened.syncer.compact().unwrap();
    assert_eq!(opened.reader.snapshot().unwrap().position(), Position(3));
}

/// Compacts while groups are written and one change after `changes` others is the first that the disk refuses;
/// returns what compacting said, and the store.
fn disturbed(refuse: impl Fn(&Disk)) -> (Disk, Opened, u64, Result<(), CompactError>) {
    let (disk, mut opened) = filled(&options(), 12);
    refuse(&disk);
    let mut number = 12;
    loop {
        let step = opened.syncer.compact_step();
        match step {
            Ok(None) => {}
            Ok(Some(_)) => return (disk, opened, number, Ok(())),
            Err(error) => return (disk, opened, number, Err(error)),
        }
        if number < 16 {
            number += 1;
            if opened.store.commit(batch(number)).is_err() {
                return (disk, opened, number, Err(CompactError::Store(StoreError::Poisoned)));
            }
            let _ = opened.syncer.sync();
        }
    }
}

#[test]
fn a_disk_that_fills_up_at_any_change_costs_no_more_than_the_compaction() {
    for full in [Full::Growth, Full::Writes] {
        let mut refused = 0;
        for after in 0.. {
            let (disk, mut opened, number, compacted) = disturbed(|disk| disk.fill_up_after(after, full));
            let was_full = disk.is_full();
            match compacted {
                Ok(()) => {}
                Err(CompactError::NoSpace) => refused += 1,
                Err(error) => panic!("after {after} changes: {error}"),
            }
            assert_eq!(held(&opened.store), Ok(number), "after {after} changes");
            disk.heal();
            write(&mut opened, number + 1..=number + 2);
            assert!(opened.syncer.compact().is_ok());
            drop(opened);
            assert_eq!(held(&open(&disk).unwrap().store), Ok(number + 2));
            if !was_full {
                break;
            }
        }
        assert!(refused > 20, "{refused}");
    }
}

#[test]
fn a_disk_that_fails_at_any_change_loses_nothing_acknowledged() {
    let (mut copies, mut stores) = (0, 0);
    for after in 0.. {
        let (disk, mut opened, number, compacted) =
            disturbed(|disk| disk.fail_after(after, io::ErrorKind::Other));
        let ended = compacted.is_ok();
        disk.heal();
        match compacted {
            // The store goes on where only the copy failed.
            Err(CompactError::Copy { .. }) => {
                copies += 1;
                if opened.syncer.sync().is_ok() {
                    assert_eq!(held(&opened.store), Ok(number));
                    assert!(opened.syncer.compact().is_ok());
                }
            }
            Err(CompactError::Store(_)) => stores += 1,
            Err(CompactError::NoSpace) => panic!("it is not full"),
            Ok(()) => {}
        }
        drop(opened);
        let opened = open(&disk).unwrap();
        let held = held(&opened.store).unwrap();
        assert!((12..=number).contains(&held), "{held} of {number} after {after} changes");
        assert_eq!(opened.damage, None);
        if ended {
            break;
        }
    }
    assert!(copies > 10 && stores > 3, "{copies} {stores}");
}

#[test]
fn a_copy_that_was_not_finished_is_removed_by_the_next_opening() {
    let (disk, mut opened) = filled(&options(), 20);
    (0..3).for_each(|_| assert_eq!(opened.syncer.compact_step(), Ok(None)));
    let image = disk.crash_image(Tear::All, &mut || 0);
    assert!(image.copy().is_some());
    let disk = Disk::new(image);
    let mut opened = open(&disk).unwrap();
    assert!(disk.image().copy().is_none());
    assert_eq!(held(&opened.store), Ok(20));
    assert!(opened.syncer.compact().is_ok());
}
