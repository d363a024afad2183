//! The disk as other crates use it.

use std::io;

use comity_engine::{LogRead, Position, StateRead, Store, StoreError};

use super::workload::{LANE, SPACE, batch, held, options, random};
use super::{Disk, Image, Lie, Rot, Tear, open};
use crate::embedded::{Opened, StoreOptions};
use crate::error::OpenError;

fn run(opened: &mut Opened, numbers: std::ops::RangeInclusive<u64>) -> Result<Position, StoreError> {
    let mut synced = Position(0);
    for number in numbers {
        opened.store.commit(batch(number))?;
        synced = opened.syncer.sync()?;
    }
    Ok(synced)
}

#[test]
fn a_store_is_created_where_there_is_none_and_opened_where_there_is_one() {
    let disk = Disk::new(Image::default());
    assert!(disk.image().is_empty());
    let mut opened = open(&disk, &options()).unwrap();
    assert!(opened.created);
    run(&mut opened, 1..=3).unwrap();
    let token = opened.instance;
    drop(opened);
    let opened = open(&disk, &options()).unwrap();
    assert_eq!((opened.created, opened.instance, held(&opened.store)), (false, token, Ok(3)));
    drop(opened);
    disk.renew();
    assert_ne!(open(&disk, &options()).unwrap().instance, token);
}

#[test]
fn a_log_without_its_database_is_refused() {
    let mut image = Image::default();
    image.put_log_file("0000000001.log", &[0; 512]);
    let refused = open(&Disk::new(image), &options());
    assert!(matches!(refused, Err(OpenError::DataMissing { .. })));
}

#[test]
fn creating_a_store_fails_where_the_disk_does_and_leaves_none() {
    let disk = Disk::new(Image::default());
    disk.fail_after(0, io::ErrorKind::Other);
    assert!(open(&disk, &options()).is_err());
    assert!(disk.image().is_empty());
    disk.heal();
    assert!(open(&disk, &options()).unwrap().created);
}

#[test]
fn many_power_cuts_in_one_life_lose_nothing_acknowledged() {
    let mut state = 1;
    let mut disk = Disk::new(Image::default());
    let mut opened = open(&disk, &options()).unwrap();
    let mut acknowledged = 0;
    for number in 0..60 {
        run(&mut opened, acknowledged + 1..=acknowledged + 4).unwrap();
        acknowledged += 4;
        // Of this one no sync is begun.
        opened.store.commit(batch(acknowledged + 1)).unwrap();
        let tear = [Tear::Nothing, Tear::All, Tear::Operations, Tear::Sectors][number % 4];
        let image = disk.crash_image(tear, &mut || random(&mut state));
        disk = Disk::new(image);
        opened = open(&disk, &options()).unwrap();
        assert_eq!((held(&opened.store), &opened.damage), (Ok(acknowledged), &None), "cut {number}");
    }
    assert_eq!(disk.renewals(), 0);
}

#[test]
fn a_disk_whose_syncs_of_the_log_do_nothing_loses_what_it_acknowledged() {
    let disk = Disk::new(Image::default());
    drop(open(&disk, &options()).unwrap());
    let disk = Disk::lying(disk.image(), Lie::Log);
    let mut opened = open(&disk, &options()).unwrap();
    run(&mut opened, 1..=1).unwrap();
    let left = Disk::new(disk.crash_image(Tear::Nothing, &mut || 0));
    assert!(open(&left, &options()).map_or(true, |opened| held(&opened.store) != Ok(1)));
}

