//! A disk in memory that knows what is durable and can be told to fail or to lie.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use redb::StorageBackend;

use super::cache::{Tear, WriteCache};
use super::content::PAGE;
use super::image::{Image, Operation};
use crate::data_file::DataFile;
use crate::directory::DataDir;
use crate::log::{LogDir, LogFile};
use crate::syncer::Room;

/// A sync that is reported as done and is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lie {
    /// That of the database.
    Database,
    /// That of any file of the log.
    Log,
    /// That of the names in the directory of the log.
    Directory,
    /// That of a copy of the database, until it takes the place of the database.
    Copy,
    /// That of the names of the database and its copy.
    DataDirectory,
}

/// What a full disk refuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Full {
    /// What needs space that the file does not have.
    Growth,
    /// Every write: file systems that never write in place need space for that as well.
    Writes,
}

/// A simulated disk with one store on it. Clones are handles on the same disk. It keeps what it holds and what
/// is not durable of that, so its memory does not grow with its age.
#[derive(Clone, Debug)]
pub struct Disk(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    /// What programs see.
    image: Image,
    cache: WriteCache,
    changes: u64,
    /// Every change, where somebody wants to cut the power at each of them.
    history: Option<Vec<Operation>>,
    /// How many more changes succeed, where that is limited, and how the others fail.
    limit: Option<(u64, io::ErrorKind)>,
    /// After how many more changes the disk is full, and how, where it is to be.
    full: Option<(u64, Full)>,
    /// Which pages of a database have their space: its length is set before it is written. Files of the log
    /// have all that their length says.
    allocated: BTreeMap<usize, Vec<bool>>,
    lie: Option<Lie>,
}

/// A change that is refused.
struct Refused {
    failure: io::ErrorKind,
    /// What is written of it nevertheless.
    part: Option<Operation>,
}

impl State {
    fn refuses(&mut self, operation: &Operation) -> Option<Refused> {
        if let Some((left, failure)) = &mut self.limit {
            if *left == 0 {
                return Some(Refused { failure: *failure, part: None });
            }
            *left -= 1;
        }
        let full = match &mut self.full {
            Some((0, full)) => *full,
            Some((left, _)) => {
                *left -= 1;
                return None;
            }
            None => return None,
        };
        let failure = io::ErrorKind::StorageFull;
        match operation {
            Operation::Write { file, offset, data } => {
                let fits = match full {
                    Full::Growth => self.fits(*file, *offset, data.len()),
                    Full::Writes => data.len() / 2,
                };
                let part = |data: &[u8]| Operation::Write { file: *file, offset: *offset, data: data.into() };
                (fits < data.len())
                    .then(|| Refused { failure, part: (fits > 0).then(|| part(&data[..fits])) })
            }
            Operation::SetLen { file, length } => {
                (*length > self.image.file(*file).len()).then_some(Refused { failure, part: None })
            }
            _ => None,
        }
    }

    /// How many bytes of a write have their space, from its start.
    fn fits(&mut self, file: usize, offset: usize, length: usize) -> usize {
        let Some(allocated) = self.allocated.get(&file) else {
            return self.image.file(file).len().saturating_sub(offset).min(length);
        };
        let (first, end) = (offset / PAGE, (offset + length).div_ceil(PAGE));
        let hole = (first..end).find(|page| allocated.get(*page) != Some(&true));
        hole.map_or(length, |page| (page * PAGE).saturating_sub(offset))
    }

    fn apply(&mut self, operation: Operation) {
        match &operation {
            Operation::Write { file, offset, data } => {
                if let Some(allocated) = self.allocated.get_mut(file) {
                    let end = (offset + data.len()).div_ceil(PAGE);
                    allocated.resize(allocated.len().max(end), false);
                    allocated[offset / PAGE..end].fill(true);
                }
            }
            Operation::SetLen { file, length } => {
                if let Some(allocated) = self.allocated.get_mut(file) {
                    allocated.resize(length.div_ceil(PAGE), false);
                }
            }
            Operation::CreateCopy { file } => drop(self.allocated.insert(*file, Vec::new())),
            Operation::Install { database } => {
                self.allocated.insert(self.image.database(), database.used());
            }
            _ => {}
        }
        self.changes += 1;
        self.image.apply(&operation);
        self.cache.change(&operation);
        if let Some(history) = &mut self.history {
            history.push(operation);
        }
    }
}

