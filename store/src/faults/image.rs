//! What is on a disk, and what can be done to it.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::content::Content;

/// The first file of the database. It always has its name, until a copy of it takes that.
pub(super) const DATABASE: usize = 0;
/// The least that a disk writes whole.
const SECTOR: usize = 512;

/// One thing done to a disk.
#[derive(Clone, Debug)]
pub(super) enum Operation {
    Write {
        file: usize,
        offset: usize,
        data: Arc<[u8]>,
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
    /// An empty copy of the database appeared, in place of one that there was.
    CreateCopy {
        file: usize,
    },
    /// The copy got the name of the database, which is gone.
    InstallCopy,
    RemoveCopy,
    SyncDataDirectory,
    /// The database appeared, durably and whole: it is created under another name.
    Install {
        database: Content,
    },
    /// The directory got another identity, durably.
    Renew,
}

/// What is on a disk: a database, the files of a log, and the identity of the directory. The default has none
/// of them. Cheap to clone: clones share what neither has changed since.
#[derive(Clone, Debug)]
pub struct Image {
    files: Vec<Content>,
    names: BTreeMap<String, usize>,
    /// Which file is the database.
    database: usize,
    /// Which is a copy of it that was not finished.
    copy: Option<usize>,
    renewals: u64,
}

impl Default for Image {
    fn default() -> Self {
        let (names, copy) = Default::default();
        Self { files: vec![Content::default()], names, database: DATABASE, copy, renewals: 0 }
    }
}

impl Image {
    /// Whether there is neither a database nor a file of the log.
    pub fn is_empty(&self) -> bool {
        !self.has_database() && self.names.is_empty()
    }

    /// The names in the directory of the log, ascending.
    pub fn log_files(&self) -> impl Iterator<Item = &str> {
        self.names.keys().map(String::as_str)
    }

    /// The bytes of the file of that name in the directory of the log. O(length).
    pub fn log_file(&self, name: &str) -> Option<Vec<u8>> {
        Some(self.files[*self.names.get(name)?].bytes())
    }

    /// Puts a file into the directory of the log, in place of the one of that name if there is one.
    pub fn put_log_file(&mut self, name: &str, bytes: &[u8]) {
        self.remove_log_file(name);
        self.names.insert(name.to_owned(), self.files.len());
        self.files.push(Content::of(bytes));
    }

    /// Removes the file of that name from the directory of the log, if there is one.
    pub fn remove_log_file(&mut self, name: &str) {
        // Nothing removes a file that it has open, so the bytes go with the name.
        if let Some(file) = self.names.remove(name) {
            self.files[file] = Content::default();
        }
    }

    pub(super) fn has_database(&self) -> bool {
        self.files[self.database].len() != 0
    }

    pub(super) fn database(&self) -> usize {
        self.database
    }

    pub(super) fn copy(&self) -> Option<usize> {
        self.copy
    }

    pub(super) fn renewals(&self) -> u64 {
        self.renewals
    }

    /// How many files there ever were; the next one gets this number.
    pub(super) fn file_count(&self) -> usize {
        self.files.len()
    }

    pub(super) fn file_of(&self, name: &str) -> Option<usize> {
        self.names.get(name).copied()
    }

    pub(super) fn file(&mut self, file: usize) -> &mut Content {
        if self.files.len() <= file {
            self.files.resize_with(file + 1, Content::default);
        }
        &mut self.files[file]
    }

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
            Operation::Remove { name } => self.remove_log_file(name),
            Operation::CreateCopy { file } => {
                self.file(*file);
                self.copy = Some(*file);
            }
            Operation::InstallCopy => self.database = self.copy.take().unwrap_or(self.database),
            Operation::RemoveCopy => self.copy = None,
            Operation::Install { database } => self.files[self.database] = database.clone(),
            Operation::Renew => self.renewals += 1,
            Operation::Sync { .. } | Operation::SyncDirectory | Operation::SyncDataDirectory => {}
        }
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
}
