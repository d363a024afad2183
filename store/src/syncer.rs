//! Making what is committed durable: one record of the log for each sync. The database follows some groups later
//! without a sync of its own, and now and then with one, a checkpoint.

mod compaction;

use std::io;
use std::sync::Arc;

use comity_crdts::canary;
use comity_engine::{Position, StoreError};

use crate::data_file::Unsettled;
use crate::directory::DataDir;
use crate::durable::Durable;
use crate::embedded::Shared;
use crate::error::is_full;
use crate::format::{Loss, Replayed, begin_durable, begin_eventual};
use crate::generation::Generation;
use crate::health::describe;
use crate::layer::Layer;
use crate::log::LogWriter;
use crate::overlay::Flush;
use crate::snapshot::Base;
use crate::tables::Tables;
use compaction::Compaction;

/// The database follows when so many groups are ahead of it: each is looked through by every read.
const AHEAD_GROUPS_MAX: usize = 8;
/// Or so many rows, of which it takes so long that there is little to gain from waiting for more.
const AHEAD_ROWS_MAX: u64 = 256;
/// Or so many bytes of them.
pub(crate) const AHEAD_BYTES_MAX: u64 = 256 * 1024;
/// What one changed row may cost on disk besides its bytes: a copy of its leaf and of a branch.
const ROW_COPY_BYTES: u64 = 2 * 4096;
/// How much larger rows may become on disk: pages half full after splits, values rounded up to pages.
const ROW_GROWTH: u64 = 3;
/// What replaying takes for each row and for each byte of it, with the checkpoint at its end; measured with
/// `examples/store_bench.rs`.
const REPLAY_ROW_NS: u64 = 3_500;
const REPLAY_BYTE_NS: u64 = 10;

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

/// When the syncer does what.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Space left free.
    pub(crate) headroom_bytes: u64,
    /// How long replaying the log after a crash may take, about.
    pub(crate) replay_ns_max: u64,
    /// Bytes that only the log holds durably.
    pub(crate) dirty_bytes_max: u64,
}

/// What a copy of the database needs.
pub(crate) struct Copying {
    /// Where the data file is.
    pub(crate) dir: Box<dyn DataDir>,
    /// As of the data file that it is to replace.
    pub(crate) cache_bytes: usize,
    pub(crate) step_rows: u64,
    pub(crate) backlog_bytes_max: usize,
}

/// Rows and their bytes.
#[derive(Clone, Copy, Debug, Default)]
struct Amount {
    rows: u64,
    bytes: u64,
}

impl Amount {
    fn of(rows: usize, bytes: usize) -> Self {
        Self { rows: rows as u64, bytes: bytes as u64 }
    }

    fn of_layer(layer: &Layer) -> Self {
        Self::of(layer.row_count(), layer.bytes())
    }

    fn plus(self, other: Self) -> Self {
        Self { rows: self.rows + other.rows, bytes: self.bytes + other.bytes }
    }

    fn replay_ns(self) -> u64 {
        self.rows.saturating_mul(REPLAY_ROW_NS).saturating_add(self.bytes.saturating_mul(REPLAY_BYTE_NS))
    }
}

/// A group that is durable in the log and not in the database yet.
struct Ahead {
    layer: Arc<Layer>,
    /// How much of the log the database holds once it has this one.
    replayed: Replayed,
}

/// The storage thread's handle: runs the sync barrier. Dropping it loses what is not synced, and makes a
/// checkpoint.
pub struct Syncer {
    shared: Arc<Shared>,
    log: LogWriter,
    room: RoomProbe,
    limits: Limits,
    /// The oldest first.
    ahead: Vec<Ahead>,
    /// In the log and not in the last checkpoint.
    dirty: Amount,
    /// Taken from the overlay by a sync that found no space for it.
    waiting: Option<Flush>,
    copying: Copying,
    compaction: Option<Compaction>,
}

impl Syncer {
    pub(crate) fn new(
        shared: Arc<Shared>,
        log: LogWriter,
        room: RoomProbe,
        limits: Limits,
        copying: Copying,
    ) -> Self {
        let (ahead, dirty, waiting, compaction) = (Vec::new(), Amount::default(), None, None);
        Self { shared, log, room, limits, ahead, dirty, waiting, copying, compaction }
    }

