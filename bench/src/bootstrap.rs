//! A replica that takes over a large state: how long that takes, over QUIC beside a bare stream, and interrupted on the way.

mod quic;

use std::time::{Duration, Instant};

use comity_crdts::{Kind, ObjectAddress, SpaceId, Value};
use comity_engine::{BootstrapPhase, Retention, SpaceStatus};

use crate::figures::{REPEATS, Samples};
use crate::options::Options;
use crate::plot::Plot;
use crate::replicas::Replicas;
use crate::report::{Bound, Cell, Promise, Report, Table, group};
use crate::table::mib;
use crate::{Failure, Verdict};

/// Objects written in one transaction.
const OBJECTS_AT_ONCE: u64 = 512;
/// Long enough for everything that is due.
const PASS: Duration = Duration::from_secs(30);
/// Rows that a new replica takes over, at least: MB a second.
const RATE: f64 = 100.0;

const ABOUT: &str = "A space whose log was let go of, with a million registers of 1 KiB, so a new replica takes over its state: it receives \
    the rows, makes them durable and checks them, and then puts them in the place of its own. Over QUIC on the loopback, in one process, \
    with the bytes of the rows on a bare QUIC stream beside it; and with both cores in one thread, cut off three times on the way, \
    where reading, packing, unpacking, staging, checking, installing and every sync add up.";

/// Measures. Options: `--n` objects, 1,000,000, of `--bytes` each, 1,024; `--repeats`, 5; `--interruptions`, 3; `--out`, a folder.
pub(crate) fn run(options: &Options) -> Result<Verdict, Failure> {
    let (count, bytes) = (options.value("n", 1_000_000)?, options.value("bytes", 1_024)?);
    let (repeats, interruptions) = (options.value("repeats", REPEATS)?, options.value("interruptions", 3)?);
    let out: String = options.value("out", String::new())?;
    let mut report = Report::begin("bootstrap", ABOUT);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let taken = runtime.block_on(quic::take_over(count, bytes, repeats.max(1)))?;
    drop(runtime);
    tell(&mut report, &taken);
    let (outcome, broken) = in_one_thread(count, bytes, interruptions)?;
    report.tables.push(outcome.table());
    let mut verdict = Verdict { broken: report.finish(&out)? };
    verdict.broken.extend(broken);
    Ok(verdict)
}

fn tell(report: &mut Report, taken: &quic::Taken) {
    let title = format!("{} MiB of rows, over QUIC:", mib(taken.bytes));
    let mut table = Table::new(&title, "until", &[("MB/s", ""), ("part of the stream", "")]);
    let stream = &taken.stream;
    table.row("the last byte on a bare stream", [stream.clone().into(), Cell::Text("1".to_owned())]);
    let rows = [("received, durable and checked", &taken.received), ("shown", &taken.shown)];
    for (name, rate) in rows {
        table.row(name, [rate.clone().into(), rate.over(stream).into()]);
    }
    report.tables.push(table);
    report.promises.push(Promise {
        about: "rows of a state, until the new replica shows them, MB/s".to_owned(),
        measured: taken.shown.median(),
        bound: Bound::AtLeast(RATE),
    });
    report.plot = Some(Plot {
        title: "Taking over a state".to_owned(),
        unit: "MB/s",
        series: vec!["MB/s".to_owned()],
        groups: vec![
            group("bare QUIC stream", &[stream]),
            group("received", &[&taken.received]),
            group("shown", &[&taken.shown]),
        ],
    });
}

