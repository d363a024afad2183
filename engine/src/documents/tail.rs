//! The rows of a document: its snapshot, where the changes since are in the log, its actors, its quarantine.

use std::collections::BTreeSet;
use std::ops::Range;

use comity_crdts::limits::CHANGE_SET_BYTES_MAX;
use comity_crdts::{
    DecodeError, Document, Hlc, LaneId, LatestChange, ObjectAddress, ObjectId, RawChange, Reader, ReplicaId,
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
use crate::site::Site;
use crate::space::decode;
use crate::store::{LogRead, StateRead, StoreError};
use crate::work::Work;

/// Where a change of a document stands in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TailRow {
    pub(crate) lane: LaneId,
    pub(crate) lsn: u64,
    pub(crate) change: [u8; 32],
    pub(crate) max_op: u64,
    /// Its place among the document's changes, which the row's key has.
    pub(crate) index: u64,
}

/// A change of a tail, with what the entry that brought it says of it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct TailChange {
    /// The number of its change set.
    pub(crate) seq: u64,
    /// Its index among the operations on its document there.
    pub(crate) op: u16,
    /// The stamp of the change set.
    pub(crate) written: Hlc,
    pub(crate) change: RawChange,
}

impl TailChange {
    /// From the entry that brought it.
    fn of(entry: &LaneEntry, address: &ObjectAddress, hash: &[u8; 32]) -> Option<Self> {
        let (seq, op, change) = change_in(entry, address, hash)?;
        let Body::Change(set) = &entry.body else { return None };
        Some(Self { seq, op, written: set.hlc, change: change.clone() })
    }
}

impl TailRow {
    /// The row with the change itself, for when the entry is not kept.
    pub(crate) fn with_change(self, carried: &TailChange) -> Vec<u8> {
        let mut out = Writer::with_room(96 + carried.change.bytes().len());
        out.bytes(&self.to_bytes());
        out.varint(carried.seq);
        out.varint(u64::from(carried.op));
        out.bytes(&carried.written.bits().to_be_bytes());
        out.blob(carried.change.bytes());
        out.finish()
    }

    pub(crate) fn to_bytes(self) -> Vec<u8> {
        let mut out = Writer::with_room(64);
        out.bytes(&self.lane.0);
        out.bytes(&self.change);
        out.varint(self.lsn);
        out.varint(self.max_op);
        out.finish()
    }

    /// A row of a tail, and the change where the row has it itself.
    pub(crate) fn from_bytes(index: u64, bytes: &[u8]) -> Result<(Self, Option<TailChange>), StoreError> {
        let mut reader = Reader::new(bytes);
        let row = Self::decode(index, &mut reader);
        let row = row.and_then(|row| reader.finish("tail row").map(|()| row));
        row.map_err(|error| damaged("tail row", &error))
    }

    fn decode(index: u64, reader: &mut Reader<'_>) -> Result<(Self, Option<TailChange>), DecodeError> {
        let row = Self {
            lane: comity_crdts::OriginId(reader.array("lane")?),
            change: reader.array("change")?,
            lsn: reader.varint("entry")?,
            max_op: reader.varint("last operation")?,
            index,
        };
        if reader.remaining() == 0 {
            return Ok((row, None));
        }
        let seq = reader.varint("change set")?;
        let op = reader.varint_max(u64::from(u16::MAX), "operation")? as u16;
        let written = Hlc::from_bits(u64::from_be_bytes(reader.array("stamp")?));
        let change = RawChange::parse(reader.blob(CHANGE_SET_BYTES_MAX, "document change")?)
            .map_err(|_| DecodeError::Invalid { what: "document change", rule: "must be one" })?;
        if change.hash() != row.change {
            return Err(DecodeError::Invalid { what: "document change", rule: "is the one that is named" });
        }
        Ok((row, Some(TailChange { seq, op, written, change })))
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

/// A row of a tail, and the change where the row has it itself.
type Carrying = (TailRow, Option<TailChange>);

/// The rows of the tail in `range`, which is within it.
fn carrying_rows(
    read: &dyn StateRead,
    id: &ObjectId,
    range: &Range<u64>,
) -> Result<Vec<Carrying>, StoreError> {
    let (from, until) = (keys::document_change(id, range.start), keys::document_change(id, range.end));
    let rows = read.scan(&from, &until, usize::MAX)?;
    if rows.len() as u64 != range.end - range.start {
        return Err(damaged("document", &"rows of its tail are missing"));
    }
    range.clone().zip(&rows).map(|(index, (_, bytes))| TailRow::from_bytes(index, bytes)).collect()
}

/// As [`carrying_rows`], without the changes.
pub(crate) fn tail_rows(
    read: &dyn StateRead,
    id: &ObjectId,
    range: &Range<u64>,
) -> Result<Vec<TailRow>, StoreError> {
    Ok(carrying_rows(read, id, range)?.into_iter().map(|(row, _)| row).collect())
}

/// The change that a row of a tail stands for: from the row, or from the log.
pub(crate) fn tail_change(
    read: &dyn LogRead,
    place: &DocumentPlace<'_>,
    index: u64,
) -> Result<TailChange, StoreError> {
    let bytes = read.get(&keys::document_change(&place.site.id, index))?;
    let bytes = bytes.ok_or_else(|| damaged("document", &"rows of its tail are missing"))?;
    let (row, carried) = TailRow::from_bytes(index, &bytes)?;
    if let Some(carried) = carried {
        return Ok(carried);
    }
    let entry = read_entry(read, place.space, (row.lane, row.lsn))?;
    let change = TailChange::of(&entry, place.address, &row.change);
    change.ok_or_else(|| damaged("document", &"an entry lacks a change of it"))
}

/// Puts the changes of a document into the rows of its tail that are in entries which are not kept any longer. These
/// come first in the tail, because both are in the order of applying. O(tail).
pub(crate) fn carry_tail(
    work: &mut Work<'_>,
    space: &SpaceId,
    address: &ObjectAddress,
    is_dropped: impl Fn(&LaneId, u64) -> bool,
) -> Result<(), StoreError> {
    let site = Site::top(space, address);
    let place = DocumentPlace { space, address, site: &site };
    let header = place.header(work)?;
    for (row, carried) in carrying_rows(work, &site.id, &(header.snapshot.through..header.changes))? {
        if carried.is_some() {
            continue;
        }
        if !is_dropped(&row.lane, row.lsn) {
            break;
        }
        let change = tail_change(work, &place, row.index)?;
        work.put(keys::document_change(&site.id, row.index), row.with_change(&change));
    }
    Ok(())
}

/// The row of a document's tail under a key, with the change itself.
pub(crate) fn carried_tail_row(
    read: &dyn LogRead,
    space: &SpaceId,
    address: &ObjectAddress,
    (key, value): (&[u8], Vec<u8>),
) -> Result<Vec<u8>, StoreError> {
    let index = key.last_chunk::<8>().map(|index| u64::from_be_bytes(*index));
    let index = index.ok_or_else(|| damaged("tail row", &"its key is none"))?;
    let (row, carried) = TailRow::from_bytes(index, &value)?;
    if carried.is_some() {
        return Ok(value);
    }
    let site = Site::top(space, address);
    Ok(row.with_change(&tail_change(read, &DocumentPlace { space, address, site: &site }, index)?))
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
    for (row, carried) in carrying_rows(read, &place.site.id, &range)? {
        if quarantine.contains(&row.change) {
            continue;
        }
        if let Some(carried) = carried {
            changes.push(carried.change);
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
fn read_entry(
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
fn change_in<'e>(
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