    /// Makes everything committed so far durable with one write and one sync of the log, shows it to readers,
    /// and returns the last position it covers. Commits and reads go on meanwhile. Blocks: O(rows × log n)
    /// and the disk's own time.
    ///
    /// Does what [`maintain`](Self::maintain) would have done first, where that was not called; beyond that
    /// it touches no disk when nothing was committed since the last sync.
    ///
    /// # Errors
    /// [`StoreError::NoSpace`]: nothing was lost, reads and commits go on, and the next sync tries again. Any
    /// other error leaves open whether the group is on disk; from then on every handle answers
    /// [`StoreError::Poisoned`] until the store is opened again.
    pub fn sync(&mut self) -> Result<Position, StoreError> {
        match self.maintain() {
            // What is at hand may still do.
            Ok(()) | Err(StoreError::NoSpace) => {}
            Err(error) => return Err(error),
        }
        loop {
            let rest = self.shared.overlay.waiting();
            let rest = Amount::of(rest.rows, rest.bytes);
            let retried = self.waiting.take();
            let amount = retried.as_ref().map_or(rest, |flush| Amount::of_layer(&flush.layer));
            if amount.rows > 0
                && let Err(error) = self.settle().and_then(|()| self.check_room(amount))
            {
                self.waiting = retried;
                return Err(error);
            }
            let again = retried.is_some();
            let flush = match retried.map_or_else(|| self.shared.overlay.begin_flush(), Ok) {
                Ok(flush) => flush,
                Err(synced) => return Ok(synced),
            };
            let through = self.group(flush)?;
            if !again {
                return Ok(through);
            }
        }
    }

    /// Lets the database follow, makes a checkpoint and the log's next file where they are due, so that the next
    /// sync need not. Call it after having reported a sync. Cheap when nothing is due, else it blocks on the disk.
    ///
    /// # Errors
    /// [`StoreError::NoSpace`]: nothing was lost; the next call tries again. Any other error poisons the
    /// store as one of [`sync`](Self::sync) does.
    pub fn maintain(&mut self) -> Result<(), StoreError> {
        self.shared.health().check()?;
        self.settle()?;
        let ahead = self.ahead.iter().map(|ahead| Amount::of_layer(&ahead.layer));
        let ahead = ahead.fold(Amount::default(), Amount::plus);
        let is_far = self.ahead.len() >= AHEAD_GROUPS_MAX
            || ahead.rows >= AHEAD_ROWS_MAX
            || ahead.bytes >= AHEAD_BYTES_MAX;
        if is_far {
            self.follow()?;
        }
        self.follow_with_copy();
        let due = self.dirty.bytes >= self.limits.dirty_bytes_max
            || self.dirty.replay_ns() >= self.limits.replay_ns_max;
        if due {
            self.checkpoint()?;
        }
        if self.log.wants_spare() {
            let bytes = self.log.file_bytes();
            let fits = self.is_free(bytes) || (self.give_way() && self.is_free(bytes));
            if !fits {
                return Err(StoreError::NoSpace);
            }
            self.log.make_spare().map_err(|error| self.refused(&error))?;
        }
        Ok(())
    }

    /// Whether the database lacks groups that the log holds. Reads look for rows in those first, and
    /// [`follow`](Self::follow) makes that as fast as it gets.
    pub fn is_ahead(&self) -> bool {
        !self.ahead.is_empty()
    }

    /// Brings the database up to every group that is durable in the log. [`maintain`](Self::maintain) does it when
    /// there are several, so this is for when nothing else is to be done for a while. Blocks: O(rows × log n), without
    /// a sync.
    ///
    /// # Errors
    /// As [`maintain`](Self::maintain). What was synced is durable all the same.
    pub fn follow(&mut self) -> Result<(), StoreError> {
        self.shared.health().check()?;
        // What the database has not written yet comes first.
        self.settle()?;
        if self.ahead.is_empty() {
            return Ok(());
        }
        let shared = Arc::clone(&self.shared);
        let guard = shared.health().guard();
        let base = self.with_current(|current| follow(&shared, current, &self.ahead));
        let base = base.map_err(|error| failed(&error))?;
        let ahead = std::mem::take(&mut self.ahead);
        if let Some(Compaction::Copying(copy)) = &mut self.compaction {
            ahead.iter().for_each(|ahead| copy.follow(Arc::clone(&ahead.layer)));
        }
        let durable = Arc::new(Durable::new(Arc::new(base)));
        shared.overlay.rebase(Arc::clone(&durable));
        shared.published().republish(durable);
        guard.disarm();
        Ok(())
    }

    /// Writes one group.
    fn group(&mut self, flush: Flush) -> Result<Position, StoreError> {
        let shared = Arc::clone(&self.shared);
        let guard = shared.health().guard();
        let written = self.log.make_room(&flush.layer).and_then(|()| self.log.write());
        let written = match written {
            Ok(written) => written,
            Err(error) => {
                guard.disarm();
                self.waiting = Some(flush);
                return Err(self.refused(&error));
            }
        };
        let group = self.log.sync(&written).map_err(|error| log_failed(&error))?;
        let replayed = Replayed { group, file: self.log.number() };
        self.dirty = self.dirty.plus(Amount::of_layer(&flush.layer));
        self.ahead.push(Ahead { layer: flush.layer, replayed });
        let mut durable = shared.overlay.end_flush(flush.through);
        if canary!(RecentNotShown) {
            durable = Arc::new(Durable::new(Arc::clone(durable.base())));
        }
        shared.published().publish(flush.through, durable);
        guard.disarm();
        Ok(flush.through)
    }

