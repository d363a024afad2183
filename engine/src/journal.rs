//! The journal: what was set aside, kept readable. It is a replica's own record, not replicated state: each
//! replica keeps what its own reading of the change sets set aside, and forgets it by its own limits.

use std::collections::BTreeMap;

use comity_crdts::{
    Dot, Hlc, Kind, MvRegister, ObjectAddress, ObjectId, Policy, PolicyRegistry, RegisterView, ReplicaId,
    Sibling, SpaceId, Value, canary,
};
use serde::{Deserialize, Serialize};

use crate::change::ChangeSet;
use crate::conflicts::{Location, LocationRow};
use crate::keys;
use crate::op::Op;
use crate::read::author_of;
use crate::rows::damaged;
use crate::space::{decode, encode};
use crate::store::{StateRead, StoreError};
use crate::work::Work;

/// Why a value is in the journal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum JournalReason {
    /// A write replaced it while it was one of several siblings, so it may never have been the one shown.
    SiblingReplaced,
    /// The document library refused the change; the rest of its change set was applied.
    ChangeRefused {
        /// What the library said.
        detail: String,
    },
    /// Something was removed while it held it as one of several siblings.
    SiblingRemoved,
    /// The document was removed by somebody who had not seen the change.
    DocumentRemoved,
    /// It was added to a remove-wins set, or enabled a disable-wins flag, and somebody removed or disabled the same
    /// without having seen that. Of an element that was added again by somebody who had seen the removal, this is history.
    RemovalWon,
    /// It was removed from under a key of a map that led to several kinds.
    KindRemoved,
    /// It was written here and could not be kept when the state of another replica was taken over: it was on the other
    /// branch of a lane that was rolled back, or built on what was.
    BranchLost,
}

/// One journal entry: who wrote which value when, and what set it aside.
#[derive(Clone, Debug, PartialEq)]
pub struct JournalEntry {
    /// Where it was.
    pub location: Location,
    /// The kind of what held it there.
    pub kind: Kind,
    /// The operation whose value this is; of a counter, whose value many made, the one that removed it. Of a change that was in a document when the document was removed only its
    /// author's lane and the number are known that the author gave it within the document.
    pub dot: Dot,
    /// Who wrote it; `None` when the lane it came in is not known here any more.
    pub author: Option<ReplicaId>,
    /// When it was written. Of what was under a key with several kinds that is known of registers only, and of all else this
    /// is when it was removed.
    pub written: Hlc,
    /// The value; the element of a set; `true` of a flag; the sum of a counter, as text where it is no 64-bit integer; of a
    /// document's change the raw bytes.
    pub value: Value,
    /// Why it is here.
    pub reason: JournalReason,
    /// The operation that set it aside; the refused change itself when it was refused.
    pub by: Dot,
    /// Who did that.
    pub by_author: Option<ReplicaId>,
    /// The stamp of the change set that did it; that of the value itself when what set it aside was known before it came.
    pub at: Hlc,
}

/// How much a space's journal may hold. What is older, and the oldest of what is more, is forgotten when the
/// next entry comes, and when the replica starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JournalLimits {
    /// Milliseconds between the stamp of an entry and the wall clock.
    pub age_ms_max: u64,
    /// The rows of all entries together.
    pub bytes_max: u64,
}

impl JournalLimits {
    /// Ninety days, 64 MiB.
    pub const USUAL: Self = Self { age_ms_max: 90 * 24 * 60 * 60 * 1_000, bytes_max: 64 * 1024 * 1024 };
}

impl Default for JournalLimits {
    fn default() -> Self {
        Self::USUAL
    }
}

/// What a space's journal holds, and what it has forgotten.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct JournalTotals {
    /// Entries that are there.
    pub entries: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Entries forgotten because of their age, or for want of room.
    pub pruned: u64,
}

#[derive(Serialize, Deserialize)]
struct JournalRow {
    location: LocationRow,
    dot: Dot,
    written: Hlc,
    value: Vec<u8>,
    reason: JournalReason,
    by: Dot,
    at: Hlc,
}

