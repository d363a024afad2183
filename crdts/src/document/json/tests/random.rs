//! Random values: what is put is read, and merges, patches and differences do what a plain JSON value does.

use automerge::{Change, PatchLog};
use proptest::collection::{btree_map, vec};
use proptest::prelude::{BoxedStrategy, Just, Strategy, any, prop_assert_eq, prop_oneof, proptest};
use serde_json::{Map, Value, json};

use super::super::{JsonForm, merge_patch, patch, put, read_at, restore};
use super::{document, edit, whole};
use crate::document::{Document, DocumentAction, DocumentPatch};

/// Few keys, so that two values have some in common; some that need care.
fn key() -> impl Strategy<Value = String> {
    prop_oneof![Just("a"), Just("b"), Just(""), Just("~/"), Just("$counter"), Just("0")]
        .prop_map(str::to_owned)
}

fn leaf() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        (0..3_i64).prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_filter("a number of JSON", |float| float.is_finite()).prop_map(Value::from),
        "[ab\u{e9}\u{1f600}]{0,4}".prop_map(Value::from),
        (-3..3_i64).prop_map(|count| json!({ "$counter": count })),
        Just(json!({"$bytes": "AAEC"})),
        Just(json!({"$timestamp": 7})),
    ]
}

/// A value in the form in which it is read back.
fn value() -> impl Strategy<Value = Value> {
    leaf().prop_recursive(4, 24, 4, |inner| {
        prop_oneof![vec(inner.clone(), 0..5).prop_map(Value::from), map(inner.boxed())]
    })
}

/// A map, escaped where it has to be.
fn map(inner: BoxedStrategy<Value>) -> impl Strategy<Value = Value> {
    btree_map(key(), inner, 0..4).prop_map(|entries| {
        let map: Map<String, Value> = entries.into_iter().collect();
        let is_tag = map.len() == 1 && map.contains_key("$counter");
        if is_tag { json!({ "$map": map }) } else { Value::Object(map) }
    })
}

fn root() -> impl Strategy<Value = Value> {
    map(value().boxed())
}

/// A value without tags, so that a plain JSON value is a reference for it.
fn plain() -> BoxedStrategy<Value> {
    let key = || prop_oneof![Just("a"), Just("b"), Just("0"), Just("1")].prop_map(str::to_owned);
    let leaf =
        prop_oneof![Just(Value::Null), (0..3).prop_map(Value::from), "[ab]{0,2}".prop_map(Value::from)];
    leaf.prop_recursive(3, 12, 3, move |inner| {
        let map = btree_map(key(), inner.clone(), 0..3);
        prop_oneof![vec(inner, 0..3).prop_map(Value::from), map.prop_map(|map| map.into_iter().collect())]
    })
    .boxed()
}

fn plain_root() -> BoxedStrategy<Value> {
    let key = prop_oneof![Just("a"), Just("b")].prop_map(str::to_owned);
    btree_map(key, plain(), 0..3).prop_map(|map| map.into_iter().collect()).boxed()
}

fn pointer() -> impl Strategy<Value = String> {
    let token = prop_oneof![Just("/a"), Just("/b"), Just("/0"), Just("/1"), Just("/-")];
    vec(token, 1..3).prop_map(|tokens| tokens.concat())
}

fn operation() -> impl Strategy<Value = Value> {
    prop_oneof![
        (pointer(), plain()).prop_map(|(path, value)| json!({"op": "add", "path": path, "value": value})),
        pointer().prop_map(|path| json!({"op": "remove", "path": path})),
        (pointer(), plain()).prop_map(|(path, value)| json!({"op": "replace", "path": path, "value": value})),
        (pointer(), pointer()).prop_map(|(from, path)| json!({"op": "move", "from": from, "path": path})),
        (pointer(), pointer()).prop_map(|(from, path)| json!({"op": "copy", "from": from, "path": path})),
        (pointer(), plain()).prop_map(|(path, value)| json!({"op": "test", "path": path, "value": value})),
    ]
}