    /// What the log could not do for want of space, before any sync, is missed by nobody and can be tried again.
    fn refused(&self, error: &io::Error) -> StoreError {
        if is_full(error) {
            return StoreError::NoSpace;
        }
        self.shared.health().poison();
        log_failed(error)
    }

    /// Writes what the disk had no room for when the database wrote it. The log has those groups.
    fn settle(&self) -> Result<(), StoreError> {
        let settled = self.with_current(|current| current.file.settle());
        settled.map_err(|unsettled| match unsettled {
            Unsettled::NoSpace => StoreError::NoSpace,
            Unsettled::Failed(error) => {
                self.shared.health().poison();
                StoreError::Failed { detail: format!("the database: {error}") }
            }
        })
    }

    /// Makes the database durable as it is. Every group in it was synced in the log before.
    fn checkpoint(&mut self) -> Result<(), StoreError> {
        if !canary!(LogGoneBeforeDatabase) {
            self.follow()?;
        }
        let shared = Arc::clone(&self.shared);
        let guard = shared.health().guard();
        let commit = || {
            let transaction = self.with_current(|current| begin_durable(&current.database))?;
            Loss::remove(&transaction)?;
            Ok(transaction.commit()?)
        };
        commit().map_err(|error: redb::Error| failed(&error))?;
        guard.disarm();
        // On a full disk the commit waits in memory. Until it is made, the log's files are needed.
        self.settle()?;
        self.dirty = Amount::default();
        self.log.remove_sealed().map_err(|error| self.refused(&error))
    }

    /// What has no room waits in memory, so a full disk should be noticed before. What the database has not
    /// written yet needs space as well.
    fn check_room(&mut self, amount: Amount) -> Result<(), StoreError> {
        if self.has_room(amount.plus(self.dirty)) {
            return Ok(());
        }
        if self.give_way() && self.has_room(amount.plus(self.dirty)) {
            return Ok(());
        }
        if self.dirty.rows > 0 {
            // There was room for these rows when they were taken.
            self.checkpoint()?;
            if self.has_room(amount) {
                return Ok(());
            }
        }
        Err(StoreError::NoSpace)
    }

    /// Compares with the most that writing may take. Copies of unchanged rows cannot exceed what is there.
    fn has_room(&self, amount: Amount) -> bool {
        self.is_free_of(|room| {
            let copies = amount.rows.saturating_mul(ROW_COPY_BYTES).min(room.used);
            copies.saturating_add(amount.bytes.saturating_mul(ROW_GROWTH))
        })
    }

    /// Whether so much can be written and the headroom is left. Taken to be so where nobody says.
    fn is_free(&self, bytes: u64) -> bool {
        self.is_free_of(|_| bytes)
    }

    fn is_free_of(&self, bytes: impl FnOnce(&Room) -> u64) -> bool {
        let room = (self.room)();
        room.is_none_or(|room| room.free >= bytes(&room).saturating_add(self.limits.headroom_bytes))
    }
}

impl Drop for Syncer {
    fn drop(&mut self) {
        if self.compaction.take().is_some() {
            // Or the next opening does.
            let _ = self.copying.dir.remove_copy();
        }
        if self.dirty.rows > 0 && self.shared.health().check().is_ok() {
            // Without it the next opening replays the log.
            let _ = self.settle().and_then(|()| self.checkpoint());
        }
    }
}

impl std::fmt::Debug for Syncer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Syncer").finish_non_exhaustive()
    }
}

/// Brings the database up to groups that are durable in the log, and returns the base that holds them.
fn follow(shared: &Shared, current: &Generation, ahead: &[Ahead]) -> Result<Base, redb::Error> {
    let transaction = begin_eventual(&current.database)?;
    let mut tables = Tables::open(&transaction)?;
    let layers: Vec<_> = ahead.iter().map(|ahead| &*ahead.layer).collect();
    let left_out = if canary!(FollowedInPart) { layers.len() - 1 } else { 0 };
    tables.follow(&layers[left_out..])?;
    drop(tables);
    if let Some(last) = ahead.last() {
        last.replayed.write(&transaction)?;
    }
    transaction.commit()?;
    Base::open(current, shared.health())
}

fn failed(error: &redb::Error) -> StoreError {
    match error {
        redb::Error::Corrupted(detail) => describe(&redb::StorageError::Corrupted(detail.clone())),
        error => StoreError::Failed { detail: error.to_string() },
    }
}

fn log_failed(error: &io::Error) -> StoreError {
    StoreError::Failed { detail: format!("the log: {error}") }
}
