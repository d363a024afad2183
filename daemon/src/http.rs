//! The HTTP API. `daemon/README.md` has the routes; the OpenAPI document is made from the handlers.

pub(crate) mod action;
pub(crate) mod assets;
mod document;
mod feed;
pub(crate) mod guard;
pub(crate) mod inbox;
pub(crate) mod jobs;
mod objects;
pub(crate) mod problem;
pub(crate) mod read;
pub(crate) mod request;
mod spaces;
mod status;
pub(crate) mod value;

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::middleware::{from_fn, from_fn_with_state};
use axum::routing::{get, post, put};
use comity::{Replica, Space};
use tokio::sync::{Semaphore, watch};

use crate::auth::{Access, Scope};
use crate::config::Config;
use crate::names;
use crate::serve::readiness::Readiness;
pub(crate) use guard::Via;
use problem::{Problem, Trouble};

/// What handlers share.
pub(crate) struct App {
    pub(crate) replica: Replica,
    pub(crate) config: Arc<Config>,
    pub(crate) started: Instant,
    pub(crate) readiness: Readiness,
    /// Becomes true when the daemon is to go down: feeds end then, so that their connections can.
    pub(crate) draining: watch::Receiver<bool>,
    /// One permit for each change feed that may be open.
    pub(crate) streams: Arc<Semaphore>,
    pub(crate) jobs: jobs::Jobs,
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
    let object = "/v1/spaces/{space}/{kind}/{collection}/{key}";
    let api = Router::new()
        .route("/v1/status", get(status::status))
        .route("/v1/peers", get(status::peers))
        .route("/v1/lag", get(status::lag))
        .route("/v1/jobs", get(jobs::list).post(jobs::begin))
        .route("/v1/jobs/{id}", get(jobs::show))
        .route("/v1/spaces", get(spaces::list).post(spaces::create))
        .route("/v1/join", post(spaces::join))
        .route("/v1/spaces/{space}", get(spaces::show).delete(spaces::delete))
        .route("/v1/spaces/{space}/leave", post(spaces::leave))
        .route("/v1/spaces/{space}/invitations", post(spaces::invite))
        .route("/v1/spaces/{space}/members", get(spaces::members))
        .route("/v1/spaces/{space}/members/{replica}", put(spaces::grant).delete(spaces::revoke))
        .route("/v1/spaces/{space}/policies/{collection}", get(spaces::policy).put(spaces::set_policy))
        .route("/v1/spaces/{space}/transactions", post(objects::transact))
        .route("/v1/spaces/{space}/conflicts", get(inbox::conflicts))
        .route("/v1/spaces/{space}/conflicts/resolve", post(inbox::resolve))
        .route("/v1/spaces/{space}/journal", get(inbox::journal))
        .route("/v1/spaces/{space}/journal/restore", post(inbox::restore))
        .route("/v1/spaces/{space}/{kind}", get(objects::collections))
        .route("/v1/spaces/{space}/{kind}/{collection}", get(objects::keys))
        .route(
            object,
            get(objects::read)
                .put(objects::put)
                .post(objects::act)
                .patch(objects::patch)
                .delete(objects::remove),
        )
        .route(&format!("{object}/versions"), get(document::versions))
        .route(&format!("{object}/diff"), get(document::diff))
        .route(&format!("{object}/marks"), get(document::marks))
        .route(&format!("{object}/content"), get(document::export).post(document::import))
        .route_layer(from_fn_with_state(Arc::clone(app), guard::limit_time));
    // Feeds last as long as they are read.
    let feeds = Router::new()
        .route("/v1/spaces/{space}/changes", get(feed::changes))
        .route("/v1/spaces/{space}/conflicts/events", get(feed::conflict_events));
    let open = Router::new().route("/healthz", get(status::healthz)).route("/readyz", get(status::readyz));
    let guarded = api
        .merge(feeds)
        .route_layer(from_fn_with_state(Arc::clone(app), guard::authorize))
        .merge(assets::routes())
        .fallback(not_found)
        .method_not_allowed_fallback(not_allowed)
        .layer(from_fn_with_state(Arc::clone(app), guard::check_names))
        .merge(open);
    guarded
        .layer(DefaultBodyLimit::max(app.config.http.body_bytes_max))
        .layer(from_fn(guard::mark))
        .with_state(Arc::clone(app))
}

async fn not_found(uri: axum::http::Uri) -> Problem {
    Trouble::NotFound.because(format!("there is nothing at {}", uri.path()))
}

async fn not_allowed(method: axum::http::Method, uri: axum::http::Uri) -> Problem {
    Trouble::MethodNotAllowed.because(format!("{} does not take {method}", uri.path()))
}
