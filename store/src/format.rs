//! The tables of the data file, what it says about itself, its format version, and opening it. Described
//! in `docs/storage.md`.

use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use comity_crdts::{LaneId, SpaceId};
use redb::{Builder, Database, ReadableDatabase, StorageBackend, TableDefinition, WriteTransaction};

use crate::data_file::DataFile;
use crate::error::OpenError;

/// The version this build writes, and the latest it reads.
pub(crate) const FORMAT_VERSION: u32 = 3;
/// Without a log: every group was durable in the database itself.
const VERSION_WITHOUT_LOG: u32 = 1;
/// Nothing was ever dropped from the log.
const VERSION_WITHOUT_DROPS: u32 = 2;

/// Space, lane and lsn of an entry; sorts by them.
pub(crate) type LogKey = [u8; 40];

/// The log of record.
pub(crate) const LOG: TableDefinition<'static, &LogKey, &[u8]> = TableDefinition::new("log");
/// The ordered state.
pub(crate) const STATE: TableDefinition<'static, &[u8], &[u8]> = TableDefinition::new("state");
/// What the file is.
const META: TableDefinition<'static, &str, &[u8]> = TableDefinition::new("meta");

const META_KIND: &str = "kind";
const META_FORMAT: &str = "format";
const META_REPLAYED: &str = "replayed";
const META_DAMAGE: &str = "damage";
const KIND: &[u8] = b"comity store";

/// The key of an entry in the log table.
pub(crate) fn log_key(space: &SpaceId, lane: &LaneId, lsn: u64) -> LogKey {
    let mut key = [0; 40];
    key[..16].copy_from_slice(&space.0);
    key[16..32].copy_from_slice(&lane.0);
    key[32..].copy_from_slice(&lsn.to_be_bytes());
    key
}

/// The lsn in a key of the log table.
pub(crate) fn lsn_of(key: &LogKey) -> u64 {
    u64::from_be_bytes(*key.last_chunk().expect("a log key is longer than an lsn"))
}

/// Writes an empty store into an empty `file`, durably, and closes it.
pub(crate) fn create(path: &Path, file: File) -> Result<(), OpenError> {
    let database = guarded(path, || Ok(Builder::new().create_file(file)?))?;
    initialise(&database).map_err(|error| OpenError::database(path, error))
}

/// Opens the store in `file` and checks what it is.
pub(crate) fn open(path: &Path, file: DataFile, cache_bytes: usize) -> Result<Database, OpenError> {
    let length = file.len().map_err(|error| OpenError::io("reading", path, error))?;
    if length == 0 {
        // redb would make an empty file into a new database.
        return Err(OpenError::Damaged { path: path.to_owned(), detail: "the file is empty".to_owned() });
    }
    let open = || Ok(Builder::new().set_cache_size(cache_bytes).create_with_backend(file)?);
    let database = guarded(path, open)?;
    check(path, &database)?;
    Ok(database)
}

/// Creates the tables in a new database.
pub(crate) fn initialise(database: &Database) -> Result<(), redb::Error> {
    let transaction = begin_durable(database)?;
    transaction.open_table(LOG)?;
    transaction.open_table(STATE)?;
    let mut meta = transaction.open_table(META)?;
    meta.insert(META_KIND, KIND)?;
    meta.insert(META_FORMAT, FORMAT_VERSION.to_be_bytes().as_slice())?;
    drop(meta);
    Replayed::default().write(&transaction)?;
    Ok(transaction.commit()?)
}

/// How much of the log the database holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Replayed {
    /// The last group; zero before the first.
    pub(crate) group: u64,
    /// The file of the log that later groups are in, or in files after it; zero before the first file.
    pub(crate) file: u64,
}

impl Replayed {
    /// Reads it. `None` where the database does not say.
    pub(crate) fn read(database: &Database) -> Result<Option<Self>, redb::Error> {
        let meta = database.begin_read()?.open_table(META)?;
        let Some(value) = meta.get(META_REPLAYED)? else {
            let format = meta.get(META_FORMAT)?;
            let old = format.is_some_and(|format| format.value() == VERSION_WITHOUT_LOG.to_be_bytes());
            return Ok(old.then(Self::default));
        };
        let Some([group, file]) = numbers(value.value()) else { return Ok(None) };
        Ok(Some(Self { group, file }))
    }

    /// Writes it, with the format version that has it.
    pub(crate) fn write(self, transaction: &WriteTransaction) -> Result<(), redb::Error> {
        let mut meta = transaction.open_table(META)?;
        meta.insert(META_FORMAT, FORMAT_VERSION.to_be_bytes().as_slice())?;
        meta.insert(META_REPLAYED, bytes([self.group, self.file]).as_slice())?;
        Ok(())
    }
}

/// A loss that was found and not yet reported for certain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Loss {
    /// The first group lost.
    pub(crate) group: u64,
    /// The last group known to have been written.
    pub(crate) through: u64,
    /// How many of them can be read in the files kept aside.
    pub(crate) readable: u64,
    /// The files from this number on are kept aside,
    pub(crate) from: u64,
    /// up to before this one.
    pub(crate) until: u64,
}