/// Siblings that one operation removed from a register that held others too.
pub(crate) struct SetAside {
    pub(crate) by: Dot,
    pub(crate) at: Hlc,
    /// The operation wrote something in their place.
    pub(crate) was_written: bool,
    pub(crate) siblings: Vec<(Dot, Sibling)>,
}

/// Journals what an operation removed from a register that held several siblings: which one was shown depends
/// on the policy, so all are kept.
pub(crate) fn record_siblings(
    work: &mut Work<'_>,
    space: &SpaceId,
    (object, path): (&ObjectAddress, &[String]),
    aside: SetAside,
) -> Result<(), StoreError> {
    if canary!(LoserNotJournalled) {
        return Ok(());
    }
    let reason =
        if aside.was_written { JournalReason::SiblingReplaced } else { JournalReason::SiblingRemoved };
    for (dot, Sibling { hlc, value }) in aside.siblings {
        let row = JournalRow {
            location: LocationRow::new(object, path),
            dot,
            written: hlc,
            value: value.to_bytes(),
            reason: reason.clone(),
            by: aside.by,
            at: aside.at,
        };
        record(work, space, object, &row)?;
    }
    Ok(())
}

/// Journals an addition that a removal has beaten. The object's kind tells that.
pub(crate) fn record_beaten(
    work: &mut Work<'_>,
    space: &SpaceId,
    object: &ObjectAddress,
    by_at: (Dot, Hlc),
    addition: &Discarded,
) -> Result<(), StoreError> {
    record_gone(work, space, (object, &[]), by_at, addition)
}

/// Something that went, and the kind of what held it.
pub(crate) struct Discarded {
    pub(crate) kind: Kind,
    pub(crate) dot: Dot,
    pub(crate) written: Hlc,
    pub(crate) value: Value,
}

/// Journals what an operation removed from under a key of a map that led to several kinds.
pub(crate) fn record_discarded(
    work: &mut Work<'_>,
    space: &SpaceId,
    (object, path): (&ObjectAddress, &[String]),
    by_at: (Dot, Hlc),
    discarded: &Discarded,
) -> Result<(), StoreError> {
    let path = marked(path, discarded.kind, "");
    record_gone(work, space, (object, &path), by_at, discarded)
}

/// Journals what a change set did that is not kept: what it wrote and added. What it removed is there still.
pub(crate) fn record_lost(
    work: &mut Work<'_>,
    space: &SpaceId,
    change: &ChangeSet,
) -> Result<(), StoreError> {
    for group in &change.groups {
        for (index, op) in group.ops.iter().enumerate() {
            let (path, op) = match op {
                Op::Nested { path, op } => (&path[..], &**op),
                op => (&[][..], op),
            };
            let value = match op {
                Op::CounterAdd(delta) => Value::I64(*delta),
                Op::RegisterSet { value, .. } => value.clone(),
                Op::SetAdd { element, .. } | Op::RwSetAdd { element } => element.clone(),
                Op::FlagEnable { .. } | Op::DwFlagEnable => Value::Bool(true),
                Op::DocumentChange(change) => Value::Bytes(change.bytes().to_vec()),
                _ => continue,
            };
            let dot = Dot { origin: change.origin, seq: change.seq, index: index as u16 };
            let lost = Discarded { kind: op.kind(), dot, written: change.hlc, value };
            let path = marked(path, lost.kind, LOST);
            record_gone(work, space, (&group.address, &path), (dot, change.hlc), &lost)?;
        }
    }
    Ok(())
}

/// What is said of a row beside its kind when its change set was lost.
const LOST: &str = "l";

/// A path with a kind at its end. Keys hold no zero byte, so that is none.
fn marked(path: &[String], kind: Kind, more: &str) -> Vec<String> {
    [path, &[format!("\0{}{more}", kind.tag())]].concat()
}

/// Journals something that went. The reason does not say why, because builds that do not know it take over journals, too.
fn record_gone(
    work: &mut Work<'_>,
    space: &SpaceId,
    (object, path): (&ObjectAddress, &[String]),
    (by, at): (Dot, Hlc),
    discarded: &Discarded,
) -> Result<(), StoreError> {
    let row = JournalRow {
        location: LocationRow::new(object, path),
        dot: discarded.dot,
        written: discarded.written,
        value: discarded.value.to_bytes(),
        reason: JournalReason::SiblingRemoved,
        by,
        at,
    };
    record(work, space, object, &row)
}

