//! The tables of the database, open for writing.

use redb::{Table, WriteTransaction};

use crate::format::{LOG, LogKey, STATE};
use crate::log::Change;

/// The tables that groups change.
pub(crate) struct Tables<'transaction> {
    log: Table<'transaction, &'static LogKey, &'static [u8]>,
    state: Table<'transaction, &'static [u8], &'static [u8]>,
}

impl<'transaction> Tables<'transaction> {
    pub(crate) fn open(transaction: &'transaction WriteTransaction) -> Result<Self, redb::Error> {
        Ok(Self { log: transaction.open_table(LOG)?, state: transaction.open_table(STATE)? })
    }

    /// Making the same changes again in the same order changes nothing.
    pub(crate) fn apply(&mut self, change: Change<'_>) -> Result<(), redb::Error> {
        match change {
            Change::Entry(key, entry) => drop(self.log.insert(key, entry)?),
            Change::Put(key, Some(value)) => drop(self.state.insert(key, value)?),
            Change::Put(key, None) => drop(self.state.remove(key)?),
        }
        Ok(())
    }
}
