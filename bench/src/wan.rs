//! Long paths: what plain QUIC moves over them, what catching up does, and how long a live change takes meanwhile.

mod idle;
mod pair;
mod several;

use std::time::Duration;

use comity::{Congestion, TransportConfig};
use comity_path::{Conditions, Setup, transfer};

use crate::options::Options;
use crate::{Failure, Verdict, machine, table};
use pair::{Follower, Source};

/// Live writes that are measured at rest.
const IDLE_WRITES: u32 = 50;
/// Of the path of which the bounds are told.
const BOUND_RTT_MS: u64 = 100;
const BOUND_LOSS_PERCENT: f64 = 1.0;
/// What catching up moves over it at least, MiB/s.
const CATCH_UP_MIN: f64 = 20.0;

/// A path as it is named on the command line: `rtt:loss` in milliseconds and percent.
#[derive(Clone, Copy, Debug)]
struct Line {
    rtt_ms: u64,
    loss_percent: f64,
    rate_mib: f64,
}

impl Line {
    fn conditions(self) -> Conditions {
        let rate = (self.rate_mib > 0.0).then_some((self.rate_mib * f64::from(1 << 20)) as u64);
        Conditions::after(self.one_way()).losing((self.loss_percent * 10_000.0) as u32).at_rate(rate)
    }

    fn one_way(self) -> Duration {
        Duration::from_micros(self.rtt_ms * 500)
    }

    fn cells(self) -> Vec<String> {
        vec![format!("{} ms", self.rtt_ms), format!("{} %", self.loss_percent)]
    }

    fn is_bound(self) -> bool {
        self.rtt_ms == BOUND_RTT_MS && self.loss_percent == BOUND_LOSS_PERCENT
    }
}

fn lines(text: &str, rate_mib: f64) -> Result<Vec<Line>, Failure> {
    let line = |word: &str| {
        let (rtt, loss) = word.split_once(':').ok_or_else(|| format!("{word} is no rtt:loss"))?;
        Ok(Line { rtt_ms: rtt.parse()?, loss_percent: loss.parse()?, rate_mib })
    };
    text.split(',').map(line).collect()
}

fn mib_per_second(bytes: u64, took: Duration) -> f64 {
    bytes as f64 / f64::from(1 << 20) / took.as_secs_f64()
}

