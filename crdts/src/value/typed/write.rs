//! From data to values: the serializers.

use std::collections::BTreeMap;
use std::fmt::Display;

use serde::ser::{
    Impossible, Serialize, SerializeMap, SerializeSeq, SerializeStruct, SerializeStructVariant,
    SerializeTuple, SerializeTupleStruct, SerializeTupleVariant, Serializer,
};

use super::{Nesting, ValueSerdeError};
use crate::value::Value;

/// A place for a value, and how deep it lies.
#[derive(Clone, Copy, Default)]
pub(super) struct ValueSerializer {
    nesting: Nesting,
}

impl ValueSerializer {
    fn list(self) -> Result<ListSerializer, ValueSerdeError> {
        Ok(ListSerializer { items: Vec::new(), nesting: self.nesting.container()?, variant: None })
    }

    fn map(self) -> Result<MapSerializer, ValueSerdeError> {
        let nesting = self.nesting.container()?;
        Ok(MapSerializer { entries: BTreeMap::new(), key: None, nesting, variant: None })
    }

    fn content(self) -> Result<Self, ValueSerdeError> {
        Ok(Self { nesting: self.nesting.container()? })
    }
}

macro_rules! scalars {
    ($($method:ident($from:ty) => |$data:ident| $value:expr),+ $(,)?) => {$(
        fn $method(self, $data: $from) -> Result<Value, ValueSerdeError> {
            $value
        }
    )+};
}

impl Serializer for ValueSerializer {
    type Ok = Value;
    type Error = ValueSerdeError;
    type SerializeSeq = ListSerializer;
    type SerializeTuple = ListSerializer;
    type SerializeTupleStruct = ListSerializer;
    type SerializeTupleVariant = ListSerializer;
    type SerializeMap = MapSerializer;
    type SerializeStruct = MapSerializer;
    type SerializeStructVariant = MapSerializer;

