//! Rows that were committed but are not in the database yet.

use std::collections::BTreeMap;
use std::ops::Bound;

use comity_crdts::{LaneId, SpaceId};
use comity_engine::{Batch, LaneSpan};

use crate::format::{LogKey, log_key, lsn_of};
use crate::merge::Sourced;

/// What a row costs in memory besides its key and value, so that many tiny rows count too.
const ROW_BYTES: usize = 96;

/// The net effect of consecutive batches.
#[derive(Debug, Default)]
pub(crate) struct Layer {
    state: BTreeMap<Vec<u8>, Option<Vec<u8>>>,
    /// `None` where an entry is dropped.
    log: BTreeMap<LogKey, Option<Vec<u8>>>,
    /// The keys of `log` in the order of their commits.
    order: Vec<LogKey>,
    /// How many of them are dropped.
    dropped: usize,
    bytes: usize,
}

impl Layer {
    /// Applies a batch over what is there. Where `facts` and `state` name the same key, `state` wins.
    pub(crate) fn apply(&mut self, batch: Batch) {
        for entry in batch.entries {
            self.note(log_key(&entry.space, &entry.lane, entry.lsn), Some(entry.bytes));
        }
        for span in batch.dropped {
            for lsn in lsns(&span) {
                self.note(log_key(&span.space, &span.lane, lsn), None);
            }
        }
        let mut puts = batch.facts;
        if self.state.is_empty() {
            // All at once, they are sorted and not looked for one by one.
            puts.extend(batch.state);
            self.state = puts.into_iter().collect();
            let puts = self.state.iter().map(|(key, value)| put_bytes(key.len(), value.as_deref()));
            self.bytes += puts.sum::<usize>();
            return;
        }
        for (key, value) in puts.into_iter().chain(batch.state) {
            let key_len = key.len();
            self.bytes += put_bytes(key_len, value.as_deref());
            if let Some(old) = self.state.insert(key, value) {
                self.bytes -= put_bytes(key_len, old.as_deref());
            }
        }
    }

    fn note(&mut self, key: LogKey, entry: Option<Vec<u8>>) {
        self.bytes += entry_bytes(entry.as_ref().map_or(0, Vec::len));
        self.dropped += usize::from(entry.is_none());
        match self.log.insert(key, entry) {
            Some(old) => {
                self.dropped -= usize::from(old.is_none());
                self.bytes -= entry_bytes(old.map_or(0, |old| old.len()));
            }
            None => self.order.push(key),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.state.is_empty() && self.log.is_empty()
    }

    /// About how much memory the rows take.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Entries that are there, not those that are dropped.
    pub(crate) fn entry_count(&self) -> usize {
        self.log.len() - self.dropped
    }

    pub(crate) fn put_count(&self) -> usize {
        self.state.len()
    }

    pub(crate) fn row_count(&self) -> usize {
        self.log.len() + self.put_count()
    }

    /// `None` where the layer says nothing about the key, `Some(None)` where it deletes it.
    pub(crate) fn get(&self, key: &[u8]) -> Option<Option<Vec<u8>>> {
        self.state.get(key).cloned()
    }

    /// The changes to the state within bounds, by key; these must not be empty.
    pub(crate) fn scan<'a>(
        &'a self,
        bounds: (Bound<&[u8]>, Bound<&[u8]>),
    ) -> impl Iterator<Item = Sourced<Vec<u8>>> + use<'a> {
        self.state.range::<[u8], _>(bounds).map(|(key, value)| Ok((key.clone(), value.clone())))
    }

    /// As [`Layer::get`], of an entry.
    pub(crate) fn entry(&self, space: &SpaceId, lane: &LaneId, lsn: u64) -> Option<Option<Vec<u8>>> {
        self.log.get(&log_key(space, lane, lsn)).cloned()
    }

    /// The entries of a lane from `from` on.
    pub(crate) fn lane<'a>(
        &'a self,
        space: &SpaceId,
        lane: &LaneId,
        from: u64,
    ) -> impl Iterator<Item = Sourced<u64>> + use<'a> {
        self.log
            .range(log_key(space, lane, from)..=log_key(space, lane, u64::MAX))
            .map(|(key, entry)| Ok((lsn_of(key), entry.clone())))
    }

    /// The changes to the log within bounds, by key.
    pub(crate) fn log_within<'a>(
        &'a self,
        bounds: (Bound<&LogKey>, Bound<&LogKey>),
    ) -> impl Iterator<Item = Sourced<LogKey>> + use<'a> {
        self.log.range::<LogKey, _>(bounds).map(|(key, entry)| Ok((*key, entry.clone())))
    }

    /// Every change to the state, by key.
    pub(crate) fn puts(&self) -> impl Iterator<Item = (&[u8], Option<&[u8]>)> {
        self.state.iter().map(|(key, value)| (key.as_slice(), value.as_deref()))
    }

    /// Every change to the log, by key: the entry, or `None` where it is dropped.
    pub(crate) fn log(&self) -> impl Iterator<Item = (&LogKey, Option<&[u8]>)> {
        self.log.iter().map(|(key, entry)| (key, entry.as_deref()))
    }

    /// Every entry, in the order of the commits.
    pub(crate) fn entries(&self) -> impl Iterator<Item = (&LogKey, &[u8])> {
        self.order.iter().filter_map(|key| Some((key, self.log[key].as_deref()?)))
    }

    /// The entries that are dropped, by key.
    pub(crate) fn dropped(&self) -> impl Iterator<Item = &LogKey> {
        self.log.iter().filter(|(_, entry)| entry.is_none()).map(|(key, _)| key)
    }
}

