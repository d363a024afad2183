//! The layout of the state: which key holds what. `docs/storage.md` has the table.

use comity_crdts::{
    Dot, ExtensionTag, Hlc, Kind, LaneId, ObjectAddress, ObjectId, OriginId, ReplicaId, SpaceId,
};

/// The secret half of the replica's key.
pub(crate) const REPLICA_KEY: &[u8] = &[0x00, b'k'];

/// The version of the rows that the core keeps: one byte.
pub(crate) const ROWS_VERSION: &[u8] = &[0x00, b'v'];

fn join(prefix: u8, parts: &[&[u8]]) -> Vec<u8> {
    let mut key = Vec::with_capacity(1 + parts.iter().map(|part| part.len()).sum::<usize>());
    key.push(prefix);
    for part in parts {
        key.extend_from_slice(part);
    }
    key
}

/// Every space this replica holds.
pub(crate) fn spaces() -> (Vec<u8>, Vec<u8>) {
    (vec![0x01], vec![0x02])
}

pub(crate) fn space(space: &SpaceId) -> Vec<u8> {
    join(0x01, &[&space.0])
}

pub(crate) fn progress(space: &SpaceId) -> Vec<u8> {
    join(0x02, &[&space.0])
}

/// Every remembered peer address.
pub(crate) fn peer_addresses() -> (Vec<u8>, Vec<u8>) {
    (vec![0x04], vec![0x05])
}

pub(crate) fn peer_address(replica: &ReplicaId) -> Vec<u8> {
    join(0x04, &[&replica.0])
}

/// Every space that is being deleted.
pub(crate) fn deletions() -> (Vec<u8>, Vec<u8>) {
    (vec![0x06], vec![0x07])
}

/// How far the deletion of a space has come.
pub(crate) fn deletion(space: &SpaceId) -> Vec<u8> {
    join(0x06, &[&space.0])
}

/// Ranges of rows of a space that name nothing outside them, in no matter which order.
pub(crate) fn of_space(space: &SpaceId) -> impl Iterator<Item = (Vec<u8>, Vec<u8>)> + use<> {
    let prefixes = [
        0x02,
        0x05,
        0x12,
        0x23,
        0x24,
        0x26,
        0x36,
        QUARANTINE,
        0x38,
        ADDITIONS,
        ADDITIONS_BY_ENTRY,
        ADDITIONS_FORGOTTEN,
        HELD,
        HELD_CHANGES,
        0x40,
        0x41,
        0x42,
        0x4b,
        0x4c,
        0x4d,
        0x50,
        0x51,
        0x52,
        0x53,
        0x54,
    ];
    let space = *space;
    prefixes.into_iter().map(move |prefix| range(join(prefix, &[&space.0])))
}

/// The open invitations of every space.
pub(crate) fn all_invitations() -> (Vec<u8>, Vec<u8>) {
    (vec![0x05], vec![0x06])
}

pub(crate) fn invitation(space: &SpaceId, secret_hash: &[u8; 32]) -> Vec<u8> {
    join(0x05, &[&space.0, secret_hash])
}

pub(crate) fn apply_log(space: &SpaceId, position: u64) -> Vec<u8> {
    join(0x12, &[&space.0, &position.to_be_bytes()])
}

/// The places `first..=last` of the order in which a space's entries were applied here.
pub(crate) fn apply_log_range(space: &SpaceId, first: u64, last: u64) -> (Vec<u8>, Vec<u8>) {
    (apply_log(space, first), apply_log(space, last.saturating_add(1)))
}

/// The lanes of a space.
pub(crate) fn lanes(space: &SpaceId) -> (Vec<u8>, Vec<u8>) {
    range(join(0x21, &[&space.0]))
}

pub(crate) fn lane(space: &SpaceId, lane: &LaneId) -> Vec<u8> {
    join(0x21, &[&space.0, &lane.0])
}

