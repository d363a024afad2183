//! `simulate`: runs seeds and kept plans, shrinks what fails.

use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use comity_simulator::{
    Mix, Oracle, Outcome, Plan, Scale, Tally, Topology, Violation, plan, run, run_logged, shrink,
};

/// A quarter of a run is allocating and freeing.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const USAGE: &str = "\
simulate seeds [--from SEED] [--count N] [--threads N]   run seeds; one in a hundred twice
simulate seed SEED [--log] [--shrink FILE]               run one; FILE gets the smallest plan that fails
    with --topology all|star|chain|tree|ring|mixed       in a network of this shape, not of the seed's own
    with --versions same|versions|operations             with builds that differ in this, not in the seed's own
simulate replay FILE [--log]                             run a kept plan
Exit code: 0 when every rule held, 1 when one was broken, 2 when there was nothing to run.";

/// How many runs shrinking may take.
const SHRINK_RUNS_MAX: u32 = 4_000;

fn main() -> ExitCode {
    // A panic of the core is a finding like any other and is reported with its run.
    std::panic::set_hook(Box::new(|_| {}));
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let is_fine = match arguments.as_slice() {
        ["seeds", options @ ..] => seeds(options),
        ["seed", seed, options @ ..] => seed.parse().ok().and_then(|seed| one_seed(seed, options)),
        ["replay", file, options @ ..] => replay(file, options),
        _ => None,
    };
    match is_fine {
        Some(true) => ExitCode::SUCCESS,
        Some(false) => ExitCode::from(1),
        None => {
            eprintln!("{USAGE}");
            ExitCode::from(2)
        }
    }
}

/// The number after a name; `None` when there is a name and no number.
fn number(options: &[&str], name: &str, default: u64) -> Option<u64> {
    match options.iter().position(|option| *option == name) {
        None => Some(default),
        Some(place) => options.get(place + 1)?.parse().ok(),
    }
}

/// How large runs are, and of which shape their networks.
fn scale(options: &[&str]) -> Option<Scale> {
    let topology = match options.iter().position(|option| *option == "--topology") {
        None => None,
        Some(place) => Some(Topology::named(options.get(place + 1)?)?),
    };
    let mix = match options.iter().position(|option| *option == "--versions") {
        None => None,
        Some(place) => Some(Mix::named(options.get(place + 1)?)?),
    };
    Some(Scale { topology, mix, ..Scale::default() })
}

fn seeds(options: &[&str]) -> Option<bool> {
    let scale = scale(options)?;
    let (from, count) = (number(options, "--from", 0)?, number(options, "--count", 100)?);
    let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get() as u64);
    let threads = number(options, "--threads", cores)?;
    let (next, sum, failed) = (AtomicU64::new(from), Mutex::new(Tally::default()), AtomicU64::new(0));
    let started = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= from + count {
                        return;
                    }
                    let outcome = try_seed(seed, scale);
                    if let Some(violation) = &outcome.violation {
                        failed.fetch_add(1, Ordering::Relaxed);
                        let shape = scale.topology.map(|shape| format!(" --topology {}", shape.name()));
                        let mix = scale.mix.map(|mix| format!(" --versions {}", mix.name()));
                        let shape = [shape, mix].into_iter().flatten().collect::<String>();
                        let command = command();
                        println!(
                            "seed {seed}: {violation}\n  repeat with: {command} seed {seed}{shape} --log"
                        );
                    }
                    sum.lock().expect("no run ends in a panic").add(&outcome.tally);
                }
            });
        }
    });
    let tally = *sum.lock().expect("no run ends in a panic");
    let (seconds, failed) = (started.elapsed().as_secs_f64(), failed.load(Ordering::Relaxed));
    println!("{count} seeds from {from}, {failed} failed, {seconds:.1} s on {threads} threads");
    report(&tally);
    let rate = tally.operations as f64 / seconds / threads as f64;
    println!("{rate:.0} client operations a second and thread");
    Some(failed == 0)
}

/// Runs a seed, and one in a hundred twice. `O18`.
fn try_seed(seed: u64, scale: Scale) -> Outcome {
    let plan = plan(seed, scale);
    let mut outcome = run(&plan);
    if seed.is_multiple_of(100) && outcome.violation.is_none() && run(&plan) != outcome {
        let detail = "the same plan gave two different runs".to_owned();
        outcome.violation = Some(Violation { oracle: Oracle::Determinism, detail, at_us: 0 });
    }
    outcome
}

fn one_seed(seed: u64, options: &[&str]) -> Option<bool> {
    let plan = plan(seed, scale(options)?);
    let outcome = carry_out(&plan, options);
    if let (Some(violation), Some(place)) =
        (&outcome.violation, options.iter().position(|option| *option == "--shrink"))
    {
        let (small, violation) = shrink(&plan, violation, SHRINK_RUNS_MAX);
        let file = options.get(place + 1)?;
        let text = serde_json::to_string(&small).expect("a plan is plain data");
        std::fs::write(file, text).ok()?;
        println!("{} replicas and {} events are left: {violation}", small.replicas(), small.events());
        println!("  repeat with: {} replay {file} --log", command());
    }
    Some(outcome.violation.is_none())
}

fn replay(file: &str, options: &[&str]) -> Option<bool> {
    let text = std::fs::read_to_string(file).ok()?;
    let plan: Plan = serde_json::from_str(&text).ok()?;
    Some(carry_out(&plan, options).violation.is_none())
}

fn carry_out(plan: &Plan, options: &[&str]) -> Outcome {
    let outcome =
        if options.contains(&"--log") { run_logged(plan, |line| println!("{line}")) } else { run(plan) };
    match &outcome.violation {
        None => println!("every rule held; trace {:016x}", outcome.trace),
        Some(violation) => println!("{violation}\n  in a run of {} replicas", plan.replicas()),
    }
    report(&outcome.tally);
    outcome
}

fn report(tally: &Tally) {
    let Tally { operations, writes, acknowledged, refused, faults, starts, frames, bytes, .. } = tally;
    println!(
        "{operations} client operations ({writes} transactions, {acknowledged} acknowledged), {refused} refused"
    );
    println!("{faults} faults, {starts} starts, {frames} frames, {bytes} bytes");
    let days = |us: u64| us as f64 / 86_400e6;
    let (world, replicas) = (days(tally.virtual_us), days(tally.replica_us));
    println!("{} repetitions not made again, {} reads of what others had", tally.repeated, tally.fresh);
    println!(
        "{} rows changed by themselves and were found, {} made again by peers",
        tally.decayed, tally.lent
    );
    println!("{} writers held up in vain, {} looks at lag", tally.throttled, tally.lag_checks);
    for (topology, copies) in Topology::ALL.iter().zip(tally.copies).filter(|(_, copies)| copies.needed > 0) {
        let (name, copies, needed) = (topology.name(), copies.per_needed(), copies.needed);
        println!("{name}: {copies:.4} copies of each of {needed} bytes needed in calm");
    }
    println!("{} entries let go of, {} states taken over", tally.dropped, tally.installed);
    println!("{} comparisons, {world:.1} virtual days, {replicas:.1} replica-days", tally.comparisons);
}

/// How this program is started.
fn command() -> String {
    let feature = if cfg!(feature = "stand-in-signatures") { " --features stand-in-signatures" } else { "" };
    format!("cargo run --profile simulation -p comity-simulator{feature} --bin simulate --")
}
