//! Why a store could not be opened.

use std::io;
use std::path::{Path, PathBuf};

/// Why a store could not be opened. The directory is as it was, except that files a new store needs may
/// have been created.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The path, or a part of it, is not a directory. The caller's fault; choose another path.
    #[error("{} is not a directory", path.display())]
    NotADirectory {
        /// The path.
        path: PathBuf,
    },
    /// Reading or writing there is not allowed. The caller's fault; change the permissions or the path.
    #[error("{} cannot be written: {source}", path.display())]
    Denied {
        /// What could not be written.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// Another store, in this process or another, has the directory open. Close it first.
    #[error("{} is in use{}", path.display(), pid.map(|pid| format!(" by process {pid}")).unwrap_or_default())]
    Locked {
        /// The directory.
        path: PathBuf,
        /// The process that holds it, where it could be read.
        pid: Option<u32>,
    },
    /// The data file was written by something else. The caller's fault; nothing was changed.
    #[error("{} is not the data file of a Comity store: {detail}", path.display())]
    Foreign {
        /// The data file.
        path: PathBuf,
        /// How it differs.
        detail: String,
    },
    /// The data file was written by a later version. Nothing was changed; use that version.
    #[error(
        "{} has format version {found}; this build reads up to version {supported}",
        path.display()
    )]
    NewerFormat {
        /// The data file.
        path: PathBuf,
        /// The version in the file.
        found: u32,
        /// The latest version this build reads.
        supported: u32,
    },
    /// The data file cannot be read as what was written. Restore the replica from its peers.
    #[error("{} is damaged: {detail}", path.display())]
    Damaged {
        /// The data file.
        path: PathBuf,
        /// What was found.
        detail: String,
    },
    /// The directory is marked as a replica's, but its data file is gone. Nothing was changed: a new
    /// replica in its place would hide the loss. Restore the file, or remove the directory.
    #[error("{} is missing from the directory of a replica", path.display())]
    DataMissing {
        /// The data file.
        path: PathBuf,
    },
    /// The disk is full. The environment's fault; free some space and open again.
    #[error("no space left to open {}", path.display())]
    NoSpace {
        /// What was being written.
        path: PathBuf,
    },
    /// The operating system refused for another reason. The environment's fault.
    #[error("{doing} {}: {source}", path.display())]
    Io {
        /// What was being done.
        doing: &'static str,
        /// To what.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
}

/// Whether the operating system refused because there is no space, or none left for this user.
pub(crate) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

impl OpenError {
    /// The error for an operating system's refusal while `doing` something to `path`.
    pub(crate) fn io(doing: &'static str, path: &Path, source: io::Error) -> Self {
        let path = path.to_owned();
        if is_full(&source) {
            return Self::NoSpace { path };
        }
        match source.kind() {
            io::ErrorKind::NotADirectory => Self::NotADirectory { path },
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
                Self::Denied { path, source }
            }
            _ => Self::Io { doing, path, source },
        }
    }

    /// The error for the database's refusal to open `path`.
    pub(crate) fn database(path: &Path, error: redb::Error) -> Self {
        let owned = path.to_owned();
        match error {
            redb::Error::DatabaseAlreadyOpen => Self::Locked { path: owned, pid: None },
            redb::Error::Io(source) => match source.kind() {
                // redb reports a foreign magic number this way.
                io::ErrorKind::InvalidData => Self::Foreign { path: owned, detail: source.to_string() },
                io::ErrorKind::UnexpectedEof => Self::Damaged { path: owned, detail: source.to_string() },
                _ => Self::io("opening", path, source),
            },
            error @ (redb::Error::UpgradeRequired(_)
            | redb::Error::TableTypeMismatch { .. }
            | redb::Error::TableIsMultimap(_)
            | redb::Error::TableDoesNotExist(_)) => Self::Foreign { path: owned, detail: error.to_string() },
            error => Self::Damaged { path: owned, detail: error.to_string() },
        }
    }
}
