use automerge::marks::ExpandMark;
use automerge::transaction::Transaction;
use automerge::{ROOT, ReadDoc};
use serde_json::{Value, json};

use super::{cursor, increment, mark, marks, position, read, read_at, splice, unmark};
use crate::document::json::{JsonError, JsonForm, put, read as read_json};
use crate::document::versions::{diff, list};
use crate::document::{Document, DocumentAction, DocumentMark, EditError};

fn document(value: &Value) -> Document {
    let mut document = Document::new([1; 16]);
    edit(&mut document, |tx| put(tx, "", value)).unwrap();
    document
}

fn edit<R>(
    document: &mut Document,
    edit: impl FnOnce(&mut Transaction<'_>) -> Result<R, JsonError>,
) -> Result<R, JsonError> {
    match document.edit(7, edit) {
        Ok((value, _)) => Ok(value),
        Err(EditError::Refused(error)) => Err(error),
        Err(other) => panic!("{other}"),
    }
}

fn bold(start: usize, end: usize) -> DocumentMark {
    DocumentMark { name: "bold".to_owned(), value: json!(true), start, end }
}

#[test]
fn positions_count_code_points() {
    let mut document = document(&json!({"t": "h\u{e9}\u{1f600}llo", "s": {"$string": "s"}, "n": 1}));
    let version = document.heads();
    edit(&mut document, |tx| splice(tx, "/t", 3, 2, "y")).unwrap();
    assert_eq!(read(document.automerge(), "/t").unwrap().unwrap(), "h\u{e9}\u{1f600}yo");
    assert_eq!(read_at(document.automerge(), &version, "/t").unwrap().unwrap(), "h\u{e9}\u{1f600}llo");
    assert_eq!(read(document.automerge(), "/s").unwrap().unwrap(), "s");
    assert_eq!(read(document.automerge(), "/x").unwrap(), None);
    assert!(matches!(read(document.automerge(), "/n"), Err(JsonError::NotText { .. })));
    assert!(matches!(read(document.automerge(), ""), Err(JsonError::NotText { .. })));
    let mut refused = |pointer, position, delete| {
        edit(&mut document, |tx| splice(tx, pointer, position, delete, "x")).unwrap_err()
    };
    assert!(matches!(refused("/t", 6, 0), JsonError::Range { start: 6, end: 6, length: 5, .. }));
    assert!(matches!(refused("/t", 1, usize::MAX), JsonError::Range { start: 1, length: 5, .. }));
    assert!(matches!(refused("/s", 0, 0), JsonError::NotText { .. }));
    assert!(matches!(refused("/x", 0, 0), JsonError::NotFound { .. }));
}

#[test]
fn a_cursor_stays_with_its_text_at_every_replica() {
    let mut one = document(&json!({"t": "Milk and bread", "list": [1]}));
    let mut other = Document::new([2; 16]);
    other.apply(&one.changes_since(&[])).unwrap();
    let heads = one.heads();
    let (start, and, end) = {
        let at = |position| cursor(one.automerge(), "/t", position).unwrap();
        (at(0), at(5), at(14))
    };
    edit(&mut one, |tx| splice(tx, "/t", 0, 0, "Oat ")).unwrap();
    other.apply(&one.changes_since(&heads)).unwrap();
    for document in [&one, &other] {
        let at = |cursor: &[u8]| position(document.automerge(), cursor).unwrap();
        assert_eq!((at(&start), at(&and), at(&end)), (4, 9, 18));
    }
    edit(&mut one, |tx| splice(tx, "/t", 9, 4, "")).unwrap();
    assert_eq!(position(one.automerge(), &and).unwrap(), 9, "what followed is there");
    edit(&mut one, |tx| splice(tx, "/t", 0, 14, "")).unwrap();
    assert_eq!(position(one.automerge(), &and).unwrap(), 0);
    assert!(matches!(cursor(one.automerge(), "/t", 1), Err(JsonError::Range { length: 0, .. })));
    assert!(matches!(cursor(one.automerge(), "/list", 0), Err(JsonError::NotText { .. })));
}

#[test]
fn bytes_that_are_no_cursor_are_refused() {
    let mut later = document(&json!({"t": "Milk"}));
    let mut before = Document::new([2; 16]);
    before.apply(&later.changes_since(&[])).unwrap();
    edit(&mut later, |tx| splice(tx, "/t", 4, 0, "!")).unwrap();
    let unseen = cursor(later.automerge(), "/t", 4).unwrap();
    assert_eq!(position(later.automerge(), &unseen).unwrap(), 4);
    assert!(matches!(position(before.automerge(), &unseen), Err(JsonError::Cursor)), "not here yet");
    let good = cursor(later.automerge(), "/t", 1).unwrap();
    assert!(matches!(position(Document::new([3; 16]).automerge(), &good), Err(JsonError::Cursor)));
    for length in 0..good.len() {
        assert!(matches!(position(later.automerge(), &good[..length]), Err(JsonError::Cursor)), "{length}");
    }
    // Whatever one byte says, there is an answer; and counters of any size are numbers, not panics.
    for index in 0..good.len() {
        for byte in 0..=u8::MAX {
            let mut changed = good.clone();
            changed[index] = byte;
            let _ = position(later.automerge(), &changed).map(|position| assert!(position <= 5));
        }
    }
    let huge = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f];
    let object = [&[0x10, 16][..], &[1; 16], &[0], &huge].concat();
    let text = later.automerge().get(ROOT, "t").unwrap().unwrap().1.to_bytes();
    for (object, op) in [(object, &[1][..]), (text, &huge)] {
        let length = u16::try_from(object.len()).unwrap().to_be_bytes();
        let bytes = [&[1][..], &length, &object, &[1, 3, 16], &[1; 16], op, &[2]].concat();
        assert!(matches!(position(later.automerge(), &bytes), Err(JsonError::Cursor)));
    }
}

