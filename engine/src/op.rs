//! Operations, and the groups that carry them, in canonical and in compact form.

mod codec;

use comity_crdts::limits::{CHANGE_SET_OBJECTS_MAX, CHANGE_SET_OPS_MAX, COLLECTION_BYTES_MAX, KEY_BYTES_MAX};
use comity_crdts::{
    DecodeError, Dot, ExtensionTag, Hlc, Kind, ObjectAddress, ObjectId, Observed, OriginId, RawChange,
    Reader, ReplicaId, ResetColumn, SpaceId, Value, Writer,
};

use crate::dictionary::Dictionary;
use crate::hash::{Hash, hash};

/// What most groups have in the form that is hashed besides values.
const LEAF_BYTES: usize = 128;

/// What a member may do. The numbers are on the wire and on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[repr(u8)]
pub enum Role {
    /// Stores, serves reads and forwards, and writes nothing; no write waits for it.
    Follower = 0,
    /// Reads, writes and forwards.
    Writer = 1,
    /// A writer that may also invite and remove members and grant roles.
    Admin = 2,
}

impl Role {
    pub(crate) fn from_tag(tag: u8) -> Option<Self> {
        match tag {
            0 => Some(Self::Follower),
            1 => Some(Self::Writer),
            2 => Some(Self::Admin),
            _ => None,
        }
    }
}

/// One operation on one object.
#[derive(Clone, Debug, PartialEq)]
pub enum Op {
    /// Adds to a counter.
    CounterAdd(i64),
    /// Takes back the additions to a counter that its author saw.
    CounterReset {
        /// Per origin how far it saw additions, and their sum.
        columns: Vec<ResetColumn>,
    },
    /// Adds an element, replacing the dots it observed.
    SetAdd {
        /// The element.
        element: Value,
        /// The element's dots its author saw.
        observed: Vec<Dot>,
    },
    /// Removes the observed dots of an element.
    SetRemove {
        /// The element.
        element: Value,
        /// The element's dots its author saw.
        observed: Vec<Dot>,
    },
    /// Removes every element of a set as its author saw it.
    SetClear {
        /// Per origin the last addition its author saw.
        observed: Observed,
    },
    /// Writes a register, replacing the siblings it observed.
    RegisterSet {
        /// The value.
        value: Value,
        /// The write's stamp; above every stamp it observed in this register, and at least its change set's.
        hlc: Hlc,
        /// The siblings its author saw.
        observed: Vec<Dot>,
    },
    /// Removes the observed siblings of a register.
    RegisterReset {
        /// The siblings its author saw.
        observed: Vec<Dot>,
    },
    /// Applies one Automerge change to a document.
    DocumentChange(RawChange),
    /// Removes a document for good: what others did to it at the same time goes too, and is journalled.
    DocumentRemove {
        /// The document's heads as its author saw them, sorted.
        heads: Vec<[u8; 32]>,
    },
    /// Makes a replica a member, or gives it another role. Only an admin's counts.
    Grant {
        /// The replica.
        replica: ReplicaId,
        /// Its role.
        role: Role,
    },
    /// Removes a member. Only an admin's counts, or the member's own.
    Revoke {
        /// The replica.
        replica: ReplicaId,
    },
    /// Enables an enable-wins flag, replacing the dots it observed.
    FlagEnable {
        /// The flag's dots its author saw.
        observed: Vec<Dot>,
    },
    /// Disables an enable-wins flag as its author saw it.
    FlagDisable {
        /// The flag's dots its author saw.
        observed: Vec<Dot>,
    },
    /// Enables a disable-wins flag: cancels what its author saw disabled.
    DwFlagEnable,
    /// Disables a disable-wins flag, whatever is enabled at the same time.
    DwFlagDisable,
    /// Adds an element to a remove-wins set: cancels the removals its author saw.
    RwSetAdd {
        /// The element.
        element: Value,
    },
    /// Removes an element from a remove-wins set, whatever is added at the same time.
    RwSetRemove {
        /// The element.
        element: Value,
    },
    /// Raises a bounded counter; its author gets the right to lower it again.
    BoundedIncrement(u64),
    /// Lowers a bounded counter by rights of its author.
    BoundedDecrement(u64),
    /// Hands rights of its author to another origin.
    BoundedTransfer {
        /// Who gets them.
        to: OriginId,
        /// How many.
        amount: u64,
    },
    /// Does something to an object within a map.
    Nested {
        /// The keys that lead to it, from the outermost map inwards.
        path: Vec<String>,
        /// What is done.
        op: Box<Op>,
    },
    /// Something that a later version of the format defines, on an object of any kind but the member list and settings:
    /// a format in which these change otherwise is another one.
    Extension {
        /// What it is.
        tag: ExtensionTag,
        /// All that it says, in one form everywhere: it names origins in full.
        body: Vec<u8>,
    },
}

