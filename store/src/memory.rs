//! A store in memory, for tests and simulation: what is not synced is lost in a crash.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use std::sync::{Arc, PoisonError, RwLock};

use comity_crdts::{LaneId, SpaceId};
use comity_engine::{Batch, LogRead, Position, Row, StateRead, Store, StoreError};

use crate::format::{LogKey, log_key, lsn_of};
use crate::layer::lsns;
use crate::merge;

/// Everything in a store. Keys and values are shared between the live and the durable rows.
#[derive(Clone, Debug, Default)]
struct Rows {
    state: BTreeMap<Arc<[u8]>, Arc<[u8]>>,
    log: BTreeMap<LogKey, Arc<[u8]>>,
}

/// A put that can be shared.
type SharedPut = (Arc<[u8]>, Option<Arc<[u8]>>);

/// A batch with its keys and values ready to be shared.
#[derive(Clone, Debug)]
struct Change {
    log: Vec<(LogKey, Option<Arc<[u8]>>)>,
    state: Vec<SharedPut>,
}

impl From<Batch> for Change {
    fn from(batch: Batch) -> Self {
        let entry = |entry: comity_engine::LaneRecord| {
            (log_key(&entry.space, &entry.lane, entry.lsn), Some(Arc::from(entry.bytes)))
        };
        let dropped = |span: comity_engine::LaneSpan| {
            lsns(&span).map(move |lsn| (log_key(&span.space, &span.lane, lsn), None))
        };
        let puts = batch.facts.into_iter().chain(batch.state);
        Self {
            log: batch
                .entries
                .into_iter()
                .map(entry)
                .chain(batch.dropped.into_iter().flat_map(dropped))
                .collect(),
            state: puts.map(|(key, value)| (Arc::from(key), value.map(Arc::from))).collect(),
        }
    }
}

impl Rows {
    fn apply(&mut self, change: Change) {
        for (key, entry) in change.log {
            match entry {
                Some(entry) => drop(self.log.insert(key, entry)),
                None => drop(self.log.remove(&key)),
            }
        }
        for (key, value) in change.state {
            match value {
                Some(value) => drop(self.state.insert(key, value)),
                None => drop(self.state.remove(&key)),
            }
        }
    }

    /// Makes what a change touched as it is in `before`.
    fn revert(&mut self, change: Change, before: &Self) {
        for (key, _) in change.log {
            match before.log.get(&key) {
                Some(entry) => drop(self.log.insert(key, Arc::clone(entry))),
                None => drop(self.log.remove(&key)),
            }
        }
        for (key, _) in change.state {
            match before.state.get(&key) {
                Some(value) => drop(self.state.insert(key, Arc::clone(value))),
                None => drop(self.state.remove(&key)),
            }
        }
    }

    fn get(&self, key: &[u8]) -> Option<Vec<u8>> {
        self.state.get(key).map(|value| value.to_vec())
    }

    fn entry(&self, space: &SpaceId, lane: &LaneId, lsn: u64) -> Option<Vec<u8>> {
        self.log.get(&log_key(space, lane, lsn)).map(|entry| entry.to_vec())
    }

    fn scan(&self, from: &[u8], until: &[u8], limit: usize) -> Vec<Row> {
        if from >= until {
            return Vec::new();
        }
        let range = self.state.range::<[u8], _>((Bound::Included(from), Bound::Excluded(until)));
        range.take(limit).map(|(key, value)| (key.to_vec(), value.to_vec())).collect()
    }
}

/// A store in memory. Deterministic: it reads no clock and starts no thread.
///
/// The rows live twice, sharing their values: as committed and as synced.
#[derive(Debug, Default)]
pub struct MemoryStore {
    live: Rows,
    durable: Arc<RwLock<Arc<Rows>>>,
    unsynced: VecDeque<Change>,
    committed: Position,
    next_failure: Option<StoreError>,
    poisoned: bool,
}

impl MemoryStore {
    /// An empty store.
    pub fn new() -> Self {
        Self::default()
    }

    /// The last committed batch; zero before the first.
    pub fn committed(&self) -> Position {
        self.committed
    }

    /// The last batch that a crash would not lose.
    pub fn synced(&self) -> Position {
        Position(self.committed.0 - self.unsynced.len() as u64)
    }

    /// Makes everything committed durable and shows it to readers. O(rows changed), or O(rows) while a
    /// snapshot of the last sync is held.
    pub fn sync(&mut self) -> Position {
        self.sync_through(self.committed)
    }

