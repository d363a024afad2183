//! The directory of a store: making it, locking it, and creating the data file whole or not at all.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use crate::data_file::DataFile;
use crate::error::OpenError;
use crate::format;
use crate::instance::MARKER_FILE;

/// The database.
pub(crate) const DATA_FILE: &str = "comity.redb";
/// The database while it is being created, and a copy of it that is to take its place.
pub(crate) const NEW_DATA_FILE: &str = "comity.redb.new";
/// The directory of the log.
pub(crate) const LOG_DIR: &str = "log";
/// Locked for as long as the store is open.
const LOCK_FILE: &str = "comity.lock";
/// A decimal process id fits.
const PID_BYTES_MAX: u64 = 20;

/// Holds the directory against other stores until dropped.
#[derive(Debug)]
pub(crate) struct DirectoryLock {
    _file: File,
}

/// Makes the directory and its missing parents, durably.
pub(crate) fn create(dir: &Path) -> Result<(), OpenError> {
    let failed = |error| OpenError::io("creating the directory", dir, error);
    match fs::metadata(dir) {
        Ok(metadata) if metadata.is_dir() => return Ok(()),
        Ok(_) => return Err(OpenError::NotADirectory { path: dir.to_owned() }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(failed(error)),
    }
    let parent = match dir.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    create(parent)?;
    match private_directory().create(dir) {
        // Another process may have been faster; the lock decides between them.
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(failed(error)),
        _ => sync(parent),
    }
}

/// Locks the directory for this store alone.
pub(crate) fn lock(dir: &Path) -> Result<DirectoryLock, OpenError> {
    let path = dir.join(LOCK_FILE);
    let mut file =
        private_file().open(&path).map_err(|error| OpenError::io("opening the lock file", &path, error))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            return Err(OpenError::Locked { path: dir.to_owned(), pid: read_pid(&mut file) });
        }
        Err(TryLockError::Error(error)) => return Err(OpenError::io("locking", &path, error)),
    }
    // Only for messages: the lock is the operating system's, and a full disk must not keep a store shut.
    let _ = file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id()));
    Ok(DirectoryLock { _file: file })
}

fn read_pid(file: &mut File) -> Option<u32> {
    let mut text = String::new();
    file.take(PID_BYTES_MAX).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

/// The data file, and whether it was just created. Needs the lock.
pub(crate) fn data_file(dir: &Path) -> Result<(File, bool), OpenError> {
    let path = dir.join(DATA_FILE);
    let open = || OpenOptions::new().read(true).write(true).open(&path);
    match open() {
        Ok(file) => return Ok((file, false)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(OpenError::io("opening", &path, error)),
    }
    // The marker is written after the data file, so a marker alone means that the data is gone.
    if dir.join(MARKER_FILE).exists() {
        return Err(OpenError::DataMissing { path });
    }
    create_data_file(dir)?;
    let file = open().map_err(|error| OpenError::io("opening", &path, error))?;
    Ok((file, true))
}

/// Creates the data file under another name first: a crash leaves a whole one or none.
fn create_data_file(dir: &Path) -> Result<(), OpenError> {
    let (new, path) = (dir.join(NEW_DATA_FILE), dir.join(DATA_FILE));
    let file = private_file()
        .truncate(true)
        .open(&new)
        .map_err(|error| OpenError::io("creating the data file", &new, error))?;
    format::create(&new, file)?;
    File::open(&new)
        .and_then(|file| file.sync_all())
        .and_then(|()| fs::rename(&new, &path))
        .map_err(|error| OpenError::io("creating the data file", &path, error))?;
    sync(dir)
}

/// The directory of the data file, as far as copying that file needs it. Crash tests put a simulated disk in its
/// place.
pub(crate) trait DataDir: Send {
    /// Creates an empty copy, or empties the one that is there.
    fn create_copy(&self) -> io::Result<DataFile>;
    /// Opens the copy again after it was closed.
    fn open_copy(&self) -> io::Result<DataFile>;
    /// Gives the copy the name of the data file, which loses it.
    fn install_copy(&self) -> io::Result<()>;
    /// Removes the copy, if there is one.
    fn remove_copy(&self) -> io::Result<()>;
    /// Makes the names durable.
    fn sync(&self) -> io::Result<()>;
}

/// A real directory.
pub(crate) struct RealDir(pub(crate) PathBuf);

impl RealDir {
    fn copy(&self) -> PathBuf {
        self.0.join(NEW_DATA_FILE)
    }
}

impl DataDir for RealDir {
    fn create_copy(&self) -> io::Result<DataFile> {
        // Emptied by a new file: who still has the one before open may read it.
        self.remove_copy()?;
        DataFile::new(private_file().truncate(true).open(self.copy())?).map_err(io::Error::other)
    }

    fn open_copy(&self) -> io::Result<DataFile> {
        let file = OpenOptions::new().read(true).write(true).open(self.copy())?;
        DataFile::new(file).map_err(io::Error::other)
    }

    fn install_copy(&self) -> io::Result<()> {
        fs::rename(self.copy(), self.0.join(DATA_FILE))
    }

    fn remove_copy(&self) -> io::Result<()> {
        match fs::remove_file(self.copy()) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    fn sync(&self) -> io::Result<()> {
        sync_names(&self.0)
    }
}

/// Makes the names in a directory durable.
pub(crate) fn sync(dir: &Path) -> Result<(), OpenError> {
    sync_names(dir).map_err(|error| OpenError::io("syncing the directory", dir, error))
}

fn sync_names(dir: &Path) -> io::Result<()> {
    // Elsewhere a directory cannot be opened as a file, and its entries are journalled.
    if cfg!(unix) { File::open(dir)?.sync_all() } else { Ok(()) }
}

/// Options that open a file to read and write, and create it for the owner only.
pub(crate) fn private_file() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options
}

fn private_directory() -> DirBuilder {
    let mut builder = DirBuilder::new();
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder
}
