//! JSON and documents.
//!
//! Reading gives a [`Value`] for whatever is at a JSON Pointer (RFC 6901). Writing makes what is there equal to a
//! value by as few operations as it can, so that what did not change is not written and concurrent edits of it
//! survive: texts and lists are diffed, keys that are absent are deleted. Strings become collaborative text.
//!
//! What JSON lacks has tags: `{"$counter": 5}`, `{"$bytes": "<base64>"}`, `{"$timestamp": <ms>}`,
//! `{"$float": "NaN"}` (or `inf`, `-inf`). `{"$string": "…"}` writes a string that is replaced as a whole; it reads
//! as a plain string. A map with a tag as its only key is `{"$map": {…}}`. Numbers written as integers are integers
//! where they fit 64 bits, all others are floats.

mod align;
mod merge;
mod node;
mod patch;
mod pointer;
mod scalar;
#[cfg(test)]
mod tests;
mod update;

use automerge::transaction::Transaction;
use automerge::{AutomergeError, ChangeHash, ObjType, ROOT, ReadDoc, ScalarValue, Value as Held};
use serde_json::Value;

use node::{Node, Source};

pub use patch::{PATCH_OPERATIONS_MAX, patch};
pub(crate) use pointer::{Pointer, Version};
pub(crate) use scalar::to_json as scalar_to_json;

/// Lists and maps within lists and maps, counted from the document's root, that are read or written.
pub const DEPTH_MAX: usize = 64;

/// How values are shown that JSON lacks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum JsonForm {
    /// By tags: what is read can be written again and is the same then.
    #[default]
    Tagged,
    /// As what is nearest: counters and timestamps as numbers, bytes as base64, floats that are no numbers as null.
    Plain,
}

/// Why something in a document could not be read or written by its JSON Pointer. What an edit did before is rolled back with it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JsonError {
    /// The pointer is not one.
    #[error("the JSON pointer {pointer:?}: {rule}")]
    Pointer {
        /// What was given.
        pointer: String,
        /// The rule that is broken.
        rule: &'static str,
    },
    /// Nothing is there.
    #[error("there is nothing at {pointer:?}")]
    NotFound {
        /// Where.
        pointer: String,
    },
    /// What is there has neither keys nor elements.
    #[error("what is at {pointer:?} is neither a map nor a list")]
    NotContainer {
        /// Where.
        pointer: String,
    },
    /// The last part of the pointer is no index of the list it leads to.
    #[error("{pointer:?} is no place in its list, which has {length} elements")]
    Index {
        /// Where.
        pointer: String,
        /// The length of the list.
        length: usize,
    },
    /// A document's root is a map; it can be neither replaced by anything else, nor removed.
    #[error("the root of a document is a map and stays one")]
    Root,
    /// The nesting is too deep.
    #[error("{pointer:?} is nested deeper than {depth_max} lists and maps")]
    TooDeep {
        /// Where the limit is passed.
        pointer: String,
        /// The limit, [`DEPTH_MAX`].
        depth_max: usize,
    },
    /// A tagged value is none.
    #[error("{tag} at {pointer:?}: {rule}")]
    Tag {
        /// Where.
        pointer: String,
        /// The tag.
        tag: String,
        /// The rule that is broken.
        rule: &'static str,
    },
    /// What is there is no text.
    #[error("what is at {pointer:?} is no text")]
    NotText {
        /// Where.
        pointer: String,
    },
    /// What is there is no counter.
    #[error("what is at {pointer:?} is no counter")]
    NotCounter {
        /// Where.
        pointer: String,
    },
    /// The counter would leave 64 bits.
    #[error("the counter at {pointer:?} would leave 64 bits")]
    CounterRange {
        /// Where.
        pointer: String,
    },
    /// The range is not one of the text, or an empty one was to be marked.
    #[error("{start}..{end} is no such range of the text at {pointer:?}, which has {length} code points")]
    Range {
        /// Where.
        pointer: String,
        /// The first code point.
        start: usize,
        /// One past the last.
        end: usize,
        /// The length of the text.
        length: usize,
    },
    /// A mark's value is a single value; null would remove it.
    #[error("the value of the mark {name:?} is a list, a map or null")]
    MarkValue {
        /// The mark.
        name: String,
    },
    /// A cursor is not one of this document as it is here.
    #[error("the cursor is not one of this document as it is here")]
    Cursor,
    /// The version is not known here.
    #[error("the document holds no change {}", data_encoding::HEXLOWER.encode(head))]
    UnknownVersion {
        /// The head that is missing.
        head: [u8; 32],
    },
    /// A JSON patch is a list of operations.
    #[error("a JSON patch is a list of operations")]
    NotPatch,
    /// The patch is too long.
    #[error("the patch has {operations} operations; the limit is {operations_max}")]
    TooManyOperations {
        /// How many it has.
        operations: usize,
        /// The limit, [`PATCH_OPERATIONS_MAX`].
        operations_max: usize,
    },
    /// The patch is too much for one change.
    #[error("{ops} operations in the document; the limit is {ops_max}")]
    TooManyOps {
        /// How many it made until then.
        ops: u64,
        /// The limit, [`DOCUMENT_CHANGE_OPS_MAX`](crate::limits::DOCUMENT_CHANGE_OPS_MAX).
        ops_max: u64,
    },
    /// One operation of a patch is none.
    #[error("operation {index} of the patch: {reason}")]
    NotOperation {
        /// Its index in the patch.
        index: usize,
        /// What is wrong with it.
        reason: String,
    },
    /// One operation of a patch cannot be done.
    #[error("operation {index} of the patch: {source}")]
    Operation {
        /// Its index in the patch.
        index: usize,
        /// Why.
        source: Box<Self>,
    },
    /// What is there is not what the patch expected.
    #[error("what is at {pointer:?} is not what is expected there")]
    Test {
        /// Where.
        pointer: String,
    },
    /// Nothing can be moved into itself.
    #[error("what is at {pointer:?} cannot be moved into itself")]
    IntoItself {
        /// What was to be moved.
        pointer: String,
    },
    /// The document library refused an operation.
    #[error(transparent)]
    Automerge(Box<AutomergeError>),
}

