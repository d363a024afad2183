//! Finding the records of a file, also beyond damaged ones.

use std::ops::Range;

use crate::log::record::{self, Checksum, HEADER_BYTES, SECTOR, Salt};

/// A record that verifies.
#[derive(Clone, Debug)]
pub(crate) struct Found {
    pub(crate) group: u64,
    pub(crate) durable_through: u64,
    /// Where its payload is in the file.
    pub(crate) payload: Range<usize>,
    /// Whether it is right behind another record or the header, and names a different one.
    pub(crate) contradicts: bool,
}

/// What a file holds.
#[derive(Clone, Debug)]
pub(crate) enum Scanned {
    /// Its header verifies.
    Log {
        salt: Salt,
        records: Vec<Found>,
        /// The checksum of the last record, or of the header.
        chain: Checksum,
        /// Where the last record ends.
        end: usize,
        /// Whether nothing but zeros follows, and nothing else is between the records.
        clean: bool,
    },
    /// Nothing was ever written, or all of it is gone.
    Blank,
    /// Its header does not verify, so nothing in it can be believed.
    Unverifiable,
}

/// Reads the file `number`. O(length); every place that claims to be a record costs its claimed length.
pub(crate) fn scan(file: &[u8], number: u64) -> Scanned {
    let Some((salt, mut chain)) = record::read_file_header(file, number) else {
        return if is_blank(file) { Scanned::Blank } else { Scanned::Unverifiable };
    };
    let (mut records, mut end, mut offset, mut clean) = (Vec::new(), HEADER_BYTES, HEADER_BYTES, true);
    while offset < file.len() {
        let Some(found) = record::read(file, &salt, offset) else {
            offset += SECTOR;
            continue;
        };
        let adjacent = offset == end;
        let payload = offset + record::RECORD_HEADER_BYTES;
        records.push(Found {
            group: found.framed.group,
            durable_through: found.framed.durable_through,
            payload: payload..payload + found.payload.len(),
            contradicts: adjacent && found.framed.chain != chain,
        });
        clean &= adjacent;
        chain = found.checksum;
        offset += found.length;
        end = offset;
    }
    clean &= is_blank(&file[end..]);
    Scanned::Log { salt, records, chain, end, clean }
}

/// Where a record is in its file, with its header and its padding.
#[cfg(any(test, feature = "faults"))]
pub(crate) fn record_range(found: &Found) -> Range<usize> {
    found.payload.start - record::RECORD_HEADER_BYTES..found.payload.end.next_multiple_of(SECTOR)
}

fn is_blank(bytes: &[u8]) -> bool {
    const ZEROS: [u8; 4096] = [0; 4096];
    bytes.chunks(ZEROS.len()).all(|chunk| *chunk == ZEROS[..chunk.len()])
}
