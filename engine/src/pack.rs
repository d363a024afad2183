//! Entries of long runs, compressed: raw DEFLATE (RFC 1951).

use std::cell::RefCell;

use comity_crdts::{DecodeError, Reader, Writer};
use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};

use crate::limits::RUN_BYTES_MAX;

/// Less is not worth the time, which is some microseconds whatever the length.
const PACK_BYTES_MIN: usize = 1_024;
/// Of 1 (fast) to 9 (small). A thousand changes of a few bytes take 0.2 to 0.3 ms; level 8 takes twice as long and
/// saves a thirtieth of the rest.
const PACK_LEVEL: u32 = 6;
/// What nothing is saved on is slow to find out about: so much is tried first.
const PROBE_BYTES: usize = 4 * 1024;
const PROBE_LEVEL: u32 = 1;
/// DEFLATE makes nothing longer than this many times.
const UNPACK_FACTOR_MAX: u64 = 1_032;
/// Without the header and the checksum of zlib: the run is signed.
const RAW: bool = false;

/// `bytes` compressed, when they are many and it saves an eighth of them. O(bytes).
pub(crate) fn pack(bytes: &[u8]) -> Option<Vec<u8>> {
    if !(PACK_BYTES_MIN..=RUN_BYTES_MAX).contains(&bytes.len()) {
        return None;
    }
    TOOLS.with_borrow_mut(|tools| {
        if bytes.len() > 2 * PROBE_BYTES {
            shorten(&bytes[..PROBE_BYTES], &mut tools.probe)?;
        }
        shorten(bytes, &mut tools.pack)
    })
}

/// The state of packing and unpacking, 0.6 MB, which takes longer to make than most runs to be packed. It is begun anew for
/// each run: what was packed before does not show.
struct Tools {
    probe: Compress,
    pack: Compress,
    unpack: Decompress,
}

thread_local! {
    static TOOLS: RefCell<Tools> = RefCell::new(Tools {
        probe: Compress::new(Compression::new(PROBE_LEVEL), RAW),
        pack: Compress::new(Compression::new(PACK_LEVEL), RAW),
        unpack: Decompress::new(RAW),
    });
}

fn shorten(bytes: &[u8], with: &mut Compress) -> Option<Vec<u8>> {
    // What does not fit does not pay.
    let mut packed = Vec::with_capacity(bytes.len() - bytes.len() / 8);
    with.reset();
    let status = with.compress_vec(bytes, &mut packed, FlushCompress::Finish);
    matches!(status, Ok(Status::StreamEnd)).then_some(packed)
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
    let (status, read, written) = TOOLS.with_borrow_mut(|Tools { unpack, .. }| {
        unpack.reset(RAW);
        let status = unpack.decompress(packed, &mut bytes, FlushDecompress::Finish);
        (status, unpack.total_in(), unpack.total_out())
    });
    if !matches!(status, Ok(Status::StreamEnd)) || (read, written) != (packed.len() as u64, length) {
        return Err(DecodeError::Invalid { what: "packed entries", rule: "unpack to the length named" });
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Bytes of which some repeat what stands before them.
    fn mixed(parts: &[(u8, u16, bool)]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (seed, length, is_new) in parts {
            let from = usize::from(*length) % (bytes.len() + 1);
            let old: Vec<u8> = bytes[from..].iter().copied().take(1_000).collect();
            let hash = *blake3::hash(&[*seed, *length as u8]).as_bytes();
            bytes.extend(if *is_new { hash.to_vec() } else { old });
        }
        bytes
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn what_is_packed_unpacks_to_the_same(parts in prop::collection::vec(any::<(u8, u16, bool)>(), 0..300)) {
            let bytes = mixed(&parts);
            if let Some(packed) = pack(&bytes) {
                prop_assert!(packed.len() <= bytes.len() - bytes.len() / 8);
                let mut out = Writer::new();
                write_packed(&bytes, &packed, &mut out);
                let mut reader = Reader::new(out.as_slice());
                prop_assert_eq!(read_packed(&mut reader), Ok(bytes));
                prop_assert_eq!(reader.remaining(), 0);
            }
        }

        #[test]
        fn any_bytes_unpack_to_the_length_named_or_are_refused(
            length in 0..3_000_u64,
            packed in prop::collection::vec(any::<u8>(), 0..100),
        ) {
            let mut out = Writer::new();
            out.varint(length);
            out.blob(&packed);
            if let Ok(bytes) = read_packed(&mut Reader::new(out.as_slice())) {
                prop_assert_eq!(bytes.len() as u64, length);
            }
        }
    }

    /// What one run leaves behind must not be in the next: everybody encodes the same run to the same bytes.
    #[test]
    fn what_was_packed_before_does_not_show() {
        let text = |word: &str| word.repeat(3_000).into_bytes();
        let (first, second) = (text("one thing "), text("something else "));
        let fresh = std::thread::scope(|scope| scope.spawn(|| pack(&second)).join().unwrap());
        assert!(pack(&first).is_some());
        assert!(read_packed(&mut Reader::new(&[200, 1, 3, 7, 7, 7])).is_err());
        assert_eq!(pack(&second), fresh);
        let mut out = Writer::new();
        write_packed(&second, &fresh.unwrap(), &mut out);
        assert_eq!(read_packed(&mut Reader::new(out.as_slice())), Ok(second));
    }

    #[test]
    fn little_and_what_cannot_be_made_shorter_stays_as_it_is() {
        let noise: Vec<u8> =
            (0..2_000_u32).flat_map(|n| *blake3::hash(&n.to_le_bytes()).as_bytes()).collect();
        assert_eq!(pack(&[0; PACK_BYTES_MIN - 1]), None);
        assert!(pack(&[0; PACK_BYTES_MIN]).is_some_and(|packed| packed.len() < 30));
        for length in [PACK_BYTES_MIN, 5_000, noise.len()] {
            assert_eq!(pack(&noise[..length]), None, "{length}");
        }
        assert!(pack(&vec![0; RUN_BYTES_MAX]).is_some_and(|packed| packed.len() < 2_000));
        assert_eq!(pack(&vec![0; RUN_BYTES_MAX + 1]), None);
    }
}
