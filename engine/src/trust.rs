//! Whom a listener lets in: counted as spaces change, because there may be many spaces and each of them changes alone.

use std::collections::{BTreeMap, BTreeSet};

use comity_crdts::{ReplicaId, SpaceId};

use crate::engine::Engine;
use crate::space::Space;

/// Whom a listener lets in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trust {
    /// Members, former members and pinned peers of any space.
    pub peers: BTreeSet<ReplicaId>,
    /// Whether somebody unknown may come with an invitation.
    pub invitations_open: bool,
}

/// In how many spaces each peer is trusted.
#[derive(Debug, Default)]
pub(crate) struct Trusted {
    counts: BTreeMap<ReplicaId, usize>,
    /// What was counted of each space, ascending.
    of: BTreeMap<SpaceId, Box<[ReplicaId]>>,
}

impl Trusted {
    /// Counts these peers, ascending, for a space and no longer those that were counted for it before.
    fn count(&mut self, id: SpaceId, peers: Box<[ReplicaId]>) {
        for peer in &peers {
            *self.counts.entry(*peer).or_insert(0) += 1;
        }
        let before = if peers.is_empty() { self.of.remove(&id) } else { self.of.insert(id, peers) };
        for peer in before.iter().flatten() {
            if let Some(count) = self.counts.get_mut(peer) {
                *count -= 1;
                if *count == 0 {
                    self.counts.remove(peer);
                }
            }
        }
    }

    /// What is counted of a space.
    fn of(&self, id: &SpaceId) -> &[ReplicaId] {
        self.of.get(id).map_or(&[], |peers| peers)
    }
}

impl Engine {
    /// Whom a listener lets in at present. O(peers), however many spaces there are.
    pub fn trust(&self) -> Trust {
        let peers = self.trusted.counts.keys().copied().collect();
        Trust { peers, invitations_open: !self.invitations.is_empty() }
    }

    /// Counts whom a space trusts if that may have changed, or that it is gone. O(members).
    pub(crate) fn count_trusted(&mut self, id: SpaceId) {
        match self.spaces.get_mut(&id) {
            Some(space) if space.is_trust_counted => {}
            Some(space) => {
                space.is_trust_counted = true;
                let peers = trusted_in(space);
                self.trusted.count(id, peers);
            }
            None => self.trusted.count(id, Box::default()),
        }
    }

    /// Panics when what was counted of a space is not whom it trusts: what a debug build checks after every step.
    pub(crate) fn assert_trusted(&self, space: &Space) {
        assert_eq!(*self.trusted.of(&space.id), *trusted_in(space), "a listener knows whom a space trusts");
    }
}

/// Former members too: they are told so, and no more, when they come.
fn trusted_in(space: &Space) -> Box<[ReplicaId]> {
    let peers: BTreeSet<ReplicaId> = space.roster.replicas().chain(&space.row.pinned).copied().collect();
    peers.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_is_trusted_for_as_long_as_one_space_trusts_it() {
        let [first, second] = [1, 2].map(|number| SpaceId([number; 16]));
        let [ann, bob] = [1, 2].map(|number| ReplicaId([number; 32]));
        let mut trusted = Trusted::default();
        let mut after = |id, peers: &[ReplicaId]| {
            trusted.count(id, peers.into());
            trusted.counts.keys().copied().collect::<Vec<_>>()
        };
        assert_eq!(after(first, &[ann]), [ann]);
        assert_eq!(after(second, &[ann, bob]), [ann, bob]);
        assert_eq!(after(second, &[ann, bob]), [ann, bob], "what is counted again counts once");
        assert_eq!(after(first, &[]), [ann, bob]);
        assert_eq!(after(second, &[bob]), [bob]);
        assert_eq!(after(second, &[]), []);
    }
}
