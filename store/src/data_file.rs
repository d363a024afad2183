//! The data file under the database. The database gives up for good at the first write that fails, so it is
//! never told that the disk is full: what has no room waits in memory, and everything after it too, in its order.
//!
//! To the disk, this is a program that writes the same later. So a power cut leaves nothing that it could not
//! have left without a full disk. But to the database, syncs seem complete that are not. Nothing is durable by
//! the word of the database before [`DataFile::settle`] says so.

use std::fmt;
use std::fs::File;
use std::io;
use std::ops::Bound;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use redb::backends::FileBackend;
use redb::{BackendError, DatabaseError, StorageBackend};

use crate::backlog::{Backlog, Change};
use crate::error::is_full;

/// A handle on the data file. Clones are of the same file.
#[derive(Clone)]
pub(crate) struct DataFile(Arc<Inner>);

struct Inner {
    file: Box<dyn StorageBackend>,
    /// Whether there is a backlog. Only [`DataFile::settle`] takes it back.
    waits: AtomicBool,
    backlog: RwLock<Backlog>,
    /// How much may wait, in bytes.
    backlog_bytes_max: AtomicUsize,
    /// The database was told of a failure.
    failed: OnceLock<io::ErrorKind>,
    /// Nothing needs to be durable any more.
    forgoes_syncs: AtomicBool,
}

/// Why something still waits.
#[derive(Debug)]
pub(crate) enum Unsettled {
    /// There is no room for it yet. Nothing is lost.
    NoSpace,
    /// The disk failed otherwise, or in a sync.
    Failed(io::Error),
}

impl DataFile {
    /// Of a file that was opened to read and write.
    pub(crate) fn new(file: File) -> Result<Self, DatabaseError> {
        Ok(Self::over(FileBackend::new(file)?))
    }

    /// A data file in `backend`. Nothing may wait at first: opening a store is to fail when the disk is full.
    pub(crate) fn over(backend: impl StorageBackend) -> Self {
        Self(Arc::new(Inner {
            file: Box::new(backend),
            waits: AtomicBool::new(false),
            backlog: RwLock::default(),
            backlog_bytes_max: AtomicUsize::new(0),
            failed: OnceLock::new(),
            forgoes_syncs: AtomicBool::new(false),
        }))
    }

    /// Lets so many bytes wait from here on. Beyond them the database is told that the disk is full.
    pub(crate) fn allow_backlog(&self, bytes_max: usize) {
        self.0.backlog_bytes_max.store(bytes_max, Ordering::Release);
    }

    /// The first failure that the database was told of, also while it was closed.
    pub(crate) fn failure(&self) -> Option<io::ErrorKind> {
        self.0.failed.get().copied()
    }

    /// Leaves out all syncs from here on: the file has no name any more, so nobody will open it again.
    pub(crate) fn forgo_syncs(&self) {
        self.0.forgoes_syncs.store(true, Ordering::Release);
    }

    /// Makes the changes that wait, in their order and with their syncs. Cheap when nothing waits. One caller at
    /// a time; reads go on.
    pub(crate) fn settle(&self) -> Result<(), Unsettled> {
        if !self.0.waits() {
            return Ok(());
        }
        loop {
            let next = self.0.read_backlog().next();
            let Some(change) = next else {
                let backlog = self.0.write_backlog();
                // A read may have added one before the lock.
                if backlog.next().is_none() {
                    self.0.waits.store(false, Ordering::Release);
                    return Ok(());
                }
                continue;
            };
            self.make(&change)?;
        }
    }

    fn make(&self, change: &Change) -> Result<(), Unsettled> {
        let file = &*self.0.file;
        let full = |error| if is_full(&error) { Unsettled::NoSpace } else { Unsettled::Failed(error) };
        match change {
            Change::Write(offset, data) => file.write(*offset, data).map_err(full)?,
            // What a failed sync was to make durable may be gone, whatever its reason.
            Change::Sync => file.sync_data().map_err(Unsettled::Failed)?,
            Change::SetLen(length) => {
                // A read looks at the length and then at the bytes.
                let mut backlog = self.0.write_backlog();
                file.set_len(*length).map_err(full)?;
                backlog.made(change);
                return Ok(());
            }
        }
        self.0.write_backlog().made(change);
        Ok(())
    }
}

