//! What happens when the disk fails, fills up, or loses power at any write.

use std::io;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use comity_crdts::{OriginId, SpaceId};
use comity_engine::{Batch, LaneRecord, Position, StateRead, Store, StoreError};
use redb::{Builder, Database, StorageBackend};

use crate::embedded::{EmbeddedStore, StoreOptions, assemble};
use crate::format;
use crate::snapshot::Reader;
use crate::syncer::{Room, Syncer};

/// One thing done to a disk.
#[derive(Clone, Debug)]
enum Operation {
    Write { offset: usize, data: Vec<u8> },
    SetLen(usize),
    Sync,
}

impl Operation {
    fn apply(&self, bytes: &mut Vec<u8>) {
        match self {
            Self::Write { offset, data } => {
                if bytes.len() < offset + data.len() {
                    bytes.resize(offset + data.len(), 0);
                }
                bytes[*offset..offset + data.len()].copy_from_slice(data);
            }
            Self::SetLen(len) => bytes.resize(*len, 0),
            Self::Sync => {}
        }
    }
}

/// A disk in memory that remembers what was done to it and can be told to fail.
#[derive(Clone, Debug)]
struct Disk(Arc<DiskState>);

#[derive(Debug)]
struct DiskState {
    bytes: Mutex<Vec<u8>>,
    done: Mutex<Vec<Operation>>,
    /// How many more changes succeed; negative for all.
    budget: AtomicI64,
    failure: io::ErrorKind,
}

impl Disk {
    fn new(bytes: Vec<u8>, failure: io::ErrorKind) -> Self {
        let state = DiskState { bytes: bytes.into(), done: Mutex::default(), budget: (-1).into(), failure };
        Self(Arc::new(state))
    }

    fn fail_after(&self, changes: i64) {
        self.0.budget.store(changes, Ordering::SeqCst);
    }

    fn bytes(&self) -> Vec<u8> {
        self.0.bytes.lock().unwrap().clone()
    }

    fn done(&self) -> usize {
        self.0.done.lock().unwrap().len()
    }

    fn history(&self) -> Vec<Operation> {
        self.0.done.lock().unwrap().clone()
    }

