//! Two regions, each a leader, that diverge under a partition and heal.
//!
//! ```text
//! two_regions                                  the whole story in one process
//! two_regions --trace FILE                     two people's recorded editing, one in each region, 10 ms apart
//! two_regions --listen ADDR                    the eu half; prints a ticket
//! two_regions --connect TICKET                 the us half, perhaps on another machine
//! ```
//!
//! It ends with an error when anything it claims is not so.

mod distance;
mod halves;
mod story;
mod trace;

use std::process::ExitCode;
use std::time::Duration;

/// What can go wrong, with a sentence for a person.
type Failure = Box<dyn std::error::Error + Send + Sync>;

/// How long anything here may take before the example gives up on it.
const PATIENCE: Duration = Duration::from_secs(30);

const USAGE: &str = "usage: two_regions [--trace FILE | --listen ADDR | --connect TICKET]";

#[tokio::main]
async fn main() -> ExitCode {
    let filter = tracing_subscriber::EnvFilter::from_default_env();
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let outcome = match arguments.as_slice() {
        [] => story::tell().await,
        ["--trace", file] => trace::replay(file.as_ref()).await,
        ["--listen", addr] => halves::eu(addr).await,
        ["--connect", ticket] => halves::us(ticket).await,
        _ => Err(USAGE.into()),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("two_regions: {failure}");
            ExitCode::FAILURE
        }
    }
}

/// Fails with a sentence unless what the example claims is so.
fn claim(holds: bool, sentence: &str) -> Result<(), Failure> {
    if holds { Ok(()) } else { Err(format!("this is not so: {sentence}").into()) }
}

/// A duration as people read it.
fn ms(duration: Duration) -> String {
    format!("{:.1} ms", duration.as_secs_f64() * 1_000.0)
}