pub(crate) fn head(space: &SpaceId, lane: &LaneId, lsn: u64) -> Vec<u8> {
    join(0x22, &[&space.0, &lane.0, &lsn.to_be_bytes()])
}

/// The kept heads of a lane from `lsn` on.
pub(crate) fn heads_from(space: &SpaceId, lane: &LaneId, lsn: u64) -> (Vec<u8>, Vec<u8>) {
    (head(space, lane, lsn), range(join(0x22, &[&space.0, &lane.0])).1)
}

/// The kept heads of a lane up to `lsn`.
pub(crate) fn heads_through(space: &SpaceId, lane: &LaneId, lsn: u64) -> (Vec<u8>, Vec<u8>) {
    (head(space, lane, 0), head(space, lane, lsn.saturating_add(1)))
}

pub(crate) fn object(space: &SpaceId, address: &ObjectAddress) -> Vec<u8> {
    let (collection, key) = (address.collection().as_bytes(), address.key().as_bytes());
    join(0x30, &[&space.0, &[address.kind().tag()], collection, &[0], key])
}

/// Whether a row is the header of an object that is in no other.
pub(crate) fn is_object(row: &[u8]) -> bool {
    row.first() == Some(&0x30)
}

/// The objects of one kind in one collection whose keys start with `prefix` and come after `after`.
pub(crate) fn objects(
    space: &SpaceId,
    kind: Kind,
    collection: &str,
    prefix: &str,
    after: Option<&str>,
) -> (Vec<u8>, Vec<u8>) {
    let base = join(0x30, &[&space.0, &[kind.tag()], collection.as_bytes(), &[0]]);
    let with = |name: &str| [base.as_slice(), name.as_bytes()].concat();
    let (mut from, until) = range(with(prefix));
    if let Some(after) = after {
        let mut next = with(after);
        next.push(0);
        from = from.max(next);
    }
    (from, until)
}

/// The objects of one kind in every collection after `after`. The NUL that ends a collection's name comes before all else
/// that a name may go on with.
pub(crate) fn collections(space: &SpaceId, kind: Kind, after: Option<&str>) -> (Vec<u8>, Vec<u8>) {
    let (mut from, until) = range(join(0x30, &[&space.0, &[kind.tag()]]));
    if let Some(after) = after {
        from.extend_from_slice(after.as_bytes());
        from.push(1);
    }
    (from, until)
}

/// The collection part of an object's row.
pub(crate) fn object_collection(row: &[u8]) -> Option<&[u8]> {
    row.get(1 + 16 + 1..)?.split(|byte| *byte == 0).next()
}

/// The objects of a space that are of a later version's kinds.
pub(crate) fn later_kinds(space: &SpaceId) -> (Vec<u8>, Vec<u8>) {
    (join(0x30, &[&space.0, &[ExtensionTag::MIN]]), range(join(0x30, &[&space.0])).1)
}

/// Every object of a space.
pub(crate) fn all_objects(space: &SpaceId) -> (Vec<u8>, Vec<u8>) {
    range(join(0x30, &[&space.0]))
}

/// The kind, the collection and the key of an object's row.
pub(crate) fn object_parts(row: &[u8]) -> Option<(Kind, &str, &str)> {
    let kind = Kind::from_tag(*row.get(17)?)?;
    let (collection, key) = std::str::from_utf8(row.get(18..)?).ok()?.split_once('\0')?;
    Some((kind, collection, key))
}

/// The key part of an object's row.
pub(crate) fn object_key<'a>(row: &'a [u8], collection: &str) -> &'a [u8] {
    &row[1 + 16 + 1 + collection.len() + 1..]
}

/// The elements of a set.
pub(crate) fn elements(object: &ObjectId) -> (Vec<u8>, Vec<u8>) {
    range(join(0x31, &[&object.0]))
}

pub(crate) fn element(object: &ObjectId, element: &[u8]) -> Vec<u8> {
    join(0x31, &[&object.0, element])
}

