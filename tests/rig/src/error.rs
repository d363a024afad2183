//! What can keep the rig itself from working. What it finds out about replicas is a
//! [`Violation`](crate::ledger::Violation) instead.

use std::io;
use std::path::Path;

/// Why the rig cannot go on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RigError {
    /// The operating system refused something.
    #[error("{what}: {source}")]
    Io {
        /// What was tried.
        what: String,
        /// What it said.
        source: io::Error,
    },
    /// A program of the system's failed.
    #[error("`{command}` failed: {said}")]
    Tool {
        /// The command line.
        command: String,
        /// What it wrote to its standard error.
        said: String,
    },
    /// A line that nobody understands.
    #[error("not understood: {line:?}")]
    Line {
        /// The line.
        line: String,
    },
    /// The caller's arguments make no sense.
    #[error("{0}")]
    Arguments(String),
    /// A replica did what stops the rig.
    #[error("node {node}: {what}")]
    Node {
        /// Which.
        node: usize,
        /// What it did.
        what: String,
    },
}

impl RigError {
    /// For a line that is not understood.
    pub fn line(line: &str) -> Self {
        Self::Line { line: line.to_owned() }
    }

    /// Names what was tried.
    pub fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        |source| Self::Io { what, source }
    }

    /// Names the path that was used.
    pub fn path(path: &Path) -> impl FnOnce(io::Error) -> Self {
        Self::io(path.display().to_string())
    }
}
