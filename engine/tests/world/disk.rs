//! A disk that remembers its batches, so that an old copy of it can be put back, and that knows by itself
//! what a crash would leave.

use std::collections::BTreeMap;

use comity_crdts::{LaneId, SpaceId};
use comity_engine::{Batch, LogRead, Position, Row, StateRead, Store, StoreError};
use comity_store::{MemorySnapshot, MemoryStore};

/// Everything a disk held durably at some moment.
#[derive(Clone)]
pub(crate) struct Backup(Vec<Batch>);

/// [`MemoryStore`] and its history.
#[derive(Default)]
pub(crate) struct Disk {
    memory: MemoryStore,
    batches: Vec<Batch>,
    synced: usize,
    durable: BTreeMap<(SpaceId, LaneId), u64>,
}

impl Disk {
    /// Makes everything committed durable.
    pub(crate) fn sync(&mut self) -> Position {
        for batch in &self.batches[self.synced..] {
            for entry in &batch.entries {
                let lsn = self.durable.entry((entry.space, entry.lane)).or_insert(0);
                assert_eq!(entry.lsn, *lsn + 1, "entries of a lane reach the log in order, each once");
                *lsn = entry.lsn;
            }
            if let Some(space) = comity_engine::wire::deleted(&batch.facts) {
                self.durable.retain(|(of, _), _| *of != space);
            }
            // A snapshot brings lanes further; what is here beyond it is applied to it before anybody sees it.
            if let Some((space, frontier)) = comity_engine::wire::flipped(&batch.facts) {
                for (lane, through) in frontier.iter() {
                    let lsn = self.durable.entry((space, lane)).or_insert(0);
                    *lsn = through.max(*lsn);
                }
            }
        }
        self.synced = self.batches.len();
        self.memory.sync()
    }

    /// How many entries of a lane would survive a crash, told by the log alone.
    pub(crate) fn durable(&self, space: &SpaceId, lane: &LaneId) -> u64 {
        self.durable.get(&(*space, *lane)).copied().unwrap_or(0)
    }

    /// Loses what is not synced.
    pub(crate) fn crash(&mut self) {
        self.batches.truncate(self.synced);
        self.memory.crash();
    }

    /// Loses what is not synced, and then a row has another value than was written.
    pub(crate) fn rot(&mut self, key: &[u8], value: Option<Vec<u8>>) {
        self.crash();
        let state = vec![(key.to_vec(), value)];
        self.commit(Batch { state, ..Batch::default() }).unwrap();
        self.sync();
    }

    /// A copy of what is durable.
    pub(crate) fn backup(&self) -> Backup {
        Backup(self.batches[..self.synced].to_vec())
    }

    /// A disk with the content of a copy.
    pub(crate) fn restored(Backup(batches): Backup) -> Self {
        let mut disk = Self::default();
        for batch in batches {
            disk.commit(batch).unwrap();
        }
        disk.sync();
        disk.memory.crash();
        disk
    }

    /// The state as readers see it.
    pub(crate) fn view(&self) -> MemorySnapshot {
        self.memory.view()
    }

    /// The next commit fails.
    pub(crate) fn fail_next_commit(&mut self, error: StoreError) {
        self.memory.fail_next_commit(error);
    }

    /// The number of batches so far; equal numbers mean that nothing was written in between.
    pub(crate) fn commits(&self) -> usize {
        self.batches.len()
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

impl LogRead for Disk {
    fn lane_entry(&self, space: &SpaceId, lane: &LaneId, lsn: u64) -> Result<Option<Vec<u8>>, StoreError> {
        self.memory.lane_entry(space, lane, lsn)
    }
}

impl Store for Disk {
    fn commit(&mut self, batch: Batch) -> Result<Position, StoreError> {
        let position = self.memory.commit(batch.clone())?;
        self.batches.push(batch);
        Ok(position)
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