/// The numbers of a span's entries.
pub(crate) fn lsns(span: &LaneSpan) -> impl Iterator<Item = u64> + use<> {
    let first = span.first;
    (0..span.count).map_while(move |later| first.checked_add(later))
}

/// About how much memory a batch will take in a layer.
pub(crate) fn batch_bytes(batch: &Batch) -> usize {
    let entries = batch.entries.iter().map(|entry| entry_bytes(entry.bytes.len()));
    let dropped = batch.dropped.iter().map(|span| entry_bytes(0).saturating_mul(span.count as usize));
    let puts = batch.facts.iter().chain(&batch.state);
    dropped.sum::<usize>()
        + entries.sum::<usize>()
        + puts.map(|(key, value)| put_bytes(key.len(), value.as_deref())).sum::<usize>()
}

fn entry_bytes(len: usize) -> usize {
    ROW_BYTES + 2 * size_of::<LogKey>() + len
}

fn put_bytes(key_len: usize, value: Option<&[u8]>) -> usize {
    ROW_BYTES + key_len + value.map_or(0, <[u8]>::len)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replacing_a_row_counts_only_the_row_that_is_there() {
        let put = |value: Option<&[u8]>| Batch {
            state: vec![(b"key".to_vec(), value.map(<[u8]>::to_vec))],
            ..Batch::default()
        };
        let mut layer = Layer::default();
        layer.apply(put(Some(&[0; 1000])));
        layer.apply(put(Some(&[0; 10])));
        assert_eq!(layer.bytes(), batch_bytes(&put(Some(&[0; 10]))));
        layer.apply(put(None));
        assert_eq!(layer.bytes(), batch_bytes(&put(None)));
        assert_eq!((layer.row_count(), layer.get(b"key")), (1, Some(None)));
    }

    #[test]
    fn the_first_batch_leaves_what_it_would_leave_after_others() {
        let put = |value: &[u8]| (b"key".to_vec(), Some(value.to_vec()));
        let batch = Batch {
            facts: vec![put(b"fact"), (b"fact".to_vec(), Some(b"1".to_vec()))],
            state: vec![put(b"state"), (b"a".to_vec(), None)],
            ..Batch::default()
        };
        let (mut first, mut later) = (Layer::default(), Layer::default());
        later.apply(Batch { state: vec![(b"other".to_vec(), None)], ..Batch::default() });
        first.apply(batch.clone());
        later.apply(batch);
        assert_eq!(first.get(b"key"), Some(Some(b"state".to_vec())));
        let rows = |layer: &Layer| -> Vec<_> {
            let rows = layer.puts().filter(|(key, _)| *key != b"other");
            rows.map(|(key, value)| (key.to_vec(), value.map(<[u8]>::to_vec))).collect()
        };
        assert_eq!(rows(&first), rows(&later));
        assert_eq!(first.bytes() + put_bytes(5, None), later.bytes());
    }
}
