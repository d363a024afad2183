//! The columns in which Automerge lays out rows: read one row at a time, or summed up without reading rows
//! out, so that what a run length claims costs nothing before it is held to a limit.

use crate::codec::{DecodeError, Reader};

use super::{DocumentError, within};

/// The bit of a column specification that says the column is deflated.
pub(super) const COLUMN_DEFLATED: u64 = 8;

/// What a column's rows look like; the low three bits of its specification.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    /// How many rows of the columns that follow belong to a row of this one.
    Group,
    /// Run-length encoded unsigned numbers.
    Unsigned,
    /// Run-length encoded differences.
    Delta,
    /// Lengths of alternating runs of false and true.
    Boolean,
    /// Run-length encoded strings.
    Text,
    /// Run-length encoded lengths, shifted, of the values in the column that follows.
    ValueLength,
    /// Values back to back.
    Raw,
}

impl Shape {
    pub(super) fn of(spec: u64) -> Self {
        match spec & 7 {
            0 => Self::Group,
            1 | 2 => Self::Unsigned,
            3 => Self::Delta,
            4 => Self::Boolean,
            5 => Self::Text,
            6 => Self::ValueLength,
            _ => Self::Raw,
        }
    }
}

/// Reads a column directory: specifications, ascending whether deflated or not, and lengths in bytes.
pub(super) fn directory(
    reader: &mut Reader<'_>,
    bytes_max: usize,
) -> Result<Vec<(u64, usize)>, DocumentError> {
    let columns = reader.count(bytes_max, "columns")?;
    let mut directory: Vec<(u64, usize)> = Vec::new();
    for _ in 0..columns {
        let spec = reader.varint_max(u64::from(u32::MAX), "column specification")?;
        let bytes = reader.varint_max(bytes_max as u64, "column length")? as usize;
        if directory.last().is_some_and(|(last, _)| last & !COLUMN_DEFLATED >= spec & !COLUMN_DEFLATED) {
            return Err(DecodeError::NotCanonical { what: "column order" }.into());
        }
        directory.push((spec, bytes));
    }
    Ok(directory)
}

/// Sums what `read` gives for each row of a run-length encoded column, `null` for a row without a value, and
/// stops above `value_max`.
pub(super) fn sum_runs<'a>(
    column: &'a [u8],
    what: &'static str,
    value_max: u64,
    null: u64,
    read: impl Fn(&mut Reader<'a>, &'static str) -> Result<u64, DecodeError>,
) -> Result<u64, DocumentError> {
    let mut reader = Reader::new(column);
    let mut sum = 0_u64;
    while reader.remaining() > 0 {
        let run = leb128_signed(&mut reader, what)?;
        if run == 0 {
            let rows = reader.varint(what)?;
            sum = within(what, sum.saturating_add(rows.saturating_mul(null)), value_max)?;
            continue;
        }
        let (rows, literals) = if run > 0 { (run.unsigned_abs(), 1) } else { (1, run.unsigned_abs()) };
        for _ in 0..literals {
            let weight = rows.saturating_mul(read(&mut reader, what)?);
            sum = within(what, sum.saturating_add(weight), value_max)?;
        }
    }
    Ok(sum)
}

/// Counts the rows of a column that is not [`Shape::Raw`], up to `rows_max`. O(bytes).
pub(super) fn count_rows(
    column: &[u8],
    shape: Shape,
    what: &'static str,
    rows_max: u64,
) -> Result<u64, DocumentError> {
    match shape {
        Shape::Boolean => {
            let mut reader = Reader::new(column);
            let mut rows = 0_u64;
            while reader.remaining() > 0 {
                rows = within(what, rows.saturating_add(reader.varint(what)?), rows_max)?;
            }
            Ok(rows)
        }
        Shape::Delta => {
            sum_runs(column, what, rows_max, 1, |reader, what| leb128_signed(reader, what).map(|_| 1))
        }
        Shape::Text => {
            sum_runs(column, what, rows_max, 1, |reader, what| reader.blob(usize::MAX, what).map(|_| 1))
        }
        Shape::Group | Shape::Unsigned | Shape::ValueLength | Shape::Raw => {
            sum_runs(column, what, rows_max, 1, |reader, what| reader.varint(what).map(|_| 1))
        }
    }
}

