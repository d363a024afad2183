//! Bootstrap: a replica that is new, or so far behind that nobody keeps what it lacks, takes over the state of another
//! one and goes on from there.
//!
//! The state of a space at one moment is walked in one order (`walk`) and sent in pieces (`piece`), each of which is known
//! by where it begins and ends and by its hash. The source (`source`) reads them outside the core from a view that it
//! keeps; the receiver (`fetch`) asks for them and stages them durably, so that what is the same anywhere need not be sent
//! again. Once all are there they are verified outside the core (`verify`) and take the place of the state (`install`),
//! after which everything that is held here and is not in them is applied again.

mod fetch;
mod install;
mod piece;
mod rows;
mod serve;
mod source;
mod staged;
mod verify;
mod walk;

use comity_crdts::{Frontier, SpaceId};
use serde::{Deserialize, Serialize};

use crate::keys;
use crate::space::decode;
use crate::status::StateDigest;
use crate::store::{StateRead, StoreError};

pub(crate) use fetch::Bootstrap;
pub use install::flipped;
pub(crate) use install::{Installing, Stage};
pub use piece::{WalkRow, decode_piece, encode_piece};
pub(crate) use rows::clear_parts;
pub(crate) use serve::Served;
pub use source::{SnapshotAnswer, SnapshotSource, SnapshotTask};
pub(crate) use walk::STEPS_MAX;

/// The state of a space that somebody can take over.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offer {
    /// How many entries were applied.
    pub applied: u64,
    /// The digest of the state.
    pub digest: StateDigest,
    /// What was applied.
    pub frontier: Frontier,
    /// Rows that are to be sent.
    pub rows: u64,
    /// Their bytes, before they are packed.
    pub bytes: u64,
}

impl Offer {
    /// Whether both are of the same state, however much each says that it is.
    fn is_of_the_same(&self, other: &Self) -> bool {
        (self.applied, self.digest, &self.frontier) == (other.applied, other.digest, &other.frontier)
    }
}

/// Why a snapshot is not, or no longer, served.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SnapshotEnd {
    /// The receiver needs it no more.
    Done,
    /// The source serves as many as it can. Ask again later.
    Busy,
    /// The source does not hold it, or not any more.
    Gone,
}

/// What a replica that is brought up from a snapshot is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum BootstrapPhase {
    /// Nobody was found to take it from, or not again.
    Waiting,
    /// Pieces are being received.
    Receiving,
    /// All of them are here and are being checked.
    Verifying,
    /// They are taking the place of the state; the space can be neither read nor written.
    Installing,
}

/// The mark of a space whose state is being replaced.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Mark {
    pub(crate) offer: Offer,
    /// What is done next.
    pub(crate) stage: Stage,
}

/// Whether the state of a space is being replaced in the state that is read, so that nothing of it can be read. O(log n).
///
/// # Errors
/// [`StoreError`] when storage fails.
pub fn is_installing(read: &dyn StateRead, space: &SpaceId) -> Result<bool, StoreError> {
    Ok(mark(read, space)?.is_some())
}

/// Whether a space can be read in the state that is read. O(log n).
///
/// # Errors
/// [`StoreError::UnknownSpace`] when it is not held, [`StoreError::Installing`] while its state is being replaced by that of
/// another replica; others when storage fails.
pub fn check_readable(read: &dyn StateRead, space: &SpaceId) -> Result<(), StoreError> {
    if read.get(&keys::space(space))?.is_none() {
        return Err(StoreError::UnknownSpace(*space));
    }
    if is_installing(read, space)? { Err(StoreError::Installing(*space)) } else { Ok(()) }
}

fn mark(read: &dyn StateRead, space: &SpaceId) -> Result<Option<Mark>, StoreError> {
    read.get(&keys::install_mark(space))?.map(|bytes| decode("mark of an installation", &bytes)).transpose()
}
