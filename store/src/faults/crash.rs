//! Power cuts: at every operation, with any part of what was not synced.

use super::cache::WriteCache;
use super::image::Operation;
use super::workload::{batch, create, held, open, open_as, options, random, tight};
use super::{Disk, Full, Image, Lie, Tear};
use crate::compact::CompactError;
use crate::embedded::Opened;
use comity_engine::{Store, StoreError};

/// How many random images a run of the tests makes, and the seed of the first: both from the environment.
const IMAGES: &str = "COMITY_CRASH_IMAGES";
const SEED: &str = "COMITY_CRASH_SEED";
const IMAGES_DEFAULT: u64 = 1_500;
/// Images made from one life of a store.
const IMAGES_PER_LIFE: u64 = 60;

/// What a store did until its end: every operation, and (operations, batches) at each completed sync.
struct Life {
    start: Image,
    operations: Vec<Operation>,
    acknowledged: Vec<(usize, u64)>,
    /// Batches in the groups whose sync was begun.
    begun: Vec<(usize, u64)>,
    /// Syncs that were answered with [`StoreError::NoSpace`].
    refused: u64,
    /// How often the database was replaced by a compact copy.
    compactions: u64,
}

/// The most changes before a disk that is to fill up does.
const CHANGES_BEFORE_FULL_MAX: u64 = 60;

impl Life {
    /// Opens the store in `start` and runs groups of the sizes that `seed` gives. Every other life has a disk
    /// that fills up now and then, anywhere in a sync, and is freed again; every other one is compacted over and
    /// over between its groups.
    fn new(start: Image, seed: u64, groups: u64, lie: Option<Lie>) -> Result<Self, String> {
        let disk = Disk::recording(start.clone(), lie);
        if start.is_empty() {
            create(&disk);
        }
        let options = if seed.is_multiple_of(2) { options() } else { tight() };
        let mut opened = open_as(&disk, &options).map_err(|error| error.to_string())?;
        let mut number = held(&opened.store)?;
        let mut acknowledged = vec![(done(&disk), number)];
        let mut begun = acknowledged.clone();
        let (mut state, mut refused, mut compactions) = (seed, 0, 0);
        let fills = random(&mut state).is_multiple_of(2);
        let compacts = random(&mut state).is_multiple_of(2);
        for _ in 0..groups {
            match random(&mut state) % 8 {
                0 | 1 if fills && !disk.is_full() => {
                    let full = [Full::Growth, Full::Growth, Full::Writes][random(&mut state) as usize % 3];
                    disk.fill_up_after(random(&mut state) % CHANGES_BEFORE_FULL_MAX, full);
                }
                0 | 1 => disk.heal(),
                _ => {}
            }
            for _ in 0..1 + random(&mut state) % 3 {
                number += 1;
                opened.store.commit(batch(number)).map_err(|error| error.to_string())?;
            }
            begun.push((done(&disk), number));
            match opened.syncer.sync() {
                Ok(_) => acknowledged.push((done(&disk), number)),
                Err(StoreError::NoSpace) if disk.is_full() => refused += 1,
                Err(error) => return Err(error.to_string()),
            }
            let kept_up = match random(&mut state) % 4 {
                0 | 1 => opened.syncer.maintain(),
                2 => opened.syncer.follow(),
                _ => Ok(()),
            };
            match kept_up {
                Err(error) if error != StoreError::NoSpace => return Err(error.to_string()),
                _ => {}
            }
            let steps = if compacts { random(&mut state) % 8 } else { 0 };
            for _ in 0..steps {
                match opened.syncer.compact_step() {
                    Ok(report) => compactions += u64::from(report.is_some()),
                    Err(CompactError::NoSpace) if fills => {}
                    Err(error) => return Err(error.to_string()),
                }
            }
            if (fills || steps > 0) && held(&opened.store)? != number {
                return Err("a commit cannot be read".to_owned());
            }
        }
        // Half of them are closed.
        let mut operations = disk.history();
        drop(opened);
        if random(&mut state).is_multiple_of(2) {
            operations = disk.history();
        }
        Ok(Self { start, operations, acknowledged, begun, refused, compactions })
    }

