//! Changes from one replica to another on the loopback, durable at both, against what the bytes alone would take.

use std::time::{Duration, Instant};

use crate::control::{RawLog, logged_bytes};
use crate::figures::{REPEATS, Samples};
use crate::load::{CHANGES, COUNTER, Change, IN_FLIGHT, Pair, closed_loop, pipelined};
use crate::machine::cpu_seconds;
use crate::options::Options;
use crate::plot::Plot;
use crate::quic::Quic;
use crate::report::{Bound, Promise, Report, Table, group};
use crate::{Failure, Verdict};

/// Small changes a second that must be reached, on two cores for both ends.
const RATE: f64 = 60_000.0;
/// Objects that the changes go to.
const OBJECTS: u64 = 1_000;

/// Of documents so much less, so that a thousand of them stay within what loaded ones may take in memory: beyond that each is
/// loaded again for every edit, which is another measurement.
const DOCUMENTS_PART: u64 = 5;

const ABOUT: &str = "One replica makes changes, with 1,024 under way at once; another follows over QUIC on the loopback. Both are in one \
    process and sync to the same disk. Changes go to a thousand objects in turn; of documents a fifth as many are made. The time ends when everything is durable at both. Limits of the same repeat: a bare QUIC \
    stream with the same bytes, and the raw log of `local` with 1,024 writers, half its rate because both ends have one.";

#[derive(Default)]
struct Measured {
    rate: Samples,
    cpu_us: Samples,
    frame_bytes: Samples,
    udp_bytes: Samples,
    quic_rate: Samples,
    log_rate: Samples,
}

/// Measures. Options: `--repeats`, 5; `--n` changes, 100,000; `--kind`, part of a name, `counter add` otherwise, `all` for
/// every kind; `--out`, a folder.
pub(crate) fn run(options: &Options) -> Result<Verdict, Failure> {
    let (repeats, count) = (options.value("repeats", REPEATS)?, options.value("n", 100_000)?);
    let (kind, out): (String, String) =
        (options.value("kind", "all".to_owned())?, options.value("out", String::new())?);
    let changes = CHANGES.into_iter().filter(|change| kind == "all" || change.name.contains(&kind));
    let mut report = Report::begin("replicate", ABOUT);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let columns = [
        ("changes", "1/s"),
        ("processor, both ends", "µs each"),
        ("frames", "bytes each"),
        ("UDP, both ways", "bytes each"),
        ("bare QUIC stream", "1/s"),
        ("raw log, halved", "1/s"),
        ("part of the lower", ""),
    ];
    let mut table = Table::new("Durable at both:", "change", &columns);
    let mut groups = Vec::new();
    for change in changes {
        let count = if change.name.starts_with("document") { count / DOCUMENTS_PART } else { count };
        let measured = runtime.block_on(measure(change, repeats.max(1), count))?;
        let limit = lower(&measured.quic_rate, &measured.log_rate);
        let part = measured.rate.over(&limit);
        if change.name == COUNTER.name {
            report.promises.push(Promise {
                about: format!("{}: durable at both, 1/s", change.name),
                measured: measured.rate.median(),
                bound: Bound::AtLeast(RATE),
            });
        }
        groups.push(group(change.name, &[&measured.rate, &measured.log_rate]));
        let Measured { rate, cpu_us, frame_bytes, udp_bytes, quic_rate, log_rate } = measured;
        let cells = [rate, cpu_us, frame_bytes, udp_bytes, quic_rate, log_rate, part];
        table.row(change.name, cells.map(Into::into));
    }
    report.tables.push(table);
    let series = vec!["Comity".to_owned(), "raw log, halved".to_owned()];
    report.plot =
        Some(Plot { title: "Replicated changes, durable at both".to_owned(), unit: "1/s", series, groups });
    Ok(Verdict { broken: report.finish(&out)? })
}

async fn measure(change: Change, repeats: usize, count: u64) -> Result<Measured, Failure> {
    let directory = tempfile::tempdir()?;
    let raw = RawLog::open(directory.path())?;
    let pair = Pair::open().await?;
    let mut measured = Measured::default();
    // Every object is there before the first repeat.
    let logged = logged_bytes(&pair.author_directory())?;
    pipelined(&pair.written, change, (OBJECTS, OBJECTS, 0)).await?;
    pair.agree().await?;
    let logged = ((logged_bytes(&pair.author_directory())? - logged) / OBJECTS) as usize;
    for repeat in 1..=repeats as u64 {
        let (before, cpu, begun) = (pair.traffic().await?, cpu_seconds(), Instant::now());
        pipelined(&pair.written, change, (count, OBJECTS, repeat * count)).await?;
        pair.agree().await?;
        let took = begun.elapsed().as_secs_f64();
        let (traffic, cpu) = (pair.traffic().await?.since(before), cpu_seconds() - cpu);
        let each = |bytes: u64| bytes as f64 / count as f64;
        measured.rate.push(count as f64 / took);
        measured.cpu_us.push(cpu * 1e6 / count as f64);
        measured.frame_bytes.push(each(traffic.frames));
        measured.udp_bytes.push(each(traffic.udp));
        // A connection that nothing is sent on for as long as some kinds take ends by itself.
        let took = Quic::connect().await?.transfer(traffic.frames.max(1)).await?;
        measured.quic_rate.push(count as f64 / took.as_secs_f64());
        let (rate, _) = closed_loop(IN_FLIGHT, Duration::from_millis(500), |_| raw.writer(logged)).await?;
        measured.log_rate.push(rate / 2.0);
    }
    pair.close().await;
    Ok(measured)
}

fn lower(one: &Samples, other: &Samples) -> Samples {
    Samples(one.0.iter().zip(&other.0).map(|(one, other)| one.min(*other)).collect())
}
