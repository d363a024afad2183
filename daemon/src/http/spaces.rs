//! Spaces: founding, joining, inviting, what they are set to.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use comity::{
    AuditStatus, Blocked, Lag, LaneStatus, PeerStatus, Policy, ReplicaId, Role, SpaceStatus, Ticket, Token,
};
use serde::Deserialize;
use serde_json::{Value as Json, json};
use utoipa::ToSchema;

use super::App;
use super::problem::{Problem, Trouble};
use super::read::page_limit;
use super::request::{Asked, Json as Body, Names, Params, read_answer};
use crate::auth::{Access, Scope};
use crate::names;

/// A role's name.
pub(crate) fn role_name(role: Role) -> &'static str {
    match role {
        Role::Follower => "follower",
        Role::Writer => "writer",
        Role::Admin => "admin",
    }
}

fn parse_role(name: &str) -> Result<Role, Problem> {
    match name {
        "follower" => Ok(Role::Follower),
        "writer" => Ok(Role::Writer),
        "admin" => Ok(Role::Admin),
        _ => Err(Trouble::BadRequest
            .because(format!("there is no role {name:?}; there are follower, writer, admin"))),
    }
}

/// A page of spaces.
#[derive(Debug, Deserialize)]
pub(crate) struct Page {
    after: Option<String>,
    limit: Option<usize>,
}

/// The spaces held here, in the order of their ids.
pub(crate) async fn list(
    State(app): State<Arc<App>>,
    access: Access,
    Params(page): Params<Page>,
) -> Result<Response, Problem> {
    access.require(Scope::Read)?;
    let limit = page_limit(page.limit)?;
    let mut after = match &page.after {
        None => None,
        Some(text) => {
            let id = names::parse_space(text);
            Some(id.ok_or_else(|| Trouble::BadRequest.because(format!("{text:?} is no id of a space")))?)
        }
    };
    let mut found = Vec::new();
    // A token that counts in some spaces is shown those.
    loop {
        let spaces = app.replica.spaces_after(after.as_ref(), limit + 1)?;
        let is_last = spaces.len() <= limit;
        after = spaces.last().map(|(id, _)| *id).or(after);
        found.extend(spaces.into_iter().filter(|(id, _)| access.covers(id)));
        if is_last || found.len() > limit {
            break;
        }
    }
    let more = found.len() > limit;
    found.truncate(limit);
    let next = found.last().filter(|_| more).map(|(id, _)| id.to_string());
    let found: Vec<Json> =
        found.iter().map(|(id, name)| json!({"id": id.to_string(), "name": name})).collect();
    Ok(axum::Json(json!({"spaces": found, "next": next})).into_response())
}

/// A space to be founded.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Founding {
    /// 1 to 128 bytes.
    name: String,
}

/// Founds a space, of which this replica is the first admin.
pub(crate) async fn create(
    State(app): State<Arc<App>>,
    access: Access,
    Body(founding): Body<Founding>,
) -> Result<Response, Problem> {
    access.require_everywhere(Scope::Admin)?;
    let space = app.replica.create_space(&founding.name).await?;
    let body = json!({"id": space.id().to_string(), "name": founding.name});
    Ok((StatusCode::CREATED, axum::Json(body)).into_response())
}

/// An invitation to be redeemed.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Joining {
    /// What `invite` printed.
    ticket: String,
}

/// Takes part in the space that a ticket names. Catching up goes on afterwards.
pub(crate) async fn join(
    State(app): State<Arc<App>>,
    access: Access,
    Body(joining): Body<Joining>,
) -> Result<Response, Problem> {
    access.require_everywhere(Scope::Admin)?;
    let ticket: Ticket = joining.ticket.parse().map_err(|error| Trouble::BadRequest.because(error))?;
    let space = app.replica.connect(&ticket).await?;
    Ok(axum::Json(json!({"id": space.id().to_string()})).into_response())
}

