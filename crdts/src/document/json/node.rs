//! Values as trees, whether they come from JSON or from a document.

use std::collections::BTreeMap;

use automerge::marks::Mark;
use automerge::{ObjId, ObjType, ReadDoc, ScalarValue, Value as Held};
use serde_json::{Map, Value};

use super::pointer::{Pointer, Version};
use super::scalar::{self, Tagged};
use super::{JsonError, JsonForm, check_depth};

/// A value that is in a document or is to be in one. Nested at most [`DEPTH_MAX`](super::DEPTH_MAX)
/// deep, counted from the root.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Node {
    Scalar(ScalarValue),
    /// A string of JSON: a text of a document, or the same string where it is a scalar already.
    String(String),
    /// A text of a document, with its marks.
    Text(String, Vec<Mark>),
    Map(BTreeMap<String, Self>),
    List(Vec<Self>),
}

/// Where values are read from.
pub(super) struct Source<'d, D> {
    pub(super) document: &'d D,
    pub(super) version: Version<'d>,
    /// Whether the marks of texts are read too; values read without are equal to others read without only.
    pub(super) has_marks: bool,
}

impl Node {
    /// The value of `json`, to be written at `at`.
    pub(super) fn from_json(json: &Value, at: &mut Pointer) -> Result<Self, JsonError> {
        check_depth(at)?;
        Ok(match json {
            Value::Null => Self::Scalar(ScalarValue::Null),
            Value::Bool(value) => Self::Scalar(ScalarValue::Boolean(*value)),
            Value::Number(number) => Self::Scalar(scalar::number(number)),
            Value::String(text) => Self::String(text.clone()),
            Value::Array(values) => {
                let mut list = Vec::with_capacity(values.len());
                for (index, value) in values.iter().enumerate() {
                    list.push(within(at, &index.to_string(), |at| Self::from_json(value, at))?);
                }
                Self::List(list)
            }
            Value::Object(object) => match scalar::untag(object, at)? {
                Tagged::Scalar(scalar) => Self::Scalar(scalar),
                Tagged::Map(entries) => {
                    let mut map = BTreeMap::new();
                    for (key, value) in entries {
                        map.insert(key.clone(), within(at, key, |at| Self::from_json(value, at))?);
                    }
                    Self::Map(map)
                }
            },
        })
    }

    pub(super) fn to_json(&self, form: JsonForm) -> Value {
        match self {
            Self::Scalar(scalar) => scalar::to_json(scalar, form),
            Self::String(text) | Self::Text(text, _) => Value::String(text.clone()),
            Self::List(list) => list.iter().map(|node| node.to_json(form)).collect(),
            Self::Map(map) => {
                let entries = map.iter().map(|(key, node)| (key.clone(), node.to_json(form)));
                let map: Map<String, Value> = entries.collect();
                if form == JsonForm::Tagged { scalar::escaped(map) } else { Value::Object(map) }
            }
        }
    }

    /// Whether the value is too deep for a place.
    pub(super) fn check_at(&self, at: &mut Pointer) -> Result<(), JsonError> {
        check_depth(at)?;
        match self {
            Self::Scalar(_) | Self::String(_) | Self::Text(..) => Ok(()),
            Self::Map(map) => map.iter().try_for_each(|(key, node)| within(at, key, |at| node.check_at(at))),
            Self::List(list) => {
                let mut nodes = list.iter().enumerate();
                nodes.try_for_each(|(index, node)| within(at, &index.to_string(), |at| node.check_at(at)))
            }
        }
    }

    /// Whether any text in it is marked.
    pub(super) fn has_marks(&self) -> bool {
        match self {
            Self::Scalar(_) | Self::String(_) => false,
            Self::Text(_, marks) => !marks.is_empty(),
            Self::Map(map) => map.values().any(Self::has_marks),
            Self::List(list) => list.iter().any(Self::has_marks),
        }
    }

