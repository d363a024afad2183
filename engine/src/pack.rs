//! Entries of long runs and rows of snapshots, compressed: raw DEFLATE (RFC 1951).

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
const QUICK_LEVEL: u32 = 1;
/// DEFLATE makes nothing longer than this many times.
const UNPACK_FACTOR_MAX: u64 = 1_032;
/// Without the header and the checksum of zlib: the run is signed.
const RAW: bool = false;

/// `bytes` compressed, when they are many and it saves an eighth of them. O(bytes).
pub(crate) fn pack(bytes: &[u8]) -> Option<Vec<u8>> {
    if bytes.len() > RUN_BYTES_MAX { None } else { pack_saving(bytes, PACK_LEVEL, 8) }
}

/// `bytes` compressed quickly, when they are many and it saves a quarter of them: whoever is sent so much waits for it.
/// What little is saved on takes longest, both to pack (8 µs a KiB of hexadecimal digits, and 1 µs of JSON) and to unpack.
pub(crate) fn pack_quickly(bytes: &[u8]) -> Option<Vec<u8>> {
    pack_saving(bytes, QUICK_LEVEL, 4)
}

/// `bytes` compressed, when they are many and it saves one part in so many of them.
fn pack_saving(bytes: &[u8], level: u32, parts: usize) -> Option<Vec<u8>> {
    // The most that is worth sending instead.
    let pays = |bytes: &[u8]| bytes.len() - bytes.len() / parts;
    if bytes.len() < PACK_BYTES_MIN {
        return None;
    }
    if bytes.len() > 2 * PROBE_BYTES {
        // With room for what does not pay either: it is known at the end, and the packer can be kept.
        let probe = &bytes[..PROBE_BYTES];
        shorten(probe, QUICK_LEVEL, 2 * PROBE_BYTES).filter(|packed| packed.len() <= pays(probe))?;
    }
    shorten(bytes, level, pays(bytes))
}

thread_local! {
    /// What packing takes, 0.3 MB for each level: making it takes longer than packing most runs. It is begun anew for each,
    /// so that what was packed before does not show.
    static PACKERS: RefCell<[Option<Compress>; 2]> = const { RefCell::new([None, None]) };
}

/// `bytes` compressed to at most so many.
fn shorten(bytes: &[u8], level: u32, bytes_max: usize) -> Option<Vec<u8>> {
    let kept = usize::from(level != QUICK_LEVEL);
    let mut compress = PACKERS
        .with_borrow_mut(|packers| packers[kept].take())
        .unwrap_or_else(|| Compress::new(Compression::new(level), RAW));
    let mut packed = Vec::with_capacity(bytes_max);
    let status = compress.compress_vec(bytes, &mut packed, FlushCompress::Finish);
    if !matches!(status, Ok(Status::StreamEnd)) {
        // Who begins anew what did not come to its end over and over ends in a panic (zlib-rs 0.6.8).
        return None;
    }
    compress.reset();
    PACKERS.with_borrow_mut(|packers| packers[kept] = Some(compress));
    Some(packed)
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
    let mut unpack = Decompress::new(RAW);
    let status = unpack.decompress(packed, &mut bytes, FlushDecompress::Finish);
    let (read, written) = (unpack.total_in(), unpack.total_out());
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

        /// Everybody encodes a run to the same bytes, and a run that could not be packed leaves nothing for the next one.
        #[test]
        fn what_was_packed_before_does_not_show(
            runs in prop::collection::vec((prop::collection::vec(any::<(u8, u16, bool)>(), 0..400), 0..400_usize), 1..6),
        ) {
            for (parts, noise) in runs {
                let noise = (0..noise as u32).flat_map(|n| *blake3::hash(&n.to_le_bytes()).as_bytes());
                let bytes: Vec<u8> = mixed(&parts).into_iter().chain(noise).collect();
                let packed = pack(&bytes);
                let fresh = std::thread::scope(|scope| scope.spawn(|| pack(&bytes)).join());
                prop_assert_eq!(packed, fresh.unwrap());
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

    /// A packer that could not come to its end held bits of it back, and failed at one of the next ones.
    #[test]
    fn what_cannot_be_packed_leaves_nothing_behind() {
        // Named values of a kilobyte.
        let value = |from: u32| (from..from + 32).flat_map(|n| *blake3::hash(&n.to_le_bytes()).as_bytes());
        let noise = |from: u32| -> Vec<u8> {
            (0..60)
                .flat_map(|n| format!("value {n}: ").into_bytes().into_iter().chain(value(from + 32 * n)))
                .collect()
        };
        let text = "words that are said again ".repeat(400).into_bytes();
        let fresh = std::thread::scope(|scope| scope.spawn(|| pack(&text)).join().unwrap());
        for round in 0..100 {
            assert!(pack(&noise(round)).is_none());
        }
        for round in 0..20 {
            // The beginning can be packed, the whole cannot.
            assert!(pack(&[&text[..PROBE_BYTES], &noise(round)].concat()).is_none());
            assert!(pack(&text) == fresh, "in round {round}");
        }
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
