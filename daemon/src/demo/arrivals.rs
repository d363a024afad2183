//! When what was written in one region became visible in the others.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use comity::{ChangeEvent, Did, ObjectChange, OriginId};
use serde_json::{Value as Json, json};

use super::world::{LIKES, NAME, NOTE, STOCK, TAGS};
use crate::http::value::to_json;

/// Writes that are remembered; the oldest are forgotten first.
const WRITES_MAX: usize = 256;

/// Writes that the page shows.
const SHOWN_MAX: usize = 24;

/// Measurements kept for each direction of a link.
const MEASURED_MAX: usize = 48;

/// Regions.
const REGIONS: usize = 3;

/// What was written lately, and how long it took to arrive.
#[derive(Default)]
pub(super) struct Arrivals {
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    writes: VecDeque<Write>,
    next: u64,
    /// Milliseconds, by who wrote and where it arrived.
    measured: BTreeMap<(usize, usize), VecDeque<u64>>,
}

/// One change set.
struct Write {
    number: u64,
    change: (OriginId, u64),
    author: usize,
    what: String,
    seen: [Option<Instant>; REGIONS],
}

impl Arrivals {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Each change to it is whole, so one that panicked on the way left nothing half done.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that a change set of the region `author` became visible in the region `at`.
    pub(super) fn note(&self, event: &ChangeEvent, author: usize, at: usize) {
        let now = Instant::now();
        let words: Vec<String> = event.changes.iter().filter_map(words).collect();
        if words.is_empty() {
            return;
        }
        let mut inner = self.lock();
        let change = (event.origin, event.seq);
        let found = inner.writes.iter().rposition(|write| write.change == change);
        let index = found.unwrap_or_else(|| {
            let number = inner.next;
            inner.next += 1;
            if inner.writes.len() == WRITES_MAX {
                inner.writes.pop_front();
            }
            let seen = [None; REGIONS];
            inner.writes.push_back(Write { number, change, author, what: words.join(", "), seen });
            inner.writes.len() - 1
        });
        inner.writes[index].seen[at] = Some(now);
        if let Some(written) = inner.writes[index].seen[author]
            && at != author
        {
            let took = now.saturating_duration_since(written).as_millis() as u64;
            let measured = inner.measured.entry((author, at)).or_default();
            if measured.len() == MEASURED_MAX {
                measured.pop_front();
            }
            measured.push_back(took);
        }
    }

    /// The latest writes, the newest first, with how many milliseconds later each was visible where.
    pub(super) fn shown(&self, names: &[&str]) -> Json {
        let inner = self.lock();
        let shown = inner.writes.iter().rev().take(SHOWN_MAX).map(|write| {
            let written = write.seen[write.author];
            let arrived = names.iter().zip(write.seen).enumerate().filter(|(at, _)| *at != write.author);
            let arrived = arrived.map(|(_, (name, seen))| {
                let took = written.zip(seen).map(|(written, seen)| {
                    seen.saturating_duration_since(written).as_millis() as u64
                });
                ((*name).to_owned(), json!(took))
            });
            let arrived: serde_json::Map<String, Json> = arrived.collect();
            json!({"number": write.number, "region": names[write.author], "what": write.what, "arrived": arrived})
        });
        Json::Array(shown.collect())
    }

    /// Milliseconds from one region to another, the oldest first.
    pub(super) fn measured(&self, from: usize, to: usize) -> Vec<u64> {
        self.lock()
            .measured
            .get(&(from, to))
            .map(|measured| measured.iter().copied().collect())
            .unwrap_or_default()
    }
}

/// What was done to an object, for a person; `None` for what is only there for the page.
fn words(change: &ObjectChange) -> Option<String> {
    let at = (change.object.collection(), change.object.key());
    let did = change.did.first()?;
    let text = match did {
        Did::Edited { .. } if at == NOTE => "typed in the note".to_owned(),
        Did::Added(by) if at == LIKES => format!("{by:+} like"),
        Did::Inserted(tag) if at == TAGS => format!("added the tag {}", to_json(tag)),
        Did::Removed(tag) if at == TAGS => format!("removed the tag {}", to_json(tag)),
        Did::Written { value, replaced, .. } if at == NAME && replaced.len() > 1 => {
            format!("resolved the name to {}", to_json(value))
        }
        Did::Written { value, .. } if at == NAME => format!("wrote the name {}", to_json(value)),
        Did::Raised(by) if at == STOCK => format!("restocked {by}"),
        Did::Lowered(by) if at == STOCK => format!("sold {by}"),
        Did::RightsMoved { amount, .. } if at == STOCK => format!("handed over the right to sell {amount}"),
        _ => return None,
    };
    Some(text)
}
