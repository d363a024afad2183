//! Stretches: some objects that follow each other in the order of their keys, each inspected, with the digests of ranges of
//! them. A stretch is of one view, so it is the state at one frontier.
//!
//! An object's key here is that of its header row without what is the same for all objects of a space.

use comity_crdts::{Frontier, LaneId, ObjectAddress, SpaceId};
use serde::{Deserialize, Serialize};

use crate::audit::inspect::inspect;
use crate::audit::is_apart;
use crate::audit::members::{founder, inspect_members};
use crate::change::decode_stored;
use crate::hash::hash;
use crate::keys;
use crate::read::frontier;
use crate::retention::floor_of;
use crate::rows::damaged;
use crate::space::{LaneRow, decode};
use crate::store::{LogRead, StoreError};

/// Ranges of a stretch: what is shown of it at once.
pub(crate) const RANGES_MAX: usize = 16;
/// Objects of a range.
pub(crate) const RANGE_OBJECTS: usize = 64;
/// Rows that are read for a stretch, and one object.
pub(crate) const STRETCH_ROWS_MAX: usize = 16 * 1024;
/// Header rows that are read in one go.
const HEADERS_AT_ONCE: usize = 32;
/// After every object's key.
const LAST: &[u8] = &[0xff];

/// The digest of a range: of the objects after the range before it, up to a key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RangeDigest {
    /// The key of the last object that may be in it.
    pub until: Vec<u8>,
    /// How many objects are in it that hold something.
    pub count: u64,
    /// The wrapping sum of the digests of their states.
    pub state: u128,
}

/// Where a state stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Stand {
    pub(crate) frontier: Frontier,
    /// Over the chain hashes of all lanes there.
    pub(crate) root: [u8; 16],
}

/// A stretch, as its owner has it.
#[derive(Debug)]
pub struct Stretch {
    pub(crate) from: Vec<u8>,
    pub(crate) stand: Stand,
    pub(crate) ranges: Vec<RangeDigest>,
    /// The objects that hold something, by key, with the digests of their states.
    pub(crate) items: Vec<(Vec<u8>, u128)>,
    /// Objects that contradict themselves, and how.
    pub(crate) faults: Vec<(ObjectAddress, String)>,
    pub(crate) inspected: u64,
}

/// Inspects objects one after the other, with a budget.
pub(crate) struct Inspection<'a> {
    pub(crate) read: &'a dyn LogRead,
    pub(crate) space: &'a SpaceId,
    pub(crate) rows: usize,
    pub(crate) objects: u64,
    pub(crate) faults: Vec<(ObjectAddress, String)>,
}

/// Objects that were inspected.
#[derive(Default)]
pub(crate) struct Inspected {
    /// Those that hold something.
    pub(crate) items: Vec<(Vec<u8>, u128)>,
    /// The key of the last one.
    pub(crate) last: Option<Vec<u8>>,
    /// There are no others in the range.
    pub(crate) is_all: bool,
}

impl Inspected {
    /// The digest of all of them, as a range up to a key.
    pub(crate) fn digest(&self, until: Vec<u8>) -> RangeDigest {
        let state = self.items.iter().fold(0_u128, |sum, (_, state)| sum.wrapping_add(*state));
        RangeDigest { until, count: self.items.len() as u64, state }
    }
}

impl<'a> Inspection<'a> {
    pub(crate) fn new(read: &'a dyn LogRead, space: &'a SpaceId) -> Self {
        Self { read, space, rows: 0, objects: 0, faults: Vec::new() }
    }

    /// Inspects the member list, which is a range of its own. O(members).
    pub(crate) fn members(&mut self) -> Result<Inspected, StoreError> {
        let inspected = inspect_members(self.read, self.space)?;
        self.objects += 1;
        self.rows += inspected.rows;
        if let Some(detail) = inspected.fault {
            self.faults.push((ObjectAddress::members(), detail));
        }
        let mut found = Inspected { is_all: true, ..Inspected::default() };
        if inspected.digest != 0 {
            found.items.push((members_key(self.space), inspected.digest));
        }
        Ok(found)
    }

    /// Inspects the objects after one key up to another, `objects_max` of them at most. O(their rows).
    pub(crate) fn range(
        &mut self,
        after: &[u8],
        until: &[u8],
        objects_max: usize,
    ) -> Result<Inspected, StoreError> {
        let mut found = Inspected::default();
        let (mut from, end) = bounds(self.space, after, until);
        for left in (0..objects_max).step_by(HEADERS_AT_ONCE).map(|done| objects_max - done) {
            let wanted = left.min(HEADERS_AT_ONCE);
            let rows = self.read.scan(&from, &end, wanted)?;
            let is_all = rows.len() < wanted;
            for (key, header) in rows {
                from = [key.as_slice(), &[0]].concat();
                let address = address_of(&key)?;
                let inspected = inspect(self.read, self.space, &address, &header)?;
                self.objects += 1;
                self.rows += inspected.rows;
                if let Some(detail) = inspected.fault {
                    self.faults.push((address, detail));
                }
                let tail = tail_of(&key).to_vec();
                if inspected.digest != 0 {
                    found.items.push((tail.clone(), inspected.digest));
                }
                found.last = Some(tail);
                if self.rows > STRETCH_ROWS_MAX {
                    return Ok(found);
                }
            }
            if is_all {
                found.is_all = true;
                return Ok(found);
            }
        }
        Ok(found)
    }
}