/// What [`marked`] put at the end of a path, taken off.
fn take_mark(path: &mut Vec<String>) -> Option<(Kind, JournalReason)> {
    let mark = path.last()?.strip_prefix('\0')?;
    let (tag, reason) = match mark.strip_suffix(LOST) {
        Some(tag) => (tag, JournalReason::BranchLost),
        None => (mark, JournalReason::KindRemoved),
    };
    let kind = Kind::from_tag(tag.parse().ok()?)?;
    path.pop();
    Some((kind, reason))
}

/// A change that is none of its document, or no longer.
pub(crate) struct ChangeAside<'a> {
    pub(crate) dot: Dot,
    pub(crate) written: Hlc,
    pub(crate) change: &'a [u8],
    pub(crate) reason: JournalReason,
    pub(crate) by: Dot,
    pub(crate) at: Hlc,
}

/// Journals a change that is none of its document.
pub(crate) fn record_change(
    work: &mut Work<'_>,
    space: &SpaceId,
    object: &ObjectAddress,
    aside: ChangeAside<'_>,
) -> Result<(), StoreError> {
    let row = JournalRow {
        location: LocationRow::new(object, &[]),
        dot: aside.dot,
        written: aside.written,
        value: Value::Bytes(aside.change.to_vec()).to_bytes(),
        reason: aside.reason,
        by: aside.by,
        at: aside.at,
    };
    record(work, space, object, &row)
}

fn record(
    work: &mut Work<'_>,
    space: &SpaceId,
    object: &ObjectAddress,
    row: &JournalRow,
) -> Result<(), StoreError> {
    let key = keys::journal_row(space, row.at, &ObjectId::derive(space, object), &row.dot);
    let bytes = encode(row);
    record_row(work, space, key, bytes)
}

/// Puts a row into the journal. One that is there already, because what set it aside is applied again, stays one.
pub(crate) fn record_row(
    work: &mut Work<'_>,
    space: &SpaceId,
    key: Vec<u8>,
    bytes: Vec<u8>,
) -> Result<(), StoreError> {
    let mut totals = journal_totals(work, space)?;
    match work.get(&key)? {
        Some(before) => totals.bytes = totals.bytes.saturating_sub((key.len() + before.len()) as u64),
        None => totals.entries += 1,
    }
    totals.bytes += (key.len() + bytes.len()) as u64;
    work.put(keys::journal_totals(space), encode(&totals));
    work.put(keys::journal_by_object(&key), Vec::new());
    work.put(key, bytes);
    Ok(())
}

/// Whether a journal row that comes from elsewhere can be read.
pub(crate) fn check_journal_row(bytes: &[u8]) -> Result<(), StoreError> {
    let row: JournalRow = decode("journal row", bytes)?;
    row.location.location("journal row")?;
    Value::from_bytes(&row.value, row.value.len()).map(drop).map_err(|error| damaged("journal row", &error))
}

/// Journal rows that are read at a time to forget some.
const PRUNE_PAGE_ROWS: usize = 16;

/// Forgets what the limits say, at most `rows_max` entries of it, and what is left of a page. Returns whether there may be more.
pub(crate) fn prune(
    work: &mut Work<'_>,
    space: &SpaceId,
    (limits, wall_ms): (&JournalLimits, u64),
    rows_max: usize,
) -> Result<bool, StoreError> {
    let mut totals = journal_totals(work, space)?;
    let (from, until) = keys::journal(space);
    let (mut forgotten, oldest_ms) = (0, wall_ms.saturating_sub(limits.age_ms_max));
    'pages: while forgotten < rows_max as u64 {
        // Rows are large, and usually the first one stays.
        let rows = work.scan(&from, &until, PRUNE_PAGE_ROWS)?;
        if rows.is_empty() {
            break;
        }
        for (key, bytes) in rows {
            let at = key.get(17..25).and_then(|bits| bits.try_into().ok()).map(u64::from_be_bytes);
            let at = Hlc::from_bits(at.ok_or_else(|| damaged("journal row", &"its key is none"))?);
            if totals.bytes <= limits.bytes_max && at.millis() >= oldest_ms {
                break 'pages;
            }
            totals.bytes = totals.bytes.saturating_sub((key.len() + bytes.len()) as u64);
            forgotten += 1;
            work.delete(keys::journal_by_object(&key));
            work.delete(key);
        }
    }
    if forgotten > 0 {
        totals.entries = totals.entries.saturating_sub(forgotten);
        totals.pruned += forgotten;
        work.put(keys::journal_totals(space), encode(&totals));
    }
    Ok(forgotten >= rows_max as u64)
}

