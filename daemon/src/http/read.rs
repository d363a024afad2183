//! Objects as JSON.

use comity::{
    BoundedCounter, JsonForm, Kind, MapReader, RegisterReader, RegisterView, SetReader, Value, View, json,
};
use serde_json::{Value as Json, json};

use super::problem::{Problem, Trouble};
use super::value::{from_json, integer, to_json};
use crate::names;

/// Elements of a set and keys of a map in one answer, when nothing else is said.
pub(crate) const PAGE_DEFAULT: usize = 100;
/// And at most.
pub(crate) const PAGE_MAX: usize = 1_000;

/// What is asked of an object.
#[derive(Debug, Default)]
pub(crate) struct Wanted {
    /// Sets and maps: after this element, or key.
    pub(crate) after: Option<String>,
    pub(crate) limit: Option<usize>,
    /// Documents: a JSON Pointer.
    pub(crate) pointer: Option<String>,
    /// Documents: hashes that name a version.
    pub(crate) heads: Option<Vec<[u8; 32]>>,
    /// Documents: without tags for what JSON lacks.
    pub(crate) is_plain: bool,
    /// Maps: the keys that lead to what is wanted, and its kind.
    pub(crate) path: Vec<String>,
    pub(crate) nested: Option<Kind>,
}

impl Wanted {
    fn limit(&self) -> Result<usize, Problem> {
        page_limit(self.limit)
    }
}

/// The size of a page as it was asked for.
pub(crate) fn page_limit(asked: Option<usize>) -> Result<usize, Problem> {
    match asked.unwrap_or(PAGE_DEFAULT) {
        limit @ 1..=PAGE_MAX => Ok(limit),
        limit => Err(Trouble::BadRequest.because(format!("limit is {limit}; 1 to {PAGE_MAX} are allowed"))),
    }
}

/// An object as the view shows it. A register and a document that hold nothing are not found; everything else is
/// there from the start, with nothing in it. O(what is shown), and O(document) for documents.
///
/// # Errors
/// A [`Problem`].
pub(crate) fn object(
    view: &View,
    kind: Kind,
    (collection, key): (&str, &str),
    wanted: &Wanted,
) -> Result<Json, Problem> {
    match kind {
        Kind::Counter => Ok(json!({"kind": kind.name(), "value": integer(view.counter(collection, key)?)})),
        Kind::BoundedCounter => Ok(bounded(&view.bounded_counter(collection, key)?)),
        Kind::Set => set(kind, &view.set(collection, key), wanted),
        Kind::RwSet => set(kind, &view.remove_wins_set(collection, key), wanted),
        Kind::Flag => Ok(json!({"kind": kind.name(), "value": view.flag(collection, key)?})),
        Kind::DwFlag => Ok(json!({"kind": kind.name(), "value": view.disable_wins_flag(collection, key)?})),
        Kind::Register => register(&view.register(collection, key)?),
        Kind::Map => map(&view.map(collection, key), wanted),
        Kind::Document => document(view, (collection, key), wanted),
        _ => Err(Trouble::NotFound.because(format!("{kind} is read elsewhere"))),
    }
}

fn bounded(counter: &BoundedCounter) -> Json {
    let holders: Vec<Json> = counter
        .holders()
        .map(|(origin, rights)| json!({"origin": origin.to_string(), "rights": integer(rights)}))
        .collect();
    json!({"kind": Kind::BoundedCounter.name(), "value": integer(counter.value()), "rights": holders})
}

fn set(kind: Kind, set: &SetReader<'_>, wanted: &Wanted) -> Result<Json, Problem> {
    let limit = wanted.limit()?;
    let after = wanted.after.as_deref().map(element).transpose()?;
    let mut elements = set.elements(after.as_ref(), limit + 1)?;
    let more = elements.len() > limit;
    elements.truncate(limit);
    let next = elements.last().filter(|_| more).map(|last| to_json(last).to_string());
    let elements: Vec<Json> = elements.iter().map(to_json).collect();
    Ok(json!({"kind": kind.name(), "size": set.len()?, "elements": elements, "next": next}))
}

/// An element in the query, as JSON.
pub(crate) fn element(text: &str) -> Result<Value, Problem> {
    let json: Json = serde_json::from_str(text).map_err(|error| {
        Trouble::BadRequest.because(format!("{text:?} must be an element as JSON: {error}"))
    })?;
    from_json(&json).map_err(|error| Trouble::BadRequest.because(error))
}

