//! A disk that changes what was durable.

use comity_engine::Store;

use super::crash::Cutter;
use super::image::Operation;
use super::workload::{batch, create, held, open, options, random};
use super::{Disk, Image, open_with};
use crate::embedded::{Opened, StoreOptions};
use crate::error::OpenError;
use crate::recovery::Damage;

const GROUPS: u64 = 14;

/// What a crash left of a store that made no checkpoint: one batch in each group, in several files.
fn crashed() -> Image {
    let disk = Disk::new(Image::default());
    create(&disk);
    let options = StoreOptions { checkpoint_bytes_max: u64::MAX, ..options() };
    let mut opened = open_with(&disk, &options, Box::new(|| None)).unwrap();
    for number in 1..=GROUPS {
        opened.store.commit(batch(number)).unwrap();
        opened.syncer.sync().unwrap();
    }
    disk.image()
}

/// Where the records are: file, offset, length, group.
fn records(image: &Image) -> Vec<(String, usize, usize, u64)> {
    let mut found = Vec::new();
    for name in image.log_files() {
        let bytes = image.log_file(name).unwrap();
        let mut offset = 512;
        while bytes.get(offset..offset + 4) == Some(b"grp1".as_slice()) {
            let number = |at| u64::from_be_bytes(*bytes[offset + at..].first_chunk().unwrap());
            let length = (64 + number(8) as usize).next_multiple_of(512);
            found.push((name.to_owned(), offset, length, number(16)));
            offset += length;
        }
    }
    found
}

fn names(image: &Image) -> Vec<String> {
    image.log_files().map(str::to_owned).collect()
}

fn flip(image: &Image, name: &str, offset: usize, bit: u64) -> Image {
    let mut image = image.clone();
    let file = image.file_of(name).unwrap();
    image.file(file).flip(offset, bit as u32);
    image
}

fn reopened(image: Image) -> (Disk, Opened, u64) {
    let disk = Disk::recording(image, None);
    let opened = open(&disk).unwrap();
    let held = held(&opened.store).unwrap();
    (disk, opened, held)
}

fn renewed(disk: &Disk) -> bool {
    disk.history().iter().any(|done| matches!(done, Operation::Renew))
}

#[test]
fn a_flipped_bit_below_the_watermark_is_reported_and_in_the_last_record_is_a_torn_tail() {
    let image = crashed();
    let records = records(&image);
    assert_eq!(records.iter().map(|record| record.3).collect::<Vec<_>>(), (1..=GROUPS).collect::<Vec<_>>());
    let mut state = 1;
    for (name, offset, length, group) in &records {
        for byte in (0..*length).step_by(if *length > 512 { 61 } else { 3 }) {
            let flipped = flip(&image, name, offset + byte, random(&mut state) % 8);
            let (disk, opened, held) = reopened(flipped);
            assert_eq!(held, group - 1, "group {group} byte {byte}");
            if *group == GROUPS {
                assert_eq!(opened.damage, None);
                assert!(!renewed(&disk));
                continue;
            }
            let damage = opened.damage.unwrap();
            assert_eq!((damage.group, damage.through, damage.readable), (*group, GROUPS, GROUPS - group));
            assert!(renewed(&disk));
        }
    }
}

#[test]
fn every_bit_of_a_file_header_is_checked() {
    let image = crashed();
    for (name, first) in [
        ("0000000001.log", 1),
        ("0000000002.log", records(&image).iter().find(|record| record.0 == "0000000002.log").unwrap().3),
    ] {
        for bit in (0..512 * 8).filter(|bit| *bit < 64 * 8 || bit % 61 == 0) {
            let (_, opened, held) = reopened(flip(&image, name, bit / 8, bit as u64 % 8));
            assert_eq!(held, first - 1);
            assert_eq!(opened.damage.unwrap().group, first);
        }
    }
}

#[test]
fn a_lost_file_is_reported_even_the_last_one_once_a_checkpoint_names_it() {
    let image = crashed();
    let second = records(&image).iter().find(|record| record.0 == "0000000002.log").unwrap().3;
    let mut lost = image.clone();
    lost.remove_log_file("0000000002.log");
    let (_, opened, held) = reopened(lost);
    assert_eq!((held, opened.damage.unwrap().group), (second - 1, second));

    let (disk, opened, _) = reopened(image);
    drop(opened);
    let mut lost = disk.image();
    names(&disk.image()).iter().for_each(|name| lost.remove_log_file(name));
    let (_, opened, held) = reopened(lost);
    assert_eq!((held, opened.damage.unwrap().group), (GROUPS, GROUPS + 1));
}

fn damaged() -> (Image, u64) {
    let image = crashed();
    let (name, offset, _, group) = records(&image)[5].clone();
    (flip(&image, &name, offset + 100, 3), group)
}

