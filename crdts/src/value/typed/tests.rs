use std::collections::BTreeMap;
use std::fmt::Debug;

use proptest::prelude::*;
use serde::de::IgnoredAny;
use serde::ser::{SerializeMap, SerializeSeq};
use serde::{Deserialize, Serializer};

use super::*;
use crate::limits::VALUE_BYTES_MAX;
use crate::value::tests::{nested, value};

mod data;

use data::{Blob, Loose, Mirror, Mood, Profile, Shape, profile};

fn written<T: Serialize + ?Sized>(data: &T) -> Value {
    Value::from_serialize(data).unwrap()
}

fn write_error<T: Serialize + ?Sized>(data: &T) -> String {
    Value::from_serialize(data).unwrap_err().to_string()
}

fn read_error<T: DeserializeOwned + Debug>(data: &(impl Serialize + ?Sized)) -> String {
    written(data).to_typed::<T>().unwrap_err().to_string()
}

fn one<K: Ord, V>(key: K, value: V) -> BTreeMap<K, V> {
    BTreeMap::from([(key, value)])
}

/// A map written in the order of its pairs, whatever they are.
struct Pairs<'a, K, V>(&'a [(K, V)]);

impl<K: Serialize, V: Serialize> Serialize for Pairs<'_, K, V> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(key, value)| (key, value)))
    }
}

proptest! {
    #[test]
    fn data_reads_back_as_it_was_and_every_replica_accepts_its_value(data in profile()) {
        let value = written(&data);
        prop_assert_eq!(value.check(VALUE_BYTES_MAX), Ok(()));
        let received = Value::from_bytes(&value.to_bytes(), VALUE_BYTES_MAX).unwrap();
        prop_assert_eq!(&received.to_typed::<Profile>().unwrap(), &data);
        prop_assert_eq!(&Profile::deserialize(&received).unwrap(), &data);
        prop_assert_eq!(written(&data.clone()).to_bytes(), value.to_bytes());
    }

    #[test]
    fn data_is_equal_exactly_when_its_values_are(a in profile(), b in profile()) {
        // Two arbitrary profiles differ in too much: they differ here in at most one field.
        for other in [
            Profile { shapes: b.shapes, ..a.clone() },
            Profile { age: b.age, ..a.clone() },
            Profile { maps: b.maps, ..a.clone() },
            Profile { pair: b.pair, ..a.clone() },
            Profile { wrapped: b.wrapped, ..a.clone() },
            Profile { loose: b.loose, ..a.clone() },
        ] {
            prop_assert_eq!(written(&a) == written(&other), a == other);
        }
    }

    #[test]
    fn entries_in_any_order_give_one_value(
        pairs in prop::collection::btree_map(any::<i32>(), any::<u8>(), 0..6)
            .prop_map(|map| map.into_iter().collect::<Vec<_>>())
            .prop_flat_map(|pairs| (Just(pairs.clone()), Just(pairs).prop_shuffle())),
    ) {
        prop_assert_eq!(written(&Pairs(&pairs.0)).to_bytes(), written(&Pairs(&pairs.1)).to_bytes());
    }

    #[test]
    fn whatever_a_value_holds_is_read_and_written_back(value in value()) {
        let mirror: Mirror = value.to_typed().unwrap();
        prop_assert_eq!(written(&mirror), value);
    }

    #[test]
    fn one_altered_place_is_read_as_other_data_or_named(
        data in profile(), at: prop::sample::Index, other in value(),
    ) {
        let mut value = written(&data);
        let place = replace(&mut value, &mut at.index(80), &other);
        match (place, value.to_typed::<Profile>()) {
            (None, read) => prop_assert_eq!(read.unwrap(), data),
            (Some(_), Ok(read)) => {
                let value = written(&read);
                prop_assert_eq!(written(&value.to_typed::<Profile>().unwrap()), value);
            }
            (Some(place), Err(error)) => {
                let (place, named) = (place.path(), error.path());
                prop_assert!(place.starts_with(named) || named.starts_with(place), "{error} for {place}");
            }
        }
    }
}

/// Puts `other` in the place of the value that comes after so many, parents first; an error with its place.
fn replace(value: &mut Value, skip: &mut usize, other: &Value) -> Option<ValueSerdeError> {
    if *skip == 0 {
        *value = other.clone();
        return Some(ValueSerdeError::refused("altered"));
    }
    *skip -= 1;
    match value {
        Value::List(items) => items
            .iter_mut()
            .enumerate()
            .find_map(|(index, item)| Some(replace(item, skip, other)?.under_index(index))),
        Value::Map(entries) => {
            entries.iter_mut().find_map(|(key, item)| Some(replace(item, skip, other)?.under_key(key)))
        }
        _ => None,
    }
}

