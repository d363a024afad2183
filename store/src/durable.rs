//! What is durable: the database, and over it the groups that only the log holds so far.

use std::ops::Bound;
use std::sync::Arc;

use comity_crdts::{LaneId, SpaceId};
use comity_engine::{Row, StoreError};

use crate::format::LogKey;
use crate::layer::Layer;
use crate::merge::{Merged, Sourced};
use crate::snapshot::Base;

/// Rows of one source, borrowed from it.
type Rows<'a, K> = Box<dyn Iterator<Item = Sourced<K>> + 'a>;

/// What one sync left durable. It never changes.
#[derive(Clone)]
pub(crate) struct Durable {
    /// Groups that the database does not hold yet, the oldest first.
    recent: Vec<Arc<Layer>>,
    base: Arc<Base>,
}

impl Durable {
    pub(crate) fn new(base: Arc<Base>) -> Self {
        Self { recent: Vec::new(), base }
    }

    /// The same, and a group over it.
    pub(crate) fn with(&self, layer: Arc<Layer>) -> Self {
        let mut recent = Vec::with_capacity(self.recent.len() + 1);
        recent.extend(self.recent.iter().cloned());
        recent.push(layer);
        Self { recent, base: Arc::clone(&self.base) }
    }

    /// The database below.
    pub(crate) fn base(&self) -> &Arc<Base> {
        &self.base
    }

    pub(crate) fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        let recent = self.recent.iter().rev().find_map(|layer| layer.get(key));
        recent.map_or_else(|| self.base.get(key), Ok)
    }

    pub(crate) fn entry(
        &self,
        space: &SpaceId,
        lane: &LaneId,
        lsn: u64,
    ) -> Result<Option<Vec<u8>>, StoreError> {
        let recent = self.recent.iter().rev().find_map(|layer| layer.entry(space, lane, lsn));
        recent.map_or_else(|| self.base.entry(space, lane, lsn), Ok)
    }

    /// Needs `from < until`.
    pub(crate) fn scan(&self, from: &[u8], until: &[u8]) -> Result<Rows<'_, Vec<u8>>, StoreError> {
        let bounds = (Bound::Included(from), Bound::Excluded(until));
        Ok(self.over(self.base.scan(from, until)?, |layer| layer.scan(bounds)))
    }

    /// The entries of a lane from `from` on.
    pub(crate) fn lane(
        &self,
        space: &SpaceId,
        lane: &LaneId,
        from: u64,
    ) -> Result<Rows<'_, u64>, StoreError> {
        let base = self.base.lane(space, lane, from)?;
        Ok(self.over(base, |layer| layer.lane(space, lane, from)))
    }

    /// How many rows there are in both tables, at most: each row of a group counts that the database does not hold yet,
    /// also where it takes the place of another. O(groups that it does not hold).
    pub(crate) fn rows_max(&self) -> Result<u64, StoreError> {
        let recent: usize = self.recent.iter().map(|layer| layer.row_count()).sum();
        Ok(self.base.rows()? + recent as u64)
    }

    /// Every row of the state, in key order.
    pub(crate) fn state(&self) -> Result<impl Iterator<Item = Result<Row, StoreError>>, StoreError> {
        let base = self.base.state_after(None)?.map(present);
        Ok(there(self.over(base, |layer| layer.scan((Bound::Unbounded, Bound::Unbounded)))))
    }

    /// Every entry, in key order.
    pub(crate) fn log(
        &self,
    ) -> Result<impl Iterator<Item = Result<(LogKey, Vec<u8>), StoreError>>, StoreError> {
        let base = self.base.log_after(None)?.map(present);
        Ok(there(self.over(base, |layer| layer.log_within((Bound::Unbounded, Bound::Unbounded)))))
    }

    /// The rows of the groups over those of the database. Groups that have none cost nothing further.
    fn over<'a, K: Ord + 'a, R: Iterator<Item = Sourced<K>> + 'a>(
        &'a self,
        base: impl Iterator<Item = Sourced<K>> + 'a,
        mut rows: impl FnMut(&'a Layer) -> R,
    ) -> Rows<'a, K> {
        let mut all: Rows<'a, K> = Box::new(base);
        for layer in &self.recent {
            let mut newer = rows(layer).peekable();
            if newer.peek().is_some() {
                all = Box::new(Merged::new(newer, all));
            }
        }
        all
    }
}

fn present<K>(row: Result<(K, Vec<u8>), StoreError>) -> Sourced<K> {
    row.map(|(key, value)| (key, Some(value)))
}

/// The rows that are not deletions.
fn there<K>(
    source: impl Iterator<Item = Sourced<K>>,
) -> impl Iterator<Item = Result<(K, Vec<u8>), StoreError>> {
    source.filter_map(|row| row.map(|(key, value)| Some((key, value?))).transpose())
}
