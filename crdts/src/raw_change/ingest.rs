//! What a program of its own that speaks Automerge supplies: chunks of any type it may save or send, unpacked
//! into changes. Nothing is inflated, counted out or given to Automerge before it is held to a limit.

use flate2::{Decompress, FlushDecompress, Status};
use sha2::{Digest, Sha256};

use crate::codec::{DecodeError, Reader, Writer};
use crate::limits::DOCUMENT_CHANGE_BYTES_MAX;

use super::snapshot::unpack_document;
use super::{CHUNK_CHANGE, DocumentError, HASH_BYTES, MAGIC, RawChange, within};

pub(super) const CHUNK_DOCUMENT: u8 = 0;
const CHUNK_DEFLATED: u8 = 2;
/// What inflating begins with, bytes; the buffer then doubles up to what is allowed.
const INFLATE_START_BYTES: usize = 32 * 1024;

/// What may be supplied at once, all chunks together. What is within costs memory in proportion to `bytes`,
/// `inflated_bytes` and `memory_bytes`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChunkLimits {
    /// All chunks, bytes as they come.
    pub bytes: usize,
    /// What is deflated in them, inflated bytes; and separately, map keys, mark names and messages in whole
    /// documents, each counted as often as it is used.
    pub inflated_bytes: u64,
    /// Changes.
    pub changes: u64,
    /// Operations; in a whole document, those that left something behind.
    pub ops: u64,
    /// What Automerge is estimated to take for whole documents, bytes.
    pub memory_bytes: u64,
}

impl ChunkLimits {
    /// Enough for a text of a book's length with its history, and for its whole history in one chunk.
    pub const DEFAULT: Self = Self {
        bytes: 16 * 1024 * 1024,
        inflated_bytes: 64 * 1024 * 1024,
        changes: 512 * 1024,
        ops: 1024 * 1024,
        memory_bytes: 512 * 1024 * 1024,
    };
}

impl Default for ChunkLimits {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// What is left of the limits.
#[derive(Debug)]
pub(super) struct Budget<'a> {
    pub(super) limits: &'a ChunkLimits,
    inflated_bytes: u64,
    names_bytes: u64,
    changes: u64,
    ops: u64,
    memory_bytes: u64,
}

impl<'a> Budget<'a> {
    fn new(limits: &'a ChunkLimits) -> Self {
        Self { limits, inflated_bytes: 0, names_bytes: 0, changes: 0, ops: 0, memory_bytes: 0 }
    }

    /// Inflates one raw deflate stream that takes up all of `deflated`, to at most `bytes_max` bytes.
    pub(super) fn inflate(&mut self, deflated: &[u8], bytes_max: u64) -> Result<Vec<u8>, DocumentError> {
        let value_max = self.limits.inflated_bytes;
        let left = value_max - self.inflated_bytes;
        let inflated = inflate(deflated, left.min(bytes_max))?.ok_or_else(|| {
            let value_max = if left < bytes_max { value_max } else { bytes_max };
            DocumentError::OverLimit { what: "inflated bytes", value: value_max + 1, value_max }
        })?;
        self.inflated_bytes += inflated.len() as u64;
        Ok(inflated)
    }

    pub(super) fn changes_left(&self) -> u64 {
        self.limits.changes - self.changes
    }

    pub(super) fn ops_left(&self) -> u64 {
        self.limits.ops - self.ops
    }

    pub(super) fn names_bytes_left(&self) -> u64 {
        self.limits.inflated_bytes - self.names_bytes
    }

    pub(super) fn spend_changes(&mut self, changes: u64) -> Result<(), DocumentError> {
        spend(&mut self.changes, changes, "changes supplied", self.limits.changes)
    }

    pub(super) fn spend_ops(&mut self, ops: u64) -> Result<(), DocumentError> {
        spend(&mut self.ops, ops, "operations supplied", self.limits.ops)
    }

    pub(super) fn spend_names(&mut self, bytes: u64) -> Result<(), DocumentError> {
        spend(&mut self.names_bytes, bytes, "bytes of names supplied", self.limits.inflated_bytes)
    }

    pub(super) fn spend_memory(&mut self, bytes: u64) -> Result<(), DocumentError> {
        spend(&mut self.memory_bytes, bytes, "bytes to unpack documents", self.limits.memory_bytes)
    }
}

fn spend(spent: &mut u64, more: u64, what: &'static str, value_max: u64) -> Result<(), DocumentError> {
    *spent = within(what, spent.saturating_add(more), value_max)?;
    Ok(())
}

