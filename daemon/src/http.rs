//! The HTTP API. `daemon/README.md` has the routes; the OpenAPI document is made from the handlers.

pub(crate) mod action;
pub(crate) mod assets;
mod document;
mod feed;
pub(crate) mod guard;
pub(crate) mod inbox;
pub(crate) mod jobs;
pub(crate) mod metrics;
mod objects;
mod openapi;
mod overview;
pub(crate) mod problem;
pub(crate) mod read;
pub(crate) mod request;
mod routes;
mod spaces;
mod status;
pub(crate) mod value;

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::middleware::from_fn_with_state;
use axum::routing::get;
use comity::{Replica, Space};
use tokio::sync::{Semaphore, watch};

use crate::auth::{Access, Scope};
use crate::config::Config;
use crate::names;
use crate::serve::history::History;
use crate::serve::readiness::Readiness;
pub(crate) use guard::Via;
use openapi::Route;
use problem::{Problem, Trouble};

/// What handlers share.
pub(crate) struct App {
    pub(crate) replica: Replica,
    pub(crate) config: Arc<Config>,
    pub(crate) started: Instant,
    pub(crate) readiness: Readiness,
    /// How far everybody was behind lately.
    pub(crate) history: History,
    /// Becomes true when the daemon is to go down: feeds end then, so that their connections can.
    pub(crate) draining: watch::Receiver<bool>,
    /// One permit for each change feed that may be open.
    pub(crate) streams: Arc<Semaphore>,
    pub(crate) jobs: jobs::Jobs,
    pub(crate) served: metrics::Served,
}

impl App {
    /// The space that a path names, for whoever may do this there. A space that is not shown to the token and one that
    /// is not held here get the same answer.
    ///
    /// # Errors
    /// A [`Problem`].
    pub(crate) async fn space(&self, access: &Access, scope: Scope, text: &str) -> Result<Space, Problem> {
        let id = names::parse_space(text);
        let id = id.ok_or_else(|| {
            Trouble::BadRequest.because(format!("{text:?} is no id of a space, which is a UUID"))
        })?;
        if !access.covers(&id) {
            return Err(Trouble::UnknownSpace.because(format!("there is no space {id} at this replica")));
        }
        access.require(scope)?;
        Ok(self.replica.space(id).await?)
    }

    /// How long a request may take.
    fn request_time_max(&self) -> Duration {
        Duration::from_millis(self.config.http.request_ms_max)
    }
}

/// Every route, behind the guard.
pub(crate) fn router(app: &Arc<App>) -> Router {
    let table = routes::table();
    let description: Arc<str> = openapi::describe(&table).to_json().expect("the description is JSON").into();
    let (mut api, mut feeds) = (Router::new(), Router::new());
    for route in table {
        let writes = from_fn_with_state(route.writes(), guard::check_promises);
        let Route { path, handlers, is_feed, .. } = route;
        if is_feed {
            feeds = feeds.route(&path, handlers);
        } else {
            api = api.route(&path, handlers.layer(writes));
        }
    }
    let described = get(|| async move { openapi::serve(&description) });
    let api = api.route_layer(from_fn_with_state(Arc::clone(app), guard::limit_time));
    let guarded = api
        .merge(feeds)
        .route_layer(from_fn_with_state(Arc::clone(app), guard::authorize))
        .route("/v1/openapi.json", described)
        .merge(assets::routes())
        .fallback(not_found)
        .method_not_allowed_fallback(not_allowed)
        .layer(from_fn_with_state(Arc::clone(app), guard::check_names));
    // Whoever looks whether the daemon lives knows it by any name.
    let open = Router::new().route("/healthz", get(status::healthz)).route("/readyz", get(status::readyz));
    guarded
        .merge(open)
        .layer(DefaultBodyLimit::max(app.config.http.body_bytes_max))
        .layer(from_fn_with_state(Arc::clone(app), guard::mark))
        .with_state(Arc::clone(app))
}

async fn not_found(uri: axum::http::Uri) -> Problem {
    Trouble::NotFound.because(format!("there is nothing at {}", uri.path()))
}

async fn not_allowed(method: axum::http::Method, uri: axum::http::Uri) -> Problem {
    Trouble::MethodNotAllowed.because(format!("{} does not take {method}", uri.path()))
}
