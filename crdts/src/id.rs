//! Names of replicas, spaces, origins, lanes and objects.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::address::{Kind, ObjectAddress};

/// Formats bytes as lower-case hexadecimal.
fn hex(bytes: &[u8], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
}

/// One installation that accepts writes; the bytes are its Ed25519 public key.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ReplicaId(pub [u8; 32]);

impl fmt::Display for ReplicaId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        hex(&self.0, f)
    }
}

impl fmt::Debug for ReplicaId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ReplicaId(")?;
        hex(&self.0[..4], f)?;
        f.write_str("…)")
    }
}

/// 128 bits of fresh operating-system randomness. A replica's nonce in a space *is* its incarnation.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Nonce(pub [u8; 16]);

impl fmt::Debug for Nonce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Nonce(")?;
        hex(&self.0[..4], f)?;
        f.write_str("…)")
    }
}

/// The unit of replication, causality, atomicity and authorization. A version 8 UUID (RFC 9562 §5.8).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SpaceId(pub [u8; 16]);

impl SpaceId {
    /// The id of the space that `creator` founds with `nonce`. It commits to both, so whoever holds the id
    /// can check who the founder, and therefore the first admin, is.
    pub fn derive(creator: &ReplicaId, nonce: &Nonce) -> Self {
        Self(uuid_v8("comity 2026 space id\0", &[&creator.0, &nonce.0]))
    }
}

impl fmt::Display for SpaceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        uuid::Uuid::from_bytes(self.0).hyphenated().fmt(f)
    }
}

impl fmt::Debug for SpaceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SpaceId({self})")
    }
}

/// One incarnation of a replica in a space: the author of change sets numbered 1, 2, 3 …
/// A version 8 UUID derived from space, replica and nonce.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct OriginId(pub [u8; 16]);

/// A lane is named by the origin that owns it.
pub type LaneId = OriginId;

impl OriginId {
    /// The origin of `replica` in `space` in the incarnation named by `nonce`. Anyone who knows the three
    /// can check the id, so a lane's owner key cannot be substituted.
    pub fn derive(space: &SpaceId, replica: &ReplicaId, nonce: &Nonce) -> Self {
        Self(uuid_v8("comity 2026 origin id\0", &[&space.0, &replica.0, &nonce.0]))
    }
}

impl fmt::Display for OriginId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        uuid::Uuid::from_bytes(self.0).hyphenated().fmt(f)
    }
}

impl fmt::Debug for OriginId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OriginId(")?;
        hex(&self.0[..4], f)?;
        f.write_str("…)")
    }
}

/// The 16-byte name of an object, computed from its address by every receiver and used in hashes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ObjectId(pub [u8; 16]);

impl ObjectId {
    /// BLAKE3 of (space, collection, key, kind), cut to 16 bytes.
    pub fn derive(space: &SpaceId, address: &ObjectAddress) -> Self {
        address.id_in(space, || {
            let (collection, key) = (address.collection().as_bytes(), address.key().as_bytes());
            let lengths = [collection, key].map(|part| (part.len() as u64).to_le_bytes());
            let kind = [address.kind().tag()];
            Self(hash_16(
                b"comity 2026 object id\0",
                &[&space.0, &lengths[0], collection, &lengths[1], key, &kind],
            ))
        })
    }

    /// The name of what a map holds under a key: BLAKE3 of (map, key, kind), cut to 16 bytes.
    #[must_use]
    pub fn nested(&self, key: &str, kind: Kind) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(b"comity 2026 nested id\0").update(&self.0).update(key.as_bytes());
        hasher.update(&[0, kind.tag()]);
        Self(first_16(&hasher.finalize()))
    }
}

impl fmt::Debug for ObjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ObjectId(")?;
        hex(&self.0[..4], f)?;
        f.write_str("…)")
    }
}

/// The first 16 bytes of a hash.
fn first_16(hash: &blake3::Hash) -> [u8; 16] {
    let mut id = [0; 16];
    id.copy_from_slice(&hash.as_bytes()[..16]);
    id
}

/// A version 8 UUID over fixed-length parts under a context.
fn uuid_v8(context: &str, parts: &[&[u8]]) -> [u8; 16] {
    let custom = hash_16(context.as_bytes(), parts);
    uuid::Builder::from_custom_bytes(custom).into_uuid().into_bytes()
}

/// Up to this many bytes, which nearly all that is named has, are put together before they are hashed.
const SHORT_BYTES_MAX: usize = 256;

/// The first 16 bytes of BLAKE3 over a context and parts.
fn hash_16(context: &[u8], parts: &[&[u8]]) -> [u8; 16] {
    let bytes = context.len() + parts.iter().map(|part| part.len()).sum::<usize>();
    let mut short = [0; SHORT_BYTES_MAX];
    if bytes > short.len() {
        let mut hasher = blake3::Hasher::new();
        hasher.update(context);
        for part in parts {
            hasher.update(part);
        }
        return first_16(&hasher.finalize());
    }
    // In one call over one piece it takes half of the time.
    let mut end = 0;
    for part in std::iter::once(&context).chain(parts) {
        short[end..end + part.len()].copy_from_slice(part);
        end += part.len();
    }
    first_16(&blake3::hash(&short[..end]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn derived_ids_are_version_8_uuids_and_depend_on_every_part() {
        let replica = ReplicaId([7; 32]);
        let space = SpaceId::derive(&replica, &Nonce([1; 16]));
        assert_eq!(space.0[6] >> 4, 8);
        assert_ne!(space, SpaceId::derive(&replica, &Nonce([2; 16])));
        let origin = OriginId::derive(&space, &replica, &Nonce([3; 16]));
        assert_eq!(origin.0[6] >> 4, 8);
        assert_ne!(origin, OriginId::derive(&space, &ReplicaId([8; 32]), &Nonce([3; 16])));
    }
}
