//! Single values as JSON, and the tags for what JSON lacks.

use automerge::ScalarValue;
use data_encoding::BASE64;
use serde_json::{Map, Number, Value, json};

use super::{JsonError, JsonForm, Pointer};

const COUNTER: &str = "$counter";
const BYTES: &str = "$bytes";
const TIMESTAMP: &str = "$timestamp";
const FLOAT: &str = "$float";
const STRING: &str = "$string";
const UNKNOWN: &str = "$unknown";
/// Around a map that would otherwise be taken for a tag.
const MAP: &str = "$map";

/// A scalar of a document as JSON.
pub(crate) fn to_json(scalar: &ScalarValue, form: JsonForm) -> Value {
    let is_tagged = form == JsonForm::Tagged;
    match scalar {
        ScalarValue::Null => Value::Null,
        ScalarValue::Boolean(value) => Value::Bool(*value),
        ScalarValue::Str(value) => Value::String(value.to_string()),
        ScalarValue::Int(value) => Value::from(*value),
        ScalarValue::Uint(value) => Value::from(*value),
        ScalarValue::F64(value) => match Number::from_f64(*value) {
            Some(number) => Value::Number(number),
            None if is_tagged => json!({ FLOAT: value.to_string() }),
            None => Value::Null,
        },
        ScalarValue::Counter(value) if is_tagged => json!({ COUNTER: i64::from(value) }),
        ScalarValue::Counter(value) => Value::from(i64::from(value)),
        ScalarValue::Timestamp(value) if is_tagged => json!({ TIMESTAMP: value }),
        ScalarValue::Timestamp(value) => Value::from(*value),
        ScalarValue::Bytes(bytes) if is_tagged => json!({ BYTES: BASE64.encode(bytes) }),
        ScalarValue::Bytes(bytes) => Value::String(BASE64.encode(bytes)),
        ScalarValue::Unknown { type_code, bytes } if is_tagged => {
            json!({ UNKNOWN: { "type": type_code, "bytes": BASE64.encode(bytes) } })
        }
        ScalarValue::Unknown { .. } => Value::Null,
    }
}

/// A JSON number as a document holds it: an integer where it is written as one and fits.
pub(super) fn number(number: &Number) -> ScalarValue {
    match (number.as_i64(), number.as_u64(), number.as_f64()) {
        (Some(value), ..) => ScalarValue::Int(value),
        (None, Some(value), _) => ScalarValue::Uint(value),
        // Every number that is no integer of 64 bits is a float without the feature for arbitrary precision.
        (None, None, value) => ScalarValue::F64(value.unwrap_or(f64::NAN)),
    }
}

/// The only entry of a map, when its key is one that tags use.
fn tag(map: &Map<String, Value>) -> Option<(&str, &Value)> {
    let (key, value) = map.iter().next().filter(|_| map.len() == 1)?;
    is_tag(key).then_some((key.as_str(), value))
}

fn is_tag(key: &str) -> bool {
    [COUNTER, BYTES, TIMESTAMP, FLOAT, STRING, UNKNOWN, MAP].contains(&key)
}

/// A map of a document as JSON: itself, or with [`MAP`] around it where it would be taken for a tag.
pub(super) fn escaped(map: Map<String, Value>) -> Value {
    let is_tag = tag(&map).is_some();
    let map = Value::Object(map);
    if is_tag { json!({ MAP: map }) } else { map }
}

/// What a JSON object stands for.
pub(super) enum Tagged<'v> {
    Scalar(ScalarValue),
    Map(&'v Map<String, Value>),
}

/// Reads a JSON object: a tagged value, or a map. `at` is where it is.
pub(super) fn untag<'v>(map: &'v Map<String, Value>, at: &Pointer) -> Result<Tagged<'v>, JsonError> {
    let Some((tag, value)) = tag(map) else { return Ok(Tagged::Map(map)) };
    let scalar = match (tag, value) {
        (MAP, Value::Object(inner)) => return Ok(Tagged::Map(inner)),
        (COUNTER, value) => value.as_i64().map(ScalarValue::counter),
        (TIMESTAMP, value) => value.as_i64().map(ScalarValue::Timestamp),
        (BYTES, Value::String(text)) => bytes(text).map(ScalarValue::Bytes),
        (STRING, Value::String(text)) => Some(ScalarValue::Str(text.as_str().into())),
        (FLOAT, Value::String(text)) => match text.as_str() {
            "NaN" => Some(ScalarValue::F64(f64::NAN)),
            "inf" => Some(ScalarValue::F64(f64::INFINITY)),
            "-inf" => Some(ScalarValue::F64(f64::NEG_INFINITY)),
            _ => None,
        },
        // What this version cannot read it cannot check either, so it is shown and not written.
        _ => None,
    };
    let rule = "the value is not one that its tag allows";
    let scalar =
        scalar.ok_or_else(|| JsonError::Tag { pointer: at.to_string(), tag: tag.to_owned(), rule })?;
    Ok(Tagged::Scalar(scalar))
}

fn bytes(text: &str) -> Option<Vec<u8>> {
    BASE64.decode(text.as_bytes()).ok()
}
