//! Application values: what registers hold and sets contain.

mod field;
mod typed;
mod walk;

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::mem;

use crate::codec::{DecodeError, Reader, Writer};
use crate::limits::VALUE_DEPTH_MAX;
pub use typed::ValueSerdeError;
use walk::{Event, Walk};

const TAG_NULL: u8 = 0;
const TAG_FALSE: u8 = 1;
const TAG_TRUE: u8 = 2;
const TAG_I64: u8 = 3;
const TAG_F64: u8 = 4;
const TAG_TEXT: u8 = 5;
const TAG_BYTES: u8 = 6;
const TAG_LIST: u8 = 7;
const TAG_MAP: u8 = 8;

/// The one bit pattern that stands for every NaN.
const NAN_BITS: u64 = 0x7ff8_0000_0000_0000;

/// A JSON-like value with integers and byte strings.
///
/// Two values are equal exactly when their canonical encodings are: every NaN equals every NaN, and 0.0
/// differs from -0.0. The order is total: first the kind, in declaration order, then the content; lists
/// and maps compare item by item, a prefix before what it begins.
///
/// A value can be built deeper than [`VALUE_DEPTH_MAX`]: [`Value::check`] refuses it, and every operation
/// here, dropping it included, works in memory proportional to the depth and in constant
/// stack, however deep it is. Because dropping is taken care of, contents cannot be moved out of a matched
/// value; use [`Value::into_list`] and its like, or `std::mem::take`.
pub enum Value {
    /// Nothing; different from an absent value.
    Null,
    /// A truth value.
    Bool(bool),
    /// An integer.
    I64(i64),
    /// A floating-point number.
    F64(f64),
    /// A string.
    Text(String),
    /// A byte string.
    Bytes(Vec<u8>),
    /// A sequence.
    List(Vec<Value>),
    /// Values under names.
    Map(BTreeMap<String, Value>),
}

/// Why a value cannot be written. The caller's fault; nothing changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ValueError {
    /// Lists and maps are nested too deep.
    #[error("the value nests lists and maps deeper than the limit of {depth_max}")]
    TooDeep {
        /// The limit, [`VALUE_DEPTH_MAX`].
        depth_max: usize,
    },
    /// The encoding is too long.
    #[error("the value has {bytes} bytes encoded; the limit is {bytes_max}")]
    TooLarge {
        /// The length of the encoding in bytes.
        bytes: usize,
        /// The limit in bytes.
        bytes_max: usize,
    },
}

impl Value {
    /// Appends the canonical encoding: a tag byte, then the content. O(size).
    pub fn encode(&self, out: &mut Writer) {
        for event in Walk::new(self) {
            match event {
                Event::Scalar(scalar) => scalar.encode_scalar(out),
                Event::List(count) => {
                    out.u8(TAG_LIST);
                    out.varint(count as u64);
                }
                Event::Map(count) => {
                    out.u8(TAG_MAP);
                    out.varint(count as u64);
                }
                Event::Key(key) => out.blob(key.as_bytes()),
                Event::End => {}
            }
        }
    }

    /// The length of the canonical encoding. O(size), and O(1) for what holds no other values.
    pub fn encoded_len(&self) -> usize {
        Walk::new(self).fold(0, |bytes, event| bytes.saturating_add(event_bytes(&event)))
    }

