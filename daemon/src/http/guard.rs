//! What stands before the handlers: names, origins, tokens, time.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use axum::extract::{MatchedPath, Request, State};
use axum::http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, AUTHORIZATION, CACHE_CONTROL, FORWARDED, HOST,
    ORIGIN, VARY, X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::App;
use super::problem::{Problem, Trouble};
use super::request::{DURABILITY, IDEMPOTENCY_KEY, put};
use crate::auth::{Access, authenticate};

/// From where a connection came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Via {
    /// The Unix socket: whoever its permissions let in.
    Unix,
    /// A socket on this address, from this peer.
    Tcp { local: SocketAddr, peer: SocketAddr },
}

impl Via {
    fn is_local(self) -> bool {
        match self {
            Self::Unix => true,
            Self::Tcp { local, peer } => local.ip().is_loopback() && peer.ip().is_loopback(),
        }
    }
}

/// Headers that proxies add. With one of them, a request on loopback may come from anywhere.
const PROXIED: [&str; 3] = ["x-forwarded-for", "x-real-ip", "x-forwarded-host"];

fn is_proxied(headers: &HeaderMap) -> bool {
    headers.contains_key(FORWARDED) || PROXIED.iter().any(|name| headers.contains_key(*name))
}

/// Refuses names that are not ours, which a page gets by pointing its own name at this address (DNS rebinding), and
/// pages of other origins. Answers what browsers ask before they send.
pub(crate) async fn check_names(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let via = request.extensions().get::<Via>().copied();
    let headers = request.headers();
    if let Some(Via::Tcp { .. }) = via
        && let Err(problem) = check_host(headers, &app.config.http.hosts)
    {
        return problem.into_response();
    }
    let origin = match check_origin(&app, headers) {
        Ok(origin) => origin,
        Err(problem) => return problem.into_response(),
    };
    let is_asked_before = request.method() == Method::OPTIONS && origin.is_some();
    let mut response =
        if is_asked_before { StatusCode::NO_CONTENT.into_response() } else { next.run(request).await };
    if let Some(origin) = origin {
        allow(response.headers_mut(), &origin);
    }
    response
}

fn refuse(detail: String) -> Problem {
    Trouble::ForeignOrigin.because(detail)
}

fn check_host(headers: &HeaderMap, hosts: &[String]) -> Result<(), Problem> {
    let Some(host) = headers.get(HOST).and_then(|host| host.to_str().ok()) else {
        return Err(refuse("the request names no host".to_owned()));
    };
    let host = host.to_ascii_lowercase();
    let name = host_name(&host);
    // An address cannot be made to point elsewhere, as a name can.
    let is_address = name.trim_matches(['[', ']']).parse::<IpAddr>().is_ok();
    if is_address || name == "localhost" || hosts.iter().any(|known| *known == host || *known == name) {
        return Ok(());
    }
    Err(refuse(format!("the host {name:?} is not one of http.hosts")))
}

/// The host without its port.
fn host_name(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if !name.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit()) => {
            // An IPv6 address without a port has colons of its own.
            if name.contains(':') && !name.ends_with(']') { host } else { name }
        }
        _ => host,
    }
}

/// The origin to be allowed by name, when it is another one than this daemon's own.
fn check_origin(app: &App, headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let origin = headers.get(ORIGIN).map(|origin| origin.to_str().unwrap_or("null").to_ascii_lowercase());
    let Some(origin) = origin else {
        // Browsers say from where a request without an origin comes.
        let site = headers.get("sec-fetch-site").and_then(|site| site.to_str().ok()).unwrap_or("none");
        let is_navigation = headers.get("sec-fetch-mode").is_some_and(|mode| mode == "navigate");
        if matches!(site, "none" | "same-origin") || is_navigation {
            return Ok(None);
        }
        return Err(refuse("another site asks for it, without saying which".to_owned()));
    };
    let host = headers.get(HOST).and_then(|host| host.to_str().ok()).unwrap_or("").to_ascii_lowercase();
    let own = origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://"));
    if own.is_some_and(|own| own == host && !host.is_empty()) {
        return Ok(None);
    }
    if app.config.http.origins.contains(&origin) {
        return Ok(Some(origin));
    }
    Err(refuse(format!("the origin {origin:?} is not one of http.origins")))
}

