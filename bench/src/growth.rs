//! What one more change takes where there are more objects, spaces or replicas already.

use std::time::{Duration, Instant};

use comity::Replica;
use comity_crdts::{Kind, ObjectAddress, SpaceId, Value};
use comity_engine::Location;
use rustix::time::{ClockId, clock_gettime};

use crate::figures::{REPEATS, Samples, Times};
use crate::load::{COUNTER, pipelined};
use crate::options::Options;
use crate::plot::Plot;
use crate::replicas::Replicas;
use crate::report::{Bound, Promise, Report, Table, group};
use crate::{Failure, Verdict};

/// How many times the smallest a change may take where there is most: a logarithm and caches, nothing that grows with it.
const TIMES_MAX: f64 = 4.0;
/// Changes that are measured in each repeat, each in a transaction of its own.
const CHANGES: u64 = 500;
/// Objects written in one transaction when a space is filled.
const AT_ONCE: u64 = 512;
/// Changes that one replica makes for all others.
const SENT: u64 = 2_000;

const ABOUT: &str = "One small change in a transaction of its own, without the sync, at a replica that has so many objects or spaces \
    already; and the processor time that a change takes at each replica, where so many follow one that writes, every one of them a \
    writer too. The first two in one thread with frames handed over in memory, the third over QUIC on the loopback.";

/// Measures. Options: `--repeats`, 5; `--objects`, 1,000,000, `--spaces`, 100,000, `--replicas`, 64, at most; `--out`, a folder.
pub(crate) fn run(options: &Options) -> Result<Verdict, Failure> {
    let repeats = options.value("repeats", REPEATS)?.max(1);
    let objects_max = options.value("objects", 1_000_000)?;
    let spaces_max = options.value("spaces", 100_000)?;
    let replicas_max = options.value("replicas", 64)?;
    let out: String = options.value("out", String::new())?;
    let mut report = Report::begin("growth", ABOUT);
    let mut groups = Vec::new();
    let objects = up_to([1_000, 10_000, 100_000, 1_000_000], objects_max);
    let measured = objects_of(&objects, repeats)?;
    tell(&mut report, &mut groups, ("objects", "µs for a change"), &objects, measured);
    let spaces = up_to([1, 100, 10_000, 100_000], spaces_max);
    let measured = spaces_of(&spaces, repeats)?;
    tell(&mut report, &mut groups, ("spaces", "µs for a change"), &spaces, measured);
    let replicas = up_to([2, 4, 16, 64], replicas_max);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let mut measured = Vec::new();
    for count in &replicas {
        measured.push(runtime.block_on(replicas_of(*count, repeats))?);
    }
    tell(&mut report, &mut groups, ("replicas", "µs for a change at each"), &replicas, measured);
    let series = vec!["median of the repeats".to_owned()];
    report.plot = Some(Plot { title: "One more change".to_owned(), unit: "µs", series, groups });
    Ok(Verdict { broken: report.finish(&out)? })
}

fn up_to(sizes: [u64; 4], most: u64) -> Vec<u64> {
    sizes.into_iter().filter(|size| *size <= most).collect()
}

fn tell(
    report: &mut Report,
    groups: &mut Vec<crate::plot::Group>,
    (head, unit): (&'static str, &'static str),
    sizes: &[u64],
    measured: Vec<Samples>,
) {
    let mut table = Table::new(&format!("By {head}:"), head, &[(unit, ""), ("times the smallest", "")]);
    let smallest = measured.first().cloned().unwrap_or_default();
    for (size, samples) in sizes.iter().zip(measured) {
        let times = samples.median() / smallest.median();
        if Some(size) == sizes.last() {
            report.promises.push(Promise {
                about: format!("{size} {head}: times what {} take", sizes[0]),
                measured: times,
                bound: Bound::AtMost(TIMES_MAX),
            });
        }
        groups.push(group(format!("{size} {head}"), &[&samples]));
        table.row(size.to_string(), [samples.into(), times.into()]);
    }
    report.tables.push(table);
}

