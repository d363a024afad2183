//! Changes without what a receiver can derive from those that came before, for the wire.
//!
//! The parts of a change are predicted from the document's recent changes; a flag for each part says whether
//! the prediction holds, and only what it misses is written. The receiver puts the exact bytes together
//! again: the hash of a change covers all of them, and whoever needs proof compares it.

use std::borrow::Cow;
use std::ops::Range;

use crate::codec::{DecodeError, Reader, Writer};
use crate::limits::DOCUMENT_CHANGE_BYTES_MAX;
use crate::raw_change::{
    DocumentError, HASH_BYTES, RawChange, leb128_signed, read_actor, read_directory, write_leb128_signed,
};

/// Changes of one document that are kept to predict from.
const SHAPES_MAX: usize = 4;
/// Larger changes are not kept: what could be left out of the next one is little beside them.
const KEPT_BYTES_MAX: usize = 2 * 1024;
/// Nor are changes of more columns: each needs a bit, and there is one more. Automerge knows of 14.
const KEPT_COLUMNS_MAX: usize = 63;
/// The type of a column, in the low bits of its specification: one of differences, one of yes and no.
const COLUMN_TYPE: u64 = 7;
const COLUMN_TYPE_DELTA: u64 = 3;
const COLUMN_TYPE_BOOL: u64 = 4;

const DEPS: u8 = 1;
const ACTOR: u8 = 1 << 1;
const SEQ: u8 = 1 << 2;
const START_OP: u8 = 1 << 3;
const TIME: u8 = 1 << 4;
const OTHERS: u8 = 1 << 5;
const EXTRA: u8 = 1 << 6;
const SHAPE: u8 = 1 << 7;

/// A document's recent changes, as far as writer and reader both know them: the last one, and before it the
/// last of each other shape, which is which columns it has. Holds at most 16 KiB.
#[derive(Clone, Debug, Default)]
pub struct RecentChanges {
    /// The last one first; no two of the same shape.
    changes: Vec<Kept>,
}

#[derive(Clone, Debug)]
struct Kept {
    change: RawChange,
    layout: Layout,
}

impl RecentChanges {
    /// Takes in the next change of the document.
    pub fn note(&mut self, change: &RawChange) {
        if change.bytes().len() > KEPT_BYTES_MAX {
            return;
        }
        let kept = Kept { change: change.clone(), layout: Layout::of(change) };
        if kept.layout.columns.len() > KEPT_COLUMNS_MAX {
            return;
        }
        self.changes.retain(|other| !other.layout.has_shape_of(&kept.layout));
        self.changes.truncate(SHAPES_MAX - 1);
        self.changes.insert(0, kept);
    }
}

/// What a change is predicted from.
#[derive(Clone, Copy, Debug)]
pub struct Expected<'a> {
    /// What went before it in the document.
    pub recent: &'a RecentChanges,
    /// Its actor, where nothing went before.
    pub actor: &'a [u8],
    /// Its time, seconds since the Unix epoch.
    pub time_seconds: i64,
}

impl Expected<'_> {
    fn last(&self) -> Option<&RawChange> {
        self.recent.changes.first().map(|kept| &kept.change)
    }

    /// The list of other actors, as it is written.
    fn others(&self) -> &[u8] {
        self.recent.changes.first().map_or(NO_ACTORS, |kept| &kept.change.bytes[kept.layout.others.clone()])
    }

    fn actor(&self) -> &[u8] {
        self.last().map_or(self.actor, RawChange::actor)
    }

    fn seq(&self, actor: &[u8]) -> u64 {
        self.last().filter(|last| last.actor() == actor).map_or(1, |last| last.seq().saturating_add(1))
    }

    fn start_op(&self) -> u64 {
        self.last().map_or(1, |last| last.max_op() + 1)
    }
}

