//! A disk in memory that remembers what was done to it and can be told to fail or to lie.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex};

use redb::StorageBackend;

use crate::log::{LogDir, LogFile};

/// The file of the database. It always has its name.
pub(super) const DATABASE: usize = 0;
const SECTOR: usize = 512;
const PAGE: usize = 4096;

/// One thing done to a disk.
#[derive(Clone, Debug)]
pub(super) enum Operation {
    Write {
        file: usize,
        offset: usize,
        data: Vec<u8>,
    },
    SetLen {
        file: usize,
        length: usize,
    },
    Sync {
        file: usize,
    },
    Create {
        name: String,
        file: usize,
    },
    Rename {
        from: String,
        to: String,
    },
    Remove {
        name: String,
    },
    SyncDirectory,
    /// The directory got another identity, durably.
    Renew,
}

/// A sync that is reported as done and is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lie {
    Database,
    Log,
    Directory,
}

/// The bytes of a file, cheap to clone.
#[derive(Clone, Debug, Default)]
pub(super) struct Content {
    pages: Vec<Option<Arc<[u8; PAGE]>>>,
    length: usize,
}

impl Content {
    fn set_len(&mut self, length: usize) {
        if length < self.length {
            let cut = length.next_multiple_of(PAGE).min(self.length);
            self.fill_zeros(length, cut);
        }
        self.pages.resize(length.div_ceil(PAGE), None);
        self.length = length;
    }

    fn fill_zeros(&mut self, from: usize, until: usize) {
        if from < until {
            self.write(from, &vec![0; until - from]);
        }
    }

    pub(super) fn write(&mut self, mut offset: usize, mut data: &[u8]) {
        if self.length < offset + data.len() {
            self.set_len(offset + data.len());
        }
        while !data.is_empty() {
            let (page, at) = (offset / PAGE, offset % PAGE);
            let count = data.len().min(PAGE - at);
            let page = self.pages[page].get_or_insert_with(|| Arc::new([0; PAGE]));
            Arc::make_mut(page)[at..at + count].copy_from_slice(&data[..count]);
            (offset, data) = (offset + count, &data[count..]);
        }
    }

    fn read(&self, mut offset: usize, mut out: &mut [u8]) -> io::Result<()> {
        if offset + out.len() > self.length {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        while !out.is_empty() {
            let (page, at) = (offset / PAGE, offset % PAGE);
            let count = out.len().min(PAGE - at);
            match &self.pages[page] {
                Some(page) => out[..count].copy_from_slice(&page[at..at + count]),
                None => out[..count].fill(0),
            }
            (offset, out) = (offset + count, &mut out[count..]);
        }
        Ok(())
    }

    pub(super) fn bytes(&self) -> Vec<u8> {
        let mut bytes = vec![0; self.length];
        self.read(0, &mut bytes).unwrap();
        bytes
    }
}

/// What is on a disk.
#[derive(Clone, Debug)]
pub(super) struct Image {
    pub(super) files: Vec<Content>,
    pub(super) names: BTreeMap<String, usize>,
}

impl Default for Image {
    fn default() -> Self {
        Self { files: vec![Content::default()], names: BTreeMap::new() }
    }
}

impl Image {
    pub(super) fn apply(&mut self, operation: &Operation) {
        match operation {
            Operation::Write { file, offset, data } => self.file(*file).write(*offset, data),
            Operation::SetLen { file, length } => self.file(*file).set_len(*length),
            Operation::Create { name, file } => {
                self.file(*file);
                self.names.insert(name.clone(), *file);
            }
            // What a lost operation would have made cannot be renamed or removed.
            Operation::Rename { from, to } => {
                if let Some(file) = self.names.remove(from) {
                    self.names.insert(to.clone(), file);
                }
            }
            Operation::Remove { name } => drop(self.names.remove(name)),
            Operation::Sync { .. } | Operation::SyncDirectory | Operation::Renew => {}
        }
    }

    /// Whether there is no database.
    pub(super) fn is_empty(&self) -> bool {
        self.files[DATABASE].length == 0
    }

    /// Applies what a power cut left of an operation: each sector by itself.
    pub(super) fn apply_torn(&mut self, operation: &Operation, mut kept: impl FnMut() -> bool) {
        let Operation::Write { file, offset, data } = operation else {
            if kept() {
                self.apply(operation);
            }
            return;
        };
        let mut from = 0;
        while from < data.len() {
            let until = (SECTOR - (offset + from) % SECTOR + from).min(data.len());
            if kept() {
                self.file(*file).write(offset + from, &data[from..until]);
            }
            from = until;
        }
    }

