use automerge::marks::{ExpandMark, Mark};
use automerge::transaction::{CommitOptions, Transactable};
use automerge::{ActorId, Automerge, Change, ObjId, ObjType, PatchLog, ROOT, ReadDoc};
use proptest::prelude::*;
use proptest::sample::Index;

use super::*;

const OWNER: [u8; 16] = [1; 16];
const SECONDS: i64 = 1_700_000_000;

fn encoded(change: &RawChange, recent: &RecentChanges) -> Vec<u8> {
    let mut out = Writer::new();
    change.encode_elided(&expected(recent), &mut out);
    out.finish()
}

fn decoded(bytes: &[u8], recent: &RecentChanges) -> Result<RawChange, DocumentError> {
    let mut reader = Reader::new(bytes);
    let change = RawChange::decode_elided(&expected(recent), &mut reader)?;
    reader.finish("change")?;
    Ok(change)
}

fn expected(recent: &RecentChanges) -> Expected<'_> {
    Expected { recent, actor: &OWNER, time_seconds: SECONDS }
}

/// Sends changes one after the other; the bytes of each.
fn send<'a>(changes: impl IntoIterator<Item = &'a RawChange>) -> Vec<usize> {
    let (mut written, mut read) = (RecentChanges::default(), RecentChanges::default());
    let mut sizes = Vec::new();
    for change in changes {
        let bytes = encoded(change, &written);
        let received = decoded(&bytes, &read).unwrap();
        assert_eq!(received.bytes(), change.bytes());
        assert_eq!(received.hash(), change.hash());
        written.note(change);
        read.note(&received);
        sizes.push(bytes.len());
    }
    sizes
}

fn raw(change: &Change) -> RawChange {
    RawChange::parse(change.raw_bytes()).unwrap()
}

fn options() -> CommitOptions {
    CommitOptions::default().with_time(SECONDS)
}

/// A document with a text, by the actor that owns the lane.
fn with_text(start: &str) -> (Automerge, ObjId) {
    let mut document = Automerge::new().with_actor(ActorId::from(&OWNER[..]));
    let mut tx = document.transaction();
    let text = tx.put_object(ROOT, "text", ObjType::Text).unwrap();
    tx.splice_text(&text, 0, 0, start).unwrap();
    tx.commit_with(options());
    (document, text)
}

fn splice(document: &mut Automerge, text: &ObjId, (at, deleted, inserted): (usize, isize, &str)) {
    let mut tx = document.transaction();
    tx.splice_text(text, at, deleted, inserted).unwrap();
    tx.commit_with(options());
}

/// The bytes of the changes after the first.
fn sizes_of(document: &Automerge) -> Vec<usize> {
    let changes: Vec<_> = document.get_changes(&[]).iter().map(raw).collect();
    send(&changes)[1..].to_vec()
}

#[test]
fn a_keystroke_takes_three_bytes_and_its_character() {
    let (mut document, text) = with_text("");
    let typed = "The quick brown fox jumps over the lazy dog, and so on.";
    for (at, letter) in typed.char_indices() {
        splice(&mut document, &text, (at, 0, &letter.to_string()));
    }
    let sizes = sizes_of(&document);
    assert!(sizes[2..].iter().all(|bytes| *bytes == 4), "{sizes:?}");
}

#[test]
fn other_edits_of_a_text_take_little_too() {
    let (mut document, text) = with_text("Milk, bread and more of the same");
    for round in 0..60_usize {
        let edit = match round % 6 {
            0 => (round % 20, 0, "ü"),
            1 => (round % 17, 1, ""),
            2 => (round % 13, 1, "x"),
            3 => (round % 19, 0, "pasted words"),
            4 => (round % 11, 3, ""),
            _ => (round % 7, 0, "."),
        };
        splice(&mut document, &text, edit);
    }
    let sizes = sizes_of(&document);
    let steady = &sizes[12..];
    let mean = steady.iter().sum::<usize>() as f64 / steady.len() as f64;
    assert!(mean <= 16.0 && steady.iter().all(|bytes| *bytes <= 36), "{mean}: {steady:?}");
}

#[test]
fn a_change_after_that_of_another_author_names_it_and_nothing_else() {
    let (mut document, text) = with_text("ab");
    let mut other = document.fork().with_actor(ActorId::from(&[2_u8; 16][..]));
    let mut lane = Vec::new();
    for round in 0..10 {
        splice(&mut document, &text, (round, 0, "x"));
        lane.push(raw(document.get_last_local_change().as_ref().unwrap()));
        other.merge(&mut document).unwrap();
        splice(&mut other, &text, (round, 0, "y"));
        document.merge(&mut other).unwrap();
    }
    let sizes = send(&lane);
    assert!(sizes[2..].iter().all(|bytes| *bytes <= 48), "{sizes:?}");
}