    /// The canonical encoding. O(size).
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Writer::with_room(self.encoded_len());
        self.encode(&mut out);
        out.finish()
    }

    /// Reads one canonical encoding of at most `bytes_max` bytes. O(bytes); allocates in proportion to the
    /// bytes present, whatever counts they claim.
    ///
    /// # Errors
    /// [`DecodeError`] when the bytes are not the canonical encoding of a value within `bytes_max` and
    /// [`VALUE_DEPTH_MAX`]; the reader's position is then unspecified.
    pub fn decode(reader: &mut Reader<'_>, bytes_max: usize) -> Result<Self, DecodeError> {
        let present = reader.remaining();
        let mut part = Reader::new(reader.clone().bytes(present.min(bytes_max), "value")?);
        let allowed = part.remaining();
        let value = decode_value(&mut part, 0).map_err(|error| match error {
            DecodeError::Truncated { what } if present > bytes_max => {
                DecodeError::OverLimit { what, value: present as u64, value_max: bytes_max as u64 }
            }
            other => other,
        })?;
        reader.bytes(allowed - part.remaining(), "value")?;
        Ok(value)
    }

    /// Reads exactly one canonical encoding.
    ///
    /// # Errors
    /// As [`Value::decode`], and [`DecodeError::Trailing`].
    pub fn from_bytes(bytes: &[u8], bytes_max: usize) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes);
        let value = Self::decode(&mut reader, bytes_max)?;
        reader.finish("value")?;
        Ok(value)
    }

    /// Checks, before writing, that every replica will accept the value. O(size), but it looks no deeper
    /// than the limit on depth.
    ///
    /// # Errors
    /// [`ValueError`], naming the limit.
    pub fn check(&self, bytes_max: usize) -> Result<(), ValueError> {
        let mut walk = Walk::new(self);
        let mut bytes = 0_usize;
        while let Some(event) = walk.next() {
            if walk.depth() > VALUE_DEPTH_MAX {
                return Err(ValueError::TooDeep { depth_max: VALUE_DEPTH_MAX });
            }
            bytes = bytes.saturating_add(event_bytes(&event));
        }
        if bytes > bytes_max {
            return Err(ValueError::TooLarge { bytes, bytes_max });
        }
        Ok(())
    }

    /// The string, or the value itself when it is none.
    ///
    /// # Errors
    /// The value, unchanged.
    pub fn into_text(mut self) -> Result<String, Self> {
        match &mut self {
            Self::Text(text) => Ok(mem::take(text)),
            _ => Err(self),
        }
    }

    /// The byte string, or the value itself when it is none.
    ///
    /// # Errors
    /// The value, unchanged.
    pub fn into_bytes(mut self) -> Result<Vec<u8>, Self> {
        match &mut self {
            Self::Bytes(bytes) => Ok(mem::take(bytes)),
            _ => Err(self),
        }
    }

    /// The items of a list, or the value itself when it is none.
    ///
    /// # Errors
    /// The value, unchanged.
    pub fn into_list(mut self) -> Result<Vec<Self>, Self> {
        match &mut self {
            Self::List(items) => Ok(mem::take(items)),
            _ => Err(self),
        }
    }

    /// The entries of a map, or the value itself when it is none.
    ///
    /// # Errors
    /// The value, unchanged.
    pub fn into_map(mut self) -> Result<BTreeMap<String, Self>, Self> {
        match &mut self {
            Self::Map(entries) => Ok(mem::take(entries)),
            _ => Err(self),
        }
    }

    fn is_container(&self) -> bool {
        matches!(self, Self::List(_) | Self::Map(_))
    }

    fn tag(&self) -> u8 {
        match self {
            Self::Null => TAG_NULL,
            Self::Bool(false) => TAG_FALSE,
            Self::Bool(true) => TAG_TRUE,
            Self::I64(_) => TAG_I64,
            Self::F64(_) => TAG_F64,
            Self::Text(_) => TAG_TEXT,
            Self::Bytes(_) => TAG_BYTES,
            Self::List(_) => TAG_LIST,
            Self::Map(_) => TAG_MAP,
        }
    }

    fn encode_scalar(&self, out: &mut Writer) {
        out.u8(self.tag());
        match self {
            Self::Null | Self::Bool(_) | Self::List(_) | Self::Map(_) => {}
            Self::I64(number) => out.varint_signed(*number),
            Self::F64(number) => out.bytes(&canonical_bits(*number).to_be_bytes()),
            Self::Text(text) => out.blob(text.as_bytes()),
            Self::Bytes(bytes) => out.blob(bytes),
        }
    }

    fn scalar_bytes(&self) -> usize {
        1 + match self {
            Self::Null | Self::Bool(_) | Self::List(_) | Self::Map(_) => 0,
            Self::I64(number) => varint_bytes(((number << 1) ^ (number >> 63)) as u64),
            Self::F64(_) => 8,
            Self::Text(text) => varint_bytes(text.len() as u64) + text.len(),
            Self::Bytes(bytes) => varint_bytes(bytes.len() as u64) + bytes.len(),
        }
    }

    fn cmp_scalar(&self, other: &Self) -> Ordering {
        match (self, other) {
            (Self::I64(a), Self::I64(b)) => a.cmp(b),
            (Self::F64(a), Self::F64(b)) => {
                f64::from_bits(canonical_bits(*a)).total_cmp(&f64::from_bits(canonical_bits(*b)))
            }
            (Self::Text(a), Self::Text(b)) => a.cmp(b),
            (Self::Bytes(a), Self::Bytes(b)) => a.cmp(b),
            _ => self.tag().cmp(&other.tag()),
        }
    }
}

/// What a step through a value takes in its encoding.
fn event_bytes(event: &Event<'_>) -> usize {
    match event {
        Event::Scalar(scalar) => scalar.scalar_bytes(),
        Event::List(count) | Event::Map(count) => 1 + varint_bytes(*count as u64),
        Event::Key(key) => varint_bytes(key.len() as u64) + key.len(),
        Event::End => 0,
    }
}

/// Reads a value that lies inside `depth` lists and maps.
fn decode_value(reader: &mut Reader<'_>, depth: usize) -> Result<Value, DecodeError> {
    let tag = reader.u8("value tag")?;
    if (tag == TAG_LIST || tag == TAG_MAP) && depth >= VALUE_DEPTH_MAX {
        return Err(DecodeError::OverLimit {
            what: "value depth",
            value: depth as u64 + 1,
            value_max: VALUE_DEPTH_MAX as u64,
        });
    }
    match tag {
        TAG_NULL => Ok(Value::Null),
        TAG_FALSE => Ok(Value::Bool(false)),
        TAG_TRUE => Ok(Value::Bool(true)),
        TAG_I64 => Ok(Value::I64(reader.varint_signed("integer")?)),
        TAG_F64 => {
            let bits = u64::from_be_bytes(reader.array("float")?);
            if canonical_bits(f64::from_bits(bits)) != bits {
                return Err(DecodeError::NotCanonical { what: "float" });
            }
            Ok(Value::F64(f64::from_bits(bits)))
        }
        TAG_TEXT => Ok(Value::Text(reader.text(usize::MAX, "text")?.to_owned())),
        TAG_BYTES => Ok(Value::Bytes(reader.blob(usize::MAX, "bytes")?.to_owned())),
        TAG_LIST => {
            // No capacity from the count: nested lists could each claim all the bytes that are left.
            let mut items = Vec::new();
            for _ in 0..reader.count(usize::MAX, "list")? {
                items.push(decode_value(reader, depth + 1)?);
            }
            Ok(Value::List(items))
        }
        TAG_MAP => decode_map(reader, depth),
        tag => Err(DecodeError::UnknownTag { what: "value", tag: u64::from(tag) }),
    }
}

