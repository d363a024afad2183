//! Why data and a value do not fit each other, and where.

use std::fmt::{self, Display};

use serde::de::{Expected, Unexpected};
use serde::{de, ser};

/// Characters of a text that an error quotes.
const QUOTE_CHARS_MAX: usize = 64;

/// Why data is not a value, or a value not the data asked for. The caller's fault; nothing changed.
///
/// `path` is where: map keys, fields and variants joined by dots, places in a list in brackets, empty for the
/// outermost value. Where a type reads through serde's own buffer (`flatten`, `untagged` or a `tag`), the
/// path ends there.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ValueSerdeError {
    /// The value is not of the kind, in the range or of the length that the type reads.
    #[error("{}expected {expected}, found {found}", Place(path))]
    Mismatch {
        /// Where.
        path: String,
        /// What the type reads.
        expected: String,
        /// What is there.
        found: String,
    },
    /// An integer to write is outside `i64`. Write it as text, or as a float.
    #[error("{}the integer {number} does not fit a signed integer of 64 bits", Place(path))]
    IntegerOutOfRange {
        /// Where.
        path: String,
        /// The integer, in decimal.
        number: String,
    },
    /// A map to write has a key that is not text, an integer, a truth value or a unit variant.
    #[error("{}{found} cannot be the key of a map", Place(path))]
    KeyKind {
        /// The map.
        path: String,
        /// What the key is.
        found: &'static str,
    },
    /// A map to write has two entries of the same key once keys are text. Neither is preferred.
    #[error("{}the key {key:?} comes twice", Place(path))]
    KeyTwice {
        /// The map.
        path: String,
        /// The key as text.
        key: String,
    },
    /// Lists and maps, or lists, maps, options and newtypes together, are nested too deep.
    #[error("{}nested deeper than the limit of {depth_max}", Place(path))]
    TooDeep {
        /// The first that is too deep.
        path: String,
        /// The limit: [`VALUE_DEPTH_MAX`](crate::limits::VALUE_DEPTH_MAX) for lists and maps, more for all.
        depth_max: usize,
    },
    /// The type itself refuses: a field is missing or unknown, a variant is unknown, or its own check fails.
    #[error("{}{message}", Place(path))]
    Refused {
        /// Where.
        path: String,
        /// The type's reason.
        message: String,
    },
}

impl ValueSerdeError {
    /// Where, in the form that the type's documentation describes; empty for the outermost value.
    pub fn path(&self) -> &str {
        match self {
            Self::Mismatch { path, .. }
            | Self::IntegerOutOfRange { path, .. }
            | Self::KeyKind { path, .. }
            | Self::KeyTwice { path, .. }
            | Self::TooDeep { path, .. }
            | Self::Refused { path, .. } => path,
        }
    }

    pub(super) fn mismatch(expected: impl Display, found: impl Display) -> Self {
        Self::Mismatch { path: String::new(), expected: expected.to_string(), found: found.to_string() }
    }

    pub(super) fn too_deep(depth_max: usize) -> Self {
        Self::TooDeep { path: String::new(), depth_max }
    }

    pub(super) fn refused(message: impl Display) -> Self {
        Self::Refused { path: String::new(), message: message.to_string() }
    }

    /// The same error seen from the list around it.
    pub(super) fn under_index(self, index: usize) -> Self {
        self.under(format!("[{index}]"))
    }

    /// The same error seen from the map around it.
    pub(super) fn under_key(self, key: &str) -> Self {
        let plain = |character: char| character.is_alphanumeric() || character == '_' || character == '-';
        if !key.is_empty() && key.chars().all(plain) {
            self.under(key.to_owned())
        } else {
            self.under(format!("[{key:?}]"))
        }
    }

    fn under(mut self, mut step: String) -> Self {
        let path = match &mut self {
            Self::Mismatch { path, .. }
            | Self::IntegerOutOfRange { path, .. }
            | Self::KeyKind { path, .. }
            | Self::KeyTwice { path, .. }
            | Self::TooDeep { path, .. }
            | Self::Refused { path, .. } => path,
        };
        if !path.is_empty() && !path.starts_with('[') {
            step.push('.');
        }
        path.insert_str(0, &step);
        self
    }
}

impl ser::Error for ValueSerdeError {
    fn custom<T: Display>(message: T) -> Self {
        Self::refused(message)
    }
}

impl de::Error for ValueSerdeError {
    fn custom<T: Display>(message: T) -> Self {
        Self::refused(message)
    }

    fn invalid_type(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::mismatch(expected, kind(&found))
    }

    fn invalid_value(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        match found {
            Unexpected::Bool(truth) => Self::mismatch(expected, truth),
            Unexpected::Unsigned(number) => Self::mismatch(expected, number),
            Unexpected::Signed(number) => Self::mismatch(expected, number),
            Unexpected::Float(number) => Self::mismatch(expected, format_args!("{number:?}")),
            Unexpected::Char(character) => Self::mismatch(expected, format_args!("{character:?}")),
            Unexpected::Str(text) => Self::mismatch(expected, quote(text)),
            other => Self::mismatch(expected, kind(&other)),
        }
    }

    fn invalid_length(length: usize, expected: &dyn Expected) -> Self {
        Self::mismatch(expected, format_args!("a length of {length}"))
    }
}

/// The text in quotes, cut where an error becomes hard to read.
pub(super) fn quote(text: &str) -> String {
    match text.char_indices().nth(QUOTE_CHARS_MAX) {
        None => format!("{text:?}"),
        Some((end, _)) => format!("{:?}…", &text[..end]),
    }
}

fn kind<'a>(found: &Unexpected<'a>) -> &'a str {
    match *found {
        Unexpected::Bool(_) => "a boolean",
        Unexpected::Unsigned(_) | Unexpected::Signed(_) => "an integer",
        Unexpected::Float(_) => "a float",
        Unexpected::Char(_) => "a character",
        Unexpected::Str(_) => "a string",
        Unexpected::Bytes(_) => "bytes",
        Unexpected::Unit => "null",
        Unexpected::Option => "an option",
        Unexpected::NewtypeStruct => "a newtype",
        Unexpected::Seq => "a list",
        Unexpected::Map => "a map",
        Unexpected::Enum => "an enum",
        Unexpected::UnitVariant => "a variant without content",
        Unexpected::NewtypeVariant => "a variant with one content",
        Unexpected::TupleVariant => "a variant with a list",
        Unexpected::StructVariant => "a variant with fields",
        Unexpected::Other(other) => other,
    }
}

/// A path as the beginning of a message.
struct Place<'a>(&'a str);

impl Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() { Ok(()) } else { write!(f, "{}: ", self.0) }
    }
}
