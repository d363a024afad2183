//! Durable writes at one replica, against a log that is written and synced and nothing else.

use std::path::Path;
use std::time::Duration;

use comity::Space;

use crate::control::{RawLog, Syncs, logged_bytes};
use crate::figures::{REPEATS, Samples, Times};
use crate::load::{CHANGES, COUNTER, Change, ComityWriter, closed_loop, offline};
use crate::machine::cpu_seconds;
use crate::options::Options;
use crate::plot::Plot;
use crate::report::{Bound, Cell, Promise, Report, Table, group};
use crate::{Failure, Verdict};

/// Writers at once.
const WRITERS: [usize; 3] = [1, 16, 128];
/// What durable writes must reach of the raw log's rate, where several wait for one sync.
const PART: f64 = 0.6;
/// How many times a sync a single write may take.
const TIMES_A_SYNC: f64 = 1.5;
/// Changes from which the bytes of one are told.
const SAMPLE_CHANGES: u64 = 200;

const ABOUT: &str = "Writers that each make one change after the other, awaiting the acknowledgement that it is durable. The raw log \
    is a thread that writes what waits as one record into a pre-written file and calls `fdatasync`, with as many bytes for a change \
    as Comity's log has, and clients of the same kind. Medians of alternating repeats, with the lowest and the highest.";

/// What was sampled with so many writers.
#[derive(Clone, Default)]
struct Measured {
    rate: Samples,
    p50: Samples,
    p99: Samples,
    cpu_us: Samples,
}

