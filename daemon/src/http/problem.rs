//! Problems (RFC 9457): every answer that is an error is one, with a type that stays the same.

use axum::http::header::{CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use comity::{
    AddressError, CommandError, ContentError, DocumentReadError, ImportError, InviteError, JsonError,
    ReadError, RequestError, ResolveError, StoreError, TransactError, TransferError, TxError, WatchError,
    WriteError,
};
use serde_json::{Map, Value, json};

/// What every type starts with.
pub(crate) const TYPE_PREFIX: &str = "urn:comity:problem:";

macro_rules! troubles {
    ($($(#[$doc:meta])+ $name:ident = $kind:literal, $status:ident, $title:literal;)+) => {
        /// The kinds of problems. Names and statuses are part of the API.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum Trouble { $($(#[$doc])+ $name,)+ }

        impl Trouble {
            /// The last part of the type, the status, and the title.
            fn row(self) -> (&'static str, StatusCode, &'static str) {
                match self { $(Self::$name => ($kind, StatusCode::$status, $title),)+ }
            }

            /// All of them, as the API's description lists them.
            pub(crate) const ALL: &[Self] = &[$(Self::$name,)+];
        }
    };
}

troubles! {
    /// The request is malformed.
    BadRequest = "bad-request", BAD_REQUEST, "The request is malformed";
    /// No token, or none that is known.
    Unauthenticated = "unauthenticated", UNAUTHORIZED, "A bearer token is needed";
    /// The token does not allow it.
    Forbidden = "forbidden", FORBIDDEN, "This is not allowed";
    /// The name asked for, or the page that asks, is not allowed.
    ForeignOrigin = "foreign-origin", FORBIDDEN, "The host or the origin is not allowed";
    /// There is nothing under this path.
    NotFound = "not-found", NOT_FOUND, "There is nothing here";
    /// The space is not held here, or not shown to this token.
    UnknownSpace = "unknown-space", NOT_FOUND, "There is no such space at this replica";
    /// The path does not take this method.
    MethodNotAllowed = "method-not-allowed", METHOD_NOT_ALLOWED, "The path does not take this method";
    /// It took too long.
    Timeout = "timeout", GATEWAY_TIMEOUT, "The request took too long";
    /// The token is of another space.
    OtherSpace = "token-of-another-space", CONFLICT, "The token is of another space";
    /// Several values were written at the same time and the policy shows all.
    Undecided = "undecided", CONFLICT, "Several values are in conflict";
    /// Too few rights to a bounded counter are held here.
    Insufficient = "insufficient-rights", CONFLICT, "The counter cannot be lowered that far here";
    /// Something was done to the object that this build does not know.
    Held = "held", CONFLICT, "The object was changed in a way that this build does not know";
    /// No other replica has confirmed this incarnation.
    Unconfirmed = "unconfirmed", CONFLICT, "No other replica has confirmed this incarnation yet";
    /// There is no conflict there, or another one.
    NoConflict = "no-such-conflict", CONFLICT, "There is no such conflict";
    /// What was to be followed is not kept any more.
    Gone = "gone", GONE, "The change is not kept any more";
    /// The body is too long.
    TooLarge = "too-large", PAYLOAD_TOO_LARGE, "The body is too long";
    /// The body is of a type that is not taken here.
    MediaType = "unsupported-media-type", UNSUPPORTED_MEDIA_TYPE, "The content type is not taken here";
    /// The replica refuses the write.
    Refused = "refused", UNPROCESSABLE_ENTITY, "The write was refused";
    /// The replica may not do this in the space.
    NotAdmin = "not-admin", FORBIDDEN, "This replica is no admin of the space";
    /// This replica does not write in the space; another one does.
    NotWriter = "not-writer", FORBIDDEN, "This replica does not write in the space";
    /// This replica left the space, or was removed from it.
    NotFollowing = "not-following", FORBIDDEN, "This replica takes no part in the space any more";
    /// The replica is no member of the space.
    NotMember = "not-member", NOT_FOUND, "There is no such member";
    /// No admin would be left.
    LastAdmin = "last-admin", CONFLICT, "No admin would be left";
    /// Too many change feeds are open.
    TooManyStreams = "too-many-streams", TOO_MANY_REQUESTS, "Too many change feeds are open";
    /// The replica has not caught up in the time given.
    Stale = "stale", SERVICE_UNAVAILABLE, "The replica has not caught up yet";
    /// Freshness could not be had in the time given.
    NotFresh = "not-fresh", SERVICE_UNAVAILABLE, "The replica is not as fresh as was asked for";
    /// Too few members answered.
    NoQuorum = "no-quorum", SERVICE_UNAVAILABLE, "Too few members answered";
    /// The outcome of a write is not known.
    Indeterminate = "indeterminate", INTERNAL_SERVER_ERROR, "Whether the write is durable is not known";
    /// Writes come faster than the disk takes them.
    Overloaded = "overloaded", SERVICE_UNAVAILABLE, "The disk does not keep up";
    /// The disk is full.
    NoSpace = "no-space", INSUFFICIENT_STORAGE, "The disk is full";
    /// Storage failed.
    Storage = "storage-failed", INTERNAL_SERVER_ERROR, "Storage failed";
    /// The daemon is going down.
    Stopping = "stopping", SERVICE_UNAVAILABLE, "The daemon is going down";
    /// It cannot be done as things stand.
    Unavailable = "unavailable", CONFLICT, "This cannot be done as things stand";
}

impl Trouble {
    /// The whole type.
    pub(crate) fn kind(self) -> String {
        format!("{TYPE_PREFIX}{}", self.row().0)
    }

    /// The status of the answer.
    pub(crate) fn status(self) -> StatusCode {
        self.row().1
    }

    /// What all of its kind have in common.
    pub(crate) fn title(self) -> &'static str {
        self.row().2
    }

    /// A problem of this kind.
    #[expect(
        clippy::needless_pass_by_value,
        reason = "errors are given as they are, to be said and forgotten"
    )]
    pub(crate) fn because(self, detail: impl ToString) -> Problem {
        Problem { trouble: self, detail: detail.to_string(), members: Map::new() }
    }
}

