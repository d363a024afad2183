//! Automerge changes as bytes, checked before anything is parsed or allocated.

mod columns;
mod elided;
#[cfg(any(test, feature = "testing"))]
pub mod hostile;
mod ingest;
mod operations;
mod rules;
mod snapshot;

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use crate::codec::{DecodeError, Reader, Writer};
use crate::limits::{
    DOCUMENT_ACTOR_BYTES_MAX, DOCUMENT_CHANGE_BYTES_MAX, DOCUMENT_CHANGE_NAMES_BYTES_MAX,
    DOCUMENT_CHANGE_OPS_MAX, DOCUMENT_CHANGE_PREDECESSORS_MAX, DOCUMENT_OP_COUNTER_MAX,
};

pub use elided::{Expected, RecentChanges};
pub use ingest::ChunkLimits;
pub(crate) use rules::check_applied;

use columns::{COLUMN_DEFLATED, directory, leb128_signed, sum_runs};
use ingest::chunk_hash;

const MAGIC: [u8; 4] = [0x85, 0x6f, 0x4a, 0x83];
const CHUNK_CHANGE: u8 = 1;
const HASH_BYTES: usize = 32;
/// What stands before the contents: magic, checksum, type, and a length of up to four bytes.
const HEADER_BYTES_MAX: usize = 4 + 4 + 1 + 4;
const COLUMN_KEY: u64 = 21;
const COLUMN_ACTION: u64 = 66;
const COLUMN_PREDECESSOR_COUNT: u64 = 112;
const COLUMN_MARK_NAME: u64 = 165;

/// Why a change or a document was refused. Unless a variant says otherwise, the change's author is at
/// fault, the document is as before, and the same bytes will be refused again.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DocumentError {
    /// The bytes are not laid out as one uncompressed change.
    #[error("not a change: {0}")]
    Malformed(#[from] DecodeError),
    /// The chunk is of a type that is not accepted here: a bundle or an unknown type, and where one change is
    /// expected, a whole document or a compressed change too.
    #[error("a chunk of type {chunk_type} is not accepted here")]
    ChunkType {
        /// The type found.
        chunk_type: u8,
    },
    /// The bytes are not what their checksum was computed over.
    #[error("the checksum does not match the bytes")]
    Checksum,
    /// A limit is exceeded.
    #[error("{what}: {value} is above the limit of {value_max}")]
    OverLimit {
        /// What is limited.
        what: &'static str,
        /// The number found; when counting stopped early, the first number above the limit.
        value: u64,
        /// The largest allowed.
        value_max: u64,
    },
    /// A change it depends on is neither in the document nor among the changes applied with it. Once that
    /// one is applied, this one may be tried again.
    #[error("the change depends on {}, which is missing", hex(.dependency))]
    MissingDependency {
        /// The hash of the missing change.
        dependency: [u8; HASH_BYTES],
    },
    /// The actor's changes are not numbered 1, 2, 3 …
    #[error("the change is number {seq} of its actor, whose next number is {seq_next}")]
    SequenceGap {
        /// The number found.
        seq: u64,
        /// The number that would continue the actor's changes.
        seq_next: u64,
    },
    /// Another change of the same actor has the same number: two writers share an actor.
    #[error("the actor has another change with number {seq}")]
    SequenceReused {
        /// The number used twice.
        seq: u64,
    },
    /// The change does not depend on its actor's previous change.
    #[error("the change does not follow its actor's previous change")]
    NotAfterOwnPrevious,
    /// The change's operations are not numbered above those it depends on; or it has none, and is not numbered right
    /// above them.
    #[error("the change starts at operation {start_op}, and depends on operation {max_op}")]
    StartOp {
        /// The first operation's number.
        start_op: u64,
        /// The greatest number among the changes it depends on.
        max_op: u64,
    },
    /// The change refers to an actor that nothing it depends on has introduced.
    #[error("the change refers to an unknown actor")]
    UnknownActor,
    /// The change has an operation on an object that neither it nor what it depends on has made.
    #[error("operation {counter} changes an unknown object")]
    UnknownObject {
        /// The number of the operation at fault.
        counter: u64,
    },
    /// The change has an operation that is not for the sort of object it is on: one on a key of a list or text, on an
    /// element of a map, an inserted key, or a mark outside of texts.
    #[error("operation {counter} is not for objects of the sort it is on")]
    ObjectType {
        /// The number of the operation at fault.
        counter: u64,
    },
    /// The beginning and the end of a mark are not a pair of operations, or the end is ordered before the
    /// beginning, so that the document could not be loaded again.
    #[error("operation {counter} does not end a mark that begins before it")]
    MarkOrder {
        /// The number of the operation at fault.
        counter: u64,
    },
    /// The change names an author although it is not its actor's first.
    #[error("only an actor's first change may name an author")]
    AuthorFooter,
    /// Automerge refused the change.
    #[error("refused: {reason}")]
    Refused {
        /// Automerge's words.
        reason: String,
    },
    /// Automerge panicked on the change.
    #[error("applying the change failed: {reason}")]
    Panicked {
        /// The panic's message.
        reason: String,
    },
    /// Automerge accepted the change but does not give the same bytes back, so the document could not be
    /// saved and loaded again.
    #[error("the change does not survive being stored")]
    NotReproduced,
    /// A version was named that the document does not contain. The caller's fault.
    #[error("the document has no change {}", hex(.head))]
    UnknownHead {
        /// The unknown hash.
        head: [u8; HASH_BYTES],
    },
    /// The document failed and could not be rebuilt from its own changes: a bug here or in Automerge. The
    /// instance holds nothing and refuses everything; load the document again.
    #[error("the document cannot be rebuilt from its changes: {reason}")]
    Poisoned {
        /// What went wrong.
        reason: String,
    },
}

