//! Values as fields of an application's own types, and as data of other formats that describe themselves.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Unexpected, Visitor};
use serde::ser::{Error as _, Serializer};
use serde::{Deserialize, Serialize};

use super::Value;
use crate::limits::VALUE_DEPTH_MAX;

/// The data in the first column of the table at [`Value::from_serialize`]. So a field of this type is stored as it
/// is, and one with `#[serde(flatten)]` keeps what the other fields leave over.
///
/// Errors when lists and maps are deeper than [`VALUE_DEPTH_MAX`]. Of formats without byte strings, such as JSON, byte
/// strings come back as lists; of those without NaN, floats may come back as null.
impl Serialize for Value {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Nested { value: self, depth: 0 }.serialize(serializer)
    }
}

/// Reads any data that describes itself and that a value can hold, as [`Value::from_serialize`] would store it.
///
/// Errors when an integer is beyond `i64`, a key is no text or comes twice, or lists, maps, options and newtypes are
/// deeper than [`VALUE_DEPTH_MAX`].
impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Reading { depth: 0 }.deserialize(deserializer)
    }
}

/// A value inside so many lists and maps.
struct Nested<'a> {
    value: &'a Value,
    depth: usize,
}

impl Serialize for Nested<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let inside = || inside(self.depth).ok_or_else(|| S::Error::custom(too_deep()));
        match self.value {
            Value::Null => serializer.serialize_unit(),
            Value::Bool(truth) => serializer.serialize_bool(*truth),
            Value::I64(number) => serializer.serialize_i64(*number),
            Value::F64(number) => serializer.serialize_f64(*number),
            Value::Text(text) => serializer.serialize_str(text),
            Value::Bytes(bytes) => serializer.serialize_bytes(bytes),
            Value::List(items) => {
                let depth = inside()?;
                serializer.collect_seq(items.iter().map(|value| Nested { value, depth }))
            }
            Value::Map(entries) => {
                let depth = inside()?;
                serializer.collect_map(entries.iter().map(|(key, value)| (key, Nested { value, depth })))
            }
        }
    }
}

/// Reads a value inside so many lists and maps.
#[derive(Clone, Copy)]
struct Reading {
    depth: usize,
}

impl Reading {
    fn inside<E: serde::de::Error>(self) -> Result<Self, E> {
        let depth = inside(self.depth).ok_or_else(|| E::custom(too_deep()))?;
        Ok(Self { depth })
    }
}

/// The depth inside one more, if there may be one more.
fn inside(depth: usize) -> Option<usize> {
    (depth < VALUE_DEPTH_MAX).then_some(depth + 1)
}

fn too_deep() -> impl fmt::Display {
    format!("lists and maps are nested deeper than the limit of {VALUE_DEPTH_MAX}")
}

impl<'de> DeserializeSeed<'de> for Reading {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Reading {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("null, a boolean, a signed integer of 64 bits, a float, a string, bytes, a list or a map")
    }