/// One problem.
#[derive(Debug)]
pub(crate) struct Problem {
    pub(crate) trouble: Trouble,
    pub(crate) detail: String,
    /// Members of its own.
    members: Map<String, Value>,
}

impl Problem {
    /// Adds a member.
    pub(crate) fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.members.insert(name.to_owned(), value.into());
        self
    }

    /// The body.
    pub(crate) fn body(&self) -> Value {
        let mut body = json!({
            "type": self.trouble.kind(),
            "title": self.trouble.title(),
            "status": self.trouble.status().as_u16(),
            "detail": self.detail,
        });
        if let Value::Object(body) = &mut body {
            body.extend(self.members.clone());
        }
        body
    }
}

/// Seconds after which it makes sense to ask again.
const RETRY_SECONDS: &str = "1";

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = self.trouble.status();
        let mut response = (status, self.body().to_string()).into_response();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if matches!(status, StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS) {
            headers.insert(RETRY_AFTER, HeaderValue::from_static(RETRY_SECONDS));
        }
        response
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        let trouble = match error {
            StoreError::NoSpace => Trouble::NoSpace,
            StoreError::UnknownSpace(_) => Trouble::UnknownSpace,
            StoreError::Overloaded | StoreError::ViewExpired => Trouble::Overloaded,
            _ => Trouble::Storage,
        };
        trouble.because(error)
    }
}

impl From<AddressError> for Problem {
    fn from(error: AddressError) -> Self {
        Trouble::BadRequest.because(error)
    }
}

impl From<ReadError> for Problem {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Store(error) => error.into(),
            ReadError::Held { .. } => Trouble::Held.because(error),
            other => Trouble::BadRequest.because(other),
        }
    }
}

impl From<CommandError> for Problem {
    fn from(error: CommandError) -> Self {
        let detail = error.to_string();
        match error {
            CommandError::UnknownSpace(_) => Trouble::UnknownSpace.because(detail),
            CommandError::NotWriter { .. } => Trouble::NotWriter.because(detail),
            CommandError::NotFollowing { .. } => Trouble::NotFollowing.because(detail),
            CommandError::NotMember { .. } => Trouble::NotMember.because(detail),
            CommandError::LastAdmin { .. } => Trouble::LastAdmin.because(detail),
            CommandError::SpaceDeleted(_) => Trouble::UnknownSpace.because(detail),
            CommandError::NotAdmin(_) => Trouble::NotAdmin.because(detail),
            CommandError::Stale { missing } => Trouble::Stale.because(detail).with("missing", missing),
            CommandError::OtherSpace { .. } => Trouble::OtherSpace.because(detail),
            CommandError::NotFresh { by_ms, behind } => {
                let behind: Vec<String> = behind.iter().map(ToString::to_string).collect();
                Trouble::NotFresh.because(detail).with("by_ms", by_ms).with("behind", behind)
            }
            CommandError::NoQuorum { reached, needed } => {
                Trouble::NoQuorum.because(detail).with("reached", reached).with("needed", needed)
            }
            CommandError::Held { .. } => Trouble::Held.because(detail),
            CommandError::Unconfirmed(_) => Trouble::Unconfirmed.because(detail),
            CommandError::Rights { held, needed, .. } => {
                Trouble::Insufficient.because(detail).with("held", held).with("needed", needed)
            }
            CommandError::Store(error) => error.into(),
            CommandError::SpaceName { .. } | CommandError::Address(_) => Trouble::BadRequest.because(detail),
            _ => Trouble::Unavailable.because(detail),
        }
    }
}

