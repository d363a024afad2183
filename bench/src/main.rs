//! Benchmarks, one module each: `cargo run --release -p comity-bench -- NAME [--option value ...]`. Each prints
//! what machine it ran on and Markdown tables, and ends with exit code 1 where something is not as it must be.

mod bootstrap;
mod bytes;
mod catch_up;
mod control;
mod documents;
mod figures;
mod growth;
mod hot;
mod load;
mod local;
mod machine;
mod memory;
mod open;
mod options;
mod plot;
mod quic;
mod reconnect;
mod removal;
mod replicas;
mod replicate;
mod report;
mod set;
mod table;
mod visible;
mod wan;

use std::process::ExitCode;

use options::Options;

/// Small pieces of memory come and go for every change; with this they take half the time of what the system has.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

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

/// The name of all of them, one after the other. An option goes to each that has it.
const ALL: &str = "all";

const BENCHMARKS: &[Benchmark] = &[
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
    Benchmark { name: "catchup", about: "what a replica that was away lacks", run: catch_up::run },
    Benchmark {
        name: "documents",
        about: "editing and following documents, against plain Automerge",
        run: documents::run,
    },
    Benchmark {
        name: "growth",
        about: "one more change among more objects, spaces and replicas",
        run: growth::run,
    },
    Benchmark {
        name: "hot",
        about: "three hot paths with fixed inputs, to count instructions of",
        run: hot::run,
    },
    Benchmark { name: "local", about: "durable writes, against a raw log", run: local::run },
    Benchmark { name: "memory", about: "memory of objects, documents, spaces and peers", run: memory::run },
    Benchmark { name: "open", about: "opening after kill -9, with many objects", run: open::run },
    Benchmark {
        name: "reconnect",
        about: "connecting again with one space and with many, with nothing new and with something",
        run: reconnect::run,
    },
    Benchmark { name: "removal", about: "what stays of elements that were removed", run: removal::run },
    Benchmark {
        name: "replicate",
        about: "changes to another replica, against a bare stream and a raw log",
        run: replicate::run,
    },
    Benchmark { name: "set", about: "operations on small and large sets", run: set::run },
    Benchmark { name: "visible", about: "how long until another replica shows a change", run: visible::run },
    Benchmark {
        name: "wan",
        about: "plain QUIC, catching up and live changes over long paths",
        run: wan::run,
    },
];

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let name = arguments.next().unwrap_or_default();
    let chosen: Vec<&Benchmark> =
        BENCHMARKS.iter().filter(|benchmark| benchmark.name == name || name == ALL).collect();
    if chosen.is_empty() {
        eprintln!("usage: comity-bench NAME|{ALL} [--option value ...]");
        BENCHMARKS.iter().for_each(|known| eprintln!("  {}: {}", known.name, known.about));
        return ExitCode::FAILURE;
    }
    let measured = Options::parse(arguments).and_then(|options| {
        let mut verdict = Verdict::default();
        for benchmark in chosen {
            machine::print(benchmark.name);
            verdict.broken.extend((benchmark.run)(&options)?.broken);
        }
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
