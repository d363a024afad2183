//! Ids that clients give to their writes, so that a write can be repeated without counting twice. They are part of
//! the change set, so every replica that has applied it knows it again, for a day.

use std::fmt;

use comity_crdts::{Frontier, Hlc, LaneId, SpaceId, canary};

use crate::acks::Written;
use crate::apply::Effects;
use crate::change::decode_stored;
use crate::engine::Engine;
use crate::hash::hash;
use crate::io::Now;
use crate::keys;
use crate::limits::{OPERATION_ID_KEPT, OPERATION_ID_LATE, OPERATION_IDS_MAX, OPERATION_IDS_STEP};
use crate::options::WriteOptions;
use crate::rows::damaged;
use crate::space::{decode, encode};
use crate::store::{LogRead, StateRead, Store, StoreError};
use crate::work::Work;

/// What a client calls one of its writes, as it is kept: 16 bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OperationId(pub [u8; 16]);

/// The longest name of an operation, bytes.
pub const OPERATION_NAME_BYTES_MAX: usize = 64;

/// A client's name for an operation is empty or too long. The caller's fault; nothing was written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the name of the operation has {bytes} bytes; 1 to {bytes_max} are allowed")]
pub struct OperationNameError {
    /// Its length.
    pub bytes: usize,
    /// The limit, [`OPERATION_NAME_BYTES_MAX`].
    pub bytes_max: usize,
}

impl OperationId {
    /// The id of an operation that a client names, by 1 to [`OPERATION_NAME_BYTES_MAX`] bytes: a UUID, say. Whoever
    /// uses a name again within a day means the same operation, so it should be drawn at random.
    ///
    /// # Errors
    /// [`OperationNameError`] when the name is empty or too long.
    pub fn named(name: &[u8]) -> Result<Self, OperationNameError> {
        if name.is_empty() || name.len() > OPERATION_NAME_BYTES_MAX {
            return Err(OperationNameError { bytes: name.len(), bytes_max: OPERATION_NAME_BYTES_MAX });
        }
        Ok(Self(hash("comity 2026 operation id\0", &[name]).half()))
    }
}

impl fmt::Debug for OperationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "OperationId({:032x})", u128::from_be_bytes(self.0))
    }
}

const KEPT_MS: u64 = OPERATION_ID_KEPT.as_millis() as u64;
/// They are forgotten many at a time, so this long after they might be.
const LATE_MS: u64 = OPERATION_ID_LATE.as_millis() as u64;

/// A remembered id: where the change set is, and when it was made.
type OperationRow = (LaneId, u64, u64);

fn load(
    read: &dyn StateRead,
    space: &SpaceId,
    operation: &OperationId,
) -> Result<Option<OperationRow>, StoreError> {
    let row = read.get(&keys::operation(space, &operation.0))?;
    row.map(|bytes| decode("operation row", &bytes)).transpose()
}

pub(crate) fn count(read: &dyn StateRead, space: &SpaceId) -> Result<u64, StoreError> {
    let row = read.get(&keys::operation_count(space))?;
    row.map_or(Ok(0), |bytes| decode("number of operations", &bytes))
}

/// When a change set that was made at a stamp counts as made here, or `None` when that is so long ago that its id need
/// not be remembered. A stamp that is ahead of the wall clock does not make anything stay longer.
pub(crate) fn made_at(stamp: Hlc, wall_ms: u64) -> Option<u64> {
    let at_ms = stamp.millis().min(wall_ms);
    (at_ms.saturating_add(KEPT_MS) > wall_ms).then_some(at_ms)
}

/// Remembers under which id a change set was made. Of several the first one that came here is kept.
pub(crate) fn note_operation(
    work: &mut Work<'_>,
    effects: &mut Effects,
    space: &SpaceId,
    operation: &OperationId,
    ((lane, lsn), at_ms): ((LaneId, u64), u64),
) -> Result<(), StoreError> {
    let before = load(work, space, operation)?;
    match before {
        Some((_, _, before_ms)) if before_ms.saturating_add(KEPT_MS) > at_ms => return Ok(()),
        Some((_, _, before_ms)) => work.delete(keys::operation_at(space, before_ms, &operation.0)),
        None => {}
    }
    let kept = count(work, space)? + u64::from(before.is_none());
    work.put(keys::operation(space, &operation.0), encode(&(lane, lsn, at_ms)));
    work.put(keys::operation_at(space, at_ms, &operation.0), Vec::new());
    work.put(keys::operation_count(space), encode(&kept));
    let due = if kept > OPERATION_IDS_MAX + OPERATION_IDS_STEP { 0 } else { at_ms + KEPT_MS + LATE_MS };
    effects.forget_ids_ms = Some(effects.forget_ids_ms.map_or(due, |other| other.min(due)));
    Ok(())
}

