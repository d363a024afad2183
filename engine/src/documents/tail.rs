//! The rows of a document: its snapshot, where the changes since are in the log, its actors, its quarantine.

use std::collections::BTreeSet;
use std::ops::Range;

use comity_crdts::{
    DecodeError, Document, LaneId, LatestChange, ObjectAddress, ObjectId, RawChange, Reader, ReplicaId,
    SpaceId, Writer,
};
use serde::{Deserialize, Serialize};

use crate::change::{Body, LaneEntry, decode_stored};
use crate::conflicts::{Location, LocationRow};
use crate::documents::DocumentPlace;
use crate::keys;
use crate::op::Op;
use crate::read::author_of;
use crate::rows::{DocumentHeader, damaged};
use crate::space::decode;
use crate::store::{LogRead, StateRead, StoreError};

/// Where a change of a document stands in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TailRow {
    pub(crate) lane: LaneId,
    pub(crate) lsn: u64,
    pub(crate) change: [u8; 32],
    pub(crate) max_op: u64,
}

impl TailRow {
    pub(crate) fn to_bytes(self) -> Vec<u8> {
        let mut out = Writer::with_room(64);
        out.bytes(&self.lane.0);
        out.bytes(&self.change);
        out.varint(self.lsn);
        out.varint(self.max_op);
        out.finish()
    }

    pub(crate) fn from_bytes(bytes: &[u8]) -> Result<Self, StoreError> {
        let mut reader = Reader::new(bytes);
        let row = Self::decode(&mut reader).and_then(|row| reader.finish("tail row").map(|()| row));
        row.map_err(|error| damaged("tail row", &error))
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            lane: comity_crdts::OriginId(reader.array("lane")?),
            change: reader.array("change")?,
            lsn: reader.varint("entry")?,
            max_op: reader.varint("last operation")?,
        })
    }
}

/// The latest change of an actor, as its row holds it.
pub(crate) fn encode_latest(latest: &LatestChange) -> Vec<u8> {
    let mut out = Writer::with_room(48);
    out.varint(latest.seq);
    out.varint(latest.max_op);
    out.bytes(&latest.hash);
    out.finish()
}

pub(crate) fn decode_latest(bytes: &[u8]) -> Result<LatestChange, StoreError> {
    let mut reader = Reader::new(bytes);
    let decode = |reader: &mut Reader<'_>| {
        Ok(LatestChange {
            seq: reader.varint("number")?,
            max_op: reader.varint("last operation")?,
            hash: reader.array("change")?,
        })
    };
    let latest = decode(&mut reader).and_then(|latest| reader.finish("actor row").map(|()| latest));
    latest.map_err(|error: DecodeError| damaged("actor row", &error))
}

/// A change that the library refused after it was admitted.
#[derive(Serialize, Deserialize)]
pub(crate) struct QuarantineRow {
    pub(crate) object: LocationRow,
    pub(crate) lane: LaneId,
    pub(crate) lsn: u64,
    pub(crate) max_op: u64,
    pub(crate) deps: Vec<[u8; 32]>,
    pub(crate) reason: String,
}

/// A change that was admitted to a document and that the document library then refused. It is in the log and in the
/// journal, and passed on; nothing of it is shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuarantinedChange {
    /// The document.
    pub object: ObjectAddress,
    /// The change's hash.
    pub change: [u8; 32],
    /// Whose lane it came in; `None` when that is not known here any more.
    pub author: Option<ReplicaId>,
    /// What the library said.
    pub reason: String,
}

/// At most `limit` quarantined changes of a space. O(changes).
///
/// # Errors
/// [`StoreError`] when storage fails or a row is damaged.
pub fn quarantined(
    read: &dyn StateRead,
    space: &SpaceId,
    limit: usize,
) -> Result<Vec<QuarantinedChange>, StoreError> {
    let (from, until) = keys::quarantine(space);
    let mut changes = Vec::new();
    for (key, bytes) in read.scan(&from, &until, limit)? {
        let row: QuarantineRow = decode("quarantine row", &bytes)?;
        let Location { object, .. } = row.object.location("quarantine row")?;
        let (change, author) = (change_of(&key)?, author_of(read, space, &row.lane)?);
        changes.push(QuarantinedChange { object, change, author, reason: row.reason });
    }
    Ok(changes)
}

/// The change in a quarantine row's key.
fn change_of(key: &[u8]) -> Result<[u8; 32], StoreError> {
    let change = key.get(33..).and_then(|change| change.try_into().ok());
    change.ok_or_else(|| damaged("quarantine row", &"its key is none"))
}