/// What a space's journal holds.
///
/// # Errors
/// [`StoreError`] when storage fails or the row is damaged.
pub fn journal_totals(read: &dyn StateRead, space: &SpaceId) -> Result<JournalTotals, StoreError> {
    read.get(&keys::journal_totals(space))?
        .map_or_else(|| Ok(JournalTotals::default()), |bytes| decode("journal totals", &bytes))
}

/// The oldest `limit` journal entries of a space. O(entries).
///
/// # Errors
/// [`StoreError`] when storage fails or a row is damaged.
pub fn journal(read: &dyn StateRead, space: &SpaceId, limit: usize) -> Result<Vec<JournalEntry>, StoreError> {
    let (from, until) = keys::journal(space);
    let rows = read.scan(&from, &until, limit)?;
    rows.iter().map(|(_, bytes)| decode_row(read, space, bytes)).collect()
}

/// The place of an entry in the order of a journal, which stays the same for as long as the entry is there.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct JournalPlace(Vec<u8>);

impl JournalPlace {
    /// The place as bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        self.0.clone()
    }

    /// What [`JournalPlace::to_bytes`] gave; `None` for what is none.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        (bytes.len() == keys::JOURNAL_PLACE_BYTES).then(|| Self(bytes.to_vec()))
    }
}

impl std::fmt::Debug for JournalPlace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("JournalPlace(…)")
    }
}

/// At most `limit` journal entries after the place `after`, oldest first, of one object where it is named, each with
/// its place. O(entries · log n).
///
/// # Errors
/// [`StoreError`] when storage fails or a row is damaged.
pub fn journal_after(
    read: &dyn StateRead,
    space: &SpaceId,
    object: Option<&ObjectAddress>,
    after: Option<&JournalPlace>,
    limit: usize,
) -> Result<Vec<(JournalPlace, JournalEntry)>, StoreError> {
    let row_at = |place: &JournalPlace| keys::journal_at(space, &place.0);
    let (mut from, until) = match object {
        Some(object) => keys::journal_of(space, &ObjectId::derive(space, object)),
        None => keys::journal(space),
    };
    if let Some(place) = after {
        let row = row_at(place);
        let mut next = if object.is_some() { keys::journal_by_object(&row) } else { row };
        next.push(0);
        from = from.max(next);
    }
    let mut entries = Vec::new();
    for (key, bytes) in read.scan(&from, &until, limit)? {
        let (row, bytes) = match object {
            None => (key, bytes),
            Some(_) => {
                let row = keys::journal_from_object(&key);
                let row = row.ok_or_else(|| damaged("journal index", &"its key is none"))?;
                let bytes = read.get(&row)?;
                (row, bytes.ok_or_else(|| damaged("journal index", &"it names no journal row"))?)
            }
        };
        let place = keys::journal_place(&row).ok_or_else(|| damaged("journal row", &"its key is none"))?;
        entries.push((JournalPlace(place.to_vec()), decode_row(read, space, &bytes)?));
    }
    Ok(entries)
}

/// The oldest `limit` journal entries of one object. O(entries · log n).
///
/// # Errors
/// [`StoreError`] when storage fails or a row is damaged.
pub fn journal_of(
    read: &dyn StateRead,
    space: &SpaceId,
    object: &ObjectAddress,
    limit: usize,
) -> Result<Vec<JournalEntry>, StoreError> {
    let (from, until) = keys::journal_of(space, &ObjectId::derive(space, object));
    let mut entries = Vec::new();
    for (key, _) in read.scan(&from, &until, limit)? {
        let row =
            keys::journal_from_object(&key).ok_or_else(|| damaged("journal index", &"its key is none"))?;
        let bytes = read.get(&row)?.ok_or_else(|| damaged("journal index", &"it names no journal row"))?;
        entries.push(decode_row(read, space, &bytes)?);
    }
    Ok(entries)
}

