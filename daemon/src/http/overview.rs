//! Where the members of a space are, and how far they were behind lately: what the dashboard draws.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use serde_json::{Value as Json, json};

use super::App;
use super::problem::Problem;
use super::request::{Names, blocking, read_answer};
use crate::auth::{Access, Scope};
use crate::serve::history::STEP;

/// The regions of the members, and the samples of the last minutes.
pub(crate) async fn show(
    State(app): State<Arc<App>>,
    access: Access,
    Names(space): Names<String>,
) -> Result<Response, Problem> {
    let space = app.space(&access, Scope::Read, &space).await?;
    let members = space.status().await?.members;
    let samples = app.history.of(&space.id());
    let lag: BTreeMap<String, Json> = samples
        .iter()
        .map(|(replica, samples)| {
            let here: Vec<u64> = samples.iter().map(|sample| sample.here).collect();
            let there: Vec<Option<u64>> = samples.iter().map(|sample| sample.there).collect();
            (replica.to_string(), json!({"here": here, "there": there}))
        })
        .collect();
    let view = space.view()?;
    blocking(move || {
        let mut regions = BTreeMap::new();
        for (member, _) in &members {
            if let Some(region) = view.region_of(member)? {
                regions.insert(member.to_string(), region);
            }
        }
        let step_ms = STEP.as_millis() as u64;
        Ok(read_answer(&view.token()?, json!({"regions": regions, "step_ms": step_ms, "lag": lag})))
    })
    .await
}
