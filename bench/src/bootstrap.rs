//! A replica that takes over a large state, interrupted on the way: how long that takes and how much of it is sent again.
//! Both replicas run in one thread, so what the source and the receiver take adds up.

use std::time::{Duration, Instant};

use comity_crdts::{Kind, ObjectAddress, SpaceId, Value};
use comity_engine::{BootstrapPhase, Retention, SpaceStatus};

use crate::options::Options;
use crate::replicas::Replicas;
use crate::table::{self, mib};
use crate::{Failure, Verdict};

/// Objects written in one transaction.
const OBJECTS_AT_ONCE: u64 = 512;
/// Long enough for everything that is due.
const PASS: Duration = Duration::from_secs(30);

/// Prints how long it takes. Options: `--n` objects, 1,000,000, of `--bytes` each, 1,024; `--interruptions`, 3.
pub(crate) fn run(options: &Options) -> Result<Verdict, Failure> {
    let (count, bytes) = (options.value("n", 1_000_000)?, options.value("bytes", 1_024)?);
    let interruptions: u64 = options.value("interruptions", 3)?;
    let announce_after = Duration::from_secs(5);
    let retention = Retention { age: Duration::ZERO, bytes_max: u64::MAX, announce_after };
    let mut replicas = Replicas::keeping(2, retention)?;
    let space = replicas.found_alone()?;
    let begun = Instant::now();
    for first in (0..count).step_by(OBJECTS_AT_ONCE as usize) {
        let mut numbers = first..(first + OBJECTS_AT_ONCE).min(count);
        replicas.transact(space, |tx| {
            numbers.try_for_each(|number| {
                let object = ObjectAddress::new(Kind::Register, "measured", &format!("object-{number:08}"))?;
                tx.register_write_at(&object.into(), Value::Text(text(number, bytes)))
            })
        })?;
        replicas.settle()?;
    }
    replicas.pass(PASS)?;
    let written = begun.elapsed();
    let kept = status(&mut replicas, 0, space)?.log_bytes;
    println!();
    println!(
        "{count} registers of {bytes} bytes, written in {:.0} s; {kept} bytes of the log are kept",
        written.as_secs_f64()
    );
    let outcome = take_over(&mut replicas, space, interruptions)?;
    let (source, receiver) = (status(&mut replicas, 0, space)?, status(&mut replicas, 1, space)?);
    let mut verdict = Verdict::default();
    if (source.digest, &source.frontier) != (receiver.digest, &receiver.frontier) {
        verdict.broken.push("the receiver holds another state than the source".to_owned());
    }
    if outcome.interrupted < interruptions {
        verdict.broken.push(format!("it was interrupted {} times only", outcome.interrupted));
    }
    Ok(verdict)
}

struct Outcome {
    interrupted: u64,
}

/// Lets the second replica in and has it take over the state.
fn take_over(replicas: &mut Replicas, space: SpaceId, interruptions: u64) -> Result<Outcome, Failure> {
    let begun = Instant::now();
    replicas.join(space)?;
    let (mut interrupted, mut offered, mut received) = (0, 0, Duration::ZERO);
    let mut installing = None;
    while interrupted <= interruptions {
        let part = interrupted + 1;
        replicas.pass_until(PASS, |replicas| {
            let bootstrap = of(&replicas.all[1].engine.status().spaces, space)
                .and_then(|status| status.bootstrap.clone());
            let Some(bootstrap) = bootstrap else { return false };
            if bootstrap.phase == BootstrapPhase::Installing && installing.is_none() {
                installing = Some(begun.elapsed());
            }
            offered = bootstrap.bytes_total.max(offered);
            bootstrap.rows_total > 0
                && part <= interruptions
                && bootstrap.rows * (interruptions + 1) >= bootstrap.rows_total * part
        })?;
        if interrupted < interruptions {
            replicas.reconnect()?;
        }
        interrupted += 1;
    }
    interrupted -= 1;
    received = received.max(installing.unwrap_or_default());
    let all = begun.elapsed();
    let rate = |time: Duration| format!("{:.1}", offered as f64 / 1e6 / time.as_secs_f64());
    table::print(
        &[
            "rows, MiB",
            "sent, MiB",
            "interrupted",
            "received and checked, s",
            "MB/s",
            "installed after, s",
            "MB/s",
            "peak memory, MiB",
        ],
        &[vec![
            mib(offered),
            mib(replicas.sent_bytes),
            interrupted.to_string(),
            format!("{:.1}", received.as_secs_f64()),
            rate(received),
            format!("{:.1}", all.as_secs_f64()),
            rate(all),
            peak_memory().map_or("unknown".to_owned(), mib),
        ]],
    );
    Ok(Outcome { interrupted })
}

fn of(spaces: &[SpaceStatus], space: SpaceId) -> Option<&SpaceStatus> {
    spaces.iter().find(|status| status.space == space)
}

fn status(replicas: &mut Replicas, index: usize, space: SpaceId) -> Result<SpaceStatus, Failure> {
    let status = replicas.status(index)?;
    of(&status.spaces, space).cloned().ok_or_else(|| "the space is gone".into())
}

/// Text of so many bytes, of which packing saves about half.
fn text(number: u64, bytes: usize) -> String {
    let mut text = String::with_capacity(bytes + 16);
    let mut state = number;
    while text.len() < bytes {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        text.push_str(&format!("{state:016x}"));
    }
    text.truncate(bytes);
    text
}

/// The most memory that this process had at once.
fn peak_memory() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM"))?;
    let kib: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kib * 1024)
}
