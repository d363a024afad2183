//! What only documents have: versions, differences, marks, and whole Automerge documents in and out.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::HeaderValue;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use comity::{ChunkLimits, Kind, versions as history};
use serde::Deserialize;
use serde_json::{Value as Json, json};

use super::App;
use super::action::hashes;
use super::objects::{At, Pointer};
use super::problem::{Problem, Trouble};
use super::read::page_limit;
use super::request::{
    Asked, Names, Params, TOKEN, blocking, body, put, read_answer, require_type, token_text,
};
use crate::auth::{Access, Scope};
use crate::names;

fn check_kind(at: &At) -> Result<(), Problem> {
    match at.kind()? {
        Kind::Document => Ok(()),
        kind => Err(Trouble::NotFound.because(format!("only documents have this, and this is a {kind}"))),
    }
}

/// A page of versions.
#[derive(Debug, Deserialize)]
pub(crate) struct Page {
    /// The hash of the last version of the page before.
    after: Option<String>,
    limit: Option<usize>,
}

/// The versions of a document, newest first.
pub(crate) async fn versions(
    State(app): State<Arc<App>>,
    access: Access,
    Names(at): Names<At>,
    Params(page): Params<Page>,
    asked: Asked,
) -> Result<Response, Problem> {
    let space = app.space(&access, Scope::Read, &at.space).await?;
    check_kind(&at)?;
    let limit = page_limit(page.limit)?;
    let after = hashes(page.after.as_deref())?.first().copied();
    let view = asked.view(&space).await?;
    blocking(move || {
        let document = view.document(&at.collection, &at.key)?;
        let mut found = history::list(document.automerge(), after.as_ref(), limit + 1)?;
        let more = found.len() > limit;
        found.truncate(limit);
        let next = found.last().filter(|_| more).map(|version| names::hex(&version.hash));
        let found: Vec<Json> = found
            .iter()
            .map(|version| {
                json!({
                    "hash": names::hex(&version.hash),
                    "actor": names::hex(&version.actor),
                    "time_seconds": version.time_seconds,
                    "message": version.message,
                    "deps": version.deps.iter().map(|dep| names::hex(dep)).collect::<Vec<_>>(),
                    "operations": version.ops,
                })
            })
            .collect();
        Ok(read_answer(&view.token()?, json!({"versions": found, "next": next})))
    })
    .await
}

/// Two versions; each is hashes separated by commas, and none is the empty document.
#[derive(Debug, Deserialize)]
pub(crate) struct Between {
    #[serde(default)]
    from: String,
    /// The newest version when it is not given.
    to: Option<String>,
}

fn heads(text: &str) -> Result<Vec<[u8; 32]>, Problem> {
    hashes(text.split(',').filter(|hash| !hash.is_empty()))
}

/// What leads from one version to another.
pub(crate) async fn diff(
    State(app): State<Arc<App>>,
    access: Access,
    Names(at): Names<At>,
    Params(between): Params<Between>,
    asked: Asked,
) -> Result<Response, Problem> {
    let space = app.space(&access, Scope::Read, &at.space).await?;
    check_kind(&at)?;
    let (from, to) = (heads(&between.from)?, between.to.as_deref().map(heads).transpose()?);
    let view = asked.view(&space).await?;
    blocking(move || {
        let document = view.document(&at.collection, &at.key)?;
        let to = to.unwrap_or_else(|| document.heads());
        let patches = history::diff(document.automerge(), &from, &to)?;
        Ok(read_answer(&view.token()?, json!({"patches": patches})))
    })
    .await
}

/// The marks of a text.
pub(crate) async fn marks(
    State(app): State<Arc<App>>,
    access: Access,
    Names(at): Names<At>,
    Params(Pointer { pointer }): Params<Pointer>,
    asked: Asked,
) -> Result<Response, Problem> {
    let space = app.space(&access, Scope::Read, &at.space).await?;
    check_kind(&at)?;
    let view = asked.view(&space).await?;
    blocking(move || {
        let document = view.document(&at.collection, &at.key)?;
        let marks = comity::text::marks(document.automerge(), &pointer)?;
        Ok(read_answer(&view.token()?, json!({"marks": marks})))
    })
    .await
}

/// The document as Automerge saves it.
pub(crate) async fn export(
    State(app): State<Arc<App>>,
    access: Access,
    Names(at): Names<At>,
    asked: Asked,
) -> Result<Response, Problem> {
    let space = app.space(&access, Scope::Read, &at.space).await?;
    check_kind(&at)?;
    let view = asked.view(&space).await?;
    blocking(move || {
        let document = view.document(&at.collection, &at.key)?;
        if document.heads().is_empty() {
            return Err(
                Trouble::NotFound.because(format!("the document {}/{} holds nothing", at.collection, at.key))
            );
        }
        let bytes = document.save().map_err(|error| Trouble::Storage.because(error))?;
        let mut response = bytes.into_response();
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
        put(response.headers_mut(), TOKEN, &token_text(&view.token()?));
        Ok(response)
    })
    .await
}

/// Adds what an Automerge program saved or sent.
pub(crate) async fn import(
    State(app): State<Arc<App>>,
    access: Access,
    Names(at): Names<At>,
    asked: Asked,
    request: Request,
) -> Result<Response, Problem> {
    let space = app.space(&access, Scope::Write, &at.space).await?;
    check_kind(&at)?;
    asked.reach(&space).await?;
    require_type(request.headers(), &["application/octet-stream"])?;
    let bytes = body(request, &()).await?;
    let document = space.document(&at.collection, &at.key);
    let changes = document.import(&bytes, &ChunkLimits::default()).await?;
    Ok(read_answer(&space.view()?.token()?, json!({"changes": changes})))
}
