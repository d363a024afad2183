//! Flags.

use comity_crdts::Kind;
use comity_engine::{Location, ReadError, Tx, TxError, flag_at};

use crate::handles::{Object, TxObject};
use crate::write::Transact;

/// A flag, disabled until somebody enables it. Of two that enable and disable it at the same time, one wins:
/// enabling for a flag from [`Space::flag`](crate::Space::flag), disabling for one from
/// [`Space::disable_wins_flag`](crate::Space::disable_wins_flag). The latter needs a replica that others have heard
/// of, see [`Space::confirmed`](crate::Space::confirmed).
#[derive(Clone)]
pub struct Flag(pub(crate) Object);

fn enable(tx: &mut Tx<'_>, at: &Location) -> Result<(), TxError> {
    match at.object.kind() {
        Kind::DwFlag => tx.dw_flag_enable_at(at),
        _ => tx.flag_enable_at(at),
    }
}

fn disable(tx: &mut Tx<'_>, at: &Location) -> Result<(), TxError> {
    match at.object.kind() {
        Kind::DwFlag => tx.dw_flag_disable_at(at),
        _ => tx.flag_disable_at(at),
    }
}

impl Flag {
    /// Enables it.
    pub fn enable(&self) -> Transact {
        self.0.write(enable)
    }

    /// Disables it.
    pub fn disable(&self) -> Transact {
        self.0.write(disable)
    }

    /// Removes it; it then counts as disabled.
    pub fn remove(&self) -> Transact {
        self.0.remove()
    }

    /// Whether it is enabled in the newest durable state.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn is_enabled(&self) -> Result<bool, ReadError> {
        self.0.read(flag_at)
    }
}

/// A flag inside a transaction.
pub struct TxFlag<'o, 'a>(pub(crate) TxObject<'o, 'a>);

impl TxFlag<'_, '_> {
    /// Enables it.
    ///
    /// # Errors
    /// [`TxError`] when a name is out of limits; for disable-wins flags also when nobody has heard of this
    /// replica yet.
    pub fn enable(&mut self) -> Result<(), TxError> {
        self.0.write(|tx, at| enable(tx, at))
    }

    /// Disables it.
    ///
    /// # Errors
    /// As [`TxFlag::enable`].
    pub fn disable(&mut self) -> Result<(), TxError> {
        self.0.write(|tx, at| disable(tx, at))
    }

    /// Removes it; it then counts as disabled.
    ///
    /// # Errors
    /// As [`TxFlag::enable`].
    pub fn remove(&mut self) -> Result<(), TxError> {
        self.0.remove()
    }

    /// Whether it is enabled.
    ///
    /// # Errors
    /// [`TxError`] when a name is out of limits or storage fails.
    pub fn is_enabled(&self) -> Result<bool, TxError> {
        self.0.read(flag_at)
    }
}
