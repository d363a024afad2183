//! Errors, one per operation.

use std::time::Duration;

use comity_crdts::SpaceId;
use comity_engine::{ChangesError, CommandError, StoreError, Token, TransactError, TxError};

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

/// Why a watch did not return a change set. Nothing is left out: each error comes before what it keeps back.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WatchError {
    /// The watcher is behind by more than [`Watch::lag_max`](crate::Watch::lag_max). Ask again, and the watch
    /// goes on where it is; or take a view and [`skip_to`](crate::Watch::skip_to) its token. Said once until the
    /// watcher has caught up to within that. How far behind it is is looked at when a page is read.
    #[error("the watcher is behind by {behind} change sets")]
    Lagged {
        /// Lane entries of the space that it has not seen.
        behind: u64,
        /// Where it is; what [`Watch::token`](crate::Watch::token) says.
        resume: Token,
    },
    /// The next change set is not kept here any more. Take a view and [`skip_to`](crate::Watch::skip_to) its
    /// token; asking again without that gets the same answer.
    #[error("the change set at place {place} of the order of applying is not kept any more")]
    Gone {
        /// Its place in the order in which this replica applied the space's entries, from 1.
        place: u64,
    },
    /// The token is of another space. The caller's fault; nothing changed.
    #[error("the token is of space {token}, not of space {space}")]
    OtherSpace {
        /// The token's space.
        token: SpaceId,
        /// The space that is watched.
        space: SpaceId,
    },
    /// Storage failed. After [`StoreError::ViewExpired`] ask again; after others the replica has to be opened
    /// again.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The replica was shut down.
    #[error("the replica is shut down")]
    Stopped,
}

impl From<ChangesError> for WatchError {
    fn from(error: ChangesError) -> Self {
        match error {
            ChangesError::Gone { place } => Self::Gone { place },
            ChangesError::Store(error) => Self::Store(error),
            // What is added there is of no kind that could be told apart here.
            other => Self::Store(StoreError::Failed { detail: other.to_string() }),
        }
    }
}

/// Why the data was not compacted. It is as it was.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CompactError {
    /// Storage refused. After all but [`comity_store::CompactError::Store`] the replica goes on, and it may be
    /// tried again.
    #[error(transparent)]
    Storage(#[from] comity_store::CompactError),
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
