//! A disk that fills up anywhere in a sync, and is freed again.

use std::io;

use comity_engine::{Position, StateRead, Store, StoreError};

use super::workload::{batch, create, held, open, open_as, options, random, tight};
use super::{Disk, Full, Image, Tear};
use crate::embedded::{Opened, StoreOptions};
use crate::error::OpenError;

/// Groups while the disk is filling up, and after it was freed.
const GROUPS: u64 = 12;

struct Run {
    disk: Disk,
    opened: Opened,
    committed: u64,
    acknowledged: u64,
}

impl Run {
    fn new(options: &StoreOptions) -> Self {
        let disk = Disk::new(Image::default());
        create(&disk);
        let opened = open_as(&disk, options).unwrap();
        let mut run = Self { disk, opened, committed: 0, acknowledged: 0 };
        assert_eq!(run.group(), Ok(()));
        run
    }

    /// Commits two batches and syncs; whatever that says, everything can be read that should be.
    fn group(&mut self) -> Result<(), StoreError> {
        for _ in 0..2 {
            self.committed += 1;
            self.opened.store.commit(batch(self.committed)).unwrap();
        }
        let result = self.opened.syncer.sync();
        if let Ok(position) = result {
            assert_eq!(position, Position(self.committed));
            self.acknowledged = self.committed;
        }
        assert_eq!(held(&self.opened.store), Ok(self.committed));
        let seen = self.opened.reader.snapshot().unwrap().get(b"left").unwrap().unwrap();
        let seen = u64::from_be_bytes(seen.try_into().unwrap());
        // A group that waited may have become durable before the one after it was refused.
        assert!((self.acknowledged..=self.committed).contains(&seen));
        result.map(drop)
    }

    /// What a power cut leaves holds everything acknowledged, and opens on a full disk or says why not.
    fn check_crash(&self, seed: u64) {
        let mut state = seed;
        let tear = [Tear::Nothing, Tear::All, Tear::Operations, Tear::Sectors][seed as usize % 4];
        let image = self.disk.crash_image(tear, &mut || random(&mut state));
        let full = Disk::new(image);
        full.fill_up();
        match open(&full).map(drop) {
            Ok(()) | Err(OpenError::NoSpace { .. }) => {}
            Err(error) => panic!("{error}"),
        }
        full.heal();
        let opened = open(&full).unwrap();
        let held = held(&opened.store).unwrap();
        assert!((self.acknowledged..=self.committed).contains(&held), "{held} of {}", self.acknowledged);
        assert_eq!(opened.damage, None);
    }
}

/// Fills the disk up at every change of a workload, and returns how often a sync was refused.
fn fill_up_everywhere(full: Full, options: &StoreOptions) -> u64 {
    let mut refusals = 0;
    for after in 0.. {
        let mut run = Run::new(options);
        let snapshot = run.opened.reader.snapshot().unwrap();
        let rows = snapshot.scan(&[], &[0xff], usize::MAX).unwrap();
        run.disk.fill_up_after(after, full);
        for _ in 0..GROUPS {
            match run.group() {
                Ok(()) => {}
                Err(StoreError::NoSpace) if run.disk.is_full() => refusals += 1,
                Err(error) => panic!("after {after} changes: {error}"),
            }
            let maintained = run.opened.syncer.maintain();
            assert!(matches!(maintained, Ok(()) | Err(StoreError::NoSpace)), "{maintained:?}");
        }
        run.check_crash(after);
        let was_full = run.disk.is_full();
        run.disk.heal();
        for _ in 0..3 {
            assert_eq!(run.group(), Ok(()), "freed after {after} changes");
            assert_eq!(run.opened.syncer.maintain(), Ok(()));
        }
        run.check_crash(after + 1);
        assert_eq!(snapshot.scan(&[], &[0xff], usize::MAX).unwrap(), rows);
        drop((snapshot, run.opened));
        assert_eq!(held(&open(&run.disk).unwrap().store), Ok(run.acknowledged));
        if !was_full {
            break;
        }
    }
    refusals
}

#[test]
fn a_disk_that_fills_up_at_any_change_costs_nothing_but_the_syncs_until_it_is_freed() {
    let refusals = fill_up_everywhere(Full::Growth, &options());
    assert!(refusals > 100, "{refusals}");
}