/// RFC 7396 on a plain value, as its section 2 has it.
fn merged(target: Value, change: &Value) -> Value {
    let Value::Object(change) = change else { return change.clone() };
    let Value::Object(mut target) = (if target.is_object() { target } else { json!({}) }) else {
        unreachable!("it was made a map")
    };
    for (key, value) in change {
        if value.is_null() {
            target.remove(key);
        } else {
            let inner = target.remove(key).unwrap_or(Value::Null);
            target.insert(key.clone(), merged(inner, value));
        }
    }
    Value::Object(target)
}

/// One operation of RFC 6902 on a plain value, or `None` when it cannot be done.
fn patched(document: &mut Value, operation: &Value) -> Option<()> {
    let path = operation["path"].as_str()?;
    match operation["op"].as_str()? {
        "add" => add(document, path, operation["value"].clone()),
        "remove" => remove(document, path).map(|_| ()),
        "replace" => {
            *document.pointer_mut(path)? = operation["value"].clone();
            Some(())
        }
        "move" => {
            let from = operation["from"].as_str()?;
            document.pointer(from)?;
            if path.starts_with(&format!("{from}/")) {
                return None;
            }
            if path == from {
                return Some(());
            }
            let value = remove(document, from)?;
            add(document, path, value)
        }
        "copy" => {
            let value = document.pointer(operation["from"].as_str()?)?.clone();
            add(document, path, value)
        }
        _ => (document.pointer(path)? == &operation["value"]).then_some(()),
    }
}

fn add(document: &mut Value, path: &str, value: Value) -> Option<()> {
    let (parent, token) = path.rsplit_once('/')?;
    match document.pointer_mut(parent)? {
        Value::Object(map) => {
            map.insert(token.to_owned(), value);
        }
        Value::Array(list) => {
            let index = if token == "-" { list.len() } else { token.parse().ok()? };
            if index > list.len() {
                return None;
            }
            list.insert(index, value);
        }
        _ => return None,
    }
    Some(())
}

fn remove(document: &mut Value, path: &str) -> Option<Value> {
    let (parent, token) = path.rsplit_once('/')?;
    match document.pointer_mut(parent)? {
        Value::Object(map) => map.remove(token),
        Value::Array(list) => {
            let index = token.parse().ok().filter(|index| *index < list.len())?;
            Some(list.remove(index))
        }
        _ => None,
    }
}

/// Follows a step on a plain value, as a reader of a feed would.
fn follow(mirror: &mut Value, step: &DocumentPatch) {
    let (path, token) = step.path.rsplit_once('/').unwrap_or(("", ""));
    match &step.action {
        DocumentAction::Put { value, .. } => match mirror.pointer_mut(path).unwrap() {
            Value::Object(map) => {
                map.insert(token.replace("~1", "/").replace("~0", "~"), value.clone());
            }
            Value::Array(list) => list[token.parse::<usize>().unwrap()] = value.clone(),
            other => panic!("{step:?} on {other}"),
        },
        DocumentAction::Insert { values } => {
            let list = mirror.pointer_mut(path).unwrap().as_array_mut().unwrap();
            let index = token.parse::<usize>().unwrap();
            list.splice(index..index, values.iter().cloned());
        }
        DocumentAction::Delete { count } => match mirror.pointer_mut(path).unwrap() {
            Value::Object(map) => {
                map.remove(&token.replace("~1", "/").replace("~0", "~")).unwrap();
            }
            Value::Array(list) => {
                let index = token.parse::<usize>().unwrap();
                list.drain(index..index + count);
            }
            other => panic!("{step:?} on {other}"),
        },
        DocumentAction::Splice { position, delete, insert, .. } => {
            let text = mirror.pointer_mut(&step.path).unwrap();
            let mut characters: Vec<char> = text.as_str().unwrap().chars().collect();
            characters.splice(*position..position + delete, insert.chars());
            *text = characters.into_iter().collect::<String>().into();
        }
        DocumentAction::Increment { by } => {
            let counter = mirror.pointer_mut(&step.path).unwrap();
            *counter = json!({ "$counter": counter["$counter"].as_i64().unwrap() + by });
        }
        DocumentAction::Mark { .. } | DocumentAction::Conflict => {}
    }
}