    fn file(&mut self, file: usize) -> &mut Content {
        if self.files.len() <= file {
            self.files.resize_with(file + 1, Content::default);
        }
        &mut self.files[file]
    }

    pub(super) fn named(&mut self, name: &str) -> &mut Content {
        let file = self.names[name];
        self.file(file)
    }
}

/// A disk that handles share.
#[derive(Clone, Debug)]
pub(super) struct Disk(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    image: Image,
    done: Vec<Operation>,
    /// How many more changes succeed, where that is limited, and how the others fail.
    limit: Option<(u64, io::ErrorKind)>,
    /// Whether files cannot grow.
    full: bool,
    lie: Option<Lie>,
}

impl State {
    fn refuses(&mut self, operation: &Operation) -> Option<io::ErrorKind> {
        if let Some((left, failure)) = &mut self.limit {
            if *left == 0 {
                return Some(*failure);
            }
            *left -= 1;
        }
        let (file, end) = match operation {
            Operation::Write { file, offset, data } => (*file, offset + data.len()),
            Operation::SetLen { file, length } => (*file, *length),
            _ => return None,
        };
        (self.full && end > self.image.file(file).length).then_some(io::ErrorKind::StorageFull)
    }
}

impl Disk {
    pub(super) fn new(image: Image) -> Self {
        Self::lying(image, None)
    }

    pub(super) fn lying(image: Image, lie: Option<Lie>) -> Self {
        Self(Arc::new(Mutex::new(State { image, done: Vec::new(), limit: None, full: false, lie })))
    }

    pub(super) fn fail_after(&self, changes: u64, failure: io::ErrorKind) {
        self.0.lock().unwrap().limit = Some((changes, failure));
    }

    /// From here on no file can grow; what has its space can be written.
    pub(super) fn fill_up(&self) {
        self.0.lock().unwrap().full = true;
    }

    pub(super) fn heal(&self) {
        let mut state = self.0.lock().unwrap();
        (state.limit, state.full) = (None, false);
    }

    /// What programs see, synced or not.
    pub(super) fn image(&self) -> Image {
        self.0.lock().unwrap().image.clone()
    }

    pub(super) fn done(&self) -> usize {
        self.0.lock().unwrap().done.len()
    }

    pub(super) fn history(&self) -> Vec<Operation> {
        self.0.lock().unwrap().done.clone()
    }

    pub(super) fn change(&self, operation: Operation) -> io::Result<()> {
        let state = &mut *self.0.lock().unwrap();
        if let Some(failure) = state.refuses(&operation) {
            return Err(failure.into());
        }
        let lie = match &operation {
            Operation::Sync { file: DATABASE } => state.lie == Some(Lie::Database),
            Operation::Sync { .. } => state.lie == Some(Lie::Log),
            Operation::SyncDirectory => state.lie == Some(Lie::Directory),
            _ => false,
        };
        if !lie {
            state.image.apply(&operation);
            state.done.push(operation);
        }
        Ok(())
    }

    fn read_into(&self, file: usize, offset: usize, out: &mut [u8]) -> io::Result<()> {
        self.0.lock().unwrap().image.file(file).read(offset, out)
    }

    fn length(&self, file: usize) -> usize {
        self.0.lock().unwrap().image.file(file).length
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        Ok(self.length(DATABASE) as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.read_into(DATABASE, usize::try_from(offset).unwrap(), out)
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        self.change(Operation::SetLen { file: DATABASE, length: usize::try_from(length).unwrap() })
    }

    fn sync_data(&self) -> io::Result<()> {
        self.change(Operation::Sync { file: DATABASE })
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let offset = usize::try_from(offset).unwrap();
        self.change(Operation::Write { file: DATABASE, offset, data: data.to_vec() })
    }
}

impl LogDir for Disk {
    fn path(&self) -> &Path {
        "disk".as_ref()
    }

    fn names(&self) -> io::Result<Vec<String>> {
        Ok(self.0.lock().unwrap().image.names.keys().cloned().collect())
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn LogFile>> {
        let file = self.0.lock().unwrap().image.files.len();
        self.change(Operation::Create { name: name.to_owned(), file })?;
        Ok(Box::new(OpenFile { disk: self.clone(), file }))
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn LogFile>> {
        let file = self.0.lock().unwrap().image.names.get(name).copied();
        let file = file.ok_or(io::ErrorKind::NotFound)?;
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
        let offset = usize::try_from(offset).unwrap();
        self.disk.change(Operation::Write { file: self.file, offset, data: bytes.to_vec() })
    }

    fn sync(&self) -> io::Result<()> {
        self.disk.change(Operation::Sync { file: self.file })
    }
}
