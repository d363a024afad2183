//! The conflict inbox, and the journal of what was set aside.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use comity::{
    Choice, Conflict, Dot, JournalEntry, JournalPlace, JournalReason, Location, Matter, ObjectAddress, Space,
    Transact, TxError, Value,
};
use data_encoding::BASE64URL_NOPAD;
use serde::{Deserialize, Serialize};
use serde_json::{Value as Json, json};
use utoipa::ToSchema;

use super::App;
use super::action::dots;
use super::objects::kind;
use super::problem::{Problem, Refusal, Trouble};
use super::read::page_limit;
use super::request::{Asked, Json as Body, Names, Params, blocking, read_answer};
use super::value::{from_json, to_json};
use crate::auth::{Access, Scope};
use crate::names;

/// Where something is: an object, or what the keys of its map lead to.
#[derive(Clone, Debug, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Place {
    kind: String,
    collection: String,
    key: String,
    #[serde(default)]
    path: Vec<String>,
}

impl Place {
    fn location(&self) -> Result<Location, Problem> {
        let object = ObjectAddress::new(kind(&self.kind)?, &self.collection, &self.key)?;
        Ok(Location { object, path: self.path.clone() })
    }
}

/// Where something is, as JSON.
pub(crate) fn location_json(location: &Location) -> Json {
    json!(place(location))
}

fn place(location: &Location) -> Place {
    let object = &location.object;
    Place {
        kind: object.kind().name().to_owned(),
        collection: object.collection().to_owned(),
        key: object.key().to_owned(),
        path: location.path.clone(),
    }
}

/// A conflict as JSON.
pub(crate) fn conflict_json(conflict: &Conflict) -> Json {
    let location = location_json(&conflict.location);
    match &conflict.matter {
        Matter::Siblings { policy, siblings } => {
            let siblings: Vec<Json> = siblings
                .iter()
                .map(|sibling| {
                    json!({
                        "dot": names::dot(&sibling.dot),
                        "value": to_json(&sibling.value),
                        "written_ms": sibling.hlc.millis(),
                        "author": sibling.author.map(|author| author.to_string()),
                        "region": sibling.region,
                    })
                })
                .collect();
            json!({"location": location, "matter": "siblings", "policy": policy.name(), "siblings": siblings})
        }
        Matter::Kinds { kinds, state } => {
            let kinds: Vec<&str> = kinds.iter().map(|kind| kind.name()).collect();
            json!({"location": location, "matter": "kinds", "kinds": kinds, "state": state.to_string()})
        }
        other => json!({"location": location, "matter": "other", "detail": format!("{other:?}")}),
    }
}

/// A page of conflicts or journal entries.
#[derive(Debug, Deserialize)]
pub(crate) struct Page {
    after: Option<String>,
    limit: Option<usize>,
}

/// What people have to decide.
pub(crate) async fn conflicts(
    State(app): State<Arc<App>>,
    access: Access,
    Names(space): Names<String>,
    Params(page): Params<Page>,
    asked: Asked,
) -> Result<Response, Problem> {
    let space = app.space(&access, Scope::Read, &space).await?;
    let (limit, after) = (page_limit(page.limit)?, page.after.as_deref().map(parse_cursor).transpose()?);
    let view = asked.view(&space).await?;
    blocking(move || {
        let mut found = view.conflicts(after.as_ref(), limit + 1)?;
        let more = found.len() > limit;
        found.truncate(limit);
        let next = found.last().filter(|_| more).map(|conflict| cursor(&conflict.location));
        let found: Vec<Json> = found.iter().map(conflict_json).collect();
        Ok(read_answer(&view.token()?, json!({"conflicts": found, "next": next})))
    })
    .await
}

/// A place in the inbox, for the next page.
fn cursor(location: &Location) -> String {
    BASE64URL_NOPAD.encode(location_json(location).to_string().as_bytes())
}

fn parse_cursor(text: &str) -> Result<Location, Problem> {
    let bytes = BASE64URL_NOPAD.decode(text.as_bytes()).ok();
    let place = bytes.and_then(|bytes| serde_json::from_slice::<Place>(&bytes).ok());
    let place = place.ok_or_else(|| Trouble::BadRequest.because("after is what next said, unchanged"))?;
    place.location()
}