impl RawChange {
    /// Writes what `expected` does not say. At most some 40 bytes more than the change has, mostly some 90
    /// fewer. O(bytes).
    pub fn encode_elided(&self, expected: &Expected<'_>, out: &mut Writer) {
        let layout = Layout::of(self);
        let part = |range: &Range<usize>| &self.bytes[range.clone()];
        let mut rest = Writer::new();
        let mut flags = self.encode_head(expected, layout.time, &mut rest);
        if part(&layout.others) != expected.others() {
            flags |= OTHERS;
            rest.bytes(part(&layout.others));
        }
        if !layout.message.is_empty() || !layout.footer.is_empty() {
            flags |= EXTRA;
            rest.blob(part(&layout.message));
            rest.blob(part(&layout.footer));
        }
        let shape = expected.recent.changes.iter().position(|kept| kept.layout.has_shape_of(&layout));
        if shape != Some(0) {
            flags |= SHAPE;
            rest.varint(shape.unwrap_or(0) as u64);
        }
        match shape {
            Some(place) => encode_columns(&expected.recent.changes[place], (self, &layout), &mut rest),
            None => rest.bytes(&self.bytes[layout.others.end..layout.footer.start]),
        }
        out.u8(flags);
        out.bytes(rest.as_slice());
    }

    /// Writes what comes before the columns and can be told without taking the change apart; the flags of it.
    fn encode_head(&self, expected: &Expected<'_>, time: i64, out: &mut Writer) -> u8 {
        let last = expected.last().map(RawChange::hash);
        let mut flags = 0;
        if !self.deps().eq(last) {
            flags |= DEPS;
            let others = || self.deps().filter(|dependency| Some(*dependency) != last);
            let has_last = others().count() < self.deps().count();
            out.varint((others().count() as u64) << 1 | u64::from(has_last));
            others().for_each(|dependency| out.bytes(&dependency));
        }
        if self.actor() != expected.actor() {
            flags |= ACTOR;
            out.blob(self.actor());
        }
        if self.seq() != expected.seq(self.actor()) {
            flags |= SEQ;
            out.varint(self.seq());
        }
        if self.start_op() != expected.start_op() {
            flags |= START_OP;
            out.varint_signed(self.start_op().wrapping_sub(expected.start_op()) as i64);
        }
        if time != expected.time_seconds {
            flags |= TIME;
            out.varint_signed(time.wrapping_sub(expected.time_seconds));
        }
        flags
    }

    /// Reads what [`RawChange::encode_elided`] wrote with the same `expected`, and checks the change as
    /// [`RawChange::parse`] does. O(bytes of the change), which are at most 8 KiB more than are read.
    ///
    /// # Errors
    /// As [`RawChange::parse`]; [`DecodeError::NotCanonical`] where the prediction was written out.
    pub fn decode_elided(expected: &Expected<'_>, reader: &mut Reader<'_>) -> Result<Self, DocumentError> {
        let start = reader.clone();
        let flags = reader.u8("change flags")?;
        let mut contents = Writer::with_room(2 * ROOM_BYTES);
        let start_op = decode_head(flags, expected, reader, &mut contents)?;
        let others = match flags & OTHERS {
            0 => expected.others(),
            _ => read_others(reader)?,
        };
        let (message, footer): (&[u8], &[u8]) = match flags & EXTRA {
            0 => (&[], &[]),
            _ => (read_blob(reader, "message")?, read_blob(reader, "footer")?),
        };
        contents.blob(message);
        contents.bytes(others);
        let place = match flags & SHAPE {
            0 => 0,
            _ => reader.varint_max(SHAPES_MAX as u64, "shape")?,
        };
        if flags & SHAPE != 0 && place == 0 {
            contents.bytes(read_columns(reader)?);
        } else {
            let shape = expected.recent.changes.get(place as usize);
            let shape = shape.ok_or(DecodeError::Invalid { what: "shape", rule: "must be a known one" })?;
            decode_columns(shape, start_op, reader, &mut contents)?;
        }
        contents.bytes(footer);
        let change = Self::from_contents(contents.as_slice())?;
        let mut again = Writer::with_room(ROOM_BYTES);
        change.encode_elided(expected, &mut again);
        let written = start.remaining() - reader.remaining();
        if start.clone().bytes(written, "change")? != again.as_slice() {
            return Err(DecodeError::NotCanonical { what: "elided change" }.into());
        }
        Ok(change)
    }
}

/// What most elided changes take.
const ROOM_BYTES: usize = 64;
/// An empty list of other actors.
const NO_ACTORS: &[u8] = &[0];

