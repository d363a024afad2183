//! Entries of long runs, compressed: raw DEFLATE (RFC 1951).

use comity_crdts::{DecodeError, Reader, Writer};
use miniz_oxide::deflate::compress_to_vec;
use miniz_oxide::inflate::TINFLStatus;
use miniz_oxide::inflate::core::{DecompressorOxide, decompress, inflate_flags};

use crate::limits::RUN_BYTES_MAX;

/// Less is not worth the time, which is some 20 µs whatever the length.
const PACK_BYTES_MIN: usize = 1_024;
/// Of 1 (fast) to 10 (small). A thousand changes of a few bytes take 0.2 ms; level 6 takes three times as long
/// and saves another twentieth.
const PACK_LEVEL: u8 = 3;
/// What nothing is saved on is slow to find out about: so much is tried first.
const PROBE_BYTES: usize = 4 * 1024;
const PROBE_LEVEL: u8 = 1;
/// DEFLATE makes nothing longer than this many times.
const UNPACK_FACTOR_MAX: u64 = 1_032;

/// `bytes` compressed, when they are many and it saves an eighth of them. O(bytes).
pub(crate) fn pack(bytes: &[u8]) -> Option<Vec<u8>> {
    if !(PACK_BYTES_MIN..=RUN_BYTES_MAX).contains(&bytes.len()) {
        return None;
    }
    let saving = |bytes: &[u8], level| {
        let packed = compress_to_vec(bytes, level);
        (packed.len() <= bytes.len() - bytes.len() / 8).then_some(packed)
    };
    if bytes.len() > 2 * PROBE_BYTES {
        saving(&bytes[..PROBE_BYTES], PROBE_LEVEL)?;
    }
    saving(bytes, PACK_LEVEL)
}

/// Writes the length of `bytes` and what [`pack`] made of them.
pub(crate) fn write_packed(bytes: &[u8], packed: &[u8], out: &mut Writer) {
    out.varint(bytes.len() as u64);
    out.blob(packed);
}

/// Reads what [`write_packed`] wrote. Memory and time are in proportion to the length named, which is
/// believed only as far as a run may be long and so many bytes can have become of those present.
pub(crate) fn read_packed(reader: &mut Reader<'_>) -> Result<Vec<u8>, DecodeError> {
    let length = reader.varint_max(RUN_BYTES_MAX as u64, "entries of a run")?;
    let packed = reader.blob(RUN_BYTES_MAX, "packed entries")?;
    if packed.len() as u64 >= length || length > UNPACK_FACTOR_MAX * packed.len() as u64 {
        return Err(DecodeError::NotCanonical { what: "packed entries" });
    }
    let mut bytes = vec![0; length as usize];
    let flags = inflate_flags::TINFL_FLAG_USING_NON_WRAPPING_OUTPUT_BUF;
    let unpacked = decompress(&mut DecompressorOxide::new(), packed, &mut bytes, 0, flags);
    if unpacked != (TINFLStatus::Done, packed.len(), bytes.len()) {
        return Err(DecodeError::Invalid { what: "packed entries", rule: "unpack to the length named" });
    }
    Ok(bytes)
}
