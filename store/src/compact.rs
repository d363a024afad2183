//! Giving the pages that the database does not use back to the file system, while the store is in use.

use std::io;

use comity_engine::StoreError;

use crate::error::is_full;

/// What compacting came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CompactReport {
    /// The length of the data file before, in bytes.
    pub bytes_before: u64,
    /// And after. The database makes its file longer in large steps, sparsely where the file system can, so what
    /// the file takes on the disk may be half of this.
    pub bytes_after: u64,
    /// The bytes of all rows, keys included.
    pub live_bytes: u64,
    /// How many rows there are, of the log and of the state.
    pub live_rows: u64,
}

/// Why compacting came to nothing. The store holds what it held; it may be tried again unless the error within
/// says otherwise.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CompactError {
    /// There is no room for a second copy of the rows. The environment's fault; free some space.
    #[error("no space left for a compact copy of the data")]
    NoSpace,
    /// The copy could not be written or read. The environment's fault.
    #[error("the compact copy of the data: {detail}")]
    Copy {
        /// What the operating system or the database said.
        detail: String,
    },
    /// The store itself failed.
    #[error(transparent)]
    Store(StoreError),
}

impl CompactError {
    /// The operating system refused something that the copy needs.
    pub(crate) fn copy(error: &io::Error) -> Self {
        if is_full(error) { Self::NoSpace } else { Self::Copy { detail: error.to_string() } }
    }

    /// The copy's database refused.
    pub(crate) fn database(error: redb::Error) -> Self {
        match error {
            redb::Error::Io(error) => Self::copy(&error),
            error => Self::Copy { detail: error.to_string() },
        }
    }
}

impl From<StoreError> for CompactError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::NoSpace => Self::NoSpace,
            error => Self::Store(error),
        }
    }
}
