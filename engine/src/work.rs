//! A batch while it is being made: reads see the store with the batch's own changes on top.

use std::cell::RefCell;
use std::collections::BTreeMap;

use comity_crdts::{LaneId, SpaceId};

use crate::store::{Batch, LaneRecord, LaneSpan, LogRead, Put, Row, StateRead, StoreError};

/// Puts and appends gathered over a store; nothing is visible to others until the batch is committed.
pub(crate) struct Work<'a> {
    below: &'a dyn LogRead,
    state: BTreeMap<Vec<u8>, Option<Vec<u8>>>,
    facts: BTreeMap<Vec<u8>, Option<Vec<u8>>>,
    /// Puts of keys that are not looked at again in this batch.
    unread: Vec<Put>,
    entries: Vec<LaneRecord>,
    dropped: Vec<LaneSpan>,
    /// What was read last from below, the newest first, where that is kept.
    recent: Option<RefCell<[Option<Found>; RECENT_READS]>>,
}

/// A key, and what there is under it.
type Found = (Vec<u8>, Option<Vec<u8>>);

/// An operation reads an object's header and one row of it, once to be made and once more to be applied.
const RECENT_READS: usize = 2;
/// What is longer takes longer to copy than to find again.
const RECENT_BYTES_MAX: usize = 4 * 1024;

impl<'a> Work<'a> {
    pub(crate) fn over(below: &'a dyn LogRead) -> Self {
        let (unread, entries, dropped) = (Vec::new(), Vec::new(), Vec::new());
        Self { below, state: BTreeMap::new(), facts: BTreeMap::new(), unread, entries, dropped, recent: None }
    }

    /// As [`Work::over`], where what is read is soon read again.
    pub(crate) fn over_recent(below: &'a dyn LogRead) -> Self {
        Self { recent: Some(RefCell::default()), ..Self::over(below) }
    }

    /// What there was before the batch.
    pub(crate) fn below(&self) -> &'a dyn LogRead {
        self.below
    }

    pub(crate) fn put(&mut self, key: Vec<u8>, value: Vec<u8>) {
        self.state.insert(key, Some(value));
    }

    /// As [`Work::put`], of a row that this batch neither reads nor changes besides, which needs no place among those that
    /// it may.
    pub(crate) fn put_unread(&mut self, key: Vec<u8>, value: Vec<u8>) {
        self.unread.push((key, Some(value)));
    }

    pub(crate) fn delete(&mut self, key: Vec<u8>) {
        self.state.insert(key, None);
    }

    pub(crate) fn put_fact(&mut self, key: Vec<u8>, value: Vec<u8>) {
        self.facts.insert(key, Some(value));
    }

    pub(crate) fn delete_fact(&mut self, key: Vec<u8>) {
        self.facts.insert(key, None);
    }

    /// How many rows of the state it changes.
    pub(crate) fn changed(&self) -> usize {
        self.state.len()
    }

    pub(crate) fn append(&mut self, record: LaneRecord) {
        self.entries.push(record);
    }

    /// Lets go of entries. Reads of this batch still see them.
    pub(crate) fn drop_entries(&mut self, span: LaneSpan) {
        self.dropped.push(span);
    }

    fn get_below(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        let Some(recent) = &self.recent else { return self.below.get(key) };
        let mut recent = recent.borrow_mut();
        if let Some((_, value)) = recent.iter().flatten().find(|(known, _)| known == key) {
            return Ok(value.clone());
        }
        let value = self.below.get(key)?;
        if value.as_ref().is_none_or(|value| value.len() <= RECENT_BYTES_MAX) {
            recent.rotate_right(1);
            recent[0] = Some((key.to_vec(), value.clone()));
        }
        Ok(value)
    }

    /// Ends the borrow of the store and hands over the batch.
    pub(crate) fn into_batch(self) -> Batch {
        Batch {
            entries: self.entries,
            dropped: self.dropped,
            facts: self.facts.into_iter().collect(),
            state: self.state.into_iter().chain(self.unread).collect(),
        }
    }
}

impl StateRead for Work<'_> {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        match self.state.get(key).or_else(|| self.facts.get(key)) {
            Some(value) => Ok(value.clone()),
            None => self.get_below(key),
        }
    }

    fn scan(&self, from: &[u8], until: &[u8], limit: usize) -> Result<Vec<Row>, StoreError> {
        if from >= until {
            return Ok(Vec::new());
        }
        let mut own: BTreeMap<&Vec<u8>, &Option<Vec<u8>>> = self
            .state
            .range::<[u8], _>((std::ops::Bound::Included(from), std::ops::Bound::Excluded(until)))
            .collect();
        own.extend(
            self.facts.range::<[u8], _>((std::ops::Bound::Included(from), std::ops::Bound::Excluded(until))),
        );
        // Each own row can hide at most one row below.
        let below = self.below.scan(from, until, limit.saturating_add(own.len()))?;
        let mut rows: BTreeMap<Vec<u8>, Vec<u8>> = below.into_iter().collect();
        for (key, value) in own {
            match value {
                Some(value) => rows.insert(key.clone(), value.clone()),
                None => rows.remove(key),
            };
        }
        Ok(rows.into_iter().take(limit).collect())
    }
}

impl LogRead for Work<'_> {
    fn lane_entry(&self, space: &SpaceId, lane: &LaneId, lsn: u64) -> Result<Option<Vec<u8>>, StoreError> {
        let is_it =
            |record: &&LaneRecord| record.lsn == lsn && record.lane == *lane && record.space == *space;
        match self.entries.iter().find(is_it) {
            Some(record) => Ok(Some(record.bytes.clone())),
            None => self.below.lane_entry(space, lane, lsn),
        }
    }
}
