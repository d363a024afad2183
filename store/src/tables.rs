//! The tables of the database, open for writing.

use std::ops::Bound;

use redb::{CursorMut, Table, WriteTransaction};

use crate::format::{LOG, LogKey, STATE};
use crate::log::Change;

/// A place to append rows.
pub(crate) type End<'a, Key> = CursorMut<'a, Key, &'static [u8]>;

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
        self.replace(change).map(drop)
    }

    /// As [`Tables::apply`]; returns how long the value was that was there before, if one was.
    pub(crate) fn replace(&mut self, change: Change<'_>) -> Result<Option<usize>, redb::Error> {
        let before = match change {
            Change::Entry(key, entry) => self.log.insert(key, entry)?,
            Change::Drop(key) => self.log.remove(&key)?,
            Change::Put(key, Some(value)) => self.state.insert(key, value)?,
            Change::Put(key, None) => self.state.remove(key)?,
        };
        Ok(before.map(|value| value.value().len()))
    }

    /// The place after the last entry. Rows that are inserted there in order fill their pages.
    pub(crate) fn log_end(&mut self) -> Result<End<'_, &'static LogKey>, redb::Error> {
        Ok(self.log.upper_bound_mut(Bound::<&LogKey>::Unbounded)?)
    }

    /// As [`Tables::log_end`], of the state.
    pub(crate) fn state_end(&mut self) -> Result<End<'_, &'static [u8]>, redb::Error> {
        Ok(self.state.upper_bound_mut(Bound::<&[u8]>::Unbounded)?)
    }
}
