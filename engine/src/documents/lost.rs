//! Documents as they were with what a removal set aside, made again from the log of record.

use std::collections::BTreeMap;

use comity_crdts::{Document, RawChange, SpaceId, Value};

use crate::change::Body;
use crate::changes::entry;
use crate::journal::{JournalEntry, JournalReason, journal_of};
use crate::keys;
use crate::op::Op;
use crate::retention::lane_floor;
use crate::rows::damaged;
use crate::space::{LaneRow, decode};
use crate::store::{LogRead, StoreError, each_row};

/// A removed document as it was with every change that the removal set aside which this entry of the journal tells of;
/// `None` when that is not what it tells of, or something they build on is not in the log any more. Looks at every entry of
/// the space.
///
/// # Errors
/// [`StoreError`] when storage fails or an entry is damaged.
pub fn lost_document(
    read: &dyn LogRead,
    space: &SpaceId,
    aside: &JournalEntry,
) -> Result<Option<Document>, StoreError> {
    if aside.reason != JournalReason::DocumentRemoved {
        return Ok(None);
    }
    let object = &aside.location.object;
    let mut known: BTreeMap<[u8; 32], RawChange> = BTreeMap::new();
    let mut wanted = Vec::new();
    for other in journal_of(read, space, object, usize::MAX)? {
        if let (JournalReason::DocumentRemoved, Value::Bytes(bytes)) = (&other.reason, &other.value) {
            let change = RawChange::parse(bytes).map_err(|error| damaged("journal row", &error))?;
            if other.by == aside.by {
                wanted.push(change.hash());
            }
            known.insert(change.hash(), change);
        }
    }
    let (from, until) = keys::lanes(space);
    each_row(read, (from, until), |(_, bytes)| {
        let row: LaneRow = decode("lane row", &bytes)?;
        let lane = row.owner.lane(space);
        for lsn in lane_floor(read, space, &lane)? + 1..=row.tip.lsn {
            let Some(bytes) = read.lane_entry(space, &lane, lsn)? else { continue };
            // Entries stand alone, so they name the object if they do something to it.
            if !contains(&bytes, object.key().as_bytes()) {
                continue;
            }
            let Some((_, found)) = entry(read, space, (lane, lsn))? else { continue };
            let Body::Change(change) = found.body else { continue };
            let groups = change.groups.into_iter().filter(|group| group.address == *object);
            for op in groups.flat_map(|group| group.ops) {
                if let Op::DocumentChange(change) = op {
                    known.insert(change.hash(), change);
                }
            }
        }
        Ok(())
    })?;
    let mut changes: BTreeMap<[u8; 32], RawChange> = BTreeMap::new();
    while let Some(hash) = wanted.pop() {
        if changes.contains_key(&hash) {
            continue;
        }
        let Some(change) = known.get(&hash) else { return Ok(None) };
        wanted.extend(change.deps());
        changes.insert(hash, change.clone());
    }
    let changes: Vec<RawChange> = changes.into_values().collect();
    let mut document = Document::new([0; 16]);
    let outcome = document.apply(&changes).map_err(|error| damaged("document", &error))?;
    Ok((outcome.applied.len() == changes.len()).then_some(document))
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len().max(1)).any(|window| window == part)
}
