//! The byte codec under every hand-laid format: minimal varints, length-checked reads, no allocation
//! before the length is known to be present and allowed.

use crate::canary;

/// Why bytes could not be decoded. Always the fault of whoever made the bytes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// The bytes end before the value does.
    #[error("{what}: the bytes end early")]
    Truncated {
        /// What was being read.
        what: &'static str,
    },
    /// A number or length is above its limit.
    #[error("{what}: {value} is above the limit of {value_max}")]
    OverLimit {
        /// What was being read.
        what: &'static str,
        /// The number found.
        value: u64,
        /// The largest allowed.
        value_max: u64,
    },
    /// The bytes are not the one canonical encoding of any value.
    #[error("{what}: not canonical")]
    NotCanonical {
        /// What was being read.
        what: &'static str,
    },
    /// A tag or flag that this version does not know.
    #[error("{what}: unknown tag {tag}")]
    UnknownTag {
        /// What was being read.
        what: &'static str,
        /// The tag found.
        tag: u64,
    },
    /// The content contradicts itself or a rule of the format.
    #[error("{what}: {rule}")]
    Invalid {
        /// What was being read.
        what: &'static str,
        /// The rule that is broken.
        rule: &'static str,
    },
    /// Bytes are left over after the value.
    #[error("{what}: {bytes} bytes left over")]
    Trailing {
        /// What was being read.
        what: &'static str,
        /// How many.
        bytes: usize,
    },
}

