//! The frames of the log: the header of a file and the header of a record, with their checksums.

use crate::layer::Layer;
use crate::log::payload;

/// Every header and record starts at a multiple of this, the least that a disk writes whole. So a record
/// cut short never reaches into a durable one, and the next record can be found beyond a damaged one.
pub(crate) const SECTOR: usize = 512;
/// The length of a file's header, with its padding.
pub(crate) const HEADER_BYTES: usize = SECTOR;
/// The length of a record's header.
pub(crate) const RECORD_HEADER_BYTES: usize = 64;
/// The version of the log's format.
const LOG_VERSION: u32 = 1;

const FILE_MAGIC: &[u8; 8] = b"comitlog";
const RECORD_MAGIC: &[u8; 4] = b"grp1";
const CHECKED_HEADER: usize = 48;

/// Random, new for every file, and part of every checksum in it: bytes of another file never verify.
pub(crate) type Salt = [u8; 16];
/// BLAKE3, cut to 128 bits.
pub(crate) type Checksum = [u8; 16];

/// The header of file `number`.
pub(crate) fn file_header(number: u64, salt: &Salt) -> [u8; HEADER_BYTES] {
    let mut header = [0; HEADER_BYTES];
    header[..8].copy_from_slice(FILE_MAGIC);
    header[8..12].copy_from_slice(&LOG_VERSION.to_be_bytes());
    header[16..24].copy_from_slice(&number.to_be_bytes());
    header[24..40].copy_from_slice(salt);
    let checksum = cut(blake3::hash(&header[..CHECKED_HEADER]));
    header[CHECKED_HEADER..64].copy_from_slice(&checksum);
    header
}

/// The salt and the checksum in the header of file `number`; `None` where it is not one.
pub(crate) fn read_file_header(bytes: &[u8], number: u64) -> Option<(Salt, Checksum)> {
    let header = bytes.get(..HEADER_BYTES)?;
    let salt = *header[24..].first_chunk()?;
    (header == file_header(number, &salt)).then_some(())?;
    Some((salt, *header[CHECKED_HEADER..].first_chunk()?))
}

/// Where a record goes and what it says about the log before it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Framed {
    /// The group's number.
    pub(crate) group: u64,
    /// The last group that was durable when the record was written.
    pub(crate) durable_through: u64,
    /// The checksum before this one in the file.
    pub(crate) chain: Checksum,
}

/// Makes `out` the record of a group but for its checksum, padded to whole sectors.
pub(crate) fn frame(layer: &Layer, out: &mut Vec<u8>) {
    out.clear();
    out.resize(RECORD_HEADER_BYTES, 0);
    payload::encode(layer, out);
    close_frame(out);
}

/// As [`frame`], around bytes that need not be a group.
#[cfg(feature = "faults")]
pub(crate) fn frame_bytes(payload: &[u8], out: &mut Vec<u8>) {
    out.clear();
    out.resize(RECORD_HEADER_BYTES, 0);
    out.extend_from_slice(payload);
    close_frame(out);
}

/// Says how long the payload is that is there, and pads it.
fn close_frame(out: &mut Vec<u8>) {
    let payload_bytes = (out.len() - RECORD_HEADER_BYTES) as u64;
    out[..4].copy_from_slice(RECORD_MAGIC);
    out[8..16].copy_from_slice(&payload_bytes.to_be_bytes());
    out.resize(out.len().next_multiple_of(SECTOR), 0);
}

/// Completes a framed record for its place, and returns its checksum.
pub(crate) fn seal(record: &mut [u8], salt: &Salt, offset: u64, framed: &Framed) -> Checksum {
    record[16..24].copy_from_slice(&framed.group.to_be_bytes());
    record[24..32].copy_from_slice(&framed.durable_through.to_be_bytes());
    record[32..48].copy_from_slice(&framed.chain);
    let check = header_check(record, salt, offset);
    record[4..8].copy_from_slice(&check);
    let checksum = checksum(record, salt, offset);
    record[CHECKED_HEADER..RECORD_HEADER_BYTES].copy_from_slice(&checksum);
    checksum
}

/// A record that verifies.
#[derive(Debug)]
pub(crate) struct Record<'a> {
    pub(crate) framed: Framed,
    pub(crate) payload: &'a [u8],
    pub(crate) checksum: Checksum,
    /// With its padding.
    pub(crate) length: usize,
}

/// The record at `offset` of a file; `None` where none verifies. O(its length) where its header verifies,
/// else O(1): whoever chose a payload does not know the salt, so it cannot make a search expensive.
pub(crate) fn read<'a>(file: &'a [u8], salt: &Salt, offset: usize) -> Option<Record<'a>> {
    let record = file.get(offset..)?;
    record.starts_with(RECORD_MAGIC).then_some(())?;
    let header: &[u8; RECORD_HEADER_BYTES] = record.first_chunk()?;
    (header[4..8] == header_check(header, salt, offset as u64)).then_some(())?;
    let number = |at: usize| u64::from_be_bytes(*header[at..].first_chunk().expect("inside the header"));
    let payload_bytes = usize::try_from(number(8)).ok()?;
    let length = RECORD_HEADER_BYTES.checked_add(payload_bytes)?.checked_next_multiple_of(SECTOR)?;
    let record = record.get(..length)?;
    let found: Checksum = *header[CHECKED_HEADER..].first_chunk()?;
    (checksum(record, salt, offset as u64) == found).then_some(())?;
    let framed =
        Framed { group: number(16), durable_through: number(24), chain: *header[32..].first_chunk()? };
    let payload = &record[RECORD_HEADER_BYTES..RECORD_HEADER_BYTES + payload_bytes];
    Some(Record { framed, payload, checksum: found, length })
}

/// Over the salt, the place, the header and the payload with its padding, so that no bit is unchecked.
fn checksum(record: &[u8], salt: &Salt, offset: u64) -> Checksum {
    let mut hasher = blake3::Hasher::new();
    hasher.update(salt).update(&offset.to_be_bytes());
    hasher.update(&record[..CHECKED_HEADER]).update(&record[RECORD_HEADER_BYTES..]);
    cut(hasher.finalize())
}

/// Over the salt, the place and the header without its checks.
fn header_check(record: &[u8], salt: &Salt, offset: u64) -> [u8; 4] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(salt).update(&offset.to_be_bytes()).update(&record[8..CHECKED_HEADER]);
    *hasher.finalize().as_bytes().first_chunk().expect("a hash is longer than a check")
}

fn cut(hash: blake3::Hash) -> Checksum {
    *hash.as_bytes().first_chunk().expect("a hash is longer than a checksum")
}
