use automerge::legacy::{self, ElementId, ObjectId, OpId, OpType};
use automerge::marks::{ExpandMark, Mark};
use automerge::transaction::Transactable;
use automerge::{ActorId, Automerge, Change, ObjType, ROOT, ReadDoc};
use proptest::prelude::*;

use super::hostile::{change_of, chunk, run};
use super::operations::{Action, Key, OpName};
use super::*;
use crate::codec::Writer;

const COLUMN_PREDECESSOR_ACTOR: u64 = 113;

fn parse_columns(columns: &[(u64, Vec<u8>)]) -> Result<RawChange, DocumentError> {
    RawChange::parse(&change_of(columns))
}

fn over_limit(result: Result<RawChange, DocumentError>) -> (&'static str, u64) {
    match result {
        Err(DocumentError::OverLimit { what, value_max, .. }) => (what, value_max),
        other => panic!("not refused by a limit: {other:?}"),
    }
}

/// Changes of an Automerge document with every sort of operation.
fn real_changes() -> Vec<Change> {
    let mut document = Automerge::new().with_actor(ActorId::from(&[7; 16][..]));
    document.transact(|tx| tx.put(ROOT, "zahl", -1)).unwrap();
    let text = document.transact(|tx| tx.put_object(ROOT, "text", ObjType::Text)).unwrap().result;
    let list = document.transact(|tx| tx.put_object(ROOT, "list", ObjType::List)).unwrap().result;
    for round in 0..20 {
        document
            .transact(|tx| {
                tx.put(ROOT, format!("k{}", round % 3), round)?;
                tx.splice_text(&text, round as usize, 1.min(round as isize), "grüße")?;
                tx.insert(&list, 0, "item")?;
                let bold = Mark::new("bold".to_owned(), true, round as usize, round as usize + 3);
                tx.mark(&text, bold, ExpandMark::After)?;
                if round % 4 == 3 {
                    tx.delete(&list, 1)?;
                }
                tx.delete(ROOT, "k0")
            })
            .unwrap();
    }
    document.get_changes(&[])
}

#[test]
fn a_parsed_change_says_what_automerge_says_about_it() {
    for change in real_changes() {
        let raw = RawChange::parse(change.raw_bytes()).unwrap();
        assert_eq!(raw.hash(), change.hash().0);
        assert_eq!(raw.bytes(), change.raw_bytes());
        assert_eq!(raw.ops(), change.len() as u64);
        assert_eq!(raw.max_op(), change.max_op());
        assert_eq!((raw.seq(), raw.start_op()), (change.seq(), change.start_op().get()));
        assert_eq!(raw.actor(), change.actor_id().to_bytes());
        assert!(raw.deps().eq(change.deps().iter().map(|hash| hash.0)));
    }
}

#[test]
fn operations_are_read_as_automerge_reads_them() {
    let mut all = 0;
    for change in real_changes() {
        let raw = RawChange::parse(change.raw_bytes()).unwrap();
        let read = raw.operations().unwrap();
        let expected = change.decode().operations;
        assert_eq!(read.len(), expected.len());
        for (index, (read, expected)) in read.iter().zip(&expected).enumerate() {
            let named = |name: &OpName<'_>| OpId(name.counter, ActorId::from(name.actor));
            assert_eq!(named(&read.name), OpId(raw.start_op() + index as u64, change.actor_id().clone()));
            assert_eq!(
                read.object.as_ref().map_or(ObjectId::Root, |name| ObjectId::Id(named(name))),
                expected.obj
            );
            let key = match &expected.key {
                legacy::Key::Map(_) => None,
                legacy::Key::Seq(element) => Some(element.clone()),
            };
            let read_key = match &read.key {
                Key::Map => None,
                Key::Head => Some(ElementId::Head),
                Key::Element(name) => Some(ElementId::Id(named(name))),
            };
            assert_eq!((read_key, read.is_insert), (key, expected.insert));
            let action = match &expected.action {
                OpType::Make(ObjType::Map | ObjType::Table) => Action::MakeMap,
                OpType::Make(ObjType::List) => Action::MakeList,
                OpType::Make(ObjType::Text) => Action::MakeText,
                OpType::MarkBegin(_) => Action::MarkBegin,
                OpType::MarkEnd(_) => Action::MarkEnd,
                OpType::Delete | OpType::Increment(_) | OpType::Put(_) => Action::Other,
            };
            assert_eq!(read.action, action);
            all += 1;
        }
    }
    assert!(all > 100, "{all} operations were compared");
}

#[test]
fn an_operation_count_of_any_size_is_refused_without_counting_it_out() {
    let ops_max = DOCUMENT_CHANGE_OPS_MAX;
    let limit = ("operations in a change", ops_max);
    for column in [
        run(ops_max as i64 + 1, &[1]),
        run(i64::MAX, &[1]),
        [run(i64::MAX, &[1]), run(i64::MAX, &[1])].concat(),
        [run(0, &[]), vec![0xff, 0xff, 0xff, 0xff, 0x0f]].concat(),
        [run(ops_max as i64, &[1]), run(-1, &[1])].concat(),
    ] {
        assert_eq!(over_limit(parse_columns(&[(COLUMN_ACTION, column)])), limit);
    }
    let most = parse_columns(&[(COLUMN_ACTION, run(ops_max as i64, &[1]))]).unwrap();
    assert_eq!(most.ops(), ops_max);
    let truncated = parse_columns(&[(COLUMN_ACTION, run(i64::MIN, &[1]))]);
    assert!(matches!(truncated, Err(DocumentError::Malformed(DecodeError::Truncated { .. }))));
}

