//! One row of storage for each element of a set: what an operation takes in sets of different sizes, and how many
//! rows it reads.

use std::cell::Cell;
use std::time::{Duration, Instant};

use comity_crdts::{Kind, LaneId, ObjectAddress, SpaceId, Value};
use comity_engine::{
    Batch, Location, LogRead, Position, Row, StateRead, Store, StoreError, Tx, TxError, set_contains_at,
};
use comity_store::EmbeddedStore;

use crate::options::Options;
use crate::replicas::{Replicas, write_options};
use crate::{Failure, Verdict, table};

/// Elements that one transaction adds while a set is filled.
const FILL_BATCH: u64 = 4_096;
/// Rows that an operation may read, whatever the set's size: the space's, the object's, the element's, and
/// those of the lane.
const ROWS_MAX: u64 = 16;
/// How much longer an operation may take in a set a thousand times as large.
const RATIO_MAX: f64 = 10.0;

/// A store that counts the rows read from it.
struct Counting<'a> {
    store: &'a mut EmbeddedStore,
    rows: Cell<u64>,
}

impl StateRead for Counting<'_> {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.rows.set(self.rows.get() + 1);
        self.store.get(key)
    }

    fn scan(&self, from: &[u8], until: &[u8], limit: usize) -> Result<Vec<Row>, StoreError> {
        let rows = self.store.scan(from, until, limit)?;
        self.rows.set(self.rows.get() + rows.len().max(1) as u64);
        Ok(rows)
    }
}

impl LogRead for Counting<'_> {
    fn lane_entry(&self, space: &SpaceId, lane: &LaneId, lsn: u64) -> Result<Option<Vec<u8>>, StoreError> {
        self.rows.set(self.rows.get() + 1);
        self.store.lane_entry(space, lane, lsn)
    }
}

impl Store for Counting<'_> {
    fn commit(&mut self, batch: Batch) -> Result<Position, StoreError> {
        self.store.commit(batch)
    }

    fn lane_entries(
        &self,
        space: &SpaceId,
        lane: &LaneId,
        from: u64,
        bytes_max: usize,
    ) -> Result<Vec<(u64, Vec<u8>)>, StoreError> {
        let entries = self.store.lane_entries(space, lane, from, bytes_max)?;
        self.rows.set(self.rows.get() + entries.len().max(1) as u64);
        Ok(entries)
    }
}

/// The times of an operation, and the most rows that one of them read.
#[derive(Default)]
struct Measured {
    times: Vec<Duration>,
    rows: u64,
}

impl Measured {
    fn median_us(&mut self) -> f64 {
        self.times.sort_unstable();
        self.times.get(self.times.len() / 2).map_or(0.0, |time| time.as_secs_f64() * 1e6)
    }
}

const OPERATIONS: [&str; 3] = ["add", "contains", "remove"];

/// Prints medians. Options: `--n`, the largest set, 1,000,000; `--repeats` of each operation, 1,000.
pub(crate) fn run(options: &Options) -> Result<Verdict, Failure> {
    let (largest, repeats) = (options.value("n", 1_000_000)?, options.value("repeats", 1_000)?);
    let mut verdict = Verdict::default();
    for (name, kind) in [("add-wins set", Kind::Set), ("remove-wins set", Kind::RwSet)] {
        let mut replicas = Replicas::open(1)?;
        let space = replicas.found()?;
        let object = ObjectAddress::new(kind, "measured", "set")?;
        let (mut filled, mut rows) = (0, Vec::new());
        let mut first: Option<[f64; 3]> = None;
        for size in [1_000, 10_000, 100_000, 1_000_000].into_iter().filter(|size| *size <= largest) {
            fill(&mut replicas, space, &object, filled..size)?;
            filled = size;
            let mut measured = measure(&mut replicas, space, &object, (size, repeats))?;
            let medians = [0, 1, 2].map(|at: usize| measured[at].median_us());
            let first = *first.get_or_insert(medians);
            let mut row = vec![size.to_string()];
            for (at, operation) in OPERATIONS.iter().enumerate() {
                let (ratio, read) = (medians[at] / first[at], measured[at].rows);
                row.push(format!("{:.1}", medians[at]));
                row.push(format!("{ratio:.2}"));
                row.push(read.to_string());
                if read > ROWS_MAX {
                    verdict.broken.push(format!("{name}: {operation} read {read} rows of a set of {size}"));
                }
                if ratio > RATIO_MAX {
                    verdict
                        .broken
                        .push(format!("{name}: {operation} takes {ratio:.1} times as long at {size}"));
                }
            }
            rows.push(row);
        }
        let heads = [
            name,
            "add: µs",
            "ratio",
            "rows read",
            "contains: µs",
            "ratio",
            "rows read",
            "remove: µs",
            "ratio",
            "rows read",
        ];
        table::print(&heads, &rows);
    }
    Ok(verdict)
}

fn element(number: u64) -> Value {
    // Spread over the whole order, so that neighbours in time are not neighbours on disk.
    Value::Text(format!("{:016x}", number.wrapping_mul(0x9e37_79b9_7f4a_7c15)))
}

fn add(tx: &mut Tx<'_>, at: &Location, number: u64) -> Result<(), TxError> {
    match at.object.kind() {
        Kind::RwSet => tx.rw_set_add_at(at, element(number)),
        _ => tx.set_add_at(at, element(number)),
    }
}

fn remove(tx: &mut Tx<'_>, at: &Location, number: u64) -> Result<(), TxError> {
    match at.object.kind() {
        Kind::RwSet => tx.rw_set_remove_at(at, element(number)),
        _ => tx.set_remove_at(at, element(number)),
    }
}

fn fill(
    replicas: &mut Replicas,
    space: SpaceId,
    object: &ObjectAddress,
    numbers: std::ops::Range<u64>,
) -> Result<(), Failure> {
    let at = Location::from(object.clone());
    let mut next = numbers.start;
    while next < numbers.end {
        let mut batch = next..(next + FILL_BATCH).min(numbers.end);
        next = batch.end;
        replicas.transact(space, |tx| batch.try_for_each(|number| add(tx, &at, number)))?;
        replicas.settle()?;
    }
    // Reads are to find everything in the database.
    replicas.all[0].syncer.sync()?;
    Ok(())
}

/// Adds an element that the set lacks, looks for one, and removes that one again, each in a transaction.
fn measure(
    replicas: &mut Replicas,
    space: SpaceId,
    object: &ObjectAddress,
    (size, repeats): (u64, u64),
) -> Result<[Measured; 3], Failure> {
    let at = Location::from(object.clone());
    let mut measured = [Measured::default(), Measured::default(), Measured::default()];
    for repeat in 0..repeats {
        let (fresh, present) = (u64::MAX / 2 + repeat, repeat.wrapping_mul(7_919) % size);
        for (which, slot) in measured.iter_mut().enumerate() {
            let now = replicas.now();
            let replica = &mut replicas.all[0];
            let mut store = Counting { store: &mut replica.store, rows: Cell::new(0) };
            let begun = Instant::now();
            match which {
                0 => replica
                    .engine
                    .transact(&now, space, write_options(), &mut store, |tx| add(tx, &at, fresh))?,
                1 if !set_contains_at(&store, &space, &at, &element(present))? => {
                    return Err("an element is missing".into());
                }
                1 => {}
                _ => replica
                    .engine
                    .transact(&now, space, write_options(), &mut store, |tx| remove(tx, &at, fresh))?,
            }
            slot.times.push(begun.elapsed());
            slot.rows = slot.rows.max(store.rows.get());
            replicas.drain(0)?;
        }
        replicas.settle()?;
    }
    Ok(measured)
}
