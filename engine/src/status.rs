//! What the core can say of itself.

use std::fmt;

use comity_crdts::{Frontier, LaneId, ReplicaId, SpaceId};
use serde::{Deserialize, Serialize};

use crate::audit::AuditStatus;
use crate::bootstrap::BootstrapPhase;
use crate::lag::Lag;
use crate::op::Role;
use crate::version::VersionRefusal;

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

/// How this replica takes part in a space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Standing {
    /// It has not been let in yet, as far as is known here; with the role that was promised to it.
    Joining(Role),
    /// It is a member.
    Member(Role),
    /// It has left. What it holds stays until the space is deleted.
    Left,
    /// It is no longer a member: the member list says so, or an admin did. What it holds stays until the space is
    /// deleted.
    Removed,
}

impl Standing {
    /// Whether transactions are taken.
    pub fn may_write(self) -> bool {
        matches!(self, Self::Joining(role) | Self::Member(role) if role >= Role::Writer)
    }
}

impl fmt::Display for Standing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Joining(Role::Follower) => "is to become a follower",
            Self::Joining(_) => "is to become a member",
            Self::Member(Role::Follower) => "is a follower",
            Self::Member(Role::Writer) => "is a writer",
            Self::Member(Role::Admin) => "is an admin",
            Self::Left => "has left",
            Self::Removed => "is no longer a member",
        })
    }
}

/// The whole report.
#[derive(Clone, Debug, Default)]
pub struct Status {
    /// Every space this replica holds.
    pub spaces: Vec<SpaceStatus>,
    /// Every connection to a peer.
    pub sessions: Vec<SessionStatus>,
    /// Peers with which no protocol version is shared, by the last time they came.
    pub refused: Vec<VersionRefusal>,
}

/// The report on one connection, over all spaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionStatus {
    /// Who is at the other end.
    pub peer: ReplicaId,
    /// Bytes of runs of entries that came.
    pub received_bytes: u64,
    /// Of these, bytes of runs that were wanted when they had come. The rest were copies of what was received from
    /// somebody else in the meantime, or are not complete yet.
    pub needed_bytes: u64,
    /// The protocol version of the connection.
    pub version: u16,
    /// Lanes that go no further on it, because the next entry cannot be said in that version: the peer has to be upgraded.
    pub stopped_lanes: u64,
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
    /// How this replica does.
    pub standing: Standing,
    /// Every lane.
    pub lanes: Vec<LaneStatus>,
    /// Every connected peer that opened the space, ascending.
    pub peers: Vec<PeerStatus>,
    /// What is not durable here of what connected peers have said they have, each entry counted once.
    pub missing: Lag,
    /// How long that takes to arrive at the pace of the last seconds, milliseconds, if nothing is added to it: 0 when
    /// nothing is missing, `None` when nothing has come for seconds.
    pub catch_up_ms: Option<u64>,
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
    /// Change sets of which something is held, because this build does not know it: see `held_objects`.
    pub held: u64,
    /// What audits have come to.
    pub audit: AuditStatus,
}

/// The report on one connected peer in a space.
#[derive(Clone, Debug)]
pub struct PeerStatus {
    /// The peer.
    pub peer: ReplicaId,
    /// What it lacks of what is durable here, as far as it has said what it has.
    pub behind: Lag,
    /// What is not durable here of what it said it has.
    pub ahead: Lag,
    /// How long it takes the peer to catch up at the pace at which it came to hold entries in the last seconds,
    /// milliseconds, if nothing is added: 0 when it lacks nothing, `None` when it has said nothing for seconds.
    pub catch_up_ms: Option<u64>,
    /// The lanes in which either lacks something, in lane order.
    pub lanes: Vec<LaneLag>,
    /// How long it takes to answer, milliseconds, its syncs included; `None` before there was anything to answer.
    pub round_trip_ms: Option<u64>,
    /// How long ago the moment is at which it was asked last with an answer whose content has all arrived: everything
    /// that was durable there by then is durable here, by this replica's own clock. It is only asked for reads that have
    /// to be fresh (`Command::AwaitFresh`); `None` when it was not.
    pub fresh_ms: Option<u64>,
}

/// How far two replicas are apart in one lane.
#[derive(Clone, Copy, Debug)]
pub struct LaneLag {
    /// The lane.
    pub lane: LaneId,
    /// What the peer lacks.
    pub behind: Lag,
    /// What this replica lacks.
    pub ahead: Lag,
}

/// What an entry that was received waits for: its author had seen an entry that is not here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Blocked {
    /// The lane in which something is missing. There may be more.
    pub lane: LaneId,
    /// The entry up to which it is needed.
    pub lsn: u64,
    /// How long ago the entry that waits was received, milliseconds.
    pub since_ms: u64,
    /// The connected peers that said they have what is missing, ascending. When there is none, it comes when somebody
    /// connects who has.
    pub held_by: Vec<ReplicaId>,
    /// From whom the lane in which something is missing is received, if from anybody.
    pub asked: Option<ReplicaId>,
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
    /// What the owner may do; none when it is no longer a member. Its lane is taken as far as remaining members have
    /// it then, and not from its owner.
    pub owner_role: Option<Role>,
    /// Whether this replica writes to it.
    pub is_own: bool,
    /// Entries applied here.
    pub applied: u64,
    /// Entries some connected peer has.
    pub known: u64,
    /// Entries received and waiting.
    pub staged: u64,
    /// Their bytes in stored form.
    pub staged_bytes: u64,
    /// What the first waiting entry waits for. `None` while it waits only for the sync under way.
    pub blocked: Option<Blocked>,
    /// From whom the lane is received.
    pub parent: Option<ReplicaId>,
    /// Entries up to this one are not kept here any more.
    pub floor: u64,
    /// Why it is not followed any further.
    pub frozen: Option<Freeze>,
}