    fn change(&self, operation: Operation) -> io::Result<()> {
        let budget = self.0.budget.load(Ordering::SeqCst);
        if budget == 0 {
            return Err(self.0.failure.into());
        }
        if budget > 0 {
            self.0.budget.store(budget - 1, Ordering::SeqCst);
        }
        operation.apply(&mut self.0.bytes.lock().unwrap());
        self.0.done.lock().unwrap().push(operation);
        Ok(())
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.bytes.lock().unwrap().len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let bytes = self.0.bytes.lock().unwrap();
        let offset = usize::try_from(offset).unwrap();
        let found = bytes.get(offset..offset + out.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        out.copy_from_slice(found);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.change(Operation::SetLen(usize::try_from(len).unwrap()))
    }

    fn sync_data(&self) -> io::Result<()> {
        self.change(Operation::Sync)
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.change(Operation::Write { offset: usize::try_from(offset).unwrap(), data: data.to_vec() })
    }
}

type Handles = (EmbeddedStore, Syncer, Reader);

const GROUPS: u64 = 12;
const SPACE: SpaceId = SpaceId([1; 16]);
const LANE: OriginId = OriginId([2; 16]);

fn database(disk: &Disk) -> Database {
    Builder::new().set_cache_size(1024 * 1024).create_with_backend(disk.clone()).unwrap()
}

fn handles(database: Database, options: &StoreOptions) -> Handles {
    assemble(database, None, Box::new(|| None), options).unwrap()
}

fn created(disk: &Disk) -> Handles {
    let database = database(disk);
    format::initialise(&database).unwrap();
    handles(database, &StoreOptions::default())
}

fn reopened(disk: &Disk) -> Handles {
    let database = database(disk);
    format::check("disk".as_ref(), &database).unwrap();
    handles(database, &StoreOptions::default())
}

/// One batch: it moves two keys together, adds a row, takes one away, and appends an entry.
fn batch(number: u64) -> Batch {
    let value = number.to_be_bytes().to_vec();
    let row = |number: u64| format!("row/{number:04}").into_bytes();
    Batch {
        entries: vec![LaneRecord { space: SPACE, lane: LANE, lsn: number, bytes: vec![number as u8; 700] }],
        facts: vec![(b"left".to_vec(), Some(value.clone())), (row(number), Some(vec![7; 300]))],
        state: vec![(b"right".to_vec(), Some(value)), (row(number.saturating_sub(5)), None)],
    }
}

/// Two batches for each group.
fn commit_group(store: &mut EmbeddedStore, group: u64) -> Result<Position, StoreError> {
    store.commit(batch(2 * group - 1))?;
    store.commit(batch(2 * group))
}

/// How many batches the store holds, having checked that it holds them whole and no others.
fn held(store: &EmbeddedStore) -> u64 {
    let number = |key: &[u8]| {
        let value = store.get(key).unwrap();
        value.map_or(0, |value| u64::from_be_bytes(value.try_into().unwrap()))
    };
    let held = number(b"left");
    assert_eq!(held, number(b"right"));
    let rows = store.scan(b"row/", b"row0", usize::MAX).unwrap();
    let expected: Vec<_> =
        (held.saturating_sub(4).max(1)..=held).map(|n| format!("row/{n:04}").into_bytes()).collect();
    assert_eq!(rows.into_iter().map(|(key, _)| key).collect::<Vec<_>>(), expected);
    let lane = store.lane_entries(&SPACE, &LANE, 1, usize::MAX).unwrap();
    assert_eq!(lane.len() as u64, held);
    assert!(lane.iter().all(|(lsn, entry)| *entry == vec![*lsn as u8; 700]));
    held
}

/// A small deterministic generator (SplitMix64).
fn random(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// What a power cut after `cut` operations may leave: everything before the last sync, and of the later
/// writes any subset, some of them torn.
fn image(start: &[u8], history: &[Operation], cut: usize, seed: u64) -> Vec<u8> {
    let mut state = seed;
    let synced =
        history[..cut].iter().rposition(|done| matches!(done, Operation::Sync)).map_or(0, |at| at + 1);
    let mut bytes = start.to_vec();
    history[..synced].iter().for_each(|done| done.apply(&mut bytes));
    for done in &history[synced..cut] {
        match (random(&mut state) % 4, done) {
            (0, _) => {}
            (1, Operation::Write { offset, data }) => {
                let kept = (random(&mut state) as usize % (data.len() + 1)) / 512 * 512;
                Operation::Write { offset: *offset, data: data[..kept].to_vec() }.apply(&mut bytes);
            }
            _ => done.apply(&mut bytes),
        }
    }
    bytes
}

/// A disk on which a store lived through all groups, and (operations, batches) at each completed sync.
fn history() -> (Disk, Vec<(usize, u64)>) {
    let disk = Disk::new(Vec::new(), io::ErrorKind::Other);
    let (mut store, mut syncer, _reader) = created(&disk);
    let mut acknowledged = vec![(disk.done(), 0)];
    for group in 1..=GROUPS {
        commit_group(&mut store, group).unwrap();
        assert_eq!(syncer.sync(), Ok(Position(2 * group)));
        acknowledged.push((disk.done(), 2 * group));
    }
    (disk, acknowledged)
}

#[test]
fn a_power_cut_at_any_write_keeps_every_synced_group_and_no_part_of_another() {
    let (disk, acknowledged) = history();
    let operations = disk.history();
    for cut in acknowledged[0].0..=operations.len() {
        let synced = acknowledged.iter().rev().find(|(done, _)| *done <= cut).unwrap().1;
        for seed in 0..3 {
            let crashed = Disk::new(image(&[], &operations, cut, seed), io::ErrorKind::Other);
            let (store, _, _) = reopened(&crashed);
            let held = held(&store);
            assert!(held == synced || held == synced + 2, "cut {cut} seed {seed}: {held} of {synced}");
        }
    }
}

#[test]
fn a_second_power_cut_during_recovery_loses_nothing_either() {
    let (disk, acknowledged) = history();
    let operations = disk.history();
    let (from, until) = (acknowledged[5].0, acknowledged[6].0);
    for cut in from..=until {
        let start = image(&[], &operations, cut, cut as u64);
        let crashed = Disk::new(start.clone(), io::ErrorKind::Other);
        let (mut store, mut syncer, _) = reopened(&crashed);
        let first = held(&store);
        let opened = crashed.done();
        commit_group(&mut store, first / 2 + 1).unwrap();
        syncer.sync().unwrap();
        let recovery = crashed.history();
        for second in 0..=recovery.len() {
            let again = Disk::new(image(&start, &recovery, second, second as u64), io::ErrorKind::Other);
            let (store, _, _) = reopened(&again);
            let held = held(&store);
            let (least, most) = match second {
                _ if second <= opened => (first, first),
                _ if second < recovery.len() => (first, first + 2),
                _ => (first + 2, first + 2),
            };
            assert!(held == least || held == most, "cuts {cut} and {second}: {held} of {first}");
        }
    }
}

#[test]
fn a_failure_at_any_change_poisons_every_handle_and_loses_nothing_acknowledged() {
    let mut failures = 0;
    for budget in 0.. {
        let disk = Disk::new(Vec::new(), io::ErrorKind::Other);
        let (mut store, mut syncer, reader) = created(&disk);
        commit_group(&mut store, 1).unwrap();
        syncer.sync().unwrap();
        let snapshot = reader.snapshot().unwrap();
        commit_group(&mut store, 2).unwrap();
        disk.fail_after(budget);
        if syncer.sync().is_ok() {
            break;
        }
        failures += 1;
        assert_eq!(syncer.sync(), Err(StoreError::Poisoned));
        assert_eq!(store.commit(batch(9)), Err(StoreError::Poisoned));
        assert_eq!(store.get(b"left"), Err(StoreError::Poisoned));
        assert_eq!(store.scan(b"a", b"z", 1), Err(StoreError::Poisoned));
        assert_eq!(store.lane_entry(&SPACE, &LANE, 1), Err(StoreError::Poisoned));
        assert_eq!(reader.snapshot().map(drop), Err(StoreError::Poisoned));
        assert_eq!(snapshot.get(b"left"), Err(StoreError::Poisoned));
        drop((store, syncer));
        disk.fail_after(-1);
        let (store, _, _) = reopened(&Disk::new(disk.bytes(), io::ErrorKind::Other));
        assert!(matches!(held(&store), 2 | 4));
    }
    assert!(failures > 3);
}

#[test]
fn a_disk_that_fills_up_in_the_middle_of_a_sync_poisons_and_reopens_once_there_is_space() {
    let disk = Disk::new(Vec::new(), io::ErrorKind::StorageFull);
    let (mut store, mut syncer, _reader) = created(&disk);
    commit_group(&mut store, 1).unwrap();
    disk.fail_after(1);
    assert!(matches!(syncer.sync(), Err(StoreError::Failed { .. })));
    assert_eq!(syncer.sync(), Err(StoreError::Poisoned));
    drop((store, syncer));
    disk.fail_after(-1);
    let (mut store, mut syncer, _reader) = reopened(&disk);
    assert_eq!(held(&store), 0);
    commit_group(&mut store, 1).unwrap();
    syncer.sync().unwrap();
    assert_eq!(held(&store), 2);
}

#[test]
fn a_full_disk_is_noticed_before_anything_is_written_and_the_next_sync_tries_again() {
    let disk = Disk::new(Vec::new(), io::ErrorKind::Other);
    let database = database(&disk);
    format::initialise(&database).unwrap();
    let free = Arc::new(AtomicU64::new(0));
    let probed = Arc::clone(&free);
    let room = move || Some(Room { free: probed.load(Ordering::SeqCst), used: 0 });
    let options = StoreOptions::default();
    let (mut store, mut syncer, reader) = assemble(database, None, Box::new(room), &options).unwrap();
    assert_eq!(syncer.sync(), Ok(Position(0)));
    commit_group(&mut store, 1).unwrap();
    let done = disk.done();
    assert_eq!(syncer.sync(), Err(StoreError::NoSpace));
    assert_eq!(disk.done(), done);
    assert_eq!(held(&store), 2);
    assert_eq!(reader.snapshot().unwrap().get(b"left"), Ok(None));
    commit_group(&mut store, 2).unwrap();
    free.store(1 << 30, Ordering::SeqCst);
    assert_eq!(syncer.sync(), Ok(Position(4)));
    assert!(reader.snapshot().unwrap().get(b"left").unwrap().is_some());
    assert_eq!(held(&store), 4);
}