pub(crate) fn run(options: &Options) -> Result<Verdict, Failure> {
    let rate_mib = options.value("rate", 0.0)?;
    let paths = options.value("paths", "0:0,20:0,20:1,100:0,100:1,250:0,250:1".to_owned())?;
    let lines = lines(&paths, rate_mib)?;
    let bytes = options.value("mib", 256_u64)? << 20;
    let seconds = Duration::from_secs_f64(options.value("seconds", 10.0)?);
    let changes = options.value("changes", 100_000_u64)?;
    let parts = options.value("parts", "idle,raw,comity,several".to_owned())?;
    let congestion = match options.value("congestion", "default".to_owned())?.as_str() {
        "bbr" => Congestion::Bbr,
        "cubic" => Congestion::Cubic,
        _ => TransportConfig::default().congestion,
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let mut verdict = Verdict::default();
    if parts.contains("idle") {
        let count = options.value("connections", 1_000)?;
        let bytes = runtime.block_on(idle::bytes_each(count))?;
        println!(
            "\nAn idle connection with its three streams each way: {:.1} KiB on each side.",
            bytes as f64 / 1_024.0
        );
    }
    if parts.contains("raw") {
        let (stream, all) = windows();
        let ours = (options.value("stream-window", stream)?, options.value("connection-window", all)?);
        runtime.block_on(raw(&lines, ours, (bytes, seconds)))?;
    }
    if parts.contains("comity") {
        runtime.block_on(comity(&lines, (bytes, seconds), changes, congestion, &mut verdict))?;
    }
    if parts.contains("several") {
        let uplink = options.value("uplink", 4.0)?;
        let repeats = options.value("repeats", 3)?;
        runtime.block_on(several(uplink, bytes.min(64 << 20), (congestion, repeats)))?;
    }
    Ok(verdict)
}

/// Catching up from one replica and from three, each of which sends so many MiB/s.
async fn several(uplink: f64, bytes: u64, (congestion, repeats): (Congestion, usize)) -> Result<(), Failure> {
    let source = Source::open(congestion).await?;
    let space = source.single(bytes / 1_024).await?;
    let mut rows = Vec::new();
    for rtt_ms in [0, 50] {
        let line = Line { rtt_ms, loss_percent: 0.0, rate_mib: uplink };
        let (mut alone, mut together) =
            several::measure(&source, &space, line.conditions(), (congestion, 2, repeats)).await?;
        let rate = |took: &mut Vec<Duration>| {
            took.sort_unstable();
            mib_per_second(bytes, took[took.len() / 2])
        };
        let (one, three) = (rate(&mut alone), rate(&mut together));
        let shown = [uplink, one, three].map(|rate| format!("{rate:.1}"));
        rows.push(
            [vec![format!("{rtt_ms} ms")], shown.to_vec(), vec![format!("{:.2}", three / one)]].concat(),
        );
    }
    source.shutdown().await;
    println!(
        "\nCatching up, change sets of 1 KiB; what each sends at most, what arrives of one and of three, MiB/s:"
    );
    table::print(&["round trip", "one sends", "of one", "of three", "ratio"], &rows);
    Ok(())
}

/// The windows that replicas have: of one stream, and of all.
fn windows() -> (usize, usize) {
    let config = TransportConfig::default();
    (config.stream_window_bytes, config.connection_window_bytes)
}

/// A connection with the buffers in the kernel that replicas have.
fn setup(is_bbr: bool, windows: Option<(usize, usize)>) -> Setup {
    Setup { is_bbr, windows, socket_bytes: TransportConfig::default().socket_bytes }
}

async fn raw(lines: &[Line], ours: (usize, usize), limits: (u64, Duration)) -> Result<(), Failure> {
    let setups = [setup(false, None), setup(false, Some(ours)), setup(true, None), setup(true, Some(ours))];
    let mut rows = Vec::new();
    for line in lines {
        let mut row = line.cells();
        for setup in setups {
            row.push(format!("{:.1}", transfer(line.conditions(), setup, limits).await?.rate()));
        }
        rows.push(row);
    }
    println!("\nPlain QUIC, MiB/s:");
    let heads =
        ["round trip", "loss", "cubic, quinn's windows", "cubic, ours", "BBR, quinn's windows", "BBR, ours"];
    table::print(&heads, &rows);
    Ok(())
}

async fn comity(
    lines: &[Line],
    limits: (u64, Duration),
    changes: u64,
    congestion: Congestion,
    verdict: &mut Verdict,
) -> Result<(), Failure> {
    let source = Source::open(congestion).await?;
    let large = source.large(limits.0).await?;
    let small = source.small(changes).await?;
    let (mut moved, mut waited) = (Vec::new(), Vec::new());
    for line in lines {
        let setup = setup(congestion == Congestion::Bbr, Some(windows()));
        let plain = transfer(line.conditions(), setup, limits).await?.rate();
        let mut follower = Follower::join(&source, line.conditions(), congestion).await?;
        let idle = follower.idle(&source, IDLE_WRITES).await?;
        let before = follower.traffic().await?;
        let (cpu, syncs) = (machine::cpu_seconds(), follower.syncs());
        let took = follower.catch_up(&large).await?;
        let (cpu, synced) = (machine::cpu_seconds() - cpu, follower.syncs());
        let (count, syncing) = (synced.0 - syncs.0, synced.1 - syncs.1);
        let after = follower.traffic().await?;
        let caught_up = mib_per_second(limits.0, took);
        let wire = after.udp_bytes_received - before.udp_bytes_received;
        let took_small = follower.catch_up(&small).await?;
        follower.shutdown().await;
        // Another one, of which live changes are looked at while it catches up.
        let mut follower = Follower::join(&source, line.conditions(), congestion).await?;
        let busy = follower.busy(&source, &large).await?;
        follower.shutdown().await;
        moved.push(
            [
                line.cells(),
                vec![
                    format!("{plain:.1}"),
                    format!("{caught_up:.1}"),
                    format!("{:.2}", caught_up / plain),
                    format!("{:.3}", wire as f64 / limits.0 as f64),
                    format!("{:.1}", cpu * f64::from(1 << 30) / limits.0 as f64),
                    format!("{:.0} %", 100.0 * syncing.as_secs_f64() / took.as_secs_f64()),
                    format!("{:.1}", 1_000.0 * syncing.as_secs_f64() / count.max(1) as f64),
                    format!("{:.0}", changes as f64 / took_small.as_secs_f64()),
                ],
            ]
            .concat(),
        );
        waited.push(
            [
                line.cells(),
                quantiles(&idle, line.one_way()),
                quantiles(&busy, line.one_way()),
                vec![busy.len().to_string()],
            ]
            .concat(),
        );
        if line.is_bound() && caught_up < CATCH_UP_MIN {
            verdict.broken.push(format!("catching up moves {caught_up:.1} MiB/s, not {CATCH_UP_MIN}"));
        }
    }
    source.shutdown().await;
    println!("\nCatching up, values that nothing makes shorter:");
    let heads = [
        "round trip",
        "loss",
        "plain QUIC, MiB/s",
        "catching up, MiB/s",
        "part",
        "bytes received / values",
        "CPU s/GiB, both",
        "syncing",
        "ms each",
        "small changes/s",
    ];
    table::print(&heads, &moved);
    println!("Live changes: time until visible, less the way there, ms:");
    let heads = ["round trip", "loss", "idle p50", "p99", "catching up p50", "p99", "writes"];
    table::print(&heads, &waited);
    Ok(())
}

/// The median and the 99th percentile, less the way there, in milliseconds.
fn quantiles(latencies: &[Duration], one_way: Duration) -> Vec<String> {
    let mut ascending = latencies.to_vec();
    ascending.sort_unstable();
    let at = |percent: usize| ascending.get(ascending.len().saturating_sub(1) * percent / 100).copied();
    [50, 99]
        .map(|percent| {
            at(percent).map_or("—".to_owned(), |latency| {
                format!("{:.1}", (latency.as_secs_f64() - one_way.as_secs_f64()) * 1_000.0)
            })
        })
        .to_vec()
}
