//! Making what is in a document equal to a value, by few operations.

use std::collections::BTreeMap;
use std::ops::Range;

use automerge::marks::{ExpandMark, Mark};
use automerge::transaction::{Transactable, Transaction};
use automerge::{ObjId, ObjType, Prop, ROOT, ReadDoc, ScalarValue, TextEncoding, Value as Held, hydrate};

use super::align::{Run, align};
use super::node::{Node, Source};
use super::pointer::{Pointer, Slot};
use super::{JsonError, JsonForm};

/// Puts `wanted` into a place, whether something is there or not. An index one past the end of a list appends.
pub(super) fn put_slot(
    tx: &mut Transaction<'_>,
    slot: &Slot,
    wanted: &Node,
    at: &mut Pointer,
) -> Result<(), JsonError> {
    if slot.prop == Prop::Seq(slot.length) && slot.object_type == ObjType::List {
        return insert(tx, &slot.object, slot.length, std::slice::from_ref(wanted));
    }
    let Some((value, id)) = tx.get(&slot.object, slot.prop.clone())? else {
        return create(tx, &slot.object, &slot.prop, wanted);
    };
    let value = value.into_owned();
    let current = Source { document: &*tx, version: None, has_marks: true }.read(&id, &value, at)?;
    update(tx, (&slot.object, &slot.prop), &current, wanted)
}

/// Makes the document equal to `wanted`, which must be a map.
pub(super) fn put_root(tx: &mut Transaction<'_>, wanted: &Node) -> Result<(), JsonError> {
    let Node::Map(wanted) = wanted else { return Err(JsonError::Root) };
    let source = Source { document: &*tx, version: None, has_marks: true };
    let current = source.map(&ROOT, &mut Pointer::default())?;
    update_map(tx, &ROOT, &current, wanted)
}

/// Makes the map `map`, which holds `current`, equal to `wanted`.
fn update_map(
    tx: &mut Transaction<'_>,
    map: &ObjId,
    current: &BTreeMap<String, Node>,
    wanted: &BTreeMap<String, Node>,
) -> Result<(), JsonError> {
    for key in current.keys().filter(|key| !wanted.contains_key(*key)) {
        tx.delete(map, key.as_str())?;
    }
    for (key, wanted) in wanted {
        let prop = Prop::Map(key.clone());
        match current.get(key) {
            Some(current) => update(tx, (map, &prop), current, wanted)?,
            None => create(tx, map, &prop, wanted)?,
        }
    }
    Ok(())
}

/// Makes what is at `prop` of `object`, which is `current`, equal to `wanted`.
fn update(
    tx: &mut Transaction<'_>,
    (object, prop): (&ObjId, &Prop),
    current: &Node,
    wanted: &Node,
) -> Result<(), JsonError> {
    if current.is_already(wanted) {
        return Ok(());
    }
    if let (Node::Scalar(ScalarValue::Counter(current)), Node::Scalar(ScalarValue::Counter(wanted))) =
        (current, wanted)
        && let Some(by) = i64::from(wanted).checked_sub(i64::from(current))
    {
        return Ok(tx.increment(object, prop.clone(), by)?);
    }
    if !current.is_like(wanted) {
        return create(tx, object, prop, wanted);
    }
    let Some((Held::Object(_), child)) = tx.get(object, prop.clone())? else {
        return create(tx, object, prop, wanted);
    };
    match (current, wanted) {
        (Node::Map(current), Node::Map(wanted)) => update_map(tx, &child, current, wanted),
        (Node::List(current), Node::List(wanted)) => update_list(tx, &child, current, wanted),
        (Node::Text(..), Node::String(text)) => Ok(tx.update_text(&child, text)?),
        (Node::Text(..), Node::Text(text, marks)) => {
            tx.update_text(&child, text)?;
            update_marks(tx, &child, marks)
        }
        _ => create(tx, object, prop, wanted),
    }
}

/// Elements that are equal stay; between them, what can become its counterpart in place does, in order.
fn update_list(
    tx: &mut Transaction<'_>,
    list: &ObjId,
    current: &[Node],
    wanted: &[Node],
) -> Result<(), JsonError> {
    let names = |nodes: &[Node]| -> Vec<String> {
        nodes.iter().map(|node| node.to_json(JsonForm::Tagged).to_string()).collect()
    };
    // Backwards, so that the indices of what is still to be done are those of `current`.
    for run in align(&names(current), &names(wanted)).into_iter().rev() {
        match run {
            Run::Same { old, new } => {
                for (index, wanted) in old.zip(&wanted[new]) {
                    update(tx, (list, &Prop::Seq(index)), &current[index], wanted)?;
                }
            }
            Run::Differing { old, new } => replace_run(tx, (list, current), old, &wanted[new])?,
        }
    }
    Ok(())
}