impl Disk {
    /// A disk that holds `image`, all of it durable.
    pub fn new(image: Image) -> Self {
        Self::with(image, None, None)
    }

    /// A disk that leaves out one kind of sync. Whatever finds that a sync is missing must find it here.
    pub fn lying(image: Image, lie: Lie) -> Self {
        Self::with(image, Some(lie), None)
    }

    /// The file that is the database now.
    pub(crate) fn database(&self) -> DataHandle {
        let file = self.state().image.database();
        DataHandle { disk: self.clone(), file }
    }

    /// A disk that also remembers everything done to it.
    #[cfg(test)]
    pub(super) fn recording(image: Image, lie: Option<Lie>) -> Self {
        Self::with(image, lie, Some(Vec::new()))
    }

    fn with(mut image: Image, lie: Option<Lie>, history: Option<Vec<Operation>>) -> Self {
        let cache = WriteCache::new(image.clone());
        let database = image.database();
        let allocated = BTreeMap::from([(database, image.file(database).used())]);
        let (changes, limit, full) = (0, None, None);
        let state = State { image, cache, changes, history, limit, full, allocated, lie };
        Self(Arc::new(Mutex::new(state)))
    }

    /// Lets this many more changes (writes, syncs, lengths, names) succeed; all after them fail.
    pub fn fail_after(&self, changes: u64, failure: io::ErrorKind) {
        self.state().limit = Some((changes, failure));
    }

    /// From here on no file can grow, nor be written in places that were never written; what has its space can
    /// be written. Of a write that goes beyond that a part is made. A store that [`open`](super::open) opened is
    /// told that nothing is free, as file systems do.
    pub fn fill_up(&self) {
        self.state().full = Some((0, Full::Growth));
    }

    /// Fills up after this many more changes, perhaps within a sync. Until then a store is told nothing.
    pub fn fill_up_after(&self, changes: u64, full: Full) {
        self.state().full = Some((changes, full));
    }

    /// Whether it is filled up.
    pub fn is_full(&self) -> bool {
        matches!(self.state().full, Some((0, _)))
    }

    /// Takes back [`Disk::fail_after`] and [`Disk::fill_up`]. A store that was poisoned by them stays so.
    pub fn heal(&self) {
        let mut state = self.state();
        (state.limit, state.full) = (None, None);
    }

    /// What programs see, durable or not: what a process finds that starts after another was killed.
    pub fn image(&self) -> Image {
        self.state().image.clone()
    }

    /// What a power cut at this moment may leave: everything durable, and of the rest what `tear` says, by
    /// chance as `random` draws it. A store that is dropped makes a checkpoint, so take this first, and go on
    /// with [`Disk::new`] of it. O(pages of the image + what is not durable).
    pub fn crash_image(&self, tear: Tear, random: &mut dyn FnMut() -> u64) -> Image {
        self.state().cache.cut(tear, random)
    }

    /// How many changes (writes, syncs, lengths, names) succeeded on this disk, if only in part.
    pub fn changes(&self) -> u64 {
        self.state().changes
    }

    /// How often the directory got another identity, over the life of the image: by a recovery that found
    /// damage, or by [`Disk::renew`].
    pub fn renewals(&self) -> u64 {
        self.state().image.renewals()
    }

    /// Gives the directory another identity, as copying or restoring it does.
    pub fn renew(&self) {
        let state = &mut *self.state();
        state.image.apply(&Operation::Renew);
        state.cache.change(&Operation::Renew);
    }

    #[cfg(test)]
    pub(super) fn history(&self) -> Vec<Operation> {
        self.state().history.clone().unwrap()
    }

    /// How many changes are not durable.
    #[cfg(test)]
    pub(super) fn pending(&self) -> usize {
        self.state().cache.pending()
    }

    pub(super) fn change(&self, operation: Operation) -> io::Result<()> {
        let state = &mut *self.state();
        if let Some(refused) = state.refuses(&operation) {
            if let Some(part) = refused.part {
                state.apply(part);
            }
            return Err(refused.failure.into());
        }
        let lie = match &operation {
            Operation::Sync { file } if state.image.copy() == Some(*file) => state.lie == Some(Lie::Copy),
            Operation::Sync { file } if state.image.database() == *file => state.lie == Some(Lie::Database),
            Operation::SyncDataDirectory => state.lie == Some(Lie::DataDirectory),
            Operation::Sync { .. } => state.lie == Some(Lie::Log),
            Operation::SyncDirectory => state.lie == Some(Lie::Directory),
            _ => false,
        };
        if !lie {
            state.apply(operation);
        }
        Ok(())
    }