#[test]
fn the_shape_is_that_of_json() {
    let shapes = (
        Shape::Point,
        Shape::Circle(0.5),
        Shape::Line(-1, "a".to_owned()),
        Shape::Label { text: "b".to_owned(), at: Some((1, 2)) },
    );
    assert_eq!(
        written(&shapes).to_string(),
        r#"["Point",{"Circle":0.5},{"Line":[-1,"a"]},{"Label":{"at":[1,2],"text":"b"}}]"#
    );
    let keys =
        (one(7_u32, ()), one(-7_i8, None::<u8>), one(true, 'x'), one(Mood::VeryGlad, Blob(vec![1, 255])));
    assert_eq!(written(&keys).to_string(), r#"[{"7":null},{"-7":null},{"true":"x"},{"very_glad":h'01ff'}]"#);
    assert_eq!(written("text"), Value::from("text"));
    assert_eq!(written(&[1_u8, 2][..]), Value::from(vec![Value::I64(1), Value::I64(2)]));
    assert_eq!(written(&f32::NAN), Value::F64(f64::NAN));
}

#[test]
fn floats_keep_what_equality_does_not_see() {
    assert!(written(&f32::NAN).to_typed::<f32>().unwrap().is_nan());
    assert!(written(&f64::NAN).to_typed::<f64>().unwrap().is_nan());
    assert_eq!(written(&-0.0_f32).to_typed::<f32>().unwrap().to_bits(), (-0.0_f32).to_bits());
    assert_ne!(written(&-0.0_f64), written(&0.0_f64));
}

#[test]
fn an_option_of_an_option_keeps_one_empty_state() {
    for (data, read) in [(None, None), (Some(None), None), (Some(Some(1)), Some(Some(1)))] {
        assert_eq!(written(&data).to_typed::<Option<Option<u8>>>().unwrap(), read);
    }
    assert_eq!(written(&Some(())).to_typed::<Option<()>>().unwrap(), None);
}

#[test]
fn text_and_bytes_are_borrowed_from_the_value() {
    let value = written(&("text", Blob(vec![1, 2])));
    assert_eq!(<(&str, &[u8])>::deserialize(&value).unwrap(), ("text", &[1, 2][..]));
}

#[test]
fn a_little_more_is_read_than_is_written() {
    assert_eq!(Value::from(vec![1_u8, 255]).to_typed::<Vec<u8>>().unwrap(), [1, 255]);
    assert_eq!(Value::from(vec![1_u8, 255]).to_typed::<[u8; 2]>().unwrap(), [1, 255]);
    assert_eq!(
        read_error::<[u8; 1]>(&Blob(vec![1, 2])),
        "expected 1 element in sequence, found a length of 2"
    );
    assert_eq!(Value::I64(2).to_typed::<f32>().unwrap(), 2.0);
    assert_eq!(written(&one("Point", ())).to_typed::<Shape>().unwrap(), Shape::Point);
    assert_eq!(read_error::<i64>(&2.0), "expected i64, found a float");
}

#[test]
fn integers_fit_64_bits_or_are_named() {
    #[derive(Serialize)]
    enum Pick {
        Deep { at: (u8, i128) },
    }
    assert_eq!(written(&(i64::MAX as u64)), Value::I64(i64::MAX));
    assert_eq!(written(&i128::from(i64::MIN)), Value::I64(i64::MIN));
    let limit = "does not fit a signed integer of 64 bits";
    assert_eq!(write_error(&u64::MAX), format!("the integer {} {limit}", u64::MAX));
    assert_eq!(write_error(&one("a", [1, u128::MAX])), format!("a[1]: the integer {} {limit}", u128::MAX));
    let error = Value::from_serialize(&Some(Pick::Deep { at: (0, i128::MIN) })).unwrap_err();
    assert_eq!(error.path(), "Deep.at[1]");
    assert!(
        matches!(error, ValueSerdeError::IntegerOutOfRange { number, .. } if number == i128::MIN.to_string())
    );
    assert_eq!(read_error::<u8>(&300), "expected u8, found 300");
    assert_eq!(read_error::<(u64, u64)>(&(0, -1)), "[1]: expected u64, found -1");
}

#[test]
fn keys_are_text_or_what_has_one_text() {
    assert_eq!(write_error(&one("m", one(Some(1), 1))), "m: an option cannot be the key of a map");
    assert_eq!(write_error(&one((1, 2), 1)), "a list cannot be the key of a map");
    assert_eq!(write_error(&Pairs(&[(1.5, 1)])), "a float cannot be the key of a map");
    assert_eq!(
        write_error(&Pairs(&[(Shape::Circle(1.0), 1)])),
        "a variant with content cannot be the key of a map"
    );
    assert_eq!(write_error(&[Pairs(&[("a", 1), ("a", 2)])]), "[0]: the key \"a\" comes twice");
    let loose = Loose {
        tagged: data::Tagged::Bare,
        untagged: data::Untagged::Number(1),
        rest: one("tagged".to_owned(), 1),
    };
    assert!(
        matches!(Value::from_serialize(&loose), Err(ValueSerdeError::KeyTwice { key, .. }) if key == "tagged")
    );
}

#[test]
fn integer_and_truth_keys_are_read_in_the_one_form_that_is_written() {
    type Counts = BTreeMap<i16, u8>;
    type Truths = BTreeMap<bool, u8>;
    for key in ["7", "-7", "0", "32767"] {
        assert_eq!(written(&one(key, 1)).to_typed::<Counts>().unwrap(), one(key.parse().unwrap(), 1));
    }
    for key in ["07", "+7", "-0", "", " 7", "7.0", "32768", "a"] {
        assert_eq!(
            read_error::<(Counts,)>(&[one(key, 1)]),
            format!("[0]: expected i16, found the key {key:?}")
        );
    }
    assert_eq!(written(&one("true", 1)).to_typed::<Truths>().unwrap(), one(true, 1));
    assert_eq!(read_error::<Truths>(&one("True", 1)), "expected a boolean, found the key \"True\"");
    assert!(read_error::<BTreeMap<Mood, u8>>(&one("Calm", 1)).contains("unknown variant `Calm`"));
}

#[test]
fn keys_that_serde_buffers_stay_text() {
    #[derive(Debug, Serialize, Deserialize)]
    #[serde(tag = "kind")]
    enum Tagged {
        Counts { counts: BTreeMap<u32, u8>, names: BTreeMap<String, u8> },
    }
    let data = |counts, names| [Tagged::Counts { counts, names }];
    let read = written(&data(BTreeMap::new(), one("7".to_owned(), 1))).to_typed::<[Tagged; 1]>();
    assert!(matches!(read.unwrap(), [Tagged::Counts { names, .. }] if names["7"] == 1));
    assert_eq!(
        read_error::<[Tagged; 1]>(&data(one(7, 1), BTreeMap::new())),
        "[0]: expected u32, found a string"
    );
}

#[test]
fn errors_name_the_place() {
    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[expect(dead_code, reason = "read for its errors")]
    struct Account {
        profile: Part,
    }
    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[expect(dead_code, reason = "read for its errors")]
    struct Part {
        tags: Vec<String>,
        shape: Option<Shape>,
        by_name: Option<BTreeMap<String, (u8, char)>>,
    }
    let error = |part: &Value| {
        let account = Value::Map(one("profile".to_owned(), part.clone()));
        account.to_typed::<Account>().unwrap_err().to_string()
    };
    let field = |name: &str, content: Value| {
        let mut part = one("tags".to_owned(), Value::List(Vec::new()));
        part.insert(name.to_owned(), content);
        error(&Value::Map(part))
    };
    let tags = written(&("a", "b", 3));
    assert_eq!(field("tags", tags), "profile.tags[2]: expected a string, found an integer");
    assert_eq!(error(&Value::Null), "profile: expected struct Part, found null");
    assert_eq!(error(&Value::Map(Default::default())), "profile: missing field `tags`");
    assert_eq!(
        field("name", Value::Null),
        "profile: unknown field `name`, expected one of `tags`, `shape`, `by_name`"
    );
    assert_eq!(
        field("by_name", written(&one("x.y", (300, 'c')))),
        "profile.by_name[\"x.y\"][0]: expected u8, found 300"
    );
    assert_eq!(
        field("by_name", written(&one("x", (3, "long")))),
        "profile.by_name.x[1]: expected a character, found \"long\""
    );
    assert_eq!(
        field("by_name", written(&one("x", (3, 'c', ())))),
        "profile.by_name.x: expected a list of 2, found a list of 3"
    );
    let shape = |content: Value| field("shape", content);
    assert_eq!(
        shape(written(&one("Line", (1, 2)))),
        "profile.shape.Line[1]: expected a string, found an integer"
    );
    assert_eq!(
        shape(written(&one("Line", [1]))),
        "profile.shape.Line: expected tuple variant Shape::Line with 2 elements, found a length of 1"
    );
    assert_eq!(shape(written(&one("Label", one("at", ())))), "profile.shape.Label: missing field `text`");
    assert_eq!(
        shape(Value::from("Circle")),
        "profile.shape: expected the variant \"Circle\" as the one key of a map, found its name alone"
    );
    assert_eq!(shape(written(&one("Point", 1))), "profile.shape.Point: expected unit, found an integer");
    assert!(
        shape(Value::from("Square")).starts_with("profile.shape: unknown variant `Square`, expected one of")
    );
    let form = "a variant of Shape, its name alone or as the one key of a map";
    assert_eq!(shape(Value::I64(1)), format!("profile.shape: expected {form}, found an integer"));
    assert_eq!(
        shape(written(&Pairs(&[("Point", ()), ("Circle", ())]))),
        format!("profile.shape: expected {form}, found a map of 2")
    );
}

#[test]
fn an_error_quotes_no_more_of_a_text_than_can_be_read() {
    assert_eq!(
        read_error::<char>(&"ä".repeat(1000)),
        format!("expected a character, found \"{}\"…", "ä".repeat(64))
    );
}

/// Data without an end.
struct Endless {
    option: bool,
}

impl Serialize for Endless {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.option { serializer.serialize_some(self) } else { serializer.collect_seq([self]) }
    }
}