    scalars! {
        serialize_bool(bool) => |truth| Ok(Value::Bool(truth)),
        serialize_i8(i8) => |number| integer(number),
        serialize_i16(i16) => |number| integer(number),
        serialize_i32(i32) => |number| integer(number),
        serialize_i64(i64) => |number| integer(number),
        serialize_i128(i128) => |number| integer(number),
        serialize_u8(u8) => |number| integer(number),
        serialize_u16(u16) => |number| integer(number),
        serialize_u32(u32) => |number| integer(number),
        serialize_u64(u64) => |number| integer(number),
        serialize_u128(u128) => |number| integer(number),
        serialize_f32(f32) => |number| Ok(Value::F64(f64::from(number))),
        serialize_f64(f64) => |number| Ok(Value::F64(number)),
        serialize_char(char) => |character| Ok(Value::Text(character.to_string())),
        serialize_str(&str) => |text| Ok(Value::Text(text.to_owned())),
        serialize_bytes(&[u8]) => |bytes| Ok(Value::Bytes(bytes.to_owned())),
        serialize_unit_struct(&'static str) => |_name| Ok(Value::Null),
    }

    fn serialize_none(self) -> Result<Value, ValueSerdeError> {
        Ok(Value::Null)
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<Value, ValueSerdeError> {
        value.serialize(Self { nesting: self.nesting.wrapper()? })
    }

    fn serialize_unit(self) -> Result<Value, ValueSerdeError> {
        Ok(Value::Null)
    }

    fn serialize_unit_variant(
        self,
        _name: &'static str,
        _index: u32,
        variant: &'static str,
    ) -> Result<Value, ValueSerdeError> {
        Ok(Value::Text(variant.to_owned()))
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        _name: &'static str,
        value: &T,
    ) -> Result<Value, ValueSerdeError> {
        value.serialize(Self { nesting: self.nesting.wrapper()? })
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _name: &'static str,
        _index: u32,
        variant: &'static str,
        value: &T,
    ) -> Result<Value, ValueSerdeError> {
        let content = value.serialize(self.content()?).map_err(|error| error.under_key(variant))?;
        Ok(tagged(Some(variant), content))
    }

    fn serialize_seq(self, _length: Option<usize>) -> Result<ListSerializer, ValueSerdeError> {
        self.list()
    }

    fn serialize_tuple(self, _length: usize) -> Result<ListSerializer, ValueSerdeError> {
        self.list()
    }

    fn serialize_tuple_struct(
        self,
        _name: &'static str,
        _length: usize,
    ) -> Result<ListSerializer, ValueSerdeError> {
        self.list()
    }

    fn serialize_tuple_variant(
        self,
        _name: &'static str,
        _index: u32,
        variant: &'static str,
        _length: usize,
    ) -> Result<ListSerializer, ValueSerdeError> {
        let list = self.content()?.list().map_err(|error| error.under_key(variant))?;
        Ok(ListSerializer { variant: Some(variant), ..list })
    }

    fn serialize_map(self, _length: Option<usize>) -> Result<MapSerializer, ValueSerdeError> {
        self.map()
    }

    fn serialize_struct(self, _name: &'static str, _length: usize) -> Result<MapSerializer, ValueSerdeError> {
        self.map()
    }

    fn serialize_struct_variant(
        self,
        _name: &'static str,
        _index: u32,
        variant: &'static str,
        _length: usize,
    ) -> Result<MapSerializer, ValueSerdeError> {
        let map = self.content()?.map().map_err(|error| error.under_key(variant))?;
        Ok(MapSerializer { variant: Some(variant), ..map })
    }
}

/// A list, perhaps a variant's content, that grows.
pub(super) struct ListSerializer {
    items: Vec<Value>,
    nesting: Nesting,
    variant: Option<&'static str>,
}

impl ListSerializer {
    fn push<T: Serialize + ?Sized>(&mut self, item: &T) -> Result<(), ValueSerdeError> {
        let item = item
            .serialize(ValueSerializer { nesting: self.nesting })
            .map_err(|error| under_variant(error.under_index(self.items.len()), self.variant))?;
        self.items.push(item);
        Ok(())
    }

    fn finish(self) -> Value {
        tagged(self.variant, Value::List(self.items))
    }
}

macro_rules! lists {
    ($($trait:ident $method:ident),+ $(,)?) => {$(
        impl $trait for ListSerializer {
            type Ok = Value;
            type Error = ValueSerdeError;

            fn $method<T: Serialize + ?Sized>(&mut self, item: &T) -> Result<(), ValueSerdeError> {
                self.push(item)
            }

            fn end(self) -> Result<Value, ValueSerdeError> {
                Ok(self.finish())
            }
        }
    )+};
}

lists! {
    SerializeSeq serialize_element,
    SerializeTuple serialize_element,
    SerializeTupleStruct serialize_field,
    SerializeTupleVariant serialize_field,
}

/// A map, perhaps a variant's content, that grows.
pub(super) struct MapSerializer {
    entries: BTreeMap<String, Value>,
    /// The key whose value comes next.
    key: Option<String>,
    nesting: Nesting,
    variant: Option<&'static str>,
}

impl MapSerializer {
    fn insert<T: Serialize + ?Sized>(&mut self, key: String, value: &T) -> Result<(), ValueSerdeError> {
        if self.entries.contains_key(&key) {
            return Err(under_variant(ValueSerdeError::KeyTwice { path: String::new(), key }, self.variant));
        }
        let value = value
            .serialize(ValueSerializer { nesting: self.nesting })
            .map_err(|error| under_variant(error.under_key(&key), self.variant))?;
        self.entries.insert(key, value);
        Ok(())
    }

    fn finish(self) -> Value {
        tagged(self.variant, Value::Map(self.entries))
    }
}

impl SerializeMap for MapSerializer {
    type Ok = Value;
    type Error = ValueSerdeError;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), ValueSerdeError> {
        self.key = Some(key.serialize(KeySerializer)?);
        Ok(())
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), ValueSerdeError> {
        let Some(key) = self.key.take() else {
            return Err(ValueSerdeError::refused("the type writes an entry's value without its key"));
        };
        self.insert(key, value)
    }

    fn end(self) -> Result<Value, ValueSerdeError> {
        Ok(self.finish())
    }
}

macro_rules! structs {
    ($($trait:ident),+ $(,)?) => {$(
        impl $trait for MapSerializer {
            type Ok = Value;
            type Error = ValueSerdeError;

            fn serialize_field<T: Serialize + ?Sized>(
                &mut self,
                field: &'static str,
                value: &T,
            ) -> Result<(), ValueSerdeError> {
                self.insert(field.to_owned(), value)
            }

            fn end(self) -> Result<Value, ValueSerdeError> {
                Ok(self.finish())
            }
        }
    )+};
}

structs! { SerializeStruct, SerializeStructVariant }

/// A map's key, which becomes text.
struct KeySerializer;

macro_rules! texts {
    ($($method:ident $from:ty),+ $(,)?) => {$(
        fn $method(self, key: $from) -> Result<String, ValueSerdeError> {
            Ok(key.to_string())
        }
    )+};
}

macro_rules! refused {
    ($($method:ident($($argument:ty),*) -> $result:ty => $found:literal),+ $(,)?) => {$(
        fn $method(self, $(_: $argument),*) -> Result<$result, ValueSerdeError> {
            Err(key_kind($found))
        }
    )+};
}

type Never = Impossible<String, ValueSerdeError>;

impl Serializer for KeySerializer {
    type Ok = String;
    type Error = ValueSerdeError;
    type SerializeSeq = Never;
    type SerializeTuple = Never;
    type SerializeTupleStruct = Never;
    type SerializeTupleVariant = Never;
    type SerializeMap = Never;
    type SerializeStruct = Never;
    type SerializeStructVariant = Never;

