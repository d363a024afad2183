//! Errors, one per operation.

use std::time::Duration;

use comity_crdts::{
    AddressError, DocumentError, Dot, JsonError, Kind, Policy, RegistryError, ReplicaId, SpaceId,
    ValueSerdeError,
};
use comity_engine::{
    ChangesError, CommandError, Location, OperationNameError, ReadError, StoreError, Throttled, Token,
    TransactError, TxError,
};

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
    /// The region's name is empty or too long. Nothing was touched.
    #[error("the region name {name:?} has {bytes} bytes; 1 to {bytes_max} are allowed")]
    Region {
        /// Its first characters.
        name: String,
        /// Its length.
        bytes: usize,
        /// The limit, [`REGION_BYTES_MAX`](crate::REGION_BYTES_MAX).
        bytes_max: usize,
    },
    /// A policy of the application's own cannot be registered. Nothing was touched.
    #[error(transparent)]
    Policy(#[from] RegistryError),
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
    /// Within the time given this replica did not come to hold what the write was to follow, or cannot. Nothing was
    /// written.
    #[error("the write was not made: {0}")]
    Behind(RequestError),
    /// Within the time given too few others followed what is written here, and the replica was opened with a
    /// [throttle](crate::OpenOptions::throttle). Nothing was written.
    #[error("too few others follow what is written here: {} of {} are within the bound", .0.within, .0.needed)]
    Throttled(Throttled),
    /// The operation id is empty or too long. Nothing was written.
    #[error(transparent)]
    OperationName(#[from] OperationNameError),
    /// It was made, but whether it is durable is not known: the sync failed. It may show after the replica is
    /// opened again, as a whole or not at all.
    #[error("the write is indeterminate: {0}")]
    Indeterminate(CommandError),
    /// The replica was shut down before it answered; as [`WriteError::Indeterminate`] when the write was
    /// already under way.
    #[error("the replica is shut down")]
    Stopped,
}

/// Why an event about lag did not come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LagEventsError {
    /// Events came faster than they were taken. Ask [`Space::status`](crate::Space::status) what is so.
    #[error("{events} events were left out because nobody took them")]
    Missed {
        /// How many, of all spaces of the replica.
        events: u64,
    },
    /// The replica was shut down.
    #[error("the replica is shut down")]
    Stopped,
}

/// Why an event of an audit did not come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AuditEventsError {
    /// Events came faster than they were taken. [`Space::status`](crate::Space::status) has the sums.
    #[error("{events} events were left out because nobody took them")]
    Missed {
        /// How many, of all spaces of the replica.
        events: u64,
    },
    /// The replica was shut down.
    #[error("the replica is shut down")]
    Stopped,
}

/// Why a bounded counter was not decreased.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DecreaseError {
    /// Too few rights are held here, and peers handed over too few within the time. Nothing was decreased; rights
    /// that were handed over stay here.
    #[error(
        "{object}: {needed} rights are needed, and within {within:?} no more than {held} came to be held here; \
         the counter is at {value}"
    )]
    Insufficient {
        /// The counter.
        object: Location,
        /// By how much it was to be decreased.
        needed: u64,
        /// The rights held here.
        held: u64,
        /// Its value: the rights of everybody together.
        value: i128,
        /// The time that was given.
        within: Duration,
    },
    /// The write failed for another reason.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// Asking for rights failed for another reason.
    #[error(transparent)]
    Request(#[from] RequestError),
}

/// Rights cannot be handed to a replica of which nothing that it wrote has arrived. Nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{object}: rights cannot be handed to {to}, which has not written in this space as far as is known here"
)]
pub struct TransferError {
    /// The counter.
    pub object: Location,
    /// The replica.
    pub to: ReplicaId,
}

/// Why what an object holds could not be read as asked. Nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ContentError {
    /// It could not be read at all.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The register holds concurrent values, and its collection's policy shows them all. Read the siblings, and
    /// resolve them.
    #[error("{location} holds {siblings} concurrent values, and the policy {policy} shows them all")]
    Undecided {
        /// The register.
        location: Location,
        /// How many values there are.
        siblings: usize,
        /// The policy.
        policy: Policy,
    },
    /// A value is not the data that was asked for, or data to write is no value.
    #[error("{location}: {source}")]
    Typed {
        /// The object.
        location: Location,
        /// What is wrong, and where in it.
        source: ValueSerdeError,
    },
}

/// Why changes that were supplied did not become part of a document.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImportError {
    /// The document's name is out of limits. Nothing was kept.
    #[error(transparent)]
    Address(#[from] AddressError),
    /// What was supplied is nothing that can be unpacked within the limits. Nothing was kept.
    #[error("{location}: {source}")]
    Refused {
        /// The document.
        location: Location,
        /// What is wrong with it.
        source: DocumentError,
    },
    /// A change was refused by the document, or could not be kept. Those before it, in causal order, may have been.
    #[error(transparent)]
    Write(#[from] WriteError),
}

/// Why something in a document could not be read as asked. Nothing was changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DocumentReadError {
    /// The document could not be read at all.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// What the pointer, the cursor or the version asks for is not there, or is something else.
    #[error("{location}: {source}")]
    Json {
        /// The document.
        location: Location,
        /// Where in it, and why.
        source: JsonError,
    },
    /// The document is not the data that was asked for.
    #[cfg(feature = "autosurgeon")]
    #[error("{location}: {source}")]
    Typed {
        /// The document.
        location: Location,
        /// What does not fit.
        source: autosurgeon::HydrateError,
    },
}

impl From<StoreError> for ContentError {
    fn from(error: StoreError) -> Self {
        Self::Read(error.into())
    }
}

impl From<ContentError> for TxError {
    fn from(error: ContentError) -> Self {
        match error {
            ContentError::Read(error) => error.into(),
            other => Self::refuse(other),
        }
    }
}

/// Why a choice does not resolve a conflict. The caller's fault; nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ResolveError {
    /// The value chosen is none of those in conflict.
    #[error("{location}: none of the values in conflict has the dot {dot:?}")]
    NoSibling {
        /// Where the conflict is.
        location: Location,
        /// What was chosen.
        dot: Dot,
    },
    /// The key of the map leads to nothing of the kind chosen.
    #[error("{location}: the kinds in conflict are {kinds:?}, and {chosen} is none of them")]
    NoKind {
        /// Where the conflict is.
        location: Location,
        /// What was chosen.
        chosen: Kind,
        /// What there is.
        kinds: Vec<Kind>,
    },
    /// What the key of the map leads to is not what it was when the conflict was read. Nothing was changed: read it again.
    #[error("{location}: what is there has changed since the conflict was read")]
    Changed {
        /// Where the conflict is.
        location: Location,
    },
    /// Values are in conflict and a kind was chosen, or the other way round.
    #[error("{location}: {rule}")]
    OtherMatter {
        /// Where the conflict is.
        location: Location,
        /// What can be chosen.
        rule: &'static str,
    },
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
    /// Storage failed. After [`StoreError::ViewExpired`] ask again; [`StoreError::UnknownSpace`] says that the space was
    /// deleted; after others the replica has to be opened again.
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
