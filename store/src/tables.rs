//! The tables of the database, open for writing.

use std::collections::BTreeMap;
use std::ops::Bound;

use redb::{CursorMut, Key, ReadableTable, Table, WriteTransaction};

use crate::format::{LOG, LogKey, STATE};
use crate::layer::Layer;
use crate::log::Change;

/// From so many rows on it pays to look whether they go in together.
const RUN_ROWS_MIN: usize = 4;
/// Of longer values few share a page, and going in together copies them once more.
const RUN_VALUE_BYTES_MAX: usize = 2_048;

/// A place to append rows.
pub(crate) type End<'a, Key> = CursorMut<'a, Key, &'static [u8]>;

/// The tables that groups change.
pub(crate) struct Tables<'transaction> {
    log: Table<'transaction, &'static LogKey, &'static [u8]>,
    state: Table<'transaction, &'static [u8], &'static [u8]>,
}

impl<'transaction> Tables<'transaction> {
    pub(crate) fn open(transaction: &'transaction WriteTransaction) -> Result<Self, redb::Error> {
        Ok(Self { log: transaction.open_table(LOG)?, state: transaction.open_table(STATE)? })
    }

    /// Making the same changes again in the same order changes nothing.
    pub(crate) fn apply(&mut self, change: Change<'_>) -> Result<(), redb::Error> {
        self.replace(change).map(drop)
    }

    /// As [`Tables::apply`]; returns how long the value was that was there before, if one was.
    pub(crate) fn replace(&mut self, change: Change<'_>) -> Result<Option<usize>, redb::Error> {
        let before = match change {
            Change::Entry(key, entry) => self.log.insert(key, entry)?,
            Change::Drop(key) => self.log.remove(&key)?,
            Change::Put(key, Some(value)) => self.state.insert(key, value)?,
            Change::Put(key, None) => self.state.remove(key)?,
        };
        Ok(before.map(|value| value.value().len()))
    }

    /// Brings the tables to what groups leave, the oldest first. O(rows × log n), and much less for rows that are new and
    /// have none between them, as in a log: those fill pages one after the other. A row that several groups change is put
    /// once.
    pub(crate) fn follow(&mut self, layers: &[&Layer]) -> Result<(), redb::Error> {
        put_all(&mut self.log, &net(layers.iter().map(|layer| layer.log())))?;
        put_all(&mut self.state, &net(layers.iter().map(|layer| layer.puts())))
    }

    /// The place after the last entry. Rows that are inserted there in order fill their pages.
    pub(crate) fn log_end(&mut self) -> Result<End<'_, &'static LogKey>, redb::Error> {
        Ok(self.log.upper_bound_mut(Bound::<&LogKey>::Unbounded)?)
    }

    /// As [`Tables::log_end`], of the state.
    pub(crate) fn state_end(&mut self) -> Result<End<'_, &'static [u8]>, redb::Error> {
        Ok(self.state.upper_bound_mut(Bound::<&[u8]>::Unbounded)?)
    }
}

/// The rows of the last of the groups that change each, by key.
fn net<'row, K: Ord>(
    groups: impl ExactSizeIterator<Item = impl Iterator<Item = (K, Option<&'row [u8]>)>>,
) -> Vec<(K, Option<&'row [u8]>)> {
    if groups.len() == 1 {
        return groups.flatten().collect();
    }
    groups.flatten().collect::<BTreeMap<_, _>>().into_iter().collect()
}

/// A row to be put, or deleted, with its key as the table `K` has it.
type Put<'row, K> = (<K as redb::Value>::SelfType<'row>, Option<&'row [u8]>);

/// Puts rows that ascend by key. Where one is new, those after it that lie before the next row that is there go in together.
fn put_all<'row, K: Key>(
    table: &mut Table<'_, K, &'static [u8]>,
    mut rows: &[Put<'row, K>],
) -> Result<(), redb::Error>
where
    K::SelfType<'row>: Copy + AsRef<[u8]>,
{
    while let Some(((key, value), rest)) = rows.split_first() {
        rows = rest;
        let is_new = match value {
            Some(value) => table.insert(*key, *value)?.is_none(),
            None => {
                table.remove(*key)?;
                false
            }
        };
        if !is_new {
            continue;
        }
        let short =
            rows.iter().position(|(_, value)| value.is_none_or(|value| value.len() > RUN_VALUE_BYTES_MAX));
        let short = &rows[..short.unwrap_or(rows.len())];
        if short.len() < RUN_ROWS_MIN {
            continue;
        }
        let run = &short[..rows_before_next(table, *key, short)?];
        if run.len() >= RUN_ROWS_MIN {
            insert_run(table, run)?;
            rows = &rows[run.len()..];
        }
    }
    Ok(())
}

/// How many of the rows at the front come before the row that follows `key` in the table.
fn rows_before_next<'row, K: Key>(
    table: &Table<'_, K, &'static [u8]>,
    key: K::SelfType<'row>,
    rows: &[Put<'row, K>],
) -> Result<usize, redb::Error>
where
    K::SelfType<'row>: Copy + AsRef<[u8]>,
{
    let next = table.range((Bound::Excluded(key), Bound::Unbounded))?.next().transpose()?;
    let Some((next, _)) = next else { return Ok(rows.len()) };
    let next = K::as_bytes(&next.value()).as_ref().to_vec();
    Ok(rows.partition_point(|(key, _)| key.as_ref() < next.as_slice()))
}

