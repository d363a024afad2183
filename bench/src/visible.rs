//! How long it takes until another replica shows a change, against what the network and the disk alone would take.

mod far;

use std::time::{Duration, Instant};

use comity::{Space, Watch};

use crate::control::Syncs;
use crate::figures::{REPEATS, Samples, Times};
use crate::load::{COUNTER, Pair, pipelined};
use crate::options::Options;
use crate::plot::Plot;
use crate::quic::Quic;
use crate::report::{Bound, Cell, Promise, Report, Table, group};
use crate::{Failure, Verdict};

/// How many times a round trip and a sync a change may take until it is seen, when nothing else happens.
const TIMES_THE_LIMIT: f64 = 2.0;
/// Bytes of a record in the log for one small change.
const RECORD_BYTES: usize = 512;
/// Changes from which the highest rate is told.
const CALIBRATION: u64 = 50_000;
const OBJECTS: u64 = 100;
/// Time between two changes that are followed, so that nothing of the one before goes on.
const APART: Duration = Duration::from_millis(5);
/// How often the background load goes on.
const TICK: Duration = Duration::from_millis(2);

const ABOUT: &str = "One change at a time at one replica, until a watch at another one, connected over QUIC on the loopback, has \
    delivered it; there it is durable then. With nothing else going on, and while others write at half of the highest rate that was \
    measured before. The limit is a message of 300 bytes and its echo on a bare QUIC stream, and one `fdatasync`, both p50 of the same repeat and, \
    like the changes, with 5 ms before each: a processor and a disk that have rested take longer than in a loop that does nothing else, which is shown as well.";

/// Measures. Options: `--repeats`, 5; `--n` changes in each, 200, and `--far-n`, 50, over long paths; `--out`, a folder.
pub(crate) fn run(options: &Options) -> Result<Verdict, Failure> {
    let (repeats, count) = (options.value("repeats", REPEATS)?.max(1), options.value("n", 200)?);
    let far_count = options.value("far-n", 50)?;
    let out: String = options.value("out", String::new())?;
    let mut report = Report::begin("visible", ABOUT);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let (measured, far) = runtime.block_on(async {
        let directory = tempfile::tempdir()?;
        let mut syncs = Syncs::open(directory.path())?;
        let near = measure(repeats, count, &mut syncs).await?;
        Ok::<_, Failure>((near, far::measure((repeats, far_count), &mut syncs).await?))
    })?;
    let Measured { ping, sync, limit, looped, idle, loaded, rate } = measured;
    let mut table =
        Table::new("Until it is seen:", "", &[("p50", "µs"), ("p99", "µs"), ("p50 over the limit", "")]);
    let none = || Cell::Text("—".to_owned());
    table.row("QUIC echo", [ping[0].clone().into(), ping[1].clone().into(), none()]);
    table.row("`fdatasync`", [sync[0].clone().into(), sync[1].clone().into(), none()]);
    table.row("limit: both", [limit.clone().into(), none(), Cell::Text("1".to_owned())]);
    table.row(
        "both, one after the other without rest",
        [looped.clone().into(), none(), looped.over(&limit).into()],
    );
    table.row("idle", [idle[0].clone().into(), idle[1].clone().into(), idle[0].over(&limit).into()]);
    let name = format!("at half load, {:.0} changes/s", rate / 2.0);
    table.row(name, [loaded[0].clone().into(), loaded[1].clone().into(), loaded[0].over(&limit).into()]);
    report.tables.push(table);
    report.tables.push(far::table(&far));
    for far in far.iter().skip(1) {
        report.promises.push(Promise {
            about: format!("{}: p50 until another replica shows a change, in limits", far.name),
            measured: far.seen.over(&far.limit).median(),
            bound: Bound::AtMost(TIMES_THE_LIMIT),
        });
    }
    report.promises.push(Promise {
        about: "idle: p50 until another replica shows a change, in limits".to_owned(),
        measured: idle[0].over(&limit).median(),
        bound: Bound::AtMost(TIMES_THE_LIMIT),
    });
    report.plot = Some(Plot {
        title: "Until another replica shows a change".to_owned(),
        unit: "µs",
        series: vec!["p50".to_owned(), "p99".to_owned()],
        groups: vec![
            group("limit: QUIC echo, fdatasync", &[&limit]),
            group("idle", &[&idle[0], &idle[1]]),
            group("at half load", &[&loaded[0], &loaded[1]]),
        ],
    });
    Ok(Verdict { broken: report.finish(&out)? })
}

/// p50 and p99 of each repeat, microseconds.
#[derive(Default)]
struct Measured {
    ping: [Samples; 2],
    sync: [Samples; 2],
    limit: Samples,
    /// As the limit, without rest between them.
    looped: Samples,
    idle: [Samples; 2],
    loaded: [Samples; 2],
    /// The highest rate that was measured, changes a second.
    rate: f64,
}

fn take(into: &mut [Samples; 2], times: &Times) {
    into[0].push(times.percentile_us(50));
    into[1].push(times.percentile_us(99));
}

async fn measure(repeats: usize, count: usize, syncs: &mut Syncs) -> Result<Measured, Failure> {
    let pair = Pair::open().await?;
    let quic = Quic::connect().await?;
    let mut measured = Measured::default();
    let begun = Instant::now();
    pipelined(&pair.written, COUNTER, (CALIBRATION, OBJECTS, 0)).await?;
    pair.agree().await?;
    measured.rate = CALIBRATION as f64 / begun.elapsed().as_secs_f64();
    for _ in 0..repeats {
        let (pings, synced) =
            (quic.pings(count, Duration::ZERO).await?, syncs.take(RECORD_BYTES, Duration::from_millis(200))?);
        measured.looped.push(pings.percentile_us(50) + synced.percentile_us(50));
        let (pings, synced) =
            (quic.pings(count, APART).await?, syncs.take_apart(RECORD_BYTES, count, APART)?);
        measured.limit.push(pings.percentile_us(50) + synced.percentile_us(50));
        take(&mut measured.ping, &pings);
        take(&mut measured.sync, &synced);
        take(&mut measured.idle, &seen(&pair, count).await?);
        let background = tokio::spawn(background(pair.written.clone(), measured.rate / 2.0));
        let loaded = seen(&pair, count).await;
        background.abort();
        take(&mut measured.loaded, &loaded?);
        pair.agree().await?;
    }
    pair.close().await;
    Ok(measured)
}

/// Makes changes and waits for each at the other replica.
async fn seen(pair: &Pair, count: usize) -> Result<Times, Failure> {
    let key = "followed";
    let mut watch: Watch = pair.followed.watch().object(comity::Kind::Counter, "followed", key)?;
    let mut times = Times::default();
    for _ in 0..count {
        tokio::time::sleep(APART).await;
        let before = Instant::now();
        let write = pair.written.counter("followed", key).add(1).submit().await?;
        watch.next().await?;
        times.push(before.elapsed());
        write.receipt().await?;
    }
    Ok(times)
}

/// Writes at so many changes a second until it is stopped; what falls behind is caught up with.
async fn background(space: Space, rate: f64) {
    let begun = Instant::now();
    let mut made = 0;
    loop {
        let due = (begun.elapsed().as_secs_f64() * rate) as u64;
        // What pipelining leaves to be acknowledged, the next round catches up with.
        if pipelined(&space, COUNTER, (due - made, OBJECTS, made)).await.is_err() {
            return;
        }
        made = due;
        tokio::time::sleep(TICK).await;
    }
}
