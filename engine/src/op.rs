//! Operations, and the groups that carry them, in canonical and in compact form.

use comity_crdts::limits::{
    CHANGE_SET_OBJECTS_MAX, CHANGE_SET_OPS_MAX, COLLECTION_BYTES_MAX, CONTEXT_DOTS_MAX,
    DOCUMENT_CHANGE_BYTES_MAX, ELEMENT_BYTES_MAX, KEY_BYTES_MAX, VALUE_BYTES_MAX,
};
use comity_crdts::{
    DecodeError, Dot, Hlc, Kind, ObjectAddress, ObjectId, OriginId, RawChange, Reader, ReplicaId, SpaceId,
    Value, Writer,
};

use crate::dictionary::Dictionary;
use crate::hash::{Hash, hash};

/// What a member may do. The numbers are on the wire and on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[repr(u8)]
pub enum Role {
    /// Reads, writes and forwards.
    Writer = 1,
    /// A writer that may also invite members and grant roles.
    Admin = 2,
}

impl Role {
    pub(crate) fn from_tag(tag: u8) -> Option<Self> {
        match tag {
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
    /// Writes a register, replacing the siblings it observed.
    RegisterSet {
        /// The value.
        value: Value,
        /// The write's stamp; above every stamp it observed in this register.
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
    /// Makes a replica a member, or raises its role. Only an admin's counts.
    Grant {
        /// The replica.
        replica: ReplicaId,
        /// Its role.
        role: Role,
    },
}

const COUNTER_ADD: u8 = 1;
const SET_ADD: u8 = 2;
const SET_REMOVE: u8 = 3;
const REGISTER_SET: u8 = 4;
const REGISTER_RESET: u8 = 5;
const DOCUMENT_CHANGE: u8 = 6;
const GRANT: u8 = 7;

impl Op {
    /// The kind of object the operation is for.
    pub fn kind(&self) -> Kind {
        match self {
            Self::CounterAdd(_) => Kind::Counter,
            Self::SetAdd { .. } | Self::SetRemove { .. } => Kind::Set,
            Self::RegisterSet { .. } | Self::RegisterReset { .. } => Kind::Register,
            Self::DocumentChange(_) => Kind::Document,
            Self::Grant { .. } => Kind::Members,
        }
    }

    /// The bytes of the value or change it carries; 0 for operations of a few bytes.
    pub(crate) fn value_bytes(&self) -> usize {
        match self {
            Self::SetAdd { element: value, .. }
            | Self::SetRemove { element: value, .. }
            | Self::RegisterSet { value, .. } => value.to_bytes().len(),
            Self::DocumentChange(change) => change.bytes().len(),
            Self::CounterAdd(_) | Self::RegisterReset { .. } | Self::Grant { .. } => 0,
        }
    }

    /// The canonical form that is hashed: full ids, and a document change by its own hash.
    fn encode_canonical(&self, out: &mut Writer) {
        match self {
            Self::DocumentChange(change) => {
                out.u8(DOCUMENT_CHANGE);
                out.bytes(&change.hash());
            }
            _ => self.encode_with(out, &mut |origin, out| out.bytes(&origin.0)),
        }
    }

    /// The compact form that is stored and sent: ids by dictionary reference.
    fn encode(&self, out: &mut Writer, dictionary: &mut Dictionary) {
        self.encode_with(out, &mut |origin, out| dictionary.write_origin(origin, out));
    }

    fn encode_with(&self, out: &mut Writer, origin: &mut dyn FnMut(&OriginId, &mut Writer)) {
        let mut dots = |observed: &[Dot], out: &mut Writer| {
            out.varint(observed.len() as u64);
            for dot in observed {
                origin(&dot.origin, out);
                out.varint(dot.seq);
                out.varint(u64::from(dot.index));
            }
        };
        match self {
            Self::CounterAdd(delta) => {
                out.u8(COUNTER_ADD);
                out.varint_signed(*delta);
            }
            Self::SetAdd { element, observed } => {
                out.u8(SET_ADD);
                element.encode(out);
                dots(observed, out);
            }
            Self::SetRemove { element, observed } => {
                out.u8(SET_REMOVE);
                element.encode(out);
                dots(observed, out);
            }
            Self::RegisterSet { value, hlc, observed } => {
                out.u8(REGISTER_SET);
                value.encode(out);
                out.bytes(&hlc.bits().to_be_bytes());
                dots(observed, out);
            }
            Self::RegisterReset { observed } => {
                out.u8(REGISTER_RESET);
                dots(observed, out);
            }
            Self::DocumentChange(change) => {
                out.u8(DOCUMENT_CHANGE);
                out.blob(change.bytes());
            }
            Self::Grant { replica, role } => {
                out.u8(GRANT);
                out.bytes(&replica.0);
                out.u8(*role as u8);
            }
        }
    }

    fn decode(reader: &mut Reader<'_>, dictionary: &mut Dictionary) -> Result<Self, DecodeError> {
        match reader.u8("operation tag")? {
            COUNTER_ADD => Ok(Self::CounterAdd(reader.varint_signed("counter delta")?)),
            SET_ADD => Ok(Self::SetAdd {
                element: Value::decode(reader, ELEMENT_BYTES_MAX)?,
                observed: decode_dots(reader, dictionary)?,
            }),
            SET_REMOVE => Ok(Self::SetRemove {
                element: Value::decode(reader, ELEMENT_BYTES_MAX)?,
                observed: decode_dots(reader, dictionary)?,
            }),
            REGISTER_SET => Ok(Self::RegisterSet {
                value: Value::decode(reader, VALUE_BYTES_MAX)?,
                hlc: Hlc::from_bits(u64::from_be_bytes(reader.array("register stamp")?)),
                observed: decode_dots(reader, dictionary)?,
            }),
            REGISTER_RESET => Ok(Self::RegisterReset { observed: decode_dots(reader, dictionary)? }),
            DOCUMENT_CHANGE => {
                let bytes = reader.blob(DOCUMENT_CHANGE_BYTES_MAX, "document change")?;
                RawChange::parse(bytes).map(Self::DocumentChange).map_err(|_| DecodeError::Invalid {
                    what: "document change",
                    rule: "must be one sound change",
                })
            }
            GRANT => {
                let replica = ReplicaId(reader.array("granted replica")?);
                let tag = reader.u8("granted role")?;
                let role = Role::from_tag(tag)
                    .ok_or(DecodeError::UnknownTag { what: "granted role", tag: u64::from(tag) })?;
                Ok(Self::Grant { replica, role })
            }
            tag => Err(DecodeError::UnknownTag { what: "operation", tag: u64::from(tag) }),
        }
    }
}

fn decode_dots(reader: &mut Reader<'_>, dictionary: &mut Dictionary) -> Result<Vec<Dot>, DecodeError> {
    let count = reader.count(CONTEXT_DOTS_MAX, "observed dots")?;
    let mut dots = Vec::with_capacity(count);
    for _ in 0..count {
        let origin = dictionary.read_origin(reader)?;
        let seq = reader.varint("dot seq")?;
        let index = reader.varint_max(u64::from(u16::MAX), "dot index")? as u16;
        let dot = Dot { origin, seq, index };
        if dots.last().is_some_and(|last| *last >= dot) {
            return Err(DecodeError::NotCanonical { what: "observed dots" });
        }
        dots.push(dot);
    }
    Ok(dots)
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
    /// The group's leaf hash; a group can be withheld and replaced by it without breaking the change's hash.
    pub(crate) fn leaf(&self, space: &SpaceId) -> Hash {
        let mut out = Writer::new();
        out.bytes(&ObjectId::derive(space, &self.address).0);
        out.u8(self.address.kind() as u8);
        out.varint(self.ops.len() as u64);
        for op in &self.ops {
            op.encode_canonical(&mut out);
        }
        hash("comity 2026 group\0", &[out.as_slice()])
    }
}

/// Writes the groups of a change set in compact form.
pub(crate) fn encode_groups(groups: &[Group], out: &mut Writer, dictionary: &mut Dictionary) {
    out.varint(groups.len() as u64);
    for group in groups {
        dictionary.write_object(&group.address, out);
        out.varint(group.ops.len() as u64);
        for op in &group.ops {
            op.encode(out, dictionary);
        }
    }
}

/// Reads the groups of a change set: one per object, every operation of its object's kind.
pub(crate) fn decode_groups(
    reader: &mut Reader<'_>,
    dictionary: &mut Dictionary,
) -> Result<Vec<Group>, DecodeError> {
    let count = reader.count(CHANGE_SET_OBJECTS_MAX, "groups")?;
    let mut groups: Vec<Group> = Vec::new();
    let mut addresses = std::collections::BTreeSet::new();
    let mut ops_total = 0_usize;
    for _ in 0..count {
        let address = dictionary.read_object(reader, COLLECTION_BYTES_MAX, KEY_BYTES_MAX)?;
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
            let op = Op::decode(reader, dictionary)?;
            if op.kind() != address.kind() {
                return Err(DecodeError::Invalid { what: "operation", rule: "must be of its object's kind" });
            }
            ops.push(op);
        }
        if !addresses.insert(address.clone()) {
            return Err(DecodeError::NotCanonical { what: "groups" });
        }
        groups.push(Group { address, ops });
    }
    Ok(groups)
}