/// The element part of an element's row.
pub(crate) fn element_bytes(row: &[u8]) -> &[u8] {
    &row[1 + 16..]
}

/// The object that an element or a field is part of, and all its parts of that sort.
pub(crate) fn parts_beside(row: &[u8]) -> Option<(Vec<u8>, Vec<u8>)> {
    Some(range(row.get(..1 + 16)?.to_vec()))
}

/// The kind of the object whose header is in a row.
pub(crate) fn holder_kind(row: &[u8]) -> Option<Kind> {
    match row.first()? {
        0x30 => Kind::from_tag(*row.get(17)?),
        0x32 => field_parts(row).map(|(_, kind)| kind),
        _ => None,
    }
}

/// What a map holds, by key and kind.
pub(crate) fn fields(map: &ObjectId) -> (Vec<u8>, Vec<u8>) {
    range(join(0x32, &[&map.0]))
}

/// What a map holds under one key, by kind.
pub(crate) fn fields_of(map: &ObjectId, key: &str) -> (Vec<u8>, Vec<u8>) {
    range(join(0x32, &[&map.0, key.as_bytes(), &[0]]))
}

pub(crate) fn field(map: &ObjectId, key: &str, kind: Kind) -> Vec<u8> {
    join(0x32, &[&map.0, key.as_bytes(), &[0, kind.tag()]])
}

/// The key and the kind in a field's row.
pub(crate) fn field_parts(row: &[u8]) -> Option<(&str, Kind)> {
    let (name, kind) = row.get(1 + 16..)?.split_last_chunk::<2>()?;
    Some((std::str::from_utf8(name).ok()?, Kind::from_tag(kind[1])?))
}

/// Where the changes of a document stand in the log, in the order admitted here.
pub(crate) fn document_tail(object: &ObjectId, from: u64) -> (Vec<u8>, Vec<u8>) {
    (document_change(object, from), range(join(0x33, &[&object.0])).1)
}

pub(crate) fn document_change(object: &ObjectId, index: u64) -> Vec<u8> {
    join(0x33, &[&object.0, &index.to_be_bytes()])
}

/// The actors of a document.
pub(crate) fn document_actors(object: &ObjectId) -> (Vec<u8>, Vec<u8>) {
    range(join(0x34, &[&object.0]))
}

pub(crate) fn document_actor(object: &ObjectId, actor: &[u8]) -> Vec<u8> {
    join(0x34, &[&object.0, actor])
}

/// Every piece of every snapshot of a document.
pub(crate) fn document_snapshots(object: &ObjectId) -> (Vec<u8>, Vec<u8>) {
    range(join(0x35, &[&object.0]))
}

/// The pieces of one snapshot, in order.
pub(crate) fn document_snapshot(object: &ObjectId, number: u64) -> (Vec<u8>, Vec<u8>) {
    range(join(0x35, &[&object.0, &number.to_be_bytes()]))
}

pub(crate) fn document_snapshot_piece(object: &ObjectId, number: u64, piece: u32) -> Vec<u8> {
    join(0x35, &[&object.0, &number.to_be_bytes(), &piece.to_be_bytes()])
}

/// The first byte of a quarantine row's key.
pub(crate) const QUARANTINE: u8 = 0x39;

/// The changes of a space that the document library refused after they were admitted.
pub(crate) fn quarantine(space: &SpaceId) -> (Vec<u8>, Vec<u8>) {
    range(join(QUARANTINE, &[&space.0]))
}

/// Of these the ones of one document.
pub(crate) fn quarantine_of(space: &SpaceId, object: &ObjectId) -> (Vec<u8>, Vec<u8>) {
    range(join(QUARANTINE, &[&space.0, &object.0]))
}

pub(crate) fn quarantined(space: &SpaceId, object: &ObjectId, change: &[u8; 32]) -> Vec<u8> {
    join(QUARANTINE, &[&space.0, &object.0, change])
}

