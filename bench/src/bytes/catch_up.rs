//! What a peer that lacks a thousand changes receives.

use std::time::Duration;

use comity_crdts::{Kind, Writer};
use comity_engine::wire::{Dictionary, LaneTip, encode_entry};

use super::{CASES, Source, Steady};
use crate::{Failure, Verdict, table};

/// Changes that the peer lacks.
const CHANGES: usize = 1_000;
/// The engine cuts runs at about so many bytes in stored form.
const RUN_BYTES: usize = 64 * 1024;
/// The chain hash before a stored entry.
const STORED_HASH_BYTES: usize = 32;

struct Load {
    name: &'static str,
    /// Bytes allowed on the stream.
    budget: usize,
    /// Objects that are changed.
    objects: u64,
    /// Which of the cases the next change is.
    case: fn(&mut Source) -> usize,
}

const LOADS: [Load; 4] = [
    Load { name: "typing, one character each", budget: 6_000, objects: 1, case: |_| CASES.len() - 2 },
    Load { name: "typing, erasing, moving about", budget: 8_000, objects: 1, case: |_| CASES.len() - 1 },
    Load { name: "counter add, 20 counters", budget: 10_000, objects: 20, case: |_| 0 },
    Load {
        name: "every other kind in turn, 20 objects of each",
        budget: 16_000,
        objects: 20,
        case: |source| source.below(CASES.len() as u64 - 2) as usize,
    },
];

/// Prints what catching up takes.
pub(super) fn run(verdict: &mut Verdict) -> Result<(), Failure> {
    let mut rows = Vec::new();
    for load in &LOADS {
        let total = catch_up(load)?;
        let each = |time: Duration| format!("{:.1}", time.as_secs_f64() * 1e6 / CHANGES as f64);
        rows.push(vec![
            load.name.to_owned(),
            load.budget.to_string(),
            total.stored.to_string(),
            total.wire.to_string(),
            total.own.to_string(),
            total.runs.to_string(),
            each(total.encoding),
            each(total.decoding),
        ]);
        if total.wire > load.budget {
            let (name, wire, budget) = (load.name, total.wire, load.budget);
            verdict.broken.push(format!("catching up, {name}: {wire} bytes where {budget} are allowed"));
        }
    }
    println!();
    let heads = [
        "catching up with 1,000",
        "budget",
        "in stored form",
        "all bytes",
        "own bytes",
        "runs",
        "µs each to encode",
        "to decode",
    ];
    table::print(&heads, &rows);
    Ok(())
}

/// What all runs take together.
#[derive(Default)]
struct Total {
    stored: usize,
    wire: usize,
    own: usize,
    runs: usize,
    encoding: Duration,
    decoding: Duration,
}

fn catch_up(load: &Load) -> Result<Total, Failure> {
    let mut steady = Steady::new(Kind::Document)?;
    (steady.dictionary, steady.received) = Default::default();
    steady.objects = load.objects;
    let (mut total, mut before) = (Total::default(), steady.tip.clone());
    let (mut entries, mut stored) = (Vec::new(), 0);
    for number in 1..=CHANGES {
        let case = &CASES[(load.case)(&mut steady.source)];
        steady.kind = case.kind;
        let (entry, own) = steady.append(case.make)?;
        total.own += own;
        stored += stored_bytes(&steady, &entry.0);
        entries.push(entry);
        if stored > RUN_BYTES || number == CHANGES {
            let sent = steady.send(&before, &entries)?;
            total.wire += sent.wire;
            total.encoding += sent.encoding;
            total.decoding += sent.decoding;
            total.runs += 1;
            total.stored += std::mem::take(&mut stored);
            before = steady.tip.clone();
            entries.clear();
        }
    }
    Ok(total)
}

fn stored_bytes(steady: &Steady, entry: &comity_engine::wire::LaneEntry) -> usize {
    let (lane, mut out) = (&steady.lanes[0], Writer::new());
    encode_entry(lane, &LaneTip::start(&steady.space, lane), entry, &mut Dictionary::default(), &mut out);
    STORED_HASH_BYTES + out.len()
}