    /// How many batches may be there after a cut: those acknowledged, and with them those of each group whose
    /// sync was begun.
    fn possible(&self, cut: usize) -> Vec<u64> {
        let until = |marks: &[(usize, u64)]| -> Vec<u64> {
            marks.iter().filter(|(done, _)| *done <= cut).map(|mark| mark.1).collect()
        };
        let least = until(&self.acknowledged).last().copied().unwrap_or(0);
        let later = until(&self.begun).into_iter().filter(|number| *number > least);
        std::iter::once(least).chain(later).collect()
    }
}

fn done(disk: &Disk) -> usize {
    disk.changes() as usize
}

/// What a power cut leaves, by a number.
const TEARS: [Tear; 4] = [Tear::Nothing, Tear::All, Tear::Operations, Tear::Sectors];

/// Goes through the operations and keeps apart what is durable.
pub(super) struct Cutter<'a> {
    operations: &'a [Operation],
    cache: WriteCache,
    cut: usize,
}

impl<'a> Cutter<'a> {
    pub(super) fn new(start: &Image, operations: &'a [Operation]) -> Self {
        Self { operations, cache: WriteCache::new(start.clone()), cut: 0 }
    }

    /// Goes on to the cut after `cut` operations.
    pub(super) fn advance(&mut self, cut: usize) {
        self.operations[self.cut..cut].iter().for_each(|operation| self.cache.change(operation));
        self.cut = cut;
    }

    /// What a power cut here may leave, torn as `mode` says.
    pub(super) fn image(&self, mode: u64, state: &mut u64) -> Image {
        self.cache.cut(TEARS[(mode % 4) as usize], &mut || random(state))
    }
}

/// Opens an image and returns what it holds and the recovery's own operations.
fn reopen(image: Image) -> Result<(u64, Vec<Operation>), String> {
    let disk = Disk::recording(image, None);
    let Opened { store, syncer, damage, .. } = open(&disk).map_err(|error| error.to_string())?;
    if let Some(damage) = damage {
        return Err(format!("reported damage: {damage:?}"));
    }
    let (found, history) = (held(&store)?, disk.history());
    drop((store, syncer));
    Ok((found, history))
}

fn check(life: &Life, cut: usize, image: Image) -> Result<(u64, Vec<Operation>), String> {
    let possible = life.possible(cut);
    let (found, history) = reopen(image)?;
    if !possible.contains(&found) {
        return Err(format!("{found} batches where one of {possible:?} was synced"));
    }
    Ok((found, history))
}

/// What was tried.
#[derive(Default)]
struct Made {
    images: u64,
    /// Syncs that found no space.
    refused: u64,
    compactions: u64,
}

/// The first image that is not as it must be, of one life and `count` images of it, and of some cuts into
/// the recovery of each. Counts in `made`.
fn try_life(seed: u64, count: u64, lie: Option<Lie>, made: &mut Made) -> Result<(), String> {
    let mut state = seed;
    let groups = 4 + random(&mut state) % 24;
    let mut life = Life::new(Image::default(), random(&mut state), groups, lie)?;
    if random(&mut state).is_multiple_of(2) {
        // Reopened as it was left, without a cut.
        let mut end = Cutter::new(&life.start, &life.operations);
        end.advance(life.operations.len());
        life = Life::new(end.image(1, &mut 0), random(&mut state), groups, lie)?;
    }
    made.refused += life.refused;
    made.compactions += life.compactions;
    let first = life.acknowledged[0].0;
    let mut cuts: Vec<_> = (0..count)
        .map(|_| first + (random(&mut state) % (life.operations.len() - first + 1) as u64) as usize)
        .collect();
    cuts.sort_unstable();
    let mut cutter = Cutter::new(&life.start, &life.operations);
    for cut in cuts {
        cutter.advance(cut);
        let image = cutter.image(random(&mut state), &mut state);
        made.images += 1;
        let name = |error| format!("seed {seed}, cut {cut} of {}: {error}", life.operations.len());
        let (found, recovery) = check(&life, cut, image.clone()).map_err(name)?;
        if !random(&mut state).is_multiple_of(4) {
            continue;
        }
        let second = (random(&mut state) % (recovery.len() + 1) as u64) as usize;
        let mut again = Cutter::new(&image, &recovery);
        again.advance(second);
        made.images += 1;
        let (after, _) = reopen(again.image(random(&mut state), &mut state))
            .map_err(|error| name(format!("second cut {second} of {}: {error}", recovery.len())))?;
        if after != found {
            return Err(name(format!("second cut {second}: {after} batches after {found}")));
        }
    }
    Ok(())
}

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |value| value.parse().unwrap())
}

