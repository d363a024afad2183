//! Types of an application, one of every kind that serde derives.

use std::collections::BTreeMap;
use std::fmt;

use proptest::prelude::*;
use serde::de::{MapAccess, SeqAccess, Visitor};
use serde::ser::{SerializeMap, SerializeSeq};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Profile {
    pub(super) name: String,
    pub(super) initial: char,
    pub(super) age: Option<u8>,
    pub(super) tags: Vec<String>,
    pub(super) shapes: Vec<Shape>,
    pub(super) picture: Blob,
    pub(super) address: [u8; 4],
    pub(super) maps: Maps,
    pub(super) numbers: Numbers,
    pub(super) pair: (i8, Option<String>),
    pub(super) nothing: (),
    pub(super) marker: Marker,
    pub(super) wrapped: Wrapped,
    pub(super) loose: Loose,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Maps {
    pub(super) counts: BTreeMap<u32, i64>,
    pub(super) signed: BTreeMap<i128, Option<bool>>,
    pub(super) truths: BTreeMap<bool, Vec<f64>>,
    pub(super) moods: BTreeMap<Mood, u16>,
    pub(super) letters: BTreeMap<char, Shape>,
    pub(super) handles: BTreeMap<Handle, String>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Numbers {
    small: (i8, u8, i16, u16),
    large: (i32, u32, i64, u64),
    huge: (i128, u128),
    float: f32,
    double: f64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) enum Shape {
    Point,
    Circle(f32),
    Line(i32, String),
    Label { text: String, at: Option<(i16, u16)> },
    Group(Vec<Shape>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Mood {
    Calm,
    VeryGlad,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Marker;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Wrapped(Option<Box<Inner>>);

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Inner(i32, Wrapped);

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) struct Handle(u64);

/// What serde reads through its own buffer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Loose {
    pub(super) tagged: Tagged,
    pub(super) untagged: Untagged,
    #[serde(flatten)]
    pub(super) rest: BTreeMap<String, i64>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind")]
pub(super) enum Tagged {
    Bare,
    Named { name: String, picture: Blob },
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub(super) enum Untagged {
    Number(i64),
    Text(String),
    Many(Vec<Untagged>),
}

/// A byte string; a plain vector of bytes is a list to serde.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Blob(pub(super) Vec<u8>);

impl Serialize for Blob {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for Blob {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Bytes;

        impl Visitor<'_> for Bytes {
            type Value = Blob;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("bytes")
            }

            fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Blob, E> {
                Ok(Blob(bytes.to_owned()))
            }
        }

        deserializer.deserialize_bytes(Bytes)
    }
}

/// Any value at all, as a type of an application that asks for whatever is there.
#[derive(Debug)]
pub(super) enum Mirror {
    Null,
    Bool(bool),
    Integer(i64),
    Float(f64),
    Text(String),
    Bytes(Vec<u8>),
    List(Vec<Mirror>),
    Map(Vec<(String, Mirror)>),
}

impl Serialize for Mirror {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Null => serializer.serialize_unit(),
            Self::Bool(truth) => serializer.serialize_bool(*truth),
            Self::Integer(number) => serializer.serialize_i64(*number),
            Self::Float(number) => serializer.serialize_f64(*number),
            Self::Text(text) => serializer.serialize_str(text),
            Self::Bytes(bytes) => serializer.serialize_bytes(bytes),
            Self::List(items) => {
                let mut list = serializer.serialize_seq(None)?;
                items.iter().try_for_each(|item| list.serialize_element(item))?;
                list.end()
            }
            Self::Map(entries) => {
                let mut map = serializer.serialize_map(None)?;
                entries.iter().try_for_each(|(key, value)| map.serialize_entry(key, value))?;
                map.end()
            }
        }
    }
}

impl<'de> Deserialize<'de> for Mirror {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Whatever)
    }
}

struct Whatever;

