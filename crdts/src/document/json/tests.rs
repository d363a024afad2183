//! JSON in documents: the tables of the RFCs, what an edit writes, and random values against a reference.

mod random;
mod rfc;

use automerge::transaction::{Transactable, Transaction};
use automerge::{ObjType, ROOT, ReadDoc, ScalarValue};
use serde_json::{Value, json};

use super::{DEPTH_MAX, JsonError, JsonForm, merge_patch, patch, put, read, read_at, restore};
use crate::document::{Document, DocumentPatch, EditError};

/// A document that holds `value`.
fn document(value: &Value) -> Document {
    let mut document = Document::new([1; 16]);
    edit(&mut document, |tx| put(tx, "", value)).unwrap();
    document
}

/// Edits, and returns how many operations that took.
fn edit(
    document: &mut Document,
    edit: impl FnOnce(&mut Transaction<'_>) -> Result<(), JsonError>,
) -> Result<usize, JsonError> {
    match document.edit(0, |tx| edit(tx).map(|()| tx.pending_ops())) {
        Ok((ops, _)) => Ok(ops),
        Err(EditError::Refused(error)) => Err(error),
        Err(other) => panic!("{other}"),
    }
}

fn whole(document: &Document) -> Value {
    read(document.automerge(), "", JsonForm::Tagged).unwrap().unwrap()
}

fn at(document: &Document, pointer: &str) -> Option<Value> {
    read(document.automerge(), pointer, JsonForm::Tagged).unwrap()
}

/// Puts `new` where `old` is and returns how many operations that took.
fn cost(old: &Value, new: &Value) -> usize {
    let mut document = document(old);
    let ops = edit(&mut document, |tx| put(tx, "", new)).unwrap();
    assert_eq!(whole(&document), *new);
    ops
}

#[test]
fn what_is_unchanged_is_not_written() {
    let value = json!({
        "text": "Milk", "list": [1, "two", [3.5], {"four": null}], "counter": {"$counter": 5},
        "bytes": {"$bytes": "AAEC"}, "when": {"$timestamp": 1_000}, "big": u64::MAX, "nan": {"$float": "NaN"},
    });
    assert_eq!(cost(&value, &value), 0);
    let mut document = document(&value);
    let heads = document.heads();
    assert_eq!(edit(&mut document, |tx| restore(tx, &heads)).unwrap(), 0);
    assert_eq!(edit(&mut document, |tx| merge_patch(tx, "", &value)).unwrap(), 0);
}

#[test]
fn the_same_edit_makes_the_same_change() {
    let keys = (0..50).map(|key| (key.to_string(), json!({"a": [1, {"b": key, "c": "text"}]})));
    let value = json!({ "deep": keys.collect::<serde_json::Map<String, Value>>() });
    assert_eq!(document(&value).heads(), document(&value).heads());
}

#[test]
fn a_change_costs_what_it_changes() {
    assert_eq!(cost(&json!({"a": "Milk and bread"}), &json!({"a": "Milk, eggs and bread"})), 6);
    assert_eq!(cost(&json!({"a": 1, "b": 2}), &json!({"a": 1, "b": 3})), 1);
    assert_eq!(cost(&json!({"a": 1, "b": 2}), &json!({"a": 1})), 1);
    assert_eq!(cost(&json!({"c": {"$counter": 5}}), &json!({"c": {"$counter": 8}})), 1);
    let tasks = |names: &[&str], done: usize| -> Value {
        let tasks = names.iter().enumerate().map(|(index, name)| json!({"name": name, "done": index < done}));
        json!({ "tasks": tasks.collect::<Vec<_>>() })
    };
    let before = tasks(&["a", "b", "c", "d"], 0);
    assert_eq!(cost(&before, &tasks(&["a", "b", "d"], 0)), 1, "one element is deleted");
    assert_eq!(cost(&before, &tasks(&["a", "b", "c", "d"], 1)), 1, "one key of one element is written");
    assert_eq!(cost(&before, &tasks(&["a", "new", "b", "c", "d"], 0)), 6, "one element is inserted");
}

#[test]
fn concurrent_edits_of_what_a_put_left_alone_survive() {
    let mut one = document(&json!({"title": "Notes", "body": "Milk", "list": ["a", "b"]}));
    let mut other = Document::new([2; 16]);
    other.apply(&one.changes_since(&[])).unwrap();
    let heads = one.heads();
    edit(&mut one, |tx| {
        put(tx, "", &json!({"title": "Notes", "body": "Milk, eggs", "list": ["a", "b", "c"]}))
    })
    .unwrap();
    edit(&mut other, |tx| {
        put(tx, "/title", &json!("My notes"))?;
        put(tx, "/body", &json!("Oat milk"))?;
        put(tx, "/list/0", &json!("A"))
    })
    .unwrap();
    one.apply(&other.changes_since(&heads)).unwrap();
    assert_eq!(whole(&one), json!({"title": "My notes", "body": "Oat milk, eggs", "list": ["A", "b", "c"]}));
}

#[test]
fn strings_become_collaborative_text_unless_they_are_tagged() {
    let mut document = document(&json!({"text": "a", "scalar": {"$string": "b"}}));
    let automerge = document.automerge();
    assert_eq!(automerge.get(ROOT, "text").unwrap().unwrap().0, ObjType::Text.into());
    assert_eq!(automerge.get(ROOT, "scalar").unwrap().unwrap().0, "b".into());
    assert_eq!(whole(&document), json!({"text": "a", "scalar": "b"}));
    assert_eq!(edit(&mut document, |tx| put(tx, "/scalar", &json!("b"))).unwrap(), 0);
    edit(&mut document, |tx| put(tx, "/scalar", &json!("c"))).unwrap();
    assert_eq!(document.automerge().get(ROOT, "scalar").unwrap().unwrap().0, ObjType::Text.into());
}

#[test]
fn what_json_lacks_has_tags_and_a_plain_form() {
    let tagged = json!({
        "counter": {"$counter": -5}, "bytes": {"$bytes": "AAEC"}, "when": {"$timestamp": 1_000},
        "inf": {"$float": "inf"}, "escaped": {"$map": {"$counter": 1}}, "other": {"$else": 1},
        "two": {"$counter": 1, "x": 2},
    });
    let document = document(&tagged);
    assert_eq!(whole(&document), tagged);
    assert_eq!(at(&document, "/escaped/$counter"), Some(json!(1)), "an escaped map is a map");
    let plain = json!({
        "counter": -5, "bytes": "AAEC", "when": 1_000, "inf": null, "escaped": {"$counter": 1},
        "other": {"$else": 1}, "two": {"$counter": 1, "x": 2},
    });
    assert_eq!(read(document.automerge(), "", JsonForm::Plain).unwrap(), Some(plain));
    for broken in [
        json!({"$counter": 1.5}),
        json!({"$bytes": "*"}),
        json!({"$float": "1"}),
        json!({"$map": 1}),
        json!({"$unknown": {"type": 15, "bytes": ""}}),
    ] {
        let mut document = Document::new([1; 16]);
        let error = edit(&mut document, |tx| put(tx, "", &json!({ "a": [broken] }))).unwrap_err();
        assert!(matches!(&error, JsonError::Tag { pointer, .. } if pointer == "/a/0"), "{error}");
    }
}

#[test]
fn pointers_lead_where_the_rfc_says_or_say_why_not() {
    let value = json!({"a/b": {"m~n": [10, {"": 20}]}, "text": "x"});
    let mut document = document(&value);
    assert_eq!(at(&document, "/a~1b/m~0n/0"), Some(json!(10)));
    assert_eq!(at(&document, "/a~1b/m~0n/1/"), Some(json!(20)));
    for absent in ["/b", "/a~1b/m~0n/2", "/a~1b/m~0n/00", "/a~1b/m~0n/-", "/a~1b/m~0n/+1", "/text/0", "/b/c"]
    {
        assert_eq!(at(&document, absent), None, "{absent}");
    }
    for broken in ["a", "/a~", "/a~2"] {
        let error = read(document.automerge(), broken, JsonForm::Tagged).unwrap_err();
        assert!(matches!(&error, JsonError::Pointer { pointer, .. } if pointer == broken), "{error}");
    }
    let mut refused = |pointer: &str| edit(&mut document, |tx| put(tx, pointer, &json!(1))).unwrap_err();
    assert!(matches!(refused("/b/c"), JsonError::NotFound { pointer } if pointer == "/b"));
    assert!(matches!(refused("/text/0"), JsonError::NotContainer { pointer } if pointer == "/text"));
    assert!(matches!(refused("/a~1b/m~0n/3"), JsonError::Index { length: 2, .. }));
    assert!(matches!(refused("/a~1b/m~0n/x"), JsonError::Index { length: 2, .. }));
    assert!(matches!(refused(""), JsonError::Root));
    edit(&mut document, |tx| put(tx, "/a~1b/m~0n/-", &json!("end"))).unwrap();
    assert_eq!(at(&document, "/a~1b/m~0n/2"), Some(json!("end")));
}

#[test]
fn nesting_has_a_limit_on_the_way_in_and_on_the_way_out() {
    let nested = |depth: usize| (1..depth).fold(json!({}), |inner, _| json!({ "k": inner }));
    let mut fits = document(&nested(DEPTH_MAX));
    let deepest = "/k".repeat(DEPTH_MAX - 1);
    assert_eq!(at(&fits, &deepest), Some(json!({})));
    edit(&mut fits, |tx| put(tx, &format!("{deepest}/k"), &json!(1))).unwrap();
    let error = edit(&mut fits, |tx| put(tx, &format!("{deepest}/k"), &json!({"k": 1}))).unwrap_err();
    assert!(matches!(error, JsonError::TooDeep { depth_max: DEPTH_MAX, .. }), "{error}");
    let error = edit(&mut fits, |tx| put(tx, "", &nested(DEPTH_MAX + 2))).unwrap_err();
    assert!(matches!(error, JsonError::TooDeep { .. }), "{error}");
    let copied = json!([{"op": "copy", "from": "/k", "path": "/k/k"}]);
    let error = edit(&mut fits, |tx| patch(tx, &copied)).unwrap_err();
    assert!(
        matches!(&error, JsonError::Operation { index: 0, source } if matches!(**source, JsonError::TooDeep { .. }))
    );
    let error = edit(&mut fits, |tx| merge_patch(tx, "", &nested(DEPTH_MAX + 2))).unwrap_err();
    assert!(matches!(error, JsonError::TooDeep { .. }), "{error}");

    // No document nests deeper, but what is read may be none of ours.
    let mut deep = automerge::Automerge::new();
    let mut tx = deep.transaction();
    (0..300).try_fold(ROOT, |map, _| tx.put_object(&map, "k", ObjType::Map)).unwrap();
    tx.commit();
    let error = read(&deep, "", JsonForm::Tagged).unwrap_err();
    assert!(matches!(error, JsonError::TooDeep { .. }), "{error}");
    let error = read(&deep, &"/k".repeat(300), JsonForm::Tagged).unwrap_err();
    assert!(matches!(error, JsonError::TooDeep { .. }), "{error}");
}

#[test]
fn a_patch_that_fails_names_the_operation_and_leaves_nothing() {
    let before = json!({"a": [1, 2], "b": "text"});
    let mut document = document(&before);
    let mut fail = |operations: Value| {
        let error = edit(&mut document, |tx| patch(tx, &operations)).unwrap_err();
        assert_eq!(whole(&document), before);
        error
    };
    let with = |operation: Value| json!([{"op": "add", "path": "/new", "value": 1}, operation]);
    for operation in [
        json!({"op": "remove", "path": "/c"}),
        json!({"op": "remove", "path": "/a/2"}),
        json!({"op": "remove", "path": ""}),
        json!({"op": "replace", "path": "/c", "value": 1}),
        json!({"op": "add", "path": "/a/3", "value": 1}),
        json!({"op": "add", "path": "/c/d", "value": 1}),
        json!({"op": "move", "from": "/c", "path": "/d"}),
        json!({"op": "move", "from": "/a", "path": "/a/0"}),
        json!({"op": "test", "path": "/b", "value": "tex"}),
        json!({"op": "test", "path": "/a/0", "value": "1"}),
    ] {
        let error = fail(with(operation.clone()));
        assert!(matches!(error, JsonError::Operation { index: 1, .. }), "{operation}: {error}");
    }
    for operation in [
        json!({"op": "spam", "path": "/b"}),
        json!({"op": "add", "path": "/c"}),
        json!({"op": "copy", "path": "/c"}),
        json!({"path": "/c"}),
        json!(1),
    ] {
        let error = fail(with(operation.clone()));
        assert!(matches!(error, JsonError::NotOperation { index: 1, .. }), "{operation}: {error}");
    }
    assert!(matches!(fail(json!({"op": "add"})), JsonError::NotPatch));
    let many = vec![json!({"op": "test", "path": "/b", "value": "text"}); 1_001];
    assert!(matches!(fail(Value::Array(many)), JsonError::TooManyOperations { operations: 1_001, .. }));
}

#[test]
fn copies_of_copies_end_at_the_limit_of_a_change() {
    let mut document = document(&json!({"l": [0]}));
    let copies = vec![json!({"op": "copy", "from": "/l", "path": "/l/-"}); 60];
    let error = edit(&mut document, |tx| patch(tx, &Value::Array(copies))).unwrap_err();
    let JsonError::Operation { index, source } = &error else { panic!("{error}") };
    assert!(matches!(**source, JsonError::TooManyOps { ops, .. } if ops < 30_000), "{error}");
    assert_eq!(*index, 12);
    assert_eq!(whole(&document), json!({"l": [0]}));
}

#[test]
fn moving_and_copying_keep_what_json_lacks() {
    let mut document = document(&json!({"c": {"$counter": 5}, "t": "bold", "l": [{"$bytes": "AAEC"}]}));
    edit(&mut document, |tx| {
        let text = tx.get(ROOT, "t")?.unwrap().1;
        let mark = automerge::marks::Mark::new("bold".to_owned(), true, 0, 4);
        Ok(tx.mark(text, mark, automerge::marks::ExpandMark::None)?)
    })
    .unwrap();
    let operations = json!([
        {"op": "move", "from": "/c", "path": "/counter"},
        {"op": "copy", "from": "/t", "path": "/l/0"},
        {"op": "copy", "from": "/l/1", "path": "/l/-"},
        {"op": "move", "from": "/t", "path": "/t"},
    ]);
    edit(&mut document, |tx| patch(tx, &operations)).unwrap();
    let bytes = json!({"$bytes": "AAEC"});
    let expected = json!({"counter": {"$counter": 5}, "t": "bold", "l": ["bold", bytes, bytes]});
    assert_eq!(whole(&document), expected);
    let list = document.automerge().get(ROOT, "l").unwrap().unwrap().1;
    let copied = document.automerge().get(&list, 0).unwrap().unwrap().1;
    let marks = document.automerge().marks(&copied).unwrap();
    assert_eq!((marks.len(), marks[0].name(), marks[0].start, marks[0].end), (1, "bold", 0, 4));
}

#[test]
fn an_old_version_can_be_read_and_restored() {
    let old = json!({"title": "Notes", "list": [1, 2, 3], "c": {"$counter": 1}, "s": {"$string": "x"}});
    let mut document = document(&old);
    let version = document.heads();
    let new = json!({"title": "My notes", "list": [3, 4], "new": true, "s": "y"});
    edit(&mut document, |tx| put(tx, "", &new)).unwrap();
    let shown = json!({"title": "Notes", "list": [1, 2, 3], "c": {"$counter": 1}, "s": "x"});
    assert_eq!(read_at(document.automerge(), &version, "", JsonForm::Tagged).unwrap(), Some(shown.clone()));
    let title = read_at(document.automerge(), &version, "/title", JsonForm::Tagged).unwrap();
    assert_eq!(title, Some(json!("Notes")));
    assert_eq!(read_at(document.automerge(), &[], "/title", JsonForm::Tagged).unwrap(), None);

    edit(&mut document, |tx| restore(tx, &version)).unwrap();
    assert_eq!(whole(&document), shown);
    let scalar = document.automerge().get(ROOT, "s").unwrap().unwrap().0;
    assert_eq!(scalar, ScalarValue::Str("x".into()).into(), "a string that was replaced as a whole still is");
    assert_eq!(document.change_count(), 3, "nothing of the history is lost");

    let head = [9; 32];
    let error = read_at(document.automerge(), &[head], "", JsonForm::Tagged).unwrap_err();
    assert!(matches!(error, JsonError::UnknownVersion { head: missing } if missing == head));
    let error = edit(&mut document, |tx| restore(tx, &[head])).unwrap_err();
    assert!(matches!(error, JsonError::UnknownVersion { .. }));
}

#[test]
fn restoring_a_text_restores_its_marks() {
    let mut document = document(&json!({"t": "some bold words"}));
    let mark = |document: &mut Document, from, to| {
        edit(document, |tx| {
            let text = tx.get(ROOT, "t")?.unwrap().1;
            let mark = automerge::marks::Mark::new("bold".to_owned(), true, from, to);
            Ok(tx.mark(text, mark, automerge::marks::ExpandMark::After)?)
        })
        .unwrap()
    };
    mark(&mut document, 5, 9);
    let version = document.heads();
    mark(&mut document, 0, 15);
    edit(&mut document, |tx| put(tx, "/t", &json!("bold words"))).unwrap();
    edit(&mut document, |tx| restore(tx, &version)).unwrap();
    let text = document.automerge().get(ROOT, "t").unwrap().unwrap().1;
    let marks = document.automerge().marks(&text).unwrap();
    assert_eq!(at(&document, "/t"), Some(json!("some bold words")));
    assert_eq!(marks.iter().map(|mark| (mark.start, mark.end)).collect::<Vec<_>>(), [(5, 9)]);
}

#[test]
fn a_difference_is_told_in_steps_that_can_be_sent() {
    let mut document = document(&json!({"text": "Milk", "list": ["a", 1], "c": {"$counter": 1}, "gone": 1}));
    let before = document.automerge().get_heads();
    let operations = json!([
        {"op": "replace", "path": "/text", "value": "Oat milk"},
        {"op": "add", "path": "/list/1", "value": {"deep": "er"}},
        {"op": "replace", "path": "/c", "value": {"$counter": 4}},
        {"op": "remove", "path": "/gone"},
    ]);
    edit(&mut document, |tx| patch(tx, &operations)).unwrap();
    let automerge = document.automerge();
    let steps = DocumentPatch::list(automerge, &automerge.diff(&before, &automerge.get_heads()));
    let sent = serde_json::to_value(&steps).unwrap();
    let expected = json!([
        {"path": "/c", "action": "increment", "by": 3},
        {"path": "/gone", "action": "delete", "count": 1},
        {"path": "/list/1", "action": "insert", "values": [{}]},
        {"path": "/text", "action": "splice", "position": 0, "delete": 0, "insert": "Oat m"},
        {"path": "/text", "action": "splice", "position": 5, "delete": 1, "insert": ""},
        {"path": "/list/1/deep", "action": "put", "value": "", "conflict": false},
        {"path": "/list/1/deep", "action": "splice", "position": 0, "delete": 0, "insert": "er"},
    ]);
    assert_eq!(sent, expected, "{sent:#}");
    assert_eq!(serde_json::from_value::<Vec<DocumentPatch>>(sent).unwrap(), steps);
}
