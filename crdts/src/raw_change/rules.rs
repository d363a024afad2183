//! The rules on a change that need its operations: what sort of object each is on, how deep objects nest, and
//! how marks begin and end. Their verdicts do not depend on the order in which changes arrive: what an object is
//! and lies in, and which of two elements comes first, is settled for ever by what the change depends on.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use automerge::{ActorId, Automerge, ChangeHash, Cursor, ObjId, ObjType, ReadDoc};

use crate::codec::Writer;
use crate::guard::guard;
use crate::limits::DOCUMENT_DEPTH_MAX;

use super::operations::{Action, Key, OpName, Operation};
use super::{DocumentError, RawChange, within};

/// A document, as far as the rules ask about it. Answers cover what the change in question depends on; `None`
/// stands for what is not there.
pub(crate) trait Objects {
    /// What sort of object this is.
    fn sort(&self, object: &OpName<'_>) -> Option<Sort>;
    /// How many objects lie on the way from the root to this one, itself included.
    fn depth(&self, object: &OpName<'_>) -> Option<u64>;
    /// How the positions of two elements of an object compare. Must not contradict the order of the elements;
    /// may be equal when nothing that can be seen lies between them.
    fn order(&self, object: &OpName<'_>, first: &OpName<'_>, second: &OpName<'_>) -> Option<Ordering>;
}

/// The sorts of objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sort {
    Map,
    List,
    Text,
}

/// What the operations of a change tell about its marks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Marks {
    /// Each ends after it begins.
    Ordered,
    /// Nothing that can be seen lies between the beginning of a mark and its end, so that their order cannot be
    /// told from positions.
    Unsettled,
}

/// Checks changes that were just applied to `automerge`, by the rules that need the document. O(operations),
/// with a look at each object that they are on; O(text) for a mark whose text was deleted since, and O(document)
/// once when it was deleted by the change that marks it.
///
/// # Errors
/// [`DocumentError`] when one of them breaks a rule; the instance holds it all the same.
pub(crate) fn check_applied<'a>(
    automerge: &Automerge,
    changes: impl IntoIterator<Item = &'a RawChange>,
) -> Result<(), DocumentError> {
    let check = || {
        let mut marks = Marks::Ordered;
        for change in changes {
            check_empty(automerge, change)?;
            let (operations, objects) = (change.operations()?, Applied { automerge, change });
            check_objects(&operations, &objects)?;
            if check_marks(&operations, &objects)? == Marks::Unsettled {
                marks = Marks::Unsettled;
            }
        }
        if marks == Marks::Unsettled {
            // Automerge is strict about marks when it loads, and only then.
            Automerge::load(&automerge.save()).map_err(|_| DocumentError::NotReproduced)?;
        }
        Ok(())
    };
    guard(check).unwrap_or_else(|reason| Err(DocumentError::Panicked { reason }))
}

/// Checks that a change without operations is numbered right above what it depends on. Automerge stores the number
/// of its last operation alone, and would miss those in between when it loads. O(dependencies).
fn check_empty(automerge: &Automerge, change: &RawChange) -> Result<(), DocumentError> {
    if change.ops() > 0 {
        return Ok(());
    }
    let mut max_op = 0;
    for dependency in change.deps() {
        let found = automerge.get_change_meta_by_hash(&ChangeHash(dependency));
        max_op = max_op.max(found.ok_or(DocumentError::MissingDependency { dependency })?.max_op);
    }
    let start_op = change.start_op();
    if start_op == max_op + 1 { Ok(()) } else { Err(DocumentError::StartOp { start_op, max_op }) }
}

/// What is known of an object.
#[derive(Clone, Copy)]
struct Known {
    sort: Sort,
    /// Asked for only when something is made in the object.
    depth: Option<u64>,
}

