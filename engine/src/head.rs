//! Signed lane heads: the owner's signature over a lane's chain hash covers the whole prefix.

use comity_crdts::{LaneId, ReplicaId, SpaceId};
use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};

use crate::change::EPOCH;
use crate::hash::Hash;

/// A signature over a lane head.
pub type HeadSignature = [u8; 64];

fn message(space: &SpaceId, lane: &LaneId, lsn: u64, hash: &Hash) -> Vec<u8> {
    let mut message = b"comity 2026 lane head\0".to_vec();
    message.extend_from_slice(&space.0);
    message.extend_from_slice(&lane.0);
    message.extend_from_slice(&EPOCH.to_be_bytes());
    message.extend_from_slice(&lsn.to_be_bytes());
    message.extend_from_slice(&hash.0);
    message
}

/// Signatures that anybody can forge and that cost nothing, for simulations in which nobody forges any and
/// Ed25519 would take half of the time.
#[cfg(feature = "stand-in-signatures")]
mod stand_in {
    use std::cell::Cell;

    use super::HeadSignature;

    thread_local! {
        static IN_USE: Cell<bool> = const { Cell::new(false) };
    }

    /// Says whether this thread makes and accepts stand-ins instead of signatures.
    pub fn use_stand_in_signatures(in_use: bool) {
        IN_USE.set(in_use);
    }

    /// The stand-in for a signature by `owner`, where those are in use.
    pub(super) fn stand_in(owner: &[u8; 32], message: &[u8]) -> Option<HeadSignature> {
        let mut signature = [0; 64];
        signature[..32].copy_from_slice(blake3::keyed_hash(owner, message).as_bytes());
        IN_USE.get().then_some(signature)
    }
}

#[cfg(feature = "stand-in-signatures")]
pub use stand_in::use_stand_in_signatures;

/// Signs the head of an own lane. About 30 µs.
pub fn sign(secret: &SigningKey, space: &SpaceId, lane: &LaneId, lsn: u64, hash: &Hash) -> HeadSignature {
    #[cfg(feature = "stand-in-signatures")]
    if let Some(signature) =
        stand_in::stand_in(secret.verifying_key().as_bytes(), &message(space, lane, lsn, hash))
    {
        return signature;
    }
    secret.sign(&message(space, lane, lsn, hash)).to_bytes()
}

/// Whether `owner` signed this head. About 50 µs.
pub(crate) fn verify(
    owner: &ReplicaId,
    space: &SpaceId,
    lane: &LaneId,
    (lsn, hash): (u64, &Hash),
    signature: &HeadSignature,
) -> bool {
    #[cfg(feature = "stand-in-signatures")]
    if let Some(expected) = stand_in::stand_in(&owner.0, &message(space, lane, lsn, hash)) {
        return expected == *signature;
    }
    let Ok(key) = VerifyingKey::from_bytes(&owner.0) else { return false };
    key.verify_strict(&message(space, lane, lsn, hash), &Signature::from_bytes(signature)).is_ok()
}
