//! Objects: `/v1/spaces/{space}/{kind}/{collection}/{key}`, and several of them at once.

use std::sync::Arc;
use std::time::Instant;

use axum::extract::{Request, State};
use axum::response::Response;
use comity::{BoundedError, Kind, Listing, Space, TransactError, TxError, WriteError};
use serde::Deserialize;
use serde_json::{Value as Json, json};
use utoipa::ToSchema;

use super::App;
use super::action::{Action, BoundedStep, DocumentStep, FlagStep, RegisterStep, Step, hashes};
use super::problem::{Problem, Refusal, Trouble};
use super::read::{Wanted, object, page_limit};
use super::request::{
    Asked, Json as Body, Names, Params, blocking, body, parse_json, read_answer, require_type,
};
use super::value::from_json;
use crate::auth::{Access, Scope};
use crate::names;

/// Operations in one transaction over HTTP.
const OPERATIONS_MAX: usize = 10_000;

/// A kind in a path.
pub(crate) fn kind(text: &str) -> Result<Kind, Problem> {
    names::parse_kind(text).ok_or_else(|| {
        Trouble::BadRequest.because(format!("there is no kind {text:?}; there are {}", names::kinds()))
    })
}

/// The names in a path that lead to an object.
#[derive(Debug, Deserialize)]
pub(crate) struct At {
    pub(crate) space: String,
    kind: String,
    pub(crate) collection: String,
    pub(crate) key: String,
}

impl At {
    pub(crate) fn kind(&self) -> Result<Kind, Problem> {
        kind(&self.kind)
    }
}

/// A page of names.
#[derive(Debug, Deserialize)]
pub(crate) struct Page {
    #[serde(default)]
    prefix: String,
    after: Option<String>,
    limit: Option<usize>,
}

/// The collections in which objects of a kind hold something.
pub(crate) async fn collections(
    State(app): State<Arc<App>>,
    access: Access,
    Names((space, kind_name)): Names<(String, String)>,
    Params(page): Params<Page>,
    asked: Asked,
) -> Result<Response, Problem> {
    let space = app.space(&access, Scope::Read, &space).await?;
    let (kind, limit) = (kind(&kind_name)?, page_limit(page.limit)?);
    let view = asked.view(&space).await?;
    blocking(move || {
        let mut collections = view.collections(kind, page.after.as_deref(), limit + 1)?;
        let next = next(&mut collections, limit);
        Ok(read_answer(&view.token()?, json!({"collections": collections, "next": next})))
    })
    .await
}

/// Cuts a list that is one longer than a page where there is more, and says where to go on.
fn next(names: &mut Vec<String>, limit: usize) -> Option<String> {
    let more = names.len() > limit;
    names.truncate(limit);
    names.last().filter(|_| more).cloned()
}

/// The keys of a collection whose objects hold something.
pub(crate) async fn keys(
    State(app): State<Arc<App>>,
    access: Access,
    Names((space, kind_name, collection)): Names<(String, String, String)>,
    Params(page): Params<Page>,
    asked: Asked,
) -> Result<Response, Problem> {
    let space = app.space(&access, Scope::Read, &space).await?;
    let (kind, limit) = (kind(&kind_name)?, page_limit(page.limit)?);
    let view = asked.view(&space).await?;
    blocking(move || {
        let after = page.after.as_deref();
        let listing =
            Listing { kind, collection: &collection, prefix: &page.prefix, after, limit: limit + 1 };
        let mut keys = view.list(listing)?;
        let next = next(&mut keys, limit);
        Ok(read_answer(&view.token()?, json!({"keys": keys, "next": next})))
    })
    .await
}

/// What of an object is wanted.
fn wanted(pairs: Vec<(String, String)>) -> Result<Wanted, Problem> {
    let mut wanted = Wanted::default();
    for (name, value) in pairs {
        match name.as_str() {
            "after" => wanted.after = Some(value),
            "limit" => {
                let limit = value.parse();
                let limit = limit
                    .map_err(|_| Trouble::BadRequest.because(format!("limit is a number, not {value:?}")))?;
                wanted.limit = Some(limit);
            }
            "pointer" => wanted.pointer = Some(value),
            "heads" => wanted.heads = Some(hashes(value.split(',').filter(|text| !text.is_empty()))?),
            "form" => match value.as_str() {
                "plain" => wanted.is_plain = true,
                "tagged" => wanted.is_plain = false,
                _ => {
                    return Err(
                        Trouble::BadRequest.because(format!("form is plain or tagged, not {value:?}"))
                    );
                }
            },
            "path" => wanted.path.push(value),
            "kind" => wanted.nested = Some(kind(&value)?),
            // Guarantees are taken elsewhere, and what is not known changes nothing.
            _ => {}
        }
    }
    Ok(wanted)
}

