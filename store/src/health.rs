//! Whether the store may still be trusted, shared by its handles.

use std::sync::atomic::{AtomicU8, Ordering};

use comity_engine::StoreError;

const OPEN: u8 = 0;
const POISONED: u8 = 1;
const CLOSED: u8 = 2;

/// Open, poisoned by a failure, or closed. It never goes back.
#[derive(Debug, Default)]
pub(crate) struct Health(AtomicU8);

impl Health {
    /// Passes while the store is open.
    pub(crate) fn check(&self) -> Result<(), StoreError> {
        match self.0.load(Ordering::Acquire) {
            OPEN => Ok(()),
            POISONED => Err(StoreError::Poisoned),
            _ => Err(StoreError::Failed { detail: "the store is closed".to_owned() }),
        }
    }

    /// From here on every handle refuses, until the store is opened again.
    pub(crate) fn poison(&self) {
        self.0.fetch_max(POISONED, Ordering::AcqRel);
    }

    /// The last handle that kept the database open is gone.
    pub(crate) fn close(&self) {
        self.0.store(CLOSED, Ordering::Release);
    }

    /// Poisons the store when dropped, by an early return or a panic, unless [`PoisonGuard::disarm`]ed.
    pub(crate) fn guard(&self) -> PoisonGuard<'_> {
        PoisonGuard { health: self, armed: true }
    }

    /// What a failed read means. The database refuses all input and output after its first failure, so
    /// the store is poisoned too; damage to one page leaves the others readable.
    pub(crate) fn read_failed(&self, error: &redb::StorageError) -> StoreError {
        if !matches!(error, redb::StorageError::Corrupted(_)) {
            self.poison();
        }
        describe(error)
    }
}

/// See [`Health::guard`].
pub(crate) struct PoisonGuard<'a> {
    health: &'a Health,
    armed: bool,
}

impl PoisonGuard<'_> {
    /// The dangerous part went well.
    pub(crate) fn disarm(mut self) {
        self.armed = false;
    }
}

impl Drop for PoisonGuard<'_> {
    fn drop(&mut self) {
        if self.armed {
            self.health.poison();
        }
    }
}

/// The database's error in the core's terms.
pub(crate) fn describe(error: &redb::StorageError) -> StoreError {
    match error {
        redb::StorageError::Corrupted(detail) => StoreError::Corrupt { detail: detail.clone() },
        error => StoreError::Failed { detail: error.to_string() },
    }
}