fn write(replicas: &mut Replicas, space: SpaceId, number: u64) -> Result<Duration, Failure> {
    let at = Location::from(ObjectAddress::new(Kind::Register, "measured", &format!("{number:08}"))?);
    let value = Value::Text(format!("{number:016x}"));
    let begun = Instant::now();
    replicas.transact(space, |tx| tx.register_write_at(&at, value))?;
    Ok(begun.elapsed())
}

/// The median time of a change in each repeat.
fn medians(
    replicas: &mut Replicas,
    repeats: usize,
    place: impl Fn(u64) -> (SpaceId, u64),
) -> Result<Samples, Failure> {
    let mut samples = Samples::default();
    for repeat in 0..repeats as u64 {
        let mut times = Times::default();
        for number in 0..CHANGES {
            let (space, object) = place((repeat * CHANGES + number).wrapping_mul(0x9e37_79b9));
            times.push(write(replicas, space, object)?);
            replicas.settle()?;
        }
        samples.push(times.percentile_us(50));
    }
    Ok(samples)
}

fn objects_of(sizes: &[u64], repeats: usize) -> Result<Vec<Samples>, Failure> {
    let mut replicas = Replicas::open(1)?;
    let space = replicas.found()?;
    let (mut filled, mut measured) = (0, Vec::new());
    for size in sizes {
        for first in (filled..*size).step_by(AT_ONCE as usize) {
            let mut numbers = first..(first + AT_ONCE).min(*size);
            replicas.transact(space, |tx| {
                numbers.try_for_each(|number| {
                    let object = ObjectAddress::new(Kind::Register, "measured", &format!("{number:08}"))?;
                    tx.register_write_at(&object.into(), Value::Text(format!("{number:016x}")))
                })
            })?;
            replicas.settle()?;
        }
        filled = *size;
        measured.push(medians(&mut replicas, repeats, |number| (space, number % size))?);
    }
    Ok(measured)
}

fn spaces_of(sizes: &[u64], repeats: usize) -> Result<Vec<Samples>, Failure> {
    let mut replicas = Replicas::open(1)?;
    let (mut spaces, mut measured) = (Vec::new(), Vec::new());
    for size in sizes {
        while (spaces.len() as u64) < *size {
            let space = replicas.found_alone()?;
            write(&mut replicas, space, 0)?;
            spaces.push(space);
        }
        replicas.settle()?;
        let place = |number: u64| (spaces[(number % size) as usize], 0);
        measured.push(medians(&mut replicas, repeats, place)?);
    }
    Ok(measured)
}

/// Processor time of a change at each replica, with so many of them, microseconds.
async fn replicas_of(count: u64, repeats: usize) -> Result<Samples, Failure> {
    let directory = tempfile::tempdir()?;
    let writer = Replica::open(directory.path().join("writer")).await?;
    writer.listen("127.0.0.1:0".parse()?).await?;
    let written = writer.create_space("bench").await?;
    let mut followers = Vec::new();
    for number in 1..count {
        let follower = Replica::open(directory.path().join(number.to_string())).await?;
        let followed = follower.connect(&written.invite().await?).await?;
        followed.counter("load", "own").add(1).await?;
        followers.push((follower, followed));
    }
    let mut samples = Samples::default();
    for repeat in 0..=repeats as u64 {
        let cpu = processor_us();
        pipelined(&written, COUNTER, (SENT, 100, repeat * SENT)).await?;
        let token = written.token().await?;
        for (_, followed) in &followers {
            followed.at_within(&token, Duration::from_secs(600)).await?;
        }
        // In the first one everybody still hears of everybody.
        if repeat > 0 {
            samples.push((processor_us() - cpu) / (SENT * count) as f64);
        }
    }
    for (follower, _) in followers {
        follower.shutdown().await;
    }
    writer.shutdown().await;
    Ok(samples)
}

/// Processor time of this process, µs. Two replicas take fewer ticks for their changes than can be told apart.
fn processor_us() -> f64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    time.tv_sec as f64 * 1e6 + time.tv_nsec as f64 / 1e3
}
