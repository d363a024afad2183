//! Copying what is durable at one moment into a directory of its own, while groups go on being written.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use comity_crdts::{LaneId, SpaceId};
use comity_engine::{LogRead, Row, StateRead, StoreError};
use redb::{Builder, Database};

use crate::directory::{self, DATA_FILE, NEW_DATA_FILE};
use crate::durable::Durable;
use crate::error::{OpenError, is_full};
use crate::format::{self, begin_durable, begin_eventual};
use crate::merge::rows;
use crate::snapshot::Reader;
use crate::tables::Tables;

/// Rows of one portion, at most.
const PORTION_ROWS_MAX: usize = 4_096;
/// And their bytes; the row that exceeds them is the last.
const PORTION_BYTES_MAX: u64 = 1024 * 1024;
/// The copy is synced whenever so much was written into it.
const UNSYNCED_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// Memory for pages of the copy while it is made.
const CACHE_BYTES: usize = 16 * 1024 * 1024;

/// Why there is no backup. The store goes on as it was.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BackupError {
    /// The target is there and holds something. Nothing was touched; name another.
    #[error("{} is not empty", path.display())]
    NotEmpty {
        /// The target.
        path: PathBuf,
    },
    /// There is no room for it.
    #[error("no space left for the backup in {}", path.display())]
    NoSpace {
        /// The target.
        path: PathBuf,
    },
    /// The target cannot be written.
    #[error("cannot write the backup in {}: {detail}", path.display())]
    Target {
        /// The target.
        path: PathBuf,
        /// What the operating system or the database said.
        detail: String,
    },
    /// The store cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// How far a backup is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct BackupProgress {
    /// Rows that are copied.
    pub rows: u64,
    /// Rows there are, at most: a few that were written last may count twice until the backup is whole.
    pub rows_all: u64,
}

/// A backup that is whole and durable.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct BackupReport {
    /// Rows in it.
    pub rows: u64,
    /// Their bytes, keys included.
    pub bytes: u64,
    /// The length of its data file.
    pub file_bytes: u64,
}

/// What is durable at one moment, for whoever reads long: unlike a [`Snapshot`](crate::Snapshot) it does not expire, and
/// keeps its pages from being used again until it is dropped.
pub struct Pinned {
    durable: Arc<Durable>,
}

impl Pinned {
    /// How many rows there are at most, of the state and of the log: a few that were written last may count twice. O(1).
    ///
    /// # Errors
    /// [`StoreError`] when storage fails.
    pub fn rows(&self) -> Result<u64, StoreError> {
        self.durable.rows_max()
    }
}

impl StateRead for Pinned {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.durable.get(key)
    }

    fn scan(&self, from: &[u8], until: &[u8], limit: usize) -> Result<Vec<Row>, StoreError> {
        if from >= until {
            return Ok(Vec::new());
        }
        rows(self.durable.scan(from, until)?, limit)
    }
}

impl LogRead for Pinned {
    fn lane_entry(&self, space: &SpaceId, lane: &LaneId, lsn: u64) -> Result<Option<Vec<u8>>, StoreError> {
        self.durable.entry(space, lane, lsn)
    }
}

impl std::fmt::Debug for Pinned {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pinned").finish_non_exhaustive()
    }
}

impl Reader {
    /// The state as the last completed sync left it, for as long as it is held. O(1).
    ///
    /// # Errors
    /// As [`Reader::snapshot`].
    pub fn pin(&self) -> Result<Pinned, StoreError> {
        Ok(Pinned { durable: self.snapshot()?.durable()? })
    }

    /// Writes a data file with everything that is synced now into `dir`, which is made when it is missing and must be
    /// empty. It has no marker, so it is opened as a copy is. Blocks on the disk, O(rows); the file gets its name when
    /// it is whole and durable.
    ///
    /// # Errors
    /// [`BackupError`].
    pub fn back_up(
        &self,
        dir: &Path,
        progress: impl FnMut(BackupProgress),
    ) -> Result<BackupReport, BackupError> {
        let pinned = self.pin()?;
        directory::create(dir).map_err(|error| target(dir, &error))?;
        let is_empty = fs::read_dir(dir).map(|mut names| names.next().is_none());
        if !is_empty.map_err(|error| io_failed(dir, &error))? {
            return Err(BackupError::NotEmpty { path: dir.to_owned() });
        }
        let new = dir.join(NEW_DATA_FILE);
        let file =
            directory::private_file().truncate(true).open(&new).map_err(|error| io_failed(dir, &error))?;
        let copy = Builder::new().set_cache_size(CACHE_BYTES).create_file(file);
        let copied = copy.map_err(redb::Error::from).map_err(CopyError::from).and_then(|database| {
            let mut copy = Copy::begin(database, &pinned.durable, progress)?;
            copy.log(&pinned.durable)?;
            copy.state(&pinned.durable)?;
            copy.seal()
        });
        let report = copied.map_err(|error| match error {
            CopyError::Source(error) => BackupError::Store(error),
            CopyError::Target(redb::Error::Io(error)) => io_failed(dir, &error),
            CopyError::Target(error) => target(dir, &error),
        })?;
        self.name(dir, &new, report)
    }

    fn name(&self, dir: &Path, new: &Path, report: BackupReport) -> Result<BackupReport, BackupError> {
        let named = File::open(new).and_then(|file| {
            file.sync_all()?;
            fs::rename(new, dir.join(DATA_FILE))?;
            Ok(file.metadata()?.len())
        });
        let file_bytes = named.map_err(|error| io_failed(dir, &error))?;
        directory::sync(dir).map_err(|error| target(dir, &error))?;
        Ok(BackupReport { file_bytes, ..report })
    }
}