/// Reads an object.
pub(crate) async fn read(
    State(app): State<Arc<App>>,
    access: Access,
    Names(at): Names<At>,
    Params(pairs): Params<Vec<(String, String)>>,
    asked: Asked,
) -> Result<Response, Problem> {
    let space = app.space(&access, Scope::Read, &at.space).await?;
    let (kind, wanted) = (at.kind()?, wanted(pairs)?);
    let view = asked.view(&space).await?;
    blocking(move || {
        let body = object(&view, kind, (&at.collection, &at.key), &wanted)?;
        Ok(read_answer(&view.token()?, body))
    })
    .await
}

/// What PUT takes for all kinds but documents.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Written {
    /// A register's value, or whether a flag is enabled.
    value: Json,
    /// Registers: the dots of the values that were seen; only these are replaced. All that are visible here otherwise.
    seen: Option<Vec<String>>,
}

/// The part of a document that is meant.
#[derive(Debug, Deserialize)]
pub(crate) struct Pointer {
    #[serde(default)]
    pub(crate) pointer: String,
}

/// Writes a register, a flag, or a document as a whole.
pub(crate) async fn put(
    State(app): State<Arc<App>>,
    access: Access,
    Names(at): Names<At>,
    Params(Pointer { pointer }): Params<Pointer>,
    asked: Asked,
    request: Request,
) -> Result<Response, Problem> {
    let space = app.space(&access, Scope::Write, &at.space).await?;
    let kind = at.kind()?;
    require_type(request.headers(), &["application/json"])?;
    let bytes = body(request, &()).await?;
    let step = match kind {
        Kind::Document => Step::Document(DocumentStep::Put(pointer, parse_json(&bytes)?)),
        Kind::Register => Step::Register(register(parse_json(&bytes)?)?),
        Kind::Flag | Kind::DwFlag => Step::Flag(flag(&parse_json(&bytes)?)?),
        _ => {
            let detail = format!(
                "a {kind} is not written as a whole: POST an operation, or use `comity add` and `comity rm`"
            );
            return Err(Trouble::MethodNotAllowed.because(detail));
        }
    };
    write(&space, kind, at, step, &asked).await
}

fn register(written: Written) -> Result<RegisterStep, Problem> {
    let value = from_json(&written.value).map_err(|error| Trouble::BadRequest.because(error))?;
    match written.seen {
        None => Ok(RegisterStep::Write(value)),
        Some(seen) => Ok(RegisterStep::Resolve(value, super::action::dots(&seen)?)),
    }
}

fn flag(written: &Written) -> Result<FlagStep, Problem> {
    match written.value {
        Json::Bool(true) => Ok(FlagStep::Enable),
        Json::Bool(false) => Ok(FlagStep::Disable),
        _ => Err(Trouble::BadRequest.because("the value of a flag is true or false")),
    }
}

/// One transaction that does one thing to one object.
async fn write(space: &Space, kind: Kind, at: At, step: Step, asked: &Asked) -> Result<Response, Problem> {
    let write = space.transact(move |tx| step.apply(tx, kind, (&at.collection, &at.key)));
    asked.write(write).await
}

/// Does something to an object.
pub(crate) async fn act(
    State(app): State<Arc<App>>,
    access: Access,
    Names(at): Names<At>,
    asked: Asked,
    Body(action): Body<Action>,
) -> Result<Response, Problem> {
    let space = app.space(&access, Scope::Write, &at.space).await?;
    let kind = at.kind()?;
    match action.check(kind)? {
        Step::Bounded(BoundedStep::Decrease(by)) => decrease(&space, &at, by, &asked).await,
        step => write(&space, kind, at, step, &asked).await,
    }
}