fn hex(hash: &[u8; HASH_BYTES]) -> String {
    hash.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// One Automerge change as its uncompressed bytes: authentic, within the limits, not yet parsed by
/// Automerge. Clones share the bytes.
#[derive(Clone)]
pub struct RawChange {
    bytes: Arc<[u8]>,
    hash: [u8; HASH_BYTES],
    deps: Range<usize>,
    actor: Range<usize>,
    seq: u64,
    start_op: u64,
    ops: u64,
    /// Where the table of other actors begins, which the columns follow.
    actors_start: usize,
}

impl RawChange {
    /// Checks bytes that hold exactly one change. O(bytes), whatever the run lengths in them claim.
    ///
    /// # Errors
    /// [`DocumentError::Malformed`], [`DocumentError::ChunkType`], [`DocumentError::Checksum`] or
    /// [`DocumentError::OverLimit`].
    pub fn parse(bytes: &[u8]) -> Result<Self, DocumentError> {
        within("change bytes", bytes.len() as u64, DOCUMENT_CHANGE_BYTES_MAX as u64)?;
        let mut reader = Reader::new(bytes);
        if reader.array::<4>("magic")? != MAGIC {
            return Err(DecodeError::Invalid { what: "magic", rule: "must be 85 6f 4a 83" }.into());
        }
        let checksum: [u8; 4] = reader.array("checksum")?;
        let chunk_type = reader.u8("chunk type")?;
        if chunk_type != CHUNK_CHANGE {
            return Err(DocumentError::ChunkType { chunk_type });
        }
        let contents = reader.blob(DOCUMENT_CHANGE_BYTES_MAX, "change contents")?;
        reader.finish("change")?;
        let hash = chunk_hash(CHUNK_CHANGE, contents);
        if hash[..4] != checksum {
            return Err(DocumentError::Checksum);
        }
        parse_contents(bytes, contents, hash)
    }

    /// The change with these contents, checked like bytes from elsewhere.
    fn from_contents(contents: &[u8]) -> Result<Self, DocumentError> {
        let hash = chunk_hash(CHUNK_CHANGE, contents);
        let mut bytes = Writer::with_room(HEADER_BYTES_MAX + contents.len());
        bytes.bytes(&MAGIC);
        bytes.bytes(&hash[..4]);
        bytes.u8(CHUNK_CHANGE);
        bytes.blob(contents);
        within("change bytes", bytes.len() as u64, DOCUMENT_CHANGE_BYTES_MAX as u64)?;
        parse_contents(bytes.as_slice(), contents, hash)
    }

    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The change's name: SHA-256 of chunk type, length and contents.
    pub fn hash(&self) -> [u8; HASH_BYTES] {
        self.hash
    }

    /// The changes it depends on, ascending.
    pub fn deps(&self) -> impl Iterator<Item = [u8; HASH_BYTES]> + '_ {
        let (deps, _) = self.bytes[self.deps.clone()].as_chunks::<HASH_BYTES>();
        deps.iter().copied()
    }

    /// The actor that made the change.
    pub fn actor(&self) -> &[u8] {
        &self.bytes[self.actor.clone()]
    }

    /// The change's number among its actor's, from 1.
    pub fn seq(&self) -> u64 {
        self.seq
    }

    /// The number of its first operation.
    pub fn start_op(&self) -> u64 {
        self.start_op
    }

    /// The number of its last operation; one below the first when there are none.
    pub fn max_op(&self) -> u64 {
        self.start_op + self.ops - 1
    }

    /// How many operations it has.
    pub fn ops(&self) -> u64 {
        self.ops
    }
}

impl PartialEq for RawChange {
    fn eq(&self, other: &Self) -> bool {
        self.bytes == other.bytes
    }
}

impl Eq for RawChange {}