pub(crate) fn decode_row(
    read: &dyn StateRead,
    space: &SpaceId,
    bytes: &[u8],
) -> Result<JournalEntry, StoreError> {
    let row: JournalRow = decode("journal row", bytes)?;
    let value =
        Value::from_bytes(&row.value, row.value.len()).map_err(|error| damaged("journal row", &error))?;
    let mut location = row.location.location("journal row")?;
    let top = location.object.kind();
    let (kind, reason) = match (row.reason, top, take_mark(&mut location.path)) {
        (JournalReason::SiblingRemoved, _, Some(marked)) => marked,
        (JournalReason::SiblingRemoved, Kind::RwSet | Kind::DwFlag, _) => (top, JournalReason::RemovalWon),
        (reason, Kind::Map, _) => (Kind::Register, reason),
        (reason, top, _) => (top, reason),
    };
    Ok(JournalEntry {
        location,
        kind,
        dot: row.dot,
        author: author_of(read, space, &row.dot.origin)?,
        written: row.written,
        value,
        reason,
        by: row.by,
        by_author: author_of(read, space, &row.by.origin)?,
        at: row.at,
    })
}

/// Siblings that were set aside together, and what a policy makes of them.
#[derive(Clone, Debug, PartialEq)]
pub struct Replayed {
    /// Where they were.
    pub location: Location,
    /// The siblings that are in the journal, in dot order.
    pub siblings: Vec<JournalEntry>,
    /// The operation that set them aside.
    pub by: Dot,
    /// What the policy would have shown.
    pub chosen: RegisterView,
}

/// Runs a policy over the conflicts that are in the journal, oldest first, and tells what it would have shown
/// before somebody decided. Of a decision over some of the siblings only those are known. Reads `limit` entries,
/// and then the rest of what the last of them was decided with. Changes nothing. O(entries).
///
/// # Errors
/// [`StoreError`] when storage fails or a row is damaged.
pub fn replay(
    read: &dyn StateRead,
    space: &SpaceId,
    (policy, registry): (&Policy, &PolicyRegistry),
    limit: usize,
) -> Result<Vec<Replayed>, StoreError> {
    let mut groups: BTreeMap<(Hlc, Dot, Location), Vec<JournalEntry>> = BTreeMap::new();
    let (from, until) = keys::journal(space);
    let rows = read.scan(&from, &until, limit)?;
    let entries = rows.iter().map(|(_, bytes)| decode_row(read, space, bytes));
    let mut entries: Vec<JournalEntry> = entries.collect::<Result<_, _>>()?;
    if let Some(((key, _), last)) = rows.last().zip(entries.last().cloned()).filter(|_| rows.len() == limit) {
        let (from, until) = keys::journal_rest(key);
        for (_, bytes) in read.scan(&from, &until, usize::MAX)? {
            let entry = decode_row(read, space, &bytes)?;
            if (entry.by, &entry.location) == (last.by, &last.location) {
                entries.push(entry);
            }
        }
    }
    for entry in entries {
        // How settings are decided is no policy's matter.
        let is_setting = entry.location.object.kind() == Kind::Settings;
        if matches!(entry.reason, JournalReason::SiblingReplaced | JournalReason::SiblingRemoved)
            && !is_setting
        {
            groups.entry((entry.at, entry.by, entry.location.clone())).or_default().push(entry);
        }
    }
    let replayed = groups.into_iter().map(|((_, by, location), siblings)| {
        let mut register = MvRegister::new();
        for JournalEntry { dot, written, value, .. } in &siblings {
            register.set(*dot, Sibling { hlc: *written, value: value.clone() }, &[]);
        }
        let chosen = policy.view_with(&register, registry);
        Replayed { location, siblings, by, chosen }
    });
    Ok(replayed.collect())
}