/// Lowers a bounded counter, and asks peers for rights where those held here are too few, until the time is over.
async fn decrease(space: &Space, at: &At, by: u64, asked: &Asked) -> Result<Response, Problem> {
    let deadline = Instant::now() + asked.wait();
    let counter = space.bounded_counter(&at.collection, &at.key);
    loop {
        let (collection, key) = (at.collection.clone(), at.key.clone());
        let write = space.transact(move |tx| tx.bounded_counter(&collection, &key).decrease(by));
        let left = deadline.saturating_duration_since(Instant::now());
        match asked.try_write(write).await {
            Err(error) if lacks_rights(&error) && !left.is_zero() => counter.acquire(by, left).await?,
            other => return Ok(other?),
        }
    }
}

fn lacks_rights(error: &WriteError) -> bool {
    let WriteError::Refused(TransactError::Refused(TxError::Bounded { source, .. })) = error else {
        return false;
    };
    matches!(source, BoundedError::Insufficient { .. })
}

/// Changes a document by a merge patch (RFC 7396) or a JSON patch (RFC 6902).
pub(crate) async fn patch(
    State(app): State<Arc<App>>,
    access: Access,
    Names(at): Names<At>,
    Params(Pointer { pointer }): Params<Pointer>,
    asked: Asked,
    request: Request,
) -> Result<Response, Problem> {
    let space = app.space(&access, Scope::Write, &at.space).await?;
    let kind = at.kind()?;
    if kind != Kind::Document {
        return Err(
            Trouble::MethodNotAllowed.because(format!("only documents are patched, and this is a {kind}"))
        );
    }
    let taken = ["application/merge-patch+json", "application/json-patch+json"];
    let step = match require_type(request.headers(), &taken)?.as_str() {
        "application/json-patch+json" => {
            if !pointer.is_empty() {
                return Err(Trouble::BadRequest
                    .because("a JSON patch has its pointers within; leave the parameter out"));
            }
            DocumentStep::Patch(parse_json(&body(request, &()).await?)?)
        }
        _ => DocumentStep::Merge(pointer, parse_json(&body(request, &()).await?)?),
    };
    write(&space, kind, at, Step::Document(step), &asked).await
}

/// Removes what is seen of an object here.
pub(crate) async fn remove(
    State(app): State<Arc<App>>,
    access: Access,
    Names(at): Names<At>,
    asked: Asked,
) -> Result<Response, Problem> {
    let space = app.space(&access, Scope::Write, &at.space).await?;
    let kind = at.kind()?;
    let step = Action::Clear.check(kind)?;
    write(&space, kind, at, step, &asked).await
}

/// One atomic change set.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Operations {
    /// Done in this order, all or none.
    operations: Vec<Operation>,
}

/// One operation of a transaction.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Operation {
    kind: String,
    collection: String,
    key: String,
    r#do: Action,
}

/// Does several things at once: all of them become visible together, everywhere, or none is done.
pub(crate) async fn transact(
    State(app): State<Arc<App>>,
    access: Access,
    Names(space): Names<String>,
    asked: Asked,
    Body(Operations { operations }): Body<Operations>,
) -> Result<Response, Problem> {
    let space = app.space(&access, Scope::Write, &space).await?;
    if operations.is_empty() || operations.len() > OPERATIONS_MAX {
        let detail = format!("there are {} operations; 1 to {OPERATIONS_MAX} are allowed", operations.len());
        return Err(Trouble::BadRequest.because(detail));
    }
    let mut steps = Vec::with_capacity(operations.len());
    for (index, Operation { kind: name, collection, key, r#do }) in operations.into_iter().enumerate() {
        let at = |problem: Problem| problem.with("operation", index);
        let kind = kind(&name).map_err(at)?;
        steps.push((kind, collection, key, r#do.check(kind).map_err(at)?));
    }
    let write = space.transact(move |tx| {
        for (index, (kind, collection, key, step)) in steps.into_iter().enumerate() {
            let done = step.apply(tx, kind, (&collection, &key));
            done.map_err(|error| TxError::refuse(Refusal(Problem::from(error).with("operation", index))))?;
        }
        Ok(())
    });
    asked.write(write).await
}
