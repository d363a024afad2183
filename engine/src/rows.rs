//! The rows of objects: one header per object, one row per set element, document change and member.

use std::collections::{BTreeMap, BTreeSet};

use comity_crdts::{
    BoundedCounter, DecodeError, ElementDots, Kind, MvRegister, ObjectId, Place, Reader, ReplicaId,
    ResettableCounter, RwRow, Writer,
};

use crate::extension::stored_as;
use crate::hash::hash;
use crate::store::StoreError;

/// What most headers have.
const HEADER_BYTES: usize = 96;

/// What a document's header says of it. Its changes are in the log; rows of their own tell where.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct DocumentHeader {
    /// The changes that no other admitted change depends on, each with the number of its last operation.
    pub(crate) heads: BTreeMap<[u8; 32], u64>,
    /// The number of changes admitted since the document was last removed.
    pub(crate) changes: u64,
    /// Their raw bytes.
    pub(crate) bytes: u64,
    /// Removals: a change whose author did not see all of them is none of this document. They stay, because a
    /// replica that was restored may change a document without waiting for anybody.
    pub(crate) removals: BTreeSet<Place>,
    /// How often the document was removed: what is remembered of it from before is of another document.
    pub(crate) generation: u64,
    pub(crate) snapshot: SnapshotRow,
}

/// The newest snapshot of a document.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct SnapshotRow {
    /// Its number, under which its pieces are; 0 when there is none.
    pub(crate) number: u64,
    /// How many of the admitted changes are in it. Those after it are the tail.
    pub(crate) through: u64,
    /// Its length.
    pub(crate) bytes: u64,
    /// The raw bytes of the changes that are in it.
    pub(crate) raw_bytes: u64,
}

impl DocumentHeader {
    /// The hashes of the heads, ascending.
    pub(crate) fn head_hashes(&self) -> Vec<[u8; 32]> {
        self.heads.keys().copied().collect()
    }
}

/// What the header of a set or a map says of its parts, which are rows of their own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Parts {
    /// Elements that are in the set, or keys and kinds that the map holds.
    pub(crate) count: u64,
    /// The sum of the digests of the parts, so that it changes in O(1).
    pub(crate) sum: u128,
}

impl Parts {
    /// A part changed.
    pub(crate) fn exchange(&mut self, before: Share, after: Share) {
        self.count = self.count + u64::from(after.is_present) - u64::from(before.is_present);
        self.sum = self.sum.wrapping_sub(before.digest).wrapping_add(after.digest);
    }

    /// How what a header says of its parts differs from those that were found.
    pub(crate) fn fault(&self, found: &Self) -> Option<String> {
        if self.count != found.count {
            return Some(format!("{} parts are there, and it says {}", found.count, self.count));
        }
        (self.sum != found.sum).then(|| "its parts are not those that it says".to_owned())
    }
}

/// What an object, or a part of one, adds to what contains it. Equal states have equal shares whatever the
/// order in which they came about, and whatever of them was compacted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Share {
    /// Whether it holds something that readers see.
    pub(crate) is_present: bool,
    /// 0 when it does not.
    pub(crate) digest: u128,
}

/// The header row of an object.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Object {
    Counter(ResettableCounter),
    Set(Parts),
    Register(MvRegister),
    Document(DocumentHeader),
    Flag(ElementDots),
    DwFlag(RwRow),
    RwSet(Parts),
    Map(Parts),
    Bounded(BoundedCounter),
}

impl Object {
    /// The object before any operation.
    pub(crate) fn bottom(kind: Kind) -> Option<Self> {
        match stored_as(kind) {
            Kind::Counter => Some(Self::Counter(ResettableCounter::default())),
            Kind::Set => Some(Self::Set(Parts::default())),
            Kind::Register | Kind::Settings => Some(Self::Register(MvRegister::default())),
            Kind::Document => Some(Self::Document(DocumentHeader::default())),
            Kind::Flag => Some(Self::Flag(ElementDots::default())),
            Kind::DwFlag => Some(Self::DwFlag(RwRow::default())),
            Kind::RwSet => Some(Self::RwSet(Parts::default())),
            Kind::Map => Some(Self::Map(Parts::default())),
            Kind::BoundedCounter => Some(Self::Bounded(BoundedCounter::default())),
            _ => None,
        }
    }

