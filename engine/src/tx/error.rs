//! Why a transaction, or an operation in it, is refused.

use comity_crdts::{
    AddressError, BoundedError, CounterRange, DocumentError, JsonError, ReplicaId, SpaceId, ValueError,
    automerge,
};

use crate::conflicts::Location;
use crate::read::ReadError;
use crate::status::Standing;
use crate::store::StoreError;
use crate::throttle::Throttled;

/// Why a transaction failed; nothing of it was kept.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TransactError<E> {
    /// The closure said so.
    #[error("{0}")]
    Refused(E),
    /// The closure panicked.
    #[error("the transaction panicked; it was rolled back")]
    Panicked,
    /// The change set was refused as a whole.
    #[error(transparent)]
    Tx(TxError),
    /// The caller named a space this replica does not hold.
    #[error("there is no space {0} at this replica")]
    UnknownSpace(SpaceId),
    /// The state of the space is being replaced by that of another replica. Try again; `Status` tells how far that is.
    #[error("the state of space {0} is being installed")]
    Installing(SpaceId),
    /// Nobody is known to be in a region in which the write was to be durable: its name is wrong, or nobody there has
    /// written in the space yet.
    #[error("no replica is known to be in the region {0:?}")]
    UnknownRegion(String),
    /// Others do not follow what is written here, and the replica was opened with a [`Throttle`](crate::Throttle). Wait for room with
    /// `Command::AwaitRoom`, or try again later.
    #[error("too few others follow what is written here: {} of {} are within the bound", .0.within, .0.needed)]
    Throttled(Throttled),
    /// Not an error: the write was made before under the same operation id, so the closure was not run, and nothing
    /// was changed. Unlike after the others, the reply comes, and is about the write that was made before.
    #[error("the write was made before under the same operation id")]
    Duplicate,
}

