//! From values to data: the deserializers.

use std::collections::{BTreeMap, btree_map};
use std::slice;

use serde::Deserialize;
use serde::de::value::{BorrowedStrDeserializer, SeqDeserializer};
use serde::de::{
    DeserializeSeed, Deserializer, EnumAccess, Expected, MapAccess, SeqAccess, VariantAccess, Visitor,
};
use serde::forward_to_deserialize_any;

use super::error::quote;
use super::{Nesting, ValueSerdeError};
use crate::value::Value;

/// A value to read, and how deep it lies.
#[derive(Clone, Copy)]
pub(super) struct ValueDeserializer<'de> {
    value: &'de Value,
    nesting: Nesting,
}

impl<'de> ValueDeserializer<'de> {
    pub(super) fn new(value: &'de Value) -> Self {
        Self { value, nesting: Nesting::default() }
    }

    fn list<V: Visitor<'de>>(self, items: &'de [Value], visitor: V) -> Result<V::Value, ValueSerdeError> {
        let mut access = Items { rest: items.iter(), at: 0, nesting: self.nesting.container()? };
        let read = visitor.visit_seq(&mut access)?;
        if access.at < items.len() {
            let (some, all) = (access.at, items.len());
            return Err(ValueSerdeError::mismatch(
                format_args!("a list of {some}"),
                format_args!("a list of {all}"),
            ));
        }
        Ok(read)
    }

    fn map<V: Visitor<'de>>(
        self,
        entries: &'de BTreeMap<String, Value>,
        visitor: V,
    ) -> Result<V::Value, ValueSerdeError> {
        let mut access = Entries { rest: entries.iter(), open: None, nesting: self.nesting.container()? };
        let read = visitor.visit_map(&mut access)?;
        if access.rest.len() > 0 {
            let (some, all) = (entries.len() - access.rest.len(), entries.len());
            return Err(ValueSerdeError::mismatch(
                format_args!("a map of {some}"),
                format_args!("a map of {all}"),
            ));
        }
        Ok(read)
    }
}

impl<'de> Deserializer<'de> for ValueDeserializer<'de> {
    type Error = ValueSerdeError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ValueSerdeError> {
        match self.value {
            Value::Null => visitor.visit_unit(),
            Value::Bool(truth) => visitor.visit_bool(*truth),
            Value::I64(number) => visitor.visit_i64(*number),
            Value::F64(number) => visitor.visit_f64(*number),
            Value::Text(text) => visitor.visit_borrowed_str(text),
            Value::Bytes(bytes) => visitor.visit_borrowed_bytes(bytes),
            Value::List(items) => self.list(items, visitor),
            Value::Map(entries) => self.map(entries, visitor),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ValueSerdeError> {
        match self.value {
            Value::Null => visitor.visit_none(),
            _ => visitor.visit_some(Self { nesting: self.nesting.wrapper()?, ..self }),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, ValueSerdeError> {
        visitor.visit_newtype_struct(Self { nesting: self.nesting.wrapper()?, ..self })
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ValueSerdeError> {
        let Value::Bytes(bytes) = self.value else {
            return self.deserialize_any(visitor);
        };
        let mut access = SeqDeserializer::new(bytes.iter().copied());
        let read = visitor.visit_seq(&mut access)?;
        access.end()?;
        Ok(read)
    }

    fn deserialize_tuple<V: Visitor<'de>>(
        self,
        _length: usize,
        visitor: V,
    ) -> Result<V::Value, ValueSerdeError> {
        self.deserialize_seq(visitor)
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _length: usize,
        visitor: V,
    ) -> Result<V::Value, ValueSerdeError> {
        self.deserialize_seq(visitor)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        _variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, ValueSerdeError> {
        let expected = format_args!("a variant of {name}, its name alone or as the one key of a map");
        match self.value {
            Value::Text(variant) => visitor.visit_enum(Variant { variant, content: None }),
            Value::Map(entries) => {
                let (Some((variant, value)), 1) = (entries.first_key_value(), entries.len()) else {
                    return Err(ValueSerdeError::mismatch(
                        expected,
                        format_args!("a map of {}", entries.len()),
                    ));
                };
                let content = Self { value, nesting: self.nesting.container()? };
                visitor.visit_enum(Variant { variant, content: Some(content) })
            }
            other => Err(ValueSerdeError::mismatch(expected, kind(other))),
        }
    }

    // Nothing is looked at, so it costs nothing, however deep it is.
    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ValueSerdeError> {
        visitor.visit_unit()
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit
        unit_struct map struct identifier
    }
}

/// As [`Value::to_typed`] reads it, for data that borrows from the value.
impl<'de> Deserializer<'de> for &'de Value {
    type Error = ValueSerdeError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ValueSerdeError> {
        ValueDeserializer::new(self).deserialize_any(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ValueSerdeError> {
        ValueDeserializer::new(self).deserialize_option(visitor)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, ValueSerdeError> {
        ValueDeserializer::new(self).deserialize_newtype_struct(name, visitor)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ValueSerdeError> {
        ValueDeserializer::new(self).deserialize_seq(visitor)
    }

    fn deserialize_tuple<V: Visitor<'de>>(
        self,
        _length: usize,
        visitor: V,
    ) -> Result<V::Value, ValueSerdeError> {
        ValueDeserializer::new(self).deserialize_seq(visitor)
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _length: usize,
        visitor: V,
    ) -> Result<V::Value, ValueSerdeError> {
        ValueDeserializer::new(self).deserialize_seq(visitor)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, ValueSerdeError> {
        ValueDeserializer::new(self).deserialize_enum(name, variants, visitor)
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ValueSerdeError> {
        visitor.visit_unit()
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit
        unit_struct map struct identifier
    }
}

struct Items<'de> {
    rest: slice::Iter<'de, Value>,
    at: usize,
    nesting: Nesting,
}

impl<'de> SeqAccess<'de> for Items<'de> {
    type Error = ValueSerdeError;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, ValueSerdeError> {
        let Some(value) = self.rest.next() else {
            return Ok(None);
        };
        let index = self.at;
        self.at += 1;
        seed.deserialize(ValueDeserializer { value, nesting: self.nesting })
            .map(Some)
            .map_err(|error| error.under_index(index))
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.rest.len())
    }
}

struct Entries<'de> {
    rest: btree_map::Iter<'de, String, Value>,
    /// The entry whose key has been read.
    open: Option<(&'de str, &'de Value)>,
    nesting: Nesting,
}

impl<'de> MapAccess<'de> for Entries<'de> {
    type Error = ValueSerdeError;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, ValueSerdeError> {
        let Some((key, value)) = self.rest.next() else {
            return Ok(None);
        };
        self.open = Some((key, value));
        seed.deserialize(KeyDeserializer { key }).map(Some)
    }

    fn next_value_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<T::Value, ValueSerdeError> {
        let Some((key, value)) = self.open.take() else {
            return Err(ValueSerdeError::refused("the type reads an entry's value without its key"));
        };
        seed.deserialize(ValueDeserializer { value, nesting: self.nesting })
            .map_err(|error| error.under_key(key))
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.rest.len())
    }
}

struct Variant<'de> {
    variant: &'de str,
    content: Option<ValueDeserializer<'de>>,
}

impl<'de> Variant<'de> {
    fn content(&self) -> Result<ValueDeserializer<'de>, ValueSerdeError> {
        self.content.ok_or_else(|| {
            let expected = format!("the variant {} as the one key of a map", quote(self.variant));
            ValueSerdeError::mismatch(expected, "its name alone")
        })
    }
}

