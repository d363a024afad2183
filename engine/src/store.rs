//! What the core asks of storage: a log of record and an ordered key–value state, committed together.
//!
//! `commit` makes a batch visible to the core at once and durable later: the driver runs the sync barrier
//! on its own thread and reports how far it got as an input. Nothing that depends on a batch leaves the
//! process before then.

use comity_crdts::{LaneId, SpaceId};

/// The number of a committed batch since the store was opened; the first is 1. A completed sync covers
/// every batch up to a position.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position(pub u64);

/// One entry of a lane, as appended to the log of record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LaneRecord {
    /// The space the lane is in.
    pub space: SpaceId,
    /// The lane.
    pub lane: LaneId,
    /// The entry's place in its lane, from 1.
    pub lsn: u64,
    /// The entry in its stored form.
    pub bytes: Vec<u8>,
}

/// Consecutive entries of a lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LaneSpan {
    /// The space the lane is in.
    pub space: SpaceId,
    /// The lane.
    pub lane: LaneId,
    /// The first of them.
    pub first: u64,
    /// How many there are.
    pub count: u64,
}

/// A change to the state: the key, and its new value or `None` to delete it.
pub type Put = (Vec<u8>, Option<Vec<u8>>);

/// What one call into the core changes; applied as a whole or not at all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// Lane entries, in the order applied here; and entries that are removed.
    pub entries: Vec<LaneRecord>,
    /// Entries that are not kept any longer. Who appends one of them in the same batch contradicts itself.
    pub dropped: Vec<LaneSpan>,
    /// Puts that do not derive from entries: keys, pins, invitations, nonces, quarantines. They belong to
    /// the log of record.
    pub facts: Vec<Put>,
    /// Puts that replaying the entries would make again.
    pub state: Vec<Put>,
}

impl Batch {
    /// Whether the batch changes nothing.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty() && self.dropped.is_empty() && self.facts.is_empty() && self.state.is_empty()
    }
}

/// Why storage could not answer. The environment's fault.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The disk is full. Nothing was lost; reads go on, and what was refused can be tried again.
    #[error("no space left for the data of this replica")]
    NoSpace,
    /// More is committed and not yet synced than is kept in memory. Nothing was changed; try again after a sync.
    #[error("the disk does not keep up with the writes")]
    Overloaded,
    /// Reading or writing failed. Nothing later is trusted until the store is reopened.
    #[error("storage failed: {detail}")]
    Failed {
        /// What the operating system or the database said.
        detail: String,
    },
    /// A sync failed earlier, so what is on disk is unknown. Reopen the replica.
    #[error("storage failed earlier and must be reopened")]
    Poisoned,
    /// What was read is not what was written.
    #[error("stored data is damaged: {detail}")]
    Corrupt {
        /// What was being read.
        detail: String,
    },
    /// The core's rows were written by another version than this build knows. Nothing was changed.
    #[error("the stored rows have version {found}; this build reads version {supported}")]
    Version {
        /// The version found; 1 where none is written.
        found: u8,
        /// The version this build reads and writes.
        supported: u8,
    },
    /// The state of the space is being replaced by that of another replica, so that nothing of it can be read for now.
    #[error("the state of space {0} is being installed")]
    Installing(SpaceId),
    /// The space is not held here: it was deleted, or never was.
    #[error("space {0} is not held here")]
    UnknownSpace(SpaceId),
    /// A view was kept longer than allowed. Open a new one.
    #[error("the view expired; open a new one")]
    ViewExpired,
}

/// A key with its value.
pub type Row = (Vec<u8>, Vec<u8>);

/// Reading the ordered state.
pub trait StateRead {
    /// The value under `key`. O(log n).
    ///
    /// # Errors
    /// [`StoreError`] when storage fails.
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError>;

    /// At most `limit` rows with `from <= key < until`, in key order. O(log n + rows).
    ///
    /// # Errors
    /// [`StoreError`] when storage fails.
    fn scan(&self, from: &[u8], until: &[u8], limit: usize) -> Result<Vec<Row>, StoreError>;
}

/// Rows that [`each_row`] reads at a time.
pub(crate) const PAGE_ROWS: usize = 512;

/// Does something with every row of a range. O(rows), a page at a time.
pub(crate) fn each_row(
    read: &dyn StateRead,
    (mut from, until): (Vec<u8>, Vec<u8>),
    mut visit: impl FnMut(Row) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    loop {
        let rows = read.scan(&from, &until, PAGE_ROWS)?;
        let is_last = rows.len() < PAGE_ROWS;
        if let Some((last, _)) = rows.last() {
            from.clone_from(last);
            from.push(0);
        }
        rows.into_iter().try_for_each(&mut visit)?;
        if is_last {
            return Ok(());
        }
    }
}

/// Reading the log of record together with the state, both as of one moment.
pub trait LogRead: StateRead {
    /// The stored form of one lane entry; `None` when it is not kept. O(log n).
    ///
    /// # Errors
    /// [`StoreError`] when storage fails.
    fn lane_entry(&self, space: &SpaceId, lane: &LaneId, lsn: u64) -> Result<Option<Vec<u8>>, StoreError>;
}

/// The core's own handle on storage. It sees every committed batch, synced or not.
pub trait Store: LogRead {
    /// Applies a batch: visible to this handle at once, durable after a sync that covers the returned
    /// position. Cheap: no disk access.
    ///
    /// # Errors
    /// [`StoreError`]; the batch was not applied.
    fn commit(&mut self, batch: Batch) -> Result<Position, StoreError>;

    /// Consecutive entries of a lane from `from` on, in their stored form: as many as fit `bytes_max`, but
    /// at least one where there is one.
    ///
    /// # Errors
    /// [`StoreError`] when storage fails.
    fn lane_entries(
        &self,
        space: &SpaceId,
        lane: &LaneId,
        from: u64,
        bytes_max: usize,
    ) -> Result<Vec<(u64, Vec<u8>)>, StoreError>;
}
