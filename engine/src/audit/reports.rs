//! What was made again, kept with what was there before, so that nothing is lost by it.

use comity_crdts::{ObjectAddress, SpaceId};
use serde::{Deserialize, Serialize};

use crate::conflicts::LocationRow;
use crate::keys;
use crate::space::{decode, encode};
use crate::status::StateDigest;
use crate::store::{Row, StateRead, StoreError};
use crate::work::Work;

/// Repairs that are kept of a space; the oldest go first.
pub(crate) const REPAIRS_MAX: usize = 32;
/// Of the rows that were replaced so many bytes are kept with each.
const REPLACED_BYTES_MAX: usize = 64 * 1024;

/// An object that was found to be wrong and was made again.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Repair {
    /// The object.
    pub object: ObjectAddress,
    /// When, by the wall clock, milliseconds since the Unix epoch.
    pub at_ms: u64,
    /// What was wrong with its rows; `None` where they were sound, and had another content than the log of record.
    pub detail: Option<String>,
    /// The digest of the state that was there, as far as it could be read.
    pub was: StateDigest,
    /// The digest of the state that took its place.
    pub is: StateDigest,
    /// Rows of the object that were replaced or removed, as they were, by their keys in the store: the first 64 KiB.
    pub replaced: Vec<Row>,
    /// Bytes of all such rows.
    pub replaced_bytes: u64,
}

#[derive(Serialize, Deserialize)]
struct RepairRow {
    object: LocationRow,
    at_ms: u64,
    detail: Option<String>,
    was: StateDigest,
    is: StateDigest,
    replaced: Vec<Row>,
    replaced_bytes: u64,
}

/// The repairs of a space that are kept, oldest first, 32 at most.
///
/// # Errors
/// [`StoreError`] when storage fails or a row is damaged.
pub fn repairs(read: &dyn StateRead, space: &SpaceId) -> Result<Vec<Repair>, StoreError> {
    let (from, until) = keys::repairs(space);
    let rows = read.scan(&from, &until, REPAIRS_MAX)?;
    let decode = |(_, bytes): &Row| {
        let row: RepairRow = decode("repair row", bytes)?;
        let RepairRow { object, at_ms, detail, was, is, replaced, replaced_bytes } = row;
        let object = object.location("repair row")?.object;
        Ok(Repair { object, at_ms, detail, was, is, replaced, replaced_bytes })
    };
    rows.iter().map(decode).collect()
}

/// Keeps repairs, and lets go of the oldest. They are no part of the state that others have.
pub(crate) fn keep(work: &mut Work<'_>, space: &SpaceId, repairs: Vec<Repair>) -> Result<(), StoreError> {
    let (from, until) = keys::repairs(space);
    let kept = work.scan(&from, &until, usize::MAX)?;
    let newest =
        kept.last().and_then(|(key, _)| key.last_chunk()).map_or(0, |number| u64::from_be_bytes(*number));
    let excess = (kept.len() + repairs.len()).saturating_sub(REPAIRS_MAX);
    for (key, _) in kept.into_iter().take(excess) {
        work.delete_fact(key);
    }
    for (number, repair) in (newest + 1..).zip(repairs) {
        let Repair { object, at_ms, detail, was, is, replaced, replaced_bytes } = repair;
        let object = LocationRow::new(&object, &[]);
        let row = RepairRow { object, at_ms, detail, was, is, replaced, replaced_bytes };
        work.put_fact(keys::repair(space, number), encode(&row));
    }
    Ok(())
}

/// The first rows, as many as are kept, and the bytes of all.
pub(crate) fn cut(rows: Vec<Row>) -> (Vec<Row>, u64) {
    let (mut kept, mut bytes) = (Vec::new(), 0);
    for row in rows {
        bytes += row.0.len() + row.1.len();
        if bytes <= REPLACED_BYTES_MAX {
            kept.push(row);
        }
    }
    (kept, bytes as u64)
}