/// A type that goes through an option and a newtype around nothing.
#[derive(Debug, Serialize, Deserialize)]
struct Shell(Option<Box<Shell>>);

#[test]
fn depth_is_limited_in_both_directions() {
    for depth in [VALUE_DEPTH_MAX - 1, VALUE_DEPTH_MAX] {
        let mirror: Mirror = nested(depth).to_typed().unwrap();
        assert_eq!(written(&mirror), nested(depth));
    }
    let mirror = Mirror::List(vec![nested(VALUE_DEPTH_MAX).to_typed().unwrap()]);
    let place = "[0].k".repeat(VALUE_DEPTH_MAX / 2);
    let error = format!("{place}: nested deeper than the limit of {VALUE_DEPTH_MAX}");
    assert_eq!(write_error(&mirror), error);
    assert_eq!(nested(VALUE_DEPTH_MAX + 1).to_typed::<Mirror>().unwrap_err().to_string(), error);
    let million = nested(1_000_000);
    assert!(matches!(million.to_typed::<Mirror>(), Err(ValueSerdeError::TooDeep { .. })));
    assert!(million.to_typed::<IgnoredAny>().is_ok());
}

#[test]
fn recursion_that_leaves_no_trace_in_the_value_is_limited_too() {
    for option in [false, true] {
        assert!(matches!(Value::from_serialize(&Endless { option }), Err(ValueSerdeError::TooDeep { .. })));
    }
    let shell = |count| (0..count).fold(Shell(None), |inner, _| Shell(Some(Box::new(inner))));
    assert_eq!(written(&shell(LAYERS_MAX / 2 - 1)), Value::Null);
    let error = Value::from_serialize(&shell(LAYERS_MAX / 2)).unwrap_err();
    assert_eq!(error, ValueSerdeError::TooDeep { path: String::new(), depth_max: LAYERS_MAX });
    let error = Value::I64(1).to_typed::<Shell>().unwrap_err();
    assert_eq!(error, ValueSerdeError::TooDeep { path: String::new(), depth_max: LAYERS_MAX });
}

#[test]
fn a_type_that_misuses_serde_is_refused() {
    struct NoKey;
    impl Serialize for NoKey {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            let mut map = serializer.serialize_map(Some(usize::MAX))?;
            map.serialize_value(&1)?;
            map.end()
        }
    }
    assert_eq!(write_error(&NoKey), "the type writes an entry's value without its key");
    struct Refusing;
    impl Serialize for Refusing {
        fn serialize<S: Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
            Err(serde::ser::Error::custom("not today"))
        }
    }
    assert_eq!(write_error(&one("a", [Refusing])), "a[0]: not today");
    struct Claims;
    impl Serialize for Claims {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            serializer.serialize_seq(Some(usize::MAX))?.end()
        }
    }
    assert_eq!(written(&Claims), Value::List(Vec::new()));
}
