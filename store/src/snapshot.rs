//! Reading the last synced group, from any thread.

use std::ops::Bound;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use comity_crdts::{LaneId, SpaceId};
use comity_engine::{LogRead, Position, Row, StateRead, StoreError};
use redb::{ReadOnlyTable, ReadableDatabase, ReadableTableMetadata};

use crate::durable::Durable;
use crate::format::{LOG, LogKey, STATE, log_key, lsn_of};
use crate::generation::Generation;
use crate::health::Health;
use crate::merge::{Sourced, rows};

/// Bounds the age of a snapshot, so that computing its end cannot overflow the clock.
const VIEW_AGE_LIMIT: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// The database as one sync left it. Its pages are kept for as long as it lives.
pub(crate) struct Base {
    state: ReadOnlyTable<&'static [u8], &'static [u8]>,
    log: ReadOnlyTable<&'static LogKey, &'static [u8]>,
    health: Arc<Health>,
    /// Keeps the generation from being closed; after the tables, so that they are dropped before.
    _user: Arc<()>,
}

impl Base {
    /// The database as it is now.
    pub(crate) fn open(generation: &Generation, health: &Arc<Health>) -> Result<Self, redb::Error> {
        let transaction = generation.database.begin_read()?;
        let (state, log) = (transaction.open_table(STATE)?, transaction.open_table(LOG)?);
        Ok(Self { state, log, health: Arc::clone(health), _user: Arc::clone(&generation.users) })
    }

    pub(crate) fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        let found = self.state.get(key).map_err(|error| self.health.read_failed(&error))?;
        Ok(found.map(|value| value.value().to_vec()))
    }

    /// Needs `from < until`.
    pub(crate) fn scan<'a>(
        &'a self,
        from: &[u8],
        until: &[u8],
    ) -> Result<impl Iterator<Item = Sourced<Vec<u8>>> + use<'a>, StoreError> {
        let range =
            self.state.range::<&[u8]>(from..until).map_err(|error| self.health.read_failed(&error))?;
        Ok(range.map(|row| match row {
            Ok((key, value)) => Ok((key.value().to_vec(), Some(value.value().to_vec()))),
            Err(error) => Err(self.health.read_failed(&error)),
        }))
    }

    /// How many rows there are in both tables. O(1).
    pub(crate) fn rows(&self) -> Result<u64, StoreError> {
        let count = self.state.len().and_then(|state| Ok(state + self.log.len()?));
        count.map_err(|error| self.health.read_failed(&error))
    }

    /// Every row of the state after a key, in key order.
    pub(crate) fn state_after<'a>(
        &'a self,
        after: Option<&[u8]>,
    ) -> Result<impl Iterator<Item = Result<Row, StoreError>> + use<'a>, StoreError> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let range = self.state.range::<&[u8]>((from, Bound::Unbounded));
        Ok(range.map_err(|error| self.health.read_failed(&error))?.map(|row| match row {
            Ok((key, value)) => Ok((key.value().to_vec(), value.value().to_vec())),
            Err(error) => Err(self.health.read_failed(&error)),
        }))
    }

    /// Every entry after a key, in key order.
    pub(crate) fn log_after<'a>(
        &'a self,
        after: Option<&LogKey>,
    ) -> Result<impl Iterator<Item = Result<(LogKey, Vec<u8>), StoreError>> + use<'a>, StoreError> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let range = self.log.range::<&LogKey>((from, Bound::Unbounded));
        Ok(range.map_err(|error| self.health.read_failed(&error))?.map(|row| match row {
            Ok((key, entry)) => Ok((*key.value(), entry.value().to_vec())),
            Err(error) => Err(self.health.read_failed(&error)),
        }))
    }

    pub(crate) fn entry(
        &self,
        space: &SpaceId,
        lane: &LaneId,
        lsn: u64,
    ) -> Result<Option<Vec<u8>>, StoreError> {
        let key = log_key(space, lane, lsn);
        let found = self.log.get(&key).map_err(|error| self.health.read_failed(&error))?;
        Ok(found.map(|entry| entry.value().to_vec()))
    }

    /// The entries of a lane from `from` on.
    pub(crate) fn lane<'a>(
        &'a self,
        space: &SpaceId,
        lane: &LaneId,
        from: u64,
    ) -> Result<impl Iterator<Item = Sourced<u64>> + use<'a>, StoreError> {
        let (first, last) = (log_key(space, lane, from), log_key(space, lane, u64::MAX));
        let range =
            self.log.range::<&LogKey>(&first..=&last).map_err(|error| self.health.read_failed(&error))?;
        Ok(range.map(|row| match row {
            Ok((key, entry)) => Ok((lsn_of(key.value()), Some(entry.value().to_vec()))),
            Err(error) => Err(self.health.read_failed(&error)),
        }))
    }
}

/// What was durable at one moment, which can be taken away from the snapshots of it once they have all expired.
struct Slot {
    position: Position,
    durable: RwLock<Option<Arc<Durable>>>,
}

/// A superseded one that snapshots still hold, and when the last of them expires.
struct Retired {
    expires: Instant,
    slot: Arc<Slot>,
}

/// What the storage thread shares with readers.
pub(crate) struct Published {
    current: RwLock<Arc<Slot>>,
    retired: Mutex<Vec<Retired>>,
    view_age_max: Duration,
    health: Arc<Health>,
}

impl Published {
    pub(crate) fn new(durable: Arc<Durable>, view_age_max: Duration, health: Arc<Health>) -> Self {
        let slot = Slot { position: Position(0), durable: RwLock::new(Some(durable)) };
        let (current, retired) = (RwLock::new(Arc::new(slot)), Mutex::default());
        Self { current, retired, view_age_max: view_age_max.min(VIEW_AGE_LIMIT), health }
    }