/// Remembers an id that a snapshot has, unless it is remembered here.
pub(crate) fn restore_operation(
    work: &mut Work<'_>,
    space: &SpaceId,
    operation: &[u8; 16],
    row: &[u8],
) -> Result<(), StoreError> {
    let (_, _, at_ms): OperationRow = decode("operation row", row)?;
    if load(work, space, &OperationId(*operation))?.is_none() {
        let kept = count(work, space)? + 1;
        work.put(keys::operation(space, operation), row.to_vec());
        work.put(keys::operation_at(space, at_ms, operation), Vec::new());
        work.put(keys::operation_count(space), encode(&kept));
    }
    Ok(())
}

/// The change set that was made under an id within the last day, as far as it is applied here, with what its
/// author had applied once it was made. O(log n).
pub(crate) fn find_operation(
    read: &dyn LogRead,
    space: &SpaceId,
    operation: &OperationId,
    wall_ms: u64,
) -> Result<Option<Written>, StoreError> {
    let Some((lane, lsn, at_ms)) = load(read, space, operation)? else { return Ok(None) };
    if at_ms.saturating_add(KEPT_MS) <= wall_ms {
        return Ok(None);
    }
    let mut frontier = match read.lane_entry(space, &lane, lsn)? {
        Some(bytes) => {
            decode_stored(space, &lane, &bytes).map_err(|error| damaged("lane entry", &error))?.1.admitted
        }
        // Who has the entry has what it was admitted after.
        None => Frontier::new(),
    };
    frontier.advance(lane, lsn);
    Ok(Some(Written { place: Some((lane, lsn)), frontier, deduplicated: true }))
}

impl Engine {
    /// Whether a write was made before under its operation id; what it waits for is awaited then.
    pub(crate) fn repeat(
        &mut self,
        now: &Now,
        space: SpaceId,
        write: &WriteOptions,
        store: &dyn Store,
    ) -> Result<bool, StoreError> {
        let Some(operation) = write.operation.filter(|_| !canary!(OperationForgotten)) else {
            return Ok(false);
        };
        let found = find_operation(store, &space, &operation, now.wall_ms)?;
        let Some(written) = found else { return Ok(false) };
        self.await_write(now, space, write.clone(), written);
        Ok(true)
    }
}

/// Forgets ids that are older than a day and the oldest of too many, at most `rows_max`. Returns whether there may be
/// more, and when there will be.
pub(crate) fn prune_operations(
    work: &mut Work<'_>,
    space: &SpaceId,
    wall_ms: u64,
    rows_max: usize,
) -> Result<(bool, u64), StoreError> {
    let (from, until) = keys::operations(space);
    let mut kept = count(work, space)?;
    let mut forgotten = 0;
    let mut next = u64::MAX;
    for (key, _) in work.scan(&from, &until, rows_max + 1)? {
        let parts = keys::operation_parts(&key);
        let (at_ms, operation) = parts.ok_or_else(|| damaged("operation index", &"its key is none"))?;
        if at_ms.saturating_add(KEPT_MS) > wall_ms && kept <= OPERATION_IDS_MAX {
            next = at_ms.saturating_add(KEPT_MS + LATE_MS);
            break;
        }
        if forgotten == rows_max {
            next = 0;
            break;
        }
        work.delete(keys::operation(space, &operation));
        work.delete(key);
        kept = kept.saturating_sub(1);
        forgotten += 1;
    }
    if forgotten > 0 {
        work.put(keys::operation_count(space), encode(&kept));
    }
    Ok((next == 0, next))
}

