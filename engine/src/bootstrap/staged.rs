//! Staged pieces: what of a snapshot is here, durably, before it takes the place of the state.

use std::collections::BTreeMap;

use comity_crdts::SpaceId;
use serde::{Deserialize, Serialize};

use crate::hash::Hash;
use crate::keys;
use crate::rows::damaged;
use crate::space::decode;
use crate::store::{StateRead, StoreError};

/// What is known of a staged piece.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct StagedPiece {
    pub(crate) from: Vec<u8>,
    pub(crate) hash: Hash,
    pub(crate) rows: u64,
    /// Of its rows, before they were packed.
    pub(crate) bytes: u64,
}

/// Staged pieces by where they end.
pub(crate) type StagedPieces = BTreeMap<Vec<u8>, StagedPiece>;

/// What is staged in a space.
pub(crate) fn staged(read: &dyn StateRead, space: &SpaceId) -> Result<StagedPieces, StoreError> {
    let (from, until) = keys::staged_pieces(space);
    let rows = read.scan(&from, &until, usize::MAX)?;
    let piece = |(key, bytes): &(Vec<u8>, Vec<u8>)| {
        Ok((keys::staged_until(key).to_vec(), decode("staged piece", bytes)?))
    };
    rows.iter().map(piece).collect()
}

/// The rows of a staged piece, packed.
pub(crate) fn staged_rows(
    read: &dyn StateRead,
    space: &SpaceId,
    until: &[u8],
) -> Result<Vec<u8>, StoreError> {
    let rows = read.get(&keys::staged_rows(space, until))?;
    rows.ok_or_else(|| damaged("staged piece", &"its rows are missing"))
}
