use automerge::transaction::Transactable;
use automerge::{ActorId, Automerge, ObjType, ROOT, ReadDoc};
use proptest::prelude::*;

use super::*;
use crate::raw_change::hostile::{chunk, deflated_zeros, document_of, run};

/// A document of two authors with text, lists, deletions and conflicts, of some hundred changes.
fn document() -> Automerge {
    let mut ada = Automerge::new().with_actor(ActorId::from(&[1; 16][..]));
    let text = ada.transact(|tx| tx.put_object(ROOT, "text", ObjType::Text)).unwrap().result;
    let list = ada.transact(|tx| tx.put_object(ROOT, "list", ObjType::List)).unwrap().result;
    let mut bob = ada.fork().with_actor(ActorId::from(&[2; 16][..]));
    for round in 0..60_usize {
        for document in [&mut ada, &mut bob] {
            document
                .transact(|tx| {
                    let length = tx.length(&text);
                    tx.splice_text(&text, length / 2, 0, "some words about something ")?;
                    tx.splice_text(&text, length / 3, 2.min(length as isize / 2), "")?;
                    tx.put(ROOT, format!("key {}", round % 7), round as i64)?;
                    tx.insert(&list, 0, vec![round as u8; 400])
                })
                .unwrap();
        }
        if round % 10 == 9 {
            ada.merge(&mut bob).unwrap();
            bob.merge(&mut ada).unwrap();
        }
    }
    ada
}

fn hashes(changes: &[RawChange]) -> Vec<[u8; 32]> {
    changes.iter().map(RawChange::hash).collect()
}

fn read(bytes: &[u8]) -> Result<Vec<RawChange>, DocumentError> {
    RawChange::read_chunks(bytes, &ChunkLimits::DEFAULT)
}

fn over_limit(bytes: &[u8], limits: &ChunkLimits) -> (&'static str, u64) {
    match RawChange::read_chunks(bytes, limits) {
        Err(DocumentError::OverLimit { what, value_max, .. }) => (what, value_max),
        other => panic!("not refused by a limit: {other:?}"),
    }
}

#[test]
fn changes_are_the_same_whichever_way_they_come() {
    let document = document();
    let mut changes = document.get_changes(&[]);
    let expected: Vec<_> = changes.iter().map(|change| change.hash().0).collect();
    let raw: Vec<u8> = changes.iter().flat_map(|change| change.raw_bytes().to_vec()).collect();
    let deflated: Vec<u8> = changes.iter_mut().flat_map(|change| change.bytes().to_vec()).collect();
    assert!(deflated.len() < raw.len(), "some changes are deflated");
    let (saved, plain) = (document.save(), document.save_nocompress());
    assert!(saved.len() < plain.len(), "some columns are deflated");
    for bytes in [&raw, &deflated, &saved, &plain] {
        let read = read(bytes).unwrap();
        assert_eq!(hashes(&read), expected);
        assert!(read.iter().zip(&changes).all(|(raw, change)| raw.bytes() == change.raw_bytes()));
    }
    let all = [&raw[..], &saved, &deflated].concat();
    assert_eq!(hashes(&read(&all).unwrap()), expected.repeat(3));
    assert_eq!(read(&[]), Ok(Vec::new()));
    assert_eq!(read(&Automerge::new().save()), Ok(Vec::new()));
}

#[test]
fn bytes_that_are_cut_or_altered_are_refused_as_a_whole() {
    let document = document();
    let mut change = document.get_changes(&[]).swap_remove(80);
    let (saved, deflated) = (document.save(), change.bytes().to_vec());
    assert_eq!((saved[8], deflated[8]), (CHUNK_DOCUMENT, CHUNK_DEFLATED));
    for bytes in [&saved, &deflated] {
        for cut in (1..bytes.len()).step_by(7) {
            assert!(read(&bytes[..cut]).is_err(), "cut at {cut}");
            assert!(read(&[&deflated, &bytes[..cut]].concat()).is_err(), "cut at {cut} of the second");
        }
        let mut altered = bytes.clone();
        altered[4] ^= 1;
        assert_eq!(read(&altered), Err(DocumentError::Checksum));
    }
    let bundle = document.bundle([change.hash()]).unwrap();
    assert_eq!(read(bundle.bytes()), Err(DocumentError::ChunkType { chunk_type: 3 }));
    assert_eq!(read(&chunk(4, &[])), Err(DocumentError::ChunkType { chunk_type: 4 }));
}

#[test]
fn each_limit_is_named_when_it_is_exceeded_and_counts_all_chunks() {
    let document = document();
    let mut changes = document.get_changes(&[]);
    let ops: u64 = changes.iter().map(|change| change.len() as u64).sum();
    let (count, saved, default) = (changes.len() as u64, document.save(), ChunkLimits::DEFAULT);
    let deflated: Vec<u8> = changes.iter_mut().flat_map(|change| change.bytes().to_vec()).collect();
    let bytes = saved.len() - 1;
    assert_eq!(over_limit(&saved, &ChunkLimits { bytes, ..default }), ("bytes supplied", bytes as u64));
    for (bytes, is_document) in [(&saved, true), (&deflated, false)] {
        let changes = count - 1;
        assert_eq!(over_limit(bytes, &ChunkLimits { changes, ..default }), ("changes supplied", changes));
        let ops = if is_document { 1_000 } else { ops - 1 };
        assert_eq!(over_limit(bytes, &ChunkLimits { ops, ..default }), ("operations supplied", ops));
        let inflated_bytes = 1_000;
        let limits = ChunkLimits { inflated_bytes, ..default };
        assert_eq!(over_limit(bytes, &limits), ("inflated bytes", inflated_bytes));
        let exact = ChunkLimits { changes: count, ..default };
        assert_eq!(RawChange::read_chunks(bytes, &exact).map(|changes| changes.len() as u64), Ok(count));
        let twice = bytes.repeat(2);
        assert_eq!(over_limit(&twice, &exact).0, "changes supplied");
    }
    let limits = ChunkLimits { memory_bytes: 100_000, ..default };
    assert_eq!(over_limit(&saved, &limits), ("bytes to unpack documents", 100_000));
}

