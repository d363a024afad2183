//! The address of an object: (kind, collection, key). The kind is part of it, so two kinds never clash.

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::{Arc, OnceLock};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::extension::ExtensionTag;
use crate::id::{ObjectId, SpaceId};
use crate::limits::{COLLECTION_BYTES_MAX, KEY_BYTES_MAX};

/// What an object is. The numbers are on the wire and on disk and never change.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Kind {
    /// The member list of a space; exactly one object, written by admins only.
    Members,
    /// A counter that goes up and down.
    Counter,
    /// An add-wins set of values.
    Set,
    /// A multi-value register.
    Register,
    /// An Automerge document.
    Document,
    /// A flag in which enabling wins over disabling at the same time.
    Flag,
    /// A flag in which disabling wins over enabling at the same time.
    DwFlag,
    /// A set in which removing an element wins over adding it at the same time.
    RwSet,
    /// A map from keys to nested counters, sets, registers, flags and maps.
    Map,
    /// A counter that never falls below zero.
    BoundedCounter,
    /// A register with a setting of the space: a collection's policy, a replica's region.
    Settings,
    /// A kind of a later version: what is done to such objects is kept and passed on, and cannot be read here.
    Extension(ExtensionTag),
}

impl Kind {
    /// Every kind an application can address.
    pub const APPLICATION: [Self; 9] = [
        Self::Counter,
        Self::Set,
        Self::Register,
        Self::Document,
        Self::Flag,
        Self::DwFlag,
        Self::RwSet,
        Self::Map,
        Self::BoundedCounter,
    ];

    /// The kind with this number, or `None`.
    pub fn from_tag(tag: u8) -> Option<Self> {
        match tag {
            0 => Some(Self::Members),
            1 => Some(Self::Counter),
            2 => Some(Self::Set),
            3 => Some(Self::Register),
            4 => Some(Self::Document),
            5 => Some(Self::Flag),
            6 => Some(Self::DwFlag),
            7 => Some(Self::RwSet),
            8 => Some(Self::Map),
            9 => Some(Self::BoundedCounter),
            10 => Some(Self::Settings),
            tag => ExtensionTag::new(tag).map(Self::Extension),
        }
    }

    /// The kind's number.
    pub fn tag(self) -> u8 {
        match self {
            Self::Members => 0,
            Self::Counter => 1,
            Self::Set => 2,
            Self::Register => 3,
            Self::Document => 4,
            Self::Flag => 5,
            Self::DwFlag => 6,
            Self::RwSet => 7,
            Self::Map => 8,
            Self::BoundedCounter => 9,
            Self::Settings => 10,
            Self::Extension(tag) => tag.get(),
        }
    }

    /// The kind's name as applications and people write it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Members => "members",
            Self::Counter => "counter",
            Self::Set => "set",
            Self::Register => "register",
            Self::Document => "document",
            Self::Flag => "flag",
            Self::DwFlag => "disable-wins-flag",
            Self::RwSet => "remove-wins-set",
            Self::Map => "map",
            Self::BoundedCounter => "bounded-counter",
            Self::Settings => "settings",
            Self::Extension(_) => "extension",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Extension(tag) => write!(f, "extension-{tag}"),
            known => f.write_str(known.name()),
        }
    }
}

impl fmt::Debug for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// As its number.
impl Serialize for Kind {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u32(u32::from(self.tag()))
    }
}

impl<'de> Deserialize<'de> for Kind {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let tag = u32::deserialize(deserializer)?;
        let kind = u8::try_from(tag).ok().and_then(Self::from_tag);
        kind.ok_or_else(|| serde::de::Error::custom(format_args!("{tag} is the number of no kind")))
    }
}

/// Why a collection or key name was refused. The caller's fault; nothing changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AddressError {
    /// The name is empty.
    #[error("the {part} name is empty")]
    Empty {
        /// `"collection"` or `"key"`.
        part: &'static str,
    },
    /// The name is too long.
    #[error("the {part} name {name:?}… has {bytes} bytes; the limit is {bytes_max}")]
    TooLong {
        /// `"collection"` or `"key"`.
        part: &'static str,
        /// The first characters of the name.
        name: String,
        /// Its length in bytes.
        bytes: usize,
        /// The limit in bytes.
        bytes_max: usize,
    },
    /// The name holds a NUL character, which separates names in storage.
    #[error("the {part} name {name:?} holds a NUL character")]
    Nul {
        /// `"collection"` or `"key"`.
        part: &'static str,
        /// The name.
        name: String,
    },
}

/// The address of one object within its space. Names are non-empty UTF-8 without NUL, within the limits.
/// Copies share them, and the id that was last computed of them.
#[derive(Clone)]
pub struct ObjectAddress {
    kind: Kind,
    names: Arc<Names>,
}

struct Names {
    /// Collection and key with a NUL between them. So joined they are ordered as the two one after the other.
    joined: Box<str>,
    collection_bytes: usize,
    /// The id in the space in which it was asked for first. Nearly always there is no other.
    id: OnceLock<(SpaceId, ObjectId)>,
}

impl ObjectAddress {
    /// Checks the names and builds the address.
    ///
    /// # Errors
    /// [`AddressError`] when a name is empty, too long or holds NUL.
    pub fn new(kind: Kind, collection: &str, key: &str) -> Result<Self, AddressError> {
        check_name("collection", collection, COLLECTION_BYTES_MAX)?;
        check_name("key", key, KEY_BYTES_MAX)?;
        Ok(Self::named(kind, collection, key))
    }