/// Inserts rows between two that follow each other.
fn insert_run<'row, K: Key>(
    table: &mut Table<'_, K, &'static [u8]>,
    run: &[Put<'row, K>],
) -> Result<(), redb::Error>
where
    K::SelfType<'row>: Copy,
{
    let Some((first, _)) = run.first() else { return Ok(()) };
    let mut gap = table.lower_bound_mut(Bound::Included(*first))?;
    for (key, value) in run {
        gap.insert_before(*key, value.unwrap_or_default())?;
    }
    Ok(gap.close()?)
}

#[cfg(test)]
mod tests {
    use comity_crdts::{OriginId, SpaceId};
    use comity_engine::{Batch, LaneRecord, LaneSpan};
    use proptest::prelude::*;
    use redb::backends::InMemoryBackend;
    use redb::{Builder, Database, ReadableDatabase};

    use super::*;
    use crate::format::{begin_eventual, log_key};

    type Rows = BTreeMap<Vec<u8>, Vec<u8>>;

    fn follow(database: &Database, batches: &[Batch]) {
        let layer = |batch: &Batch| {
            let mut layer = Layer::default();
            layer.apply(batch.clone());
            layer
        };
        let layers: Vec<_> = batches.iter().map(layer).collect();
        let transaction = begin_eventual(database).unwrap();
        let mut tables = Tables::open(&transaction).unwrap();
        tables.follow(&layers.iter().collect::<Vec<_>>()).unwrap();
        drop(tables);
        transaction.commit().unwrap();
    }

    fn held(database: &Database) -> (Rows, Rows) {
        let transaction = database.begin_read().unwrap();
        let (log, state) = (transaction.open_table(LOG).unwrap(), transaction.open_table(STATE).unwrap());
        let log = log.range::<&LogKey>(..).unwrap().map(|row| row.unwrap());
        let state = state.range::<&[u8]>(..).unwrap().map(|row| row.unwrap());
        (
            log.map(|(key, entry)| (key.value().to_vec(), entry.value().to_vec())).collect(),
            state.map(|(key, value)| (key.value().to_vec(), value.value().to_vec())).collect(),
        )
    }

    fn value() -> impl Strategy<Value = Vec<u8>> {
        (any::<u8>(), prop_oneof![8 => 0..60_usize, 1 => 1_500..3_000_usize])
            .prop_map(|(byte, length)| vec![byte; length])
    }

    /// Changes of rows, of which many follow each other; and entries of two lanes, with how many are dropped.
    fn batch() -> impl Strategy<Value = Batch> {
        let key = (0..3_u8, 0..60_u8).prop_map(|(table, number)| vec![table, number]);
        let put = (key, prop::option::weighted(0.8, value()));
        let entries = (0..2_u8, 1..40_u64, 0..40_u64, value());
        let spans = (0..2_u8, 1..60_u64, 0..20_u64);
        let parts = (
            prop::collection::vec(put, 0..80),
            prop::collection::vec(entries, 0..4),
            prop::collection::vec(spans, 0..2),
        );
        parts.prop_map(|(state, entries, spans)| {
            let (space, lane) = (SpaceId([1; 16]), |number| OriginId([number; 16]));
            let entries = entries.into_iter().flat_map(|(number, first, count, bytes)| {
                let record = move |lsn| LaneRecord { space, lane: lane(number), lsn, bytes: bytes.clone() };
                (first..first + count).map(record)
            });
            let dropped = spans.into_iter().map(|(number, first, count)| LaneSpan {
                space,
                lane: lane(number),
                first,
                count,
            });
            Batch { entries: entries.collect(), dropped: dropped.collect(), facts: Vec::new(), state }
        })
    }

    fn apply(batch: &Batch, (log, state): &mut (Rows, Rows)) {
        for entry in &batch.entries {
            log.insert(log_key(&entry.space, &entry.lane, entry.lsn).to_vec(), entry.bytes.clone());
        }
        for span in &batch.dropped {
            for lsn in span.first..span.first + span.count {
                log.remove(log_key(&span.space, &span.lane, lsn).as_slice());
            }
        }
        for (key, value) in &batch.state {
            match value {
                Some(value) => state.insert(key.clone(), value.clone()),
                None => state.remove(key),
            };
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]

        #[test]
        fn groups_leave_what_their_rows_say_however_these_go_in(
            batches in prop::collection::vec(prop::collection::vec(batch(), 1..4), 1..4)
        ) {
            let database = Builder::new().create_with_backend(InMemoryBackend::new()).unwrap();
            let mut expected = (Rows::new(), Rows::new());
            for batches in batches {
                batches.iter().for_each(|batch| apply(batch, &mut expected));
                follow(&database, &batches);
                prop_assert_eq!(&held(&database), &expected);
            }
        }
    }
}