    /// Whether nothing is to be written to make a value of a document, which this is, equal to `wanted`.
    pub(super) fn is_already(&self, wanted: &Self) -> bool {
        match (self, wanted) {
            (Self::Text(text, _), Self::String(wanted)) => text == wanted,
            (Self::Scalar(ScalarValue::Str(text)), Self::String(wanted)) => text.as_str() == wanted,
            (Self::Scalar(current), Self::Scalar(wanted)) => is_same_scalar(current, wanted),
            (Self::List(list), Self::List(wanted)) => {
                let mut pairs = list.iter().zip(wanted);
                list.len() == wanted.len() && pairs.all(|(node, wanted)| node.is_already(wanted))
            }
            (Self::Map(map), Self::Map(wanted)) => {
                let mut pairs = map.iter().zip(wanted);
                map.len() == wanted.len()
                    && pairs.all(|((key, node), (other, wanted))| key == other && node.is_already(wanted))
            }
            _ => self == wanted,
        }
    }

    /// How much two values have in common as targets of an update: whether one can become the other in place.
    pub(super) fn is_like(&self, wanted: &Self) -> bool {
        matches!(
            (self, wanted),
            (Self::Map(_), Self::Map(_))
                | (Self::List(_), Self::List(_))
                | (Self::Text(..), Self::Text(..) | Self::String(_))
        )
    }
}

impl<D: ReadDoc> Source<'_, D> {
    /// The value that is at `at`. O(value).
    pub(super) fn read(&self, id: &ObjId, value: &Held<'_>, at: &mut Pointer) -> Result<Node, JsonError> {
        check_depth(at)?;
        match value {
            Held::Scalar(scalar) => Ok(Node::Scalar(scalar.as_ref().clone())),
            Held::Object(ObjType::Text) => self.text(id),
            Held::Object(ObjType::List) => {
                let range = match self.version {
                    None => self.document.list_range(id, ..),
                    Some(heads) => self.document.list_range_at(id, .., heads),
                };
                let mut list = Vec::new();
                for item in range {
                    let (id, value) = (item.id(), Held::from(item.value));
                    list.push(within(at, &item.index.to_string(), |at| self.read(&id, &value, at))?);
                }
                Ok(Node::List(list))
            }
            Held::Object(ObjType::Map | ObjType::Table) => Ok(Node::Map(self.map(id, at)?)),
        }
    }

    /// The entries of a map.
    pub(super) fn map(&self, id: &ObjId, at: &mut Pointer) -> Result<BTreeMap<String, Node>, JsonError> {
        let range = match self.version {
            None => self.document.map_range(id, ..),
            Some(heads) => self.document.map_range_at(id, .., heads),
        };
        let mut map = BTreeMap::new();
        for item in range {
            let (id, value) = (item.id(), Held::from(item.value));
            let node = within(at, &item.key, |at| self.read(&id, &value, at))?;
            map.insert(item.key.into_owned(), node);
        }
        Ok(map)
    }

    fn text(&self, id: &ObjId) -> Result<Node, JsonError> {
        let text = match self.version {
            None => self.document.text(id)?,
            Some(heads) => self.document.text_at(id, heads)?,
        };
        let marks = match (self.has_marks, self.version) {
            (false, _) => Vec::new(),
            (true, None) => self.document.marks(id)?,
            (true, Some(heads)) => self.document.marks_at(id, heads)?,
        };
        Ok(Node::Text(text, marks))
    }
}

/// Runs `step` with `token` appended to `at`.
pub(super) fn within<R>(at: &mut Pointer, token: &str, step: impl FnOnce(&mut Pointer) -> R) -> R {
    at.push(token);
    let result = step(at);
    at.pop();
    result
}

fn is_same_scalar(current: &ScalarValue, wanted: &ScalarValue) -> bool {
    match (current, wanted) {
        (ScalarValue::Uint(current), ScalarValue::Int(wanted)) => i64::try_from(*current) == Ok(*wanted),
        (ScalarValue::F64(current), ScalarValue::F64(wanted)) => {
            current.to_bits() == wanted.to_bits() || (current.is_nan() && wanted.is_nan())
        }
        (ScalarValue::Counter(current), ScalarValue::Counter(wanted)) => {
            i64::from(current) == i64::from(wanted)
        }
        _ => current == wanted,
    }
}
