//! What removing leaves behind, where logs are kept no longer than they must be: elements are inserted and removed
//! again, and the bytes of the state, of the log of record and of the file are compared at every stage.

use std::time::{Duration, Instant};

use comity_crdts::{Kind, ObjectAddress, SpaceId, Value};
use comity_engine::{Location, Retention, StateRead, Store, Tx, TxError, frontier, lane_floor};

use crate::options::Options;
use crate::replicas::{Replica, Replicas};
use crate::table::{self, mib};
use crate::{Failure, Verdict};

/// Rows read at a time.
const PAGE_ROWS: usize = 10_000;
/// What may stay of the objects' state, whatever was removed: the announcements of the two writers.
const STAYS_BYTES_MAX: u64 = 1_024;
/// What the file may have when it is compact again: redb's own smallest is near a megabyte.
const FILE_BYTES_MAX: u64 = 2 * 1024 * 1024;
/// Long enough for both to announce and for everything to be forgotten.
const CUT_AFTER: Duration = Duration::from_secs(30);

struct Case {
    name: &'static str,
    kind: Kind,
    insert: fn(&mut Tx<'_>, &ObjectAddress, u64) -> Result<(), TxError>,
    remove: fn(&mut Tx<'_>, &ObjectAddress, u64) -> Result<(), TxError>,
}

const CASES: [Case; 3] = [
    Case {
        name: "add-wins set",
        kind: Kind::Set,
        insert: |tx, object, number| tx.set_add_at(&object.clone().into(), element(number)),
        remove: |tx, object, number| tx.set_remove_at(&object.clone().into(), element(number)),
    },
    Case {
        name: "remove-wins set",
        kind: Kind::RwSet,
        insert: |tx, object, number| tx.rw_set_add_at(&object.clone().into(), element(number)),
        remove: |tx, object, number| tx.rw_set_remove_at(&object.clone().into(), element(number)),
    },
    Case {
        name: "map of registers",
        kind: Kind::Map,
        insert: |tx, object, number| tx.register_write_at(&field(object, number), Value::I64(number as i64)),
        remove: |tx, object, number| tx.remove_at(&field(object, number)),
    },
];

fn element(number: u64) -> Value {
    Value::Text(format!("element-{number:08}"))
}

fn field(object: &ObjectAddress, number: u64) -> Location {
    Location { object: object.clone(), path: vec![format!("key-{number:08}")] }
}

/// Bytes, with keys.
#[derive(Clone, Copy, Default)]
struct Bytes {
    /// Of everything that says what objects hold.
    objects: u64,
    /// Of the order in which entries were applied: a row for each.
    apply_log: u64,
    /// Of everything else: keys, spaces, lanes, signatures, announcements.
    others: u64,
    /// Of the lane entries.
    entries: u64,
    /// The file's length.
    file: u64,
    /// What the file takes on the disk.
    disk: u64,
}

/// Prints what stays. Options: `--n` elements, 1,000,000; `--batch` of them in a transaction, 4,096.
pub(crate) fn run(options: &Options) -> Result<Verdict, Failure> {
    let (count, batch) = (options.value("n", 1_000_000)?, options.value("batch", 4_096)?);
    if batch == 0 {
        return Err("--batch 0: a transaction holds an element".into());
    }
    println!();
    println!("{count} elements, {batch} in a transaction, two connected replicas; MiB at the first one");
    let mut verdict = Verdict::default();
    for case in &CASES {
        let begun = Instant::now();
        let (rows, broken) = measure(case, count, batch)?;
        let heads = [
            case.name,
            "objects",
            "apply log",
            "other state",
            "lane entries",
            "file: length",
            "on the disk",
            "seconds",
        ];
        table::print(&heads, &rows);
        println!("{}: {:.0} s in all", case.name, begun.elapsed().as_secs_f64());
        verdict.broken.extend(broken);
    }
    Ok(verdict)
}

fn measure(case: &Case, count: u64, batch: u64) -> Result<(Vec<Vec<String>>, Vec<String>), Failure> {
    let announce_after = Duration::from_secs(5);
    let retention = Retention { age: Duration::ZERO, bytes_max: u64::MAX, announce_after };
    let mut replicas = Replicas::keeping(2, retention)?;
    let space = replicas.found()?;
    replicas.pass(CUT_AFTER)?;
    let object = ObjectAddress::new(case.kind, "measured", "object")?;
    let mut stages = Vec::new();
    let mut stage = |name, replicas: &Replicas, begun: Instant| -> Result<Bytes, Failure> {
        let seconds = begun.elapsed().as_secs_f64();
        let bytes = Bytes::of(&replicas.all[0], &space)?;
        stages.push(bytes.row(name, seconds));
        Ok(bytes)
    };
    let baseline = stage("before", &replicas, Instant::now())?;
    for (name, change) in [("inserted", case.insert), ("removed", case.remove)] {
        let begun = Instant::now();
        for first in (0..count).step_by(usize::try_from(batch)?) {
            let mut numbers = first..(first + batch).min(count);
            replicas.transact(space, |tx| numbers.try_for_each(|number| change(tx, &object, number)))?;
            replicas.settle()?;
        }
        stage(name, &replicas, begun)?;
    }
    let begun = Instant::now();
    replicas.pass(CUT_AFTER)?;
    let cut = stage("after the cut", &replicas, begun)?;
    let begun = Instant::now();
    let mut longest = Duration::ZERO;
    let report = loop {
        let step = Instant::now();
        let done = replicas.all[0].syncer.compact_step()?;
        longest = longest.max(step.elapsed());
        if let Some(report) = done {
            break report;
        }
    };
    let compacted = stage("compacted", &replicas, begun)?;
    println!();
    println!(
        "{}: objects hold {} bytes before and {} after the cut; compacting: {} bytes in {} rows live, longest step {:.0} ms",
        case.name,
        baseline.objects,
        cut.objects,
        report.live_bytes,
        report.live_rows,
        longest.as_secs_f64() * 1e3
    );
    let mut broken = check(case, &baseline, &cut);
    if compacted.file > FILE_BYTES_MAX {
        broken.push(format!("{}: the file has {} bytes after compacting", case.name, compacted.file));
    }
    let stored = compacted.objects + compacted.apply_log + compacted.others + compacted.entries;
    if report.live_bytes < stored {
        broken.push(format!("{}: {stored} bytes are stored and {} reported", case.name, report.live_bytes));
    }
    let peer = Bytes::of(&replicas.all[1], &space)?;
    broken.extend(check(case, &baseline, &peer).into_iter().map(|broken| format!("at the second, {broken}")));
    let stalled = replicas.status(0)?.spaces.iter().any(|space| !space.stalled_by.is_empty());
    if stalled {
        broken.push(format!("{}: something is not forgotten", case.name));
    }
    Ok((stages, broken))
}

fn check(case: &Case, baseline: &Bytes, cut: &Bytes) -> Vec<String> {
    let grown = cut.objects.saturating_sub(baseline.objects);
    let mut broken = Vec::new();
    if grown > STAYS_BYTES_MAX {
        broken.push(format!("{}: the state is {grown} bytes larger than before", case.name));
    }
    let kept = |bytes: &Bytes| bytes.entries + bytes.apply_log;
    let grown = kept(cut).saturating_sub(kept(baseline));
    if grown > STAYS_BYTES_MAX {
        broken.push(format!("{}: the log is {grown} bytes larger than before", case.name));
    }
    broken
}

impl Bytes {
    fn of(replica: &Replica, space: &SpaceId) -> Result<Self, Failure> {
        let state = replica.reader.snapshot()?;
        let mut bytes = Self::default();
        let mut from = Vec::new();
        loop {
            let rows = state.scan(&from, &[0xff], PAGE_ROWS)?;
            for (key, value) in &rows {
                let stored = (key.len() + value.len()) as u64;
                match key[0] {
                    // See `docs/storage.md`: the state of objects, and the journal.
                    0x30..=0x35 | 0x37..=0x4f => bytes.objects += stored,
                    0x12 => bytes.apply_log += stored,
                    _ => bytes.others += stored,
                }
            }
            let Some((last, _)) = rows.last() else { break };
            from = [last.as_slice(), &[0]].concat();
        }
        for (lane, last) in frontier(&state, space)?.iter() {
            let mut next = lane_floor(&state, space, &lane)? + 1;
            while next <= last {
                let entries = replica.store.lane_entries(space, &lane, next, 1 << 20)?;
                let Some((lsn, _)) = entries.last() else { break };
                next = lsn + 1;
                // The key is space, lane and number.
                bytes.entries += entries.iter().map(|(_, entry)| entry.len() as u64 + 40).sum::<u64>();
            }
        }
        let file = replica.data_file().metadata()?;
        bytes.file = file.len();
        bytes.disk = blocks(&file).unwrap_or(file.len());
        Ok(bytes)
    }

    fn row(&self, stage: &str, seconds: f64) -> Vec<String> {
        let bytes = [self.objects, self.apply_log, self.others, self.entries, self.file, self.disk];
        let bytes = bytes.into_iter().map(mib);
        [stage.to_owned()].into_iter().chain(bytes).chain([format!("{seconds:.1}")]).collect()
    }
}

#[cfg(unix)]
fn blocks(file: &std::fs::Metadata) -> Option<u64> {
    Some(std::os::unix::fs::MetadataExt::blocks(file) * 512)
}

#[cfg(not(unix))]
fn blocks(_: &std::fs::Metadata) -> Option<u64> {
    None
}
