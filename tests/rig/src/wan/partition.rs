//! Two regions of two replicas each, which write on both sides of a cut, and what becomes of it when the cut heals.

use std::path::Path;
use std::time::{Duration, Instant};

use comity_path::Conditions;

use crate::error::RigError;
use crate::wan::mesh::{Ways, check_sums, wait_written};
use crate::wan::site::{Site, wait_equal};
use crate::wan::{LOOK_EVERY, Outcome, beside_plain, mib, percentiles};

/// Replicas of each region.
const OF_REGION: usize = 2;
/// A round trip within a region.
const NEAR: Duration = Duration::from_millis(2);
/// A round trip from one to the other.
const FAR: Duration = Duration::from_millis(100);
/// Silence after which a connection is over, and some.
const CUT_SHOWS: Duration = Duration::from_secs(15);
/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(120);

/// How a partition is run.
#[derive(Clone, Copy, Debug)]
pub struct PartitionOptions {
    /// For how long the regions are cut off from each other.
    pub cut: Duration,
    /// Writes of each replica in a second, all the while.
    pub writes: u64,
    /// Bytes of each value.
    pub bytes: usize,
    /// Datagrams lost between the regions, of a million.
    pub loss_ppm: u32,
    /// Most that a median write within a region may take beyond the way there.
    pub median_max: Duration,
    /// How long all may differ once the cut is mended.
    pub converge_max: Duration,
    /// What plain QUIC is given over a path between the regions, to be compared with; 0 for no comparison.
    pub plain_bytes: u64,
}

/// Waits until somebody is connected to the other region; how long after the beginning that was.
fn wait_connected(sites: &mut [Site], started: Instant, within: Duration) -> Result<Duration, RigError> {
    while started.elapsed() < within {
        for site in sites.iter_mut() {
            if site.state()?.is_some_and(|state| state.peers > OF_REGION - 1) {
                return Ok(started.elapsed());
            }
        }
        std::thread::sleep(LOOK_EVERY / 10);
    }
    let what = format!("the regions are not connected within {} s", within.as_secs());
    Err(RigError::Node { node: 0, what })
}

/// Runs a partition below a directory.
///
/// # Errors
/// [`RigError`] when a node fails, or does not come to an end.
pub fn run(options: PartitionOptions, under: &Path) -> Result<Outcome, RigError> {
    let mut outcome = Outcome::default();
    let mut sites: Vec<Site> =
        (0..2 * OF_REGION).map(|node| Site::start(node, under, 50_000)).collect::<Result<_, _>>()?;
    let is_far = |low: usize, high: usize| low / OF_REGION != high / OF_REGION;
    let far = Conditions::after(FAR / 2).losing(options.loss_ppm);
    let ways = Ways::connect(&mut sites, |low, high| match is_far(low, high) {
        true => far,
        false => Conditions::after(NEAR / 2),
    })?;
    for site in &mut sites {
        site.ask("follow")?;
    }
    wait_equal(&mut sites, Instant::now(), PATIENCE)?;
    let cut = |is_cut: bool| {
        ways.iter().filter(|((low, high), _)| is_far(*low, *high)).for_each(|(_, way)| way.cut(is_cut));
    };
    cut(true);
    let every_us = 1_000_000 / options.writes.max(1);
    for site in &mut sites {
        site.ask(&format!("write {} {every_us} {}", options.cut.as_secs(), options.bytes))?;
    }
    if options.cut > CUT_SHOWS {
        for site in &mut sites {
            site.wait(options.cut, "the other region is gone", |state| state.peers == OF_REGION - 1)?;
        }
    }
    let written = wait_written(&mut sites, options.cut + PATIENCE)?;
    // Each region is one by itself.
    for region in sites.chunks_mut(OF_REGION) {
        wait_equal(region, Instant::now(), PATIENCE)?;
    }
    let mut near: Vec<i64> = Vec::new();
    for site in &mut sites {
        let one_way = (NEAR / 2).as_micros() as i64;
        near.extend(
            site.latencies()?
                .into_iter()
                .flat_map(|(_, latencies)| latencies)
                .map(|latency| latency - one_way),
        );
    }
    let crossed = || -> u64 {
        let far = ways.iter().filter(|((low, high), _)| is_far(*low, *high));
        far.map(|(_, way)| way.carried().bytes).sum()
    };
    let before = (ways.bytes(), crossed(), sites.iter_mut().map(Site::peak).max().unwrap_or(0));
    cut(false);
    let mended = Instant::now();
    let connected = wait_connected(&mut sites, mended, options.converge_max)?;
    let converged = wait_equal(&mut sites, mended, options.converge_max)?;
    let (wire, crossed) = (ways.bytes() - before.0, crossed() - before.1);
    check_sums(&mut sites, &written, &mut outcome)?;
    let count: u64 = written.iter().map(|written| written.count).sum();
    let [p50, p99] = percentiles(&mut near, [50, 99]);
    outcome.row("regions cut off from each other", format!("{} s", options.cut.as_secs()));
    outcome.row("writes meanwhile, all acknowledged", format!("{count} of {} bytes", options.bytes));
    outcome.row(
        "visible within the region meanwhile",
        format!("p50 {p50} ms, p99 {p99} ms beyond the way there"),
    );
    outcome.row("connected again after", format!("{:.1} s", connected.as_secs_f64()));
    outcome.row("all equal after", format!("{:.1} s", converged.as_secs_f64()));
    // Every value crosses at least once each way, and goes to the others of the region.
    let others = sites.len() as u64 - OF_REGION as u64;
    let bytes = others * written.iter().map(|written| written.bytes).sum::<u64>();
    let packed = others * written.iter().map(|written| written.packed).sum::<u64>();
    outcome.row("datagram bytes on all paths since", mib(wire));
    // Known to a look, so less than a few of them say nothing.
    let catching_up = converged.saturating_sub(connected).max(LOOK_EVERY);
    let beside = beside_plain((crossed, catching_up), (far, options.plain_bytes))?;
    outcome.row(
        "datagrams between the regions, from their first connection until all are equal",
        format!("{} in {:.1} s: {beside}", mib(crossed), catching_up.as_secs_f64()),
    );
    outcome.row("values, once for each replica that lacked them", mib(bytes));
    outcome.row("the same, compressed as one stream for each writer", mib(packed));
    outcome
        .row("bytes on the wire / compressed values", format!("{:.2}", wire as f64 / packed.max(1) as f64));
    let peak = sites.iter_mut().map(Site::peak).max().unwrap_or(0);
    outcome.row("peak memory of a process, before and after", format!("{}, {}", mib(before.2), mib(peak)));
    let median = near.get(near.len() / 2).copied().unwrap_or(i64::MAX);
    outcome.promise(median <= options.median_max.as_micros() as i64, || {
        format!("half of the writes are visible in their own region {p50} ms after the way there or later")
    });
    Ok(outcome)
}
