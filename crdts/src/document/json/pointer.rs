//! JSON Pointers (RFC 6901) and where they lead in a document.

use std::fmt::Write as _;

use automerge::{ObjId, ObjType, Prop, ROOT, ReadDoc, Value as Held};

use super::{DEPTH_MAX, JsonError};

/// A parsed pointer: the reference tokens, unescaped. At most [`DEPTH_MAX`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Pointer(Vec<String>);

/// What is at a pointer: the object or value, and the object that holds it with its key or index there.
pub(crate) struct Found {
    /// `None` for the root.
    pub(crate) held_by: Option<(ObjId, Prop)>,
    /// The object itself, or the identifier of the operation that put the value.
    pub(crate) id: ObjId,
    pub(crate) value: Held<'static>,
}

/// A place that can be written: an object and a key or index in it, which may be one past the end.
pub(crate) struct Slot {
    pub(crate) object: ObjId,
    pub(crate) object_type: ObjType,
    pub(crate) prop: Prop,
    /// The number of elements, when the object is a list.
    pub(crate) length: usize,
}

impl Pointer {
    pub(crate) fn parse(text: &str) -> Result<Self, JsonError> {
        let broken = |rule| JsonError::Pointer { pointer: text.to_owned(), rule };
        let Some(tokens) = text.strip_prefix('/') else {
            return if text.is_empty() { Ok(Self::default()) } else { Err(broken("it must start with /")) };
        };
        if tokens.split('/').count() > DEPTH_MAX {
            return Err(JsonError::TooDeep { pointer: text.to_owned(), depth_max: DEPTH_MAX });
        }
        let token = |token| unescape(token).ok_or_else(|| broken("~ is followed by neither 0 nor 1"));
        Ok(Self(tokens.split('/').map(token).collect::<Result<_, _>>()?))
    }

    pub(crate) fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn depth(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn push(&mut self, token: impl Into<String>) {
        self.0.push(token.into());
    }

    pub(crate) fn pop(&mut self) {
        self.0.pop();
    }

    /// Whether what `other` names is within what this names, and not the same.
    pub(crate) fn is_above(&self, other: &Self) -> bool {
        other.0.len() > self.0.len() && other.0.starts_with(&self.0)
    }

    /// What is there, or `None` when the way to it ends early.
    ///
    /// # Errors
    /// [`JsonError`] when the document cannot be read.
    pub(crate) fn find(
        &self,
        document: &impl ReadDoc,
        version: Version<'_>,
    ) -> Result<Option<Found>, JsonError> {
        let mut found = Found { held_by: None, id: ROOT, value: Held::Object(ObjType::Map) };
        for token in &self.0 {
            let Held::Object(object_type) = found.value else { return Ok(None) };
            let Some(prop) = existing(object_type, token) else { return Ok(None) };
            let got = match version {
                None => document.get(&found.id, prop.clone())?,
                Some(heads) => document.get_at(&found.id, prop.clone(), heads)?,
            };
            let Some((value, id)) = got else { return Ok(None) };
            found = Found { held_by: Some((found.id, prop)), id, value: value.into_owned() };
        }
        Ok(Some(found))
    }

    /// What is there.
    ///
    /// # Errors
    /// [`JsonError::NotFound`] when nothing is.
    pub(crate) fn expect(&self, document: &impl ReadDoc) -> Result<Found, JsonError> {
        self.find(document, None)?.ok_or_else(|| JsonError::NotFound { pointer: self.to_string() })
    }

    /// The place named: its parent must exist, it itself need not.
    ///
    /// # Errors
    /// [`JsonError`] when the pointer is the root's, or leads through what is absent, no container, or no index.
    pub(crate) fn slot(&self, document: &impl ReadDoc) -> Result<Slot, JsonError> {
        let Some((last, parent)) = self.0.split_last() else { return Err(JsonError::Root) };
        let parent = Self(parent.to_vec());
        let found = parent.expect(document)?;
        let Held::Object(object_type @ (ObjType::Map | ObjType::Table | ObjType::List)) = found.value else {
            return Err(JsonError::NotContainer { pointer: parent.to_string() });
        };
        if object_type != ObjType::List {
            let prop = Prop::Map(last.clone());
            return Ok(Slot { object: found.id, object_type, prop, length: 0 });
        }
        let length = document.length(&found.id);
        let index = if last == "-" { Some(length) } else { index(last) };
        match index.filter(|index| *index <= length) {
            Some(index) => Ok(Slot { object: found.id, object_type, prop: Prop::Seq(index), length }),
            None => Err(JsonError::Index { pointer: self.to_string(), length }),
        }
    }
}

/// A version to read, or the newest.
pub(crate) type Version<'h> = Option<&'h [automerge::ChangeHash]>;

impl std::fmt::Display for Pointer {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for token in &self.0 {
            formatter.write_char('/')?;
            for character in token.chars() {
                match character {
                    '~' => formatter.write_str("~0")?,
                    '/' => formatter.write_str("~1")?,
                    other => formatter.write_char(other)?,
                }
            }
        }
        Ok(())
    }
}

impl<'p> FromIterator<&'p Prop> for Pointer {
    fn from_iter<I: IntoIterator<Item = &'p Prop>>(props: I) -> Self {
        Self(props.into_iter().map(ToString::to_string).collect())
    }
}

/// The key or index that a token names in an object that is there to be read. Blocks are elements of a text.
fn existing(object_type: ObjType, token: &str) -> Option<Prop> {
    match object_type {
        ObjType::Map | ObjType::Table => Some(Prop::Map(token.to_owned())),
        ObjType::List => index(token).map(Prop::Seq),
        ObjType::Text => None,
    }
}

/// An index as the RFC writes it: digits, no leading zeros.
fn index(token: &str) -> Option<usize> {
    let is_plain =
        token.bytes().all(|byte| byte.is_ascii_digit()) && (token == "0" || !token.starts_with('0'));
    if is_plain { token.parse().ok() } else { None }
}

fn unescape(token: &str) -> Option<String> {
    let mut unescaped = String::with_capacity(token.len());
    let mut characters = token.chars();
    while let Some(character) = characters.next() {
        unescaped.push(match character {
            '~' => match characters.next()? {
                '0' => '~',
                '1' => '/',
                _ => return None,
            },
            other => other,
        });
    }
    Some(unescaped)
}