impl From<RequestError> for Problem {
    fn from(error: RequestError) -> Self {
        match error {
            RequestError::Command(error) => error.into(),
            other => Trouble::Stopping.because(other),
        }
    }
}

impl From<TxError> for Problem {
    fn from(error: TxError) -> Self {
        let detail = error.to_string();
        match error {
            TxError::Store(error) => error.into(),
            TxError::Address(_) => Trouble::BadRequest.because(detail),
            TxError::Held { .. } => Trouble::Held.because(detail),
            TxError::Unconfirmed { .. } => Trouble::Unconfirmed.because(detail),
            TxError::NotWriter { writer, address, .. } => {
                let writer = writer.map(|writer| writer.to_string());
                Trouble::NotWriter.because(detail).with("writer", writer).with("address", address)
            }
            TxError::Bounded { .. } => Trouble::Insufficient.because(detail),
            TxError::Json {
                source: JsonError::NotFound { .. } | JsonError::UnknownVersion { .. }, ..
            } => Trouble::NotFound.because(detail),
            TxError::Refused(reason) if reason.is::<ResolveError>() => Trouble::NoConflict.because(detail),
            TxError::Refused(reason) if reason.is::<TransferError>() => Trouble::Unavailable.because(detail),
            TxError::Refused(reason) => match reason.downcast::<Refusal>() {
                Ok(refusal) => refusal.0,
                Err(_) => Trouble::Refused.because(detail),
            },
            _ => Trouble::Refused.because(detail),
        }
    }
}

/// A problem on its way out of a transaction.
#[derive(Debug, thiserror::Error)]
#[error("{}", .0.detail)]
pub(crate) struct Refusal(pub(crate) Problem);

impl From<WriteError> for Problem {
    fn from(error: WriteError) -> Self {
        let detail = error.to_string();
        match error {
            WriteError::Refused(TransactError::Refused(error)) => error.into(),
            WriteError::Refused(TransactError::UnknownSpace(_)) => Trouble::UnknownSpace.because(detail),
            WriteError::Refused(TransactError::Tx(error)) => error.into(),
            WriteError::Refused(TransactError::UnknownRegion(_)) => Trouble::BadRequest.because(detail),
            WriteError::Refused(_) => Trouble::Refused.because(detail),
            WriteError::Behind(error) => error.into(),
            WriteError::OperationName(_) => Trouble::BadRequest.because(detail),
            WriteError::Indeterminate(_) => Trouble::Indeterminate.because(detail),
            _ => Trouble::Stopping.because(detail),
        }
    }
}

impl From<DocumentReadError> for Problem {
    fn from(error: DocumentReadError) -> Self {
        let detail = error.to_string();
        match error {
            DocumentReadError::Read(error) => error.into(),
            DocumentReadError::Json { source, .. } => json_problem(&source, detail),
            _ => Trouble::BadRequest.because(detail),
        }
    }
}

fn json_problem(error: &JsonError, detail: String) -> Problem {
    match error {
        JsonError::NotFound { .. } | JsonError::UnknownVersion { .. } => Trouble::NotFound.because(detail),
        _ => Trouble::BadRequest.because(detail),
    }
}

impl From<JsonError> for Problem {
    fn from(error: JsonError) -> Self {
        json_problem(&error, error.to_string())
    }
}

impl From<ContentError> for Problem {
    fn from(error: ContentError) -> Self {
        let detail = error.to_string();
        match error {
            ContentError::Read(error) => error.into(),
            ContentError::Undecided { .. } => Trouble::Undecided.because(detail),
            _ => Trouble::BadRequest.because(detail),
        }
    }
}

impl From<InviteError> for Problem {
    fn from(error: InviteError) -> Self {
        match error {
            InviteError::Request(error) => error.into(),
            error => Trouble::Unavailable.because(format!(
                "{error}: set peers.listen, and peers.advertise where others need another address"
            )),
        }
    }
}

impl From<ImportError> for Problem {
    fn from(error: ImportError) -> Self {
        let detail = error.to_string();
        match error {
            ImportError::Address(error) => error.into(),
            ImportError::Write(error) => error.into(),
            _ => Trouble::BadRequest.because(detail),
        }
    }
}

impl From<WatchError> for Problem {
    fn from(error: WatchError) -> Self {
        let detail = error.to_string();
        match error {
            WatchError::Gone { place } => Trouble::Gone.because(detail).with("place", place),
            WatchError::OtherSpace { .. } => Trouble::OtherSpace.because(detail),
            WatchError::Store(error) => error.into(),
            WatchError::Lagged { behind, .. } => Trouble::Stale.because(detail).with("missing", behind),
            _ => Trouble::Stopping.because(detail),
        }
    }
}