impl fmt::Debug for DataFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DataFile").field("file", &self.0.file).finish_non_exhaustive()
    }
}

impl Inner {
    fn waits(&self) -> bool {
        // What a thread sees of the database was written before, and so was this.
        self.waits.load(Ordering::Acquire)
    }

    fn read_backlog(&self) -> RwLockReadGuard<'_, Backlog> {
        self.backlog.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write_backlog(&self) -> RwLockWriteGuard<'_, Backlog> {
        self.backlog.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps a failure in mind that the database is told of.
    fn told(&self, result: io::Result<()>) -> io::Result<()> {
        result.inspect_err(|error| {
            self.failed.get_or_init(|| error.kind());
        })
    }

    /// Makes a change, or lets it wait where another one does already or the disk is full.
    fn change(
        &self,
        bytes: usize,
        make: impl FnOnce(&dyn StorageBackend) -> io::Result<()>,
        wait: impl FnOnce(&mut Backlog),
    ) -> io::Result<()> {
        let full = match self.waits() {
            true => io::ErrorKind::StorageFull.into(),
            false => match make(&*self.file) {
                Err(error) if is_full(&error) => error,
                result => return result,
            },
        };
        let mut backlog = self.write_backlog();
        let bytes_max = self.backlog_bytes_max.load(Ordering::Acquire);
        if bytes_max == 0 || backlog.bytes() + bytes > bytes_max {
            return Err(full);
        }
        wait(&mut backlog);
        self.waits.store(true, Ordering::Release);
        Ok(())
    }
}

impl StorageBackend for DataFile {
    fn len(&self) -> io::Result<u64> {
        if !self.0.waits() {
            return self.0.file.len();
        }
        let backlog = self.0.read_backlog();
        backlog.length().map_or_else(|| self.0.file.len(), Ok)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        if !self.0.waits() {
            return self.0.file.read(offset, out);
        }
        // Held to the end: what is taken off the backlog meanwhile might be missed in both.
        let backlog = self.0.read_backlog();
        let stored = self.0.file.len()?;
        let length = backlog.length().unwrap_or(stored);
        if offset.checked_add(out.len() as u64).is_none_or(|end| end > length) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let found = stored.saturating_sub(offset).min(out.len() as u64);
        let (found, missing) = out.split_at_mut(usize::try_from(found).expect("no longer than the buffer"));
        if !found.is_empty() {
            self.0.file.read(offset, found)?;
        }
        missing.fill(0);
        backlog.overlay(offset, out);
        Ok(())
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        self.0.told(self.0.change(0, |file| file.set_len(length), |backlog| backlog.set_len(length)))
    }

    fn sync_data(&self) -> io::Result<()> {
        if self.0.forgoes_syncs.load(Ordering::Acquire) {
            return Ok(());
        }
        if !self.0.waits() {
            // Its failure is one, whatever the reason.
            return self.0.told(self.0.file.sync_data());
        }
        self.0.write_backlog().sync();
        self.0.waits.store(true, Ordering::Release);
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let wait = |backlog: &mut Backlog| backlog.write(offset, data);
        self.0.told(self.0.change(data.len(), |file| file.write(offset, data), wait))
    }

