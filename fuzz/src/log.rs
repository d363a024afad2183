//! Opening a store whose log is not as it was left.

use std::collections::BTreeSet;
use std::sync::OnceLock;

use comity_crdts::{OriginId, SpaceId};
use comity_engine::{Batch, LaneRecord, StateRead, Store};
use comity_store::faults::{Disk, Forged, Image, Tear, forge, open};
use comity_store::{Damage, OpenError, Opened, StoreOptions};

use crate::{Choices, within};

const SPACE: SpaceId = SpaceId([1; 16]);
const LANE: OriginId = OriginId([2; 16]);
const LAST: &[u8] = b"last";
/// Rows that a state has besides that of the last batch.
const ROWS: u64 = 5;

/// Header and records start at multiples of this.
const SECTOR: usize = 512;
const FILE_BYTES: u64 = 4 * 1024;
/// A file that an input makes longer stays below this.
const FILE_BYTES_MAX: usize = 32 * 1024;
const FILES_MAX: usize = 16;

/// Bytes of memory that opening may use beyond a multiple of the log: the caches of the database, and the
/// pages that it and the simulated disk change.
const OPENING_BASE: usize = 4 * 1024 * 1024;
/// A file as a whole, its rows in the database's pages, those again on the disk.
const OPENING_FACTOR: usize = 16;

/// A store and what a fuzzed input does to its log. Whatever it is, opening answers: with a prefix of the groups,
/// and with word of any loss that can be told from a crash.
pub fn log(bytes: &[u8]) {
    let mut choices = Choices(bytes);
    let choice = choices.byte();
    match choice % 5 {
        4 => forged(&mut choices),
        life => spoiled(&lives()[usize::from(life)], &mut choices),
    }
}

fn options(checkpoint_bytes_max: u64) -> StoreOptions {
    StoreOptions {
        log_file_bytes: FILE_BYTES,
        checkpoint_bytes_max,
        cache_bytes: 256 * 1024,
        overlay_bytes_max: 256 * 1024,
        ..StoreOptions::default()
    }
}

/// What opening must find.
struct Life {
    image: Image,
    /// The last group, which has one batch, as each has.
    groups: u64,
    /// The last group that the database holds.
    checkpoint: u64,
    records: Vec<Record>,
}

/// Where a group is in the log.
struct Record {
    name: String,
    offset: usize,
    length: usize,
    group: u64,
}

/// The lives that stores had before their logs were spoiled.
fn lives() -> &'static [Life; 4] {
    static LIVES: OnceLock<[Life; 4]> = OnceLock::new();
    LIVES.get_or_init(|| {
        let crashed = lived(Image::default(), &options(u64::MAX), 14);
        let twice = lived(crashed.clone(), &options(u64::MAX), 8);
        let with_checkpoints = lived(Image::default(), &options(4_000), 21);
        let closed = {
            let disk = Disk::new(with_checkpoints.clone());
            drop(open(&disk, &options(u64::MAX)).expect("a sound store opens"));
            disk.image()
        };
        [crashed, twice, with_checkpoints, closed].map(Life::of)
    })
}

/// What is on the disk when the power fails after so many more groups.
fn lived(image: Image, options: &StoreOptions, groups: u64) -> Image {
    let disk = Disk::new(image);
    let mut opened = open(&disk, options).expect("a sound store opens");
    for _ in 0..groups {
        write(&mut opened);
        opened.syncer.maintain().expect("the disk does not fail");
    }
    disk.crash_image(Tear::Nothing, &mut || 0)
}

/// Writes the next group.
fn write(opened: &mut Opened) {
    let number = held(opened) + 1;
    opened.store.commit(batch(number)).expect("the overlay has room");
    opened.syncer.sync().expect("the disk does not fail");
}

impl Life {
    fn of(image: Image) -> Self {
        let groups = held(&open(&Disk::new(image.clone()), &options(u64::MAX)).expect("a sound store opens"));
        let mut bare = image.clone();
        names(&image).iter().for_each(|name| bare.remove_log_file(name));
        let checkpoint = held(&open(&Disk::new(bare), &options(u64::MAX)).expect("a bare store opens"));
        let records = records(&image);
        assert!(records.iter().any(|record| record.group == groups) || checkpoint == groups);
        Self { image, groups, checkpoint, records }
    }
}

fn names(image: &Image) -> Vec<String> {
    image.log_files().map(str::to_owned).collect()
}

fn records(image: &Image) -> Vec<Record> {
    let mut found = Vec::new();
    for name in names(image) {
        let bytes = image.log_file(&name).expect("it is named");
        let mut offset = SECTOR;
        while bytes.get(offset..offset + 4) == Some(b"grp1") {
            let number = |at: usize| {
                let bytes = bytes[offset + at..].first_chunk().expect("a record has a header");
                u64::from_be_bytes(*bytes)
            };
            let length = (64 + number(8) as usize).next_multiple_of(SECTOR);
            found.push(Record { name: name.clone(), offset, length, group: number(16) });
            offset += length;
        }
    }
    found
}

