//! What a change set did, as its watchers are told.

use comity_crdts::{
    Dot, ExtensionTag, Frontier, Hlc, LaneId, ObjectAddress, OriginId, ReplicaId, SpaceId, Value,
};

use crate::op::{Group, Op, Role};
use crate::token::Token;

/// A change set that became visible here, as far as the reader's scope shows it.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct ChangeEvent {
    /// The space.
    pub space: SpaceId,
    /// The replica that made it.
    pub author: ReplicaId,
    /// The region of that replica, when it says one.
    pub region: Option<String>,
    /// The incarnation that made it.
    pub origin: OriginId,
    /// Its number at its origin.
    pub seq: u64,
    /// The lane that carries it.
    pub lane: LaneId,
    /// Its place in that lane.
    pub lsn: u64,
    /// When it was made.
    pub hlc: Hlc,
    /// What it did, by object; at least one.
    pub changes: Vec<ObjectChange>,
    /// Everything up to and including this change set: what was seen before, and what was read or passed over
    /// since.
    pub frontier: Frontier,
}

impl ChangeEvent {
    /// Resumes right after this change set, at any replica.
    pub fn token(&self) -> Token {
        Token { space: self.space, frontier: self.frontier.clone() }
    }
}

/// What a change set did to one object.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct ObjectChange {
    /// The object.
    pub object: ObjectAddress,
    /// What it did, in order. Each is one operation: the dot of the one at `index` is the event's origin and
    /// `seq` with that index.
    pub did: Vec<Did>,
}

impl From<Group> for ObjectChange {
    fn from(group: Group) -> Self {
        Self { object: group.address, did: group.ops.into_iter().map(Did::from).collect() }
    }
}

/// What one operation did. It says what its author did to what its author saw; what an object holds then is
/// in a view, because operations made elsewhere meanwhile count too.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Did {
    /// Added to a counter.
    Added(i64),
    /// Added an element to a set.
    Inserted(Value),
    /// Removed an element from a set. An addition that the author had not seen stays.
    Removed(Value),
    /// Wrote a register.
    Written {
        /// The value.
        value: Value,
        /// The value's stamp, by which the last writer is found.
        hlc: Hlc,
        /// The values it replaced. Those that the author had not seen stay beside it.
        replaced: Vec<Dot>,
    },
    /// Emptied a register.
    Cleared {
        /// The values it removed.
        removed: Vec<Dot>,
    },
    /// Edited a document: made one Automerge change.
    Edited {
        /// The change's hash, by which the document's history names it.
        change: [u8; 32],
        /// Its Automerge operations.
        ops: u64,
    },
    /// Took back the additions to a counter that the author saw.
    CounterReset,
    /// Removed every element of a set as the author saw it.
    SetCleared,
    /// Removed a document.
    DocumentRemoved,
    /// Enabled a flag.
    Enabled,
    /// Disabled a flag.
    Disabled,
    /// Raised a bounded counter.
    Raised(u64),
    /// Lowered a bounded counter.
    Lowered(u64),
    /// Handed rights to a bounded counter to another origin.
    RightsMoved {
        /// Who has them now.
        to: OriginId,
        /// How many.
        amount: u64,
    },
    /// Did something to what a map holds.
    Within {
        /// The keys that lead to it.
        path: Vec<String>,
        /// What it did.
        did: Box<Self>,
    },
    /// Made a replica a member, or gave it another role. Only an admin's grant has an effect.
    MemberGranted {
        /// The replica.
        replica: ReplicaId,
        /// Its role.
        role: Role,
    },
    /// Removed a member. Only an admin's word has an effect, or the member's own.
    MemberRevoked {
        /// The replica.
        replica: ReplicaId,
    },
    /// Did something that a later version of the format defines.
    Extension {
        /// The number of the operation there.
        tag: ExtensionTag,
    },
}

impl From<Op> for Did {
    fn from(op: Op) -> Self {
        match op {
            Op::CounterAdd(delta) => Self::Added(delta),
            Op::SetAdd { element, .. } => Self::Inserted(element),
            Op::SetRemove { element, .. } => Self::Removed(element),
            Op::RegisterSet { value, hlc, observed } => Self::Written { value, hlc, replaced: observed },
            Op::RegisterReset { observed } => Self::Cleared { removed: observed },
            Op::DocumentChange(change) => Self::Edited { change: change.hash(), ops: change.ops() },
            Op::Grant { replica, role } => Self::MemberGranted { replica, role },
            Op::Revoke { replica } => Self::MemberRevoked { replica },
            Op::CounterReset { .. } => Self::CounterReset,
            Op::SetClear { .. } => Self::SetCleared,
            Op::DocumentRemove { .. } => Self::DocumentRemoved,
            Op::FlagEnable { .. } | Op::DwFlagEnable => Self::Enabled,
            Op::FlagDisable { .. } | Op::DwFlagDisable => Self::Disabled,
            Op::RwSetAdd { element } => Self::Inserted(element),
            Op::RwSetRemove { element } => Self::Removed(element),
            Op::BoundedIncrement(amount) => Self::Raised(amount),
            Op::BoundedDecrement(amount) => Self::Lowered(amount),
            Op::BoundedTransfer { to, amount } => Self::RightsMoved { to, amount },
            Op::Extension { tag, .. } => Self::Extension { tag },
            Op::Nested { path, op } => Self::Within { path, did: Box::new(Self::from(*op)) },
        }
    }
}