    texts! {
        serialize_bool bool,
        serialize_i8 i8,
        serialize_i16 i16,
        serialize_i32 i32,
        serialize_i64 i64,
        serialize_i128 i128,
        serialize_u8 u8,
        serialize_u16 u16,
        serialize_u32 u32,
        serialize_u64 u64,
        serialize_u128 u128,
        serialize_char char,
        serialize_str &str,
    }

    refused! {
        serialize_f32(f32) -> String => "a float",
        serialize_f64(f64) -> String => "a float",
        serialize_bytes(&[u8]) -> String => "a byte string",
        serialize_none() -> String => "an option",
        serialize_unit() -> String => "a unit",
        serialize_unit_struct(&'static str) -> String => "a unit",
        serialize_seq(Option<usize>) -> Never => "a list",
        serialize_tuple(usize) -> Never => "a list",
        serialize_tuple_struct(&'static str, usize) -> Never => "a list",
        serialize_tuple_variant(&'static str, u32, &'static str, usize) -> Never => "a variant with content",
        serialize_map(Option<usize>) -> Never => "a map",
        serialize_struct(&'static str, usize) -> Never => "a map",
        serialize_struct_variant(&'static str, u32, &'static str, usize) -> Never => "a variant with content",
    }

    fn serialize_some<T: Serialize + ?Sized>(self, _value: &T) -> Result<String, ValueSerdeError> {
        Err(key_kind("an option"))
    }

    fn serialize_unit_variant(
        self,
        _name: &'static str,
        _index: u32,
        variant: &'static str,
    ) -> Result<String, ValueSerdeError> {
        Ok(variant.to_owned())
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        _name: &'static str,
        value: &T,
    ) -> Result<String, ValueSerdeError> {
        value.serialize(self)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _name: &'static str,
        _index: u32,
        _variant: &'static str,
        _value: &T,
    ) -> Result<String, ValueSerdeError> {
        Err(key_kind("a variant with content"))
    }
}

fn integer<N: TryInto<i64> + Copy + Display>(number: N) -> Result<Value, ValueSerdeError> {
    let out_of_range =
        |_| ValueSerdeError::IntegerOutOfRange { path: String::new(), number: number.to_string() };
    number.try_into().map(Value::I64).map_err(out_of_range)
}

fn key_kind(found: &'static str) -> ValueSerdeError {
    ValueSerdeError::KeyKind { path: String::new(), found }
}

fn under_variant(error: ValueSerdeError, variant: Option<&'static str>) -> ValueSerdeError {
    match variant {
        None => error,
        Some(variant) => error.under_key(variant),
    }
}

fn tagged(variant: Option<&'static str>, content: Value) -> Value {
    match variant {
        None => content,
        Some(variant) => Value::Map(BTreeMap::from([(variant.to_owned(), content)])),
    }
}
