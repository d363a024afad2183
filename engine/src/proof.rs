//! What proves that a lane's owner wrote it up to an entry: its signature over that entry, or over a later one
//! together with what leads from the one to the other.

use comity_crdts::{DecodeError, LaneId, Reader, ReplicaId, SpaceId, Writer};

use crate::change::chained;
use crate::hash::Hash;
use crate::head::{HeadSignature, verify};
use crate::run::RUN_ENTRIES_MAX;

/// Links in one proof: the entries of a run but the first.
pub(crate) const LINKS_MAX: usize = RUN_ENTRIES_MAX - 1;

/// Proves a lane up to an entry. Owners sign runs at their ends; who has applied only a part of one, because the
/// rest waits for something, proves that part with the links of the rest, and so can whoever gets it from there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proof {
    /// Of each entry after the one that is proved, up to the one that is signed: the hash of what it adds to the
    /// chain. Empty when the entry itself is signed.
    pub links: Vec<Hash>,
    /// The owner's signature over the entry that is signed.
    pub signature: HeadSignature,
}

impl Proof {
    /// Whether it proves a lane of `owner` up to entry `lsn` with this chain hash. A signature's check, about 50 µs,
    /// and O(links).
    pub fn holds(
        &self,
        owner: &ReplicaId,
        space: &SpaceId,
        lane: &LaneId,
        (lsn, hash): (u64, &Hash),
    ) -> bool {
        let (mut signed, mut hash) = (lsn, *hash);
        for link in &self.links {
            signed = signed.saturating_add(1);
            hash = chained(&hash, signed, link);
        }
        verify(owner, space, lane, (signed, &hash), &self.signature)
    }

    /// Bytes it takes in memory and on disk, nearly.
    pub(crate) fn bytes(&self) -> usize {
        size_of::<HeadSignature>() + self.links.len() * size_of::<Hash>()
    }

    /// Signature and links, to be read to the end.
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let mut out = Writer::with_room(self.bytes());
        out.bytes(&self.signature);
        self.links.iter().for_each(|link| out.bytes(&link.0));
        out.finish()
    }

    pub(crate) fn read_to_end(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let signature = reader.array("head signature")?;
        let mut links = Vec::new();
        while reader.remaining() > 0 {
            if links.len() == LINKS_MAX {
                let (value, value_max) = (links.len() as u64 + 1, LINKS_MAX as u64);
                return Err(DecodeError::OverLimit { what: "links", value, value_max });
            }
            links.push(Hash(reader.array("link")?));
        }
        Ok(Self { links, signature })
    }

    pub(crate) fn from_bytes(bytes: &[u8]) -> Result<Self, DecodeError> {
        Self::read_to_end(&mut Reader::new(bytes))
    }
}

impl From<HeadSignature> for Proof {
    fn from(signature: HeadSignature) -> Self {
        Self { links: Vec::new(), signature }
    }
}
