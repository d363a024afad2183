//! Copying the database into a new file, a portion at a time, while groups go on being written.
//!
//! All rows have one order: the log's, then the state's. The copy holds every row up to its place in that order
//! as the last group it was told of left it, and no other row. A portion is read from the database as it is when
//! it is copied, so nothing is kept for the copy's sake, and what a group changes beyond the place is copied later.

use std::sync::Arc;

use comity_engine::StoreError;
use redb::{Builder, CursorError, Database, WriteTransaction};

use crate::compact::CompactError;
use crate::data_file::DataFile;
use crate::directory::DataDir;
use crate::error::OpenError;
use crate::format::{self, LogKey, Replayed, begin_durable, begin_eventual};
use crate::generation::Generation;
use crate::layer::Layer;
use crate::log::{Change, layer_changes};
use crate::snapshot::Base;
use crate::tables::Tables;

/// A portion ends with so many bytes. A few milliseconds.
const PORTION_BYTES_MAX: u64 = 512 * 1024;
/// The copy is synced whenever so much was written into it, so that no sync takes long.
pub(crate) const UNSYNCED_BYTES_MAX: u64 = 16 * 1024 * 1024;
/// Memory for pages of the copy while it is made.
const CACHE_BYTES: usize = 16 * 1024 * 1024;

/// How far the rows are copied.
enum Place {
    /// Up to this key of the log.
    Log(Option<LogKey>),
    /// All of the log, and up to this key of the state.
    State(Option<Vec<u8>>),
    End,
}

impl Place {
    fn covers(&self, change: &Change<'_>) -> bool {
        match (self, change) {
            (Self::Log(last), Change::Entry(key, _)) => last.as_ref().is_some_and(|last| *key <= last),
            (Self::Log(last), Change::Drop(key)) => last.as_ref().is_some_and(|last| key <= last),
            (Self::Log(_), Change::Put(..)) => false,
            (Self::State(_) | Self::End, Change::Entry(..) | Change::Drop(_))
            | (Self::End, Change::Put(..)) => true,
            (Self::State(last), Change::Put(key, _)) => {
                last.as_ref().is_some_and(|last| *key <= last.as_slice())
            }
        }
    }
}

/// Rows and their bytes, keys included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Live {
    pub(crate) rows: u64,
    pub(crate) bytes: u64,
}

/// A copy that is being made.
pub(crate) struct Copy {
    database: Database,
    file: DataFile,
    place: Place,
    /// Written to the database and not yet here.
    groups: Vec<Arc<Layer>>,
    unsynced: u64,
    live: Live,
    pub(crate) bytes_before: u64,
}

impl Copy {
    /// An empty copy, in a new file.
    pub(crate) fn create(dir: &dyn DataDir, bytes_before: u64) -> Result<Self, CompactError> {
        let file = dir.create_copy().map_err(|error| CompactError::copy(&error))?;
        let database = Builder::new().set_cache_size(CACHE_BYTES).create_with_backend(file.clone());
        let database = database.map_err(|error| CompactError::database(error.into()))?;
        format::initialise(&database).map_err(CompactError::database)?;
        let (groups, live) = Default::default();
        Ok(Self { database, file, place: Place::Log(None), groups, unsynced: 0, live, bytes_before })
    }

    /// Takes in a group that the database holds from now on.
    pub(crate) fn follow(&mut self, layer: Arc<Layer>) {
        self.groups.push(layer);
    }

    pub(crate) fn is_whole(&self) -> bool {
        matches!(self.place, Place::End) && self.groups.is_empty()
    }

    pub(crate) fn live(&self) -> Live {
        self.live
    }

    /// Applies the groups that were taken in, as far as the copy goes. O(their rows × log n).
    pub(crate) fn catch_up(&mut self) -> Result<(), CompactError> {
        if self.groups.is_empty() {
            return Ok(());
        }
        let transaction = self.begin()?;
        let groups = std::mem::take(&mut self.groups);
        self.apply(&transaction, &groups).map_err(CompactError::database)?;
        transaction.commit().map_err(|error| CompactError::database(error.into()))
    }

    fn apply(&mut self, transaction: &WriteTransaction, groups: &[Arc<Layer>]) -> Result<(), redb::Error> {
        let mut tables = Tables::open(transaction)?;
        for change in groups.iter().flat_map(|layer| layer_changes(layer)) {
            if !self.place.covers(&change) {
                continue;
            }
            let (key_bytes, value_bytes) = match change {
                Change::Entry(key, entry) => (key.len(), Some(entry.len())),
                Change::Put(key, value) => (key.len(), value.map(<[u8]>::len)),
                Change::Drop(key) => (key.len(), None),
            };
            let replaced = tables.replace(change)?;
            if let Some(replaced) = replaced {
                self.live.rows -= 1;
                self.live.bytes -= (key_bytes + replaced) as u64;
            }
            if let Some(value_bytes) = value_bytes {
                self.live.rows += 1;
                self.live.bytes += (key_bytes + value_bytes) as u64;
            }
            self.unsynced += (key_bytes + value_bytes.unwrap_or(0)) as u64;
        }
        Ok(())
    }

