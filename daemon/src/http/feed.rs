//! Change feeds as server-sent events. The id of each event is a token: a client that comes back with it in
//! `Last-Event-ID`, here or at another replica, goes on right after it.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use comity::{
    ChangeEvent, ConflictEvent, ConflictEvents, Did, ObjectChange, Space, Token, Watch, WatchError,
};
use futures_util::stream;
use serde::Deserialize;
use serde_json::{Value as Json, json};
use tokio::sync::{OwnedSemaphorePermit, watch};

use super::App;
use super::inbox;
use super::objects::kind;
use super::problem::{Problem, Trouble};
use super::request::{Asked, Names, Params, parse_token, token_text};
use super::value::{integer, to_json};
use crate::auth::{Access, Scope};
use crate::names;

/// How often a feed says that it is alive when nothing changes.
const ALIVE_EVERY: Duration = Duration::from_secs(15);

/// What a feed shows.
#[derive(Debug, Deserialize)]
pub(crate) struct Shown {
    collection: Option<String>,
    kind: Option<String>,
    key: Option<String>,
    /// How far behind the reader may be before it is told, in change sets.
    lag_max: Option<u64>,
}

/// What a feed lasts on.
struct Open {
    draining: watch::Receiver<bool>,
    _permit: OwnedSemaphorePermit,
}

fn open(app: &App) -> Result<Open, Problem> {
    let permit = Arc::clone(&app.streams).try_acquire_owned();
    let permit = permit.map_err(|_| {
        let streams_max = app.config.http.streams_max;
        Trouble::TooManyStreams
            .because(format!("{streams_max} are open, which is http.streams_max; try again later"))
    })?;
    Ok(Open { draining: app.draining.clone(), _permit: permit })
}

/// From where a feed goes on: what a browser says when it connects again, what is asked for, or from now on.
fn resume(headers: &HeaderMap, asked: &Asked) -> Result<Option<Token>, Problem> {
    match headers.get("last-event-id").and_then(|id| id.to_str().ok()).filter(|id| !id.is_empty()) {
        Some(id) => parse_token(id).map(Some),
        None => Ok(asked.token.clone()),
    }
}

/// What is done in a space, in causal order, each change set once.
pub(crate) async fn changes(
    State(app): State<Arc<App>>,
    access: Access,
    Names(space): Names<String>,
    Params(shown): Params<Shown>,
    asked: Asked,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let space = app.space(&access, Scope::Read, &space).await?;
    let watch = watched(&space, resume(&headers, &asked)?, shown)?;
    let open = open(&app)?;
    // Said first, so that a client knows from where on it listens before anything changes.
    let start = Event::default().event("open").id(token_text(&watch.token())).data("{}");
    let events = stream::unfold((watch, open, Some(start)), |(mut watch, mut open, start)| async move {
        let event = match start {
            Some(start) => start,
            None => next_change(&mut watch, &mut open).await?,
        };
        Some((Ok::<_, Infallible>(event), (watch, open, None)))
    });
    Ok(Sse::new(events).keep_alive(KeepAlive::new().interval(ALIVE_EVERY)).into_response())
}

fn watched(space: &Space, from: Option<Token>, shown: Shown) -> Result<Watch, Problem> {
    let mut watch = match from {
        Some(token) => space.watch_from(&token)?,
        None => space.watch(),
    };
    watch = match (shown.collection, shown.kind, shown.key) {
        (None, None, None) => watch,
        (Some(collection), None, None) => watch.collection(&collection)?,
        (Some(collection), Some(name), Some(key)) => watch.object(kind(&name)?, &collection, &key)?,
        _ => {
            let rule = "a feed shows all, or one collection, or one object by kind, collection and key";
            return Err(Trouble::BadRequest.because(rule));
        }
    };
    Ok(match shown.lag_max {
        Some(entries) => watch.lag_max(entries),
        None => watch,
    })
}

/// The next event; `None` ends the feed, after which a client comes back and goes on where it was.
async fn next_change(watch: &mut Watch, open: &mut Open) -> Option<Event> {
    let next = tokio::select! {
        biased;
        _ = open.draining.wait_for(|draining| *draining) => return None,
        next = watch.next() => next,
    };
    match next {
        Ok(change) => Some(
            Event::default()
                .event("change")
                .id(token_text(&change.token()))
                .data(change_json(&change).to_string()),
        ),
        Err(error) => failed(error, &token_text(&watch.token())),
    }
}

/// What a feed says of an error: being behind is told and gone on from; all else ends it.
fn failed(error: WatchError, at: &str) -> Option<Event> {
    let (name, body) = match error {
        WatchError::Lagged { behind, .. } => ("lagged", json!({"behind": behind})),
        WatchError::Stopped => return None,
        error => ("problem", Problem::from(error).body()),
    };
    Some(Event::default().event(name).id(at).data(body.to_string()))
}