impl Loss {
    /// Reads it, where there is one.
    pub(crate) fn read(database: &Database) -> Result<Option<Self>, redb::Error> {
        let meta = database.begin_read()?.open_table(META)?;
        let Some(value) = meta.get(META_DAMAGE)? else { return Ok(None) };
        let fields = numbers(value.value());
        Ok(fields.map(|[group, through, readable, from, until]| Self {
            group,
            through,
            readable,
            from,
            until,
        }))
    }

    /// Writes it.
    pub(crate) fn write(self, transaction: &WriteTransaction) -> Result<(), redb::Error> {
        let value = bytes([self.group, self.through, self.readable, self.from, self.until]);
        transaction.open_table(META)?.insert(META_DAMAGE, value.as_slice())?;
        Ok(())
    }

    /// Forgets it, once it was reported.
    pub(crate) fn remove(transaction: &WriteTransaction) -> Result<(), redb::Error> {
        transaction.open_table(META)?.remove(META_DAMAGE)?;
        Ok(())
    }
}

fn bytes<const N: usize>(numbers: [u64; N]) -> Vec<u8> {
    numbers.iter().flat_map(|number| number.to_be_bytes()).collect()
}

fn numbers<const N: usize>(bytes: &[u8]) -> Option<[u64; N]> {
    let (chunks, rest) = bytes.as_chunks::<8>();
    let numbers: Vec<_> = chunks.iter().map(|chunk| u64::from_be_bytes(*chunk)).collect();
    if rest.is_empty() { numbers.try_into().ok() } else { None }
}

/// A transaction whose commit only the next durable one makes last.
pub(crate) fn begin_eventual(database: &Database) -> Result<WriteTransaction, redb::Error> {
    let mut transaction = database.begin_write()?;
    transaction.set_durability(redb::Durability::None)?;
    Ok(transaction)
}

/// A transaction whose commit survives a power cut, and after which opening needs no full repair.
pub(crate) fn begin_durable(database: &Database) -> Result<WriteTransaction, redb::Error> {
    let mut transaction = database.begin_write()?;
    transaction.set_durability(redb::Durability::Immediate)?;
    transaction.set_two_phase_commit(true);
    transaction.set_quick_repair(true);
    Ok(transaction)
}

/// Refuses a database that is not a store of a version this build reads.
pub(crate) fn check(path: &Path, database: &Database) -> Result<(), OpenError> {
    let (kind, format) = read_meta(database).map_err(|error| OpenError::database(path, error))?;
    if kind.as_deref() != Some(KIND) {
        let detail = "it does not say that it is one".to_owned();
        return Err(OpenError::Foreign { path: path.to_owned(), detail });
    }
    let format = format.and_then(|bytes| Some(u32::from_be_bytes(bytes.try_into().ok()?)));
    match format {
        Some(VERSION_WITHOUT_LOG | VERSION_WITHOUT_DROPS | FORMAT_VERSION) => Ok(()),
        Some(found) if found > FORMAT_VERSION => {
            Err(OpenError::NewerFormat { path: path.to_owned(), found, supported: FORMAT_VERSION })
        }
        _ => {
            let detail = "its format version cannot be read".to_owned();
            Err(OpenError::Damaged { path: path.to_owned(), detail })
        }
    }
}

type Meta = (Option<Vec<u8>>, Option<Vec<u8>>);

fn read_meta(database: &Database) -> Result<Meta, redb::Error> {
    let meta = database.begin_read()?.open_table(META)?;
    let read = |key| -> Result<Option<Vec<u8>>, redb::Error> {
        Ok(meta.get(key)?.map(|value| value.value().to_vec()))
    };
    Ok((read(META_KIND)?, read(META_FORMAT)?))
}

/// Opening parses bytes that a fault may have changed at will; a panic there says that they are damaged.
pub(crate) fn guarded(
    path: &Path,
    open: impl FnOnce() -> Result<Database, redb::Error>,
) -> Result<Database, OpenError> {
    match catch_unwind(AssertUnwindSafe(open)) {
        Ok(opened) => opened.map_err(|error| OpenError::database(path, error)),
        Err(_) => {
            let detail = "the database could not make sense of it".to_owned();
            Err(OpenError::Damaged { path: path.to_owned(), detail })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::golden;

    /// The bytes that the document gives for `name`, from a line `name: hex`.
    fn documented(name: &str) -> Vec<u8> {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/storage.md");
        let document = std::fs::read_to_string(path).unwrap();
        let prefix = format!("{name}: ");
        let hex = document.lines().find_map(|line| line.strip_prefix(&prefix)).unwrap();
        let digits: Vec<_> = hex.bytes().filter(|byte| *byte != b' ').collect();
        let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
        digits.chunks(2).map(byte).collect()
    }

    fn padded(mut bytes: Vec<u8>) -> Vec<u8> {
        bytes.resize(bytes.len().next_multiple_of(512), 0);
        bytes
    }

    #[test]
    fn the_bytes_are_those_in_the_document() {
        let key = log_key(&SpaceId([0xa1; 16]), &comity_crdts::OriginId([0xb2; 16]), 258);
        assert_eq!(documented("key in the log").as_slice(), key);
        assert_eq!(documented("kind"), KIND);
        assert_eq!(documented("format"), FORMAT_VERSION.to_be_bytes());
        assert_eq!(documented("replayed"), bytes([7, 3]));
        assert_eq!(lsn_of(&key), 258);
        let (header, record) = golden();
        assert_eq!(padded(documented("file header")), header);
        assert_eq!(padded(documented("record")), record);
    }
}