    /// Whether the object needs no row.
    pub(crate) fn is_bottom(&self) -> bool {
        match self {
            Self::Counter(counter) => counter.is_empty(),
            Self::Set(parts) | Self::RwSet(parts) | Self::Map(parts) => parts.count == 0,
            Self::Register(register) => register.is_empty(),
            Self::Document(document) => document.changes == 0 && document.removals.is_empty(),
            Self::Flag(dots) => dots.is_empty(),
            Self::DwFlag(row) => row.is_empty(),
            Self::Bounded(counter) => counter.is_empty(),
        }
    }

    /// Whether the object holds something that readers see. One that does not may still have a row, with what
    /// others may not have heard of yet.
    pub(crate) fn is_present(&self) -> bool {
        match self {
            Self::Counter(counter) => counter.is_live(),
            Self::DwFlag(row) => row.is_member(),
            Self::Document(document) => document.changes > 0,
            _ => !self.is_bottom(),
        }
    }

    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let mut out = Writer::with_room(HEADER_BYTES);
        match self {
            Self::Counter(counter) => counter.encode(&mut out),
            Self::Set(parts) | Self::RwSet(parts) | Self::Map(parts) => {
                out.varint(parts.count);
                out.bytes(&parts.sum.to_be_bytes());
            }
            Self::Register(register) => register.encode(&mut out),
            Self::Document(document) => encode_document(document, &mut out),
            Self::Flag(dots) => dots.encode(&mut out),
            Self::DwFlag(row) => row.encode(&mut out),
            Self::Bounded(counter) => counter.encode(&mut out),
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
        Ok(match stored_as(kind) {
            Kind::Counter => Self::Counter(ResettableCounter::decode(reader)?),
            Kind::Set => Self::Set(decode_parts(reader)?),
            Kind::RwSet => Self::RwSet(decode_parts(reader)?),
            Kind::Map => Self::Map(decode_parts(reader)?),
            Kind::Register | Kind::Settings => Self::Register(MvRegister::decode(reader)?),
            Kind::Document => Self::Document(decode_document(reader)?),
            Kind::Flag => Self::Flag(ElementDots::decode(reader)?),
            Kind::DwFlag => Self::DwFlag(RwRow::decode(reader)?),
            Kind::BoundedCounter => Self::Bounded(BoundedCounter::decode(reader)?),
            other => return Err(DecodeError::UnknownTag { what: "object row", tag: u64::from(other.tag()) }),
        })
    }

    /// The object's share of what contains it.
    pub(crate) fn share(&self, id: &ObjectId) -> Share {
        self.share_by(id, &self.to_bytes())
    }

    /// As [`Object::share`], where the object's row is at hand, which is what most shares are made of.
    pub(crate) fn share_by(&self, id: &ObjectId, row: &[u8]) -> Share {
        if !self.is_present() {
            return Share::default();
        }
        let digest = match self {
            // How many changes arrived, and in what order, is not state: the heads are.
            Self::Document(document) => digest_of(id, &document.head_hashes().concat()),
            Self::Counter(counter) => {
                let mut out = Writer::new();
                counter.digest_into(&mut out);
                digest_of(id, out.as_slice())
            }
            // That it is enabled is all there is to see.
            Self::DwFlag(_) => digest_of(id, &[1]),
            Self::Set(_)
            | Self::RwSet(_)
            | Self::Map(_)
            | Self::Register(_)
            | Self::Flag(_)
            | Self::Bounded(_) => digest_of(id, row),
        };
        Share { is_present: true, digest }
    }
}

