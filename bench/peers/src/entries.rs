//! Beside iroh-docs: many small entries from one replica to another, one entry after the other while both are
//! connected, and insertions at one replica.

mod ours;
mod theirs;

use std::time::Duration;

use iroh_blobs::Hash;

use crate::Failure;
use crate::compare::{Beside, Row, Sizes, alternate};
use crate::report::Report;

/// Entries, and live ones, when nothing is said.
pub(crate) const SIZES: (u64, u64) = (10_000, 200);
/// For how long entries are inserted one at a time: iroh-docs has to sync within it.
const LOCAL: Duration = Duration::from_secs(2);
/// Time between two live entries, so that nothing of the one before goes on.
const APART: Duration = Duration::from_millis(5);

const ABOUT: &str = "Two replicas in one process on the loopback, alternating; both encrypt, over QUIC, without a relay. Entries have a \
    key of 10 bytes and a value of 32 bytes; those that the other replica lacks at first were made in transactions of 100 with Comity and one by \
    one with iroh-docs, which has nothing else. Comity acknowledges an entry once it is synced to disk, and shows a received one once it \
    is synced there. iroh-docs keeps entries in its file store, and acknowledges and shows them before they are synced, which it does with \
    all that came within about half a second. An entry of iroh-docs bears two signatures and the hash of a value: the 32 bytes are that \
    hash, and no values are stored or transferred besides. Bytes are UDP payload in both directions, from connecting until the last entry is there. \
    Local insertions are those of one writer that awaits each, for two seconds. Reconnects are not compared.";
const IROH_DOCS: Beside = Beside { name: "iroh-docs", over: "iroh-docs over Comity", plotted: "µs" };

/// What one repeat came to.
struct Outcome {
    /// All entries at the other replica, s.
    initial: f64,
    initial_bytes: f64,
    /// Until the other replica shows one more entry, µs.
    live_p50: f64,
    live_p99: f64,
    /// Insertions a second.
    local: f64,
}

fn key(number: u64) -> String {
    format!("{number:010}")
}

fn value(number: u64) -> [u8; 32] {
    *Hash::new(number.to_le_bytes()).as_bytes()
}

pub(crate) fn run(sizes: &Sizes) -> Result<Vec<String>, Failure> {
    let (entries, live) = (sizes.objects, sizes.changes);
    let mut report = Report::begin("peers-iroh-docs", ABOUT);
    let (ours, theirs) = (async || ours::run(entries, live).await, async || theirs::run(entries, live).await);
    let outcomes = alternate(sizes, ours, theirs)?;
    let row = |name: String, of: fn(&Outcome) -> f64, least| Row { name, of, least };
    let rows = [
        row(format!("{entries} entries, s"), |outcome| outcome.initial, Some(1.0)),
        row(format!("{entries} entries, bytes"), |outcome| outcome.initial_bytes, None),
        row("a live entry, p50, µs".to_owned(), |outcome| outcome.live_p50, None),
        row("a live entry, p99, µs".to_owned(), |outcome| outcome.live_p99, None),
        row("local insertions a second".to_owned(), |outcome| outcome.local, None),
    ];
    IROH_DOCS.tell(&mut report, rows, &outcomes);
    report.finish(&sizes.folder)
}
