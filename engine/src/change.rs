//! Change sets and lane entries: their hashes, and the one compact encoding used on disk and on the wire.

use comity_crdts::limits::LANES_MAX;
use comity_crdts::{DecodeError, Frontier, Hlc, LaneId, Nonce, OriginId, Reader, ReplicaId, SpaceId, Writer};
use serde::{Deserialize, Serialize};

use crate::dictionary::Dictionary;
use crate::hash::{Hash, hash};
use crate::op::{Group, decode_groups, encode_groups};
use crate::operations::OperationId;
use crate::version::{PROTOCOL_VERSION_MIN, WITH_EXTENSIONS};

/// The version of the change-set format; part of what is hashed.
pub(crate) const FORMAT_VERSION: u8 = 1;
/// Until membership epochs exist every change set and head carries this one.
pub(crate) const EPOCH: u32 = 0;

/// What most entries have in the form that is hashed, with a dozen lanes in their vectors.
const HASHED_BYTES: usize = 384;
/// What most entries have in stored form besides values.
const STORED_BYTES: usize = 128;

/// Who owns a lane: enough to check the lane's id and the signatures over it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LaneOwner {
    /// The replica.
    pub replica: ReplicaId,
    /// Its incarnation.
    pub nonce: Nonce,
}

impl LaneOwner {
    /// The lane's id in `space`.
    pub fn lane(&self, space: &SpaceId) -> LaneId {
        OriginId::derive(space, &self.replica, &self.nonce)
    }
}

/// The atomic unit: operations on any number of objects, made by one origin after everything in `context`.
#[derive(Clone, Debug, PartialEq)]
pub struct ChangeSet {
    /// Who made it.
    pub origin: OriginId,
    /// Its number at its origin, from 1.
    pub seq: u64,
    /// The hash of the origin's change set before it; zero for the first.
    pub prev: Hash,
    /// What its author had applied, apart from its own earlier change sets.
    pub context: Frontier,
    /// When it was made.
    pub hlc: Hlc,
    /// Under which id the client asked for it.
    pub operation: Option<OperationId>,
    /// What it does.
    pub groups: Vec<Group>,
}

impl ChangeSet {
    /// The hash that identifies the change set within `space`. Receivers compute it; it is never sent.
    pub fn hash(&self, space: &SpaceId) -> Hash {
        let mut out = Writer::with_room(HASHED_BYTES);
        out.u8(FORMAT_VERSION);
        out.bytes(&space.0);
        out.bytes(&self.origin.0);
        out.bytes(&self.seq.to_be_bytes());
        out.bytes(&self.prev.0);
        out.bytes(&EPOCH.to_be_bytes());
        write_frontier(&self.context, &mut out);
        out.bytes(&self.hlc.bits().to_be_bytes());
        out.varint(self.groups.len() as u64);
        for group in &self.groups {
            out.bytes(&group.leaf(space).0);
        }
        if let Some(operation) = &self.operation {
            out.bytes(&operation.0);
        }
        hash("comity 2026 change set\0", &[out.as_slice()])
    }
}

/// What a lane entry wraps.
#[derive(Clone, Debug, PartialEq)]
pub enum Body {
    /// A change set that the lane's owner admitted.
    Change(ChangeSet),
    /// The owner's announcement of what it has applied: whatever it makes from here on was made by somebody who
    /// had seen that. Empty, it greets: the owner is new, and wants others to announce that they have heard of it.
    Checkpoint(Frontier),
}

/// One entry of a lane. Its number is its place; `admitted` never names the lane itself.
#[derive(Clone, Debug, PartialEq)]
pub struct LaneEntry {
    /// What the owner had applied of other lanes when it appended the entry.
    pub admitted: Frontier,
    /// When it was appended; never decreases along the lane.
    pub at: Hlc,
    /// What it carries.
    pub body: Body,
}

impl LaneEntry {
    /// The lowest protocol version in which the entry can be said.
    pub(crate) fn version(&self) -> u16 {
        match &self.body {
            Body::Change(change) if change.groups.iter().any(Group::is_extended) => WITH_EXTENSIONS,
            Body::Change(_) | Body::Checkpoint(_) => PROTOCOL_VERSION_MIN,
        }
    }