    /// The durable image.
    pub(super) fn durable(&self) -> Image {
        self.state().cache.durable().clone()
    }

    /// Flips a bit of a file, durably, for whoever looks.
    pub(super) fn flip(&self, file: usize, offset: usize, bit: u32) {
        let state = &mut *self.state();
        state.image.file(file).flip(offset, bit);
        state.cache.durable().file(file).flip(offset, bit);
    }

    /// How much space there is, as far as this disk says.
    pub(super) fn room(&self) -> Option<Room> {
        let mut state = self.state();
        let database = state.image.database();
        let used = state.image.file(database).len() as u64;
        matches!(state.full, Some((0, _))).then_some(Room { free: 0, used })
    }

    /// A panic under the lock leaves a disk that somebody may still want to look at.
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read_into(&self, file: usize, offset: usize, out: &mut [u8]) -> io::Result<()> {
        self.state().image.file(file).read(offset, out)
    }

    fn write_at(&self, file: usize, offset: u64, data: &[u8]) -> io::Result<()> {
        self.change(Operation::Write { file, offset: in_memory(offset)?, data: data.into() })
    }

    fn length(&self, file: usize) -> usize {
        self.state().image.file(file).len()
    }
}

/// A place in a file, which is in memory here.
fn in_memory(offset: u64) -> io::Result<usize> {
    usize::try_from(offset).map_err(io::Error::other)
}

/// A file that a database is kept in.
#[derive(Clone, Debug)]
pub(crate) struct DataHandle {
    disk: Disk,
    file: usize,
}

impl StorageBackend for DataHandle {
    fn len(&self) -> io::Result<u64> {
        Ok(self.disk.length(self.file) as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.disk.read_into(self.file, in_memory(offset)?, out)
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        self.disk.change(Operation::SetLen { file: self.file, length: in_memory(length)? })
    }

    fn sync_data(&self) -> io::Result<()> {
        self.disk.change(Operation::Sync { file: self.file })
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.disk.write_at(self.file, offset, data)
    }
}

impl DataDir for Disk {
    fn create_copy(&self) -> io::Result<DataFile> {
        let file = self.state().image.file_count();
        self.change(Operation::CreateCopy { file })?;
        Ok(DataFile::over(DataHandle { disk: self.clone(), file }))
    }

    fn open_copy(&self) -> io::Result<DataFile> {
        let file = self.state().image.copy().ok_or(io::ErrorKind::NotFound)?;
        Ok(DataFile::over(DataHandle { disk: self.clone(), file }))
    }

    fn install_copy(&self) -> io::Result<()> {
        self.change(Operation::InstallCopy)
    }

    fn remove_copy(&self) -> io::Result<()> {
        let exists = self.state().image.copy().is_some();
        if exists { self.change(Operation::RemoveCopy) } else { Ok(()) }
    }

    fn sync(&self) -> io::Result<()> {
        self.change(Operation::SyncDataDirectory)
    }
}

impl LogDir for Disk {
    fn path(&self) -> &Path {
        "disk".as_ref()
    }

    fn names(&self) -> io::Result<Vec<String>> {
        Ok(self.state().image.log_files().map(str::to_owned).collect())
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn LogFile>> {
        let file = self.state().image.file_count();
        self.change(Operation::Create { name: name.to_owned(), file })?;
        Ok(Box::new(OpenFile { disk: self.clone(), file }))
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn LogFile>> {
        let file = self.state().image.file_of(name).ok_or(io::ErrorKind::NotFound)?;
        Ok(Box::new(OpenFile { disk: self.clone(), file }))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.change(Operation::Rename { from: from.to_owned(), to: to.to_owned() })
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.change(Operation::Remove { name: name.to_owned() })
    }

    fn sync(&self) -> io::Result<()> {
        self.change(Operation::SyncDirectory)
    }
}

struct OpenFile {
    disk: Disk,
    file: usize,
}

impl LogFile for OpenFile {
    fn read(&self) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; self.disk.length(self.file)];
        self.disk.read_into(self.file, 0, &mut bytes)?;
        Ok(bytes)
    }

    fn write(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.disk.write_at(self.file, offset, bytes)
    }

    fn sync(&self) -> io::Result<()> {
        self.disk.change(Operation::Sync { file: self.file })
    }
}