#[test]
fn a_damaged_store_goes_on_and_its_files_are_kept() {
    let (image, group) = damaged();
    let before: Vec<_> =
        names(&image).into_iter().map(|name| (name.clone(), image.log_file(&name).unwrap())).collect();
    let (disk, mut opened, held) = reopened(image);
    let damage = opened.damage.take().unwrap();
    assert_eq!(damage.files.len(), before.len());
    for (name, bytes) in &before {
        let kept = name.replace(".log", ".damaged");
        assert!(damage.files.iter().any(|path| path.ends_with(&kept)));
        assert_eq!(disk.image().log_file(&kept).as_ref(), Some(bytes));
    }
    let next = held + 1;
    assert_eq!(next, group);
    opened.store.commit(batch(next)).unwrap();
    opened.syncer.sync().unwrap();
    // It is reported until a checkpoint.
    let (again, mut reopened_again, after) = reopened(disk.image());
    assert_eq!((after, reopened_again.damage.take()), (next, Some(damage)));
    assert!(!renewed(&again));
    reopened_again.store.commit(batch(next + 1)).unwrap();
    reopened_again.syncer.sync().unwrap();
    drop(reopened_again);
    let (disk, opened, after) = reopened(again.image());
    assert_eq!((after, opened.damage), (next + 1, None));
    let kept = |name: &str| names(&disk.image()).contains(&name.replace(".log", ".damaged"));
    assert!(before.iter().all(|(name, _)| kept(name)));
}

#[test]
fn a_power_cut_while_damage_is_dealt_with_neither_hides_it_nor_loses_more() {
    let (image, group) = damaged();
    let disk = Disk::recording(image.clone(), None);
    let opened = open(&disk).unwrap();
    let (recovery, expected) = (disk.history(), opened.damage.clone().unwrap());
    drop(opened);
    let mut cutter = Cutter::new(&image, &recovery);
    for cut in 0..=recovery.len() {
        cutter.advance(cut);
        for mode in 0..12 {
            let start = cutter.image(mode, &mut (cut as u64 * 100 + mode));
            let (disk, opened, held) = reopened(start);
            let damage: Damage = opened.damage.unwrap();
            assert_eq!((held, damage.group, damage.through), (group - 1, group, GROUPS), "cut {cut}");
            // The empty file of the opening that was cut may be kept as well.
            assert!(expected.files.iter().all(|file| damage.files.contains(file)));
            let renewed_before = recovery[..cut].iter().any(|done| matches!(done, Operation::Renew));
            assert!(renewed_before || renewed(&disk));
        }
    }
}

#[test]
fn damage_found_before_that_of_a_cut_recovery_was_put_aside_keeps_the_files_of_both() {
    let (image, group) = damaged();
    let disk = Disk::recording(image.clone(), None);
    drop(open(&disk).unwrap());
    let recovery = disk.history();
    let renamed = |done: &Operation| matches!(done, Operation::Rename { to, .. } if to.ends_with(".damaged"));
    let cut = recovery.iter().position(renamed).unwrap();
    let mut cutter = Cutter::new(&image, &recovery);
    cutter.advance(cut);
    let cut_off = cutter.image(1, &mut 0);
    let fresh = names(&cut_off).pop().unwrap();
    let (disk, opened, held) = reopened(flip(&cut_off, &fresh, 20, 0));
    let damage = opened.damage.unwrap();
    assert_eq!((held, damage.group, damage.through), (group - 1, group, GROUPS + 1));
    assert_eq!(damage.files.len(), names(&cut_off).len());
    let kept = |name: &str| names(&disk.image()).contains(&name.replace(".log", ".damaged"));
    assert!(names(&image).iter().all(|name| kept(name)));
}

#[test]
fn names_that_the_store_does_not_give_are_left_alone_and_the_last_number_is_refused() {
    for name in ["18446744073709551615.log", "18446744073709551615.damaged", "77.log", "+000000077.log"] {
        let mut image = crashed();
        image.put_log_file(name, b"of somebody else");
        let (disk, opened, held) = reopened(image);
        assert_eq!((held, opened.damage), (GROUPS, None), "{name}");
        assert_eq!(disk.image().log_file(name).as_deref(), Some(b"of somebody else".as_slice()));
    }
    for name in ["9223372036854775807.log", "9223372036854775807.damaged"] {
        let mut image = crashed();
        image.put_log_file(name, &[]);
        let disk = Disk::new(image);
        assert!(matches!(open(&disk), Err(OpenError::Io { .. })), "{name}");
        let mut cleared = disk.image();
        cleared.remove_log_file(name);
        assert_eq!(reopened(cleared).2, GROUPS);
    }
}
