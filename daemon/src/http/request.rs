//! What requests say besides their paths: bodies, guarantees, access; and what answers say back.

use std::time::Duration;

use axum::body::Bytes;
use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use comity::{Durability, Receipt, Space, Token, Transact, View, WAIT_DEFAULT, WriteError};
use data_encoding::BASE64URL_NOPAD;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::problem::{Problem, Trouble};
use crate::auth::{Access, Scope};

/// A token of a space, in both directions.
pub(crate) const TOKEN: HeaderName = HeaderName::from_static("comity-token");
/// How durable a write must be, and how durable it is.
pub(crate) const DURABILITY: HeaderName = HeaderName::from_static("comity-durability");
/// How old what is read may be, in milliseconds.
pub(crate) const FRESH: HeaderName = HeaderName::from_static("comity-fresh");
/// How long to wait for other replicas, in milliseconds.
pub(crate) const WAIT: HeaderName = HeaderName::from_static("comity-wait");
/// The client's own id of a write.
pub(crate) const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// The longest that a request may ask to wait.
const WAIT_MAX: Duration = Duration::from_secs(600);

/// A token as text.
pub(crate) fn token_text(token: &Token) -> String {
    BASE64URL_NOPAD.encode(&token.to_bytes())
}

/// The token in a text.
pub(crate) fn parse_token(text: &str) -> Result<Token, Problem> {
    let bytes = BASE64URL_NOPAD.decode(text.as_bytes()).ok();
    let token = bytes.and_then(|bytes| Token::from_bytes(&bytes).ok());
    token.ok_or_else(|| {
        Trouble::BadRequest.because("the token is damaged: hand back what Comity-Token said, unchanged")
    })
}

/// What a request asks for beyond its own matter.
#[derive(Debug)]
pub(crate) struct Asked {
    /// What must have been seen.
    pub(crate) token: Option<Token>,
    durability: Durability,
    fresh: Option<Duration>,
    read_quorum: bool,
    wait: Option<Duration>,
    pub(crate) idempotency_key: Option<String>,
}

impl<S: Send + Sync> FromRequestParts<S> for Asked {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Problem> {
        let query = pairs(parts)?;
        let either = |name: HeaderName, parameter: &'static str| -> Result<Option<String>, Problem> {
            let header = text(&parts.headers, &name)?;
            let parameter = query.iter().find(|(key, _)| key == parameter).map(|(_, value)| value.clone());
            Ok(header.or(parameter))
        };
        let token = either(TOKEN, "token")?.map(|text| parse_token(&text)).transpose()?;
        let durability = either(DURABILITY, "durability")?;
        let durability = durability.map_or(Ok(Durability::Local), |text| parse_durability(&text))?;
        let fresh = either(FRESH, "fresh_ms")?.map(|text| parse_ms("fresh_ms", &text)).transpose()?;
        let wait = either(WAIT, "wait_ms")?.map(|text| parse_ms("wait_ms", &text)).transpose()?;
        if let Some(wait) = wait.filter(|wait| *wait > WAIT_MAX) {
            let detail = format!("wait_ms is {}; the limit is {}", wait.as_millis(), WAIT_MAX.as_millis());
            return Err(Trouble::BadRequest.because(detail));
        }
        let read_quorum =
            match query.iter().find(|(key, _)| key == "read_quorum").map(|(_, value)| value.as_str()) {
                None | Some("false") => false,
                Some("true") => true,
                Some(other) => {
                    return Err(
                        Trouble::BadRequest.because(format!("read_quorum is true or false, not {other:?}"))
                    );
                }
            };
        let idempotency_key = text(&parts.headers, &IDEMPOTENCY_KEY)?;
        Ok(Self { token, durability, fresh, read_quorum, wait, idempotency_key })
    }
}

fn text(headers: &HeaderMap, name: &HeaderName) -> Result<Option<String>, Problem> {
    let Some(value) = headers.get(name) else { return Ok(None) };
    let text = value
        .to_str()
        .map_err(|_| Trouble::BadRequest.because(format!("the header {name} is no plain text")))?;
    Ok(Some(text.to_owned()))
}

/// The parameters of the query.
fn pairs(parts: &Parts) -> Result<Vec<(String, String)>, Problem> {
    let query = Query::<Vec<(String, String)>>::try_from_uri(&parts.uri);
    query.map(|Query(pairs)| pairs).map_err(|error| Trouble::BadRequest.because(error.body_text()))
}