#[test]
fn random_crash_images_hold_every_acknowledged_group_and_nothing_in_part() {
    let (images, first) = (setting(IMAGES, IMAGES_DEFAULT), setting(SEED, 1));
    let (mut made, mut seed) = (Made::default(), first);
    while made.images < images {
        if let Err(error) = try_life(seed, IMAGES_PER_LIFE, None, &mut made) {
            panic!("{error}; again with {SEED}={seed} {IMAGES}=1");
        }
        seed += 1;
    }
    let Made { images, refused, compactions } = made;
    let lives = seed - first;
    println!(
        "{images} crash images of {lives} lives: {refused} syncs without space, {compactions} compactions"
    );
    assert!(images < IMAGES_DEFAULT || (refused > 0 && compactions > 0));
}

#[test]
fn every_cut_of_a_small_life_and_every_cut_of_its_recovery_keeps_what_was_acknowledged() {
    let life = Life::new(Image::default(), 3, 3, None).unwrap();
    let mut cutter = Cutter::new(&life.start, &life.operations);
    for cut in life.acknowledged[0].0..=life.operations.len() {
        cutter.advance(cut);
        for mode in 0..6 {
            let image = cutter.image(mode.min(3), &mut (cut as u64 * 10 + mode));
            let (found, recovery) = check(&life, cut, image.clone())
                .unwrap_or_else(|error| panic!("cut {cut} mode {mode}: {error}"));
            if mode != 3 {
                continue;
            }
            let mut again = Cutter::new(&image, &recovery);
            for second in 0..=recovery.len() {
                again.advance(second);
                let image = again.image(second as u64, &mut (second as u64));
                let (after, _) =
                    reopen(image).unwrap_or_else(|error| panic!("cuts {cut} and {second}: {error}"));
                assert_eq!(after, found, "cuts {cut} and {second}");
            }
        }
    }
}

#[test]
fn every_cut_of_a_life_with_compactions_keeps_what_was_acknowledged() {
    let mut lives = (0..64).map(|seed| Life::new(Image::default(), seed, 6, None).unwrap());
    let life = lives.find(|life| life.compactions > 1 && life.refused == 0).unwrap();
    let mut cutter = Cutter::new(&life.start, &life.operations);
    for cut in life.acknowledged[0].0..=life.operations.len() {
        cutter.advance(cut);
        for mode in 0..6 {
            let image = cutter.image(mode.min(3), &mut (cut as u64 * 10 + mode));
            check(&life, cut, image).unwrap_or_else(|error| panic!("cut {cut} mode {mode}: {error}"));
        }
    }
}

#[test]
fn a_store_lives_on_after_a_crash_and_crashes_again() {
    for seed in 0..12 {
        let mut image = Image::default();
        let mut state = seed;
        for _ in 0..6 {
            let life = Life::new(image, random(&mut state), 5, None).unwrap();
            let first = life.acknowledged[0].0;
            let cut = first + (random(&mut state) % (life.operations.len() - first + 1) as u64) as usize;
            let mut cutter = Cutter::new(&life.start, &life.operations);
            cutter.advance(cut);
            image = cutter.image(random(&mut state), &mut state);
            check(&life, cut, image.clone()).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        }
    }
}

/// The harness sees that a sync is missing.
#[test]
fn without_one_of_its_syncs_the_store_fails_the_same_test() {
    for lie in [Lie::Database, Lie::Log, Lie::Directory, Lie::Copy, Lie::DataDirectory] {
        let mut made = 0;
        let caught = (1..200).find_map(|seed| {
            let tried = std::panic::catch_unwind(|| {
                let mut made = Made::default();
                (try_life(seed, IMAGES_PER_LIFE, Some(lie), &mut made), made)
            });
            match tried {
                Ok((result, count)) => {
                    made += count.images;
                    result.err()
                }
                Err(_) => Some("a panic".to_owned()),
            }
        });
        let caught =
            caught.unwrap_or_else(|| panic!("{made} images without the sync of {lie:?} are all right"));
        println!("without the sync of {lie:?}, image {made}: {caught}");
    }
}
