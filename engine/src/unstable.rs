//! What can be forgotten once everybody has heard of what put it there: tokens of removals, and the places up to
//! which counters were reset. Each such row is noted under the lane entry that made it so, and looked at again
//! when the entry is within the cut.

use std::collections::BTreeMap;

use comity_crdts::{Frontier, Kind, LaneId, ObjectAddress, Reader, SpaceId, Writer};

use crate::keys;
use crate::rows::{Object, damaged, decode_rw_element};
use crate::site::Site;
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

/// A row with something to be forgotten.
#[derive(Clone, Copy, Debug)]
pub(crate) struct UnstableRow<'a> {
    pub(crate) row: &'a [u8],
    pub(crate) what: Unstable,
    /// The object that it is in or is, and the path there.
    pub(crate) address: &'a ObjectAddress,
    pub(crate) path: &'a [String],
}

impl UnstableRow<'_> {
    /// The rows of the objects that hold the row, outermost first: they go with it when it was the last.
    fn holders(&self, space: &SpaceId) -> Vec<Vec<u8>> {
        let mut site = Site::top(space, self.address);
        let mut holders = Vec::new();
        if let Some((_, maps)) = self.path.split_last() {
            holders.push(site.row.clone());
            for key in maps {
                site = site.nested(key, Kind::Map);
                holders.push(site.row.clone());
            }
        } else if self.what == Unstable::Element {
            holders.push(site.row);
        }
        holders
    }
}

impl UnstableRow<'_> {
    /// Puts back the headers of the objects that hold the row, where they went with it.
    pub(crate) fn keep_holders(&self, work: &mut Work<'_>, space: &SpaceId) -> Result<(), StoreError> {
        if work.get(self.row)?.is_none() {
            return Ok(());
        }
        for holder in self.holders(space) {
            let bottom = keys::holder_kind(&holder).and_then(Object::bottom);
            if let (None, Some(bottom)) = (work.get(&holder)?, bottom) {
                work.put(holder, bottom.to_bytes());
            }
        }
        Ok(())
    }
}

/// Notes that what an entry left in a row can be forgotten once the entry is stable.
pub(crate) fn note_unstable(
    work: &mut Work<'_>,
    space: &SpaceId,
    place: (LaneId, u64),
    row: &UnstableRow<'_>,
) {
    let mut out = Writer::new();
    out.u8(row.what as u8);
    row.holders(space).iter().for_each(|holder| out.blob(holder));
    work.put(keys::unstable_row(space, place, row.row), out.finish());
}

/// The rows of the objects that hold a noted row.
fn decode_holders(bytes: &[u8]) -> Result<Vec<Vec<u8>>, StoreError> {
    let mut reader = Reader::new(bytes);
    let mut holders = Vec::new();
    while reader.remaining() > 0 {
        let holder = reader.blob(reader.remaining(), "holder");
        holders.push(holder.map_err(|error| damaged("unstable row", &error))?.to_vec());
    }
    Ok(holders)
}

/// Removes the headers of objects that hold nothing any more, after the last of their parts has gone.
fn tidy(work: &mut Work<'_>, part: &[u8], holders: &[Vec<u8>]) -> Result<(), StoreError> {
    let mut part = part;
    for holder in holders.iter().rev() {
        let Some((from, until)) = keys::parts_beside(part) else { return Ok(()) };
        let (Some(kind), Some(bytes)) = (keys::holder_kind(holder), work.get(holder)?) else { return Ok(()) };
        if !work.scan(&from, &until, 1)?.is_empty() || !Object::from_bytes(kind, &bytes)?.is_bottom() {
            return Ok(());
        }
        work.delete(holder.clone());
        part = holder;
    }
    Ok(())
}

/// Rows that have gone, one for each list of holders, which are as they were noted.
type Gone = BTreeMap<Vec<u8>, Vec<u8>>;

/// Forgets what the cut allows, at most `rows_max` noted rows of it. Returns whether there may be more, and how
/// many rows were looked at.
pub(crate) fn compact(
    work: &mut Work<'_>,
    space: &SpaceId,
    cut: &Frontier,
    rows_max: usize,
) -> Result<(bool, usize), StoreError> {
    let (mut left, mut gone) = (rows_max, Gone::new());
    for (lane, lsn) in cut.iter() {
        let (from, until) = keys::unstable_through(space, &lane, lsn);
        let rows = work.scan(&from, &until, left)?;
        left -= rows.len();
        for (key, what) in rows {
            compact_row(work, cut, (keys::unstable_target(&key), &what), &mut gone)?;
            work.delete(key);
        }
        if left == 0 {
            break;
        }
    }
    // Once for each object, not for each of its parts: whether one has others is seen only past those that are gone.
    for (holders, part) in &gone {
        tidy(work, part, &decode_holders(holders)?)?;
    }
    Ok((left == 0, rows_max - left))
}