/// Digests the stretch after a key; `None` when the state is being replaced. O(its rows · log n).
pub(crate) fn read(view: &dyn LogRead, space: &SpaceId, after: &[u8]) -> Result<Option<Stretch>, StoreError> {
    if is_apart(view, space)? {
        return Ok(None);
    }
    let frontier = frontier(view, space)?;
    let Some(root) = root(view, space, &frontier)? else { return Ok(None) };
    let mut inspection = Inspection::new(view, space);
    let (mut ranges, mut items, mut is_last) = (Vec::new(), Vec::new(), false);
    let mut at = after.to_vec();
    // Who does not know who founded the space has no list yet.
    if after.is_empty() && founder(view, space)?.is_some() {
        at = members_key(space);
        let mut found = inspection.members()?;
        ranges.push(found.digest(at.clone()));
        items.append(&mut found.items);
    }
    while ranges.len() < RANGES_MAX && !is_last && inspection.rows <= STRETCH_ROWS_MAX {
        let mut found = inspection.range(&at, LAST, RANGE_OBJECTS)?;
        is_last = found.is_all;
        let until = found.last.clone().filter(|_| !is_last).unwrap_or_else(|| LAST.to_vec());
        ranges.push(found.digest(until.clone()));
        items.append(&mut found.items);
        at = until;
    }
    let (faults, inspected) = (inspection.faults, inspection.objects);
    let stand = Stand { frontier, root };
    Ok(Some(Stretch { from: after.to_vec(), stand, ranges, items, faults, inspected }))
}

/// The key of an object.
pub(crate) fn key_of(space: &SpaceId, address: &ObjectAddress) -> Vec<u8> {
    tail_of(&keys::object(space, address)).to_vec()
}

/// The key of the member list, which comes before those of all objects.
pub(crate) fn members_key(space: &SpaceId) -> Vec<u8> {
    key_of(space, &ObjectAddress::members())
}

/// The object with a key, if it is one.
pub(crate) fn object_at(space: &SpaceId, key: &[u8]) -> Option<ObjectAddress> {
    address_of(&bounds(space, key, LAST).0).ok()
}

fn tail_of(row: &[u8]) -> &[u8] {
    row.get(1 + 16..).unwrap_or_default()
}

fn address_of(row: &[u8]) -> Result<ObjectAddress, StoreError> {
    // A key that something comes after ends with a zero byte, which no name holds.
    let row = row.strip_suffix(&[0]).unwrap_or(row);
    let parts = keys::object_parts(row).and_then(|(kind, collection, key)| {
        let address = ObjectAddress::new(kind, collection, key);
        address.ok()
    });
    parts.ok_or_else(|| damaged("object row", &"its key is none"))
}

/// The rows of objects after one key up to another.
fn bounds(space: &SpaceId, after: &[u8], until: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let (first, end) = keys::all_objects(space);
    let from = if after.is_empty() { first.clone() } else { [first.as_slice(), after, &[0]].concat() };
    let until = if until >= LAST { end } else { [first.as_slice(), until, &[0]].concat() };
    (from, until)
}

/// A digest over the chain hashes of lanes as far as a frontier; `None` when one of them is not known here any more, or
/// not yet.
pub(crate) fn root(
    read: &dyn LogRead,
    space: &SpaceId,
    frontier: &Frontier,
) -> Result<Option<[u8; 16]>, StoreError> {
    let mut chained = Vec::new();
    for (lane, lsn) in frontier.iter() {
        let Some(hash) = chain_hash(read, space, (&lane, lsn))? else { return Ok(None) };
        chained.extend_from_slice(&lane.0);
        chained.extend_from_slice(&lsn.to_be_bytes());
        chained.extend_from_slice(&hash);
    }
    Ok(Some(hash("comity 2026 audited frontier\0", &[&space.0, &chained]).half()))
}

fn chain_hash(
    read: &dyn LogRead,
    space: &SpaceId,
    (lane, lsn): (&LaneId, u64),
) -> Result<Option<[u8; 32]>, StoreError> {
    let Some(row) = read.get(&keys::lane(space, lane))? else { return Ok(None) };
    let tip = decode::<LaneRow>("lane row", &row)?.tip;
    if tip.lsn == lsn {
        return Ok(Some(tip.hash.0));
    }
    if let Some(floor) = floor_of(read, space, lane)?.filter(|floor| floor.lsn == lsn) {
        return Ok(Some(floor.hash.0));
    }
    let Some(bytes) = read.lane_entry(space, lane, lsn)? else { return Ok(None) };
    let (hash, _) = decode_stored(space, lane, &bytes).map_err(|error| damaged("lane entry", &error))?;
    Ok(Some(hash.0))
}