/// The rows of a run-length encoded column, one after the other, and nulls without end after the last.
pub(super) struct Rows<'a, T> {
    reader: Reader<'a>,
    read: fn(&mut Reader<'a>, &'static str) -> Result<T, DecodeError>,
    /// Rows left of the run.
    left: u64,
    /// What the run repeats; `None` in a run of literals.
    repeated: Option<Option<T>>,
}

impl<'a> Rows<'a, u64> {
    pub(super) fn unsigned(column: &'a [u8]) -> Self {
        Self::new(column, Reader::varint)
    }
}

impl<'a> Rows<'a, &'a [u8]> {
    pub(super) fn text(column: &'a [u8]) -> Self {
        Self::new(column, |reader, what| reader.blob(usize::MAX, what))
    }
}

impl<'a, T: Copy> Rows<'a, T> {
    fn new(column: &'a [u8], read: fn(&mut Reader<'a>, &'static str) -> Result<T, DecodeError>) -> Self {
        Self { reader: Reader::new(column), read, left: 0, repeated: None }
    }

    /// The next row. O(1) but for the bytes it reads.
    pub(super) fn next(&mut self, what: &'static str) -> Result<Option<T>, DecodeError> {
        while self.left == 0 {
            if self.reader.remaining() == 0 {
                return Ok(None);
            }
            let run = leb128_signed(&mut self.reader, what)?;
            (self.left, self.repeated) = match run {
                0 => (self.reader.varint(what)?, Some(None)),
                1.. => (run.unsigned_abs(), Some(Some((self.read)(&mut self.reader, what)?))),
                _ => (run.unsigned_abs(), None),
            };
        }
        self.left -= 1;
        match self.repeated {
            Some(value) => Ok(value),
            None => (self.read)(&mut self.reader, what).map(Some),
        }
    }
}

/// The rows of a column of differences, as the numbers they add up to.
pub(super) struct Deltas<'a> {
    rows: Rows<'a, i64>,
    last: i64,
}

impl<'a> Deltas<'a> {
    pub(super) fn new(column: &'a [u8]) -> Self {
        Self { rows: Rows::new(column, leb128_signed), last: 0 }
    }

    pub(super) fn next(&mut self, what: &'static str) -> Result<Option<u64>, DecodeError> {
        let Some(delta) = self.rows.next(what)? else { return Ok(None) };
        let invalid = DecodeError::Invalid { what, rule: "must be a number that is not negative" };
        self.last = self.last.checked_add(delta).filter(|sum| *sum >= 0).ok_or(invalid)?;
        Ok(Some(self.last.unsigned_abs()))
    }
}

/// The rows of a column of booleans, false without end after the last.
pub(super) struct Booleans<'a> {
    reader: Reader<'a>,
    left: u64,
    value: bool,
}

impl<'a> Booleans<'a> {
    pub(super) fn new(column: &'a [u8]) -> Self {
        // Runs begin with false, and each begins by turning the value over.
        Self { reader: Reader::new(column), left: 0, value: true }
    }

    pub(super) fn next(&mut self, what: &'static str) -> Result<bool, DecodeError> {
        while self.left == 0 {
            if self.reader.remaining() == 0 {
                return Ok(false);
            }
            self.left = self.reader.varint(what)?;
            self.value = !self.value;
        }
        self.left -= 1;
        Ok(self.value)
    }
}

/// A signed LEB128 number, minimal form only. Not the zigzag form of the codec: this one is Automerge's.
pub(super) fn leb128_signed(reader: &mut Reader<'_>, what: &'static str) -> Result<i64, DecodeError> {
    let mut value = 0_i64;
    let mut previous = 0_u8;
    for shift in (0..64).step_by(7) {
        let byte = reader.u8(what)?;
        let bits = i64::from(byte & 0x7f);
        if shift == 63 && bits != 0 && bits != 0x7f {
            return Err(DecodeError::NotCanonical { what });
        }
        value |= bits << shift;
        if byte & 0x80 == 0 {
            let sign = previous & 0x40;
            if shift > 0 && ((byte == 0 && sign == 0) || (byte == 0x7f && sign != 0)) {
                return Err(DecodeError::NotCanonical { what });
            }
            if shift < 57 && byte & 0x40 != 0 {
                value |= -1 << (shift + 7);
            }
            return Ok(value);
        }
        previous = byte;
    }
    Err(DecodeError::NotCanonical { what })
}