/// Where the parts of a change are that [`RawChange`] itself does not know.
#[derive(Clone, Debug)]
struct Layout {
    time: i64,
    message: Range<usize>,
    /// The list as it is written; the directory of the columns follows.
    others: Range<usize>,
    /// Specifications and data.
    columns: Vec<(u64, Range<usize>)>,
    footer: Range<usize>,
}

impl Layout {
    fn of(change: &RawChange) -> Self {
        Self::read(&change.bytes, change.actor.end).expect("a change is taken apart as it was checked")
    }

    /// Reads what follows the actor.
    fn read(bytes: &[u8], from: usize) -> Result<Self, DocumentError> {
        let mut reader = Reader::new(&bytes[from..]);
        let position = |reader: &Reader<'_>| bytes.len() - reader.remaining();
        reader.varint("sequence number")?;
        reader.varint("first operation")?;
        let time = leb128_signed(&mut reader, "time")?;
        let message_bytes = read_blob(&mut reader, "message")?.len();
        let message = position(&reader) - message_bytes..position(&reader);
        read_others(&mut reader)?;
        let others = message.end..position(&reader);
        let mut columns = Vec::new();
        let widths = read_directory(&mut reader)?;
        let mut at = position(&reader);
        for (spec, width) in widths {
            columns.push((spec, at..at + width));
            at += width;
        }
        Ok(Self { time, message, others, columns, footer: at..bytes.len() })
    }

    fn has_shape_of(&self, other: &Self) -> bool {
        self.columns.iter().map(|(spec, _)| spec).eq(other.columns.iter().map(|(spec, _)| spec))
    }
}

fn write_columns(columns: &[(u64, Cow<'_, [u8]>)], out: &mut Writer) {
    out.varint(columns.len() as u64);
    for (spec, data) in columns {
        out.varint(*spec);
        out.varint(data.len() as u64);
    }
    columns.iter().for_each(|(_, data)| out.bytes(data));
}

fn read_blob<'a>(reader: &mut Reader<'a>, what: &'static str) -> Result<&'a [u8], DecodeError> {
    reader.blob(DOCUMENT_CHANGE_BYTES_MAX, what)
}

/// The bytes that `read` goes through.
fn spanned<'a, E: From<DecodeError>>(
    reader: &mut Reader<'a>,
    read: impl FnOnce(&mut Reader<'a>) -> Result<(), E>,
) -> Result<&'a [u8], E> {
    let mut start = reader.clone();
    read(reader)?;
    Ok(start.bytes(start.remaining() - reader.remaining(), "change")?)
}

/// A list of actors, as it is written.
fn read_others<'a>(reader: &mut Reader<'a>) -> Result<&'a [u8], DocumentError> {
    spanned(reader, |reader| {
        for _ in 0..reader.count(DOCUMENT_CHANGE_BYTES_MAX, "other actors")? {
            read_actor(reader)?;
        }
        Ok(())
    })
}

/// A directory and its columns, as they are written.
fn read_columns<'a>(reader: &mut Reader<'a>) -> Result<&'a [u8], DocumentError> {
    spanned(reader, |reader| {
        for (_, bytes) in read_directory(reader)? {
            reader.bytes(bytes, "column")?;
        }
        Ok(())
    })
}

/// Reads what comes before the other actors and writes it as it is in a change; the first operation's number.
fn decode_head(
    flags: u8,
    expected: &Expected<'_>,
    reader: &mut Reader<'_>,
    contents: &mut Writer,
) -> Result<u64, DocumentError> {
    decode_deps(flags, expected, reader, contents)?;
    let actor = match flags & ACTOR {
        0 => expected.actor(),
        _ => read_actor(reader)?,
    };
    contents.blob(actor);
    contents.varint(match flags & SEQ {
        0 => expected.seq(actor),
        _ => reader.varint("sequence number")?,
    });
    let start_op = match flags & START_OP {
        0 => expected.start_op(),
        _ => expected.start_op().wrapping_add(reader.varint_signed("first operation")? as u64),
    };
    contents.varint(start_op);
    let time = match flags & TIME {
        0 => expected.time_seconds,
        _ => expected.time_seconds.wrapping_add(reader.varint_signed("time")?),
    };
    write_leb128_signed(time, contents);
    Ok(start_op)
}

