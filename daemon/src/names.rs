//! The printed names of spaces, replicas, dots and kinds, read back.

use comity::{Dot, Kind, OriginId, ReplicaId, SpaceId};
use data_encoding::HEXLOWER_PERMISSIVE;

/// A UUID in its usual form, as 16 bytes.
fn parse_uuid(text: &str) -> Option<[u8; 16]> {
    let groups: Vec<&str> = text.split('-').collect();
    if groups.iter().map(|group| group.len()).ne([8, 4, 4, 4, 12]) {
        return None;
    }
    let bytes = HEXLOWER_PERMISSIVE.decode(groups.concat().as_bytes()).ok()?;
    bytes.try_into().ok()
}

/// A space.
pub(crate) fn parse_space(text: &str) -> Option<SpaceId> {
    parse_uuid(text).map(SpaceId)
}

/// A replica: 64 hexadecimal digits.
pub(crate) fn parse_replica(text: &str) -> Option<ReplicaId> {
    HEXLOWER_PERMISSIVE.decode(text.as_bytes()).ok()?.try_into().ok().map(ReplicaId)
}

/// A hash of a change of a document: 64 hexadecimal digits.
pub(crate) fn parse_hash(text: &str) -> Option<[u8; 32]> {
    HEXLOWER_PERMISSIVE.decode(text.as_bytes()).ok()?.try_into().ok()
}

/// Bytes in hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    HEXLOWER_PERMISSIVE.encode(bytes)
}

/// A dot: `ORIGIN:SEQ.INDEX`.
pub(crate) fn dot(dot: &Dot) -> String {
    format!("{}:{}.{}", dot.origin, dot.seq, dot.index)
}

/// What [`dot`] wrote.
pub(crate) fn parse_dot(text: &str) -> Option<Dot> {
    let (origin, rest) = text.split_once(':')?;
    let (seq, index) = rest.split_once('.')?;
    let origin = OriginId(parse_uuid(origin)?);
    Some(Dot { origin, seq: seq.parse().ok()?, index: index.parse().ok()? })
}

/// A kind that applications write, by its name.
pub(crate) fn parse_kind(text: &str) -> Option<Kind> {
    Kind::APPLICATION.into_iter().find(|kind| kind.name() == text)
}

/// The names of all kinds, for messages.
pub(crate) fn kinds() -> String {
    Kind::APPLICATION.map(Kind::name).join(", ")
}