#[test]
fn marks_are_set_listed_and_removed() {
    let mut document = document(&json!({"t": "some bold words"}));
    edit(&mut document, |tx| mark(tx, "/t", &bold(5, 9), ExpandMark::After)).unwrap();
    edit(&mut document, |tx| splice(tx, "/t", 9, 0, "er")).unwrap();
    assert_eq!(marks(document.automerge(), "/t").unwrap(), [bold(5, 11)]);
    let link = DocumentMark { name: "link".to_owned(), value: json!("https://x"), start: 0, end: 4 };
    edit(&mut document, |tx| mark(tx, "/t", &link, ExpandMark::None)).unwrap();
    edit(&mut document, |tx| unmark(tx, "/t", 7..11, "bold")).unwrap();
    assert_eq!(marks(document.automerge(), "/t").unwrap(), [link.clone(), bold(5, 7)]);
    edit(&mut document, |tx| unmark(tx, "/t", 5..7, "bold")).unwrap();
    edit(&mut document, |tx| splice(tx, "/t", 7, 0, "x")).unwrap();
    assert_eq!(marks(document.automerge(), "/t").unwrap(), [link]);

    let mut refused = |wrong: &DocumentMark| {
        edit(&mut document, |tx| mark(tx, "/t", wrong, ExpandMark::After)).unwrap_err()
    };
    assert!(matches!(refused(&bold(3, 3)), JsonError::Range { .. }));
    assert!(matches!(refused(&bold(3, 2)), JsonError::Range { .. }));
    assert!(matches!(refused(&bold(3, 99)), JsonError::Range { end: 99, .. }));
    for value in [json!(null), json!([1]), json!({"a": 1})] {
        assert!(matches!(refused(&DocumentMark { value, ..bold(1, 2) }), JsonError::MarkValue { .. }));
    }
    let error = edit(&mut document, |tx| unmark(tx, "/t", 3..99, "bold")).unwrap_err();
    assert!(matches!(error, JsonError::Range { .. }));
    assert!(matches!(marks(document.automerge(), "/x"), Err(JsonError::NotFound { .. })));
}

