//! Walking a value without recursion, so that no depth overflows the stack.

use std::cmp::Ordering;
use std::collections::{BTreeMap, btree_map};
use std::fmt;
use std::slice;

use super::Value;

/// One step of a walk through a value, parents before children, map entries in key order.
pub(super) enum Event<'a> {
    /// A value that is neither list nor map.
    Scalar(&'a Value),
    /// A list of so many items begins.
    List(usize),
    /// A map of so many entries begins.
    Map(usize),
    /// The name of the map entry whose value comes next.
    Key(&'a str),
    /// The innermost list or map ends.
    End,
}

impl Event<'_> {
    fn rank(&self) -> u8 {
        match self {
            Self::End => 0,
            Self::Key(_) => 1,
            Self::Scalar(scalar) => 2 + scalar.tag(),
            Self::List(_) => 2 + super::TAG_LIST,
            Self::Map(_) => 2 + super::TAG_MAP,
        }
    }
}

/// Counts do not take part: what decides between two lists is the first item that differs.
impl Ord for Event<'_> {
    fn cmp(&self, other: &Self) -> Ordering {
        match (self, other) {
            (Self::Scalar(a), Self::Scalar(b)) => a.cmp_scalar(b),
            (Self::Key(a), Self::Key(b)) => a.cmp(b),
            _ => self.rank().cmp(&other.rank()),
        }
    }
}

impl PartialOrd for Event<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Event<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Event<'_> {}

enum Frame<'a> {
    List(slice::Iter<'a, Value>),
    Map(btree_map::Iter<'a, String, Value>),
}

/// The walk itself.
pub(super) struct Walk<'a> {
    next: Option<&'a Value>,
    open: Vec<Frame<'a>>,
}

impl<'a> Walk<'a> {
    pub(super) fn new(value: &'a Value) -> Self {
        Self { next: Some(value), open: Vec::new() }
    }

    /// Lists and maps that have begun and not ended.
    pub(super) fn depth(&self) -> usize {
        self.open.len()
    }

    fn enter(&mut self, value: &'a Value) -> Event<'a> {
        match value {
            Value::List(items) => {
                self.open.push(Frame::List(items.iter()));
                Event::List(items.len())
            }
            Value::Map(entries) => {
                self.open.push(Frame::Map(entries.iter()));
                Event::Map(entries.len())
            }
            scalar => Event::Scalar(scalar),
        }
    }
}

impl<'a> Iterator for Walk<'a> {
    type Item = Event<'a>;

    fn next(&mut self) -> Option<Event<'a>> {
        if let Some(value) = self.next.take() {
            return Some(self.enter(value));
        }
        match self.open.last_mut()? {
            Frame::List(items) => {
                if let Some(item) = items.next() {
                    return Some(self.enter(item));
                }
            }
            Frame::Map(entries) => {
                if let Some((key, value)) = entries.next() {
                    self.next = Some(value);
                    return Some(Event::Key(key));
                }
            }
        }
        self.open.pop();
        Some(Event::End)
    }
}

enum Growing {
    List(Vec<Value>),
    Map(BTreeMap<String, Value>, String),
}

/// Builds the value that `walk` goes through, with `copy` applied to its scalars.
pub(super) fn rebuild<'a>(walk: Walk<'a>, copy: impl Fn(&'a Value) -> Value) -> Value {
    let mut growing: Vec<Growing> = Vec::new();
    for event in walk {
        let complete = match event {
            Event::Scalar(scalar) => copy(scalar),
            Event::List(count) => {
                growing.push(Growing::List(Vec::with_capacity(count)));
                continue;
            }
            Event::Map(_) => {
                growing.push(Growing::Map(BTreeMap::new(), String::new()));
                continue;
            }
            Event::Key(next) => {
                if let Some(Growing::Map(_, key)) = growing.last_mut() {
                    key.push_str(next);
                }
                continue;
            }
            Event::End => match growing.pop().expect("an end follows its beginning") {
                Growing::List(items) => Value::List(items),
                Growing::Map(entries, _) => Value::Map(entries),
            },
        };
        match growing.last_mut() {
            None => return complete,
            Some(Growing::List(items)) => items.push(complete),
            Some(Growing::Map(entries, key)) => {
                entries.insert(std::mem::take(key), complete);
            }
        }
    }
    unreachable!("a walk ends by completing the value it started with")
}

/// Writes the value as JSON-like text.
pub(super) fn display(value: &Value, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let mut closers = Vec::new();
    let mut separate = false;
    for event in Walk::new(value) {
        if separate && !matches!(event, Event::End) {
            f.write_str(",")?;
        }
        separate = true;
        match event {
            Event::Scalar(scalar) => display_scalar(scalar, f)?,
            Event::List(_) => {
                closers.push("]");
                separate = false;
                f.write_str("[")?;
            }
            Event::Map(_) => {
                closers.push("}");
                separate = false;
                f.write_str("{")?;
            }
            Event::Key(key) => {
                display_text(key, f)?;
                separate = false;
                f.write_str(":")?;
            }
            Event::End => f.write_str(closers.pop().expect("an end follows its beginning"))?,
        }
    }
    Ok(())
}

fn display_scalar(scalar: &Value, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    match scalar {
        Value::Null => f.write_str("null"),
        Value::Bool(truth) => write!(f, "{truth}"),
        Value::I64(number) => write!(f, "{number}"),
        Value::F64(number) => write!(f, "{number:?}"),
        Value::Text(text) => display_text(text, f),
        Value::Bytes(bytes) => {
            f.write_str("h'")?;
            bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))?;
            f.write_str("'")
        }
        Value::List(_) | Value::Map(_) => unreachable!("a walk gives lists and maps as their own events"),
    }
}

fn display_text(text: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    f.write_str("\"")?;
    for character in text.chars() {
        match character {
            '"' => f.write_str("\\\"")?,
            '\\' => f.write_str("\\\\")?,
            '\n' => f.write_str("\\n")?,
            '\r' => f.write_str("\\r")?,
            '\t' => f.write_str("\\t")?,
            control if control < ' ' => write!(f, "\\u{:04x}", u32::from(control))?,
            other => write!(f, "{other}")?,
        }
    }
    f.write_str("\"")
}
