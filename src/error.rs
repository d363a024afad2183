//! Errors, one per operation.

use std::time::Duration;

use comity_engine::{CommandError, StoreError, TransactError, TxError};

/// Why a replica could not be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The directory or the data file cannot be used; another process may hold it. Nothing was changed.
    #[error(transparent)]
    Directory(#[from] comity_store::OpenError),
    /// Storage failed, or what it holds is damaged.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The operating system refused a thread.
    #[error("cannot start a thread: {0}")]
    Thread(std::io::Error),
}

/// Why a question to the replica was not answered as asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RequestError {
    /// The core refused it; nothing was changed unless the inner error says otherwise.
    #[error(transparent)]
    Command(#[from] CommandError),
    /// The replica was shut down.
    #[error("the replica is shut down")]
    Stopped,
}

/// Why a write was not acknowledged.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WriteError {
    /// It was refused or rolled back; nothing of it was kept.
    #[error(transparent)]
    Refused(#[from] TransactError<TxError>),
    /// It was made, but whether it is durable is not known: the sync failed. It may show after the replica is
    /// opened again, as a whole or not at all.
    #[error("the write is indeterminate: {0}")]
    Indeterminate(CommandError),
    /// The replica was shut down before it answered; as [`WriteError::Indeterminate`] when the write was
    /// already under way.
    #[error("the replica is shut down")]
    Stopped,
}

/// Why a ticket could not be made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InviteError {
    /// Nobody could reach this replica: listen first.
    #[error("the replica listens nowhere that a ticket could name; listen on an address, or advertise one")]
    NoAddress,
    /// The core refused.
    #[error(transparent)]
    Request(#[from] RequestError),
}

/// Why a watcher misses something.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WatchError {
    /// The watcher was too slow, so that many notices of the replica were dropped. Take a fresh view and go on
    /// watching.
    #[error("{missed} notices were missed")]
    Lagged {
        /// How many.
        missed: u64,
    },
    /// The replica was shut down.
    #[error("the replica is shut down")]
    Stopped,
}

/// A peer did not connect in time.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectedError {
    /// There was no connection within the time given; dialing goes on.
    #[error("no connection within {0:?}")]
    TimedOut(Duration),
    /// The replica was shut down.
    #[error("the replica is shut down")]
    Stopped,
}
