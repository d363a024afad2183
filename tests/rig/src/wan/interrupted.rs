//! A replica that takes over a large state over a long path, and is interrupted on the way: the connection dies, the
//! receiver is killed, the source is killed.

use std::path::Path;
use std::time::{Duration, Instant};

use comity_path::{Conditions, Path as Way};

use crate::error::RigError;
use crate::wan::site::{Site, State, wait_equal};
use crate::wan::{LOOK_EVERY, Outcome, beside_plain, mib};

/// Silence after which a connection is over, and some.
const CUT: Duration = Duration::from_secs(12);
/// Registers in one change set of the source.
const BATCH: usize = 16;
/// Most of the state that may cross the path again, of its bytes, for each interruption.
const AGAIN_MAX: f64 = 0.05;

/// How an interrupted bootstrap is run.
#[derive(Clone, Copy, Debug)]
pub struct InterruptedOptions {
    /// Registers of the state.
    pub objects: u64,
    /// Bytes of each, which nothing makes shorter.
    pub bytes: usize,
    /// The round trip.
    pub round_trip: Duration,
    /// Datagrams lost, of a million.
    pub loss_ppm: u32,
    /// Bytes in a second, where the path has a limit.
    pub rate: Option<u64>,
    /// Whether it is interrupted at all; what it takes otherwise is the measure.
    pub is_interrupted: bool,
    /// What plain QUIC is given over the same path, to be compared with; 0 for no comparison.
    pub plain_bytes: u64,
    /// How long all of it may take.
    pub within: Duration,
}

/// Runs a bootstrap below a directory.
///
/// # Errors
/// [`RigError`] when a node fails, or does not come to an end.
pub fn run(options: InterruptedOptions, under: &Path) -> Result<Outcome, RigError> {
    let mut outcome = Outcome::default();
    let mut source = Site::start(0, under, 1)?;
    source.ask("found")?;
    let filled = Instant::now();
    source.ask(&format!("fill {} {} {BATCH}", options.objects, options.bytes))?;
    let filled = filled.elapsed();
    let conditions = Conditions::after(options.round_trip / 2).losing(options.loss_ppm).at_rate(options.rate);
    let way = Way::to(source.addr(), conditions, 1).map_err(RigError::io("a path"))?;
    let mut receiver = Site::start(1, under, 1)?;
    let started = Instant::now();
    let ticket = source.ticket(way.near(), true)?;
    receiver.ask(&format!("connect {ticket}"))?;
    let (mut total, mut away) = (0, Duration::ZERO);
    if options.is_interrupted {
        for part in 1..=3_u64 {
            let (staged, offered) = reach(&mut receiver, part, options.within)?;
            total = offered;
            let stopped = Instant::now();
            match part {
                1 => {
                    way.cut(true);
                    std::thread::sleep(CUT);
                    way.cut(false);
                }
                2 => {
                    receiver.kill();
                    receiver.restart()?;
                }
                _ => {
                    source.kill();
                    source.restart()?;
                }
            }
            let kept =
                receiver.wait(options.within, "what was staged is there", |state| state.staged > 0)?.staged;
            let goes_on =
                |state: &State| state.staged > kept || state.phase != "receiving" && state.phase != "waiting";
            receiver.wait(options.within, "it goes on", goes_on)?;
            away += stopped.elapsed();
            outcome.promise(kept >= staged / 2, || {
                format!("of {} that were staged only {} were kept", mib(staged), mib(kept))
            });
            outcome.row(
                ["connection cut", "receiver killed", "source killed"][part as usize - 1],
                format!(
                    "{} were here, {} after it; going on after {:.1} s",
                    mib(staged),
                    mib(kept),
                    stopped.elapsed().as_secs_f64()
                ),
            );
        }
    }
    let mut sites = [source, receiver];
    let took = finish(&mut sites, (started, options.within), &mut total)?;
    let wire = way.carried().bytes;
    let values = options.objects * options.bytes as u64;
    outcome.row(
        "state",
        format!("{} registers of {} bytes, {} of values", options.objects, options.bytes, mib(values)),
    );
    outcome.row("written at the source in", format!("{:.1} s", filled.as_secs_f64()));
    outcome.row("path", format!("{} ms, {} ppm lost", options.round_trip.as_millis(), options.loss_ppm));
    outcome.row("taken over, checked and installed after", format!("{:.1} s", took.as_secs_f64()));
    outcome.row("of which interrupted", format!("{:.1} s", away.as_secs_f64()));
    let beside = beside_plain((total, took.saturating_sub(away)), (conditions, options.plain_bytes))?;
    outcome.row("rows, while it was not interrupted", beside);
    outcome.row("rows offered", mib(total));
    outcome.row("datagram bytes on the path, both ways", mib(wire));
    outcome.row("bytes on the path / values", format!("{:.3}", wire as f64 / values.max(1) as f64));
    let [source, receiver] = &mut sites;
    outcome
        .row("peak memory, source and receiver", format!("{}, {}", mib(source.peak()), mib(receiver.peak())));
    let interruptions = if options.is_interrupted { 3.0 } else { 0.0 };
    let most = total as f64 * (1.10 + interruptions * AGAIN_MAX) + f64::from(8 << 20);
    outcome.promise(wire as f64 <= most, || {
        format!("{} crossed the path for {} of rows", mib(wire), mib(total))
    });
    Ok(outcome)
}

/// Waits until so many quarters of the state are staged; bytes staged and offered.
fn reach(receiver: &mut Site, quarters: u64, within: Duration) -> Result<(u64, u64), RigError> {
    let started = Instant::now();
    while started.elapsed() < within {
        if let Some(state) = receiver.state()?
            && state.total > 0
        {
            if state.phase != "receiving" {
                let what = format!("it was not interrupted in time: {state:?}");
                return Err(RigError::Node { node: receiver.node, what });
            }
            if state.staged >= state.total / 4 * quarters {
                return Ok((state.staged, state.total));
            }
        }
        std::thread::sleep(LOOK_EVERY / 10);
    }
    Err(RigError::Node { node: receiver.node, what: format!("{quarters} quarters are not staged in time") })
}

/// Waits until both have the same, and the receiver is a member like any other.
fn finish(
    sites: &mut [Site; 2],
    (started, within): (Instant, Duration),
    total: &mut u64,
) -> Result<Duration, RigError> {
    loop {
        if let Some(state) = sites[1].state()? {
            *total = state.total.max(*total);
            if state.phase == "none" && state.members == 2 {
                return wait_equal(sites, started, within);
            }
        }
        if started.elapsed() > within {
            let what = format!("the state is not taken over within {} s", within.as_secs());
            return Err(RigError::Node { node: 1, what });
        }
        std::thread::sleep(LOOK_EVERY);
    }
}
