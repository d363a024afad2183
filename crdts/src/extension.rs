//! Numbers that this version of the format leaves to later ones, so that what is made with them can be kept and passed on
//! by who does not know it.

use std::fmt;

/// The number of a kind of object or of an operation that a later version of the format defines: 64 or more.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ExtensionTag(u8);

impl ExtensionTag {
    /// The least of them.
    pub const MIN: u8 = 64;

    /// The number as one of a later version's; `None` below 64.
    pub const fn new(tag: u8) -> Option<Self> {
        if tag >= Self::MIN { Some(Self(tag)) } else { None }
    }

    /// The number.
    pub const fn get(self) -> u8 {
        self.0
    }
}

impl fmt::Display for ExtensionTag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl fmt::Debug for ExtensionTag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}
