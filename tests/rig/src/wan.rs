//! Replicas as processes on long paths: a mesh over the distances between real regions, a partition, and a bootstrap that
//! is interrupted. Every path leads through a relay of the controller's ([`comity_path`]); disks, syncs and kills are
//! real. Each ends with what was measured as a table, and with the promises that were not kept.

pub mod interrupted;
pub mod mesh;
pub mod node;
pub mod partition;
pub mod site;

use std::fmt;
use std::time::Duration;

use comity::{Congestion, TransportConfig};
use comity_path::{Conditions, Setup, transfer};

use crate::error::RigError;

/// What a measurement came to.
#[derive(Debug, Default)]
pub struct Outcome {
    /// What was measured: a name and figures.
    pub rows: Vec<(String, String)>,
    /// Each promise that was not kept, as a sentence.
    pub broken: Vec<String>,
}

impl Outcome {
    /// Notes a figure.
    pub fn row(&mut self, name: impl Into<String>, figure: impl Into<String>) {
        self.rows.push((name.into(), figure.into()));
    }

    /// Notes what is wrong unless it holds.
    pub fn promise(&mut self, holds: bool, otherwise: impl FnOnce() -> String) {
        if !holds {
            self.broken.push(otherwise());
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "| | |\n| --- | --- |")?;
        self.rows.iter().try_for_each(|(name, figure)| writeln!(f, "| {name} | {figure} |"))?;
        self.broken.iter().try_for_each(|broken| writeln!(f, "FAILED: {broken}"))
    }
}

/// Bytes as MiB.
pub(crate) fn mib(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}

/// The given percentiles of durations less what each takes at least, as milliseconds.
pub(crate) fn percentiles<const N: usize>(samples: &mut [i64], percents: [usize; N]) -> [String; N] {
    samples.sort_unstable();
    percents.map(|percent| {
        let at = samples.len().saturating_sub(1) * percent / 100;
        samples.get(at).map_or("—".to_owned(), |us| format!("{:.1}", *us as f64 / 1_000.0))
    })
}

/// How long plain QUIC may take at most.
const PLAIN_TIME: Duration = Duration::from_secs(10);

/// What plain QUIC moves over a path, MiB/s: one stream with the settings that replicas have, and no storage.
fn plain_rate(conditions: Conditions, bytes: u64) -> Result<f64, RigError> {
    let config = TransportConfig::default();
    let setup = Setup {
        is_bbr: config.congestion == Congestion::Bbr,
        windows: Some((config.stream_window_bytes, config.connection_window_bytes)),
        socket_bytes: config.socket_bytes,
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let moved = runtime
        .and_then(|runtime| runtime.block_on(transfer(conditions, setup, (bytes, PLAIN_TIME))))
        .map_err(RigError::io("plain QUIC"))?;
    Ok(moved.rate())
}

/// Bytes in a time, beside what plain QUIC moves over such a path when it is given `plain` bytes; nothing beside it for 0.
pub(crate) fn beside_plain(
    (bytes, took): (u64, Duration),
    (conditions, plain): (Conditions, u64),
) -> Result<String, RigError> {
    let rate = bytes as f64 / f64::from(1 << 20) / took.as_secs_f64();
    if plain == 0 {
        return Ok(format!("{rate:.1} MiB/s"));
    }
    let plain = plain_rate(conditions, plain)?;
    Ok(format!("{rate:.1} MiB/s; plain QUIC {plain:.1} MiB/s: {:.2} of it", rate / plain))
}

/// How long a rig waits between two looks.
pub(crate) const LOOK_EVERY: Duration = Duration::from_millis(100);