    /// Like [`sync`](Self::sync), for the batches up to `position` only: a sync that started when that was
    /// the last one. Returns the last batch synced.
    pub fn sync_through(&mut self, position: Position) -> Position {
        let count = position.0.min(self.committed.0).saturating_sub(self.synced().0);
        let mut durable = self.durable.write().unwrap_or_else(PoisonError::into_inner);
        let rows = Arc::make_mut(&mut durable);
        for _ in 0..count {
            rows.apply(self.unsynced.pop_front().expect("a batch waits for every position not synced"));
        }
        drop(durable);
        self.synced()
    }

    /// Drops everything not synced, as a power cut would, and opens the store again: positions start anew
    /// and injected failures are gone. Readers stay usable. O(rows not synced).
    pub fn crash(&mut self) {
        let durable = self.durable.read().unwrap_or_else(PoisonError::into_inner);
        for change in self.unsynced.drain(..) {
            self.live.revert(change, &durable);
        }
        drop(durable);
        self.committed = Position(0);
        self.next_failure = None;
        self.poisoned = false;
    }

    /// The next commit fails with `error` and changes nothing. [`StoreError::Failed`] poisons the store,
    /// as a failed disk does.
    pub fn fail_next_commit(&mut self, error: StoreError) {
        self.next_failure = Some(error);
    }

    /// From here on the core's handle answers [`StoreError::Poisoned`] until [`crash`](Self::crash), as
    /// after a failed sync.
    pub fn poison(&mut self) {
        self.poisoned = true;
    }

    /// Opens snapshots of what is synced, also later.
    pub fn reader(&self) -> MemoryReader {
        MemoryReader { durable: Arc::clone(&self.durable) }
    }

    /// What is synced now. O(1).
    pub fn view(&self) -> MemorySnapshot {
        self.reader().snapshot()
    }

    fn check(&self) -> Result<(), StoreError> {
        if self.poisoned { Err(StoreError::Poisoned) } else { Ok(()) }
    }
}

impl StateRead for MemoryStore {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.check()?;
        Ok(self.live.get(key))
    }

    fn scan(&self, from: &[u8], until: &[u8], limit: usize) -> Result<Vec<Row>, StoreError> {
        self.check()?;
        Ok(self.live.scan(from, until, limit))
    }
}

impl LogRead for MemoryStore {
    fn lane_entry(&self, space: &SpaceId, lane: &LaneId, lsn: u64) -> Result<Option<Vec<u8>>, StoreError> {
        self.check()?;
        Ok(self.live.entry(space, lane, lsn))
    }
}

impl Store for MemoryStore {
    fn commit(&mut self, batch: Batch) -> Result<Position, StoreError> {
        self.check()?;
        if let Some(error) = self.next_failure.take() {
            self.poisoned = matches!(error, StoreError::Failed { .. });
            return Err(error);
        }
        let change = Change::from(batch);
        self.live.apply(change.clone());
        self.unsynced.push_back(change);
        self.committed.0 += 1;
        Ok(self.committed)
    }

    fn lane_entries(
        &self,
        space: &SpaceId,
        lane: &LaneId,
        from: u64,
        bytes_max: usize,
    ) -> Result<Vec<(u64, Vec<u8>)>, StoreError> {
        self.check()?;
        let range = self.live.log.range(log_key(space, lane, from)..=log_key(space, lane, u64::MAX));
        let entries = range.map(|(key, entry)| Ok((lsn_of(key), Some(entry.to_vec()))));
        merge::run(entries, from, bytes_max)
    }
}

/// Opens snapshots of what a [`MemoryStore`] has synced.
#[derive(Clone, Debug)]
pub struct MemoryReader {
    durable: Arc<RwLock<Arc<Rows>>>,
}

impl MemoryReader {
    /// What is synced now. O(1).
    pub fn snapshot(&self) -> MemorySnapshot {
        let rows = self.durable.read().unwrap_or_else(PoisonError::into_inner);
        MemorySnapshot { rows: Arc::clone(&rows) }
    }
}

/// The state as one sync left it; it never changes and never expires.
#[derive(Clone, Debug)]
pub struct MemorySnapshot {
    rows: Arc<Rows>,
}

impl StateRead for MemorySnapshot {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.rows.get(key))
    }

    fn scan(&self, from: &[u8], until: &[u8], limit: usize) -> Result<Vec<Row>, StoreError> {
        Ok(self.rows.scan(from, until, limit))
    }
}

impl LogRead for MemorySnapshot {
    fn lane_entry(&self, space: &SpaceId, lane: &LaneId, lsn: u64) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.rows.entry(space, lane, lsn))
    }
}
