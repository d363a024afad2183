//! Texts, their marks and cursors, and counters, by JSON Pointer.
//!
//! Every position and length is in Unicode code points: "h\u{e9}\u{1f600}" has three. JavaScript counts the same text as
//! four.

use std::ops::Range;

use automerge::marks::{ExpandMark, Mark};
use automerge::transaction::{Transactable, Transaction};
use automerge::{Cursor, CursorPosition, ObjId, ObjType, ReadDoc, ScalarValue, Value as Held};

use super::json::{JsonError, Pointer, Version, known, scalar_from_json};
use super::{DocumentMark, guard};
use crate::limits::DOCUMENT_OP_COUNTER_MAX;

const CURSOR_VERSION: u8 = 1;

/// The text, or string, at a pointer; `None` when nothing is there. O(text).
///
/// # Errors
/// [`JsonError`] when the pointer is none, or something else is there.
pub fn read(document: &impl ReadDoc, pointer: &str) -> Result<Option<String>, JsonError> {
    read_version(document, None, pointer)
}

/// As [`read`], in the version that `heads` name.
///
/// # Errors
/// As [`read`], and [`JsonError::UnknownVersion`].
pub fn read_at(
    document: &impl ReadDoc,
    heads: &[[u8; 32]],
    pointer: &str,
) -> Result<Option<String>, JsonError> {
    let heads = known(document, heads)?;
    read_version(document, Some(&heads), pointer)
}

/// Replaces `delete` code points from `position` on by `insert`.
///
/// # Errors
/// [`JsonError`] when no text is there, or it ends before that.
pub fn splice(
    tx: &mut Transaction<'_>,
    pointer: &str,
    position: usize,
    delete: usize,
    insert: &str,
) -> Result<(), JsonError> {
    let text = text(tx, pointer)?;
    // A range that is too long for the machine is too long for the text.
    check_range(tx, pointer, &text, position..position.saturating_add(delete))?;
    let delete = isize::try_from(delete).expect("a text in memory is shorter than half the address space");
    Ok(tx.splice_text(&text, position, delete, insert)?)
}

/// A name for a place in a text that stays with the text: whatever is inserted or deleted before it moves it, and
/// where the code point at `position` is deleted it stands for the one that followed. At the end of the text it
/// stands for the end, whatever is appended. Some 50 bytes, meaningful in every replica's copy of this document.
///
/// # Errors
/// As [`splice`].
pub fn cursor(document: &impl ReadDoc, pointer: &str, position: usize) -> Result<Vec<u8>, JsonError> {
    let text = text(document, pointer)?;
    check_range(document, pointer, &text, position..position)?;
    let place = if position == document.length(&text) {
        CursorPosition::End
    } else {
        CursorPosition::Index(position)
    };
    let (object, cursor) = (text.to_bytes(), document.get_cursor(&text, place, None)?.to_bytes());
    let length = u16::try_from(object.len()).map_err(|_| JsonError::Cursor)?;
    let mut bytes = vec![CURSOR_VERSION];
    bytes.extend_from_slice(&length.to_be_bytes());
    bytes.extend_from_slice(&object);
    bytes.extend_from_slice(&cursor);
    Ok(bytes)
}

/// Where a cursor is now. The bytes may come from anywhere.
///
/// # Errors
/// [`JsonError::Cursor`] when it is none, or none of this document, or of edits that are not here yet.
pub fn position(document: &impl ReadDoc, cursor: &[u8]) -> Result<usize, JsonError> {
    let (text, cursor) = parse_cursor(cursor).ok_or(JsonError::Cursor)?;
    let is_text = matches!(document.object_type(&text), Ok(ObjType::Text));
    if !is_text {
        return Err(JsonError::Cursor);
    }
    // The library asserts that what a cursor names is in the text.
    match guard(|| document.get_cursor_position(&text, &cursor, None)) {
        Ok(Ok(position)) => Ok(position),
        Ok(Err(_)) | Err(_) => Err(JsonError::Cursor),
    }
}

/// The marks of a text, by where they start. O(text).
///
/// # Errors
/// [`JsonError`] when no text is there.
pub fn marks(document: &impl ReadDoc, pointer: &str) -> Result<Vec<DocumentMark>, JsonError> {
    let text = text(document, pointer)?;
    let mut marks: Vec<DocumentMark> = document.marks(&text)?.iter().map(DocumentMark::from).collect();
    marks.sort_by(|one, other| (one.start, one.end, &one.name).cmp(&(other.start, other.end, &other.name)));
    Ok(marks)
}

/// Sets a mark, instead of marks of the same name within its range. `expand` says on which sides it takes in what is
/// inserted at its edges.
///
/// # Errors
/// [`JsonError`] when no text is there, the range is empty or not within it, or the value is a list or a map, or null,
/// which stands for no mark.
pub fn mark(
    tx: &mut Transaction<'_>,
    pointer: &str,
    mark: &DocumentMark,
    expand: ExpandMark,
) -> Result<(), JsonError> {
    let text = text(tx, pointer)?;
    check_marked(tx, pointer, &text, mark.start..mark.end)?;
    let value = scalar_from_json(&mark.value)?.filter(|value| !value.is_null());
    let value = value.ok_or_else(|| JsonError::MarkValue { name: mark.name.clone() })?;
    let mark = Mark::new(mark.name.clone(), value, mark.start, mark.end);
    Ok(tx.mark(&text, mark, expand)?)
}

