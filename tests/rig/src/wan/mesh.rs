//! Five replicas, each connected to every other over the distance between two real regions, all of them writing.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use comity_path::{Conditions, Path as Way};

use crate::error::RigError;
use crate::wan::site::{Site, Written, wait_equal};
use crate::wan::{LOOK_EVERY, Outcome, mib, percentiles};

/// Round trips between regions, milliseconds: medians of a month, from "Azure network round-trip latency statistics"
/// (Microsoft, 2023-07-21, `learn.microsoft.com/azure/networking/azure-network-latency`).
pub const ROUND_TRIPS_MS: [[u64; 5]; 5] = [
    [0, 83, 130, 232, 222],
    [83, 0, 64, 154, 175],
    [130, 64, 0, 98, 116],
    [232, 154, 98, 0, 20],
    [222, 175, 116, 20, 0],
];
/// The regions, in that order.
pub const REGIONS: [&str; 5] = ["North Europe", "Canada Central", "West US 2", "Japan East", "Korea South"];

/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(120);

/// How a mesh is run.
#[derive(Clone, Copy, Debug)]
pub struct MeshOptions {
    /// For how long every replica writes.
    pub seconds: u64,
    /// Writes of each replica in a second.
    pub writes: u64,
    /// Bytes of each value.
    pub bytes: usize,
    /// Datagrams lost, of a million.
    pub loss_ppm: u32,
    /// Most that the median may be above the way there.
    pub median_max: Duration,
}

/// The ways between sites, by the lower and the higher number.
pub(crate) struct Ways(BTreeMap<(usize, usize), Way>);

impl Ways {
    /// A way between each two sites, over which the higher dials the lower; all of them in one space, which the first
    /// founded, and everybody connected to everybody.
    pub(crate) fn connect(
        sites: &mut [Site],
        conditions: impl Fn(usize, usize) -> Conditions,
    ) -> Result<Self, RigError> {
        let mut ways = BTreeMap::new();
        for (low, site) in sites.iter().enumerate() {
            for high in low + 1..sites.len() {
                let seed = (low * sites.len() + high) as u64;
                let way =
                    Way::to(site.addr(), conditions(low, high), seed).map_err(RigError::io("a path"))?;
                ways.insert((low, high), way);
            }
        }
        sites[0].ask("found")?;
        for high in 1..sites.len() {
            for low in 0..high {
                let ticket = sites[low].ticket(ways[&(low, high)].near(), low == 0)?;
                sites[high].ask(&format!("connect {ticket}"))?;
                if low == 0 {
                    // Only a member is let in by the others.
                    sites[high].wait(PATIENCE, "it is a member", |state| state.members == high + 1)?;
                }
            }
            let (members, peers) = (high + 1, high);
            for site in &mut sites[..=high] {
                site.wait(PATIENCE, "all are connected", |state| {
                    state.members == members && state.peers == peers
                })?;
            }
        }
        Ok(Self(ways))
    }

    /// Bytes that arrived over all of them, both ways.
    pub(crate) fn bytes(&self) -> u64 {
        self.0.values().map(|way| way.carried().bytes).sum()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&(usize, usize), &Way)> {
        self.0.iter()
    }
}

/// Waits until all have written what they were to write.
pub(crate) fn wait_written(sites: &mut [Site], within: Duration) -> Result<Vec<Written>, RigError> {
    let started = Instant::now();
    loop {
        let written: Vec<Written> = sites.iter_mut().map(Site::written).collect::<Result<_, _>>()?;
        if written.iter().all(|written| written.is_over) {
            return Ok(written);
        }
        if started.elapsed() > within {
            return Err(RigError::Node { node: 0, what: format!("writing does not end: {written:?}") });
        }
        std::thread::sleep(LOOK_EVERY);
    }
}

/// Checks that every write of every site counts at every site.
pub(crate) fn check_sums(
    sites: &mut [Site],
    written: &[Written],
    outcome: &mut Outcome,
) -> Result<(), RigError> {
    let expected: u64 = written.iter().map(|written| written.count).sum();
    for site in sites {
        let (node, sum) = (site.node, site.ask("sum")?);
        outcome.promise(sum == expected.to_string(), || {
            format!("node {node} counts {sum} writes, and {expected} were acknowledged")
        });
    }
    Ok(())
}

