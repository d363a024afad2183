//! Benchmarks, one module each: `cargo run --release -p comity-bench -- NAME [--option value ...]`. Each prints
//! what machine it ran on and Markdown tables, and ends with exit code 1 where something is not as it must be.

mod bootstrap;
mod bytes;
mod documents;
mod machine;
mod options;
mod removal;
mod replicas;
mod set;
mod table;
mod wan;

use std::process::ExitCode;

use options::Options;

/// Why a benchmark was not run to its end.
type Failure = Box<dyn std::error::Error>;

/// What a benchmark says about what it measured.
#[derive(Debug, Default)]
struct Verdict {
    /// Each promise that was not kept, as a sentence.
    broken: Vec<String>,
}

/// A benchmark that can be run by its name.
struct Benchmark {
    name: &'static str,
    about: &'static str,
    run: fn(&Options) -> Result<Verdict, Failure>,
}

const BENCHMARKS: [Benchmark; 6] = [
    Benchmark {
        name: "bootstrap",
        about: "taking over a large state, with interruptions",
        run: bootstrap::run,
    },
    Benchmark {
        name: "bytes",
        about: "bytes per change on the wire, against their budgets",
        run: bytes::run,
    },
    Benchmark {
        name: "documents",
        about: "editing and following documents, against plain Automerge",
        run: documents::run,
    },
    Benchmark { name: "removal", about: "what stays of elements that were removed", run: removal::run },
    Benchmark { name: "set", about: "operations on small and large sets", run: set::run },
    Benchmark {
        name: "wan",
        about: "plain QUIC, catching up and live changes over long paths",
        run: wan::run,
    },
];

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let name = arguments.next().unwrap_or_default();
    let Some(benchmark) = BENCHMARKS.iter().find(|benchmark| benchmark.name == name) else {
        eprintln!("usage: comity-bench NAME [--option value ...]");
        BENCHMARKS.iter().for_each(|known| eprintln!("  {}: {}", known.name, known.about));
        return ExitCode::FAILURE;
    };
    let measured = Options::parse(arguments).and_then(|options| {
        machine::print(benchmark.name);
        let verdict = (benchmark.run)(&options)?;
        options.check_all_read()?;
        Ok(verdict)
    });
    match measured {
        Ok(verdict) if verdict.broken.is_empty() => ExitCode::SUCCESS,
        Ok(verdict) => {
            verdict.broken.iter().for_each(|broken| eprintln!("FAILED: {broken}"));
            ExitCode::FAILURE
        }
        Err(failure) => {
            eprintln!("{name}: {failure}");
            ExitCode::FAILURE
        }
    }
}