fn encode_document(document: &DocumentHeader, out: &mut Writer) {
    let SnapshotRow { number, through, bytes, raw_bytes } = document.snapshot;
    let numbers = [document.changes, document.bytes, document.generation, number, through, bytes, raw_bytes];
    numbers.into_iter().for_each(|number| out.varint(number));
    out.varint(document.heads.len() as u64);
    for (head, max_op) in &document.heads {
        out.bytes(head);
        out.varint(*max_op);
    }
    out.varint(document.removals.len() as u64);
    document.removals.iter().for_each(|place| place.encode(out));
}

fn decode_document(reader: &mut Reader<'_>) -> Result<DocumentHeader, DecodeError> {
    let changes = reader.varint("document changes")?;
    let bytes = reader.varint("document bytes")?;
    let generation = reader.varint("document generation")?;
    let snapshot = SnapshotRow {
        number: reader.varint("snapshot number")?,
        through: reader.varint("snapshot changes")?,
        bytes: reader.varint("snapshot bytes")?,
        raw_bytes: reader.varint("snapshot raw bytes")?,
    };
    let count = reader.count(reader.remaining(), "document heads")?;
    let head =
        |reader: &mut Reader<'_>| Ok((reader.array("document head")?, reader.varint("document head")?));
    let heads = (0..count).map(|_| head(reader)).collect::<Result<_, DecodeError>>()?;
    let count = reader.count(reader.remaining(), "document removals")?;
    let removals = (0..count).map(|_| Place::decode(reader)).collect::<Result<_, _>>()?;
    Ok(DocumentHeader { heads, changes, bytes, removals, generation, snapshot })
}

fn decode_parts(reader: &mut Reader<'_>) -> Result<Parts, DecodeError> {
    let count = reader.varint("number of parts")?;
    Ok(Parts { count, sum: u128::from_be_bytes(reader.array("sum of the parts")?) })
}

/// What one element of an add-wins set adds to it.
pub(crate) fn element_share(id: &ObjectId, element: &[u8], dots: &ElementDots) -> Share {
    if !dots.is_present() {
        return Share::default();
    }
    let mut out = Writer::new();
    out.blob(element);
    dots.encode(&mut out);
    Share { is_present: true, digest: digest_of(id, out.as_slice()) }
}

/// What one element of a remove-wins set adds to it: that it is there, because all else is compacted.
pub(crate) fn rw_element_share(id: &ObjectId, element: &[u8], row: &RwRow) -> Share {
    if !row.is_member() {
        return Share::default();
    }
    Share { is_present: true, digest: digest_of(id, element) }
}

/// What a stored row of an element of an add-wins set adds to it.
pub(crate) fn element_row_share(id: &ObjectId, element: &[u8], row: &[u8]) -> Result<Share, StoreError> {
    Ok(element_share(id, element, &decode_element(row)?))
}

/// What a stored row of an element of a remove-wins set adds to it.
pub(crate) fn rw_element_row_share(id: &ObjectId, element: &[u8], row: &[u8]) -> Result<Share, StoreError> {
    Ok(rw_element_share(id, element, &decode_rw_element(row)?))
}

/// What an object adds of which something is held: that it is so.
pub(crate) fn held_share(id: &ObjectId) -> u128 {
    digest_of(id, b"held")
}

/// The digest of one member row.
pub(crate) fn member_digest(replica: &ReplicaId, row: &[u8]) -> u128 {
    digest_of(&ObjectId([0; 16]), &[replica.0.as_slice(), row].concat())
}

fn digest_of(id: &ObjectId, state: &[u8]) -> u128 {
    u128::from_be_bytes(hash("comity 2026 state\0", &[&id.0, state]).half())
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

/// Decodes an element row of a remove-wins set.
pub(crate) fn decode_rw_element(bytes: &[u8]) -> Result<RwRow, StoreError> {
    let mut reader = Reader::new(bytes);
    let row = RwRow::decode(&mut reader).and_then(|row| reader.finish("element row").map(|()| row));
    row.map_err(|error| damaged("element row", &error))
}
