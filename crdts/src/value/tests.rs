use std::collections::hash_map::DefaultHasher;

use proptest::prelude::*;

use super::*;
use crate::limits::VALUE_BYTES_MAX;

pub(super) fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::Bool),
        any::<i64>().prop_map(Value::I64),
        (-2..2_i64).prop_map(Value::I64),
        any::<u64>().prop_map(|bits| Value::F64(f64::from_bits(bits))),
        prop_oneof![Just(0.0), Just(-0.0), Just(f64::NAN), Just(-f64::NAN), Just(f64::INFINITY)]
            .prop_map(Value::F64),
        "[a-c\"\\\\\n]{0,3}".prop_map(Value::Text),
        prop::collection::vec(any::<u8>(), 0..3).prop_map(Value::Bytes),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::List),
            prop::collection::btree_map("[a-c]{0,2}", inner, 0..4).prop_map(Value::Map),
        ]
    })
}

fn hash(value: &Value) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

pub(super) fn nested(depth: usize) -> Value {
    (0..depth).fold(Value::Null, |inner, level| {
        if level % 2 == 0 {
            Value::List(vec![inner])
        } else {
            Value::Map(BTreeMap::from([("k".to_owned(), inner)]))
        }
    })
}

proptest! {
    #[test]
    fn values_round_trip_and_check_counts_their_bytes(value in value()) {
        let bytes = value.to_bytes();
        prop_assert_eq!(value.encoded_len(), bytes.len());
        prop_assert_eq!(&Value::from_bytes(&bytes, bytes.len()).unwrap(), &value);
        prop_assert_eq!(value.check(bytes.len()), Ok(()));
        let short = bytes.len() - 1;
        prop_assert_eq!(value.check(short), Err(ValueError::TooLarge { bytes: bytes.len(), bytes_max: short }));
        prop_assert!(Value::from_bytes(&bytes, short).is_err());
        prop_assert_eq!(value.clone().to_bytes(), bytes);
    }

    #[test]
    fn equality_is_equality_of_encodings_and_implies_equal_hashes(a in value(), b in value()) {
        prop_assert_eq!(a == b, a.to_bytes() == b.to_bytes());
        prop_assert_eq!(a.cmp(&b), b.cmp(&a).reverse());
        if a == b {
            prop_assert_eq!(hash(&a), hash(&b));
        }
        prop_assert_eq!(hash(&a), hash(&a.clone()));
    }

    #[test]
    fn the_order_is_transitive(a in value(), b in value(), c in value()) {
        let mut sorted = [&a, &b, &c];
        sorted.sort();
        prop_assert!(sorted[0] <= sorted[1] && sorted[1] <= sorted[2] && sorted[0] <= sorted[2]);
    }

    #[test]
    fn whatever_decodes_re_encodes_to_the_same_bytes(
        tags in prop::collection::vec(prop_oneof![3 => 0..10_u8, 1 => any::<u8>()], 0..40),
    ) {
        let mut reader = Reader::new(&tags);
        if let Ok(value) = Value::decode(&mut reader, VALUE_BYTES_MAX) {
            prop_assert_eq!(value.to_bytes(), &tags[..tags.len() - reader.remaining()]);
        }
    }

    #[test]
    fn one_altered_byte_gives_no_second_encoding(value in value(), at: prop::sample::Index, byte: u8) {
        let mut bytes = value.to_bytes();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        if let Ok(decoded) = Value::from_bytes(&bytes, VALUE_BYTES_MAX) {
            prop_assert_eq!(decoded.to_bytes(), bytes);
        }
    }
}

#[test]
fn the_depth_limit_holds_for_writing_and_reading() {
    let deepest = nested(VALUE_DEPTH_MAX);
    assert_eq!(deepest.check(VALUE_BYTES_MAX), Ok(()));
    assert_eq!(Value::from_bytes(&deepest.to_bytes(), VALUE_BYTES_MAX).unwrap(), deepest);
    let deeper = nested(VALUE_DEPTH_MAX + 1);
    assert_eq!(deeper.check(VALUE_BYTES_MAX), Err(ValueError::TooDeep { depth_max: VALUE_DEPTH_MAX }));
    assert!(matches!(
        Value::from_bytes(&deeper.to_bytes(), VALUE_BYTES_MAX),
        Err(DecodeError::OverLimit { what: "value depth", .. })
    ));
}