    /// Shows readers what is durable now, and lets go of what only expired snapshots hold. O(what snapshots hold).
    pub(crate) fn publish(&self, position: Position, durable: Arc<Durable>) {
        self.supersede(|_| position, durable);
    }

    /// As [`Published::publish`], of what holds the same as before.
    pub(crate) fn republish(&self, durable: Arc<Durable>) {
        self.supersede(|current| current.position, durable);
    }

    fn supersede(&self, position: impl FnOnce(&Slot) -> Position, durable: Arc<Durable>) {
        let superseded = {
            let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
            let slot = Arc::new(Slot { position: position(&current), durable: RwLock::new(Some(durable)) });
            std::mem::replace(&mut *current, slot)
        };
        let retired = Retired { expires: Instant::now() + self.view_age_max, slot: superseded };
        self.retired.lock().unwrap_or_else(PoisonError::into_inner).push(retired);
        self.let_go();
    }

    /// Lets go of what only expired snapshots hold.
    pub(crate) fn let_go(&self) {
        let now = Instant::now();
        let mut retired = self.retired.lock().unwrap_or_else(PoisonError::into_inner);
        retired.retain(|retired| {
            if retired.expires <= now {
                retired.slot.durable.write().unwrap_or_else(PoisonError::into_inner).take();
                return false;
            }
            // The only other holders are snapshots, and nobody can make one of a superseded slot.
            Arc::strong_count(&retired.slot) > 1
        });
    }
}

/// Opens snapshots of what is synced. Cheap to clone; never waits for writers. It does not keep the store
/// open.
#[derive(Clone)]
pub struct Reader {
    published: Arc<Published>,
}

impl Reader {
    pub(crate) fn new(published: Arc<Published>) -> Self {
        Self { published }
    }

    /// The state as the last completed sync left it. O(1), no disk access.
    ///
    /// # Errors
    /// [`StoreError::Poisoned`] after a failure, [`StoreError::Failed`] once the store is closed.
    pub fn snapshot(&self) -> Result<Snapshot, StoreError> {
        self.published.health.check()?;
        // Read before the slot, so that the slot never expires before the snapshot.
        let expires = Instant::now() + self.published.view_age_max;
        let slot = Arc::clone(&self.published.current.read().unwrap_or_else(PoisonError::into_inner));
        Ok(Snapshot { slot, expires, health: Arc::clone(&self.published.health) })
    }
}

impl Reader {
    /// As [`Reader::snapshot`], and for as long as it is kept: none of what it shows is given back until it is dropped.
    ///
    /// # Errors
    /// As [`Reader::snapshot`].
    pub fn keep(&self) -> Result<KeptSnapshot, StoreError> {
        let snapshot = self.snapshot()?;
        Ok(KeptSnapshot { durable: snapshot.durable()?, health: snapshot.health })
    }
}

/// The state as one sync left it, which does not expire. Whoever keeps one keeps its pages from being used again, so
/// there should be few, and none for long.
#[derive(Clone)]
pub struct KeptSnapshot {
    durable: Arc<Durable>,
    health: Arc<Health>,
}

impl StateRead for KeptSnapshot {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.health.check()?;
        self.durable.get(key)
    }

    fn scan(&self, from: &[u8], until: &[u8], limit: usize) -> Result<Vec<Row>, StoreError> {
        self.health.check()?;
        if from >= until {
            return Ok(Vec::new());
        }
        rows(self.durable.scan(from, until)?, limit)
    }
}

impl LogRead for KeptSnapshot {
    fn lane_entry(&self, space: &SpaceId, lane: &LaneId, lsn: u64) -> Result<Option<Vec<u8>>, StoreError> {
        self.health.check()?;
        self.durable.entry(space, lane, lsn)
    }
}

impl std::fmt::Debug for KeptSnapshot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KeptSnapshot").finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Reader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reader").finish_non_exhaustive()
    }
}

/// The state as one sync left it; it never changes. Snapshots taken between two syncs share what they
/// hold.
///
/// It expires [`StoreOptions::view_age_max`](crate::StoreOptions::view_age_max) after it was opened:
/// every read then fails with [`StoreError::ViewExpired`], and the next sync reclaims its pages even if it
/// is never dropped.
#[derive(Clone)]
pub struct Snapshot {
    slot: Arc<Slot>,
    expires: Instant,
    health: Arc<Health>,
}

impl Snapshot {
    /// The last batch in it; zero for what was there when the store was opened.
    pub fn position(&self) -> Position {
        self.slot.position
    }

    pub(crate) fn durable(&self) -> Result<Arc<Durable>, StoreError> {
        self.health.check()?;
        if Instant::now() >= self.expires {
            return Err(StoreError::ViewExpired);
        }
        let durable = self.slot.durable.read().unwrap_or_else(PoisonError::into_inner);
        durable.clone().ok_or(StoreError::ViewExpired)
    }
}

impl StateRead for Snapshot {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.durable()?.get(key)
    }

    fn scan(&self, from: &[u8], until: &[u8], limit: usize) -> Result<Vec<Row>, StoreError> {
        let durable = self.durable()?;
        if from >= until {
            return Ok(Vec::new());
        }
        rows(durable.scan(from, until)?, limit)
    }
}

impl LogRead for Snapshot {
    fn lane_entry(&self, space: &SpaceId, lane: &LaneId, lsn: u64) -> Result<Option<Vec<u8>>, StoreError> {
        self.durable()?.entry(space, lane, lsn)
    }
}

impl std::fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Snapshot").field("position", &self.slot.position).finish_non_exhaustive()
    }
}
