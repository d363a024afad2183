//! Compacting, a step at a time between two syncs.

use std::sync::{Arc, MutexGuard};

use redb::StorageBackend;

use super::{Amount, Syncer, failed};
use crate::compact::{CompactError, CompactReport};
use crate::copy::{Copy, UNSYNCED_BYTES_MAX};
use crate::durable::Durable;
use crate::format::Replayed;
use crate::generation::{Generation, Generations};
use crate::snapshot::Base;

/// A compaction under way.
pub(super) enum Compaction {
    Copying(Box<Copy>),
    /// Ended by a sync, which does not say so.
    Ended(CompactError),
}

impl Syncer {
    /// Whether a compaction is under way that [`compact_step`](Self::compact_step) has not brought to its end.
    pub fn is_compacting(&self) -> bool {
        self.compaction.is_some()
    }

    /// Goes on with compacting, or begins it: copies the next rows into a new file, and once it has all of
    /// them lets that take the place of the data file. Other calls may come between two steps, and syncs
    /// need not wait for more than one; `None` says that there is more to do. Snapshots from before go on
    /// reading the file from before, which is gone once the last of them is dropped or expired and
    /// [`reclaim`](Self::reclaim) was called.
    ///
    /// Blocks: for [`StoreOptions::compact_step_rows`](crate::StoreOptions::compact_step_rows) and now and then a sync of 16 MiB; the last step two syncs
    /// of what the one before left. In all O(rows), with as much space as the rows take, and every row that
    /// is written meanwhile is written twice.
    ///
    /// # Errors
    /// [`CompactError`]; nothing is under way then, and the store holds what it held. When the space it needs
    /// is wanted by a sync, the compaction gives way with [`CompactError::NoSpace`]. Only
    /// [`CompactError::Store`] says that the store failed.
    pub fn compact_step(&mut self) -> Result<Option<CompactReport>, CompactError> {
        self.shared.health().check()?;
        // The copy takes in what the database does, and in the end has to be as far as the log.
        let followed = self.follow();
        let step = match (followed, self.compaction.take()) {
            (Err(error), _) => Err(error.into()),
            (Ok(()), Some(Compaction::Ended(error))) => Err(error),
            (Ok(()), Some(Compaction::Copying(copy))) => self.copy_more(copy),
            (Ok(()), None) => self.begin_copy(),
        };
        if step.is_err() {
            self.drop_copy();
        }
        step
    }

    /// Compacts to the end; see [`compact_step`](Self::compact_step). Syncs wait.
    ///
    /// # Errors
    /// [`CompactError`].
    pub fn compact(&mut self) -> Result<CompactReport, CompactError> {
        loop {
            if let Some(report) = self.compact_step()? {
                return Ok(report);
            }
        }
    }

    /// Closes files from before a compaction that no snapshot needs any more, which gives their space back.
    /// Whether some are left; they are needed no longer than
    /// [`StoreOptions::view_age_max`](crate::StoreOptions::view_age_max) after the compaction.
    pub fn reclaim(&mut self) -> bool {
        self.shared.published().let_go();
        self.generations().reclaim()
    }

    fn begin_copy(&mut self) -> Result<Option<CompactReport>, CompactError> {
        let length = self.generations().current.file.len().map_err(|error| CompactError::copy(&error))?;
        if !self.is_free(UNSYNCED_BYTES_MAX) {
            return Err(CompactError::NoSpace);
        }
        let copy = Copy::create(&*self.copying.dir, length)?;
        self.compaction = Some(Compaction::Copying(Box::new(copy)));
        Ok(None)
    }

    fn copy_more(&mut self, mut copy: Box<Copy>) -> Result<Option<CompactReport>, CompactError> {
        if !self.is_free(UNSYNCED_BYTES_MAX) {
            return Err(CompactError::NoSpace);
        }
        copy.catch_up()?;
        if copy.is_whole() {
            return self.install(*copy).map(Some);
        }
        let base = Arc::clone(self.shared.overlay.view().durable.base());
        copy.portion(&base, self.copying.step_rows)?;
        self.compaction = Some(Compaction::Copying(copy));
        Ok(None)
    }

    /// Lets the copy, which holds everything that the database does, take its place.
    fn install(&mut self, copy: Copy) -> Result<CompactReport, CompactError> {
        let (live, bytes_before) = (copy.live(), copy.bytes_before);
        let replayed = Replayed { group: self.log.synced(), file: self.log.number() };
        let next = copy.seal(&*self.copying.dir, replayed, self.copying.cache_bytes)?;
        let shared = Arc::clone(&self.shared);
        let base = Base::open(&next, shared.health()).map_err(CompactError::database)?;
        let bytes_after = next.file.len().map_err(|error| CompactError::copy(&error))?;
        self.copying.dir.install_copy().map_err(|error| CompactError::copy(&error))?;
        // Which of the two files has the name is not known until the directory is synced.
        let guard = shared.health().guard();
        self.copying.dir.sync().map_err(|error| CompactError::Store(failed(&redb::Error::Io(error))))?;
        next.file.allow_backlog(self.copying.backlog_bytes_max);
        let durable = Arc::new(Durable::new(Arc::new(base)));
        self.generations().replace(next);
        shared.overlay.rebase(Arc::clone(&durable));
        shared.published().republish(durable);
        guard.disarm();
        // It was as good as a checkpoint.
        self.dirty = Amount::default();
        self.log.remove_sealed().map_err(|error| CompactError::Store(self.refused(&error)))?;
        self.reclaim();
        Ok(CompactReport { bytes_before, bytes_after, live_bytes: live.bytes, live_rows: live.rows })
    }

    /// Brings the copy up to the last group, so that few wait for it.
    pub(super) fn follow_with_copy(&mut self) {
        let Some(Compaction::Copying(copy)) = &mut self.compaction else { return };
        if let Err(error) = copy.catch_up() {
            self.end_compaction(error);
        }
    }

    /// Gives the space of the copy back for something more important. Whether there was one.
    pub(super) fn give_way(&mut self) -> bool {
        let copies = matches!(self.compaction, Some(Compaction::Copying(_)));
        if copies {
            self.end_compaction(CompactError::NoSpace);
        }
        copies
    }

    fn end_compaction(&mut self, error: CompactError) {
        self.compaction = Some(Compaction::Ended(error));
        self.drop_copy();
    }

    /// Removes the file of a copy that is not under way any more.
    fn drop_copy(&self) {
        // It would only take space; the next compaction or opening removes it otherwise.
        let _ = self.copying.dir.remove_copy();
    }

    pub(super) fn generations(&self) -> MutexGuard<'_, Generations> {
        self.shared.generations()
    }

    /// The generation that is written.
    pub(super) fn with_current<R>(&self, with: impl FnOnce(&Generation) -> R) -> R {
        with(&self.generations().current)
    }
}