/// Reads a byte slice from front to back.
#[derive(Clone, Debug)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// A reader at the start of `bytes`.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// Bytes not yet read.
    pub fn remaining(&self) -> usize {
        self.rest.len()
    }

    /// One byte.
    ///
    /// # Errors
    /// [`DecodeError::Truncated`].
    pub fn u8(&mut self, what: &'static str) -> Result<u8, DecodeError> {
        Ok(self.bytes(1, what)?[0])
    }

    /// The next `count` bytes, borrowed.
    ///
    /// # Errors
    /// [`DecodeError::Truncated`].
    pub fn bytes(&mut self, count: usize, what: &'static str) -> Result<&'a [u8], DecodeError> {
        if count > self.rest.len() && !canary!(LengthBelieved) {
            return Err(DecodeError::Truncated { what });
        }
        let (head, rest) = self.rest.split_at(count);
        self.rest = rest;
        Ok(head)
    }

    /// A fixed-size array.
    ///
    /// # Errors
    /// [`DecodeError::Truncated`].
    pub fn array<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N], DecodeError> {
        let mut array = [0; N];
        array.copy_from_slice(self.bytes(N, what)?);
        Ok(array)
    }

    /// An unsigned LEB128 varint, minimal form only.
    ///
    /// # Errors
    /// [`DecodeError::Truncated`], [`DecodeError::NotCanonical`] for a longer form or more than 64 bits.
    pub fn varint(&mut self, what: &'static str) -> Result<u64, DecodeError> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = self.u8(what)?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                return Err(DecodeError::NotCanonical { what });
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                return if byte == 0 && shift > 0 {
                    Err(DecodeError::NotCanonical { what })
                } else {
                    Ok(value)
                };
            }
        }
        Err(DecodeError::NotCanonical { what })
    }

    /// A varint no greater than `value_max`.
    ///
    /// # Errors
    /// As [`Reader::varint`], and [`DecodeError::OverLimit`].
    pub fn varint_max(&mut self, value_max: u64, what: &'static str) -> Result<u64, DecodeError> {
        let value = self.varint(what)?;
        if value > value_max {
            return Err(DecodeError::OverLimit { what, value, value_max });
        }
        Ok(value)
    }

    /// A zigzag varint.
    ///
    /// # Errors
    /// As [`Reader::varint`].
    pub fn varint_signed(&mut self, what: &'static str) -> Result<i64, DecodeError> {
        let bits = self.varint(what)?;
        Ok(((bits >> 1) as i64) ^ -((bits & 1) as i64))
    }

    /// As [`Reader::varint`], of up to 128 bits.
    ///
    /// # Errors
    /// [`DecodeError::Truncated`], [`DecodeError::NotCanonical`] for a longer form or more than 128 bits.
    pub fn varint_wide(&mut self, what: &'static str) -> Result<u128, DecodeError> {
        let mut value = 0_u128;
        for shift in (0..128).step_by(7) {
            let byte = self.u8(what)?;
            let bits = u128::from(byte & 0x7f);
            let is_over = shift == 126 && bits > 3;
            value |= bits << shift;
            if is_over || byte == 0 && shift > 0 {
                return Err(DecodeError::NotCanonical { what });
            }
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(DecodeError::NotCanonical { what })
    }

    /// A zigzag varint of up to 128 bits.
    ///
    /// # Errors
    /// As [`Reader::varint_wide`].
    pub fn varint_wide_signed(&mut self, what: &'static str) -> Result<i128, DecodeError> {
        let bits = self.varint_wide(what)?;
        Ok(((bits >> 1) as i128) ^ -((bits & 1) as i128))
    }

    /// A count of items, each of at least one byte, no greater than `count_max` and no greater than the
    /// bytes that are left; safe to allocate for.
    ///
    /// # Errors
    /// As [`Reader::varint_max`], and [`DecodeError::Truncated`].
    pub fn count(&mut self, count_max: usize, what: &'static str) -> Result<usize, DecodeError> {
        let count = self.varint_max(count_max as u64, what)? as usize;
        if count > self.rest.len() {
            return Err(DecodeError::Truncated { what });
        }
        Ok(count)
    }

    /// Length-prefixed bytes, borrowed.
    ///
    /// # Errors
    /// As [`Reader::count`].
    pub fn blob(&mut self, bytes_max: usize, what: &'static str) -> Result<&'a [u8], DecodeError> {
        let count = self.count(bytes_max, what)?;
        self.bytes(count, what)
    }

    /// A length-prefixed UTF-8 string, borrowed.
    ///
    /// # Errors
    /// As [`Reader::blob`], and [`DecodeError::NotCanonical`] when it is not UTF-8.
    pub fn text(&mut self, bytes_max: usize, what: &'static str) -> Result<&'a str, DecodeError> {
        std::str::from_utf8(self.blob(bytes_max, what)?).map_err(|_| DecodeError::NotCanonical { what })
    }

    /// Ends the reading.
    ///
    /// # Errors
    /// [`DecodeError::Trailing`] when bytes are left.
    pub fn finish(self, what: &'static str) -> Result<(), DecodeError> {
        match self.rest.len() {
            0 => Ok(()),
            bytes => Err(DecodeError::Trailing { what, bytes }),
        }
    }
}

/// What most values take. Growing there from nothing would copy them three times.
const ROOM_BYTES: usize = 64;

/// Appends to a byte vector; the mirror of [`Reader`].
#[derive(Clone, Debug, Default)]
pub struct Writer {
    bytes: Vec<u8>,
}

impl Writer {
    /// An empty writer.
    pub fn new() -> Self {
        Self::with_room(ROOM_BYTES)
    }

    /// An empty writer that does not grow before so many bytes are written.
    pub fn with_room(bytes: usize) -> Self {
        Self { bytes: Vec::with_capacity(bytes) }
    }

    /// Bytes written so far.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether nothing was written.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// One byte.
    pub fn u8(&mut self, byte: u8) {
        self.bytes.push(byte);
    }

    /// Bytes as they are.
    pub fn bytes(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// A minimal unsigned LEB128 varint.
    pub fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.bytes.push((value as u8) | 0x80);
            value >>= 7;
        }
        self.bytes.push(value as u8);
    }

    /// A zigzag varint.
    pub fn varint_signed(&mut self, value: i64) {
        self.varint(((value << 1) ^ (value >> 63)) as u64);
    }

    /// As [`Writer::varint`], of up to 128 bits.
    pub fn varint_wide(&mut self, mut value: u128) {
        while value >= 0x80 {
            self.bytes.push((value as u8) | 0x80);
            value >>= 7;
        }
        self.bytes.push(value as u8);
    }

    /// A zigzag varint of up to 128 bits.
    pub fn varint_wide_signed(&mut self, value: i128) {
        self.varint_wide(((value << 1) ^ (value >> 127)) as u128);
    }

    /// Length-prefixed bytes.
    pub fn blob(&mut self, bytes: &[u8]) {
        self.varint(bytes.len() as u64);
        self.bytes(bytes);
    }

    /// The bytes written.
    pub fn finish(self) -> Vec<u8> {
        self.bytes
    }

    /// The bytes written so far, borrowed.
    pub fn as_slice(&self) -> &[u8] {
        &self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn varints_round_trip(value: u64, signed: i64, wide: u128, wide_signed: i128) {
            let mut writer = Writer::new();
            writer.varint(value);
            writer.varint_signed(signed);
            writer.varint_wide(wide);
            writer.varint_wide_signed(wide_signed);
            let bytes = writer.finish();
            let mut reader = Reader::new(&bytes);
            prop_assert_eq!(reader.varint("value"), Ok(value));
            prop_assert_eq!(reader.varint_signed("signed"), Ok(signed));
            prop_assert_eq!(reader.varint_wide("wide"), Ok(wide));
            prop_assert_eq!(reader.varint_wide_signed("wide signed"), Ok(wide_signed));
            prop_assert_eq!(reader.finish("end"), Ok(()));
        }

        #[test]
        fn whatever_decodes_re_encodes_to_the_same_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..12)) {
            let mut reader = Reader::new(&bytes);
            if let Ok(value) = reader.varint("value") {
                let mut writer = Writer::new();
                writer.varint(value);
                prop_assert_eq!(writer.as_slice(), &bytes[..bytes.len() - reader.remaining()]);
            }
        }

        #[test]
        fn whatever_decodes_to_128_bits_re_encodes_to_the_same_bytes(
            head in proptest::collection::vec(0x80..=0xff_u8, 0..20),
            last: u8,
        ) {
            let bytes = [head, vec![last]].concat();
            let mut reader = Reader::new(&bytes);
            if let Ok(value) = reader.varint_wide("value") {
                let mut writer = Writer::new();
                writer.varint_wide(value);
                prop_assert_eq!(writer.as_slice(), &bytes[..bytes.len() - reader.remaining()]);
            }
        }
    }

    #[test]
    fn a_length_beyond_the_bytes_present_is_refused_before_allocation() {
        let mut writer = Writer::new();
        writer.varint(1 << 40);
        let bytes = writer.finish();
        assert_eq!(
            Reader::new(&bytes).blob(usize::MAX, "blob"),
            Err(DecodeError::Truncated { what: "blob" })
        );
    }
}