proptest! {
    #[test]
    fn what_is_put_is_read_whatever_was_there(before in root(), after in root()) {
        let mut document = document(&before);
        let version = document.heads();
        prop_assert_eq!(whole(&document), before.clone());
        edit(&mut document, |tx| put(tx, "", &after)).unwrap();
        prop_assert_eq!(whole(&document), after.clone());
        let old = read_at(document.automerge(), &version, "", JsonForm::Tagged).unwrap();
        prop_assert_eq!(old, Some(before.clone()));
        prop_assert_eq!(edit(&mut document, |tx| put(tx, "", &after)).unwrap(), 0);
        edit(&mut document, |tx| restore(tx, &version)).unwrap();
        prop_assert_eq!(whole(&document), before);
    }

    #[test]
    fn merging_equals_the_reference(before in plain_root(), change in plain_root()) {
        let mut document = document(&before);
        edit(&mut document, |tx| merge_patch(tx, "", &change)).unwrap();
        prop_assert_eq!(whole(&document), merged(before, &change));
    }

    #[test]
    fn patching_equals_the_reference(before in plain_root(), operations in vec(operation(), 1..6)) {
        let mut document = document(&before);
        let mut reference = before;
        for operation in operations {
            let mut attempt = reference.clone();
            let expected = patched(&mut attempt, &operation);
            let result = edit(&mut document, |tx| patch(tx, &json!([&operation])));
            prop_assert_eq!(result.is_ok(), expected.is_some(), "{} of {}: {:?}", operation, reference, result);
            if expected.is_some() {
                reference = attempt;
            }
            prop_assert_eq!(whole(&document), reference.clone(), "after {}", operation);
        }
    }

    #[test]
    fn following_a_difference_leads_to_the_other_version(before in plain_root(), after in plain_root()) {
        let mut document = document(&before);
        let heads = document.automerge().get_heads();
        edit(&mut document, |tx| put(tx, "", &after)).unwrap();
        let automerge = document.automerge();
        let now = automerge.get_heads();
        for (mut mirror, from, to, expected) in [(before.clone(), &heads, &now, &after), (after.clone(), &now, &heads, &before)] {
            let steps = DocumentPatch::list(automerge, &automerge.diff(from, to));
            steps.iter().for_each(|step| follow(&mut mirror, step));
            prop_assert_eq!(&mirror, expected, "{:?}", steps);
        }
    }

    #[test]
    fn following_a_merge_leads_to_what_was_merged(
        before in plain_root(),
        here in plain_root(),
        there in plain_root(),
    ) {
        let mut one = document(&before);
        let mut other = Document::new([2; 16]);
        other.apply(&one.changes_since(&[])).unwrap();
        edit(&mut one, |tx| put(tx, "", &here)).unwrap();
        edit(&mut other, |tx| put(tx, "", &there)).unwrap();
        let (heads, theirs) = (one.automerge().get_heads(), other.changes_since(&one.heads()));

        // As the document library tells of it while it applies, and as the difference of the versions.
        let (mut applied, mut log) = (one.automerge().clone(), PatchLog::active());
        let changes: Vec<Change> = theirs.iter().map(|raw| Change::try_from(raw.bytes()).unwrap()).collect();
        applied.apply_changes_log_patches(changes, &mut log).unwrap();
        let told = applied.make_patches(&mut log);
        one.apply(&theirs).unwrap();
        let automerge = one.automerge();
        for patches in [told, automerge.diff(&heads, &automerge.get_heads())] {
            let (mut mirror, steps) = (here.clone(), DocumentPatch::list(automerge, &patches));
            steps.iter().for_each(|step| follow(&mut mirror, step));
            prop_assert_eq!(&mirror, &whole(&one), "{:?}", steps);
        }
    }
}