/// The first byte of the keys of change sets of which something is held,
pub(crate) const HELD_CHANGES: u8 = 0x28;
/// and of what is held of objects.
pub(crate) const HELD: u8 = 0x29;

/// What is held of an object, in the order of applying. Names hold no zero byte, so one ends the key.
pub(crate) fn held_of(space: &SpaceId, address: &ObjectAddress) -> (Vec<u8>, Vec<u8>) {
    range(held_base(space, address))
}

/// What a change set does to an object that is held.
pub(crate) fn held(space: &SpaceId, address: &ObjectAddress, place: u64) -> Vec<u8> {
    let mut key = held_base(space, address);
    key.extend_from_slice(&place.to_be_bytes());
    key
}

fn held_base(space: &SpaceId, address: &ObjectAddress) -> Vec<u8> {
    let mut key = object(space, address);
    key[0] = HELD;
    key.push(0);
    key
}

/// What is held of objects as [`objects`] names them.
pub(crate) fn held_among(
    space: &SpaceId,
    kind: Kind,
    collection: &str,
    prefix: &str,
    after: Option<&str>,
) -> (Vec<u8>, Vec<u8>) {
    let (from, until) = objects(space, kind, collection, prefix, None);
    let (mut from, until) = (as_held(&from), as_held(&until));
    let next = after.and_then(|after| ObjectAddress::new(kind, collection, after).ok());
    if let Some(next) = next {
        from = from.max(held_of(space, &next).1);
    }
    (from, until)
}

/// A key of a range of objects as one of what is held of them.
pub(crate) fn as_held(key: &[u8]) -> Vec<u8> {
    let mut key = key.to_vec();
    if let Some(prefix) = key.first_mut() {
        *prefix = if *prefix == 0x30 { HELD } else { HELD + 1 };
    }
    key
}

/// Everything that is held of objects of a space.
pub(crate) fn all_held(space: &SpaceId) -> (Vec<u8>, Vec<u8>) {
    range(join(HELD, &[&space.0]))
}

/// The object of which something is held, as the parts of its row, and the place of that in the order of applying.
pub(crate) fn held_parts(key: &[u8]) -> Option<(Kind, &str, &str, u64)> {
    let (object, place) = key.split_last_chunk::<8>()?;
    let (kind, collection, key) = object_parts(object.strip_suffix(&[0])?)?;
    Some((kind, collection, key, u64::from_be_bytes(*place)))
}

/// The change sets of which something is held, in the order of applying.
pub(crate) fn held_changes(space: &SpaceId) -> (Vec<u8>, Vec<u8>) {
    range(join(HELD_CHANGES, &[&space.0]))
}

pub(crate) fn held_change(space: &SpaceId, place: u64) -> Vec<u8> {
    join(HELD_CHANGES, &[&space.0, &place.to_be_bytes()])
}

/// The members of a space.
pub(crate) fn members(space: &SpaceId) -> (Vec<u8>, Vec<u8>) {
    range(join(0x36, &[&space.0]))
}

pub(crate) fn member(space: &SpaceId, replica: &ReplicaId) -> Vec<u8> {
    join(0x36, &[&space.0, &replica.0])
}

/// Rows of a space with something that can be forgotten once what put it there is stable, by the place of that.
pub(crate) fn unstable(space: &SpaceId) -> (Vec<u8>, Vec<u8>) {
    range(join(0x37, &[&space.0]))
}

/// Of these the ones that entries of one lane up to `lsn` put there.
pub(crate) fn unstable_through(space: &SpaceId, lane: &LaneId, lsn: u64) -> (Vec<u8>, Vec<u8>) {
    let first = join(0x37, &[&space.0, &lane.0]);
    (first, join(0x37, &[&space.0, &lane.0, &lsn.saturating_add(1).to_be_bytes()]))
}

pub(crate) fn unstable_row(space: &SpaceId, (lane, lsn): (LaneId, u64), row: &[u8]) -> Vec<u8> {
    join(0x37, &[&space.0, &lane.0, &lsn.to_be_bytes(), row])
}

