//! Beside samod: many small documents from one replica to another, a reconnect with nothing new, and a burst of
//! changes to one document.
//!
//! Comity is durable at both ends, over QUIC; samod keeps everything in memory here, over TCP without encryption.

mod ours;
mod theirs;

use automerge::transaction::Transactable;
use automerge::{AutomergeError, ROOT};

use crate::Failure;
use crate::compare::{Beside, Row, Sizes, alternate};
use crate::report::Report;

/// Documents and changes when nothing is said.
pub(crate) const SIZES: (u64, u64) = (1_000, 1_000);

const ABOUT: &str = "Two replicas in one process on the loopback, alternating: Comity syncs every change to disk at both ends and encrypts; \
    samod keeps everything in memory and speaks plain TCP. Documents of three fields.";
const SAMOD: Beside = Beside { name: "samod", over: "samod over Comity", plotted: "s" };

/// What one repeat came to.
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

pub(crate) fn run(sizes: &Sizes) -> Result<Vec<String>, Failure> {
    let (documents, changes) = (sizes.objects, sizes.changes);
    let mut report = Report::begin("peers", ABOUT);
    let (ours, theirs) =
        (async || ours::run(documents, changes).await, async || theirs::run(documents, changes).await);
    let outcomes = alternate(sizes, ours, theirs)?;
    let row = |name: String, of: fn(&Outcome) -> f64, least| Row { name, of, least: Some(least) };
    let rows = [
        row(format!("{documents} documents, s"), |outcome| outcome.initial, 50.0),
        row(format!("{documents} documents, bytes"), |outcome| outcome.initial_bytes, 1.0),
        row("idle reconnect, s".to_owned(), |outcome| outcome.reconnect, 100.0),
        row("idle reconnect, bytes".to_owned(), |outcome| outcome.reconnect_bytes, 1_000.0),
        row(format!("burst of {changes} changes to a document, s"), |outcome| outcome.burst, 10.0),
    ];
    SAMOD.tell(&mut report, rows, &outcomes);
    report.finish(&sizes.folder)
}