/// A change set as JSON.
pub(crate) fn change_json(change: &ChangeEvent) -> Json {
    let objects: Vec<Json> = change.changes.iter().map(object_json).collect();
    json!({
        "author": change.author.to_string(),
        "region": change.region,
        "origin": change.origin.to_string(),
        "seq": change.seq,
        "written_ms": change.hlc.millis(),
        "token": token_text(&change.token()),
        "changes": objects,
    })
}

fn object_json(change: &ObjectChange) -> Json {
    let did: Vec<Json> = change.did.iter().map(did_json).collect();
    let object = &change.object;
    json!({"kind": object.kind().name(), "collection": object.collection(), "key": object.key(), "did": did})
}

fn did_json(did: &Did) -> Json {
    let dots = |dots: &[comity::Dot]| dots.iter().map(names::dot).collect::<Vec<_>>();
    match did {
        Did::Added(by) => json!({"op": "add", "by": by}),
        Did::Inserted(element) => json!({"op": "insert", "element": to_json(element)}),
        Did::Removed(element) => json!({"op": "remove", "element": to_json(element)}),
        Did::Written { value, replaced, .. } => {
            json!({"op": "write", "value": to_json(value), "replaced": dots(replaced)})
        }
        Did::Cleared { removed } => json!({"op": "clear", "removed": dots(removed)}),
        Did::Edited { change, ops } => json!({"op": "edit", "change": names::hex(change), "operations": ops}),
        Did::CounterReset | Did::SetCleared | Did::DocumentRemoved => json!({"op": "clear"}),
        Did::Enabled => json!({"op": "enable"}),
        Did::Disabled => json!({"op": "disable"}),
        Did::Raised(by) => json!({"op": "increase", "by": by}),
        Did::Lowered(by) => json!({"op": "decrease", "by": by}),
        Did::RightsMoved { to, amount } => {
            json!({"op": "transfer", "to": to.to_string(), "amount": integer(i128::from(*amount))})
        }
        Did::Within { path, did } => json!({"op": "within", "path": path, "do": did_json(did)}),
        Did::MemberGranted { replica, role } => {
            json!({"op": "grant", "replica": replica.to_string(), "role": super::spaces::role_name(*role)})
        }
        Did::MemberRevoked { replica } => json!({"op": "revoke", "replica": replica.to_string()}),
        other => json!({"op": "other", "detail": format!("{other:?}")}),
    }
}

/// What becomes of the conflict inbox.
pub(crate) async fn conflict_events(
    State(app): State<Arc<App>>,
    access: Access,
    Names(space): Names<String>,
    asked: Asked,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let space = app.space(&access, Scope::Read, &space).await?;
    let events = match resume(&headers, &asked)? {
        Some(token) => space.conflict_events_from(&token)?,
        None => space.conflict_events(),
    };
    let open = open(&app)?;
    let start = Event::default().event("open").id(token_text(&events.token())).data("{}");
    let events = stream::unfold((events, open, Some(start)), |(mut events, mut open, start)| async move {
        let event = match start {
            Some(start) => start,
            None => next_conflict(&mut events, &mut open).await?,
        };
        Some((Ok::<_, Infallible>(event), (events, open, None)))
    });
    Ok(Sse::new(events).keep_alive(KeepAlive::new().interval(ALIVE_EVERY)).into_response())
}

async fn next_conflict(events: &mut ConflictEvents, open: &mut Open) -> Option<Event> {
    let next = tokio::select! {
        biased;
        _ = open.draining.wait_for(|draining| *draining) => return None,
        next = events.next() => next,
    };
    let id = token_text(&events.token());
    match next {
        Ok(event) => {
            let (name, body) = conflict_event_json(&event);
            Some(Event::default().event(name).id(id).data(body.to_string()))
        }
        Err(error) => failed(error, &id),
    }
}

fn conflict_event_json(event: &ConflictEvent) -> (&'static str, Json) {
    match event {
        ConflictEvent::Open(conflict) => ("conflict", inbox::conflict_json(conflict)),
        ConflictEvent::Settled { location, by, region, hlc, replaced, .. } => {
            let replaced: Vec<String> = replaced.iter().map(names::dot).collect();
            let body = json!({
                "location": inbox::location_json(location), "by": by.to_string(), "region": region,
                "written_ms": hlc.millis(), "replaced": replaced,
            });
            ("settled", body)
        }
        ConflictEvent::PolicySet { collection, policy, by, .. } => {
            ("policy", json!({"collection": collection, "policy": policy.name(), "by": by.to_string()}))
        }
        other => ("other", json!({"detail": format!("{other:?}")})),
    }
}
