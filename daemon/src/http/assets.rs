//! The web pages, which are part of the program.

use std::sync::Arc;

use axum::Router;
use axum::http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY};
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use super::App;

/// A file of a page: where it is asked for, its type, its bytes, and its name in `assets`.
struct Asset {
    path: &'static str,
    media_type: &'static str,
    bytes: &'static [u8],
    #[cfg(debug_assertions)]
    file: &'static str,
}

macro_rules! asset {
    ($path:literal, $media_type:literal, $file:literal) => {
        Asset {
            path: $path,
            media_type: $media_type,
            bytes: include_bytes!(concat!("../../assets/", $file)),
            #[cfg(debug_assertions)]
            file: concat!(env!("CARGO_MANIFEST_DIR"), "/assets/", $file),
        }
    };
}

/// The dashboard.
static DASHBOARD: &[Asset] = &[
    asset!("/", "text/html; charset=utf-8", "index.html"),
    asset!("/dashboard.js", "text/javascript; charset=utf-8", "dashboard.js"),
    asset!("/objects.js", "text/javascript; charset=utf-8", "objects.js"),
    asset!("/dashboard.css", "text/css; charset=utf-8", "dashboard.css"),
];

/// The page of `comity demo`.
static DEMO: &[Asset] = &[
    asset!("/", "text/html; charset=utf-8", "demo.html"),
    asset!("/demo.js", "text/javascript; charset=utf-8", "demo.js"),
    asset!("/demo.css", "text/css; charset=utf-8", "demo.css"),
    asset!("/editor.js", "text/javascript; charset=utf-8", "editor.js"),
    asset!("/map.js", "text/javascript; charset=utf-8", "map.js"),
];

/// What both have.
static SHARED: &[Asset] = &[
    asset!("/base.css", "text/css; charset=utf-8", "base.css"),
    asset!("/page.js", "text/javascript; charset=utf-8", "page.js"),
    asset!("/icon.svg", "image/svg+xml", "icon.svg"),
];

/// Nothing is loaded from anywhere else, and nobody may frame the page.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; \
                      connect-src 'self'; font-src 'self'; base-uri 'none'; form-action 'none'; \
                      frame-ancestors 'none'";

/// A route for each file of the dashboard.
pub(crate) fn routes() -> Router<Arc<App>> {
    routes_of(DASHBOARD)
}

/// A route for each file of the demo's page.
pub(crate) fn demo_routes() -> Router {
    routes_of(DEMO)
}

fn routes_of<S: Clone + Send + Sync + 'static>(assets: &'static [Asset]) -> Router<S> {
    let all = assets.iter().chain(SHARED);
    all.fold(Router::new(), |router, asset| router.route(asset.path, get(|| async { answer(asset) })))
}

fn answer(asset: &'static Asset) -> Response {
    let headers = [
        (CONTENT_TYPE, asset.media_type),
        (CONTENT_SECURITY_POLICY, POLICY),
        (REFERRER_POLICY, "no-referrer"),
        (CACHE_CONTROL, "no-cache"),
    ];
    // Whoever works on a page reloads it, and need not compile it first.
    #[cfg(debug_assertions)]
    if let Ok(bytes) = std::fs::read(asset.file) {
        return (headers, bytes).into_response();
    }
    (headers, asset.bytes).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What all pages may take together, bytes.
    const BYTES_MAX: usize = 150 * 1024;

    #[test]
    fn the_pages_are_small_and_ask_nobody_else() {
        let all = || DASHBOARD.iter().chain(DEMO).chain(SHARED);
        let bytes: usize = all().map(|asset| asset.bytes.len()).sum();
        assert!(bytes <= BYTES_MAX, "{bytes} bytes; the limit is {BYTES_MAX}");
        for asset in all() {
            let text = std::str::from_utf8(asset.bytes).unwrap().replace("http://www.w3.org/", "");
            for word in ["http://", "https://", "//cdn", "@import", "innerHTML", "onclick=", "style=\""] {
                assert!(!text.contains(word), "{} has {word:?}", asset.path);
            }
        }
    }
}
