//! Hunts planted bugs: `canaries [--first-seed N] [--seeds-max N] [--seed N] [NAME…]`. Prints a table, and fails
//! when a bug is not found by the oracle that names its harm, or when something is found where none is planted.
//! With `--seed`, runs that seed only and prints what it comes to.

use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use comity_crdts::canary::Canary;
use comity_simulator::{Violation, expected, hunt, violation};

/// Seeds tried per bug unless told otherwise.
const SEEDS_MAX: u64 = 5_000;
/// Hunts at a time.
const THREADS: usize = 2;
/// How much of a violation the table shows, characters.
const DETAIL_CHARS: usize = 160;

struct Options {
    first_seed: u64,
    seeds_max: u64,
    seed: Option<u64>,
    canaries: Vec<Canary>,
}

type Caught = Option<(u64, Violation)>;

fn main() -> ExitCode {
    let options = match options() {
        Ok(options) => options,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::from(2);
        }
    };
    if let Some(seed) = options.seed {
        for canary in &options.canaries {
            let found = violation(Some(*canary), seed);
            let found = found.map_or_else(|| "nothing".to_owned(), |violation| violation.to_string());
            println!("{} in seed {seed}: {found}", canary.name());
        }
        return ExitCode::SUCCESS;
    }
    let caught = hunt_all(&options);
    println!("| planted bug | oracle | seeds needed | first violation |\n|---|---|--:|---|");
    for (canary, caught) in options.canaries.iter().zip(&caught) {
        println!("{}", row(*canary, caught));
    }
    let missed = caught.iter().filter(|caught| caught.is_none()).count();
    let seeds = caught.iter().map(|caught| caught.as_ref().map_or(options.seeds_max, |(seeds, _)| *seeds));
    let seeds = seeds.max().unwrap_or(0);
    println!("\n{} of {} planted bugs found.", caught.len() - missed, caught.len());
    let wrong = each(seeds as usize, |index| violation(None, options.first_seed + index as u64));
    let wrong: Vec<_> = (options.first_seed..).zip(wrong).filter_map(|(seed, v)| Some((seed, v?))).collect();
    for (seed, violation) in &wrong {
        println!("seed {seed} without a planted bug: {violation}");
    }
    println!("{} of the same {seeds} seeds violate something without a planted bug.", wrong.len());
    if missed == 0 && wrong.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn options() -> Result<Options, String> {
    let mut options = Options { first_seed: 0, seeds_max: SEEDS_MAX, seed: None, canaries: Vec::new() };
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        let mut number = || {
            let number = args.next().and_then(|number| number.parse::<u64>().ok());
            number.ok_or_else(|| format!("{arg} takes a number"))
        };
        match arg.as_str() {
            "--first-seed" => options.first_seed = number()?,
            "--seeds-max" => options.seeds_max = number()?,
            "--seed" => options.seed = Some(number()?),
            name => {
                let named = Canary::ALL.iter().find(|canary| canary.name() == name);
                options.canaries.push(*named.ok_or_else(|| format!("there is no planted bug {name}"))?);
            }
        }
    }
    if options.canaries.is_empty() {
        options.canaries = Canary::ALL.to_vec();
    }
    Ok(options)
}

fn hunt_all(options: &Options) -> Vec<Caught> {
    each(options.canaries.len(), |index| {
        let canary = options.canaries[index];
        let caught = hunt(canary, options.first_seed, options.seeds_max);
        eprintln!("{}", row(canary, &caught));
        caught
    })
}

/// Does something for every index, a few at a time.
fn each<T: Send>(count: usize, work: impl Fn(usize) -> T + Sync) -> Vec<T> {
    let (next, done) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    if index >= count {
                        return;
                    }
                    let result = work(index);
                    done.lock().expect("no worker panics while it holds this").push((index, result));
                }
            });
        }
    });
    let mut done = done.into_inner().expect("every worker has ended");
    done.sort_by_key(|(index, _)| *index);
    done.into_iter().map(|(_, result)| result).collect()
}

fn row(canary: Canary, caught: &Caught) -> String {
    let (seeds, detail) = caught.as_ref().map_or_else(
        || ("-".to_owned(), "not found".to_owned()),
        |(seeds, violation)| {
            let line = violation.detail.lines().next().unwrap_or_default().replace('|', "/");
            (seeds.to_string(), line.chars().take(DETAIL_CHARS).collect())
        },
    );
    format!("| `{}` | {} | {seeds} | {detail} |", canary.name(), expected(canary))
}