    /// What the entry announces, if it is an announcement and no greeting.
    pub(crate) fn announced(&self) -> Option<&Frontier> {
        match &self.body {
            Body::Checkpoint(frontier) if !frontier.is_empty() => Some(frontier),
            Body::Checkpoint(_) | Body::Change(_) => None,
        }
    }
}

/// Where a lane stands after an entry: what the next entry is encoded against and chained to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LaneTip {
    /// The number of entries.
    pub lsn: u64,
    /// The chain hash over all of them.
    pub hash: Hash,
    /// The last entry's `admitted`.
    pub admitted: Frontier,
    /// The last entry's `at`.
    pub at: Hlc,
    /// The owner's last change set number.
    pub seq: u64,
    /// The hash of the owner's last change set.
    pub change_hash: Hash,
    /// The stamp of the owner's last change set.
    pub hlc: Hlc,
}

impl LaneTip {
    /// The start of a lane. The chain is seeded with space and lane, so that no lane's entries pass for
    /// another's.
    pub fn start(space: &SpaceId, lane: &LaneId) -> Self {
        Self { hash: hash("comity 2026 lane start\0", &[&space.0, &lane.0]), ..Self::alone() }
    }

    /// What an entry is encoded against that stands alone: as [`LaneTip::start`], of no lane.
    fn alone() -> Self {
        let (admitted, (at, hlc)) = (Frontier::new(), (Hlc::ZERO, Hlc::ZERO));
        Self { lsn: 0, hash: Hash::default(), admitted, at, seq: 0, change_hash: Hash::default(), hlc }
    }

    /// Where the lane stands after `entry`. O(entry).
    pub fn after(&self, space: &SpaceId, entry: &LaneEntry) -> Self {
        self.after_linked(space, entry).0
    }

    /// The same, and the entry's link in the chain: the hash of what it adds to it.
    pub fn after_linked(&self, space: &SpaceId, entry: &LaneEntry) -> (Self, Hash) {
        let lsn = self.lsn + 1;
        let (tag, body_hash) = match &entry.body {
            Body::Change(change) => (0_u8, change.hash(space)),
            Body::Checkpoint(frontier) => {
                let mut out = Writer::new();
                write_frontier(frontier, &mut out);
                (1, hash("comity 2026 checkpoint\0", &[out.as_slice()]))
            }
        };
        let mut out = Writer::with_room(HASHED_BYTES);
        write_frontier(&entry.admitted, &mut out);
        out.bytes(&entry.at.bits().to_be_bytes());
        out.u8(tag);
        out.bytes(&body_hash.0);
        let link = hash("comity 2026 lane entry\0", &[out.as_slice()]);
        let (seq, change_hash, hlc) = match &entry.body {
            Body::Change(change) => (change.seq, body_hash, change.hlc),
            Body::Checkpoint(_) => (self.seq, self.change_hash, self.hlc),
        };
        let (admitted, at, hash) = (entry.admitted.clone(), entry.at, chained(&self.hash, lsn, &link));
        (Self { lsn, hash, admitted, at, seq, change_hash, hlc }, link)
    }
}

/// The chain hash of a lane after its entry `lsn`, from the one before it and the entry's link.
pub(crate) fn chained(before: &Hash, lsn: u64, link: &Hash) -> Hash {
    hash("comity 2026 lane\0", &[&before.0, &lsn.to_be_bytes(), &link.0])
}

fn write_frontier(frontier: &Frontier, out: &mut Writer) {
    out.varint(frontier.len() as u64);
    for (lane, lsn) in frontier.iter() {
        out.bytes(&lane.0);
        out.varint(lsn);
    }
}

const BODY_CHECKPOINT: u8 = 1;
const FOREIGN_AUTHOR: u8 = 1 << 1;
const SEQ_EXPLICIT: u8 = 1 << 2;
const HLC_EXPLICIT: u8 = 1 << 3;
const CONTEXT_EXPLICIT: u8 = 1 << 4;
const OPERATION: u8 = 1 << 5;
const FLAGS_KNOWN: u8 = 0b11_1111;