/// The report on a space.
pub(crate) async fn show(
    State(app): State<Arc<App>>,
    access: Access,
    Names(space): Names<String>,
) -> Result<Response, Problem> {
    let space = app.space(&access, Scope::Read, &space).await?;
    let status = space.status().await?;
    let token = Token { space: status.space, frontier: status.durable.clone() };
    Ok(read_answer(&token, space_json(&status)))
}

/// The report on a space as JSON.
pub(crate) fn space_json(status: &SpaceStatus) -> Json {
    let members: Vec<Json> = status.members.iter().map(member_json).collect();
    let lanes: Vec<Json> = status.lanes.iter().map(lane_json).collect();
    let peers: Vec<Json> = status.peers.iter().map(peer_json).collect();
    let stalled: Vec<String> = status.stalled_by.iter().map(ToString::to_string).collect();
    json!({
        "id": status.space.to_string(),
        "name": status.name,
        "digest": status.digest.to_string(),
        "standing": status.standing.to_string(),
        "may_write": status.standing.may_write(),
        "confirmed": status.confirmed,
        "quarantined": status.quarantined,
        "held": status.held,
        "audit": audit_json(&status.audit),
        "members": members,
        "lanes": lanes,
        "peers": peers,
        "stalled_by": stalled,
    })
}

fn audit_json(audit: &AuditStatus) -> Json {
    json!({
        "passes": audit.passes,
        "last_pass_ms": audit.last_pass_ms,
        "inspected": audit.inspected,
        "compared": audit.compared,
        "touched": audit.touched,
        "unanswered": audit.unanswered,
        "damaged": audit.damaged,
        "diverged": audit.diverged,
        "upheld": audit.upheld,
        "repaired": audit.repaired,
        "unresolved": audit.unresolved,
    })
}

fn member_json((replica, role): &(ReplicaId, Role)) -> Json {
    json!({"replica": replica.to_string(), "role": role_name(*role)})
}

fn lane_json(lane: &LaneStatus) -> Json {
    json!({
        "lane": lane.lane.to_string(),
        "owner": lane.owner.to_string(),
        "is_own": lane.is_own,
        "applied": lane.applied,
        "known": lane.known,
        "lacks": lane.known.saturating_sub(lane.applied),
        "staged": lane.staged,
        "waits_for": lane.blocked.as_ref().map(blocked_json),
        "parent": lane.parent.map(|parent| parent.to_string()),
        "frozen": lane.frozen.as_ref().map(ToString::to_string),
    })
}

/// How far a peer and this replica are apart.
pub(crate) fn peer_json(status: &PeerStatus) -> Json {
    json!({
        "replica": status.peer.to_string(),
        "lacks": status.behind.entries,
        "behind": lag_json(&status.behind),
        "ahead": lag_json(&status.ahead),
        "catch_up_ms": status.catch_up_ms,
        "round_trip_ms": status.round_trip_ms,
    })
}

/// What is missing somewhere.
pub(crate) fn lag_json(lag: &Lag) -> Json {
    let (entries, bytes, is_estimated, age) = (lag.entries, lag.bytes, lag.is_estimated, lag.age_ms);
    json!({"entries": entries, "bytes": bytes, "bytes_are_estimated": is_estimated, "age_ms": age})
}

/// What an entry that arrived waits for.
pub(crate) fn blocked_json(blocked: &Blocked) -> Json {
    let held_by: Vec<String> = blocked.held_by.iter().map(ToString::to_string).collect();
    json!({
        "lane": blocked.lane.to_string(),
        "entry": blocked.lsn,
        "since_ms": blocked.since_ms,
        "held_by": held_by,
        "asked": blocked.asked.map(|peer| peer.to_string()),
    })
}