/// The entry that put an unstable row there.
pub(crate) fn unstable_place(key: &[u8]) -> Option<(LaneId, u64)> {
    let lane = key.get(17..33)?.try_into().ok()?;
    Some((OriginId(lane), u64::from_be_bytes(key.get(33..41)?.try_into().ok()?)))
}

/// The row that an unstable row is about.
pub(crate) fn unstable_target(key: &[u8]) -> &[u8] {
    &key[41..]
}

/// The first byte of the keys of additions that removals may beat, by row,
pub(crate) const ADDITIONS: u8 = 0x3a;
/// and of the entries that carry them.
pub(crate) const ADDITIONS_BY_ENTRY: u8 = 0x3b;
/// The first byte of the key of up to where they may have been forgotten.
const ADDITIONS_FORGOTTEN: u8 = 0x2a;

/// The additions to a row.
pub(crate) fn additions(space: &SpaceId, row: &[u8]) -> Vec<u8> {
    join(ADDITIONS, &[&space.0, row])
}

/// That an entry of a lane added something to a row.
pub(crate) fn adding_entry(space: &SpaceId, (lane, lsn): (LaneId, u64)) -> Vec<u8> {
    join(ADDITIONS_BY_ENTRY, &[&space.0, &lane.0, &lsn.to_be_bytes()])
}

/// Of these the ones of a lane up to `lsn`.
pub(crate) fn adding_entries_through(space: &SpaceId, lane: &LaneId, lsn: u64) -> (Vec<u8>, Vec<u8>) {
    (adding_entry(space, (*lane, 0)), adding_entry(space, (*lane, lsn.saturating_add(1))))
}

/// Up to where additions may have been forgotten.
pub(crate) fn additions_forgotten(space: &SpaceId) -> Vec<u8> {
    with_space(ADDITIONS_FORGOTTEN, space)
}

/// Everything that is known of additions to rows of a space,
pub(crate) fn all_additions(space: &SpaceId) -> (Vec<u8>, Vec<u8>) {
    range(join(ADDITIONS, &[&space.0]))
}

/// and the entries that carry them.
pub(crate) fn adding_entries(space: &SpaceId) -> (Vec<u8>, Vec<u8>) {
    range(join(ADDITIONS_BY_ENTRY, &[&space.0]))
}

/// The conflicts of a space, by object.
pub(crate) fn conflicts(space: &SpaceId) -> (Vec<u8>, Vec<u8>) {
    range(join(0x38, &[&space.0]))
}

/// Of these the ones in one object.
pub(crate) fn conflicts_of(space: &SpaceId, address: &ObjectAddress) -> (Vec<u8>, Vec<u8>) {
    range(join(0x38, &[&object(space, address)[1..], &[0]]))
}

/// What a conflict is about: several values of a register,
pub(crate) const CONFLICT_SIBLINGS: u8 = 1;
/// or several kinds under a key of a map.
pub(crate) const CONFLICT_KINDS: u8 = 2;

/// A conflict in an object, or at the end of a path within it. Keys are never empty, so two zeros end them.
pub(crate) fn conflict(space: &SpaceId, address: &ObjectAddress, path: &[String], what: u8) -> Vec<u8> {
    let mut key = join(0x38, &[&object(space, address)[1..]]);
    for name in path {
        key.push(0);
        key.extend_from_slice(name.as_bytes());
    }
    key.extend_from_slice(&[0, 0, what]);
    key
}

/// What the owner of a lane last announced to have applied.
pub(crate) fn announced(space: &SpaceId, lane: &LaneId) -> Vec<u8> {
    join(0x23, &[&space.0, &lane.0])
}

/// Where a lane stood after the last of its entries that is not kept.
pub(crate) fn floor(space: &SpaceId, lane: &LaneId) -> Vec<u8> {
    join(0x25, &[&space.0, &lane.0])
}

