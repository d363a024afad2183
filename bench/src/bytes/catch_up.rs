//! What a peer that lacks a thousand changes receives.

use std::time::Instant;

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

const LOADS: [Load; 3] = [
    Load { name: "typing, one character each", budget: 6_000, objects: 1, case: |_| CASES.len() - 2 },
    Load { name: "typing, erasing, moving about", budget: 10_000, objects: 1, case: |_| CASES.len() - 1 },
    Load {
        name: "every other kind in turn, 20 objects of each",
        budget: 40_000,
        objects: 20,
        case: |source| source.below(CASES.len() as u64 - 2) as usize,
    },
];

/// Prints what catching up takes.
pub(super) fn run(verdict: &mut Verdict) -> Result<(), Failure> {
    let mut rows = Vec::new();
    for load in &LOADS {
        let mut steady = Steady::new(Kind::Document)?;
        (steady.dictionary, steady.received) = Default::default();
        steady.objects = load.objects;
        let mut before = steady.tip.clone();
        let (mut stored, mut wire, mut runs, mut pending, mut nanos) = (0, 0, 0, Vec::new(), 0);
        let (mut own, mut pending_bytes) = (0, 0);
        for number in 1..=CHANGES {
            let case = &CASES[(load.case)(&mut steady.source)];
            steady.kind = case.kind;
            let (entry, bytes) = steady.append(case.make)?;
            own += bytes;
            pending_bytes += stored_bytes(&steady, &entry.0);
            pending.push(entry);
            if pending_bytes > RUN_BYTES || number == CHANGES {
                let start = Instant::now();
                wire += steady.send(&before, &pending)?.1;
                nanos += start.elapsed().as_nanos();
                runs += 1;
                stored += std::mem::take(&mut pending_bytes);
                before = steady.tip.clone();
                pending.clear();
            }
        }
        rows.push(vec![
            load.name.to_owned(),
            load.budget.to_string(),
            stored.to_string(),
            wire.to_string(),
            own.to_string(),
            runs.to_string(),
            format!("{:.2}", nanos as f64 / CHANGES as f64 / 1_000.0),
        ]);
        if wire > load.budget {
            verdict
                .broken
                .push(format!("catching up, {}: {wire} bytes where {} are allowed", load.name, load.budget));
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
        "µs each, both ends",
    ];
    table::print(&heads, &rows);
    Ok(())
}

fn stored_bytes(steady: &Steady, entry: &comity_engine::wire::LaneEntry) -> usize {
    let (lane, mut out) = (&steady.lanes[0], Writer::new());
    encode_entry(lane, &LaneTip::start(&steady.space, lane), entry, &mut Dictionary::default(), &mut out);
    STORED_HASH_BYTES + out.len()
}