fn parse_ms(name: &str, text: &str) -> Result<Duration, Problem> {
    let ms = text.parse::<u32>().map(|ms| Duration::from_millis(u64::from(ms)));
    ms.map_err(|_| Trouble::BadRequest.because(format!("{name} is a number of milliseconds, not {text:?}")))
}

fn parse_durability(text: &str) -> Result<Durability, Problem> {
    let number = |text: &str| text.parse::<u32>().ok();
    let parsed = match text.split_once('=') {
        None if text == "local" => Some(Durability::Local),
        None if text == "quorum" => Some(Durability::Quorum),
        None if text == "all" => Some(Durability::All),
        Some(("remote", count)) => number(count).map(Durability::Remote),
        Some(("regions", names)) if !names.is_empty() => {
            Some(Durability::Regions(names.split(',').map(|name| name.trim().to_owned()).collect()))
        }
        _ => None,
    };
    parsed.ok_or_else(|| {
        let rule = "it is local, remote=N, quorum, all, or regions=NAME,NAME";
        Trouble::BadRequest.because(format!("durability {text:?}: {rule}"))
    })
}

impl Asked {
    /// How long to wait for others.
    pub(crate) fn wait(&self) -> Duration {
        self.wait.unwrap_or(WAIT_DEFAULT)
    }

    /// Waits until what must have been seen is durable here.
    ///
    /// # Errors
    /// A [`Problem`] that says how far it is from that.
    pub(crate) async fn reach(&self, space: &Space) -> Result<(), Problem> {
        if let Some(token) = &self.token {
            space.at_within(token, self.wait()).await?;
        }
        Ok(())
    }

    /// A view as fresh as was asked for.
    ///
    /// # Errors
    /// A [`Problem`] that says how far it is from that.
    pub(crate) async fn view(&self, space: &Space) -> Result<View, Problem> {
        let mut view = None;
        if let Some(token) = &self.token {
            view = Some(space.at_within(token, self.wait()).await?);
        }
        if let Some(max_age) = self.fresh {
            view = Some(space.fresh_within(max_age, self.wait()).await?);
        }
        if self.read_quorum {
            view = Some(space.read_quorum(self.wait()).await?);
        }
        match view {
            Some(view) => Ok(view),
            None => Ok(space.view()?),
        }
    }

    /// Makes a write as was asked, and answers with what it came to.
    ///
    /// # Errors
    /// A [`Problem`]; nothing was written, unless it says that this is not known.
    pub(crate) async fn write(&self, write: Transact) -> Result<Response, Problem> {
        Ok(self.try_write(write).await?)
    }

    /// As [`Asked::write`], with the error as it is.
    pub(crate) async fn try_write(&self, write: Transact) -> Result<Response, WriteError> {
        let mut write = write.durability(self.durability.clone()).within(self.wait());
        if let Some(token) = &self.token {
            write = write.after(token);
        }
        match &self.idempotency_key {
            Some(key) => Ok(self.receipt(&write.operation_id(key).await?)),
            None => Ok(self.receipt(&write.await?)),
        }
    }

    /// The answer to a write: 200, or 202 when it is durable here and not yet as was asked.
    fn receipt<R>(&self, receipt: &Receipt<R>) -> Response {
        let (counted, needed) = receipt.progress();
        let replicas: Vec<String> = receipt.replicas().iter().map(ToString::to_string).collect();
        let token = token_text(&receipt.token());
        let body = json!({
            "token": token,
            "reached": receipt.reached(),
            "deduplicated": receipt.deduplicated(),
            "durability": {
                "asked": durability_name(&self.durability),
                "counted": counted,
                "needed": needed,
                "remote": receipt.remote(),
                "replicas": replicas,
                "regions": receipt.regions(),
            },
        });
        let status = if receipt.reached() { StatusCode::OK } else { StatusCode::ACCEPTED };
        let mut response = (status, axum::Json(body)).into_response();
        put(response.headers_mut(), TOKEN, &token);
        let said = format!(
            "{}; reached={}; counted={counted}; needed={needed}; remote={}",
            durability_name(&self.durability),
            receipt.reached(),
            receipt.remote()
        );
        put(response.headers_mut(), DURABILITY, &said);
        response
    }
}