/// What of the order of applying is not there any more.
pub(crate) fn kept(space: &SpaceId) -> Vec<u8> {
    join(0x26, &[&space.0])
}

/// Up to where removals and resets may have been forgotten here.
pub(crate) fn forgotten(space: &SpaceId) -> Vec<u8> {
    join(0x24, &[&space.0])
}

/// The journal of a space, oldest first.
pub(crate) fn journal(space: &SpaceId) -> (Vec<u8>, Vec<u8>) {
    range(join(0x40, &[&space.0]))
}

/// A journal row. The object is part of the key because dots are unique within an object only.
pub(crate) fn journal_row(space: &SpaceId, at: Hlc, object: &ObjectId, dot: &Dot) -> Vec<u8> {
    let (hlc, seq, index) = (at.bits().to_be_bytes(), dot.seq.to_be_bytes(), dot.index.to_be_bytes());
    join(0x40, &[&space.0, &hlc, &object.0, &dot.origin.0, &seq, &index])
}

/// The part of a journal row's key that names its place within the space: stamp, object and dot.
pub(crate) const JOURNAL_PLACE_BYTES: usize = 8 + 16 + 16 + 8 + 2;

pub(crate) fn journal_place(row: &[u8]) -> Option<&[u8]> {
    row.get(17..).filter(|place| place.len() == JOURNAL_PLACE_BYTES)
}

/// The journal row at a place.
pub(crate) fn journal_at(space: &SpaceId, place: &[u8]) -> Vec<u8> {
    join(0x40, &[&space.0, place])
}

/// The journal rows after this one that have the same stamp.
pub(crate) fn journal_rest(row: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let (_, until) = range(row[..25].to_vec());
    ([row, &[0]].concat(), until)
}

/// Where the journal entries of one object are, oldest first.
pub(crate) fn journal_of(space: &SpaceId, object: &ObjectId) -> (Vec<u8>, Vec<u8>) {
    range(join(0x41, &[&space.0, &object.0]))
}

/// Where the journal entries of all objects of a space are.
pub(crate) fn all_journal_of(space: &SpaceId) -> (Vec<u8>, Vec<u8>) {
    range(join(0x41, &[&space.0]))
}

/// The key under which a journal row is found by its object: its own key with object and stamp exchanged.
pub(crate) fn journal_by_object(row: &[u8]) -> Vec<u8> {
    let (space, hlc, object, dot) = (&row[1..17], &row[17..25], &row[25..41], &row[41..]);
    join(0x41, &[space, object, hlc, dot])
}

/// The journal row that a row found by its object stands for.
pub(crate) fn journal_from_object(row: &[u8]) -> Option<Vec<u8>> {
    let (space, object, hlc) = (row.get(1..17)?, row.get(17..33)?, row.get(33..41)?);
    Some(join(0x40, &[space, hlc, object, row.get(41..)?]))
}

/// How much the journal of a space holds.
pub(crate) fn journal_totals(space: &SpaceId) -> Vec<u8> {
    join(0x42, &[&space.0])
}

/// Where the change set is that was made under an operation id.
pub(crate) fn operation(space: &SpaceId, operation: &[u8; 16]) -> Vec<u8> {
    join(0x4b, &[&space.0, operation])
}

/// The operation ids of a space that are remembered, oldest first.
pub(crate) fn operations(space: &SpaceId) -> (Vec<u8>, Vec<u8>) {
    range(join(0x4c, &[&space.0]))
}

pub(crate) fn operation_at(space: &SpaceId, at_ms: u64, operation: &[u8; 16]) -> Vec<u8> {
    join(0x4c, &[&space.0, &at_ms.to_be_bytes(), operation])
}

/// When an operation that is remembered was made, milliseconds; and its id.
pub(crate) fn operation_parts(key: &[u8]) -> Option<(u64, [u8; 16])> {
    let at_ms = u64::from_be_bytes(key.get(17..25)?.try_into().ok()?);
    Some((at_ms, key.get(25..)?.try_into().ok()?))
}