impl Op {
    /// The kind of object the operation is for. Settings are registers, so theirs say so. An extension may be for any kind;
    /// it says its own number.
    pub fn kind(&self) -> Kind {
        match self {
            Self::CounterAdd(_) | Self::CounterReset { .. } => Kind::Counter,
            Self::SetAdd { .. } | Self::SetRemove { .. } | Self::SetClear { .. } => Kind::Set,
            Self::RegisterSet { .. } | Self::RegisterReset { .. } => Kind::Register,
            Self::DocumentChange(_) | Self::DocumentRemove { .. } => Kind::Document,
            Self::Grant { .. } | Self::Revoke { .. } => Kind::Members,
            Self::FlagEnable { .. } | Self::FlagDisable { .. } => Kind::Flag,
            Self::DwFlagEnable | Self::DwFlagDisable => Kind::DwFlag,
            Self::RwSetAdd { .. } | Self::RwSetRemove { .. } => Kind::RwSet,
            Self::BoundedIncrement(_) | Self::BoundedDecrement(_) | Self::BoundedTransfer { .. } => {
                Kind::BoundedCounter
            }
            Self::Nested { .. } => Kind::Map,
            Self::Extension { tag, .. } => Kind::Extension(*tag),
        }
    }

    /// Whether an object of this kind takes the operation.
    pub fn is_for(&self, kind: Kind) -> bool {
        if let Self::Extension { .. } = self {
            return !matches!(kind, Kind::Members | Kind::Settings);
        }
        self.kind() == kind || (kind == Kind::Settings && self.kind() == Kind::Register)
    }

    /// Whether the operation may stand in a map. What keeps no dots cannot be removed as it was observed.
    pub fn nests(&self) -> bool {
        matches!(self.kind(), Kind::Counter | Kind::Set | Kind::Register | Kind::Flag)
    }

    /// Whether the operation means what it is to mean only when its author had seen everything that others
    /// may have compacted.
    pub(crate) fn needs_confirmation(&self) -> bool {
        match self {
            Self::DwFlagEnable
            | Self::DwFlagDisable
            | Self::RwSetAdd { .. }
            | Self::RwSetRemove { .. }
            | Self::CounterReset { .. }
            // Whoever does not know what it does takes it for one that is.
            | Self::Extension { .. } => true,
            Self::Nested { op, .. } => op.needs_confirmation(),
            Self::CounterAdd(_)
            | Self::SetAdd { .. }
            | Self::SetRemove { .. }
            | Self::SetClear { .. }
            | Self::RegisterSet { .. }
            | Self::RegisterReset { .. }
            | Self::DocumentChange(_)
            | Self::DocumentRemove { .. }
            | Self::Grant { .. }
            | Self::Revoke { .. }
            | Self::FlagEnable { .. }
            | Self::FlagDisable { .. }
            | Self::BoundedIncrement(_)
            | Self::BoundedDecrement(_)
            | Self::BoundedTransfer { .. } => false,
        }
    }

