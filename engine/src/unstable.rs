//! What can be forgotten once everybody has heard of what put it there: tokens of removals, and the places up to
//! which counters were reset. Each such row is noted under the lane entry that made it so, and looked at again
//! when the entry is within the cut.

use comity_crdts::{Frontier, Kind, LaneId, SpaceId, Writer};

use crate::keys;
use crate::rows::{Object, damaged, decode_rw_element};
use crate::store::{StateRead, StoreError};
use crate::work::Work;

/// What a row with something to be forgotten is. The numbers are on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Unstable {
    /// An element of a remove-wins set.
    Element = 1,
    /// The header of a disable-wins flag.
    Flag = 2,
    /// The header of a counter.
    Counter = 3,
}

/// Notes that what an entry left in a row can be forgotten once the entry is stable.
pub(crate) fn note_unstable(
    work: &mut Work<'_>,
    space: &SpaceId,
    place: (LaneId, u64),
    (row, what): (&[u8], Unstable),
) {
    work.put(keys::unstable_row(space, place, row), vec![what as u8]);
}

/// Forgets what the cut allows, at most `rows_max` noted rows of it. Returns whether there may be more, and how
/// many rows were looked at.
pub(crate) fn compact(
    work: &mut Work<'_>,
    space: &SpaceId,
    cut: &Frontier,
    rows_max: usize,
) -> Result<(bool, usize), StoreError> {
    let mut left = rows_max;
    for (lane, lsn) in cut.iter() {
        let (from, until) = keys::unstable_through(space, &lane, lsn);
        let rows = work.scan(&from, &until, left)?;
        left -= rows.len();
        for (key, what) in rows {
            compact_row(work, cut, keys::unstable_target(&key), &what)?;
            work.delete(key);
        }
        if left == 0 {
            return Ok((true, rows_max));
        }
    }
    Ok((false, rows_max - left))
}

fn compact_row(work: &mut Work<'_>, cut: &Frontier, key: &[u8], what: &[u8]) -> Result<(), StoreError> {
    let Some(bytes) = work.get(key)? else { return Ok(()) };
    let compacted = match what {
        [tag] if *tag == Unstable::Element as u8 || *tag == Unstable::Flag as u8 => {
            let mut row = decode_rw_element(&bytes)?;
            row.compact(cut);
            let mut out = Writer::new();
            row.encode(&mut out);
            (!row.is_empty()).then(|| out.finish())
        }
        [tag] if *tag == Unstable::Counter as u8 => {
            let Object::Counter(mut counter) = Object::from_bytes(Kind::Counter, &bytes)? else {
                return Ok(());
            };
            counter.compact(cut);
            let object = Object::Counter(counter);
            (!object.is_bottom()).then(|| object.to_bytes())
        }
        _ => return Err(damaged("unstable row", &"it is about nothing known")),
    };
    match compacted {
        Some(compacted) if compacted == bytes => {}
        Some(compacted) => work.put(key.to_vec(), compacted),
        None => work.delete(key.to_vec()),
    }
    Ok(())
}

/// Per lane the last entry that left something to be forgotten. O(such rows).
pub(crate) fn unstable_entries(read: &dyn StateRead, space: &SpaceId) -> Result<Frontier, StoreError> {
    let (from, until) = keys::unstable(space);
    let mut entries = Frontier::new();
    for (key, _) in read.scan(&from, &until, usize::MAX)? {
        let (lane, lsn) =
            keys::unstable_place(&key).ok_or_else(|| damaged("unstable row", &"its key is none"))?;
        entries.advance(lane, lsn);
    }
    Ok(entries)
}

/// How many rows of a space hold something that is to be forgotten once it is stable. O(such rows).
///
/// # Errors
/// [`StoreError`] when storage fails.
pub fn unstable_rows(read: &dyn StateRead, space: &SpaceId) -> Result<usize, StoreError> {
    let (from, until) = keys::unstable(space);
    Ok(read.scan(&from, &until, usize::MAX)?.len())
}
