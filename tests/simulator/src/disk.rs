//! The disk of a replica: what is written and not synced is lost in a crash, or is not. It can be copied,
//! put back, fill up and fail.

use std::mem;
use std::sync::Arc;

use comity_crdts::{LaneId, SpaceId};
use comity_engine::{Batch, Position, Row, StateRead, Store, StoreError};
use comity_store::{MemorySnapshot, MemoryStore};

use crate::random::mix;

/// A lane entry that was written.
#[derive(Clone, Debug)]
pub(crate) struct Appended {
    /// The batch it is in, counted over the life of the data.
    pub(crate) batch: u64,
    pub(crate) space: SpaceId,
    pub(crate) lane: LaneId,
    pub(crate) lsn: u64,
    /// A checksum of its stored form.
    pub(crate) checksum: u64,
}

/// A copy of what was durable at some moment.
#[derive(Clone, Debug)]
pub(crate) struct Backup(Vec<Arc<Batch>>);

/// The store in memory, and its history where copies of it may be made.
#[derive(Debug)]
pub(crate) struct Disk {
    memory: MemoryStore,
    /// Every batch; empty when no history is kept.
    batches: Vec<Arc<Batch>>,
    keeps_history: bool,
    /// Batches that were there when the store was last opened.
    base: u64,
    appended: Vec<Appended>,
}

fn appended(number: u64, batch: &Batch) -> impl Iterator<Item = Appended> + '_ {
    batch.entries.iter().map(move |entry| Appended {
        batch: number,
        space: entry.space,
        lane: entry.lane,
        lsn: entry.lsn,
        checksum: mix(0, &entry.bytes),
    })
}

impl Disk {
    pub(crate) fn new(keeps_history: bool) -> Self {
        let (memory, batches) = (MemoryStore::new(), Vec::new());
        Self { memory, batches, keeps_history, base: 0, appended: Vec::new() }
    }

    /// The last batch that was written.
    pub(crate) fn committed(&self) -> u64 {
        self.base + self.memory.committed().0
    }

    /// The last batch that a crash would not lose.
    pub(crate) fn synced(&self) -> u64 {
        self.base + self.memory.synced().0
    }

    /// The entries written since this was last asked.
    pub(crate) fn take_appended(&mut self) -> Vec<Appended> {
        mem::take(&mut self.appended)
    }

    /// Makes every batch up to this one durable.
    pub(crate) fn sync_through(&mut self, batch: u64) -> Position {
        self.memory.sync_through(Position(batch.saturating_sub(self.base)))
    }

    /// Loses what is not synced, except for the batches up to `kept`, which had reached the disk.
    pub(crate) fn crash(&mut self, kept: u64) {
        self.sync_through(kept);
        let kept = self.synced();
        self.memory.crash();
        self.base = kept;
        if self.keeps_history {
            self.batches.truncate(kept as usize);
        }
        self.appended.clear();
    }

    /// A copy of what is durable.
    pub(crate) fn backup(&self) -> Backup {
        Backup(self.batches[..self.synced() as usize].to_vec())
    }

    /// A disk with the content of a copy, and the entries that are on it.
    pub(crate) fn restored(Backup(batches): &Backup) -> (Self, Vec<Appended>) {
        let mut disk = Self::new(true);
        for batch in batches {
            let committed = disk.commit(Batch::clone(batch));
            committed.expect("a store in memory fails only when told to");
        }
        let entries = disk.take_appended();
        disk.crash(u64::MAX);
        (disk, entries)
    }

    /// The state as readers see it.
    pub(crate) fn view(&self) -> MemorySnapshot {
        self.memory.view()
    }

    pub(crate) fn fail_next_commit(&mut self, error: StoreError) {
        self.memory.fail_next_commit(error);
    }

    /// A sync failed: nothing works until the store is opened again.
    pub(crate) fn poison(&mut self) {
        self.memory.poison();
    }
}

impl StateRead for Disk {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.memory.get(key)
    }

    fn scan(&self, from: &[u8], until: &[u8], limit: usize) -> Result<Vec<Row>, StoreError> {
        self.memory.scan(from, until, limit)
    }
}

impl Store for Disk {
    fn commit(&mut self, batch: Batch) -> Result<Position, StoreError> {
        let mut entries: Vec<Appended> = appended(self.committed() + 1, &batch).collect();
        let kept = self.keeps_history.then(|| Arc::new(batch.clone()));
        let position = self.memory.commit(batch)?;
        self.batches.extend(kept);
        self.appended.append(&mut entries);
        Ok(position)
    }

    fn lane_entry(&self, space: &SpaceId, lane: &LaneId, lsn: u64) -> Result<Option<Vec<u8>>, StoreError> {
        self.memory.lane_entry(space, lane, lsn)
    }

    fn lane_entries(
        &self,
        space: &SpaceId,
        lane: &LaneId,
        from: u64,
        bytes_max: usize,
    ) -> Result<Vec<(u64, Vec<u8>)>, StoreError> {
        self.memory.lane_entries(space, lane, from, bytes_max)
    }
}