/// The changes of a document that are in quarantine.
pub(crate) fn quarantine_of(
    read: &dyn StateRead,
    space: &SpaceId,
    id: &ObjectId,
) -> Result<BTreeSet<[u8; 32]>, StoreError> {
    let (from, until) = keys::quarantine_of(space, id);
    read.scan(&from, &until, usize::MAX)?.iter().map(|(key, _)| change_of(key)).collect()
}

/// The rows of the tail in `range`, which is within it.
pub(crate) fn tail_rows(
    read: &dyn StateRead,
    id: &ObjectId,
    range: &Range<u64>,
) -> Result<Vec<TailRow>, StoreError> {
    let (from, until) = (keys::document_change(id, range.start), keys::document_change(id, range.end));
    let rows = read.scan(&from, &until, usize::MAX)?;
    if rows.len() as u64 != range.end - range.start {
        return Err(damaged("document", &"rows of its tail are missing"));
    }
    rows.iter().map(|(_, bytes)| TailRow::from_bytes(bytes)).collect()
}

/// The changes in a part of a document's tail that are not in quarantine, in the order admitted. O(their entries).
pub(crate) fn read_tail(
    read: &dyn LogRead,
    place: &DocumentPlace<'_>,
    range: Range<u64>,
) -> Result<Vec<RawChange>, StoreError> {
    let quarantine = quarantine_of(read, place.space, &place.site.id)?;
    let mut changes = Vec::new();
    let mut entry: Option<((LaneId, u64), LaneEntry)> = None;
    for row in tail_rows(read, &place.site.id, &range)? {
        if quarantine.contains(&row.change) {
            continue;
        }
        let at = (row.lane, row.lsn);
        let held = match entry.take() {
            Some(held) if held.0 == at => held,
            _ => (at, read_entry(read, place.space, at)?),
        };
        let change = change_in(&held.1, place.address, &row.change).map(|(_, _, change)| change.clone());
        changes.push(change.ok_or_else(|| damaged("document", &"an entry lacks a change of it"))?);
        entry = Some(held);
    }
    Ok(changes)
}

/// An entry that a row names.
pub(crate) fn read_entry(
    read: &dyn LogRead,
    space: &SpaceId,
    (lane, lsn): (LaneId, u64),
) -> Result<LaneEntry, StoreError> {
    let bytes = read.lane_entry(space, &lane, lsn)?;
    let bytes = bytes.ok_or_else(|| damaged("document", &"a change of it is not in the log"))?;
    let (_, entry) = decode_stored(space, &lane, &bytes).map_err(|error| damaged("stored entry", &error))?;
    Ok(entry)
}

/// A change in an entry, with the number of its change set and its index among the operations on its document.
pub(crate) fn change_in<'e>(
    entry: &'e LaneEntry,
    address: &ObjectAddress,
    hash: &[u8; 32],
) -> Option<(u64, u16, &'e RawChange)> {
    let Body::Change(set) = &entry.body else { return None };
    let group = set.groups.iter().find(|group| group.address == *address)?;
    group.ops.iter().enumerate().find_map(|(index, op)| match op {
        Op::DocumentChange(change) if change.hash() == *hash => Some((set.seq, index as u16, change)),
        _ => None,
    })
}

/// The newest snapshot of a document, if it has one.
pub(crate) fn read_snapshot(
    read: &dyn StateRead,
    id: &ObjectId,
    header: &DocumentHeader,
) -> Result<Option<Vec<u8>>, StoreError> {
    if header.snapshot.number == 0 {
        return Ok(None);
    }
    let (from, until) = keys::document_snapshot(id, header.snapshot.number);
    let mut snapshot = Vec::with_capacity(header.snapshot.bytes as usize);
    for (_, piece) in read.scan(&from, &until, usize::MAX)? {
        snapshot.extend_from_slice(&piece);
    }
    if snapshot.len() as u64 != header.snapshot.bytes {
        return Err(damaged("document", &"pieces of its snapshot are missing"));
    }
    Ok(Some(snapshot))
}

/// Loads a document from its rows and the log, without caching; and how many changes were refused. O(document).
pub(crate) fn load(
    read: &dyn LogRead,
    place: &DocumentPlace<'_>,
    header: &DocumentHeader,
    actor: [u8; 16],
) -> Result<(Document, usize), StoreError> {
    if header.changes == 0 {
        return Ok((Document::new(actor), 0));
    }
    let snapshot = read_snapshot(read, &place.site.id, header)?;
    let changes = read_tail(read, place, header.snapshot.through..header.changes)?;
    let loaded = Document::load(snapshot.as_deref(), &changes, actor);
    let (document, applied) = loaded.map_err(|error| damaged("document", &error))?;
    Ok((document, applied.refused.len()))
}