/// How many operation ids of a space are remembered.
pub(crate) fn operation_count(space: &SpaceId) -> Vec<u8> {
    join(0x4d, &[&space.0])
}

/// Staged pieces of a snapshot: what is known of each, by where it ends.
pub(crate) fn staged_pieces(space: &SpaceId) -> (Vec<u8>, Vec<u8>) {
    range(join(0x50, &[&space.0, &[0]]))
}

pub(crate) fn staged_piece(space: &SpaceId, until: &[u8]) -> Vec<u8> {
    join(0x50, &[&space.0, &[0], until])
}

/// Where a staged piece ends.
pub(crate) fn staged_until(key: &[u8]) -> &[u8] {
    key.get(18..).unwrap_or_default()
}

/// The rows of a staged piece, packed.
pub(crate) fn staged_rows(space: &SpaceId, until: &[u8]) -> Vec<u8> {
    join(0x50, &[&space.0, &[1], until])
}

/// The state of a space is being replaced.
pub(crate) fn install_mark(space: &SpaceId) -> Vec<u8> {
    join(0x51, &[&space.0])
}

/// Entries that are to be applied again, in order.
pub(crate) fn extras(space: &SpaceId) -> (Vec<u8>, Vec<u8>) {
    range(join(0x52, &[&space.0]))
}

pub(crate) fn extra(space: &SpaceId, place: u64) -> Vec<u8> {
    join(0x52, &[&space.0, &place.to_be_bytes()])
}

/// Rows of a snapshot that are kept aside until its lanes take the place of those that are here, by walk key.
pub(crate) fn set_aside(space: &SpaceId) -> (Vec<u8>, Vec<u8>) {
    range(join(0x53, &[&space.0]))
}

pub(crate) fn set_aside_row(space: &SpaceId, walk_key: &[u8]) -> Vec<u8> {
    join(0x53, &[&space.0, walk_key])
}

/// Objects that were made again after an audit, oldest first.
pub(crate) fn repairs(space: &SpaceId) -> (Vec<u8>, Vec<u8>) {
    range(join(0x54, &[&space.0]))
}

pub(crate) fn repair(space: &SpaceId, number: u64) -> Vec<u8> {
    join(0x54, &[&space.0, &number.to_be_bytes()])
}

/// The start of the keys of a space's rows of one sort.
pub(crate) fn with_space(prefix: u8, space: &SpaceId) -> Vec<u8> {
    join(prefix, &[&space.0])
}

/// A part of an object.
pub(crate) fn part(prefix: u8, object: &ObjectId, tail: &[u8]) -> Vec<u8> {
    join(prefix, &[&object.0, tail])
}

/// All keys that start with `prefix`.
pub(crate) fn within(prefix: &[u8]) -> (Vec<u8>, Vec<u8>) {
    range(prefix.to_vec())
}

/// All keys that start with `prefix`.
fn range(prefix: Vec<u8>) -> (Vec<u8>, Vec<u8>) {
    let mut until = prefix.clone();
    while let Some(last) = until.pop() {
        if last < 0xff {
            until.push(last + 1);
            break;
        }
    }
    (prefix, until)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_ends_after_the_last_key_with_the_prefix() {
        assert_eq!(range(vec![1, 0xff]), (vec![1, 0xff], vec![2]));
    }

    #[test]
    fn listing_starts_strictly_after_the_given_key() {
        let space_id = SpaceId([9; 16]);
        let (from, until) = objects(&space_id, Kind::Counter, "c", "k", Some("k1"));
        let at = |key: &str| object(&space_id, &ObjectAddress::new(Kind::Counter, "c", key).unwrap());
        assert!(at("k1") < from && at("k10") >= from && at("k10") < until && at("l") >= until);
        assert_eq!(object_key(&at("k10"), "c"), b"k10");
    }
}