impl RawChange {
    /// Unpacks chunks that stand back to back, as an Automerge program saves or sends them: changes, deflated
    /// changes and whole documents. The changes come in the order of the chunks, those of a whole document
    /// dependencies first; one that is in several chunks comes several times. A change is the same, and has the
    /// same name, whichever way it came.
    ///
    /// Columns of a change are never deflated, by Automerge's format; those of a document may be. O(bytes) plus
    /// what the limits allow to be inflated and rebuilt; of a whole document, Automerge takes O(document).
    ///
    /// # Errors
    /// As [`RawChange::parse`] for each change, with [`DocumentError::OverLimit`] naming the limit of `limits`
    /// that is exceeded, [`DocumentError::ChunkType`] for bundles, and [`DocumentError::Refused`] or
    /// [`DocumentError::Panicked`] for a document that Automerge cannot read. Nothing of what was supplied is
    /// then to be used.
    pub fn read_chunks(bytes: &[u8], limits: &ChunkLimits) -> Result<Vec<Self>, DocumentError> {
        within("bytes supplied", bytes.len() as u64, limits.bytes as u64)?;
        let mut reader = Reader::new(bytes);
        let mut budget = Budget::new(limits);
        let mut changes = Vec::new();
        while reader.remaining() > 0 {
            let start = bytes.len() - reader.remaining();
            let chunk = Chunk::read(&mut reader, limits.bytes)?;
            let end = bytes.len() - reader.remaining();
            match chunk.chunk_type {
                CHUNK_CHANGE => push(&mut changes, Self::parse(&bytes[start..end])?, &mut budget)?,
                CHUNK_DEFLATED => {
                    let contents = budget.inflate(chunk.contents, DOCUMENT_CHANGE_BYTES_MAX as u64)?;
                    let change = Self::parse(&write_chunk(chunk.checksum, CHUNK_CHANGE, &contents))?;
                    push(&mut changes, change, &mut budget)?;
                }
                CHUNK_DOCUMENT => {
                    if chunk_hash(CHUNK_DOCUMENT, chunk.contents)[..4] != chunk.checksum {
                        return Err(DocumentError::Checksum);
                    }
                    changes.extend(unpack_document(chunk.contents, &mut budget)?);
                }
                chunk_type => return Err(DocumentError::ChunkType { chunk_type }),
            }
        }
        Ok(changes)
    }
}

fn push(
    changes: &mut Vec<RawChange>,
    change: RawChange,
    budget: &mut Budget<'_>,
) -> Result<(), DocumentError> {
    budget.spend_changes(1)?;
    budget.spend_ops(change.ops())?;
    changes.push(change);
    Ok(())
}

/// One chunk, taken apart.
struct Chunk<'a> {
    checksum: [u8; 4],
    chunk_type: u8,
    contents: &'a [u8],
}

impl<'a> Chunk<'a> {
    fn read(reader: &mut Reader<'a>, bytes_max: usize) -> Result<Self, DecodeError> {
        if reader.array::<4>("magic")? != MAGIC {
            return Err(DecodeError::Invalid { what: "magic", rule: "must be 85 6f 4a 83" });
        }
        let checksum = reader.array("checksum")?;
        let chunk_type = reader.u8("chunk type")?;
        let contents = reader.blob(bytes_max, "chunk contents")?;
        Ok(Self { checksum, chunk_type, contents })
    }
}

pub(super) fn write_chunk(checksum: [u8; 4], chunk_type: u8, contents: &[u8]) -> Vec<u8> {
    let mut chunk = Writer::with_room(contents.len() + 2 * HASH_BYTES);
    chunk.bytes(&MAGIC);
    chunk.bytes(&checksum);
    chunk.u8(chunk_type);
    chunk.blob(contents);
    chunk.finish()
}

/// SHA-256 of a chunk's type, length and contents; its checksum is the beginning.
pub(super) fn chunk_hash(chunk_type: u8, contents: &[u8]) -> [u8; HASH_BYTES] {
    let mut header = Writer::new();
    header.u8(chunk_type);
    header.varint(contents.len() as u64);
    Sha256::new().chain_update(header.as_slice()).chain_update(contents).finalize().into()
}

/// Inflates a raw deflate stream; `None` when it holds more than `bytes_max`. Allocates at most twice that, and
/// at most three times what it holds.
fn inflate(deflated: &[u8], bytes_max: u64) -> Result<Option<Vec<u8>>, DecodeError> {
    let invalid = || DecodeError::Invalid { what: "deflated bytes", rule: "must be one deflate stream" };
    let mut inflater = Decompress::new(false);
    let mut inflated = Vec::new();
    loop {
        let before = inflated.len();
        // One byte more than is allowed tells that it is exceeded.
        let room = usize::try_from(bytes_max).unwrap_or(usize::MAX).saturating_add(1) - before;
        inflated.reserve_exact(before.max(INFLATE_START_BYTES).min(room));
        let rest = usize::try_from(inflater.total_in()).ok().and_then(|read| deflated.get(read..));
        let rest = rest.ok_or_else(invalid)?;
        let status = inflater.decompress_vec(rest, &mut inflated, FlushDecompress::Finish);
        if inflated.len() as u64 > bytes_max {
            return Ok(None);
        }
        match status.map_err(|_| invalid())? {
            Status::StreamEnd if inflater.total_in() == deflated.len() as u64 => return Ok(Some(inflated)),
            Status::StreamEnd => return Err(invalid()),
            // Neither an end nor progress: the bytes are cut short.
            Status::Ok | Status::BufError if inflated.len() == before => return Err(invalid()),
            Status::Ok | Status::BufError => {}
        }
    }
}

#[cfg(test)]
mod tests;