    /// Copies the next rows of `base`, which is the database as it is. Needs to have caught up with it.
    pub(crate) fn portion(&mut self, base: &Base, rows_max: u64) -> Result<(), CompactError> {
        assert!(self.groups.is_empty(), "what is copied up to here is as of the database's last group");
        let transaction = self.begin()?;
        let mut tables = Tables::open(&transaction).map_err(CompactError::database)?;
        let place = std::mem::replace(&mut self.place, Place::End);
        let (place, copied) = match place {
            Place::Log(last) => {
                let mut end = tables.log_end().map_err(CompactError::database)?;
                let rows = base.log_after(last.as_ref())?;
                let (last, copied) = append(rows, rows_max, |key, entry| end.insert_before(key, entry))?;
                end.close().map_err(|error| CompactError::database(error.into()))?;
                (last.map_or(Place::State(None), |last| Place::Log(Some(last))), copied)
            }
            Place::State(last) => {
                let mut end = tables.state_end().map_err(CompactError::database)?;
                let rows = base.state_after(last.as_deref())?;
                let insert = |key: &Vec<u8>, value: &[u8]| end.insert_before(key.as_slice(), value);
                let (last, copied) = append(rows, rows_max, insert)?;
                end.close().map_err(|error| CompactError::database(error.into()))?;
                (last.map_or(Place::End, |last| Place::State(Some(last))), copied)
            }
            Place::End => (Place::End, Live::default()),
        };
        self.place = place;
        drop(tables);
        self.live.rows += copied.rows;
        self.live.bytes += copied.bytes;
        self.unsynced += copied.bytes;
        transaction.commit().map_err(|error| CompactError::database(error.into()))
    }

    /// Nothing relies on the copy before it is sealed: it is only synced now and then so that sealing is short.
    fn begin(&mut self) -> Result<WriteTransaction, CompactError> {
        let is_long = self.unsynced >= UNSYNCED_BYTES_MAX;
        let begin = if is_long { begin_durable } else { begin_eventual };
        let transaction = begin(&self.database).map_err(CompactError::database)?;
        self.unsynced = if is_long { 0 } else { self.unsynced };
        Ok(transaction)
    }

    /// Makes the copy, which is whole, durable and as short as it gets, and opens it again as what it is to
    /// be: a database that holds the log as far as `replayed` says.
    pub(crate) fn seal(
        self,
        dir: &dyn DataDir,
        replayed: Replayed,
        cache_bytes: usize,
    ) -> Result<Generation, CompactError> {
        assert!(self.is_whole(), "only a whole copy takes the place of what it is a copy of");
        let transaction = begin_durable(&self.database).map_err(CompactError::database)?;
        replayed.write(&transaction).map_err(CompactError::database)?;
        transaction.commit().map_err(|error| CompactError::database(error.into()))?;
        // Closing gives up the unused end of the file, and tells nobody what fails.
        drop(self.database);
        if let Some(failure) = self.file.failure() {
            return Err(CompactError::copy(&failure.into()));
        }
        let file = dir.open_copy().map_err(|error| CompactError::copy(&error))?;
        let database =
            format::open("the copy".as_ref(), file.clone(), cache_bytes).map_err(|error| match error {
                OpenError::NoSpace { .. } => CompactError::NoSpace,
                error => CompactError::Copy { detail: error.to_string() },
            })?;
        let found = Replayed::read(&database).map_err(CompactError::database)?;
        if found != Some(replayed) {
            return Err(CompactError::Copy { detail: "it does not hold what was written".to_owned() });
        }
        // Or a crash might give the name of the data file to an earlier copy, which was not finished.
        dir.sync().map_err(|error| CompactError::copy(&error))?;
        Ok(Generation::new(database, file))
    }
}

/// Inserts the next rows, up to what is a portion. Returns the last key, or none when no row is left.
fn append<K: AsRef<[u8]>>(
    rows: impl Iterator<Item = Result<(K, Vec<u8>), StoreError>>,
    rows_max: u64,
    mut insert: impl FnMut(&K, &[u8]) -> Result<(), CursorError>,
) -> Result<(Option<K>, Live), CompactError> {
    let mut copied = Live::default();
    for row in rows {
        let (key, value) = row?;
        insert(&key, value.as_slice()).map_err(|error| CompactError::database(error.into()))?;
        copied.rows += 1;
        copied.bytes += (key.as_ref().len() + value.len()) as u64;
        if copied.rows >= rows_max || copied.bytes >= PORTION_BYTES_MAX {
            return Ok((Some(key), copied));
        }
    }
    Ok((None, copied))
}
