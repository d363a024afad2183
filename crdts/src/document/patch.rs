//! What changed in a document, in a form of our own that can be stored and sent.

use std::collections::BTreeMap;

use automerge::marks::Mark;
use automerge::{Automerge, ObjType, Patch, PatchAction, Prop, ReadDoc, Value as Held};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::json::{JsonForm, Pointer, scalar_to_json};

/// One step from one version of a document to another. Steps are meant to be applied in their order: each path
/// is that of the document in which all earlier steps are done.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DocumentPatch {
    /// Where, as a JSON Pointer (RFC 6901). Elements of a text are named as those of a list are.
    pub path: String,
    /// What to do there.
    #[serde(flatten)]
    pub action: DocumentAction,
}

/// What to do at a path. Values are JSON in the tagged form; objects arrive empty, `{}`, `[]` or `""`, and later
/// steps fill them. Positions and counts in texts are Unicode code points.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "action", rename_all = "snake_case")]
#[non_exhaustive]
pub enum DocumentAction {
    /// The key or index at the path holds `value` instead of what it held, if anything.
    Put {
        /// The value; where several were written at the same time, the one that is shown.
        value: Value,
        /// Whether several were.
        conflict: bool,
    },
    /// `values` are inserted before the element of the list at the path, which may be one past the end.
    Insert {
        /// The values.
        values: Vec<Value>,
    },
    /// The key at the path, or `count` elements of the list from the path on, are gone.
    Delete {
        /// How many; 1 for a key.
        count: usize,
    },
    /// In the text at the path, `delete` code points from `position` on are replaced by `insert`.
    Splice {
        /// Where in the text.
        position: usize,
        /// How many are gone.
        delete: usize,
        /// What is there instead.
        insert: String,
        /// The marks on what is inserted, by name.
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
        marks: BTreeMap<String, Value>,
    },
    /// The counter at the path is higher by `by`.
    Increment {
        /// May be negative.
        by: i64,
    },
    /// Marks of the text at the path are set, or, where the value is null, gone.
    Mark {
        /// The marks.
        marks: Vec<DocumentMark>,
    },
    /// What the path shows is the same, and something else was written there at the same time.
    Conflict,
}

/// A mark on a range of a text: a link, a comment, bold.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DocumentMark {
    /// The name.
    pub name: String,
    /// The value, JSON in the tagged form. Null where there is no mark.
    pub value: Value,
    /// The first code point.
    pub start: usize,
    /// One past the last code point.
    pub end: usize,
}

impl DocumentPatch {
    /// What Automerge says was changed in `document`, in its order. O(patches × depth).
    pub fn list(document: &Automerge, patches: &[Patch]) -> Vec<Self> {
        let mut list = Vec::with_capacity(patches.len());
        for patch in patches {
            convert(document, patch, &mut list);
        }
        list
    }
}

impl From<&Mark> for DocumentMark {
    fn from(mark: &Mark) -> Self {
        let value = scalar_to_json(mark.value(), JsonForm::Tagged);
        Self { name: mark.name().to_owned(), value, start: mark.start, end: mark.end }
    }
}

fn convert(document: &Automerge, patch: &Patch, list: &mut Vec<DocumentPatch>) {
    let path = |prop: Option<&Prop>| -> String {
        patch.path.iter().map(|(_, prop)| prop).chain(prop).collect::<Pointer>().to_string()
    };
    let mut push = |path, action| list.push(DocumentPatch { path, action });
    match &patch.action {
        PatchAction::PutMap { key, value, conflict } => {
            let action = DocumentAction::Put { value: to_json(&value.0), conflict: *conflict };
            push(path(Some(&Prop::Map(key.clone()))), action);
        }
        PatchAction::PutSeq { index, value, conflict } => {
            let action = DocumentAction::Put { value: to_json(&value.0), conflict: *conflict };
            push(path(Some(&Prop::Seq(*index))), action);
        }
        PatchAction::Insert { index, values } => {
            let inserted = values.iter().map(|(value, ..)| to_json(value)).collect();
            push(path(Some(&Prop::Seq(*index))), DocumentAction::Insert { values: inserted });
            let is_conflict = values.iter().map(|(_, _, conflict)| *conflict);
            for (offset, _) in is_conflict.enumerate().filter(|(_, is_conflict)| *is_conflict) {
                push(path(Some(&Prop::Seq(index + offset))), DocumentAction::Conflict);
            }
        }
        PatchAction::SpliceText { index, value, marks } => {
            let marks = marks.iter().flat_map(|set| set.iter());
            let marks = marks.map(|(name, value)| (name.to_owned(), scalar_to_json(value, JsonForm::Tagged)));
            let (insert, marks) = (value.make_string(), marks.collect());
            push(path(None), DocumentAction::Splice { position: *index, delete: 0, insert, marks });
        }
        PatchAction::Increment { prop, value } => {
            push(path(Some(prop)), DocumentAction::Increment { by: *value });
        }
        PatchAction::Conflict { prop } => push(path(Some(prop)), DocumentAction::Conflict),
        PatchAction::DeleteMap { key } => {
            push(path(Some(&Prop::Map(key.clone()))), DocumentAction::Delete { count: 1 });
        }
        PatchAction::DeleteSeq { index, length } => {
            if matches!(document.object_type(&patch.obj), Ok(ObjType::Text)) {
                let (insert, marks) = (String::new(), BTreeMap::new());
                let action = DocumentAction::Splice { position: *index, delete: *length, insert, marks };
                push(path(None), action);
            } else {
                push(path(Some(&Prop::Seq(*index))), DocumentAction::Delete { count: *length });
            }
        }
        PatchAction::Mark { marks } => {
            let marks = marks.iter().map(DocumentMark::from).collect();
            push(path(None), DocumentAction::Mark { marks });
        }
    }
}

fn to_json(value: &Held<'_>) -> Value {
    match value {
        Held::Object(ObjType::Map | ObjType::Table) => Value::Object(Map::new()),
        Held::Object(ObjType::List) => Value::Array(Vec::new()),
        Held::Object(ObjType::Text) => Value::String(String::new()),
        Held::Scalar(scalar) => scalar_to_json(scalar, JsonForm::Tagged),
    }
}
