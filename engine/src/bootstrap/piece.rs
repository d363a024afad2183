//! Pieces: consecutive rows of a walk, packed, with where they begin and end, and a hash that says whether another state has
//! the same rows there.

use comity_crdts::{DecodeError, Reader, Writer};
use flate2::{Decompress, FlushDecompress, Status};

use crate::bootstrap::Offer;
use crate::bootstrap::walk::{END, WALK_KEY_BYTES_MAX};
use crate::hash::{Hash, hash};
use crate::limits::PIECE_BYTES_MAX;
use crate::pack::pack_quickly;

/// DEFLATE makes nothing longer than this many times.
const UNPACK_FACTOR_MAX: u64 = 1_032;
const PACKED: u8 = 1;

/// A row of a walk: its walk key, and its value.
pub type WalkRow = (Vec<u8>, Vec<u8>);

/// Rows while they are put together.
#[derive(Default)]
pub(crate) struct PieceWriter {
    out: Writer,
    last: Vec<u8>,
}

impl PieceWriter {
    pub(crate) fn push(&mut self, key: &[u8], value: &[u8]) {
        let shared = self.last.iter().zip(key).take_while(|(a, b)| a == b).count();
        self.out.varint(shared as u64);
        self.out.blob(&key[shared..]);
        self.out.blob(value);
        self.last.clear();
        self.last.extend_from_slice(key);
    }

    pub(crate) fn len(&self) -> usize {
        self.out.len()
    }

    /// The rows, after `from` and up to `until`.
    pub(crate) fn finish(self, from: Vec<u8>, until: Vec<u8>) -> Piece {
        Piece::new(from, until, self.out.finish())
    }
}

/// Consecutive rows of a walk: those after `from`, up to `until`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Piece {
    pub(crate) from: Vec<u8>,
    pub(crate) until: Vec<u8>,
    pub(crate) rows: Vec<u8>,
    pub(crate) hash: Hash,
}

/// What names the rows of a piece: its bounds and they themselves.
pub(crate) fn piece_hash(from: &[u8], until: &[u8], rows: &[u8]) -> Hash {
    let lengths = [from.len() as u64, until.len() as u64].map(u64::to_be_bytes).concat();
    hash("comity 2026 snapshot piece\0", &[&lengths, from, until, rows])
}

/// Shows that a piece is of an offer, so that none of another one is taken for it.
pub(crate) fn bind(offer: &Offer, piece: &Hash) -> Hash {
    let numbers = [offer.applied, offer.rows, offer.bytes].map(u64::to_be_bytes).concat();
    hash("comity 2026 snapshot binding\0", &[&offer.digest.0.to_be_bytes(), &numbers, &piece.0])
}

impl Piece {
    fn new(from: Vec<u8>, until: Vec<u8>, rows: Vec<u8>) -> Self {
        let hash = piece_hash(&from, &until, &rows);
        Self { from, until, rows, hash }
    }

    pub(crate) fn encode(&self, offer: &Offer) -> Vec<u8> {
        let mut out = Writer::with_room(self.rows.len() / 2 + 256);
        out.bytes(&bind(offer, &self.hash).0);
        out.blob(&self.from);
        out.blob(&self.until);
        out.bytes(&pack(&self.rows));
        out.finish()
    }

    /// A piece that was received, and its rows as they came. Memory is in proportion to what came, and bounded.
    pub(crate) fn decode<'a>(offer: &Offer, bytes: &'a [u8]) -> Result<(Self, &'a [u8]), DecodeError> {
        let mut reader = Reader::new(bytes);
        let bound = Hash(reader.array("hash of a piece")?);
        let from = reader.blob(WALK_KEY_BYTES_MAX, "start of a piece")?.to_vec();
        let until = reader.blob(WALK_KEY_BYTES_MAX, "end of a piece")?.to_vec();
        if until <= from {
            return Err(DecodeError::Invalid { what: "piece", rule: "ends after it begins" });
        }
        let packed = reader.bytes(reader.remaining(), "rows of a piece")?;
        let piece = Self::new(from, until, unpack(packed)?);
        if bind(offer, &piece.hash) != bound {
            return Err(DecodeError::Invalid {
                what: "piece",
                rule: "is one of the snapshot that was offered",
            });
        }
        Ok((piece, packed))
    }
}