/// Looks at a noted row again. What goes altogether is told, once for each object that held it.
fn compact_row(
    work: &mut Work<'_>,
    cut: &Frontier,
    (key, noted): (&[u8], &[u8]),
    gone: &mut Gone,
) -> Result<(), StoreError> {
    let (what, holders) = noted.split_at_checked(1).unwrap_or((noted, &[]));
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
        None => {
            work.delete(key.to_vec());
            if !gone.contains_key(holders) {
                gone.insert(holders.to_vec(), key.to_vec());
            }
        }
    }
    Ok(())
}

/// Whether a noted row that comes from elsewhere is one of the space.
pub(crate) fn check_unstable(space: &SpaceId, row: &[u8], noted: &[u8]) -> Result<(), StoreError> {
    let Some((what, holders)) = noted.split_first() else {
        return Err(damaged("unstable row", &"it is empty"));
    };
    let of_space = keys::with_space(0x30, space);
    let is_one = |row: &[u8]| row.starts_with(&of_space) || matches!(row.first(), Some(0x31 | 0x32));
    let holders = decode_holders(holders)?;
    let is_sound = (1..=3).contains(what) && is_one(row) && holders.iter().all(|holder| is_one(holder));
    if is_sound { Ok(()) } else { Err(damaged("unstable row", &"it is about nothing known")) }
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

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use comity_crdts::{OriginId, RwRow};

    use super::*;
    use crate::store::{LogRead, Row};

    const SPACE: SpaceId = SpaceId([1; 16]);
    const LANE: LaneId = OriginId([2; 16]);

    /// A store that counts the rows that scans give.
    #[derive(Default)]
    struct Counting {
        rows: BTreeMap<Vec<u8>, Vec<u8>>,
        given: Cell<usize>,
    }

    impl StateRead for Counting {
        fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
            Ok(self.rows.get(key).cloned())
        }

        fn scan(&self, from: &[u8], until: &[u8], limit: usize) -> Result<Vec<Row>, StoreError> {
            let range = self.rows.range(from.to_vec()..until.to_vec()).take(limit);
            let rows: Vec<Row> = range.map(|(key, value)| (key.clone(), value.clone())).collect();
            self.given.set(self.given.get() + rows.len());
            Ok(rows)
        }
    }

    impl LogRead for Counting {
        fn lane_entry(&self, _: &SpaceId, _: &LaneId, _: u64) -> Result<Option<Vec<u8>>, StoreError> {
            Ok(None)
        }
    }

    #[test]
    fn forgetting_reads_a_row_a_few_times_however_many_go_in_one_step() {
        const ELEMENTS: u64 = 500;
        let address = ObjectAddress::new(Kind::RwSet, "c", "set").unwrap();
        let site = Site::top(&SPACE, &address);
        let below = Counting::default();
        let mut work = Work::over(&below);
        let mut empty = Writer::new();
        RwRow::default().encode(&mut empty);
        let empty = empty.finish();
        work.put(site.row.clone(), Object::bottom(Kind::RwSet).unwrap().to_bytes());
        for number in 0..ELEMENTS {
            let row = keys::element(&site.id, &number.to_be_bytes());
            work.put(row.clone(), empty.clone());
            let noted = UnstableRow { row: &row, what: Unstable::Element, address: &address, path: &[] };
            note_unstable(&mut work, &SPACE, (LANE, 1), &noted);
        }
        let put = work.into_batch().state;
        let rows = put.into_iter().filter_map(|(key, value)| Some((key, value?))).collect();
        let store = Counting { rows, given: Cell::new(0) };
        let cut: Frontier = [(LANE, 1)].into_iter().collect();
        let mut work = Work::over(&store);
        let (more, looked) = compact(&mut work, &SPACE, &cut, ELEMENTS as usize + 1).unwrap();
        assert_eq!((more, looked), (false, ELEMENTS as usize));
        assert!(work.get(&site.row).unwrap().is_none(), "the set holds nothing any more");
        let given = store.given.get();
        assert!(given <= 3 * ELEMENTS as usize, "{given} rows were read to forget {ELEMENTS}");
    }
}