    /// The bytes of the value or change it carries; 0 for operations of a few bytes.
    pub(crate) fn value_bytes(&self) -> usize {
        match self {
            Self::SetAdd { element: value, .. }
            | Self::SetRemove { element: value, .. }
            | Self::RwSetAdd { element: value }
            | Self::RwSetRemove { element: value }
            | Self::RegisterSet { value, .. } => value.encoded_len(),
            Self::DocumentChange(change) => change.bytes().len(),
            Self::Extension { body, .. } => body.len(),
            Self::Nested { path, op } => path.iter().map(String::len).sum::<usize>() + op.value_bytes(),
            Self::CounterAdd(_)
            | Self::CounterReset { .. }
            | Self::SetClear { .. }
            | Self::RegisterReset { .. }
            | Self::DocumentRemove { .. }
            | Self::Grant { .. }
            | Self::Revoke { .. }
            | Self::FlagEnable { .. }
            | Self::FlagDisable { .. }
            | Self::DwFlagEnable
            | Self::DwFlagDisable
            | Self::BoundedIncrement(_)
            | Self::BoundedDecrement(_)
            | Self::BoundedTransfer { .. } => 0,
        }
    }
}

/// The operations of one change set on one object, in the order they were made.
#[derive(Clone, Debug, PartialEq)]
pub struct Group {
    /// The object.
    pub address: ObjectAddress,
    /// At least one operation, all of the object's kind.
    pub ops: Vec<Op>,
}

impl Group {
    /// Whether it is of a kind, or has an operation, that a later version of the format defines.
    pub(crate) fn is_extended(&self) -> bool {
        let is_extension = |op: &Op| matches!(op, Op::Extension { .. });
        matches!(self.address.kind(), Kind::Extension(_)) || self.ops.iter().any(is_extension)
    }

    /// The group's leaf hash; a group can be withheld and replaced by it without breaking the change's hash.
    pub(crate) fn leaf(&self, space: &SpaceId) -> Hash {
        let mut out = Writer::with_room(LEAF_BYTES + self.ops.iter().map(Op::value_bytes).sum::<usize>());
        out.bytes(&ObjectId::derive(space, &self.address).0);
        out.u8(self.address.kind().tag());
        out.varint(self.ops.len() as u64);
        for op in &self.ops {
            op.encode_canonical(&mut out);
        }
        hash("comity 2026 group\0", &[out.as_slice()])
    }
}

/// Writes the groups of a change set in compact form.
/// Stamps are written relative to `at`, the change set's.
pub(crate) fn encode_groups(groups: &[Group], at: Hlc, out: &mut Writer, dictionary: &mut Dictionary) {
    out.varint(groups.len() as u64);
    for group in groups {
        let object = dictionary.write_object(&group.address, out);
        out.varint(group.ops.len() as u64);
        for op in &group.ops {
            op.encode((at, object), out, dictionary);
        }
    }
}

/// Reads the groups of a change set: one per object, every operation of its object's kind.
pub(crate) fn decode_groups(
    at: Hlc,
    reader: &mut Reader<'_>,
    dictionary: &mut Dictionary,
) -> Result<Vec<Group>, DecodeError> {
    let count = reader.count(CHANGE_SET_OBJECTS_MAX, "groups")?;
    let mut groups: Vec<Group> = Vec::new();
    let mut addresses = std::collections::BTreeSet::new();
    let mut ops_total = 0_usize;
    if let Some(elision) = dictionary.elision() {
        elision.begin_change_set();
    }
    for _ in 0..count {
        let (object, address) = dictionary.read_object(reader, COLLECTION_BYTES_MAX, KEY_BYTES_MAX)?;
        let ops_count = reader.count(CHANGE_SET_OPS_MAX, "operations")?;
        ops_total += ops_count;
        if ops_count == 0 || ops_total > CHANGE_SET_OPS_MAX {
            return Err(DecodeError::OverLimit {
                what: "operations in a change set",
                value: ops_total as u64,
                value_max: CHANGE_SET_OPS_MAX as u64,
            });
        }
        let mut ops = Vec::new();
        for _ in 0..ops_count {
            let op = Op::decode((at, object), reader, dictionary)?;
            if !op.is_for(address.kind()) {
                return Err(DecodeError::Invalid { what: "operation", rule: "must be of its object's kind" });
            }
            ops.push(op);
        }
        // Nearly always there is one.
        if count > 1 && !addresses.insert(address.clone()) {
            return Err(DecodeError::NotCanonical { what: "groups" });
        }
        groups.push(Group { address, ops });
    }
    Ok(groups)
}