impl<'de> EnumAccess<'de> for Variant<'de> {
    type Error = ValueSerdeError;
    type Variant = Self;

    fn variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<(T::Value, Self), ValueSerdeError> {
        let name = seed.deserialize(BorrowedStrDeserializer::<ValueSerdeError>::new(self.variant))?;
        Ok((name, self))
    }
}

impl<'de> VariantAccess<'de> for Variant<'de> {
    type Error = ValueSerdeError;

    fn unit_variant(self) -> Result<(), ValueSerdeError> {
        let Some(content) = self.content else {
            return Ok(());
        };
        <()>::deserialize(content).map_err(|error| error.under_key(self.variant))
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, ValueSerdeError> {
        seed.deserialize(self.content()?).map_err(|error| error.under_key(self.variant))
    }

    fn tuple_variant<V: Visitor<'de>>(self, _length: usize, visitor: V) -> Result<V::Value, ValueSerdeError> {
        self.content()?.deserialize_seq(visitor).map_err(|error| error.under_key(self.variant))
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        _fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, ValueSerdeError> {
        self.content()?.deserialize_any(visitor).map_err(|error| error.under_key(self.variant))
    }
}

/// A map's key, read as text or as what text was made of.
struct KeyDeserializer<'de> {
    key: &'de str,
}

impl<'de> KeyDeserializer<'de> {
    fn mismatch(&self, expected: &dyn Expected) -> ValueSerdeError {
        ValueSerdeError::mismatch(expected, format_args!("the key {}", quote(self.key)))
    }
}

/// Only the form that is written is read: were `07` read as 7, it could be one key with `7`.
macro_rules! integer_keys {
    ($($method:ident $integer:ty => $visit:ident),+ $(,)?) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ValueSerdeError> {
            match self.key.parse::<$integer>() {
                Ok(number) if number.to_string() == self.key => visitor.$visit(number),
                _ => Err(self.mismatch(&visitor)),
            }
        }
    )+};
}

impl<'de> Deserializer<'de> for KeyDeserializer<'de> {
    type Error = ValueSerdeError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ValueSerdeError> {
        visitor.visit_borrowed_str(self.key)
    }

    integer_keys! {
        deserialize_i8 i8 => visit_i8,
        deserialize_i16 i16 => visit_i16,
        deserialize_i32 i32 => visit_i32,
        deserialize_i64 i64 => visit_i64,
        deserialize_i128 i128 => visit_i128,
        deserialize_u8 u8 => visit_u8,
        deserialize_u16 u16 => visit_u16,
        deserialize_u32 u32 => visit_u32,
        deserialize_u64 u64 => visit_u64,
        deserialize_u128 u128 => visit_u128,
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ValueSerdeError> {
        match self.key {
            "false" => visitor.visit_bool(false),
            "true" => visitor.visit_bool(true),
            _ => Err(self.mismatch(&visitor)),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, ValueSerdeError> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, ValueSerdeError> {
        visitor.visit_enum(BorrowedStrDeserializer::new(self.key))
    }

    forward_to_deserialize_any! {
        f32 f64 char str string bytes byte_buf option unit unit_struct seq tuple tuple_struct map struct
        identifier ignored_any
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::I64(_) => "an integer",
        Value::F64(_) => "a float",
        Value::Text(_) => "a string",
        Value::Bytes(_) => "bytes",
        Value::List(_) => "a list",
        Value::Map(_) => "a map",
    }
}