fn durability_name(durability: &Durability) -> String {
    match durability {
        Durability::Local => "local".to_owned(),
        Durability::Remote(count) => format!("remote={count}"),
        Durability::Quorum => "quorum".to_owned(),
        Durability::All => "all".to_owned(),
        Durability::Regions(names) => format!("regions={}", names.join(",")),
        other => format!("{other:?}").to_lowercase(),
    }
}

/// Sets a header whose value is known to be one.
pub(crate) fn put(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}

/// An answer to a read: the body, and what it has seen as a token.
pub(crate) fn read_answer(token: &Token, body: Value) -> Response {
    let mut response = axum::Json(body).into_response();
    put(response.headers_mut(), TOKEN, &token_text(token));
    response
}

/// Does what reads from the disk, or takes long, on a thread for that.
pub(crate) async fn blocking<R: Send + 'static>(
    what: impl FnOnce() -> Result<R, Problem> + Send + 'static,
) -> Result<R, Problem> {
    match tokio::task::spawn_blocking(what).await {
        Ok(result) => result,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_) => Err(Trouble::Stopping.because("the daemon is going down")),
        },
    }
}

/// A body that is JSON, or a [`Problem`].
pub(crate) struct Json<T>(pub(crate) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Json<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        require_type(request.headers(), &["application/json"])?;
        let bytes = body(request, state).await?;
        parse_json(&bytes).map(Json)
    }
}

/// Refuses a body of another type than those taken. Pages of other origins can send forms and plain text without
/// asking, but none of these.
pub(crate) fn require_type(headers: &HeaderMap, taken: &[&str]) -> Result<String, Problem> {
    let given = text(headers, &axum::http::header::CONTENT_TYPE)?.unwrap_or_default();
    let essence = given.split(';').next().unwrap_or("").trim().to_ascii_lowercase();
    if taken.contains(&essence.as_str()) {
        return Ok(essence);
    }
    let detail = format!("the content type is {given:?}; what is taken here: {}", taken.join(", "));
    Err(Trouble::MediaType.because(detail))
}

/// The whole body, within the limit of the configuration.
pub(crate) async fn body<S: Send + Sync>(request: Request, state: &S) -> Result<Bytes, Problem> {
    Bytes::from_request(request, state).await.map_err(|rejection| match rejection.status() {
        StatusCode::PAYLOAD_TOO_LARGE => {
            Trouble::TooLarge.because("the body is longer than http.body_bytes_max")
        }
        _ => Trouble::BadRequest.because(rejection.body_text()),
    })
}

/// JSON in a body.
pub(crate) fn parse_json<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Problem> {
    serde_json::from_slice(bytes).map_err(|error| Trouble::BadRequest.because(format!("the body: {error}")))
}

/// Parameters of the query, or a [`Problem`].
pub(crate) struct Params<T>(pub(crate) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Params<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Problem> {
        let query = Query::<T>::try_from_uri(&parts.uri);
        query
            .map(|Query(params)| Self(params))
            .map_err(|error| Trouble::BadRequest.because(error.body_text()))
    }
}

/// Names in the path, or a [`Problem`].
pub(crate) struct Names<T>(pub(crate) T);

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for Names<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let path = Path::<T>::from_request_parts(parts, state).await;
        path.map(|Path(names)| Self(names)).map_err(|error| Trouble::BadRequest.because(error.body_text()))
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Access {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Problem> {
        let access = parts.extensions.get::<Self>().cloned();
        access.ok_or_else(|| Trouble::Unauthenticated.because("present a token as `Authorization: Bearer …`"))
    }
}

impl Access {
    /// Refuses what the scope does not include.
    ///
    /// # Errors
    /// A [`Problem`] that names the scope that is needed.
    pub(crate) fn require(&self, scope: Scope) -> Result<(), Problem> {
        if self.scope >= scope {
            return Ok(());
        }
        let detail = format!(
            "the token {:?} has the scope {}; this needs {}",
            self.name,
            self.scope.name(),
            scope.name()
        );
        Err(Trouble::Forbidden.because(detail))
    }

    /// As [`Access::require`], for what concerns more than one space.
    ///
    /// # Errors
    /// A [`Problem`].
    pub(crate) fn require_everywhere(&self, scope: Scope) -> Result<(), Problem> {
        self.require(scope)?;
        if self.is_everywhere() {
            return Ok(());
        }
        Err(Trouble::Forbidden.because(format!("the token {:?} counts in some spaces only", self.name)))
    }
}