/// A decision. One of `value`, `keep` and `kind` says what is to be left.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Decision {
    location: Place,
    /// The dots of the values that were seen: these are replaced, and nothing that was written since.
    #[serde(default)]
    seen: Vec<String>,
    /// Another value in their place.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<Object>)]
    value: Option<Json>,
    /// The dot of the value to keep.
    keep: Option<String>,
    /// Of several kinds under one key of a map, the one to keep.
    kind: Option<String>,
    /// What `state` was of several kinds when they were seen: if anything of them was changed since, nothing is decided.
    state: Option<String>,
}

/// Null is a value.
fn present<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Json>, D::Error> {
    Json::deserialize(deserializer).map(Some)
}

/// Resolves a conflict as it was seen.
pub(crate) async fn resolve(
    State(app): State<Arc<App>>,
    access: Access,
    Names(space): Names<String>,
    asked: Asked,
    Body(decision): Body<Decision>,
) -> Result<Response, Problem> {
    let space = app.space(&access, Scope::Write, &space).await?;
    let location = decision.location.location()?;
    let (seen, choice) = (dots(&decision.seen)?, choice(&decision)?);
    let view = space.view()?;
    let (found, shown) = blocking({
        let location = location.clone();
        move || Ok((view.conflict_at(&location)?, location.to_string()))
    })
    .await?;
    match as_seen(found, &seen, decision.state.as_deref(), &shown) {
        Ok(conflict) => asked.write(space.resolve(&conflict, choice)).await,
        Err(problem) => asked.write(refused(&space, problem)).await,
    }
}

/// The conflict with the values that were seen, and no others.
fn as_seen(
    found: Option<Conflict>,
    seen: &[Dot],
    state: Option<&str>,
    shown: &str,
) -> Result<Conflict, Problem> {
    let none = || Trouble::NoConflict.because(format!("{shown}: there is no conflict in this place now"));
    let mut conflict = found.ok_or_else(none)?;
    if let (Matter::Kinds { state: is, .. }, Some(was)) = (&conflict.matter, state)
        && is.to_string() != was
    {
        let detail = format!("{shown}: what is there was changed since it was seen; read it again");
        return Err(Trouble::NoConflict.because(detail));
    }
    if let Matter::Siblings { siblings, .. } = &mut conflict.matter
        && !seen.is_empty()
    {
        siblings.retain(|sibling| seen.contains(&sibling.dot));
        if siblings.is_empty() {
            let detail =
                format!("{shown}: none of the values that were seen is in conflict now; read it again");
            return Err(Trouble::NoConflict.because(detail));
        }
    }
    Ok(conflict)
}

/// A write that is refused, unless it was made before under the same id: what it was to find is gone because of it.
fn refused(space: &Space, problem: Problem) -> Transact {
    space.transact(move |_| Err(TxError::refuse(Refusal(problem))))
}

fn choice(decision: &Decision) -> Result<Choice, Problem> {
    match (&decision.value, &decision.keep, &decision.kind) {
        (Some(json), None, None) => {
            let value: Value = from_json(json).map_err(|error| Trouble::BadRequest.because(error))?;
            Ok(Choice::Value(value))
        }
        (None, Some(dot), None) => {
            let dot = names::parse_dot(dot);
            dot.map(Choice::Sibling)
                .ok_or_else(|| Trouble::BadRequest.because("keep is a dot, as reading gives them"))
        }
        (None, None, Some(name)) => Ok(Choice::Kind(kind(name)?)),
        _ => Err(Trouble::BadRequest.because("say what is to be left: one of value, keep and kind")),
    }
}

