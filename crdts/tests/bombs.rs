//! What hostile input costs in memory, counted by the allocator; and in stack, by threads that have little of it.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a failed unwrap is a failed test")]
#![allow(clippy::disallowed_types, reason = "the allocator counts for all tests, so one runs at a time")]

use std::sync::{Mutex, MutexGuard, PoisonError};

use comity_crdts::automerge::legacy::{ObjectId, Op, OpType};
use comity_crdts::automerge::transaction::Transactable;
use comity_crdts::automerge::{Automerge, ObjType, ROOT, ReadDoc};
use comity_crdts::hostile::{
    ALICE, Hostile, Stage, base, change_of, changes, chunk, deflated_zeros, document_of, encode, forged,
    of_mallory, put, run,
};
use comity_crdts::limits::{DOCUMENT_CHANGE_BYTES_MAX, DOCUMENT_DEPTH_MAX};
use comity_crdts::{ChunkLimits, Document, DocumentError, RawChange};
use peak_alloc::PeakAlloc;

#[global_allocator]
static ALLOCATOR: PeakAlloc = PeakAlloc;

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;
/// Threads that serve requests may have no more.
const STACK_BYTES: usize = 512 * KIB;

/// Held by the one test that runs.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    // A backtrace of a panic that is caught takes more than what is measured.
    std::panic::set_hook(Box::new(|panic| eprintln!("{panic}")));
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What `call` allocates at its peak, bytes.
fn peak<T>(call: impl FnOnce() -> T) -> (T, usize) {
    let before = ALLOCATOR.current_usage();
    ALLOCATOR.reset_peak_usage();
    let output = call();
    (output, ALLOCATOR.peak_usage().saturating_sub(before))
}

fn document() -> Document {
    let mut document = Document::new(ALICE);
    let changes: Vec<_> = base().iter().map(|chunk| RawChange::parse(chunk).unwrap()).collect();
    document.apply(&changes).unwrap();
    document
}

fn limit(result: &Result<Vec<RawChange>, DocumentError>) -> &'static str {
    match result {
        Err(DocumentError::OverLimit { what, .. }) => what,
        other => panic!("not refused by a limit: {other:?}"),
    }
}

/// Beside what the bytes themselves take, several times over: what unwinding and messages take.
const SPARE_BYTES: usize = 256 * KIB;

#[test]
fn refusing_a_hostile_change_takes_memory_in_proportion_to_its_bytes() {
    let _alone = alone();
    let document = document();
    for Hostile { name, bytes, stage } in changes() {
        let (parsed, parsing) = peak(|| RawChange::parse(&bytes));
        let (_, reading) = peak(|| RawChange::read_chunks(&bytes, &ChunkLimits::DEFAULT));
        let most = 4 * bytes.len() + 4 * KIB;
        assert!(parsing.max(reading) <= most, "{name}: {parsing} and {reading} for {} bytes", bytes.len());
        if stage == Stage::Parse {
            assert!(parsed.is_err(), "{name}");
            continue;
        }
        let change = parsed.unwrap();
        let mut document = document.clone();
        let (outcome, applying) = peak(|| document.apply(std::slice::from_ref(&change)).unwrap());
        println!(
            "{name}: {} bytes, {parsing} to parse, {reading} to read, {applying} to refuse",
            bytes.len()
        );
        assert_eq!(outcome.refused.len(), 1, "{name}");
        let operations = change.ops() as usize;
        assert!(applying <= 4 * bytes.len() + 4 * KIB * operations + SPARE_BYTES, "{name}: {applying}");
    }
}

#[test]
fn a_mebibyte_that_inflates_to_a_gibibyte_takes_no_more_than_the_limits_allow() {
    let _alone = alone();
    let zeros = deflated_zeros(64);
    assert!(zeros.len() < 5 * MIB / 4, "{} bytes", zeros.len());
    let limits = ChunkLimits::DEFAULT;
    let as_change = chunk(2, &zeros);
    let (refused, most) = peak(|| RawChange::read_chunks(&as_change, &limits));
    println!("a deflated change: {} bytes, {most} to refuse", as_change.len());
    assert_eq!(limit(&refused), "inflated bytes");
    assert!(most <= 2 * DOCUMENT_CHANGE_BYTES_MAX + SPARE_BYTES, "{most}");
    for column in [33 | 8, 87 | 8] {
        let in_document = document_of(1, &[], &[(column, zeros.clone())]);
        let (refused, most) = peak(|| RawChange::read_chunks(&in_document, &limits));
        println!("a deflated column: {} bytes, {most} to refuse", in_document.len());
        assert_eq!(limit(&refused), "inflated bytes");
        assert!(most <= 2 * limits.inflated_bytes as usize + SPARE_BYTES, "{most}");
    }
    // A deflated column of a change is refused whatever is in it.
    let in_change = change_of(&[(66 | 8, zeros)]);
    let (refused, most) = peak(|| RawChange::read_chunks(&in_change, &limits));
    assert!(
        matches!(refused, Err(DocumentError::OverLimit { .. } | DocumentError::Malformed(_))),
        "{refused:?}"
    );
    assert!(most <= 4 * KIB, "{most}");
}