fn register(register: &RegisterReader) -> Result<Json, Problem> {
    let siblings: Vec<Json> = register
        .register()
        .siblings()
        .map(|(dot, sibling)| {
            let (value, ms) = (to_json(&sibling.value), sibling.hlc.millis());
            json!({"dot": names::dot(dot), "value": value, "written_ms": ms})
        })
        .collect();
    let policy = register.policy().name();
    let kind = Kind::Register.name();
    match register.shown() {
        RegisterView::Absent => {
            Err(Trouble::NotFound.because(format!("the {} holds nothing", register.location())))
        }
        RegisterView::Value(value) => Ok(json!({
            "kind": kind, "state": "value", "value": to_json(&value), "policy": policy, "siblings": siblings,
        })),
        RegisterView::Siblings(_) => {
            Ok(json!({"kind": kind, "state": "conflict", "policy": policy, "siblings": siblings}))
        }
    }
}

fn map(map: &MapReader<'_>, wanted: &Wanted) -> Result<Json, Problem> {
    let Some((last, maps)) = wanted.path.split_last() else { return keys(map, wanted) };
    let mut at = map.clone();
    for key in maps {
        at = at.map(key);
    }
    match wanted.nested {
        Some(Kind::Counter) => Ok(json!({"kind": "counter", "value": integer(at.counter(last)?)})),
        Some(Kind::Set) => set(Kind::Set, &at.set(last), wanted),
        Some(Kind::Flag) => Ok(json!({"kind": "flag", "value": at.flag(last)?})),
        Some(Kind::Register) => register(&at.register(last)?),
        Some(Kind::Map) => keys(&at.map(last), wanted),
        _ => Err(Trouble::BadRequest
            .because("with path, kind says what is there: counter, set, flag, register or map")),
    }
}

fn keys(map: &MapReader<'_>, wanted: &Wanted) -> Result<Json, Problem> {
    let limit = wanted.limit()?;
    let mut found = map.keys(wanted.after.as_deref(), limit + 1)?;
    let more = found.len() > limit;
    found.truncate(limit);
    let next = found.last().filter(|_| more).map(|(key, _)| key.clone());
    let mut entries = Vec::with_capacity(found.len());
    for (key, kinds) in &found {
        entries.push(entry(map, key, kinds)?);
    }
    Ok(json!({"kind": Kind::Map.name(), "size": map.len()?, "entries": entries, "next": next}))
}

/// What is under one key, as far as it is one value; sets and maps are read by their path.
fn entry(map: &MapReader<'_>, key: &str, kinds: &[Kind]) -> Result<Json, Problem> {
    let mut holds = Vec::with_capacity(kinds.len());
    for kind in kinds {
        holds.push(match kind {
            Kind::Counter => json!({"kind": kind.name(), "value": integer(map.counter(key)?)}),
            Kind::Flag => json!({"kind": kind.name(), "value": map.flag(key)?}),
            Kind::Register => register(&map.register(key)?)?,
            Kind::Set => json!({"kind": kind.name(), "size": map.set(key).len()?}),
            Kind::Map => json!({"kind": kind.name(), "size": map.map(key).len()?}),
            other => json!({"kind": other.name()}),
        });
    }
    Ok(json!({"key": key, "holds": holds}))
}

fn document(view: &View, (collection, key): (&str, &str), wanted: &Wanted) -> Result<Json, Problem> {
    let document = view.document(collection, key)?;
    let heads = wanted.heads.clone().unwrap_or_else(|| document.heads());
    if document.heads().is_empty() {
        return Err(Trouble::NotFound.because(format!("the document {collection}/{key} holds nothing")));
    }
    let pointer = wanted.pointer.as_deref().unwrap_or("");
    let form = if wanted.is_plain { JsonForm::Plain } else { JsonForm::Tagged };
    let value = match &wanted.heads {
        None => json::read(document.automerge(), pointer, form)?,
        Some(heads) => {
            if let Some(head) = heads.iter().find(|head| !document.has(head)) {
                let detail = format!("the document holds no version {}", names::hex(head));
                return Err(Trouble::NotFound.because(detail));
            }
            json::read_at(document.automerge(), heads, pointer, form)?
        }
    };
    let value = value.ok_or_else(|| Trouble::NotFound.because(format!("there is nothing at {pointer:?}")))?;
    let heads: Vec<String> = heads.iter().map(|head| names::hex(head)).collect();
    Ok(json!({"kind": Kind::Document.name(), "value": value, "heads": heads}))
}
