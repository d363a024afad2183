//! Whole documents as Automerge saves them. Their columns are inflated here, and everything in them that
//! Automerge would allocate or iterate for is counted, before Automerge sees them; and what it sees is what was
//! counted, not what came.

use automerge::Automerge;

use crate::codec::{DecodeError, Reader, Writer};
use crate::guard::guard;

use super::columns::{COLUMN_DEFLATED, Deltas, Rows, Shape, count_rows, directory, sum_runs};
use super::ingest::{Budget, CHUNK_DOCUMENT, chunk_hash, write_chunk};
use super::{DocumentError, HASH_BYTES, RawChange, read_actor};

const COLUMN_ACTOR: u64 = 1;
const COLUMN_MAX_OP: u64 = 19;
const COLUMN_DEPENDENCY_COUNT: u64 = 64;
const COLUMN_DEPENDENCY: u64 = 67;
const COLUMN_OP_ACTOR: u64 = 33;
/// What Automerge takes for a change, for an operation that a change claims to have until it has built so many
/// that it packs them, and for an operation; bytes, measured and rounded up.
const MEMORY_PER_CHANGE: u64 = 1280;
const MEMORY_PER_CLAIM: u64 = 256;
const MEMORY_OF_CLAIMS_MAX: u64 = 4096;
const MEMORY_PER_OP: u64 = 512;
/// What it takes for a dependency or a predecessor.
const MEMORY_PER_LINK: u64 = 64;
/// One clock is kept for so many changes, with a cell for each actor.
const CHANGES_PER_CLOCK: u64 = 16;
const MEMORY_PER_CLOCK_CELL: u64 = 4;

/// The changes of the whole document in a chunk's `contents`, dependencies before dependents.
pub(super) fn unpack_document(
    contents: &[u8],
    budget: &mut Budget<'_>,
) -> Result<Vec<RawChange>, DocumentError> {
    let contents = inflated(contents, budget)?;
    let hash = chunk_hash(CHUNK_DOCUMENT, &contents);
    let checksum = hash.first_chunk().copied().expect("a hash is longer than a checksum");
    let chunk = write_chunk(checksum, CHUNK_DOCUMENT, &contents);
    drop(contents);
    let load = || {
        let refused = |error: automerge::AutomergeError| DocumentError::Refused { reason: error.to_string() };
        Ok(Automerge::load(&chunk).map_err(refused)?.get_changes(&[]))
    };
    let changes = guard(load).unwrap_or_else(|reason| Err(DocumentError::Panicked { reason }))?;
    changes.into_iter().map(|change| RawChange::parse(change.raw_bytes())).collect()
}

/// The document with every column inflated, once all of it is within the limits.
fn inflated(contents: &[u8], budget: &mut Budget<'_>) -> Result<Vec<u8>, DocumentError> {
    let mut reader = Reader::new(contents);
    let actors = reader.count(contents.len(), "actors")?;
    for _ in 0..actors {
        read_actor(&mut reader)?;
    }
    let heads = reader.count(contents.len(), "heads")?;
    reader.bytes(heads * HASH_BYTES, "heads")?;
    let prefix = &contents[..contents.len() - reader.remaining()];
    let of_changes = directory(&mut reader, contents.len())?;
    let of_ops = directory(&mut reader, contents.len())?;
    let of_changes = Section::read(&of_changes, &mut reader, budget)?;
    let of_ops = Section::read(&of_ops, &mut reader, budget)?;
    let suffix = reader.bytes(reader.remaining(), "head indexes")?;

    let changes = of_changes.count(COLUMN_ACTOR, "changes supplied", budget.changes_left())?;
    budget.spend_changes(changes)?;
    of_changes.check(changes, budget)?;
    let ops = of_ops.count(COLUMN_OP_ACTOR, "operations supplied", budget.ops_left())?;
    budget.spend_ops(ops)?;
    budget.spend_memory(ops.saturating_mul(MEMORY_PER_OP))?;
    of_ops.check(ops, budget)?;
    let clock_cells = (changes / CHANGES_PER_CLOCK + 1).saturating_mul(actors as u64);
    budget.spend_memory(clock_cells.saturating_mul(MEMORY_PER_CLOCK_CELL))?;
    check_claims(&of_changes, changes, budget)?;

    let columns_bytes = of_changes.bytes() + of_ops.bytes();
    let mut out = Writer::with_room(contents.len() + columns_bytes);
    out.bytes(prefix);
    of_changes.write_directory(&mut out);
    of_ops.write_directory(&mut out);
    of_changes.write_columns(&mut out);
    of_ops.write_columns(&mut out);
    out.bytes(suffix);
    Ok(out.finish())
}

