//! Tokens: what a client has seen, to be presented at any replica.

use comity_crdts::{DecodeError, Frontier, LaneId, OriginId, Reader, SpaceId, Writer};

use comity_crdts::limits::LANES_MAX;

const TOKEN_VERSION: u8 = 1;

/// A frontier handed to a client. A replica that reaches it has everything the client has seen: reading
/// there gives read-your-writes, monotonic reads and writes-follow-reads (Terry et al., *Session
/// Guarantees*, 1994). About 20 bytes per lane.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    /// The space it is about.
    pub space: SpaceId,
    /// What must have been applied.
    pub frontier: Frontier,
}

impl Token {
    /// Adds what another token of the same space has seen.
    pub fn merge(&mut self, other: &Self) {
        if self.space == other.space {
            self.frontier.merge(&other.frontier);
        }
    }

    /// The token as bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Writer::new();
        out.u8(TOKEN_VERSION);
        out.bytes(&self.space.0);
        out.varint(self.frontier.len() as u64);
        for (lane, lsn) in self.frontier.iter() {
            out.bytes(&lane.0);
            out.varint(lsn);
        }
        out.finish()
    }

    /// The token in these bytes.
    ///
    /// # Errors
    /// [`DecodeError`] when they are not one token in canonical form.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes);
        let version = reader.u8("token version")?;
        if version != TOKEN_VERSION {
            return Err(DecodeError::UnknownTag { what: "token version", tag: u64::from(version) });
        }
        let space = SpaceId(reader.array("token space")?);
        let mut frontier = Frontier::new();
        let mut last: Option<LaneId> = None;
        for _ in 0..reader.count(LANES_MAX, "token lanes")? {
            let lane = OriginId(reader.array("token lane")?);
            let lsn = reader.varint("token position")?;
            if lsn == 0 || last.is_some_and(|last| last >= lane) {
                return Err(DecodeError::NotCanonical { what: "token" });
            }
            last = Some(lane);
            frontier.advance(lane, lsn);
        }
        reader.finish("token")?;
        Ok(Self { space, frontier })
    }
}