/// Rows as they are sent and staged: a flag and, packed, their length.
pub(crate) fn pack(rows: &[u8]) -> Vec<u8> {
    let packed = pack_quickly(rows);
    let mut out = Writer::with_room(packed.as_ref().map_or(rows.len(), Vec::len) + 16);
    match packed {
        Some(packed) => {
            out.u8(PACKED);
            out.varint(rows.len() as u64);
            out.bytes(&packed);
        }
        None => {
            out.u8(0);
            out.bytes(rows);
        }
    }
    out.finish()
}

/// The rows that [`pack`] packed.
pub(crate) fn unpack(bytes: &[u8]) -> Result<Vec<u8>, DecodeError> {
    let mut reader = Reader::new(bytes);
    let flags = reader.u8("piece flags")?;
    if flags == 0 {
        let rows = reader.bytes(reader.remaining(), "rows of a piece")?;
        return Ok(rows.to_vec());
    }
    if flags != PACKED {
        return Err(DecodeError::UnknownTag { what: "piece flags", tag: u64::from(flags) });
    }
    let length = reader.varint_max(PIECE_BYTES_MAX as u64, "rows of a piece")?;
    let packed = reader.bytes(reader.remaining(), "rows of a piece")?;
    if packed.len() as u64 >= length || length > UNPACK_FACTOR_MAX * packed.len() as u64 {
        return Err(DecodeError::NotCanonical { what: "rows of a piece" });
    }
    let mut rows = vec![0; length as usize];
    let mut unpack = Decompress::new(false);
    let status = unpack.decompress(packed, &mut rows, FlushDecompress::Finish);
    let (read, written) = (unpack.total_in(), unpack.total_out());
    if !matches!(status, Ok(Status::StreamEnd)) || (read, written) != (packed.len() as u64, length) {
        return Err(DecodeError::Invalid { what: "rows of a piece", rule: "unpack to the length named" });
    }
    Ok(rows)
}

/// The rows in a piece's bytes, in ascending order and within its bounds; one that is not is the last.
pub(crate) fn rows_of<'a>(
    from: &'a [u8],
    until: &'a [u8],
    rows: &'a [u8],
) -> impl Iterator<Item = Result<(Vec<u8>, &'a [u8]), DecodeError>> {
    let (mut reader, mut last) = (Reader::new(rows), None::<Vec<u8>>);
    std::iter::from_fn(move || {
        (reader.remaining() > 0).then(|| {
            let before = last.as_deref().unwrap_or_default();
            let shared = reader.varint_max(before.len() as u64, "shared part of a walk key")? as usize;
            let rest = reader.blob(WALK_KEY_BYTES_MAX, "walk key")?;
            let key = [&before[..shared], rest].concat();
            let is_next = key.as_slice() > last.as_deref().unwrap_or(from);
            if !is_next || key.as_slice() > until || key.len() > WALK_KEY_BYTES_MAX || key.as_slice() >= END {
                return Err(DecodeError::Invalid { what: "walk key", rule: "ascends within its piece" });
            }
            let value = reader.blob(PIECE_BYTES_MAX, "row")?;
            last = Some(key.clone());
            Ok((key, value))
        })
    })
}

/// A piece of a snapshot as it is sent.
pub fn encode_piece(offer: &Offer, (from, until): (&[u8], &[u8]), rows: &[WalkRow]) -> Vec<u8> {
    let mut writer = PieceWriter::default();
    rows.iter().for_each(|(key, value)| writer.push(key, value));
    writer.finish(from.to_vec(), until.to_vec()).encode(offer)
}

/// Where a piece of a snapshot begins and ends, and its rows.
///
/// # Errors
/// [`DecodeError`] when it is none of what was offered.
pub fn decode_piece(offer: &Offer, bytes: &[u8]) -> Result<([Vec<u8>; 2], Vec<WalkRow>), DecodeError> {
    let (Piece { from, until, rows, .. }, _) = Piece::decode(offer, bytes)?;
    let rows = rows_of(&from, &until, &rows).map(|row| row.map(|(key, value)| (key, value.to_vec())));
    let rows = rows.collect::<Result<_, _>>()?;
    Ok(([from, until], rows))
}