#[test]
fn deflated_bytes_are_one_whole_stream_and_not_too_long() {
    let zeros = chunk(CHUNK_DEFLATED, &deflated_zeros(1));
    assert_eq!(
        over_limit(&zeros, &ChunkLimits::DEFAULT),
        ("inflated bytes", DOCUMENT_CHANGE_BYTES_MAX as u64)
    );
    let invalid =
        |bytes: &[u8]| matches!(read(bytes), Err(DocumentError::Malformed(DecodeError::Invalid { .. })));
    for contents in [&[][..], &[0xff; 20], &[3], &[3, 0, 0]] {
        assert!(invalid(&chunk(CHUNK_DEFLATED, contents)), "{contents:?}");
    }
    // An empty stream is sound, and no change.
    assert_eq!(read(&chunk(CHUNK_DEFLATED, &[3, 0])), Err(DocumentError::Checksum));
}

#[test]
fn documents_that_claim_too_much_are_refused_before_automerge_sees_them() {
    let limits = ChunkLimits::DEFAULT;
    let ops = limits.ops as i64 + 1;
    for column in [run(ops, &[0]), run(i64::MAX, &[0]), [run(i64::MAX, &[0]), run(i64::MAX, &[0])].concat()] {
        let document = document_of(1, &[], &[(33, column)]);
        assert_eq!(over_limit(&document, &limits), ("operations supplied", limits.ops));
    }
    let changes = document_of(1, &[(1, run(limits.changes as i64 + 1, &[0]))], &[]);
    assert_eq!(over_limit(&changes, &limits), ("changes supplied", limits.changes));
    let longer = document_of(1, &[(1, run(2, &[0])), (3, run(i64::MAX, &[1]))], &[]);
    assert_eq!(over_limit(&longer, &limits), ("rows of a column in a document", 2));
    let mut name = Writer::new();
    name.blob(&[b'a'; 100_000]);
    let named = document_of(1, &[], &[(21, run(1_000, name.as_slice())), (33, run(1_000, &[0]))]);
    assert_eq!(over_limit(&named, &limits), ("bytes of names supplied", limits.inflated_bytes));
    let mut many = Writer::new();
    many.varint(1 << 40);
    let linked = document_of(1, &[], &[(33, run(1, &[0])), (128, run(1, many.as_slice()))]);
    assert_eq!(over_limit(&linked, &limits).0, "links in a document");
    let valued = document_of(1, &[], &[(33, run(9, &[0])), (86, run(9, &[0x16])), (87, vec![0; 8])]);
    assert_eq!(over_limit(&valued, &limits), ("bytes of values in a document", 8));
    let zeros = document_of(1, &[], &[(33 | 8, deflated_zeros(5))]);
    assert_eq!(over_limit(&zeros, &limits), ("inflated bytes", limits.inflated_bytes));
    // A hundred thousand changes that each claim to end at a number far beyond that of the one before.
    let far = document_of(
        1,
        &[(1, run(200_000, &[0])), (3, run(200_000, &[1])), (19, run(200_000, &[0x80, 0x80, 1]))],
        &[],
    );
    assert_eq!(over_limit(&far, &limits), ("bytes to unpack documents", limits.memory_bytes));
}

#[test]
fn a_document_whose_changes_depend_on_later_ones_is_refused_before_automerge_panics() {
    for dependency in [0, 1, 5] {
        let changes = [
            (1, run(1, &[0])),
            (3, run(1, &[1])),
            (19, run(1, &[1])),
            (64, run(1, &[1])),
            (67, run(1, &[dependency])),
        ];
        let refused = read(&document_of(1, &changes, &[])).unwrap_err();
        assert!(matches!(refused, DocumentError::Malformed(DecodeError::Invalid { .. })), "{refused}");
    }
}

proptest! {
    /// The checksum is made to fit, so that what is altered is read.
    #[test]
    fn altered_chunks_are_refused_or_hold_changes(
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        is_deflated: bool,
    ) {
        let document = document();
        let saved = if is_deflated { document.save() } else { document.save_nocompress() };
        let mut reader = Reader::new(&saved);
        let mut contents = Chunk::read(&mut reader, saved.len()).unwrap().contents.to_vec();
        for (at, byte) in edits {
            let at = at.index(contents.len());
            contents[at] = byte;
        }
        if let Ok(changes) = read(&chunk(CHUNK_DOCUMENT, &contents)) {
            prop_assert!(changes.iter().all(|change| RawChange::parse(change.bytes()).as_ref() == Ok(change)));
        }
    }

    #[test]
    fn random_bytes_are_no_chunks(bytes in prop::collection::vec(any::<u8>(), 1..200), chunk_type in 0..4_u8) {
        prop_assert!(read(&bytes).is_err());
        let _ = read(&chunk(chunk_type, &bytes));
    }
}