#[test]
fn what_is_large_is_not_kept_but_what_was_before_it_is() {
    let (mut document, text) = with_text("");
    splice(&mut document, &text, (0, 0, "v"));
    splice(&mut document, &text, (1, 0, "w"));
    splice(&mut document, &text, (2, 0, &"paste ".repeat(500)));
    splice(&mut document, &text, (1, 0, "y"));
    splice(&mut document, &text, (2, 0, "z"));
    let sizes = sizes_of(&document);
    assert!(sizes[3] <= 48 && sizes[4] <= 8, "{sizes:?}");
}

#[test]
fn a_change_of_many_columns_is_written_out_and_not_kept() {
    let mut contents = Writer::new();
    contents.varint(0);
    contents.blob(&OWNER);
    contents.bytes(&[1, 1, 0, 0, 0]);
    contents.varint(KEPT_COLUMNS_MAX as u64 + 1);
    // Columns that hold nothing, of a sort that nobody knows.
    (0..=KEPT_COLUMNS_MAX as u64).for_each(|id| {
        contents.varint(id << 4 | 7);
        contents.u8(0);
    });
    let wide = RawChange::from_contents(contents.as_slice()).unwrap();
    let mut recent = RecentChanges::default();
    assert_eq!(decoded(&encoded(&wide, &recent), &recent), Ok(wide.clone()));
    recent.note(&wide);
    assert!(recent.changes.is_empty());
}

/// Three authors who edit one document in every way, and see of each other what the choices say.
fn history(choices: &[(u8, Index, u8)]) -> Vec<Automerge> {
    let (first, text) = with_text("start");
    let mut authors: Vec<Automerge> = (2..4_u8)
        .map(|actor| first.fork().with_actor(ActorId::from(vec![actor; 1 + usize::from(actor)])))
        .collect();
    authors.insert(0, first);
    for (what, at, byte) in choices {
        let count = authors.len();
        let document = &mut authors[at.index(count)];
        if what % 9 == 8 {
            let mut other = authors[usize::from(*byte) % count].clone();
            authors[at.index(count)].merge(&mut other).unwrap();
            continue;
        }
        let old = document.get_changes(&[]).get(usize::from(*byte) % 30).map(|change| change.hash());
        let mut tx = match old.filter(|_| what % 16 == 1) {
            Some(old) => document.transaction_at(PatchLog::null(), &[old]).unwrap(),
            None => document.transaction(),
        };
        let length = tx.length(&text);
        let at = at.index(length + 1);
        match what % 9 {
            0 | 1 => tx.splice_text(&text, at, 0, &char::from(byte % 128).to_string()).unwrap(),
            2 => tx
                .splice_text(
                    &text,
                    at.min(length.saturating_sub(1)),
                    1.min(length as isize),
                    "gr\u{fc}\u{df}e",
                )
                .unwrap(),
            3 => tx.splice_text(&text, at / 2, (length / 2) as isize, "").unwrap(),
            4 => tx.put(ROOT, format!("k{}", byte % 5), i64::from(*byte) << (byte % 50)).unwrap(),
            5 => {
                let name = format!("l{}", byte % 3);
                let list = tx.put_object(ROOT, &*name, ObjType::List).unwrap();
                tx.insert(&list, 0, vec![*byte; 3]).unwrap();
                tx.insert(&list, 1, 0.5).unwrap();
            }
            6 => {
                let mark = Mark::new("bold".to_owned(), true, at / 2, at.max(at / 2 + 1).min(length));
                if mark.start < mark.end {
                    tx.mark(&text, mark, ExpandMark::Both).unwrap();
                }
            }
            _ => drop(tx.delete(ROOT, format!("k{}", byte % 5))),
        }
        let message = (byte % 11 == 0).then(|| format!("message {byte}"));
        let time = if byte % 7 == 0 { i64::from(*byte) - 100 } else { SECONDS };
        let mut with = CommitOptions::default().with_time(time);
        if let Some(message) = message {
            with = with.with_message(message);
        }
        tx.commit_with(with);
    }
    authors
}