/// Runs a mesh below a directory.
///
/// # Errors
/// [`RigError`] when a node fails, or does not come to an end.
pub fn run(options: MeshOptions, under: &Path) -> Result<Outcome, RigError> {
    let mut outcome = Outcome::default();
    let mut sites: Vec<Site> =
        (0..REGIONS.len()).map(|node| Site::start(node, under, 50_000)).collect::<Result<_, _>>()?;
    let ways = Ways::connect(&mut sites, |low, high| {
        Conditions::after(Duration::from_micros(ROUND_TRIPS_MS[low][high] * 500)).losing(options.loss_ppm)
    })?;
    for site in &mut sites {
        site.ask("follow")?;
    }
    wait_equal(&mut sites, Instant::now(), PATIENCE)?;
    let before = (ways.bytes(), copies(&mut sites)?);
    let every_us = 1_000_000 / options.writes.max(1);
    for site in &mut sites {
        site.ask(&format!("write {} {every_us} {}", options.seconds, options.bytes))?;
    }
    let written = wait_written(&mut sites, Duration::from_secs(options.seconds) + PATIENCE)?;
    let converged = wait_equal(&mut sites, Instant::now(), PATIENCE)?;
    let wire = ways.bytes() - before.0;
    let (received, needed) = copies(&mut sites)?;
    let (received, needed) = (received - before.1.0, needed - before.1.1);
    check_sums(&mut sites, &written, &mut outcome)?;
    tell_latencies(&mut sites, options, &mut outcome)?;
    let count: u64 = written.iter().map(|written| written.count).sum();
    let others = (sites.len() - 1) as u64;
    let bytes = others * written.iter().map(|written| written.bytes).sum::<u64>();
    let packed = others * written.iter().map(|written| written.packed).sum::<u64>();
    outcome
        .row("writes, all acknowledged after their own disk", format!("{count} of {} bytes", options.bytes));
    outcome.row("all equal after the last write", format!("{:.0} ms", converged.as_secs_f64() * 1_000.0));
    outcome.row("datagram bytes on all paths, all told", mib(wire));
    outcome.row("values, once for each other replica", mib(bytes));
    outcome.row("the same, compressed as one stream for each writer", mib(packed));
    outcome
        .row("bytes on the wire / compressed values", format!("{:.2}", wire as f64 / packed.max(1) as f64));
    outcome.row(
        "bytes on the wire for a write and a replica",
        format!("{:.0}", wire as f64 / (count * others).max(1) as f64),
    );
    outcome.row(
        "copies: bytes of runs received / needed",
        format!("{:.3}", received as f64 / needed.max(1) as f64),
    );
    let peaks: Vec<String> = sites.iter_mut().map(|site| mib(site.peak())).collect();
    outcome.row("peak memory of each process", peaks.join(", "));
    Ok(outcome)
}

fn copies(sites: &mut [Site]) -> Result<(u64, u64), RigError> {
    let mut sum = (0, 0);
    for site in sites {
        let state = site.wait(PATIENCE, "it tells", |_| true)?;
        sum = (sum.0 + state.received, sum.1 + state.needed);
    }
    Ok(sum)
}

/// How long writes took to be visible, less the way there.
fn tell_latencies(sites: &mut [Site], options: MeshOptions, outcome: &mut Outcome) -> Result<(), RigError> {
    let numbers: BTreeMap<String, usize> =
        sites.iter().map(|site| (site.replica.clone(), site.node)).collect();
    let (mut all, mut by_pair) = (Vec::new(), BTreeMap::<(usize, usize), Vec<i64>>::new());
    for site in sites.iter_mut() {
        for (author, latencies) in site.latencies()? {
            let Some(author) = numbers.get(&author) else { continue };
            let one_way = ROUND_TRIPS_MS[*author][site.node] as i64 * 500;
            let less = latencies.into_iter().map(|latency| latency - one_way);
            by_pair.entry((*author.min(&site.node), *author.max(&site.node))).or_default().extend(less);
        }
    }
    for ((low, high), samples) in &mut by_pair {
        let [p50, p99] = percentiles(samples, [50, 99]);
        let name = format!("{} – {}, {} ms", REGIONS[*low], REGIONS[*high], ROUND_TRIPS_MS[*low][*high]);
        outcome.row(name, format!("p50 {p50} ms, p99 {p99} ms beyond the way there"));
        all.append(samples);
    }
    let [p50, p99] = percentiles(&mut all, [50, 99]);
    outcome.row(
        "visible elsewhere, all pairs",
        format!("p50 {p50} ms, p99 {p99} ms beyond the way there, {} times", all.len()),
    );
    let median = all.get(all.len() / 2).copied().unwrap_or(i64::MAX);
    outcome.promise(median <= options.median_max.as_micros() as i64, || {
        format!("half of the writes are visible {p50} ms after the way there or later")
    });
    Ok(())
}
