//! Values of registers and sets as JSON, both ways, without loss.
//!
//! What JSON lacks has tags, the same ones as in documents: `{"$bytes": "<base64>"}` and `{"$float": "NaN"}` (or `inf`,
//! `-inf`). A map whose only key is a tag, or starts as one, is `{"$map": {…}}`. Numbers written as integers are
//! integers and must fit 64 bits, all others are floats.

use std::collections::BTreeMap;

use comity::Value;
use data_encoding::BASE64;
use serde_json::{Map, Value as Json, json};

/// Why JSON is no value. The caller's fault.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NoValue {
    #[error("{at}: the integer {number} does not fit 64 bits with a sign")]
    Integer { at: String, number: String },
    #[error("{at}: {tag} must hold {wanted}")]
    Tag { at: String, tag: String, wanted: &'static str },
    #[error(
        "{at}: there is no tag {tag:?}; a map whose only key starts with $ is written as {{\"$map\": {{…}}}}"
    )]
    UnknownTag { at: String, tag: String },
}

/// A value as JSON. O(size).
pub(crate) fn to_json(value: &Value) -> Json {
    match value {
        Value::Null => Json::Null,
        Value::Bool(truth) => json!(truth),
        Value::I64(number) => json!(number),
        Value::F64(number) if number.is_nan() => json!({"$float": "NaN"}),
        Value::F64(number) if number.is_infinite() => {
            json!({"$float": if *number > 0.0 { "inf" } else { "-inf" }})
        }
        Value::F64(number) => json!(number),
        Value::Text(text) => json!(text),
        Value::Bytes(bytes) => json!({"$bytes": BASE64.encode(bytes)}),
        Value::List(items) => Json::Array(items.iter().map(to_json).collect()),
        Value::Map(entries) => {
            let map: Map<String, Json> =
                entries.iter().map(|(key, value)| (key.clone(), to_json(value))).collect();
            match only_key(&map) {
                Some(key) if key.starts_with('$') => json!({"$map": map}),
                _ => Json::Object(map),
            }
        }
    }
}

/// JSON as a value. O(size); as deep as the parser allowed, which is 128.
///
/// # Errors
/// [`NoValue`].
pub(crate) fn from_json(json: &Json) -> Result<Value, NoValue> {
    read(json, "")
}

fn only_key(map: &Map<String, Json>) -> Option<&str> {
    map.keys().next().filter(|_| map.len() == 1).map(String::as_str)
}

fn read(json: &Json, at: &str) -> Result<Value, NoValue> {
    Ok(match json {
        Json::Null => Value::Null,
        Json::Bool(truth) => Value::Bool(*truth),
        Json::Number(number) => match (number.as_i64(), number.as_f64()) {
            (Some(integer), _) => Value::I64(integer),
            (None, Some(float)) if number.is_f64() => Value::F64(float),
            _ => return Err(NoValue::Integer { at: place(at), number: number.to_string() }),
        },
        Json::String(text) => Value::Text(text.clone()),
        Json::Array(items) => {
            let items = items.iter().enumerate();
            Value::List(
                items.map(|(index, item)| read(item, &format!("{at}/{index}"))).collect::<Result<_, _>>()?,
            )
        }
        Json::Object(map) => match only_key(map) {
            Some(tag) if tag.starts_with('$') => tagged(tag, &map[tag], at)?,
            _ => entries(map, at)?,
        },
    })
}

fn entries(map: &Map<String, Json>, at: &str) -> Result<Value, NoValue> {
    let read = |(key, item): (&String, &Json)| Ok((key.clone(), read(item, &format!("{at}/{key}"))?));
    Ok(Value::Map(map.iter().map(read).collect::<Result<BTreeMap<_, _>, NoValue>>()?))
}

fn tagged(tag: &str, held: &Json, at: &str) -> Result<Value, NoValue> {
    let wrong = |wanted| NoValue::Tag { at: place(at), tag: tag.to_owned(), wanted };
    match (tag, held) {
        ("$bytes", held) => {
            let bytes = held.as_str().and_then(|text| BASE64.decode(text.as_bytes()).ok());
            bytes.map(Value::Bytes).ok_or_else(|| wrong("a string of base64"))
        }
        ("$float", held) => match held.as_str() {
            Some("NaN") => Ok(Value::F64(f64::NAN)),
            Some("inf") => Ok(Value::F64(f64::INFINITY)),
            Some("-inf") => Ok(Value::F64(f64::NEG_INFINITY)),
            _ => Err(wrong("\"NaN\", \"inf\" or \"-inf\"")),
        },
        ("$map", Json::Object(map)) => entries(map, at),
        ("$map", _) => Err(wrong("an object")),
        _ => Err(NoValue::UnknownTag { at: place(at), tag: tag.to_owned() }),
    }
}

fn place(at: &str) -> String {
    if at.is_empty() { "the value".to_owned() } else { format!("the value at {at}") }
}

/// A number as JSON: an integer where every reader of JSON has it exactly, up to 2^53, and a string beyond.
pub(crate) fn integer(number: i128) -> Json {
    const EXACT_MAX: i128 = 1 << 53;
    match i64::try_from(number) {
        Ok(small) if (-EXACT_MAX..=EXACT_MAX).contains(&number) => json!(small),
        _ => json!(number.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_survives_json() {
        let values = [
            Value::Null,
            Value::I64(i64::MIN),
            Value::F64(1.0),
            Value::F64(f64::NAN),
            Value::F64(f64::NEG_INFINITY),
            Value::F64(-0.0),
            Value::Bytes(vec![0, 255]),
            Value::List(vec![Value::Text("$bytes".to_owned()), Value::Bool(true)]),
            Value::Map([("$bytes".to_owned(), Value::I64(1))].into()),
            Value::Map([("$map".to_owned(), Value::Map(BTreeMap::new()))].into()),
            Value::Map([("$a".to_owned(), Value::Null), ("b".to_owned(), Value::Null)].into()),
        ];
        for value in values {
            let text = to_json(&value).to_string();
            let back = from_json(&serde_json::from_str(&text).unwrap()).unwrap();
            assert_eq!(back, value, "{text}");
        }
    }

    #[test]
    fn what_is_no_value_is_refused_with_its_place() {
        let refused = |text: &str| from_json(&serde_json::from_str(text).unwrap()).unwrap_err().to_string();
        assert!(refused(r#"{"a": [1, 18446744073709551615]}"#).contains("the value at /a/1"));
        assert!(refused(r#"{"$bytes": "%"}"#).contains("base64"));
        assert!(refused(r#"{"$other": 1}"#).contains("$map"));
    }

    #[test]
    fn counters_beyond_what_json_holds_are_strings() {
        assert_eq!(integer(-5), json!(-5));
        assert_eq!(integer(1 << 53), json!(9_007_199_254_740_992_i64));
        assert_eq!(integer((1 << 53) + 1), json!("9007199254740993"));
    }
}