impl fmt::Debug for RawChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RawChange({}…, {} ops)", &hex(&self.hash)[..8], self.ops)
    }
}

fn within(what: &'static str, value: u64, value_max: u64) -> Result<u64, DocumentError> {
    if value > value_max { Err(DocumentError::OverLimit { what, value, value_max }) } else { Ok(value) }
}

/// Reads the fields before the columns, and counts what the columns claim to hold.
fn parse_contents(bytes: &[u8], contents: &[u8], hash: [u8; HASH_BYTES]) -> Result<RawChange, DocumentError> {
    let position = |reader: &Reader<'_>| bytes.len() - reader.remaining();
    let mut reader = Reader::new(contents);
    let deps_count = reader.count(DOCUMENT_CHANGE_BYTES_MAX, "dependencies")?;
    let deps_start = position(&reader);
    let (deps, _) = reader.bytes(deps_count * HASH_BYTES, "dependencies")?.as_chunks::<HASH_BYTES>();
    if !deps.is_sorted_by(|a, b| a < b) {
        return Err(DecodeError::NotCanonical { what: "dependencies" }.into());
    }
    let deps = deps_start..position(&reader);
    let actor_bytes = read_actor(&mut reader)?.len();
    let actor = position(&reader) - actor_bytes..position(&reader);
    let seq = reader.varint("sequence number")?;
    let start_op = reader.varint("first operation")?;
    if seq == 0 || start_op == 0 {
        return Err(DecodeError::Invalid { what: "change", rule: "numbers start at 1" }.into());
    }
    leb128_signed(&mut reader, "time")?;
    reader.text(DOCUMENT_CHANGE_BYTES_MAX, "message")?;
    let actors_start = position(&reader);
    for _ in 0..reader.count(DOCUMENT_CHANGE_BYTES_MAX, "other actors")? {
        read_actor(&mut reader)?;
    }
    let ops = count_ops(&mut reader)?;
    within("operation counter", start_op.saturating_add(ops) - 1, DOCUMENT_OP_COUNTER_MAX)?;
    let bytes = bytes.into();
    Ok(RawChange { bytes, hash, deps, actor, seq, start_op, ops, actors_start })
}

fn read_actor<'a>(reader: &mut Reader<'a>) -> Result<&'a [u8], DocumentError> {
    let actor = reader.blob(DOCUMENT_ACTOR_BYTES_MAX, "actor")?;
    if actor.is_empty() {
        return Err(DecodeError::Invalid { what: "actor", rule: "must not be empty" }.into());
    }
    Ok(actor)
}

/// Reads the specification and the length of each column.
fn read_directory(reader: &mut Reader<'_>) -> Result<Vec<(u64, usize)>, DocumentError> {
    let directory = directory(reader, DOCUMENT_CHANGE_BYTES_MAX)?;
    if directory.iter().any(|(spec, _)| spec & COLUMN_DEFLATED != 0) {
        return Err(DecodeError::Invalid { what: "column", rule: "must not be deflated" }.into());
    }
    Ok(directory)
}

/// Counts the operations from the column directory and the action column, and refuses what would grow out
/// of proportion to its bytes.
fn count_ops(reader: &mut Reader<'_>) -> Result<u64, DocumentError> {
    let mut ops = 0;
    for (spec, bytes) in read_directory(reader)? {
        let column = reader.bytes(bytes, "column")?;
        match spec {
            COLUMN_ACTION => {
                ops = sum_runs(
                    column,
                    "operations in a change",
                    DOCUMENT_CHANGE_OPS_MAX,
                    1,
                    |reader, what| reader.varint(what).map(|_| 1),
                )?;
            }
            COLUMN_PREDECESSOR_COUNT => {
                let value_max = DOCUMENT_CHANGE_PREDECESSORS_MAX;
                sum_runs(column, "predecessors in a change", value_max, 0, Reader::varint)?;
            }
            COLUMN_KEY | COLUMN_MARK_NAME => {
                let value_max = DOCUMENT_CHANGE_NAMES_BYTES_MAX;
                sum_runs(column, "bytes of names in a change", value_max, 0, |reader, what| {
                    reader.blob(DOCUMENT_CHANGE_BYTES_MAX, what).map(|name| name.len() as u64)
                })?;
            }
            _ => {}
        }
    }
    Ok(ops)
}

/// Writes a number as [`leb128_signed`] reads it.
fn write_leb128_signed(mut value: i64, out: &mut Writer) {
    loop {
        let byte = value as u8 & 0x7f;
        value >>= 7;
        let is_last = value == if byte & 0x40 == 0 { 0 } else { -1 };
        out.u8(if is_last { byte } else { byte | 0x80 });
        if is_last {
            return;
        }
    }
}

#[cfg(test)]
mod tests;