/// Why an operation inside a transaction was refused. The transaction can go on without it, or return the
/// error and be rolled back.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TxError {
    /// The caller's address is not one.
    #[error(transparent)]
    Address(#[from] AddressError),
    /// The value is too large or too deep.
    #[error("{object}: {source}")]
    Value {
        /// The object that was to hold it.
        object: Location,
        /// The limit.
        source: ValueError,
    },
    /// The counter would leave its range.
    #[error("{object}: {source}")]
    Counter {
        /// The counter.
        object: Location,
        /// The range.
        source: CounterRange,
    },
    /// The bounded counter has too few rights here, or would leave its range.
    #[error("{object}: {source}")]
    Bounded {
        /// The counter.
        object: Location,
        /// What is lacking.
        source: BoundedError,
    },
    /// This incarnation is new, and no other replica has answered it yet: what removals and resets mean is settled
    /// by what their author had seen, and others may have forgotten what this replica has not seen. It is
    /// confirmed as soon as another writer was heard of, see `Command::AwaitConfirmation`.
    #[error(
        "{object}: this replica was restored or has just joined, and no other replica has confirmed it yet"
    )]
    Unconfirmed {
        /// What was to be changed.
        object: Location,
    },
    /// Something was done to the object that this build does not know: what it holds is known only in part. It can be
    /// written at a replica of a newer build, and here after an upgrade.
    #[error("{object}: an operation on it is of a version that this build does not know")]
    Held {
        /// The object.
        object: Location,
    },
    /// A map's path is empty, too deep, or leads through a key that is none.
    #[error("{object}: {rule}")]
    Path {
        /// What was to be changed.
        object: Location,
        /// The rule that is broken.
        rule: &'static str,
    },
    /// Objects of this kind cannot be removed.
    #[error("{object}: {rule}")]
    NotRemovable {
        /// What was to be removed.
        object: Location,
        /// Why.
        rule: &'static str,
    },
    /// The journal entry cannot be restored by a write.
    #[error("{object}: {rule}")]
    NotRestorable {
        /// Where it was.
        object: Location,
        /// Why.
        rule: &'static str,
    },
    /// The region's name is empty or too long.
    #[error("the region name {name:?} has {bytes} bytes; 1 to {bytes_max} are allowed")]
    Region {
        /// Its first characters.
        name: String,
        /// Its length.
        bytes: usize,
        /// The limit.
        bytes_max: usize,
    },
    /// The document refused the edit.
    #[error("{object}: {source}")]
    Document {
        /// The document.
        object: Location,
        /// What it said.
        source: DocumentError,
    },
    /// What was asked of something in the document, by its JSON pointer, cannot be done.
    #[error("{object}: {source}")]
    Json {
        /// The document.
        object: Location,
        /// Where in it, and why.
        source: JsonError,
    },
    /// The edit is too large for one change; split it.
    #[error("{object}: {what} of the edit: {value}; the limit is {value_max}")]
    EditTooLarge {
        /// The document.
        object: Location,
        /// What is too large.
        what: &'static str,
        /// How large it is.
        value: u64,
        /// The limit.
        value_max: u64,
    },
    /// The closure that edits a document panicked.
    #[error("{object}: the edit panicked; nothing of it was kept")]
    EditPanicked {
        /// The document.
        object: Location,
    },
    /// More concurrent values than one operation can name.
    #[error("{object}: {dots} concurrent values; one write can replace {dots_max}")]
    TooManySiblings {
        /// The object.
        object: Location,
        /// How many there are.
        dots: usize,
        /// The limit.
        dots_max: usize,
    },
    /// The transaction has too many operations.
    #[error("the transaction has more than {ops_max} operations")]
    TooManyOps {
        /// The limit.
        ops_max: usize,
    },
    /// The transaction touches too many objects.
    #[error("the transaction touches more than {objects_max} objects")]
    TooManyObjects {
        /// The limit.
        objects_max: usize,
    },
    /// The transaction's change set is too large.
    #[error("the change set has {bytes} bytes; the limit is {bytes_max}")]
    TooLarge {
        /// Its size.
        bytes: usize,
        /// The limit.
        bytes_max: usize,
    },
    /// The first write of an incarnation would start one lane too many for the space.
    #[error("the space has {lanes} lanes; the limit is {lanes_max}")]
    TooManyLanes {
        /// How many there are.
        lanes: usize,
        /// The limit.
        lanes_max: usize,
    },
    /// This replica does not write in the space: it is a follower, or no longer a member. Nothing was changed; write
    /// at the replica named, if one is.
    #[error("this replica does not write to the space: it {standing}{}", leader(writer.as_ref(), address.as_deref()))]
    NotWriter {
        /// How this replica takes part.
        standing: Standing,
        /// A replica that does write, a connected one if there is one.
        writer: Option<ReplicaId>,
        /// Where it can be reached, as far as is known here.
        address: Option<String>,
    },
    /// The replica that was to be removed is no member.
    #[error("{replica} is no member of the space")]
    NotMember {
        /// The replica.
        replica: ReplicaId,
    },
    /// No admin would be left.
    #[error("{replica} is the last admin of the space")]
    LastAdmin {
        /// The admin.
        replica: ReplicaId,
    },
    /// As much was said about one member as can be.
    #[error("{statements_max} grants and removals of {replica} were made, which is the limit")]
    TooManyStatements {
        /// The member.
        replica: ReplicaId,
        /// The limit.
        statements_max: usize,
    },
    /// The member limit is reached.
    #[error("the space has {members_max} members, which is the limit")]
    TooManyMembers {
        /// The limit.
        members_max: usize,
    },
    /// The document library refused an operation inside an edit.
    #[error(transparent)]
    Automerge(Box<automerge::AutomergeError>),
    /// The transaction held up the space for too long, so it was rolled back.
    #[error("the transaction ran for {millis} ms; the limit is {millis_max} ms")]
    TooSlow {
        /// How long it ran.
        millis: u64,
        /// The limit.
        millis_max: u64,
    },
    /// The application's own reason to roll back.
    #[error("{0}")]
    Refused(Box<dyn std::error::Error + Send + Sync>),
    /// Storage failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

fn leader(writer: Option<&ReplicaId>, address: Option<&str>) -> String {
    match (writer, address) {
        (Some(writer), Some(address)) => format!("; {writer} at {address} does"),
        (Some(writer), None) => format!("; {writer} does"),
        (None, _) => String::new(),
    }
}

impl From<automerge::AutomergeError> for TxError {
    fn from(error: automerge::AutomergeError) -> Self {
        Self::Automerge(Box::new(error))
    }
}

impl TxError {
    /// The application's own reason to roll back.
    pub fn refuse(reason: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::Refused(reason.into())
    }
}

impl From<ReadError> for TxError {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Address(error) => Self::Address(error),
            ReadError::Kind { location, .. } => {
                Self::Path { object: location, rule: "it cannot hold an object of the kind that was read" }
            }
            ReadError::Held { location } => Self::Held { object: location },
            ReadError::Store(error) => Self::Store(error),
        }
    }
}
