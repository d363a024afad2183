//! Typed values: an application's own types as values, and back, by serde.

mod error;
mod read;
mod write;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::Value;
use crate::limits::VALUE_DEPTH_MAX;
pub use error::ValueSerdeError;
use read::ValueDeserializer;
use write::ValueSerializer;

/// Lists, maps, options and newtypes around one value. Options and newtypes leave no trace in a value, so
/// its own depth does not bound a type that recurses through them. Four times the depth leaves room for three
/// of them around each list or map, and takes less than 64 KiB of stack unoptimised.
const LAYERS_MAX: usize = 4 * VALUE_DEPTH_MAX;

impl Value {
    /// The value that stands for any data serde can describe, in the shape that JSON gives it. O(size); the
    /// size in bytes is for [`Value::check`] to limit.
    ///
    /// | data | value |
    /// |---|---|
    /// | `()`, a unit struct, `None` | [`Value::Null`] |
    /// | `bool` | [`Value::Bool`] |
    /// | an integer within `i64` | [`Value::I64`] |
    /// | `f32`, `f64` | [`Value::F64`]; an `f32` becomes the `f64` of the same number |
    /// | `char`, `str` | [`Value::Text`] |
    /// | what calls `serialize_bytes` | [`Value::Bytes`]; a plain `Vec<u8>` does not, it is a list |
    /// | a sequence, a tuple, a tuple struct | [`Value::List`] |
    /// | a struct; a map whose keys are text, integers, truth values or unit variants | [`Value::Map`] |
    /// | `Some` and a newtype struct | what they contain |
    /// | a unit variant | [`Value::Text`], its name |
    /// | any other variant | [`Value::Map`] with one entry: its name, and its content as of a struct |
    ///
    /// Equal data gives equal values, in whatever order fields and map entries come. Two kinds of data do
    /// not know their own equality: a hash set is a sequence in the order of its iteration, so a
    /// `BTreeSet` is what to write; and 0.0 differs from -0.0.
    ///
    /// `Some(None)` and `Some(())` are [`Value::Null`] and so read back as `None`: an option of something
    /// that can itself be null keeps only one of its two empty states. Types that have a form for people,
    /// such as addresses, are asked for that one.
    ///
    /// # Errors
    /// [`ValueSerdeError`], naming the place: a number beyond `i64`, a map key of another kind or given twice,
    /// lists and maps deeper than [`VALUE_DEPTH_MAX`], or what the type's own implementation refuses.
    pub fn from_serialize<T: Serialize + ?Sized>(value: &T) -> Result<Self, ValueSerdeError> {
        value.serialize(ValueSerializer::default())
    }

    /// The data that the value stands for: the inverse of [`Value::from_serialize`]. O(size). `&Value` is also
    /// a [`serde::Deserializer`], for data that borrows text and bytes from the value.
    ///
    /// Like JSON it accepts a little more than was written: an integer where a float is expected, a list in
    /// place of a struct's fields, and bytes where a sequence of integers is expected. Integer keys are
    /// read in the one form they are written in, so that no two keys become one. Keys that a type reads
    /// through serde's own buffer (`flatten`, `untagged` or a `tag` around them) stay text, as with JSON.
    ///
    /// # Errors
    /// [`ValueSerdeError`], naming the place, for instance `profile.tags[2]: expected a string, found an
    /// integer`. Also when lists and maps are read deeper than [`VALUE_DEPTH_MAX`].
    pub fn to_typed<T: DeserializeOwned>(&self) -> Result<T, ValueSerdeError> {
        T::deserialize(ValueDeserializer::new(self))
    }
}

/// How deep inside the data serde has come.
#[derive(Clone, Copy, Default)]
struct Nesting {
    containers: usize,
    layers: usize,
}

impl Nesting {
    /// Inside one more list or map.
    fn container(self) -> Result<Self, ValueSerdeError> {
        if self.containers >= VALUE_DEPTH_MAX {
            return Err(ValueSerdeError::too_deep(VALUE_DEPTH_MAX));
        }
        Ok(Self { containers: self.containers + 1, ..self.wrapper()? })
    }

    /// Inside one more option or newtype.
    fn wrapper(self) -> Result<Self, ValueSerdeError> {
        if self.layers >= LAYERS_MAX {
            return Err(ValueSerdeError::too_deep(LAYERS_MAX));
        }
        Ok(Self { layers: self.layers + 1, ..self })
    }
}

#[cfg(test)]
mod tests;
