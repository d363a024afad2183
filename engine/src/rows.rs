//! The rows of objects: one header per object, one row per set element, document change and member.

use comity_crdts::{
    DecodeError, ElementDots, Kind, MvRegister, ObjectId, PnCounter, Reader, ReplicaId, Writer,
};

use crate::hash::hash;
use crate::store::StoreError;

/// What a document's header says of it; its changes are rows of their own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct DocumentHeader {
    /// Automerge heads, sorted.
    pub(crate) heads: Vec<[u8; 32]>,
    /// The number of changes applied.
    pub(crate) changes: u64,
    /// Their raw bytes.
    pub(crate) bytes: u64,
}

/// What a set's header says of it; its elements are rows of their own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct SetHeader {
    /// Elements present.
    pub(crate) elements: u64,
    /// The sum of the digests of the element rows, so that it changes in O(1).
    pub(crate) sum: u128,
}

/// The header row of an object.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Object {
    Counter(PnCounter),
    Set(SetHeader),
    Register(MvRegister),
    Document(DocumentHeader),
}

impl Object {
    /// The object before any operation.
    pub(crate) fn bottom(kind: Kind) -> Option<Self> {
        match kind {
            Kind::Counter => Some(Self::Counter(PnCounter::default())),
            Kind::Set => Some(Self::Set(SetHeader::default())),
            Kind::Register => Some(Self::Register(MvRegister::default())),
            Kind::Document => Some(Self::Document(DocumentHeader::default())),
            _ => None,
        }
    }

    /// Whether the object holds nothing, so that it needs no row.
    pub(crate) fn is_bottom(&self) -> bool {
        match self {
            Self::Counter(_) => false,
            Self::Set(set) => set.elements == 0,
            Self::Register(register) => register.is_empty(),
            Self::Document(document) => document.changes == 0,
        }
    }

    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let mut out = Writer::new();
        match self {
            Self::Counter(counter) => counter.encode(&mut out),
            Self::Set(set) => {
                out.varint(set.elements);
                out.bytes(&set.sum.to_be_bytes());
            }
            Self::Register(register) => register.encode(&mut out),
            Self::Document(document) => {
                out.varint(document.changes);
                out.varint(document.bytes);
                out.varint(document.heads.len() as u64);
                for head in &document.heads {
                    out.bytes(head);
                }
            }
        }
        out.finish()
    }

    pub(crate) fn from_bytes(kind: Kind, bytes: &[u8]) -> Result<Self, StoreError> {
        let mut reader = Reader::new(bytes);
        let object =
            Self::decode(kind, &mut reader).and_then(|object| reader.finish("object row").map(|()| object));
        object.map_err(|error| damaged("object row", &error))
    }

    fn decode(kind: Kind, reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        match kind {
            Kind::Counter => Ok(Self::Counter(PnCounter::decode(reader)?)),
            Kind::Set => Ok(Self::Set(SetHeader {
                elements: reader.varint("set elements")?,
                sum: u128::from_be_bytes(reader.array("set sum")?),
            })),
            Kind::Register => Ok(Self::Register(MvRegister::decode(reader)?)),
            Kind::Document => {
                let changes = reader.varint("document changes")?;
                let bytes = reader.varint("document bytes")?;
                let count = reader.count(reader.remaining(), "document heads")?;
                let heads = (0..count).map(|_| reader.array("document head")).collect::<Result<_, _>>()?;
                Ok(Self::Document(DocumentHeader { heads, changes, bytes }))
            }
            other => Err(DecodeError::UnknownTag { what: "object row", tag: other as u64 }),
        }
    }

    /// The object's share of the space's state digest: equal states have equal shares whatever the order
    /// in which they came about. An object that holds nothing has share 0.
    pub(crate) fn digest(&self, id: &ObjectId) -> u128 {
        if self.is_bottom() {
            return 0;
        }
        match self {
            // How many changes arrived, and in what order, is not state: the heads are.
            Self::Document(document) => digest_of(id, &document.heads.concat()),
            Self::Counter(_) | Self::Set(_) | Self::Register(_) => digest_of(id, &self.to_bytes()),
        }
    }
}

/// The digest of one element row of a set.
pub(crate) fn element_digest(id: &ObjectId, element: &[u8], dots: &ElementDots) -> u128 {
    if !dots.is_present() {
        return 0;
    }
    let mut out = Writer::new();
    out.blob(element);
    dots.encode(&mut out);
    digest_of(id, out.as_slice())
}

/// The digest of one member row.
pub(crate) fn member_digest(replica: &ReplicaId, row: &[u8]) -> u128 {
    digest_of(&ObjectId([0; 16]), &[replica.0.as_slice(), row].concat())
}

fn digest_of(id: &ObjectId, state: &[u8]) -> u128 {
    let hash = hash("comity 2026 state\0", &[&id.0, state]);
    let mut half = [0; 16];
    half.copy_from_slice(&hash.0[..16]);
    u128::from_be_bytes(half)
}

/// A stored row that does not decode.
pub(crate) fn damaged(what: &str, error: &dyn std::fmt::Display) -> StoreError {
    StoreError::Corrupt { detail: format!("{what}: {error}") }
}

/// Decodes the dots of an element row.
pub(crate) fn decode_element(bytes: &[u8]) -> Result<ElementDots, StoreError> {
    let mut reader = Reader::new(bytes);
    let dots = ElementDots::decode(&mut reader).and_then(|dots| reader.finish("element row").map(|()| dots));
    dots.map_err(|error| damaged("element row", &error))
}