/// Who takes part.
pub(crate) async fn members(
    State(app): State<Arc<App>>,
    access: Access,
    Names(space): Names<String>,
) -> Result<Response, Problem> {
    let space = app.space(&access, Scope::Read, &space).await?;
    let members: Vec<Json> = space.status().await?.members.iter().map(member_json).collect();
    Ok(axum::Json(json!({"members": members})).into_response())
}

/// A replica in a path.
fn replica(text: &str) -> Result<ReplicaId, Problem> {
    let replica = names::parse_replica(text);
    replica.ok_or_else(|| {
        Trouble::BadRequest.because(format!("{text:?} is no id of a replica: 64 hexadecimal digits"))
    })
}

/// A role to be given.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Granting {
    /// follower, writer or admin.
    role: String,
}

/// Makes a replica a member, or gives a member another role.
pub(crate) async fn grant(
    State(app): State<Arc<App>>,
    access: Access,
    Names((space, member)): Names<(String, String)>,
    Body(granting): Body<Granting>,
) -> Result<StatusCode, Problem> {
    let space = app.space(&access, Scope::Admin, &space).await?;
    space.grant(replica(&member)?, parse_role(&granting.role)?).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Removes a member: its connections lose the space at once.
pub(crate) async fn revoke(
    State(app): State<Arc<App>>,
    access: Access,
    Names((space, member)): Names<(String, String)>,
) -> Result<StatusCode, Problem> {
    let space = app.space(&access, Scope::Admin, &space).await?;
    space.revoke(replica(&member)?).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Takes no part in the space any more; what is held here can still be read.
pub(crate) async fn leave(
    State(app): State<Arc<App>>,
    access: Access,
    Names(space): Names<String>,
) -> Result<StatusCode, Problem> {
    app.space(&access, Scope::Admin, &space).await?.leave().await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Deletes what this replica holds of the space. Nobody else is told.
pub(crate) async fn delete(
    State(app): State<Arc<App>>,
    access: Access,
    Names(space): Names<String>,
) -> Result<StatusCode, Problem> {
    app.space(&access, Scope::Admin, &space).await?.delete().await?;
    Ok(StatusCode::NO_CONTENT)
}

/// An invitation to be made.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Inviting {
    /// What the invited replica may do: follower, writer or admin.
    #[serde(default = "writer")]
    role: String,
}

fn writer() -> String {
    "writer".to_owned()
}

/// A ticket that makes one replica a member. It can be used once, within a day.
pub(crate) async fn invite(
    State(app): State<Arc<App>>,
    access: Access,
    Names(space): Names<String>,
    Body(inviting): Body<Inviting>,
) -> Result<Response, Problem> {
    let space = app.space(&access, Scope::Admin, &space).await?;
    let ticket = space.invite_as(parse_role(&inviting.role)?).await?;
    Ok((StatusCode::CREATED, axum::Json(json!({"ticket": ticket.to_string()}))).into_response())
}

/// The policy of a collection.
pub(crate) async fn policy(
    State(app): State<Arc<App>>,
    access: Access,
    Names((space, collection)): Names<(String, String)>,
    asked: Asked,
) -> Result<Response, Problem> {
    let space = app.space(&access, Scope::Read, &space).await?;
    let view = asked.view(&space).await?;
    Ok(read_answer(&view.token()?, json!({"policy": view.policy(&collection)?.name()})))
}

/// A policy to be set.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Setting {
    /// lww, siblings, union, min, max, first, or custom:NAME:VERSION.
    policy: String,
}

/// Sets the policy under which the registers of a collection are read, at every replica.
pub(crate) async fn set_policy(
    State(app): State<Arc<App>>,
    access: Access,
    Names((space, collection)): Names<(String, String)>,
    asked: Asked,
    Body(setting): Body<Setting>,
) -> Result<Response, Problem> {
    let space = app.space(&access, Scope::Admin, &space).await?;
    let policy = Policy::parse(&setting.policy).map_err(|error| Trouble::BadRequest.because(error))?;
    asked.write(space.set_policy(&collection, policy)).await
}