/// Removes the marks of a name from a range, and from what is inserted at its edges later.
///
/// # Errors
/// [`JsonError`] when no text is there, or the range is empty or not within it.
pub fn unmark(
    tx: &mut Transaction<'_>,
    pointer: &str,
    range: Range<usize>,
    name: &str,
) -> Result<(), JsonError> {
    let text = text(tx, pointer)?;
    check_marked(tx, pointer, &text, range.clone())?;
    Ok(tx.unmark(&text, name, range.start, range.end, ExpandMark::Both)?)
}

/// Adds to the counter at a pointer. What others add at the same time is added too.
///
/// # Errors
/// [`JsonError`] when no counter is there, or it would leave 64 bits. A counter is put there by
/// [`json::put`](super::json::put) of `{"$counter": 0}`, by one replica: of two that are put there at the same time
/// one is shown.
pub fn increment(tx: &mut Transaction<'_>, pointer: &str, by: i64) -> Result<(), JsonError> {
    let found = Pointer::parse(pointer)?.expect(tx)?;
    let (Held::Scalar(scalar), Some((object, prop))) = (&found.value, found.held_by) else {
        return Err(JsonError::NotCounter { pointer: pointer.to_owned() });
    };
    let ScalarValue::Counter(counter) = scalar.as_ref() else {
        return Err(JsonError::NotCounter { pointer: pointer.to_owned() });
    };
    if i64::from(counter).checked_add(by).is_none() {
        return Err(JsonError::CounterRange { pointer: pointer.to_owned() });
    }
    Ok(tx.increment(object, prop, by)?)
}

fn read_version(
    document: &impl ReadDoc,
    version: Version<'_>,
    pointer: &str,
) -> Result<Option<String>, JsonError> {
    let Some(found) = Pointer::parse(pointer)?.find(document, version)? else { return Ok(None) };
    match (&found.value, version) {
        (Held::Object(ObjType::Text), None) => Ok(Some(document.text(&found.id)?)),
        (Held::Object(ObjType::Text), Some(heads)) => Ok(Some(document.text_at(&found.id, heads)?)),
        (Held::Scalar(scalar), _) if scalar.is_str() => Ok(scalar.as_str().map(str::to_owned)),
        _ => Err(JsonError::NotText { pointer: pointer.to_owned() }),
    }
}

/// The text at a pointer.
fn text(document: &impl ReadDoc, pointer: &str) -> Result<ObjId, JsonError> {
    let found = Pointer::parse(pointer)?.expect(document)?;
    match found.value {
        Held::Object(ObjType::Text) => Ok(found.id),
        _ => Err(JsonError::NotText { pointer: pointer.to_owned() }),
    }
}

fn check_range(
    document: &impl ReadDoc,
    pointer: &str,
    text: &ObjId,
    range: Range<usize>,
) -> Result<(), JsonError> {
    let length = document.length(text);
    if range.start <= range.end && range.end <= length {
        return Ok(());
    }
    let Range { start, end } = range;
    Err(JsonError::Range { pointer: pointer.to_owned(), start, end, length })
}

/// As [`check_range`]; a mark on nothing could not be loaded again.
fn check_marked(
    document: &impl ReadDoc,
    pointer: &str,
    text: &ObjId,
    range: Range<usize>,
) -> Result<(), JsonError> {
    check_range(document, pointer, text, range.clone())?;
    if !range.is_empty() {
        return Ok(());
    }
    let (Range { start, end }, length) = (range, document.length(text));
    Err(JsonError::Range { pointer: pointer.to_owned(), start, end, length })
}

/// The parts of a cursor. The document library panics on counters that do not fit it.
fn parse_cursor(bytes: &[u8]) -> Option<(ObjId, Cursor)> {
    let (&[version, high, low], rest) = bytes.split_first_chunk::<3>()?;
    let (object, cursor) = rest.split_at_checked(usize::from(u16::from_be_bytes([high, low])))?;
    let object = ObjId::try_from(object).ok()?;
    let cursor = Cursor::try_from(cursor).ok()?;
    let is_in_range = |counter: u64| counter <= DOCUMENT_OP_COUNTER_MAX;
    let is_object = matches!(&object, ObjId::Id(counter, ..) if is_in_range(*counter));
    let is_cursor = match &cursor {
        Cursor::Start | Cursor::End => true,
        Cursor::Op(op) => {
            let text = op.to_string();
            let counter = text.trim_start_matches('-').split('@').next()?;
            counter.parse().is_ok_and(is_in_range)
        }
    };
    (version == CURSOR_VERSION && is_object && is_cursor).then_some((object, cursor))
}

#[cfg(test)]
mod tests;
