//! What the page asks for: the state as it changes, typing, and the links. Everything else that it does goes through
//! the regions' own API, which is under `/eu`, `/us` and `/ap`.

use std::convert::Infallible;
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::middleware::from_fn_with_state;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use comity::automerge::transaction::Transaction as DocumentEdit;
use comity::{JsonError, Kind, Location, ObjectAddress, Transaction, TxError, Value, text};
use futures_util::stream;
use serde::Deserialize;
use serde_json::json;
use tokio::sync::{Notify, watch};

use super::link::Condition;
use super::state::Shown;
use super::world::{CURSORS, NOTE, TEXT, World};
use crate::http::action::hashes;
use crate::http::problem::{Problem, Trouble};
use crate::http::request::{Json as Body, Names};
use crate::http::{assets, guard};
use crate::names;

/// What is typed at once at most, in code points: more than anybody types, and enough to paste a page.
const TYPED_MAX: usize = 4_000;

/// What handlers share.
struct Page {
    world: Arc<World>,
    current: watch::Receiver<Arc<str>>,
    changed: Arc<Notify>,
    draining: watch::Receiver<bool>,
}

/// The page, with what keeps it current.
pub(super) fn open(world: &Arc<World>, draining: &watch::Receiver<bool>) -> (Shown, Router) {
    let changed = Arc::new(Notify::new());
    let shown = Shown::follow(world, &changed);
    let page = Arc::new(Page {
        world: Arc::clone(world),
        current: shown.current.clone(),
        changed,
        draining: draining.clone(),
    });
    let app = Arc::clone(world.regions[0].daemon.app());
    let own = Router::new()
        .route("/demo/events", get(events))
        .route("/demo/state", get(state))
        .route("/demo/links/{one}/{other}", post(set_link))
        .route("/demo/regions/{region}/type", post(type_text))
        .with_state(page)
        .merge(assets::demo_routes())
        .layer(from_fn_with_state(Arc::clone(&app), guard::check_names))
        .layer(from_fn_with_state(app, guard::mark));
    let router = world
        .regions
        .iter()
        .fold(own, |router, region| router.nest(&format!("/{}", region.name), region.daemon.router()));
    (shown, router)
}

/// The whole state as it is.
async fn state(State(page): State<Arc<Page>>) -> Response {
    let state = Arc::clone(&page.current.borrow());
    ([(CONTENT_TYPE, "application/json")], state.to_string()).into_response()
}

/// The whole state, and again whenever it changes.
async fn events(State(page): State<Arc<Page>>) -> Response {
    let mut current = page.current.clone();
    current.mark_changed();
    let draining = page.draining.clone();
    let events = stream::unfold((current, draining), |(mut current, mut draining)| async move {
        let changed = tokio::select! {
            biased;
            _ = draining.wait_for(|draining| *draining) => return None,
            changed = current.changed() => changed,
        };
        changed.ok()?;
        let state = Arc::clone(&current.borrow_and_update());
        let event = Event::default().event("state").data(&*state);
        Some((Ok::<_, Infallible>(event), (current, draining)))
    });
    Sse::new(events).keep_alive(KeepAlive::default()).into_response()
}

/// How a link is to be.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Setting {
    condition: Condition,
}

async fn set_link(
    State(page): State<Arc<Page>>,
    Names((one, other)): Names<(String, String)>,
    Body(Setting { condition }): Body<Setting>,
) -> Result<Response, Problem> {
    let ends = page.world.place_of(&one).zip(page.world.place_of(&other));
    let between = ends.and_then(|(one, other)| page.world.between(one, other));
    let between = between.ok_or_else(|| {
        Trouble::NotFound.because(format!("there is no link between {one:?} and {other:?}"))
    })?;
    page.world.set(between, condition).await?;
    page.changed.notify_one();
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// What somebody typed, in a version of the note that they saw.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Typed {
    heads: Vec<String>,
    position: usize,
    #[serde(default)]
    delete: usize,
    #[serde(default)]
    insert: String,
}

/// Puts it where they meant it, whatever has arrived since, and says which version they see.
async fn type_text(
    State(page): State<Arc<Page>>,
    Names(region): Names<String>,
    Body(typed): Body<Typed>,
) -> Result<Response, Problem> {
    let at = page.world.place_of(&region);
    let at = at.ok_or_else(|| Trouble::NotFound.because(format!("there is no region {region:?}")))?;
    let chars = typed.insert.chars().count();
    if chars > TYPED_MAX {
        let detail = format!("{chars} characters are inserted; {TYPED_MAX} are allowed at once");
        return Err(Trouble::TooLarge.because(detail));
    }
    let mut heads = hashes(typed.heads.iter().map(String::as_str))?;
    heads.sort_unstable();
    let place = &page.world.regions[at];
    let name = place.name;
    let receipt = place.space.transact(move |tx| splice(tx, &heads, &typed, name)).await?;
    let applied: u64 = receipt.token().frontier.iter().map(|(_, lsn)| lsn).sum();
    let heads: Vec<String> = receipt.value.iter().map(|head| names::hex(head)).collect();
    Ok(axum::Json(json!({"heads": heads, "applied": applied})).into_response())
}

/// The splice and the region's cursor, in one change set. What it returns names the version that whoever typed sees.
fn splice(
    tx: &mut Transaction<'_, '_>,
    heads: &[[u8; 32]],
    typed: &Typed,
    region: &'static str,
) -> Result<Vec<[u8; 32]>, TxError> {
    let mut document = tx.document(NOTE.0, NOTE.1);
    let before = document.read()?.heads();
    let end = typed.position + typed.insert.chars().count();
    // The place after a code point stays with it, also at the end of the text.
    let after = i64::from(end > 0);
    let object = Location { object: ObjectAddress::new(Kind::Document, NOTE.0, NOTE.1)?, path: Vec::new() };
    let edit = |document: &mut DocumentEdit<'_>| -> Result<Vec<u8>, JsonError> {
        text::splice(document, TEXT, typed.position, typed.delete, &typed.insert)?;
        text::cursor(document, TEXT, end.saturating_sub(1))
    };
    let edit =
        |document: &mut DocumentEdit<'_>| edit(document).map_err(|source| TxError::Json { object, source });
    // Nothing has arrived since, most of the time.
    let cursor = if before == heads { document.edit(edit)? } else { document.edit_at(heads, edit)? };
    let heads = document.read()?.heads();
    tx.register(CURSORS, region).write(Value::List(vec![Value::Bytes(cursor), Value::I64(after)]))?;
    Ok(heads.into_iter().filter(|head| !before.contains(head)).collect())
}
