//! Applying a change by making it again.
//!
//! Automerge applies a foreign change in O(document): it walks every operation of each text the change touches. A
//! local edit of the same text takes O(log document). A change whose author saw exactly what this document holds is
//! what the same edit made here would be, so it is made again here in its author's name; that the hashes are equal
//! proves that the changes are.

use crate::limits::DOCUMENT_DEPTH_MAX;
use automerge::legacy::{ElementId, Key, ObjectId, Op, OpId, OpType};
use automerge::transaction::{CommitOptions, Transactable, Transaction};
use automerge::{
    ActorId, Automerge, AutomergeError, Change, ChangeHash, Cursor, ExpandedChange, ObjId, ObjType, PatchLog,
    Prop, ReadDoc, ScalarValue,
};

/// What making a change again came to.
pub(super) enum Replayed {
    /// The document holds the change.
    Done(PatchLog),
    /// The document is as before: the change cannot be had this way.
    Unlike,
    /// The document holds another change in its place.
    Different,
}

/// Makes `change` again. Its dependencies must be exactly what an edit of its actor would depend on now.
pub(super) fn replay(automerge: &mut Automerge, change: &Change, patches: PatchLog) -> Replayed {
    let expanded = change.decode();
    if expanded.author.is_some() || !expanded.extra_bytes.is_empty() {
        return Replayed::Unlike;
    }
    let own = automerge.get_actor().clone();
    automerge.set_actor(expanded.actor_id.clone());
    let outcome = match automerge.transaction_log_patches(patches) {
        Ok(transaction) => make(transaction, &expanded, change.hash()),
        Err(_) => Replayed::Unlike,
    };
    automerge.set_actor(own);
    outcome
}

fn make(mut transaction: Transaction<'_>, expanded: &ExpandedChange, hash: ChangeHash) -> Replayed {
    let mut step = Step { actor: &expanded.actor_id, inserted: None, number: expanded.start_op.get() };
    let made = expanded.operations.iter().try_for_each(|op| step.make(&mut transaction, op));
    if made.is_none() || transaction.pending_ops() != expanded.operations.len() {
        transaction.rollback();
        return Replayed::Unlike;
    }
    let mut options = CommitOptions::default().with_time(expanded.time);
    if let Some(message) = &expanded.message {
        options = options.with_message(message.clone());
    }
    match transaction.commit_with(options) {
        (Some(made), patches) if made == hash => Replayed::Done(patches),
        (Some(_), _) => Replayed::Different,
        (None, _) => Replayed::Unlike,
    }
}

/// Whether an edit made by the author of `change` would depend on what the change depends on.
pub(super) fn continues(change: &Change, heads: &[ChangeHash], previous: Option<ChangeHash>) -> bool {
    let deps = change.deps();
    let is_wanted = |dep: &ChangeHash| heads.contains(dep) || Some(*dep) == previous;
    heads.iter().chain(previous.iter()).all(|wanted| deps.contains(wanted)) && deps.iter().all(is_wanted)
}

/// One operation after the other.
struct Step<'a> {
    actor: &'a ActorId,
    /// The element that the operation before has inserted, with the list and its place there.
    inserted: Option<(ObjectId, OpId, usize)>,
    /// The number of the operation.
    number: u64,
}

impl Step<'_> {
    /// Makes one operation; `None` when it is of a kind, or in a place, that an edit would not make it.
    fn make(&mut self, tx: &mut Transaction<'_>, op: &Op) -> Option<()> {
        let object = match &op.obj {
            ObjectId::Root => ObjId::Root,
            ObjectId::Id(id) => exid(id),
        };
        let inserted = self.inserted.take();
        if let OpType::Make(_) = op.action {
            // Nesting that goes too deep is refused by the rules on what was applied.
            let depth = tx.parents(&object).ok()?.take(DOCUMENT_DEPTH_MAX as usize).count() as u64;
            (depth + 1 < DOCUMENT_DEPTH_MAX).then_some(())?;
        }
        match (&op.key, op.insert) {
            (Key::Map(key), false) => put(tx, &object, Prop::Map(key.to_string()), op).ok()??,
            (Key::Seq(ElementId::Id(element)), false) => {
                let index = position(tx, &object, element)?;
                if op.action == OpType::Delete && tx.object_type(&object).ok()? == ObjType::Text {
                    tx.splice_text(&object, index, 1, "").ok()?;
                } else {
                    put(tx, &object, Prop::Seq(index), op).ok()??;
                }
            }
            (Key::Seq(element), true) => {
                let index = match (element, inserted) {
                    (ElementId::Head, _) => 0,
                    (ElementId::Id(id), Some((list, last, index))) if list == op.obj && last == *id => {
                        index + 1
                    }
                    (ElementId::Id(id), _) => position(tx, &object, id)? + 1,
                };
                insert(tx, &object, index, op)?;
                self.inserted = Some((op.obj.clone(), OpId(self.number, self.actor.clone()), index));
            }
            (Key::Map(_), true) | (Key::Seq(ElementId::Head), false) => return None,
        }
        self.number += 1;
        Some(())
    }
}

fn exid(id: &OpId) -> ObjId {
    ObjId::Id(id.counter(), id.actor().clone(), 0)
}

/// Where an element that is visible stands in its list.
fn position(tx: &Transaction<'_>, object: &ObjId, element: &OpId) -> Option<usize> {
    let cursor =
        Cursor::try_from(format!("{}@{}", element.counter(), element.actor().to_hex_string()).as_str());
    let cursor = cursor.ok()?;
    let index = tx.get_cursor_position(object, &cursor, None).ok()?;
    // Of an element that is gone the position is that of a neighbour.
    (tx.get_cursor(object, index, None).ok()? == cursor).then_some(index)
}

fn put(tx: &mut Transaction<'_>, object: &ObjId, prop: Prop, op: &Op) -> Result<Option<()>, AutomergeError> {
    match &op.action {
        OpType::Put(value) => tx.put(object, prop, value.clone())?,
        OpType::Delete => tx.delete(object, prop)?,
        OpType::Increment(by) => tx.increment(object, prop, *by)?,
        OpType::Make(kind) => drop(tx.put_object(object, prop, *kind)?),
        OpType::MarkBegin(_) | OpType::MarkEnd(_) => return Ok(None),
    }
    Ok(Some(()))
}

fn insert(tx: &mut Transaction<'_>, object: &ObjId, index: usize, op: &Op) -> Option<()> {
    let is_text = tx.object_type(object).ok()? == ObjType::Text;
    match &op.action {
        OpType::Put(ScalarValue::Str(text)) if is_text => {
            let mut letters = text.chars();
            (letters.next().is_some() && letters.next().is_none()).then_some(())?;
            tx.splice_text(object, index, 0, text).ok()
        }
        OpType::Put(value) if !is_text => tx.insert(object, index, value.clone()).ok(),
        OpType::Make(kind) if !is_text => tx.insert_object(object, index, *kind).ok().map(drop),
        _ => None,
    }
}