#[test]
fn concurrent_additions_to_a_counter_both_count() {
    let mut one = document(&json!({"n": {"$counter": 1}, "i": 1, "full": {"$counter": i64::MAX}}));
    let mut other = Document::new([2; 16]);
    other.apply(&one.changes_since(&[])).unwrap();
    let heads = one.heads();
    edit(&mut one, |tx| increment(tx, "/n", 5)).unwrap();
    edit(&mut other, |tx| increment(tx, "/n", -2)).unwrap();
    one.apply(&other.changes_since(&heads)).unwrap();
    assert_eq!(read_json(one.automerge(), "/n", JsonForm::Plain).unwrap(), Some(json!(4)));
    let mut refused = |pointer| edit(&mut one, |tx| increment(tx, pointer, 1)).unwrap_err();
    assert!(matches!(refused("/i"), JsonError::NotCounter { .. }));
    assert!(matches!(refused(""), JsonError::NotCounter { .. }));
    assert!(matches!(refused("/x"), JsonError::NotFound { .. }));
    assert!(matches!(refused("/full"), JsonError::CounterRange { .. }));
}

#[test]
fn versions_come_newest_first_in_the_same_order_everywhere() {
    let mut one = document(&json!({"t": "a"}));
    let mut other = Document::new([2; 16]);
    other.apply(&one.changes_since(&[])).unwrap();
    let first = one.heads();
    for _ in 0..3 {
        edit(&mut one, |tx| splice(tx, "/t", 1, 0, "b")).unwrap();
        edit(&mut other, |tx| splice(tx, "/t", 0, 0, "cc")).unwrap();
    }
    let (here, there) = (one.changes_since(&first), other.changes_since(&first));
    one.apply(&there).unwrap();
    other.apply(&here).unwrap();
    edit(&mut one, |tx| splice(tx, "/t", 0, 8, "z")).unwrap();
    other.apply(&one.changes_since(&other.heads())).unwrap();
    let all = list(one.automerge(), None, 99).unwrap();
    assert_eq!(list(other.automerge(), None, 99).unwrap(), all);
    assert_eq!((all.len(), [all[0].hash].to_vec(), [all[7].hash].to_vec()), (8, one.heads(), first));
    assert_eq!((all[0].ops, all[0].deps.len(), all[7].deps.len()), (9, 2, 0));
    assert_eq!((all[0].actor.as_slice(), all[0].time_seconds, &all[0].message), (&[1; 16][..], 7, &None));
    for (index, version) in all.iter().enumerate() {
        assert!(version.deps.iter().all(|dep| all[index + 1..].iter().any(|other| other.hash == *dep)));
    }
    let (mut paged, mut before) = (Vec::new(), None);
    loop {
        let page = list(one.automerge(), before.as_ref(), 3).unwrap();
        let Some(last) = page.last() else { break };
        before = Some(last.hash);
        paged.extend(page);
    }
    assert_eq!(paged, all);
    let unknown = list(one.automerge(), Some(&[9; 32]), 3);
    assert!(matches!(unknown, Err(JsonError::UnknownVersion { head }) if head == [9; 32]));
}

#[test]
fn a_difference_is_told_in_both_directions() {
    let mut document = document(&json!({"t": "Milk"}));
    let before = document.heads();
    edit(&mut document, |tx| mark(tx, "/t", &bold(0, 4), ExpandMark::None)).unwrap();
    let marked = document.heads();
    edit(&mut document, |tx| splice(tx, "/t", 0, 1, "Silk and m")).unwrap();
    let steps = diff(document.automerge(), &before, &marked).unwrap();
    assert_eq!((steps.len(), steps[0].path.as_str()), (1, "/t"));
    assert_eq!(steps[0].action, DocumentAction::Mark { marks: vec![bold(0, 4)] });
    let back = diff(document.automerge(), &document.heads(), &marked).unwrap();
    let inserted = back.iter().find_map(|step| match &step.action {
        DocumentAction::Splice { insert, marks, .. } if !insert.is_empty() => Some((insert, marks)),
        _ => None,
    });
    let (insert, marks) = inserted.unwrap();
    assert_eq!((insert.as_str(), marks.get("bold")), ("M", Some(&json!(true))));
    assert_eq!(diff(document.automerge(), &marked, &marked).unwrap(), []);
    assert!(matches!(diff(document.automerge(), &[[9; 32]], &[]), Err(JsonError::UnknownVersion { .. })));
}