    fn close(&self) -> io::Result<()> {
        self.0.file.close()
    }

    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.0.file.try_lock_range(start, end)
    }

    fn try_lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.0.file.try_lock_shared_range(start, end)
    }

    fn lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.0.file.lock_range(start, end)
    }

    fn lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.0.file.lock_shared_range(start, end)
    }

    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.0.file.unlock_range(start, end)
    }

    fn query_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.0.file.query_lock_range(start, end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::faults::{Disk, Image};

    const PAGE: usize = 4096;

    /// A file of four pages, of which the first is written, on a disk that is full.
    fn full() -> (Disk, DataFile) {
        let disk = Disk::new(Image::default());
        let file = DataFile::over(disk.database());
        file.set_len(4 * PAGE as u64).unwrap();
        file.write(0, &[1; PAGE]).unwrap();
        disk.fill_up();
        (disk, file)
    }

    fn read(file: &DataFile, page: usize) -> u8 {
        let mut bytes = [0; PAGE];
        file.read((page * PAGE) as u64, &mut bytes).unwrap();
        assert_eq!(bytes, [bytes[0]; PAGE]);
        bytes[0]
    }

    fn write(file: &DataFile, page: usize, value: u8) -> io::Result<()> {
        file.write((page * PAGE) as u64, &[value; PAGE])
    }

    #[test]
    fn nothing_waits_before_it_may() {
        let (_, file) = full();
        assert_eq!(write(&file, 1, 2).unwrap_err().kind(), io::ErrorKind::StorageFull);
        assert_eq!(file.set_len(1 << 20).unwrap_err().kind(), io::ErrorKind::StorageFull);
        assert!(file.settle().is_ok());
    }

    #[test]
    fn what_waits_is_seen_and_is_made_in_its_order_once_there_is_space() {
        let (disk, file) = full();
        file.allow_backlog(1 << 20);
        write(&file, 2, 3).unwrap();
        file.sync_data().unwrap();
        // This one would have its space, but comes after the sync.
        write(&file, 0, 4).unwrap();
        file.sync_data().unwrap();
        file.set_len(6 * PAGE as u64).unwrap();
        write(&file, 5, 5).unwrap();
        let seen = |file: &DataFile| (0..6).map(|page| read(file, page)).collect::<Vec<_>>();
        assert_eq!((seen(&file), file.len().unwrap()), (vec![4, 0, 3, 0, 0, 5], 6 * PAGE as u64));
        assert!(file.read(6 * PAGE as u64, &mut [0]).is_err());
        assert!(matches!(file.settle(), Err(Unsettled::NoSpace)));
        let stored = DataFile::over(disk.database());
        assert_eq!((read(&stored, 0), stored.len().unwrap()), (1, 4 * PAGE as u64));
        disk.heal();
        assert!(file.settle().is_ok());
        assert_eq!((seen(&file), seen(&stored)), (vec![4, 0, 3, 0, 0, 5], vec![4, 0, 3, 0, 0, 5]));
    }

    #[test]
    fn more_than_may_wait_is_refused_and_what_waits_stays() {
        let (disk, file) = full();
        file.allow_backlog(PAGE);
        write(&file, 1, 2).unwrap();
        assert_eq!(write(&file, 2, 3).unwrap_err().kind(), io::ErrorKind::StorageFull);
        disk.heal();
        assert!(file.settle().is_ok());
        assert_eq!((read(&file, 1), read(&file, 2)), (2, 0));
    }

    #[test]
    fn a_sync_that_waited_and_fails_has_failed_whatever_the_reason() {
        let (disk, file) = full();
        file.allow_backlog(1 << 20);
        write(&file, 1, 2).unwrap();
        file.sync_data().unwrap();
        disk.heal();
        disk.fail_after(1, io::ErrorKind::StorageFull);
        assert!(matches!(file.settle(), Err(Unsettled::Failed(_))));
    }

    #[test]
    fn other_failures_do_not_wait() {
        let (disk, file) = full();
        file.allow_backlog(1 << 20);
        disk.fail_after(0, io::ErrorKind::Other);
        assert!(write(&file, 1, 2).is_err());
        assert!(file.settle().is_ok());
    }

    #[test]
    fn readers_see_every_page_while_it_settles() {
        let disk = Disk::new(Image::default());
        let file = DataFile::over(disk.database());
        file.set_len(200 * PAGE as u64).unwrap();
        file.allow_backlog(1 << 20);
        disk.fill_up();
        (0..200).for_each(|page| write(&file, page, 7).unwrap());
        disk.heal();
        std::thread::scope(|scope| {
            let reader = scope.spawn(|| (0..2000).all(|at| read(&file, (at * 37) % 200) == 7));
            assert!(file.settle().is_ok());
            assert!(reader.join().unwrap());
        });
    }
}
