//! What the daemon can say of itself.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::{Value as Json, json};

use comity::{VersionRange, VersionRefusal};

use super::App;
use super::problem::Problem;
use super::spaces::{blocked_json, lag_json, peer_json};
use crate::auth::{Access, Scope};

/// It runs.
pub(crate) async fn healthz() -> Response {
    axum::Json(json!({"status": "ok"})).into_response()
}

/// Whether it has caught up, and what it waits for otherwise.
pub(crate) async fn readyz(State(app): State<Arc<App>>) -> Response {
    match app.readiness.check(&app).await {
        Ok(()) => axum::Json(json!({"status": "ready"})).into_response(),
        Err(reason) => {
            let body = json!({"status": "waiting", "reason": reason});
            (StatusCode::SERVICE_UNAVAILABLE, axum::Json(body)).into_response()
        }
    }
}

/// The daemon in short.
pub(crate) async fn status(State(app): State<Arc<App>>, access: Access) -> Result<Response, Problem> {
    access.require_everywhere(Scope::Read)?;
    let status = app.replica.status().await?;
    let ready = app.readiness.judge(&app, &status);
    let damage = app.replica.damage().map(|damage| format!("{damage:?}"));
    let body = json!({
        "replica": app.replica.id().to_string(),
        "region": app.config.region,
        "version": env!("CARGO_PKG_VERSION"),
        "uptime_seconds": app.started.elapsed().as_secs(),
        "ready": ready.is_ok(),
        "waits_for": ready.err(),
        "spaces": status.spaces.len(),
        "peers": status.sessions.iter().map(|session| session.peer.to_string()).collect::<Vec<_>>(),
        "protocols": {"min": VersionRange::ALL.min, "max": VersionRange::ALL.max},
        "refused": status.refused.iter().map(refusal_json).collect::<Vec<_>>(),
        "damage": damage,
    });
    Ok(axum::Json(body).into_response())
}

fn refusal_json(refusal: &VersionRefusal) -> Json {
    let VersionRefusal { peer, theirs, .. } = refusal;
    json!({"replica": peer.to_string(), "protocols": {"min": theirs.min, "max": theirs.max}})
}

/// The connected peers, with what went over each connection.
pub(crate) async fn peers(State(app): State<Arc<App>>, access: Access) -> Result<Response, Problem> {
    access.require_everywhere(Scope::Read)?;
    let peers: Vec<Json> = app
        .replica
        .traffic()
        .await?
        .into_iter()
        .map(|(peer, stats)| {
            json!({
                "replica": peer.to_string(),
                "udp_bytes_sent": stats.udp_bytes_sent,
                "udp_bytes_received": stats.udp_bytes_received,
                "packets_lost": stats.packets_lost,
            })
        })
        .collect();
    Ok(axum::Json(json!({"peers": peers})).into_response())
}

/// How far this replica and its connected peers are behind each other, by space: only where somebody is.
pub(crate) async fn lag(State(app): State<Arc<App>>, access: Access) -> Result<Response, Problem> {
    access.require(Scope::Read)?;
    let status = app.replica.status().await?;
    let mut spaces = Vec::new();
    for space in status.spaces.iter().filter(|space| access.covers(&space.space)) {
        let lanes: Vec<Json> = space
            .lanes
            .iter()
            .filter(|lane| lane.known > lane.applied || lane.staged > 0 || lane.frozen.is_some())
            .map(|lane| {
                json!({
                    "lane": lane.lane.to_string(),
                    "owner": lane.owner.to_string(),
                    "lacks": lane.known.saturating_sub(lane.applied),
                    "staged": lane.staged,
                    "waits_for": lane.blocked.as_ref().map(blocked_json),
                    "frozen": lane.frozen.as_ref().map(ToString::to_string),
                })
            })
            .collect();
        let apart = space.peers.iter().filter(|peer| !peer.behind.is_none() || !peer.ahead.is_none());
        let peers: Vec<Json> = apart.map(peer_json).collect();
        if !lanes.is_empty() || !peers.is_empty() {
            let (id, name) = (space.space.to_string(), &space.name);
            let (missing, catch_up) = (lag_json(&space.missing), space.catch_up_ms);
            spaces.push(json!({
                "id": id, "name": name, "here": lanes, "missing": missing, "catch_up_ms": catch_up, "peers": peers,
            }));
        }
    }
    Ok(axum::Json(json!({"spaces": spaces})).into_response())
}
