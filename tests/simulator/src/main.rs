//! Runs seeds.
use comity_simulator::{Scale, Tally, plan, run};
fn main() {
    let args: Vec<u64> = std::env::args().skip(1).filter_map(|a| a.parse().ok()).collect();
    let (from, count) = (args.first().copied().unwrap_or(0), args.get(1).copied().unwrap_or(1));
    let started = std::time::Instant::now();
    let mut tally = Tally::default();
    for seed in from..from + count {
        let outcome = if std::env::args().any(|a| a == "--log") {
            comity_simulator::run_logged(&plan(seed, Scale::default()), |line| println!("{line}"))
        } else {
            run(&plan(seed, Scale::default()))
        };
        tally.add(&outcome.tally);
        if let Some(violation) = outcome.violation {
            let plan = plan(seed, Scale::default());
            let classes: Vec<_> =
                comity_simulator::FaultClass::ALL.into_iter().filter(|c| plan.has(*c)).collect();
            println!(
                "seed {seed}: {violation} [{} nodes, {} ops, {classes:?}]",
                plan.nodes,
                plan.operations()
            );
        }
    }
    println!("{tally:?} {:?}", started.elapsed());
}