fn batch(number: u64) -> Batch {
    let row = |number: u64| format!("row/{number:06}").into_bytes();
    let entry = LaneRecord { space: SPACE, lane: LANE, lsn: number, bytes: entry(number) };
    Batch {
        entries: vec![entry],
        dropped: Vec::new(),
        facts: vec![(LAST.to_vec(), Some(number.to_be_bytes().to_vec()))],
        state: vec![(row(number), Some(vec![number as u8; 60])), (row(number.wrapping_sub(ROWS)), None)],
    }
}

/// Some records take one sector and some several.
fn entry(number: u64) -> Vec<u8> {
    vec![number as u8; (number as usize % 4) * 200]
}

/// How many batches a store holds, having checked that it holds them whole and nothing else.
fn held(opened: &Opened) -> u64 {
    let rows = opened.store.scan(&[], &[0xff], usize::MAX).expect("a store that opened can be read");
    let last = opened.store.get(LAST).expect("a store that opened can be read");
    let held = last.map_or(0, |value| u64::from_be_bytes(value.try_into().expect("a number is kept whole")));
    let expected = held.min(ROWS) + u64::from(held > 0);
    assert_eq!(rows.len() as u64, expected, "the state after {held} batches");
    for number in held.saturating_sub(ROWS - 1).max(1)..=held {
        let row = opened.store.get(format!("row/{number:06}").as_bytes()).expect("it can be read");
        assert_eq!(row, Some(vec![number as u8; 60]), "row {number} after {held} batches");
    }
    let lane = opened.store.lane_entries(&SPACE, &LANE, 1, usize::MAX).expect("it can be read");
    assert!(lane.into_iter().eq((1..=held).map(|lsn| (lsn, entry(lsn)))), "the lane after {held} batches");
    held
}

fn spoiled(life: &Life, choices: &mut Choices<'_>) {
    let mut image = life.image.clone();
    while !choices.is_empty() {
        spoil(&mut image, choices);
    }
    let log_bytes: usize = names(&image).iter().filter_map(|name| Some(image.log_file(name)?.len())).sum();
    let allowed = OPENING_BASE + OPENING_FACTOR * log_bytes;
    let disk = Disk::new(image.clone());
    let mut opened =
        within(allowed, || open(&disk, &options(u64::MAX))).expect("a spoiled log is no refusal");
    let found = held(&opened);
    let intact: BTreeSet<u64> =
        life.records.iter().filter_map(|record| intact(life, &image, record)).collect();
    let readable = (life.checkpoint + 1..).take_while(|group| intact.contains(group)).last();
    assert_eq!(found, readable.unwrap_or(life.checkpoint), "every group before the first one lost is there");
    let differs = image_differs(life, &image);
    assert!(differs || found == life.groups, "{found} groups of {} in a sound log", life.groups);
    let damage = opened.damage.clone();
    match &damage {
        Some(damage) => {
            assert!(differs, "a sound log is not damaged");
            assert_eq!((damage.group, disk.renewals()), (found + 1, life_renewals(life) + 1));
            assert!(damage.through >= intact.last().copied().unwrap_or(0).max(damage.group));
        }
        None => {
            let known = intact.last().copied().unwrap_or(0);
            assert!(found >= known, "group {known} says that {found} is not the last one durable");
            let lost = life.records.iter().find(|record| record.group == found + 1);
            assert!(!lost.is_some_and(|lost| is_unverifiable(life, &image, lost)), "a header says of a loss");
        }
    }

    let cut = disk.crash_image(Tear::Nothing, &mut || 0);
    reopened(cut, found, damage.as_ref());
    write(&mut opened);
    reopened(disk.crash_image(Tear::Nothing, &mut || 0), found + 1, damage.as_ref());
    drop(opened);
    // A store that was closed made a checkpoint, after which damage is not told again.
    reopened(disk.image(), found + 1, None);
}

/// It opens again to the same, and says the same.
fn reopened(image: Image, expected: u64, damage: Option<&Damage>) {
    let disk = Disk::new(image);
    let before = disk.renewals();
    let opened = open(&disk, &options(u64::MAX)).expect("what opened once opens again");
    assert_eq!(held(&opened), expected);
    assert_eq!(opened.damage.as_ref(), damage);
    assert_eq!(disk.renewals(), before, "the same damage is not found twice");
}

fn image_differs(life: &Life, image: &Image) -> bool {
    let files = |image: &Image| -> Vec<_> {
        names(image).into_iter().map(|name| (image.log_file(&name), name)).collect()
    };
    files(&life.image) != files(image)
}

fn life_renewals(life: &Life) -> u64 {
    Disk::new(life.image.clone()).renewals()
}

/// The group of a record that is where it was, in a file whose header is what it was.
fn intact(life: &Life, image: &Image, record: &Record) -> Option<u64> {
    let (before, after) = (life.image.log_file(&record.name)?, image.log_file(&record.name)?);
    let same = |from: usize, until: usize| {
        let bytes = before.get(from..until);
        bytes.is_some() && bytes == after.get(from..until)
    };
    (same(0, SECTOR) && same(record.offset, record.offset + record.length)).then_some(record.group)
}