/// Documents that ask for as much as they can within the limits, and are refused at the very end.
#[test]
fn the_dearest_documents_take_no_more_than_the_limits_allow() {
    let _alone = alone();
    let limits =
        ChunkLimits { memory_bytes: 64 * MIB as u64, inflated_bytes: 8 * MIB as u64, ..ChunkLimits::DEFAULT };
    let number = |number: u64| {
        let (mut out, mut rest) = (Vec::new(), number);
        while rest >= 0x80 {
            out.push(rest as u8 | 0x80);
            rest >>= 7;
        }
        out.push(rest as u8);
        out
    };
    // Each change follows the one before.
    let of_changes = |count: i64, ops: u8| {
        vec![
            (1, run(count, &[0])),
            (3, run(count, &[1])),
            (19, run(count, &[ops])),
            (35, run(count, &[0])),
            (64, [run(-1, &[0]), run(count - 1, &[1])].concat()),
            (67, [run(-1, &[0]), run(count - 2, &[1])].concat()),
            (86, run(count, &[0])),
        ]
    };
    let of_ops = |count: i64| {
        vec![
            (21, run(count, b"\x01k")),
            (33, run(count, &[0])),
            (35, run(count, &[1])),
            (52, number(count as u64)),
            (66, run(count, &[1])),
            (86, run(count, &[0])),
            (128, run(count, &[0])),
        ]
    };
    let one_change = [
        (1, run(-1, &[0])),
        (3, run(-1, &[1])),
        (19, run(-1, &[0xc0, 0xf7, 0x07])),
        (35, run(-1, &[0])),
        (64, run(-1, &[0])),
        (86, run(-1, &[0])),
    ];
    let cases = [
        ("changes without operations", document_of(1, &of_changes(45_000, 0), &[])),
        ("changes that claim many operations", document_of(1, &of_changes(12_000, 60), &[])),
        ("changes that claim few operations", document_of(1, &of_changes(19_000, 7), &[])),
        ("operations of one change", document_of(1, &one_change, &of_ops(120_000))),
        ("operations of a change each", document_of(1, &of_changes(30_000, 1), &of_ops(30_000))),
        ("actors", document_of(200_000, &of_changes(900, 1), &[])),
    ];
    for (name, bytes) in cases {
        let (outcome, most) = peak(|| RawChange::read_chunks(&bytes, &limits));
        let outcome = outcome.map(|changes| changes.len());
        println!("{name}: {} bytes, {most} at the peak, {outcome:?}", bytes.len());
        let by_estimate =
            matches!(outcome, Err(DocumentError::OverLimit { what: "bytes to unpack documents", .. }));
        assert!(!by_estimate, "{name} does not come to Automerge");
        let allowed = limits.memory_bytes + 4 * bytes.len() as u64;
        assert!(most as u64 <= allowed, "{name}: {most} of {allowed}");
    }
}

#[test]
fn a_real_document_is_unpacked_within_what_is_estimated_for_it() {
    let _alone = alone();
    let mut document = Automerge::new();
    let text = document.transact(|tx| tx.put_object(ROOT, "text", ObjType::Text)).unwrap().result;
    for round in 0..4_000_usize {
        document.transact(|tx| tx.splice_text(&text, tx.length(&text) / 2, 0, &format!("{round} "))).unwrap();
    }
    let saved = document.save();
    drop(document);
    let (changes, most) = peak(|| RawChange::read_chunks(&saved, &ChunkLimits::DEFAULT).unwrap());
    println!("{} changes in {} bytes, {most} at the peak", changes.len(), saved.len());
    assert_eq!(changes.len(), 4_001);
    let ops: u64 = changes.iter().map(RawChange::ops).sum();
    let least = ChunkLimits { memory_bytes: most as u64 / 2, ..ChunkLimits::DEFAULT };
    assert!(RawChange::read_chunks(&saved, &least).is_err(), "{ops} operations took {most}");
}

fn nested(count: u64) -> Vec<u8> {
    let object =
        |index: u64| index.checked_sub(1).map_or(ObjectId::Root, |outer| ObjectId::Id(of_mallory(outer)));
    let make = |index| Op { action: OpType::Make(ObjType::Map), obj: object(index), ..put("m") };
    encode(forged((0..count).map(make).collect()))
}

/// What is taken can be walked by recursion on little stack, and what cannot is refused on as little.
#[test]
fn the_deepest_document_can_be_walked_on_a_small_stack() {
    let _alone = alone();
    let walk = || {
        let mut document = document();
        for count in [300, 5_000, DOCUMENT_DEPTH_MAX + 1] {
            let too_deep = RawChange::parse(&nested(count)).unwrap();
            let outcome = document.apply(std::slice::from_ref(&too_deep)).unwrap();
            let [(_, DocumentError::OverLimit { what: "nesting depth", .. })] = &outcome.refused[..] else {
                panic!("{count} nested maps: {outcome:?}")
            };
        }
        let deepest = RawChange::parse(&nested(DOCUMENT_DEPTH_MAX)).unwrap();
        assert_eq!(document.apply(std::slice::from_ref(&deepest)).unwrap().refused, []);
        let loaded = Automerge::load(&document.automerge().save()).unwrap();
        assert_eq!(loaded.hydrate(None), document.automerge().hydrate(None));
    };
    let thread = std::thread::Builder::new().stack_size(STACK_BYTES).spawn(walk).unwrap();
    thread.join().unwrap();
}