fn choices() -> impl Strategy<Value = Vec<(u8, Index, u8)>> {
    prop::collection::vec(any::<(u8, Index, u8)>(), 1..60)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn every_change_comes_out_byte_for_byte_in_whatever_order(
        choices in choices(),
        shuffle in prop::collection::vec(any::<Index>(), 80),
    ) {
        for document in history(&choices) {
            let mut changes: Vec<_> = document.get_changes(&[]).iter().map(raw).collect();
            send(&changes);
            for actor in [&OWNER[..], &[2; 3], &[3; 4]] {
                send(changes.iter().filter(|change| change.actor() == actor));
            }
            let count = changes.len();
            for (place, with) in shuffle.iter().take(count).enumerate() {
                changes.swap(place, with.index(count));
            }
            let sizes = send(&changes);
            for (change, bytes) in changes.iter().zip(sizes) {
                prop_assert!(bytes <= change.bytes().len(), "{bytes} for {change:?}");
            }
        }
    }

    #[test]
    fn altered_bytes_never_panic_and_what_they_say_has_one_form(
        choices in choices(),
        edits in prop::collection::vec((any::<Index>(), any::<u8>()), 1..4),
        noise in prop::collection::vec(any::<u8>(), 0..100),
    ) {
        let documents = history(&choices);
        let changes: Vec<_> = documents[0].get_changes(&[]).iter().map(raw).collect();
        let mut recent = RecentChanges::default();
        for change in &changes {
            let mut altered = encoded(change, &recent);
            for (at, byte) in &edits {
                let at = at.index(altered.len());
                altered[at] = *byte;
            }
            for bytes in [&altered, &noise] {
                if let Ok(change) = decoded(bytes, &recent) {
                    prop_assert_eq!(&encoded(&change, &recent), bytes);
                    prop_assert!(RawChange::parse(change.bytes()).is_ok());
                }
                for cut in 0..bytes.len() {
                    let _ = decoded(&bytes[..cut], &recent);
                }
            }
            recent.note(change);
        }
    }
}

#[test]
fn a_prediction_that_holds_cannot_be_written_out() {
    let (mut document, text) = with_text("");
    for (at, letter) in ["a", "b", "c"].iter().enumerate() {
        splice(&mut document, &text, (at, 0, letter));
    }
    let changes: Vec<_> = document.get_changes(&[]).iter().map(raw).collect();
    let (last, before) = changes.split_last().unwrap();
    let mut recent = RecentChanges::default();
    before.iter().for_each(|change| recent.note(change));
    let bytes = encoded(last, &recent);
    assert_eq!(bytes[0], 0, "every part is as predicted");
    for flag in [DEPS, ACTOR, SEQ, START_OP, TIME, OTHERS, EXTRA, SHAPE] {
        let said: Vec<u8> = match flag {
            DEPS => vec![1],
            ACTOR => [&[16][..], &OWNER].concat(),
            SEQ => vec![last.seq() as u8],
            START_OP | TIME | OTHERS => vec![0],
            EXTRA => vec![0, 0],
            _ => {
                let mut columns = Writer::new();
                columns.u8(0);
                let layout = Layout::of(last);
                columns.bytes(&last.bytes()[layout.others.end..layout.footer.start]);
                let long = [&[flag][..], columns.as_slice()].concat();
                let error = DecodeError::NotCanonical { what: "elided change" };
                assert_eq!(decoded(&long, &recent), Err(error.into()));
                continue;
            }
        };
        let long = [&[flag][..], &said, &bytes[1..]].concat();
        let error = DecodeError::NotCanonical { what: "elided change" };
        assert_eq!(decoded(&long, &recent), Err(error.into()), "flag {flag}");
    }
}

#[test]
fn references_to_what_is_not_known_are_refused() {
    let none = RecentChanges::default();
    for bytes in
        [&[0, 0][..], &[SHAPE, 1], &[SHAPE, 5], &[DEPS | SHAPE, 1, 0, 0], &[DEPS, 0xff, 0xff, 0xff, 0x7f]]
    {
        assert!(matches!(decoded(bytes, &none), Err(DocumentError::Malformed(_))), "{bytes:?}");
    }
    // Two operations of a change that nothing went before: no columns, no operations.
    assert!(decoded(&[SHAPE, 0, 0], &none).is_ok());
}

#[test]
fn a_long_change_is_refused_by_its_length_alone() {
    let none = RecentChanges::default();
    let mut out = Writer::new();
    out.u8(EXTRA | SHAPE);
    out.blob(&[]);
    out.blob(&vec![0; DOCUMENT_CHANGE_BYTES_MAX]);
    out.bytes(&[0, 0]);
    assert!(matches!(decoded(out.as_slice(), &none), Err(DocumentError::OverLimit { .. })));
}