/// When the oldest id of a space can be forgotten.
pub(crate) fn forget_due(read: &dyn StateRead, space: &SpaceId) -> Result<u64, StoreError> {
    let (from, until) = keys::operations(space);
    let first = read.scan(&from, &until, 1)?;
    let at_ms = first.first().and_then(|(key, _)| keys::operation_parts(key)).map(|(at_ms, _)| at_ms);
    Ok(at_ms.map_or(u64::MAX, |at_ms| at_ms.saturating_add(KEPT_MS + LATE_MS)))
}

/// How many operation ids of a space are remembered. O(log n).
///
/// # Errors
/// [`StoreError`] when storage fails.
pub fn operation_ids(read: &dyn StateRead, space: &SpaceId) -> Result<u64, StoreError> {
    count(read, space)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Row;

    /// A state in which nothing is stored but that this many ids are remembered.
    struct Crowded(u64);

    impl LogRead for Crowded {
        fn lane_entry(&self, _: &SpaceId, _: &LaneId, _: u64) -> Result<Option<Vec<u8>>, StoreError> {
            Ok(None)
        }
    }

    impl StateRead for Crowded {
        fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
            Ok((key == keys::operation_count(&SPACE)).then(|| encode(&self.0)))
        }

        fn scan(&self, _from: &[u8], _until: &[u8], _limit: usize) -> Result<Vec<Row>, StoreError> {
            Ok(Vec::new())
        }
    }

    const SPACE: SpaceId = SpaceId([1; 16]);
    const LANE: LaneId = comity_crdts::OriginId([2; 16]);

    #[test]
    fn of_too_many_ids_the_oldest_are_forgotten_a_step_at_a_time() {
        let below = Crowded(OPERATION_IDS_MAX + OPERATION_IDS_STEP - 4);
        let (mut work, mut effects) = (Work::over(&below), Effects::default());
        let id = |number: u8| OperationId([number; 16]);
        for number in 1..=5_u8 {
            assert_ne!(effects.forget_ids_ms, Some(0), "there is room yet");
            let place = (LANE, u64::from(number));
            let at_ms = 1_000 + u64::from(number);
            note_operation(&mut work, &mut effects, &SPACE, &id(number), (place, at_ms)).unwrap();
        }
        assert_eq!(effects.forget_ids_ms, Some(0));
        let found = |work: &Work<'_>, number| find_operation(work, &SPACE, &id(number), 2_000).unwrap();
        let (is_more, next) = prune_operations(&mut work, &SPACE, 2_000, 2).unwrap();
        assert_eq!((is_more, next), (true, 0));
        assert_eq!([1, 2, 3].map(|number| found(&work, number).is_some()), [false, false, true]);
        assert_eq!(count(&work, &SPACE), Ok(OPERATION_IDS_MAX + OPERATION_IDS_STEP - 1));
        // The token of a place whose entry is gone names the place, which is as good.
        let written = found(&work, 4).unwrap();
        assert_eq!(written.frontier, [(LANE, 4)].into_iter().collect());
        prune_operations(&mut work, &SPACE, 2_000, 100).unwrap();
        assert!((3..=5).all(|number| found(&work, number).is_none()));
    }

    #[test]
    fn what_is_within_its_day_stays_and_tells_when_it_goes() {
        let below = Crowded(0);
        let (mut work, mut effects) = (Work::over(&below), Effects::default());
        let id = OperationId([9; 16]);
        note_operation(&mut work, &mut effects, &SPACE, &id, ((LANE, 1), 5_000)).unwrap();
        note_operation(&mut work, &mut effects, &SPACE, &id, ((LANE, 2), 6_000)).unwrap();
        let first = find_operation(&work, &SPACE, &id, 6_000).unwrap().unwrap();
        assert_eq!(first.place, Some((LANE, 1)), "the first that came");
        let due = 5_000 + KEPT_MS + LATE_MS;
        assert_eq!(prune_operations(&mut work, &SPACE, 5_000 + KEPT_MS - 1, 10), Ok((false, due)));
        assert!(find_operation(&work, &SPACE, &id, 5_000 + KEPT_MS).unwrap().is_none());
        assert_eq!(prune_operations(&mut work, &SPACE, 5_000 + KEPT_MS, 10), Ok((false, u64::MAX)));
        assert_eq!(operation_ids(&work, &SPACE), Ok(0));
    }
}