fn decode_map(reader: &mut Reader<'_>, depth: usize) -> Result<Value, DecodeError> {
    let mut entries = BTreeMap::new();
    let mut previous: Option<&str> = None;
    for _ in 0..reader.count(usize::MAX, "map")? {
        let key = reader.text(usize::MAX, "map key")?;
        if previous.is_some_and(|previous| previous >= key) {
            return Err(DecodeError::NotCanonical { what: "map key" });
        }
        previous = Some(key);
        entries.insert(key.to_owned(), decode_value(reader, depth + 1)?);
    }
    Ok(Value::Map(entries))
}

fn canonical_bits(number: f64) -> u64 {
    if number.is_nan() { NAN_BITS } else { number.to_bits() }
}

fn varint_bytes(value: u64) -> usize {
    (64 - (value | 1).leading_zeros()).div_ceil(7) as usize
}

impl Drop for Value {
    fn drop(&mut self) {
        let mut waiting = Vec::new();
        take_containers(self, &mut waiting);
        while let Some(mut value) = waiting.pop() {
            take_containers(&mut value, &mut waiting);
        }
    }
}

/// Moves the lists and maps directly inside `value` out, so that dropping `value` goes one level deep.
fn take_containers(value: &mut Value, waiting: &mut Vec<Value>) {
    match value {
        Value::List(items) => {
            waiting.extend(
                items.iter_mut().filter(|item| item.is_container()).map(|i| mem::replace(i, Value::Null)),
            );
        }
        Value::Map(entries) => waiting.extend(
            entries.values_mut().filter(|item| item.is_container()).map(|i| mem::replace(i, Value::Null)),
        ),
        Value::Null | Value::Bool(_) | Value::I64(_) | Value::F64(_) | Value::Text(_) | Value::Bytes(_) => {}
    }
}

impl Clone for Value {
    fn clone(&self) -> Self {
        walk::rebuild(Walk::new(self), |scalar| match scalar {
            Self::Null => Self::Null,
            Self::Bool(truth) => Self::Bool(*truth),
            Self::I64(number) => Self::I64(*number),
            Self::F64(number) => Self::F64(*number),
            Self::Text(text) => Self::Text(text.clone()),
            Self::Bytes(bytes) => Self::Bytes(bytes.clone()),
            Self::List(_) | Self::Map(_) => unreachable!("a walk gives lists and maps as their own events"),
        })
    }
}

impl PartialEq for Value {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Value {}

impl PartialOrd for Value {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Value {
    fn cmp(&self, other: &Self) -> Ordering {
        Walk::new(self).cmp(Walk::new(other))
    }
}

impl Hash for Value {
    fn hash<H: Hasher>(&self, state: &mut H) {
        for event in Walk::new(self) {
            match event {
                Event::Scalar(scalar) => {
                    let mut out = Writer::new();
                    scalar.encode_scalar(&mut out);
                    state.write(out.as_slice());
                }
                Event::List(count) => (TAG_LIST, count).hash(state),
                Event::Map(count) => (TAG_MAP, count).hash(state),
                Event::Key(key) => key.hash(state),
                Event::End => {}
            }
        }
    }
}

/// JSON, except that a byte string is `h'…'` in hexadecimal and a float may be `NaN` or `inf`.
impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        walk::display(self, f)
    }
}

/// As `Display`.
impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        walk::display(self, f)
    }
}

macro_rules! value_from {
    ($($from:ty => |$name:ident| $value:expr),+ $(,)?) => {$(
        impl From<$from> for Value {
            fn from($name: $from) -> Self {
                $value
            }
        }
    )+};
}

value_from! {
    () => |_unit| Self::Null,
    bool => |truth| Self::Bool(truth),
    i32 => |number| Self::I64(i64::from(number)),
    u32 => |number| Self::I64(i64::from(number)),
    i64 => |number| Self::I64(number),
    f64 => |number| Self::F64(number),
    &str => |text| Self::Text(text.to_owned()),
    String => |text| Self::Text(text),
    &[u8] => |bytes| Self::Bytes(bytes.to_owned()),
    Vec<u8> => |bytes| Self::Bytes(bytes),
    Vec<Value> => |items| Self::List(items),
    BTreeMap<String, Value> => |entries| Self::Map(entries),
}

#[cfg(test)]
mod tests;
