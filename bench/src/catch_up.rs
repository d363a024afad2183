//! What a replica that was away lacks, fetched when it is back.

use std::time::{Duration, Instant};

use crate::figures::{REPEATS, Samples};
use crate::load::{COUNTER, Pair, pipelined};
use crate::machine::cpu_seconds;
use crate::options::Options;
use crate::plot::Plot;
use crate::quic::Quic;
use crate::report::{Bound, Promise, Report, Table, group};
use crate::{Failure, Verdict};

const OBJECTS: u64 = 1_000;
/// What catching up must reach of a bare stream with the same bytes.
const PART_OF_QUIC: f64 = 0.5;
/// Change sets a second that one core must apply.
const RATE: f64 = 150_000.0;
/// From how many missing change sets on the promises are about throughput.
const MANY: u64 = 100_000;

const ABOUT: &str = "A replica goes offline, another one makes so many changes, and the first one comes back. The time is from the \
    moment the connection stands until everything is durable. The limit is a bare QUIC stream with as many bytes as all frames had, in \
    the same repeat. Both replicas share the processor; the processor time is that of both.";

#[derive(Default)]
struct Measured {
    seconds: Samples,
    rate: Samples,
    cpu_us: Samples,
    frame_bytes: Samples,
    quic_seconds: Samples,
    part: Samples,
}

/// Measures. Options: `--repeats`, 5; `--n`, the most missing changes, 1,000,000; `--out`, a folder.
pub(crate) fn run(options: &Options) -> Result<Verdict, Failure> {
    let (repeats, most) = (options.value("repeats", REPEATS)?, options.value("n", 1_000_000)?);
    let out: String = options.value("out", String::new())?;
    let mut report = Report::begin("catchup", ABOUT);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let columns = [
        ("until all is durable", "s"),
        ("change sets", "1/s"),
        ("processor, both ends", "µs each"),
        ("frames", "bytes each"),
        ("bare QUIC stream", "s"),
        ("part of its rate", ""),
    ];
    let mut table = Table::new("Missing counter additions over 1,000 counters:", "missing", &columns);
    let mut groups = Vec::new();
    for count in [1, 1_000, most] {
        let measured = runtime.block_on(measure(repeats.max(1), count))?;
        if count >= MANY {
            promise(&mut report, count, &measured);
        }
        groups.push(group(format!("{count} missing"), &[&measured.rate]));
        let Measured { seconds, rate, cpu_us, frame_bytes, quic_seconds, part } = measured;
        table
            .row(count.to_string(), [seconds, rate, cpu_us, frame_bytes, quic_seconds, part].map(Into::into));
    }
    report.tables.push(table);
    let (title, series) = ("Catching up".to_owned(), vec!["Comity".to_owned()]);
    report.plot = Some(Plot { title, unit: "change sets/s", series, groups });
    Ok(Verdict { broken: report.finish(&out)? })
}

fn promise(report: &mut Report, count: u64, measured: &Measured) {
    report.promises.push(Promise {
        about: format!("{count} missing: part of the bare stream's rate"),
        measured: measured.part.median(),
        bound: Bound::AtLeast(PART_OF_QUIC),
    });
    // What both ends take is more than what applying takes.
    report.promises.push(Promise {
        about: format!("{count} missing: change sets for each second of processor time, both ends"),
        measured: 1e6 / measured.cpu_us.median(),
        bound: Bound::AtLeast(RATE),
    });
}

async fn measure(repeats: usize, count: u64) -> Result<Measured, Failure> {
    let pair = Pair::open().await?;
    let quic = Quic::connect().await?;
    let mut measured = Measured::default();
    pipelined(&pair.written, COUNTER, (OBJECTS, OBJECTS, 0)).await?;
    pair.agree().await?;
    for repeat in 1..=repeats as u64 {
        pair.follower.go_offline().await?;
        while pair.author.connected().contains(&pair.follower.id()) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        pipelined(&pair.written, COUNTER, (count, OBJECTS, repeat * count)).await?;
        pair.follower.go_online();
        pair.follower.wait_connected(pair.author.id(), Duration::from_secs(60)).await?;
        let (cpu, begun) = (cpu_seconds(), Instant::now());
        pair.agree().await?;
        let (seconds, cpu) = (begun.elapsed().as_secs_f64(), cpu_seconds() - cpu);
        let frames = pair.traffic().await?.frames;
        let quic_seconds = quic.transfer(frames.max(1)).await?.as_secs_f64();
        measured.seconds.push(seconds);
        measured.rate.push(count as f64 / seconds);
        measured.cpu_us.push(cpu * 1e6 / count as f64);
        measured.frame_bytes.push(frames as f64 / count as f64);
        measured.quic_seconds.push(quic_seconds);
        measured.part.push(quic_seconds / seconds);
    }
    pair.close().await;
    Ok(measured)
}