/// Checks that each operation is on an object of its sort, and that nothing is nested too deep. O(operations),
/// with one question for each object.
///
/// An element in a map, and a key of a map that is inserted like an element, are what Automerge takes, stores and
/// loads, until somebody else changes the map: it then fails on that change.
///
/// # Errors
/// [`DocumentError::UnknownObject`], [`DocumentError::ObjectType`], [`DocumentError::OverLimit`].
pub(crate) fn check_objects(
    operations: &[Operation<'_>],
    objects: &impl Objects,
) -> Result<(), DocumentError> {
    let mut known: BTreeMap<Option<OpName<'_>>, Known> = BTreeMap::new();
    known.insert(None, Known { sort: Sort::Map, depth: Some(0) });
    for operation in operations {
        let counter = operation.name.counter;
        let unknown = DocumentError::UnknownObject { counter };
        let found = known.get(&operation.object).copied();
        let look = || objects.sort(&operation.object?).map(|sort| Known { sort, depth: None });
        let mut outer = found.or_else(look).ok_or(unknown.clone())?;
        if !is_of_sort(operation, outer.sort) {
            return Err(DocumentError::ObjectType { counter });
        }
        let makes = match operation.action {
            Action::MakeMap => Some(Sort::Map),
            Action::MakeList => Some(Sort::List),
            Action::MakeText => Some(Sort::Text),
            Action::MarkBegin | Action::MarkEnd | Action::Other => None,
        };
        if let Some(sort) = makes {
            let measure = || objects.depth(&operation.object?);
            let depth = outer.depth.or_else(measure).ok_or(unknown)?;
            outer.depth = Some(depth);
            let depth = Some(within("nesting depth", depth + 1, DOCUMENT_DEPTH_MAX)?);
            known.insert(Some(operation.name), Known { sort, depth });
        }
        known.insert(operation.object, outer);
    }
    Ok(())
}

/// Whether an operation can be on an object of a sort. Marks are in texts only: Automerge takes them in lists, and
/// then fails to read the list.
fn is_of_sort(operation: &Operation<'_>, sort: Sort) -> bool {
    let is_mark = matches!(operation.action, Action::MarkBegin | Action::MarkEnd);
    match sort {
        Sort::Map => operation.key == Key::Map && !operation.is_insert && !is_mark,
        Sort::List => operation.key != Key::Map && !is_mark,
        Sort::Text => operation.key != Key::Map,
    }
}

/// Checks that each mark is an element, and that the end of one is the operation right after its beginning and
/// comes later in the same sequence: Automerge pairs them by number, and does not load a document that has an end
/// before its beginning, or in another object. A beginning without an end marks the rest of the text. O(operations).
///
/// # Errors
/// [`DocumentError::MarkOrder`].
pub(crate) fn check_marks(
    operations: &[Operation<'_>],
    objects: &impl Objects,
) -> Result<Marks, DocumentError> {
    let mut marks = Marks::Ordered;
    let mut previous: Option<&Operation<'_>> = None;
    for operation in operations {
        let before = previous.replace(operation);
        if !matches!(operation.action, Action::MarkBegin | Action::MarkEnd) {
            continue;
        }
        let refused = DocumentError::MarkOrder { counter: operation.name.counter };
        let is_element = operation.is_insert && operation.key != Key::Map;
        let Some(object) = operation.object.filter(|_| is_element) else { return Err(refused) };
        if operation.action == Action::MarkBegin {
            continue;
        }
        let is_begin =
            |begin: &&Operation<'_>| begin.action == Action::MarkBegin && begin.object == operation.object;
        let Some(begin) = before.filter(is_begin) else { return Err(refused) };
        // An element stands after the one it was inserted after.
        if operation.key == Key::Element(begin.name) {
            continue;
        }
        match objects.order(&object, &begin.name, &operation.name) {
            Some(Ordering::Less) => {}
            Some(Ordering::Equal) => marks = Marks::Unsettled,
            Some(Ordering::Greater) | None => return Err(refused),
        }
    }
    Ok(marks)
}

/// A document to which the change in question was applied.
struct Applied<'a> {
    automerge: &'a Automerge,
    change: &'a RawChange,
}

impl Objects for Applied<'_> {
    fn sort(&self, object: &OpName<'_>) -> Option<Sort> {
        Some(match self.automerge.object_type(object_id(object)).ok()? {
            ObjType::Map | ObjType::Table => Sort::Map,
            ObjType::List => Sort::List,
            ObjType::Text => Sort::Text,
        })
    }

    /// Above the limit, any number above it.
    fn depth(&self, object: &OpName<'_>) -> Option<u64> {
        let parents = self.automerge.parents(object_id(object)).ok()?;
        Some(parents.take(DOCUMENT_DEPTH_MAX as usize + 1).count() as u64)
    }

    /// Compares positions as they are now, which needs no walk through the text, and if those are equal, as they
    /// were when the change was made.
    fn order(&self, object: &OpName<'_>, first: &OpName<'_>, second: &OpName<'_>) -> Option<Ordering> {
        let position = |element: &OpName<'_>, heads: Option<&[ChangeHash]>| {
            self.automerge.get_cursor_position(object_id(object), &cursor(element), heads)
        };
        let now = position(first, None).ok()?.cmp(&position(second, None).ok()?);
        if now != Ordering::Equal {
            return Some(now);
        }
        let heads = [ChangeHash(self.change.hash())];
        // Of an older version, Automerge has no position for a mark after which there is nothing.
        let then = |element: &OpName<'_>| position(element, Some(&heads)).unwrap_or(usize::MAX);
        Some(then(first).cmp(&then(second)))
    }
}

fn object_id(name: &OpName<'_>) -> ObjId {
    ObjId::Id(name.counter, ActorId::from(name.actor), 0)
}

/// A cursor on an element, visible or not, made from its bytes since Automerge only gives out those of visible
/// ones: version, tag, actor, counter, and "after" as the side to move to.
fn cursor(element: &OpName<'_>) -> Cursor {
    let mut bytes = Writer::new();
    bytes.bytes(&[1, 3]);
    bytes.blob(element.actor);
    bytes.varint(element.counter);
    bytes.u8(2);
    Cursor::try_from(bytes.finish()).expect("a cursor in Automerge's own form")
}

#[cfg(test)]
mod tests;