impl<'de> Visitor<'de> for Whatever {
    type Value = Mirror;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("anything")
    }

    fn visit_unit<E>(self) -> Result<Mirror, E> {
        Ok(Mirror::Null)
    }

    fn visit_bool<E>(self, truth: bool) -> Result<Mirror, E> {
        Ok(Mirror::Bool(truth))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Mirror, E> {
        Ok(Mirror::Integer(number))
    }

    fn visit_f64<E>(self, number: f64) -> Result<Mirror, E> {
        Ok(Mirror::Float(number))
    }

    fn visit_str<E>(self, text: &str) -> Result<Mirror, E> {
        Ok(Mirror::Text(text.to_owned()))
    }

    fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Mirror, E> {
        Ok(Mirror::Bytes(bytes.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Mirror, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = access.next_element()? {
            items.push(item);
        }
        Ok(Mirror::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Mirror, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = access.next_entry()? {
            entries.push(entry);
        }
        Ok(Mirror::Map(entries))
    }
}

/// Floats are equal as data exactly when they are as values, but for NaN and -0.0.
const EQUAL_AS_VALUES: &str = "neither NaN nor -0.0";

/// Any profile without NaN and -0.0.
pub(super) fn profile() -> impl Strategy<Value = Profile> {
    let things = (
        text(),
        any::<char>(),
        any::<Option<u8>>(),
        prop::collection::vec(text(), 0..3),
        prop::collection::vec(shape(), 0..3),
        blob(),
        any::<[u8; 4]>(),
    );
    let others = (maps(), numbers(), any::<i8>(), prop::option::of(text()), wrapped(), loose());
    (things, others).prop_map(|(things, others)| {
        let (name, initial, age, tags, shapes, picture, address) = things;
        let (maps, numbers, small, text, wrapped, loose) = others;
        let (pair, nothing, marker) = ((small, text), (), Marker);
        Profile {
            name,
            initial,
            age,
            tags,
            shapes,
            picture,
            address,
            maps,
            numbers,
            pair,
            nothing,
            marker,
            wrapped,
            loose,
        }
    })
}

fn text() -> impl Strategy<Value = String> {
    prop_oneof!["[a-c.\"ä]{0,3}", "[0-9]{1,2}", Just("Point".to_owned())]
}

fn blob() -> impl Strategy<Value = Blob> {
    prop::collection::vec(any::<u8>(), 0..4).prop_map(Blob)
}

fn float() -> impl Strategy<Value = f32> {
    any::<f32>()
        .prop_filter(EQUAL_AS_VALUES, |float| !float.is_nan() && float.to_bits() != (-0.0_f32).to_bits())
}

fn double() -> impl Strategy<Value = f64> {
    any::<f64>()
        .prop_filter(EQUAL_AS_VALUES, |double| !double.is_nan() && double.to_bits() != (-0.0_f64).to_bits())
}

fn shape() -> impl Strategy<Value = Shape> {
    let leaf = prop_oneof![
        Just(Shape::Point),
        float().prop_map(Shape::Circle),
        (any::<i32>(), text()).prop_map(|(number, text)| Shape::Line(number, text)),
        (text(), any::<Option<(i16, u16)>>()).prop_map(|(text, at)| Shape::Label { text, at }),
    ];
    leaf.prop_recursive(3, 8, 3, |inner| prop::collection::vec(inner, 0..3).prop_map(Shape::Group))
}

fn maps() -> impl Strategy<Value = Maps> {
    let mood = prop_oneof![Just(Mood::Calm), Just(Mood::VeryGlad)];
    (
        prop::collection::btree_map(any::<u32>(), any::<i64>(), 0..4),
        prop::collection::btree_map(any::<i128>(), any::<Option<bool>>(), 0..4),
        prop::collection::btree_map(any::<bool>(), prop::collection::vec(double(), 0..2), 0..3),
        prop::collection::btree_map(mood, any::<u16>(), 0..3),
        prop::collection::btree_map(any::<char>(), shape(), 0..2),
        prop::collection::btree_map(any::<u64>().prop_map(Handle), text(), 0..3),
    )
        .prop_map(|(counts, signed, truths, moods, letters, handles)| Maps {
            counts,
            signed,
            truths,
            moods,
            letters,
            handles,
        })
}

fn numbers() -> impl Strategy<Value = Numbers> {
    let positive = 0..=i64::MAX as u64;
    (
        any::<(i8, u8, i16, u16)>(),
        (any::<i32>(), any::<u32>(), any::<i64>(), positive.clone()),
        (any::<i64>().prop_map(i128::from), positive.prop_map(u128::from)),
        float(),
        double(),
    )
        .prop_map(|(small, large, huge, float, double)| Numbers { small, large, huge, float, double })
}

fn wrapped() -> impl Strategy<Value = Wrapped> {
    prop::collection::vec(any::<i32>(), 0..4).prop_map(|numbers| {
        numbers.into_iter().fold(Wrapped(None), |inner, number| Wrapped(Some(Box::new(Inner(number, inner)))))
    })
}

fn loose() -> impl Strategy<Value = Loose> {
    let tagged = prop_oneof![
        Just(Tagged::Bare),
        (text(), blob()).prop_map(|(name, picture)| Tagged::Named { name, picture }),
    ];
    let untagged = prop_oneof![any::<i64>().prop_map(Untagged::Number), text().prop_map(Untagged::Text)]
        .prop_recursive(3, 6, 3, |inner| prop::collection::vec(inner, 0..3).prop_map(Untagged::Many));
    let rest = prop::collection::btree_map("[a-c.]{0,2}", any::<i64>(), 0..3);
    (tagged, untagged, rest).prop_map(|(tagged, untagged, rest)| Loose { tagged, untagged, rest })
}