fn decode_deps(
    flags: u8,
    expected: &Expected<'_>,
    reader: &mut Reader<'_>,
    contents: &mut Writer,
) -> Result<(), DocumentError> {
    let last = expected.last().map(RawChange::hash);
    if flags & DEPS == 0 {
        contents.varint(u64::from(last.is_some()));
        last.iter().for_each(|last| contents.bytes(last));
        return Ok(());
    }
    let count = reader.varint_max(DOCUMENT_CHANGE_BYTES_MAX as u64, "dependencies")?;
    let others = reader.bytes((count >> 1) as usize * HASH_BYTES, "dependencies")?;
    let mut deps = others.as_chunks::<HASH_BYTES>().0.to_vec();
    if count & 1 != 0 {
        let last = last.ok_or(DecodeError::NotCanonical { what: "dependencies" })?;
        deps.insert(deps.partition_point(|dependency| *dependency < last), last);
    }
    contents.varint(deps.len() as u64);
    contents.bytes(deps.as_flattened());
    Ok(())
}

/// Writes the columns by what `shape` does not predict of them: whether there is another number of operations
/// and a bit for each column that differs, the last column first; that number; then for each that differs 0
/// and how far the number at its start is from the predicted one, or one more than its length and its bytes.
fn encode_columns(shape: &Kept, (change, layout): (&RawChange, &Layout), out: &mut Writer) {
    let (mut mask, step) = (0_u64, Step::between(shape, change.start_op, change.ops));
    let mut rest = Writer::with_room(ROOM_BYTES);
    for ((spec, model), (_, column)) in shape.layout.columns.iter().zip(&layout.columns) {
        let column = &change.bytes[column.clone()];
        let predicted = Predicted::of(*spec, &shape.change.bytes[model.clone()], &step);
        mask <<= 1;
        if predicted.meets(column) {
            continue;
        }
        mask |= 1;
        match predicted.difference(column) {
            Some(difference) => {
                rest.varint(0);
                rest.varint_signed(difference);
            }
            None => {
                rest.varint(column.len() as u64 + 1);
                rest.bytes(column);
            }
        }
    }
    out.varint(mask << 1 | u64::from(step.ops.is_some()));
    step.ops.iter().for_each(|(_, ops)| out.varint(*ops));
    out.bytes(rest.as_slice());
}

/// Reads what [`encode_columns`] wrote and writes directory and columns as they are in a change.
fn decode_columns(
    shape: &Kept,
    start_op: u64,
    reader: &mut Reader<'_>,
    contents: &mut Writer,
) -> Result<(), DocumentError> {
    let mask = reader.varint("columns that differ")?;
    let ops = if mask & 1 == 0 { shape.change.ops } else { reader.varint("operations")? };
    let (mask, step) = (mask >> 1, Step::between(shape, start_op, ops));
    let count = shape.layout.columns.len();
    if mask >> count != 0 {
        return Err(DecodeError::NotCanonical { what: "columns that differ" }.into());
    }
    let mut columns = Vec::with_capacity(count);
    for (index, (spec, model)) in shape.layout.columns.iter().enumerate() {
        let predicted = Predicted::of(*spec, &shape.change.bytes[model.clone()], &step);
        let differs = mask >> (count - 1 - index) & 1 != 0;
        let column = if !differs {
            predicted.with(0)
        } else {
            match reader.varint_max(DOCUMENT_CHANGE_BYTES_MAX as u64, "column length")?.checked_sub(1) {
                None => predicted.with(reader.varint_signed("column difference")?),
                Some(length) => Cow::Borrowed(reader.bytes(length as usize, "column")?),
            }
        };
        columns.push((*spec, column));
    }
    write_columns(&columns, contents);
    Ok(())
}

/// From the change that is the model to the one that is predicted.
struct Step {
    /// How much higher the numbers of its operations are.
    moved: i64,
    /// How many operations they have, if not the same number.
    ops: Option<(u64, u64)>,
}

