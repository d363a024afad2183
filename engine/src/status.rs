//! What the core can say of itself.

use std::fmt;

use comity_crdts::{Frontier, LaneId, ReplicaId, SpaceId};
use serde::{Deserialize, Serialize};

use crate::bootstrap::BootstrapPhase;
use crate::op::Role;

/// A digest of a space's whole visible state. Replicas with equal frontiers have equal digests.
#[derive(Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StateDigest(pub u128);

impl fmt::Display for StateDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Debug for StateDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StateDigest({self})")
    }
}

/// Why a lane is not followed any further.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Freeze {
    /// A peer holds another entry than ours under the same number: the owner was cloned or restored, or lies.
    Fork {
        /// Our hash and the peer's differ at this entry.
        lsn: u64,
    },
    /// The owner signed an entry that breaks a rule.
    Invalid {
        /// The entry.
        lsn: u64,
        /// The rule.
        rule: String,
    },
    /// The owner made an entry without having seen all that was forgotten here, and the entries are not kept any more from
    /// which that could be made again.
    Late {
        /// The first such entry.
        lsn: u64,
    },
}

impl fmt::Display for Freeze {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fork { lsn } => write!(f, "two different entries are numbered {lsn}"),
            Self::Invalid { lsn, rule } => write!(f, "entry {lsn} breaks a rule: {rule}"),
            Self::Late { lsn } => {
                write!(f, "entry {lsn} was made without having seen what is forgotten here")
            }
        }
    }
}

/// The whole report.
#[derive(Clone, Debug, Default)]
pub struct Status {
    /// Every space this replica holds.
    pub spaces: Vec<SpaceStatus>,
    /// Every connected peer.
    pub sessions: Vec<ReplicaId>,
}

/// The report on one space.
#[derive(Clone, Debug)]
pub struct SpaceStatus {
    /// The space.
    pub space: SpaceId,
    /// Its name; empty until the founder's record arrived.
    pub name: String,
    /// What is applied here.
    pub frontier: Frontier,
    /// What is durable here.
    pub durable: Frontier,
    /// Of the lane entries that are kept here, bytes.
    pub log_bytes: u64,
    /// The digest of the state at `frontier`.
    pub digest: StateDigest,
    /// Who takes part.
    pub members: Vec<(ReplicaId, Role)>,
    /// Every lane.
    pub lanes: Vec<LaneStatus>,
    /// Every connected peer that opened the space, with how many lane entries it lacks of what is here.
    pub peers: Vec<(ReplicaId, u64)>,
    /// What every writer has announced to have applied: what matters only to somebody who had not is forgotten. Goes
    /// back when somebody new is heard of, until that one has announced as much.
    pub cut: Frontier,
    /// Writers that keep more from being forgotten, because they have not announced to have applied what removed
    /// it: they are behind, or away, or the lane is one that its owner has left.
    pub stalled_by: Vec<ReplicaId>,
    /// Whether another writer is known to have heard of this incarnation; see `Command::AwaitConfirmation`.
    /// Also true where none need be.
    pub confirmed: bool,
    /// The snapshot that this space is being brought up from.
    pub bootstrap: Option<BootstrapStatus>,
    /// Changes of documents that the document library refused after they were admitted: see `quarantined`.
    pub quarantined: u64,
}

/// The report on a snapshot that a space is being brought up from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BootstrapStatus {
    /// What is being done.
    pub phase: BootstrapPhase,
    /// From whom it comes, where that is known.
    pub source: Option<ReplicaId>,
    /// Rows that are here, or put in their place while the snapshot is installed.
    pub rows: u64,
    /// Rows there are altogether; 0 until somebody has offered them.
    pub rows_total: u64,
    /// Bytes of rows that are here, before they were packed.
    pub bytes: u64,
    /// Bytes there are altogether; 0 until somebody has offered them.
    pub bytes_total: u64,
    /// How often it was begun, or gone on with after it was interrupted, since this replica was opened.
    pub passes: u32,
    /// Why the last source was given up.
    pub fault: Option<String>,
}

/// The report on one lane.
#[derive(Clone, Debug)]
pub struct LaneStatus {
    /// The lane.
    pub lane: LaneId,
    /// Who owns it.
    pub owner: ReplicaId,
    /// Whether this replica writes to it.
    pub is_own: bool,
    /// Entries applied here.
    pub applied: u64,
    /// Entries that can be passed on: up to the last one over which a signature of the owner is held. Of a run, which
    /// is signed at its end, a part may be applied while the rest waits for something else.
    pub provable: u64,
    /// Entries some connected peer has.
    pub known: u64,
    /// Entries received and waiting.
    pub staged: u64,
    /// What the first waiting entry waits for: a lane and the entry needed in it.
    pub waits_for: Option<(LaneId, u64)>,
    /// From whom the lane is received.
    pub parent: Option<ReplicaId>,
    /// Entries up to this one are not kept here any more.
    pub floor: u64,
    /// Why it is not followed any further.
    pub frozen: Option<Freeze>,
}