#[test]
fn flipped_bits_are_reported_and_renew_the_identity_and_none_are_flipped_where_nobody_would_know() {
    let lasting = StoreOptions { checkpoint_bytes_max: u64::MAX, ..options() };
    let mut state = 7;
    for rot in [Rot::OneFile, Rot::EveryFile].repeat(20) {
        let disk = Disk::new(Image::default());
        let mut opened = open(&disk, &lasting).unwrap();
        assert_eq!(disk.flip_bits(rot, &mut || random(&mut state)), 0);
        run(&mut opened, 1..=1).unwrap();
        assert_eq!(disk.flip_bits(rot, &mut || random(&mut state)), 0);
        run(&mut opened, 2..=12).unwrap();
        let disk = Disk::new(disk.crash_image(Tear::Sectors, &mut || random(&mut state)));
        let before = open(&Disk::new(disk.image()), &lasting).unwrap();
        assert_eq!((held(&before.store), &before.damage), (Ok(12), &None));
        let flipped = disk.flip_bits(rot, &mut || random(&mut state));
        assert!(if rot == Rot::OneFile { flipped == 1 } else { flipped > 1 });
        let after = open(&disk, &lasting).unwrap();
        let damage = after.damage.as_ref().unwrap();
        assert_eq!((held(&after.store), damage.through), (Ok(damage.group - 1), 12));
        assert_eq!(disk.renewals(), 1);
        assert_ne!(after.instance, before.instance);
    }
}

#[test]
fn a_full_disk_that_says_so_refuses_syncs_and_poisons_nothing() {
    let disk = Disk::new(Image::default());
    let mut opened = open(&disk, &options()).unwrap();
    run(&mut opened, 1..=2).unwrap();
    disk.fill_up();
    opened.store.commit(batch(3)).unwrap();
    assert_eq!(opened.syncer.sync(), Err(StoreError::NoSpace));
    disk.heal();
    assert_eq!(opened.syncer.sync(), Ok(Position(3)));
}

#[test]
fn what_is_not_durable_stays_small_over_a_long_life() {
    let disk = Disk::new(Image::default());
    let mut opened = open(&disk, &options()).unwrap();
    let mut most = 0;
    for number in 1..=300 {
        run(&mut opened, number..=number).unwrap();
        opened.syncer.maintain().unwrap();
        most = most.max(disk.pending() as u64);
    }
    assert!(10 * most < disk.changes(), "{most} of {}", disk.changes());
}

#[test]
fn reads_do_not_tell_how_far_the_database_has_followed_the_log() {
    let stores = [(); 2].map(|()| open(&Disk::new(Image::default()), &options()).unwrap());
    let [mut behind, mut level] = stores;
    for number in 1..=60 {
        run(&mut behind, number..=number).unwrap();
        run(&mut level, number..=number).unwrap();
        level.syncer.follow().unwrap();
        assert!(!level.syncer.is_ahead());
        let snapshots = [&behind, &level].map(|opened| opened.reader.snapshot().unwrap());
        let pinned = [&behind, &level].map(|opened| opened.reader.pin().unwrap());
        let all = |state: &dyn StateRead, limit| state.scan(&[], &[0xff], limit).unwrap();
        for limit in [0, 1, 3, usize::MAX] {
            assert_eq!(all(&snapshots[0], limit), all(&snapshots[1], limit));
            assert_eq!(all(&pinned[0], limit), all(&level.store, limit));
            assert_eq!(all(&behind.store, limit), all(&level.store, limit));
        }
        for (key, _) in all(&level.store, usize::MAX) {
            assert_eq!(snapshots[0].get(&key), level.store.get(&key));
            let after = snapshots.each_ref().map(|snapshot| snapshot.scan(&key, b"s", 2).unwrap());
            assert_eq!(after[0], after[1]);
        }
        for lsn in 0..=number + 1 {
            let entries =
                snapshots.each_ref().map(|snapshot| snapshot.lane_entry(&SPACE, &LANE, lsn).unwrap());
            assert_eq!(entries[0], entries[1]);
            let lanes =
                [&behind, &level].map(|opened| opened.store.lane_entries(&SPACE, &LANE, lsn, 3_000).unwrap());
            assert_eq!(lanes[0], lanes[1]);
        }
        assert_eq!(held(&behind.store), Ok(number));
    }
    assert!(behind.syncer.is_ahead());
    let directory = tempfile::tempdir().unwrap();
    let copies = [&behind, &level].map(|opened| {
        let copy = directory.path().join(opened.syncer.is_ahead().to_string());
        let mut last = None;
        let report = opened.reader.back_up(&copy, |progress| last = Some(progress)).unwrap();
        let last = last.unwrap();
        assert_eq!((last.rows, last.rows_all), (report.rows, report.rows));
        (report.rows, report.bytes)
    });
    assert_eq!(copies[0], copies[1]);
}