/// Checks that changes depend on earlier ones, and what they claim to hold: a change's operations are those
/// above what it depends on, up to its last.
fn check_claims(section: &Section<'_>, changes: u64, budget: &mut Budget<'_>) -> Result<(), DocumentError> {
    let what = "changes of a document";
    let mut max_op = Deltas::new(section.column(COLUMN_MAX_OP));
    let mut dependency_count = Rows::unsigned(section.column(COLUMN_DEPENDENCY_COUNT));
    let mut dependency = Deltas::new(section.column(COLUMN_DEPENDENCY));
    let mut max_ops: Vec<u64> = Vec::new();
    for _ in 0..changes {
        let missing = DecodeError::Truncated { what };
        let own = max_op.next(what)?.ok_or(missing.clone())?;
        let mut before = 0;
        for _ in 0..dependency_count.next(what)?.unwrap_or(0) {
            let index = dependency.next(what)?.ok_or(missing.clone())?;
            let later = DecodeError::Invalid { what, rule: "must follow those they depend on" };
            let earlier = usize::try_from(index).ok().and_then(|index| max_ops.get(index));
            before = before.max(*earlier.ok_or(later)?);
        }
        let claims = own.saturating_sub(before).saturating_mul(MEMORY_PER_CLAIM);
        budget.spend_memory(MEMORY_PER_CHANGE + claims.min(MEMORY_OF_CLAIMS_MAX))?;
        max_ops.push(own);
    }
    Ok(())
}

/// One column, inflated if it was deflated.
enum Column<'a> {
    AsIs(&'a [u8]),
    Inflated(Vec<u8>),
}

impl Column<'_> {
    fn bytes(&self) -> &[u8] {
        match self {
            Self::AsIs(bytes) => bytes,
            Self::Inflated(bytes) => bytes,
        }
    }
}

/// The columns of the changes, or those of the operations, by their specifications when not deflated.
struct Section<'a> {
    columns: Vec<(u64, Column<'a>)>,
}

impl<'a> Section<'a> {
    fn read(
        directory: &[(u64, usize)],
        reader: &mut Reader<'a>,
        budget: &mut Budget<'_>,
    ) -> Result<Self, DocumentError> {
        let mut columns = Vec::new();
        for (spec, bytes) in directory {
            let bytes = reader.bytes(*bytes, "column")?;
            let is_deflated = spec & COLUMN_DEFLATED != 0;
            let column = if is_deflated {
                Column::Inflated(budget.inflate(bytes, budget.limits.inflated_bytes)?)
            } else {
                Column::AsIs(bytes)
            };
            columns.push((spec & !COLUMN_DEFLATED, column));
        }
        Ok(Self { columns })
    }

    fn column(&self, wanted: u64) -> &[u8] {
        let found = self.columns.iter().find(|(spec, _)| *spec == wanted);
        found.map_or(&[], |(_, column)| column.bytes())
    }

    fn bytes(&self) -> usize {
        self.columns.iter().map(|(_, column)| column.bytes().len()).sum()
    }

    /// The number of rows, which is that of the column `counted`.
    fn count(&self, counted: u64, what: &'static str, rows_max: u64) -> Result<u64, DocumentError> {
        count_rows(self.column(counted), Shape::Unsigned, what, rows_max)
    }

    /// Holds what the columns of so many rows claim to the limits. O(bytes).
    fn check(&self, rows: u64, budget: &mut Budget<'_>) -> Result<(), DocumentError> {
        // The columns that follow a group hold as many rows as its rows add up to.
        let mut group = None;
        for (spec, column) in &self.columns {
            let (column, shape, id) = (column.bytes(), Shape::of(*spec), spec >> 4);
            let rows = group.filter(|(group, _)| *group == id).map_or(rows, |(_, links)| links);
            match shape {
                Shape::Raw => continue,
                Shape::Group => {
                    let links_max = budget.limits.memory_bytes / MEMORY_PER_LINK;
                    let links = sum_runs(column, "links in a document", links_max, 0, Reader::varint)?;
                    budget.spend_memory(links.saturating_mul(MEMORY_PER_LINK))?;
                    group = Some((id, links));
                }
                Shape::Text => {
                    let (what, bytes_max) = ("bytes of names supplied", budget.names_bytes_left());
                    let bytes = sum_runs(column, what, bytes_max, 0, |reader, what| {
                        reader.blob(usize::MAX, what).map(|name| name.len() as u64)
                    })?;
                    budget.spend_names(bytes)?;
                }
                Shape::ValueLength => {
                    let bytes_max = self.column(spec | 7).len() as u64;
                    sum_runs(column, "bytes of values in a document", bytes_max, 0, |reader, what| {
                        reader.varint(what).map(|length| length >> 4)
                    })?;
                }
                Shape::Unsigned | Shape::Delta | Shape::Boolean => {}
            }
            count_rows(column, shape, "rows of a column in a document", rows)?;
        }
        Ok(())
    }

    fn write_directory(&self, out: &mut Writer) {
        out.varint(self.columns.len() as u64);
        for (spec, column) in &self.columns {
            out.varint(*spec);
            out.varint(column.bytes().len() as u64);
        }
    }

    fn write_columns(&self, out: &mut Writer) {
        self.columns.iter().for_each(|(_, column)| out.bytes(column.bytes()));
    }
}