/// Encodes an entry against the lane's previous one. Against [`LaneTip::start`] the result stands alone.
pub fn encode_entry(
    lane: &LaneId,
    before: &LaneTip,
    entry: &LaneEntry,
    dictionary: &mut Dictionary,
    out: &mut Writer,
) {
    let mut flags = 0;
    if let Body::Change(change) = &entry.body {
        let foreign = change.origin != *lane;
        flags |= if foreign { FOREIGN_AUTHOR } else { 0 };
        flags |= if foreign || change.seq != before.seq + 1 { SEQ_EXPLICIT } else { 0 };
        flags |= if change.hlc != entry.at { HLC_EXPLICIT } else { 0 };
        flags |= if change.context != entry.admitted { CONTEXT_EXPLICIT } else { 0 };
        flags |= if change.operation.is_some() { OPERATION } else { 0 };
    } else {
        flags |= BODY_CHECKPOINT;
    }
    out.u8(flags);
    let moved: Vec<_> = entry.admitted.ahead_of(&before.admitted).collect();
    out.varint(moved.len() as u64);
    for (moved_lane, lsn) in moved {
        dictionary.write_origin(&moved_lane, out);
        out.varint(lsn - before.admitted.at(&moved_lane));
    }
    out.varint(entry.at.millis() - before.at.millis());
    out.varint(u64::from(entry.at.counter()));
    match &entry.body {
        Body::Change(change) => {
            if flags & FOREIGN_AUTHOR != 0 {
                dictionary.write_origin(&change.origin, out);
                out.bytes(&change.prev.0);
            }
            if flags & SEQ_EXPLICIT != 0 {
                out.varint(change.seq);
            }
            if flags & HLC_EXPLICIT != 0 {
                out.bytes(&change.hlc.bits().to_be_bytes());
            }
            if flags & CONTEXT_EXPLICIT != 0 {
                encode_frontier(&change.context, dictionary, out);
            }
            if let Some(operation) = &change.operation {
                out.bytes(&operation.0);
            }
            encode_groups(&change.groups, change.hlc, out, dictionary);
        }
        Body::Checkpoint(frontier) => encode_frontier(frontier, dictionary, out),
    }
}

fn encode_frontier(frontier: &Frontier, dictionary: &mut Dictionary, out: &mut Writer) {
    out.varint(frontier.len() as u64);
    for (lane, lsn) in frontier.iter() {
        dictionary.write_origin(&lane, out);
        out.varint(lsn);
    }
}

fn decode_frontier(reader: &mut Reader<'_>, dictionary: &mut Dictionary) -> Result<Frontier, DecodeError> {
    let count = reader.count(LANES_MAX, "lanes")?;
    let mut frontier = Frontier::new();
    let mut last = None;
    for _ in 0..count {
        let lane = dictionary.read_origin(reader)?;
        let lsn = reader.varint("lane position")?;
        if lsn == 0 || last.is_some_and(|last| last >= lane) {
            return Err(DecodeError::NotCanonical { what: "frontier" });
        }
        last = Some(lane);
        frontier.advance(lane, lsn);
    }
    Ok(frontier)
}

/// Decodes an entry against the lane's previous one. When the author is the lane's owner, `prev` is taken
/// from `before`, so it is only meaningful while walking a lane.
///
/// # Errors
/// [`DecodeError`] when the bytes are not one entry in canonical form.
pub fn decode_entry(
    lane: &LaneId,
    before: &LaneTip,
    dictionary: &mut Dictionary,
    reader: &mut Reader<'_>,
) -> Result<LaneEntry, DecodeError> {
    let flags = reader.u8("entry flags")?;
    if flags & !FLAGS_KNOWN != 0 {
        return Err(DecodeError::UnknownTag { what: "entry flags", tag: u64::from(flags) });
    }
    let admitted = decode_admitted(lane, before, dictionary, reader)?;
    let at = decode_at(before, reader)?;
    if flags & BODY_CHECKPOINT != 0 {
        if flags != BODY_CHECKPOINT {
            return Err(DecodeError::NotCanonical { what: "entry flags" });
        }
        let body = Body::Checkpoint(decode_frontier(reader, dictionary)?);
        return Ok(LaneEntry { admitted, at, body });
    }
    let (origin, prev) = if flags & FOREIGN_AUTHOR != 0 {
        (dictionary.read_origin(reader)?, Hash(reader.array("previous change")?))
    } else {
        (*lane, before.change_hash)
    };
    let next_seq =
        before.seq.checked_add(1).ok_or(DecodeError::Invalid { what: "seq", rule: "must not overflow" })?;
    let seq = if flags & SEQ_EXPLICIT != 0 { reader.varint("seq")? } else { next_seq };
    let hlc = match flags & HLC_EXPLICIT {
        0 => at,
        _ => Hlc::from_bits(u64::from_be_bytes(reader.array("change stamp")?)),
    };
    let context = match flags & CONTEXT_EXPLICIT {
        0 => admitted.clone(),
        _ => decode_frontier(reader, dictionary)?,
    };
    let foreign = flags & FOREIGN_AUTHOR != 0;
    let needless = (foreign && origin == *lane)
        || (flags & SEQ_EXPLICIT != 0 && !foreign && seq == next_seq)
        || (flags & SEQ_EXPLICIT == 0 && foreign)
        || (flags & HLC_EXPLICIT != 0 && hlc == at)
        || (flags & CONTEXT_EXPLICIT != 0 && context == admitted);
    if needless {
        return Err(DecodeError::NotCanonical { what: "entry flags" });
    }
    let operation = match flags & OPERATION {
        0 => None,
        _ => Some(OperationId(reader.array("operation id")?)),
    };
    let groups = decode_groups(hlc, reader, dictionary)?;
    let body = Body::Change(ChangeSet { origin, seq, prev, context, hlc, operation, groups });
    Ok(LaneEntry { admitted, at, body })
}