/// What is at `pointer`, or `None` when nothing is. O(value).
///
/// # Errors
/// [`JsonError`] when the pointer is none or what it leads to is nested too deep.
pub fn read(document: &impl ReadDoc, pointer: &str, form: JsonForm) -> Result<Option<Value>, JsonError> {
    read_version(document, None, pointer, form)
}

/// As [`read`], in the version that `heads` name. O(value), and as much as it takes to find what the version held.
///
/// # Errors
/// As [`read`], and [`JsonError::UnknownVersion`].
pub fn read_at(
    document: &impl ReadDoc,
    heads: &[[u8; 32]],
    pointer: &str,
    form: JsonForm,
) -> Result<Option<Value>, JsonError> {
    let heads = known(document, heads)?;
    read_version(document, Some(&heads), pointer, form)
}

/// Makes what is at `pointer` equal to `value`, type for type: a plain number takes the place of a counter. What is
/// equal is not written, so a value that won over others written at the same time stays one that did. What its container is in must exist; `-`, or the length of a list,
/// appends to it. O(old value + new value), and lists are compared element by element up to about a million
/// comparisons.
///
/// # Errors
/// [`JsonError`]; what was done until then is in the transaction, which is to be rolled back.
pub fn put(tx: &mut Transaction<'_>, pointer: &str, value: &Value) -> Result<(), JsonError> {
    let mut at = Pointer::parse(pointer)?;
    let node = Node::from_json(value, &mut at)?;
    if at.is_root() {
        return update::put_root(tx, &node);
    }
    let slot = at.slot(tx)?;
    update::put_slot(tx, &slot, &node, &mut at)
}

/// Applies a merge patch (RFC 7396) to what is at `pointer`: keys whose value is null are removed, maps are merged,
/// and anything else takes the place of what is there, as by [`put`]. A tagged value is a value, not a map.
///
/// # Errors
/// As [`put`].
pub fn merge_patch(tx: &mut Transaction<'_>, pointer: &str, value: &Value) -> Result<(), JsonError> {
    let mut at = Pointer::parse(pointer)?;
    if at.is_root() {
        return merge::merge_root(tx, value);
    }
    let slot = at.slot(tx)?;
    merge::merge_slot(tx, &slot, value, &mut at)
}

/// Makes the document equal to the version that `heads` name, by a new edit: nothing of its history is lost, and
/// what others write at the same time is merged. Marks are restored with their texts, and grow at their end from
/// then on; blocks of rich text that are gone come back as the character U+FFFC.
///
/// # Errors
/// As [`put`], and [`JsonError::UnknownVersion`].
pub fn restore(tx: &mut Transaction<'_>, heads: &[[u8; 32]]) -> Result<(), JsonError> {
    let heads = known(tx, heads)?;
    let source = Source { document: &*tx, version: Some(&heads), has_marks: true };
    let map = source.read(&ROOT, &Held::Object(ObjType::Map), &mut Pointer::default())?;
    update::put_root(tx, &map)
}

/// Makes the document equal to another one, by a new edit; as [`restore`].
///
/// # Errors
/// As [`put`].
pub fn copy(tx: &mut Transaction<'_>, other: &impl ReadDoc) -> Result<(), JsonError> {
    let source = Source { document: other, version: None, has_marks: true };
    let map = source.read(&ROOT, &Held::Object(ObjType::Map), &mut Pointer::default())?;
    update::put_root(tx, &map)
}

/// The scalar that JSON stands for, strings included, or `None` when it stands for a list or a map.
pub(crate) fn scalar_from_json(value: &Value) -> Result<Option<ScalarValue>, JsonError> {
    Ok(match Node::from_json(value, &mut Pointer::default())? {
        Node::Scalar(scalar) => Some(scalar),
        Node::String(text) | Node::Text(text, _) => Some(ScalarValue::Str(text.into())),
        Node::Map(_) | Node::List(_) => None,
    })
}

/// The heads as the document library takes them, when it knows all of them.
pub(crate) fn known(document: &impl ReadDoc, heads: &[[u8; 32]]) -> Result<Vec<ChangeHash>, JsonError> {
    let mut heads: Vec<ChangeHash> = heads.iter().copied().map(ChangeHash).collect();
    heads.sort_unstable();
    heads.dedup();
    let missing = document.get_missing_deps(&heads);
    match heads.iter().find(|head| missing.contains(head)) {
        Some(head) => Err(JsonError::UnknownVersion { head: head.0 }),
        None => Ok(heads),
    }
}

fn read_version(
    document: &impl ReadDoc,
    version: Version<'_>,
    pointer: &str,
    form: JsonForm,
) -> Result<Option<Value>, JsonError> {
    let mut at = Pointer::parse(pointer)?;
    let Some(found) = at.find(document, version)? else { return Ok(None) };
    let source = Source { document, version, has_marks: false };
    Ok(Some(source.read(&found.id, &found.value, &mut at)?.to_json(form)))
}

fn check_depth(at: &Pointer) -> Result<(), JsonError> {
    if at.depth() > DEPTH_MAX {
        return Err(JsonError::TooDeep { pointer: at.to_string(), depth_max: DEPTH_MAX });
    }
    Ok(())
}

impl From<AutomergeError> for JsonError {
    fn from(error: AutomergeError) -> Self {
        Self::Automerge(Box::new(error))
    }
}
