//! How commands fail, and with which exit code.

use hyper::StatusCode;
use serde_json::Value;

/// Why a command did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// It was asked wrongly. 2, as for arguments that are none.
    #[error("{0}")]
    Usage(String),
    /// No daemon answers. 3.
    #[error("{0}")]
    Unreachable(String),
    /// What was asked for is not there. 4.
    #[error("{0}")]
    NotFound(String),
    /// It was refused: not allowed, in conflict, out of limits. 5.
    #[error("{0}")]
    Refused(String),
    /// It may be done later: the outcome is not known yet, or others have not answered in time. 6.
    #[error("{0}")]
    NotYet(String),
    /// Verifying found faults. 7.
    #[error("{0}")]
    Faults(String),
    /// Anything else. 1.
    #[error("{0}")]
    Other(String),
}

#[expect(clippy::needless_pass_by_value, reason = "errors are given as they are, to be said and forgotten")]
impl Failure {
    pub(crate) fn usage(text: impl ToString) -> Self {
        Self::Usage(text.to_string())
    }

    pub(crate) fn other(text: impl ToString) -> Self {
        Self::Other(text.to_string())
    }

    /// What a daemon's problem means here.
    pub(crate) fn problem(status: StatusCode, body: &[u8]) -> Self {
        let body: Value = serde_json::from_slice(body).unwrap_or(Value::Null);
        let text = |name: &str| body.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
        let mut said = text("detail");
        if said.is_empty() {
            said = format!("the daemon answered {status}");
        }
        let kind = text("type");
        if let Some(advice) = advice(kind.rsplit(':').next().unwrap_or_default()) {
            said = format!("{said}; {advice}");
        }
        match status.as_u16() {
            404 | 410 => Self::NotFound(said),
            401 | 403 | 405 | 409 | 413 | 415 | 422 | 507 => Self::Refused(said),
            429 | 502..=504 => Self::NotYet(said),
            400 => Self::Usage(said),
            _ => Self::Other(said),
        }
    }

    /// The exit code.
    pub(crate) fn code(&self) -> u8 {
        match self {
            Self::Other(_) => 1,
            Self::Usage(_) => 2,
            Self::Unreachable(_) => 3,
            Self::NotFound(_) => 4,
            Self::Refused(_) => 5,
            Self::NotYet(_) => 6,
            Self::Faults(_) => 7,
        }
    }
}

/// What to do next about a kind of problem.
fn advice(kind: &str) -> Option<&'static str> {
    match kind {
        "unauthenticated" => Some("give a token with --token or COMITY_TOKEN (`comity token` makes one)"),
        "forbidden" => Some("use a token with that scope"),
        "unknown-space" => Some("`comity spaces` lists those that are here"),
        "undecided" => Some("`comity conflicts` shows them, `comity resolve` decides"),
        "insufficient-rights" => {
            Some("try again with --wait-ms, connected to the replicas that hold the rights")
        }
        "unconfirmed" => Some("connect to another writer of the space, and try again"),
        "stale" | "not-fresh" | "no-quorum" => Some("wait longer with --wait-ms, or look at `comity lag`"),
        "no-space" => Some("free some space on the daemon's disk"),
        "not-admin" => Some("ask an admin of the space"),
        _ => None,
    }
}

/// The table of exit codes, for the help.
pub(crate) const EXIT_CODES: &str = "Exit codes:
  0  done
  1  it failed
  2  it was asked wrongly
  3  no daemon answers
  4  what was asked for is not there
  5  it was refused: not allowed, in conflict, or out of limits
  6  not yet: others did not answer in time, or a write is not as durable as was asked
  7  verifying found faults";