/// An entry of the journal as JSON.
pub(crate) fn entry_json(entry: &JournalEntry) -> Json {
    let (reason, detail) = match &entry.reason {
        JournalReason::SiblingReplaced => ("sibling-replaced", None),
        JournalReason::SiblingRemoved => ("sibling-removed", None),
        JournalReason::DocumentRemoved => ("document-removed", None),
        JournalReason::RemovalWon => ("removal-won", None),
        JournalReason::KindRemoved => ("kind-removed", None),
        JournalReason::BranchLost => ("branch-lost", None),
        JournalReason::ChangeRefused { detail } => ("change-refused", Some(detail.clone())),
        other => ("other", Some(format!("{other:?}"))),
    };
    json!({
        "location": location_json(&entry.location),
        "kind": entry.kind.name(),
        "dot": names::dot(&entry.dot),
        "value": to_json(&entry.value),
        "author": entry.author.map(|author| author.to_string()),
        "written_ms": entry.written.millis(),
        "reason": reason,
        "detail": detail,
        "by": names::dot(&entry.by),
        "by_author": entry.by_author.map(|author| author.to_string()),
        "at_ms": entry.at.millis(),
    })
}

/// A page of the journal.
#[derive(Debug, Deserialize)]
pub(crate) struct JournalPage {
    kind: Option<String>,
    collection: Option<String>,
    key: Option<String>,
    after: Option<String>,
    limit: Option<usize>,
}

/// What was set aside, oldest first: in the space, or in one object.
pub(crate) async fn journal(
    State(app): State<Arc<App>>,
    access: Access,
    Names(space): Names<String>,
    Params(page): Params<JournalPage>,
    asked: Asked,
) -> Result<Response, Problem> {
    let space = app.space(&access, Scope::Read, &space).await?;
    let limit = page_limit(page.limit)?;
    let location = match (page.kind, page.collection, page.key) {
        (None, None, None) => None,
        (Some(kind), Some(collection), Some(key)) => {
            Some(Place { kind, collection, key, path: Vec::new() }.location()?)
        }
        _ => {
            return Err(
                Trouble::BadRequest.because("name kind, collection and key of an object, or none of them")
            );
        }
    };
    let view = asked.view(&space).await?;
    let after = page.after.as_deref().map(journal_place).transpose()?;
    blocking(move || {
        let object = location.as_ref().map(|location| &location.object);
        let mut found = view.journal_after(object, after.as_ref(), limit + 1)?;
        let more = found.len() > limit;
        found.truncate(limit);
        let next = found.last().filter(|_| more).map(|(place, _)| BASE64URL_NOPAD.encode(&place.to_bytes()));
        let totals = view.journal_totals()?;
        let entries: Vec<Json> = found.iter().map(|(_, entry)| entry_json(entry)).collect();
        let totals = json!({"entries": totals.entries, "bytes": totals.bytes, "pruned": totals.pruned});
        Ok(read_answer(&view.token()?, json!({"entries": entries, "totals": totals, "next": next})))
    })
    .await
}

fn journal_place(text: &str) -> Result<JournalPlace, Problem> {
    let place =
        BASE64URL_NOPAD.decode(text.as_bytes()).ok().and_then(|bytes| JournalPlace::from_bytes(&bytes));
    place.ok_or_else(|| Trouble::BadRequest.because("after is what next said, unchanged"))
}

/// An entry of the journal.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Restoring {
    location: Place,
    dot: String,
}

/// Writes a value from the journal again.
pub(crate) async fn restore(
    State(app): State<Arc<App>>,
    access: Access,
    Names(space): Names<String>,
    asked: Asked,
    Body(entry): Body<Restoring>,
) -> Result<Response, Problem> {
    let space = app.space(&access, Scope::Write, &space).await?;
    let location = entry.location.location()?;
    let dot = names::parse_dot(&entry.dot);
    let dot = dot.ok_or_else(|| Trouble::BadRequest.because("dot is one, as the journal gives them"))?;
    let view = space.view()?;
    let entries = blocking(move || Ok(view.journal_of(&location, usize::MAX)?)).await?;
    let found = entries.into_iter().find(|entry| entry.dot == dot);
    match found {
        Some(entry) => asked.write(space.restore(&entry)).await,
        None => {
            let problem = Trouble::NotFound.because("the journal has no such entry");
            asked.write(refused(&space, problem)).await
        }
    }
}
