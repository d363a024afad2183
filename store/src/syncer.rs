//! Writing what is committed into the database, one durable transaction per sync.

use std::sync::Arc;

use comity_engine::{Position, StoreError};

use crate::embedded::Shared;
use crate::format::{LOG, STATE, begin_durable};
use crate::health::describe;
use crate::layer::Layer;
use crate::overlay::Waiting;
use crate::snapshot::Base;

/// What one changed row may cost on disk besides its bytes: a copy of its leaf and of a branch.
const ROW_COPY_BYTES: u64 = 2 * 4096;
/// How much larger rows may become on disk: pages half full after splits, values rounded up to pages.
const ROW_GROWTH: u64 = 3;

/// The space on the disk, in bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Room {
    /// What may still be written.
    pub(crate) free: u64,
    /// The length of the data file.
    pub(crate) used: u64,
}

/// Asks how much space there is; `None` where the operating system does not say.
pub(crate) type RoomProbe = Box<dyn Fn() -> Option<Room> + Send>;

/// The storage thread's handle: runs the sync barrier. Dropping it loses what is not synced.
pub struct Syncer {
    shared: Arc<Shared>,
    room: RoomProbe,
    headroom_bytes: u64,
}

impl Syncer {
    pub(crate) fn new(shared: Arc<Shared>, room: RoomProbe, headroom_bytes: u64) -> Self {
        Self { shared, room, headroom_bytes }
    }

    /// Makes everything committed so far durable in one transaction, shows it to readers, and returns the
    /// last position it covers. Commits and reads go on meanwhile. Touches no disk when nothing was
    /// committed since the last sync. Blocks: O(rows × log n) and the disk's own time.
    ///
    /// # Errors
    /// [`StoreError::NoSpace`] when the disk could be too full for it: nothing was written and nothing is
    /// lost, reads go on, and the next call tries again. Any other failure poisons the store, because
    /// the database refuses everything after one and what is on the disk is unknown: every handle answers
    /// [`StoreError::Poisoned`] until the store is opened again.
    pub fn sync(&mut self) -> Result<Position, StoreError> {
        let shared = &self.shared;
        shared.health().check()?;
        self.check_room(&shared.overlay.waiting())?;
        let flush = match shared.overlay.begin_flush() {
            Ok(flush) => flush,
            Err(synced) => return Ok(synced),
        };
        let guard = shared.health().guard();
        let base = write(shared, &flush.layer).map_err(failed)?;
        let base = Arc::new(base);
        shared.overlay.end_flush(flush.through, Arc::clone(&base));
        shared.published().publish(flush.through, base);
        guard.disarm();
        Ok(flush.through)
    }

    /// redb latches the first failed write for good, so a full disk has to be noticed before it.
    fn check_room(&self, waiting: &Waiting) -> Result<(), StoreError> {
        if waiting.rows == 0 {
            return Ok(());
        }
        let full = (self.room)().is_some_and(|room| room.free < self.room_needed(waiting, room.used));
        if full { Err(StoreError::NoSpace) } else { Ok(()) }
    }

    /// The most that writing may take. Copies of unchanged rows cannot exceed what is there.
    fn room_needed(&self, waiting: &Waiting, used: u64) -> u64 {
        let copies = (waiting.rows as u64).saturating_mul(ROW_COPY_BYTES).min(used);
        let rows = (waiting.bytes as u64).saturating_mul(ROW_GROWTH);
        copies.saturating_add(rows).saturating_add(self.headroom_bytes)
    }
}

impl std::fmt::Debug for Syncer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Syncer").finish_non_exhaustive()
    }
}

/// Writes a layer durably and returns the base that holds it.
fn write(shared: &Shared, layer: &Layer) -> Result<Base, redb::Error> {
    let transaction = begin_durable(&shared.database)?;
    {
        let mut log = transaction.open_table(LOG)?;
        for (key, entry) in layer.entries() {
            log.insert(key, entry)?;
        }
        let mut state = transaction.open_table(STATE)?;
        for (key, value) in layer.puts() {
            match value {
                Some(value) => drop(state.insert(key, value)?),
                None => drop(state.remove(key)?),
            }
        }
    }
    transaction.commit()?;
    Base::open(&shared.database, shared.health())
}

fn failed(error: redb::Error) -> StoreError {
    match error {
        redb::Error::Corrupted(detail) => describe(&redb::StorageError::Corrupted(detail)),
        error => StoreError::Failed { detail: error.to_string() },
    }
}