/// Makes the elements `old` of a list that holds `current` equal to `wanted`.
fn replace_run(
    tx: &mut Transaction<'_>,
    (list, current): (&ObjId, &[Node]),
    old: Range<usize>,
    wanted: &[Node],
) -> Result<(), JsonError> {
    let kept = old.len().min(wanted.len());
    if kept < wanted.len() {
        insert(tx, list, old.end, &wanted[kept..])?;
    }
    for index in (old.start + kept..old.end).rev() {
        tx.delete(list, index)?;
    }
    for (index, wanted) in old.zip(&wanted[..kept]) {
        update(tx, (list, &Prop::Seq(index)), &current[index], wanted)?;
    }
    Ok(())
}

/// Makes the marks of a text equal to `wanted`. How they grow is not recorded in what is read of them: they grow at
/// their end, as most do.
fn update_marks(tx: &mut Transaction<'_>, text: &ObjId, wanted: &[Mark]) -> Result<(), JsonError> {
    let current = tx.marks(text)?;
    for mark in current.iter().filter(|mark| !wanted.contains(mark)) {
        tx.unmark(text, mark.name(), mark.start, mark.end, ExpandMark::Both)?;
    }
    for mark in wanted.iter().filter(|mark| !current.contains(mark)) {
        tx.mark(text, mark.clone(), ExpandMark::After)?;
    }
    Ok(())
}

/// Puts a value where there is none of its kind.
fn create(tx: &mut Transaction<'_>, object: &ObjId, prop: &Prop, wanted: &Node) -> Result<(), JsonError> {
    match hydrated(wanted, tx.text_encoding()) {
        hydrate::Value::Scalar(scalar) => Ok(tx.put(object, prop.clone(), scalar)?),
        value => {
            tx.batch_create_object(object, prop.clone(), &value, false)?;
            mark_new(tx, (object, prop), wanted)
        }
    }
}

/// Inserts values into a list, from `index` on.
pub(super) fn insert(
    tx: &mut Transaction<'_>,
    list: &ObjId,
    index: usize,
    wanted: &[Node],
) -> Result<(), JsonError> {
    let encoding = tx.text_encoding();
    tx.splice(list, index, 0, wanted.iter().map(|node| hydrated(node, encoding)))?;
    let mut places = (index..).map(Prop::Seq).zip(wanted);
    places.try_for_each(|(prop, wanted)| mark_new(tx, (list, &prop), wanted))
}

/// Sets the marks of texts that are new, which the library does not do as it makes them.
fn mark_new(
    tx: &mut Transaction<'_>,
    (object, prop): (&ObjId, &Prop),
    wanted: &Node,
) -> Result<(), JsonError> {
    if !wanted.has_marks() {
        return Ok(());
    }
    let Some((_, child)) = tx.get(object, prop.clone())? else { return Ok(()) };
    match wanted {
        Node::Scalar(_) | Node::String(_) => Ok(()),
        Node::Text(_, marks) => update_marks(tx, &child, marks),
        Node::Map(map) => {
            let mut entries = map.iter().map(|(key, wanted)| (Prop::Map(key.clone()), wanted));
            entries.try_for_each(|(prop, wanted)| mark_new(tx, (&child, &prop), wanted))
        }
        Node::List(list) => {
            let mut elements = (0..).map(Prop::Seq).zip(list);
            elements.try_for_each(|(prop, wanted)| mark_new(tx, (&child, &prop), wanted))
        }
    }
}

/// A value as the library takes it, to be made as a whole: some ten times as fast as one operation after another.
fn hydrated(node: &Node, encoding: TextEncoding) -> hydrate::Value {
    match node {
        Node::Scalar(scalar) => hydrate::Value::Scalar(scalar.clone()),
        Node::String(text) | Node::Text(text, _) => hydrate::Value::text(encoding, text),
        Node::Map(map) => {
            let entries = map.iter().map(|(key, node)| (key.clone(), hydrated(node, encoding)));
            #[expect(
                clippy::disallowed_types,
                reason = "the library takes no other, and sorts it by its keys"
            )]
            let entries: std::collections::HashMap<String, hydrate::Value> = entries.collect();
            hydrate::Value::Map(entries.into())
        }
        Node::List(list) => {
            let nodes = list.iter().map(|node| hydrated(node, encoding));
            hydrate::Value::List(nodes.collect::<Vec<_>>().into())
        }
    }
}