#[test]
fn a_value_a_million_deep_is_refused_and_needs_no_stack_for_anything() {
    let deep = nested(1_000_000);
    assert_eq!(deep.check(VALUE_BYTES_MAX), Err(ValueError::TooDeep { depth_max: VALUE_DEPTH_MAX }));
    let copy = deep.clone();
    assert!(copy == deep);
    assert_eq!(hash(&copy), hash(&deep));
    assert!(!deep.to_bytes().is_empty());
    assert!(!deep.to_string().is_empty());
    let bytes = [TAG_LIST, 1].repeat(1_000_000);
    assert!(Value::from_bytes(&bytes, usize::MAX).is_err());
}

#[test]
fn a_count_beyond_the_bytes_present_allocates_nothing() {
    let mut claim = Writer::new();
    claim.u8(TAG_LIST);
    claim.varint(u64::MAX);
    let claim = claim.finish();
    assert_eq!(Value::from_bytes(&claim, usize::MAX), Err(DecodeError::Truncated { what: "list" }));
}

#[test]
fn a_value_longer_than_allowed_is_refused_for_its_length() {
    let bytes = Value::from("0123456789").to_bytes();
    assert!(matches!(Value::from_bytes(&bytes, 5), Err(DecodeError::OverLimit { value_max: 5, .. })));
}

#[test]
fn one_bit_pattern_stands_for_every_nan_and_the_zeros_differ() {
    assert_eq!(Value::F64(f64::NAN), Value::F64(-f64::NAN));
    assert_ne!(Value::F64(0.0), Value::F64(-0.0));
    let mut other_nan = vec![TAG_F64];
    other_nan.extend((NAN_BITS | 1).to_be_bytes());
    assert_eq!(Value::from_bytes(&other_nan, 9), Err(DecodeError::NotCanonical { what: "float" }));
}

#[test]
fn map_keys_must_ascend() {
    let entry = |key: &str| [&[key.len() as u8], key.as_bytes(), &[TAG_NULL]].concat();
    let map = |keys: [&str; 2]| [vec![TAG_MAP, 2], entry(keys[0]), entry(keys[1])].concat();
    assert!(Value::from_bytes(&map(["a", "b"]), 64).is_ok());
    for keys in [["b", "a"], ["a", "a"]] {
        assert_eq!(Value::from_bytes(&map(keys), 64), Err(DecodeError::NotCanonical { what: "map key" }));
    }
}

#[test]
fn kinds_come_in_declaration_order_and_a_prefix_before_what_it_begins() {
    let ascending = [
        Value::Null,
        Value::Bool(false),
        Value::Bool(true),
        Value::I64(-1),
        Value::I64(1),
        Value::F64(f64::NEG_INFINITY),
        Value::F64(1.5),
        Value::F64(f64::NAN),
        Value::from("a"),
        Value::from("ab"),
        Value::from(vec![0_u8]),
        Value::from(vec![Value::I64(1)]),
        Value::from(vec![Value::I64(1), Value::Null]),
        Value::from(vec![Value::I64(2)]),
        Value::Map(BTreeMap::new()),
    ];
    assert!(ascending.is_sorted_by(|a, b| a < b));
}

#[test]
fn display_is_json_with_bytes() {
    let map = BTreeMap::from([
        ("a\n".to_owned(), Value::from(vec![Value::Null, Value::from(true), Value::from(-3)])),
        ("b".to_owned(), Value::Map(BTreeMap::from([("c".to_owned(), Value::from(vec![1_u8, 255]))]))),
    ]);
    let list = Value::from(vec![Value::Map(map), Value::from(1.0), Value::from("\"")]);
    assert_eq!(list.to_string(), r#"[{"a\n":[null,true,-3],"b":{"c":h'01ff'}},1.0,"\""]"#);
}

#[test]
fn contents_move_out_only_of_the_kind_they_are() {
    assert_eq!(Value::from("a").into_text(), Ok("a".to_owned()));
    assert_eq!(Value::from(vec![1_u8]).into_bytes(), Ok(vec![1]));
    assert_eq!(Value::from(vec![Value::Null]).into_list(), Ok(vec![Value::Null]));
    assert_eq!(Value::Null.into_map(), Err(Value::Null));
}
