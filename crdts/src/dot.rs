//! Dots: the identity of one operation.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::codec::{DecodeError, Reader, Writer};
use crate::id::OriginId;

/// The identity of one operation on an object: the change set it came in, and its place among that
/// change set's operations on the same object. (Almeida et al., *Scalable and Accurate Causality Tracking
/// for Eventually Consistent Stores*, 2014.)
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Dot {
    /// Who authored the change set.
    pub origin: OriginId,
    /// The change set's number at its origin, from 1.
    pub seq: u64,
    /// The operation's index among the change set's operations on the same object, from 0.
    pub index: u16,
}

impl Dot {
    /// Appends the canonical encoding: 16 bytes of origin, then sequence number and index as varints.
    pub fn encode(&self, out: &mut Writer) {
        out.bytes(&self.origin.0);
        out.varint(self.seq);
        out.varint(u64::from(self.index));
    }

    /// Reads what [`Dot::encode`] wrote.
    ///
    /// # Errors
    /// [`DecodeError`] when the bytes are not the canonical encoding of a dot.
    pub fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let origin = OriginId(reader.array("dot origin")?);
        let seq = reader.varint("dot sequence number")?;
        let index = reader.varint_max(u64::from(u16::MAX), "dot index")? as u16;
        Ok(Self { origin, seq, index })
    }
}

impl fmt::Debug for Dot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}#{}.{}", self.origin, self.seq, self.index)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn dots_round_trip(origin: [u8; 16], seq: u64, index: u16) {
            let dot = Dot { origin: OriginId(origin), seq, index };
            let mut out = Writer::new();
            dot.encode(&mut out);
            let bytes = out.finish();
            let mut reader = Reader::new(&bytes);
            prop_assert_eq!(Dot::decode(&mut reader), Ok(dot));
            prop_assert_eq!(reader.finish("dot"), Ok(()));
        }
    }

    #[test]
    fn an_index_beyond_16_bits_is_refused() {
        let mut out = Writer::new();
        out.bytes(&[0; 16]);
        out.varint(1);
        out.varint(1 << 16);
        let bytes = out.finish();
        assert!(matches!(Dot::decode(&mut Reader::new(&bytes)), Err(DecodeError::OverLimit { .. })));
    }
}