fn decode_admitted(
    lane: &LaneId,
    before: &LaneTip,
    dictionary: &mut Dictionary,
    reader: &mut Reader<'_>,
) -> Result<Frontier, DecodeError> {
    let mut admitted = before.admitted.clone();
    let mut last = None;
    for _ in 0..reader.count(LANES_MAX, "lanes advanced")? {
        let moved = dictionary.read_origin(reader)?;
        let advance = reader.varint("lane advance")?;
        if advance == 0 || last.is_some_and(|last| last >= moved) {
            return Err(DecodeError::NotCanonical { what: "admission vector" });
        }
        if moved == *lane {
            return Err(DecodeError::Invalid {
                what: "admission vector",
                rule: "must not name its own lane",
            });
        }
        last = Some(moved);
        let lsn = before.admitted.at(&moved).checked_add(advance);
        admitted.advance(moved, lsn.ok_or(DecodeError::NotCanonical { what: "admission vector" })?);
    }
    if admitted.len() > LANES_MAX {
        let value = admitted.len() as u64;
        return Err(DecodeError::OverLimit { what: "lanes", value, value_max: LANES_MAX as u64 });
    }
    Ok(admitted)
}

fn decode_at(before: &LaneTip, reader: &mut Reader<'_>) -> Result<Hlc, DecodeError> {
    let advance = reader.varint("admission time")?;
    let counter = reader.varint_max(u64::from(u16::MAX), "admission counter")? as u16;
    let millis = before.at.millis().checked_add(advance).filter(|millis| *millis < 1 << 48);
    let millis = millis.ok_or(DecodeError::Invalid { what: "admission time", rule: "has 48 bits" })?;
    let at = Hlc::new(millis, counter);
    if at < before.at {
        return Err(DecodeError::Invalid { what: "admission time", rule: "never decreases along a lane" });
    }
    Ok(at)
}

/// The stored form of an entry: the chain hash after it, then the entry encoded to stand alone. `room` is about what its
/// names and values take.
pub(crate) fn encode_stored(lane: &LaneId, hash: &Hash, entry: &LaneEntry, room: usize) -> Vec<u8> {
    let mut out = Writer::with_room(STORED_BYTES + room);
    out.bytes(&hash.0);
    encode_entry(lane, &LaneTip::alone(), entry, &mut Dictionary::default(), &mut out);
    out.finish()
}

/// An entry read back from the log, with the chain hash after it. It stands alone, whatever space it is in.
pub(crate) fn decode_stored(
    _: &SpaceId,
    lane: &LaneId,
    bytes: &[u8],
) -> Result<(Hash, LaneEntry), DecodeError> {
    let mut reader = Reader::new(bytes);
    let hash = Hash(reader.array("chain hash")?);
    let entry = decode_entry(lane, &LaneTip::alone(), &mut Dictionary::default(), &mut reader)?;
    reader.finish("stored entry")?;
    Ok((hash, entry))
}
