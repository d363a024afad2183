//! The program: a node, the shaper, or the controller of both.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;
use std::str::FromStr;
use std::time::Duration;

use comity_rig::error::RigError;
use comity_rig::node::{NodeOptions, serve};
use comity_rig::plan::Abilities;
use comity_rig::relay::shape;
use comity_rig::run::{Canary, RunOptions, run};
use comity_rig::streets::{NODES_MAX, Streets};
use comity_rig::wan;

const USAGE: &str = "\
comity-rig run   --seed S [--seconds N] [--nodes K] [--directory DIR] [--tag TAG]
                 [--without namespaces,nft,disk,strace] [--canary NAME]
comity-rig node  --data DIR --listen ADDR --node N --nodes K [--log-file-bytes B]
comity-rig shape --seed S --nodes K [--namespaces]
comity-rig mesh        [--seconds N] [--writes W] [--bytes B] [--loss-ppm L] [--directory DIR]
comity-rig partition   [--minutes M | --seconds N] [--writes W] [--bytes B] [--loss-ppm L] [--plain-mib P] [--directory DIR]
comity-rig interrupted [--objects N] [--bytes B] [--rtt-ms T] [--loss-ppm L] [--rate-mib R] [--undisturbed] [--plain-mib P] [--directory DIR]
comity-rig wan-node --data DIR --listen ADDR --node N --entries-min E";

fn main() -> ExitCode {
    let mut words = std::env::args().skip(1);
    let verb = words.next().unwrap_or_default();
    let done = Arguments::of(words).and_then(|arguments| match verb.as_str() {
        "run" => start_run(&arguments),
        "node" => start_node(&arguments),
        "shape" => start_shaper(&arguments),
        "mesh" | "partition" | "interrupted" => start_wan(&verb, &arguments),
        "wan-node" => start_wan_node(&arguments),
        _ => Err(RigError::Arguments(USAGE.to_owned())),
    });
    done.unwrap_or_else(|error| {
        eprintln!("comity-rig {verb}: {error}");
        ExitCode::from(2)
    })
}

/// `--name value` pairs, and names alone.
struct Arguments(BTreeMap<String, String>);

impl Arguments {
    fn of(words: impl Iterator<Item = String>) -> Result<Self, RigError> {
        let mut arguments = BTreeMap::new();
        let mut last: Option<String> = None;
        for word in words {
            match (word.strip_prefix("--"), last.take()) {
                (Some(name), _) => {
                    arguments.insert(name.to_owned(), String::new());
                    last = Some(name.to_owned());
                }
                (None, Some(name)) => drop(arguments.insert(name, word)),
                (None, None) => return Err(RigError::Arguments(USAGE.to_owned())),
            }
        }
        Ok(Self(arguments))
    }

    fn optional<T: FromStr>(&self, name: &str) -> Result<Option<T>, RigError> {
        let parse = |text: &String| {
            text.parse().map_err(|_| RigError::Arguments(format!("--{name} {text}?\n{USAGE}")))
        };
        self.0.get(name).map(parse).transpose()
    }

    fn needed<T: FromStr>(&self, name: &str) -> Result<T, RigError> {
        self.optional(name)?.ok_or_else(|| RigError::Arguments(format!("--{name} is missing\n{USAGE}")))
    }
}

fn log_to_stderr() {
    let filter = tracing_subscriber::EnvFilter::try_from_env("COMITY_LOG");
    let filter = filter.unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("warn"));
    tracing_subscriber::fmt().with_writer(std::io::stderr).with_ansi(false).with_env_filter(filter).init();
}

fn start_node(arguments: &Arguments) -> Result<ExitCode, RigError> {
    log_to_stderr();
    serve(NodeOptions {
        directory: arguments.needed("data")?,
        listen: arguments.needed("listen")?,
        node: arguments.needed("node")?,
        nodes: arguments.needed("nodes")?,
        log_file_bytes: arguments.optional("log-file-bytes")?,
    })?;
    Ok(ExitCode::SUCCESS)
}

fn start_shaper(arguments: &Arguments) -> Result<ExitCode, RigError> {
    let streets =
        if arguments.0.contains_key("namespaces") { Streets::NAMESPACES } else { Streets::LOOPBACK };
    shape(streets, arguments.needed("nodes")?, arguments.needed("seed")?)?;
    Ok(ExitCode::SUCCESS)
}

fn start_wan_node(arguments: &Arguments) -> Result<ExitCode, RigError> {
    log_to_stderr();
    wan::node::serve(wan::node::NodeOptions {
        directory: arguments.needed("data")?,
        listen: arguments.needed("listen")?,
        node: arguments.needed("node")?,
        entries_min: arguments.needed("entries-min")?,
    })?;
    Ok(ExitCode::SUCCESS)
}