#[test]
fn one_operation_cannot_name_a_million_predecessors() {
    let mut million = Writer::new();
    million.varint(1_000_000);
    let columns = [
        (COLUMN_ACTION, run(-1, &[1])),
        (COLUMN_PREDECESSOR_COUNT, run(-1, million.as_slice())),
        (COLUMN_PREDECESSOR_ACTOR, run(1_000_000, &[0])),
    ];
    let limit = ("predecessors in a change", DOCUMENT_CHANGE_PREDECESSORS_MAX);
    assert_eq!(over_limit(parse_columns(&columns)), limit);
}

#[test]
fn a_long_name_cannot_be_used_ten_thousand_times() {
    let mut name = Writer::new();
    name.blob(&[b'a'; 400_000]);
    for spec in [COLUMN_KEY, COLUMN_MARK_NAME] {
        let mut columns = vec![(COLUMN_ACTION, run(10_000, &[1])), (spec, run(10_000, name.as_slice()))];
        columns.sort_by_key(|(spec, _)| *spec);
        let limit = ("bytes of names in a change", DOCUMENT_CHANGE_NAMES_BYTES_MAX);
        assert_eq!(over_limit(parse_columns(&columns)), limit);
    }
}

#[test]
fn documents_compressed_changes_bundles_and_unknown_chunks_are_refused() {
    for chunk_type in [0, 2, 3, 4, 255] {
        let refused = RawChange::parse(&chunk(chunk_type, &[0; 40]));
        assert_eq!(refused, Err(DocumentError::ChunkType { chunk_type }));
    }
}

#[test]
fn deflated_repeated_and_disordered_columns_are_refused() {
    let action = (COLUMN_ACTION, run(-1, &[1]));
    let deflated = parse_columns(&[(COLUMN_ACTION | COLUMN_DEFLATED, Vec::new())]);
    assert!(matches!(deflated, Err(DocumentError::Malformed(DecodeError::Invalid { .. }))));
    for columns in [vec![action.clone(), action.clone()], vec![action, (COLUMN_KEY, Vec::new())]] {
        let refused = parse_columns(&columns).unwrap_err();
        assert_eq!(refused, DecodeError::NotCanonical { what: "column order" }.into());
    }
}

#[test]
fn framing_is_exact() {
    let good = change_of(&[]);
    assert!(RawChange::parse(&good).is_ok());
    let trailing = [&good[..], &[0]].concat();
    assert!(matches!(
        RawChange::parse(&trailing),
        Err(DocumentError::Malformed(DecodeError::Trailing { .. }))
    ));
    let mut long_length = good.clone();
    let length = long_length[9];
    long_length.splice(9..10, [length | 0x80, 0]);
    assert!(matches!(
        RawChange::parse(&long_length),
        Err(DocumentError::Malformed(DecodeError::NotCanonical { .. }))
    ));
    let mut wrong = good.clone();
    wrong[4] ^= 1;
    assert_eq!(RawChange::parse(&wrong), Err(DocumentError::Checksum));
    for cut in 0..good.len() {
        assert!(RawChange::parse(&good[..cut]).is_err());
    }
    let large = vec![0; DOCUMENT_CHANGE_BYTES_MAX + 1];
    assert_eq!(over_limit(RawChange::parse(&large)).0, "change bytes");
}

proptest! {
    #[test]
    fn signed_numbers_have_one_form(value: i64, bytes in prop::collection::vec(any::<u8>(), 0..12)) {
        let encoded = run(value, &[]);
        prop_assert_eq!(leb128_signed(&mut Reader::new(&encoded), "n"), Ok(value));
        let mut reader = Reader::new(&bytes);
        if let Ok(value) = leb128_signed(&mut reader, "n") {
            let read = bytes.len() - reader.remaining();
            prop_assert_eq!(run(value, &[]), &bytes[..read]);
        }
    }

    /// The checksum is made to fit, so that the altered bytes get past it.
    #[test]
    fn altered_changes_never_panic_and_agree_with_automerge_when_both_accept(
        index in 0..23_usize,
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let change = &real_changes()[index];
        let mut altered = change.raw_bytes()[change.raw_bytes().len() - contents_bytes(change)..].to_vec();
        for (at, byte) in edits {
            let at = at.index(altered.len());
            altered[at] = byte;
        }
        if let Ok(raw) = RawChange::parse(&chunk(CHUNK_CHANGE, &altered)) {
            let mut document = crate::Document::new([1; 16]);
            let outcome = document.apply(std::slice::from_ref(&raw)).unwrap();
            prop_assert_eq!(outcome.applied.len() + outcome.refused.len(), 1);
            if let Some(hash) = outcome.applied.first() {
                let change = document.automerge().get_change_by_hash(&automerge::ChangeHash(*hash)).unwrap();
                prop_assert_eq!(change.raw_bytes(), raw.bytes());
            }
        }
    }

    #[test]
    fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = RawChange::parse(&bytes);
        let _ = RawChange::parse(&chunk(CHUNK_CHANGE, &bytes));
    }
}

fn contents_bytes(change: &Change) -> usize {
    let mut reader = Reader::new(&change.raw_bytes()[9..]);
    reader.varint("length").unwrap() as usize
}