impl Step {
    fn between(shape: &Kept, start_op: u64, ops: u64) -> Self {
        let moved = start_op.wrapping_sub(shape.change.start_op) as i64;
        Self { moved, ops: (shape.change.ops != ops).then_some((shape.change.ops, ops)) }
    }
}

/// What a column is predicted to hold: what the model holds, for as many operations as there are. Where that
/// begins with a number among operations, which are counted, the number moves on as far as the count does.
enum Predicted<'a> {
    Same(Cow<'a, [u8]>),
    Moved { number: i64, parts: Numbered<'a> },
}

/// A column whose first row is a number of its own.
#[derive(PartialEq, Eq)]
struct Numbered<'a> {
    /// How many rows have numbers of their own, as it is written.
    run: &'a [u8],
    after: &'a [u8],
}

impl<'a> Predicted<'a> {
    fn of(spec: u64, model: &'a [u8], step: &Step) -> Self {
        if spec & COLUMN_TYPE == COLUMN_TYPE_DELTA
            && let Some((number, parts)) = split_number(model)
        {
            return Self::Moved { number: number.wrapping_add(step.moved), parts };
        }
        let stretched = step.ops.and_then(|(from, to)| stretch(model, spec, (from, to)));
        Self::Same(stretched.map_or(Cow::Borrowed(model), Cow::Owned))
    }

    /// The column, with the number so far from the predicted one. Where there is none it does not count.
    fn with(self, difference: i64) -> Cow<'a, [u8]> {
        match self {
            Self::Same(column) => column,
            Self::Moved { number, parts } => {
                let mut out = Writer::with_room(ROOM_BYTES);
                out.bytes(parts.run);
                write_leb128_signed(number.wrapping_add(difference), &mut out);
                out.bytes(parts.after);
                Cow::Owned(out.finish())
            }
        }
    }

    fn meets(&self, column: &[u8]) -> bool {
        match self {
            Self::Same(predicted) => **predicted == *column,
            Self::Moved { .. } => self.difference(column) == Some(0),
        }
    }

    /// How far the number of `column` is from the predicted one; `None` when that is not all that differs.
    fn difference(&self, column: &[u8]) -> Option<i64> {
        let Self::Moved { number, parts } = self else { return None };
        let (found, rest) = split_number(column)?;
        (rest == *parts).then(|| found.wrapping_sub(*number))
    }
}

/// The column for another number of operations, if all of them have the same in it.
fn stretch(column: &[u8], spec: u64, (from, to): (u64, u64)) -> Option<Vec<u8>> {
    let mut reader = Reader::new(column);
    let mut out = Writer::with_room(ROOM_BYTES);
    if spec & COLUMN_TYPE == COLUMN_TYPE_BOOL {
        // Runs of false and true in turn.
        let mut run = reader.varint("rows").ok()?;
        if run == 0 {
            out.u8(0);
            run = reader.varint("rows").ok()?;
        }
        out.varint(to);
        return (run == from && reader.remaining() == 0).then(|| out.finish());
    }
    // A row with a value of its own is a run of -1.
    let written = |rows: u64| if rows == 1 { -1 } else { rows as i64 };
    let run = leb128_signed(&mut reader, "rows").ok()?;
    write_leb128_signed(written(to), &mut out);
    let value = reader.bytes(reader.remaining(), "value").ok()?;
    out.bytes(value);
    let is_one = value
        .split_last()
        .is_some_and(|(last, rest)| last & 0x80 == 0 && rest.iter().all(|byte| byte & 0x80 != 0));
    (run == written(from) && is_one).then(|| out.finish())
}

/// Takes a run-length encoded column of signed numbers apart at the first one, if it begins with one that is
/// not repeated.
fn split_number(column: &[u8]) -> Option<(i64, Numbered<'_>)> {
    let mut reader = Reader::new(column);
    let is_single = leb128_signed(&mut reader, "rows").ok()? < 0;
    let run = &column[..column.len() - reader.remaining()];
    let number = leb128_signed(&mut reader, "number").ok()?;
    let after = &column[column.len() - reader.remaining()..];
    is_single.then_some((number, Numbered { run, after }))
}

#[cfg(test)]
mod tests;