/// Whether a record is in a file whose header is spoiled, though it is not all zeros.
fn is_unverifiable(life: &Life, image: &Image, record: &Record) -> bool {
    let header = |image: &Image| Some(image.log_file(&record.name)?.get(..SECTOR)?.to_vec());
    let written = image.log_file(&record.name).is_some_and(|file| file.iter().any(|byte| *byte != 0));
    written && header(image) != header(&life.image)
}

/// Does one thing to the files of a log.
fn spoil(image: &mut Image, choices: &mut Choices<'_>) {
    let names = names(image);
    let how = choices.byte();
    let mut pick = || names.get(usize::from(choices.byte()) % names.len().max(1)).cloned();
    let Some(name) = pick() else {
        // Nothing is left of the log but what the input brings.
        return put(image, choices);
    };
    let mut file = image.log_file(&name).expect("it is named");
    match how % 8 {
        0 => {
            let (at, bit) = (choices.short(), choices.byte() % 8);
            file.get_mut(at).into_iter().for_each(|byte| *byte ^= 1 << bit);
        }
        1 => file.truncate(choices.short()),
        2 => {
            let (from, count) = (choices.short(), usize::from(choices.byte()));
            overwrite(&mut file, from, choices.bytes(count));
        }
        3 => {
            let Some(other) = pick() else { return };
            let bytes = image.log_file(&other).expect("it is named");
            image.put_log_file(&other, &file);
            file = bytes;
        }
        4 => return image.remove_log_file(&name),
        5 => return put(image, choices),
        6 => {
            let (from, count) = (choices.short(), choices.short());
            overwrite(&mut file, from, &vec![0; count.min(FILE_BYTES_MAX)]);
        }
        _ => {
            let Some(other) = pick() else { return };
            let bytes = image.log_file(&other).expect("it is named");
            let sector = |choice: u8| usize::from(choice) * SECTOR;
            let (from, until) = (sector(choices.byte()), sector(choices.byte()));
            let moved = bytes.get(from..until.min(bytes.len())).unwrap_or_default();
            overwrite(&mut file, sector(choices.byte()), moved);
        }
    }
    image.put_log_file(&name, &file);
}

fn overwrite(file: &mut Vec<u8>, from: usize, bytes: &[u8]) {
    let end = (from + bytes.len()).min(FILE_BYTES_MAX);
    if from < end {
        file.resize(file.len().max(end), 0);
        file[from..end].copy_from_slice(&bytes[..end - from]);
    }
}

/// Puts a file of the input's own name and bytes into the log.
fn put(image: &mut Image, choices: &mut Choices<'_>) {
    let count = usize::from(choices.byte()) % 32;
    let name = String::from_utf8_lossy(choices.bytes(count)).into_owned();
    let count = choices.short();
    if image.log_files().count() < FILES_MAX {
        image.put_log_file(&name, choices.bytes(count));
    }
}

/// A log whose records verify and say what the input wants. Nothing is known of what it holds, except that
/// opening answers the same twice.
fn forged(choices: &mut Choices<'_>) {
    let disk = Disk::new(Image::default());
    drop(open(&disk, &options(u64::MAX)).expect("an empty disk is made a store"));
    let mut image = disk.image();
    names(&image).iter().for_each(|name| image.remove_log_file(name));
    let (mut group, mut log_bytes) = (0_u64, 0);
    for number in 1..=u64::from(choices.byte() % 4) {
        let payloads: Vec<_> = (0..choices.byte() % 8)
            .map(|_| {
                // Mostly the next one.
                group = group.wrapping_add(1).saturating_sub(u64::from(choices.byte() / 64));
                let durable_through = u64::from(choices.byte()).min(group);
                let count = choices.short();
                Forged { group, durable_through, payload: choices.bytes(count) }
            })
            .collect();
        let file = forge(number, &payloads, usize::from(choices.byte()) * 64);
        log_bytes += file.len();
        image.put_log_file(&format!("{number:010}.log"), &file);
    }
    let disk = Disk::new(image);
    let allowed = OPENING_BASE + OPENING_FACTOR * log_bytes;
    match within(allowed, || open(&disk, &options(u64::MAX))) {
        Ok(opened) => {
            let cut = Disk::new(disk.crash_image(Tear::Nothing, &mut || 0));
            let again = open(&cut, &options(u64::MAX)).expect("what opened once opens again");
            assert_eq!(rows(&opened), rows(&again));
            assert_eq!(opened.damage, again.damage);
        }
        Err(OpenError::Damaged { .. }) => {
            let again = open(&disk, &options(u64::MAX));
            assert!(matches!(again, Err(OpenError::Damaged { .. })), "a refusal changes nothing");
        }
        Err(error) => panic!("{error}"),
    }
}

fn rows(opened: &Opened) -> Vec<comity_engine::Row> {
    opened.store.scan(&[], &[0xff; 64], usize::MAX).expect("a store that opened can be read")
}
