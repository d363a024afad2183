//! Comity and another engine on the same work in one run, by turns. `cargo run --release --manifest-path
//! bench/peers/Cargo.toml [DOCUMENTS] [CHANGES] [REPEATS] [FOLDER]` has samod beside it: 1,000, 1,000, 5 and
//! `docs/benchmarks` when nothing is said. With `--features iroh-docs`, and `iroh-docs [ENTRIES] [LIVE] [REPEATS]
//! [FOLDER]` as arguments, it is iroh-docs: 10,000 and 200, and the others as before.

mod compare;
mod documents;
#[cfg(feature = "iroh-docs")]
mod entries;
mod pair;

#[path = "../../src/figures.rs"]
#[allow(dead_code, reason = "shared with the benchmarks, which use all of it")]
mod figures;
#[path = "../../src/machine.rs"]
#[allow(dead_code, reason = "shared with the benchmarks, which use all of it")]
mod machine;
#[path = "../../src/plot.rs"]
mod plot;
#[path = "../../src/report.rs"]
#[allow(dead_code, reason = "shared with the benchmarks, which use all of it")]
mod report;

use std::process::ExitCode;

use compare::Sizes;

type Failure = Box<dyn std::error::Error>;

/// What selects iroh-docs; samod otherwise.
const IROH_DOCS: &str = "iroh-docs";

fn main() -> ExitCode {
    match run() {
        Ok(broken) if broken.is_empty() => ExitCode::SUCCESS,
        Ok(broken) => {
            broken.iter().for_each(|broken| eprintln!("FAILED: {broken}"));
            ExitCode::FAILURE
        }
        Err(failure) => {
            eprintln!("{failure}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<Vec<String>, Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.split_first() {
        Some((word, rest)) if word == IROH_DOCS => beside_iroh_docs(rest),
        _ => documents::run(&Sizes::parse(&arguments, documents::SIZES)?),
    }
}

#[cfg(feature = "iroh-docs")]
fn beside_iroh_docs(arguments: &[String]) -> Result<Vec<String>, Failure> {
    entries::run(&Sizes::parse(arguments, entries::SIZES)?)
}

#[cfg(not(feature = "iroh-docs"))]
fn beside_iroh_docs(_: &[String]) -> Result<Vec<String>, Failure> {
    Err("iroh-docs is not built in: say `--features iroh-docs`".into())
}