    fn visit_bool<E>(self, truth: bool) -> Result<Value, E> {
        Ok(Value::Bool(truth))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Value, E> {
        Ok(Value::I64(number))
    }

    fn visit_u64<E: serde::de::Error>(self, number: u64) -> Result<Value, E> {
        let signed = i64::try_from(number);
        signed.map(Value::I64).map_err(|_| E::invalid_value(Unexpected::Unsigned(number), &self))
    }

    fn visit_f64<E>(self, number: f64) -> Result<Value, E> {
        Ok(Value::F64(number))
    }

    fn visit_str<E>(self, text: &str) -> Result<Value, E> {
        Ok(Value::Text(text.to_owned()))
    }

    fn visit_string<E>(self, text: String) -> Result<Value, E> {
        Ok(Value::Text(text))
    }

    fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Value, E> {
        Ok(Value::Bytes(bytes.to_owned()))
    }

    fn visit_byte_buf<E>(self, bytes: Vec<u8>) -> Result<Value, E> {
        Ok(Value::Bytes(bytes))
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        self.inside()?.deserialize(deserializer)
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        self.inside()?.deserialize(deserializer)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Value, A::Error> {
        let inside = self.inside()?;
        // No capacity from the hint, which is what somebody claims.
        let mut items = Vec::new();
        while let Some(item) = list.next_element_seed(inside)? {
            items.push(item);
        }
        Ok(Value::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let inside = self.inside()?;
        let mut entries = BTreeMap::new();
        while let Some(key) = map.next_key::<String>()? {
            let value = map.next_value_seed(inside)?;
            match entries.entry(key) {
                Entry::Vacant(vacant) => drop(vacant.insert(value)),
                Entry::Occupied(taken) => {
                    return Err(A::Error::custom(format_args!("the key {:?} comes twice", taken.key())));
                }
            }
        }
        Ok(Value::Map(entries))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde::de::IntoDeserializer;
    use serde::de::value::{Error, MapDeserializer, SeqDeserializer, U64Deserializer};

    use super::*;
    use crate::value::tests::{nested, value};

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Profile {
        name: String,
        picture: Value,
        #[serde(flatten)]
        rest: BTreeMap<String, Value>,
    }

    proptest! {
        #[test]
        fn a_value_stands_for_itself(value in value()) {
            prop_assert_eq!(&Value::from_serialize(&value).unwrap(), &value);
            prop_assert_eq!(&value.to_typed::<Value>().unwrap(), &value);
        }

        #[test]
        fn what_a_type_does_not_name_is_kept_and_written_back(
            picture in value(), mut rest in prop::collection::btree_map("[a-c]{1,3}", value(), 0..4),
        ) {
            let named = [("name", Value::from("Ada")), ("picture", picture.clone())];
            let named = named.into_iter().map(|(name, value)| (name.to_owned(), value));
            let stored = Value::Map(rest.clone().into_iter().chain(named).collect());
            let profile: Profile = stored.to_typed().unwrap();
            prop_assert_eq!(&profile.picture, &picture);
            prop_assert_eq!(&profile.rest, &rest);
            prop_assert_eq!(Value::from_serialize(&profile).unwrap(), stored);
            rest.insert("name".to_owned(), Value::Null);
            let twice = Profile { rest, ..profile };
            prop_assert!(Value::from_serialize(&twice).is_err(), "two fields of one name are one too many");
        }
    }

    #[test]
    fn depth_is_limited_both_ways() {
        let (deepest, deeper) = (nested(VALUE_DEPTH_MAX), nested(VALUE_DEPTH_MAX + 1));
        assert_eq!(Value::from_serialize(&deepest), Ok(deepest.clone()));
        assert_eq!(deepest.to_typed(), Ok(deepest));
        for error in [
            Value::from_serialize(&deeper).unwrap_err().to_string(),
            deeper.to_typed::<Value>().unwrap_err().to_string(),
            // Through a format that limits nothing by itself.
            Value::deserialize(Deep(1_000_000)).unwrap_err().to_string(),
        ] {
            assert!(error.contains("32"), "{error}");
        }
    }

    #[test]
    fn what_no_value_can_hold_is_refused_by_name() {
        let number = U64Deserializer::<Error>::new(u64::MAX);
        let error = Value::deserialize(number).unwrap_err().to_string();
        assert!(error.contains("18446744073709551615") && error.contains("64 bits"), "{error}");
        assert_eq!(Value::deserialize(U64Deserializer::<Error>::new(7)), Ok(Value::I64(7)));
        let twice = MapDeserializer::<_, Error>::new([("a", 1), ("a", 2)].into_iter());
        assert_eq!(Value::deserialize(twice).unwrap_err().to_string(), "the key \"a\" comes twice");
    }

    /// So many lists around nothing, as a format gives them.
    struct Deep(usize);

    impl<'de> Deserializer<'de> for Deep {
        type Error = Error;

        fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
            match self.0.checked_sub(1) {
                Some(rest) => visitor.visit_seq(SeqDeserializer::new([Deep(rest)].into_iter())),
                None => visitor.visit_unit(),
            }
        }

        serde::forward_to_deserialize_any! {
            bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit
            unit_struct newtype_struct seq tuple tuple_struct map struct enum identifier ignored_any
        }
    }

    impl IntoDeserializer<'_, Error> for Deep {
        type Deserializer = Self;

        fn into_deserializer(self) -> Self {
            self
        }
    }
}
