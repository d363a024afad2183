//! The history of a document: its versions, newest first, and what differs between two.

use std::cmp::Reverse;

use automerge::{Automerge, ChangeMetadata};

use super::DocumentPatch;
use super::json::{JsonError, known};

/// A change in the history of a document. Its hash, alone, names the version in which it and all it builds on are
/// done, and nothing else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DocumentVersion {
    /// The change.
    pub hash: [u8; 32],
    /// Who made it, 1 to 64 bytes; another for each replica, and for each time one was restored.
    pub actor: Vec<u8>,
    /// When, in seconds since the Unix epoch by its author's clock; 0 when the author did not say.
    pub time_seconds: i64,
    /// What the author said about it. Edits made here say nothing.
    pub message: Option<String>,
    /// The changes it builds on directly.
    pub deps: Vec<[u8; 32]>,
    /// The number of operations in it: characters, elements and values written or deleted.
    pub ops: u64,
}

/// At most `limit` versions, newest first, after the version `before` when it is given. No version comes before one
/// that builds on it, and the order is the same at every replica, so that pages go on where the last one ended; what
/// arrives in between shows where it belongs. O(changes × log changes).
///
/// # Errors
/// [`JsonError::UnknownVersion`] when `before` is not in the history.
pub fn list(
    document: &Automerge,
    before: Option<&[u8; 32]>,
    limit: usize,
) -> Result<Vec<DocumentVersion>, JsonError> {
    let mut changes = document.get_changes_meta(&[]);
    // The counters of a change are above those of all it builds on.
    changes.sort_by_key(|change| Reverse((change.max_op, change.start_op, change.hash)));
    let start = match before {
        None => 0,
        Some(before) => {
            let place = changes.iter().position(|change| change.hash.0 == *before);
            place.ok_or(JsonError::UnknownVersion { head: *before })? + 1
        }
    };
    Ok(changes.iter().skip(start).take(limit).map(version).collect())
}

/// What leads from the version `from` to the version `to`, which may be older. O(document).
///
/// # Errors
/// [`JsonError::UnknownVersion`].
pub fn diff(
    document: &Automerge,
    from: &[[u8; 32]],
    to: &[[u8; 32]],
) -> Result<Vec<DocumentPatch>, JsonError> {
    let (from, to) = (known(document, from)?, known(document, to)?);
    Ok(DocumentPatch::list(document, &document.diff(&from, &to)))
}

fn version(change: &ChangeMetadata<'_>) -> DocumentVersion {
    let mut deps: Vec<[u8; 32]> = change.deps.iter().map(|dependency| dependency.0).collect();
    deps.sort_unstable();
    DocumentVersion {
        hash: change.hash.0,
        actor: change.actor.to_bytes().to_vec(),
        time_seconds: change.timestamp,
        message: change.message.as_deref().map(str::to_owned),
        deps,
        ops: (change.max_op + 1).saturating_sub(change.start_op),
    }
}