/// Measures. Options: `--repeats`, 5; `--ms` for each measurement, 500; `--kind`, part of a name; `--out`, a folder.
pub(crate) fn run(options: &Options) -> Result<Verdict, Failure> {
    let (repeats, ms) = (options.value("repeats", REPEATS)?, options.value("ms", 500)?);
    let (kind, out): (String, String) =
        (options.value("kind", String::new())?, options.value("out", String::new())?);
    let mut report = Report::begin("local", ABOUT);
    let changes: Vec<Change> = CHANGES.into_iter().filter(|change| change.name.contains(&kind)).collect();
    if changes.is_empty() {
        return Err(format!("--kind {kind}: no kind is called so").into());
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let measured = runtime.block_on(measure(&changes, repeats.max(1), Duration::from_millis(ms)))?;
    tell(&mut report, &changes, &measured);
    Ok(Verdict { broken: report.finish(&out)? })
}

/// A kind, and the raw log just before or after it: disks change their pace within seconds.
#[derive(Default)]
struct Case {
    ours: Measured,
    raw: Measured,
}

impl Case {
    fn part(&self) -> Samples {
        self.ours.rate.over(&self.raw.rate)
    }
}

/// Of each kind by the number of writers; and the syncs alone.
struct All {
    kinds: Vec<[Case; 3]>,
    sync: Measured,
    bytes: usize,
}

async fn measure(changes: &[Change], repeats: usize, time: Duration) -> Result<All, Failure> {
    let directory = tempfile::tempdir()?;
    let ours = directory.path().join("comity");
    let (replica, space) = offline(&ours).await?;
    let bytes = bytes_of_change(&space, &ours).await?;
    let raw = RawLog::open(directory.path())?;
    let mut syncs = Syncs::open(directory.path())?;
    let kinds = changes.iter().map(|_| Default::default()).collect();
    let mut all = All { kinds, sync: Measured::default(), bytes };
    for repeat in 0..repeats {
        let times = syncs.take(bytes, time / 2)?;
        all.sync.take(0.0, 0.0, &times);
        for (at, writers) in WRITERS.into_iter().enumerate() {
            for (kind, change) in changes.iter().enumerate() {
                let case = &mut all.kinds[kind][at];
                let writer = |writer| ComityWriter::new(&space, *change, writer, repeat);
                // Neither is always the one that finds what the other left behind.
                for raw_turn in [repeat.is_multiple_of(2), !repeat.is_multiple_of(2)] {
                    if raw_turn {
                        case.raw.measure(closed_loop(writers, time, |_| raw.writer(bytes))).await?;
                    } else {
                        case.ours.measure(closed_loop(writers, time, writer)).await?;
                    }
                }
            }
        }
    }
    replica.shutdown().await;
    Ok(all)
}

impl Measured {
    async fn measure(
        &mut self,
        work: impl Future<Output = Result<(f64, Times), Failure>>,
    ) -> Result<(), Failure> {
        let before = cpu_seconds();
        let (rate, times) = work.await?;
        let cpu = cpu_seconds() - before;
        self.take(rate, cpu * 1e6 / times.len().max(1) as f64, &times);
        Ok(())
    }

    fn take(&mut self, rate: f64, cpu_us: f64, times: &Times) {
        self.rate.push(rate);
        self.cpu_us.push(cpu_us);
        self.p50.push(times.percentile_us(50));
        self.p99.push(times.percentile_us(99));
    }
}

/// What the log has for a change when each is synced alone, bytes.
async fn bytes_of_change(space: &Space, directory: &Path) -> Result<usize, Failure> {
    let before = logged_bytes(directory)?;
    for number in 0..SAMPLE_CHANGES {
        (COUNTER.make)(space, "sample", number).await?;
    }
    let logged = logged_bytes(directory)? - before;
    Ok((logged / SAMPLE_CHANGES) as usize)
}

fn tell(report: &mut Report, changes: &[Change], all: &All) {
    for (at, writers) in WRITERS.into_iter().enumerate() {
        let title = match writers {
            1 => "One writer:".to_owned(),
            more => format!("{more} writers at once:"),
        };
        let columns = [
            ("changes", "1/s"),
            ("part of the raw log", ""),
            ("p50", "µs"),
            ("p99", "µs"),
            ("processor", "µs each"),
        ];
        let mut table = Table::new(&title, "change", &columns);
        let cells = |measured: &Measured, part: Cell| -> [Cell; 5] {
            let Measured { rate, p50, p99, cpu_us } = measured.clone();
            [rate.into(), part, p50.into(), p99.into(), cpu_us.into()]
        };
        let name = format!("raw log, {} bytes", all.bytes);
        table.row(name, cells(&raw(all, at), Cell::Text("1".to_owned())));
        if writers == 1 {
            let sync = all.sync.p50.clone();
            let none = || Cell::Text("—".to_owned());
            table
                .row("`fdatasync` alone", [none(), none(), sync.into(), all.sync.p99.clone().into(), none()]);
        }
        for (kind, change) in changes.iter().enumerate() {
            let case = &all.kinds[kind][at];
            table.row(change.name, cells(&case.ours, case.part().into()));
        }
        report.tables.push(table);
        promise(report, changes, all, (at, writers));
    }
    report.plot = Some(plot(changes, all));
}

/// What was measured of the raw log with so many writers, beside all kinds.
fn raw(all: &All, at: usize) -> Measured {
    let mut raw = Measured::default();
    for cases in &all.kinds {
        let Measured { rate, p50, p99, cpu_us } = cases[at].raw.clone();
        raw.rate.0.extend(rate.0);
        raw.p50.0.extend(p50.0);
        raw.p99.0.extend(p99.0);
        raw.cpu_us.0.extend(cpu_us.0);
    }
    raw
}

fn promise(report: &mut Report, changes: &[Change], all: &All, (at, writers): (usize, usize)) {
    for (kind, change) in changes.iter().enumerate() {
        let case = &all.kinds[kind][at];
        let promise = if writers == 1 {
            Promise {
                about: format!("one writer, {}: p50 in syncs", change.name),
                measured: case.ours.p50.over(&all.sync.p50).median(),
                bound: Bound::AtMost(TIMES_A_SYNC),
            }
        } else {
            Promise {
                about: format!("{writers} writers, {}: part of the raw log", change.name),
                measured: case.part().median(),
                bound: Bound::AtLeast(PART),
            }
        };
        report.promises.push(promise);
    }
}

fn plot(changes: &[Change], all: &All) -> Plot {
    let series = WRITERS.map(|writers| format!("{writers} writers")).to_vec();
    let names = std::iter::once("raw log").chain(changes.iter().map(|change| change.name));
    let raw: Vec<Samples> = (0..WRITERS.len()).map(|at| raw(all, at).rate).collect();
    let kinds = all.kinds.iter().map(|cases| cases.iter().map(|case| case.ours.rate.clone()).collect());
    let measured = std::iter::once(raw).chain(kinds);
    let groups = names.zip(measured).map(|(name, bars)| group(name, &bars.iter().collect::<Vec<_>>()));
    Plot { title: "Durable changes".to_owned(), unit: "1/s", series, groups: groups.collect() }
}