#[test]
fn neither_does_one_that_needs_space_to_overwrite() {
    let refusals = fill_up_everywhere(Full::Writes, &options());
    assert!(refusals > 100, "{refusals}");
}

/// Files of the log that are large enough for everything, over a database that writes early.
fn roomy() -> StoreOptions {
    StoreOptions { log_file_bytes: 1024 * 1024, ..tight() }
}

#[test]
fn a_disk_that_fills_up_within_a_transaction_of_the_database_is_survived() {
    let refusals = fill_up_everywhere(Full::Growth, &roomy());
    assert!(refusals > 20, "{refusals}");
}

#[test]
fn a_store_closed_on_a_full_disk_loses_nothing() {
    for after in 0..120 {
        let mut run = Run::new(&options());
        run.disk.fill_up_after(after, Full::Growth);
        for _ in 0..GROUPS {
            let _ = run.group();
        }
        drop(run.opened);
        run.disk.heal();
        let opened = open(&run.disk).unwrap();
        assert!((run.acknowledged..=run.committed).contains(&held(&opened.store).unwrap()));
        assert_eq!(opened.damage, None);
    }
}

#[test]
fn a_sync_that_fails_for_want_of_space_is_a_failed_sync() {
    let mut poisoned = 0;
    for budget in 0.. {
        let mut run = Run::new(&options());
        run.disk.fail_after(budget, io::ErrorKind::StorageFull);
        let result = (0..GROUPS).try_for_each(|_| {
            run.committed += 2;
            run.opened.store.commit(batch(run.committed - 1))?;
            run.opened.store.commit(batch(run.committed))?;
            run.opened.syncer.sync().map(|_| run.acknowledged = run.committed)
        });
        if result.is_ok() {
            break;
        }
        // Whatever was refused before a sync can be tried again; nothing may be retried past a failed one.
        if result != Err(StoreError::NoSpace) {
            poisoned += 1;
            run.disk.heal();
            assert_eq!(run.opened.syncer.sync(), Err(StoreError::Poisoned));
        }
        run.check_crash(budget);
    }
    assert!(poisoned > 5, "{poisoned}");
}

#[test]
fn a_disk_that_fails_otherwise_while_something_waits_poisons_the_store() {
    for failure in [io::ErrorKind::Other, io::ErrorKind::StorageFull] {
        for budget in 0..8 {
            let mut run = Run::new(&roomy());
            run.disk.fill_up_after(0, Full::Growth);
            assert_eq!((run.group(), run.opened.syncer.follow()), (Ok(()), Ok(())));
            assert_eq!(run.group(), Err(StoreError::NoSpace));
            run.disk.heal();
            run.disk.fail_after(budget, failure);
            let settled = run.opened.syncer.maintain();
            if settled == Err(StoreError::NoSpace) && failure == io::ErrorKind::StorageFull {
                continue;
            }
            assert!(matches!(settled, Ok(()) | Err(StoreError::Failed { .. })), "{settled:?}");
            if settled.is_err() {
                assert_eq!(run.opened.store.get(b"left"), Err(StoreError::Poisoned));
                assert_eq!(run.opened.syncer.sync(), Err(StoreError::Poisoned));
                let changes = run.disk.changes();
                run.disk.heal();
                drop(run.opened);
                assert_eq!(run.disk.changes(), changes);
            }
        }
    }
}

#[test]
fn more_than_may_wait_poisons_the_store_and_loses_nothing() {
    let options = StoreOptions { overlay_bytes_max: 16 * 1024, log_file_bytes: 8 << 20, ..roomy() };
    let mut run = Run::new(&options);
    run.disk.fill_up_after(0, Full::Growth);
    let mut large = batch(3);
    large.state.push((b"zzz".to_vec(), Some(vec![7; 4 << 20])));
    run.opened.store.commit(large).unwrap();
    assert_eq!(run.opened.syncer.sync(), Ok(Position(3)));
    let result = run.opened.syncer.maintain();
    assert!(matches!(result, Err(StoreError::Failed { .. })), "{result:?}");
    assert_eq!(run.opened.syncer.sync(), Err(StoreError::Poisoned));
    run.disk.heal();
    drop(run.opened);
    let opened = open(&run.disk).unwrap();
    assert_eq!(opened.store.get(b"zzz"), Ok(Some(vec![7; 4 << 20])));
}
