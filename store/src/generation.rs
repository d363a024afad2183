//! The database with the file under it, and those that it took the place of.

use std::sync::Arc;

use redb::Database;

use crate::data_file::DataFile;

/// A database and its file.
pub(crate) struct Generation {
    pub(crate) database: Database,
    pub(crate) file: DataFile,
    /// Held by whoever reads it.
    pub(crate) users: Arc<()>,
}

impl Generation {
    pub(crate) fn new(database: Database, file: DataFile) -> Self {
        Self { database, file, users: Arc::new(()) }
    }
}

/// The generation that is written, and earlier ones, whose files have no name any more, for as long as
/// somebody reads them.
pub(crate) struct Generations {
    pub(crate) current: Generation,
    earlier: Vec<Generation>,
}

impl Generations {
    pub(crate) fn new(current: Generation) -> Self {
        Self { current, earlier: Vec::new() }
    }

    /// Goes on with another one, whose file has taken the name of the current one's.
    pub(crate) fn replace(&mut self, next: Generation) {
        let earlier = std::mem::replace(&mut self.current, next);
        // Closing it would otherwise wait for the disk.
        earlier.file.forgo_syncs();
        self.earlier.push(earlier);
    }

    /// Closes those that nobody reads, which gives their space back. Whether some are left.
    pub(crate) fn reclaim(&mut self) -> bool {
        self.earlier.retain(|generation| Arc::strong_count(&generation.users) > 1);
        !self.earlier.is_empty()
    }
}
