//! No operation of a later version is known.

use comity_crdts::{Dot, ExtensionTag, Kind, ObjectAddress};

use crate::extension::{Made, Meaning};

pub(super) fn is_known(_: ExtensionTag) -> bool {
    false
}

/// As what objects of a kind are stored.
pub(crate) fn stored_as(kind: Kind) -> Kind {
    kind
}

pub(super) fn meaning(_: Made<'_>, _: &ObjectAddress, _: (Dot, &[u8])) -> Meaning {
    Meaning::Nothing
}
