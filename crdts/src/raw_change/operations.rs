//! The operations of a change, read from its columns as far as the rules on nesting and marks need them.

use crate::codec::{DecodeError, Reader};
use crate::limits::DOCUMENT_CHANGE_BYTES_MAX;

use super::columns::{Booleans, Deltas, Rows, directory};
use super::{COLUMN_ACTION, COLUMN_KEY, COLUMN_MARK_NAME, DocumentError, RawChange, read_actor};

const COLUMN_OBJECT_ACTOR: u64 = 1;
const COLUMN_OBJECT_COUNTER: u64 = 2;
const COLUMN_KEY_ACTOR: u64 = 17;
const COLUMN_KEY_COUNTER: u64 = 19;
const COLUMN_INSERT: u64 = 52;

/// The name of an operation, and of the object or element that it makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct OpName<'a> {
    pub(crate) counter: u64,
    pub(crate) actor: &'a [u8],
}

/// Where in its object an operation applies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Key<'a> {
    /// A key of a map.
    Map,
    /// The beginning of a sequence.
    Head,
    /// An element of a sequence.
    Element(OpName<'a>),
}

/// What an operation does, as far as the rules tell it apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// Makes a map or a table.
    MakeMap,
    /// Makes a list.
    MakeList,
    /// Makes a text.
    MakeText,
    /// Begins a mark.
    MarkBegin,
    /// Ends the mark that the operation before it begins.
    MarkEnd,
    /// Anything else.
    Other,
}

/// One operation, without its value and its predecessors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Operation<'a> {
    pub(crate) name: OpName<'a>,
    /// What it changes; none for the root.
    pub(crate) object: Option<OpName<'a>>,
    pub(crate) key: Key<'a>,
    pub(crate) action: Action,
    /// Whether it makes an element of its own after `key`.
    pub(crate) is_insert: bool,
}

impl RawChange {
    /// The operations, in order. O(bytes + operations).
    pub(crate) fn operations(&self) -> Result<Vec<Operation<'_>>, DocumentError> {
        let mut reader = Reader::new(&self.bytes[self.actors_start..]);
        let mut actors = vec![self.actor()];
        for _ in 0..reader.count(DOCUMENT_CHANGE_BYTES_MAX, "other actors")? {
            actors.push(read_actor(&mut reader)?);
        }
        let mut columns = Columns::read(&mut reader, actors)?;
        (0..self.ops).map(|index| columns.next(self.name_of(index))).collect()
    }

    fn name_of(&self, index: u64) -> OpName<'_> {
        OpName { counter: self.start_op + index, actor: self.actor() }
    }
}

/// The columns read.
struct Columns<'a> {
    actors: Vec<&'a [u8]>,
    object_actor: Rows<'a, u64>,
    object_counter: Rows<'a, u64>,
    key_actor: Rows<'a, u64>,
    key_counter: Deltas<'a>,
    key: Rows<'a, &'a [u8]>,
    insert: Booleans<'a>,
    action: Rows<'a, u64>,
    mark_name: Rows<'a, &'a [u8]>,
}

impl<'a> Columns<'a> {
    fn read(reader: &mut Reader<'a>, actors: Vec<&'a [u8]>) -> Result<Self, DocumentError> {
        let mut columns = Vec::new();
        for (spec, bytes) in directory(reader, DOCUMENT_CHANGE_BYTES_MAX)? {
            columns.push((spec, reader.bytes(bytes, "column")?));
        }
        let column =
            |wanted: u64| columns.iter().find(|(spec, _)| *spec == wanted).map_or(&[][..], |(_, c)| c);
        Ok(Self {
            actors,
            object_actor: Rows::unsigned(column(COLUMN_OBJECT_ACTOR)),
            object_counter: Rows::unsigned(column(COLUMN_OBJECT_COUNTER)),
            key_actor: Rows::unsigned(column(COLUMN_KEY_ACTOR)),
            key_counter: Deltas::new(column(COLUMN_KEY_COUNTER)),
            key: Rows::text(column(COLUMN_KEY)),
            insert: Booleans::new(column(COLUMN_INSERT)),
            action: Rows::unsigned(column(COLUMN_ACTION)),
            mark_name: Rows::text(column(COLUMN_MARK_NAME)),
        })
    }

    fn next(&mut self, name: OpName<'a>) -> Result<Operation<'a>, DocumentError> {
        let (actor, counter) = (self.object_actor.next("object")?, self.object_counter.next("object")?);
        let object = self.op_name(actor, counter, "object")?;
        let (actor, counter) = (self.key_actor.next("key")?, self.key_counter.next("key")?);
        let key = match (self.key.next("key")?, actor, counter) {
            (Some(_), None, None) => Key::Map,
            (None, None, Some(0)) => Key::Head,
            (None, actor, counter) => {
                let element = self.op_name(actor, counter, "key")?;
                Key::Element(element.ok_or(DecodeError::Invalid { what: "key", rule: "must be there" })?)
            }
            (Some(_), _, _) => {
                return Err(
                    DecodeError::Invalid { what: "key", rule: "must be of a map or an element" }.into()
                );
            }
        };
        let missing = DecodeError::Truncated { what: "action" };
        let action = self.action.next("action")?.ok_or(missing)?;
        let has_mark_name = self.mark_name.next("mark name")?.is_some();
        Ok(Operation {
            name,
            object,
            key,
            action: match (action, has_mark_name) {
                (0 | 6, _) => Action::MakeMap,
                (2, _) => Action::MakeList,
                (4, _) => Action::MakeText,
                (7, true) => Action::MarkBegin,
                (7, false) => Action::MarkEnd,
                _ => Action::Other,
            },
            is_insert: self.insert.next("insert")?,
        })
    }

    fn op_name(
        &self,
        actor: Option<u64>,
        counter: Option<u64>,
        what: &'static str,
    ) -> Result<Option<OpName<'a>>, DocumentError> {
        match (actor, counter) {
            (None, None) => Ok(None),
            (Some(actor), Some(counter)) => {
                let index = usize::try_from(actor).unwrap_or(usize::MAX);
                let actor = self.actors.get(index).ok_or(DocumentError::UnknownActor)?;
                Ok(Some(OpName { counter, actor }))
            }
            _ => Err(DecodeError::Invalid { what, rule: "must have a counter and an actor" }.into()),
        }
    }
}
