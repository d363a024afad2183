//! What a peer shows of a stretch, held against what is here.
//!
//! The two states are at different frontiers. What is here covers what the peer shows, so the operations that only one of them
//! has are those of the entries here beyond that. Which objects they are on is read from the log: of all others both have
//! applied the same.

use std::collections::BTreeMap;

use comity_crdts::{Frontier, ObjectId, SpaceId, canary};
use serde::{Deserialize, Serialize};

use crate::audit::is_apart;
use crate::audit::stretch::{
    Inspection, RANGE_OBJECTS, RANGES_MAX, STRETCH_ROWS_MAX, key_of, members_key, root,
};
use crate::change::{Body, decode_stored};
use crate::hash::hash;
use crate::message::AuditAsk;
use crate::read::frontier;
use crate::rows::damaged;
use crate::store::{LogRead, StoreError};

/// Entries beyond what the peer has that are looked through.
const ENTRIES_MAX: u64 = 4_096;
/// Their bytes in stored form.
const ENTRY_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Objects that are inspected for a range, of which the peer has up to 64.
const OBJECTS_MAX: usize = 4 * RANGE_OBJECTS;
/// What an answer holds, about; the range that exceeds it is the last that is answered for.
const ANSWER_BYTES_MAX: usize = 96 * 1024;

/// An object in a range that differs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditItem {
    /// Its key.
    pub key: Vec<u8>,
    /// The wrapping sum of a hash per entry that is on it and that the asker lacks. 0: both have applied the same on it.
    pub ops: u64,
    /// The digest of its state; 0 when it holds nothing.
    pub state: u128,
}

/// A range that differs: its number in the question, and every object in it that holds something or that the asker lacks
/// operations on.
pub(crate) type RangeItems = (u8, Vec<AuditItem>);

/// What came of comparing.
#[derive(Debug)]
pub struct Comparison {
    /// How many of the ranges were compared.
    pub(crate) compared: u8,
    pub(crate) differ: Vec<RangeItems>,
}

/// Compares what a peer shows with a view. `None` when that cannot be done now: the view lacks something that the peer had
/// applied, or is too far ahead of it. O(rows of the ranges + entries that the peer lacks).
pub(crate) fn compare(view: &dyn LogRead, ask: &AuditAsk) -> Result<Option<Comparison>, StoreError> {
    let space = &ask.space;
    if is_apart(view, space)? {
        return Ok(None);
    }
    let here = frontier(view, space)?;
    if !here.covers(&ask.frontier) || root(view, space, &ask.frontier)? != Some(ask.root) {
        return Ok(None);
    }
    let Some(touched) = touched(view, space, (&ask.frontier, &here))? else { return Ok(None) };
    let mut inspection = Inspection::new(view, space);
    let (mut comparison, mut bytes) = (Comparison { compared: 0, differ: Vec::new() }, 0);
    let (mut after, members_key) = (ask.from.clone(), members_key(space));
    for (number, range) in (0_u8..).zip(ask.ranges.iter().take(RANGES_MAX)) {
        if range.until <= after || inspection.rows > 2 * STRETCH_ROWS_MAX || bytes > ANSWER_BYTES_MAX {
            break;
        }
        // Only who knows that the member list is compared has a range that ends there.
        let found = if range.until == members_key {
            inspection.members()?
        } else {
            inspection.range(&after, &range.until, OBJECTS_MAX)?
        };
        if !found.is_all {
            break;
        }
        comparison.compared = number + 1;
        let own = found.digest(range.until.clone());
        if (own.count, own.state) != (range.count, range.state) {
            let items = items(found.items, &touched, (&after, &range.until));
            bytes += items.iter().map(|item| item.key.len() + 32).sum::<usize>();
            comparison.differ.push((number, items));
        }
        after.clone_from(&range.until);
    }
    Ok(Some(comparison))
}

/// The objects of a range, with the operations that the asker lacks on them.
fn items(
    found: Vec<(Vec<u8>, u128)>,
    touched: &BTreeMap<Vec<u8>, u64>,
    (after, until): (&Vec<u8>, &Vec<u8>),
) -> Vec<AuditItem> {
    let mut items: BTreeMap<Vec<u8>, AuditItem> =
        found.into_iter().map(|(key, state)| (key.clone(), AuditItem { key, ops: 0, state })).collect();
    let within = (std::ops::Bound::Excluded(after.clone()), std::ops::Bound::Included(until.clone()));
    for (key, ops) in touched.range(within).filter(|_| !canary!(TouchedCompared)) {
        let item = AuditItem { key: key.clone(), ops: 0, state: 0 };
        items.entry(key.clone()).or_insert(item).ops = *ops;
    }
    items.into_values().collect()
}

/// The objects that entries between two frontiers are on, by key, with the digest of these entries. `None` when there are too
/// many, or they are not kept any more.
fn touched(
    view: &dyn LogRead,
    space: &SpaceId,
    (from, until): (&Frontier, &Frontier),
) -> Result<Option<BTreeMap<Vec<u8>, u64>>, StoreError> {
    let ahead: u64 = until.ahead_of(from).map(|(lane, lsn)| lsn - from.at(&lane)).sum();
    if ahead > ENTRIES_MAX {
        return Ok(None);
    }
    let (mut touched, mut length): (BTreeMap<Vec<u8>, u64>, usize) = (BTreeMap::new(), 0);
    for (lane, last) in until.ahead_of(from) {
        for lsn in from.at(&lane) + 1..=last {
            let Some(bytes) = view.lane_entry(space, &lane, lsn)? else { return Ok(None) };
            length += bytes.len();
            if length > ENTRY_BYTES_MAX {
                return Ok(None);
            }
            let (chained, entry) =
                decode_stored(space, &lane, &bytes).map_err(|error| damaged("lane entry", &error))?;
            let Body::Change(change) = entry.body else { continue };
            for group in &change.groups {
                let id = ObjectId::derive(space, &group.address);
                let digest = hash("comity 2026 audited entry\0", &[&chained.0, &id.0]);
                let digest = u64::from_be_bytes(digest.prefix());
                let ops = touched.entry(key_of(space, &group.address)).or_default();
                // An object that is touched never comes to nothing.
                *ops = ops.wrapping_add(digest).max(1);
            }
        }
    }
    Ok(Some(touched))
}
