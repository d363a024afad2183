//! Comity and samod on the same work in one run: many small documents from one replica to another, a reconnect with
//! nothing new, and a burst of changes to one document. `cargo run --release --manifest-path bench/peers/Cargo.toml
//! [DOCUMENTS] [CHANGES] [REPEATS] [FOLDER]`, 1,000, 1,000, 5 and `docs/benchmarks` when nothing is said.
//!
//! Comity is durable at both ends, over QUIC; samod keeps everything in memory here, over TCP without encryption.

mod ours;
mod theirs;

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

use automerge::transaction::Transactable;
use automerge::{AutomergeError, ROOT};

use figures::{REPEATS, Samples};
use plot::Plot;
use report::{Bound, Promise, Report, Table, group};

type Failure = Box<dyn std::error::Error>;

const ABOUT: &str = "Two replicas in one process on the loopback, alternating: Comity syncs every change to disk at both ends and encrypts; \
    samod keeps everything in memory and speaks plain TCP. Documents of three fields.";

/// What one repeat came to.
#[derive(Clone, Copy, Default)]
struct Outcome {
    /// All documents at the other replica, s.
    initial: f64,
    initial_bytes: f64,
    /// Until nothing moves any more after a connection was made again, s.
    reconnect: f64,
    reconnect_bytes: f64,
    /// A burst of changes to one document, until the other replica has them, s.
    burst: f64,
}

/// What every document has.
fn fill(document: &mut impl Transactable, number: u64) -> Result<(), AutomergeError> {
    document.put(ROOT, "title", format!("document number {number}"))?;
    document.put(ROOT, "n", number as i64)?;
    document.put(ROOT, "body", "some sixty bytes of body text to make the document realistic")
}

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
    let number = |at: usize, default: u64| -> Result<u64, Failure> {
        Ok(arguments.get(at).map(|argument| argument.parse()).transpose()?.unwrap_or(default))
    };
    let (documents, changes) = (number(0, 1_000)?, number(1, 1_000)?);
    let repeats = number(2, REPEATS as u64)?.max(1);
    let folder = arguments.get(3).cloned().unwrap_or_default();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let mut report = Report::begin("peers", ABOUT);
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..repeats {
        ours.push(runtime.block_on(ours::run(documents, changes))?);
        theirs.push(runtime.block_on(theirs::run(documents, changes))?);
    }
    tell(&mut report, (documents, changes), &ours, &theirs);
    report.finish(&folder)
}

fn tell(report: &mut Report, (documents, changes): (u64, u64), ours: &[Outcome], theirs: &[Outcome]) {
    let columns = [("Comity", ""), ("samod", ""), ("samod over Comity", "")];
    let mut table = Table::new("Medians of alternating repeats:", "", &columns);
    let mut groups = Vec::new();
    let rows: [(String, fn(&Outcome) -> f64, f64); 5] = [
        (format!("{documents} documents, s"), |outcome| outcome.initial, 50.0),
        (format!("{documents} documents, bytes"), |outcome| outcome.initial_bytes, 1.0),
        ("idle reconnect, s".to_owned(), |outcome| outcome.reconnect, 100.0),
        ("idle reconnect, bytes".to_owned(), |outcome| outcome.reconnect_bytes, 1_000.0),
        (format!("burst of {changes} changes to a document, s"), |outcome| outcome.burst, 10.0),
    ];
    for (name, of, least) in rows {
        let samples = |outcomes: &[Outcome]| Samples(outcomes.iter().map(of).collect());
        let (ours, theirs) = (samples(ours), samples(theirs));
        let times = theirs.over(&ours);
        report.promises.push(Promise {
            about: format!("{name}: times less than samod"),
            measured: times.median(),
            bound: Bound::AtLeast(least),
        });
        if name.ends_with(" s") {
            groups.push(group(name.clone(), &[&ours, &theirs]));
        }
        table.row(name, [ours.into(), theirs.into(), times.into()]);
    }
    report.tables.push(table);
    let series = vec!["Comity".to_owned(), "samod".to_owned()];
    report.plot = Some(Plot { title: "Comity and samod".to_owned(), unit: "s", series, groups });
}