    /// The address of the member list.
    pub fn members() -> Self {
        Self::named(Kind::Members, "comity", "members")
    }

    fn named(kind: Kind, collection: &str, key: &str) -> Self {
        let mut joined = String::with_capacity(collection.len() + 1 + key.len());
        joined.extend([collection, "\0", key]);
        let names = Names { joined: joined.into(), collection_bytes: collection.len(), id: OnceLock::new() };
        Self { kind, names: Arc::new(names) }
    }

    /// What the object is.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The collection the object is in.
    pub fn collection(&self) -> &str {
        &self.names.joined[..self.names.collection_bytes]
    }

    /// The object's key within its collection and kind.
    pub fn key(&self) -> &str {
        &self.names.joined[self.names.collection_bytes + 1..]
    }

    /// The object's id, which is computed once for all copies of the address as long as they are of one space.
    pub(crate) fn id_in(&self, space: &SpaceId, derive: impl FnOnce() -> ObjectId) -> ObjectId {
        match self.names.id.get() {
            Some((known, id)) if known == space => *id,
            Some(_) => derive(),
            None => {
                let id = derive();
                // Somebody else may have been faster, with the same or in another space.
                let _ = self.names.id.set((*space, id));
                id
            }
        }
    }

    fn parts(&self) -> (Kind, &str) {
        (self.kind, &self.names.joined)
    }
}

impl PartialEq for ObjectAddress {
    fn eq(&self, other: &Self) -> bool {
        self.parts() == other.parts()
    }
}

impl Eq for ObjectAddress {}

impl PartialOrd for ObjectAddress {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// By kind, collection and key.
impl Ord for ObjectAddress {
    fn cmp(&self, other: &Self) -> Ordering {
        self.parts().cmp(&other.parts())
    }
}

impl Hash for ObjectAddress {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.parts().hash(state);
    }
}

impl fmt::Display for ObjectAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}/{}", self.kind, self.collection(), self.key())
    }
}

impl fmt::Debug for ObjectAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// Checks a collection name.
///
/// # Errors
/// [`AddressError`] when it is empty, too long or holds NUL.
pub fn check_collection(name: &str) -> Result<(), AddressError> {
    check_name("collection", name, COLLECTION_BYTES_MAX)
}

fn check_name(part: &'static str, name: &str, bytes_max: usize) -> Result<(), AddressError> {
    if name.is_empty() {
        return Err(AddressError::Empty { part });
    }
    if name.len() > bytes_max {
        let shown = name.chars().take(24).collect();
        return Err(AddressError::TooLong { part, name: shown, bytes: name.len(), bytes_max });
    }
    if name.contains('\0') {
        return Err(AddressError::Nul { part, name: name.to_owned() });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_at_the_limit_pass_and_one_byte_more_is_refused_by_name() {
        let longest = "k".repeat(KEY_BYTES_MAX);
        assert!(ObjectAddress::new(Kind::Counter, "stats", &longest).is_ok());
        let error = ObjectAddress::new(Kind::Counter, "stats", &format!("{longest}k")).unwrap_err();
        assert!(matches!(error, AddressError::TooLong { part: "key", bytes: 513, bytes_max: 512, .. }));
    }

    #[test]
    fn kinds_are_known_by_their_numbers_and_those_from_64_on_are_extensions() {
        for tag in 0..=u8::MAX {
            let kind = Kind::from_tag(tag);
            assert_eq!(kind.is_some(), tag <= 10 || tag >= 64, "{tag}");
            assert!(kind.is_none_or(|kind| kind.tag() == tag), "{tag}");
        }
        assert_eq!(Kind::from_tag(200).map(|kind| kind.to_string()).as_deref(), Some("extension-200"));
    }

    #[test]
    fn addresses_are_ordered_by_kind_then_collection_then_key() {
        let names = ["a", "a b", "ab", "b", "\u{1}"];
        let address = |(kind, collection, key)| ObjectAddress::new(kind, collection, key).unwrap();
        let all = [Kind::Set, Kind::Counter].into_iter().flat_map(|kind| {
            names.into_iter().flat_map(move |name| names.into_iter().map(move |key| (kind, name, key)))
        });
        let all: Vec<_> = all.collect();
        for (one, other) in all.iter().flat_map(|one| all.iter().map(move |other| (*one, *other))) {
            assert_eq!(address(one).cmp(&address(other)), one.cmp(&other), "{one:?} {other:?}");
            assert_eq!(address(one) == address(other), one == other);
        }
        let there = address((Kind::Set, "a b", "ab"));
        assert_eq!((there.collection(), there.key()), ("a b", "ab"));
    }

    #[test]
    fn the_id_is_that_of_the_space_it_is_asked_for_in() {
        let address = ObjectAddress::new(Kind::Counter, "stats", "visits").unwrap();
        let [here, there] = [1, 2].map(|number| SpaceId([number; 16]));
        let fresh = || ObjectAddress::new(Kind::Counter, "stats", "visits").unwrap();
        for space in [here, there, here] {
            assert_eq!(ObjectId::derive(&space, &address), ObjectId::derive(&space, &fresh()));
        }
        assert_ne!(ObjectId::derive(&here, &address), ObjectId::derive(&there, &address));
    }

    #[test]
    fn empty_names_and_nul_are_refused() {
        assert_eq!(ObjectAddress::new(Kind::Set, "", "k"), Err(AddressError::Empty { part: "collection" }));
        assert!(matches!(
            ObjectAddress::new(Kind::Set, "c", "a\0b"),
            Err(AddressError::Nul { part: "key", .. })
        ));
    }
}