/// Both replicas in one thread; and what is not as it must be.
fn in_one_thread(count: u64, bytes: usize, interruptions: u64) -> Result<(Outcome, Vec<String>), Failure> {
    let announce_after = Duration::from_secs(5);
    let retention = Retention { age: Duration::ZERO, bytes_max: u64::MAX, announce_after };
    let mut replicas = Replicas::keeping(2, retention)?;
    let space = replicas.found_alone()?;
    for first in (0..count).step_by(OBJECTS_AT_ONCE as usize) {
        let mut numbers = first..(first + OBJECTS_AT_ONCE).min(count);
        replicas.transact(space, |tx| {
            numbers.try_for_each(|number| {
                let object = ObjectAddress::new(Kind::Register, "measured", &format!("object-{number:08}"))?;
                tx.register_write_at(&object.into(), Value::Text(text(number, bytes)))
            })
        })?;
        replicas.settle()?;
    }
    replicas.pass(PASS)?;
    let outcome = take_over(&mut replicas, space, interruptions)?;
    let (source, receiver) = (status(&mut replicas, 0, space)?, status(&mut replicas, 1, space)?);
    let mut broken = Vec::new();
    if (source.digest, &source.frontier) != (receiver.digest, &receiver.frontier) {
        broken.push("the receiver holds another state than the source".to_owned());
    }
    if outcome.interrupted < interruptions {
        broken.push(format!("it was interrupted {} times only", outcome.interrupted));
    }
    Ok((outcome, broken))
}

struct Outcome {
    interrupted: u64,
    /// Rows, and what was sent, bytes.
    offered: u64,
    sent: u64,
    received: Duration,
    shown: Duration,
}

impl Outcome {
    fn table(&self) -> Table {
        let title = format!("In one thread, interrupted {} times:", self.interrupted);
        let mut table = Table::new(&title, "", &[("", "")]);
        let rate = |time: Duration| Samples(vec![self.offered as f64 / 1e6 / time.as_secs_f64()]);
        table.row("rows, MiB", [Cell::Text(mib(self.offered))]);
        table.row("sent, MiB", [Cell::Text(mib(self.sent))]);
        table.row("received, durable and checked, MB/s", [rate(self.received).into()]);
        table.row("shown, MB/s", [rate(self.shown).into()]);
        let memory = peak_memory().map_or("unknown".to_owned(), mib);
        table.row("most memory that the process has had, MiB", [Cell::Text(memory)]);
        table
    }
}

/// Lets the second replica in and has it take over the state.
fn take_over(replicas: &mut Replicas, space: SpaceId, interruptions: u64) -> Result<Outcome, Failure> {
    let begun = Instant::now();
    replicas.join(space)?;
    let (mut interrupted, mut offered, mut received) = (0, 0, Duration::ZERO);
    let mut installing = None;
    while interrupted <= interruptions {
        let part = interrupted + 1;
        replicas.pass_until(PASS, |replicas| {
            let bootstrap = of(&replicas.all[1].engine.status().spaces, space)
                .and_then(|status| status.bootstrap.clone());
            let Some(bootstrap) = bootstrap else { return false };
            if bootstrap.phase == BootstrapPhase::Installing && installing.is_none() {
                installing = Some(begun.elapsed());
            }
            offered = bootstrap.bytes_total.max(offered);
            bootstrap.rows_total > 0
                && part <= interruptions
                && bootstrap.rows * (interruptions + 1) >= bootstrap.rows_total * part
        })?;
        if interrupted < interruptions {
            replicas.reconnect()?;
        }
        interrupted += 1;
    }
    interrupted -= 1;
    received = received.max(installing.unwrap_or_default());
    let all = begun.elapsed();
    let sent = replicas.sent_bytes;
    Ok(Outcome { interrupted, offered, sent, received, shown: all })
}

fn of(spaces: &[SpaceStatus], space: SpaceId) -> Option<&SpaceStatus> {
    spaces.iter().find(|status| status.space == space)
}

fn status(replicas: &mut Replicas, index: usize, space: SpaceId) -> Result<SpaceStatus, Failure> {
    let status = replicas.status(index)?;
    of(&status.spaces, space).cloned().ok_or_else(|| "the space is gone".into())
}

/// Text of so many bytes, of which packing saves about half.
fn text(number: u64, bytes: usize) -> String {
    let mut text = String::with_capacity(bytes + 16);
    let mut state = number;
    while text.len() < bytes {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        text.push_str(&format!("{state:016x}"));
    }
    text.truncate(bytes);
    text
}

/// The most memory that this process had at once.
fn peak_memory() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM"))?;
    let kib: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kib * 1024)
}
