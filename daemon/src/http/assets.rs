//! The web page, which is part of the program.

use std::sync::Arc;

use axum::Router;
use axum::http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY};
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use super::App;

/// A file of the page: its path, its type, its bytes.
struct Asset(&'static str, &'static str, &'static [u8]);

const ASSETS: &[Asset] = &[Asset("/", "text/html; charset=utf-8", include_bytes!("../../assets/index.html"))];

/// Nothing is loaded from anywhere else, and nobody may frame the page.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; \
                      connect-src 'self'; font-src 'self'; base-uri 'none'; form-action 'none'; \
                      frame-ancestors 'none'";

/// A route for each file.
pub(crate) fn routes() -> Router<Arc<App>> {
    ASSETS.iter().fold(Router::new(), |router, asset| router.route(asset.0, get(|| async { answer(asset) })))
}

fn answer(asset: &'static Asset) -> Response {
    let headers = [
        (CONTENT_TYPE, asset.1),
        (CONTENT_SECURITY_POLICY, POLICY),
        (REFERRER_POLICY, "no-referrer"),
        (CACHE_CONTROL, "no-cache"),
    ];
    (headers, asset.2).into_response()
}
