//! Maps, and what is nested in them.

use comity_crdts::Kind;
use comity_engine::{ReadError, TxError, counter_at, flag_at, map_keys, map_len};

use crate::handles::{
    Counter, Flag, Object, Register, RegisterReader, Set, SetReader, TxCounter, TxFlag, TxObject, TxRegister,
    TxSet, ViewObject,
};
use crate::write::Transact;

/// A map from keys to counters, add-wins sets, registers, enable-wins flags and further maps, four keys deep. A key
/// is there while what it leads to holds something. Whoever removes a key removes what is seen there; what others do
/// to it at the same time stays, and the key with it.
///
/// Where concurrent writers put different kinds under one key, all are kept side by side, and the key is in the
/// conflict inbox until but one is left.
#[derive(Clone)]
pub struct Map(pub(crate) Object);

impl Map {
    /// The counter under a key.
    pub fn counter(&self, key: &str) -> Counter {
        Counter(self.0.nested(key, Kind::Counter))
    }

    /// The set under a key.
    pub fn set(&self, key: &str) -> Set {
        Set(self.0.nested(key, Kind::Set))
    }

    /// The register under a key.
    pub fn register(&self, key: &str) -> Register {
        Register(self.0.nested(key, Kind::Register))
    }

    /// The flag under a key.
    pub fn flag(&self, key: &str) -> Flag {
        Flag(self.0.nested(key, Kind::Flag))
    }

    /// The map under a key.
    pub fn map(&self, key: &str) -> Self {
        Self(self.0.nested(key, Kind::Map))
    }

    /// Removes what is under a key, of whatever kind. O(what it holds). A counter in it needs a replica that others
    /// have heard of, see [`Space::confirmed`](crate::Space::confirmed).
    pub fn remove(&self, key: &str) -> Transact {
        self.0.nested(key, Kind::Map).write(|tx, at| tx.remove_at(at))
    }

    /// Removes every key. As [`Map::remove`].
    pub fn clear(&self) -> Transact {
        self.0.remove()
    }

    /// At most `limit` keys after `after` in the newest durable state, in byte order, each with the kinds of what it
    /// leads to: one, unless writers differed. O(log n + keys).
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn keys(&self, after: Option<&str>, limit: usize) -> Result<Vec<(String, Vec<Kind>)>, ReadError> {
        self.0.read(|read, space, at| map_keys(read, space, at, after, limit))
    }

    /// The number of keys in the newest durable state, a key counted once for each kind it leads to. O(log n).
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn len(&self) -> Result<u64, ReadError> {
        self.0.read(map_len)
    }

    /// Whether the newest durable state holds no key. O(log n).
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn is_empty(&self) -> Result<bool, ReadError> {
        Ok(self.len()? == 0)
    }
}

/// A map inside a transaction.
pub struct TxMap<'o, 'a>(pub(crate) TxObject<'o, 'a>);

impl<'a> TxMap<'_, 'a> {
    /// The counter under a key.
    pub fn counter(&mut self, key: &str) -> TxCounter<'_, 'a> {
        TxCounter(self.0.nested(key, Kind::Counter))
    }

    /// The set under a key.
    pub fn set(&mut self, key: &str) -> TxSet<'_, 'a> {
        TxSet(self.0.nested(key, Kind::Set))
    }

    /// The register under a key.
    pub fn register(&mut self, key: &str) -> TxRegister<'_, 'a> {
        TxRegister(self.0.nested(key, Kind::Register))
    }

    /// The flag under a key.
    pub fn flag(&mut self, key: &str) -> TxFlag<'_, 'a> {
        TxFlag(self.0.nested(key, Kind::Flag))
    }

    /// The map under a key.
    pub fn map(&mut self, key: &str) -> TxMap<'_, 'a> {
        TxMap(self.0.nested(key, Kind::Map))
    }

    /// As [`Map::remove`].
    ///
    /// # Errors
    /// [`TxError`] when a name is out of limits or the change set would be too large; when there is a counter,
    /// also when nobody has heard of this replica yet.
    pub fn remove(&mut self, key: &str) -> Result<(), TxError> {
        self.0.nested(key, Kind::Map).write(|tx, at| tx.remove_at(at))
    }

    /// As [`Map::clear`].
    ///
    /// # Errors
    /// As [`TxMap::remove`].
    pub fn clear(&mut self) -> Result<(), TxError> {
        self.0.remove()
    }

    /// As [`Map::keys`].
    ///
    /// # Errors
    /// [`TxError`] when a name is out of limits or storage fails.
    pub fn keys(&self, after: Option<&str>, limit: usize) -> Result<Vec<(String, Vec<Kind>)>, TxError> {
        self.0.read(|read, space, at| map_keys(read, space, at, after, limit))
    }

    /// As [`Map::len`].
    ///
    /// # Errors
    /// [`TxError`] when a name is out of limits or storage fails.
    pub fn len(&self) -> Result<u64, TxError> {
        self.0.read(map_len)
    }

    /// Whether there is no key. O(log n).
    ///
    /// # Errors
    /// [`TxError`] when a name is out of limits or storage fails.
    pub fn is_empty(&self) -> Result<bool, TxError> {
        Ok(self.len()? == 0)
    }
}

/// A map in a view.
#[derive(Clone)]
pub struct MapReader<'v>(pub(crate) ViewObject<'v>);

impl<'v> MapReader<'v> {
    /// The value of the counter under a key.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn counter(&self, key: &str) -> Result<i128, ReadError> {
        self.0.nested(key, Kind::Counter).read(counter_at)
    }

    /// The set under a key.
    pub fn set(&self, key: &str) -> SetReader<'v> {
        SetReader(self.0.nested(key, Kind::Set))
    }

    /// The register under a key, to be read under a policy.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn register(&self, key: &str) -> Result<RegisterReader, ReadError> {
        let registry = self.0.view.registry();
        let register = self.0.nested(key, Kind::Register);
        register.read(|read, space, at| RegisterReader::load(read, space, at, registry))
    }

    /// Whether the flag under a key is enabled.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn flag(&self, key: &str) -> Result<bool, ReadError> {
        self.0.nested(key, Kind::Flag).read(flag_at)
    }

    /// The map under a key.
    pub fn map(&self, key: &str) -> Self {
        Self(self.0.nested(key, Kind::Map))
    }

    /// As [`Map::keys`].
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn keys(&self, after: Option<&str>, limit: usize) -> Result<Vec<(String, Vec<Kind>)>, ReadError> {
        self.0.read(|read, space, at| map_keys(read, space, at, after, limit))
    }

    /// As [`Map::len`].
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn len(&self) -> Result<u64, ReadError> {
        self.0.read(map_len)
    }

    /// Whether there is no key. O(log n).
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn is_empty(&self) -> Result<bool, ReadError> {
        Ok(self.len()? == 0)
    }
}
