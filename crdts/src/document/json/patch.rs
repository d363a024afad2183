//! JSON patches (RFC 6902).

use automerge::transaction::{Transactable, Transaction};
use automerge::{ObjType, Prop};
use serde::Deserialize;
use serde_json::{Number, Value};

use super::node::{Node, Source};
use super::pointer::Pointer;
use super::update::{insert, put_root, put_slot};
use super::{JsonError, JsonForm};
use crate::limits::DOCUMENT_CHANGE_OPS_MAX;

/// Operations in one patch.
pub const PATCH_OPERATIONS_MAX: usize = 1_000;

/// One operation of a JSON patch; what the RFC does not name is ignored, as it asks.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(tag = "op", rename_all = "lowercase")]
enum Operation {
    Add { path: String, value: Value },
    Remove { path: String },
    Replace { path: String, value: Value },
    Move { from: String, path: String },
    Copy { from: String, path: String },
    Test { path: String, value: Value },
}

/// Applies a JSON patch (RFC 6902), a list of operations whose values are in the tagged form. Moving and copying make new objects: what others do
/// to the old one at the same time stays with the old one. Keeps objects where values are replaced by values of
/// the same kind. O(operations × values read and written).
///
/// # Errors
/// [`JsonError::Operation`] with the operation's index. What the operations before it did is in the transaction,
/// which is to be rolled back.
pub fn patch(tx: &mut Transaction<'_>, operations: &Value) -> Result<(), JsonError> {
    let Value::Array(operations) = operations else { return Err(JsonError::NotPatch) };
    if operations.len() > PATCH_OPERATIONS_MAX {
        return Err(JsonError::TooManyOperations {
            operations: operations.len(),
            operations_max: PATCH_OPERATIONS_MAX,
        });
    }
    for (index, operation) in operations.iter().enumerate() {
        let operation = Operation::deserialize(operation)
            .map_err(|error| JsonError::NotOperation { index, reason: error.to_string() })?;
        apply(tx, &operation)
            .and_then(|()| check_ops(tx))
            .map_err(|source| JsonError::Operation { index, source: Box::new(source) })?;
    }
    Ok(())
}

fn apply(tx: &mut Transaction<'_>, operation: &Operation) -> Result<(), JsonError> {
    match operation {
        Operation::Add { path, value } => {
            let mut at = Pointer::parse(path)?;
            let node = Node::from_json(value, &mut at)?;
            add(tx, &mut at, &node)
        }
        Operation::Remove { path } => remove(tx, &Pointer::parse(path)?),
        Operation::Replace { path, value } => {
            let mut at = Pointer::parse(path)?;
            at.expect(tx)?;
            let node = Node::from_json(value, &mut at)?;
            replace(tx, &mut at, &node)
        }
        Operation::Move { from, path } => {
            let (from, mut at) = (Pointer::parse(from)?, Pointer::parse(path)?);
            let node = read(tx, &from)?;
            if from.is_above(&at) {
                return Err(JsonError::IntoItself { pointer: from.to_string() });
            }
            if from == at {
                return Ok(());
            }
            remove(tx, &from)?;
            node.check_at(&mut at)?;
            add(tx, &mut at, &node)
        }
        Operation::Copy { from, path } => {
            let node = read(tx, &Pointer::parse(from)?)?;
            let mut at = Pointer::parse(path)?;
            node.check_at(&mut at)?;
            add(tx, &mut at, &node)
        }
        Operation::Test { path, value } => {
            let held = read(tx, &Pointer::parse(path)?)?.to_json(JsonForm::Tagged);
            if is_equal(&held, value) { Ok(()) } else { Err(JsonError::Test { pointer: path.clone() }) }
        }
    }
}

/// A few copies of copies are more than memory holds, so their number is looked at before the edit's end.
fn check_ops(tx: &Transaction<'_>) -> Result<(), JsonError> {
    let ops = tx.pending_ops() as u64;
    if ops <= DOCUMENT_CHANGE_OPS_MAX {
        return Ok(());
    }
    Err(JsonError::TooManyOps { ops, ops_max: DOCUMENT_CHANGE_OPS_MAX })
}

fn read(tx: &Transaction<'_>, from: &Pointer) -> Result<Node, JsonError> {
    let found = from.expect(tx)?;
    let source = Source { document: tx, version: None, has_marks: true };
    source.read(&found.id, &found.value, &mut from.clone())
}

fn add(tx: &mut Transaction<'_>, at: &mut Pointer, node: &Node) -> Result<(), JsonError> {
    if at.is_root() {
        return put_root(tx, node);
    }
    let slot = at.slot(tx)?;
    match (slot.object_type, &slot.prop) {
        (ObjType::List, Prop::Seq(index)) => insert(tx, &slot.object, *index, std::slice::from_ref(node)),
        _ => put_slot(tx, &slot, node, at),
    }
}

fn replace(tx: &mut Transaction<'_>, at: &mut Pointer, node: &Node) -> Result<(), JsonError> {
    if at.is_root() {
        return put_root(tx, node);
    }
    let slot = at.slot(tx)?;
    put_slot(tx, &slot, node, at)
}

fn remove(tx: &mut Transaction<'_>, at: &Pointer) -> Result<(), JsonError> {
    let (object, prop) = at.expect(tx)?.held_by.ok_or(JsonError::Root)?;
    Ok(tx.delete(object, prop)?)
}

/// Equality as the RFC has it: numbers are compared as numbers, whatever they are written as.
fn is_equal(one: &Value, other: &Value) -> bool {
    match (one, other) {
        (Value::Number(one), Value::Number(other)) => is_equal_number(one, other),
        (Value::Array(one), Value::Array(other)) => {
            one.len() == other.len() && one.iter().zip(other).all(|(one, other)| is_equal(one, other))
        }
        (Value::Object(one), Value::Object(other)) => {
            let mut pairs = one.iter().map(|(key, value)| (value, other.get(key)));
            one.len() == other.len()
                && pairs.all(|(one, other)| other.is_some_and(|other| is_equal(one, other)))
        }
        _ => one == other,
    }
}

fn is_equal_number(one: &Number, other: &Number) -> bool {
    // Integers compare exactly; a float only decides where one of them is none.
    one == other || ((one.is_f64() || other.is_f64()) && one.as_f64() == other.as_f64())
}
