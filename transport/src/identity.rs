//! Who a replica is on the wire: an Ed25519 key pair, and the question of whom to trust.

use std::fmt;
use std::sync::Arc;

use ed25519_dalek::{SigningKey, VerifyingKey};

/// The public half of a replica's Ed25519 key (RFC 8032), which is also its name on the wire.
///
/// Ordered by its bytes; the order decides crossing dials.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerKey(pub [u8; 32]);

impl PeerKey {
    /// Whether the bytes are a point on the curve that only the holder of one secret can sign for. Small-order
    /// points have signatures anyone can produce.
    pub(crate) fn is_sound(&self) -> bool {
        VerifyingKey::from_bytes(&self.0).is_ok_and(|key| !key.is_weak())
    }
}

impl fmt::Display for PeerKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for PeerKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PeerKey({self})")
    }
}

/// A replica's key pair. Cheap to clone; the secret is wiped when the last clone is dropped and is never
/// printed.
#[derive(Clone)]
pub struct Identity {
    signing: Arc<SigningKey>,
}

impl Identity {
    /// The key pair of a 32-byte Ed25519 seed. Every seed is valid.
    pub fn from_secret(secret: &[u8; 32]) -> Identity {
        Identity { signing: Arc::new(SigningKey::from_bytes(secret)) }
    }

    /// The public half, which peers pin.
    pub fn public(&self) -> PeerKey {
        PeerKey(self.signing.verifying_key().to_bytes())
    }

    pub(crate) fn signing(&self) -> &SigningKey {
        &self.signing
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity").field("public", &self.public()).field("secret", &"redacted").finish()
    }
}

/// Whom a listener lets in.
///
/// Asked once for each incoming handshake, after the peer has proved that it holds the key. The verdict covers
/// the handshake only: to revoke a peer, close its live connections as well.
pub trait Trust: Send + Sync + 'static {
    /// Whether connections from `peer` are accepted. Runs on a network task: it must not block.
    fn accepts(&self, peer: &PeerKey) -> bool;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_pair_matches_the_first_vector_of_rfc_8032() {
        let secret = [
            0x9d, 0x61, 0xb1, 0x9d, 0xef, 0xfd, 0x5a, 0x60, 0xba, 0x84, 0x4a, 0xf4, 0x92, 0xec, 0x2c, 0xc4,
            0x44, 0x49, 0xc5, 0x69, 0x7b, 0x32, 0x69, 0x19, 0x70, 0x3b, 0xac, 0x03, 0x1c, 0xae, 0x7f, 0x60,
        ];
        let public = Identity::from_secret(&secret).public();
        assert_eq!(public.to_string(), "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a");
    }

    #[test]
    fn debug_output_hides_the_secret() {
        let secret = [0xAB; 32];
        let shown = format!("{:?}", Identity::from_secret(&secret));
        assert!(shown.contains("redacted"));
        assert!(!shown.to_lowercase().contains("abab"));
        assert!(!shown.contains("171"));
    }

    #[test]
    fn points_of_small_order_are_not_sound() {
        let mut identity_point = [0; 32];
        identity_point[0] = 1;
        assert!(!PeerKey(identity_point).is_sound());
        assert!(!PeerKey([0; 32]).is_sound());
        assert!(Identity::from_secret(&[7; 32]).public().is_sound());
    }
}
