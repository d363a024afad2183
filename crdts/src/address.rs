//! The address of an object: (kind, collection, key). The kind is part of it, so two kinds never clash.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::extension::ExtensionTag;
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
/// Copies share them.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectAddress {
    kind: Kind,
    collection: Arc<str>,
    key: Arc<str>,
}

impl ObjectAddress {
    /// Checks the names and builds the address.
    ///
    /// # Errors
    /// [`AddressError`] when a name is empty, too long or holds NUL.
    pub fn new(kind: Kind, collection: &str, key: &str) -> Result<Self, AddressError> {
        check_name("collection", collection, COLLECTION_BYTES_MAX)?;
        check_name("key", key, KEY_BYTES_MAX)?;
        Ok(Self { kind, collection: collection.into(), key: key.into() })
    }

    /// The address of the member list.
    pub fn members() -> Self {
        Self { kind: Kind::Members, collection: "comity".into(), key: "members".into() }
    }

    /// What the object is.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The collection the object is in.
    pub fn collection(&self) -> &str {
        &self.collection
    }

    /// The object's key within its collection and kind.
    pub fn key(&self) -> &str {
        &self.key
    }
}

impl fmt::Display for ObjectAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}/{}", self.kind, self.collection, self.key)
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
    fn empty_names_and_nul_are_refused() {
        assert_eq!(ObjectAddress::new(Kind::Set, "", "k"), Err(AddressError::Empty { part: "collection" }));
        assert!(matches!(
            ObjectAddress::new(Kind::Set, "c", "a\0b"),
            Err(AddressError::Nul { part: "key", .. })
        ));
    }
}
