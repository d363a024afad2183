//! The journal: what was set aside, kept readable.

use comity_crdts::{Dot, Hlc, ObjectAddress, ObjectId, Sibling, SpaceId, Value, canary};
use serde::{Deserialize, Serialize};

use crate::keys;
use crate::rows::damaged;
use crate::store::{StateRead, StoreError};
use crate::work::Work;

/// Why a value is in the journal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum JournalReason {
    /// It was one of several siblings that one write replaced, so it may never have been the one shown.
    SiblingReplaced,
    /// The document library refused the change; the rest of its change set was applied.
    ChangeRefused {
        /// What the library said.
        detail: String,
    },
}

/// One journal entry.
#[derive(Clone, Debug, PartialEq)]
pub struct JournalEntry {
    /// The object concerned.
    pub object: ObjectAddress,
    /// The operation whose value this is.
    pub dot: Dot,
    /// When the value was set aside: the stamp of the change set that did it, or that was refused.
    pub at: Hlc,
    /// The value; for a refused document change its raw bytes.
    pub value: Value,
    /// Why.
    pub reason: JournalReason,
}

#[derive(Serialize, Deserialize)]
struct JournalRow {
    kind: comity_crdts::Kind,
    collection: String,
    key: String,
    dot: Dot,
    at: Hlc,
    value: Vec<u8>,
    reason: JournalReason,
}

/// Journals the siblings that one operation removed, when there were two or more of them: which one was
/// shown depends on the policy, so all are kept.
pub(crate) fn record_siblings(
    work: &mut Work<'_>,
    space: &SpaceId,
    object: &ObjectAddress,
    at: Hlc,
    removed: Vec<(Dot, Sibling)>,
) {
    if removed.len() < 2 || canary!(LoserNotJournalled) {
        return;
    }
    for (dot, sibling) in removed {
        record(
            work,
            space,
            &JournalEntry {
                object: object.clone(),
                dot,
                at,
                value: sibling.value,
                reason: JournalReason::SiblingReplaced,
            },
        );
    }
}

pub(crate) fn record(work: &mut Work<'_>, space: &SpaceId, entry: &JournalEntry) {
    let id = ObjectId::derive(space, &entry.object);
    let row = JournalRow {
        kind: entry.object.kind(),
        collection: entry.object.collection().to_owned(),
        key: entry.object.key().to_owned(),
        dot: entry.dot,
        at: entry.at,
        value: entry.value.to_bytes(),
        reason: entry.reason.clone(),
    };
    let bytes = postcard::to_allocvec(&row).expect("a journal row is plain data, which always encodes");
    work.put(keys::journal_row(space, entry.at, &id, &entry.dot), bytes);
}

/// The oldest `limit` journal entries of a space. O(entries).
///
/// # Errors
/// [`StoreError`] when storage fails or a row is damaged.
pub fn journal(read: &dyn StateRead, space: &SpaceId, limit: usize) -> Result<Vec<JournalEntry>, StoreError> {
    let (from, until) = keys::journal(space);
    let rows = read.scan(&from, &until, limit)?;
    rows.iter().map(|(_, bytes)| decode(bytes)).collect()
}

fn decode(bytes: &[u8]) -> Result<JournalEntry, StoreError> {
    let row: JournalRow = postcard::from_bytes(bytes).map_err(|error| damaged("journal row", &error))?;
    let object = ObjectAddress::new(row.kind, &row.collection, &row.key)
        .map_err(|error| damaged("journal row", &error))?;
    let value =
        Value::from_bytes(&row.value, row.value.len()).map_err(|error| damaged("journal row", &error))?;
    Ok(JournalEntry { object, dot: row.dot, at: row.at, value, reason: row.reason })
}