fn allow(headers: &mut HeaderMap, origin: &str) {
    put(headers, ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    put(headers, ACCESS_CONTROL_ALLOW_METHODS, "GET, PUT, POST, PATCH, DELETE");
    let sent = "authorization, comity-durability, comity-fresh, comity-token, comity-wait, content-type, \
                idempotency-key, last-event-id";
    put(headers, ACCESS_CONTROL_ALLOW_HEADERS, sent);
    put(headers, ACCESS_CONTROL_EXPOSE_HEADERS, "comity-durability, comity-token, retry-after");
    put(headers, ACCESS_CONTROL_MAX_AGE, "600");
    put(headers, VARY, "origin");
}

/// Finds out what a request may do.
pub(crate) async fn authorize(State(app): State<Arc<App>>, mut request: Request, next: Next) -> Response {
    match find_access(&app, &request) {
        Ok(access) => {
            request.extensions_mut().insert(access.clone());
            let mut response = next.run(request).await;
            response.extensions_mut().insert(access);
            response
        }
        Err(problem) => problem.into_response(),
    }
}

fn find_access(app: &App, request: &Request) -> Result<Access, Problem> {
    let http = &app.config.http;
    if let Some(given) = request.headers().get(AUTHORIZATION) {
        let token = given.to_str().ok().and_then(|given| given.split_once(' '));
        let token =
            token.filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer")).map(|(_, token)| token.trim());
        let access = token.and_then(|token| authenticate(&http.tokens, token));
        return access.ok_or_else(|| Trouble::Unauthenticated.because("the token is not known here"));
    }
    let is_local = request.extensions().get::<Via>().is_some_and(|via| via.is_local());
    match http.local_scope {
        Some(scope) if is_local && !is_proxied(request.headers()) => Ok(Access::local(scope)),
        _ => Err(Trouble::Unauthenticated.because("present a token as `Authorization: Bearer …`")),
    }
}

/// Refuses to write by an id or as durably as is asked where the route does not: these are the methods by which it does.
/// To ignore it would promise what is not kept.
pub(crate) async fn check_promises(
    State(writes): State<Arc<[Method]>>,
    request: Request,
    next: Next,
) -> Response {
    match broken_promise(&request, &writes) {
        Some(why) => Trouble::BadRequest.because(why).into_response(),
        None => next.run(request).await,
    }
}

fn broken_promise(request: &Request, writes: &[Method]) -> Option<&'static str> {
    let (method, headers) = (request.method(), request.headers());
    if matches!(*method, Method::GET | Method::HEAD) || writes.contains(method) {
        return None;
    }
    let mut query = request.uri().query().unwrap_or("").split('&');
    if headers.contains_key(IDEMPOTENCY_KEY) {
        Some("an Idempotency-Key is not remembered here; look whether it was done before it is repeated")
    } else if headers.contains_key(DURABILITY)
        || query.any(|pair| pair.split('=').next() == Some("durability"))
    {
        Some("this is durable at this replica when it is answered; no other durability can be asked for")
    } else {
        None
    }
}

/// Ends what takes too long. What it began may still happen: a write that was handed over is made.
pub(crate) async fn limit_time(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let time_max = app.request_time_max();
    match tokio::time::timeout(time_max, next.run(request)).await {
        Ok(response) => response,
        Err(_) => {
            let detail = format!("it took longer than http.request_ms_max, {} ms", time_max.as_millis());
            Trouble::Timeout.because(detail).into_response()
        }
    }
}

/// What every answer has: nothing is to be kept by caches nor guessed at by browsers, unless it says otherwise. Counts
/// and logs it; neither holds what was asked for beyond the route.
pub(crate) async fn mark(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let started = Instant::now();
    let method = request.method().clone();
    let route = request.extensions().get::<MatchedPath>().map(|path| path.as_str().to_owned());
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    headers.entry(CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    let (took, status) = (started.elapsed(), response.status().as_u16());
    let route = route.as_deref().unwrap_or("other");
    // Any word can be sent as a method.
    let method = if METHODS.contains(&method) { method.as_str() } else { "other" };
    app.served.note(method, route, status, took);
    let who = response.extensions().get::<Access>().map(|access| access.name.as_str());
    tracing::debug!(method, route, status, ms = took.as_millis() as u64, who, "answered");
    response
}

/// Methods that are counted apart.
const METHODS: [Method; 7] =
    [Method::GET, Method::HEAD, Method::POST, Method::PUT, Method::PATCH, Method::DELETE, Method::OPTIONS];

#[cfg(test)]
mod tests {
    use super::*;

    fn host(name: &str) -> Result<(), Problem> {
        let mut headers = HeaderMap::new();
        headers.insert(HOST, HeaderValue::from_str(name).unwrap());
        check_host(&headers, &["desk.example".to_owned(), "other.example:8443".to_owned()])
    }

    #[test]
    fn only_names_that_are_listed_and_addresses_are_taken() {
        for name in [
            "localhost",
            "LOCALHOST:4480",
            "127.0.0.1:4480",
            "[::1]:4480",
            "[::1]",
            "10.1.2.3",
            "desk.example:1",
            "other.example:8443",
        ] {
            assert!(host(name).is_ok(), "{name}");
        }
        for name in
            ["evil.example", "localhost.evil.example:80", "127.0.0.1.evil.example", "other.example", ""]
        {
            assert!(host(name).is_err(), "{name}");
        }
        assert!(check_host(&HeaderMap::new(), &[]).is_err());
    }
}