fn start_wan(verb: &str, arguments: &Arguments) -> Result<ExitCode, RigError> {
    let of_process = std::env::temp_dir().join(format!("comity-rig-{}", std::process::id()));
    let given: Option<PathBuf> = arguments.optional("directory")?;
    let under = given.clone().unwrap_or(of_process);
    std::fs::create_dir_all(&under).map_err(RigError::path(&under))?;
    let seconds: Option<u64> = arguments.optional("seconds")?;
    let loss_ppm = arguments.optional("loss-ppm")?.unwrap_or(10_000);
    let bytes = |otherwise: usize| Ok::<_, RigError>(arguments.optional("bytes")?.unwrap_or(otherwise));
    let writes = |otherwise: u64| Ok::<_, RigError>(arguments.optional("writes")?.unwrap_or(otherwise));
    let plain_bytes = arguments.optional::<u64>("plain-mib")?.unwrap_or(128) << 20;
    let median_max = Duration::from_millis(arguments.optional("median-max-ms")?.unwrap_or(50));
    let outcome = match verb {
        "mesh" => wan::mesh::run(
            wan::mesh::MeshOptions {
                seconds: seconds.unwrap_or(60),
                writes: writes(20)?,
                bytes: bytes(200)?,
                loss_ppm,
                median_max,
            },
            &under,
        ),
        "partition" => wan::partition::run(
            wan::partition::PartitionOptions {
                cut: Duration::from_secs(
                    seconds.unwrap_or(60 * arguments.optional::<u64>("minutes")?.unwrap_or(10)),
                ),
                writes: writes(50)?,
                bytes: bytes(200)?,
                loss_ppm,
                median_max,
                converge_max: Duration::from_secs(120),
                plain_bytes,
            },
            &under,
        ),
        _ => wan::interrupted::run(
            wan::interrupted::InterruptedOptions {
                objects: arguments.optional("objects")?.unwrap_or(1_000_000),
                bytes: bytes(1_024)?,
                round_trip: Duration::from_millis(arguments.optional("rtt-ms")?.unwrap_or(100)),
                loss_ppm,
                rate: arguments.optional::<u64>("rate-mib")?.map(|mib| mib << 20),
                plain_bytes,
                is_interrupted: !arguments.0.contains_key("undisturbed"),
                within: Duration::from_secs(arguments.optional("within-s")?.unwrap_or(1_800)),
            },
            &under,
        ),
    }?;
    print!("{outcome}");
    if given.is_none() {
        std::fs::remove_dir_all(&under).map_err(RigError::path(&under))?;
    }
    Ok(if outcome.broken.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn start_run(arguments: &Arguments) -> Result<ExitCode, RigError> {
    let options = run_options(arguments)?;
    let RunOptions { seed, time, nodes, canary, abilities, .. } = &options;
    println!("seed {seed}: {nodes} nodes, {} s of faults, {abilities:?}", time.as_secs());
    let report = run(&options)?;
    print!("{report}");
    for violation in &report.violations {
        println!("VIOLATION     {violation}");
    }
    println!(
        "to repeat     tests/rig/run --seeds {seed}..{seed} --seconds {} --nodes {nodes}",
        time.as_secs()
    );
    let is_good = match canary {
        None => report.violations.is_empty(),
        Some(canary) => {
            let oracle = canary.noticed_by();
            let is_noticed = report.violations.iter().any(|violation| violation.oracle == oracle);
            let verdict = if is_noticed { "noticed" } else { "NOT NOTICED" };
            println!("canary        {canary:?} was {verdict} by: {}", oracle.promise());
            is_noticed
        }
    };
    Ok(if is_good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn run_options(arguments: &Arguments) -> Result<RunOptions, RigError> {
    let without: String = arguments.optional("without")?.unwrap_or_default();
    let has = |what: &str| !without.split(',').any(|word| word == what);
    let seed = arguments.needed("seed")?;
    let nodes = arguments.optional("nodes")?.unwrap_or(4);
    if !(2..=NODES_MAX).contains(&nodes) {
        return Err(RigError::Arguments(format!("--nodes is from 2 to {NODES_MAX}")));
    }
    let tag = format!("comity-rig-{}", std::process::id());
    let directory: PathBuf = std::env::temp_dir().join(&tag);
    let canary: Option<String> = arguments.optional("canary")?;
    let named = |name: String| {
        let found = Canary::ALL.into_iter().find(|(known, _)| *known == name);
        found
            .map(|(_, canary)| canary)
            .ok_or_else(|| RigError::Arguments(format!("there is no canary {name}")))
    };
    Ok(RunOptions {
        seed,
        time: Duration::from_secs(arguments.optional("seconds")?.unwrap_or(30)),
        nodes,
        tag: arguments.optional("tag")?.unwrap_or(tag),
        directory: arguments.optional("directory")?.unwrap_or(directory),
        abilities: Abilities {
            namespaces: has("namespaces"),
            nft: has("nft"),
            disk: has("disk"),
            strace: has("strace"),
        },
        canary: canary.map(named).transpose()?,
    })
}