fn target(dir: &Path, error: &dyn std::fmt::Display) -> BackupError {
    BackupError::Target { path: dir.to_owned(), detail: error.to_string() }
}

fn io_failed(dir: &Path, error: &io::Error) -> BackupError {
    if is_full(error) { BackupError::NoSpace { path: dir.to_owned() } } else { target(dir, error) }
}

/// Which side failed.
enum CopyError {
    Source(StoreError),
    Target(redb::Error),
}

impl<E: Into<redb::Error>> From<E> for CopyError {
    fn from(error: E) -> Self {
        Self::Target(error.into())
    }
}

/// A copy that is being made.
struct Copy<P> {
    database: Database,
    progress: P,
    rows_all: u64,
    report: BackupReport,
    unsynced: u64,
}

impl<P: FnMut(BackupProgress)> Copy<P> {
    fn begin(database: Database, durable: &Durable, progress: P) -> Result<Self, CopyError> {
        format::initialise(&database)?;
        let rows_all = durable.rows_max().map_err(CopyError::Source)?;
        Ok(Self { database, progress, rows_all, report: BackupReport::default(), unsynced: 0 })
    }

    fn log(&mut self, durable: &Durable) -> Result<(), CopyError> {
        let mut rows = durable.log().map_err(CopyError::Source)?.peekable();
        while rows.peek().is_some() {
            self.portion(|tables| {
                let mut end = tables.log_end()?;
                append(&mut rows, |key, entry| Ok(end.insert_before(key, entry)?))
            })?;
        }
        Ok(())
    }

    fn state(&mut self, durable: &Durable) -> Result<(), CopyError> {
        let mut rows = durable.state().map_err(CopyError::Source)?.peekable();
        while rows.peek().is_some() {
            self.portion(|tables| {
                let mut end = tables.state_end()?;
                append(&mut rows, |key, value| Ok(end.insert_before(key.as_slice(), value)?))
            })?;
        }
        Ok(())
    }

    fn portion(
        &mut self,
        copy: impl FnOnce(&mut Tables<'_>) -> Result<(u64, u64), CopyError>,
    ) -> Result<(), CopyError> {
        let is_long = self.unsynced >= UNSYNCED_BYTES_MAX;
        let begin = if is_long { begin_durable } else { begin_eventual };
        let transaction = begin(&self.database)?;
        let (rows, bytes) = copy(&mut Tables::open(&transaction)?)?;
        transaction.commit()?;
        self.unsynced = if is_long { 0 } else { self.unsynced + bytes };
        self.report.rows += rows;
        self.report.bytes += bytes;
        (self.progress)(BackupProgress { rows: self.report.rows, rows_all: self.rows_all });
        Ok(())
    }

    fn seal(mut self) -> Result<BackupReport, CopyError> {
        begin_durable(&self.database)?.commit()?;
        let rows = self.report.rows;
        (self.progress)(BackupProgress { rows, rows_all: rows });
        Ok(self.report)
    }
}

/// Inserts the next rows, up to what is a portion; how many they were, and their bytes.
fn append<K: AsRef<[u8]>>(
    rows: &mut impl Iterator<Item = Result<(K, Vec<u8>), StoreError>>,
    mut insert: impl FnMut(&K, &[u8]) -> Result<(), CopyError>,
) -> Result<(u64, u64), CopyError> {
    let (mut count, mut bytes) = (0, 0);
    for row in rows.take(PORTION_ROWS_MAX) {
        let (key, value) = row.map_err(CopyError::Source)?;
        insert(&key, value.as_slice())?;
        count += 1;
        bytes += (key.as_ref().len() + value.len()) as u64;
        if bytes >= PORTION_BYTES_MAX {
            break;
        }
    }
    Ok((count, bytes))
}

/// Puts a data file that was backed up into a new directory, as what a store is opened from. The directory is made when
/// it is missing and must be empty; the file gets its name when it is whole and durable. `progress` is given the bytes
/// copied so far and all. Blocks on the disk.
///
/// # Errors
/// [`OpenError`]; [`OpenError::Io`] when the directory is not empty.
pub fn restore(backup: &Path, dir: &Path, mut progress: impl FnMut(u64, u64)) -> Result<(), OpenError> {
    let source = backup.join(DATA_FILE);
    let reading = |error| OpenError::io("reading the backup", &source, error);
    let mut from = File::open(&source).map_err(reading)?;
    let bytes_all = from.metadata().map_err(reading)?.len();
    directory::create(dir)?;
    let _lock = {
        let is_empty = fs::read_dir(dir).map(|mut names| names.next().is_none());
        if !is_empty.map_err(|error| OpenError::io("reading the directory", dir, error))? {
            let error = io::Error::from(io::ErrorKind::DirectoryNotEmpty);
            return Err(OpenError::io("restoring into", dir, error));
        }
        directory::lock(dir)?
    };
    let (new, path) = (dir.join(NEW_DATA_FILE), dir.join(DATA_FILE));
    let writing = |error| OpenError::io("writing", &new, error);
    let mut to = directory::private_file().truncate(true).open(&new).map_err(writing)?;
    let (mut copied, mut buffer) = (0, vec![0; PORTION_BYTES_MAX as usize]);
    loop {
        let read = io::Read::read(&mut from, &mut buffer).map_err(reading)?;
        if read == 0 {
            break;
        }
        io::Write::write_all(&mut to, &buffer[..read]).map_err(writing)?;
        copied += read as u64;
        progress(copied, bytes_all);
    }
    to.sync_all().map_err(writing)?;
    fs::rename(&new, &path).map_err(writing)?;
    directory::sync(dir)
}
