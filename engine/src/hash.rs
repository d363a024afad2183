//! BLAKE3 with a domain in front, so that no hash of one thing is a hash of another.

use serde::{Deserialize, Serialize};

/// A BLAKE3 hash.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Hash(pub [u8; 32]);

impl Hash {
    /// The first 8 bytes, as exchanged to compare prefixes of lanes.
    pub fn prefix(&self) -> [u8; 8] {
        let mut prefix = [0; 8];
        prefix.copy_from_slice(&self.0[..8]);
        prefix
    }

    /// The first 16 bytes, as in ids and in digests that are compared.
    pub(crate) fn half(&self) -> [u8; 16] {
        let mut half = [0; 16];
        half.copy_from_slice(&self.0[..16]);
        half
    }
}

impl std::fmt::Debug for Hash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for byte in &self.0[..6] {
            write!(f, "{byte:02x}")?;
        }
        f.write_str("…")
    }
}

/// BLAKE3 over a domain and parts. Parts are of fixed length or carry their own.
pub(crate) fn hash(domain: &str, parts: &[&[u8]]) -> Hash {
    let bytes = domain.len() + parts.iter().map(|part| part.len()).sum::<usize>();
    let mut short = [0; SHORT_BYTES_MAX];
    if bytes > short.len() {
        let mut hasher = blake3::Hasher::new();
        hasher.update(domain.as_bytes());
        for part in parts {
            hasher.update(part);
        }
        return Hash(*hasher.finalize().as_bytes());
    }
    // In one call over one piece it takes half of the time.
    let mut end = 0;
    for part in std::iter::once(&domain.as_bytes()).chain(parts) {
        short[end..end + part.len()].copy_from_slice(part);
        end += part.len();
    }
    Hash(*blake3::hash(&short[..end]).as_bytes())
}

/// Up to this many bytes, which nearly all that is hashed has, are put together first.
const SHORT_BYTES_MAX: usize = 512;
